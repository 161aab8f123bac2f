//! A gateway to one real bucket: requests come in with whatever signature, and go on with one of the ordinary credential
//! chain (a profile, SSO, keys of the environment). So the functions in an emulator, which have the emulator's credentials,
//! write to a bucket on AWS, and no real credential leaves this process.
//!
//! Whoever can reach it can read and write that bucket: it belongs on a network of its own, or on the loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use pipeline::aws::signed::{self, Answer, Client, Service};

use crate::server::Server;

const SERVICE: Service = Service { id: "S3", name: "s3" };
/// Of one request with its answer: less than what the functions wait for.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Several times the largest data object: an event has 6 MB.
const LARGEST_BODY: usize = 64 << 20;
/// What a lake's readers and writers ask for, and nothing that changes the bucket, or names another one (`x-amz-copy-source`).
const HEADERS: [&str; 8] = [
    "content-type",
    "content-md5",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
    "x-amz-sdk-checksum-algorithm",
];
const HEADER_PREFIXES: [&str; 2] = ["x-amz-checksum-", "x-amz-meta-"];
/// Of a listing and of an object. `x-id` is the SDK's name of the operation.
const READ_PARAMETERS: [&str; 10] = [
    "continuation-token",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "list-type",
    "max-keys",
    "prefix",
    "start-after",
    "versionId",
    "x-id",
];
/// Of an answer, belong to one connection.
const OWN_HEADERS: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the S3 gateway cannot listen on {0} ({1}): free that port, or name another one")]
    Listen(SocketAddr, std::io::Error),
    #[error(transparent)]
    Client(#[from] signed::Error),
    #[error("the bucket {bucket} cannot be used: {reason}")]
    Bucket { bucket: String, reason: String },
}

/// A running gateway. Dropped, it stops.
#[derive(Debug)]
pub struct S3Gateway {
    server: Server,
}

#[derive(Debug)]
struct Upstream {
    client: Client,
    bucket: String,
}

impl S3Gateway {
    /// Asks for the bucket first, so that a wrong name, region or credential is said at once. Passes on to
    /// `AWS_ENDPOINT_URL_S3` where that is set, else to the region's own S3. `region` wins over the configured one.
    ///
    /// # Errors
    /// When the port is taken, no credentials are found, or the bucket does not answer to them.
    pub async fn start(
        address: SocketAddr,
        sdk: &SdkConfig,
        region: Option<&str>,
        bucket: &str,
    ) -> Result<S3Gateway, Error> {
        let upstream = Upstream { client: Client::new(sdk, SERVICE, region)?, bucket: bucket.to_owned() };
        upstream.look().await?;
        let router = Router::new().fallback(pass_on).with_state(Arc::new(upstream));
        let server = Server::start_at(address, router).await.map_err(|e| Error::Listen(address, e))?;
        Ok(S3Gateway { server })
    }

    /// For `S3_ENDPOINT`, with `S3_PATH_STYLE_ACCESS=true`.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }
}

impl Upstream {
    async fn look(&self) -> Result<(), Error> {
        let path = format!("/{}", self.bucket);
        let answer = self.client.send(Method::HEAD, &path, &[], Bytes::new(), TIME_LIMIT).await?;
        let region = answer.headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let reason = match answer.status {
            200 => return Ok(()),
            301 | 400 if region.is_some() => format!("it lies in {}: set S3_REGION to that", region.unwrap_or_default()),
            403 => "these credentials may not list it: they need s3:ListBucket on it and s3:GetObject, s3:PutObject on its objects; \
                    `aws s3api head-bucket` with the same profile shows the same"
                .to_owned(),
            404 => "there is none of that name: make it first (aws s3 mb), or correct S3_BUCKET".to_owned(),
            status => format!("S3 answers with status {status}: check S3_BUCKET, S3_REGION and the credentials"),
        };
        Err(Error::Bucket { bucket: self.bucket.clone(), reason })
    }

    /// Whether a request reads or writes objects of this bucket, and does nothing else.
    fn allows(&self, method: &Method, uri: &Uri) -> bool {
        let Some(rest) = uri.path().strip_prefix('/').and_then(|path| path.strip_prefix(self.bucket.as_str())) else {
            return false;
        };
        let key = match rest.strip_prefix('/') {
            Some(key) => percent_decode_str(key).collect::<Vec<u8>>(),
            None if rest.is_empty() => Vec::new(),
            None => return false,
        };
        // Who normalises paths would be led elsewhere.
        let climbs = key.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..");
        let known = |names: &[&str]| {
            let parameters = uri.query().unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
            parameters
                .map(|parameter| parameter.split('=').next().unwrap_or_default())
                .all(|name| names.contains(&name))
        };
        let allowed = match *method {
            Method::GET | Method::HEAD => known(&READ_PARAMETERS),
            Method::PUT => !key.is_empty() && known(&["x-id"]),
            _ => false,
        };
        allowed && !climbs
    }
}

async fn pass_on(State(upstream): State<Arc<Upstream>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // The health check.
    if head.uri.path() == "/" {
        return match upstream.look().await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &error.to_string()),
        };
    }
    let copies = head.headers.contains_key("x-amz-copy-source");
    if !upstream.allows(&head.method, &head.uri) || copies {
        let message = "This gateway reads, lists and writes objects of its bucket alone.";
        return refuse(StatusCode::FORBIDDEN, "AccessDenied", message);
    }
    // Such a body has signatures in between, which would be stored with it.
    let hash = head.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if hash.starts_with("STREAMING-") {
        return refuse(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "This gateway takes no chunked signatures.");
    }
    let body = match to_bytes(body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "EntityTooLarge", &error.to_string()),
    };
    let wanted = |name: &str| HEADERS.contains(&name) || HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let headers = head.headers.iter().filter(|(name, _)| wanted(name.as_str()));
    let headers: Vec<(&str, &str)> =
        headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    match upstream.client.send(head.method.clone(), path, &headers, body, TIME_LIMIT).await {
        Ok(answer) => answered(answer, &head.method),
        Err(error) => {
            tracing::warn!(%error, "A request could not be passed on to S3; check the network and the credentials.");
            // The client tries again, as it does when S3 itself is out of reach.
            refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "S3 did not answer; the gateway's log says why.",
            )
        }
    }
}

fn answered(answer: Answer, method: &Method) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in answer.headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str())) {
        response.headers_mut().append(name, value.clone());
    }
    // The length of the object that a HEAD is about, which has no body to count.
    if *method == Method::HEAD
        && let Some(length) = answer.headers.get(header::CONTENT_LENGTH)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.clone());
    }
    response
}

/// An error in S3's own form, so that clients can read it.
fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}
