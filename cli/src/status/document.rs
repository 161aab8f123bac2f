//! The one document about a running pipeline: what `GET /api/status` answers, what the page shows, what `freshet status` prints.
//! docs/PAGE.md explains every field. Times are milliseconds since 1970.

use std::collections::BTreeMap;

use localstack::event_source::Attempt;
use pipeline::telemetry::{self, Metric};
use serde::{Deserialize, Serialize};

/// Metrics that the producer writes, as the page shows them.
pub const PRODUCER: &[Metric] = &[
    telemetry::RECORDS_FETCHED,
    telemetry::RECORDS_PUBLISHED,
    telemetry::FETCH_RETRIES,
    telemetry::FETCH_FAILURES,
    telemetry::RECORDS_REJECTED,
    telemetry::DELIVERY_FAILURES,
    telemetry::DATASET_MISMATCH,
];

/// Metrics that the consumer writes.
pub const CONSUMER: &[Metric] = &[
    telemetry::ROWS_STORED,
    telemetry::OBJECTS_WRITTEN,
    telemetry::BYTES_IN,
    telemetry::BYTES_OUT,
    telemetry::DUPLICATES_DROPPED,
    telemetry::RANGES_ADOPTED,
    telemetry::DEAD_LETTERS,
    telemetry::OFFSET_GAPS,
    telemetry::CREATE_TIME_BATCHES,
    telemetry::DATASET_MISMATCH,
    telemetry::FRESHNESS,
];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub dataset: String,
    /// Nothing below is in trouble.
    pub healthy: bool,
    pub at: i64,
    /// Why nothing at all can be asked.
    pub trouble: Option<String>,
    pub functions: Section<Functions>,
    pub schedule: Section<Schedule>,
    pub producer: Section<Producer>,
    pub topic: Section<Topic>,
    pub consumer: Section<Consumer>,
    pub lake: Section<Lake>,
}

/// What is known of one part, and what is wrong with it. Who does not answer has a trouble and no numbers: those of before
/// would be taken for today's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Section<T> {
    pub trouble: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub known: Option<T>,
}

impl<T> Section<T> {
    pub fn unknown(trouble: impl Into<String>) -> Section<T> {
        Section { trouble: Some(trouble.into()), known: None }
    }

    pub fn of(looked: Result<T, String>) -> Section<T> {
        match looked {
            Ok(known) => Section { trouble: None, known: Some(known) },
            Err(trouble) => Section::unknown(trouble),
        }
    }

    /// Finds fault with what is known.
    pub fn but(mut self, trouble: impl FnOnce(&T) -> Option<String>) -> Section<T> {
        if let (None, Some(known)) = (&self.trouble, &self.known) {
            self.trouble = trouble(known);
        }
        self
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Functions {
    pub producer: Function,
    pub consumer: Function,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    pub state: String,
    pub memory_mib: Option<u64>,
    pub timeout_seconds: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// EventBridge's name of it; absent where there is no rule.
    pub rule: Option<String>,
    pub expression: Option<String>,
    pub state: Option<String>,
    /// Runs begun since `producer.since`.
    pub runs: u64,
    pub failures: u64,
    pub running: bool,
    pub last_run: Option<Run>,
    /// Absent where only EventBridge knows.
    pub next_run: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub ended: i64,
    pub duration_ms: Option<u64>,
    pub error: Option<String>,
    /// By the run's own line of metrics; empty where it wrote none.
    pub metrics: BTreeMap<String, u64>,
}

/// Sums over what the function has written since `since`, by the names of its metrics. Of `Freshness` the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Producer {
    pub since: i64,
    #[serde(flatten)]
    pub metrics: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    pub name: String,
    pub bootstrap_servers: String,
    pub records: i64,
    /// Records that are not stored yet.
    pub lag: i64,
    /// By their number, from 0.
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    pub partition: i32,
    /// The first offset that the topic still holds.
    pub start_offset: i64,
    /// The offset that the next record gets.
    pub end_offset: i64,
    pub committed: Option<i64>,
    pub lag: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    pub consumer_group_id: String,
    /// Counted since its start; absent where it cannot be asked.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub source: Option<EventSource>,
    /// As the producer's.
    pub since: i64,
    #[serde(flatten)]
    pub metrics: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventSource {
    pub invocations: u64,
    pub failures: u64,
    pub failures_in_a_row: u64,
    pub retries: u64,
    pub received: u64,
    pub records: u64,
    pub given_up: u64,
    pub abandoned: u64,
    pub in_flight: u64,
    pub last_error: Option<String>,
    /// The last fifty, the newest first.
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lake {
    pub bucket: String,
    pub prefix: String,
    pub objects: u64,
    pub rows: u64,
    pub bytes: u64,
    pub dead_letters: u64,
    pub newest_record: Option<i64>,
    pub freshness_seconds: Option<i64>,
    /// What `freshet verify` finds without `--deep`.
    pub findings: u64,
    /// The latest first, at most 48.
    pub directories: Vec<Directory>,
    /// Directories that are not among them.
    pub more_directories: u64,
}

/// An hour of the lake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// `dt=2026-11-23/hour=05`
    pub name: String,
    pub objects: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Keys below the directory; the latest five of each.
    pub files: Vec<File>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
}
