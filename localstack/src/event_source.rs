//! The Kafka event source: what AWS's event source mapping does between a topic and a function, on any machine.
//!
//! Pollers (members of one consumer group) read the topic, gather records into batches, invoke the function, and commit
//! after it has succeeded, and only then. A batch that fails is tried again, for ever unless provisioned settings say
//! otherwise; meanwhile the other pollers go on. Per partition the order is kept.
//!
//! Where AWS says little, this is what happens here:
//! - A batch whose partitions were taken away is abandoned. Its invocation may still be alive, as on AWS.
//! - A record whose event alone would exceed 6,291,456 bytes can be given to no function. It goes to `on_failure`, or
//!   is skipped, with an ERROR in the log and in the count `given_up`.
//! - Records that expire from the topic while they are tried again are not dropped.

mod batch;
mod config;
mod consumer;
mod delivery;
mod event;
mod failure;
mod lag;
mod lambda_api;
mod mapping;
mod partial;
mod poller;
mod stats;

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use rdkafka::error::KafkaError;
use tokio::{sync::watch, task::JoinHandle};

pub use self::{
    config::{ConfigError, EventSourceConfig, EventSourceKind, OnFailure, OnFailureCall, StartingPosition},
    failure::{Condition, GivenUp},
    lag::{Lag, lag, lag_by},
    lambda_api::{LambdaFunction, LambdaFunctionError, TIME_LIMIT},
    mapping::{Mapping, MappingError},
    stats::{Attempt, AttemptOutcome, EventSourceStats},
};
use self::{poller::Poller, stats::Recorder};
use crate::runtime::{Function, InvokeError};

/// How a function is invoked with an event: [`invoker`] here, [`LambdaFunction::invoker`] anywhere else.
pub type Invoker = Arc<dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = Result<Bytes, InvokeError>> + Send>> + Send + Sync>;

/// Invokes a function hosted on this machine.
pub fn invoker(function: &Function) -> Invoker {
    let function = function.clone();
    Arc::new(move |event| {
        let function = function.clone();
        Box::pin(async move { function.invoke(event).await })
    })
}

const DRAINED_EVERY: Duration = Duration::from_millis(50);

/// A running event source. Dropping it ends the pollers without waiting for their invocations.
pub struct EventSource {
    config: Arc<EventSourceConfig>,
    stats: Arc<Recorder>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl EventSource {
    /// Starts to poll. A topic or a broker that is not there yet is waited for.
    ///
    /// # Errors
    /// Every setting that AWS would refuse.
    pub fn start(config: EventSourceConfig, invoker: Invoker) -> Result<EventSource, ConfigError> {
        config.validate()?;
        let config = Arc::new(config);
        let stats = Arc::new(Recorder::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(config.clone(), invoker, stats.clone(), stopped));
        Ok(EventSource { config, stats, stop, task })
    }

    /// Begins no further invocation, waits for those under way (`stop_grace` at most), commits those that succeed, and
    /// leaves the group.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // Only a panic of ours makes the task fail, and then it has ended as well.
        let _ = (&mut self.task).await;
    }

    pub fn config(&self) -> Arc<EventSourceConfig> {
        self.config.clone()
    }

    pub fn stats(&self) -> EventSourceStats {
        self.stats.lock().clone()
    }

    /// Per partition what is committed and what there is, asked of the brokers.
    ///
    /// # Errors
    /// When the brokers do not answer within 10 s, or the topic is missing.
    pub async fn lag(&self) -> Result<BTreeMap<i32, Lag>, KafkaError> {
        lag(&self.config).await
    }

    /// Waits until the function has taken all records that the topic has: each partition's committed offset is its high
    /// watermark. Never, when records keep coming faster than that, when they fail for ever, or when the group started
    /// at `LATEST` while other members were in it.
    pub async fn drained(&self) {
        loop {
            match self.lag().await {
                Ok(lags) if !lags.is_empty() && lags.values().all(|lag| lag.records() == 0) => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "The lag could not be read yet."),
            }
            tokio::time::sleep(DRAINED_EVERY).await;
        }
    }
}

impl Drop for EventSource {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.task.abort();
    }
}

async fn run(config: Arc<EventSourceConfig>, invoker: Invoker, stats: Arc<Recorder>, stop: watch::Receiver<bool>) {
    if !lag::commit_starting_position(&config, &stats, stop.clone()).await {
        return;
    }
    let mut pollers = tokio::task::JoinSet::new();
    for number in 0..config.pollers {
        let poller = Poller {
            number,
            config: config.clone(),
            invoker: invoker.clone(),
            stats: stats.clone(),
            stop: stop.clone(),
        };
        pollers.spawn(poller.run());
    }
    while pollers.join_next().await.is_some() {}
}
