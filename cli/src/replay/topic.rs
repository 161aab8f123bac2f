//! The topic, as a replay sees it: where it ends, which replayed records it holds, and a way to put records onto it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use pipeline::kafka::{KafkaConfig, KafkaContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::journal::{Pace, Window};
use super::letters::{REPLAY_ID, Record};
use crate::Error;
use crate::kafka::{Watermarks, watermarks};
use crate::progress::Progress;

/// How long the brokers may be silent while the topic is read.
const PATIENCE: Duration = Duration::from_secs(30);
/// A partition that says so long that it ends has ended, also where its last offsets are no records.
const END: Duration = Duration::from_secs(5);

/// Where a replayed record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    pub partition: i32,
    pub offset: i64,
}

/// How one record fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Stored(Spot),
    /// It is not on the topic, and will not be.
    Refused(String),
    /// It may be on the topic.
    Unknown(String),
}

pub trait Topic: Send + Sync {
    /// Of each partition.
    fn watermarks(&self) -> impl Future<Output = Result<BTreeMap<i32, Watermarks>, Error>> + Send;
    /// Where replayed records lie by their letters' ids, within these offsets of each partition (the end is exclusive).
    fn replayed(
        &self,
        spans: BTreeMap<i32, (i64, i64)>,
    ) -> impl Future<Output = Result<BTreeMap<String, Spot>, Error>> + Send;
    /// Sends the records while the window is open, awaits each one's delivery, and says how each fared, in their order.
    fn publish(
        &self,
        records: Vec<Record>,
        window: Window,
        progress: &Progress,
    ) -> impl Future<Output = Result<Vec<Outcome>, Error>> + Send;
}

pub struct KafkaTopic {
    config: KafkaConfig,
    name: String,
    rate: u32,
    client: FutureProducer<KafkaContext>,
}

impl KafkaTopic {
    /// Connects in the background.
    pub fn new(config: KafkaConfig, name: &str, pace: Pace) -> Result<KafkaTopic, Error> {
        let mut client = config.client_config();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "zstd")
            // Of a record, all retries together.
            .set("message.timeout.ms", pace.delivery_timeout.as_millis().to_string())
            // The broker's limit counts, not the client's.
            .set("message.max.bytes", "100000000");
        let client = client
            .create_with_context(config.context())
            .map_err(|e| Error::stopped(format!("cannot make a Kafka producer: {e}. Check the KAFKA_* variables")))?;
        Ok(KafkaTopic { config, name: name.to_owned(), rate: pace.rate, client })
    }
}

impl Topic for KafkaTopic {
    async fn watermarks(&self) -> Result<BTreeMap<i32, Watermarks>, Error> {
        watermarks(&self.config, &self.name).await
    }

    async fn replayed(&self, spans: BTreeMap<i32, (i64, i64)>) -> Result<BTreeMap<String, Spot>, Error> {
        let (config, name) = (self.config.clone(), self.name.clone());
        // The consumer's calls block.
        let read = tokio::task::spawn_blocking(move || read(&config, &name, spans)).await;
        read.unwrap_or_else(|panic| Err(panic.to_string())).map_err(|reason| {
            let name = &self.name;
            Error::stopped(format!(
                "cannot read the topic `{name}`: {reason}. Nothing more was replayed; check --kafka, the KAFKA_* variables and the network, then run the command again"
            ))
        })
    }

    async fn publish(&self, records: Vec<Record>, window: Window, progress: &Progress) -> Result<Vec<Outcome>, Error> {
        let began = tokio::time::Instant::now();
        let at = |number: usize| began + Duration::from_secs_f64(number as f64 / f64::from(self.rate.max(1)));
        let mut sent = Vec::with_capacity(records.len());
        for (number, record) in records.iter().enumerate() {
            tokio::time::sleep_until(at(number)).await;
            sent.push(self.send(record, window).await);
            progress.done();
        }
        let count = sent.len();
        let mut outcomes = Vec::with_capacity(count);
        for delivery in sent {
            outcomes.push(match delivery {
                Ok(delivery) => match delivery.await {
                    Ok(Ok(stored)) => Outcome::Stored(Spot { partition: stored.partition, offset: stored.offset }),
                    Ok(Err((error, _))) => failed(&error),
                    Err(_) => Outcome::Unknown("Kafka's client was closed before it was acknowledged".to_owned()),
                },
                Err(outcome) => outcome,
            });
        }
        // The next batch begins when this one's share of the time is over.
        tokio::time::sleep_until(at(count)).await;
        Ok(outcomes)
    }
}

impl KafkaTopic {
    async fn send(&self, record: &Record, window: Window) -> Result<rdkafka::producer::DeliveryFuture, Outcome> {
        loop {
            if !window.is_open() {
                return Err(Outcome::Unknown("the batch's time was over before it could be sent".to_owned()));
            }
            let message = FutureRecord::<[u8], [u8]> {
                topic: &self.name,
                partition: record.partition,
                payload: record.value.as_deref(),
                key: record.key.as_deref(),
                timestamp: None,
                headers: Some(headers(record)),
            };
            match self.client.send_result(message) {
                Ok(delivery) => return Ok(delivery),
                // Room comes with a delivery.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err((error, _)) => return Err(failed(&error)),
            }
        }
    }
}

fn headers(record: &Record) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    record
        .headers
        .iter()
        .fold(empty, |headers, (name, value)| headers.insert(Header { key: name, value: value.as_ref() }))
}

fn failed(error: &KafkaError) -> Outcome {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord) => {
            Outcome::Refused(format!("is refused by Kafka: {error}"))
        }
        Some(RDKafkaErrorCode::MessageTimedOut) => Outcome::Unknown("Kafka did not acknowledge it in time".to_owned()),
        _ => Outcome::Unknown(error.to_string()),
    }
}

/// Reads each span to its end.
fn read(config: &KafkaConfig, topic: &str, spans: BTreeMap<i32, (i64, i64)>) -> Result<BTreeMap<String, Spot>, String> {
    let mut left: BTreeMap<i32, i64> = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for (partition, (from, to)) in spans.into_iter().filter(|(_, (from, to))| from < to) {
        list.add_partition_offset(topic, partition, Offset::Offset(from)).map_err(|e| e.to_string())?;
        left.insert(partition, to);
    }
    let mut found = BTreeMap::new();
    if left.is_empty() {
        return Ok(found);
    }
    let mut client = config.client_config();
    client
        // librdkafka wants one; nothing is committed, and nobody joins.
        .set("group.id", "freshet-replay")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        // Ours are in no transaction; one that is open must not hide them.
        .set("isolation.level", "read_uncommitted");
    let client = client.create_with_context::<KafkaContext, BaseConsumer<_>>(config.context());
    let consumer = client.map_err(|e| e.to_string())?;
    config.sign_in(consumer.client()).map_err(|e| e.to_string())?;
    consumer.assign(&list).map_err(|e| e.to_string())?;
    let (mut ended, mut heard, mut trouble) = (BTreeMap::new(), Instant::now(), None);
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                heard = Instant::now();
                ended.remove(&partition);
                let Some(to) = left.get(&partition).copied() else { continue };
                if let Some(id) = replay_id(&message).filter(|_| offset < to) {
                    // The first of several counts; there is one.
                    found.entry(id).or_insert(Spot { partition, offset });
                }
                if offset + 1 >= to {
                    left.remove(&partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                ended.entry(partition).or_insert(heard);
            }
            Some(Err(error)) => trouble = Some(error.to_string()),
            None => {}
        }
        left.retain(|partition, _| ended.get(partition).is_none_or(|at: &Instant| at.elapsed() < END));
        if heard.elapsed() > PATIENCE {
            return Err(trouble.unwrap_or_else(|| format!("no answer for {} s", PATIENCE.as_secs())));
        }
    }
    Ok(found)
}

/// The letter that a record of the topic is the latest replay of.
fn replay_id(message: &impl Message) -> Option<String> {
    let headers = message.headers()?;
    let last = headers.iter().filter(|header| header.key == REPLAY_ID).last()?;
    String::from_utf8(last.value?.to_vec()).ok()
}
