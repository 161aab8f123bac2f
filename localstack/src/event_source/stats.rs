//! What an event source has done, for those who watch.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Counts since the start of an event source.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EventSourceStats {
    /// Attempts, retries included.
    pub invocations: u64,
    /// Attempts that failed, and commits that did.
    pub failures: u64,
    /// Attempts that failed since the last one that did not, over all pollers.
    pub failures_in_a_row: u64,
    /// Attempts that were not the first of their records.
    pub retries: u64,
    /// Records read from Kafka; some of them again, after a rebalance.
    pub received: u64,
    /// Records that a function took and whose offsets were committed.
    pub records: u64,
    /// Bytes of the events of all attempts.
    pub payload_bytes: u64,
    /// Records given up on; see [`super::GivenUp`].
    pub given_up: u64,
    /// Batches dropped because their partitions were taken away, or because the source stopped.
    pub abandoned: u64,
    /// Invocations under way.
    pub in_flight: usize,
    /// Committed by this source: per partition the next offset to read.
    pub committed: BTreeMap<i32, i64>,
    /// Per poller the partitions that it owns.
    pub assigned: BTreeMap<usize, Vec<i32>>,
    /// What went wrong last, in an invocation or with Kafka.
    pub last_error: Option<String>,
}

#[derive(Default)]
pub(super) struct Recorder {
    stats: Mutex<EventSourceStats>,
}

impl Recorder {
    pub(super) fn lock(&self) -> MutexGuard<'_, EventSourceStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an invocation as under way as long as the returned value lives, also when its task is aborted.
    pub(super) fn in_flight(&self) -> InFlight<'_> {
        self.lock().in_flight += 1;
        InFlight(self)
    }
}

pub(super) struct InFlight<'a>(&'a Recorder);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}
