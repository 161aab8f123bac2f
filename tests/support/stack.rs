//! The whole stack for a test: real binaries, broker, S3, catalog. `make test` builds them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use localstack::stack::{Source, Stack, StackConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::kafka::Brokers;

/// What EventBridge sends to start a run.
pub const SCHEDULED_EVENT: &[u8] = br#"{"version":"0","id":"1","detail-type":"Scheduled Event","source":"aws.events","account":"0","time":"2026-01-01T00:00:00Z","region":"us-east-1","resources":[],"detail":{}}"#;

/// The stack's parts, or `None` where they are not built; with `FRESHET_REQUIRE_ALL` that is a failure.
pub fn binaries() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let from = |name: &str, default: &str| std::env::var_os(name).map_or_else(|| root.join(default), PathBuf::from);
    let binaries = from("FRESHET_BINARIES", "target/debug");
    let broker = from("FRESHET_BROKER", "localstack/broker/target/debug/freshet-broker");
    let needed = [binaries.join("producer"), binaries.join("consumer"), broker.clone()];
    if let Some(missing) = needed.iter().find(|path| !path.is_file()) {
        return skip(&format!("{} is not built: run `make test`", missing.display()));
    }
    Some((binaries, broker))
}

/// A test that cannot run says so loudly; where nothing may be skipped it fails.
pub fn skip<T>(reason: &str) -> Option<T> {
    assert!(std::env::var_os("FRESHET_REQUIRE_ALL").is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
    None
}

/// Names and values of a record's headers.
pub type Headed = Vec<(String, Option<Vec<u8>>)>;

/// A record of the topic, as somebody else's consumer reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnTopic {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headed,
}

/// A stack in a folder of its own, which lives as long as the stack.
pub struct TestStack {
    pub stack: Stack,
    pub folder: tempfile::TempDir,
}

pub async fn start(
    brokers: &Brokers,
    dataset: &str,
    source: Source,
    change: impl FnOnce(&mut StackConfig),
) -> Option<TestStack> {
    let (binaries, broker) = binaries()?;
    let folder = tempfile::tempdir().unwrap();
    let mut config = StackConfig::new(folder.path(), binaries, broker);
    config.dataset = dataset.to_owned();
    config.source = source;
    config.batching_window = Duration::from_millis(200);
    config.producer =
        [("RUN_SECONDS", "1.5"), ("FETCH_EVERY_SECONDS", "0.2")].map(|(k, v)| (k.into(), v.into())).to_vec();
    config.kafka = brokers.bootstrap_servers();
    change(&mut config);
    config.producer.push(("TOPIC_REPLICATION_FACTOR".into(), brokers.replication_factor().to_string()));
    let stack = Stack::start(config).await.unwrap();
    Some(TestStack { stack, folder })
}

impl TestStack {
    /// One run of the producer; its summary.
    pub async fn run_producer(&self) -> serde_json::Value {
        let answer = self.stack.producer.invoke(SCHEDULED_EVENT.into()).await.unwrap_or_else(|e| {
            panic!("{e}\n{}", std::fs::read_to_string(self.folder.path().join("producer.log")).unwrap_or_default())
        });
        serde_json::from_slice(&answer).unwrap()
    }

    pub async fn drained(&self) {
        let drained = tokio::time::timeout(Duration::from_secs(120), self.stack.event_source.drained()).await;
        if drained.is_err() {
            let log = std::fs::read_to_string(self.folder.path().join("consumer.log")).unwrap_or_default();
            panic!("not drained: {:?}\n{log}", self.stack.event_source.stats());
        }
    }

    pub async fn lake(&self) -> freshet::Lake {
        freshet::demo::open(&self.stack).await
    }

    /// What SQL answers, as JSON rows.
    pub async fn sql(&self, sql: &str) -> Vec<serde_json::Value> {
        freshet::query::query_json(&self.lake().await, sql).await.unwrap()
    }

    /// Checks the lake to the last row, against the topic too, and returns the number of rows.
    pub async fn verify(&self) -> u64 {
        let lake = self.lake().await;
        let kafka = freshet::kafka::connect(&self.stack.bootstrap_servers(), &lake.sdk).await.unwrap();
        let options = freshet::verify::VerifyOptions { deep: true, kafka: Some(kafka), ..Default::default() };
        let report = freshet::verify::verify(&lake, &options).await.unwrap();
        assert!(report.findings.is_empty(), "{}", report.to_text());
        assert!(report.partitions.iter().all(|p| p.lag == Some(0)), "{}", report.to_text());
        report.partitions.iter().map(|p| p.rows).sum()
    }

    /// The metric's sum over the consumer's log.
    pub fn consumer_metric(&self, name: &str) -> u64 {
        let log = std::fs::read_to_string(self.folder.path().join("consumer.log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| line.get(name)?.as_u64()).sum()
    }
}

impl TestStack {
    /// Everything on the topic, by partition and offset.
    pub async fn topic(&self) -> Vec<OnTopic> {
        let (brokers, topic) = (self.stack.bootstrap_servers(), self.stack.dataset.topic.name.clone());
        let lag = self.stack.event_source.lag().await.unwrap();
        let read = move || {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", brokers).set("group.id", "reader");
            let consumer: BaseConsumer = config.create().unwrap();
            let mut list = TopicPartitionList::new();
            for partition in lag.keys() {
                list.add_partition_offset(&topic, *partition, Offset::Beginning).unwrap();
            }
            consumer.assign(&list).unwrap();
            let expected: i64 = lag.values().map(|lag| lag.high).sum();
            let mut found = Vec::new();
            while (found.len() as i64) < expected {
                let message = consumer.poll(Duration::from_secs(30)).expect("a record within 30 s").unwrap();
                let headers = message.headers().map_or_else(Vec::new, |headers| {
                    headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
                });
                found.push(OnTopic {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers,
                });
            }
            found.sort_by_key(|record| (record.partition, record.offset));
            found
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Puts values on the topic's only partition, in order, as somebody else's producer would.
    pub async fn publish(&self, values: &[Option<&[u8]>]) {
        use rdkafka::producer::{FutureProducer, FutureRecord};
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.stack.bootstrap_servers());
        let producer: FutureProducer = config.create().unwrap();
        for value in values {
            let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.stack.dataset.topic.name);
            let record = match value {
                Some(value) => record.payload(*value),
                None => record.key(b"tombstone".as_slice()),
            };
            producer.send(record, Duration::from_secs(10)).await.unwrap();
        }
    }
}
