//! A poller: one member of the consumer group, which reads ahead while its batch is at work.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use rdkafka::{
    Message,
    consumer::{Consumer as _, MessageStream},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    EventSourceConfig, Invoker,
    batch::{Batcher, Limits, Record},
    consumer::{self, Consumer, Context, Ownership},
    delivery::Delivery,
    event::{Envelope, Source},
    stats::Recorder,
};
use crate::runtime::MAX_PAYLOAD;

/// Records are read ahead up to so many bytes…
const READ_AHEAD: usize = 2 * MAX_PAYLOAD;
/// …and then none are read until no more than so many are left.
const READ_AGAIN: usize = MAX_PAYLOAD;
/// How long the poller may leave Kafka alone when it has read enough. Later it pauses the partitions and polls on, so
/// that it serves rebalances; but what librdkafka has fetched ahead is thrown away by that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages taken in one go, before anything else gets its turn.
const BURST: usize = 256;
/// Records lie in blocks of so many bytes: one is freed sooner than a thousand records are.
const BLOCK: usize = 64 << 10;
/// Before a poller that failed begins again.
const RESTART: Duration = Duration::from_secs(1);

/// What a poller needs.
#[derive(Clone)]
pub(super) struct Poller {
    pub(super) number: usize,
    pub(super) config: Arc<EventSourceConfig>,
    pub(super) invoker: Invoker,
    pub(super) stats: Arc<Recorder>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Poller {
    /// Polls until the source stops; begins again after an error that the Kafka client does not survive.
    pub(super) async fn run(mut self) {
        while !*self.stop.borrow() {
            let error = match AssertUnwindSafe(self.member()).catch_unwind().await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                // rdkafka panics at a header name that is no UTF-8.
                Err(_) => "it panicked, for instance at a header name that is no UTF-8".to_owned(),
            };
            tracing::error!(
                poller = self.number,
                error,
                "A poller of the event source failed and begins again; check the brokers, the Kafka settings and the records."
            );
            self.stats.lock().last_error = Some(error);
            let mut stop = self.stop.clone();
            let _ = tokio::time::timeout(RESTART, stop.wait_for(|stop| *stop)).await;
        }
    }

    /// One life as a member of the group.
    async fn member(&mut self) -> KafkaResult<()> {
        let ownership = Arc::new(Ownership::new());
        let context = Context { poller: self.number, ownership: ownership.clone(), stats: self.stats.clone() };
        let consumer: Consumer = consumer::client_config(&self.config).create_with_context(context)?;
        consumer.subscribe(&[&self.config.topic])?;
        let consumer = Arc::new(consumer);
        let envelope = Envelope::new(&self.config);
        let limits = Limits {
            records: self.config.batch_size,
            payload: MAX_PAYLOAD,
            window: self.config.maximum_batching_window,
        };
        let reader = Reader {
            json: Json { topic: self.config.topic.clone(), record: Vec::new(), block: BytesMut::new() },
            batcher: Batcher::new(limits, envelope.clone()),
            owned: HashMap::new(),
            version: 0,
            ownership: ownership.clone(),
            stats: self.stats.clone(),
        };
        let delivery = Delivery {
            config: self.config.clone(),
            envelope,
            invoker: self.invoker.clone(),
            consumer: consumer.clone(),
            ownership,
            stats: self.stats.clone(),
            stop: self.stop.clone(),
        };
        let result = self.poll(&consumer, reader, &delivery).await;
        self.stats.lock().assigned.remove(&self.number);
        drop(delivery);
        // Leaves the group; blocks until the broker has been told.
        let _ = tokio::task::spawn_blocking(move || drop(consumer)).await;
        result
    }

    async fn poll(&mut self, consumer: &Consumer, mut reader: Reader, delivery: &Delivery) -> KafkaResult<()> {
        let mut messages = consumer.stream();
        let mut batch = Working(None);
        let mut flow = Flow::Reading;
        let mut end = None;
        loop {
            if *self.stop.borrow() && end.is_none() {
                end = Some(tokio::time::Instant::now() + self.config.stop_grace);
            }
            if let Some(end) = end
                && (batch.0.is_none() || end <= tokio::time::Instant::now())
            {
                return Ok(());
            }
            if batch.0.is_none()
                && end.is_none()
                && let Some(next) = reader.batcher.take(Instant::now())
            {
                batch.0 = Some(tokio::spawn(delivery.clone().deliver(next)));
            }
            flow = flow.next(reader.batcher.bytes(), consumer, &reader)?;
            let due = reader.batcher.due().filter(|_| batch.0.is_none() && end.is_none());
            let wake = [due.map(tokio::time::Instant::from_std), end, flow.patience()].into_iter().flatten().min();
            tokio::select! {
                message = messages.next(), if flow.polls() => reader.read(message, &mut messages)?,
                _ = batch.done() => {}
                () = sleep_until(wake) => {}
                stopped = self.stop.changed(), if end.is_none() => if stopped.is_err() { return Ok(()) },
            }
        }
    }
}

/// The batch at work. It ends with the poller.
struct Working(Option<JoinHandle<()>>);

impl Working {
    /// Waits for the batch; for ever when there is none. Cancel-safe.
    async fn done(&mut self) {
        match &mut self.0 {
            Some(task) => {
                if let Err(error) = task.await {
                    tracing::error!(%error, "The delivery of a batch failed in the event source itself; restart it and report this.");
                }
                self.0 = None;
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Whether more records are wanted.
#[derive(Clone, Copy)]
enum Flow {
    Reading,
    /// Enough was read; since then Kafka was left alone.
    Waiting(Instant),
    /// Enough was read, and the partitions of this assignment are paused.
    Paused(u64),
}

impl Flow {
    fn next(self, waiting: usize, consumer: &Consumer, reader: &Reader) -> KafkaResult<Flow> {
        Ok(match self {
            Flow::Reading if waiting >= READ_AHEAD => Flow::Waiting(Instant::now()),
            Flow::Waiting(_) if waiting < READ_AGAIN => Flow::Reading,
            Flow::Waiting(since) if since.elapsed() >= PATIENCE => Self::pause(consumer, reader)?,
            Flow::Paused(_) if waiting < READ_AGAIN => {
                consumer.resume(&consumer.assignment()?)?;
                Flow::Reading
            }
            // Partitions that came since are not paused.
            Flow::Paused(version) if version != reader.version => Self::pause(consumer, reader)?,
            same => same,
        })
    }

    fn pause(consumer: &Consumer, reader: &Reader) -> KafkaResult<Flow> {
        consumer.pause(&consumer.assignment()?)?;
        Ok(Flow::Paused(reader.version))
    }

    fn polls(self) -> bool {
        !matches!(self, Flow::Waiting(_))
    }

    /// When the poller must look again, whatever happens.
    fn patience(self) -> Option<tokio::time::Instant> {
        match self {
            Flow::Waiting(since) => Some(tokio::time::Instant::from_std(since + PATIENCE)),
            Flow::Reading | Flow::Paused(_) => None,
        }
    }
}

/// Turns messages into records, under the assignment that is in force.
struct Reader {
    json: Json,
    batcher: Batcher,
    /// As of `version`.
    owned: HashMap<i32, u64>,
    version: u64,
    ownership: Arc<Ownership>,
    stats: Arc<Recorder>,
}

impl Reader {
    /// Takes this message and what else is there already.
    fn read(
        &mut self,
        first: Option<KafkaResult<BorrowedMessage<'_>>>,
        messages: &mut MessageStream<'_, Context>,
    ) -> KafkaResult<()> {
        let (mut received, now) = (0, Instant::now());
        let mut next = first;
        let result = loop {
            // A rebalance is served while the stream is polled.
            self.follow_rebalance();
            match next {
                Some(Ok(message)) => received += u64::from(self.push(&message, now)),
                Some(Err(fatal @ KafkaError::MessageConsumptionFatal(_))) => break Err(fatal),
                Some(Err(error)) => {
                    tracing::warn!(%error, "The event source could not read from Kafka and goes on trying; check that the topic exists and the brokers are up.");
                    self.stats.lock().last_error = Some(error.to_string());
                }
                None => break Ok(()),
            }
            if received >= BURST as u64 || self.batcher.bytes() >= READ_AHEAD {
                break Ok(());
            }
            next = match messages.next().now_or_never() {
                Some(message) => message,
                None => break Ok(()),
            };
        };
        self.follow_rebalance();
        self.stats.lock().received += received;
        result
    }

    fn push(&mut self, message: &BorrowedMessage<'_>, received: Instant) -> bool {
        // Of a partition that was taken away meanwhile: its next owner reads it.
        let Some(generation) = self.owned.get(&message.partition()) else { return false };
        let source = Source::of(message);
        self.batcher.push(Record {
            partition: source.partition,
            offset: source.offset,
            timestamp: source.timestamp.to_millis().unwrap_or(-1),
            generation: *generation,
            received,
            json: self.json.encode(&source),
        });
        true
    }

    fn follow_rebalance(&mut self) {
        let version = self.ownership.version();
        if version != self.version {
            self.version = version;
            self.owned = self.ownership.snapshot();
            self.batcher.retain(|record| self.owned.get(&record.partition) == Some(&record.generation));
        }
    }
}

/// Turns records into JSON, many in one allocation.
struct Json {
    topic: String,
    /// The last record; kept for its capacity.
    record: Vec<u8>,
    block: BytesMut,
}

impl Json {
    fn encode(&mut self, source: &Source<'_>) -> Bytes {
        self.record.clear();
        source.encode(&self.topic, &mut self.record);
        if self.block.capacity() < self.record.len() {
            self.block = BytesMut::with_capacity(BLOCK.max(self.record.len()));
        }
        self.block.extend_from_slice(&self.record);
        self.block.split().freeze()
    }
}
