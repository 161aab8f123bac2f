//! `make bench-memory`: the most memory that the consumer's process ever holds, over 200 full events.

use crate::hosted::Hosted;
use crate::{Failure, SEED};

const EVENTS: u64 = 200;

pub fn measure() -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(table())
}

async fn table() -> Result<(), Failure> {
    println!(
        "{EVENTS} full events in one process that may hold 128 MiB of data (RLIMIT_DATA): MB resident at most (VmHWM).\n"
    );
    println!("| | partitions | after the 1st | after the 10th | after the {EVENTS}th | rows | CPU ms an event |");
    println!("|---|---|---|---|---|---|---|");
    for (format, codec) in [("parquet", "zstd"), ("ndjson", "gzip")] {
        for partitions in [1, 8, 64] {
            let mut hosted = Hosted::start(format, codec, partitions).await?;
            let (mut peaks, mut rows, mut cpu_ms) = (Vec::new(), 0, 0.0);
            for event in 1..=EVENTS {
                let cost = hosted.event(SEED + event, None).await?;
                (rows, cpu_ms) = (rows + cost.rows, cpu_ms + cost.cpu_ms);
                if [1, 10, EVENTS].contains(&event) {
                    peaks.push(format!("{:.1}", hosted.peak_mb()?));
                }
            }
            hosted.stop().await;
            let peaks = peaks.join(" | ");
            println!("| {format} {codec} | {partitions} | {peaks} | {rows} | {:.1} |", cpu_ms / EVENTS as f64);
        }
    }
    Ok(())
}
