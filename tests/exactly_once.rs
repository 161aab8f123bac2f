//! The consumer's handler over a store in memory: one claim a test.

use consumer::error::Error;
use consumer::handler::Attempt;
use consumer::report::Report;
use freshet::ledger::plan;
use pipeline::lake::{Condition, Directory, Ledger, PutRequest};

use crate::support::events::*;
use crate::support::gaps;
use crate::support::memory_store::MemoryStore;
use crate::support::rows::{dead_letter_objects, dead_letters, offsets, rows};

const LEDGER: &str = "_ledger/texts/texts/0.json";

fn ndjson() -> pipeline::dataset::Dataset {
    dataset("ndjson", TEXT_COLUMN)
}

async fn deliver(store: &MemoryStore, records: &[LogRecord]) -> Result<Report, Error> {
    deliver_at(store, records, NOW).await
}

async fn deliver_at(store: &MemoryStore, records: &[LogRecord], now: i64) -> Result<Report, Error> {
    consumer(ndjson(), store).handle(&event("texts", 0, records), &Attempt::at(now)).await
}

fn log(offsets: std::ops::Range<i64>) -> Vec<LogRecord> {
    offsets.map(|o| record(o, HOUR + o)).collect()
}

fn ledger(store: &MemoryStore) -> Ledger {
    Ledger::parse(&store.bucket().objects[LEDGER].body).unwrap()
}

/// Replaces the ledger as an operator's command does.
fn set_ledger(store: &MemoryStore, change: impl FnOnce(&mut Ledger)) {
    let mut new = ledger(store);
    change(&mut new);
    let etag = store.bucket().objects[LEDGER].etag.clone();
    let request = PutRequest {
        key: LEDGER.into(),
        body: new.to_json().into(),
        condition: Condition::Matches(etag),
        content_type: "",
        metadata: Default::default(),
    };
    store.bucket().put(&request);
}

fn message(result: Result<Report, Error>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn a_batch_becomes_one_object_a_ledger_and_a_registered_directory() {
    let store = MemoryStore::new();
    let report = deliver(&store, &log(0..10)).await.unwrap();
    assert_eq!((report.rows, report.objects_written, report.offset_gaps), (10, 1, 0));
    let keys: Vec<_> = store.bucket().objects.keys().cloned().collect();
    assert_eq!(keys, [LEDGER, "texts/dt=2026-11-23/hour=05/texts+0+e0+00000000000000000000.json.gz"]);
    assert_eq!(store.bucket().registered, [Directory::of(HOUR)]);
    assert_eq!(ledger(&store).next_offset, 10);
    let (_, text) = &rows(&store.bucket())[7];
    assert_eq!(text.as_deref(), Some("record 7"));
}

#[tokio::test]
async fn the_steady_state_costs_three_requests_a_batch() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..10)).await.unwrap();
    let attempt = store.attempt();
    deliver(&attempt, &log(10..20)).await.unwrap();
    assert_eq!(attempt.requests(), 3, "the ledger's GET, the object, the ledger's PUT");
}

#[tokio::test]
async fn a_retry_of_any_size_stores_no_record_twice() {
    for retry in [0..10, 0..25, 0..4, 3..12, 5..30] {
        let store = MemoryStore::new();
        deliver(&store, &log(0..10)).await.unwrap();
        let again = deliver(&store, &log(retry.clone())).await.unwrap();
        assert_eq!(again.duplicates_dropped, (retry.start..retry.end.min(10)).count() as u64);
        assert_eq!(offsets(&store.bucket()), (0..retry.end.max(10)).collect::<Vec<_>>(), "{retry:?}");
    }
}

#[tokio::test]
async fn a_record_that_stands_twice_in_one_event_is_stored_once() {
    let store = MemoryStore::new();
    let mut records = log(0..5);
    records.extend(log(2..4));
    assert_eq!(deliver(&store, &records).await.unwrap().duplicates_dropped, 2);
    assert_eq!(offsets(&store.bucket()), [0, 1, 2, 3, 4]);
}

/// The store dies at request n, for every n, with and without the request having taken effect; the retry has another size.
#[tokio::test]
async fn a_crash_between_any_two_steps_loses_and_doubles_nothing() {
    let first: Vec<_> =
        (0..9).map(|o| record(o, HOUR + o / 3 * HOUR_MS)).chain([poison(9, HOUR + 3 * HOUR_MS, None)]).collect();
    let all: Vec<_> = first.iter().cloned().chain((10..14).map(|o| record(o, HOUR + 3 * HOUR_MS + o))).collect();
    let whole = MemoryStore::new();
    deliver(&whole, &first).await.unwrap();
    let requests = whole.requests();
    assert!(requests >= 10, "{requests}");
    for applied in [false, true] {
        for at in 0..requests {
            for retry in [&first[..], &all[..], &first[..5]] {
                let store = MemoryStore::new();
                deliver(&store.dying(at, applied), &first).await.unwrap_err();
                deliver(&store, retry).await.unwrap();
                deliver(&store, &all).await.unwrap();
                let expected: Vec<_> = (0..14).filter(|o| *o != 9).collect();
                assert_eq!(offsets(&store.bucket()), expected, "died at request {at}, applied: {applied}");
                assert_eq!(dead_letters(&store.bucket()).len(), 1);
            }
        }
    }
}

#[tokio::test]
async fn the_ledger_exists_before_the_first_object_and_moves_after_each_range() {
    let records: Vec<_> = (0..9).map(|o| record(o, HOUR + o / 3 * HOUR_MS)).collect();
    // GET, three LISTs and PUT of the ledger; then, for a range in a new directory, a HEAD, the object and an advance.
    let steps = [(5, 0, 0), (6, 0, 0), (7, 0, 1), (8, 3, 1), (9, 3, 1), (10, 3, 2), (11, 6, 2), (12, 6, 2), (13, 6, 3)];
    for (at, next_offset, objects) in steps {
        let store = MemoryStore::new();
        deliver(&store.dying(at, false), &records).await.unwrap_err();
        let stored = store.bucket().objects.keys().filter(|key| key.starts_with("texts/")).count();
        assert_eq!((ledger(&store).next_offset, stored), (next_offset, objects), "died at request {at}");
    }
}

#[tokio::test]
async fn two_attempts_over_the_same_records_overlap_in_time_without_harm() {
    let store = MemoryStore::new();
    let (long, short) = (log(0..20), log(0..12));
    let (a, b) = (store.gated(), store.gated());
    // Request by request, in turn.
    let in_turn = async {
        loop {
            for attempt in [&a, &b] {
                attempt.grant();
                tokio::task::yield_now().await;
            }
        }
    };
    let both = async { tokio::join!(deliver(&a, &long), deliver(&b, &short)) };
    let (a, b) = tokio::select! {
        both = both => both,
        () = in_turn => unreachable!(),
    };
    assert_eq!(
        a.unwrap().ranges_adopted + b.unwrap().ranges_adopted,
        1,
        "the second one meets what the first has stored"
    );
    assert_eq!(offsets(&store.bucket()), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stored_range_that_the_ledger_does_not_know_is_adopted() {
    let store = MemoryStore::new();
    // Ledger GET, LIST, ledger PUT, HEAD where a first record in the future would have led, object PUT; then the advance fails.
    deliver(&store.dying(5, false), &log(0..10)).await.unwrap_err();
    assert_eq!(ledger(&store).next_offset, 0);
    let report = deliver(&store, &log(0..15)).await.unwrap();
    assert_eq!((report.ranges_adopted, report.objects_written), (1, 1));
    assert_eq!(offsets(&store.bucket()), (0..15).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_adopted_range_must_begin_with_the_very_same_record() {
    let store = MemoryStore::new();
    deliver(&store.dying(5, false), &log(0..10)).await.unwrap_err();
    let other: Vec<_> = (0..10).map(|o| record(o, HOUR + 77 + o)).collect();
    let stopped = message(deliver(&store, &other).await);
    assert!(
        stopped.contains("another log is stored there") && stopped.contains("freshet ledger reset texts 0"),
        "{stopped}"
    );
}

#[tokio::test]
async fn every_kind_of_poison_is_a_dead_letter_kept_whole() {
    let deep = "[".repeat(100_000);
    let values: [Option<&[u8]>; 11] = [
        None,
        Some(b""),
        Some(b"not json"),
        Some(b"[1,2]"),
        Some(b"null"),
        Some(b"{}"),
        Some(br#"{"text":null}"#),
        Some(br#"{"text":7}"#),
        Some(b"{\"text\":\"\xff\xfe\"}"),
        Some(br#"{"text":"a"} trailing"#),
        Some(deep.as_bytes()),
    ];
    let mut records: Vec<_> = values.iter().zip(1..).map(|(v, offset)| poison(offset, HOUR + offset, *v)).collect();
    records.insert(0, record(0, HOUR));
    records.push(record(12, HOUR + 12));
    let store = MemoryStore::new();
    let report = deliver(&store, &records).await.unwrap();
    assert_eq!((report.rows, report.dead_letters), (2, 11));
    let letters = dead_letter_objects(&store.bucket());
    for (value, letter) in values.iter().zip(&letters) {
        let payload = letter.payload.as_ref().map(|p| base64_simd::STANDARD.decode_to_vec(p).unwrap());
        assert_eq!(payload.as_deref(), *value);
        assert!(!letter.error.is_empty());
        assert_eq!(letter.stage, "decode");
    }
    assert_eq!(letters[0].id, "texts+0+e0+1");
}

#[tokio::test]
async fn a_value_that_is_not_base64_is_a_dead_letter() {
    let store = MemoryStore::new();
    let text = String::from_utf8(event("texts", 0, &log(0..2))).unwrap();
    let broken = text.replacen(r#""value":"ey"#, r#""value":"!!"#, 1);
    assert_ne!(text, broken);
    let report = consumer(ndjson(), &store).handle(broken.as_bytes(), &Attempt::at(NOW)).await.unwrap();
    assert_eq!((report.rows, report.dead_letters), (1, 1));
}

#[tokio::test]
async fn a_batch_of_nothing_but_poison_still_writes_its_guard() {
    let store = MemoryStore::new();
    let bad: Vec<_> = (0..5).map(|o| poison(o, HOUR + o, None)).collect();
    let report = deliver(&store, &bad).await.unwrap();
    assert_eq!((report.rows, report.objects_written, report.dead_letters), (0, 1, 5));
    assert_eq!(ledger(&store).next_offset, 5);
    deliver(&store, &log(0..8)).await.unwrap();
    assert_eq!(offsets(&store.bucket()), [5, 6, 7]);
}

#[tokio::test]
async fn an_event_without_records_is_a_clean_no_op() {
    let store = MemoryStore::new();
    assert_eq!(deliver(&store, &[]).await.unwrap(), Report::default());
    assert!(store.bucket().objects.is_empty());
}

#[tokio::test]
async fn an_unknown_topic_and_a_malformed_event_are_refused_in_words() {
    let store = MemoryStore::new();
    let consumer = consumer(ndjson(), &store);
    let other = consumer.handle(&event("others", 0, &log(0..1)), &Attempt::at(NOW)).await;
    assert!(message(other).contains("topic `others`, dataset `texts` reads `texts`"));
    for payload in ["", "null", "[]", "{}", r#"{"eventSource":"aws:kafka","records":[]}"#, r#"{"Records":[]}"#] {
        assert!(message(consumer.handle(payload.as_bytes(), &Attempt::at(NOW)).await).contains("the event is refused"));
    }
}

#[tokio::test]
async fn a_topic_made_anew_stops_the_partition_until_its_reset() {
    // Within the hour and much later.
    for later in [HOUR + 60_000, HOUR + 7 * HOUR_MS] {
        let store = MemoryStore::new();
        deliver(&store, &log(0..10)).await.unwrap();
        let anew: Vec<_> = (0..4).map(|o| record(o, later + o)).collect();
        let stopped = message(deliver(&store, &anew).await);
        assert!(stopped.contains("made anew") && stopped.contains("freshet ledger reset texts 0"), "{stopped}");
        set_ledger(&store, |l| (l.epoch, l.next_offset, l.newest_timestamp) = (1, 0, None));
        deliver(&store, &anew).await.unwrap();
        let stored: Vec<_> = rows(&store.bucket()).into_iter().map(|(id, _)| (id.epoch, id.offset)).collect();
        let expected: Vec<_> = (0..10).map(|o| (0, o)).chain((0..4).map(|o| (1, o))).collect();
        assert_eq!(stored, expected);
    }
}

#[tokio::test]
async fn an_attempt_that_sees_the_epoch_move_stops() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..10)).await.unwrap();
    let old = store.gated();
    let batch = event("texts", 0, &log(10..15));
    let consumer = consumer(ndjson(), &old);
    let attempt = Attempt::at(NOW);
    let attempt = consumer.handle(&batch, &attempt);
    let reset_meanwhile = async {
        for _ in 0..20 {
            // Its ledger is read; the reset comes before its object and its ledger are written.
            old.grant();
            tokio::task::yield_now().await;
            if old.requests() == 1 {
                set_ledger(&store, |l| (l.epoch, l.next_offset, l.newest_timestamp) = (1, 0, None));
            }
        }
    };
    let (result, ()) = tokio::join!(attempt, reset_meanwhile);
    assert!(message(result).contains("epoch went from 0 to 1"));
    assert_eq!((ledger(&store).epoch, ledger(&store).next_offset), (1, 0));
}

#[tokio::test]
async fn an_attempt_that_comes_late_never_moves_the_ledger_back() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..1)).await.unwrap();
    let late = store.gated();
    let batch = event("texts", 0, &log(1..10));
    let consumer = consumer(ndjson(), &late);
    let attempt = Attempt::at(NOW);
    let attempt = consumer.handle(&batch, &attempt);
    let twin = async {
        let mut done = false;
        for _ in 0..20 {
            late.grant();
            tokio::task::yield_now().await;
            // Its object is stored; the twin adopts it, and goes on, before its ledger is written.
            if late.requests() == 2 && !done {
                done = true;
                deliver(&store, &log(1..20)).await.unwrap();
            }
        }
    };
    let (result, ()) = tokio::join!(attempt, twin);
    result.unwrap();
    assert_eq!((ledger(&store).next_offset, ledger(&store).newest_timestamp), (20, Some(HOUR + 19)));
    assert_eq!(offsets(&store.bucket()), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_attempt_that_found_no_ledger_gives_up_when_one_of_a_later_life_came_to_be() {
    // Its ledger's GET has answered that there is none; then a twin stores the first life, and the topic is made anew and reset.
    for seen in [1, 2] {
        let store = MemoryStore::new();
        let old = store.gated();
        let batch = event("texts", 0, &log(0..5));
        let consumer = consumer(ndjson(), &old);
        let attempt = Attempt::at(NOW);
        let attempt = consumer.handle(&batch, &attempt);
        let meanwhile = async {
            let mut done = false;
            for _ in 0..20 {
                old.grant();
                tokio::task::yield_now().await;
                if old.requests() == seen && !done {
                    done = true;
                    deliver(&store, &log(0..5)).await.unwrap();
                    set_ledger(&store, |l| (l.epoch, l.next_offset, l.newest_timestamp) = (1, 0, None));
                }
            }
        };
        let (result, ()) = tokio::join!(attempt, meanwhile);
        assert!(message(result).contains("has come to epoch 1"), "after {seen} requests");
        let stored: Vec<_> = rows(&store.bucket()).into_iter().map(|(id, _)| (id.epoch, id.offset)).collect();
        assert_eq!(stored, (0..5).map(|o| (0, o)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn accept_settles_a_false_alarm() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..10)).await.unwrap();
    let late = [record(9, HOUR + 5_000)];
    assert!(
        message(deliver(&store, &late).await).contains(&format!("accept texts 0 --newest-timestamp {}", HOUR + 5_000))
    );
    set_ledger(&store, |l| l.newest_timestamp = Some(HOUR + 5_000));
    assert_eq!(deliver(&store, &late).await.unwrap().duplicates_dropped, 1);
}

#[tokio::test]
async fn a_lost_ledger_stops_the_partition_and_names_the_cure() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..10)).await.unwrap();
    store.bucket().objects.remove(LEDGER);
    for batch in [log(0..10), log(5..20), log(10..12)] {
        assert!(message(deliver(&store, &batch).await).contains("freshet ledger rebuild texts 0"));
    }
    assert_eq!(offsets(&store.bucket()), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_stops_the_partition() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..10)).await.unwrap();
    store.bucket().objects.get_mut(LEDGER).unwrap().body = "{".into();
    assert!(message(deliver(&store, &log(10..12)).await).contains("cannot be read"));
}

#[tokio::test]
async fn a_format_changed_between_two_attempts_stops_and_stores_nothing_twice() {
    let store = MemoryStore::new();
    deliver(&store.dying(5, false), &log(0..10)).await.unwrap_err();
    let parquet = consumer(dataset("parquet", TEXT_COLUMN), &store);
    let stopped = message(parquet.handle(&event("texts", 0, &log(0..10)), &Attempt::at(NOW)).await);
    assert!(
        stopped.contains("format `json.gz`, not `parquet`") && stopped.contains("freshet ledger format"),
        "{stopped}"
    );
    // NDJSON's codec is part of the extension too.
    let zstd = consumer(dataset("ndjson, codec: zstd", TEXT_COLUMN), &store);
    assert!(message(zstd.handle(&event("texts", 0, &log(0..10)), &Attempt::at(NOW)).await).contains("`json.zst`"));
    deliver(&store, &log(0..10)).await.unwrap();
    assert_eq!(offsets(&store.bucket()), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn another_cluster_and_another_dataset_are_stopped() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..10)).await.unwrap();
    set_ledger(&store, |l| l.cluster = Some("arn:other".into()));
    assert!(message(deliver(&store, &log(10..12)).await).contains("cluster `arn:other`"));
    set_ledger(&store, |l| (l.cluster, l.dataset) = (None, "other".into()));
    assert!(message(deliver(&store, &log(10..12)).await).contains("dataset `other`"));
}

#[tokio::test]
async fn a_new_prefix_is_a_new_lake_with_its_own_ledger() {
    let store = MemoryStore::new();
    deliver(&store.dying(5, false), &log(0..10)).await.unwrap_err();
    let elsewhere = consumer_at(ndjson(), &store, "texts_v2");
    elsewhere.handle(&event("texts", 0, &log(0..12)), &Attempt::at(NOW)).await.unwrap();
    deliver(&store, &log(0..10)).await.unwrap();
    let of = |prefix: &str| store.bucket().objects.keys().filter(|k| k.starts_with(prefix)).count();
    assert_eq!((of("texts/"), of("texts_v2/"), of("_ledger/texts/"), of("_ledger/texts_v2/")), (1, 1, 1, 1));
}

#[tokio::test]
async fn offsets_that_jump_are_counted_and_lie_inside_the_range() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..3)).await.unwrap();
    let report = deliver(&store, &[record(5, HOUR + 5), record(9, HOUR + 9)]).await.unwrap();
    assert_eq!(report.offset_gaps, 2 + 3);
    let keys: Vec<_> = store.bucket().objects.keys().cloned().collect();
    assert!(keys[2].ends_with("+00000000000000000003.json.gz"), "a range starts at the ledger's next offset: {keys:?}");
    assert_eq!(ledger(&store).next_offset, 10);
}

/// Behind its range nobody sees a gap any more: it must be said before, whatever becomes of the attempt.
#[test]
fn a_gap_is_said_before_anything_behind_it_is_stored() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let behind = [record(5, HOUR + 5), record(6, HOUR + 6)];
    for applied in [false, true] {
        // The ledger's GET, the object, the ledger's PUT.
        for at in 0..3 {
            let store = MemoryStore::new();
            runtime.block_on(deliver(&store, &log(0..3))).unwrap();
            let dying = store.dying(at, applied);
            let (died, said) = gaps::said(|| runtime.block_on(deliver(&dying, &behind)));
            died.unwrap_err();
            assert!(offsets(&store.bucket()).len() == 3 || said == [3..=6], "died at request {at}: {said:?}");
            let (retry, again) = gaps::said(|| runtime.block_on(deliver(&store, &behind)));
            assert_eq!(retry.unwrap().offset_gaps, if again.is_empty() { 0 } else { 2 });
            assert_eq!([said, again].concat().first(), Some(&(3..=6)), "died at request {at}, applied: {applied}");
        }
    }
}

/// An attempt has stored its range and died; then its first records expired.
#[tokio::test]
async fn records_that_expire_before_their_range_is_in_the_ledger_stop_the_partition_until_its_rebuild() {
    let store = MemoryStore::new();
    deliver(&store.dying(5, false), &log(0..10)).await.unwrap_err();
    for _ in 0..2 {
        let stopped = message(deliver(&store, &log(4..12)).await);
        assert!(stopped.contains("records expired or were compacted away before they were stored"), "{stopped}");
        assert!(stopped.contains(&format!("delete {LEDGER}, then run `freshet ledger rebuild texts 0`")), "{stopped}");
    }
    store.bucket().objects.remove(LEDGER);
    let target = target();
    let plan = plan::rebuild(&store, &target, Some(("texts".into(), 0)), None).await.unwrap();
    plan.apply(&store).await.unwrap();
    deliver(&store, &log(4..12)).await.unwrap();
    assert_eq!(offsets(&store.bucket()), (0..12).collect::<Vec<_>>());
}

/// The first records of the new topic are no later than the old one's last: they pass for repeats, which are counted. A later
/// timestamp below the old end stops the partition; behind the old end nothing does.
#[tokio::test]
async fn a_topic_made_anew_that_looks_like_the_old_one_is_dropped_and_counted() {
    for behind in [0, 5_000] {
        let store = MemoryStore::new();
        deliver(&store, &log(0..10)).await.unwrap();
        let newest = HOUR + 9 - behind;
        let anew: Vec<_> = (0..4).map(|offset| record(offset, newest)).collect();
        let report = deliver(&store, &anew).await.unwrap();
        assert_eq!((report.rows, report.duplicates_dropped), (0, 4));
        let later = message(deliver(&store, &[record(4, newest), record(5, HOUR + 10)]).await);
        assert!(later.contains("made anew") && later.contains("freshet ledger reset texts 0"), "{later}");
        let beyond: Vec<_> = (4..12).map(|offset| record(offset, newest)).collect();
        let report = deliver(&store, &beyond).await.unwrap();
        assert_eq!((report.rows, report.duplicates_dropped), (2, 6));
    }
}

#[tokio::test]
async fn timestamps_of_the_producers_are_counted() {
    let store = MemoryStore::new();
    let batch = create_time_event("texts", 0, &log(0..3));
    let report = consumer(ndjson(), &store).handle(&batch, &Attempt::at(NOW)).await.unwrap();
    assert_eq!((report.rows, report.create_time_batches), (3, 1));
}

#[tokio::test]
async fn the_first_record_of_a_topic_makes_no_gap() {
    let store = MemoryStore::new();
    assert_eq!(deliver(&store, &log(1000..1003)).await.unwrap().offset_gaps, 0);
}

#[tokio::test]
async fn a_batch_over_two_hours_makes_two_ranges() {
    let store = MemoryStore::new();
    let records: Vec<_> = (0..10).map(|o| record(o, HOUR + o / 6 * HOUR_MS)).collect();
    assert_eq!(deliver(&store, &records).await.unwrap().objects_written, 2);
    assert_eq!(store.bucket().registered, [Directory::of(HOUR), Directory::of(HOUR + HOUR_MS)]);
    assert_eq!(offsets(&store.bucket()), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn timestamps_that_go_back_never_reach_an_earlier_directory() {
    let store = MemoryStore::new();
    deliver(&store, &[record(0, HOUR + 2 * HOUR_MS)]).await.unwrap();
    deliver(&store, &[record(1, HOUR), record(2, HOUR + HOUR_MS), record(3, HOUR + 3 * HOUR_MS)]).await.unwrap();
    assert_eq!(store.bucket().registered, [Directory::of(HOUR + 2 * HOUR_MS), Directory::of(HOUR + 3 * HOUR_MS)]);
    assert_eq!(offsets(&store.bucket()), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_timestamp_in_the_future_is_a_dead_letter_and_moves_nothing() {
    let store = MemoryStore::new();
    let now = HOUR + 10;
    let records = [record(0, HOUR), record(1, now + 5 * HOUR_MS), record(2, HOUR + 2)];
    let report = deliver_at(&store, &records, now).await.unwrap();
    assert_eq!((report.rows, report.dead_letters, report.objects_written), (2, 1, 1));
    assert_eq!(ledger(&store).newest_timestamp, Some(HOUR + 2));
    // The same records again are repeats, not a topic made anew.
    assert_eq!(deliver_at(&store, &records, now).await.unwrap().duplicates_dropped, 3);
    // As the first record of a range it chooses no directory either.
    deliver_at(&store, &[record(3, now + 5 * HOUR_MS), record(4, HOUR + 4)], now).await.unwrap();
    assert_eq!(store.bucket().registered, [Directory::of(HOUR)]);
    assert_eq!(offsets(&store.bucket()), [0, 2, 4]);
}

#[tokio::test]
async fn a_timestamp_about_an_hour_ahead_waits_until_every_clock_agrees() {
    let store = MemoryStore::new();
    let records = [record(0, HOUR + HOUR_MS)];
    assert!(message(deliver_at(&store, &records, HOUR).await).contains("about an hour ahead"));
    deliver_at(&store, &records, HOUR + HOUR_MS / 2).await.unwrap();
    assert_eq!(offsets(&store.bucket()), [0]);
}

#[tokio::test]
async fn glue_down_fails_the_batch_before_any_object_and_up_again_goes_on() {
    let store = MemoryStore::new();
    store.bucket().catalog_down = true;
    assert!(message(deliver(&store, &log(0..5)).await).contains("cannot register"));
    assert!(store.bucket().objects.keys().all(|key| key == LEDGER));
    store.bucket().catalog_down = false;
    deliver(&store, &log(0..7)).await.unwrap();
    assert_eq!(offsets(&store.bucket()), (0..7).collect::<Vec<_>>());
    assert_eq!(store.bucket().registered.len(), 1);
}

#[tokio::test]
async fn one_partition_that_is_stopped_does_not_hold_up_the_others() {
    let store = MemoryStore::new();
    deliver(&store, &log(0..5)).await.unwrap();
    store.bucket().objects.get_mut(LEDGER).unwrap().body = "broken".into();
    let both = event_of(&[("texts", 0, &log(5..9)), ("texts", 1, &log(0..9))]);
    let result = consumer(ndjson(), &store).handle(&both, &Attempt::at(NOW)).await;
    assert!(message(result).contains("texts-0 is stopped"));
    assert_eq!(rows(&store.bucket()).iter().filter(|(id, _)| id.partition == 1).count(), 9);
}

/// The first attempt takes the first record for one in the future, and dies before its ledger moves; hours later it is one
/// like any other, and would lead to another directory.
#[tokio::test]
async fn a_range_that_began_in_the_future_is_found_again_when_that_is_past() {
    let ahead = HOUR + 2 * HOUR_MS;
    let batch = [record(1, ahead), record(2, HOUR + 2), record(3, HOUR + 3)];
    for before in [vec![], vec![record(0, HOUR)]] {
        for at in 0.. {
            let store = MemoryStore::new();
            if !before.is_empty() {
                deliver_at(&store, &before, HOUR).await.unwrap();
            }
            if deliver_at(&store.dying(at, false), &batch, HOUR).await.is_ok() {
                assert!(at > 3, "it died before each request of the attempt");
                break;
            }
            // Where its first range is stored, record 1 is a dead letter for good.
            let stored = store.bucket().objects.keys().filter(|key| key.starts_with("texts/")).count() > before.len();
            // Behind its range the record looks like a topic made anew: a false alarm, which an operator settles.
            if let Err(error) = deliver_at(&store, &batch, ahead).await {
                assert!(error.to_string().contains(&format!("accept texts 0 --newest-timestamp {ahead}")), "{error}");
                set_ledger(&store, |l| l.newest_timestamp = Some(ahead));
                deliver_at(&store, &batch, ahead).await.unwrap();
            }
            let expected: &[i64] = if stored { &[2, 3] } else { &[1, 2, 3] };
            let expected: Vec<_> = before.iter().map(|r| r.offset).chain(expected.iter().copied()).collect();
            assert_eq!(offsets(&store.bucket()), expected, "died before request {at}");
        }
    }
}

#[tokio::test]
async fn an_adopted_range_with_damaged_metadata_stops_the_partition() {
    for end in ["-1", "9223372036854775807", "x"] {
        let store = MemoryStore::new();
        deliver(&store.dying(5, false), &log(0..10)).await.unwrap_err();
        let key = store.bucket().objects.keys().find(|key| key.starts_with("texts/")).unwrap().clone();
        let stored = &mut store.bucket().objects.get_mut(&key).map(|o| std::mem::take(&mut o.metadata)).unwrap();
        stored.insert("end-offset".into(), end.into());
        store.bucket().objects.get_mut(&key).unwrap().metadata = stored.clone();
        // A consumer that believed it would ask for ever.
        assert!(message(deliver(&store.dying(100, false), &log(0..10)).await).contains("texts-0 is stopped"));
    }
}

#[tokio::test]
async fn no_range_is_begun_when_the_time_is_nearly_up() {
    use std::time::Duration;
    let store = MemoryStore::new();
    let (now, batch) = (tokio::time::Instant::now(), event("texts", 0, &log(0..5)));
    let attempt = Attempt::within(NOW, now, now + Duration::from_secs(600));
    assert!(message(consumer(ndjson(), &store).handle(&batch, &attempt).await).contains("time is nearly up"));
    assert!(offsets(&store.bucket()).is_empty());
    // A deadline in the past is an emulator's, and means none.
    consumer(ndjson(), &store).handle(&batch, &Attempt::until(1)).await.unwrap();
}

#[tokio::test]
async fn an_attempt_whose_store_does_not_answer_fails_in_good_time() {
    use std::time::Duration;
    let store = MemoryStore::new();
    let now = tokio::time::Instant::now();
    let attempt = Attempt::within(NOW, now + Duration::from_millis(20), now + Duration::from_millis(30));
    let never = consumer(ndjson(), &store.gated());
    let batch = event("texts", 0, &log(0..5));
    let failed = tokio::time::timeout(Duration::from_secs(5), never.handle(&batch, &attempt)).await;
    assert!(message(failed.expect("an attempt without end")).contains("time is nearly up"));
}
