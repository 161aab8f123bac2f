//! The tables.

use serde_json::Value;

use crate::stages::median;
use crate::{FLOOR, Failure, NAMES, SEED, again, event};

pub fn print() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("event.json");
    let event = event::full(SEED, 1);
    std::fs::write(&file, &event.payload)?;
    let file = file.display().to_string();
    let values: usize = crate::others::values(&event.payload).iter().map(|value| value.len() / 4 * 3).sum();
    println!(
        "One event of {} bytes: {} records, {values} bytes of JSON (seed {SEED}).\n",
        event.payload.len(),
        event.rows.len()
    );

    let figures: Value = serde_json::from_str(&again(&[], &["measure", &file])?)?;
    let floor = median(&times_of(&figures, FLOOR));
    let valgrind = std::process::Command::new("valgrind").arg("--version").output().is_ok();
    println!(
        "| | CPU ms: median | min | max | MB of JSON a CPU-second | of the floor's speed | × naive | peak MB | output KB | million instructions |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for name in NAMES {
        let times = times_of(&figures, name);
        let (middle, least, most) =
            (median(&times), times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max));
        // Beside the one that compresses likewise; lines in zstd have none.
        let naive = match (name.contains("NDJSON"), name.contains("gzip")) {
            (true, false) => None,
            (true, true) => Some(NAMES[5]),
            (false, _) => Some(NAMES[4]),
        };
        let naive =
            naive.map_or_else(|| "-".to_owned(), |naive| format!("{:.1}", median(&times_of(&figures, naive)) / middle));
        let peak: f64 = again(&[], &["once", name, &file, "3"])?.trim().parse()?;
        let bytes = figures["contenders"].as_array().into_iter().flatten().find(|figure| figure["name"] == name);
        let bytes = bytes.and_then(|figure| figure["bytes"].as_u64()).unwrap_or_default();
        let instructions = if valgrind { instructions(name, &file)? } else { "-".to_owned() };
        println!(
            "| {name} | {middle:.1} | {least:.1} | {most:.1} | {:.0} | {:.2} | {naive} | {:.0} | {} | {instructions} |",
            values as f64 / middle / 1e3,
            floor / middle,
            peak / 1e3,
            bytes / 1000,
        );
    }
    println!("\nWhere our time goes, CPU ms (medians):\n");
    println!(
        "| | envelope | base64 | JSON | columns or lines | Parquet or rest of zstd | rest | all |\n|---|---|---|---|---|---|---|---|"
    );
    for stage in figures["stages"].as_array().into_iter().flatten() {
        let ms = ["envelope", "base64", "decode", "append", "finish", "rest", "all"]
            .map(|name| format!("{:.1}", stage[name].as_f64().unwrap_or_default()));
        println!("| {} | {} |", stage["format"].as_str().unwrap_or_default(), ms.join(" | "));
    }
    println!(
        "\nS3 is a map in memory here. Its client, signatures and HTTP come on top: `make bench-growth` has them (docs/SCALE.md)."
    );
    Ok(())
}

fn times_of(figures: &Value, name: &str) -> Vec<f64> {
    let all = figures["contenders"].as_array().into_iter().flatten();
    let own = all.filter(|figure| figure["name"] == name).flat_map(|figure| figure["cpu_ms"].as_array());
    own.flatten().filter_map(Value::as_f64).collect()
}

/// Of one run: two less one, so that what the process does besides is left out.
fn instructions(name: &str, file: &str) -> Result<String, Failure> {
    let count = |times: &str| -> Result<f64, Failure> {
        let callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
        let said = again(&callgrind, &["once", name, file, times])?;
        let collected = said.split("Collected :").nth(1).and_then(|rest| rest.split_whitespace().next());
        Ok(collected.ok_or("callgrind did not say what it counted")?.parse()?)
    };
    Ok(format!("{:.1}", (count("2")? - count("1")?) / 1e6))
}
