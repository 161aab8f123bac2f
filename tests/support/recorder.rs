//! A proxy between one function and an AWS emulator. It passes everything on as it is, and notes what the function would
//! need permission for on AWS, to be held against the function's policy.
//!
//! Each function gets one of its own as its `AWS_ENDPOINT_URL`, and so tells who asked. What AWS does on a role's behalf
//! behind a call (decrypting with KMS, the event source's own calls) and MSK's sign-in pass no proxy: they are not seen.

mod calls;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::iam;

/// Larger than any request of a service that speaks JSON.
const LARGEST_JSON: usize = 16 << 20;

/// A running proxy. Dropped, it is down.
pub struct Recorder {
    address: SocketAddr,
    proxy: Arc<Proxy>,
    task: JoinHandle<()>,
}

struct Proxy {
    /// `host:port`
    upstream: String,
    /// The hosts under which a request reaches this proxy with the bucket in its path, not in its host.
    own: [String; 2],
    account: String,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    calls: BTreeSet<iam::Request>,
    unknown: BTreeSet<String>,
}

/// Requests of which it is not known what permission they need.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown(pub BTreeSet<String>);

impl Recorder {
    /// Stands before `upstream`, an `http://` URL without a path. `account` is the one that the emulator has.
    pub async fn start(upstream: &str, account: &str) -> Recorder {
        let upstream =
            upstream.strip_prefix("http://").expect("an emulator speaks http").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = [address.to_string(), format!("localhost:{}", address.port())];
        let proxy = Arc::new(Proxy { upstream, own, account: account.to_owned(), notes: Mutex::default() });
        let router = Router::new().fallback(pass_on).with_state(proxy.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Recorder { address, proxy, task }
    }

    /// For the function's `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was asked for so far.
    ///
    /// # Errors
    /// When there was a request that is not known: what is known would then not be all.
    pub fn calls(&self) -> Result<BTreeSet<iam::Request>, Unknown> {
        let notes = self.proxy.notes();
        if notes.unknown.is_empty() { Ok(notes.calls.clone()) } else { Err(Unknown(notes.unknown.clone())) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Services that speak JSON say in the body what they are about. Everything else streams.
    let (bytes, body) = if head.headers.contains_key("x-amz-target") {
        match to_bytes(body, LARGEST_JSON).await {
            Ok(bytes) => (bytes.clone(), Body::from(bytes)),
            Err(error) => {
                proxy.note_unknown(&head);
                return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
            }
        }
    } else {
        (Bytes::new(), body)
    };
    proxy.note(&head, &bytes);
    let missing = calls::to_be_told_that_it_is_missing(&head);
    match proxy.forward(Request::from_parts(head, body)).await {
        Ok(response) => {
            if response.status() == StatusCode::NOT_FOUND {
                proxy.notes().calls.extend(missing);
            }
            response
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

impl Proxy {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, head: &Parts, body: &[u8]) {
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let is_own = host.is_some_and(|host| self.own.iter().any(|own| own == host));
        match calls::calls(head, body, &self.account).filter(|_| is_own) {
            Some(calls) => self.notes().calls.extend(calls),
            None => self.note_unknown(head),
        }
    }

    fn note_unknown(&self, head: &Parts) {
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
        let service = calls::scope(head).map_or("none".to_owned(), |scope| scope.service);
        let (host, target) = (text("host"), text("x-amz-target"));
        let unknown = format!("{} {} (host {host}, service {service}, target {target})", head.method, head.uri);
        self.notes().unknown.insert(unknown);
    }

    /// On a connection of its own: one that was kept could be closed under the request, and nothing here is in a hurry.
    async fn forward(&self, request: Request) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.upstream).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?.map(Body::new))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_config::SdkConfig;
    use aws_sdk_s3::config::{Credentials, Region};
    use localstack::glue::GlueServer;
    use localstack::s3::S3Server;
    use pipeline::config::S3Config;
    use pipeline::lake::{Condition, PutRequest, S3Store, Store};
    use pipeline::secret::Secret;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::iam::Request as Call;
    use super::*;

    const ACCOUNT: &str = "123456789012";

    /// As the functions are configured.
    async fn sdk(endpoint: &str, access_key: &str, secret_key: &str) -> SdkConfig {
        pipeline::aws::loader()
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
            .endpoint_url(endpoint)
            .load()
            .await
    }

    /// Every answer is `answer`; yields what came in, byte for byte.
    async fn upstream(answer: &'static str) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    // The requests of these tests come whole, or end with this pause.
                    while let Ok(Ok(read)) =
                        tokio::time::timeout(Duration::from_millis(300), stream.read_buf(&mut request)).await
                        && read > 0
                    {}
                    let _ = sender.send(String::from_utf8(request).unwrap());
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        (url, requests)
    }

    /// Sends these bytes and returns the answer.
    async fn send(url: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The embedded S3 checks signatures, so that one changed header or path would be refused.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_behind_the_recorder_works_as_without_and_every_call_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3Server::start(folder.path(), "lake").await.unwrap();
        let recorder = Recorder::start(&s3.endpoint(), ACCOUNT).await;
        let sdk = sdk(&recorder.url(), s3.access_key(), s3.secret_key()).await;
        let config = S3Config { path_style: true, ..S3Config::default() };
        let store = S3Store::new(pipeline::aws::s3(&sdk, &config), "lake");

        let key = "names/dt=2026-11-23/hour=05/names+0.parquet";
        let put = PutRequest {
            key: key.to_owned(),
            body: vec![7; 3 << 20].into(),
            content_type: "application/octet-stream",
            metadata: [("end".to_owned(), "9".to_owned())].into(),
            condition: Condition::Absent,
        };
        store.put(put).await.unwrap();
        assert_eq!(store.get(key).await.unwrap().unwrap().body.len(), 3 << 20);
        assert_eq!(store.head(key).await.unwrap().unwrap().size, 3 << 20);
        assert_eq!(store.list("names/", None).await.unwrap().len(), 1);

        let object = format!("arn:aws:s3:::lake/{key}");
        let list = Call::new("s3:ListBucket", "arn:aws:s3:::lake");
        let mut expected = BTreeSet::from([
            Call::new("s3:GetObject", &object),
            Call::new("s3:PutObject", &object).with("s3:if-none-match", "*"),
            list.clone().with("s3:prefix", "names/"),
        ]);
        assert_eq!(recorder.calls(), Ok(expected.clone()));

        assert!(store.get("_ledger/0.json").await.unwrap().is_none());
        expected.extend([Call::new("s3:GetObject", "arn:aws:s3:::lake/_ledger/0.json"), list]);
        assert_eq!(recorder.calls(), Ok(expected));
        s3.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn glue_behind_the_recorder_works_as_without_and_every_call_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let glue = GlueServer::start(&folder.path().join("catalog.json")).await.unwrap();
        glue.ensure("CreateDatabase", &json!({"DatabaseInput": {"Name": "freshet"}})).unwrap();
        let recorder = Recorder::start(&glue.endpoint(), ACCOUNT).await;
        let client = aws_sdk_glue::Client::new(&sdk(&recorder.url(), "key", "secret").await);
        client.get_database().name("freshet").send().await.unwrap();
        let arn = |resource: &str| format!("arn:aws:glue:us-east-1:{ACCOUNT}:{resource}");
        let expected = ["catalog", "database/freshet"].map(|r| Call::new("glue:GetDatabase", arn(r)));
        assert_eq!(recorder.calls(), Ok(BTreeSet::from(expected)));
        glue.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn secrets_behind_the_recorder_are_read_and_every_call_is_noted() {
        let body = r#"{"SecretString":"hush","Parameter":{"Value":"hush"}}"#;
        let router = Router::new().fallback(move || async move { body });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let recorder = Recorder::start(&upstream, ACCOUNT).await;
        let sdk = sdk(&recorder.url(), "key", "secret").await;
        assert_eq!(Secret::at("hash-key".to_owned()).fetch(&sdk).await.unwrap(), "hush");
        assert_eq!(Secret::at("/freshet/hash-key".to_owned()).fetch(&sdk).await.unwrap(), "hush");
        let expected = [
            Call::new(
                "secretsmanager:GetSecretValue",
                format!("arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:hash-key-??????"),
            ),
            Call::new("ssm:GetParameter", format!("arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/freshet/hash-key")),
        ];
        assert_eq!(recorder.calls(), Ok(BTreeSet::from(expected)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_arrives_as_it_was_sent_and_so_does_its_answer() {
        let answer =
            "HTTP/1.1 207 Own Words\r\nx-amz-request-id: 1\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody";
        let (url, mut requests) = upstream(answer).await;
        let recorder = Recorder::start(&url, ACCOUNT).await;
        let line = "PUT /lake/a//b/../%2e%2F%C3%A9?x-id=PutObject&empty HTTP/1.1";
        let head = "host: lake.example.com\r\nauthorization: AWS4-HMAC-SHA256 Credential=A/1/r/s3/aws4_request\r\nx-amz-meta-a:  b \r\ncontent-length: 3\r\nconnection: close\r\n\r\n";
        let answered = send(&recorder.url(), &format!("{line}\r\n{head}abc")).await;
        let arrived = requests.recv().await.unwrap();
        assert!(arrived.starts_with(&format!("{line}\r\n")), "{arrived}");
        for part in [
            "host: lake.example.com\r\n",
            "authorization: AWS4-HMAC-SHA256 Credential=A/1/r/s3/aws4_request\r\n",
            "x-amz-meta-a: b",
            "\r\n\r\nabc",
        ] {
            assert!(arrived.contains(part), "{part} in {arrived}");
        }
        assert_eq!(arrived.lines().count(), 8, "nothing is added: {arrived}");
        assert!(answered.starts_with("HTTP/1.1 207 ") && answered.contains("x-amz-request-id: 1\r\n"), "{answered}");
        assert!(answered.ends_with("\r\n\r\nbody"), "{answered}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_length_of_an_object_survives_a_head() {
        let (url, _requests) = upstream("HTTP/1.1 200 OK\r\ncontent-length: 123456\r\nconnection: close\r\n\r\n").await;
        let recorder = Recorder::start(&url, ACCOUNT).await;
        let answer = send(&recorder.url(), "HEAD /lake/k HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains("content-length: 123456\r\n"), "{answer}");
    }

    /// Waiting for the whole body would stand still here: the rest is sent when the beginning has arrived.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_is_passed_on_while_it_is_still_being_sent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = format!("http://{}", listener.local_addr().unwrap());
        let recorder = Recorder::start(&upstream, ACCOUNT).await;
        let streaming = async {
            let mut client = TcpStream::connect(recorder.address).await.unwrap();
            client.write_all(b"PUT /lake/k HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc").await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let mut arrived = Vec::new();
            while !arrived.ends_with(b"abc") {
                assert!(server.read_buf(&mut arrived).await.unwrap() > 0);
            }
            client.write_all(b"def").await.unwrap();
            while !arrived.ends_with(b"def") {
                assert!(server.read_buf(&mut arrived).await.unwrap() > 0);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), streaming).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_that_is_not_known_is_passed_on_and_spoils_the_record() {
        let (url, mut requests) = upstream("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        let recorder = Recorder::start(&url, ACCOUNT).await;
        let own = recorder.address;
        let signed = |service: &str, host: &str, line: &str| {
            format!(
                "{line} HTTP/1.1\r\nhost: {host}\r\nauthorization: AWS4-HMAC-SHA256 Credential=A/1/r/{service}/aws4_request\r\nconnection: close\r\n\r\n"
            )
        };
        send(&recorder.url(), &signed("s3", &own.to_string(), "GET /lake/k")).await;
        assert_eq!(recorder.calls().unwrap().len(), 1);
        // The same path means another object where the bucket stands in the host.
        send(&recorder.url(), &signed("s3", "lake.example.com", "GET /lake/k")).await;
        send(&recorder.url(), &signed("sts", &own.to_string(), "POST /")).await;
        send(&recorder.url(), &format!("GET /health HTTP/1.1\r\nhost: {own}\r\nconnection: close\r\n\r\n")).await;
        let expected = [
            "GET /health (host OWN, service none, target none)",
            "GET /lake/k (host lake.example.com, service s3, target none)",
            "POST / (host OWN, service sts, target none)",
        ];
        let expected = expected.map(|unknown| unknown.replace("OWN", &own.to_string()));
        assert_eq!(recorder.calls(), Err(Unknown(expected.into())));
        for _ in 0..4 {
            requests.recv().await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_emulator_that_is_down_is_an_error_of_the_gateway() {
        let recorder = Recorder::start("http://127.0.0.1:1", ACCOUNT).await;
        let answer = send(&recorder.url(), "GET /lake/k HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}
