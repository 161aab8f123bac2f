//! The way of a batch, top to bottom. docs/DESIGN.md, "Consumer", numbers the same steps and says why each is there.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pipeline::config::{DatasetChoice, LakeConfig};
use pipeline::dataset::Dataset;
use pipeline::lake::{
    Condition, DataKey, DeadLetter, Directory, FirstRecord, Header, Layout, Ledger, Put, PutRequest, RangeMetadata,
    Store, to_ndjson,
};
use pipeline::telemetry;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::decode::{Decoder, Payloads, Row};
use crate::encode::{self, Encoder, Stamp};
use crate::error::Error;
use crate::event::{Batch, Event, Record};
use crate::ledger::{OpenLedger, delete_and_rebuild};
use crate::range::{self, Pending, Range, When};
use crate::report::{Report, Tally};

/// One invocation: what time it is, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// No range is begun after it.
    last_start: Option<Instant>,
    /// The attempt fails at it, in good time for its answer to arrive.
    give_up: Option<Instant>,
}

impl Attempt {
    /// Without a limit of time.
    pub fn at(now_ms: i64) -> Attempt {
        Attempt { now_ms, last_start: None, give_up: None }
    }

    /// Within given limits.
    pub fn within(now_ms: i64, last_start: Instant, give_up: Instant) -> Attempt {
        Attempt { now_ms, last_start: Some(last_start), give_up: Some(give_up) }
    }

    /// Up to Lambda's deadline, in milliseconds since 1970. One that is past is taken for unknown: emulators send such.
    pub fn until(deadline_ms: u64) -> Attempt {
        let now_ms = telemetry::now_ms();
        let left = deadline_ms.saturating_sub(now_ms.unsigned_abs());
        if left == 0 {
            return Attempt::at(now_ms);
        }
        // Small limits keep most of their time, large ones a fixed reserve.
        let reserve = |most_ms: u64, share: u64| Duration::from_millis(left - (left / share).min(most_ms));
        let now = Instant::now();
        Attempt { now_ms, last_start: Some(now + reserve(5_000, 4)), give_up: Some(now + reserve(1_000, 10)) }
    }
}

pub struct Consumer<S, C> {
    dataset: Dataset,
    dataset_mismatch: bool,
    layout: Layout,
    decoder: Decoder,
    store: S,
    catalog: C,
    concurrency: usize,
}

/// A range that is in the lake, by us or by a twin.
struct Stored {
    end: i64,
    newest_timestamp: Option<i64>,
}

impl<S: Store, C: Catalog> Consumer<S, C> {
    pub fn new(
        choice: DatasetChoice,
        lake: &LakeConfig,
        store: S,
        concurrency: usize,
        catalog: impl FnOnce(Layout) -> C,
    ) -> Consumer<S, C> {
        let layout = Layout { prefix: lake.prefix.clone(), ledger_prefix: lake.ledger_prefix.clone() };
        let DatasetChoice { dataset, mismatch } = choice;
        let (decoder, catalog) = (Decoder::new(&dataset), catalog(layout.clone()));
        Consumer { dataset, dataset_mismatch: mismatch, layout, decoder, store, catalog, concurrency }
    }

    /// Stores an event's records. An error means that the event source must deliver the whole batch again.
    pub async fn handle(&self, payload: &[u8], attempt: &Attempt) -> Result<Report, Error> {
        if self.dataset_mismatch {
            tracing::warn!(
                sha256 = self.dataset.sha256,
                "The deployed dataset file is not the one in this build: deploy the code again."
            );
        }
        let event = Event::parse(payload).map_err(Error::Event)?;
        let batches = event.batches();
        if let Some(batch) = batches.iter().find(|batch| batch.topic != self.dataset.topic.name) {
            let (topic, expected) = (batch.topic, &self.dataset.topic.name);
            return Err(Error::Event(format!(
                "it holds records of topic `{topic}`, dataset `{}` reads `{expected}`",
                self.dataset.name
            )));
        }

        // 1. Partitions side by side, each by itself in order. All are awaited, also after one failed.
        let tally = Tally::default();
        let work = futures::stream::iter(&batches)
            .map(|batch| self.store_batch(event.cluster(), batch, attempt, &tally))
            .buffer_unordered(self.concurrency)
            .fold(Ok(()), async |all: Result<(), Error>, one| {
                if let Err(error) = &one {
                    tracing::error!(%error, "The batch fails; the event source will deliver it again.");
                }
                all.and(one)
            });
        let outcome = match attempt.give_up {
            Some(instant) => tokio::time::timeout_at(instant, work).await.unwrap_or(Err(Error::OutOfTime)),
            None => work.await,
        };

        let report = tally.total();
        telemetry::emit("consumer", &self.dataset.name, &report.metrics(telemetry::now_ms(), self.dataset_mismatch));
        // 9. Only when every partition is through.
        outcome.map(|()| report)
    }

    /// One topic-partition's records.
    async fn store_batch(
        &self,
        cluster: Option<&str>,
        batch: &Batch<'_, '_>,
        attempt: &Attempt,
        tally: &Tally,
    ) -> Result<(), Error> {
        // 2. The ledger is read while the records are decoded.
        let expected = self.first_ledger(cluster, batch);
        let directories = batch.directories();
        let (ledger, payloads) =
            tokio::join!(OpenLedger::open(&self.store, &self.layout, &expected, &directories), async {
                Payloads::decode(&batch.records)
            });
        let mut open = ledger?;
        open.check(&expected, &batch.records, attempt.now_ms)?;
        let values = payloads.values();
        let (mut pending, repeated) = Pending::new(&batch.records, &values).from(open.ledger.next_offset);
        tally.add(&Report {
            records: batch.records.len() as u64,
            duplicates_dropped: batch.repeated + repeated as u64,
            create_time_batches: u64::from(batch.records.iter().any(|record| record.is_create_time())),
            ..Report::default()
        });

        // 3. Ranges, each in one directory that never goes back.
        while let Some(range) = range::next(&open.ledger, pending, attempt.now_ms) {
            if attempt.last_start.is_some_and(|instant| Instant::now() >= instant) {
                return Err(Error::OutOfTime);
            }
            // 4. No row is stored but invisible.
            self.catalog.register(range.directory).await?;
            self.tell_gaps(&open.ledger, &range, tally);
            let stored = self.store_range(&open.ledger, &range, attempt, tally).await?;
            // 8. After each range.
            open.advance(stored.end, range.directory, stored.newest_timestamp).await?;
            pending = pending.from(open.ledger.next_offset).0;
        }
        Ok(())
    }

    /// Says which offsets were never delivered, before anything of their range is stored: behind it nobody sees the gap any
    /// more, whatever becomes of this attempt. So a gap is counted at least once.
    fn tell_gaps(&self, ledger: &Ledger, range: &Range<'_, '_, '_>, tally: &Tally) {
        let gaps = range.pending.gaps(range.start);
        if gaps == 0 {
            return;
        }
        let (topic, partition, start, end) = (&ledger.topic, ledger.partition, range.start, range.end);
        tracing::warn!(
            topic,
            partition,
            start,
            end,
            gaps,
            "Offsets between these were never delivered: their records expired or were compacted away before they were stored, \
             or they are markers of transactions. Look at the topic's retention and cleanup.policy, and at the lag."
        );
        telemetry::emit("consumer", &self.dataset.name, &[(telemetry::OFFSET_GAPS, gaps)]);
        tally.add(&Report { offset_gaps: gaps, ..Report::default() });
    }

    /// The ledger as it begins for a batch, and what an existing one is held against.
    fn first_ledger(&self, cluster: Option<&str>, batch: &Batch) -> Ledger {
        Ledger {
            dataset: self.dataset.name.clone(),
            prefix: self.layout.prefix.clone(),
            format: self.extension().to_owned(),
            cluster: cluster.map(str::to_owned),
            topic: batch.topic.to_owned(),
            partition: batch.partition,
            epoch: 0,
            next_offset: batch.records.first().map_or(0, |record| record.offset),
            directory: None,
            newest_timestamp: None,
        }
    }

    /// Writes a range's dead letters and its object, or adopts the object that a twin has written.
    async fn store_range(
        &self,
        ledger: &Ledger,
        range: &Range<'_, '_, '_>,
        attempt: &Attempt,
        tally: &Tally,
    ) -> Result<Stored, Error> {
        let key = DataKey {
            directory: range.directory,
            topic: ledger.topic.clone(),
            partition: ledger.partition,
            epoch: ledger.epoch,
            start: range.start,
            extension: self.extension().to_owned(),
        };
        let bytes_in = range.pending.values().map(|(_, value)| value.map_or(0, str::len)).sum();
        let mut encoder = Encoder::new(&self.dataset, range.pending.records().len(), bytes_in);
        let (mut row, mut rows, mut letters) = (Row::default(), 0, Vec::new());
        for (record, value) in range.pending.values() {
            match self.decode(record, value, &mut row, attempt) {
                Ok(()) => {
                    let (offset, timestamp) = (record.offset, record.timestamp);
                    encoder
                        .append(&row, Stamp { partition: ledger.partition, offset, epoch: ledger.epoch, timestamp })?;
                    rows += 1;
                }
                Err(reason) => letters.push(self.dead_letter(ledger.epoch, record, reason)),
            }
        }
        // A range without one good record still makes an object: it is the guard.
        let body = Bytes::from(encoder.finish()?);

        // 5. Dead letters first: what is behind the object is looked at by nobody again.
        if !letters.is_empty() {
            self.put_dead_letters(&key, range.end, &letters).await?;
        }
        let metadata = RangeMetadata {
            end: range.end,
            records: rows,
            dead_letters: letters.len() as u64,
            newest_timestamp: range.newest_timestamp,
            first: range.first,
            sha256: hex_sha256(&body),
        };
        // A first record that lies in the future now did not choose a directory before, and the other way round: what an
        // earlier attempt stored at this start may lie where the range would have gone without it.
        let elsewhere = DataKey { directory: ledger.directory.unwrap_or(Directory::of(0)), ..key.clone() };
        if elsewhere.directory != key.directory
            && let Some(stored) = self.adopt(ledger, range.first, &elsewhere, tally).await?
        {
            return Ok(stored);
        }
        // 6. Never overwrite.
        let bytes_out = body.len() as u64;
        let request = PutRequest {
            key: self.layout.data(&key),
            body,
            condition: Condition::Absent,
            content_type: encode::content_type(self.dataset.lake.format),
            metadata: metadata.to_map(),
        };
        loop {
            if let Put::Stored { .. } = self.store.put(request.clone()).await? {
                tally.add(&Report {
                    rows,
                    dead_letters: letters.len() as u64,
                    objects_written: 1,
                    bytes_in: bytes_in as u64,
                    bytes_out,
                    newest_timestamp: range.newest_timestamp,
                    ..Report::default()
                });
                return Ok(Stored { end: range.end, newest_timestamp: range.newest_timestamp });
            }
            // 7. Written before, by an earlier attempt or one that is still alive: go on behind what it stored.
            if let Some(stored) = self.adopt(ledger, range.first, &key, tally).await? {
                return Ok(stored);
            }
        }
    }

    /// Takes over the end of the range that is stored under a key, if there is one and it begins with the very same record.
    async fn adopt(
        &self,
        ledger: &Ledger,
        first: FirstRecord,
        key: &DataKey,
        tally: &Tally,
    ) -> Result<Option<Stored>, Error> {
        let key = self.layout.data(key);
        let Some(head) = self.store.head(&key).await? else { return Ok(None) };
        let Ledger { topic, partition, .. } = ledger;
        let damaged = |reason| {
            let cure = "Turn the event source off and move the object out of the prefix: what it held is stored anew where the \
                        topic still has it. Where it has not, bring the object back from a copy; see `freshet verify --deep`";
            Error::stopped(ledger, reason, cure.to_owned())
        };
        let theirs = RangeMetadata::from_map(&head.metadata)
            .map_err(|reason| damaged(format!("{key} {reason}: somebody else wrote it")))?;
        if theirs.first != first {
            let FirstRecord { offset, timestamp } = theirs.first;
            let reason = format!(
                "{key} begins with offset {offset} of {timestamp}, the batch with offset {} of {}",
                first.offset, first.timestamp
            );
            // A record keeps its timestamp. Where the offsets differ, one of the two was read when records were gone already.
            let (reason, cure) = if offset == first.offset {
                let cure = format!(
                    "If the topic was made anew: turn the event source off, wait for the function's timeout, then run \
                     `freshet ledger reset {topic} {partition}`. If not, somebody else writes here: run `freshet verify --deep`"
                );
                (format!("{reason}: another log is stored there"), cure)
            } else {
                let rebuild = delete_and_rebuild(&self.layout.ledger(topic, *partition), ledger);
                let cure = format!(
                    "If this repeats: {rebuild}, which goes on behind what is stored; or, if the topic was made anew, \
                     `freshet ledger reset {topic} {partition}`"
                );
                (format!("{reason}: records expired or were compacted away before they were stored"), cure)
            };
            return Err(Error::stopped(ledger, reason, cure));
        }
        if theirs.end < first.offset || theirs.end == i64::MAX {
            return Err(damaged(format!("{key} says that it ends at offset {}: its metadata is damaged", theirs.end)));
        }
        tally.add(&Report { ranges_adopted: 1, ..Report::default() });
        Ok(Some(Stored { end: theirs.end, newest_timestamp: theirs.newest_timestamp }))
    }

    /// A record in the future is refused whatever it holds.
    fn decode<'v>(
        &self,
        record: &Record,
        value: Result<&'v str, &str>,
        row: &mut Row<'v>,
        attempt: &Attempt,
    ) -> Result<(), String> {
        if range::when(record.timestamp, attempt.now_ms) == When::Future {
            return Err(format!("the Kafka timestamp {} lies more than an hour in the future", record.timestamp));
        }
        self.decoder.decode(value?, row)
    }

    fn dead_letter(&self, epoch: u32, record: &Record, error: String) -> DeadLetter {
        let Record { partition, offset, timestamp, .. } = record;
        let topic = record.topic.to_string();
        let base64 = |bytes: Vec<u8>| base64_simd::STANDARD.encode_to_string(bytes);
        let headers = record.headers().into_iter();
        DeadLetter {
            id: format!("{topic}+{partition}+e{epoch}+{offset}"),
            dataset: self.dataset.name.clone(),
            stage: "decode".to_owned(),
            error,
            topic,
            partition: Some(*partition),
            epoch: Some(epoch),
            offset: Some(*offset),
            timestamp: *timestamp,
            key: record.key.as_ref().map(|key| key.to_string()),
            headers: headers.map(|(name, value)| Header { name, value: value.map(base64) }).collect(),
            payload: record.value.as_ref().map(|value| value.to_string()),
        }
    }

    async fn put_dead_letters(&self, key: &DataKey, end: i64, letters: &[DeadLetter]) -> Result<(), Error> {
        let lines = to_ndjson(letters);
        let key = self.layout.dead_letters_of_range(key, end, &hex_sha256(&lines));
        let request = PutRequest {
            key,
            body: Bytes::from(encode::gzip(&lines)?),
            condition: Condition::Absent,
            content_type: "application/x-ndjson",
            metadata: Default::default(),
        };
        // Refused: the same letters are there already, the key holds their hash.
        self.store.put(request).await?;
        Ok(())
    }

    fn extension(&self) -> &'static str {
        self.dataset.lake.format.extension()
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
