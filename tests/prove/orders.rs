//! The topic: orders that can be told from each other, and what is expected of each in the lake.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Map, Value, json};

const DAY_MS: i64 = 24 * 3_600_000;
/// Partitions that every class of faults works on. Each has one more of its own, whose ledger it is the first to write.
const SHARED: i32 = 3;
const TICK: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(30);
const MINUTE_MS: i64 = 60_000;

/// Where a record is: how often its partition was made anew with something in it, partition, offset.
pub type Place = (u32, i32, i64);

/// What must be in the lake for a record.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Kafka's, in milliseconds since 1970.
    pub timestamp: i64,
    pub stored: Stored,
    /// The topic may have dropped it before it was delivered.
    pub may_be_gone: bool,
}

#[derive(Debug, Clone)]
pub enum Stored {
    /// One row with these columns.
    Row(Map<String, Value>),
    /// A dead letter with this payload.
    Letter(Vec<u8>),
}

pub struct Topic {
    pub name: String,
    bootstrap: String,
    replication: i32,
    state: Mutex<State>,
    /// Held while records are sent, and while the topic is not to be touched.
    pub sending: tokio::sync::Mutex<FutureProducer>,
}

struct State {
    partitions: i32,
    /// Partitions that were added to the topic.
    added: Vec<i32>,
    /// The Kafka timestamp of the next record. The clock of this topic runs fast, so that hours end while faults happen.
    clock: i64,
    next_order: i64,
    /// Per partition the epoch that its ledger must have come to.
    epochs: BTreeMap<i32, u32>,
    expected: BTreeMap<Place, Expected>,
}

impl Topic {
    /// Makes the topic, with timestamps of its producer's and a partition for each class of faults.
    pub async fn make(name: &str, bootstrap: &str, classes: usize, replication: i32) -> Topic {
        let partitions = SHARED + i32::try_from(classes).unwrap();
        create(name, bootstrap, partitions, replication).await;
        let now_ms = pipeline::telemetry::now_ms();
        let state = State {
            partitions,
            added: Vec::new(),
            clock: (now_ms / DAY_MS - 90) * DAY_MS,
            next_order: 1,
            epochs: (0..partitions).map(|partition| (partition, 0)).collect(),
            expected: BTreeMap::new(),
        };
        Topic {
            name: name.to_owned(),
            bootstrap: bootstrap.to_owned(),
            replication,
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
        let own = own(class);
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
        let (timestamp, partitions) = {
            let mut state = self.state();
            state.clock += rng.choice([0, 1, 5, 20]).unwrap_or_default() * MINUTE_MS;
            (state.clock, (0..SHARED).chain([own]).chain(state.added.iter().copied()).collect::<Vec<_>>())
        };
        let mut sent = Vec::new();
        for _ in 0..records {
            let partition = partitions[rng.usize(..partitions.len())];
            sent.push(self.send(&producer, partition, timestamp, None, padding, rng));
        }
        for order in sent {
            let (delivered, expected) = order.arrived().await;
            self.expect(delivered, expected);
        }
    }

    fn send(
        &self,
        producer: &FutureProducer,
        partition: i32,
        timestamp: i64,
        key: Option<&str>,
        padding: usize,
        rng: &mut fastrand::Rng,
    ) -> Sent {
        let (value, stored) = self.order(timestamp, padding, rng);
        let mut record =
            FutureRecord::<str, _>::to(&self.name).partition(partition).timestamp(timestamp).payload(&value);
        record.key = key;
        let delivery = producer.send_result(record).map_err(|(error, _)| error).unwrap();
        Sent { delivery, expected: Expected { timestamp, stored, may_be_gone: false } }
    }

    fn expect(&self, delivered: Delivery, expected: Expected) {
        let mut state = self.state();
        let place = (state.epochs[&delivered.partition], delivered.partition, delivered.offset);
        assert!(state.expected.insert(place, expected).is_none(), "{place:?} was given twice");
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
        let partitions = self.state().partitions;
        create(&self.name, &self.bootstrap, partitions, self.replication).await;
        // The old one knows sequence numbers of a topic that is gone.
        *producer_in_use = producer(&self.bootstrap);
        let mut state = self.state();
        // As the broker's clock does in which a topic is made anew.
        state.clock += MINUTE_MS;
        let mut used: Vec<i32> = state.expected.keys().map(|(_, partition, _)| *partition).collect();
        used.sort_unstable();
        used.dedup();
        for partition in &used {
            *state.epochs.entry(*partition).or_default() += 1;
        }
        used
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> i32 {
        self.state().partitions
    }

    /// It has one partition more, which gets its share of the orders from now on.
    pub async fn added(&self) {
        let producer = self.sending.lock().await;
        let partition = self.partitions();
        // The producer learns of it, as soon as the broker that it asks has heard.
        let known = || {
            let topic = producer.client().fetch_metadata(Some(&self.name), SOON).unwrap();
            topic.topics()[0].partitions().len() as i32
        };
        while known() <= partition {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut state = self.state();
        state.partitions += 1;
        state.added.push(partition);
        state.epochs.insert(partition, 0);
    }

    /// Sends some orders in a transaction, and commits it or does not. Behind its markers there comes one more order each, so that no
    /// marker is a partition's last: those are never delivered, and the group's lag would stay at 1.
    pub async fn transaction(&self, commit: bool, rng: &mut fastrand::Rng) {
        let plain = self.sending.lock().await;
        let timestamp = self.state().clock;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("transactional.id", "freshet-prove");
        let producer: FutureProducer = config.create().unwrap();
        // These block.
        tokio::task::block_in_place(|| producer.init_transactions(SOON)).unwrap();
        producer.begin_transaction().unwrap();
        let sent: Vec<_> =
            (0..rng.i32(3..20)).map(|n| self.send(&producer, n % SHARED, timestamp, None, 0, rng)).collect();
        let mut arrived = Vec::new();
        let mut last = [0; SHARED as usize];
        for order in sent {
            let (delivered, expected) = order.arrived().await;
            last[delivered.partition as usize] = delivered.offset;
            arrived.push((delivered, expected));
        }
        if commit {
            tokio::task::block_in_place(|| producer.commit_transaction(SOON)).unwrap();
            arrived.into_iter().for_each(|(delivered, expected)| self.expect(delivered, expected));
        } else {
            tokio::task::block_in_place(|| producer.abort_transaction(SOON)).unwrap();
        }
        for (partition, last) in (0..).zip(last) {
            self.reaches(partition, last + 2).await;
            let (delivered, expected) = self.send(&plain, partition, timestamp, None, 0, rng).arrived().await;
            self.expect(delivered, expected);
        }
    }

    /// Sends one order to the partition of this class.
    pub async fn one(&self, producer: &FutureProducer, class: usize, rng: &mut fastrand::Rng) {
        let timestamp = self.tick_clock();
        let (delivered, expected) = self.send(producer, own(class), timestamp, Some("one"), 0, rng).arrived().await;
        self.expect(delivered, expected);
    }

    /// Sends orders with few keys, while nobody reads them, and waits until some have been compacted away. How many.
    pub async fn compact(&self, producer: &FutureProducer, class: usize, rng: &mut fastrand::Rng) -> u64 {
        const KEYS: usize = 5;
        let mut arrived = Vec::new();
        for number in 0..40 {
            // Each in a segment of its own: the one that is written to is left alone.
            let timestamp = self.tick_clock();
            let key = (number % KEYS).to_string();
            arrived.push(self.send(producer, own(class), timestamp, Some(&key), 0, rng).arrived().await);
        }
        let from = arrived[0].0.offset;
        let sent = arrived.len();
        let latest = sent - KEYS;
        for (number, (delivered, mut expected)) in arrived.into_iter().enumerate() {
            expected.may_be_gone = number < latest;
            self.expect(delivered, expected);
        }
        for _ in 0..100 {
            let left = self.read(own(class), from).await;
            if left < sent {
                return (sent - left) as u64;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        0
    }

    /// Sends orders that nobody reads and nobody will, because they expire. How many; `expire` makes everything expire.
    pub async fn send_unread(&self, producer: &FutureProducer, class: usize, rng: &mut fastrand::Rng) -> u64 {
        let records = rng.u64(5..40);
        let timestamp = self.tick_clock();
        for _ in 0..records {
            self.send(producer, own(class), timestamp, None, 0, rng).arrived().await;
        }
        records
    }

    fn tick_clock(&self) -> i64 {
        let mut state = self.state();
        state.clock += MINUTE_MS;
        state.clock
    }

    /// Waits until no partition holds a record.
    pub async fn emptied(&self) {
        let (config, name, partitions) = (self.reader(), self.name.clone(), self.partitions());
        let wait = move || {
            let consumer: BaseConsumer = config.create().unwrap();
            for partition in 0..partitions {
                let deadline = Instant::now() + SOON;
                while consumer.fetch_watermarks(&name, partition, SOON).is_ok_and(|(low, high)| low < high) {
                    assert!(Instant::now() < deadline, "the records of partition {partition} do not expire");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        };
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    /// Waits until a partition ends there, or behind it: a transaction's markers are written after its end was acknowledged.
    async fn reaches(&self, partition: i32, end: i64) {
        let (config, name) = (self.reader(), self.name.clone());
        let wait = move || {
            let consumer: BaseConsumer = config.create().unwrap();
            let deadline = Instant::now() + SOON;
            while consumer.fetch_watermarks(&name, partition, SOON).unwrap().1 < end {
                assert!(Instant::now() < deadline, "partition {partition} does not reach {end}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    /// How many records a partition still has from an offset on.
    async fn read(&self, partition: i32, from: i64) -> usize {
        let (config, name) = (self.reader(), self.name.clone());
        let read = move || {
            let consumer: BaseConsumer = config.create().unwrap();
            let (_, high) = consumer.fetch_watermarks(&name, partition, SOON).unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&name, partition, Offset::Offset(from)).unwrap();
            consumer.assign(&list).unwrap();
            let mut records = 0;
            loop {
                let message = consumer.poll(SOON).expect("a record in time").unwrap();
                records += 1;
                // The last one is never compacted away.
                if message.offset() + 1 == high {
                    return records;
                }
            }
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    fn reader(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", "freshet-prove-reader");
        config
    }
}

/// The partition of the class of faults with this number.
fn own(class: usize) -> i32 {
    SHARED + i32::try_from(class).unwrap()
}

/// An order on its way.
struct Sent {
    delivery: rdkafka::producer::DeliveryFuture,
    expected: Expected,
}

impl Sent {
    async fn arrived(self) -> (Delivery, Expected) {
        (self.delivery.await.unwrap().map_err(|(error, _)| error).unwrap(), self.expected)
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

/// What the topic is like but for what a class of faults changes: it keeps records of any age.
pub const SETTINGS: [(&str, &str); 2] = [("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")];

async fn create(name: &str, bootstrap: &str, partitions: i32, replication: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication)).set("cleanup.policy", "delete");
    let topic = SETTINGS.into_iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    admin(bootstrap).create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}
