//! `freshet ledger`: look at the ledgers, and the four things that a person may have to do to them.

pub mod change;
pub mod plan;
mod show;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::{Error, Lake, LakeArgs, kafka};
use change::Plan;

/// Look at the ledgers, or repair them
///
/// A ledger says which offset of a topic-partition is stored next. The consumer keeps it; these commands are for what the
/// consumer must not decide. Each says what it will do and asks.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    #[command(subcommand)]
    pub command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Show the ledgers
    Show {
        /// Print them as a JSON array
        #[arg(long)]
        json: bool,
        /// Show how far each is behind the topic on these brokers
        #[arg(long, value_name = "BOOTSTRAP")]
        kafka: Option<String>,
    },
    /// Write a lost ledger again, from the objects of its topic-partition
    Rebuild {
        #[command(flatten)]
        which: Which,
        /// ARN of the MSK cluster that the ledger is for; self-managed Kafka has none
        #[arg(long, value_name = "ARN")]
        cluster: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Start anew after the topic was deleted and made anew: raises the epoch
    Reset {
        #[command(flatten)]
        which: Which,
        /// Reset every ledger of the lake
        #[arg(long, conflicts_with_all = ["topic", "partition"])]
        all: bool,
        /// The first offset to store [default: 0, or with --kafka the first that the topic holds]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
        next_offset: Option<i64>,
        /// Take the first offsets from the topic on these brokers
        #[arg(long, value_name = "BOOTSTRAP")]
        kafka: Option<String>,
        /// ARN of the MSK cluster that the topic is on now, where it is another one
        #[arg(long, value_name = "ARN")]
        cluster: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Settle a false alarm of a topic made anew: raises the newest timestamp
    Accept {
        topic: String,
        partition: i32,
        /// Timestamp of the record that the consumer stopped at, in milliseconds since 1970: its message names it
        #[arg(long, value_name = "MS")]
        newest_timestamp: i64,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Change the format of the ledgers to the dataset's, once the event source is off and drained
    Format {
        /// Check on these brokers that everything is stored
        #[arg(long, value_name = "BOOTSTRAP")]
        kafka: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// One topic-partition.
#[derive(Debug, Clone, Args)]
pub struct Which {
    #[arg(requires = "partition")]
    pub topic: Option<String>,
    pub partition: Option<i32>,
}

impl Which {
    fn pair(&self) -> Option<(String, i32)> {
        Some((self.topic.clone()?, self.partition?))
    }
}

#[derive(Debug, Clone, Args)]
pub struct Confirm {
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub async fn run(args: &LakeArgs, ledger_args: &LedgerArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let lake = Lake::open(args).await?;
    let (store, target) = (lake.store(), &lake.target);
    let (plan, confirm) = match &ledger_args.command {
        LedgerCommand::Show { json, kafka } => {
            let topic = watermarks(&lake, kafka.as_deref()).await?;
            return show::show(&store, target, topic.as_ref(), *json, out).await;
        }
        LedgerCommand::Rebuild { which, cluster, confirm } => {
            (plan::rebuild(&store, target, which.pair(), cluster.clone()).await?, confirm)
        }
        LedgerCommand::Reset { which, all, next_offset, kafka, cluster, confirm } => {
            let which = match (which.pair(), all) {
                (Some(pair), _) => Some(pair),
                (None, true) => None,
                (None, false) => return Err(Error::stopped("say which ledger: TOPIC PARTITION, or --all")),
            };
            let topic = watermarks(&lake, kafka.as_deref()).await?;
            let options = plan::Reset { which, next_offset: *next_offset, topic, cluster: cluster.clone() };
            (plan::reset(&store, target, &options).await?, confirm)
        }
        LedgerCommand::Accept { topic, partition, newest_timestamp, confirm } => {
            (plan::accept(&store, target, topic, *partition, *newest_timestamp).await?, confirm)
        }
        LedgerCommand::Format { kafka, confirm } => {
            let topic = watermarks(&lake, kafka.as_deref()).await?;
            (plan::format(&store, target, topic.as_ref()).await?, confirm)
        }
    };
    carry_out(&store, &plan, confirm, out).await
}

/// What the topic holds, by partition.
pub type Topic = std::collections::BTreeMap<i32, kafka::Watermarks>;

async fn watermarks(lake: &Lake, bootstrap: Option<&str>) -> Result<Option<Topic>, Error> {
    match bootstrap {
        Some(bootstrap) => {
            let config = kafka::connect(bootstrap, &lake.sdk).await?;
            Ok(Some(kafka::watermarks(&config, &lake.target.topic).await?))
        }
        None => Ok(None),
    }
}

/// Shows the plan, asks, and writes.
async fn carry_out<S: pipeline::lake::Store>(
    store: &S,
    plan: &Plan,
    confirm: &Confirm,
    out: &mut dyn Write,
) -> Result<ExitCode, Error> {
    out.write_all(plan.to_text().as_bytes())?;
    if plan.changes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !confirm.yes && !asked(out)? {
        writeln!(out, "Nothing was changed.")?;
        return Ok(ExitCode::from(1));
    }
    let written = plan.apply(store).await?;
    writeln!(out, "{} written.", crate::text::count(written, "ledger"))?;
    Ok(ExitCode::SUCCESS)
}

fn asked(out: &mut dyn Write) -> Result<bool, Error> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        return Err(Error::stopped("nothing was changed: there is no terminal to ask. Add --yes to do it"));
    }
    ask(out)
}

/// The answer of the person at the terminal.
pub(crate) fn ask(out: &mut dyn Write) -> Result<bool, Error> {
    write!(out, "Proceed? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests;
