//! Which of a batch's records make the next range. Two attempts that start at the same offset must come to the same
//! directory: it depends on the ledger and on the range's first record alone.

use pipeline::lake::{Directory, FirstRecord, Ledger};

use crate::decode::Value;
use crate::event::Record;

const HOUR_MS: i64 = 3_600_000;
/// Half of the time in which two attempts that are alive at once could disagree about what lies in the future. An attempt
/// lives for 15 minutes at most, so what one calls future, none of its twins calls present.
const UNSURE_MS: i64 = 15 * 60_000;

/// Where a record's timestamp lies, seen from the attempt's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Usual,
    /// More than an hour ahead, beyond doubt: a dead letter, which counts for no directory.
    Future,
    /// About an hour ahead: another attempt may judge otherwise. The batch waits until it is over.
    Unsure,
}

pub fn when(timestamp_ms: i64, now_ms: i64) -> When {
    let ahead = timestamp_ms.saturating_sub(now_ms);
    if ahead > HOUR_MS + UNSURE_MS {
        When::Future
    } else if ahead >= HOUR_MS - UNSURE_MS {
        When::Unsure
    } else {
        When::Usual
    }
}

/// The records of a batch that are not stored yet, with their values.
#[derive(Clone, Copy)]
pub struct Pending<'b, 'e, 'a> {
    records: &'b [&'e Record<'a>],
    /// As many as `records`.
    values: &'b [Value<&'b str>],
}

impl<'b, 'e, 'a> Pending<'b, 'e, 'a> {
    pub fn new(records: &'b [&'e Record<'a>], values: &'b [Value<&'b str>]) -> Self {
        Pending { records, values }
    }

    /// Without the records below `offset`, and how many those were.
    pub fn from(self, offset: i64) -> (Self, usize) {
        let below = self.records.partition_point(|record| record.offset < offset);
        (Pending { records: &self.records[below..], values: &self.values[below..] }, below)
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn records(&self) -> &'b [&'e Record<'a>] {
        self.records
    }

    /// Each record with its value, or with the reason why it has none.
    pub fn values(&self) -> impl Iterator<Item = (&'e Record<'a>, Value<&'b str>)> + use<'b, 'e, 'a> {
        self.records.iter().copied().zip(self.values.iter().copied())
    }

    /// Offsets that lie between the records and before the first one, from `expected` on: transaction markers, compaction, expiry.
    pub fn gaps(&self, mut expected: i64) -> u64 {
        let mut gaps = 0;
        for record in self.records {
            gaps += record.offset.saturating_sub(expected).max(0).unsigned_abs();
            expected = record.offset + 1;
        }
        gaps
    }
}

/// A contiguous run of offsets, all in one directory.
pub struct Range<'b, 'e, 'a> {
    pub directory: Directory,
    /// The ledger's next offset, so that gaps lie inside and a late twin meets the same key.
    pub start: i64,
    /// Inclusive.
    pub end: i64,
    pub first: FirstRecord,
    /// Of the records that do not lie in the future.
    pub newest_timestamp: Option<i64>,
    pub pending: Pending<'b, 'e, 'a>,
}

/// The next range: up to where the hour moves forward. `None` where nothing is pending.
pub fn next<'b, 'e, 'a>(ledger: &Ledger, pending: Pending<'b, 'e, 'a>, now_ms: i64) -> Option<Range<'b, 'e, 'a>> {
    let first = pending.records.first()?;
    let own = match when(first.timestamp, now_ms) {
        When::Future => None,
        _ => Some(Directory::of(first.timestamp)),
    };
    // A log whose very first record lies in the future has no hour to go by.
    let directory = ledger.directory.max(own).unwrap_or(Directory::of(0));
    let stays = |record: &&&Record| {
        when(record.timestamp, now_ms) == When::Future || Directory::of(record.timestamp) <= directory
    };
    let length = pending.records.iter().take_while(stays).count();
    let records = &pending.records[..length];
    let usual = records.iter().filter(|record| when(record.timestamp, now_ms) != When::Future);
    Some(Range {
        directory,
        start: ledger.next_offset,
        end: records.last().map_or(first.offset, |record| record.offset),
        first: FirstRecord { offset: first.offset, timestamp: first.timestamp },
        newest_timestamp: usual.map(|record| record.timestamp).max(),
        pending: Pending { records, ..pending },
    })
}
