//! The embedded S3, through the client that the consumer uses.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, EncodingType, ObjectIdentifier};
use futures::future::join_all;
use tempfile::TempDir;

use super::*;

const BUCKET: &str = "lake";
const KEY: &str = "names/dt=2026-11-23/hour=05/names_topic+0+e0+00000000000000000000.parquet";

fn client_with(s3: &S3Server, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new(s3.access_key(), secret, None, None, "test"))
        .endpoint_url(s3.endpoint())
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn start() -> (TempDir, S3Server, Client) {
    let root = tempfile::tempdir().unwrap();
    let s3 = S3Server::start(root.path(), BUCKET).await.unwrap();
    let client = client_with(&s3, s3.secret_key());
    (root, s3, client)
}

fn put(client: &Client, key: &str, content: &[u8]) -> PutObjectFluentBuilder {
    client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(content.to_vec()))
}

/// The code and the status of what went wrong.
macro_rules! failure {
    ($call:expr) => {{
        let error = $call.send().await.unwrap_err();
        let status = error.raw_response().unwrap().status().as_u16();
        (status, error.into_service_error().code().unwrap_or_default().to_owned())
    }};
}

async fn content(client: &Client, key: &str) -> Vec<u8> {
    let object = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    object.body.collect().await.unwrap().to_vec()
}

async fn listed(client: &Client, prefix: &str, page: Option<i32>) -> Vec<String> {
    let pages = client.list_objects_v2().bucket(BUCKET).prefix(prefix).set_max_keys(page).into_paginator().send();
    let pages = pages.try_collect().await.unwrap();
    pages.iter().flat_map(|page| page.contents()).map(|object| object.key().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_object_and_its_metadata_survive_a_restart() {
    let (root, s3, client) = start().await;
    let put = put(&client, KEY, b"rows").metadata("end-offset", "41").metadata("note", "a+b %3D = c");
    let etag = put.content_type("application/vnd.apache.parquet").send().await.unwrap().e_tag;
    s3.stop().await;
    // A plain file of the key's name.
    assert_eq!(std::fs::read(root.path().join(BUCKET).join(KEY)).unwrap(), b"rows");

    let s3 = S3Server::start(root.path(), BUCKET).await.unwrap();
    let client = client_with(&s3, s3.secret_key());
    let head = client.head_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    assert_eq!(head.e_tag, etag);
    assert_eq!(head.content_length, Some(4));
    assert_eq!(head.content_type(), Some("application/vnd.apache.parquet"));
    let metadata = head.metadata.unwrap();
    assert_eq!((metadata["end-offset"].as_str(), metadata["note"].as_str()), ("41", "a+b %3D = c"));
    assert_eq!(content(&client, KEY).await, b"rows");
    assert_eq!(listed(&client, "", None).await, [KEY]);
}

#[tokio::test]
async fn a_missing_key_is_404_to_get_and_head_and_no_error_to_delete() {
    let (_root, _s3, client) = start().await;
    put(&client, "a/b", b"x").send().await.unwrap();
    for key in ["missing", "a", "a/b/c", "a/", "a/../a/b"] {
        assert_eq!(failure!(client.get_object().bucket(BUCKET).key(key)), (404, "NoSuchKey".to_owned()), "{key}");
        assert_eq!(failure!(client.head_object().bucket(BUCKET).key(key)).0, 404, "{key}");
        client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
    assert_eq!(content(&client, "a/b").await, b"x");
    assert_eq!(failure!(client.get_object().bucket("other").key("x")).1, "NoSuchBucket");
    assert_eq!(failure!(client.put_object().bucket("other").key("x")).1, "NoSuchBucket");
}

#[tokio::test]
async fn if_none_match_creates_and_never_replaces() {
    let (_root, _s3, client) = start().await;
    put(&client, KEY, b"first").if_none_match("*").send().await.unwrap();
    let refused = failure!(put(&client, KEY, b"second").if_none_match("*"));
    assert_eq!(refused, (412, "PreconditionFailed".to_owned()));
    assert_eq!(content(&client, KEY).await, b"first");
    client.delete_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    put(&client, KEY, b"third").if_none_match("*").send().await.unwrap();
}

#[tokio::test]
async fn if_match_replaces_the_version_that_was_read_and_no_other() {
    let (_root, _s3, client) = start().await;
    assert_eq!(failure!(put(&client, KEY, b"x").if_match("\"abc\"")), (404, "NoSuchKey".to_owned()));
    let first = put(&client, KEY, b"first").send().await.unwrap().e_tag.unwrap();
    let second = put(&client, KEY, b"other").if_match(&first).send().await.unwrap().e_tag.unwrap();
    assert_ne!(first, second);
    assert_eq!(failure!(put(&client, KEY, b"third").if_match(&first)).0, 412);
    assert_eq!(content(&client, KEY).await, b"other");
    let head = client.head_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    assert_eq!(head.e_tag, Some(second.clone()));
    assert_eq!(failure!(client.get_object().bucket(BUCKET).key(KEY).if_match(&first)).0, 412);
    client.get_object().bucket(BUCKET).key(KEY).if_match(&second).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_100_creations_at_the_same_moment_exactly_one_succeeds() {
    let (_root, _s3, client) = start().await;
    for round in 0..5 {
        let key = format!("{KEY}.{round}");
        let contents: Vec<_> = (0..100).map(|writer| format!("writer {writer}").into_bytes()).collect();
        let puts = contents.iter().map(|content| put(&client, &key, content).if_none_match("*").send());
        let results = join_all(puts).await;
        let winners: Vec<_> = (0..100).filter(|writer| results[*writer].is_ok()).collect();
        assert_eq!(winners.len(), 1);
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.raw_response().unwrap().status().as_u16(), 412);
        }
        assert_eq!(content(&client, &key).await, contents[winners[0]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_100_replacements_of_one_version_exactly_one_succeeds() {
    let (_root, _s3, client) = start().await;
    let mut etag = put(&client, KEY, b"start").send().await.unwrap().e_tag.unwrap();
    for round in 0..5 {
        let contents: Vec<_> = (0..100).map(|writer| format!("round {round} writer {writer}").into_bytes()).collect();
        let puts = contents.iter().map(|content| put(&client, KEY, content).if_match(&etag).send());
        let winners: Vec<_> = join_all(puts).await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(winners.len(), 1);
        etag = winners[0].e_tag().unwrap().to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_one_version_whole_with_its_own_metadata() {
    let (_root, _s3, client) = start().await;
    let version = |number: u32| {
        // All versions are of the same size, and differ everywhere.
        let content = format!("{number:04}").repeat(20_000).into_bytes();
        put(&client, KEY, &content).metadata("number", format!("{number:04}"))
    };
    version(0).send().await.unwrap();
    let write = async {
        for number in 1..40 {
            version(number).send().await.unwrap();
        }
    };
    let read = async {
        for _ in 0..60 {
            let object = client.get_object().bucket(BUCKET).key(KEY).send().await.unwrap();
            let number = object.metadata.as_ref().unwrap()["number"].clone();
            let content = object.body.collect().await.unwrap().to_vec();
            assert_eq!(content, number.repeat(20_000).into_bytes());
        }
    };
    futures::join!(write, read);
}

#[tokio::test]
async fn every_character_of_a_key_survives() {
    let (root, _s3, client) = start().await;
    let keys = [
        KEY,
        "names/dt=2026-11-23/hour=05/100%/a%2Fb %20.json.gz",
        "names/a b+c&d;e,f$g@h!i'j(k)l~m/ü/日本.x",
        "names/q?x=1#y",
        "names/back\\slash",
    ];
    for key in keys {
        put(&client, key, key.as_bytes()).metadata("same", "yes").send().await.unwrap();
        assert_eq!(content(&client, key).await, key.as_bytes());
        assert!(root.path().join(BUCKET).join(key).is_file(), "{key}");
        let head = client.head_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(head.metadata().unwrap()["same"], "yes");
    }
    let mut sorted = keys.map(ToOwned::to_owned);
    sorted.sort();
    assert_eq!(listed(&client, "names/", None).await, sorted);
    assert_eq!(listed(&client, "names/dt=2026-11-23/hour=05/names_topic+0+e0+", None).await, [KEY]);
    let encoded = client.list_objects_v2().bucket(BUCKET).prefix("names/dt").encoding_type(EncodingType::Url);
    let encoded = encoded.send().await.unwrap();
    assert_eq!(
        encoded.contents()[1].key(),
        Some("names/dt%3D2026-11-23/hour%3D05/names_topic%2B0%2Be0%2B00000000000000000000.parquet")
    );
}

#[tokio::test]
async fn keys_that_cannot_be_files_are_refused() {
    let (root, _s3, client) = start().await;
    put(&client, "a/b", b"x").send().await.unwrap();
    let long = "x".repeat(300);
    for key in ["../escape", "a/../../escape", "a//b", "a/./b", "folder/", "a", "a/b/c", long.as_str()] {
        assert_eq!(failure!(put(&client, key, b"x")), (400, "InvalidArgument".to_owned()), "{key}");
    }
    assert!(!root.path().join("escape").exists());
    assert_eq!(listed(&client, "", None).await, ["a/b"]);
    assert_eq!(listed(&client, "../", None).await, [""; 0]);
}

#[tokio::test]
async fn thousands_of_objects_are_listed_each_once_in_order() {
    let (root, _s3, client) = start().await;
    let mut keys = BTreeSet::new();
    for hour in 0..3 {
        let directory = format!("names/dt=2026-11-23/hour={hour:02}");
        std::fs::create_dir_all(root.path().join(BUCKET).join(&directory)).unwrap();
        for start in 0..900 {
            let key = format!("{directory}/names_topic+0+e0+{:020}.parquet", start * 17);
            std::fs::write(root.path().join(BUCKET).join(&key), b"rows").unwrap();
            keys.insert(key);
        }
    }
    // Neighbours that a careless prefix would take along, or sort wrongly.
    for key in ["names_dead_letters/x", "names/dt=2026-11-22/hour=23/y", "names/dt=2026-11-23.old"] {
        put(&client, key, b"x").send().await.unwrap();
    }
    let expected: Vec<_> = keys.iter().cloned().collect();
    assert_eq!(listed(&client, "names/dt=2026-11-23/", None).await, expected);
    assert_eq!(listed(&client, "names/dt=2026-11-23/hour=01/", Some(7)).await, expected[900..1800]);
    assert_eq!(listed(&client, "names/dt=2026-11-23/ho", Some(999)).await, expected);

    let after = client.list_objects_v2().bucket(BUCKET).prefix("names/dt=2026-11-23/").start_after(&expected[1500]);
    let after = after.max_keys(3).send().await.unwrap();
    let found: Vec<_> = after.contents().iter().map(|object| object.key().unwrap()).collect();
    assert_eq!(found, expected[1501..1504]);
    assert_eq!((after.is_truncated(), after.key_count()), (Some(true), Some(3)));
    assert_eq!(after.contents()[0].size(), Some(4));
    assert!(after.contents()[0].e_tag().is_some());

    let grouped = client.list_objects_v2().bucket(BUCKET).prefix("names/dt=2026-11-23/").delimiter("/");
    let grouped = grouped.send().await.unwrap();
    let hours: Vec<_> = grouped.common_prefixes().iter().map(|group| group.prefix().unwrap()).collect();
    assert_eq!(hours, [0, 1, 2].map(|hour| format!("names/dt=2026-11-23/hour={hour:02}/")));
    assert!(grouped.contents().is_empty());
}

#[tokio::test]
async fn parts_of_an_object_are_read() {
    let (_root, _s3, client) = start().await;
    put(&client, KEY, b"0123456789").send().await.unwrap();
    for (range, expected, of) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let part = client.get_object().bucket(BUCKET).key(KEY).range(range).send().await.unwrap();
        assert_eq!(part.content_range(), Some(of));
        assert_eq!(part.body.collect().await.unwrap().to_vec(), expected.as_bytes());
    }
    assert_eq!(failure!(client.get_object().bucket(BUCKET).key(KEY).range("bytes=10-")).0, 416);
}

#[tokio::test]
async fn an_empty_object_is_one() {
    let (_root, _s3, client) = start().await;
    put(&client, KEY, b"").metadata("records", "0").if_none_match("*").send().await.unwrap();
    let object = client.get_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    assert_eq!((object.content_length(), object.metadata().unwrap()["records"].as_str()), (Some(0), "0"));
    assert_eq!(failure!(put(&client, KEY, b"").if_none_match("*")).0, 412);
}

#[tokio::test]
async fn six_megabytes_arrive_as_the_client_sends_them_and_a_stream_in_signed_chunks() {
    let (root, _s3, client) = start().await;
    let content_of: Vec<u8> =
        (0..6_300_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let answer = put(&client, KEY, &content_of).send().await.unwrap();
    assert!(answer.checksum_crc32().is_some(), "the client sends a checksum, and gets it back");
    assert_eq!(content(&client, KEY).await, content_of);

    // From a file the body is a stream: aws-chunked, with the checksum in the trailer.
    let file = root.path().join("upload");
    std::fs::write(&file, &content_of).unwrap();
    let body = ByteStream::from_path(&file).await.unwrap();
    client.put_object().bucket(BUCKET).key("streamed").body(body).send().await.unwrap();
    assert_eq!(content(&client, "streamed").await, content_of);
}

#[tokio::test]
async fn a_wrong_checksum_is_refused() {
    let (_root, _s3, client) = start().await;
    assert_eq!(failure!(put(&client, KEY, b"x").checksum_crc32("AAAAAA==")).1, "BadDigest");
    assert_eq!(listed(&client, "", None).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_within_its_put_leaves_nothing() {
    let (root, s3, client) = start().await;
    let all = vec![b'x'; 1_000_000];
    let expires = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let signed = put(&client, KEY, &all).presigned(expires).await.unwrap();
    let address = s3.endpoint().trim_start_matches("http://").to_owned();
    let path = signed.uri().strip_prefix(&s3.endpoint()).unwrap();
    let mut head = format!("PUT {path} HTTP/1.1\r\nhost: {address}\r\n");
    for (name, value) in signed.headers() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !head.contains("content-length") {
        head.push_str(&format!("content-length: {}\r\n", all.len()));
    }
    head.push_str("connection: close\r\n\r\n");
    let send = |part: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(part).unwrap();
        stream
    };
    // The whole of it is accepted, so what is wrong with the half is that it is half.
    let mut stream = send(&all);
    let answer = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut stream).unwrap()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(content(&client, KEY).await, all);
    client.delete_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    drop(send(&all[..400_000]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(listed(&client, "", None).await, [""; 0]);
    assert_eq!(std::fs::read_dir(root.path().join(".objects/.tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_crash_between_the_two_renames_leaves_the_old_object_as_it_was() {
    let (root, s3, client) = start().await;
    put(&client, KEY, b"old").metadata("number", "1").send().await.unwrap();
    let object = root.path().join(BUCKET).join(KEY);
    let aside = root.path().join("aside");
    std::fs::hard_link(&object, &aside).unwrap();
    put(&client, KEY, b"new").metadata("number", "2").send().await.unwrap();
    s3.stop().await;
    // The new sidecar is there, and the object is still the old one.
    std::fs::rename(&aside, &object).unwrap();

    let s3 = S3Server::start(root.path(), BUCKET).await.unwrap();
    let client = client_with(&s3, s3.secret_key());
    let head = client.head_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    assert_eq!(head.metadata().unwrap()["number"], "1");
    put(&client, KEY, b"new").metadata("number", "3").if_match(head.e_tag().unwrap()).send().await.unwrap();
    let head = client.head_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    assert_eq!(head.metadata().unwrap()["number"], "3");
}

#[tokio::test]
async fn a_folder_that_was_copied_keeps_its_metadata() {
    let (root, _s3, client) = start().await;
    put(&client, KEY, b"rows").metadata("number", "1").send().await.unwrap();
    // As a copy does: another modification time.
    let object = std::fs::File::options().append(true).open(root.path().join(BUCKET).join(KEY)).unwrap();
    object.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let head = client.head_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    assert_eq!(head.metadata().unwrap()["number"], "1");
}

#[tokio::test]
async fn many_objects_are_deleted_at_once() {
    let (root, _s3, client) = start().await;
    for key in ["a/1", "a/2", "b"] {
        put(&client, key, b"x").send().await.unwrap();
    }
    let id = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete = Delete::builder().objects(id("a/1")).objects(id("b")).objects(id("missing")).build().unwrap();
    let answer = client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!((answer.deleted().len(), answer.errors().len()), (3, 0));
    assert_eq!(listed(&client, "", None).await, ["a/2"]);
    assert!(!root.path().join(".objects").join(BUCKET).join("b.json").exists());
}

#[tokio::test]
async fn who_signs_with_another_secret_is_refused() {
    let (_root, s3, client) = start().await;
    put(&client, KEY, b"x").send().await.unwrap();
    let stranger = client_with(&s3, "guessed");
    assert_eq!(failure!(stranger.get_object().bucket(BUCKET).key(KEY)).0, 403);
}

#[tokio::test]
async fn a_hook_sees_every_operation_and_can_spoil_it() {
    let (_root, s3, client) = start().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    s3.set_hook(Some(Arc::new(move |operation, key| {
        record.lock().unwrap().push(format!("{operation} {key}"));
        match key {
            "refused" => Some(Fault::Refuse),
            "lost" => Some(Fault::LoseAnswer),
            _ => None,
        }
    })));
    assert_eq!(failure!(put(&client, "refused", b"x")).0, 500);
    assert_eq!(failure!(put(&client, "lost", b"x")).0, 500);
    assert_eq!(listed(&client, "", None).await, ["lost"]);
    assert_eq!(*seen.lock().unwrap(), ["PutObject refused", "PutObject lost", "ListObjectsV2 "]);
    s3.set_hook(None);
    put(&client, "refused", b"x").send().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = S3Server::start(&file, BUCKET).await.err().unwrap();
    assert!(error.to_string().contains("file"), "{error}");
    assert!(matches!(S3Server::start(folder.path(), "No").await, Err(Error::Bucket(_))));
}
