//! What an event source has done, for those who watch.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;

/// How many attempts are remembered.
const REMEMBERED: usize = 50;
/// How much of an error is: a function may answer with megabytes.
const ERROR_CHARACTERS: usize = 500;

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
    /// The last 50 attempts, those under way among them, the newest last.
    #[serde(default)]
    pub attempts: VecDeque<Attempt>,
}

/// One invocation of the function.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attempt {
    /// Counts all attempts since the start of the event source.
    pub id: u64,
    /// Milliseconds since 1970.
    pub started: i64,
    /// Absent while it is under way.
    pub duration_ms: Option<u64>,
    /// The partition and the offset of its first record.
    pub partition: i32,
    pub offset: i64,
    pub records: u64,
    /// Of the event.
    pub bytes: u64,
    /// 1 for the first one of its records.
    pub attempt: u32,
    pub outcome: AttemptOutcome,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptOutcome {
    Running,
    Ok,
    /// Also where the partitions were taken away, or the source stopped: whoever reads them next begins again.
    Failed,
}

#[derive(Default)]
pub(super) struct Recorder {
    stats: Mutex<EventSourceStats>,
}

/// What there is to say of an attempt as it begins.
pub(super) struct Beginning {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) records: usize,
    pub(super) bytes: usize,
    pub(super) attempt: u32,
}

impl Recorder {
    pub(super) fn lock(&self) -> MutexGuard<'_, EventSourceStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt, as under way until the returned value is told how it ended, or is dropped with its task.
    pub(super) fn begin(&self, beginning: Beginning) -> InFlight<'_> {
        let mut stats = self.lock();
        stats.invocations += 1;
        stats.retries += u64::from(beginning.attempt > 1);
        stats.payload_bytes += beginning.bytes as u64;
        stats.in_flight += 1;
        let id = stats.invocations;
        stats.attempts.push_back(Attempt {
            id,
            started: Timestamp::now().as_millisecond(),
            duration_ms: None,
            partition: beginning.partition,
            offset: beginning.offset,
            records: beginning.records as u64,
            bytes: beginning.bytes as u64,
            attempt: beginning.attempt,
            outcome: AttemptOutcome::Running,
            error: None,
        });
        if stats.attempts.len() > REMEMBERED {
            stats.attempts.pop_front();
        }
        InFlight { recorder: self, id, started: Instant::now(), error: Some("it was abandoned".to_owned()) }
    }
}

/// An error as it is remembered.
pub(super) fn short(error: &str) -> String {
    error.chars().take(ERROR_CHARACTERS).collect()
}

pub(super) struct InFlight<'a> {
    recorder: &'a Recorder,
    id: u64,
    started: Instant,
    error: Option<String>,
}

impl InFlight<'_> {
    /// The attempt is over.
    pub(super) fn end(mut self, error: Option<&str>) {
        self.error = error.map(short);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut stats = self.recorder.lock();
        stats.in_flight -= 1;
        // It may be forgotten already, after 50 others.
        if let Some(attempt) = stats.attempts.iter_mut().rev().find(|attempt| attempt.id == self.id) {
            attempt.duration_ms = Some(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
            attempt.outcome = if self.error.is_none() { AttemptOutcome::Ok } else { AttemptOutcome::Failed };
            attempt.error = self.error.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning(offset: i64, attempt: u32) -> Beginning {
        Beginning { partition: 0, offset, records: 3, bytes: 900, attempt }
    }

    #[test]
    fn each_attempt_is_remembered_with_its_end_and_only_the_last_fifty_are() {
        let recorder = Recorder::default();
        recorder.begin(beginning(0, 1)).end(Some("refused"));
        recorder.begin(beginning(0, 2)).end(None);
        drop(recorder.begin(beginning(3, 1)));
        let _running = recorder.begin(beginning(6, 1));
        let stats = recorder.lock().clone();
        assert_eq!((stats.invocations, stats.retries, stats.in_flight, stats.payload_bytes), (4, 1, 1, 3_600));
        let outcomes: Vec<_> = stats.attempts.iter().map(|a| (a.id, a.outcome, a.error.as_deref())).collect();
        let (ok, failed, running) = (AttemptOutcome::Ok, AttemptOutcome::Failed, AttemptOutcome::Running);
        assert_eq!(
            outcomes,
            [(1, failed, Some("refused")), (2, ok, None), (3, failed, Some("it was abandoned")), (4, running, None)]
        );
        assert!(stats.attempts.iter().all(|attempt| attempt.duration_ms.is_some() == (attempt.outcome != running)));
        for offset in 0..60 {
            recorder.begin(beginning(offset, 1)).end(None);
        }
        let stats = recorder.lock().clone();
        assert_eq!((stats.attempts.len(), stats.attempts.back().unwrap().id), (REMEMBERED, 64));
    }
}
