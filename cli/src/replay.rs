//! `freshet replay`: dead letters back to the topic, each once.
//!
//! [`letters`] reads them, [`fate`] finds what became of their offsets, [`plan`] says what would be done, [`carry_out`] does
//! it, with what it must remember in the [`journal`].

pub mod carry_out;
mod fate;
pub mod journal;
pub mod letters;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod topic;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::ledger::{Confirm, ask};
use crate::progress::Progress;
use crate::text::count;
use crate::{Error, Lake, LakeArgs, kafka};
use carry_out::{Run, Summary};
use journal::Pace;
use plan::{Filter, Stage};
use topic::KafkaTopic;

/// Put dead letters back onto the topic, once what was wrong is corrected
///
/// Shows which letters would be replayed and asks; where nobody can be asked it only shows. A letter is replayed once,
/// whatever crashes: a run that was ended is finished by the next one. Letters whose record is a row already are left out,
/// and letters of stage `transform`, which do not hold the API's record. TLS and SASL are the KAFKA_* variables.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 replayed, or nothing to replay; 1 letters were only shown, or refused; 2 could not be done."
)]
pub struct ReplayArgs {
    /// The topic's brokers
    #[arg(long, value_name = "BOOTSTRAP")]
    pub kafka: String,
    /// Only letters of this stage
    #[arg(long, value_enum)]
    pub stage: Option<Stage>,
    /// Only letters whose error contains this text
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Only letters of this time or later: the record's Kafka timestamp, or when the producer gave up
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<i64>,
    /// Only letters before this time; 2026-11-23, or 2026-11-23T05:06:07Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<i64>,
    /// Replay so many letters at most, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Letters a second
    #[arg(long, value_name = "N", default_value_t = Pace::default().rate, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    #[command(flatten)]
    pub confirm: Confirm,
}

impl ReplayArgs {
    fn filter(&self) -> Filter {
        Filter {
            stage: self.stage,
            error: self.error.clone(),
            since: self.since,
            until: self.until,
            limit: self.limit.and_then(|limit| usize::try_from(limit).ok()),
        }
    }
}

pub async fn run(args: &LakeArgs, replay: &ReplayArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let lake = Lake::open(args).await?;
    let (store, target, filter) = (lake.store(), &lake.target, replay.filter());
    let config = kafka::connect(&replay.kafka, &lake.sdk).await?;
    // Who is only shown something learns as well that the topic cannot be reached.
    kafka::watermarks(&config, &target.topic).await?;
    let replays = journal::replays(&store, &target.layout).await?;
    let plan = plan::plan(&store, target, &filter, &replays).await?;
    out.write_all(plan.to_text(target).as_bytes())?;
    if plan.letters.is_empty() && plan.unfinished == 0 {
        writeln!(out, "Nothing to replay.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = replay.confirm.yes || (std::io::stdin().is_terminal() && ask(out)?);
    if !wanted {
        writeln!(out, "Nothing was changed. To do it:\n  {}", command_line(std::env::args()))?;
        return Ok(ExitCode::from(1));
    }
    let pace = Pace { rate: replay.rate, ..Pace::default() };
    let topic = KafkaTopic::new(config, &target.topic, pace)?;
    let run = Run {
        store: &store,
        target,
        topic: &topic,
        filter: &filter,
        pace,
        owner: &owner(),
        progress: &Progress::new("sent"),
    };
    let summary = run.carry_out().await?;
    out.write_all(said(&summary).as_bytes())?;
    Ok(if summary.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn said(summary: &Summary) -> String {
    const SHOWN: usize = 10;
    let mut text = format!("{} replayed", count(summary.replayed, "letter"));
    if summary.found > 0 {
        text += &format!(", {} found on the topic, where an earlier run had put them", count(summary.found, "letter"));
    }
    text += ".\n";
    for (id, reason) in summary.refused.iter().take(SHOWN) {
        text += &format!("Not replayed: {id} {reason}.\n");
    }
    if summary.refused.len() > SHOWN {
        text += &format!("… and {} not replayed.\n", count((summary.refused.len() - SHOWN) as u64, "more letter"));
    }
    text + "The consumer stores them as any other record. One that fails again is a new dead letter, and is shown as replayed before.\n"
}

/// `2026-11-23`, or RFC 3339, in milliseconds since 1970.
fn time(text: &str) -> Result<i64, String> {
    let day = || Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    let time = text.parse::<Timestamp>().ok().or_else(day);
    let time = time.ok_or("expected a day such as 2026-11-23, or a time such as 2026-11-23T05:06:07Z")?;
    Ok(time.as_millisecond())
}

/// The command that does what was shown.
fn command_line(args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+%".contains(c);
    let quoted = |arg: String| {
        if !arg.is_empty() && arg.chars().all(plain) { arg } else { format!("'{}'", arg.replace('\'', "'\\''")) }
    };
    args.map(quoted).chain(["--yes".to_owned()]).collect::<Vec<_>>().join(" ")
}

/// For the one who finds the lock.
fn owner() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "somebody".to_owned());
    let kernel = || Some(std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned());
    let host = variable("HOSTNAME").or_else(kernel).unwrap_or_else(|| "this machine".to_owned());
    format!("{user}@{host}, process {}", std::process::id())
}
