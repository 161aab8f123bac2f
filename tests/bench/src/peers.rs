//! What `make bench-peers` asks of this program.

use std::io::{BufWriter, Write, stdin};
use std::sync::Arc;

use crate::{Failure, SEED, contender, cpu_ms, event, known};

/// The same people, one a line, as the producer publishes them.
pub fn print_people(number: usize) -> Result<(), Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for person in event::people(SEED).take(number) {
        writeln!(out, "{}", event::json(&person))?;
    }
    Ok(out.flush()?)
}

/// The event that all contenders are given.
pub fn write_event(file: &str) -> Result<(), Failure> {
    Ok(std::fs::write(file, event::full(SEED, 1).payload)?)
}

/// A run for each line on standard input, so that others, in processes of their own, have their turns in between. How many milliseconds
/// it took goes to standard error, what it came to into a file.
pub fn rounds(name: &str, payload: &str, output: &str) -> Result<(), Failure> {
    let contender = contender(known(name)?, &Arc::new(std::fs::read(payload)?));
    for line in stdin().lines() {
        line?;
        let begin = cpu_ms();
        let objects = (contender.run)();
        let taken = cpu_ms() - begin;
        std::fs::write(output, objects.concat())?;
        eprintln!("{taken}");
    }
    Ok(())
}
