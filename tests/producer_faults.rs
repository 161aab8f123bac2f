//! The real producer while the API and Kafka fail around it: who was handed out in a whole answer is on the topic or in a dead
//! letter, person by person, and the summary says how many of each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};

use fastrand::Rng;
use localstack::api::{Api, ApiOptions, Fault};
use localstack::stack::{Source, StackConfig};
use serde_json::Value;

use crate::support::kafka::Brokers;
use crate::support::stack::{TestStack, start};

const PEOPLE: ApiOptions = ApiOptions { distinct: true, seed: 7, remaining: None };
/// People of an answer.
const RESULTS: u32 = 20;
/// How long the producer waits for an answer of the API.
const API_TIMEOUT: Duration = Duration::from_secs(2);
/// How long Kafka may take to acknowledge a record.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(3);
/// Answers of the first run before the broker is halted.
const EARLY: [Option<Fault>; 4] = [None, Some(Fault::Incomplete), Some(Fault::CutOff), None];
/// Answers around a halt: somebody has to be on the way to the broker then.
const WELL: [Option<Fault>; 4] = [None, None, None, None];

/// As a person is told from the others: in a record, and in what a dead letter has kept of one.
type Person = (String, String);

fn person_of(record: &Value) -> Person {
    (record["name"].as_str().unwrap().to_owned(), record["address"].as_str().unwrap().to_owned())
}

/// The people by their numbers, from another API that makes the same ones.
async fn everybody(count: u64) -> Vec<Person> {
    let api = Api::start(PEOPLE).await.unwrap();
    let mut people = Vec::new();
    while (people.len() as u64) < count {
        let answer = reqwest_text(&format!("{}?results=5000", api.url())).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        for person in answer["results"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let (name, street) = (&person["name"], &person["location"]["street"]);
            let full = format!("{}. {} {}", text(&name["title"]), text(&name["first"]), text(&name["last"]));
            people.push((full, format!("{}, {}", text(&street["number"]), text(&street["name"]))));
        }
    }
    people.truncate(usize::try_from(count).unwrap());
    let different: BTreeSet<&Person> = people.iter().collect();
    assert_eq!(different.len(), people.len(), "two people cannot be told apart");
    people
}

async fn reqwest_text(url: &str) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

/// The people on the topic, each with how often.
async fn topic_of(stack: &TestStack) -> BTreeMap<Person, u64> {
    let mut people = BTreeMap::new();
    for record in stack.topic().await {
        let record = serde_json::from_slice(&record.value.unwrap()).unwrap();
        *people.entry(person_of(&record)).or_default() += 1;
    }
    people
}

/// The people in the producer's dead letters, each with the stage and the reason.
async fn letters_of(stack: &TestStack) -> BTreeMap<Person, (String, String)> {
    let letters = stack.sql("SELECT stage, error, payload FROM names_dead_letters").await;
    let mut people = BTreeMap::new();
    for letter in letters {
        let text = |name: &str| letter[name].as_str().unwrap().to_owned();
        let payload = base64_simd::STANDARD.decode_to_vec(text("payload")).unwrap();
        let person = person_of(&serde_json::from_slice(&payload).unwrap());
        assert!(people.insert(person, (text("stage"), text("error"))).is_none(), "two letters of one person");
    }
    people
}

fn signal(pid: u32, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "{signal} {pid}");
}

/// What the API does to the next request, and what most requests get.
fn fault(rng: &mut Rng) -> Option<Fault> {
    Some(match rng.u32(..20) {
        0 => Fault::TooManyRequests { retry_after: rng.u64(..2) },
        1 => Fault::ServerError,
        2 => Fault::Html,
        3 => Fault::Truncated,
        4 => Fault::ErrorObject,
        5 => Fault::Slow(Duration::from_millis(rng.u64(50..300))),
        // Longer than the producer waits.
        6 if rng.bool() => Fault::Slow(Duration::from_secs(600)),
        // 10 MB, where half of it is allowed.
        7 => Fault::Oversized(10_000_000),
        8 => Fault::HangUp,
        9 | 10 => Fault::CutOff,
        11 | 12 => Fault::Incomplete,
        _ => return None,
    })
}

fn log_of(stack: &TestStack) -> String {
    std::fs::read_to_string(stack.folder.path().join("producer.log")).unwrap()
}

/// Whether a run's time was up in the middle of its last fetch, as its log says. The API may not have got the request then, or
/// have handed out people whom the producer did not read.
fn was_cut_short(log: &str) -> bool {
    log.contains("the run's time is up")
}

/// How many people were handed out in answers that did not break off.
fn arrived(api: &Api) -> u64 {
    api.served() - api.lost().iter().map(|people| people.end - people.start).sum::<u64>()
}

fn number(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"))
}

fn published(summary: &Value) -> u64 {
    summary["published"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
}

async fn start_stack() -> Option<TestStack> {
    let change = |config: &mut StackConfig| {
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        config.producer = [
            ("RUN_SECONDS", "10".to_owned()),
            ("FETCH_EVERY_SECONDS", "0.1".to_owned()),
            ("API_TIMEOUT_SECONDS", seconds(API_TIMEOUT)),
            ("API_MAX_BODY_BYTES", "5000000".to_owned()),
            ("KAFKA_DELIVERY_TIMEOUT_SECONDS", seconds(DELIVERY_TIMEOUT)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        // No fetch goes on after 7.8 s of it, and what Kafka has not acknowledged after 10.2 s is taken back.
        config.producer_timeout = Duration::from_secs(12);
    };
    start(&Brokers::Embedded, "names", Source::People { options: PEOPLE, results: RESULTS }, change).await
}

/// Each person is where the summary counts them, and each that was handed out is somewhere.
async fn compare(stack: &TestStack, summary: &Value) {
    let api = stack.stack.api.as_ref().unwrap();
    let people = everybody(api.served()).await;
    let (topic, letters) = (topic_of(stack).await, letters_of(stack).await);
    let lost: BTreeSet<u64> = api.lost().into_iter().flatten().collect();
    let unread = if was_cut_short(&log_of(stack)) { api.served().saturating_sub(RESULTS.into()) } else { u64::MAX };
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (number, person) in people.iter().enumerate().map(|(number, person)| (number as u64, person)) {
        let (on_topic, letter) = (topic.get(person).copied().unwrap_or_default(), letters.get(person));
        assert!(on_topic <= 1, "{person:?} is on the topic {on_topic} times");
        let place = match (on_topic, letter) {
            (0, None) if lost.contains(&number) || number >= unread => "not fetched",
            (0, None) => panic!("person {number}, {person:?}, was handed out and is nowhere: {summary}"),
            _ if lost.contains(&number) => panic!("{person:?} was cut off, and came"),
            (1, None) => "published",
            (0, Some((stage, _))) if stage == "transform" => "rejected",
            (0, Some((stage, _))) if stage == "deliver" => "failed",
            // Kafka stored it, and could not say so in time.
            (1, Some((stage, error))) if stage == "deliver" && error.contains("may have been stored") => "failed",
            other => panic!("{person:?}: {other:?}"),
        };
        *counts.entry(place).or_default() += 1;
    }
    let count = |place: &str| counts.get(place).copied().unwrap_or_default();
    assert_eq!(count("published"), published(summary), "{summary}");
    assert_eq!(count("rejected"), number(summary, "rejected"), "{summary}");
    assert_eq!(count("failed"), number(summary, "failed"), "{summary}");
    let fetched = count("published") + count("rejected") + count("failed");
    assert_eq!((fetched, number(summary, "letters_unstored")), (number(summary, "fetched"), 0), "{summary}");
    let _ = writeln!(std::io::stderr(), "producer_faults: {counts:?}, {summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_handed_out_is_on_the_topic_or_in_a_dead_letter_whatever_fails() {
    let seed = fastrand::u64(..1_000_000);
    let seed = std::env::var("PRODUCER_SEED").map_or(seed, |text| text.parse().unwrap());
    let _ = writeln!(std::io::stderr(), "producer_faults: PRODUCER_SEED={seed} makes the same choices");
    let mut rng = Rng::with_seed(seed);
    let Some(stack) = start_stack().await else { return };
    let api = stack.stack.api.as_ref().unwrap();
    let broker = stack.stack.broker_pid().unwrap();

    // The API fails in every way, for as long as the run lasts; the broker is halted in the middle, longer than a delivery may
    // take, and once more while the last records are on their way.
    let mut then_others = |first: [Option<Fault>; 4]| -> Vec<Option<Fault>> {
        first.into_iter().chain((0..100).map(|_| fault(&mut rng))).collect()
    };
    // Two that hand people out early on, whatever the seed; the others may all come while the broker is halted.
    let at_first = then_others(EARLY);
    let (in_the_middle, at_the_end) = (then_others(WELL), then_others(WELL));
    let order = |faults: Vec<Option<Fault>>| {
        api.clear_faults();
        for fault in faults {
            api.fail_next(1, fault.unwrap_or(Fault::Slow(Duration::ZERO)));
        }
    };
    order(at_first);
    let (middle, flush) = (Duration::from_millis(rng.u64(500..2_000)), Duration::from_millis(rng.u64(6_500..7_500)));
    let begin = Instant::now();
    let halt = async |at: Duration, faults: Vec<Option<Fault>>| {
        tokio::time::sleep(at.saturating_sub(begin.elapsed())).await;
        while api.requests() < EARLY.len() as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        order(faults);
        // Whose records are on their way to it now.
        let before = arrived(api);
        while arrived(api) == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        signal(broker, "-STOP");
    };
    let halting = async {
        halt(middle, in_the_middle).await;
        // Kafka's client looks once a second whose time is up.
        tokio::time::sleep(DELIVERY_TIMEOUT + Duration::from_millis(1_500)).await;
        signal(broker, "-CONT");
        halt(flush, at_the_end).await;
        std::future::pending::<()>().await;
    };
    let summary = tokio::select! {
        summary = stack.run_producer() => summary,
        () = halting => unreachable!(),
    };
    signal(broker, "-CONT");
    stack.drained().await;
    compare(&stack, &summary).await;
    // Each answer that was not taken is a request that was tried again, or a fetch that failed: the last one maybe without a request.
    let taken = number(&summary, "fetches") - number(&summary, "fetch_failures");
    let failed = number(&summary, "retries") + number(&summary, "fetch_failures");
    let (requests, expected) = (api.requests(), taken + failed);
    let unsent = was_cut_short(&log_of(&stack)) && requests + 1 == expected;
    assert!(requests == expected || unsent, "{requests} requests: {summary}");
    assert!(number(&summary, "failed") > 0, "the broker was halted in vain: {summary}");
    assert!(number(&summary, "rejected") > 0 && failed > 0, "the API failed in vain: {summary}");
    let on_topic = topic_of(&stack).await;
    stack.drained().await;
    assert_eq!(stack.verify().await, on_topic.len() as u64);

    // The same process once more, and a broker that dies in the middle, while nothing is on its way to it: an answer is late.
    let from = api.served();
    api.clear_faults();
    let requests = api.requests();
    api.fail_next(4, Fault::Slow(Duration::ZERO));
    // The fifth request is given up on, and the one after it is answered when the broker is dead.
    api.fail_next(1, Fault::Slow(API_TIMEOUT * 10));
    api.fail_next(1, Fault::Slow(API_TIMEOUT / 2));
    let (asked, published_before) = (requests + 5, from + 4 * u64::from(RESULTS));
    let log = log_of(&stack).len();
    let killing = async {
        while api.requests() < asked {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // At once: the next answer does not wait for anybody who reads the topic first.
        signal(broker, "-KILL");
        std::future::pending::<()>().await;
    };
    let summary = tokio::select! {
        summary = stack.run_producer() => summary,
        () = killing => unreachable!(),
    };
    let (all, fetched) = (api.served() - from, number(&summary, "fetched"));
    let unread = was_cut_short(&log_of(&stack)[log..]) && fetched + u64::from(RESULTS) == all;
    assert!(fetched == all || unread, "{all} people were handed out: {summary}");
    // The broker's memory is gone, and with it the topic: who was acknowledged has no letter, and who has one is no row.
    let people = everybody(api.served()).await;
    let letters = letters_of(&stack).await;
    let rows: BTreeSet<Person> = stack.sql("SELECT name, address FROM names").await.iter().map(person_of).collect();
    let taken = usize::try_from(from).unwrap()..usize::try_from(from + fetched).unwrap();
    for (number, person) in taken.clone().zip(&people[taken]) {
        let letter = letters.get(person).map(|(stage, _)| stage.as_str());
        let expected = if (number as u64) < published_before { None } else { Some("deliver") };
        assert_eq!(letter, expected, "person {number}, {person:?}: {summary}");
        assert!(letter.is_none() || !rows.contains(person), "person {number}, {person:?}, is a row too: {summary}");
    }
    assert!(from + fetched > published_before, "{summary}");
    assert_eq!(published(&summary), published_before - from, "{summary}");
    assert_eq!(number(&summary, "failed"), from + fetched - published_before, "{summary}");
}
