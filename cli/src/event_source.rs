//! `freshet event-source`: polls topics and invokes functions behind the Lambda API, where no event source mapping does.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use bytes::Bytes;
use clap::Args;
use localstack::event_source::{EventSource, EventSourceStats, Invoker, LambdaFunction, Mapping};
use localstack::runtime::InvokeError;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::outputs::Outputs;
use crate::{Error, kafka};

/// How often the file is looked at, and the status written.
const EVERY: Duration = Duration::from_secs(1);

/// Poll Kafka and invoke the consumers, as Lambda's event source mapping does
///
/// For where there is no such mapping: LocalStack, or a poller of your own (create_event_source_mapping = false). Batches, order,
/// retries and commits are those of AWS's mapping; the settings are its parameters. TLS and SASL are in KAFKA_*, as for the producer.
/// The functions are invoked over the Lambda API of AWS_ENDPOINT_URL, or of AWS.
#[derive(Debug, Args)]
pub struct EventSourceArgs {
    /// What `terraform output -json` prints. Waited for, and followed when it changes
    #[arg(value_name = "OUTPUTS.json")]
    outputs: PathBuf,
    /// Write what the event sources do into this file, every second
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,
}

/// One event source in the status file, under its dataset's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub function_name: String,
    pub topic: String,
    pub consumer_group_id: String,
    pub stats: EventSourceStats,
}

/// Runs until SIGTERM or Ctrl-C.
pub async fn run(args: &EventSourceArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_env_filter(filter()).init();
    let sdk = pipeline::aws::sdk_config().await;
    let mut end = End::new()?;
    let mut waits = false;
    while !end.within(EVERY).await {
        let Ok(text) = std::fs::read_to_string(&args.outputs) else {
            if !std::mem::replace(&mut waits, true) {
                writeln!(out, "Waiting for {}: it is written when the stack is provisioned.", args.outputs.display())?;
            }
            continue;
        };
        waits = false;
        let sources = Sources::start(&text, &args.outputs, &sdk).await?;
        for (dataset, (mapping, _)) in &sources.0 {
            let Mapping { function_name, config } = mapping;
            writeln!(
                out,
                "{dataset}: polling {} at {} for {function_name}, group {}, batches of {} records or {:?}.",
                config.topic,
                config.bootstrap_servers,
                config.consumer_group_id,
                config.batch_size,
                config.maximum_batching_window
            )?;
        }
        let ended = sources.until_changed(&text, args, &mut end).await?;
        writeln!(out, "Stopping: invocations under way may end, and are committed.")?;
        sources.stop().await;
        if let Some(file) = &args.status_file {
            // Whoever looks at it shall not take the past for the present.
            let _ = std::fs::remove_file(file);
        }
        if ended {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy()
}

/// The running event sources, by dataset.
struct Sources(BTreeMap<String, (Mapping, EventSource)>);

impl Sources {
    async fn start(text: &str, path: &Path, sdk: &SdkConfig) -> Result<Sources, Error> {
        let mut sources = BTreeMap::new();
        for (dataset, mut mapping) in Outputs::parse(text, path)?.mappings()? {
            mapping.config.kafka_properties = sign_in(&mapping.config.bootstrap_servers, sdk).await?;
            let function = LambdaFunction::new(sdk, &mapping.function_name).map_err(stopped)?;
            let invoker = unless_changed(text.to_owned(), path.to_owned(), function.invoker());
            let source = EventSource::start(mapping.config.clone(), invoker).map_err(stopped)?;
            sources.insert(dataset, (mapping, source));
        }
        Ok(Sources(sources))
    }

    /// Whether it was a signal that ended the wait.
    async fn until_changed(&self, text: &str, args: &EventSourceArgs, end: &mut End) -> Result<bool, Error> {
        loop {
            if end.within(EVERY).await {
                return Ok(true);
            }
            if std::fs::read_to_string(&args.outputs).ok().as_deref() != Some(text) {
                return Ok(false);
            }
            if let Some(file) = &args.status_file {
                self.write_status(file)?;
            }
        }
    }

    fn write_status(&self, file: &Path) -> Result<(), Error> {
        let one = |(dataset, (mapping, source)): (&String, &(Mapping, EventSource))| {
            let status = SourceStatus {
                function_name: mapping.function_name.clone(),
                topic: mapping.config.topic.clone(),
                consumer_group_id: mapping.config.consumer_group_id.clone(),
                stats: source.stats(),
            };
            (dataset.clone(), status)
        };
        let status: BTreeMap<String, SourceStatus> = self.0.iter().map(one).collect();
        let text = serde_json::to_string(&status).map_err(stopped)?;
        // Whole or not at all.
        let unfinished = file.with_extension("unfinished");
        std::fs::write(&unfinished, text)?;
        Ok(std::fs::rename(unfinished, file)?)
    }

    async fn stop(self) {
        futures::future::join_all(self.0.into_values().map(|(_, source)| source.stop())).await;
    }
}

/// Invokes only as long as the outputs are those that the source was started with. Who provisions anew takes the file away
/// first: a batch of the old group must not begin the ledgers of a new lake in the middle of the topic.
fn unless_changed(text: String, path: PathBuf, invoker: Invoker) -> Invoker {
    let (text, path) = (Arc::new(text), Arc::new(path));
    Arc::new(move |event: Bytes| {
        let (text, path, invoker) = (text.clone(), path.clone(), invoker.clone());
        Box::pin(async move {
            if std::fs::read_to_string(&*path).ok().as_ref() != Some(&*text) {
                let message = format!("{} has changed: the event source starts again", path.display());
                return Err(InvokeError::Unreachable { message });
            }
            invoker(event).await
        })
    })
}

/// librdkafka's TLS and SASL settings by `KAFKA_*`.
async fn sign_in(bootstrap_servers: &str, sdk: &SdkConfig) -> Result<Vec<(String, String)>, Error> {
    let config = kafka::connect(bootstrap_servers, sdk).await?.client_config();
    let properties = config.config_map().into_iter();
    let properties = properties.filter(|(name, _)| ["security.", "sasl.", "ssl."].iter().any(|p| name.starts_with(p)));
    let properties: Vec<_> = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if properties.iter().any(|(_, value)| value == "OAUTHBEARER") {
        return Err(Error::stopped(
            "IAM sign-in to Kafka is for AWS's event source mapping alone: let it poll the cluster, or sign in with SCRAM (KAFKA_SASL_MECHANISM)",
        ));
    }
    Ok(properties)
}

/// SIGTERM, as containers are stopped, or Ctrl-C.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn new() -> Result<End, Error> {
        Ok(End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn within(&mut self, time: Duration) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            () = tokio::time::sleep(time) => false,
        }
    }

    pub async fn come(&mut self) {
        while !self.within(Duration::from_secs(3600)).await {}
    }
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::stopped(error.to_string())
}

/// Waits for SIGTERM or Ctrl-C.
pub async fn until_stopped() -> Result<(), Error> {
    End::new()?.come().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_invoked_once_the_outputs_are_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outputs.json");
        std::fs::write(&file, "these").unwrap();
        let function: Invoker = Arc::new(|event| Box::pin(async move { Ok(event) }));
        let invoker = unless_changed("these".to_owned(), file.clone(), function);
        assert_eq!(invoker(Bytes::from_static(b"event")).await.unwrap(), "event");
        std::fs::write(&file, "others").unwrap();
        assert!(matches!(invoker(Bytes::new()).await, Err(InvokeError::Unreachable { .. })));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(invoker(Bytes::new()).await, Err(InvokeError::Unreachable { .. })));
    }
}
