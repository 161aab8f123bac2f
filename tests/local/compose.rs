//! What docker-compose.yaml promises, by the file as `docker compose` reads it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::compose::Compose;
use crate::support::server::root;

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Host port, and whose it is.
fn published(compose: &Compose) -> BTreeMap<String, String> {
    let mut ports = BTreeMap::new();
    for (name, service) in compose.services() {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name} listens beyond the loopback");
            let taken = ports.insert(port["published"].as_str().unwrap().to_owned(), name.clone());
            assert_eq!(taken, None, "two services want one port");
        }
    }
    ports
}

#[tokio::test]
async fn every_service_is_pinned_bounded_restarted_and_checked() {
    let Some(compose) = Compose::read(&[]).await else { return };
    let ours = ["api-stand-in", "event-source", "page", "provision", "s3-gateway"];
    for (name, service) in compose.services() {
        let image = service["image"].as_str().unwrap();
        if ours.contains(&name.as_str()) {
            assert_eq!(service["build"]["dockerfile"], "localstack/Dockerfile", "{name}");
        } else {
            let tag = image.rsplit(':').next().unwrap();
            assert!(tag.trim_start_matches('v').split('.').count() == 3, "{name}: {image} is not pinned");
        }
        // Built where it is missing; `make local-up` builds what has changed.
        assert!(service["pull_policy"].is_null(), "{name}");
        assert!(service["mem_limit"].is_string(), "{name} has no memory limit");
        assert_eq!(service["networks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["freshet"], "{name}");
        // One that ends has nothing to be checked, and is not to begin again by itself.
        let ends = name == "provision";
        assert_eq!(service["restart"], if ends { "no" } else { "on-failure:3" }, "{name}");
        assert_eq!(service["healthcheck"].is_null(), ends, "{name}");
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            let ended = needed == "provision";
            let condition = if ended { "service_completed_successfully" } else { "service_healthy" };
            assert_eq!(how["condition"], condition, "{name} needs {needed}");
        }
    }
    // rpk takes `--set KEY=VALUE` in two arguments, and hands anything else to the broker, which does not know it.
    let flags = compose.service("redpanda")["command"].as_array().unwrap().iter().filter(|word| *word == "--set");
    assert_eq!((flags.count(), compose.service("redpanda")["command"].to_string().contains("--set=")), (2, false));
    // `docker compose up --wait` counts a service that has ended as failed, unless a running one waits for that.
    assert!(compose.service("event-source")["depends_on"]["provision"].is_object());
    // The page asks for what the commands ask for, and `make local-status` asks the page.
    let environment = |name: &str| compose.service(name)["environment"].clone();
    assert_eq!(environment("page"), environment("event-source"));
    assert_eq!(environment("event-source")["FRESHET_API"], "http://page:8080");
    assert!(compose.service("page")["volumes"][0]["read_only"].as_bool().unwrap());
    // A container that LocalStack starts is in a network by its name.
    let network = &compose.config["networks"]["freshet"]["name"];
    assert_eq!(compose.service("localstack")["environment"]["LAMBDA_DOCKER_NETWORK"], *network);
}

#[tokio::test]
async fn ports_are_those_of_the_readme_and_each_can_be_moved() {
    let variables = ["PAGE_PORT", "KAFKA_PORT", "SCHEMA_REGISTRY_PORT", "KAFKA_UI_PORT", "LOCALSTACK_PORT"];
    let Some(compose) = Compose::read(&[]).await else { return };
    let ports = published(&compose);
    let readme = text("README.md");
    let example = text(".env.example");
    let rows: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1))
        .filter(|cell| cell.parse::<u16>().is_ok())
        .collect();
    assert_eq!(rows, ports.keys().map(String::as_str).collect(), "README's table and docker-compose.yaml");
    for variable in variables {
        let line = example.lines().find_map(|line| line.strip_prefix(&format!("# {variable}="))).unwrap();
        assert!(ports.contains_key(line), ".env.example has {variable}={line}, which nothing listens on");
        assert!(readme.contains(&format!("`{variable}`")), "README does not say that {variable} moves a port");
    }
    // Each by its own variable, Kafka's also where Kafka tells its clients.
    let moved: Vec<(String, String)> =
        variables.iter().zip(20_001..).map(|(name, port)| ((*name).to_owned(), port.to_string())).collect();
    let moved: Vec<(&str, &str)> = moved.iter().map(|(name, port)| (name.as_str(), port.as_str())).collect();
    let compose = Compose::read(&moved).await.unwrap();
    let expected: BTreeSet<String> = moved.iter().map(|(_, port)| (*port).to_owned()).collect();
    assert_eq!(published(&compose).into_keys().collect::<BTreeSet<_>>(), expected);
    assert!(compose.service("redpanda")["command"].to_string().contains("external://localhost:20002"));
}

#[tokio::test]
async fn every_setting_is_explained_and_no_credential_is_needed_by_default() {
    let Some(compose) = Compose::read(&[]).await else { return };
    let (file, example) = (text("docker-compose.yaml"), text(".env.example"));
    for variable in file.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap()) {
        assert!(example.contains(&format!("# {variable}=")), ".env.example does not explain {variable}");
    }
    // All of it is comments: copied as it is, it changes nothing, and there is no secret in it.
    assert!(example.lines().all(|line| line.is_empty() || line.starts_with('#')));
    for (name, service) in compose.services() {
        let real = name == "s3-gateway";
        let mounts = service["volumes"].to_string();
        assert_eq!(mounts.contains(".aws"), real, "{name}: {mounts}");
        assert!(!real || service["profiles"] == serde_json::json!(["bucket"]));
        let key = &service["environment"]["AWS_ACCESS_KEY_ID"];
        assert!(key.is_null() || key == "test", "{name} has the key {key}");
    }
    // Only what the profile is for gets what .env says.
    let given = [
        ("AWS_ACCESS_KEY_ID", "AKIDMINE"),
        ("AWS_PROFILE", "mine"),
        ("S3_BUCKET", "my-lake"),
        ("S3_REGION", "eu-west-1"),
    ];
    let compose = Compose::read(&given).await.unwrap();
    for (name, service) in compose.services() {
        assert_eq!(service.to_string().contains("AKIDMINE"), name == "s3-gateway", "{name}");
    }
    let gateway = &compose.service("s3-gateway")["environment"];
    assert_eq!((&gateway["AWS_PROFILE"], &gateway["AWS_REGION"]), (&Value::from("mine"), &Value::from("eu-west-1")));
    assert!(compose.service("s3-gateway")["volumes"][0]["read_only"].as_bool().unwrap());
    assert_eq!(compose.service("event-source")["environment"]["S3_ENDPOINT"], "http://s3-gateway:4570");
}

#[test]
fn the_image_is_built_by_what_the_tests_were_built_by() {
    let dockerfile = text("localstack/Dockerfile");
    let toolchain = text("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"')).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-bookworm")), "rust-toolchain.toml has {channel}");
    let froms = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    assert!(froms.clone().count() >= 4 && froms.into_iter().all(|from| !from.contains("latest")));
    for path in dockerfile.lines().filter(|line| line.starts_with("COPY") && !line.contains("--from")) {
        for source in path.split_whitespace().skip(1).filter(|word| !word.starts_with("--") && !word.starts_with('/')) {
            let folder = source.split("/*").next().unwrap();
            assert!(root().join(folder).exists(), "{path}: there is no {folder}");
        }
    }
}
