//! The producer's binary and the consumer's while the brokers of a real cluster die. What else happens to brokers and topics: `prove`.

use std::time::Duration;

use localstack::api::ApiOptions;
use localstack::stack::Source;

use crate::support::kafka::Brokers;
use crate::support::stack::start;

#[tokio::test(flavor = "multi_thread")]
async fn brokers_may_die_while_records_go_in_and_out_and_each_is_stored_once() {
    let Some(mut brokers) = Brokers::apache().await else { return };
    let people = Source::People { options: ApiOptions { distinct: true, ..ApiOptions::default() }, results: 10 };
    let long = |config: &mut localstack::stack::StackConfig| {
        config.batch_size = 50;
        // A broker that was killed may be away for as long as a slow machine takes to start it again.
        let patient = ("KAFKA_DELIVERY_TIMEOUT_SECONDS", "120");
        config.producer = [("RUN_SECONDS", "20"), ("FETCH_EVERY_SECONDS", "0.1"), patient]
            .map(|(k, v)| (k.into(), v.into()))
            .to_vec();
    };
    let Some(stack) = start(&brokers, "names", people, long).await else { return };
    let Brokers::Apache(cluster) = &mut brokers else { unreachable!() };
    // Each in turn: leaders and the group's coordinator move.
    let faults = async {
        for broker in 0..cluster.brokers() {
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
    // How many is the machine's: the producer waits for brokers that are not there.
    assert!(published > 0, "{summary}");
    assert_eq!(summary["fetched"].as_u64().unwrap(), published);
    let people = stack.sql("SELECT count(DISTINCT email) AS n FROM names").await;
    assert_eq!(people[0]["n"].as_u64().unwrap(), published, "each of them another person");
    assert_eq!(stack.verify().await, published);
    stack.stack.stop().await.unwrap();
}
