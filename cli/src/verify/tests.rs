//! The whole way from a store to a report. What each check finds is tested beside the checks.

use aws_sdk_glue::types::{Column, DatabaseInput, PartitionInput, StorageDescriptor, TableInput};
use pipeline::dataset::Dataset;
use pipeline::lake::{Condition, DataKey, FirstRecord, Ledger, Put, PutRequest, RangeMetadata, Store};
use sha2::{Digest, Sha256};

use super::*;
use crate::Target;
use crate::catalog::Catalog;
use crate::memory::{self, MemoryStore};

fn target() -> Target {
    memory::target("json")
}

/// Offsets 0–9 in two objects; 4 is a dead letter.
fn lake() -> MemoryStore {
    let store = MemoryStore::default();
    let layout = target().layout;
    let directory = "dt=2026-11-23/hour=05".parse().unwrap();
    for (start, end, dead_letters) in [(0_i64, 4_i64, 1_u64), (5, 9, 0)] {
        let rows = (start..=end).filter(|offset| *offset != 4);
        let body: String =
            rows.map(|offset| format!("{{\"_partition\":0,\"_offset\":{offset},\"_epoch\":2}}\n")).collect();
        let key = DataKey { directory, topic: "t".into(), partition: 0, epoch: 2, start, extension: "json".into() };
        let metadata = RangeMetadata {
            end,
            records: (end - start + 1) as u64 - dead_letters,
            dead_letters,
            newest_timestamp: Some(1_795_410_000_000),
            first: FirstRecord { offset: start, timestamp: 1_795_410_000_000 },
            sha256: Sha256::digest(body.as_bytes()).iter().map(|b| format!("{b:02x}")).collect(),
        };
        store.place(&layout.data(&key), body, metadata.to_map());
        if dead_letters > 0 {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(b"{\"offset\":4}\n").unwrap();
            let name = layout.dead_letters_of_range(&key, end, "0123456789abcdef");
            store.place(&name, gzip.finish().unwrap(), Default::default());
        }
    }
    let ledger = Ledger {
        dataset: "names".into(),
        prefix: "names".into(),
        format: "json".into(),
        cluster: None,
        topic: "t".into(),
        partition: 0,
        epoch: 2,
        next_offset: 10,
        directory: Some(directory),
        newest_timestamp: Some(1_795_410_000_000),
    };
    store.place(&layout.ledger("t", 0), ledger.to_json(), Default::default());
    store
}

async fn report(store: &MemoryStore, deep: bool) -> Report {
    let options = VerifyOptions { deep, dead_letter_days: 100_000, ..VerifyOptions::default() };
    check::check(&collect::collect(store, &target(), &options).await.unwrap())
}

const FIRST: &str = "names/dt=2026-11-23/hour=05/t+0+e2+00000000000000000000.json";

#[tokio::test]
async fn a_whole_lake_is_read_and_found_clean() {
    let store = lake();
    for deep in [false, true] {
        let report = report(&store, deep).await;
        assert_eq!((&report.findings, &report.notes), (&Vec::new(), &Vec::new()), "{report:#?}");
        let row = &report.partitions[0];
        assert_eq!((row.ranges, row.rows, row.dead_letters, row.next_offset), (2, 9, 1, Some(10)));
    }
}

#[tokio::test]
async fn a_copy_of_a_row_is_found_only_by_reading_the_rows() {
    let store = lake();
    let head = store.head(FIRST).await.unwrap().unwrap();
    let mut body = store.body(FIRST).unwrap().to_vec();
    let line = body.iter().position(|b| *b == b'\n').unwrap() + 1;
    body.extend_from_within(..line);
    store.place(FIRST, body, head.metadata);
    assert!(report(&store, false).await.clean);
    let kinds: Vec<Kind> = report(&store, true).await.findings.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [Kind::HashDiffers, Kind::RowCountDiffers, Kind::RowsRepeated]);
}

#[tokio::test]
async fn foreign_keys_unreadable_ledgers_and_bare_objects_are_told_apart() {
    let store = lake();
    store.place("names/readme.txt", "", Default::default());
    store.place("_ledger/names/t/0.json.bak", "", Default::default());
    store.place("_ledger/names/t/1.json", "{", Default::default());
    store.place("names2/readme.txt", "", Default::default());
    store.place(FIRST, "", Default::default());
    let report = report(&store, false).await;
    let messages: Vec<String> = report.findings.iter().map(|f| format!("{} {}", f.kind, f.message)).collect();
    assert!(messages[0].starts_with(&format!("metadata-wrong {FIRST} has no `end-offset`")), "{messages:?}");
    assert!(messages[1].starts_with("ledger-unreadable _ledger/names/t/1.json is no ledger"), "{messages:?}");
    assert_eq!(
        messages[2..],
        [
            "foreign-object _ledger/names/t/0.json.bak is not the consumer's",
            "foreign-object names/readme.txt is not the consumer's",
        ]
    );
}

const DATASET: &str = "name: names
source: { url: https://example.com, records: data }
schedule: { every_minutes: 5, run_seconds: 120, fetch_every_seconds: 10 }
topic: { name: t, partitions: 1, replication_factor: 1, retention_hours: 24 }
lake: { prefix: names, format: ndjson, codec: none }
columns:
  - { id: 100, name: n, type: integer, expression: n }
";

/// The same lake in a folder with a catalog, through the embedded servers, opened as the command opens it.
async fn in_a_folder(folder: &std::path::Path) -> (LakeArgs, Lake) {
    std::fs::create_dir_all(folder.join("s3/lake")).unwrap();
    std::fs::write(folder.join("catalog.json"), r#"{"databases": {}}"#).unwrap();
    std::fs::write(folder.join("names.yaml"), DATASET).unwrap();
    let dataset = Some(folder.join("names.yaml").display().to_string());
    let args = LakeArgs { local: Some(folder.to_owned()), dataset, ..LakeArgs::default() };
    let opened = Lake::open(&args).await.unwrap();
    let (from, to) = (lake(), opened.store());
    for listed in from.list("", None).await.unwrap() {
        let metadata = from.head(&listed.key).await.unwrap().unwrap().metadata;
        let body = from.body(&listed.key).unwrap();
        let (key, condition) = (listed.key, Condition::Absent);
        let stored = to.put(PutRequest { key, body, condition, content_type: "", metadata }).await.unwrap();
        assert!(matches!(stored, Put::Stored { .. }));
    }
    let Catalog { client, database, table } = opened.catalog.as_ref().unwrap();
    let input = DatabaseInput::builder().name(database).build().unwrap();
    client.create_database().database_input(input).send().await.unwrap();
    let key = |name: &str| Column::builder().name(name).r#type("string").build().unwrap();
    let place = StorageDescriptor::builder().location("s3://lake/names/").build();
    let input = TableInput::builder().name(table).partition_keys(key("dt")).partition_keys(key("hour"));
    let input = input.storage_descriptor(place).build().unwrap();
    client.create_table().database_name(database).table_input(input).send().await.unwrap();
    (args, opened)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_in_a_folder_is_verified_with_its_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let (args, lake) = in_a_folder(folder.path()).await;
    let options = VerifyOptions { deep: true, dead_letter_days: 100_000, ..VerifyOptions::default() };
    let before = verify(&lake, &options).await.unwrap();
    let messages: Vec<&str> = before.findings.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(messages, ["dt=2026-11-23/hour=05 holds 2 objects and is not registered"]);

    let Catalog { client, database, table } = lake.catalog.as_ref().unwrap();
    let place = StorageDescriptor::builder().location("s3://lake/names/dt=2026-11-23/hour=05/").build();
    let input = PartitionInput::builder().values("2026-11-23").values("05").storage_descriptor(place).build();
    let create = client.create_partition().database_name(database).table_name(table).partition_input(input);
    create.send().await.unwrap();
    let after = verify(&lake, &options).await.unwrap();
    assert_eq!((&after.findings, &after.notes), (&Vec::new(), &Vec::new()));

    let mut out = Vec::new();
    let as_json = VerifyArgs { deep: false, json: true, kafka: None, dead_letter_days: 100_000 };
    assert_eq!(run(&args, &as_json, &mut out).await.unwrap(), ExitCode::SUCCESS);
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&json["clean"], &json["partitions"][0]["rows"]), (&true.into(), &9.into()));

    std::fs::remove_file(folder.path().join("s3/lake").join(FIRST.replace("0.json", "5.json"))).unwrap();
    let mut out = Vec::new();
    assert_eq!(run(&args, &VerifyArgs { json: false, ..as_json }, &mut out).await.unwrap(), ExitCode::from(1));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("offsets 5–9 lie in no object"), "{text}");
}

#[tokio::test]
async fn a_target_follows_the_dataset_file() {
    let dataset: Dataset = pipeline::datasets::load("names").unwrap();
    let mut env = pipeline::config::Env::new([("S3_BUCKET".to_owned(), "b".to_owned())]);
    let config = pipeline::config::LakeConfig::read(&mut env, Some(&dataset));
    let target = Target::new(&dataset, &config);
    assert_eq!((target.topic.as_str(), target.extension.as_str()), ("names_topic", "parquet"));
    assert_eq!(target.layout.ledger("names_topic", 1), "_ledger/names/names_topic/1.json");
}
