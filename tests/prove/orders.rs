//! The topic: orders that can be told from each other, and what is expected of each in the lake.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Map, Value, json};

const DAY_MS: i64 = 24 * 3_600_000;
/// Partitions that every class of faults works on. Each has one more of its own, whose ledger it is the first to write.
const SHARED: i32 = 3;
const TICK: Duration = Duration::from_millis(100);

/// Where a record is: how often its partition was made anew with something in it, partition, offset.
pub type Place = (u32, i32, i64);

/// What must be in the lake for a record.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Kafka's, in milliseconds since 1970.
    pub timestamp: i64,
    pub stored: Stored,
}

#[derive(Debug, Clone)]
pub enum Stored {
    /// One row with these columns.
    Row(Map<String, Value>),
    /// A dead letter with this payload.
    Letter(Vec<u8>),
}

pub struct Topic {
    name: String,
    bootstrap: String,
    partitions: i32,
    state: Mutex<State>,
    /// Held while records are sent, and while the topic is not to be touched.
    pub sending: tokio::sync::Mutex<FutureProducer>,
}

struct State {
    /// The Kafka timestamp of the next record. The clock of this topic runs fast, so that hours end while faults happen.
    clock: i64,
    next_order: i64,
    /// Per partition the epoch that its ledger must have come to.
    epochs: BTreeMap<i32, u32>,
    expected: BTreeMap<Place, Expected>,
}

impl Topic {
    /// Makes the topic, with timestamps of its producer's and a partition for each class of faults.
    pub async fn make(name: &str, bootstrap: &str, classes: usize) -> Topic {
        let partitions = SHARED + i32::try_from(classes).unwrap();
        create(name, bootstrap, partitions).await;
        let now_ms = pipeline::telemetry::now_ms();
        let state = State {
            clock: (now_ms / DAY_MS - 90) * DAY_MS,
            next_order: 1,
            epochs: (0..partitions).map(|partition| (partition, 0)).collect(),
            expected: BTreeMap::new(),
        };
        Topic {
            name: name.to_owned(),
            bootstrap: bootstrap.to_owned(),
            partitions,
            state: Mutex::new(state),
            sending: tokio::sync::Mutex::new(producer(bootstrap)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a day of its own, and says when: what is produced from now on is stored in it or later.
    pub fn next_day(&self) -> i64 {
        let mut state = self.state();
        state.clock = (state.clock / DAY_MS + 1) * DAY_MS;
        state.clock
    }

    /// Of the records since then.
    pub fn expected(&self, since: i64) -> BTreeMap<Place, Expected> {
        let state = self.state();
        let since = state.expected.iter().filter(|(_, expected)| expected.timestamp >= since);
        since.map(|(place, expected)| (*place, expected.clone())).collect()
    }

    /// Sends orders until the task is ended, to the shared partitions and to the one with this number, some of them junk;
    /// every second one of `padding` bytes or more.
    pub fn feed(self: &Arc<Self>, class: usize, padding: usize, mut rng: fastrand::Rng) -> Feed {
        let topic = self.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let own = SHARED + i32::try_from(class).unwrap();
        let task = tokio::spawn(async move {
            tokio::pin!(stopped);
            loop {
                topic.tick(own, padding, &mut rng).await;
                if tokio::time::timeout(TICK, &mut stopped).await.is_ok() {
                    return;
                }
            }
        });
        Feed { stop, task }
    }

    /// A burst, or nothing.
    async fn tick(&self, own: i32, padding: usize, rng: &mut fastrand::Rng) {
        let producer = self.sending.lock().await;
        let records = if rng.u8(..4) == 0 { 0 } else { rng.usize(1..30) };
        let timestamp = {
            let mut state = self.state();
            state.clock += rng.choice([0, 1, 5, 20]).unwrap_or_default() * 60_000;
            state.clock
        };
        let mut sent = Vec::new();
        for _ in 0..records {
            let partition = Some(rng.i32(0..=SHARED)).filter(|shared| *shared < SHARED).unwrap_or(own);
            let (value, stored) = self.order(timestamp, padding, rng);
            let record = FutureRecord::<(), _>::to(&self.name).partition(partition).timestamp(timestamp);
            let delivery = producer.send_result(record.payload(&value)).map_err(|(error, _)| error).unwrap();
            sent.push((delivery, Expected { timestamp, stored }));
        }
        for (delivery, expected) in sent {
            let delivered = delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
            let mut state = self.state();
            let place = (state.epochs[&delivered.partition], delivered.partition, delivered.offset);
            assert!(state.expected.insert(place, expected).is_none(), "{place:?} was given twice");
        }
    }

    /// As the producer writes a record, and what must come of it.
    fn order(&self, timestamp: i64, padding: usize, rng: &mut fastrand::Rng) -> (Vec<u8>, Stored) {
        let number = {
            let mut state = self.state();
            state.next_order += 1;
            state.next_order - 1
        };
        if rng.u8(..40) == 0 {
            let payload = format!("order {number} is no JSON").into_bytes();
            return (payload.clone(), Stored::Letter(payload));
        }
        let mut record = json!({
            "order_id": number,
            "ordered_at": freshet::text::time(timestamp + number % 1000),
            "paid": rng.bool(),
            "quantity": rng.i64(0..1000),
            // Quarters, which a double holds exactly.
            "total": rng.i32(0..10_000) as f64 / 4.0,
            "note": format!("order {number} {}", "x".repeat(padding * usize::from(rng.bool()))),
        });
        let record = record.as_object_mut().unwrap();
        if rng.bool() {
            record.insert("first_article".to_owned(), json!(format!("article {}", rng.u16(..))));
        }
        let mut columns = record.clone();
        columns.insert("first_article".to_owned(), record.get("first_article").cloned().unwrap_or_default());
        columns.insert("_extra".to_owned(), Value::Null);
        if rng.u8(..10) == 0 {
            record.insert("shoe".to_owned(), json!(number));
            columns.insert("_extra".to_owned(), json!(format!("{{\"shoe\":{number}}}")));
        }
        (serde_json::to_vec(record).unwrap(), Stored::Row(columns))
    }

    /// Sets a group without members back, each partition by up to `most` records. False while the group has members.
    pub async fn rewind(&self, group: &str, committed: BTreeMap<i32, i64>, most: i64, rng: &mut fastrand::Rng) -> bool {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in committed {
            let back = Offset::Offset((offset - rng.i64(1..most)).max(0));
            list.add_partition_offset(&self.name, partition, back).unwrap();
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", group);
        let commit = move || config.create::<BaseConsumer>().unwrap().commit(&list, CommitMode::Sync);
        tokio::task::spawn_blocking(commit).await.unwrap().is_ok()
    }

    /// Deletes the topic and makes it anew, under a lock on [`Topic::sending`]. Its partitions that have held something: these have a
    /// ledger of the topic's last life.
    pub async fn make_anew(&self, producer_in_use: &mut FutureProducer) -> Vec<i32> {
        let deleted = admin(&self.bootstrap).delete_topics(&[&self.name], &AdminOptions::new()).await.unwrap();
        deleted[0].as_ref().unwrap();
        create(&self.name, &self.bootstrap, self.partitions).await;
        // The old one knows sequence numbers of a topic that is gone.
        *producer_in_use = producer(&self.bootstrap);
        let mut state = self.state();
        // As the broker's clock does in which a topic is made anew.
        state.clock += 60_000;
        let mut used: Vec<i32> = state.expected.keys().map(|(_, partition, _)| *partition).collect();
        used.sort_unstable();
        used.dedup();
        for partition in &used {
            *state.epochs.entry(*partition).or_default() += 1;
        }
        used
    }
}

/// Orders on their way to the topic.
pub struct Feed {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Feed {
    /// Returns when the last one has arrived.
    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }
}

fn producer(bootstrap: &str) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("linger.ms", "5");
    config.create().unwrap()
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap()
}

async fn create(name: &str, bootstrap: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = topic.set("message.timestamp.type", "CreateTime").set("cleanup.policy", "delete");
    admin(bootstrap).create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}
