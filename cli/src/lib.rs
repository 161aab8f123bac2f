//! `freshet`: SQL over the lake, proof that it is whole, and care of its ledgers.
//!
//! One file a command; [`lake`] says which lake, [`kafka`] and [`catalog`] are the two other places that commands ask.

pub mod catalog;
pub mod demo;
pub mod error;
pub mod kafka;
pub mod lake;
pub mod ledger;
#[cfg(test)]
mod memory;
pub mod query;
pub mod text;
pub mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::Error;
pub use lake::{Lake, LakeArgs, Target};

/// API → Kafka → lake, exactly once. These commands look at the lake and at its ledgers.
#[derive(Debug, Parser)]
#[command(
    name = "freshet",
    version,
    about,
    after_help = "Exit status: 0 done and clean, 1 something was found or not done, 2 could not be done."
)]
pub struct Cli {
    #[command(flatten)]
    pub lake: LakeArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Query(query::QueryArgs),
    Verify(verify::VerifyArgs),
    Ledger(ledger::LedgerArgs),
    Demo(demo::DemoArgs),
}

/// Runs one command, and writes what it has to say to `out`.
pub async fn run(cli: Cli, out: &mut dyn Write) -> Result<ExitCode, Error> {
    match cli.command {
        Command::Query(args) => query::run(&cli.lake, &args, out).await,
        Command::Verify(args) => verify::run(&cli.lake, &args, out).await,
        Command::Ledger(args) => ledger::run(&cli.lake, &args, out).await,
        Command::Demo(args) => demo::run(&cli.lake, &args, out).await,
    }
}
