//! As many histories as one asks for, on all cores: `make prove HISTORIES=1000000`.
//!
//! History number n of a seed is the same on every machine. The worlds take turns, so that each number belongs to one of them.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use freshet::progress::Progress;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

use super::ALGORITHM;
use super::history::{World, history};
use super::play::{Outcome, play};

/// What a world's histories came to.
#[derive(Default)]
struct Row {
    histories: u64,
    outcome: Outcome,
    stuck: u64,
    time: Duration,
}

impl Row {
    fn add(&mut self, other: &Row) {
        self.histories += other.histories;
        self.stuck += other.stuck;
        self.time += other.time;
        self.outcome.attempts += other.outcome.attempts;
        self.outcome.duplicates += other.outcome.duplicates;
        self.outcome.losses += other.outcome.losses;
        self.outcome.stops += other.outcome.stops;
        self.outcome.cures += other.outcome.cures;
    }
}

/// The environment's number of that name.
fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Seed and number choose the history, and nothing else does. Numbers that are neighbours make generators that are not.
fn generator(seed: u64, number: u64) -> TestRng {
    let mut mixed = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
    let bytes = (mixed.u64(..), mixed.u64(..));
    TestRng::from_seed(ALGORITHM, &[bytes.0.to_le_bytes(), bytes.1.to_le_bytes()].concat())
}

struct Run {
    seed: u64,
    /// The number of the next history, and the first one that is not played.
    next: AtomicU64,
    end: u64,
    progress: Progress,
    rows: Mutex<Vec<Row>>,
    failures: Mutex<Vec<String>>,
}

impl Run {
    /// Plays until nothing is left, or something was found.
    fn work(&self) {
        let worlds = World::ALL.map(|world| (world, history(world).boxed()));
        let config = Config { failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
        let mut rows: Vec<Row> = World::ALL.iter().map(|_| Row::default()).collect();
        while self.failures.lock().unwrap().is_empty() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.end {
                break;
            }
            let place = (number % worlds.len() as u64) as usize;
            let (world, strategy) = &worlds[place];
            let begin = Instant::now();
            let mut runner = TestRunner::new_with_rng(config.clone(), generator(self.seed, number));
            let tree = strategy.new_tree(&mut runner).unwrap();
            let outcome = std::cell::Cell::new(Outcome::default());
            let played = runner.run_one(tree, |history| {
                outcome.set(play(*world, &history)?);
                Ok(())
            });
            let stuck = match played {
                Ok(_) => 0,
                Err(TestError::Abort(reason)) => self.found(number, *world, reason.message(), String::new()),
                Err(TestError::Fail(reason, history)) => {
                    self.found(number, *world, reason.message(), format!("{history:#?}"))
                }
            };
            let row = Row { histories: 1, outcome: outcome.get(), stuck, time: begin.elapsed() };
            rows[place].add(&row);
            self.progress.done();
        }
        for (all, row) in self.rows.lock().unwrap().iter_mut().zip(&rows) {
            all.add(row);
        }
    }

    /// Keeps what was found, and says whether it is a partition that is stuck.
    fn found(&self, number: u64, world: World, reason: &str, history: String) -> u64 {
        let again = format!("make prove HISTORIES=1 SEED={} HISTORY={number}", self.seed);
        let failure = format!("history {number} ({world}): {reason}\n`{again}` plays it alone. Shrunk:\n{history}");
        self.failures.lock().unwrap().push(failure);
        u64::from(reason.starts_with("stuck"))
    }

    fn table(&self, time: Duration) -> String {
        let mut text = String::from(
            "| world | histories | attempts | duplicates | losses (noticed) | stops | cures | stuck | histories/s |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        let rows = self.rows.lock().unwrap();
        let mut all = Row::default();
        for row in rows.iter() {
            all.add(row);
        }
        // Where all cores work at once, a world's rate is its share of them.
        let cores = all.time.as_secs_f64() / time.as_secs_f64().max(0.001);
        let mut line = |name: &str, row: &Row| {
            let Outcome { attempts, duplicates, losses, stops, cures } = row.outcome;
            let rate = row.histories as f64 * cores / row.time.as_secs_f64().max(0.001);
            let Row { histories, stuck, .. } = row;
            text += &format!(
                "| {name} | {histories} | {attempts} | {duplicates} | {losses} | {stops} | {cures} | {stuck} | {rate:.0} |\n"
            );
        };
        for (world, row) in World::ALL.iter().zip(rows.iter()) {
            line(&world.to_string(), row);
        }
        line("all", &all);
        text
    }
}

#[test]
#[ignore = "make prove HISTORIES=1000000"]
fn each_of_very_many_histories_stores_each_record_once() {
    let histories = given("PROVE_HISTORIES").expect("PROVE_HISTORIES, the number of histories");
    let seed = given("PROVE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let first = given("PROVE_HISTORY").unwrap_or(0);
    let end = first + histories;
    let run = Run {
        seed,
        next: AtomicU64::new(first),
        end,
        progress: Progress::new("histories"),
        rows: Mutex::new(World::ALL.iter().map(|_| Row::default()).collect()),
        failures: Mutex::new(Vec::new()),
    };
    run.progress.expect(histories);
    run.progress.say(&format!("seed {seed}: `make prove HISTORIES={histories} SEED={seed}` plays the same histories"));
    let begin = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| run.work());
        }
    });
    let time = begin.elapsed();
    run.progress.clear();
    let failures = run.failures.lock().unwrap().join("\n");
    let text = format!("{}\nseed {seed}, {} s on {cores} cores\n{failures}", run.table(time), time.as_secs());
    // Standard output is full of the function's metrics.
    let _ = write!(std::io::stderr(), "{text}");
    assert!(failures.is_empty(), "see above");
}
