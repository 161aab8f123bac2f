//! What the mock cluster cannot show, and how fast the event source is by itself: run with `--ignored --nocapture`,
//! after the embedded broker was built.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
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
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

const RECORDS: usize = 200_000;

async fn broker() -> Broker {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("broker/target/debug/freshet-broker");
    Broker::start(&binary).await.unwrap()
}

async fn create_topic(broker: &Broker, topic: &str, partitions: i32) {
    let mut client = ClientConfig::new();
    let client = client.set("bootstrap.servers", broker.bootstrap_servers());
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let topic =
        NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

fn producer(broker: &Broker) -> ThreadedProducer<DefaultProducerContext> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", broker.bootstrap_servers()).set("linger.ms", "5").create().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the embedded broker's binary"]
async fn a_source_that_starts_at_a_time_begins_there_and_one_without_topic_waits_for_it() {
    let broker = broker().await;
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; needs the embedded broker's binary"]
async fn two_hundred_thousand_records_flow_at_twenty_thousand_a_second() {
    let broker = broker().await;
    create_topic(&broker, "speed", 4).await;
    let value = "x".repeat(300);
    let (producer, start) = (producer(&broker), Instant::now());
    for number in 0..RECORDS {
        let partition = i32::try_from(number % 4).unwrap();
        loop {
            match producer.send(BaseRecord::<(), _>::to("speed").partition(partition).payload(&value)) {
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                sent => break sent.unwrap(),
            }
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    println!("produced: {:.0} records/s", RECORDS as f64 / start.elapsed().as_secs_f64());
    for (pollers, milliseconds) in [(1, 0), (2, 0), (2, 100)] {
        let invoker: Invoker = Arc::new(move |_| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                Ok(Bytes::new())
            })
        });
        let group = format!("group-{pollers}-{milliseconds}");
        let config = EventSourceConfig {
            batch_size: 10_000,
            pollers,
            ..EventSourceConfig::new("speed", broker.bootstrap_servers(), group)
        };
        let start = Instant::now();
        let source = EventSource::start(config, invoker).unwrap();
        source.drained().await;
        let elapsed = start.elapsed();
        let stats = source.stats();
        println!(
            "{pollers} pollers, a function of {milliseconds} ms: {:.0} records/s, {} invocations of {} kB, {elapsed:.1?}",
            RECORDS as f64 / elapsed.as_secs_f64(),
            stats.invocations,
            stats.payload_bytes / stats.invocations / 1_000,
        );
        source.stop().await;
    }
    broker.stop().await.unwrap();
}
