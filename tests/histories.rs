//! The executable model's histories over the real handler: one topic-partition, an event source that delivers at least once
//! (batches of any size, attempts that it has forgotten and that live on, committed offsets again), attempts interleaved
//! request by request, crashes at every request, PUTs of dead attempts that land later, two decoder versions alive, and
//! topics made anew with an operator's reset. At the end everything is delivered once more in peace; then each record must
//! be one row or a dead letter, and nothing may be stuck.
//!
//! `PROPTEST_CASES` sets the number of histories (2,000 by default); a failure is shrunk and its seed kept by proptest.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use consumer::error::Error;
use consumer::handler::{Attempt, Consumer};
use consumer::report::Report;
use pipeline::lake::{Condition, Ledger, PutRequest};
use proptest::prelude::*;

use crate::support::events::*;
use crate::support::memory_store::MemoryStore;
use crate::support::rows::{dead_letters, rows};

const LEDGER: &str = "_ledger/texts/texts/0.json";

#[derive(Debug, Clone)]
struct Entry {
    /// Offsets left out before the record.
    gap: i64,
    /// Milliseconds since the record before it; negative where time goes back.
    step: i64,
    /// Which of the two decoders refuse it.
    poison: [bool; 2],
}

#[derive(Debug, Clone)]
enum Action {
    /// The event source begins an attempt, `back` records before the committed offset, with one of the decoders.
    Deliver { back: usize, size: usize, decoder: usize },
    /// The event source gives up on its attempt, which lives on.
    Forget,
    /// One attempt's next request gets through.
    Step { attempt: usize },
    /// An attempt is killed; what it has on the wire may land later.
    Kill { attempt: usize, lands: bool },
    /// A request of a dead attempt lands.
    Land { request: usize },
    /// The topic is deleted and made anew, once its records are consumed or in the middle of it.
    MakeAnew,
}

#[derive(Debug, Clone)]
struct History {
    first_offset: i64,
    logs: Vec<Vec<Entry>>,
    actions: Vec<Action>,
}

fn entry(backwards: bool) -> impl Strategy<Value = Entry> {
    let back = if backwards { 6 } else { 0 };
    // Minutes: a log crosses a few hours.
    let step = prop_oneof![4 => Just(0i64), 4 => 1..5i64, 2 => Just(25i64), back => -90..0i64];
    let gap = prop_oneof![11 => Just(0i64), 1 => 1..4i64];
    let poison = prop_oneof![8 => Just(false), 2 => Just(true)];
    (gap, step, [poison.clone(), poison]).prop_map(|(gap, step, poison)| Entry { gap, step: step * 60_000, poison })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (prop_oneof![6 => Just(0usize), 2 => 1..9usize], 1..15usize, 0..2usize)
            .prop_map(|(back, size, decoder)| Action::Deliver { back, size, decoder }),
        4 => Just(Action::Forget),
        60 => (0..8usize).prop_map(|attempt| Action::Step { attempt }),
        5 => (0..8usize, any::<bool>()).prop_map(|(attempt, lands)| Action::Kill { attempt, lands }),
        3 => (0..8usize).prop_map(|request| Action::Land { request }),
        1 => Just(Action::MakeAnew),
    ]
}

fn history(backwards: bool, lives: usize) -> impl Strategy<Value = History> {
    (
        prop_oneof![Just(0i64), Just(5i64)],
        prop::collection::vec(prop::collection::vec(entry(backwards), 3..30), lives),
        prop::collection::vec(action(), 0..160),
    )
        .prop_map(|(first_offset, logs, actions)| History { first_offset, logs, actions })
}

/// The records of each of the topic's lives.
fn logs(history: &History) -> Vec<Vec<(LogRecord, [bool; 2])>> {
    let mut time = HOUR;
    let mut logs = Vec::new();
    for (life, entries) in history.logs.iter().enumerate() {
        // The first life may have lost its oldest records; a topic made anew begins with offset 0.
        let mut offset = if life == 0 { history.first_offset } else { 0 };
        let mut log = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            offset += if index == 0 { 0 } else { entry.gap };
            time = (time + entry.step).max(HOUR - 24 * HOUR_MS);
            let value = match entry.poison {
                [false, false] => "{}",
                [false, true] => r#"{"text":"no integer"}"#,
                [true, false] => r#"{"n":1}"#,
                [true, true] => "junk",
            };
            log.push((LogRecord { offset, timestamp: time, value: Some(value.into()) }, entry.poison));
            offset += 1;
        }
        logs.push(log);
        // A topic made anew begins later than anything in the old one: LogAppendTime.
        time += 40 * HOUR_MS;
    }
    logs
}

type Running = Pin<Box<dyn Future<Output = Result<Report, Error>>>>;

struct LiveAttempt {
    future: Running,
    store: MemoryStore,
    /// Index behind the batch's last record, and the life of the topic that it is from.
    end: usize,
    life: usize,
}

struct World {
    store: MemoryStore,
    logs: Vec<Vec<(LogRecord, [bool; 2])>>,
    life: usize,
    /// Index of the first record that the event source has not committed.
    committed: usize,
    live: Vec<LiveAttempt>,
    /// The event source waits for the attempt at this index.
    current: Option<usize>,
    late: Vec<PutRequest>,
}

/// The first decoder wants a string as `n`, the second one an integer as `text`: each refuses a record by a field that the
/// other one puts into `_extra`.
fn decoder(version: usize, store: &MemoryStore) -> Consumer<MemoryStore, MemoryStore> {
    let columns = [
        "{ id: 100, name: n, type: string, expression: n }",
        "{ id: 101, name: text, type: integer, expression: text }",
    ];
    consumer(dataset("ndjson", columns[version]), store)
}

impl World {
    fn new(history: &History) -> World {
        World {
            store: MemoryStore::new(),
            logs: logs(history),
            life: 0,
            committed: 0,
            live: Vec::new(),
            current: None,
            late: Vec::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Deliver { back, size, decoder } => self.deliver(back, size, decoder),
            Action::Forget => self.current = None,
            Action::Step { attempt } if !self.live.is_empty() => self.step(attempt % self.live.len()),
            Action::Kill { attempt, lands } if !self.live.is_empty() => {
                let killed = self.remove(attempt % self.live.len());
                self.late.extend(killed.store.take_wire().filter(|_| lands));
            }
            Action::Land { request } if !self.late.is_empty() => {
                let request = self.late.swap_remove(request % self.late.len());
                self.store.bucket().put(&request);
            }
            // What nobody has consumed is gone with the old topic; so that it can be told from a loss, the log is cut there.
            Action::MakeAnew if self.life + 1 < self.logs.len() && self.committed > 0 => {
                let (life, committed) = (self.life, self.committed);
                self.logs[life].truncate(committed);
                self.make_anew();
            }
            _ => {}
        }
    }

    fn make_anew(&mut self) {
        (self.life, self.committed, self.current) = (self.life + 1, 0, None);
    }

    fn deliver(&mut self, back: usize, size: usize, version: usize) {
        let log = &self.logs[self.life];
        if self.current.is_some() || self.committed >= log.len() || self.live.len() >= 6 {
            return;
        }
        let start = self.committed.saturating_sub(back);
        let end = (start + size).min(log.len());
        let records: Vec<_> = log[start..end].iter().map(|(record, _)| record.clone()).collect();
        let store = self.store.gated();
        let consumer = Arc::new(decoder(version, &store));
        let payload = event("texts", 0, &records);
        let future: Running = Box::pin(async move { consumer.handle(&payload, &Attempt::at(NOW)).await });
        self.live.push(LiveAttempt { future, store, end, life: self.life });
        self.current = Some(self.live.len() - 1);
    }

    /// Lets one request of an attempt through, or its last steps.
    fn step(&mut self, index: usize) {
        let attempt = &mut self.live[index];
        attempt.store.grant();
        match attempt.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(result) => {
                let current = self.current == Some(index);
                let done = self.remove(index);
                match result {
                    Ok(_) if current && done.life == self.life => self.committed = self.committed.max(done.end),
                    Ok(_) => {}
                    Err(error) => self.operator(&error, done.life),
                }
            }
        }
    }

    /// What a person does who reads the message: only a topic made anew wants a hand, and only in its new life.
    fn operator(&mut self, error: &Error, life: usize) {
        let text = error.to_string();
        // The event source is off and the function's time-out waited out: attempts of the old topic may still hold what they
        // have read, but none begins to read.
        let unread = self.live.iter().any(|attempt| attempt.life < self.life && attempt.store.requests() == 0);
        if life == self.life && text.contains("made anew") && !unread {
            let stored = self.store.bucket().objects[LEDGER].clone();
            let mut ledger = Ledger::parse(&stored.body).unwrap();
            if (ledger.epoch as usize) < self.life {
                ledger.epoch += 1;
                ledger.next_offset = self.logs[self.life][0].0.offset;
                ledger.newest_timestamp = None;
                let request = PutRequest {
                    key: LEDGER.into(),
                    body: ledger.to_json().into(),
                    condition: Condition::Matches(stored.etag),
                    content_type: "",
                    metadata: HashMap::new(),
                };
                self.store.bucket().put(&request);
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
            self.step(0);
        }
        for request in std::mem::take(&mut self.late) {
            self.store.bucket().put(&request);
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
            prop_assert!(rounds < 200, "the partition is stuck");
            self.deliver(0, 14, rounds % 2);
            while !self.live.is_empty() {
                self.step(0);
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let bucket = self.store.bucket();
        let (rows, letters) = (rows(&bucket), dead_letters(&bucket));
        let mut times: HashMap<(usize, i64), usize> = HashMap::new();
        for (id, _) in &rows {
            *times.entry((id.epoch as usize, id.offset)).or_default() += 1;
        }
        for ((epoch, offset), times) in &times {
            prop_assert!(*times == 1, "offset {offset} of epoch {epoch} is stored {times} times");
        }
        for (life, log) in self.logs.iter().enumerate() {
            for (record, poison) in log {
                let row = times.contains_key(&(life, record.offset));
                let letter = letters.iter().any(|id| id.epoch as usize == life && id.offset == record.offset);
                prop_assert!(row || letter, "offset {} of epoch {life} is lost", record.offset);
                prop_assert!(!row || *poison != [true, true], "offset {} is junk and a row", record.offset);
                prop_assert!(
                    !letter || *poison != [false, false],
                    "offset {} is good and a dead letter",
                    record.offset
                );
            }
        }
        Ok(())
    }
}

fn play(history: &History) -> Result<(), TestCaseError> {
    let mut world = World::new(history);
    for action in &history.actions {
        world.act(action);
    }
    world.calm_down()?;
    world.check()
}

fn config() -> ProptestConfig {
    // What the environment says (PROPTEST_CASES, PROPTEST_MAX_SHRINK_ITERS) wins over the numbers given here.
    let given = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig {
        cases: given("PROPTEST_CASES", 2_000),
        max_shrink_iters: given("PROPTEST_MAX_SHRINK_ITERS", 2_000),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn each_record_is_stored_once_when_timestamps_only_rise(history in history(false, 1)) {
        play(&history)?;
    }

    #[test]
    fn each_record_is_stored_once_when_timestamps_go_back(history in history(true, 1)) {
        play(&history)?;
    }

    #[test]
    fn each_record_is_stored_once_when_the_topic_is_made_anew(history in history(false, 2)) {
        play(&history)?;
    }
}
