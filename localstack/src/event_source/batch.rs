//! Which records make the next batch, and when it may go. Pure: the time comes from outside.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::event::Envelope;

/// One record, already in the form that it has in the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Kafka's timestamp, Unix milliseconds; -1 when there is none.
    pub(super) timestamp: i64,
    /// The assignment of the partition under which it was read.
    pub(super) generation: u64,
    pub(super) received: Instant,
    pub(super) json: Bytes,
}

/// When a batch is closed: at so many records, before its event would be larger than `payload` bytes, or so long after
/// its first record was received, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) records: usize,
    pub(super) payload: usize,
    pub(super) window: Duration,
}

/// The records that go out together.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    Records(Vec<Record>),
    /// A record whose event is larger than any event may be, even when it is alone.
    TooLarge(Box<Record>),
}

/// Records in the order of their arrival; the first `open` of them are the batch that is being filled.
pub(super) struct Batcher {
    limits: Limits,
    envelope: Envelope,
    queue: VecDeque<Record>,
    /// The sum of the records' own bytes.
    bytes: usize,
    open: usize,
    open_bytes: usize,
    open_partitions: Vec<i32>,
    /// The batch takes no further record.
    full: bool,
}

impl Batcher {
    pub(super) fn new(limits: Limits, envelope: Envelope) -> Self {
        let open_bytes = envelope.len();
        Self {
            limits,
            envelope,
            queue: VecDeque::new(),
            bytes: 0,
            open: 0,
            open_bytes,
            open_partitions: Vec::new(),
            full: false,
        }
    }

    /// The bytes of all records that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.json.len();
        self.queue.push_back(record);
        self.fill();
    }

    /// From when on [`Batcher::take`] gives a batch; `None` while no record waits.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = self.queue.front()?;
        Some(if self.full { first.received } else { first.received + self.limits.window })
    }

    /// The batch, when it is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Batch> {
        if self.due()? > now {
            return None;
        }
        let records: Vec<Record> = self.queue.drain(..self.open.max(1)).collect();
        let too_large = self.open == 0;
        self.bytes -= records.iter().map(|record| record.json.len()).sum::<usize>();
        self.refill();
        if too_large {
            return records.into_iter().next().map(|record| Batch::TooLarge(Box::new(record)));
        }
        Some(Batch::Records(records))
    }

    /// Drops the records for which `keep` is false: their partitions were taken away.
    pub(super) fn retain(&mut self, keep: impl Fn(&Record) -> bool) {
        self.queue.retain(keep);
        self.bytes = self.queue.iter().map(|record| record.json.len()).sum();
        self.refill();
    }

    fn refill(&mut self) {
        self.open = 0;
        self.open_bytes = self.envelope.len();
        self.open_partitions.clear();
        self.full = false;
        self.fill();
    }

    /// Lets the open batch grow over the records behind it. A record too large for any event stays in front of an empty
    /// and full batch: nothing passes it, and it passes nothing.
    fn fill(&mut self) {
        while !self.full
            && let Some(record) = self.queue.get(self.open)
        {
            let known = self.open_partitions.contains(&record.partition);
            // A comma, or the name and the brackets of a new partition; the first one has no comma before it.
            let first = usize::from(self.open_partitions.is_empty());
            let around = if known { 1 } else { self.envelope.partition_len(record.partition) - first };
            let bytes = self.open_bytes + around + record.json.len();
            if bytes > self.limits.payload {
                self.full = true;
                break;
            }
            if !known {
                self.open_partitions.push(record.partition);
            }
            self.open_bytes = bytes;
            self.open += 1;
            self.full = self.open >= self.limits.records;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_source::EventSourceConfig;

    const WINDOW: Duration = Duration::from_millis(500);

    fn batcher(records: usize, payload: usize) -> Batcher {
        let envelope = Envelope::new(&EventSourceConfig::new("t", "b", "g"));
        Batcher::new(Limits { records, payload, window: WINDOW }, envelope)
    }

    fn record(partition: i32, offset: i64, received: Instant, bytes: usize) -> Record {
        Record { partition, offset, timestamp: 0, generation: 0, received, json: vec![b'1'; bytes].into() }
    }

    fn offsets(batch: Option<Batch>) -> Vec<i64> {
        match batch {
            Some(Batch::Records(records)) => records.iter().map(|record| record.offset).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_window_starts_with_the_first_record() {
        let start = Instant::now();
        let mut batcher = batcher(10, 10_000);
        assert_eq!(batcher.due(), None);
        batcher.push(record(0, 1, start, 5));
        batcher.push(record(0, 2, start + WINDOW / 2, 5));
        assert_eq!(batcher.due(), Some(start + WINDOW));
        assert_eq!(batcher.take(start + WINDOW / 2), None);
        assert_eq!(offsets(batcher.take(start + WINDOW)), [1, 2]);
        assert_eq!(batcher.due(), None);
        assert_eq!(batcher.bytes(), 0);
    }

    #[test]
    fn a_batch_of_the_full_size_goes_at_once_and_the_rest_waits_for_its_own_window() {
        let start = Instant::now();
        let mut batcher = batcher(2, 10_000);
        for offset in 1..=3 {
            batcher.push(record(0, offset, start, 5));
        }
        assert_eq!(offsets(batcher.take(start)), [1, 2]);
        assert_eq!(batcher.take(start), None);
        assert_eq!(offsets(batcher.take(start + WINDOW)), [3]);
    }

    #[test]
    fn a_batch_is_closed_before_the_record_that_would_make_it_too_large() {
        let start = Instant::now();
        let limit = 300;
        let mut batcher = batcher(1_000, limit);
        for offset in 0..20 {
            batcher.push(record(i32::try_from(offset % 3).unwrap(), offset, start, 37));
        }
        let mut seen = Vec::new();
        while let Some(batch) = batcher.take(start + WINDOW) {
            let Batch::Records(records) = batch else { panic!("{batch:?}") };
            let event = batcher.envelope.encode(&records);
            assert!(event.len() <= limit, "{}", event.len());
            // One more would not have fitted, but for the last batch.
            assert!(event.len() + 37 + 9 > limit || batcher.len() == 0, "{}", event.len());
            seen.extend(records.iter().map(|record| record.offset));
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_record_too_large_for_any_event_goes_alone_and_in_its_turn() {
        let start = Instant::now();
        let mut batcher = batcher(10, 200);
        batcher.push(record(0, 1, start, 10));
        batcher.push(record(0, 2, start, 400));
        batcher.push(record(0, 3, start, 10));
        assert_eq!(offsets(batcher.take(start)), [1]);
        let Some(Batch::TooLarge(record)) = batcher.take(start) else { panic!() };
        assert_eq!(record.offset, 2);
        assert_eq!(offsets(batcher.take(start + WINDOW)), [3]);
    }

    #[test]
    fn records_of_a_lost_partition_are_forgotten() {
        let start = Instant::now();
        let mut batcher = batcher(3, 10_000);
        for offset in 0..4 {
            batcher.push(record(i32::try_from(offset % 2).unwrap(), offset, start, 5));
        }
        batcher.retain(|record| record.partition == 1);
        assert_eq!((batcher.len(), batcher.bytes()), (2, 10));
        assert_eq!(batcher.take(start), None);
        assert_eq!(offsets(batcher.take(start + WINDOW)), [1, 3]);
    }
}
