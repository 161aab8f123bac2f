//! What the cloud tests rest on: that the emulator and the engine, which are other people's, do what AWS's do where it matters here.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_sdk_glue::types::{Column, DatabaseInput, PartitionInput, SerDeInfo, StorageDescriptor, TableInput};
use consumer::decode::{Decoder, Row};
use consumer::encode::{Encoder, Stamp, gzip};
use pipeline::dataset::Dataset;
use pipeline::lake::{DEAD_LETTER_COLUMNS, hive_columns};
use serde_json::{Value, json};

use crate::support::ministack::Ministack;
use crate::support::server;
use crate::support::trino::Trino;

const REGION: &str = "us-east-1";
const BUCKET: &str = "lake";
/// 2026-01-02T03:04:05.678Z
const TIME: i64 = 1_767_323_045_678;

#[tokio::test]
async fn a_function_gets_the_emulators_environment_and_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let environment = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("TOLD", told.to_str().unwrap())];
    let Some(ministack) = Ministack::start(folder.path(), &environment).await else { return };
    let script =
        "#!/bin/sh\necho $$ \"$AWS_ENDPOINT_URL\" >\"$TOLD.new\"\nmv \"$TOLD.new\" \"$TOLD\"\nexec sleep 600\n";
    let function = json!({
        "FunctionName": "sleeper", "Runtime": "provided.al2023", "Handler": "bootstrap", "Role": "arn:aws:iam::000000000000:role/r",
        "Timeout": 600, "Code": {"ZipFile": zip(folder.path(), script)},
    });
    lambda(&ministack, "", &function).await;
    // Nobody waits for it: it never answers.
    lambda(&ministack, "/sleeper/invocations", &json!({})).await;
    let text = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&told) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let text =
        tokio::time::timeout(Duration::from_secs(30), text).await.unwrap_or_else(|_| panic!("{}", ministack.log()));
    let (pid, endpoint) = text.trim().split_once(' ').unwrap();
    assert_eq!(endpoint, "http://127.0.0.1:9");
    assert!(is_alive(pid));
    drop(ministack);
    // SIGKILL is sent; the kernel of a busy machine takes a moment to end the process.
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "the function is left behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One test, because the engine takes a quarter of a minute to start.
#[tokio::test]
async fn athenas_engine_reads_what_is_registered_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let Some(ministack) = Ministack::start(folder.path(), &[]).await else { return };
    let endpoint = ministack.endpoint();
    let Some(trino) = Trino::start(folder.path(), &endpoint, &endpoint, REGION).await else { return };
    let trino = trino.in_database("db");
    let aws = Aws::new(&endpoint).await;

    for format in ["parquet", "ndjson"] {
        let dataset = dataset(format, &[]);
        aws.create_table(&dataset).await;
        aws.put(&dataset, "2026-01-02", 7, r#"{"text":"a \"b\" ä\n","number":9007199254740993,"share":0.1}"#).await;
        let all = format!("SELECT * FROM {format} ORDER BY _offset");
        assert_eq!(trino.query(&all).await.unwrap(), [] as [Value; 0], "{format}: not registered, not seen");

        aws.register(&dataset, "2026-01-02").await;
        let row = json!({
            "text": "a \"b\" ä\n", "number": 9_007_199_254_740_993_i64, "share": 0.1,
            "_partition": 3, "_offset": 7, "_epoch": 1, "_timestamp": "2026-01-02 03:04:05.678", "_extra": null,
            "dt": "2026-01-02",
        });
        assert_eq!(trino.query(&all).await.unwrap(), [row], "{format}");

        // The partition says nothing of a column that its table got later.
        let wider = self::dataset(format, &["late"]);
        aws.update_table(&wider).await;
        aws.put(&wider, "2026-01-02", 8, r#"{"text":"b","late":"new"}"#).await;
        let late = trino.query(&format!("SELECT late FROM {format} ORDER BY _offset")).await.unwrap();
        assert_eq!(late, [json!({"late": null}), json!({"late": "new"})], "{format}");
    }

    // Dead letters, whose days nobody registers.
    aws.create_dead_letters().await;
    for day in ["2024-12-31", "2025-01-01", "2026-01-02"] {
        let letter = json!({"id": day, "offset": 5, "headers": [{"name": "h", "value": "dg=="}], "payload": null});
        let key = format!("dead_letters/dt={day}/x.json.gz");
        aws.put_object(&key, gzip(format!("{letter}\n").as_bytes()).unwrap()).await;
    }
    let letters =
        trino.query("SELECT id, \"offset\", headers, payload, dt FROM dead_letters ORDER BY id").await.unwrap();
    let letter = |day: &str| json!({"id": day, "offset": 5, "headers": [["h", "dg=="]], "payload": null, "dt": day});
    assert_eq!(letters, [letter("2025-01-01"), letter("2026-01-02")], "from the range's first day on");

    let error = trino.query("SELECT nothing FROM parquet").await.unwrap_err();
    assert!(error.starts_with("COLUMN_NOT_FOUND: "), "{error}");
}

/// A dataset named as its format, with these texts as further columns.
fn dataset(format: &str, further: &[&str]) -> Dataset {
    let further = further
        .iter()
        .zip(103..)
        .map(|(name, id)| format!("  - {{ id: {id}, name: {name}, type: string, expression: {name} }}\n"));
    let text = format!(
        "name: {format}\n\
         source: {{ url: \"https://example.com/\", records: r }}\n\
         schedule: {{ every_minutes: 5, run_seconds: 60, fetch_every_seconds: 10 }}\n\
         topic: {{ name: {format}_topic, partitions: 1, replication_factor: 1, retention_hours: 1 }}\n\
         lake: {{ prefix: {format}, format: {format}, codec: {} }}\n\
         columns:\n\
         \x20 - {{ id: 100, name: text, type: string, expression: text }}\n\
         \x20 - {{ id: 101, name: number, type: integer, expression: number }}\n\
         \x20 - {{ id: 102, name: share, type: double, expression: share }}\n{}",
        if format == "parquet" { "zstd" } else { "gzip" },
        further.collect::<String>(),
    );
    Dataset::parse("test.yaml", &text).unwrap()
}

/// Somebody's hand in Glue and S3.
struct Aws {
    glue: aws_sdk_glue::Client,
    s3: aws_sdk_s3::Client,
}

impl Aws {
    async fn new(endpoint: &str) -> Aws {
        let keys = aws_sdk_s3::config::Credentials::new("test", "test", None, None, "test");
        let loader = pipeline::aws::loader().region(aws_sdk_s3::config::Region::new(REGION)).credentials_provider(keys);
        let sdk = loader.endpoint_url(endpoint).load().await;
        let path_style = pipeline::config::S3Config { path_style: true, ..Default::default() };
        let aws = Aws { glue: aws_sdk_glue::Client::new(&sdk), s3: pipeline::aws::s3(&sdk, &path_style) };
        aws.s3.create_bucket().bucket(BUCKET).send().await.unwrap();
        let database = DatabaseInput::builder().name("db").build().unwrap();
        aws.glue.create_database().database_input(database).send().await.unwrap();
        aws
    }

    async fn create_table(&self, dataset: &Dataset) {
        self.glue.create_table().database_name("db").table_input(table(dataset)).send().await.unwrap();
    }

    async fn update_table(&self, dataset: &Dataset) {
        self.glue.update_table().database_name("db").table_input(table(dataset)).send().await.unwrap();
    }

    async fn register(&self, dataset: &Dataset, dt: &str) {
        let descriptor = descriptor(&format!("{}/dt={dt}", dataset.name), &dataset.name, &hive_columns(dataset));
        let partition = PartitionInput::builder().values(dt).storage_descriptor(descriptor).build();
        let request = self.glue.create_partition().database_name("db").table_name(&dataset.name);
        request.partition_input(partition).send().await.unwrap();
    }

    async fn create_dead_letters(&self) {
        let columns = DEAD_LETTER_COLUMNS.map(|(name, hive)| (name.to_owned(), hive));
        let table = table_input("dead_letters", descriptor("dead_letters", "ndjson", &columns));
        let table = [
            ("projection.enabled", "true"),
            ("projection.dt.type", "date"),
            ("projection.dt.format", "yyyy-MM-dd"),
            ("projection.dt.range", "2025-01-01,NOW+1DAYS"),
            ("storage.location.template", &format!("s3://{BUCKET}/dead_letters/dt=${{dt}}/")),
        ]
        .into_iter()
        .fold(table, |table, (name, value)| table.parameters(name, value));
        self.glue.create_table().database_name("db").table_input(table.build().unwrap()).send().await.unwrap();
    }

    /// One object of one row, as the consumer writes it.
    async fn put(&self, dataset: &Dataset, dt: &str, offset: i64, record: &str) {
        let mut row = Row::default();
        Decoder::new(dataset).decode(record, &mut row).unwrap();
        let mut encoder = Encoder::new(dataset, 1, record.len());
        encoder.append(&row, Stamp { partition: 3, offset, epoch: 1, timestamp: TIME }).unwrap();
        let key = format!("{}/dt={dt}/{offset}.{}", dataset.name, dataset.lake.format.extension());
        self.put_object(&key, encoder.finish().unwrap()).await;
    }

    async fn put_object(&self, key: &str, body: Vec<u8>) {
        self.s3.put_object().bucket(BUCKET).key(key).body(body.into()).send().await.unwrap();
    }
}

fn table(dataset: &Dataset) -> TableInput {
    table_input(&dataset.name, descriptor(&dataset.name, &dataset.name, &hive_columns(dataset))).build().unwrap()
}

fn table_input(name: &str, descriptor: StorageDescriptor) -> aws_sdk_glue::types::builders::TableInputBuilder {
    let table = TableInput::builder().name(name).table_type("EXTERNAL_TABLE").parameters("EXTERNAL", "TRUE");
    table.storage_descriptor(descriptor).partition_keys(column("dt", "string"))
}

fn descriptor(folder: &str, format: &str, columns: &[(String, &str)]) -> StorageDescriptor {
    let hive = "org.apache.hadoop.hive.ql.io";
    let (input, serde) = match format {
        "parquet" => {
            (format!("{hive}.parquet.MapredParquetInputFormat"), format!("{hive}.parquet.serde.ParquetHiveSerDe"))
        }
        _ => ("org.apache.hadoop.mapred.TextInputFormat".to_owned(), "org.openx.data.jsonserde.JsonSerDe".to_owned()),
    };
    let output = match format {
        "parquet" => format!("{hive}.parquet.MapredParquetOutputFormat"),
        _ => format!("{hive}.HiveIgnoreKeyTextOutputFormat"),
    };
    let columns = columns.iter().map(|(name, hive)| column(name, hive)).collect();
    let serde = SerDeInfo::builder().serialization_library(serde).parameters("serialization.format", "1").build();
    let descriptor = StorageDescriptor::builder().location(format!("s3://{BUCKET}/{folder}/"));
    descriptor.set_columns(Some(columns)).input_format(input).output_format(output).serde_info(serde).build()
}

fn column(name: &str, hive: &str) -> Column {
    Column::builder().name(name).r#type(hive).build().unwrap()
}

/// A request to Lambda's API that nobody waits for the outcome of.
async fn lambda(ministack: &Ministack, path: &str, body: &Value) {
    let scope = format!("Credential=test/20260101/{REGION}/lambda/aws4_request, SignedHeaders=host, Signature=none");
    let request = server::http().post(format!("{}/2015-03-31/functions{path}", ministack.endpoint()));
    let request =
        request.header("authorization", format!("AWS4-HMAC-SHA256 {scope}")).header("x-amz-invocation-type", "Event");
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

/// A function's code, packed by the Python that is there anyway.
fn zip(folder: &Path, bootstrap: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join("bootstrap");
    std::fs::write(&file, bootstrap).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    let mut python = Command::new(server::root().join("target/tools/venv/bin/python"));
    python.args(["-m", "zipfile", "-c", "code.zip", "bootstrap"]).current_dir(folder);
    assert!(python.status().unwrap().success());
    base64_simd::STANDARD.encode_to_string(std::fs::read(folder.join("code.zip")).unwrap())
}

fn is_alive(pid: &str) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}
