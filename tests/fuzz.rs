//! What comes from outside is thrown at the code that reads it, damaged in every way: nothing panics, overflows its stack or
//! hangs, and what is stored is what an independent reader of the same bytes finds in them.
//!
//! `FUZZ_SECONDS` is the time of all targets together (60 unless told otherwise), each of which does a least number of cases
//! however slow the machine is. `FUZZ_SEED` takes an earlier run's seed: the same cases in the same order; with `FUZZ_CASE` only that
//! case. What was found once is a case of its own, in `findings`.
//!
//! A stack that overflows ends the process: then the file `fuzz-<target>` in target/tmp has the case.

mod events;
mod files;
mod findings;
mod json;
mod reference;
mod rows;
mod stored;

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// What a thread has by default, and what a worker of tokio has.
const STACK: usize = 2 * 1024 * 1024;
/// A case takes a millisecond. One that takes so long does not end.
const PATIENCE: Duration = Duration::from_secs(60);

struct Target {
    name: &'static str,
    /// Of the time of all targets.
    share: f64,
    least: u64,
}

/// Does cases until the time is up. `make` is called in the thread that does them.
fn fuzz<C: FnMut(&mut Rng)>(target: Target, make: impl FnOnce() -> C + Send + 'static) {
    let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let number =
        |name: &str| given(name).map(|text| text.parse::<u64>().unwrap_or_else(|e| panic!("{name}={text}: {e}")));
    let Target { name, share, least } = target;
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let (time, only) = (number("FUZZ_SECONDS").unwrap_or(60) as f64 * share, number("FUZZ_CASE"));
    let begun = Arc::new(Mutex::new((0, Instant::now())));
    let (end, ended) = channel::<()>();
    let at_work = begun.clone();
    let work = move || {
        let _end = end;
        let mut case = make();
        let trace = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"))).unwrap();
        let start = Instant::now();
        let mut done = 0;
        let mut number = only.unwrap_or_default();
        while done < least || start.elapsed().as_secs_f64() < time {
            *at_work.lock().unwrap() = (number, Instant::now());
            trace.write_all_at(format!("make fuzz SEED={seed} FUZZ_CASE={number:<12}\n").as_bytes(), 0).unwrap();
            let mut hasher = DefaultHasher::new();
            (seed, name, number).hash(&mut hasher);
            let mut rng = Rng::with_seed(hasher.finish());
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&mut rng))) {
                say(&format!("fuzz: {name}: found; `make fuzz SEED={seed} FUZZ_CASE={number}` does it again"));
                resume_unwind(panic);
            }
            (done, number) = (done + 1, number + 1);
            if only.is_some() {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let rate = done as f64 / seconds;
        say(&format!("fuzz: {name}: {done} cases in {seconds:.1} s, {rate:.0} a second, seed {seed}"));
    };
    let worker = std::thread::Builder::new().name(format!("fuzz {name}")).stack_size(STACK).spawn(work).unwrap();
    while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let (number, since) = *begun.lock().unwrap();
        assert!(since.elapsed() < PATIENCE, "{name}: `make fuzz SEED={seed} FUZZ_CASE={number}` has no end");
    }
    if let Err(panic) = worker.join() {
        resume_unwind(panic);
    }
}

/// Also where the output of a test that passes is not shown.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn any<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// True in one of so many.
fn one_in(rng: &mut Rng, many: u32) -> bool {
    rng.u32(..many) == 0
}

#[test]
fn any_event_stores_each_of_its_records_once_or_is_refused() {
    fuzz(Target { name: "event", share: 0.4, least: 300 }, events::cases);
}

#[test]
fn any_record_is_the_row_that_a_plain_json_reader_finds_in_it_or_is_refused() {
    fuzz(Target { name: "record", share: 0.15, least: 2_000 }, rows::cases);
}

#[test]
fn any_dataset_file_can_be_used_or_is_refused_with_its_name() {
    fuzz(Target { name: "dataset", share: 0.3, least: 300 }, files::cases);
}

#[test]
fn whatever_lies_in_the_bucket_is_read_or_refused() {
    fuzz(Target { name: "bucket", share: 0.15, least: 300 }, stored::cases);
}
