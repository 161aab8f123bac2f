//! Plays one history on the real handler, with an operator who does what the consumer's messages say, and judges its end.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use consumer::error::Error;
use consumer::handler::{Attempt, Consumer};
use consumer::report::Report;
use freshet::kafka::Watermarks;
use freshet::ledger::change::Plan;
use freshet::ledger::plan::{self, Reset};
use pipeline::dataset::Dataset;
use pipeline::lake::{Directory, Ledger, PutRequest};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::history::{Action, History, OnTopic, World, logs};
use crate::support::events::*;
use crate::support::gaps;
use crate::support::memory_store::MemoryStore;
use crate::support::rows::{dead_letter_objects, rows_whole};

const LEDGER: &str = "_ledger/texts/texts/0.json";
const QUARTER_MS: i64 = 15 * 60_000;

/// What a history came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    pub attempts: u64,
    /// Rows that are a record's second.
    pub duplicates: u64,
    /// Records that are neither row nor dead letter; that each was noticed is a part of the judgement.
    pub losses: u64,
    /// Attempts that stopped with a message for the operator.
    pub stops: u64,
    /// How often the operator did what a message says.
    pub cures: u64,
}

type Running = Pin<Box<dyn Future<Output = Result<Report, Error>>>>;

struct LiveAttempt {
    future: Running,
    store: MemoryStore,
    /// Index behind the batch's last record, and the life of the topic that it is from.
    end: usize,
    life: usize,
    began: i64,
    offsets: BTreeSet<i64>,
}

/// What the operator is about to do.
#[derive(Debug, Clone, Copy)]
enum Cure {
    /// Of a topic made anew that was noticed late: what was taken for repeats is delivered again.
    Reset,
    Rebuild,
    /// Until a timestamp no longer lies about an hour ahead.
    Wait,
}

struct Play {
    world: World,
    store: MemoryStore,
    logs: Vec<Vec<OnTopic>>,
    life: usize,
    /// Index of the first record that the event source has not committed.
    committed: usize,
    live: Vec<LiveAttempt>,
    /// The event source waits for the attempt at this index.
    current: Option<usize>,
    /// Requests of dead attempts that may yet land, each with the time when its attempt began.
    late: Vec<(i64, PutRequest)>,
    now: i64,
    /// The event source is off, and the operator waits until no attempt is alive.
    planned: Option<Cure>,
    /// Stops since the last attempt that succeeded.
    stops_in_a_row: usize,
    /// The next offset of the topic's first ledger.
    first_ledger: Option<i64>,
    /// Ranges that were said to have gaps, each with the life that its attempt's batch was of.
    gaps: Vec<(usize, RangeInclusive<i64>)>,
    /// Records of batches that were said to hold repeats.
    repeats: Vec<(usize, BTreeSet<i64>)>,
    create_time_batches: u64,
    outcome: Outcome,
}

/// The first decoder wants a string as `n`, the second one an integer as `text`: each refuses a record by a field that the
/// other one puts into `_extra`.
fn decoder(version: usize, store: &MemoryStore) -> Consumer<MemoryStore, MemoryStore> {
    static DATASETS: LazyLock<[Dataset; 2]> = LazyLock::new(|| {
        [
            dataset("ndjson", "{ id: 100, name: n, type: string, expression: n }"),
            dataset("ndjson", "{ id: 101, name: text, type: integer, expression: text }"),
        ]
    });
    consumer(DATASETS[version].clone(), store)
}

/// The value of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the store lets nobody wait"),
    }
}

impl Play {
    fn new(world: World, history: &History) -> Play {
        Play {
            world,
            store: MemoryStore::new(),
            logs: logs(world, history),
            life: 0,
            committed: 0,
            live: Vec::new(),
            current: None,
            late: Vec::new(),
            now: NOW,
            planned: None,
            stops_in_a_row: 0,
            first_ledger: None,
            gaps: Vec::new(),
            repeats: Vec::new(),
            create_time_batches: 0,
            outcome: Outcome::default(),
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match action {
            Action::Deliver { back, size, decoder } => self.deliver(*back, *size, *decoder),
            Action::Forget => self.current = None,
            Action::Step { attempt } if !self.live.is_empty() => self.step(attempt % self.live.len())?,
            Action::Kill { attempt, lands } if !self.live.is_empty() => {
                self.kill(attempt % self.live.len(), *lands);
                self.carry_out()?;
            }
            Action::Land { request } if !self.late.is_empty() => {
                let (_, request) = self.late.swap_remove(request % self.late.len());
                self.land(&request);
            }
            Action::Pass { time } => {
                self.pass(*time);
                self.carry_out()?;
            }
            // What nobody has consumed is gone with the old topic; so that it can be told from a loss, the log is cut there.
            Action::MakeAnew if self.life + 1 < self.logs.len() && self.committed > 0 => {
                let (life, committed) = (self.life, self.committed);
                self.logs[life].truncate(committed);
                self.make_anew();
            }
            Action::Expire { to } => {
                let end = (self.committed + to).saturating_sub(4);
                self.vanish(0..end);
            }
            Action::Compact { at } => {
                let committed = self.committed;
                self.vanish(at.iter().map(|place| (committed + place).saturating_sub(6)));
            }
            _ => {}
        }
        Ok(())
    }

    fn kill(&mut self, index: usize, lands: bool) {
        let killed = self.remove(index);
        self.late.extend(killed.store.take_wire().filter(|_| lands).map(|request| (killed.began, request)));
    }

    /// An attempt lives for a quarter of an hour at most, and for a quarter of an hour S3 takes a request that was signed.
    fn pass(&mut self, time: i64) {
        self.now += time;
        while let Some(index) = self.live.iter().position(|attempt| attempt.began < self.now - QUARTER_MS) {
            self.kill(index, true);
        }
        self.late.retain(|(began, _)| *began >= self.now - 2 * QUARTER_MS);
    }

    fn make_anew(&mut self) {
        (self.life, self.committed, self.current, self.planned) = (self.life + 1, 0, None, None);
    }

    /// The newest record always stays: with nothing behind it, nobody could know that it was there.
    fn vanish(&mut self, places: impl IntoIterator<Item = usize>) {
        let log = &mut self.logs[self.life];
        let last = log.len() - 1;
        for place in places {
            if place < last {
                log[place].gone = true;
            }
        }
    }

    fn land(&mut self, request: &PutRequest) {
        self.store.bucket().put(request);
        self.see_the_first_ledger();
    }

    fn see_the_first_ledger(&mut self) {
        if self.first_ledger.is_none() {
            let bucket = self.store.bucket();
            let ledger = bucket.objects.get(LEDGER).map(|stored| Ledger::parse(&stored.body).unwrap());
            self.first_ledger = ledger.map(|ledger| ledger.next_offset);
        }
    }

    fn deliver(&mut self, back: usize, size: usize, version: usize) {
        let log = &self.logs[self.life];
        let off = self.planned.is_some();
        if off || self.current.is_some() || self.committed >= log.len() || self.live.len() >= 6 {
            return;
        }
        let start = self.committed.saturating_sub(back);
        let there = log.iter().enumerate().skip(start).filter(|(_, entry)| !entry.gone).take(size);
        let (places, records): (Vec<_>, Vec<_>) = there.map(|(place, entry)| (place, entry.record.clone())).unzip();
        // The newest record is always there.
        let end = places[places.len() - 1] + 1;
        let store = self.store.gated();
        let consumer = Arc::new(decoder(version, &store));
        let event = if self.world.is_create_time() { create_time_event } else { event };
        let payload = event("texts", 0, &records);
        let now = self.now;
        let future: Running = Box::pin(async move { consumer.handle(&payload, &Attempt::at(now)).await });
        let offsets = records.iter().map(|record| record.offset).collect();
        self.live.push(LiveAttempt { future, store, end, life: self.life, began: now, offsets });
        self.current = Some(self.live.len() - 1);
        self.outcome.attempts += 1;
    }

    /// Lets one request of an attempt through, or its last steps.
    fn step(&mut self, index: usize) -> Result<(), TestCaseError> {
        let attempt = &mut self.live[index];
        attempt.store.grant();
        let future = attempt.future.as_mut();
        let (polled, gaps) = gaps::said(|| future.poll(&mut Context::from_waker(Waker::noop())));
        let life = attempt.life;
        self.gaps.extend(gaps.into_iter().map(|range| (life, range)));
        self.see_the_first_ledger();
        let Poll::Ready(result) = polled else { return Ok(()) };
        let current = self.current == Some(index);
        let done = self.remove(index);
        match result {
            Ok(report) => {
                self.stops_in_a_row = 0;
                self.create_time_batches += report.create_time_batches;
                if report.duplicates_dropped > 0 {
                    self.repeats.push((done.life, done.offsets));
                }
                if current && done.life == self.life {
                    self.committed = self.committed.max(done.end);
                }
            }
            Err(error) => self.operator(&error, done.life)?,
        }
        self.carry_out()
    }

    /// What a person does who reads the message. Attempts of the old topic say nothing about the new one.
    fn operator(&mut self, error: &Error, life: usize) -> Result<(), TestCaseError> {
        let Error::Stopped { cure, .. } = error else {
            return Err(TestCaseError::fail(format!("an attempt failed for no reason: {error}")));
        };
        self.outcome.stops += 1;
        self.stops_in_a_row += 1;
        if life != self.life {
            return Ok(());
        }
        let epoch = at_once(self.ledger()).map(|ledger| ledger.epoch as usize);
        let made_anew = epoch.is_some_and(|epoch| epoch < self.life);
        if cure.contains("freshet ledger reset") && made_anew {
            // The event source is off and the function's time-out waited out: attempts of the old topic may still hold what
            // they have read, but none begins to read.
            let unread = self.live.iter().any(|attempt| attempt.life < self.life && attempt.store.requests() == 0);
            if self.committed > 0 {
                self.planned = Some(Cure::Reset);
            } else if !unread {
                self.reset()?;
            }
        } else if let Some((_, command)) = cure.split_once("--newest-timestamp ") {
            // A record that lay in the future when it was stored, or that was gone before the ledger came to be.
            let may_be = self.world.is_create_time() || self.world.loses_records();
            prop_assert!(may_be, "stuck: a false alarm: {error}");
            let timestamp = command.split('`').next().and_then(|text| text.parse().ok()).unwrap();
            self.apply(at_once(plan::accept(&self.store, &target(), "texts", 0, timestamp)))?;
        } else if cure.contains("freshet ledger rebuild") {
            let may_be = self.world.loses_records() || self.world.begins_anew_earlier();
            prop_assert!(may_be, "stuck: a false alarm: {error}");
            // The message says: if it repeats.
            if self.stops_in_a_row > 1 {
                self.planned = Some(Cure::Rebuild);
            }
        } else if cure.contains("half an hour") {
            self.planned = Some(Cure::Wait);
        } else if cure.contains("freshet ledger reset") && self.world.begins_anew_earlier() {
            // It began before the reset.
        } else if !cure.starts_with("Nothing is to be done") && !cure.starts_with("The retry goes on") {
            return Err(TestCaseError::fail(format!("nobody knows what to do now: {error}")));
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<(), TestCaseError> {
        let low = self.logs[self.life].iter().find(|entry| !entry.gone).map_or(0, |entry| entry.record.offset);
        let topic = Some([(0, Watermarks { low, high: i64::MAX })].into());
        let reset = Reset { which: Some(("texts".into(), 0)), next_offset: None, topic, cluster: None };
        self.apply(at_once(plan::reset(&self.store, &target(), &reset)))
    }

    async fn ledger(&self) -> Option<Ledger> {
        let bucket = self.store.bucket();
        bucket.objects.get(LEDGER).map(|stored| Ledger::parse(&stored.body).unwrap())
    }

    /// The operator's command, confirmed.
    fn apply(&mut self, plan: Result<Plan, freshet::Error>) -> Result<(), TestCaseError> {
        let plan = plan.map_err(|error| TestCaseError::fail(format!("the cure cannot be had: {error}")))?;
        at_once(plan.apply(&self.store)).map_err(|error| TestCaseError::fail(format!("the cure failed: {error}")))?;
        self.outcome.cures += 1;
        self.stops_in_a_row = 0;
        Ok(())
    }

    /// Does what the operator is about to do, once no attempt is alive.
    fn carry_out(&mut self) -> Result<(), TestCaseError> {
        if !self.live.is_empty() {
            return Ok(());
        }
        match self.planned.take() {
            None => Ok(()),
            Some(Cure::Wait) => {
                self.pass(2 * QUARTER_MS);
                self.outcome.cures += 1;
                self.stops_in_a_row = 0;
                Ok(())
            }
            Some(Cure::Reset) => {
                self.committed = 0;
                self.reset()
            }
            Some(Cure::Rebuild) => {
                self.store.bucket().objects.remove(LEDGER);
                self.apply(at_once(plan::rebuild(&self.store, &target(), Some(("texts".into(), 0)), None)))
            }
        }
    }

    fn remove(&mut self, index: usize) -> LiveAttempt {
        self.current = match self.current {
            Some(current) if current == index => None,
            Some(current) if current > index => Some(current - 1),
            other => other,
        };
        self.live.remove(index)
    }

    /// Everything that is alive comes to its end, every late request lands, and the rest is delivered in order.
    fn calm_down(&mut self) -> Result<(), TestCaseError> {
        while !self.live.is_empty() {
            self.step(0)?;
        }
        for (_, request) in std::mem::take(&mut self.late) {
            self.land(&request);
        }
        let mut rounds = 0;
        loop {
            if self.committed >= self.logs[self.life].len() {
                if self.life + 1 == self.logs.len() {
                    return Ok(());
                }
                self.make_anew();
            }
            rounds += 1;
            prop_assert!(rounds < 200, "stuck: the partition does not get on, whatever the operator does");
            self.deliver(0, 14, rounds % 2);
            while !self.live.is_empty() {
                self.step(0)?;
            }
        }
    }

    /// A topic made anew looked like the old one, and that repeats were dropped was said: records of both may lie in one epoch.
    fn is_mixed(&self) -> bool {
        self.world.begins_anew_earlier() && self.repeats.iter().any(|(life, _)| *life == 1)
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let bucket = self.store.bucket();
        // A row is told by the life that its record bears, whatever epoch it is stored under.
        let mut times: HashMap<(usize, i64), Vec<u32>> = HashMap::new();
        for (id, line) in rows_whole(&bucket) {
            let extra: serde_json::Value = serde_json::from_str(line["_extra"].as_str().unwrap()).unwrap();
            times.entry((extra["life"].as_u64().unwrap() as usize, id.offset)).or_default().push(id.epoch);
        }
        let letters: BTreeSet<(usize, i64)> = dead_letter_objects(&bucket)
            .into_iter()
            .map(|letter| {
                let payload = base64_simd::STANDARD.decode_to_vec(letter.payload.unwrap()).unwrap();
                let text = String::from_utf8(payload).unwrap();
                let life = text.trim_end_matches('}').rsplit([' ', ':']).next().unwrap().parse().unwrap();
                (life, letter.offset.unwrap())
            })
            .collect();
        for ((life, offset), epochs) in &times {
            // Where records are gone, two attempts can choose two hours for one start, and with them where the next range starts.
            let gone = self.world.loses_records() && self.gaps.iter().any(|gap| gap.1.start() <= offset);
            // What a topic made anew had stored before it was noticed, its reset stores once more, in the next epoch.
            let again =
                self.world.begins_anew_earlier() && epochs.iter().collect::<BTreeSet<_>>().len() == epochs.len();
            let stored = epochs.len() as u64;
            let known = gone || again || self.is_mixed();
            prop_assert!(stored == 1 || known, "duplicate: offset {offset} of life {life} is stored {stored} times");
            self.outcome.duplicates += stored - 1;
        }
        for (life, log) in self.logs.iter().enumerate() {
            for OnTopic { record, poison, gone } in log {
                let (offset, whole) = (record.offset, (life, record.offset));
                let (row, letter) = (times.contains_key(&whole), letters.contains(&whole));
                let future = record.timestamp > NOW;
                if !row && !letter {
                    prop_assert!(!self.world.keeps_the_conditions(), "loss: offset {offset} of life {life}");
                    let said = *gone && self.gaps.iter().any(|(of, gap)| *of == life && gap.contains(&offset));
                    let before_the_first = *gone && life == 0 && self.first_ledger.is_none_or(|first| offset < first);
                    let dropped = self.world.begins_anew_earlier()
                        && self.repeats.iter().any(|(of, offsets)| *of == life && offsets.contains(&offset));
                    prop_assert!(
                        said || before_the_first || dropped,
                        "loss: offset {offset} of life {life}, and nobody noticed"
                    );
                    self.outcome.losses += 1;
                }
                prop_assert!(!row || *poison != [true, true], "offset {offset} of life {life} is junk and a row");
                prop_assert!(
                    !letter || *poison != [false, false] || future,
                    "offset {offset} of life {life} is good and a dead letter"
                );
            }
        }
        if self.world.is_create_time() {
            prop_assert!(self.create_time_batches > 0, "nobody noticed that timestamps are the producers'");
        }
        Ok(())
    }

    /// An hour that was passed never changes again, and none is written to that has not come.
    fn check_directories(&self) -> Result<(), TestCaseError> {
        let bucket = self.store.bucket();
        let layout = target().layout;
        let mut keys: Vec<_> = bucket.objects.keys().filter_map(|key| layout.parse_data(key)).collect();
        keys.sort_by_key(|key| (key.epoch, key.start));
        let ahead = Directory::of(self.now + HOUR_MS + QUARTER_MS);
        for key in &keys {
            prop_assert!(key.directory <= ahead, "directory: offset {} is far ahead in {}", key.start, key.directory);
        }
        for pair in keys.windows(2) {
            prop_assert!(
                pair[0].epoch < pair[1].epoch || pair[0].directory <= pair[1].directory || self.is_mixed(),
                "directory: offset {} went back to {}",
                pair[1].start,
                pair[1].directory
            );
        }
        Ok(())
    }
}

pub fn play(world: World, history: &History) -> Result<Outcome, TestCaseError> {
    let mut play = Play::new(world, history);
    for action in &history.actions {
        play.act(action)?;
    }
    play.calm_down()?;
    play.check()?;
    play.check_directories()?;
    Ok(play.outcome)
}
