//! `freshet`: SQL over the lake, proof that it is whole, care of its ledgers and dead letters, and the stack on one machine.
//!
//! One file a command; [`lake`] says which lake, [`kafka`] and [`catalog`] are the two other places that commands ask.

pub mod catalog;
pub mod demo;
pub mod error;
pub mod event_source;
pub mod invoke;
pub mod kafka;
pub mod lake;
pub mod ledger;
#[cfg(test)]
mod memory;
pub mod outputs;
pub mod page;
pub mod progress;
pub mod query;
pub mod replay;
pub mod stand_ins;
pub mod status;
pub mod text;
pub mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::Error;
pub use lake::{Lake, LakeArgs, Target};

/// API → Kafka → lake, exactly once. These commands look at the lake and at its ledgers, and run the stack on one machine.
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
    Replay(replay::ReplayArgs),
    Status(status::StatusArgs),
    Page(page::PageArgs),
    Invoke(invoke::InvokeArgs),
    EventSource(event_source::EventSourceArgs),
    Api(stand_ins::ApiArgs),
    S3Gateway(stand_ins::S3GatewayArgs),
    Demo(demo::DemoArgs),
}

/// Runs one command, and writes what it has to say to `out`.
pub async fn run(cli: Cli, out: &mut dyn Write) -> Result<ExitCode, Error> {
    match cli.command {
        Command::Query(args) => query::run(&cli.lake, &args, out).await,
        Command::Verify(args) => verify::run(&cli.lake, &args, out).await,
        Command::Ledger(args) => ledger::run(&cli.lake, &args, out).await,
        Command::Replay(args) => replay::run(&cli.lake, &args, out).await,
        Command::Status(args) => status::run(&cli.lake, &args, out).await,
        Command::Page(args) => page::run(&cli.lake, &args, out).await,
        Command::Invoke(args) => invoke::run(&cli.lake, &args, out).await,
        Command::EventSource(args) => event_source::run(&args, out).await,
        Command::Api(args) => stand_ins::api(&args, out).await,
        Command::S3Gateway(args) => stand_ins::s3_gateway(&cli.lake, &args, out).await,
        Command::Demo(args) => demo::run(&cli.lake, &args, out).await,
    }
}
