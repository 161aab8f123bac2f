//! Opening, checking and moving a topic-partition's ledger. Every write is conditional on the version that was read.

use bytes::Bytes;
use pipeline::lake::{Condition, Directory, Layout, Ledger, Put, PutRequest, Store, StoreError};

use crate::error::Error;
use crate::event::Record;
use crate::range::{self, When};

/// A ledger as it was last read or written.
pub struct OpenLedger<'s, S> {
    store: &'s S,
    key: String,
    pub ledger: Ledger,
    etag: String,
}

impl<'s, S: Store> OpenLedger<'s, S> {
    /// Reads the ledger. Where there is none, and the lake holds nothing of the topic-partition in `directories`, `expected`
    /// becomes the ledger; it exists before the first data object does.
    pub async fn open(
        store: &'s S,
        layout: &Layout,
        expected: &Ledger,
        directories: &[Directory],
    ) -> Result<OpenLedger<'s, S>, Error> {
        let key = layout.ledger(&expected.topic, expected.partition);
        if let Some(open) = Self::read(store, &key, expected).await? {
            return Ok(open);
        }
        for directory in directories {
            let prefix = layout.data_prefix(*directory, &expected.topic, expected.partition);
            if let Some(object) = store.list(&prefix, Some(1)).await?.first() {
                // A twin may have created both since; otherwise the ledger is lost.
                let lost = || {
                    let reason = format!("there is no ledger {key}, but the lake holds {}: it was lost", object.key);
                    Error::stopped(expected, reason, rebuild(expected))
                };
                return Self::read_twins(store, &key, expected).await?.ok_or_else(lost);
            }
        }
        match put(store, &key, expected, Condition::Absent).await? {
            Put::Stored { etag } => Ok(OpenLedger { store, key, ledger: expected.clone(), etag }),
            Put::Refused | Put::Missing => {
                Self::read_twins(store, &key, expected).await?.ok_or_else(|| gone(&key, expected))
            }
        }
    }

    /// The ledger that came to be since this attempt found none. In a later epoch it is of another life of the topic than this
    /// batch may be: the attempt gives up, and the next one reads it before anything else.
    async fn read_twins(store: &'s S, key: &str, expected: &Ledger) -> Result<Option<OpenLedger<'s, S>>, Error> {
        let twins = Self::read(store, key, expected).await?;
        match twins {
            Some(open) if open.ledger.epoch != expected.epoch => {
                let reason = format!("its ledger has come to epoch {} since this attempt began", open.ledger.epoch);
                Err(Error::stopped(expected, reason, "Nothing is to be done: the batch is delivered again".to_owned()))
            }
            other => Ok(other),
        }
    }

    async fn read(store: &'s S, key: &str, expected: &Ledger) -> Result<Option<OpenLedger<'s, S>>, Error> {
        let Some(object) = store.get(key).await? else { return Ok(None) };
        match Ledger::parse(&object.body) {
            Ok(ledger) => Ok(Some(OpenLedger { store, key: key.to_owned(), ledger, etag: object.etag })),
            Err(error) => {
                let cure = delete_and_rebuild(key, expected);
                Err(Error::stopped(expected, format!("the ledger {key} cannot be read: {error}"), cure))
            }
        }
    }

    /// Refuses to go on where the ledger speaks of something else than the batch.
    pub fn check(&self, expected: &Ledger, records: &[&Record], now_ms: i64) -> Result<(), Error> {
        let ledger = &self.ledger;
        let (topic, partition) = (&ledger.topic, ledger.partition);
        let other = |what: &str, theirs: &str, ours: &str, cure: &str| {
            let reason = format!("its ledger was written for {what} `{theirs}`, not `{ours}`");
            Err(Error::stopped(expected, reason, cure.to_owned()))
        };
        // The key says all of these, too: somebody has put another ledger there.
        let place = |l: &Ledger| format!("{}/{}-{}", l.prefix, l.topic, l.partition);
        if place(ledger) != place(expected) {
            let cure = delete_and_rebuild(&self.key, expected);
            return other("the topic-partition", &place(ledger), &place(expected), &cure);
        }
        if ledger.dataset != expected.dataset {
            let cure = "Give each dataset a prefix of its own: lake.prefix in its file";
            return other("dataset", &ledger.dataset, &expected.dataset, cure);
        }
        if ledger.format != expected.format {
            let cure = "Turn the event source off, wait until it is drained, then run `freshet ledger format`; or set the format back";
            return other("format", &ledger.format, &expected.format, cure);
        }
        if let (Some(theirs), Some(ours)) = (&ledger.cluster, &expected.cluster)
            && theirs != ours
        {
            let cure = "Offsets of two clusters do not mix: give the new cluster's lake a prefix of its own (lake.prefix), or, where the old cluster is gone for good, run `freshet ledger reset --cluster`";
            return other("cluster", theirs, ours, cure);
        }
        let mut anew: Option<&Record> = None;
        for record in records {
            let (offset, timestamp) = (record.offset, record.timestamp);
            let when = range::when(timestamp, now_ms);
            if when == When::Unsure {
                let reason = format!("offset {offset} bears a timestamp about an hour ahead of this clock");
                let cure = "The batch is stored once half an hour has passed; set the brokers' clocks right, and message.timestamp.type=LogAppendTime";
                return Err(Error::stopped(expected, reason, cure.to_owned()));
            }
            let repeat = offset >= ledger.next_offset || Some(timestamp) <= ledger.newest_timestamp;
            if !repeat && when == When::Usual && anew.is_none_or(|record| record.timestamp < timestamp) {
                anew = Some(record);
            }
        }
        if let Some(Record { offset, timestamp, .. }) = anew {
            let reason = format!(
                "offset {offset} is stored already, yet its timestamp {timestamp} is later than any stored: the topic was made anew"
            );
            let cure = format!(
                "Turn the event source off, wait for the function's timeout, then run `freshet ledger reset {topic} {partition}`; \
                 if the topic is the same, `freshet ledger accept {topic} {partition} --newest-timestamp {timestamp}` instead"
            );
            return Err(Error::stopped(expected, reason, cure));
        }
        Ok(())
    }

    /// Moves behind a range that is in the lake and ends at `end`.
    pub async fn advance(&mut self, end: i64, directory: Directory, newest: Option<i64>) -> Result<(), Error> {
        loop {
            let mut next = self.ledger.clone();
            next.advance(end, directory, newest);
            match put(self.store, &self.key, &next, Condition::Matches(self.etag.clone())).await? {
                Put::Stored { etag } => {
                    (self.ledger, self.etag) = (next, etag);
                    return Ok(());
                }
                Put::Missing => return Err(gone(&self.key, &next)),
                Put::Refused => {}
            }
            let now = Self::read(self.store, &self.key, &next).await?.ok_or_else(|| gone(&self.key, &next))?;
            if now.ledger.epoch != next.epoch {
                let reason = format!("its epoch went from {} to {} meanwhile", next.epoch, now.ledger.epoch);
                return Err(Error::stopped(&next, reason, "The retry goes on in the new epoch".to_owned()));
            }
            *self = now;
            if self.ledger.next_offset > end {
                return Ok(());
            }
        }
    }
}

async fn put<S: Store>(store: &S, key: &str, ledger: &Ledger, condition: Condition) -> Result<Put, StoreError> {
    let body = Bytes::from(ledger.to_json());
    let metadata = Default::default();
    store.put(PutRequest { key: key.to_owned(), body, condition, content_type: "application/json", metadata }).await
}

fn gone(key: &str, ledger: &Ledger) -> Error {
    Error::stopped(ledger, format!("the ledger {key} was deleted"), rebuild(ledger))
}

/// With the event source on, the next attempt would make a new ledger in the place of the one that was deleted.
pub fn delete_and_rebuild(key: &str, ledger: &Ledger) -> String {
    let Ledger { topic, partition, .. } = ledger;
    format!(
        "Turn the event source off, wait for the function's timeout, delete {key}, then run `freshet ledger rebuild {topic} {partition}`"
    )
}

fn rebuild(ledger: &Ledger) -> String {
    format!("Run `freshet ledger rebuild {} {}`", ledger.topic, ledger.partition)
}
