//! The gateway to a real bucket, before the embedded S3, which wants its own credentials.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use bytes::Bytes;
use localstack::{s3::S3Server, s3_gateway::S3Gateway};
use pipeline::config::S3Config;
use pipeline::lake::{Condition, Put, PutRequest, S3Store, Store};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Reaches `endpoint` with these credentials.
async fn sdk(endpoint: &str, key: &str, secret: &str) -> SdkConfig {
    let credentials = Credentials::new(key, secret, None, None, "test");
    let loader = pipeline::aws::loader().region(Region::new("eu-west-1")).endpoint_url(endpoint);
    loader.credentials_provider(SharedCredentialsProvider::new(credentials)).load().await
}

async fn store(gateway: &S3Gateway, bucket: &str) -> S3Store {
    let sdk = sdk(&gateway.endpoint(), "emulators", "own").await;
    let config = S3Config { path_style: true, ..S3Config::default() };
    S3Store::new(pipeline::aws::s3(&sdk, &config), bucket)
}

fn put(key: &str, body: &'static [u8], condition: Condition) -> PutRequest {
    PutRequest {
        key: key.to_owned(),
        body: Bytes::from_static(body),
        content_type: "application/json",
        metadata: HashMap::from([("next".to_owned(), "17".to_owned())]),
        condition,
    }
}

#[tokio::test]
async fn a_store_behind_it_is_the_bucket_itself_conditions_included() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start(folder.path(), "mine").await.unwrap();
    let real = sdk(&s3.endpoint(), s3.access_key(), s3.secret_key()).await;
    let gateway = S3Gateway::start(LOOPBACK, &real, None, "mine").await.unwrap();
    let store = store(&gateway, "mine").await;

    // A key with all that a path must escape.
    let key = "names/dt=2026-11-25/hour=01/a b+c%2F=é-0.json";
    let Put::Stored { etag } = store.put(put(key, b"{}", Condition::Absent)).await.unwrap() else { panic!() };
    assert!(matches!(store.put(put(key, b"[]", Condition::Absent)).await.unwrap(), Put::Refused));
    assert!(matches!(
        store.put(put(key, b"[]", Condition::Matches("\"other\"".to_owned()))).await.unwrap(),
        Put::Refused
    ));
    assert!(matches!(store.put(put(key, b"[1]", Condition::Matches(etag))).await.unwrap(), Put::Stored { .. }));

    assert_eq!(store.get(key).await.unwrap().unwrap().body.as_ref(), b"[1]");
    assert_eq!(store.get("names/none").await.unwrap().map(|object| object.body), None);
    let head = store.head(key).await.unwrap().unwrap();
    assert_eq!((head.size, head.metadata["next"].as_str()), (3, "17"));
    let listed = store.list("names/", None).await.unwrap();
    assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), [key]);
}

#[tokio::test]
async fn it_passes_on_nothing_but_its_own_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start(folder.path(), "mine").await.unwrap();
    // Lies beside it, and the same credentials would do.
    std::fs::create_dir(folder.path().join("mine-too")).unwrap();
    let real = sdk(&s3.endpoint(), s3.access_key(), s3.secret_key()).await;
    let gateway = S3Gateway::start(LOOPBACK, &real, None, "mine").await.unwrap();
    let error = store(&gateway, "mine-too").await.list("", None).await.unwrap_err().to_string();
    assert!(error.contains("of its bucket alone"), "{error}");
    let sdk = sdk(&gateway.endpoint(), "any", "any").await;
    let client = pipeline::aws::s3(&sdk, &S3Config { path_style: true, ..S3Config::default() });
    let deleted = client.delete_object().bucket("mine").key("k").send().await.unwrap_err();
    assert_eq!(deleted.raw_response().unwrap().status().as_u16(), 403);
    // Reads another bucket by writing into this one.
    let copied = client.copy_object().bucket("mine").key("k").copy_source("mine-too/secret").send().await.unwrap_err();
    assert_eq!(copied.raw_response().unwrap().status().as_u16(), 403);
    for (method, path) in [
        ("PUT", "/mine"),
        ("PUT", "/mine?policy"),
        ("PUT", "/mine/k?acl"),
        ("GET", "/mine?policy"),
        ("GET", "/mine/../mine-too/k"),
        ("GET", "/mine/%2e%2e/mine-too/k"),
        ("GET", "/mine/%2E%2E%2Fmine-too/k"),
        ("GET", "//mine/k"),
        ("POST", "/mine/k?uploads"),
    ] {
        assert_eq!(raw(&gateway, method, path).await, 403, "{method} {path}");
    }
    assert_eq!(raw(&gateway, "GET", "/").await, 200, "its health");
}

/// The status of an answer to a request as it stands.
async fn raw(gateway: &S3Gateway, method: &str, path: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = gateway.endpoint().replace("http://", "");
    let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_bucket_that_cannot_be_used_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3Server::start(folder.path(), "mine").await.unwrap();
    let right = sdk(&s3.endpoint(), s3.access_key(), s3.secret_key()).await;
    let error = S3Gateway::start(LOOPBACK, &right, None, "nobodys").await.unwrap_err().to_string();
    assert!(error.contains("nobodys") && error.contains("aws s3 mb"), "{error}");
    let wrong = sdk(&s3.endpoint(), "wrong", "wrong").await;
    let error = S3Gateway::start(LOOPBACK, &wrong, None, "mine").await.unwrap_err().to_string();
    assert!(error.contains("s3:ListBucket"), "{error}");
    let gateway = S3Gateway::start(LOOPBACK, &right, None, "mine").await.unwrap();
    let port: u16 = gateway.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    let taken = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let error = S3Gateway::start(taken, &right, None, "mine").await.unwrap_err().to_string();
    assert!(error.contains(&port.to_string()), "{error}");
}
