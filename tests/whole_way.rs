//! The real function binaries over the Lambda Runtime API, the Kafka protocol and S3's REST, read back by SQL and verify.

use std::time::Duration;

use localstack::api::ApiOptions;
use localstack::stack::Source;
use serde_json::{Value, json};

use crate::support::kafka::{Brokers, on_each_broker};
use crate::support::people;
use crate::support::stack::start;

on_each_broker!(
    people_go_from_the_api_to_sql_in_parquet,
    people_go_from_the_api_to_sql_in_ndjson_with_either_codec,
    a_dataset_of_another_shape_goes_all_the_way_without_a_line_of_code,
    poison_on_the_topic_is_queried_as_dead_letters_and_empty_objects_read_back,
    glue_down_stores_nothing_and_up_again_stores_everything,
    consumers_that_are_killed_all_the_time_store_each_person_once,
);

fn of_people() -> Source {
    Source::People { options: ApiOptions { distinct: true, ..ApiOptions::default() }, results: 40 }
}

/// The dataset `names` as NDJSON, in a file beside the test's lake.
fn names_as(folder: &std::path::Path, format: &str, codec: &str) -> String {
    let text = include_str!("../datasets/names.yaml");
    let changed = text
        .replace("format: parquet", &format!("format: {format}"))
        .replace("codec: zstd", &format!("codec: {codec}"));
    assert_ne!(text, changed);
    let path = folder.join("names.yaml");
    std::fs::write(&path, changed).unwrap();
    path.display().to_string()
}

async fn check_people(stack: &crate::support::stack::TestStack, published: u64) {
    let rows = stack.sql("SELECT * FROM names ORDER BY email").await;
    people::check(&rows, published);
    people::check_mathis(&rows);
}

async fn people_go_from_the_api_to_sql_in_parquet(brokers: &Brokers) {
    let Some(stack) = start(brokers, "names", of_people(), |_| {}).await else { return };
    let summary = stack.run_producer().await;
    let published: u64 = summary["published"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    // Whole answers; how many is the machine's.
    assert!(published > 0 && published.is_multiple_of(40), "{summary}");
    assert_eq!((summary["fetched"].as_u64(), summary["rejected"].as_u64()), (Some(published), Some(0)));
    stack.drained().await;
    check_people(&stack, published).await;
    assert_eq!(stack.verify().await, published);
    assert_eq!(stack.consumer_metric("RowsStored"), published);
    assert_eq!(stack.consumer_metric("DatasetMismatch"), 0);
    stack.stack.stop().await.unwrap();
}

async fn people_go_from_the_api_to_sql_in_ndjson_with_either_codec(brokers: &Brokers) {
    for codec in ["gzip", "zstd", "none"] {
        let folder = tempfile::tempdir().unwrap();
        let dataset = names_as(folder.path(), "ndjson", codec);
        let Some(stack) = start(brokers, &dataset, of_people(), |_| {}).await else { return };
        let summary = stack.run_producer().await;
        let published: u64 = summary["published"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        stack.drained().await;
        check_people(&stack, published).await;
        assert_eq!(stack.verify().await, published);
        stack.stack.stop().await.unwrap();
        brokers.clear().await;
    }
}

async fn a_dataset_of_another_shape_goes_all_the_way_without_a_line_of_code(brokers: &Brokers) {
    let document = json!({"pages": [
        {"orders": [
            {"id": 1, "paid": true, "at": "2026-11-23T06:00:00.25+01:00", "note": "gift",
             "lines": [{"article": "tea", "quantity": 2, "price": 3.5}, {"article": "cup", "quantity": 1, "price": 8}]},
            {"id": 2, "paid": false, "at": "2026-11-23T05:00:01Z", "lines": []}]},
        {"orders": [
            {"id": 3, "at": "2026-11-23T05:00:02Z"},
            {"id": "four", "at": "2026-11-23T05:00:03Z", "note": "id is a string"},
            {"id": 5, "at": "tomorrow"}]}
    ]});
    let dataset = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/orders.yaml");
    let once = |config: &mut localstack::stack::StackConfig| {
        config.producer =
            [("RUN_SECONDS", "0.5"), ("FETCH_EVERY_SECONDS", "30")].map(|(k, v)| (k.into(), v.into())).to_vec();
    };
    let Some(stack) = start(brokers, dataset, Source::Document(document.to_string()), once).await else { return };
    let summary = stack.run_producer().await;
    assert_eq!((summary["fetched"].as_u64(), summary["rejected"].as_u64()), (Some(5), Some(2)), "{summary}");
    stack.drained().await;
    let columns = "order_id, paid, ordered_at, quantity, total, first_article, note";
    let rows = stack.sql(&format!("SELECT {columns} FROM orders ORDER BY order_id")).await;
    let row = |id: i64, paid: Value, at: &str, quantity: Value, total: Value, first: Value, note: Value| json!({"order_id": id, "paid": paid, "ordered_at": at, "quantity": quantity, "total": total, "first_article": first, "note": note});
    let null = Value::Null;
    let expected = [
        row(1, json!(true), "2026-11-23T05:00:00.250Z", json!(3), json!(11.5), json!("tea"), json!("gift")),
        row(2, json!(false), "2026-11-23T05:00:01Z", json!(0), json!(0.0), null.clone(), null.clone()),
        row(3, null.clone(), "2026-11-23T05:00:02Z", json!(0), json!(0.0), null.clone(), null.clone()),
    ];
    // An instant, however the engine writes its zone and fraction.
    let normal = |mut row: Value| {
        let micros = pipeline::record::timestamp_micros(row["ordered_at"].as_str().unwrap()).unwrap();
        row["ordered_at"] = json!(micros);
        row
    };
    assert_eq!(rows.into_iter().map(normal).collect::<Vec<_>>(), expected.map(normal));
    let letters = stack.sql("SELECT stage, error FROM orders_dead_letters ORDER BY error").await;
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters.iter().all(|l| l["stage"] == "transform"));
    assert_eq!(stack.verify().await, 3);
    stack.stack.stop().await.unwrap();
}

async fn poison_on_the_topic_is_queried_as_dead_letters_and_empty_objects_read_back(brokers: &Brokers) {
    let empty = Source::People { options: ApiOptions { remaining: Some(0), ..ApiOptions::default() }, results: 10 };
    let Some(stack) =
        start(brokers, "names", empty, |config| config.producer = vec![("TOPIC_PARTITIONS".into(), "1".into())]).await
    else {
        return;
    };
    stack.publish(&[None, Some(b"junk".as_slice()), Some(b"{}")]).await;
    stack.drained().await;
    assert_eq!(stack.sql("SELECT count(*) AS n FROM names").await, [json!({"n": 0})]);
    stack.publish(&[Some(br#"{"name":"A","email":"a@b","shoe":43}"#.as_slice())]).await;
    stack.drained().await;
    let rows = stack.sql("SELECT name, email, _offset, _extra FROM names").await;
    assert_eq!(rows, [json!({"name": "A", "email": "a@b", "_offset": 3, "_extra": "{\"shoe\":43}"})]);
    let letters = stack.sql("SELECT \"offset\", payload FROM names_dead_letters ORDER BY \"offset\"").await;
    let offsets: Vec<_> = letters.iter().map(|l| l["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [0, 1, 2]);
    assert_eq!(letters[1]["payload"], "anVuaw==");
    assert_eq!(stack.verify().await, 1);
    stack.stack.stop().await.unwrap();
}

async fn glue_down_stores_nothing_and_up_again_stores_everything(brokers: &Brokers) {
    let Some(stack) = start(brokers, "names", of_people(), |_| {}).await else { return };
    stack.stack.glue.set_down(true);
    stack.run_producer().await;
    let failed = async {
        while stack.stack.event_source.stats().failures == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), failed).await.unwrap();
    assert_eq!(stack.sql("SELECT count(*) AS n FROM names").await, [json!({"n": 0})]);
    stack.stack.glue.set_down(false);
    stack.drained().await;
    stack.verify().await;
    stack.stack.stop().await.unwrap();
}

async fn consumers_that_are_killed_all_the_time_store_each_person_once(brokers: &Brokers) {
    let killed = |config: &mut localstack::stack::StackConfig| {
        config.resize_retries = true;
        config.batch_size = 50;
        config.producer =
            [("RUN_SECONDS", "6"), ("FETCH_EVERY_SECONDS", "0.1")].map(|(k, v)| (k.into(), v.into())).to_vec();
    };
    let Some(stack) = start(brokers, "names", of_people(), killed).await else { return };
    let killer = async {
        loop {
            tokio::time::sleep(Duration::from_millis(120)).await;
            stack.stack.consumer.kill_one().await;
        }
    };
    let summary = tokio::select! {
        summary = stack.run_producer() => summary,
        () = killer => unreachable!(),
    };
    stack.drained().await;
    assert!(stack.stack.consumer.stats().killed >= 5);
    let published: u64 = summary["published"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    check_people(&stack, published).await;
    assert_eq!(stack.verify().await, published);
    stack.stack.stop().await.unwrap();
}
