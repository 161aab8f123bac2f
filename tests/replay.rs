//! Dead letters go back to the topic and become rows: real functions, broker and S3, the real command, and runs that die at
//! each step.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64_simd::STANDARD;
use freshet::kafka::Watermarks;
use freshet::progress::Progress;
use freshet::replay::carry_out::{Run, Summary};
use freshet::replay::journal::{Pace, Window, replays};
use freshet::replay::letters::{REPLAY_FROM, REPLAY_ID, Record};
use freshet::replay::plan::Filter;
use freshet::replay::topic::{KafkaTopic, Outcome, Spot, Topic};
use freshet::{Error, Lake};
use localstack::api::ApiOptions;
use localstack::stack::{BUCKET, Source};
use pipeline::lake::{
    Condition, DeadLetter, Directory, Head, Listed, Object, Put, PutRequest, S3Store, Store, StoreError, to_ndjson,
};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::support::kafka::{Brokers, on_each_broker};
use crate::support::stack::{OnTopic, TestStack, binaries, start};

on_each_broker!(
    dead_letters_become_rows_once_the_dataset_file_is_corrected,
    a_replay_that_dies_at_any_step_is_finished_by_the_next_one_and_stores_each_letter_once,
);

const ORIGINAL: &str = "name: city, type: string, expression";
const WRONG: &str = "name: city, type: string, required: true, expression";

/// The dataset `names`, which asks for a city that not everybody has.
async fn start_with_a_wrong_file(brokers: &Brokers, folder: &Path, partitions: &str) -> Option<TestStack> {
    let text = include_str!("../datasets/names.yaml");
    assert!(text.contains(ORIGINAL));
    let dataset = folder.join("names.yaml");
    std::fs::write(&dataset, text.replace(ORIGINAL, WRONG)).unwrap();
    let empty = Source::People { options: ApiOptions { remaining: Some(0), ..ApiOptions::default() }, results: 10 };
    let partitions = vec![("TOPIC_PARTITIONS".to_owned(), partitions.to_owned())];
    start(brokers, &dataset.display().to_string(), empty, |config| config.producer = partitions).await
}

/// The file is corrected, and every consumer that has read the wrong one is gone.
async fn correct(stack: &TestStack, folder: &Path) {
    std::fs::write(folder.join("names.yaml"), include_str!("../datasets/names.yaml")).unwrap();
    while stack.stack.consumer.kill_one().await.is_some() {}
}

fn person(email: &str, city: Option<&str>) -> Vec<u8> {
    let city = city.map_or_else(String::new, |city| format!(r#","city":"{city}""#));
    format!(r#"{{"name":"A","email":"{email}"{city}}}"#).into_bytes()
}

/// With a key and headers of its own.
async fn publish(stack: &TestStack, values: &[Vec<u8>]) {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", stack.stack.bootstrap_servers());
    let producer: FutureProducer = config.create().unwrap();
    for (number, value) in values.iter().enumerate() {
        let key = format!("key {number}");
        let headers = OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some(&[0, 255, number as u8]) })
            .insert(Header { key: "empty", value: Some(b"") });
        let record = FutureRecord::to(&stack.stack.dataset.topic.name).key(&key).payload(value).headers(headers);
        producer.send(record, Duration::from_secs(10)).await.unwrap();
    }
}

/// The real command on the stack's lake and topic.
fn freshet(stack: &TestStack, folder: &Path, arguments: &[&str]) -> Output {
    command(stack, folder, arguments).output().unwrap()
}

fn command(stack: &TestStack, folder: &Path, arguments: &[&str]) -> Command {
    let (binaries, _) = binaries().unwrap();
    let s3 = &stack.stack.s3;
    let mut command = Command::new(binaries.join("freshet"));
    command
        .args(["replay", "--kafka", &stack.stack.bootstrap_servers()])
        .args(arguments)
        .env("DATASET", folder.join("names.yaml"))
        .env("S3_BUCKET", BUCKET)
        .env("S3_ENDPOINT", s3.endpoint())
        .env("S3_PATH_STYLE_ACCESS", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", s3.access_key())
        .env("AWS_SECRET_ACCESS_KEY", s3.secret_key())
        .stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn letter_ids(stack: &TestStack) -> Vec<String> {
    let rows = stack.sql("SELECT DISTINCT id FROM names_dead_letters ORDER BY id").await;
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

async fn people(stack: &TestStack) -> Vec<Value> {
    stack.sql("SELECT email, count(*) AS n FROM names GROUP BY email ORDER BY email").await
}

fn each_once(emails: impl IntoIterator<Item = String>) -> Vec<Value> {
    emails.into_iter().map(|email| json!({"email": email, "n": 1})).collect()
}

/// A letter that the producer left.
async fn place_producers_letter(store: &S3Store, lake: &Lake, letter: &DeadLetter) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&to_ndjson(std::slice::from_ref(letter))).unwrap();
    let request = PutRequest {
        key: lake.target.layout.dead_letters(Directory::of(letter.timestamp), &format!("producer+{}", letter.id)),
        body: gzip.finish().unwrap().into(),
        condition: Condition::Absent,
        content_type: "application/x-ndjson",
        metadata: Default::default(),
    };
    assert!(matches!(store.put(request).await.unwrap(), Put::Stored { .. }));
}

async fn dead_letters_become_rows_once_the_dataset_file_is_corrected(brokers: &Brokers) {
    let folder = tempfile::tempdir().unwrap();
    let Some(stack) = start_with_a_wrong_file(brokers, folder.path(), "3").await else { return };
    let email = |number: usize| format!("p{number}@example.com");
    let mut values: Vec<Vec<u8>> = (0..6).map(|number| person(&email(number), None)).collect();
    values.extend([person(&email(6), Some("Bern")), person(&email(7), Some("Bern")), b"junk".to_vec()]);
    publish(&stack, &values).await;
    stack.drained().await;
    assert_eq!(people(&stack).await, each_once((6..8).map(email)));
    assert_eq!(letter_ids(&stack).await.len(), 7);
    let lake = stack.lake().await;
    let delivered = DeadLetter {
        id: "request-1-0".into(),
        dataset: "names".into(),
        stage: "deliver".into(),
        error: "the run's time was up before it could be sent".into(),
        topic: "names_topic".into(),
        partition: None,
        epoch: None,
        offset: None,
        timestamp: pipeline::telemetry::now_ms(),
        key: None,
        headers: Vec::new(),
        payload: Some(STANDARD.encode_to_string(person(&email(8), Some("Bern")))),
    };
    place_producers_letter(&lake.store(), &lake, &delivered).await;
    let transformed = DeadLetter { id: "request-1-1".into(), stage: "transform".into(), ..delivered.clone() };
    place_producers_letter(&lake.store(), &lake, &transformed).await;
    correct(&stack, folder.path()).await;

    // Who only looks changes nothing, neither in the bucket nor on the topic.
    let objects = lake.store().list("", None).await.unwrap();
    let before = stack.topic().await;
    let shown = freshet(&stack, folder.path(), &["--error", "`city`"]);
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown));
    assert!(
        text(&shown).contains("the required column `city` is absent        6                 0         0          6"),
        "{}",
        text(&shown)
    );
    assert!(text(&shown).contains("--error '`city`' --yes\n"), "{}", text(&shown));
    assert_eq!(lake.store().list("", None).await.unwrap(), objects);
    assert_eq!(stack.topic().await, before);

    let done = freshet(&stack, folder.path(), &["--error", "`city`", "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    assert!(text(&done).contains("6 letters replayed.\n"), "{}", text(&done));
    stack.drained().await;
    assert_eq!(people(&stack).await, each_once((0..8).map(email)));
    assert_eq!(stack.verify().await, 8);
    assert_eq!(letter_ids(&stack).await.len(), 9, "no new letter");

    // Bytes, key, partition and headers are the original's; behind them stands where it came from.
    let after = stack.topic().await;
    assert_eq!(after.len(), before.len() + 6);
    let replayed = after.iter().filter(|record| !before.contains(record));
    for record in replayed {
        let of = before.iter().find(|original| original.key == record.key).unwrap();
        let OnTopic { partition, offset, .. } = of;
        let mut headers = of.headers.clone();
        assert_eq!(headers.len(), 2);
        headers.push((REPLAY_ID.into(), Some(format!("names_topic+{partition}+e0+{offset}").into_bytes())));
        headers.push((REPLAY_FROM.into(), Some(format!("names_topic/{partition}/0/{offset}").into_bytes())));
        assert_eq!(record, &OnTopic { offset: record.offset, headers, ..of.clone() });
    }

    // The rest: what the producer could not deliver is a row now, what is no JSON is a letter again, and shown as such. A
    // letter of stage transform is refused by name.
    let rest = freshet(&stack, folder.path(), &["--yes"]);
    assert_eq!(rest.status.code(), Some(0), "{}", text(&rest));
    assert!(text(&rest).contains("2 letters replayed.\n"), "{}", text(&rest));
    assert!(text(&rest).contains("Left out: 1 letter, stage transform: it holds what"), "{}", text(&rest));
    stack.drained().await;
    assert_eq!(people(&stack).await, each_once((0..9).map(email)));
    assert_eq!(stack.verify().await, 9);
    let from =
        |record: &&OnTopic| record.headers.iter().any(|h| h.0 == REPLAY_FROM && h.1.as_deref() == Some(b"names_topic"));
    assert_eq!(stack.topic().await.iter().filter(from).count(), 1);
    let again = freshet(&stack, folder.path(), &[]);
    assert!(text(&again).contains("Replayed before: 1 letter, up to 1 time, and failed again"), "{}", text(&again));
    let nothing = freshet(&stack, folder.path(), &["--error", "`city`", "--yes"]);
    assert_eq!((nothing.status.code(), text(&nothing).ends_with("Nothing to replay.\n")), (Some(0), true));
    stack.stack.stop().await.unwrap();
}

/// Where a run dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    Never,
    /// Its intent is written, and so many records are acknowledged; the others are never sent.
    Behind(usize),
    /// Everything is acknowledged, and not yet marked.
    BeforeTheMark,
    /// It does not die, but is still at work.
    Hangs,
}

/// One process: its store and its topic are gone together.
struct Process {
    store: S3Store,
    topic: KafkaTopic,
    dies: Dies,
    dead: AtomicBool,
}

impl Process {
    fn alive(&self, operation: &'static str, key: &str) -> Result<(), StoreError> {
        match self.dead.load(Ordering::SeqCst) {
            true => Err(StoreError { operation, key: key.to_owned(), reason: "dead".into(), advice: "" }),
            false => Ok(()),
        }
    }

    fn die(&self) -> Error {
        self.dead.store(true, Ordering::SeqCst);
        Error::Stopped("dead".into())
    }
}

impl Store for Process {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.alive("GET", key)?;
        self.store.get(key).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.alive("HEAD", key)?;
        self.store.head(key).await
    }

    async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
        self.alive("PUT", &request.key)?;
        self.store.put(request).await
    }

    async fn list(&self, prefix: &str, limit: Option<usize>) -> Result<Vec<Listed>, StoreError> {
        self.alive("LIST", prefix)?;
        self.store.list(prefix, limit).await
    }
}

impl Topic for Process {
    async fn watermarks(&self) -> Result<BTreeMap<i32, Watermarks>, Error> {
        self.topic.watermarks().await
    }

    async fn replayed(&self, spans: BTreeMap<i32, (i64, i64)>) -> Result<BTreeMap<String, Spot>, Error> {
        self.topic.replayed(spans).await
    }

    async fn publish(
        &self,
        mut records: Vec<Record>,
        window: Window,
        progress: &Progress,
    ) -> Result<Vec<Outcome>, Error> {
        match self.dies {
            Dies::Never => self.topic.publish(records, window, progress).await,
            Dies::Behind(count) => {
                records.truncate(count);
                let outcomes = self.topic.publish(records, window, progress).await?;
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored(_))), "{outcomes:?}");
                Err(self.die())
            }
            Dies::BeforeTheMark => {
                let outcomes = self.topic.publish(records, window, progress).await?;
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored(_))), "{outcomes:?}");
                self.die();
                Ok(outcomes)
            }
            Dies::Hangs => std::future::pending().await,
        }
    }
}

const PACE: Pace = Pace {
    rate: 1_000,
    send_within: Duration::from_secs(3),
    delivery_timeout: Duration::from_secs(3),
    on_the_wire: Duration::ZERO,
};

async fn replay(stack: &TestStack, filter: &Filter, dies: Dies) -> Result<Summary, Error> {
    let lake = stack.lake().await;
    let config = freshet::kafka::connect(&stack.stack.bootstrap_servers(), &lake.sdk).await.unwrap();
    let topic = KafkaTopic::new(config, &lake.target.topic, PACE).unwrap();
    let process = Process { store: lake.store(), topic, dies, dead: AtomicBool::new(false) };
    let run = Run {
        store: &process,
        target: &lake.target,
        topic: &process,
        filter,
        pace: PACE,
        owner: "a test",
        progress: &Progress::new("sent"),
    };
    run.carry_out().await
}

async fn a_replay_that_dies_at_any_step_is_finished_by_the_next_one_and_stores_each_letter_once(brokers: &Brokers) {
    let folder = tempfile::tempdir().unwrap();
    let Some(stack) = start_with_a_wrong_file(brokers, folder.path(), "1").await else { return };
    let email = |number: usize| format!("p{number:02}@example.com");
    let values: Vec<Vec<u8>> = (0..20).map(|number| person(&email(number), None)).collect();
    publish(&stack, &values).await;
    stack.drained().await;
    assert_eq!(letter_ids(&stack).await.len(), 20);
    correct(&stack, folder.path()).await;

    let five = Filter { limit: Some(5), ..Filter::default() };
    let none = Filter { error: Some("no error has this text".into()), ..Filter::default() };
    let crashes = [(Dies::Behind(0), (5, 0)), (Dies::Behind(2), (3, 2)), (Dies::BeforeTheMark, (0, 5))];
    for (round, (dies, (replayed, found))) in (1..).zip(crashes) {
        replay(&stack, &five, dies).await.unwrap_err();
        let summary = replay(&stack, &none, Dies::Never).await.unwrap();
        assert_eq!((summary.replayed, summary.found, summary.refused.len()), (replayed, found, 0), "{dies:?}");
        stack.drained().await;
        assert_eq!(people(&stack).await, each_once((0..5 * round).map(email)), "{dies:?}");
        assert_eq!(stack.verify().await, 5 * round as u64, "{dies:?}");
    }

    // While one is at work, another is refused; when the first has died, the other takes over.
    let everything = Filter::default();
    let message = {
        let at_work = replay(&stack, &everything, Dies::Hangs);
        let refused = async {
            let lake = stack.lake().await;
            while replays(&lake.store(), &lake.target.layout).await.unwrap().open.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            replay(&stack, &everything, Dies::Never).await.unwrap_err().to_string()
        };
        tokio::select! {
            ended = at_work => panic!("{ended:?}"),
            message = refused => message,
        }
    };
    assert!(message.contains("another replay is under way") && message.contains("Wait for its end"), "{message}");
    let summary = replay(&stack, &everything, Dies::Never).await.unwrap();
    assert_eq!((summary.replayed, summary.found), (5, 0));
    stack.drained().await;
    assert_eq!(people(&stack).await, each_once((0..20).map(email)));
    assert_eq!(stack.verify().await, 20);
    let lake = stack.lake().await;
    let replays = replays(&lake.store(), &lake.target.layout).await.unwrap();
    assert_eq!((replays.done.len(), replays.open.len()), (20, 0));
    assert_eq!(stack.topic().await.len(), 40);
    stack.stack.stop().await.unwrap();
}

/// As if the last sign of life of a process that was killed were an hour old: of one that is gone, nothing is under way on this
/// machine, and the next one need not wait a minute to know.
async fn age_what_it_left(lake: &Lake) {
    const HOUR_MS: i64 = 3_600_000;
    let store = lake.store();
    for Listed { key, .. } in store.list(&lake.target.layout.replays(), None).await.unwrap() {
        let object = store.get(&key).await.unwrap().unwrap();
        let mut body: Value = serde_json::from_slice(&object.body).unwrap();
        for time in ["renewed", "written"] {
            if let Some(found) = body.get(time).and_then(Value::as_i64) {
                body[time] = json!(found - HOUR_MS);
            }
        }
        let request = PutRequest {
            key,
            body: serde_json::to_vec(&body).unwrap().into(),
            condition: Condition::Matches(object.etag),
            content_type: "application/json",
            metadata: Default::default(),
        };
        assert!(matches!(store.put(request).await.unwrap(), Put::Stored { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_again_and_again_is_finished_and_stores_each_letter_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(stack) = start_with_a_wrong_file(&Brokers::Embedded, folder.path(), "3").await else { return };
    let email = |number: usize| format!("p{number:03}@example.com");
    publish(&stack, &(0..300).map(|number| person(&email(number), None)).collect::<Vec<_>>()).await;
    stack.drained().await;
    assert_eq!(letter_ids(&stack).await.len(), 300);
    correct(&stack, folder.path()).await;
    let (lake, before) = (stack.lake().await, stack.topic().await.len());

    // More than a second of sending each: a process dies before it, within, or behind it. So few that all tries together leave letters.
    let arguments = ["--rate", "8", "--limit", "10", "--yes"];
    let (mut tries, mut killed_at_work) = (0, 0);
    while tries < 6 || killed_at_work == 0 {
        assert!(tries < 30, "killed in vain {tries} times");
        tries += 1;
        let on_topic = stack.topic().await.len();
        let mut process = command(&stack, folder.path(), &arguments).stdout(Stdio::null()).spawn().unwrap();
        // Longer from try to try: a process may take seconds to begin.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..2_000 + 100 * tries))).await;
        let ended = process.try_wait().unwrap().is_some();
        process.kill().unwrap();
        process.wait().unwrap();
        let sent = stack.topic().await.len() - on_topic;
        killed_at_work += u32::from(!ended && sent > 0);
        age_what_it_left(&lake).await;
    }
    let mut found = false;
    loop {
        let last = freshet(&stack, folder.path(), &["--rate", "1000", "--yes"]);
        assert_eq!(last.status.code(), Some(0), "{}", text(&last));
        found |= text(&last).contains("found on the topic");
        if text(&last).ends_with("Nothing to replay.\n") {
            break;
        }
        stack.drained().await;
    }
    println!("{killed_at_work} of {tries} were killed at work, found on the topic by the last: {found}");
    stack.drained().await;
    assert_eq!(people(&stack).await, each_once((0..300).map(email)));
    assert_eq!(stack.verify().await, 300);
    assert_eq!(stack.topic().await.len(), before + 300);
    let replays = replays(&lake.store(), &lake.target.layout).await.unwrap();
    assert_eq!((replays.done.len(), replays.open.len()), (300, 0));
    stack.stack.stop().await.unwrap();
}
