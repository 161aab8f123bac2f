//! What the topic holds: the first and the next offset of each partition, and how far a consumer group is.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::SdkConfig;
use localstack::event_source::{Lag, lag_by};
use pipeline::config::Env;
use pipeline::kafka::{KafkaConfig, KafkaContext, KafkaSettings};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;

use crate::Error;

const PATIENCE: Duration = Duration::from_secs(10);

/// Of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that the topic still holds.
    pub low: i64,
    /// The offset that the next record will get.
    pub high: i64,
}

/// How to reach these brokers; TLS and SASL are in the environment's `KAFKA_*`, as for the functions.
pub async fn connect(bootstrap: &str, sdk: &SdkConfig) -> Result<KafkaConfig, Error> {
    let text = |(k, v): (std::ffi::OsString, std::ffi::OsString)| Some((k.into_string().ok()?, v.into_string().ok()?));
    let settings = settings(bootstrap, std::env::vars_os().filter_map(text))?;
    settings.resolve(sdk).await.map_err(|e| Error::stopped(e.to_string()))
}

/// How to reach the embedded broker, whatever the environment says of others.
pub async fn connect_embedded(bootstrap: &str, sdk: &SdkConfig) -> Result<KafkaConfig, Error> {
    settings(bootstrap, [])?.resolve(sdk).await.map_err(|e| Error::stopped(e.to_string()))
}

fn settings(bootstrap: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<KafkaSettings, Error> {
    let brokers = ("KAFKA_BOOTSTRAP_SERVERS".to_owned(), bootstrap.to_owned());
    let mut env = Env::new(variables.into_iter().chain([brokers]));
    let settings = KafkaSettings::read(&mut env);
    Ok(env.finish(settings)?)
}

/// The watermarks of each partition of a topic.
pub async fn watermarks(config: &KafkaConfig, topic: &str) -> Result<BTreeMap<i32, Watermarks>, Error> {
    let (config, name) = (config.clone(), topic.to_owned());
    // rdkafka's metadata calls block.
    blocking(move || ask(&config, &name)).await.map_err(|reason| {
        Error::stopped(format!(
            "cannot read the offsets of the topic `{topic}`: {reason}. Check --kafka, the KAFKA_* variables and the network"
        ))
    })
}

/// A client that asks how far a consumer group is, and does not join it. It blocks when it is made, asked and dropped: all of that
/// is done beside the threads that run the page.
pub struct GroupClient(BaseConsumer<KafkaContext>);

impl GroupClient {
    pub async fn connect(config: KafkaConfig, group: &str) -> Result<GroupClient, String> {
        let mut client = config.client_config();
        client.set("group.id", group);
        blocking(move || signed_in(&config, &client).map(GroupClient)).await
    }

    /// In each partition of the topic, and the client to ask again: one that has got no answer is dropped.
    pub async fn lag(self, topic: &str) -> Result<(GroupClient, BTreeMap<i32, Lag>), String> {
        let topic = topic.to_owned();
        blocking(move || lag_by(&self.0, &topic).map(|lags| (self, lags)).map_err(|e| e.to_string())).await
    }

    pub async fn close(self) {
        // Nothing is lost with a client that cannot be closed.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(panic.to_string()))
}

fn signed_in(config: &KafkaConfig, client: &ClientConfig) -> Result<BaseConsumer<KafkaContext>, String> {
    let client = client.create_with_context::<KafkaContext, BaseConsumer<_>>(config.context());
    let client = client.map_err(|e| e.to_string())?;
    config.sign_in(client.client()).map_err(|e| e.to_string())?;
    Ok(client)
}

fn ask(config: &KafkaConfig, topic: &str) -> Result<BTreeMap<i32, Watermarks>, String> {
    let consumer = signed_in(config, &config.client_config())?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(|e| e.to_string())?;
    let mut found = BTreeMap::new();
    for answer in metadata.topics() {
        if let Some(error) = answer.error() {
            return Err(RDKafkaErrorCode::from(error).to_string());
        }
        for partition in answer.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).map_err(|e| e.to_string())?;
            found.insert(partition.id(), Watermarks { low, high });
        }
    }
    Ok(found)
}
