//! Whom to ask about a running pipeline: a deployed one, or the demo's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use localstack::event_source::EventSourceConfig;
use pipeline::kafka::KafkaConfig;

use super::document::{Functions, Schedule};
use super::metrics::Metrics;
use crate::event_source::SourceStatus;
use crate::{Error, Lake};

/// What both have: a lake, and a topic that is polled.
pub struct Pipeline {
    pub lake: Lake,
    /// Which topic, by which group.
    pub polled: Arc<EventSourceConfig>,
}

/// Which function's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Producer,
    Consumer,
}

/// An error is a sentence about what to do next.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Its lake and its topic, as they are now: another provisioning makes others.
    async fn pipeline(&self) -> Result<Arc<Pipeline>, Error>;

    /// How the brokers are reached, with what they want of those who ask.
    async fn kafka(&self) -> Result<KafkaConfig, Error>;

    /// How often functions, schedule and logs may be asked.
    fn every(&self) -> Duration;

    async fn functions(&self) -> Result<Functions, String>;

    /// `runs` is what the producer has written of its runs.
    async fn schedule(&self, runs: &Metrics) -> Result<Schedule, String>;

    /// Milliseconds since 1970: what a function has written since is summed up.
    fn since(&self) -> i64;

    /// What a function has written since the last time, whole lines.
    async fn written(&self, role: Role) -> Result<String, String>;

    /// What the event source does; `None` where it cannot be asked.
    async fn event_source(&self) -> Result<Option<SourceStatus>, String>;

    /// Starts a run; false when one is alive.
    async fn start_run(&self) -> Result<bool, Error>;
}
