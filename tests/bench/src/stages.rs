//! Where our time goes.

use consumer::decode::{Decoder, Payloads, Row};
use consumer::encode::{Encoder, Stamp};
use consumer::event::Event;
use serde_json::{Value, json};

use crate::{Failure, cpu_ms, ours};

/// Milliseconds of each stage, the median of so many rounds, of both formats.
pub fn measure(payload: &[u8], rounds: usize) -> Result<Vec<Value>, Failure> {
    let mut stages = Vec::new();
    for (format, codec) in [("parquet", "zstd"), ("ndjson", "zstd")] {
        let dataset = ours::dataset(format, codec);
        let decoder = Decoder::new(&dataset);
        let whole = ours::Ours::new(format, codec);
        let mut times: [Vec<f64>; 6] = Default::default();
        for _ in 0..rounds {
            let mut clock = cpu_ms();
            let mut lap = |stage: usize| {
                let now = cpu_ms();
                times[stage].push(now - clock);
                clock = cpu_ms();
            };
            let event = Event::parse(payload)?;
            let batches = event.batches();
            lap(0);
            let records = &batches.first().ok_or("no records")?.records;
            let payloads = Payloads::decode(records);
            let values = payloads.values();
            lap(1);
            let mut row = Row::default();
            for value in &values {
                decoder.decode((*value)?, &mut row)?;
            }
            lap(2);
            // The same once more, because decoding and encoding alternate.
            let mut encoder =
                Encoder::new(&dataset, records.len(), values.iter().flatten().map(|value| value.len()).sum());
            for (record, value) in records.iter().zip(&values) {
                decoder.decode((*value)?, &mut row)?;
                let (partition, offset, timestamp) = (record.partition, record.offset, record.timestamp);
                encoder.append(&row, Stamp { partition, offset, epoch: 0, timestamp })?;
            }
            lap(3);
            encoder.finish()?;
            lap(4);
            drop(row);
            drop(payloads);
            clock = cpu_ms();
            drop(whole.run(payload));
            times[5].push(cpu_ms() - clock);
        }
        let [envelope, base64, decode, append, finish, all] = times.map(|times| median(&times));
        let append = append - decode;
        let rest = all - envelope - base64 - decode - append - finish;
        stages.push(json!({
            "format": format, "envelope": envelope, "base64": base64, "decode": decode, "append": append, "finish": finish,
            "rest": rest, "all": all,
        }));
    }
    Ok(stages)
}

pub fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
