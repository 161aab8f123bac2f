//! Events of every shape, damaged, through the whole handler over a store in memory.

use std::collections::BTreeMap;
use std::io::Read;

use consumer::error::Error;
use consumer::handler::Attempt;
use consumer::report::Report;
use fastrand::Rng;
use pipeline::dataset::{Dataset, Format};
use pipeline::lake::{DataKey, DeadLetter, Directory, Layout, Ledger, RangeMetadata};
use serde_json::{Map, Value, json};

use super::json::{Json, any_bytes, damage};
use super::reference::{self, Cell, Delivered, Refusal};
use super::rows::{self, is_passed_over, shorten};
use super::{any, one_in, say};
use crate::support::events::{HOUR, HOUR_MS, NOW, consumer_at};
use crate::support::memory_store::{Bucket, MemoryStore};

pub fn cases() -> impl FnMut(&mut Rng) {
    let datasets = rows::datasets();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    move |rng| {
        let dataset = &datasets[rng.usize(..datasets.len())];
        let (payload, exact) = payload(dataset, rng);
        if std::env::var_os("FUZZ_CASE").is_some() {
            say(&String::from_utf8_lossy(&payload));
        }
        runtime.block_on(check(dataset, &payload, exact));
    }
}

/// An event, damaged; and whether a reader that takes each name once must come to the same judgement.
fn payload(dataset: &Dataset, rng: &mut Rng) -> (Vec<u8>, bool) {
    if one_in(rng, 20) {
        return (any_bytes(rng), false);
    }
    let mut tree = event(dataset, rng);
    let mut exact = true;
    for _ in 0..any(rng, &[0, 0, 0, 1, 1, 2, 4]) {
        exact &= !tree.mutate(rng);
    }
    let (escaped, spaces) = (any(rng, &[0, 0, 0, 4]), one_in(rng, 3));
    let mut bytes = tree.write(escaped, spaces, rng).into_bytes();
    if one_in(rng, 4) {
        exact = false;
        let other = event(dataset, rng).plain().into_bytes();
        for _ in 0..rng.usize(1..4) {
            damage(&mut bytes, &other, rng);
        }
    }
    (bytes, exact)
}

fn event(dataset: &Dataset, rng: &mut Rng) -> Json {
    let topic = &dataset.topic.name;
    let mut partitions = Vec::new();
    for partition in 0..rng.i32(0..4) {
        let (mut offset, mut timestamp) = (rng.i64(0..1_000), HOUR + rng.i64(0..HOUR_MS));
        let mut records = Vec::new();
        for _ in 0..rng.usize(0..9) {
            records.push(record(dataset, partition, offset, timestamp, rng));
            offset += any(rng, &[1, 1, 1, 1, 1, 1, 0, -1, 3, 1_000_000]);
            timestamp += any(rng, &[0, 0, 1, 1_000, 60_000, HOUR_MS, -60_000, -HOUR_MS, 5 * HOUR_MS]);
        }
        partitions.push((format!("{topic}-{partition}"), Json::Array(records)));
    }
    let mut members = vec![("records".to_owned(), Json::Object(partitions))];
    if rng.bool() {
        let arn = any(rng, &["arn:aws:kafka:eu-west-1:1:cluster/c/1", ""]);
        members.insert(0, ("eventSource".to_owned(), Json::Text("aws:kafka".to_owned())));
        members.insert(1, ("eventSourceArn".to_owned(), Json::Text(arn.to_owned())));
    } else {
        members.push(("eventSource".to_owned(), Json::Text("SelfManagedKafka".to_owned())));
    }
    members.push(("bootstrapServers".to_owned(), Json::Text("b-1:9098,b-2:9098".to_owned())));
    Json::Object(members)
}

fn record(dataset: &Dataset, partition: i32, offset: i64, timestamp: i64, rng: &mut Rng) -> Json {
    let mut members: Vec<(&str, Json)> = vec![
        ("topic", Json::Text(dataset.topic.name.clone())),
        ("partition", Json::Raw(partition.to_string())),
        ("offset", Json::Raw(offset.max(0).to_string())),
        ("timestamp", Json::Raw(time(timestamp, rng).to_string())),
        ("timestampType", Json::Text(any(rng, &["LOG_APPEND_TIME", "LOG_APPEND_TIME", "CREATE_TIME"]).to_owned())),
    ];
    if rng.bool() {
        members.push(("key", Json::Text("a2V5".to_owned())));
    }
    if !one_in(rng, 12) {
        let mut text = base64_simd::STANDARD.encode_to_string(rows::value(dataset, rng));
        if one_in(rng, 8) {
            damage_base64(&mut text, rng);
        }
        members.push(("value", Json::Text(text)));
    } else if rng.bool() {
        members.push(("value", Json::Raw("null".to_owned())));
    }
    if !one_in(rng, 4) {
        members.push(("headers", headers(rng)));
    }
    Json::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Mostly as it is; now and then about an hour ahead, or where no clock ever was.
fn time(timestamp: i64, rng: &mut Rng) -> i64 {
    const MINUTE: i64 = 60_000;
    match rng.u32(..24) {
        0 => NOW + any(rng, &[75 * MINUTE + 1, 76 * MINUTE, 48 * HOUR_MS, i64::MAX - NOW]),
        1 if one_in(rng, 3) => NOW + any(rng, &[45 * MINUTE, 60 * MINUTE, 75 * MINUTE]),
        2 => NOW + 45 * MINUTE - 1,
        3 => any(rng, &[i64::MIN, -1, 0, 1, i64::MIN / 1_000, -62_135_596_800_001, -62_135_596_800_000]),
        _ => timestamp,
    }
}

fn headers(rng: &mut Rng) -> Json {
    let byte = |rng: &mut Rng| Json::Raw(rng.i16(-128..128).to_string());
    let mut headers = Vec::new();
    for _ in 0..any(rng, &[0, 0, 1, 2, 30]) {
        let length = if one_in(rng, 3_000) { 50_000 } else { rng.usize(..9) };
        let value = match one_in(rng, 5) {
            true => Json::Raw("null".to_owned()),
            false => Json::Array((0..length).map(|_| byte(rng)).collect()),
        };
        headers.push(Json::Object(vec![(any(rng, &["trace", "freshet-replay-id", "", "é"]).to_owned(), value)]));
    }
    Json::Array(headers)
}

fn damage_base64(text: &mut String, rng: &mut Rng) {
    let at = rng.usize(..=text.len());
    match rng.u32(..7) {
        0 => text.truncate(at),
        1 => text.insert(at, any(rng, &['\n', ' ', '=', '-', '_', '!', 'A', 'é', '\0'])),
        2 => *text = text.trim_end_matches('=').to_owned(),
        3 => text.push_str(any(rng, &["=", "==", "===", "===="])),
        4 => *text = text.replace('+', "-").replace('/', "_"),
        // Bits behind the last whole byte.
        5 => {
            if let Some(at) = text.find('=').filter(|at| *at > 0) {
                text.replace_range(at - 1..at, any(rng, &["A", "B", "Q", "/", "w"]));
            }
        }
        _ => *text = text.chars().rev().collect(),
    }
}

/// What must come of one topic-partition's records.
#[derive(Debug, Default)]
struct Expected {
    ranges: Vec<ExpectedRange>,
    /// Nothing is stored: a timestamp lies about an hour ahead.
    waits: bool,
}

#[derive(Debug)]
struct ExpectedRange {
    directory: Directory,
    start: i64,
    records: Vec<Delivered>,
}

/// Milliseconds since the attempt's clock above which a record certainly lies in the future, and from which on it may.
const FUTURE: i64 = 75 * 60_000;
const UNSURE: i64 = 45 * 60_000;

fn is_future(timestamp: i64) -> bool {
    timestamp.saturating_sub(NOW) > FUTURE
}

fn expected(records: Vec<Delivered>) -> BTreeMap<i32, Expected> {
    let mut partitions: BTreeMap<i32, Vec<Delivered>> = BTreeMap::new();
    for record in records {
        partitions.entry(record.partition).or_default().push(record);
    }
    let of_partition = |mut records: Vec<Delivered>| {
        records.sort_by_key(|record| record.offset);
        // The first of several counts.
        records.dedup_by_key(|record| record.offset);
        let mut expected = Expected::default();
        let mut latest: Option<Directory> = None;
        for record in records {
            let ahead = record.timestamp.saturating_sub(NOW);
            expected.waits |= (UNSURE..=FUTURE).contains(&ahead);
            let own = (!is_future(record.timestamp)).then(|| Directory::of(record.timestamp));
            let directory = latest.max(own).unwrap_or(Directory::of(0));
            latest = Some(directory);
            match expected.ranges.last_mut() {
                Some(range) if range.directory == directory => range.records.push(record),
                last => {
                    let behind = last.and_then(|range| range.records.last()).map(|record| record.offset + 1);
                    let start = behind.unwrap_or(record.offset);
                    expected.ranges.push(ExpectedRange { directory, start, records: vec![record] });
                }
            }
        }
        expected
    };
    partitions.into_iter().map(|(partition, records)| (partition, of_partition(records))).collect()
}

pub async fn check(dataset: &Dataset, payload: &[u8], exact: bool) {
    let store = MemoryStore::new();
    let consumer = consumer_at(dataset.clone(), &store, &dataset.lake.prefix);
    let shown = || shorten(payload);
    let first = consumer.handle(payload, &Attempt::at(NOW)).await;
    let read = reference::event(payload).and_then(|records| {
        let ours = records.iter().all(|record| record.topic == dataset.topic.name);
        if ours { Ok(records) } else { Err(Refusal::Wrong("topic".to_owned())) }
    });
    match (&first, read) {
        (Err(Error::Event(reason)), read) => {
            assert!(!reason.is_empty());
            assert!(store.bucket().objects.is_empty(), "{}", shown());
            assert!(!exact || read.is_err(), "refused, as {reason}: {}", shown());
        }
        (_, Ok(records)) => {
            let expected = expected(records);
            let waits = expected.values().any(|partition| partition.waits);
            assert_eq!(first.is_err(), waits, "{first:?}: {}", shown());
            compare(dataset, &store.bucket(), &expected, payload, exact);
        }
        // What the consumer does not look at it need not understand.
        (_, Err(Refusal::NoJson(_))) => count(dataset, &store.bucket(), &first),
        (_, Err(Refusal::Wrong(what))) => panic!("{what} is wrong, and it was taken: {}", shown()),
    }
    // Once more: nothing is stored again.
    let before = objects(&store.bucket());
    let second = consumer.handle(payload, &Attempt::at(NOW)).await;
    assert_eq!(first.is_ok(), second.is_ok(), "{second:?}: {}", shown());
    assert!(before == objects(&store.bucket()), "a second delivery changed the bucket: {}", shown());
    if let (Ok(first), Ok(second)) = (first, second) {
        assert_eq!((second.rows, second.dead_letters, second.objects_written), (0, 0, 0), "{}", shown());
        assert_eq!(second.records, first.records);
        assert_eq!(second.duplicates_dropped, first.duplicates_dropped + first.rows + first.dead_letters);
    }
}

fn objects(bucket: &Bucket) -> Vec<(String, String)> {
    bucket.objects.iter().map(|(key, object)| (key.clone(), object.etag.clone())).collect()
}

/// Every object of the lake.
struct Lake {
    data: Vec<(DataKey, RangeMetadata, bytes::Bytes)>,
    letters: BTreeMap<(i32, i64), DeadLetter>,
    /// The dead letters' days.
    days: BTreeMap<(i32, i64), String>,
    ledgers: BTreeMap<i32, Ledger>,
}

fn layout(dataset: &Dataset) -> Layout {
    Layout { prefix: dataset.lake.prefix.clone(), ledger_prefix: "_ledger".to_owned() }
}

fn lake(dataset: &Dataset, bucket: &Bucket) -> Lake {
    let layout = layout(dataset);
    let mut lake = Lake { data: Vec::new(), letters: BTreeMap::new(), days: BTreeMap::new(), ledgers: BTreeMap::new() };
    for (key, object) in &bucket.objects {
        if let Some(parsed) = layout.parse_data(key) {
            assert!(bucket.registered.contains(&parsed.directory), "{key} lies where nobody looks");
            lake.data.push((parsed, RangeMetadata::from_map(&object.metadata).unwrap(), object.body.clone()));
        } else if let Some(rest) = key.strip_prefix(&layout.dead_letters_prefix()) {
            for line in lines(&object.body) {
                let letter: DeadLetter = serde_json::from_value(line).unwrap();
                let place = (letter.partition.unwrap(), letter.offset.unwrap());
                lake.days.insert(place, rest[..10].to_owned());
                assert!(lake.letters.insert(place, letter).is_none(), "two letters of {place:?}");
            }
        } else {
            let ledger = Ledger::parse(&object.body).unwrap();
            assert_eq!(*key, layout.ledger(&dataset.topic.name, ledger.partition));
            lake.ledgers.insert(ledger.partition, ledger);
        }
    }
    lake
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Each record is one row or a dead letter, where it should be, and nothing else is there.
fn compare(dataset: &Dataset, bucket: &Bucket, expected: &BTreeMap<i32, Expected>, payload: &[u8], exact: bool) {
    let shown = || shorten(payload);
    let mut lake = lake(dataset, bucket);
    lake.data.sort_by_key(|(key, ..)| (key.partition, key.start));
    let mut data = lake.data.into_iter();
    let mut letters = lake.letters;
    for (partition, expected) in expected {
        let ledger = &lake.ledgers[partition];
        if expected.waits {
            assert_eq!(ledger.next_offset, expected.ranges[0].start);
            continue;
        }
        for range in &expected.ranges {
            let (key, metadata, body) = data.next().unwrap_or_else(|| panic!("{range:?} is missing: {}", shown()));
            let place = (key.directory, key.partition, key.epoch, key.start);
            assert_eq!(place, (range.directory, *partition, 0, range.start), "{}", shown());
            let end = range.records.last().map(|record| record.offset).unwrap();
            assert_eq!(metadata.end, end);
            let mut stored = stored_rows(dataset, &key, body).into_iter();
            let mut letters_of_range = 0;
            for record in &range.records {
                let place = (*partition, record.offset);
                let decoded = record.value.as_deref().and_then(reference::base64).map(|b| reference::row(dataset, &b));
                if let Some(letter) = letters.remove(&place) {
                    letters_of_range += 1;
                    let right = !matches!(decoded, Some(Ok(_))) || is_future(record.timestamp);
                    assert!(right, "a letter, as {}: {}", letter.error, shown());
                    assert_eq!(lake.days[&place], range.directory.values()[0]);
                    check_letter(dataset, record, &letter, payload, exact);
                    continue;
                }
                let row = stored.next().unwrap_or_else(|| panic!("{record:?} is nowhere: {}", shown()));
                assert!(!is_future(record.timestamp));
                check_row(dataset, record, decoded, &row, payload);
            }
            assert_eq!(stored.next(), None, "{}", shown());
            assert_eq!(metadata.dead_letters, letters_of_range);
            assert_eq!(metadata.records, range.records.len() as u64 - letters_of_range);
        }
        let end = expected.ranges.last().and_then(|range| range.records.last()).map(|record| record.offset);
        assert_eq!(Some(ledger.next_offset - 1), end);
    }
    assert!(data.next().is_none() && letters.is_empty(), "more than was delivered: {}", shown());
}

/// The rows of an object; of Parquet only where they come from.
fn stored_rows(dataset: &Dataset, key: &DataKey, body: bytes::Bytes) -> Vec<Map<String, Value>> {
    if let Format::Ndjson(_) = dataset.lake.format {
        let object = |line| match line {
            Value::Object(row) => row,
            other => panic!("{other}"),
        };
        return lines(&body).into_iter().map(object).collect();
    }
    let rows = freshet::verify::rows::read(key, body).unwrap();
    assert!(rows.ordered && rows.repeated == 0 && rows.strangers == 0);
    let offsets = rows.offsets.iter().flat_map(|(first, last)| first..=last);
    let row = |offset| json!({"_partition": key.partition, "_offset": offset, "_epoch": 0});
    offsets.filter_map(|offset| row(offset).as_object().cloned()).collect()
}

fn check_row(
    dataset: &Dataset,
    record: &Delivered,
    decoded: Option<Result<reference::Row, Refusal>>,
    row: &Map<String, Value>,
    payload: &[u8],
) {
    let shown = || shorten(payload);
    assert_eq!(row["_offset"], record.offset, "{}", shown());
    assert_eq!((&row["_partition"], &row["_epoch"]), (&json!(record.partition), &json!(0)));
    let in_full = matches!(dataset.lake.format, Format::Ndjson(_));
    let decoded = match decoded {
        Some(Ok(decoded)) => decoded,
        Some(Err(refusal)) => {
            assert!(is_passed_over(&refusal), "a row of what is none, {refusal:?}: {}", shown());
            return;
        }
        None => panic!("a row of no value: {}", shown()),
    };
    if !in_full {
        return;
    }
    let mut expected = Map::new();
    for (column, cell) in dataset.columns.iter().zip(decoded.cells) {
        let value = match cell {
            Cell::Null => continue,
            Cell::Text(text) => json!(text),
            Cell::Boolean(value) => json!(value),
            Cell::Integer(value) => json!(value),
            Cell::Double(value) => json!(value),
            Cell::Timestamp(micros) => json!(reference::sql_time(micros)),
        };
        expected.insert(column.name.clone(), value);
    }
    let timestamp = reference::sql_time(record.timestamp.saturating_mul(1_000));
    expected.extend([
        ("_partition".to_owned(), json!(record.partition)),
        ("_offset".to_owned(), json!(record.offset)),
        ("_epoch".to_owned(), json!(0)),
        ("_timestamp".to_owned(), json!(timestamp)),
    ]);
    let mut row = row.clone();
    let extra = row.remove("_extra").map(|text| serde_json::from_str::<Map<String, Value>>(text.as_str().unwrap()));
    assert_eq!(extra.transpose().unwrap().unwrap_or_default(), decoded.extra, "{}", shown());
    assert_eq!(row, expected, "{}", shown());
}

fn check_letter(dataset: &Dataset, record: &Delivered, letter: &DeadLetter, payload: &[u8], exact: bool) {
    let Delivered { topic, partition, offset, .. } = record;
    assert!(!letter.error.is_empty());
    assert_eq!(letter.id, format!("{topic}+{partition}+e0+{offset}"));
    assert_eq!((&letter.dataset, letter.stage.as_str()), (&dataset.name, "decode"));
    assert_eq!((letter.timestamp, &letter.key, &letter.payload), (record.timestamp, &record.key, &record.value));
    let headers = letter.headers.iter().map(|header| {
        let value = header.value.as_deref().map(|text| reference::base64(text).unwrap());
        (header.name.clone(), value)
    });
    // Of a header that stands twice in its object the first counts as well: where that cannot be read, none is kept.
    let headers: Vec<_> = headers.collect();
    assert!(headers == record.headers || (!exact && headers.is_empty()), "{headers:?}: {}", shorten(payload));
}

/// Where there is nothing to compare with: what was taken is there, each once.
fn count(dataset: &Dataset, bucket: &Bucket, outcome: &Result<Report, Error>) {
    let lake = lake(dataset, bucket);
    let mut rows = std::collections::BTreeSet::new();
    for (key, _, body) in lake.data {
        for row in stored_rows(dataset, &key, body) {
            let offset = row["_offset"].as_i64().unwrap();
            assert!(rows.insert((key.partition, offset)) && !lake.letters.contains_key(&(key.partition, offset)));
        }
    }
    if let Ok(report) = outcome {
        assert_eq!((report.rows, report.dead_letters), (rows.len() as u64, lake.letters.len() as u64));
        assert_eq!(report.records, report.rows + report.dead_letters);
    }
}
