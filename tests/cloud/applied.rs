//! `infra/` applied for real to an emulator that runs Lambdas, with Kafka brought along: what a person with an account goes through, in that order.
//!
//! Not here, because no emulator has it: MSK, the event source mapping (ours polls in its place, set up from Terraform's outputs) and the network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use bytes::Bytes;
use freshet::Lake;
use freshet::catalog::Catalog;
use localstack::api::{Api, ApiOptions};
use localstack::broker::Broker;
use localstack::event_source::{EventSource, LambdaFunction, Mapping};
use pipeline::config::{LakeConfig, S3Config};
use pipeline::dataset::Dataset;
use pipeline::lake::{DEAD_LETTER_COLUMNS, PARTITION_COLUMNS, hive_columns};
use serde_json::{Value, json};

use super::athena::Athena;
use crate::support::aws_api::AwsApi;
use crate::support::iam::{self, Policy};
use crate::support::ministack::Ministack;
use crate::support::recorder::Recorder;
use crate::support::terraform::Terraform;
use crate::support::trino::Trino;
use crate::support::{people, stack, zips};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";
const NAME: &str = "freshet";
/// Longer than a run takes to its first fetch, and from one to the next, on a busy machine.
const QUIET: Duration = Duration::from_secs(10);

/// EC2 knows no narrower resource for these; everything else is named.
const WITHOUT_RESOURCE: [&str; 8] = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ec2:UnassignPrivateIpAddresses",
];

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_rows_in_athena_and_back_to_nothing() {
    let Some((_, broker)) = stack::binaries() else { return };
    let Some(zips) = zips::folder() else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(ministack) = Ministack::start(folder.path(), &[]).await else { return };

    // What Terraform does not make here: Kafka and the API. Between each function and AWS stands a recorder.
    let broker = Broker::start(&broker).await.unwrap();
    let api = Api::start(ApiOptions { distinct: true, ..ApiOptions::default() }).await.unwrap();
    let recorders = Recorders::start(&ministack.endpoint()).await;
    let datasets = [shipped(folder.path()), as_ndjson(folder.path())];
    let variables = json!({
        "name": NAME,
        "region": REGION,
        "endpoint_url": ministack.endpoint(),
        "datasets": datasets.each_ref().map(|d| &d.path),
        "architecture": zips::architecture(),
        "zip_folder": zips,
        "force_destroy": true,
        "create_cluster": false,
        "kafka": {"bootstrap_servers": [broker.bootstrap_servers()], "authentication": "none", "tls": false},
        "create_event_source_mapping": false,
        "batching_window_seconds": 1,
        "alarm_email": "on-call@example.com",
        "consumer_environment": {"AWS_ENDPOINT_URL": recorders.consumer.url()},
        "producer_environment": {
            "AWS_ENDPOINT_URL": recorders.producer.url(),
            "API_URL": format!("{}?results=40", api.url()),
            "RUN_SECONDS": "3",
            "FETCH_EVERY_SECONDS": "1",
            "TOPIC_REPLICATION_FACTOR": "1",
        },
    });
    let Some(terraform) = Terraform::init(folder.path(), &variables).await else { return };
    let aws = AwsApi::new(&ministack.endpoint(), REGION).await;

    step("apply from nothing; a second plan is empty");
    terraform.apply().await;
    let plan = terraform.plan_is_empty().await;
    let outputs = terraform.outputs().await;

    step("the schedule fires the producers; the topics are polled as Terraform says");
    let lakes = datasets.each_ref().map(|dataset| open(dataset, &outputs, &aws.sdk));
    let sources = poll(&datasets, &outputs, &aws.sdk);
    for lake in &lakes {
        until("rows in the lake", async || rows(lake).await > 0).await;
    }

    step("paused, no further run starts, and what is on the topics is still stored");
    terraform.set("schedule_enabled", &json!(false));
    terraform.apply().await;
    at_rest(&api).await;
    poison(&broker, &datasets[0].dataset.topic.name).await;
    for source in &sources {
        tokio::time::timeout(Duration::from_secs(120), source.drained()).await.unwrap();
    }
    let mut stored = BTreeMap::new();
    for lake in &lakes {
        stored.insert(lake.dataset.name.clone(), verify(lake, &broker).await);
    }
    assert_eq!(stored.values().sum::<u64>(), api.served(), "each person that the API gave is one row");

    step("the tables' columns are the datasets'");
    for dataset in &datasets {
        check_tables(&aws, &dataset.dataset).await;
    }

    step("Athena's API answers with the rows");
    let athena = Athena::new(&aws, NAME, NAME);
    for (name, count) in &stored {
        assert_eq!(athena.query(&format!("SELECT count(*) FROM {name}")).await, [[count.to_string()]]);
    }
    // Either dataset may have been the first to ask the API, whose people are all different.
    let mathis =
        |table| format!("SELECT name, city, nation FROM {table} WHERE email = 'mathis.berthelsen@example.com'");
    let found = [athena.query(&mathis("names")).await, athena.query(&mathis("people")).await].concat();
    assert_eq!(found, [["Mr. Mathis Berthelsen", "Bybrua", "Norway"]]);

    step("Athena's engine reads both formats, value by value");
    let (glue, s3) = (ministack.endpoint(), ministack.endpoint());
    let trino = Trino::start(folder.path(), &glue, &s3, REGION).await.map(|trino| trino.in_database(NAME));
    if let Some(trino) = &trino {
        for lake in &lakes {
            engine_reads(trino, lake, stored[&lake.dataset.name]).await;
        }
        let both = [trino.query("SELECT * FROM names").await, trino.query("SELECT * FROM people").await];
        people::check_mathis(&both.map(Result::unwrap).concat());
        engine_runs_the_saved_queries(trino, &aws).await;
        engine_sees_registered_partitions_only(trino, &aws, &lakes[0]).await;
    }

    step("each call that the functions made is allowed, and nothing wider than it need be");
    let resources = terraform.resources().await;
    recorders.check(&resources, &datasets);

    step("the hash's key is in no state, no plan and no log");
    let keys = aws.secrets(NAME).await;
    assert_eq!(keys.len(), datasets.len(), "a key for each dataset that hashes");
    for key in &keys {
        assert!(key.len() >= 32);
        for (place, text) in [("state", terraform.state()), ("plan", plan.to_string()), ("log", ministack.log())] {
            assert!(!text.contains(key.as_str()), "the hash's key stands in the {place}");
        }
    }

    step("cargo lambda deploy ships changed code, and Terraform wants nothing back");
    let functions = outputs["functions"]["value"]["names"].clone();
    let changed = changed_code(folder.path());
    for function in ["producer", "consumer"] {
        let name = functions[function].as_str().unwrap();
        let before = aws.code_sha256(name).await;
        zips::deploy(name, function, &changed, &ministack.endpoint(), REGION).await;
        assert_ne!(aws.code_sha256(name).await, before, "{name} has new code");
    }
    terraform.plan_is_empty().await;
    let producer = LambdaFunction::new(&aws.sdk, functions["producer"].as_str().unwrap()).unwrap();
    let run = async |lake: &Lake| {
        producer.invoke(Bytes::from_static(stack::SCHEDULED_EVENT)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(120), sources[0].drained()).await.unwrap();
        verify(lake, &broker).await
    };
    let before = run(&lakes[0]).await;
    assert!(before > stored["names"], "the changed code stored more rows");

    step("a column that is appended is read, also in directories that were registered before it");
    let longer = append_column(&datasets[0]);
    terraform.apply().await;
    terraform.plan_is_empty().await;
    check_tables(&aws, &longer.dataset).await;
    let after = run(&open(&longer, &outputs, &aws.sdk)).await;
    if let Some(trino) = &trino {
        let counts = trino.query("SELECT count(phone) AS phones, count(*) AS n FROM names").await.unwrap();
        assert_eq!(counts, [json!({"phones": after - before, "n": after})]);
    }

    step("destroy leaves nothing");
    assert!(aws.everything_named(NAME).await.len() >= 10, "the look that finds nothing afterwards finds much before");
    for source in sources {
        source.stop().await;
    }
    terraform.destroy().await;
    assert_eq!(aws.everything_named(NAME).await, Vec::<String>::new());
    broker.stop().await.unwrap();
}

/// A dataset file of this test, and what it says.
struct TestDataset {
    path: PathBuf,
    dataset: Dataset,
}

/// The dataset as shipped, but for a schedule that a test can wait for.
fn shipped(folder: &Path) -> TestDataset {
    changed(folder, "names", &[])
}

/// The same people as NDJSON, in a table of their own.
fn as_ndjson(folder: &Path) -> TestDataset {
    let changes = [
        ("name: names\n", "name: people\n"),
        ("names_topic", "people_topic"),
        ("prefix: names", "prefix: lake/people"),
        ("format: parquet", "format: ndjson"),
        ("codec: zstd", "codec: gzip"),
        ("FROM names", "FROM people"),
    ];
    changed(folder, "people", &changes)
}

fn changed(folder: &Path, name: &str, changes: &[(&str, &str)]) -> TestDataset {
    let schedule = [("every_minutes: 5", "every_minutes: 1"), ("run_seconds: 120", "run_seconds: 30")];
    let mut text = include_str!("../../datasets/names.yaml").to_owned();
    for (from, to) in schedule.iter().chain(changes) {
        assert!(text.contains(from), "datasets/names.yaml has no `{from}`");
        text = text.replace(from, to);
    }
    let path = folder.join(format!("{name}.yaml"));
    std::fs::write(&path, &text).unwrap();
    TestDataset { dataset: Dataset::parse(name, &text).unwrap(), path }
}

/// The same dataset with one more column, in the same file.
fn append_column(dataset: &TestDataset) -> TestDataset {
    let text = std::fs::read_to_string(&dataset.path).unwrap();
    let (columns, queries) = text.split_once("\n# Beside the queries").unwrap();
    let column = "  - { id: 109, name: phone, type: string, expression: phone }\n";
    let text = format!("{columns}{column}\n# Beside the queries{queries}");
    std::fs::write(&dataset.path, &text).unwrap();
    TestDataset { dataset: Dataset::parse("names", &text).unwrap(), path: dataset.path.clone() }
}

struct Recorders {
    producer: Recorder,
    consumer: Recorder,
}

impl Recorders {
    async fn start(upstream: &str) -> Recorders {
        Recorders {
            producer: Recorder::start(upstream, ACCOUNT).await,
            consumer: Recorder::start(upstream, ACCOUNT).await,
        }
    }

    /// Both functions' calls against the policies of both functions. A call of one dataset's function is allowed by that one's policy; which
    /// dataset a call was for is in its resource.
    fn check(&self, resources: &[Value], datasets: &[TestDataset]) {
        for (function, recorder) in [("producer", &self.producer), ("consumer", &self.consumer)] {
            let policies: Vec<_> = datasets.iter().map(|d| policy(resources, function, &d.dataset.name)).collect();
            for policy in &policies {
                assert_eq!(iam::scan(policy, &WITHOUT_RESOURCE), [], "the {function}'s policy");
            }
            let calls = recorder.calls().unwrap();
            assert!(!calls.is_empty());
            for call in calls {
                let decision = iam::decide(&policies, &call);
                assert_eq!(decision, iam::Decision::Allowed, "{function}: {} on {}", call.action, call.resource);
            }
        }
    }
}

fn policy(resources: &[Value], function: &str, dataset: &str) -> Policy {
    let is_it = |r: &&Value| r["type"] == "aws_iam_role_policy" && r["name"] == function && r["index"] == dataset;
    Policy::parse(&resources.iter().find(is_it).unwrap()["values"]["policy"]).unwrap()
}

fn open(dataset: &TestDataset, outputs: &Value, sdk: &SdkConfig) -> Lake {
    let dataset = dataset.dataset.clone();
    let config = LakeConfig {
        bucket: outputs["bucket"]["value"].as_str().unwrap().to_owned(),
        prefix: dataset.lake.prefix.clone(),
        ledger_prefix: "_ledger".to_owned(),
        s3: S3Config { path_style: true, ..S3Config::default() },
    };
    let catalog =
        Catalog { client: aws_sdk_glue::Client::new(sdk), database: NAME.to_owned(), table: dataset.name.clone() };
    Lake::new(dataset, &config, sdk.clone(), Some(catalog))
}

/// Our event source in the mapping's place, with the settings that Terraform gives the mapping.
fn poll(datasets: &[TestDataset], outputs: &Value, sdk: &SdkConfig) -> Vec<EventSource> {
    let start = |dataset: &TestDataset| {
        let request = &outputs["event_sources"]["value"][&dataset.dataset.name];
        let mapping = Mapping::parse(&request.to_string()).unwrap();
        EventSource::start(mapping.config, LambdaFunction::new(sdk, &mapping.function_name).unwrap().invoker()).unwrap()
    };
    datasets.iter().map(start).collect()
}

async fn rows(lake: &Lake) -> u64 {
    let options = freshet::verify::VerifyOptions::default();
    let report = freshet::verify::verify(lake, &options).await.unwrap();
    report.partitions.iter().map(|p| p.rows).sum()
}

/// Every row against the topic; how many there are.
async fn verify(lake: &Lake, broker: &Broker) -> u64 {
    let kafka = freshet::kafka::connect(&broker.bootstrap_servers(), &lake.sdk).await.unwrap();
    let options = freshet::verify::VerifyOptions { deep: true, kafka: Some(kafka), ..Default::default() };
    let report = freshet::verify::verify(lake, &options).await.unwrap();
    assert!(report.findings.is_empty(), "{}", report.to_text());
    assert!(report.partitions.iter().all(|p| p.lag == Some(0)), "{}", report.to_text());
    report.partitions.iter().map(|p| p.rows).sum()
}

/// Something that is no record, so that there are dead letters to query.
async fn poison(broker: &Broker, topic: &str) {
    use rdkafka::producer::{FutureProducer, FutureRecord};
    let mut config = rdkafka::ClientConfig::new();
    let producer: FutureProducer = config.set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
    let record = FutureRecord::<(), _>::to(topic).payload(b"junk".as_slice());
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

/// Glue against the code: names, types and order of both tables of a dataset.
async fn check_tables(aws: &AwsApi, dataset: &Dataset) {
    let pairs = |columns: &Value| -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        columns.as_array().unwrap().iter().map(|c| (text(&c["Name"]), text(&c["Type"]))).collect()
    };
    let owned = |(name, hive): (&str, &str)| (name.to_owned(), hive.to_owned());
    let table = aws.table(NAME, &dataset.name).await;
    let expected: Vec<_> = hive_columns(dataset).into_iter().map(|(name, hive)| (name, hive.to_owned())).collect();
    assert_eq!(pairs(&table["StorageDescriptor"]["Columns"]), expected);
    assert_eq!(pairs(&table["PartitionKeys"]), PARTITION_COLUMNS.map(owned));
    let letters = aws.table(NAME, &format!("{}_dead_letters", dataset.name)).await;
    assert_eq!(pairs(&letters["StorageDescriptor"]["Columns"]), DEAD_LETTER_COLUMNS.map(owned));
}

/// The same rows from two engines that share no code.
async fn engine_reads(trino: &Trino, lake: &Lake, stored: u64) {
    let sql = format!("SELECT * FROM {} ORDER BY _partition, _offset", lake.dataset.name);
    let theirs: Vec<_> = trino.query(&sql).await.unwrap().into_iter().map(normal).collect();
    let ours: Vec<_> = freshet::query::query_json(lake, &sql).await.unwrap().into_iter().map(normal).collect();
    people::check(&theirs, stored);
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(theirs.len(), ours.len());
}

/// A timestamp is written differently by each engine; a null may be absent.
fn normal(row: Value) -> Value {
    let Value::Object(mut row) = row else { panic!("{row} is no row") };
    row.retain(|_, value| !value.is_null());
    if let Some(time) = row.get("_timestamp").and_then(Value::as_str) {
        let time = time.trim_end_matches(" UTC").trim_end_matches('Z').replace('T', " ");
        let (seconds, fraction) = time.split_once('.').unwrap_or((&time, ""));
        row.insert("_timestamp".to_owned(), json!(format!("{seconds}.{fraction:0<6}")));
    }
    Value::Object(row)
}

/// As they are saved, against the engine that Athena is.
async fn engine_runs_the_saved_queries(trino: &Trino, aws: &AwsApi) {
    let saved = aws.saved_queries(NAME).await;
    let names: BTreeSet<_> = saved.keys().map(String::as_str).collect();
    for query in ["latest_rows", "freshness", "duplicates", "dead_letters_by_reason", "people_by_nation"] {
        assert!(names.contains(format!("names.{query}").as_str()), "{query} is not among {names:?}");
    }
    for (name, sql) in saved {
        let rows = trino.query(&sql).await.unwrap_or_else(|e| panic!("{name}: {e}\n{sql}"));
        match name.as_str() {
            "names.duplicates" | "people.duplicates" | "people.dead_letters_by_reason" => {
                assert!(rows.is_empty(), "{name}: {rows:?}")
            }
            "names.dead_letters_by_reason" => {
                assert_eq!((&rows[0]["stage"], &rows[0]["letters"]), (&json!("decode"), &json!(1)), "{rows:?}");
            }
            "names.freshness" | "people.freshness" => {
                let age = rows[0]["age_seconds"].as_i64().unwrap();
                assert!((0..3600).contains(&age), "{rows:?}");
            }
            _ => assert!(!rows.is_empty(), "{name}"),
        }
    }
}

/// Partitions are the only truth: an object in a directory that is not registered is no row, and one that no query asks for is not opened.
async fn engine_sees_registered_partitions_only(trino: &Trino, aws: &AwsApi, lake: &Lake) {
    let count = async |filter: &str| trino.query(&format!("SELECT count(*) AS n FROM names {filter}")).await;
    let before = count("").await.unwrap();
    let key = format!("{}/dt=2020-01-01/hour=00/names_topic+0+e0+{:020}.parquet", lake.target.layout.prefix, 0);
    let put = lake.client.put_object().bucket(&lake.target.bucket).key(&key);
    put.body(b"no Parquet".as_slice().to_vec().into()).send().await.unwrap();
    assert_eq!(count("").await.unwrap(), before, "not registered, not seen");

    aws.register(NAME, "names", ["2020-01-01", "00"]).await;
    assert!(count("").await.is_err(), "registered, it is opened, and is no Parquet");
    let pruned = count("WHERE dt > '2020-01-01'").await.unwrap();
    assert_eq!(pruned, before, "a query by dt opens no other directory");

    aws.unregister(NAME, "names", ["2020-01-01", "00"]).await;
    lake.client.delete_object().bucket(&lake.target.bucket).key(&key).send().await.unwrap();
}

/// Waits until nobody asks the API any more: a run that began before its schedule ended goes on fetching.
async fn at_rest(api: &Api) {
    let deadline = Instant::now() + Duration::from_secs(240);
    let (mut requests, mut since) = (api.requests(), Instant::now());
    while since.elapsed() < QUIET {
        assert!(Instant::now() < deadline, "the API is still asked, {requests} times by now");
        tokio::time::sleep(Duration::from_millis(200)).await;
        if api.requests() != requests {
            (requests, since) = (api.requests(), Instant::now());
        }
    }
}

/// The functions as `make test` builds them: the same sources, other bytes.
fn changed_code(folder: &Path) -> PathBuf {
    let (binaries, _) = stack::binaries().unwrap();
    let changed = folder.join("changed");
    for function in ["producer", "consumer"] {
        let to = changed.join(function);
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(binaries.join(function), to.join("bootstrap")).unwrap();
    }
    changed
}

fn step(what: &str) {
    eprintln!("cloud: {what}");
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(240), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited 4 minutes for {what}");
}
