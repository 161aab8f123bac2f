//! `make bench`: what one full event costs, ours beside others, all in one run, contents compared.
//!
//! The program measures in a process of its own, whose standard output (the functions' metrics) goes nowhere; a process a
//! contender gives peak memory and, where valgrind is installed, instructions.

mod cold_start;
mod event;
mod growth;
mod hosted;
mod memory;
mod others;
mod ours;
mod peers;
mod read_back;
mod stages;
mod table;

use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::event::Event;
use crate::ours::Ours;

type Failure = Box<dyn std::error::Error>;

const SEED: u64 = 20261125;
/// Rounds in which every contender has its turn.
const ROUNDS: usize = 10;
/// Events that it takes one after the other when it has its turn, as a function does with a backlog.
const IN_A_ROW: usize = 5;

/// What runs, and how its output is read.
pub struct Contender {
    name: &'static str,
    run: Box<dyn Fn() -> Vec<Bytes>>,
    read: fn(Bytes) -> Result<Vec<Value>, Failure>,
}

pub const FLOOR: &str = "base64 + zstd, no parsing (the floor)";
pub const NAMES: [&str; 7] = [
    "freshet, Parquet zstd",
    "freshet, Parquet snappy",
    "freshet, NDJSON zstd",
    "freshet, NDJSON gzip",
    "naive Rust, Parquet zstd",
    "naive Rust, NDJSON gzip",
    FLOOR,
];

fn contender(name: &'static str, payload: &Arc<Vec<u8>>) -> Contender {
    let payload = payload.clone();
    let one = move |object: Result<Bytes, Failure>| vec![object.unwrap_or_else(|e| panic!("{name}: {e}"))];
    let ours = |format: &str, codec: &str| {
        let (ours, payload) = (Ours::new(format, codec), payload.clone());
        Box::new(move || ours.run(&payload))
    };
    let gzip = |object: Bytes| read_back::gzip(&object);
    let zstd = |object: Bytes| read_back::zstd(&object);
    match name {
        "freshet, Parquet zstd" => Contender { name, run: ours("parquet", "zstd"), read: read_back::parquet },
        "freshet, Parquet snappy" => Contender { name, run: ours("parquet", "snappy"), read: read_back::parquet },
        "freshet, NDJSON zstd" => Contender { name, run: ours("ndjson", "zstd"), read: zstd },
        "freshet, NDJSON gzip" => Contender { name, run: ours("ndjson", "gzip"), read: gzip },
        "naive Rust, Parquet zstd" => {
            let schema = others::schema();
            Contender {
                name,
                run: Box::new(move || one(others::naive_parquet(&payload, &schema))),
                read: read_back::parquet,
            }
        }
        "naive Rust, NDJSON gzip" => {
            Contender { name, run: Box::new(move || one(others::naive_ndjson(&payload))), read: gzip }
        }
        _ => {
            let values = others::values(&payload);
            Contender { name, run: Box::new(move || one(others::floor(&values))), read: zstd }
        }
    }
}

fn main() -> Result<(), Failure> {
    // As the consumer does; it helps the others as well.
    pipeline::memory::keep_what_is_freed();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => table::print(),
        ["measure", payload] => measure(payload),
        ["once", name, payload, times] => once(name, payload, times.parse()?),
        ["cold"] => cold_start::measure(None),
        ["cold", other] => cold_start::measure(Some(other)),
        ["memory"] => memory::measure(),
        ["growth"] => growth::measure(),
        ["next"] => cold_start::next(),
        ["people", number] => peers::print_people(number.parse()?),
        ["event", file] => peers::write_event(file),
        ["rounds", name, payload, output] => peers::rounds(name, payload, output),
        _ => Err("usage: bench".into()),
    }
}

fn known(name: &str) -> Result<&'static str, Failure> {
    NAMES.into_iter().find(|known| *known == name).ok_or_else(|| "no such contender".into())
}

/// Milliseconds of processor time of this process.
pub fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Every contender in every round; what came out is compared. The figures go to standard error.
fn measure(payload: &str) -> Result<(), Failure> {
    let payload = Arc::new(std::fs::read(payload)?);
    let contenders = NAMES.map(|name| contender(name, &payload));
    let Event { rows, .. } = event::full(SEED, 1);
    let mut sizes = Vec::new();
    for contender in &contenders {
        let objects = (contender.run)();
        sizes.push(objects.iter().map(Bytes::len).sum::<usize>());
        compare(contender, objects, &rows)?;
    }
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, times) in contenders.iter().zip(&mut times) {
            for _ in 0..IN_A_ROW {
                let begin = cpu_ms();
                let objects = (contender.run)();
                times.push(cpu_ms() - begin);
                drop(objects);
            }
        }
    }
    let figures = contenders.iter().zip(sizes).zip(times);
    let figures: Vec<_> =
        figures.map(|((c, size), times)| json!({"name": c.name, "bytes": size, "cpu_ms": times})).collect();
    eprintln!("{}", json!({"contenders": figures, "stages": stages::measure(&payload, ROUNDS * IN_A_ROW)?}));
    Ok(())
}

fn compare(contender: &Contender, objects: Vec<Bytes>, expected: &[Value]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for object in objects {
        rows.extend((contender.read)(object)?);
    }
    if contender.name == FLOOR {
        // It knows of no offsets.
        for (offset, row) in rows.iter_mut().enumerate() {
            (row["_offset"], row["_partition"]) = (json!(offset), json!(0));
        }
    }
    let differs = rows.iter().zip(expected).position(|(row, expected)| row != expected);
    match differs {
        None if rows.len() == expected.len() => Ok(()),
        None => Err(format!("{}: {} rows, not {}", contender.name, rows.len(), expected.len()).into()),
        Some(n) => Err(format!("{}: row {n} is {}, not {}", contender.name, rows[n], expected[n]).into()),
    }
}

/// In a process that does nothing else. How much memory it took goes to standard error.
fn once(name: &str, payload: &str, times: usize) -> Result<(), Failure> {
    let contender = contender(known(name)?, &Arc::new(std::fs::read(payload)?));
    for _ in 0..times {
        drop((contender.run)());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    eprintln!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

/// This program again, with what it says on standard error.
pub fn again(wrapper: &[&str], arguments: &[&str]) -> Result<String, Failure> {
    let own = std::env::current_exe()?;
    let mut command = match wrapper {
        [] => Command::new(own),
        [program, options @ ..] => {
            let mut command = Command::new(program);
            command.args(options).arg(own);
            command
        }
    };
    let output = command.args(arguments).stdout(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(text) } else { Err(text.into()) }
}
