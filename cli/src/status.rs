//! `freshet status`: where the records are on their way, step by step, asked of those who do the work.
//!
//! [`look`] asks a [`source`], [`document`] is what it finds, [`print`] says it in lines. The page shows the same.

pub mod deployed;
pub mod document;
pub mod look;
pub mod metrics;
mod print;
pub mod source;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use self::deployed::Deployed;
use self::document::Status;
use self::look::Looker;
use crate::{Error, LakeArgs};

const AGAIN: Duration = Duration::from_secs(2);
/// The page waits this long for those whom it asks, and a little more is on the way.
const PATIENCE: Duration = Duration::from_secs(20);

/// Show what a deployment does: functions, schedule, topic, event source, lake
///
/// Asks the page of --api where there is one; otherwise AWS, or the emulator of AWS_ENDPOINT_URL, the brokers and the bucket.
/// Exit status 1 where a step is in trouble.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// What `terraform output -json` prints
    #[arg(long, value_name = "OUTPUTS.json", env = "FRESHET_OUTPUTS", required_unless_present = "api")]
    outputs: Option<PathBuf>,
    /// The file that `freshet event-source --status-file` writes; without it the event source is not asked
    #[arg(long, value_name = "FILE", env = "FRESHET_STATUS_FILE")]
    status_file: Option<PathBuf>,
    /// Address of a running `freshet page`, which is asked first: http://127.0.0.1:8080
    #[arg(long, value_name = "URL", env = "FRESHET_API")]
    api: Option<String>,
    /// Wait up to so many seconds, until every step is well and rows are in the lake
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// One JSON document, that of the page's GET /api/status
    #[arg(long)]
    json: bool,
}

pub async fn run(lake: &LakeArgs, args: &StatusArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let deadline = Instant::now() + Duration::from_secs(args.wait.unwrap_or(0));
    let deployed = |outputs| Looker::new(Arc::new(Deployed::new(lake, outputs, args.status_file.as_deref())));
    let looker = args.outputs.as_deref().map(deployed);
    let mut silent = false;
    let status = loop {
        let status = look(args, &lake.dataset_name(), looker.as_ref(), &mut silent).await?;
        if status.healthy || Instant::now() >= deadline {
            break status;
        }
        tokio::time::sleep(AGAIN).await;
    };
    if args.json {
        let json = serde_json::to_string_pretty(&status).map_err(|e| Error::stopped(e.to_string()))?;
        writeln!(out, "{json}")?;
    } else {
        print::lines(&status, args.wait, out)?;
    }
    Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// `silent` is whether it was said already that the page does not answer.
async fn look(args: &StatusArgs, dataset: &str, looker: Option<&Looker>, silent: &mut bool) -> Result<Status, Error> {
    let Some(api) = &args.api else { return directly(dataset, looker, "no page is named").await };
    match ask(api).await {
        Ok(status) => Ok(status),
        Err(reason) => {
            let reason = format!("the page at {api} does not answer ({reason})");
            if looker.is_some() && !std::mem::replace(silent, true) {
                // A note that cannot be written is a note less.
                let _ = writeln!(std::io::stderr(), "freshet: {reason}: asking everybody else directly.");
            }
            directly(dataset, looker, &reason).await
        }
    }
}

async fn directly(dataset: &str, looker: Option<&Looker>, why: &str) -> Result<Status, Error> {
    let looker = looker.ok_or_else(|| Error::stopped(format!("{why}, and no deployment either: set --outputs")))?;
    Ok(looker.status(dataset).await)
}

/// The document of a page.
async fn ask(api: &str) -> Result<Status, String> {
    // reqwest panics without a process-wide provider; a second one changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().map_err(|e| e.to_string())?;
    let answer = client.get(format!("{}/api/status", api.trim_end_matches('/'))).send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status).map_err(|e| e.to_string())?;
    let body = answer.bytes().await.map_err(|e| e.to_string())?;
    serde_json::from_slice(&body).map_err(|e| format!("what it says is no status: {e}"))
}
