//! What the mock cluster cannot show. Skipped where the embedded broker is not built: `make test` builds it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use localstack::{
    broker::Broker,
    event_source::{EventSource, EventSourceConfig, Invoker, StartingPosition},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

pub async fn broker() -> Option<Broker> {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("broker/target/debug/freshet-broker");
    if !binary.is_file() {
        assert!(std::env::var_os("FRESHET_REQUIRE_ALL").is_none(), "the broker is not built: run `make broker`");
        eprintln!("SKIPPED: {} is not built: run `make broker`", binary.display());
        return None;
    }
    Some(Broker::start(&binary).await.unwrap())
}

pub async fn create_topic(broker: &Broker, topic: &str, partitions: i32) {
    let mut client = ClientConfig::new();
    let client = client.set("bootstrap.servers", broker.bootstrap_servers());
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let topic =
        NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

pub fn producer(broker: &Broker) -> ThreadedProducer<DefaultProducerContext> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", broker.bootstrap_servers()).set("linger.ms", "5").create().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_at_a_time_begins_there_and_one_without_topic_waits_for_it() {
    let Some(broker) = broker().await else { return };
    let events = Arc::new(Mutex::new(Vec::new()));
    let invoker: Invoker = {
        let events = events.clone();
        Arc::new(move |event| {
            events.lock().unwrap().push(String::from_utf8(event.to_vec()).unwrap());
            Box::pin(async { Ok(Bytes::new()) })
        })
    };
    let config = |group: &str| EventSourceConfig::new("times", broker.bootstrap_servers(), group);
    let waiting = EventSource::start(config("waiting"), invoker.clone()).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    create_topic(&broker, "times", 2).await;
    let producer = producer(&broker);
    let send = |value: &str| {
        producer.send(BaseRecord::<(), _>::to("times").partition(0).payload(value)).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    };
    send("before");
    tokio::time::timeout(Duration::from_secs(20), waiting.drained()).await.unwrap();
    waiting.stop().await;
    assert!(events.lock().unwrap().concat().contains(r#""timestampType":"LOG_APPEND_TIME","value":"YmVmb3Jl""#));
    events.lock().unwrap().clear();

    tokio::time::sleep(Duration::from_millis(50)).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    send("after");
    let starting_position = StartingPosition::AtTimestamp(i64::try_from(now).unwrap());
    let source = EventSource::start(EventSourceConfig { starting_position, ..config("timed") }, invoker).unwrap();
    tokio::time::timeout(Duration::from_secs(20), source.drained()).await.unwrap();
    source.stop().await;
    let events = events.lock().unwrap().concat();
    assert!(events.contains("YWZ0ZXI=") && !events.contains("YmVmb3Jl"), "{events}");
    broker.stop().await.unwrap();
}
