//! Kafka events as Lambda delivers them, and consumers to take them.

use consumer::handler::Consumer;
use pipeline::config::{DatasetChoice, LakeConfig, S3Config};
use pipeline::dataset::Dataset;
use pipeline::lake::Layout;
use serde_json::{Value, json};

use super::memory_store::MemoryStore;

/// 2026-11-23T05:00:00Z, the start of an hour.
pub const HOUR: i64 = 1_795_410_000_000;
pub const HOUR_MS: i64 = 3_600_000;
/// The clock of attempts that need no other.
pub const NOW: i64 = HOUR + 30 * 24 * HOUR_MS;

/// One record of a log. `None` is a tombstone.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    pub offset: i64,
    pub timestamp: i64,
    pub value: Option<Vec<u8>>,
}

/// A good record of the test dataset whose row can be told by its offset.
pub fn record(offset: i64, timestamp: i64) -> LogRecord {
    LogRecord { offset, timestamp, value: Some(format!(r#"{{"text":"record {offset}"}}"#).into_bytes()) }
}

pub fn poison(offset: i64, timestamp: i64, value: Option<&[u8]>) -> LogRecord {
    LogRecord { offset, timestamp, value: value.map(<[u8]>::to_vec) }
}

/// An event of MSK with the records of one partition of `topic`.
pub fn event(topic: &str, partition: i32, records: &[LogRecord]) -> Vec<u8> {
    event_of(&[(topic, partition, records)])
}

/// The same of a topic whose timestamps are its producers'.
pub fn create_time_event(topic: &str, partition: i32, records: &[LogRecord]) -> Vec<u8> {
    event_with("CREATE_TIME", &[(topic, partition, records)])
}

pub fn event_of(parts: &[(&str, i32, &[LogRecord])]) -> Vec<u8> {
    event_with("LOG_APPEND_TIME", parts)
}

fn event_with(timestamp_type: &str, parts: &[(&str, i32, &[LogRecord])]) -> Vec<u8> {
    let base64 = |bytes: &Vec<u8>| base64_simd::STANDARD.encode_to_string(bytes);
    let mut map = serde_json::Map::new();
    for (topic, partition, records) in parts {
        let json_of = |r: &LogRecord| {
            json!({"topic": topic, "partition": partition, "offset": r.offset, "timestamp": r.timestamp,
                   "timestampType": timestamp_type, "value": r.value.as_ref().map(base64), "headers": []})
        };
        map.insert(format!("{topic}-{partition}"), Value::Array(records.iter().map(json_of).collect()));
    }
    json!({"eventSource": "aws:kafka", "eventSourceArn": "arn:aws:kafka:eu-west-1:1:cluster/c/1", "bootstrapServers": "b:9098", "records": map})
        .to_string()
        .into_bytes()
}

/// A dataset with one column, so that a history's records are small.
pub fn dataset(format: &str, column: &str) -> Dataset {
    let text = format!(
        "name: texts
source: {{ url: 'https://example.com', records: '@' }}
schedule: {{ every_minutes: 5, run_seconds: 10, fetch_every_seconds: 1 }}
topic: {{ name: texts, partitions: 1, replication_factor: 1, retention_hours: 1 }}
lake: {{ prefix: texts, format: {format} }}
columns:
  - {column}
"
    );
    Dataset::parse("texts.yaml", &text).unwrap()
}

pub const TEXT_COLUMN: &str = "{ id: 100, name: text, type: string, required: true, expression: text }";

/// Their lake, as the commands see it.
pub fn target() -> freshet::Target {
    freshet::Target {
        bucket: "lake".into(),
        layout: Layout { prefix: "texts".into(), ledger_prefix: "_ledger".into() },
        dataset: "texts".into(),
        topic: "texts".into(),
        extension: "json.gz".into(),
    }
}

pub fn consumer(dataset: Dataset, store: &MemoryStore) -> Consumer<MemoryStore, MemoryStore> {
    consumer_at(dataset, store, "texts")
}

pub fn consumer_at(dataset: Dataset, store: &MemoryStore, prefix: &str) -> Consumer<MemoryStore, MemoryStore> {
    let lake = LakeConfig {
        bucket: "lake".into(),
        prefix: prefix.into(),
        ledger_prefix: "_ledger".into(),
        s3: S3Config::default(),
    };
    let choice = DatasetChoice { dataset, mismatch: false };
    Consumer::new(choice, &lake, store.clone(), 4, |_| store.clone())
}
