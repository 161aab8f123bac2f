//! A run, top to bottom. docs/DESIGN.md, "Replay", says why each step is there.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::lake::Store;

use super::fate::next_offsets;
use super::journal::{self, Batch, Done, End, Lock, Open, Pace, Replays, Window};
use super::letters::{self, Letter, Record};
use super::plan::{Filter, plan};
use super::topic::{Outcome, Topic};
use crate::kafka::Watermarks;
use crate::progress::Progress;
use crate::text::count;
use crate::{Error, Target};

/// Letters of a batch, at most.
const BATCH: usize = 1_000;

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Letters whose record this run put onto the topic.
    pub replayed: u64,
    /// Letters of unfinished batches whose record was on the topic already.
    pub found: u64,
    /// Letters whose record is not on the topic, each with the reason.
    pub refused: BTreeMap<String, String>,
}

pub struct Run<'a, S, T> {
    pub store: &'a S,
    pub target: &'a Target,
    pub topic: &'a T,
    pub filter: &'a Filter,
    pub pace: Pace,
    /// Who runs it, for the one that finds its lock.
    pub owner: &'a str,
    pub progress: &'a Progress,
}

impl<S: Store, T: Topic> Run<'_, S, T> {
    /// Finishes what earlier runs began, then replays what the filter takes.
    pub async fn carry_out(&self) -> Result<Summary, Error> {
        // 1. One run at a time.
        let lock = Lock::take(self.store, &self.target.layout, self.owner, self.pace, self.progress).await?;
        let done = tokio::select! {
            done = self.replay(&lock) => done,
            lost = lock.keep() => return Err(lost),
        };
        self.progress.clear();
        // Every delivery was awaited, also where one failed. A lock that stays is taken over by the next run.
        let released = lock.release().await;
        let summary = done?;
        if let Err(error) = released {
            self.progress.say(&format!("The lock was not released, so the next run will wait for a minute: {error}"));
        }
        Ok(summary)
    }

    async fn replay(&self, lock: &Lock<'_, S>) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        // 2. What was begun comes first.
        let mut replays = journal::replays(self.store, &self.target.layout).await?;
        while let Some(open) = replays.open.pop() {
            self.resume(lock, open, &replays, &mut summary).await?;
            replays = journal::replays(self.store, &self.target.layout).await?;
        }
        // 3. Under the lock: what was shown before may have been replayed by somebody else since.
        let plan = plan(self.store, self.target, self.filter, &replays).await?;
        self.progress.expect(plan.letters.len() as u64);
        for (number, letters) in (0..).zip(plan.letters.chunks(self.batch_size())) {
            self.batch(lock, number, letters, &mut summary).await?;
        }
        Ok(summary)
    }

    /// What is sent in half of a batch's time.
    fn batch_size(&self) -> usize {
        let most = f64::from(self.pace.rate) * self.pace.send_within.as_secs_f64() / 2.0;
        (most as usize).clamp(1, BATCH)
    }

    async fn batch(
        &self,
        lock: &Lock<'_, S>,
        number: u32,
        letters: &[Letter],
        summary: &mut Summary,
    ) -> Result<(), Error> {
        let ids = letters.iter().map(|letter| letter.id.clone()).collect();
        let (mut done, records) = self.records(letters.iter().collect()).await?;
        let epochs = next_offsets(self.store, self.target).await?;
        // 4. The window begins before anybody else could have taken the lock.
        let window = lock.renew().await?;
        let watermarks = self.topic.watermarks().await?;
        let end = |(partition, watermarks): (&i32, &Watermarks)| {
            (*partition, End { high: watermarks.high, epoch: epochs.get(partition).map(|(epoch, _)| *epoch) })
        };
        // 5. The intent, with the end of each partition: what of the batch is produced lies behind it.
        let open = lock.begin(number, &self.target.topic, watermarks.iter().map(end).collect(), ids).await?;
        // 6. Produce.
        self.publish(records, &watermarks, window, &mut done, summary).await?;
        summary.refused.extend(done.refused.clone());
        // 7. Mark.
        lock.finish(open, done).await
    }

    /// Finds out what of an unfinished batch is on the topic, and produces the rest.
    async fn resume(
        &self,
        lock: &Lock<'_, S>,
        open: Open,
        replays: &Replays,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        self.still_the_same(&open).await?;
        // What a dead run's client had sent may still arrive.
        lock.wait_until_settled(&open.batch, self.progress).await;
        let watermarks = self.topic.watermarks().await?;
        let start = |partition: &i32, low: i64| open.batch.partitions.get(partition).map_or(low, |end| end.high);
        let spans = watermarks.iter().map(|(partition, w)| (*partition, (start(partition, w.low), w.high))).collect();
        let on_the_topic = self.topic.replayed(spans).await?;

        let mut done = Done::default();
        let mut missing: BTreeSet<&str> = BTreeSet::new();
        for id in &open.batch.letters {
            match on_the_topic.get(id) {
                Some(spot) => {
                    done.replayed.insert(id.clone(), *spot);
                }
                // By a run that took over before this batch was written down.
                None if replays.done.contains(id) => {}
                None => {
                    missing.insert(id);
                }
            }
        }
        summary.found += done.replayed.len() as u64;
        let found = letters::collect(self.store, &self.target.layout).await?.letters;
        let letters: Vec<&Letter> = found.iter().filter(|letter| missing.remove(letter.id.as_str())).collect();
        for id in missing {
            done.refused.insert(id.to_owned(), "is not in the lake any more".to_owned());
        }
        self.progress.expect(letters.len() as u64);
        let (unreadable, records) = self.records(letters).await?;
        done.refused.extend(unreadable.refused);
        let mut open = open;
        for records in records.chunks(self.batch_size()) {
            let window = lock.renew().await?;
            open = lock.take_up(open).await?;
            self.publish(records.to_vec(), &watermarks, window, &mut done, summary).await?;
        }
        summary.refused.extend(done.refused.clone());
        lock.finish(open, done).await
    }

    /// The topic is the one that the batch was begun on, and holds everything since.
    async fn still_the_same(&self, open: &Open) -> Result<(), Error> {
        let Batch { run, owner, topic, partitions, .. } = &open.batch;
        let refused = |what: String| {
            Err(Error::stopped(format!(
                "replay {run} of {owner} did not finish, and {what}: what of its {} is on the topic cannot be found out any more, and nothing \
                 was replayed. Look with `freshet query` whether their rows are there; then delete {}: its letters count as never replayed, \
                 and may be stored twice by the next replay",
                count(open.batch.letters.len() as u64, "letter"),
                open.key
            )))
        };
        if *topic != self.target.topic {
            return refused(format!("it was for the topic `{topic}`, not `{}`", self.target.topic));
        }
        let now = self.topic.watermarks().await?;
        let epochs = next_offsets(self.store, self.target).await?;
        for (partition, end) in partitions {
            let epoch = epochs.get(partition).map(|(epoch, _)| *epoch);
            let anew = match now.get(partition) {
                None => true,
                Some(watermarks) => {
                    watermarks.high < end.high || end.epoch.is_some_and(|was| epoch.is_some_and(|is| is != was))
                }
            };
            if anew {
                return refused(format!("the topic was made anew since (partition {partition})"));
            }
            if let Some(watermarks) = now.get(partition).filter(|watermarks| watermarks.low > end.high) {
                let (low, high) = (watermarks.low, end.high);
                return refused(format!(
                    "records since have expired (partition {partition} begins at {low} now, and ended at {high} then)"
                ));
            }
        }
        Ok(())
    }

    /// The letters' records; those that have none are refused.
    async fn records(&self, letters: Vec<&Letter>) -> Result<(Done, Vec<Record>), Error> {
        let mut done = Done::default();
        let mut records = Vec::with_capacity(letters.len());
        for (letter, record) in letters.iter().zip(letters::records(self.store, &letters).await?) {
            match record {
                Ok(record) => records.push(record),
                Err(reason) => {
                    done.refused.insert(letter.id.clone(), reason);
                }
            }
        }
        Ok((done, records))
    }

    async fn publish(
        &self,
        mut records: Vec<Record>,
        watermarks: &BTreeMap<i32, Watermarks>,
        window: Window,
        done: &mut Done,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        for record in &mut records {
            // To the partition that it came from, where that is still there.
            record.partition = record.partition.filter(|partition| watermarks.contains_key(partition));
        }
        let ids: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
        let outcomes =
            if records.is_empty() { Vec::new() } else { self.topic.publish(records, window, self.progress).await? };
        let (mut unknown, mut first) = (0, None);
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Stored(spot) => {
                    summary.replayed += 1;
                    done.replayed.insert(id, spot);
                }
                Outcome::Refused(reason) => {
                    done.refused.insert(id, reason);
                }
                Outcome::Unknown(reason) => {
                    unknown += 1;
                    first.get_or_insert(reason);
                }
            }
        }
        if let Some(reason) = first {
            return Err(Error::stopped(format!(
                "Kafka did not acknowledge {}, the first because: {reason}. Check the brokers and run the command again: it finds on the \
                 topic what did arrive, and sends the rest",
                count(unknown, "letter")
            )));
        }
        Ok(())
    }
}
