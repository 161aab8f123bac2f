//! `freshet verify`: does the lake hold each offset exactly once, and does everybody see it?
//!
//! [`collect`] reads what there is, [`check`] compares it with what must hold and is pure, [`report`] says it.

pub mod check;
pub mod collect;
pub mod inventory;
pub mod report;
pub mod rows;
pub mod runs;

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use pipeline::kafka::KafkaConfig;

use crate::{Error, Lake, LakeArgs, kafka};
pub use report::{Finding, Kind, PartitionReport, Report};

/// Prove that the lake holds each offset exactly once
///
/// Compares ledgers, data objects, dead letters and the catalog with each other; with --deep the rows too, with --kafka
/// the topic. Reads only, and may run while the consumer works. TLS and SASL for --kafka are the KAFKA_* variables.
///
/// Nothing in the lake says where its first range began: only with --kafka, and only while the topic holds its records, is
/// the loss of the very oldest objects noticed.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Read every row and dead letter, and check the objects' hashes
    #[arg(long)]
    pub deep: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Compare with the topic on these brokers
    #[arg(long, value_name = "BOOTSTRAP")]
    pub kafka: Option<String>,
    /// Days that dead letters are kept: older ones may be missing
    #[arg(long, value_name = "DAYS", default_value_t = VerifyOptions::default().dead_letter_days)]
    pub dead_letter_days: u32,
}

#[derive(Debug, Clone)]
pub struct VerifyOptions {
    pub deep: bool,
    /// The cluster of the topic, to compare with it.
    pub kafka: Option<KafkaConfig>,
    /// How long the lake's lifecycle rule keeps dead letters.
    pub dead_letter_days: u32,
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions { deep: false, kafka: None, dead_letter_days: 30 }
    }
}

pub async fn run(args: &LakeArgs, verify_args: &VerifyArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let VerifyArgs { deep, json, kafka, dead_letter_days } = verify_args;
    let lake = Lake::open(args).await?;
    let kafka = match kafka {
        Some(bootstrap) => Some(kafka::connect(bootstrap, &lake.sdk).await?),
        None => None,
    };
    let options = VerifyOptions { deep: *deep, kafka, dead_letter_days: *dead_letter_days };
    let report = verify(&lake, &options).await?;
    out.write_all(if *json { report.to_json() } else { report.to_text() }.as_bytes())?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Checks a lake. An error means that it could not be checked; what is wrong with the lake stands in the report.
pub async fn verify(lake: &Lake, options: &VerifyOptions) -> Result<Report, Error> {
    let mut inventory = collect::collect(&lake.store(), &lake.target, options).await?;
    add_catalog(lake, &mut inventory).await?;
    if let Some(config) = &options.kafka {
        inventory.watermarks = Some(kafka::watermarks(config, &lake.target.topic).await?);
    }
    Ok(check::check(&inventory))
}

/// After the objects and the ledgers, so that neither a directory that is registered nor a record that is published
/// meanwhile looks like a fault. The same holds for the topic.
pub async fn add_catalog(lake: &Lake, inventory: &mut inventory::Inventory) -> Result<(), Error> {
    if let Some(catalog) = &lake.catalog {
        inventory.registered = Some(catalog.partitions().await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
