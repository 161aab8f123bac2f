//! Publishes records, and says of each whether Kafka acknowledged it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pipeline::kafka::{KafkaConfig, KafkaContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _, PurgeConfig};
use tokio::time::{Instant, timeout_at};

/// How long a purged record may take to be reported as such. It needs no network.
const PURGE_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
#[error("cannot make a Kafka producer: {0}. Check the KAFKA_* variables")]
pub struct PublishError(#[from] KafkaError);

/// A record that is not known to be on the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub record: Vec<u8>,
    pub reason: String,
}

/// How the records of one tick fared.
#[derive(Debug, Default)]
pub struct Published {
    pub by_partition: BTreeMap<i32, u64>,
    pub failures: Vec<Failure>,
    /// Kafka says that there is no such topic.
    pub topic_missing: bool,
}

/// An idempotent producer for one topic. Its client lives as long as the process, unless librdkafka gives it up.
pub struct Publisher {
    kafka: KafkaConfig,
    topic: String,
    delivery_timeout: Duration,
    client: Option<FutureProducer<KafkaContext>>,
}

impl Publisher {
    pub fn new(kafka: KafkaConfig, topic: &str, delivery_timeout: Duration) -> Publisher {
        Publisher { kafka, topic: topic.to_owned(), delivery_timeout, client: None }
    }

    /// The client, made where there is none. Connects in the background.
    pub fn client(&mut self) -> Result<FutureProducer<KafkaContext>, PublishError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.connect()?;
        Ok(self.client.insert(client).clone())
    }

    fn connect(&self) -> Result<FutureProducer<KafkaContext>, PublishError> {
        let timeout = self.delivery_timeout.as_millis();
        let mut config = self.kafka.client_config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "zstd")
            .set("linger.ms", "20")
            // Of a record, all retries together.
            .set("message.timeout.ms", timeout.to_string())
            // Of one request: a broker that hangs is given up in time for another try.
            .set("request.timeout.ms", (timeout / 3).clamp(100, 10_000).to_string())
            .set("socket.timeout.ms", (timeout / 3).clamp(1_000, 10_000).to_string())
            // What one answer of the API can fill; a full queue is waited for.
            .set("queue.buffering.max.kbytes", "32768");
        Ok(config.create_with_context(self.kafka.context())?)
    }

    /// Sends the records and awaits each one's delivery. At `until`, what is not acknowledged is taken back: nothing of it
    /// is sent behind the function's answer.
    pub async fn publish(&mut self, records: Vec<Vec<u8>>, until: Option<Instant>) -> Published {
        let mut published = Published::default();
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => {
                published.fail_all(records, &error.to_string());
                return published;
            }
        };
        // Kafka's own time-out comes first where there is no deadline; this one only bounds a wait for a bug.
        let until = until.unwrap_or_else(|| Instant::now() + self.delivery_timeout * 3);
        let mut deliveries = Deliveries { client: &client, until, purged: false, pending: VecDeque::new(), published };
        for record in records {
            deliveries.send(&self.topic, record).await;
        }
        while deliveries.await_oldest().await {}
        let Deliveries { published, purged, .. } = deliveries;

        let fatal = client.client().fatal_error();
        if let Some((code, reason)) = &fatal {
            tracing::warn!(%code, reason, "Kafka's client gave up its idempotent session and is made anew");
        }
        if purged || fatal.is_some() {
            // A purged client may have gaps in its sequence; a new one has a new producer id. Going, it joins its threads.
            self.client = None;
            tokio::task::spawn_blocking(move || drop(client));
        }
        published
    }
}

/// The deliveries of one call, oldest first.
struct Deliveries<'a> {
    client: &'a FutureProducer<KafkaContext>,
    until: Instant,
    purged: bool,
    pending: VecDeque<(Vec<u8>, DeliveryFuture)>,
    published: Published,
}

impl Deliveries<'_> {
    async fn send(&mut self, topic: &str, record: Vec<u8>) {
        loop {
            if self.purged {
                return self.published.fail(record, "the run's time was up before it could be sent".to_owned());
            }
            let sent = self.client.send_result(FutureRecord::<(), [u8]>::to(topic).payload(record.as_slice()));
            match sent {
                Ok(delivery) => return self.pending.push_back((record, delivery)),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    // Room comes with a delivery.
                    if !self.await_oldest().await {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        self.purged = Instant::now() >= self.until;
                    }
                }
                Err((error, _)) => return self.published.failed(record, &error),
            }
        }
    }

    /// Whether there was one to await.
    async fn await_oldest(&mut self) -> bool {
        let Some((record, mut delivery)) = self.pending.pop_front() else { return false };
        let mut outcome = timeout_at(self.until, &mut delivery).await;
        if outcome.is_err() && !self.purged {
            self.client.purge(PurgeConfig::default().queue().inflight());
            self.purged = true;
            self.until = Instant::now() + PURGE_PATIENCE;
            outcome = timeout_at(self.until, &mut delivery).await;
        }
        match outcome {
            Ok(Ok(Ok(delivered))) => *self.published.by_partition.entry(delivered.partition).or_default() += 1,
            Ok(Ok(Err((error, _)))) => self.published.failed(record, &error),
            Ok(Err(_)) => {
                self.published.fail(record, format!("Kafka's client was closed before it was acknowledged{UNKNOWN}"))
            }
            Err(_) => self.published.fail(record, format!("the run's time was up before it was acknowledged{UNKNOWN}")),
        }
        true
    }
}

/// Said of a record that Kafka may have taken: its replay may store it twice.
const UNKNOWN: &str = "; it may have been stored nevertheless";

impl Published {
    fn fail(&mut self, record: Vec<u8>, reason: String) {
        self.failures.push(Failure { record, reason });
    }

    fn fail_all(&mut self, records: Vec<Vec<u8>>, reason: &str) {
        for record in records {
            self.fail(record, reason.to_owned());
        }
    }

    fn failed(&mut self, record: Vec<u8>, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        self.topic_missing |=
            matches!(code, Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition));
        let reason = match code {
            Some(RDKafkaErrorCode::MessageTimedOut) => format!("Kafka did not acknowledge it in time{UNKNOWN}"),
            // A record that was sent, and is to be sent again, waits in the queue as one that never was.
            Some(RDKafkaErrorCode::PurgeInflight | RDKafkaErrorCode::PurgeQueue) => {
                format!("the run's time was up, or Kafka's client gave up, before it was acknowledged{UNKNOWN}")
            }
            _ => format!("Kafka refuses it: {error}"),
        };
        self.fail(record, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client has sent such a record, and taken it back into its queue to send it again: `freshet replay` must not take it for
    /// one that is surely not on the topic.
    #[test]
    fn what_is_purged_from_the_queue_may_have_been_stored() {
        let mut published = Published::default();
        for code in [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight, RDKafkaErrorCode::MessageTimedOut] {
            published.failed(b"{}".to_vec(), &KafkaError::MessageProduction(code));
        }
        for failure in published.failures {
            assert!(failure.reason.contains("may have been stored"), "{}", failure.reason);
        }
    }
}
