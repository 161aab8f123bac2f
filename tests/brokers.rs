//! What happens to brokers and topics, on Apache Kafka: three brokers, everything on all of them, `min.insync.replicas=2`.

use std::time::Duration;

use localstack::api::ApiOptions;
use localstack::stack::{Source, StackConfig};
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use crate::support::kafka::KafkaCluster;
use crate::support::stack::{TestStack, start};

const SOON: Duration = Duration::from_secs(30);

fn people() -> Source {
    Source::People { options: ApiOptions { distinct: true, ..ApiOptions::default() }, results: 10 }
}

/// The stack on these brokers.
async fn on(cluster: &KafkaCluster, source: Source, change: impl FnOnce(&mut StackConfig)) -> Option<TestStack> {
    let servers = cluster.bootstrap_servers();
    start("names", source, |config| {
        config.kafka = Some(servers);
        change(config);
        config.producer.push(("TOPIC_REPLICATION_FACTOR".into(), "3".into()));
    })
    .await
}

async fn count(stack: &TestStack) -> u64 {
    stack.sql("SELECT count(*) AS n FROM names").await[0]["n"].as_u64().unwrap()
}

/// Waits for so many rows, and sees that there come no more. The lag is no sign here: a marker at the end of a partition is never delivered.
async fn until_rows(stack: &TestStack, rows: u64) {
    let arrived = async {
        while count(stack).await < rows {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(90), arrived).await.is_err() {
        panic!("{} rows instead of {rows}: {:?}", count(stack).await, stack.stack.event_source.stats());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count(stack).await, rows);
}

/// Records as a producer of the topic writes them, from the number `from` on; in one transaction each ten, every third of which is aborted.
fn transactions(servers: &str, from: usize, records: usize) -> usize {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("transactional.id", format!("test-{from}"));
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(SOON).unwrap();
    let mut committed = 0;
    for (number, first) in (from..from + records).step_by(10).enumerate() {
        producer.begin_transaction().unwrap();
        for id in first..first + 10 {
            let value =
                json!({"name": format!("Person {id}"), "email": format!("person-{id}@example.com")}).to_string();
            producer.send(BaseRecord::<(), _>::to("names_topic").payload(&value)).unwrap();
        }
        producer.flush(SOON).unwrap();
        if number % 3 == 2 {
            producer.abort_transaction(SOON).unwrap();
        } else {
            producer.commit_transaction(SOON).unwrap();
            committed += 10;
        }
    }
    committed
}

/// One test, because three brokers take a quarter of a minute to start.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_may_die_and_topics_change_and_each_record_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cluster) = KafkaCluster::start(folder.path(), 3).await else { return };
    let long = |config: &mut StackConfig| {
        config.batch_size = 50;
        config.producer =
            [("RUN_SECONDS", "20"), ("FETCH_EVERY_SECONDS", "0.1")].map(|(k, v)| (k.into(), v.into())).to_vec();
    };
    let Some(stack) = on(&cluster, people(), long).await else { return };

    println!(
        "• each broker in turn is killed and comes back, while records go in and out: leaders and the group's coordinator move"
    );
    let faults = async {
        for broker in 0..3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.kill(broker);
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.restart(broker);
            cluster.until_complete().await;
        }
    };
    let (summary, ()) = tokio::join!(stack.run_producer(), faults);
    stack.drained().await;
    let published: u64 = summary["published"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert!(published > 100, "{summary}");
    assert_eq!((published, count(&stack).await), (summary["fetched"].as_u64().unwrap(), published));
    let people = stack.sql("SELECT count(DISTINCT email) AS n FROM names").await;
    assert_eq!(people[0]["n"].as_u64().unwrap(), published, "each of them another person");
    assert_eq!(stack.verify().await, published);

    println!("• transactions: markers and aborted records are gaps");
    let servers = cluster.bootstrap_servers();
    let committed = tokio::task::spawn_blocking(move || transactions(&servers, 0, 90)).await.unwrap() as u64;
    until_rows(&stack, published + committed).await;
    assert!(stack.consumer_metric("OffsetGaps") > 0);

    println!("• partitions are added: their records come, too");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    let more = NewPartitions::new("names_topic", 5);
    admin.create_partitions([&more], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    cluster.until_complete().await;
    let servers = cluster.bootstrap_servers();
    let added = tokio::task::spawn_blocking(move || transactions(&servers, 1000, 300)).await.unwrap() as u64;
    until_rows(&stack, published + committed + added).await;
    let partitions = stack.sql("SELECT count(DISTINCT _partition) AS n FROM names").await;
    assert_eq!(partitions[0]["n"], 5);

    println!("• records expire that were stored already: nothing changes");
    let mut expired = TopicPartitionList::new();
    for partition in 0..5 {
        expired.add_partition_offset("names_topic", partition, rdkafka::Offset::End).unwrap();
    }
    admin.delete_records(&expired, &AdminOptions::new()).await.unwrap();
    let servers = cluster.bootstrap_servers();
    let last = tokio::task::spawn_blocking(move || transactions(&servers, 2000, 30)).await.unwrap() as u64;
    until_rows(&stack, published + committed + added + last).await;
    let emails = stack.sql("SELECT count(DISTINCT email) AS n FROM names").await;
    assert_eq!(emails[0]["n"].as_u64().unwrap(), published + committed + added + last);
    stack.stack.stop().await.unwrap();
}
