//! Logs and metrics. Both go to standard output as JSON lines: CloudWatch turns those with `_aws` into metrics (EMF).

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

/// CloudWatch namespace of every metric, where `METRICS_NAMESPACE` names no other.
pub const DEFAULT_NAMESPACE: &str = "freshet";

static NAMESPACE: OnceLock<String> = OnceLock::new();

/// A metric's name and unit. docs/CONFIGURATION.md gives the meaning of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
}

const fn count(name: &'static str) -> Metric {
    Metric { name, unit: "Count" }
}

pub const RECORDS_FETCHED: Metric = count("RecordsFetched");
pub const RECORDS_PUBLISHED: Metric = count("RecordsPublished");
pub const RECORDS_REJECTED: Metric = count("RecordsRejected");
pub const DELIVERY_FAILURES: Metric = count("DeliveryFailures");
pub const FETCH_FAILURES: Metric = count("FetchFailures");
pub const FETCH_RETRIES: Metric = count("FetchRetries");
pub const ROWS_STORED: Metric = count("RowsStored");
pub const OBJECTS_WRITTEN: Metric = count("ObjectsWritten");
pub const BYTES_IN: Metric = Metric { name: "BytesIn", unit: "Bytes" };
pub const BYTES_OUT: Metric = Metric { name: "BytesOut", unit: "Bytes" };
pub const DUPLICATES_DROPPED: Metric = count("DuplicatesDropped");
pub const RANGES_ADOPTED: Metric = count("RangesAdopted");
pub const DEAD_LETTERS: Metric = count("DeadLetters");
pub const OFFSET_GAPS: Metric = count("OffsetGaps");
pub const FRESHNESS: Metric = Metric { name: "Freshness", unit: "Milliseconds" };
pub const CREATE_TIME_BATCHES: Metric = count("CreateTimeBatches");
pub const DATASET_MISMATCH: Metric = count("DatasetMismatch");

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    RECORDS_FETCHED,
    RECORDS_PUBLISHED,
    RECORDS_REJECTED,
    DELIVERY_FAILURES,
    FETCH_FAILURES,
    FETCH_RETRIES,
    ROWS_STORED,
    OBJECTS_WRITTEN,
    BYTES_IN,
    BYTES_OUT,
    DUPLICATES_DROPPED,
    RANGES_ADOPTED,
    DEAD_LETTERS,
    OFFSET_GAPS,
    FRESHNESS,
    CREATE_TIME_BATCHES,
    DATASET_MISMATCH,
];

/// Starts JSON logging; the level is `AWS_LAMBDA_LOG_LEVEL` or `RUST_LOG`, info where neither is set. Metrics go to
/// `METRICS_NAMESPACE`: two deployments in one account would add up in one namespace.
pub fn start() {
    let level = ["AWS_LAMBDA_LOG_LEVEL", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse_lossy(level.unwrap_or_default());
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).try_init();
    if let Some(namespace) = std::env::var("METRICS_NAMESPACE").ok().filter(|name| !name.is_empty()) {
        let _ = NAMESPACE.set(namespace);
    }
}

/// Writes one invocation's metrics as one line of CloudWatch's embedded metric format, with dataset and function as dimensions.
pub fn emit(function: &str, dataset: &str, values: &[(Metric, u64)]) {
    let namespace = NAMESPACE.get().map_or(DEFAULT_NAMESPACE, String::as_str);
    println!("{}", line(namespace, function, dataset, now_ms(), values));
}

/// Milliseconds since 1970 by the wall clock.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
fn line(namespace: &str, function: &str, dataset: &str, now_ms: i64, values: &[(Metric, u64)]) -> Value {
    let metrics: Vec<_> = values.iter().map(|(m, _)| json!({"Name": m.name, "Unit": m.unit})).collect();
    let mut line: Map<_, _> = values.iter().map(|(m, value)| (m.name.to_owned(), json!(value))).collect();
    line.insert("function".to_owned(), json!(function));
    line.insert("dataset".to_owned(), json!(dataset));
    // One set of dimensions: CloudWatch counts, and charges, each set as metrics of their own.
    let directive = json!({"Namespace": namespace, "Dimensions": [["dataset", "function"]], "Metrics": metrics});
    line.insert("_aws".to_owned(), json!({"Timestamp": now_ms, "CloudWatchMetrics": [directive]}));
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_explained_in_the_configuration_page_with_its_unit() {
        let page = include_str!("../../../docs/CONFIGURATION.md");
        for metric in METRICS {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", metric.name)));
            let row = row.unwrap_or_else(|| panic!("docs/CONFIGURATION.md has no row for {}", metric.name));
            assert!(row.contains(metric.unit), "{row} lacks the unit {}", metric.unit);
        }
    }

    #[test]
    fn a_line_names_each_value_it_carries() {
        let line = line("prod", "consumer", "names", 1, &[(ROWS_STORED, 3), (FRESHNESS, 20)]);
        assert_eq!(line["RowsStored"], 3);
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Metrics"][1]["Unit"], "Milliseconds");
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Namespace"], "prod");
        assert_eq!(line["dataset"], "names");
    }
}
