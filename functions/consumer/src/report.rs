//! What an invocation did: the function's answer, and its metrics.

use std::ops::AddAssign;
use std::sync::{Mutex, PoisonError};

use pipeline::telemetry::{self, Metric};
use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub records: u64,
    pub rows: u64,
    pub dead_letters: u64,
    pub duplicates_dropped: u64,
    pub objects_written: u64,
    pub ranges_adopted: u64,
    pub offset_gaps: u64,
    pub create_time_batches: u64,
    /// Bytes of the records' values.
    pub bytes_in: u64,
    /// Bytes of the data objects.
    pub bytes_out: u64,
    /// Kafka timestamp of the newest record stored, in milliseconds since 1970.
    pub newest_timestamp: Option<i64>,
}

impl AddAssign<&Report> for Report {
    fn add_assign(&mut self, other: &Report) {
        self.records += other.records;
        self.rows += other.rows;
        self.dead_letters += other.dead_letters;
        self.duplicates_dropped += other.duplicates_dropped;
        self.objects_written += other.objects_written;
        self.ranges_adopted += other.ranges_adopted;
        // A gap can be as wide as the offset axis, and an event holds several.
        self.offset_gaps = self.offset_gaps.saturating_add(other.offset_gaps);
        self.create_time_batches += other.create_time_batches;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.newest_timestamp = self.newest_timestamp.max(other.newest_timestamp);
    }
}

impl Report {
    /// Freshness only where something was stored: an alarm on it treats missing data as breaching. Gaps are not among them:
    /// they are said before anything behind them is stored.
    pub fn metrics(&self, now_ms: i64, dataset_mismatch: bool) -> Vec<(Metric, u64)> {
        let mut metrics = vec![
            (telemetry::ROWS_STORED, self.rows),
            (telemetry::OBJECTS_WRITTEN, self.objects_written),
            (telemetry::BYTES_IN, self.bytes_in),
            (telemetry::BYTES_OUT, self.bytes_out),
            (telemetry::DUPLICATES_DROPPED, self.duplicates_dropped),
            (telemetry::RANGES_ADOPTED, self.ranges_adopted),
            (telemetry::DEAD_LETTERS, self.dead_letters),
            (telemetry::CREATE_TIME_BATCHES, self.create_time_batches),
            (telemetry::DATASET_MISMATCH, u64::from(dataset_mismatch)),
        ];
        if let Some(newest) = self.newest_timestamp {
            metrics.push((telemetry::FRESHNESS, now_ms.saturating_sub(newest).max(0).unsigned_abs()));
        }
        metrics
    }
}

/// The report while the work goes on: what was done counts, also when the attempt then runs out of time.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Report>);

impl Tally {
    pub fn add(&self, done: &Report) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += done;
    }

    pub fn total(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
