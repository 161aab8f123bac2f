//! `freshet invoke`: a run of the producer, now.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use localstack::event_source::LambdaFunction;
use localstack::runtime::InvokeError;
use localstack::schedule::scheduled_event;
use serde_json::Value;

use crate::outputs::Outputs;
use crate::{Error, LakeArgs};

/// Run a deployed producer now, with the event that its schedule sends
///
/// Through the Lambda API of AWS_ENDPOINT_URL, or of AWS. Prints what the run did.
#[derive(Debug, Args)]
pub struct InvokeArgs {
    /// What `terraform output -json` prints
    #[arg(long, value_name = "OUTPUTS.json", env = "FRESHET_OUTPUTS")]
    outputs: PathBuf,
    /// Only start the run
    #[arg(long)]
    no_wait: bool,
}

pub async fn run(lake: &LakeArgs, args: &InvokeArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let outputs = Outputs::read(&args.outputs)?;
    let producer = &outputs.functions(&lake.dataset_name())?.producer;
    let sdk = pipeline::aws::sdk_config().await;
    let function = LambdaFunction::new(&sdk, producer).map_err(|e| Error::stopped(e.to_string()))?;
    let event = scheduled_event(producer, Timestamp::now());
    if args.no_wait {
        function.start(event).await.map_err(|e| failed(producer, &e))?;
        writeln!(out, "{producer} was started.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer = function.invoke(event).await.map_err(|e| failed(producer, &e))?;
    let summary: Value = serde_json::from_slice(&answer).unwrap_or_else(|_| String::from_utf8_lossy(&answer).into());
    writeln!(out, "{summary:#}")?;
    Ok(ExitCode::SUCCESS)
}

fn failed(producer: &str, error: &InvokeError) -> Error {
    // One run at a time: its concurrency is reserved.
    let busy = matches!(error, InvokeError::Refused { status: 429, .. });
    let cure = if busy { "A run is under way: wait for its end" } else { "Its log says why" };
    Error::stopped(format!("{producer} did not run: {error}. {cure}"))
}
