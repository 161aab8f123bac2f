//! Whole runs: what was fetched is on the topic, in a dead letter, or counted as not fetched.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pipeline::record::HashKey;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, TopicPartitionList};
use serde_json::{Value, json};

use super::machine::{
    self, Api, HASH_KEY, Kafka, Log, Memory, POSTCODE, Reply, end, invocation, kafka, ok, people, person, producer,
    reply, scheduled,
};
use crate::handler::{Answer, Error, Producer};
use crate::summary::Summary;

/// A run of many ticks, which [`end`] ends.
const LOOP: [(&str, &str); 2] = [("RUN_SECONDS", "50"), ("FETCH_EVERY_SECONDS", "0.05")];
const LONG: Duration = Duration::from_secs(60);

async fn run(producer: &Producer<Memory>, left: Duration) -> Result<Summary, Error> {
    match producer.handle(scheduled(), &invocation(left)).await? {
        Answer::Run(summary) => Ok(summary),
        Answer::Topic { .. } => panic!("a scheduled event starts a run"),
    }
}

/// What lies on the topic, read until `expected` records have come.
fn on_the_topic(kafka: &Kafka, expected: usize) -> Vec<Value> {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer =
        config.set("bootstrap.servers", kafka.bootstrap_servers()).set("group.id", "test").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..3 {
        list.add_partition_offset("names_topic", partition, rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut records = Vec::new();
    let started = Instant::now();
    while records.len() < expected && started.elapsed() < Duration::from_secs(10) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            records.push(serde_json::from_slice(message.payload().unwrap()).unwrap());
        }
    }
    records
}

#[tokio::test]
async fn what_was_fetched_is_on_the_topic_when_the_run_answers() {
    let (api, kafka, store) = (Api::start([ok(&people(5)), ok(&people(3)), end()]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &LOOP);
    let summary = run(&producer, LONG).await.unwrap();
    assert_eq!((summary.fetches, summary.fetched, summary.rejected, summary.failed), (3, 8, 0, 0));
    assert_eq!(summary.published.values().sum::<u64>(), 8);
    let records = on_the_topic(&kafka, 8);
    let emails: BTreeSet<_> = records.iter().map(|r| r["email"].as_str().unwrap()).collect();
    assert_eq!((records.len(), emails.len()), (8, 5));
    assert_eq!(records[0]["zip"], HashKey::new(HASH_KEY).unwrap().hash(POSTCODE));
    assert!(store.letters().is_empty());
}

#[tokio::test]
async fn a_second_invocation_of_the_process_uses_the_same_client_and_publishes_more() {
    let (api, kafka, store) = (Api::start([ok(&people(2))]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &[]);
    for _ in 0..2 {
        assert_eq!(run(&producer, LONG).await.unwrap().published.values().sum::<u64>(), 2);
    }
    assert_eq!(on_the_topic(&kafka, 4).len(), 4);
}

#[tokio::test]
async fn five_thousand_records_of_one_answer_are_all_acknowledged() {
    let (api, kafka, store) = (Api::start([ok(&people(5000))]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &[]);
    let summary = run(&producer, LONG).await.unwrap();
    assert_eq!((summary.fetched, summary.published.values().sum::<u64>()), (5000, 5000));
}

#[tokio::test]
async fn a_hashed_columns_source_is_in_no_dead_letter_and_no_log() {
    let (log, _guard) = Log::start();
    let answer = json!({"results": [person(None), person(Some("a@example.com")), POSTCODE]});
    let (api, kafka, store) = (Api::start([ok(&answer)]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &[]);
    // The letters go to the log too, since the store takes none.
    *store.failures.lock().unwrap() = u32::MAX;
    let error = run(&producer, LONG).await.unwrap_err();
    assert!(matches!(error, Error::LettersUnstored(2)), "{error}");
    *store.failures.lock().unwrap() = 0;
    let summary = run(&producer, LONG).await.unwrap();
    assert_eq!((summary.fetched, summary.rejected), (3, 2));

    let letters = store.letters();
    assert_eq!(letters.len(), 2);
    let hash = HashKey::new(HASH_KEY).unwrap().hash(POSTCODE);
    assert!(Memory::payload(&letters[0]).contains(&hash), "{}", Memory::payload(&letters[0]));
    assert!(letters[0].error.contains("email is required and absent") && letters[0].stage == "transform");
    for letter in &letters {
        assert!(!format!("{letter:?}{}", Memory::payload(letter)).contains(POSTCODE));
    }
    let log = log.text();
    assert!(log.contains("this line is its only copy") && log.contains(&letters[0].error), "{log}");
    // What librdkafka and the HTTP client log at their finest level is in there as well.
    assert!(!log.contains(POSTCODE) && !log.contains(HASH_KEY), "{log}");
}

#[tokio::test]
async fn letters_that_find_no_place_at_their_tick_find_one_at_the_end() {
    let (api, kafka, store) = (Api::start([ok(&json!({"results": [person(None)]}))]).await, kafka(), Memory::default());
    *store.failures.lock().unwrap() = 1;
    let summary = run(&producer(&api, &kafka, &store, &[]), LONG).await.unwrap();
    assert_eq!((summary.rejected, summary.letters_unstored, store.letters().len()), (1, 0, 1));
}

#[tokio::test]
async fn letters_of_a_retried_invocation_have_ids_and_keys_of_their_own() {
    let answer = json!({"results": [person(None), person(None)]});
    let (api, kafka, store) =
        (Api::start([ok(&answer), ok(&answer), end(), ok(&answer), end()]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &LOOP);
    run(&producer, LONG).await.unwrap();
    run(&producer, LONG).await.unwrap();
    let letters = store.letters();
    let ids: BTreeSet<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!((letters.len(), ids.len()), (6, 6));
    for key in store.objects.lock().unwrap().keys() {
        assert!(key.starts_with("names_dead_letters/dt=") && key.ends_with(".json.gz"), "{key}");
    }
}

#[tokio::test]
async fn one_failed_fetch_costs_one_tick() {
    let replies = [ok(&people(1)), ok(&json!({"error": "Uh oh"})), ok(&people(1)), end()];
    let (api, kafka, store) = (Api::start(replies).await, kafka(), Memory::default());
    let summary = run(&producer(&api, &kafka, &store, &LOOP), LONG).await.unwrap();
    assert_eq!((summary.fetches, summary.fetch_failures, summary.fetched), (4, 2, 2));
}

#[tokio::test]
async fn a_run_in_which_nothing_was_fetched_is_an_error() {
    let (api, kafka, store) = (Api::start([reply("404 Not Found", "", ""), end()]).await, kafka(), Memory::default());
    let error = run(&producer(&api, &kafka, &store, &LOOP), LONG).await.unwrap_err();
    let expected = "nothing was fetched: all 2 fetches of the run failed, the last because the API asks for 3600 s";
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[tokio::test]
async fn zero_records_in_a_run_are_no_error() {
    let (api, kafka, store) = (Api::start([ok(&json!({"results": []}))]).await, kafka(), Memory::default());
    let summary = run(&producer(&api, &kafka, &store, &[]), LONG).await.unwrap();
    assert_eq!((summary.fetched, summary.fetch_failures), (0, 0));
}

#[tokio::test]
async fn an_api_that_asks_for_more_patience_than_there_is_ends_the_run() {
    let replies = [ok(&people(1)), end()];
    let (api, kafka, store) = (Api::start(replies).await, kafka(), Memory::default());
    let summary = run(&producer(&api, &kafka, &store, &LOOP), LONG).await.unwrap();
    assert_eq!((summary.fetches, summary.fetch_failures, summary.fetched), (2, 1, 1));
}

#[tokio::test]
async fn a_run_answers_before_its_deadline_whatever_its_schedule() {
    let (api, kafka, store) = (Api::start([ok(&people(1))]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &[("RUN_SECONDS", "600"), ("FETCH_EVERY_SECONDS", "0.1")]);
    let started = Instant::now();
    let summary = run(&producer, Duration::from_secs(10)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(summary.fetches > 1 && summary.published.values().sum::<u64>() == summary.fetched);
}

#[tokio::test]
async fn a_deadline_in_the_past_counts_as_unknown() {
    let (api, kafka, store) = (Api::start([ok(&people(1))]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &[]);
    let past = crate::handler::Invocation { request_id: "r".to_owned(), deadline_ms: 1_234 };
    let answer = producer.handle(scheduled(), &past).await.unwrap();
    assert!(matches!(answer, Answer::Run(Summary { fetched: 1, .. })));
}

#[tokio::test]
async fn a_record_that_is_too_large_for_kafka_is_a_dead_letter_and_the_others_are_published() {
    let huge = format!("{}@example.com", "x".repeat(1_100_000));
    let answer =
        json!({"results": [person(Some("a@example.com")), person(Some(&huge)), person(Some("b@example.com"))]});
    let (api, kafka, store) = (Api::start([ok(&answer)]).await, kafka(), Memory::default());
    let summary = run(&producer(&api, &kafka, &store, &[]), LONG).await.unwrap();
    assert_eq!((summary.published.values().sum::<u64>(), summary.failed), (2, 1));
    let letters = store.letters();
    assert_eq!((letters.len(), letters[0].stage.as_str()), (1, "deliver"));
    assert!(letters[0].error.contains("Kafka refuses it"), "{}", letters[0].error);
    let record: Value = serde_json::from_str(&Memory::payload(&letters[0])).unwrap();
    assert_eq!(record["email"], huge);
    assert_ne!(record["zip"], POSTCODE);
}

#[tokio::test]
async fn with_kafka_down_each_record_becomes_a_dead_letter_and_the_client_recovers() {
    let (api, kafka, store) = (Api::start([ok(&people(4))]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &[("KAFKA_DELIVERY_TIMEOUT_SECONDS", "5")]);
    assert_eq!(run(&producer, LONG).await.unwrap().published.values().sum::<u64>(), 4);

    kafka.broker_down(1).unwrap();
    let summary = run(&producer, LONG).await.unwrap();
    assert_eq!((summary.fetched, summary.failed, summary.published.len()), (4, 4, 0));
    assert!(store.letters().iter().all(|letter| letter.stage == "deliver" && letter.payload.is_some()));
    assert_eq!(store.letters().len(), 4);

    kafka.broker_up(1).unwrap();
    let started = Instant::now();
    loop {
        let summary = run(&producer, LONG).await.unwrap();
        if summary.published.values().sum::<u64>() == 4 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{summary:?}");
    }
}

#[tokio::test]
async fn what_kafka_has_not_acknowledged_at_the_deadline_is_taken_back_and_a_dead_letter() {
    let (api, kafka, store) = (Api::start([ok(&people(4))]).await, kafka(), Memory::default());
    kafka.broker_down(1).unwrap();
    let producer = producer(&api, &kafka, &store, &[]);
    let started = Instant::now();
    let summary = run(&producer, Duration::from_secs(10)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!((summary.fetched, summary.failed, store.letters().len()), (4, 4, 4));
    assert!(store.letters()[0].error.contains("time was up"), "{}", store.letters()[0].error);

    // Nothing of it is delivered behind the answer.
    kafka.broker_up(1).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(run(&producer, LONG).await.unwrap().published.values().sum::<u64>(), 4);
    assert_eq!(on_the_topic(&kafka, 5).len(), 4);
}

#[tokio::test]
async fn with_kafka_unreachable_at_the_start_nothing_is_fetched() {
    let (api, store) = (Api::start([ok(&people(4))]).await, Memory::default());
    let config = machine::config(&api.url, "127.0.0.1:1", &[]);
    let producer = Producer::new(config, aws_config::SdkConfig::builder().build(), store).unwrap();
    let started = Instant::now();
    let error = run(&producer, Duration::from_secs(5)).await.unwrap_err();
    assert!(error.to_string().starts_with("Kafka cannot be reached"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(api.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_topic_that_is_there_is_accepted_also_by_a_broker_that_describes_nothing() {
    let (log, _guard) = Log::start();
    let (api, kafka, store) = (Api::start([ok(&people(4))]).await, kafka(), Memory::default());
    let config = machine::config(&api.url, &kafka.bootstrap_servers(), &[("TOPIC_PARTITIONS", "6")]);
    let producer = Producer::new(config, aws_config::SdkConfig::builder().build(), store).unwrap();
    let answer = producer.handle(json!({"ensure_topic": true}), &invocation(LONG)).await.unwrap();
    assert_eq!(serde_json::to_value(answer).unwrap(), json!({"topic": "names_topic", "found": "existing"}));
    assert!(log.text().contains("another number of partitions"), "{}", log.text());
    assert!(log.text().contains("settings could not be read"), "{}", log.text());
    assert!(api.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_event_of_another_kind_is_an_error_and_fetches_nothing() {
    let (api, kafka, store) = (Api::start([Reply::Hang(LONG)]).await, kafka(), Memory::default());
    let producer = producer(&api, &kafka, &store, &[]);
    let error = producer.handle(json!({"records": {}}), &invocation(LONG)).await.unwrap_err();
    assert!(error.to_string().contains("Invoke the producer with"), "{error}");
    assert!(api.requests.lock().unwrap().is_empty());
}
