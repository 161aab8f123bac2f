use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use localstack::{
    event_source::{Condition, EventSource, EventSourceConfig, GivenUp, Invoker, OnFailure, StartingPosition, invoker},
    runtime::{Function, InvokeError, MAX_PAYLOAD},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::Value;

const TOPIC: &str = "names";
const SOON: Duration = Duration::from_secs(120);

struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Kafka {
    fn start(partitions: i32) -> Kafka {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("message.max.bytes", "10000000")
            .set("linger.ms", "5")
            .create()
            .unwrap();
        Kafka { cluster, producer }
    }

    fn config(&self) -> EventSourceConfig {
        // The mock cluster rebalances a session time-out after a member has left. Shorter, it ends members that a busy machine halts.
        let properties = [("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "300")];
        EventSourceConfig {
            kafka_properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            maximum_batching_window: Duration::from_millis(100),
            retry_backoff_cap: Duration::from_millis(100),
            ..EventSourceConfig::new(TOPIC, self.cluster.bootstrap_servers(), "group")
        }
    }

    /// Where so many records come, they make one batch, however slowly they do.
    fn config_for_batches_of(&self, records: usize) -> EventSourceConfig {
        EventSourceConfig { batch_size: records, maximum_batching_window: Duration::from_secs(60), ..self.config() }
    }

    fn produce(&self, partition: i32, values: impl IntoIterator<Item = String>) {
        for value in values {
            self.producer.send(BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&value)).unwrap();
        }
        self.producer.flush(SOON).unwrap();
    }

    fn produce_numbers(&self, partitions: i32, numbers: std::ops::Range<usize>) {
        for partition in 0..partitions {
            self.produce(partition, numbers.clone().map(|number| number.to_string()));
        }
    }
}

/// Partition, offset and value of each record.
type Records = Vec<(i64, i64, String)>;

fn records(event: &[u8]) -> Records {
    let event: Value = serde_json::from_slice(event).unwrap();
    let mut records = Records::new();
    for (name, list) in event["records"].as_object().unwrap() {
        for record in list.as_array().unwrap() {
            assert_eq!(*name, format!("{TOPIC}-{}", record["partition"]));
            assert!(record["headers"].is_array());
            let value = base64_simd::STANDARD.decode_to_vec(record["value"].as_str().unwrap_or_default()).unwrap();
            let value = String::from_utf8(value).unwrap();
            records.push((record["partition"].as_i64().unwrap(), record["offset"].as_i64().unwrap(), value));
        }
    }
    records
}

fn failure() -> InvokeError {
    InvokeError::FunctionError { error_type: "Test".to_owned(), message: "as the test wants it".to_owned() }
}

/// A function that notes every attempt, and answers what `answer` says.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Records>>>);

impl Seen {
    fn invoker(&self, answer: impl Fn(&Records) -> Result<Bytes, InvokeError> + Send + Sync + 'static) -> Invoker {
        let seen = self.clone();
        Arc::new(move |event| {
            let records = records(&event);
            let answer = answer(&records);
            seen.0.lock().unwrap().push(records);
            Box::pin(async move { answer })
        })
    }

    fn attempts(&self) -> Vec<Records> {
        self.0.lock().unwrap().clone()
    }

    fn offsets(&self) -> Vec<Vec<i64>> {
        self.attempts().iter().map(|records| records.iter().map(|(_, offset, _)| *offset).collect()).collect()
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it takes too long")
}

async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn committed(source: &EventSource) -> BTreeMap<i32, Option<i64>> {
    let lag = soon(source.lag()).await.unwrap();
    lag.into_iter().map(|(partition, lag)| (partition, lag.committed)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_committed_after_the_function_succeeded_and_not_before() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..5);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let invoker: Invoker = {
        let gate = gate.clone();
        Arc::new(move |_| {
            let gate = gate.clone();
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                Ok(Bytes::new())
            })
        })
    };
    let source = EventSource::start(kafka.config_for_batches_of(5), invoker).unwrap();
    until(|| source.stats().in_flight == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(committed(&source).await, BTreeMap::from([(0, None)]));
    gate.add_permits(1);
    soon(source.drained()).await;
    assert_eq!(committed(&source).await, BTreeMap::from([(0, Some(5))]));
    until(|| source.stats().records == 5).await;
    let stats = source.stats();
    assert_eq!((stats.invocations, stats.failures, stats.in_flight), (1, 0, 0));
    assert_eq!(stats.committed, BTreeMap::from([(0, 5)]));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_batch_is_tried_again_whole_and_nothing_of_it_is_committed() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..4);
    let seen = Seen::default();
    let sick = Arc::new(AtomicBool::new(true));
    let answer = {
        let sick = sick.clone();
        move |_: &Records| if sick.load(Ordering::Relaxed) { Err(failure()) } else { Ok(Bytes::new()) }
    };
    let source = EventSource::start(kafka.config_for_batches_of(4), seen.invoker(answer)).unwrap();
    until(|| source.stats().invocations >= 4).await;
    assert_eq!(committed(&source).await, BTreeMap::from([(0, None)]));
    assert!(source.stats().last_error.unwrap().contains("as the test wants it"));
    sick.store(false, Ordering::Relaxed);
    soon(source.drained()).await;
    let offsets = seen.offsets();
    assert!(offsets.iter().all(|offsets| *offsets == [0, 1, 2, 3]), "{offsets:?}");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_partition_is_delivered_in_order_whatever_fails_meanwhile() {
    let kafka = Kafka::start(4);
    let seen = Seen::default();
    let taken = Arc::new(Mutex::new(BTreeMap::<i64, Vec<i64>>::new()));
    let turn = AtomicUsize::new(0);
    let answer = {
        let taken = taken.clone();
        move |records: &Records| {
            if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                return Err(failure());
            }
            let mut taken = taken.lock().unwrap();
            for (partition, offset, _) in records {
                taken.entry(*partition).or_default().push(*offset);
            }
            Ok(Bytes::new())
        }
    };
    let config = EventSourceConfig { pollers: 3, batch_size: 37, resize_retries: true, ..kafka.config() };
    let source = EventSource::start(config, seen.invoker(answer)).unwrap();
    // Once all three are members there is no rebalance any more, and so no redelivery.
    until(|| {
        let assigned = source.stats().assigned;
        assigned.len() == 3 && assigned.values().map(Vec::len).sum::<usize>() == 4
    })
    .await;
    kafka.produce_numbers(4, 0..500);
    soon(source.drained()).await;
    for (partition, offsets) in taken.lock().unwrap().iter() {
        assert!(offsets.iter().copied().eq(0..500), "partition {partition}: {offsets:?}");
    }
    assert_eq!(taken.lock().unwrap().len(), 4);
    assert!(seen.offsets().iter().all(|batch| batch.len() <= 37));
    assert!(source.stats().retries > 0);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_larger_than_lambda_allows_and_a_record_too_large_for_any_is_reported_and_passed() {
    // The mock cluster keeps 5 MB a partition.
    let kafka = Kafka::start(3);
    for partition in 0..2 {
        kafka.produce(partition, (0..4).map(|number| number.to_string().repeat(900_000)));
    }
    kafka.produce(2, ["x".repeat(4_800_000), "small".to_owned()]);
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let invoker: Invoker = {
        let sizes = sizes.clone();
        Arc::new(move |event| {
            sizes.lock().unwrap().push((event.len(), records(&event).len()));
            Box::pin(async { Ok(Bytes::new()) })
        })
    };
    let letters = Arc::new(Mutex::new(Vec::<GivenUp>::new()));
    let config = EventSourceConfig {
        kafka_properties: vec![("message.max.bytes".to_owned(), "10000000".to_owned())],
        maximum_batching_window: Duration::from_secs(10),
        on_failure: Some(OnFailure::Call({
            let letters = letters.clone();
            Arc::new(move |letter| {
                letters.lock().unwrap().push(letter.clone());
                Ok(())
            })
        })),
        ..kafka.config()
    };
    let source = EventSource::start(config, invoker).unwrap();
    soon(source.drained()).await;
    let sizes = sizes.lock().unwrap().clone();
    assert!(sizes.iter().all(|(bytes, _)| *bytes <= MAX_PAYLOAD), "{sizes:?}");
    assert_eq!(sizes.iter().map(|(_, records)| records).sum::<usize>(), 9);
    assert!(sizes.iter().any(|(bytes, _)| *bytes > MAX_PAYLOAD - 1_200_100), "{sizes:?}");
    let letters = letters.lock().unwrap().clone();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].condition, Condition::MaximumPayloadSizeExceeded);
    assert_eq!(letters[0].offsets, BTreeMap::from([(2, (0, 0))]));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_source_goes_on_behind_what_was_committed() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..10);
    let first = Seen::default();
    let source = EventSource::start(kafka.config(), first.invoker(|_| Ok(Bytes::new()))).unwrap();
    soon(source.drained()).await;
    source.stop().await;
    kafka.produce_numbers(1, 10..15);
    let second = Seen::default();
    let source = EventSource::start(kafka.config(), second.invoker(|_| Ok(Bytes::new()))).unwrap();
    soon(source.drained()).await;
    source.stop().await;
    assert_eq!(first.offsets().concat(), (0..10).collect::<Vec<_>>());
    assert_eq!(second.offsets().concat(), (10..15).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_source_lets_its_invocation_end_and_commits_it() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..3);
    let invoker: Invoker = Arc::new(|_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(Bytes::new())
        })
    });
    let source = EventSource::start(kafka.config_for_batches_of(3), invoker.clone()).unwrap();
    until(|| source.stats().in_flight == 1).await;
    source.stop().await;
    let again = EventSource::start(kafka.config(), invoker).unwrap();
    assert_eq!(committed(&again).await, BTreeMap::from([(0, Some(3))]));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_whose_invocations_fail_holds_up_no_other() {
    let kafka = Kafka::start(2);
    let seen = Seen::default();
    let answer = |records: &Records| {
        if records.iter().any(|(partition, ..)| *partition == 0) { Err(failure()) } else { Ok(Bytes::new()) }
    };
    let source = EventSource::start(EventSourceConfig { pollers: 2, ..kafka.config() }, seen.invoker(answer)).unwrap();
    until(|| source.stats().assigned.values().filter(|partitions| partitions.len() == 1).count() == 2).await;
    kafka.produce_numbers(2, 0..20);
    until(|| source.stats().committed.get(&1) == Some(&20) && source.stats().failures > 3).await;
    kafka.produce_numbers(2, 20..40);
    until(|| source.stats().committed.get(&1) == Some(&40)).await;
    assert_eq!(committed(&source).await, BTreeMap::from([(0, None), (1, Some(40))]));
    source.stop().await;
}

/// The rebalance is served while the invocation runs: nobody waits for its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_partitions_are_taken_away_is_abandoned_and_the_next_owner_delivers_it() {
    let kafka = Kafka::start(2);
    kafka.produce_numbers(2, 0..5);
    let stuck: Invoker = Arc::new(|_| Box::pin(std::future::pending()));
    let config = EventSourceConfig { stop_grace: Duration::ZERO, ..kafka.config() };
    let first = EventSource::start(config.clone(), stuck).unwrap();
    until(|| first.stats().in_flight == 1).await;
    let seen = Seen::default();
    let second = EventSource::start(config, seen.invoker(|_| Ok(Bytes::new()))).unwrap();
    // Each owns one of the two partitions now. The first begins again with its own, and is stuck again. (More than one rebalance may lead there.)
    let shared = || {
        let (first, second) = (first.stats(), second.stats());
        second.records == 5 && first.abandoned >= 1 && first.invocations == first.abandoned + 1 && first.in_flight == 1
    };
    until(shared).await;
    assert_eq!(seen.offsets().concat(), [0, 1, 2, 3, 4]);
    assert_eq!(first.stats().in_flight, 1);
    assert_eq!(first.stats().committed, BTreeMap::new());
    // When it is gone, the second one delivers that partition too.
    first.stop().await;
    soon(second.drained()).await;
    assert_eq!(committed(&second).await, BTreeMap::from([(0, Some(5)), (1, Some(5))]));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bisecting_isolates_one_poison_record() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..16);
    let seen = Seen::default();
    let answer = |records: &Records| {
        if records.iter().any(|(.., value)| value == "11") { Err(failure()) } else { Ok(Bytes::new()) }
    };
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters");
    let config = EventSourceConfig {
        provisioned: true,
        bisect_batch_on_function_error: true,
        maximum_retry_attempts: Some(1),
        on_failure: Some(OnFailure::File(letters.clone())),
        maximum_batching_window: Duration::from_secs(1),
        ..kafka.config()
    };
    let source = EventSource::start(config, seen.invoker(answer)).unwrap();
    soon(source.drained()).await;
    let letters: Vec<Value> =
        std::fs::read_to_string(letters).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["requestContext"]["condition"], "RetryAttemptsExhausted");
    let info = &letters[0]["KafkaBatchInfo"]["recordsInfo"]["names-0"];
    assert_eq!((&info["firstRecordOffset"], &info["lastRecordOffset"]), (&"11".into(), &"11".into()));
    assert_eq!(records(letters[0]["payload"].as_str().unwrap().as_bytes()), [(0, 11, "11".to_owned())]);
    let taken: Vec<i64> = seen.offsets().into_iter().filter(|offsets| !offsets.contains(&11)).flatten().collect();
    assert!(taken.iter().copied().eq((0..16).filter(|offset| *offset != 11)), "{taken:?}");
    until(|| source.stats().records == 15).await;
    assert_eq!(source.stats().given_up, 1);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_end_where_they_are_told_to_and_the_records_go_where_they_are_told_to() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..3);
    let seen = Seen::default();
    let answer = |records: &Records| if records[0].1 == 0 { Err(failure()) } else { Ok(Bytes::new()) };
    let refusals = Arc::new(AtomicUsize::new(0));
    let config = EventSourceConfig {
        provisioned: true,
        maximum_retry_attempts: Some(2),
        on_failure: Some(OnFailure::Call({
            let refusals = refusals.clone();
            // Refuses once: the records must not be lost by that.
            Arc::new(move |letter| {
                assert_eq!((letter.records, letter.invocations), (3, 3));
                if refusals.fetch_add(1, Ordering::Relaxed) == 0 { Err("full".to_owned()) } else { Ok(()) }
            })
        })),
        ..kafka.config_for_batches_of(3)
    };
    let source = EventSource::start(config, seen.invoker(answer)).unwrap();
    soon(source.drained()).await;
    kafka.produce_numbers(1, 3..6);
    soon(source.drained()).await;
    assert_eq!(seen.offsets()[..3], [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]]);
    assert_eq!(seen.offsets()[3..].concat(), [3, 4, 5]);
    assert_eq!(refusals.load(Ordering::Relaxed), 2);
    assert_eq!(source.stats().given_up, 3);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reported_items_are_retried_and_what_lies_before_them_is_committed() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..6);
    let seen = Seen::default();
    let answer = |records: &Records| {
        let failed = r#"{"batchItemFailures":[{"itemIdentifier":{"partition":"names-0","offset":4}}]}"#;
        Ok(Bytes::from(if records[0].1 == 0 { failed } else { "{}" }))
    };
    let config =
        EventSourceConfig { provisioned: true, report_batch_item_failures: true, ..kafka.config_for_batches_of(6) };
    let source = EventSource::start(config, seen.invoker(answer)).unwrap();
    soon(source.drained()).await;
    assert_eq!(seen.offsets(), [vec![0, 1, 2, 3, 4, 5], vec![4, 5]]);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_at_the_latest_delivers_only_what_comes_later() {
    let kafka = Kafka::start(1);
    kafka.produce_numbers(1, 0..5);
    let seen = Seen::default();
    let config = EventSourceConfig { starting_position: StartingPosition::Latest, ..kafka.config() };
    let source = EventSource::start(config, seen.invoker(|_| Ok(Bytes::new()))).unwrap();
    soon(source.drained()).await;
    assert_eq!(committed(&source).await, BTreeMap::from([(0, Some(5))]));
    kafka.produce_numbers(1, 5..7);
    soon(source.drained()).await;
    assert_eq!(seen.offsets().concat(), [5, 6]);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_headers_and_tombstones_arrive_as_they_were_sent() {
    let kafka = Kafka::start(1);
    let headers = OwnedHeaders::new().insert(Header { key: "origin", value: Some(&[0xffu8, 1][..]) });
    let record = BaseRecord::<[u8], [u8]>::to(TOPIC).partition(0).key(b"key").headers(headers);
    kafka.producer.send(record).unwrap();
    kafka.producer.flush(SOON).unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let invoker: Invoker = {
        let events = events.clone();
        Arc::new(move |event| {
            events.lock().unwrap().push(event);
            Box::pin(async { Ok(Bytes::new()) })
        })
    };
    let source = EventSource::start(kafka.config(), invoker).unwrap();
    soon(source.drained()).await;
    let event: Value = serde_json::from_slice(&events.lock().unwrap()[0]).unwrap();
    assert_eq!(event["bootstrapServers"], kafka.cluster.bootstrap_servers());
    let record = &event["records"]["names-0"][0];
    assert_eq!(record["key"], "a2V5");
    assert_eq!(record["value"], Value::Null);
    assert_eq!(record["headers"], serde_json::json!([{ "origin": [-1, 1] }]));
    assert!(record["timestamp"].as_i64().unwrap() > 1_500_000_000_000);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_for_a_while_loses_nothing() {
    let kafka = Kafka::start(2);
    kafka.produce_numbers(2, 0..50);
    let seen = Seen::default();
    let config = EventSourceConfig { batch_size: 10, ..kafka.config() };
    let source = EventSource::start(config, seen.invoker(|_| Ok(Bytes::new()))).unwrap();
    until(|| source.stats().records >= 20).await;
    kafka.cluster.broker_down(1).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    kafka.cluster.broker_up(1).unwrap();
    soon(source.drained()).await;
    let taken: BTreeSet<_> =
        seen.attempts().concat().into_iter().map(|(partition, offset, _)| (partition, offset)).collect();
    assert_eq!(taken.len(), 100);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_killed_at_random_cost_retries_and_no_record() {
    let kafka = Kafka::start(2);
    kafka.produce_numbers(2, 0..400);
    let function = Function::start(crate::runtime::config()).unwrap();
    let config = EventSourceConfig { batch_size: 10, pollers: 2, ..kafka.config() };
    let source = EventSource::start(config, invoker(&function)).unwrap();
    let mut kills = 0;
    soon(async {
        let drained = source.drained();
        tokio::pin!(drained);
        while tokio::time::timeout(Duration::from_millis(30), &mut drained).await.is_err() {
            kills += usize::from(function.kill_one().await.is_some());
        }
    })
    .await;
    assert!(kills >= 3, "{kills}");
    until(|| source.stats().records >= 800).await;
    source.stop().await;
    let stats = function.stats();
    assert!(stats.cold_starts >= 3, "{stats:?}");
    function.stop().await;
    assert_eq!(function.stats().processes, 0);
}
