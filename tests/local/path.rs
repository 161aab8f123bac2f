//! The way from nothing to rows, as `docker compose up` goes it.

use std::path::Path;
use std::time::Duration;

use localstack::broker::Broker;
use localstack::s3::S3Server;
use serde_json::Value;

use crate::support::compose::{Compose, Places};
use crate::support::ministack::Ministack;
use crate::support::server::{free_port, root};
use crate::support::{stack, terraform, zips};

#[tokio::test(flavor = "multi_thread")]
async fn the_stack_comes_up_and_is_whole_again_after_its_emulator_forgot_everything() {
    let Some((binaries, broker)) = stack::binaries() else { return };
    let Some(zips) = zips::folder() else { return };
    let Some(compose) = Compose::read(&[("RUN_SECONDS", "2")]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    // As LocalStack tells its functions.
    let environment = [("AWS_ENDPOINT_URL", "http://127.0.0.1:{port}")];
    let Some(ministack) = Ministack::start(folder.path(), &environment).await else { return };
    let broker = Broker::start(&broker).await.unwrap();
    image(folder.path(), &zips);
    let (api_port, page_port) = (free_port(), free_port());
    let places = Places {
        names: vec![
            ("http://localstack:4566", ministack.endpoint()),
            ("redpanda:29092", broker.bootstrap_servers()),
            ("/run/freshet", folder.path().display().to_string()),
            ("/freshet/provision.sh", root().join("localstack/provision/provision.sh").display().to_string()),
            ("0.0.0.0:8090", format!("127.0.0.1:{api_port}")),
            ("localhost:8090", format!("127.0.0.1:{api_port}")),
            ("0.0.0.0:8080", format!("127.0.0.1:{page_port}")),
            ("localhost:8080", format!("127.0.0.1:{page_port}")),
            ("page:8080", format!("127.0.0.1:{page_port}")),
        ],
        freshet: &binaries.join("freshet"),
    };
    let log = |name: &str| folder.path().join(format!("{name}.log"));

    step("the stand-in for the API");
    let service = compose.service("api-stand-in");
    let mut api = places.start(service, &log("api-stand-in"));
    places.until_healthy(service, &mut api, &log("api-stand-in")).await;
    let api_url = format!("http://127.0.0.1:{api_port}/api/?results=10");

    step("provision");
    let made = provision(&compose, &places, folder.path(), &api_url, &[]).await;
    assert!(made.contains("the emulator is new") && made.contains("freshet-names-producer was started"), "{made}");

    step("the event source polls, and says that it does");
    let service = compose.service("event-source");
    assert!(!places.is_healthy(service).await);
    let mut event_source = places.start(service, &log("event-source"));
    places.until_healthy(service, &mut event_source, &log("event-source")).await;

    step("the page shows it");
    let page = compose.service("page");
    let mut page_process = places.start(page, &log("page"));
    places.until_healthy(page, &mut page_process, &log("page")).await;

    step("what local-up waits for, local-invoke, local-query and local-verify");
    let freshet = async |arguments: &[&str]| in_container(&places, service, arguments).await;
    let status = freshet(&["status", "--wait", "120"]).await;
    assert_eq!(status.lines().filter(|line| line.starts_with("ok")).count(), 5, "{status}");
    let summary: Value = serde_json::from_str(&freshet(&["invoke"]).await).unwrap();
    assert_eq!(summary["fetched"], 10, "{summary}");
    let first = until_stored(&freshet, 20).await;
    let people = freshet(&["query", "--format", "json", "SELECT count(DISTINCT email) AS people FROM names"]).await;
    assert_eq!(serde_json::from_str::<Value>(&people).unwrap()[0]["people"], first["lake"]["rows"]);
    let broker_address = broker.bootstrap_servers();
    let verify = ["verify", "--deep", "--kafka", &broker_address];
    assert!(freshet(&verify).await.contains("clean"));
    let mut shown = first;
    // The functions' logs are asked every five seconds.
    for _ in 0..30 {
        let rows = &shown["lake"]["rows"];
        if shown["producer"]["RecordsPublished"] == *rows && shown["consumer"]["RowsStored"] == *rows {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        shown = serde_json::from_str(&freshet(&["status", "--json"]).await).unwrap();
    }
    let rows = &shown["lake"]["rows"];
    assert_eq!((&shown["producer"]["RecordsPublished"], &shown["consumer"]["RowsStored"]), (rows, rows), "{shown}");
    assert_eq!(shown["schedule"]["last_run"]["metrics"]["RecordsPublished"], 10, "{shown}");
    let answers = places.command(service, &["status"]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answers.stderr), "", "the page was asked");

    step("provisioned again, nothing changes, and a run starts");
    let outputs = std::fs::read(folder.path().join("outputs.json")).unwrap();
    let again = provision(&compose, &places, folder.path(), &api_url, &[]).await;
    assert!(again.contains("Apply complete! Resources: 0 added, 0 changed, 0 destroyed"), "{again}");
    assert_eq!(std::fs::read(folder.path().join("outputs.json")).unwrap(), outputs);
    let before = until_stored(&freshet, 30).await;

    step("the emulator forgets everything, is provisioned again, and the lake is whole again");
    ministack.reset().await;
    // What the page has just asked it does not ask again for a few seconds, each part in its own time.
    for tries in 0.. {
        let lost = places.command(service, &["status"]).output().await.unwrap();
        let said = String::from_utf8_lossy(&lost.stdout);
        if lost.status.code() == Some(1) && said.contains("freshet-names-producer is not there: provision again") {
            break;
        }
        assert!(tries < 30, "{said}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let made = provision(&compose, &places, folder.path(), &api_url, &[]).await;
    assert!(made.contains("the emulator is new"), "{made}");
    let rows = before["lake"]["rows"].as_u64().unwrap();
    let after = until_stored(&freshet, rows + 10).await;
    let group = |status: &Value| status["consumer"]["consumer_group_id"].clone();
    assert_ne!(group(&before), group(&after));
    assert!(freshet(&verify).await.contains("clean"), "every record of the topic, from its beginning");

    step("to a bucket of one's own, whose credentials the gateway alone has");
    let lake = folder.path().join("lake");
    std::fs::create_dir(&lake).unwrap();
    let s3 = S3Server::start(&lake, "my-lake").await.unwrap();
    let gateway_port = free_port();
    let variables = [("S3_BUCKET", "my-lake"), ("S3_REGION", "eu-west-1"), ("RUN_SECONDS", "2")];
    let compose = Compose::read(&variables).await.unwrap();
    let mut places = places;
    for there in ["0.0.0.0:4570", "localhost:4570", "s3-gateway:4570"] {
        places.names.push((there, format!("127.0.0.1:{gateway_port}")));
    }
    let real_aws = [
        ("AWS_ENDPOINT_URL_S3", s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", s3.access_key().to_owned()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key().to_owned()),
    ];
    let service = compose.service("s3-gateway");
    let mut gateway = places.command(service, &["s3-gateway", "--listen", &format!("127.0.0.1:{gateway_port}")]);
    let mut gateway = gateway.envs(real_aws).spawn().unwrap();
    places.until_healthy(service, &mut gateway, &log("s3-gateway")).await;
    event_source.kill().await.unwrap();
    ministack.reset().await;
    let endpoint = format!("http://127.0.0.1:{gateway_port}");
    let made = provision(&compose, &places, folder.path(), &api_url, &[("S3_ENDPOINT", &endpoint)]).await;
    assert!(!made.contains("aws_s3_bucket"), "{made}");
    let service = compose.service("event-source");
    let mut event_source = places.start(service, &log("event-source"));
    page_process.kill().await.unwrap();
    let alone = places.command(service, &["status", "--wait", "120"]).output().await.unwrap();
    let noted = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.success() && noted.contains("does not answer") && noted.contains("directly"), "{alone:?}");
    let freshet = async |arguments: &[&str]| in_container(&places, service, arguments).await;
    let stored = until_stored(&freshet, 10).await;
    assert_ne!(group(&stored), group(&after));
    let key = std::fs::read_to_string(folder.path().join("hash-key")).unwrap();
    assert!(key.len() == 64 && !made.contains(&key), "a key that outlives the emulator");
    assert!(freshet(&verify).await.contains("verify s3://my-lake/names: clean"));
    assert!(
        lake.join("my-lake/names").is_dir() && lake.join("my-lake/_ledger").is_dir(),
        "it lies in the bucket itself"
    );

    step("stopped, it commits and goes");
    let id = event_source.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), event_source.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{}", std::fs::read_to_string(log("event-source")).unwrap());
    assert!(!folder.path().join("event-source.json").exists());
    broker.stop().await.unwrap();
}

fn step(name: &str) {
    println!("• {name}");
}

/// What localstack/Dockerfile puts into the image `provision`: infra/ with the files of localstack/provision/ over it, datasets/, the zips.
pub fn image(folder: &Path, zips: &Path) {
    let root = root();
    terraform::copy(&root.join("infra"), &folder.join("infra")).unwrap();
    terraform::copy(&root.join("datasets"), &folder.join("datasets")).unwrap();
    for file in std::fs::read_dir(root.join("localstack/provision")).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "provision.sh" {
            std::fs::copy(file.path(), folder.join("infra").join(file.file_name())).unwrap();
        }
    }
    let target = folder.join("target/lambda");
    std::fs::create_dir_all(&target).unwrap();
    std::os::unix::fs::symlink(zips, target.join(zips::architecture())).unwrap();
}

/// Runs the service to its end; what it said.
pub async fn provision(
    compose: &Compose,
    places: &Places<'_>,
    folder: &Path,
    api_url: &str,
    more: &[(&str, &str)],
) -> String {
    let infra = folder.join("infra");
    let plugins = std::env::var("TERRAFORM_PLUGIN_DIR").unwrap_or_default();
    let mut environment = vec![
        ("TERRAFORM_FOLDER", infra.to_str().unwrap()),
        ("FRESHET", places.freshet.to_str().unwrap()),
        ("API_URL", api_url),
        ("TF_CLI_CONFIG_FILE", "/dev/null"),
        ("TERRAFORM_PLUGIN_DIR", &plugins),
        ("HOME", folder.to_str().unwrap()),
    ];
    environment.extend(more);
    let run = places.run(compose.service("provision"), &environment);
    let output = tokio::time::timeout(Duration::from_secs(600), run).await.unwrap();
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}");
    text
}

/// One command in the container of the event source, as the make targets run it.
async fn in_container(places: &Places<'_>, service: &Value, arguments: &[&str]) -> String {
    let output = places.command(service, arguments).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The status once so many rows or more are stored, and none is on its way.
async fn until_stored(freshet: &impl AsyncFn(&[&str]) -> String, rows: u64) -> Value {
    for _ in 0..120 {
        let status: Value = serde_json::from_str(&freshet(&["status", "--wait", "120", "--json"]).await).unwrap();
        let stored = status["lake"]["rows"].as_u64().unwrap_or_default();
        if stored >= rows && status["topic"]["lag"] == 0 && status["topic"]["records"] == stored {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("less than {rows} rows after a minute");
}
