//! What was found once, each a case of its own.

use consumer::decode::{Decoder, Row};
use consumer::handler::Attempt;
use freshet::verify::VerifyOptions;
use freshet::verify::check::check;
use freshet::verify::collect::collect;
use pipeline::dataset::Dataset;
use pipeline::lake::{Condition, Directory, Layout, Ledger, PutRequest};
use serde_json::json;

use super::{events, files, rows};
use crate::support::events::*;
use crate::support::memory_store::MemoryStore;

const LEDGER: &str = "_ledger/texts/texts/0.json";

fn orders() -> Dataset {
    rows::datasets().remove(1)
}

/// An event of MSK with one record for `orders`.
fn event_with(value: &str) -> Vec<u8> {
    event("shop.orders", 0, &[LogRecord { offset: 3, timestamp: HOUR, value: Some(value.into()) }])
}

#[tokio::test]
async fn a_time_before_the_year_one_is_stored_as_one_that_sql_reads() {
    for at in ["-009999-01-02T01:59:59Z", "-000500-01-01T00:00:00Z", "0000-06-01T00:00:00Z"] {
        let value = json!({"order_id": 1, "ordered_at": at}).to_string();
        events::check(&orders(), &event_with(&value), true).await;
    }
    let ancient = LogRecord { timestamp: i64::MIN, ..record(0, 0) };
    events::check(&dataset("ndjson", TEXT_COLUMN), &event("texts", 0, &[ancient]), true).await;
}

/// Of a field that stands twice the last one counts: the first was refused all the same where its type was wrong.
#[test]
fn a_wrong_value_that_a_later_one_replaces_refuses_nothing() {
    let orders = orders();
    let values = [
        r#"{"order_id": "x", "ordered_at": 7, "order_id": 7, "ordered_at": "2026-11-23T05:06:07Z"}"#,
        r#"{"order_id": 7, "ordered_at": "2026-11-23T05:06:07Z", "order_id": "x"}"#,
        r#"{"order_id": 7, "ordered_at": "2026-11-23T05:06:07Z", "paid": [[1]], "paid": {}, "paid": null}"#,
    ];
    for value in values {
        rows::check(&orders, &Decoder::new(&orders), "", value.as_bytes());
    }
}

/// The reader of JSON rounded numbers of many digits to one of their neighbours.
#[test]
fn a_double_is_the_number_that_is_written_to_the_last_bit() {
    let orders = orders();
    let decoder = Decoder::new(&orders);
    let random = std::iter::repeat_with(|| f64::from_bits(fastrand::u64(..))).filter(|number| number.is_finite());
    let written = random.take(10_000).map(|number| format!("{number:e}"));
    for text in
        ["4444459313760356353".to_owned(), "0.1000000000000000055511151231257827".to_owned()].into_iter().chain(written)
    {
        let value = format!(r#"{{"order_id":1,"ordered_at":"2026-11-23T05:06:07Z","total":{text}}}"#);
        let mut row = Row::default();
        decoder.decode(&value, &mut row).unwrap();
        let expected: f64 = text.parse().unwrap();
        assert_eq!(row.cells[4], consumer::decode::Cell::Double(expected), "{text}");
    }
}

/// Their sum is more than 64 bits hold.
#[tokio::test]
async fn gaps_as_wide_as_the_offset_axis_do_not_overflow() {
    let store = MemoryStore::new();
    let records = [record(0, HOUR), record(i64::MAX - 1, HOUR)];
    let parts: Vec<(&str, i32, &[LogRecord])> = (0..3).map(|partition| ("texts", partition, &records[..])).collect();
    let consumer = consumer(dataset("ndjson", TEXT_COLUMN), &store);
    let report = consumer.handle(&event_of(&parts), &Attempt::at(NOW)).await.unwrap();
    assert_eq!((report.rows, report.offset_gaps), (6, u64::MAX));
}

#[test]
fn an_error_about_a_dataset_file_quotes_only_the_beginning_of_a_long_value() {
    let answers = files::answers();
    let text = include_str!("../datasets/orders.yaml");
    let long = "a b".repeat(100_000);
    for value in
        ["orders\n", "pages[].orders[]", "shop.orders", "shop/orders", "snappy", "parquet", "integer", "note }"]
    {
        assert!(text.contains(value), "{value}");
        files::check(&text.replacen(value, &long, 1), &answers);
        files::check(&text.replacen(value, &format!("{long}: 1"), 1), &answers);
    }
}

fn with_expression(expression: &str) -> String {
    let text = include_str!("../datasets/orders.yaml");
    assert!(text.contains("expression: note }"));
    text.replacen("expression: note }", &format!("expression: '{}' }}", expression.replace('\'', "''")), 1)
}

/// Each step doubles what it is given: forty of them are more than any memory.
#[test]
fn an_expression_that_multiplies_what_it_is_given_is_refused() {
    for step in ["[@, @]", "[@, @][]", "{a: @, b: @}", "join('', [@, @])", "to_string([@])", "map(&[@, @], @)"] {
        let text = with_expression(&vec![step; 40].join(" | "));
        let error = Dataset::parse("x.yaml", &text).unwrap_err().to_string();
        assert!(error.starts_with("x.yaml:21: ") && error.contains("nest fewer lists"), "{step}: {error}");
    }
    // What a column needs is far below.
    for fine in
        ["[a, b, c][].d[]", "join(', ', [a, to_string(b)])", "merge(a, {b: c})", "a[?b == `1`][?c][?d].e[*].f[]"]
    {
        Dataset::parse("x.yaml", &with_expression(fine)).unwrap();
    }
}

/// In a thread as any other has it.
#[test]
fn an_expression_as_deep_as_can_be_written_overflows_no_stack() {
    let answers = files::answers();
    let nested =
        [("(", ")"), ("[", "]"), ("{a:", "}"), ("!", ""), ("&", ""), ("[?", "]"), ("to_array(", ")"), ("@|", "")];
    for (open, close) in nested {
        for length in [999, 5_000, 100_000] {
            let times = length / (open.len() + close.len());
            let text = with_expression(&format!("{}a{}", open.repeat(times), close.repeat(times)));
            files::check(&text, &answers);
        }
    }
}

#[tokio::test]
async fn a_ledger_of_another_topic_partition_or_below_the_first_offset_stops_the_partition() {
    let of = |partition: i32, next_offset: i64, topic: &str| Ledger {
        dataset: "texts".into(),
        prefix: "texts".into(),
        format: "json.gz".into(),
        cluster: None,
        topic: topic.into(),
        partition,
        epoch: 0,
        next_offset,
        directory: None,
        newest_timestamp: None,
    };
    for ledger in [of(1, 0, "texts"), of(0, -5, "texts"), of(0, 0, "others")] {
        let store = MemoryStore::new();
        let body = ledger.to_json().into();
        let condition = Condition::Absent;
        let metadata = Default::default();
        store.bucket().put(&PutRequest { key: LEDGER.into(), body, condition, content_type: "", metadata });
        let consumer = consumer(dataset("ndjson", TEXT_COLUMN), &store);
        let stopped = consumer.handle(&event("texts", 0, &[record(0, HOUR)]), &Attempt::at(NOW)).await.unwrap_err();
        let message = stopped.to_string();
        assert!(message.contains("texts-0 is stopped") && message.contains("ledger rebuild texts 0"), "{message}");
        assert_eq!(store.bucket().objects.len(), 1);
    }
}

#[test]
fn names_that_nobody_writes_are_nobodys() {
    let layout = Layout { prefix: "texts".into(), ledger_prefix: "_ledger".into() };
    for directory in
        ["dt=2026-11-23/hour=+5", "dt=2026-11-23T07:00/hour=05", "dt=-000001-11-23/hour=05", "dt=2026-11-23/hour=5"]
    {
        assert!(directory.parse::<Directory>().is_err(), "{directory}");
    }
    let letters = |range: &str| format!("texts_dead_letters/dt=2026-11-23/texts+0+e0+{range}+0123456789abcdef.json.gz");
    let range = "00000000000000000003-00000000000000000004";
    assert!(layout.parse_dead_letters(&letters(range)).is_some());
    for range in ["3-4", "00000000000000000004-00000000000000000003", "00000000000000000003--0000000000000000004"] {
        assert_eq!(layout.parse_dead_letters(&letters(range)), None, "{range}");
    }
    assert_eq!(layout.parse_data("texts/dt=2026-11-23/hour=05/texts+0+e0+-0000000000000000005.json.gz"), None);
}

/// The sum over two of them is more than 64 bits hold.
#[tokio::test]
async fn objects_that_claim_more_records_than_there_can_be_are_findings() {
    let store = MemoryStore::new();
    let consumer = consumer(dataset("ndjson", TEXT_COLUMN), &store);
    for offset in 0..2 {
        consumer.handle(&event("texts", 0, &[record(offset, HOUR)]), &Attempt::at(NOW)).await.unwrap();
    }
    for (_, object) in store.bucket().objects.iter_mut().filter(|(key, _)| key.starts_with("texts/")) {
        for entry in ["records", "dead-letters"] {
            object.metadata.insert(entry.to_owned(), u64::MAX.to_string());
        }
    }
    let target = target();
    let report =
        check(&collect(&store, &target, &VerifyOptions { deep: true, ..VerifyOptions::default() }).await.unwrap());
    assert!(!report.clean && report.to_text().contains("18446744073709551615 records"), "{}", report.to_text());
}
