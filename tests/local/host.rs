//! LocalStack 4.14.0 itself, without containers: provisioned by the same script, invoking nothing.

use std::collections::HashMap;

use bytes::Bytes;
use pipeline::config::S3Config;
use pipeline::lake::{Condition, Put, PutRequest, S3Store, Store};

use super::path::{image, provision};
use crate::support::aws_api::AwsApi;
use crate::support::compose::{Compose, Places};
use crate::support::localstack::LocalStack;
use crate::support::server::root;
use crate::support::{stack, zips};

const REGION: &str = "us-east-1";

/// Everything but what a running function is needed for, and what hangs on that.
fn targets() -> String {
    let left_out = [
        "aws_lambda_invocation.",
        "aws_cloudwatch_event_target.",
        "aws_lambda_event_source_mapping.",
        "aws_glue",
        "aws_athena",
        "aws_msk",
        "aws_appautoscaling",
    ];
    let mut targets = vec!["-target=module.hash_key".to_owned()];
    for folder in ["infra", "localstack/provision"] {
        for file in std::fs::read_dir(root().join(folder)).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
            for line in text.lines().filter_map(|line| line.strip_prefix("resource \"")) {
                // `type" "name" {`
                let address = line.split('"').take(3).filter(|part| *part != " ").collect::<Vec<_>>().join(".");
                if !left_out.iter().any(|name| address.starts_with(name)) {
                    targets.push(format!("-target={address}"));
                }
            }
        }
    }
    targets.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn localstack_takes_the_configuration_and_its_s3_keeps_the_conditions() {
    let Some((binaries, _)) = stack::binaries() else { return };
    let Some(zips) = zips::folder() else { return };
    let Some(compose) = Compose::read(&[]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let service = compose.service("localstack")["environment"].as_object().unwrap();
    let environment: Vec<_> = service.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
    let Some(localstack) = LocalStack::start(folder.path(), &environment).await else { return };
    image(folder.path(), &zips);
    let places = Places {
        names: vec![
            ("http://localstack:4566", localstack.endpoint()),
            ("http://localhost:4566", localstack.endpoint()),
            ("/run/freshet", folder.path().display().to_string()),
            ("/freshet/provision.sh", root().join("localstack/provision/provision.sh").display().to_string()),
        ],
        freshet: &binaries.join("freshet"),
    };
    assert!(places.is_healthy(compose.service("localstack")).await, "by the health check of docker-compose.yaml");

    // Its own arguments apart, `terraform apply` is that of every provisioning; the first run is left out.
    let targets = targets();
    let more = [("TF_CLI_ARGS_apply", targets.as_str()), ("FRESHET", "/bin/true")];
    let made = provision(&compose, &places, folder.path(), "", &more).await;
    println!("{}", made.lines().find(|line| line.starts_with("Apply complete")).unwrap_or_else(|| panic!("{made}")));
    assert!(made.contains("the emulator is new"), "{made}");
    let again = provision(&compose, &places, folder.path(), "", &more).await;
    assert!(again.contains("Resources: 0 added, 0 changed, 0 destroyed"), "{again}");

    let aws = AwsApi::new(&localstack.endpoint(), REGION).await;
    let keys = aws.secrets("freshet").await;
    assert!(keys.len() == 1 && keys[0].len() == 64 && !made.contains(&keys[0]) && !localstack.log().contains(&keys[0]));
    for function in ["freshet-names-producer", "freshet-names-consumer"] {
        assert!(!aws.code_sha256(function).await.is_empty(), "{function}");
    }

    // What exactly once stands on, against many at once.
    let config = S3Config { path_style: true, ..S3Config::default() };
    let store = S3Store::new(pipeline::aws::s3(&aws.sdk, &config), "freshet-lake");
    for round in 0..10 {
        let key = format!("names/race-{round}");
        assert_eq!(winners(&store, &key, &Condition::Absent).await, 1);
        let etag = store.head(&key).await.unwrap().unwrap().etag;
        assert_eq!(winners(&store, &key, &Condition::Matches(etag)).await, 1);
    }
    assert_eq!(listening_beyond_the_loopback(&localstack.endpoint()), Vec::<String>::new());
}

/// How many of sixteen attempts on one key succeed. No two bodies of a key are the same: their ETags would be, too.
async fn winners(store: &S3Store, key: &str, condition: &Condition) -> usize {
    let attempt = |n: usize| PutRequest {
        key: key.to_owned(),
        body: Bytes::from(format!("attempt {n} with {condition:?}")),
        content_type: "application/json",
        metadata: HashMap::new(),
        condition: condition.clone(),
    };
    let attempts = (0..16).map(|n| {
        let (store, request) = (store.clone(), attempt(n));
        tokio::spawn(async move { store.put(request).await.unwrap() })
    });
    let mut stored = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        stored += usize::from(matches!(attempt.await.unwrap(), Put::Stored { .. }));
    }
    stored
}

/// Sockets of the process that listens at this address, on other addresses than the loopback's.
fn listening_beyond_the_loopback(endpoint: &str) -> Vec<String> {
    let port: u16 = endpoint.rsplit(':').next().unwrap().parse().unwrap();
    // Only Linux tells.
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return Vec::new() };
    let listeners = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A"));
    let local = listeners.filter_map(|line| line.split_whitespace().nth(1));
    let at_port: Vec<_> = local.filter(|address| address.ends_with(&format!(":{port:04X}"))).collect();
    assert!(!at_port.is_empty());
    at_port.into_iter().filter(|address| !address.starts_with("0100007F:")).map(str::to_owned).collect()
}
