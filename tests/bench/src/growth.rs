//! `make bench-growth`: how an event's price grows with its partitions and with the size of its records. docs/SCALE.md
//! has what came out, and what follows from it.

use crate::hosted::Hosted;
use crate::stages::median;
use crate::{Failure, SEED};

/// The first one starts the process and makes the ledgers; the others are what every further one costs.
const EVENTS: u64 = 10;

pub fn measure() -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(tables())
}

async fn tables() -> Result<(), Failure> {
    println!("Full events, one after another into one process; medians of those after the first.\n");
    println!(
        "| | partitions | bytes a record | records | CPU ms: start and first event | further | S3 requests: first event | further | KB stored | MB resident at most |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (format, codec) in [("parquet", "zstd"), ("ndjson", "gzip")] {
        for partitions in [1, 10, 100, 1000] {
            row(format, codec, partitions, None).await?;
        }
        for bytes in [100, 1_000, 10_000, 100_000, 1_000_000] {
            row(format, codec, 1, Some(bytes)).await?;
        }
    }
    Ok(())
}

async fn row(format: &str, codec: &str, partitions: usize, record_bytes: Option<usize>) -> Result<(), Failure> {
    let mut hosted = Hosted::start(format, codec, partitions).await?;
    let first = hosted.event(SEED, record_bytes).await?;
    let (mut cpu_ms, mut last) = (Vec::new(), None);
    for event in 1..EVENTS {
        let cost = hosted.event(SEED + event, record_bytes).await?;
        cpu_ms.push(cost.cpu_ms);
        last = Some(cost);
    }
    let last = last.ok_or("no event was measured")?;
    let peak = hosted.peak_mb()?;
    hosted.stop().await;
    let bytes = record_bytes.map_or("people".to_owned(), |bytes| bytes.to_string());
    println!(
        "| {format} {codec} | {partitions} | {bytes} | {} | {:.1} | {:.1} | {} | {} | {} | {peak:.1} |",
        last.rows,
        first.cpu_ms,
        median(&cpu_ms),
        first.requests,
        last.requests,
        last.bytes_out / 1000,
    );
    Ok(())
}
