use std::collections::BTreeMap;

use pipeline::lake::{DataKey, Directory, FirstRecord, Ledger, RangeMetadata};

use super::*;
use crate::Target;
use crate::kafka::Watermarks;
use crate::memory::{self, MemoryStore};

const FIVE: i64 = 1_795_410_000_000;

fn target() -> Target {
    memory::target("parquet")
}

fn place_range(store: &MemoryStore, partition: i32, epoch: u32, start: i64, end: i64) -> String {
    let timestamp = FIVE + end;
    let directory = Directory::of(timestamp);
    let key = DataKey { directory, topic: "t".into(), partition, epoch, start, extension: "parquet".into() };
    let metadata = RangeMetadata {
        end,
        records: 1,
        dead_letters: 0,
        newest_timestamp: Some(timestamp),
        first: FirstRecord { offset: start, timestamp },
        sha256: String::new(),
    };
    let key = target().layout.data(&key);
    store.place(&key, "", metadata.to_map());
    key
}

fn ledger(partition: i32, next_offset: i64) -> Ledger {
    Ledger {
        dataset: "names".into(),
        prefix: "names".into(),
        format: "parquet".into(),
        cluster: None,
        topic: "t".into(),
        partition,
        epoch: 3,
        next_offset,
        directory: Some(Directory::of(FIVE)),
        newest_timestamp: Some(FIVE + next_offset - 1),
    }
}

fn place_ledger(store: &MemoryStore, ledger: &Ledger) {
    store.place(&target().layout.ledger(&ledger.topic, ledger.partition), ledger.to_json(), Default::default());
}

fn stored(store: &MemoryStore, partition: i32) -> Ledger {
    Ledger::parse(&store.body(&target().layout.ledger("t", partition)).unwrap()).unwrap()
}

const YES: Confirm = Confirm { yes: true };

async fn done(store: &MemoryStore, plan: Plan) -> String {
    let mut out = Vec::new();
    carry_out(store, &plan, &YES, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn a_lost_ledger_is_rebuilt_as_it_was() {
    let store = MemoryStore::default();
    place_range(&store, 0, 2, 0, 99);
    place_range(&store, 0, 3, 0, 9);
    place_range(&store, 0, 3, 10, 29);
    place_range(&store, 1, 0, 7, 7);
    place_ledger(&store, &ledger(1, 8));
    let plan = plan::rebuild(&store, &target(), None, None).await.unwrap();
    let said = done(&store, plan).await;
    assert!(said.contains("none → 30") && said.ends_with("1 ledger written.\n"), "{said}");
    assert_eq!(stored(&store, 0), ledger(0, 30));
    let again = plan::rebuild(&store, &target(), None, None).await.unwrap();
    assert!(done(&store, again).await.contains("nothing to rebuild"));
}

#[tokio::test]
async fn a_rebuild_is_refused_over_a_ledger_and_over_a_hole() {
    let store = MemoryStore::default();
    let which = Some(("t".to_owned(), 0));
    place_range(&store, 0, 3, 0, 9);
    place_range(&store, 0, 3, 20, 29);
    let message = plan::rebuild(&store, &target(), which.clone(), None).await.unwrap_err().to_string();
    assert!(message.contains("offsets 10–19 lie in no object"), "{message}");
    place_ledger(&store, &ledger(0, 30));
    let message = plan::rebuild(&store, &target(), which, None).await.unwrap_err().to_string();
    assert!(message.contains("was left alone"), "{message}");
    let message = plan::rebuild(&store, &target(), Some(("t".to_owned(), 5)), None).await.unwrap_err().to_string();
    assert!(message.contains("no data object"), "{message}");
}

#[tokio::test]
async fn a_rebuild_goes_behind_objects_that_overlap_and_says_so() {
    let store = MemoryStore::default();
    place_range(&store, 0, 3, 0, 9);
    place_range(&store, 0, 3, 5, 29);
    place_range(&store, 0, 3, 30, 39);
    let said = done(&store, plan::rebuild(&store, &target(), None, None).await.unwrap()).await;
    assert!(said.contains("Warning: ") && said.contains("starts at 5, inside of a range"), "{said}");
    assert_eq!(stored(&store, 0), ledger(0, 40));
}

#[tokio::test]
async fn a_reset_raises_the_epoch_and_keeps_the_directory() {
    let store = MemoryStore::default();
    place_ledger(&store, &ledger(0, 30));
    place_ledger(&store, &ledger(1, 30));
    let topic = BTreeMap::from([(0, Watermarks { low: 4, high: 9 })]);
    let options = plan::Reset { which: None, next_offset: None, topic: Some(topic), cluster: None };
    let said = done(&store, plan::reset(&store, &target(), &options).await.unwrap()).await;
    assert!(said.contains("3 → 4") && said.contains("30 → 4") && said.contains("event source is off"), "{said}");
    let after =
        |partition, next_offset| Ledger { epoch: 4, next_offset, newest_timestamp: None, ..ledger(partition, 30) };
    assert_eq!((stored(&store, 0), stored(&store, 1)), (after(0, 4), after(1, 0)));
}

#[tokio::test]
async fn a_ledger_that_changed_since_it_was_shown_is_left_alone() {
    let store = MemoryStore::default();
    place_ledger(&store, &ledger(0, 30));
    let options = plan::Reset { which: Some(("t".into(), 0)), next_offset: Some(0), topic: None, cluster: None };
    let plan = plan::reset(&store, &target(), &options).await.unwrap();
    place_ledger(&store, &ledger(0, 40));
    let message = carry_out(&store, &plan, &YES, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(message.contains("changed since it was read"), "{message}");
    assert_eq!(stored(&store, 0), ledger(0, 40));
}

#[tokio::test]
async fn accepting_only_ever_raises_the_newest_timestamp() {
    let store = MemoryStore::default();
    place_ledger(&store, &ledger(0, 30));
    let earlier = plan::accept(&store, &target(), "t", 0, FIVE).await.unwrap();
    assert!(done(&store, earlier).await.contains("nothing to change"));
    let later = plan::accept(&store, &target(), "t", 0, FIVE + 500).await.unwrap();
    done(&store, later).await;
    assert_eq!(stored(&store, 0), Ledger { newest_timestamp: Some(FIVE + 500), ..ledger(0, 30) });
    let message = plan::accept(&store, &target(), "t", 9, 0).await.unwrap_err().to_string();
    assert!(message.contains("there is no ledger for t 9; there is: t 0"), "{message}");
}

#[tokio::test]
async fn the_format_changes_only_where_nothing_is_in_flight() {
    let store = MemoryStore::default();
    let target = Target { extension: "json.gz".into(), ..target() };
    place_ledger(&store, &ledger(0, 30));
    let in_flight = place_range(&store, 0, 3, 30, 39);
    let message = plan::format(&store, &target, None).await.unwrap_err().to_string();
    assert!(message.starts_with(&in_flight), "{message}");
    place_ledger(&store, &ledger(0, 40));
    let topic = BTreeMap::from([(0, Watermarks { low: 0, high: 41 })]);
    let said = done(&store, plan::format(&store, &target, Some(&topic)).await.unwrap()).await;
    assert!(said.contains("parquet → json.gz") && said.contains("Warning: t 0 is not drained"), "{said}");
    // The hour that it was in is registered with the old format: the new one begins in the next.
    let directory = ledger(0, 40).directory.map(Directory::next);
    assert_eq!(stored(&store, 0), Ledger { format: "json.gz".into(), directory, ..ledger(0, 40) });
}

#[tokio::test]
async fn an_unreadable_ledger_is_shown_as_such_and_changed_by_nothing() {
    let store = MemoryStore::default();
    store.place(&target().layout.ledger("t", 0), "{", Default::default());
    let message = plan::accept(&store, &target(), "t", 0, 1).await.unwrap_err().to_string();
    assert!(message.contains("is no ledger") && message.contains("freshet ledger rebuild t 0"), "{message}");
    let mut out = Vec::new();
    let status = show::show(&store, &target(), None, false, &mut out).await.unwrap();
    assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::from(1)));
    assert!(String::from_utf8(out).unwrap().contains("_ledger/names/t/0.json is no ledger"));
}

#[tokio::test]
async fn ledgers_are_shown_as_a_table_and_as_json_with_their_lag() {
    let store = MemoryStore::default();
    place_ledger(&store, &ledger(0, 30));
    let topic = BTreeMap::from([(0, Watermarks { low: 0, high: 41 })]);
    let mut out = Vec::new();
    show::show(&store, &target(), Some(&topic), false, &mut out).await.unwrap();
    let row = "t              0      3           30  dt=2026-11-23/hour=05  2026-11-23T05:00:00.029Z  parquet   11\n";
    assert!(String::from_utf8(out.clone()).unwrap().ends_with(row), "{}", String::from_utf8_lossy(&out));
    let mut out = Vec::new();
    show::show(&store, &target(), Some(&topic), true, &mut out).await.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&json[0]["lag"], &json[0]["next_offset"]), (&serde_json::json!(11), &serde_json::json!(30)));
}
