//! The way of a record from the API to the topic, top to bottom.

use std::time::Duration;

use aws_config::SdkConfig;
use jmespath::Rcvar;
use pipeline::kafka::{KafkaConfig, SignInError};
use pipeline::lake::{Layout, Store};
use pipeline::record::HashKey;
use pipeline::secret::SecretError;
use pipeline::telemetry;
use reqwest::header::HeaderValue;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, OnceCell};
use tokio::time::{Instant, sleep_until};

use crate::api::{self, Api, ApiError, FetchError};
use crate::config::{Config, HashKeyError};
use crate::dead_letters::DeadLetters;
use crate::event::{EventError, Request};
use crate::publish::{PublishError, Publisher};
use crate::summary::Summary;
use crate::time_limits::{TimeLimits, time_left};
use crate::topic::{self, Found, Topic, TopicError};
use crate::transform::transform;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    SignIn(#[from] SignInError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    HashKey(#[from] HashKeyError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("nothing was fetched: all {fetches} fetches of the run failed, the last because {last}")]
    NothingFetched { fetches: u64, last: FetchError },
    #[error(
        "{0} dead letters could not be stored: the log holds each of them, whole. Check S3_BUCKET and the role's s3:PutObject, then put them back by hand"
    )]
    LettersUnstored(u64),
}

/// What Lambda reports as the failure; its type is the step that failed.
impl From<Error> for lambda_runtime::Diagnostic {
    fn from(error: Error) -> Self {
        let step = match &error {
            Error::Event(_) => "Event",
            Error::SignIn(_) => "KafkaSignIn",
            Error::Topic(_) => "Topic",
            Error::HashKey(_) => "HashKey",
            Error::Secret(_) => "Secret",
            Error::Api(_) => "Api",
            Error::Publish(_) => "Publish",
            Error::NothingFetched { .. } => "NothingFetched",
            Error::LettersUnstored(_) => "DeadLetters",
        };
        lambda_runtime::Diagnostic { error_type: step.to_owned(), error_message: error.to_string() }
    }
}

/// One invocation, as Lambda describes it.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub request_id: String,
    /// Milliseconds since 1970.
    pub deadline_ms: u64,
}

/// The function's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Run(Summary),
    Topic { topic: String, found: Found },
}

/// Lives as long as the process, and keeps its connections.
pub struct Producer<S> {
    config: Config,
    sdk: SdkConfig,
    store: S,
    layout: Layout,
    api: Api,
    topic: Topic,
    kafka: OnceCell<KafkaConfig>,
    publisher: Mutex<Option<Publisher>>,
}

impl<S: Store> Producer<S> {
    /// Connects to nothing yet.
    pub fn new(config: Config, sdk: SdkConfig, store: S) -> Result<Producer<S>, ApiError> {
        Ok(Producer {
            layout: Layout { prefix: config.lake.prefix.clone(), ledger_prefix: config.lake.ledger_prefix.clone() },
            api: Api::new(&config.api)?,
            topic: Topic::new(config.topic.clone()),
            kafka: OnceCell::new(),
            publisher: Mutex::new(None),
            config,
            sdk,
            store,
        })
    }

    pub async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Answer, Error> {
        let answer = match Request::of(event) {
            Ok(Request::EnsureTopic) => self.ensure_topic().await,
            Ok(Request::Run) => self.run(invocation).await.map(Answer::Run),
            Err(error) => Err(error.into()),
        };
        answer.inspect_err(|error| tracing::error!(%error, "The invocation failed"))
    }

    async fn ensure_topic(&self) -> Result<Answer, Error> {
        // Asked for by name: look, whatever is remembered.
        self.topic.forget();
        let kafka = self.kafka().await?;
        let client = self.publisher(kafka).await.client()?;
        let found = self.topic.ensure(kafka, client, topic::PATIENCE).await?;
        Ok(Answer::Topic { topic: self.topic.name().to_owned(), found })
    }

    async fn run(&self, invocation: &Invocation) -> Result<Summary, Error> {
        let started = Instant::now();
        let started_ms = telemetry::now_ms();
        let limits = TimeLimits::new(started, self.config.run, time_left(invocation.deadline_ms, started_ms));
        let dataset = &self.config.dataset;
        if self.config.dataset_mismatch {
            let dataset = &dataset.name;
            tracing::warn!(
                dataset,
                "The deployed definition of the dataset differs from the one in this build: deploy the code too"
            );
        }

        // What can be wrong before the first fetch is found before it: then nothing is fetched that could be lost.
        let hash_key = self.config.hash_key(&self.sdk).await?;
        let authorization = self.authorization().await?;
        let kafka = self.kafka().await?;
        // Half of the time left, so that a failure is still answered.
        let patience = topic::PATIENCE.min((limits.fetch - Instant::now()) / 2);
        let mut publisher = self.publisher(kafka).await;
        self.topic.ensure(kafka, publisher.client()?, patience).await?;

        let mut summary = Summary { dataset: dataset.name.clone(), ..Summary::default() };
        let mut letters = DeadLetters::new(&dataset.name, self.topic.name(), &invocation.request_id, started_ms);
        let mut last_failure = None;
        loop {
            let tick = summary.fetches;
            summary.fetches += 1;
            let fetch = self.api.fetch(&dataset.source, authorization.as_ref(), limits.fetch).await;
            summary.retries += fetch.retries;
            match fetch.records {
                Ok(elements) => {
                    summary.fetched += elements.len() as u64;
                    let records = self.transform(&elements, hash_key.as_ref(), &mut summary, &mut letters);
                    drop(elements);
                    self.publish(&mut publisher, records, &limits, &mut summary, &mut letters).await;
                    letters.store(&self.store, &self.layout, tick, limits.store).await;
                }
                Err(error) => {
                    summary.fetch_failures += 1;
                    tracing::warn!(%error, tick, "A fetch failed and is left out");
                    let patience = matches!(error, FetchError::Patience(_));
                    last_failure = Some(error);
                    if patience {
                        break;
                    }
                }
            }
            let next = next_tick(started, self.config.fetch_every, Instant::now());
            if next >= limits.last_start {
                break;
            }
            sleep_until(next).await;
        }
        summary.letters_unstored = letters.finish(&self.store, &self.layout, limits.store).await;

        summary.elapsed_ms = started.elapsed().as_millis() as u64;
        telemetry::emit("producer", &dataset.name, &summary.metrics(self.config.dataset_mismatch));
        tracing::info!(summary = serde_json::to_string(&summary).unwrap_or_default(), "The run ended");
        match last_failure {
            _ if summary.letters_unstored > 0 => Err(Error::LettersUnstored(summary.letters_unstored)),
            Some(last) if summary.fetch_failures == summary.fetches => {
                Err(Error::NothingFetched { fetches: summary.fetches, last })
            }
            _ => Ok(summary),
        }
    }

    /// The elements that make a record, as JSON; the others become dead letters.
    fn transform(
        &self,
        elements: &[Rcvar],
        key: Option<&HashKey>,
        summary: &mut Summary,
        letters: &mut DeadLetters,
    ) -> Vec<Vec<u8>> {
        let mut records = Vec::with_capacity(elements.len());
        let mut first_error = None;
        let now_ms = telemetry::now_ms();
        for element in elements {
            match transform(&self.config.dataset, key, element) {
                Ok(record) => records.push(record),
                Err(rejected) => {
                    first_error.get_or_insert_with(|| rejected.error.clone());
                    letters.add("transform", rejected.error, &rejected.yielded, now_ms);
                }
            }
        }
        let rejected = elements.len() - records.len();
        summary.rejected += rejected as u64;
        if let Some(first_error) = first_error {
            tracing::warn!(rejected, first_error, "Records of the API fit no row, and are dead letters");
        }
        records
    }

    /// Awaits every delivery; what Kafka does not take becomes a dead letter.
    async fn publish(
        &self,
        publisher: &mut Publisher,
        records: Vec<Vec<u8>>,
        limits: &TimeLimits,
        summary: &mut Summary,
        letters: &mut DeadLetters,
    ) {
        let published = publisher.publish(records, limits.deliver).await;
        for (partition, count) in &published.by_partition {
            *summary.published.entry(*partition).or_default() += count;
        }
        if published.topic_missing {
            self.topic.forget();
        }
        if let Some(first) = published.failures.first() {
            let (failed, reason) = (published.failures.len(), &first.reason);
            tracing::warn!(failed, reason, "Kafka did not take records, and they are dead letters");
        }
        summary.failed += published.failures.len() as u64;
        let now_ms = telemetry::now_ms();
        for failure in published.failures {
            letters.add("deliver", failure.reason, &failure.record, now_ms);
        }
    }

    async fn kafka(&self) -> Result<&KafkaConfig, SignInError> {
        self.kafka.get_or_try_init(|| self.config.kafka.resolve(&self.sdk)).await
    }

    async fn publisher(&self, kafka: &KafkaConfig) -> MappedMutexGuard<'_, Publisher> {
        let make = || Publisher::new(kafka.clone(), self.topic.name(), self.config.delivery_timeout);
        MutexGuard::map(self.publisher.lock().await, |publisher| publisher.get_or_insert_with(make))
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        match &self.config.api.authorization {
            None => Ok(None),
            Some(secret) => Ok(Some(api::authorization(&secret.fetch(&self.sdk).await?)?)),
        }
    }

    /// For tests: a broker that cannot make topics, retries that do not wait.
    #[cfg(test)]
    pub(crate) fn parts(&mut self) -> (&Topic, &mut Api) {
        (&self.topic, &mut self.api)
    }
}

/// The first multiple of `every` after `now`, counted from `started`: ticks that were missed are left out.
fn next_tick(started: Instant, every: Duration, now: Instant) -> Instant {
    let past = (now - started).as_nanos() / every.as_nanos().max(1);
    started + every.saturating_mul(u32::try_from(past).unwrap_or(u32::MAX).saturating_add(1))
}
