//! The member of the consumer group: its librdkafka settings, and which partitions it owns at the moment.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext, Rebalance, StreamConsumer},
    error::KafkaError,
};
use tokio::sync::watch;

use super::{EventSourceConfig, StartingPosition, stats::Recorder};

pub(super) type Consumer = StreamConsumer<Context>;

/// librdkafka's settings.
///
/// A poller keeps polling while an invocation runs, so that it stays in the group however long that takes: rebalances
/// are served at once, and a batch that is retried for ever holds up no other member.
pub(super) fn client_config(config: &EventSourceConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("client.id", "freshet-event-source")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "false")
        // A new topic, or a new partition, is seen after so many milliseconds.
        .set("topic.metadata.refresh.interval.ms", "5000")
        // What is fetched ahead is lost when the partitions are paused: not much more than two full events.
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.wait.max.ms", "100");
    for (name, value) in &config.kafka_properties {
        client.set(name, value);
    }
    let reset = match config.starting_position {
        StartingPosition::TrimHorizon | StartingPosition::AtTimestamp(_) => "earliest",
        StartingPosition::Latest => "latest",
    };
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", &config.consumer_group_id)
        .set("auto.offset.reset", reset)
        // Offsets are committed after the function has succeeded, and only then.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    client
}

/// The partitions that a member owns, each with the number of the assignment that gave it. A partition that is taken
/// away and given back has another number: what was read under the old one is read again.
pub(super) struct Ownership {
    partitions: Mutex<HashMap<i32, u64>>,
    version: AtomicU64,
    changed: watch::Sender<()>,
}

impl Ownership {
    pub(super) fn new() -> Self {
        Self { partitions: Mutex::default(), version: AtomicU64::new(0), changed: watch::Sender::new(()) }
    }

    /// Moves on with every rebalance.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn snapshot(&self) -> HashMap<i32, u64> {
        self.lock().clone()
    }

    /// The partition was not taken away since this assignment.
    pub(super) fn is_current(&self, partition: i32, generation: u64) -> bool {
        self.lock().get(&partition) == Some(&generation)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<i32, u64>, u64)) {
        let mut partitions = self.lock();
        let generation = self.version.load(Ordering::Relaxed) + 1;
        change(&mut partitions, generation);
        self.version.store(generation, Ordering::Release);
        drop(partitions);
        self.changed.send_replace(());
    }
}

pub(super) struct Context {
    pub(super) poller: usize,
    pub(super) ownership: Arc<Ownership>,
    pub(super) stats: Arc<Recorder>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(
                    facility,
                    message,
                    "The Kafka client of the event source reports an error; it goes on trying."
                );
            }
            _ => tracing::debug!(facility, message, "The Kafka client of the event source says something."),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "The event source has trouble with Kafka and goes on trying; check that the brokers are up.");
        self.stats.lock().last_error = Some(format!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.ownership.change(|partitions, generation| {
                for element in list.elements() {
                    partitions.insert(element.partition(), generation);
                }
            }),
            Rebalance::Revoke(list) => self.ownership.change(|partitions, _| {
                for element in list.elements() {
                    partitions.remove(&element.partition());
                }
            }),
            Rebalance::Error(error) => {
                tracing::warn!(%error, "The consumer group could not be rebalanced; the event source goes on trying.");
                return;
            }
        }
        let mut owned: Vec<i32> = self.ownership.snapshot().into_keys().collect();
        owned.sort_unstable();
        tracing::info!(poller = self.poller, partitions = ?owned, "The partitions of a poller changed.");
        self.stats.lock().assigned.insert(self.poller, owned);
    }
}
