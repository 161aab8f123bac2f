//! One batch on its way through the function: attempts, pauses, halving, giving up, and the commit at the end.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _},
};
use tokio::sync::watch;

use super::{
    Condition, EventSourceConfig, GivenUp, Invoker,
    batch::{Batch, Record},
    consumer::{Consumer, Ownership},
    event::Envelope,
    partial,
    stats::{Beginning, Recorder, short},
};
use crate::runtime::InvokeError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What every delivery of a poller needs.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) config: Arc<EventSourceConfig>,
    pub(super) envelope: Envelope,
    pub(super) invoker: Invoker,
    pub(super) consumer: Arc<Consumer>,
    pub(super) ownership: Arc<Ownership>,
    pub(super) stats: Arc<Recorder>,
    /// True once no new attempt may begin.
    pub(super) stop: watch::Receiver<bool>,
}

/// Per partition the next offset, and the assignment under which it may be committed.
type Offsets = BTreeMap<i32, (i64, u64)>;

/// Records that are attempted together.
struct Piece {
    records: Vec<Record>,
    /// Committed when no record of the piece is left, also where records were given up on.
    commit: Offsets,
    failures: u32,
    /// Attempts, including those of the batch from which it was cut.
    invocations: u32,
}

impl Piece {
    fn new(records: Vec<Record>, invocations: u32) -> Self {
        let commit = offsets(&records);
        Self { records, commit, failures: 0, invocations }
    }

    fn beginning(&self, bytes: usize) -> Beginning {
        let first = self.records.first();
        Beginning {
            partition: first.map_or(0, |record| record.partition),
            offset: first.map_or(0, |record| record.offset),
            records: self.records.len(),
            bytes,
            attempt: self.invocations,
        }
    }
}

/// The piece was taken away, or the source stops: whoever reads its partitions next begins with it again. A piece whose
/// partitions are still ours is never abandoned otherwise, because the records behind it go on and would be committed.
struct Abandoned;

impl Delivery {
    /// Ends when every record was taken, given up on, or abandoned.
    pub(super) async fn deliver(mut self, batch: Batch) {
        // A stack: the piece with the earlier offsets is always through before the later one begins.
        let mut pieces = Vec::new();
        match batch {
            Batch::Records(records) => pieces.push(Piece::new(records, 0)),
            Batch::TooLarge(record) => {
                if self.skip_too_large(*record).await.is_err() {
                    self.stats.lock().abandoned += 1;
                }
            }
        }
        while let Some(piece) = pieces.pop() {
            if *self.stop.borrow() || self.deliver_piece(piece, &mut pieces).await.is_err() {
                self.stats.lock().abandoned += 1;
            }
        }
    }

    async fn skip_too_large(&mut self, record: Record) -> Result<(), Abandoned> {
        let error = "the event of the record alone is larger than an event may be".to_owned();
        let records = [record];
        self.give_up(Condition::MaximumPayloadSizeExceeded, 0, error, &records).await?;
        self.commit(&offsets(&records), 0).await
    }

    /// One attempt, and what follows from it; what is to be tried again comes back onto the stack.
    async fn deliver_piece(&mut self, mut piece: Piece, pieces: &mut Vec<Piece>) -> Result<(), Abandoned> {
        let owned = self.ownership.snapshot();
        piece.records.retain(|record| owned.get(&record.partition) == Some(&record.generation));
        self.give_up_on_old(&mut piece).await?;
        if piece.records.is_empty() {
            return self.commit(&piece.commit, 0).await;
        }
        piece.invocations += 1;
        let payload = self.envelope.encode(&piece.records);
        let stats = self.stats.clone();
        let attempt = stats.begin(piece.beginning(payload.len()));
        let answer = self.attempt(&piece, payload).await?.map_err(|error| error.to_string());
        let error = match answer.and_then(|response| self.failed_items(&response, &piece.records)) {
            Ok(failed) if failed.is_empty() => {
                attempt.end(None);
                self.stats.lock().failures_in_a_row = 0;
                return self.commit(&piece.commit, piece.records.len()).await;
            }
            Ok(failed) => {
                let error = format!("the function reported failed records from {failed:?} on");
                attempt.end(Some(&error));
                self.commit_before(&failed, &mut piece).await?;
                error
            }
            Err(error) => {
                attempt.end(Some(&error));
                error
            }
        };
        self.failed(&error, &piece);
        if piece.records.len() > 1 && self.config.bisect_batch_on_function_error {
            cut(piece, |len| len / 2, pieces);
            return Ok(());
        }
        piece.failures += 1;
        if self.config.retries().is_some_and(|retries| piece.failures > retries) {
            self.give_up(Condition::RetryAttemptsExhausted, piece.invocations, error, &piece.records).await?;
            return self.commit(&piece.commit, 0).await;
        }
        self.pause(piece.failures, &piece.commit).await?;
        if piece.records.len() > 1 && self.config.resize_retries {
            cut(piece, |len| fastrand::usize(1..len), pieces);
        } else {
            pieces.push(piece);
        }
        Ok(())
    }

    /// Invokes the function. The invocation goes on without us when the partitions are taken away meanwhile.
    async fn attempt(&mut self, piece: &Piece, payload: Bytes) -> Result<Result<Bytes, InvokeError>, Abandoned> {
        let mut changes = self.ownership.changes();
        let invocation = (self.invoker)(payload);
        tokio::pin!(invocation);
        loop {
            tokio::select! {
                biased;
                result = &mut invocation => return Ok(result),
                // The sender lives in `self.ownership`.
                _ = changes.changed() => self.still_owned(&piece.commit)?,
            }
        }
    }

    /// The lowest failed offset per partition, if the function may report such.
    fn failed_items(&self, response: &[u8], records: &[Record]) -> Result<BTreeMap<i32, i64>, String> {
        if self.config.report_batch_item_failures {
            partial::failed_items(response, &self.config.topic, records)
        } else {
            Ok(BTreeMap::new())
        }
    }

    /// Commits what lies before the failed offsets and takes it out of the piece.
    async fn commit_before(&mut self, failed: &BTreeMap<i32, i64>, piece: &mut Piece) -> Result<(), Abandoned> {
        let taken = |record: &Record| failed.get(&record.partition).is_none_or(|offset| record.offset < *offset);
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut piece.records).into_iter().partition(taken);
        piece.records = rest;
        if done.is_empty() { Ok(()) } else { self.commit(&offsets(&done), done.len()).await }
    }

    fn failed(&self, error: &str, piece: &Piece) {
        tracing::warn!(
            error,
            records = piece.records.len(),
            first = piece.records.first().map(|record| format!("{}:{}", record.partition, record.offset)),
            attempt = piece.invocations,
            "A batch failed and is tried again; look into the function's log."
        );
        let mut stats = self.stats.lock();
        stats.failures += 1;
        stats.failures_in_a_row += 1;
        stats.last_error = Some(short(error));
    }

    async fn give_up_on_old(&mut self, piece: &mut Piece) -> Result<(), Abandoned> {
        let Some(age) = self.config.maximum_record_age else { return Ok(()) };
        let oldest = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
        let oldest = i64::try_from(oldest.as_millis()).unwrap_or(i64::MAX);
        let old = |record: &Record| record.timestamp >= 0 && record.timestamp < oldest;
        let (old, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut piece.records).into_iter().partition(old);
        piece.records = rest;
        if old.is_empty() {
            return Ok(());
        }
        let error = format!("the records are older than {age:?}");
        self.give_up(Condition::MaximumRecordAgeExceeded, piece.invocations, error, &old).await
    }

    /// Brings the records to the on-failure destination, for as long as that takes.
    async fn give_up(
        &mut self,
        condition: Condition,
        invocations: u32,
        error: String,
        records: &[Record],
    ) -> Result<(), Abandoned> {
        let given_up = Arc::new(GivenUp::new(condition, invocations, error, records, &self.envelope));
        let piece = Piece::new(records.to_vec(), invocations);
        for failures in 1.. {
            self.still_owned(&piece.commit)?;
            let (config, letter) = (self.config.clone(), given_up.clone());
            match tokio::task::spawn_blocking(move || letter.deliver(&config)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => self.failed(&format!("the on-failure destination refused: {error}"), &piece),
                Err(error) => self.failed(&format!("the on-failure destination failed: {error}"), &piece),
            }
            self.pause(failures, &piece.commit).await?;
        }
        tracing::error!(
            condition = ?condition,
            offsets = ?given_up.offsets,
            records = given_up.records,
            error = given_up.error,
            kept = self.config.on_failure.is_some(),
            "Records were given up on and are skipped; read them from the on-failure destination, or from the topic while it keeps them."
        );
        self.stats.lock().given_up += given_up.records as u64;
        Ok(())
    }

    /// Commits for the partitions that are still ours, for as long as that takes, and counts `records` as taken.
    async fn commit(&mut self, offsets: &Offsets, records: usize) -> Result<(), Abandoned> {
        for failures in 1.. {
            let mut list = TopicPartitionList::new();
            for (partition, (offset, generation)) in offsets {
                if self.ownership.is_current(*partition, *generation) {
                    // Only an offset below 0 is refused, and Kafka has none.
                    let _ = list.add_partition_offset(&self.config.topic, *partition, Offset::Offset(*offset));
                }
            }
            if list.count() == 0 {
                return Err(Abandoned);
            }
            let (consumer, committing) = (self.consumer.clone(), list.clone());
            let committed = tokio::task::spawn_blocking(move || consumer.commit(&committing, CommitMode::Sync)).await;
            let error = match committed {
                Ok(Ok(())) => {
                    let mut stats = self.stats.lock();
                    stats.records += records as u64;
                    for element in list.elements() {
                        if let Offset::Offset(offset) = element.offset() {
                            stats.committed.insert(element.partition(), offset);
                        }
                    }
                    break;
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(
                error,
                "A commit failed and is tried again; the records are delivered again should it never succeed."
            );
            {
                let mut stats = self.stats.lock();
                stats.failures += 1;
                stats.last_error = Some(error);
            }
            self.pause(failures, offsets).await?;
        }
        Ok(())
    }

    /// Fails when none of the partitions is ours any more.
    fn still_owned(&self, offsets: &Offsets) -> Result<(), Abandoned> {
        let ours =
            offsets.iter().any(|(partition, (_, generation))| self.ownership.is_current(*partition, *generation));
        if ours { Ok(()) } else { Err(Abandoned) }
    }

    /// Waits before a retry; fails when there is nothing to retry for.
    async fn pause(&mut self, failures: u32, offsets: &Offsets) -> Result<(), Abandoned> {
        let pause = tokio::time::sleep(backoff(failures, self.config.retry_backoff_cap));
        tokio::pin!(pause);
        let mut changes = self.ownership.changes();
        loop {
            if *self.stop.borrow() {
                return Err(Abandoned);
            }
            self.still_owned(offsets)?;
            tokio::select! {
                () = &mut pause => return Ok(()),
                changed = self.stop.changed() => if changed.is_err() { return Err(Abandoned) },
                _ = changes.changed() => {}
            }
        }
    }
}

fn offsets(records: &[Record]) -> Offsets {
    records.iter().map(|record| (record.partition, (record.offset + 1, record.generation))).collect()
}

/// Cuts a piece in two; the earlier part comes to lie on top.
fn cut(mut piece: Piece, place: impl Fn(usize) -> usize, pieces: &mut Vec<Piece>) {
    let later = piece.records.split_off(place(piece.records.len()));
    let mut later = Piece::new(later, piece.invocations);
    // What the whole piece owes beyond its records (given up on meanwhile) is owed by its last part.
    later.commit = piece.commit;
    later.failures = piece.failures;
    let mut earlier = Piece::new(piece.records, piece.invocations);
    earlier.failures = piece.failures;
    pieces.push(later);
    pieces.push(earlier);
}

/// 0.1 s, doubling up to the cap; each pause is random between half of that and all of it.
fn backoff(failures: u32, cap: Duration) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cap);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_are_jittered() {
        let cap = Duration::from_secs(2);
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (6, 2_000), (60, 2_000)] {
            let pause = backoff(failures, cap);
            let full = Duration::from_millis(full);
            assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?}");
        }
    }
}
