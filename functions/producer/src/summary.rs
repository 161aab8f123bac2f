//! What a run did: the function's answer, and its metrics.

use std::collections::BTreeMap;

use pipeline::telemetry::{self, Metric};
use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub dataset: String,
    /// Fetches begun, those that failed included.
    pub fetches: u64,
    pub fetch_failures: u64,
    /// Requests to the API that were tried again.
    pub retries: u64,
    /// Records in the API's answers: each is published, rejected or failed.
    pub fetched: u64,
    /// Acknowledged by Kafka, per partition.
    pub published: BTreeMap<i32, u64>,
    /// Not transformed: dead letters of stage `transform`.
    pub rejected: u64,
    /// Not acknowledged by Kafka: dead letters of stage `deliver`.
    pub failed: u64,
    /// Dead letters that only the log holds.
    pub letters_unstored: u64,
    pub elapsed_ms: u64,
}

impl Summary {
    pub fn metrics(&self, dataset_mismatch: bool) -> Vec<(Metric, u64)> {
        vec![
            (telemetry::RECORDS_FETCHED, self.fetched),
            (telemetry::RECORDS_PUBLISHED, self.published.values().sum()),
            (telemetry::RECORDS_REJECTED, self.rejected),
            (telemetry::DELIVERY_FAILURES, self.failed),
            (telemetry::FETCH_FAILURES, self.fetch_failures),
            (telemetry::FETCH_RETRIES, self.retries),
            (telemetry::DATASET_MISMATCH, u64::from(dataset_mismatch)),
        ]
    }
}
