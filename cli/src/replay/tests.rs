use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pipeline::lake::{
    DataKey, DeadLetter, Directory, FirstRecord, Head, Header, Ledger, Listed, Object, Put, PutRequest, RangeMetadata,
    Store, StoreError, to_ndjson,
};
use tokio::sync::Notify;

use super::journal::{Window, replays};
use super::letters::{REPLAY_FROM, REPLAY_ID, Record};
use super::plan::{LeftOut, Plan, plan};
use super::topic::{Outcome, Spot, Topic};
use super::*;
use crate::Target;
use crate::kafka::Watermarks;
use crate::memory::{self, MemoryStore};

const FIVE: i64 = 1_795_410_000_000;
const ERROR: &str = "the required column `city` is absent";

fn target() -> Target {
    memory::target("json")
}

fn letter(offset: i64) -> DeadLetter {
    let base64 = |text: &str| base64_simd::STANDARD.encode_to_string(text);
    DeadLetter {
        id: format!("t+0+e0+{offset}"),
        dataset: "names".into(),
        stage: "decode".into(),
        error: ERROR.into(),
        topic: "t".into(),
        partition: Some(0),
        epoch: Some(0),
        offset: Some(offset),
        timestamp: FIVE + offset,
        key: Some(base64("key")),
        headers: vec![
            Header { name: "own".into(), value: None },
            Header { name: "own".into(), value: Some(base64("h")) },
        ],
        payload: Some(base64(&format!("value {offset}"))),
    }
}

fn of_producer(stage: &str, error: &str, number: u32) -> DeadLetter {
    let (partition, epoch, offset) = (None, None, None);
    let (id, stage, error) = (format!("run-{number}"), stage.to_owned(), error.to_owned());
    DeadLetter { id, stage, error, partition, epoch, offset, key: None, headers: Vec::new(), ..letter(0) }
}

fn place_letters(store: &MemoryStore, name: &str, letters: &[DeadLetter]) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&to_ndjson(letters)).unwrap();
    store.place(&target().layout.dead_letters(Directory::of(FIVE), name), gzip.finish().unwrap(), Default::default());
}

/// Offsets 0–9 are stored in one object; these are its rows.
fn place_range(store: &MemoryStore, rows: &[i64]) {
    let layout = target().layout;
    let directory = Directory::of(FIVE);
    let body: String =
        rows.iter().map(|offset| format!("{{\"_partition\":0,\"_offset\":{offset},\"_epoch\":0}}\n")).collect();
    let key = DataKey { directory, topic: "t".into(), partition: 0, epoch: 0, start: 0, extension: "json".into() };
    let metadata = RangeMetadata {
        end: 9,
        records: rows.len() as u64,
        dead_letters: 10 - rows.len() as u64,
        newest_timestamp: Some(FIVE),
        first: FirstRecord { offset: 0, timestamp: FIVE },
        sha256: String::new(),
    };
    store.place(&layout.data(&key), body, metadata.to_map());
    place_ledger(store, 0);
}

fn place_ledger(store: &MemoryStore, epoch: u32) {
    let ledger = Ledger {
        dataset: "names".into(),
        prefix: "names".into(),
        format: "json".into(),
        cluster: None,
        topic: "t".into(),
        partition: 0,
        epoch,
        next_offset: 10,
        directory: Some(Directory::of(FIVE)),
        newest_timestamp: Some(FIVE),
    };
    store.place(&target().layout.ledger("t", 0), ledger.to_json(), Default::default());
}

/// Letters of offsets 1–5, stored twice, in a lake whose other offsets are rows.
fn lake() -> MemoryStore {
    let store = MemoryStore::default();
    place_range(&store, &[0, 6, 7, 8, 9]);
    let letters: Vec<DeadLetter> = (1..=5).map(letter).collect();
    place_letters(&store, "a", &letters);
    place_letters(&store, "b", &letters[..2]);
    store
}

fn ids(offsets: impl IntoIterator<Item = i64>) -> Vec<String> {
    offsets.into_iter().map(|offset| format!("t+0+e0+{offset}")).collect()
}

async fn planned(store: &impl Store, filter: &Filter) -> Plan {
    plan(store, &target(), filter, &replays(store, &target().layout).await.unwrap()).await.unwrap()
}

/// One partition in memory: it held 10 records before anything was replayed.
#[derive(Default)]
struct MemoryTopic {
    replayed: Mutex<Vec<Record>>,
}

const BEFORE: i64 = 10;

impl MemoryTopic {
    fn ids(&self) -> Vec<String> {
        self.replayed.lock().unwrap().iter().map(|record| record.id.clone()).collect()
    }
}

/// One process: its store and its topic die together.
#[derive(Clone)]
struct Process<'a> {
    store: &'a MemoryStore,
    topic: &'a MemoryTopic,
    requests: Arc<AtomicUsize>,
    dead: Arc<AtomicBool>,
    /// The request to the store with this number is the last; it may take effect all the same.
    dies_at: Option<(usize, bool)>,
    /// Dies when so many records were produced.
    dies_behind: Option<usize>,
    gate: Option<Arc<Gate>>,
    /// The last record of a batch is not acknowledged, but still on its way.
    wire: Option<Arc<Mutex<Option<Record>>>>,
}

#[derive(Default)]
struct Gate {
    reached: Notify,
    open: Notify,
}

impl<'a> Process<'a> {
    fn new(store: &'a MemoryStore, topic: &'a MemoryTopic) -> Process<'a> {
        Process {
            store,
            topic,
            requests: Arc::default(),
            dead: Arc::default(),
            dies_at: None,
            dies_behind: None,
            gate: None,
            wire: None,
        }
    }

    async fn run(&self, filter: &Filter) -> Result<Summary, Error> {
        let target = target();
        let run = Run {
            store: self,
            target: &target,
            topic: self,
            filter,
            pace: PACE,
            owner: "somebody",
            progress: &Progress::new("sent"),
        };
        run.carry_out().await
    }

    /// `Err` in the process that is dead; whether its last request takes effect.
    fn pass(&self, operation: &'static str, key: &str) -> Result<(), (StoreError, bool)> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let error = StoreError { operation, key: key.to_owned(), reason: "dead".into(), advice: "" };
        if self.dead.load(Ordering::SeqCst) {
            return Err((error, false));
        }
        match self.dies_at {
            Some((at, applied)) if number >= at => {
                self.dead.store(true, Ordering::SeqCst);
                Err((error, applied))
            }
            _ => Ok(()),
        }
    }
}

/// Two letters a batch; settled after 1.1 s. A busy machine must come to the end of a batch's second.
const PACE: Pace = Pace {
    rate: 4,
    send_within: Duration::from_secs(1),
    delivery_timeout: Duration::from_millis(50),
    on_the_wire: Duration::from_millis(50),
};

impl Store for Process<'_> {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.pass("GET", key).map_err(|(e, _)| e)?;
        self.store.get(key).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.pass("HEAD", key).map_err(|(e, _)| e)?;
        self.store.head(key).await
    }

    async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
        if let Err((error, applied)) = self.pass("PUT", &request.key) {
            if applied {
                self.store.put(request).await?;
            }
            return Err(error);
        }
        self.store.put(request).await
    }

    async fn list(&self, prefix: &str, limit: Option<usize>) -> Result<Vec<Listed>, StoreError> {
        self.pass("LIST", prefix).map_err(|(e, _)| e)?;
        self.store.list(prefix, limit).await
    }
}

impl Topic for Process<'_> {
    async fn watermarks(&self) -> Result<BTreeMap<i32, Watermarks>, Error> {
        self.pass("GET", "watermarks").map_err(|(e, _)| e)?;
        let high = BEFORE + self.topic.replayed.lock().unwrap().len() as i64;
        Ok(BTreeMap::from([(0, Watermarks { low: 0, high })]))
    }

    async fn replayed(&self, spans: BTreeMap<i32, (i64, i64)>) -> Result<BTreeMap<String, Spot>, Error> {
        self.pass("GET", "records").map_err(|(e, _)| e)?;
        let (from, to) = spans[&0];
        let places = (BEFORE..).zip(self.topic.ids());
        let within = places.filter(|(offset, _)| (from..to).contains(offset));
        Ok(within.map(|(offset, id)| (id, Spot { partition: 0, offset })).collect())
    }

    async fn publish(&self, records: Vec<Record>, window: Window, _: &Progress) -> Result<Vec<Outcome>, Error> {
        if let Some(gate) = &self.gate {
            gate.reached.notify_one();
            gate.open.notified().await;
        }
        let mut outcomes = Vec::new();
        let last = records.len() - 1;
        for (number, record) in records.into_iter().enumerate() {
            if let Some(wire) = self.wire.as_ref().filter(|_| number == last) {
                *wire.lock().unwrap() = Some(record);
                outcomes.push(Outcome::Unknown("no answer".into()));
                continue;
            }
            let mut replayed = self.topic.replayed.lock().unwrap();
            if self.dies_behind == Some(replayed.len()) {
                self.dead.store(true, Ordering::SeqCst);
            }
            if self.dead.load(Ordering::SeqCst) {
                return Err(Error::stopped("dead"));
            }
            outcomes.push(if window.is_open() {
                replayed.push(record);
                Outcome::Stored(Spot { partition: 0, offset: BEFORE - 1 + replayed.len() as i64 })
            } else {
                Outcome::Unknown("late".into())
            });
        }
        Ok(outcomes)
    }
}

/// What must hold when a run came to its end.
async fn check_each_once(store: &MemoryStore, topic: &MemoryTopic, what: &str) {
    let mut on_the_topic = topic.ids();
    on_the_topic.sort();
    assert_eq!(on_the_topic, ids(1..=5), "{what}");
    let replays = replays(store, &target().layout).await.unwrap();
    assert_eq!(replays.done, BTreeSet::from_iter(ids(1..=5)), "{what}");
    assert!(replays.open.is_empty(), "{what}");
}

#[tokio::test]
async fn each_letter_is_replayed_once_with_its_bytes_and_headers_and_never_again() {
    let (store, topic) = (lake(), MemoryTopic::default());
    let process = Process::new(&store, &topic);
    let summary = process.run(&Filter::default()).await.unwrap();
    assert_eq!((summary.replayed, summary.found, summary.refused.len()), (5, 0, 0));
    check_each_once(&store, &topic, "a run").await;
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let headers = [("own", None), ("own", bytes("h")), (REPLAY_ID, bytes("t+0+e0+1")), (REPLAY_FROM, bytes("t/0/0/1"))];
    let expected = Record {
        id: "t+0+e0+1".into(),
        partition: Some(0),
        key: bytes("key"),
        value: bytes("value 1"),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
    };
    assert_eq!(topic.replayed.lock().unwrap()[0], expected);

    let again = planned(&store, &Filter::default()).await;
    assert!(again.letters.is_empty());
    assert_eq!(again.groups[&("decode".to_owned(), ERROR.to_owned())].replayed, 5);
    assert_eq!(process.run(&Filter::default()).await.unwrap(), Summary::default());
    check_each_once(&store, &topic, "a second run").await;
}

#[tokio::test]
async fn a_crash_at_any_request_and_behind_any_record_replays_each_letter_once() {
    let (store, topic) = (lake(), MemoryTopic::default());
    let clean = Process::new(&store, &topic);
    clean.run(&Filter::default()).await.unwrap();
    let requests = clean.requests.load(Ordering::SeqCst);
    let at_request = (0..requests + 2).flat_map(|at| [(Some((at, false)), None), (Some((at, true)), None)]);
    let crashes: Vec<_> = at_request.chain((0..=5).map(|behind| (None, Some(behind)))).collect();
    let count = crashes.len();
    let crash = async |(dies_at, dies_behind): (Option<(usize, bool)>, Option<usize>)| {
        let (store, topic) = (lake(), MemoryTopic::default());
        let what = format!("request {dies_at:?}, behind record {dies_behind:?}");
        let first = Process { dies_at, dies_behind, ..Process::new(&store, &topic) };
        let first = first.run(&Filter::default()).await;
        // The next one crashes as well, at another place; the third comes through.
        let second = Process { dies_at: Some((17, true)), ..Process::new(&store, &topic) };
        let second = second.run(&Filter::default()).await;
        let third = Process::new(&store, &topic).run(&Filter::default()).await;
        assert!(third.is_ok(), "{what}: {first:?}, {second:?}, {third:?}");
        check_each_once(&store, &topic, &what).await;
    };
    futures::future::join_all(crashes.into_iter().map(crash)).await;
    println!("{count} crashes, {requests} requests in a run without one");
}

#[tokio::test]
async fn a_run_that_is_halted_is_taken_over_and_sends_nothing_when_it_wakes() {
    let (store, topic) = (lake(), MemoryTopic::default());
    let gate = Arc::new(Gate::default());
    let filter = Filter::default();
    let halted = Process { gate: Some(gate.clone()), ..Process::new(&store, &topic) };
    let mut halted = Box::pin(halted.run(&filter));
    // Its intent is written. Then it is polled no more, as if it had got SIGSTOP.
    tokio::select! {
        biased;
        ended = &mut halted => panic!("{ended:?}"),
        () = gate.reached.notified() => {}
    }
    let summary = Process::new(&store, &topic).run(&filter).await.unwrap();
    assert_eq!(summary.replayed, 5);
    gate.open.notify_one();
    halted.await.unwrap_err();
    check_each_once(&store, &topic, "both").await;
}

#[tokio::test]
async fn what_arrives_late_of_a_run_that_failed_is_waited_for_and_found() {
    let (store, topic) = (lake(), MemoryTopic::default());
    let (wire, filter) = (Arc::new(Mutex::new(None)), Filter::default());
    let failed = Process { wire: Some(wire.clone()), ..Process::new(&store, &topic) };
    let message = failed.run(&filter).await.unwrap_err().to_string();
    assert!(message.contains("Kafka did not acknowledge 1 letter, the first because: no answer"), "{message}");
    let arrives = async {
        // Long before the next run looks, and behind what it would do at once.
        tokio::time::sleep(PACE.send_within / 10).await;
        topic.replayed.lock().unwrap().push(wire.lock().unwrap().take().unwrap());
    };
    let next = Process::new(&store, &topic);
    let (summary, ()) = tokio::join!(next.run(&filter), arrives);
    let summary = summary.unwrap();
    assert_eq!((summary.replayed, summary.found), (3, 2));
    check_each_once(&store, &topic, "a late record").await;
}

#[tokio::test]
async fn a_second_run_is_refused_while_the_first_is_alive() {
    let (store, topic) = (lake(), MemoryTopic::default());
    let gate = Arc::new(Gate::default());
    let filter = Filter::default();
    let first = Process { gate: Some(gate.clone()), ..Process::new(&store, &topic) };
    let second = Process::new(&store, &topic);
    let refused = async {
        gate.reached.notified().await;
        second.run(&filter).await.unwrap_err().to_string()
    };
    let message = tokio::select! {
        ended = first.run(&filter) => panic!("{ended:?}"),
        message = refused => message,
    };
    assert!(
        message.contains("under way") && message.contains("somebody") && message.contains("Wait for its end"),
        "{message}"
    );
}

#[tokio::test]
async fn what_is_a_row_or_may_become_one_is_left_out_with_the_reason() {
    let store = MemoryStore::default();
    // An attempt that died left a letter for offset 2, which a later one could read; 12 is not behind the ledger.
    place_range(&store, &[0, 2, 6, 7, 8, 9]);
    let letters = [
        letter(1),
        letter(2),
        letter(12),
        DeadLetter { payload: None, ..letter(3) },
        DeadLetter { topic: "other".into(), ..letter(4) },
        of_producer("transform", "email is required and absent", 0),
        of_producer("deliver", "Kafka did not acknowledge it in time; it may have been stored nevertheless", 1),
        of_producer("deliver", "the run's time was up before it was sent", 2),
        of_producer("tomorrow", "?", 3),
    ];
    place_letters(&store, "a", &letters);
    store.place("names_dead_letters/dt=2026-11-23/junk.json.gz", "junk", Default::default());
    let plan = planned(&store, &Filter::default()).await;
    let replayed: Vec<&str> = plan.letters.iter().map(|letter| letter.id.as_str()).collect();
    assert_eq!(replayed, ["run-1", "run-2", "t+0+e0+1"]);
    let expected = [
        LeftOut::Row,
        LeftOut::Undecided,
        LeftOut::Transform,
        LeftOut::Tombstone,
        LeftOut::OtherTopic,
        LeftOut::OtherStage,
    ];
    assert_eq!(plan.left_out, expected.map(|reason| (reason, 1)).into_iter().collect());
    let text = plan.to_text(&target());
    for part in [
        "stage      error",
        "record is a row already",
        "has not stored the range yet",
        "stage transform: it holds what the columns' expressions yielded, not the API's record",
        "Correct the dataset file",
        "Uncertain: 2 letters of stage deliver",
        "junk.json.gz cannot be unpacked",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[tokio::test]
async fn letters_are_chosen_by_stage_error_and_time() {
    let store = lake();
    place_letters(&store, "c", &[of_producer("deliver", "the run's time was up before it was sent", 0)]);
    let taken = async |filter: Filter| {
        let plan = planned(&store, &filter).await;
        plan.letters.into_iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    let all = Filter::default;
    assert_eq!(taken(Filter { stage: Some(Stage::Deliver), ..all() }).await, ["run-0"]);
    assert_eq!(taken(Filter { stage: Some(Stage::Decode), ..all() }).await, ids(1..=5));
    assert_eq!(taken(Filter { error: Some("`city`".into()), ..all() }).await, ids(1..=5));
    assert_eq!(taken(Filter { since: Some(FIVE + 2), until: Some(FIVE + 4), ..all() }).await, ids(2..=3));
    assert_eq!(taken(Filter { since: Some(FIVE + 1), limit: Some(2), ..all() }).await, ids(1..=2));
    assert_eq!(time("2026-11-23").unwrap(), 1_795_392_000_000);
    assert_eq!(time("2026-11-23T05:06:07Z").unwrap(), 1_795_410_367_000);
    assert!(time("yesterday").unwrap_err().contains("2026-11-23"));
}

#[tokio::test]
async fn a_letter_that_was_replayed_and_failed_again_is_shown_as_such() {
    let store = lake();
    let id = Header { name: REPLAY_ID.into(), value: Some(base64_simd::STANDARD.encode_to_string("t+0+e0+1")) };
    place_letters(&store, "c", &[DeadLetter { headers: vec![id.clone(), id], ..letter(3) }]);
    // The same id as one that is there: stored twice, with other headers. The first counts.
    assert!(!planned(&store, &Filter::default()).await.to_text(&target()).contains("Replayed before"));
    let store = MemoryStore::default();
    place_range(&store, &[]);
    let id = Header { name: REPLAY_ID.into(), value: None };
    place_letters(&store, "c", &[DeadLetter { headers: vec![id.clone(), id], ..letter(3) }]);
    let text = planned(&store, &Filter::default()).await.to_text(&target());
    assert!(text.contains("Replayed before: 1 letter, up to 2 times, and failed again"), "{text}");
}

#[tokio::test]
async fn an_unfinished_run_is_refused_where_its_topic_is_another_one() {
    let (store, topic) = (lake(), MemoryTopic::default());
    let crashed = Process { dies_behind: Some(1), ..Process::new(&store, &topic) };
    crashed.run(&Filter::default()).await.unwrap_err();
    // In the epoch that `ledger reset` began, the same letters belong to the life before.
    place_ledger(&store, 1);
    let message = Process::new(&store, &topic).run(&Filter::default()).await.unwrap_err().to_string();
    assert!(message.contains("made anew") && message.contains("delete _replay/names/"), "{message}");
    place_ledger(&store, 0);
    Process::new(&store, &topic).run(&Filter::default()).await.unwrap();
    check_each_once(&store, &topic, "the old epoch").await;
}

#[tokio::test]
async fn what_is_shown_changes_nothing_and_names_what_an_earlier_run_left() {
    let (store, topic) = (lake(), MemoryTopic::default());
    let crashed = Process { dies_behind: Some(1), ..Process::new(&store, &topic) };
    crashed.run(&Filter::default()).await.unwrap_err();
    let before = store.list("", None).await.unwrap();
    let plan = planned(&store, &Filter { error: Some("another".into()), ..Filter::default() }).await;
    let text = plan.to_text(&target());
    assert!(text.contains("An earlier run did not finish: 2 letters."), "{text}");
    assert_eq!(planned(&store, &Filter::default()).await.left_out[&LeftOut::Unfinished], 2);
    assert_eq!(store.list("", None).await.unwrap(), before);
}

#[test]
fn the_command_that_does_it_can_be_pasted() {
    let args = ["freshet", "replay", "--error", "column `city`", "--kafka", "b:9092"].map(str::to_owned);
    assert_eq!(command_line(args.into_iter()), "freshet replay --error 'column `city`' --kafka b:9092 --yes");
}
