//! What lies in the bucket, and what the objects say of themselves, damaged: the consumer and the commands read it or refuse it.

use std::collections::HashMap;
use std::io::Write;

use consumer::handler::Attempt;
use fastrand::Rng;
use freshet::replay::journal;
use freshet::replay::letters::{self, Record};
use freshet::replay::plan::{Filter, plan};
use freshet::verify::check::check;
use freshet::verify::collect::collect;
use freshet::verify::{VerifyOptions, rows};
use pipeline::lake::{Condition, Directory, Layout, Ledger, PutRequest, RangeMetadata};
use serde_json::json;

use super::json::{Json, any_bytes, damage};
use super::{any, one_in};
use crate::support::events::{HOUR, NOW, TEXT_COLUMN, consumer, dataset, event, poison, record, target};
use crate::support::memory_store::MemoryStore;

const LEDGER: &str = "_ledger/texts/texts/0.json";

pub fn cases() -> impl FnMut(&mut Rng) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    move |rng| {
        for _ in 0..20 {
            names_and_numbers(rng);
        }
        runtime.block_on(lake(rng));
    }
}

fn layout() -> Layout {
    target().layout
}

/// What is read is what would be written again.
fn names_and_numbers(rng: &mut Rng) {
    let layout = layout();
    let text = name(rng);
    if let Ok(directory) = text.parse::<Directory>() {
        assert_eq!(directory.to_string(), text);
    }
    if let Some(key) = layout.parse_data(&text) {
        assert_eq!(layout.data(&key), text);
    }
    if let Some(key) = layout.parse_dead_letters(&text) {
        assert!(key.partition >= 0 && 0 <= key.start && key.start <= key.end, "{text}");
    }
    let map = metadata(rng);
    if let Ok(metadata) = RangeMetadata::from_map(&map) {
        assert_eq!(RangeMetadata::from_map(&metadata.to_map()).unwrap(), metadata);
    }
    if let Ok(mut ledger) = Ledger::parse(&ledger(rng)) {
        assert_eq!(Ledger::parse(&ledger.to_json()).unwrap(), ledger);
        let before = ledger.clone();
        ledger.advance(any(rng, &[-1, 0, 7, i64::MAX - 1]), Directory::of(rng.i64(..)), Some(rng.i64(..)));
        assert!(ledger.next_offset >= before.next_offset && ledger.directory >= before.directory);
    }
}

const NAME_PIECES: [&str; 15] =
    ["", "+", "-", "/", "e", "0", "9", "é", "9223372036854775807", "T05:00", "-000001", "9999-12-31", "24", ".", "00"];

fn name(rng: &mut Rng) -> String {
    let mut text = any(rng, &[
        "dt=2026-11-23/hour=05",
        "texts/dt=2026-11-23/hour=05/texts+0+e0+00000000000000000000.json.gz",
        "texts_dead_letters/dt=2026-11-23/texts+0+e0+00000000000000000000-00000000000000000004+0123456789abcdef.json.gz",
    ])
    .to_owned();
    for _ in 0..rng.usize(1..4) {
        let mut characters: Vec<char> = text.chars().collect();
        let at = rng.usize(..=characters.len());
        let to = (at + rng.usize(..12)).min(characters.len());
        characters.splice(at..to, any(rng, &NAME_PIECES).chars());
        text = characters.into_iter().collect();
    }
    text
}

const LIMITS: [&str; 12] = [
    "0",
    "4",
    "5",
    "-1",
    "9223372036854775807",
    "9223372036854775806",
    "-9223372036854775808",
    "18446744073709551615",
    "9223372036854775808",
    "x",
    "",
    "+3",
];

fn metadata(rng: &mut Rng) -> HashMap<String, String> {
    let numbers = ["end-offset", "records", "dead-letters", "first-offset", "first-timestamp", "newest-timestamp"];
    let mut map: HashMap<String, String> =
        numbers.map(|name| (name.to_owned(), any(rng, &["0", "4", "9"]).to_owned())).into_iter().collect();
    map.insert("first-timestamp".to_owned(), HOUR.to_string());
    for _ in 0..rng.usize(..4) {
        map.insert(any(rng, &numbers).to_owned(), any(rng, &LIMITS).to_owned());
    }
    if one_in(rng, 6) {
        map.remove(any(rng, &numbers));
    }
    map
}

fn bytes_of(mut tree: Json, rng: &mut Rng) -> Vec<u8> {
    for _ in 0..any(rng, &[0, 1, 1, 2, 3]) {
        tree.mutate(rng);
    }
    let mut bytes = tree.plain().into_bytes();
    if one_in(rng, 6) {
        let other = tree.plain().into_bytes();
        damage(&mut bytes, &other, rng);
    }
    if one_in(rng, 40) { any_bytes(rng) } else { bytes }
}

fn ledger(rng: &mut Rng) -> Vec<u8> {
    let tree = json!({
        "dataset": "texts", "prefix": "texts", "format": "json.gz", "cluster": null, "topic": "texts", "partition": 0, "epoch": 0,
        "next_offset": any(rng, &[0, 5]), "directory": any(rng, &[json!(null), json!("dt=2026-11-23/hour=05")]),
        "newest_timestamp": any(rng, &[json!(null), json!(HOUR + 4)]),
    });
    bytes_of(tree.into(), rng)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn dead_letters(rng: &mut Rng) -> Vec<u8> {
    let mut lines = Vec::new();
    for offset in 0..rng.usize(..4) {
        let tree = json!({
            "id": format!("texts+0+e0+{offset}"), "dataset": "texts", "stage": any(rng, &["decode", "deliver", "transform"]), "error": "é at line 1",
            "topic": "texts", "partition": 0, "epoch": 0, "offset": offset, "timestamp": HOUR, "key": "a2V5",
            "headers": [{"name": "freshet-replay-id", "value": "YQ=="}, {"name": "n", "value": null}], "payload": "e30=",
        });
        lines.extend(bytes_of(tree.into(), rng));
        lines.push(b'\n');
    }
    packed(&lines, rng)
}

fn packed(lines: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut packed = gzip(lines);
    if one_in(rng, 5) {
        let other = gzip(b"{}\n");
        damage(&mut packed, &other, rng);
    }
    packed
}

fn lock(rng: &mut Rng) -> Vec<u8> {
    let tree = json!({"run": "r", "owner": "o", "renewed": HOUR, "settles_ms": 60_000, "released": rng.bool()});
    bytes_of(tree.into(), rng)
}

fn batch(rng: &mut Rng) -> Vec<u8> {
    let done =
        json!({"replayed": {"texts+0+e0+0": {"partition": 0, "offset": 9}}, "refused": {"texts+0+e0+1": "is gone"}});
    let tree = json!({
        "run": "r", "number": 0, "owner": "o", "topic": "texts", "written": HOUR, "settles_ms": 60_000,
        "partitions": {"0": {"high": 5, "epoch": 0}}, "letters": ["texts+0+e0+0", "texts+0+e0+1"], "done": any(rng, &[json!(null), done]),
    });
    bytes_of(tree.into(), rng)
}

fn place(store: &MemoryStore, key: &str, body: Vec<u8>, metadata: HashMap<String, String>) {
    let mut bucket = store.bucket();
    bucket.objects.remove(key);
    let condition = Condition::Absent;
    bucket.put(&PutRequest { key: key.to_owned(), body: body.into(), condition, content_type: "", metadata });
}

/// A lake in which some objects are damaged, read by everything that reads one.
async fn lake(rng: &mut Rng) {
    let store = MemoryStore::new();
    let records: Vec<_> = (0..5)
        .map(|offset| match one_in(rng, 3) {
            true => poison(offset, HOUR + offset, Some(b"junk")),
            false => record(offset, HOUR + offset),
        })
        .collect();
    let consumer = consumer(dataset("ndjson", TEXT_COLUMN), &store);
    consumer.handle(&event("texts", 0, &records), &Attempt::at(NOW)).await.unwrap();
    let keys: Vec<String> = store.bucket().objects.keys().cloned().collect();
    for key in keys {
        if one_in(rng, 2) {
            continue;
        }
        let stored = store.bucket().objects[&key].clone();
        if key == LEDGER {
            place(&store, &key, ledger(rng), HashMap::new());
        } else if key.contains("_dead_letters/") {
            place(&store, &key, dead_letters(rng), HashMap::new());
        } else if rng.bool() {
            place(&store, &key, stored.body.to_vec(), metadata(rng));
        } else {
            let line = json!({"text": "a", "_partition": 0, "_offset": 0, "_epoch": 0, "_timestamp": "2026-11-23 05:00:00.000000"});
            let body = bytes_of(line.into(), rng);
            let body = packed(&body, rng);
            place(&store, &key, body, stored.metadata);
        }
    }
    for _ in 0..rng.usize(..3) {
        let key = name(rng);
        let body = dead_letters(rng);
        place(&store, &key, body, metadata(rng));
    }
    let runs: Vec<Vec<u8>> = (0..rng.usize(..3)).map(|_| batch(rng)).collect();
    for (number, body) in runs.into_iter().enumerate() {
        place(&store, &layout().replay(&format!("r+{number:06}")), body, HashMap::new());
    }
    place(&store, &layout().replay("lock"), lock(rng), HashMap::new());

    commands(&store).await;
    // The same records again, and later ones.
    let more: Vec<_> = records.into_iter().chain((5..8).map(|offset| record(offset, HOUR + offset))).collect();
    let before = store.bucket().objects.clone();
    if let Err(error) = consumer.handle(&event("texts", 0, &more), &Attempt::at(NOW)).await {
        assert!(!error.to_string().is_empty());
    }
    // Whatever is there already stays as it is, but for the ledger.
    for (key, object) in before.iter().filter(|(key, _)| *key != LEDGER) {
        assert_eq!(store.bucket().objects[key].etag, object.etag, "{key} was overwritten");
    }
    commands(&store).await;
}

async fn commands(store: &MemoryStore) {
    let options = VerifyOptions { deep: true, ..VerifyOptions::default() };
    let inventory = collect(store, &target(), &options).await.unwrap();
    let report = check(&inventory);
    assert!(!report.to_text().is_empty() && serde_json::from_str::<serde_json::Value>(&report.to_json()).is_ok());
    let found = letters::collect(store, &layout()).await.unwrap();
    let all: Vec<_> = found.letters.iter().collect();
    for record in letters::records(store, &all).await.unwrap() {
        // Kafka's client takes a header's name as C does; its value, where the id goes, may hold any byte.
        let named = |record: Record| record.headers.iter().all(|(name, _)| !name.contains('\0'));
        assert!(record.map_or_else(|reason| !reason.is_empty(), named));
    }
    match journal::replays(store, &layout()).await {
        Err(error) => assert!(error.to_string().contains("_replay/texts/r+00000"), "{error}"),
        Ok(replays) => match plan(store, &target(), &Filter::default(), &replays).await {
            Ok(plan) => assert!(!plan.to_text(&target()).is_empty() || plan.letters.is_empty()),
            Err(error) => assert!(error.to_string().contains("texts"), "{error}"),
        },
    }
    let letters =
        store.bucket().objects.iter().find(|(key, _)| key.contains("_dead_letters/")).map(|(_, o)| o.body.clone());
    if let Some(body) = letters {
        let _ = (rows::read_letters(&body), rows::whole_letters(&body));
    }
}
