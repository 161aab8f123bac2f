//! How far a run is, on standard error: one line that is written over on a terminal, one now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub struct Progress {
    terminal: bool,
    total: AtomicU64,
    sent: AtomicU64,
    shown: Mutex<Instant>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
            total: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            shown: Mutex::new(Instant::now()),
        }
    }
}

impl Progress {
    pub fn expect(&self, letters: usize) {
        self.total.fetch_add(letters as u64, Ordering::Relaxed);
    }

    /// One more letter is on its way.
    pub fn sent(&self) {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.total.load(Ordering::Relaxed);
        let every = Duration::from_millis(if self.terminal { 200 } else { 5_000 });
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.elapsed() < every && !(self.terminal && sent == total) {
            return;
        }
        *shown = Instant::now();
        if !self.terminal {
            return eprintln!("{sent} of {total} sent");
        }
        const WIDTH: u64 = 30;
        let filled = (sent * WIDTH / total.max(1)).min(WIDTH);
        let bar: String = (0..WIDTH).map(|i| if i < filled { '█' } else { '░' }).collect();
        eprint!("\r\x1b[K  {bar} {sent} of {total} sent");
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
