//! The topic: made when it is missing, accepted when it is there, with a warning where its settings differ.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipeline::kafka::{AdminError, KafkaConfig, KafkaContext};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer as _};

use crate::config::TopicConfig;

const UNCLEAN_ELECTION: &str = "unclean.leader.election.enable";
/// How long the cluster may take to say which topics it has, or to make one.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take to describe one; some brokers never answer that.
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(
        "Kafka cannot be reached: {0}. The log has what its client reports; check KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, the sign-in and the network"
    )]
    Unreachable(KafkaError),
    #[error("cannot make the topic `{topic}`: {reason}. {cure}")]
    Refused { topic: String, reason: String, cure: String },
    #[error("the thread that asks Kafka for its topics panicked: please report it")]
    Panic,
}

/// Whether the topic was there or had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    Existing,
    Created,
    /// By an earlier invocation of this process.
    Remembered,
}

pub struct Topic {
    config: TopicConfig,
    settings: [(&'static str, String); 4],
    ensured: AtomicBool,
}

impl Topic {
    pub fn new(config: TopicConfig) -> Topic {
        let settings = [
            ("cleanup.policy", "delete".to_owned()),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("retention.ms", config.retention.as_millis().to_string()),
            (UNCLEAN_ELECTION, "false".to_owned()),
        ];
        Topic { config, settings, ensured: AtomicBool::new(false) }
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Takes the topic for made: for tests against a broker that cannot make any.
    pub fn assume(&self) {
        self.ensured.store(true, Ordering::Relaxed);
    }

    /// Looks again next time: deliveries say that the topic is gone.
    pub fn forget(&self) {
        self.ensured.store(false, Ordering::Relaxed);
    }

    /// Makes sure that the topic is there, once in a process. Each question to the cluster takes up to `patience`.
    pub async fn ensure(
        &self,
        kafka: &KafkaConfig,
        client: FutureProducer<KafkaContext>,
        patience: Duration,
    ) -> Result<Found, TopicError> {
        if self.ensured.load(Ordering::Relaxed) {
            return Ok(Found::Remembered);
        }
        let partitions = self.partitions(client, patience).await?;
        let admin = {
            let kafka = kafka.clone();
            blocking(move || kafka.admin()).await??
        };
        let found = match partitions {
            Some(partitions) => {
                self.compare_partitions(partitions);
                self.compare_settings(&admin, patience).await;
                Found::Existing
            }
            None => self.create(&admin, patience).await?,
        };
        self.ensured.store(true, Ordering::Relaxed);
        // Its threads are joined when it goes.
        tokio::task::spawn_blocking(move || drop(admin));
        Ok(found)
    }

    /// How many partitions the topic has; `None` where there is none. All topics are listed, since asking for one by name
    /// makes it on brokers that create topics by themselves. Asked with the producer's client: it is polled, so that the
    /// log says why a connection fails, which an admin client's never does; and it connects before the first record.
    async fn partitions(
        &self,
        client: FutureProducer<KafkaContext>,
        patience: Duration,
    ) -> Result<Option<usize>, TopicError> {
        let name = self.config.name.clone();
        let listed = blocking(move || {
            let metadata = client.client().fetch_metadata(None, patience)?;
            Ok(metadata.topics().iter().find(|t| t.name() == name).map(|t| t.partitions().len()))
        });
        listed.await?.map_err(TopicError::Unreachable)
    }

    async fn create(&self, admin: &AdminClient<KafkaContext>, patience: Duration) -> Result<Found, TopicError> {
        let TopicConfig { name, partitions, replication_factor, .. } = &self.config;
        let mut topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(*replication_factor));
        for (setting, value) in &self.settings {
            topic = topic.set(setting, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(patience)).request_timeout(Some(patience));
        let results = admin.create_topics([&topic], &options).await;
        let code = match results {
            Ok(results) => results.into_iter().find_map(|result| result.err().map(|(_, code)| code)),
            Err(error) => match error.rdkafka_error_code() {
                Some(code) => Some(code),
                None => return Err(TopicError::Unreachable(error)),
            },
        };
        match code {
            None => {
                tracing::info!(topic = name, partitions, replication_factor, "The topic was made");
                Ok(Found::Created)
            }
            // Somebody made it between our two questions.
            Some(RDKafkaErrorCode::TopicAlreadyExists) => Ok(Found::Existing),
            Some(code) => Err(self.refused(code)),
        }
    }

    fn refused(&self, code: RDKafkaErrorCode) -> TopicError {
        let TopicConfig { name, replication_factor, .. } = &self.config;
        let cure = match code {
            RDKafkaErrorCode::InvalidReplicationFactor => {
                format!(
                    "It asks for {replication_factor} replicas, and there are fewer brokers: set TOPIC_REPLICATION_FACTOR"
                )
            }
            RDKafkaErrorCode::InvalidConfig => {
                let settings: Vec<_> = self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!(
                    "The broker does not know, or does not take, one of {}: use a broker that does",
                    settings.join(", ")
                )
            }
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                "The role needs kafka-cluster:CreateTopic on it: allow that, or make the topic yourself".to_owned()
            }
            _ => "Make the topic yourself, or correct what the reason names, and invoke again".to_owned(),
        };
        TopicError::Refused { topic: name.clone(), reason: code.to_string(), cure }
    }

    fn compare_partitions(&self, found: usize) {
        let (topic, expected) = (self.name(), self.config.partitions);
        if usize::try_from(expected).is_ok_and(|expected| expected != found) {
            tracing::warn!(
                topic,
                expected,
                found,
                "The topic has another number of partitions than the dataset says; change either of them"
            );
        }
    }

    async fn compare_settings(&self, admin: &AdminClient<KafkaContext>, patience: Duration) {
        let topic = self.name();
        let options = AdminOptions::new().request_timeout(Some(patience.min(DESCRIBE_PATIENCE)));
        let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        let described = match described.map(|mut results| results.pop()) {
            Ok(Some(Ok(described))) => described,
            Ok(Some(Err(code))) => return warn_undescribed(topic, &code.to_string()),
            Ok(None) => return warn_undescribed(topic, "the answer is empty"),
            Err(error) => return warn_undescribed(topic, &error.to_string()),
        };
        for (setting, expected) in &self.settings {
            let found = described.get(setting).and_then(|entry| entry.value.as_deref());
            // Redpanda elects by Raft: it has no unclean election, and no such setting.
            let has_none = found.is_none() && *setting == UNCLEAN_ELECTION;
            if found != Some(expected) && !has_none {
                let found = found.unwrap_or("not set");
                tracing::warn!(
                    topic,
                    setting,
                    expected,
                    found,
                    "The topic has another setting than the pipeline expects; alter the topic, docs/DESIGN.md says why"
                );
            }
        }
    }
}

fn warn_undescribed(topic: &str, reason: &str) {
    tracing::warn!(
        topic,
        reason,
        "The topic's settings could not be read, and go unchecked; the role needs kafka-cluster:DescribeTopicDynamicConfiguration"
    );
}

/// rdkafka's metadata calls and MSK's sign-in block their thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TopicError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TopicError::Panic)
}
