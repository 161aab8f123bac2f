//! How far a run is, on standard error: one line that is written over on a terminal, one now and then elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub struct Progress {
    /// What has become of what is counted: `sent`.
    done_is: &'static str,
    terminal: bool,
    total: AtomicU64,
    done: AtomicU64,
    /// When the first one was done: the rate counts from there.
    begin: OnceLock<Instant>,
    shown: Mutex<Instant>,
}

impl Progress {
    pub fn new(done_is: &'static str) -> Progress {
        Progress {
            done_is,
            terminal: std::io::stderr().is_terminal(),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            begin: OnceLock::new(),
            shown: Mutex::new(Instant::now()),
        }
    }

    pub fn expect(&self, more: u64) {
        self.total.fetch_add(more, Ordering::Relaxed);
    }

    /// One more is done.
    pub fn done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.total.load(Ordering::Relaxed);
        let begin = *self.begin.get_or_init(Instant::now);
        let every = Duration::from_millis(if self.terminal { 200 } else { 5_000 });
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.elapsed() < every && !(self.terminal && done == total) {
            return;
        }
        *shown = Instant::now();
        let (what, rate) = (self.done_is, rate(done, begin.elapsed()));
        if !self.terminal {
            return eprintln!("{done} of {total} {what}, {rate} a second");
        }
        const WIDTH: u64 = 30;
        let filled = (done * WIDTH / total.max(1)).min(WIDTH);
        let bar: String = (0..WIDTH).map(|i| if i < filled { '█' } else { '░' }).collect();
        eprint!("\r\x1b[K  {bar} {done} of {total} {what}, {rate} a second");
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        self.clear();
        eprintln!("{line}");
    }

    pub fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn rate(done: u64, time: Duration) -> u128 {
    u128::from(done) * 1000 / time.as_millis().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_by_the_second_and_never_divides_by_nothing() {
        assert_eq!(rate(300, Duration::from_millis(1_500)), 200);
        assert_eq!(rate(1, Duration::ZERO), 1_000);
    }
}
