//! The API as its callers meet it, over a lake in a folder and a pipeline that is only played.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use localstack::event_source::{Attempt, AttemptOutcome, EventSourceConfig, EventSourceStats};
use localstack::s3::S3Server;
use localstack::server::Server;
use localstack::stack::BUCKET;
use pipeline::config::{LakeConfig, S3Config};
use pipeline::kafka::KafkaConfig;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::live::GONE;
use super::view::Frame;
use super::*;
use crate::event_source::SourceStatus;
use crate::status::document::{self, Function, Functions, Partition, Schedule, Section, Status, Topic};
use crate::status::look::{Doings, assemble};
use crate::status::metrics::Metrics;
use crate::status::source::{Pipeline, Role};
use crate::{Lake, kafka, status};

/// Answers at once, and counts how often it is asked.
struct Played {
    pipeline: Arc<Pipeline>,
    asked: AtomicU64,
    runs: AtomicU64,
    gone: AtomicBool,
    _s3: S3Server,
    _folder: tempfile::TempDir,
}

impl Played {
    async fn new() -> Arc<Played> {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3Server::start(folder.path(), BUCKET).await.unwrap();
        let dataset = pipeline::datasets::load("names").unwrap();
        let credentials = aws_credential_types::Credentials::new(s3.access_key(), s3.secret_key(), None, None, "test");
        let region = aws_config::Region::from_static("us-east-1");
        let sdk = pipeline::aws::loader().region(region).credentials_provider(credentials).load().await;
        let config = LakeConfig {
            bucket: BUCKET.to_owned(),
            prefix: "names".to_owned(),
            ledger_prefix: "_ledger".to_owned(),
            s3: S3Config { region: None, endpoint: Some(s3.endpoint()), path_style: true },
        };
        let lake = Lake::new(dataset, &config, sdk, None);
        // Nobody listens there.
        let polled = Arc::new(EventSourceConfig::new("names_topic", "127.0.0.1:1", "freshet-names"));
        Arc::new(Played {
            pipeline: Arc::new(Pipeline { lake, polled }),
            asked: AtomicU64::new(0),
            runs: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            _s3: s3,
            _folder: folder,
        })
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn function(name: &str) -> Function {
    Function { name: name.to_owned(), state: "Active".to_owned(), memory_mib: None, timeout_seconds: None }
}

fn attempt(id: u64, outcome: AttemptOutcome) -> Attempt {
    let ended = outcome != AttemptOutcome::Running;
    Attempt {
        id,
        started: pipeline::telemetry::now_ms() - 1_000,
        duration_ms: ended.then_some(40),
        partition: 0,
        offset: 7,
        records: 10,
        bytes: 5_000,
        attempt: if outcome == AttemptOutcome::Failed { 2 } else { 1 },
        outcome,
        error: (outcome == AttemptOutcome::Failed).then(|| "<killed> & gone".to_owned()),
    }
}

#[async_trait]
impl Source for Played {
    async fn pipeline(&self) -> Result<Arc<Pipeline>, Error> {
        Ok(self.pipeline.clone())
    }

    async fn kafka(&self) -> Result<KafkaConfig, Error> {
        kafka::connect_embedded(&self.pipeline.polled.bootstrap_servers, &self.pipeline.lake.sdk).await
    }

    fn every(&self) -> Duration {
        Duration::from_millis(200)
    }

    async fn functions(&self) -> Result<Functions, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(Functions { producer: function("producer"), consumer: function("consumer") })
    }

    async fn schedule(&self, runs: &Metrics) -> Result<Schedule, String> {
        Ok(Schedule { runs: runs.invocations, expression: Some("every 10 s".to_owned()), ..Schedule::default() })
    }

    fn since(&self) -> i64 {
        0
    }

    async fn written(&self, _role: Role) -> Result<String, String> {
        Ok(String::new())
    }

    async fn event_source(&self) -> Result<Option<SourceStatus>, String> {
        if self.gone.load(Ordering::SeqCst) {
            return Err("it does not run: look into its log".to_owned());
        }
        let attempts =
            [attempt(1, AttemptOutcome::Ok), attempt(2, AttemptOutcome::Failed), attempt(3, AttemptOutcome::Running)];
        let stats = EventSourceStats {
            invocations: 3,
            retries: 1,
            attempts: attempts.into(),
            assigned: [(0, vec![0])].into(),
            ..EventSourceStats::default()
        };
        Ok(Some(SourceStatus {
            function_name: "consumer".to_owned(),
            topic: "names_topic".to_owned(),
            consumer_group_id: "freshet-names".to_owned(),
            stats,
        }))
    }

    async fn start_run(&self) -> Result<bool, Error> {
        // The first goes on for ever.
        Ok(self.runs.fetch_add(1, Ordering::SeqCst) == 0)
    }
}

async fn start() -> (Arc<Played>, Server, reqwest::Client) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let played = Played::new().await;
    let dataset = played.pipeline.lake.dataset.clone();
    let server = serve(([127, 0, 0, 1], 0).into(), &["page:80".to_owned()], &dataset, played.clone()).await.unwrap();
    (played, server, reqwest::Client::builder().no_proxy().build().unwrap())
}

async fn json(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn only_its_own_names_and_its_own_pages_are_answered() {
    let (played, server, client) = start().await;
    let style =
        async |host: &str| client.get(format!("{}/page.css", server.url())).header("host", host).send().await.unwrap();
    for host in ["localhost", "127.0.0.1:9999", "[::1]:8080", "page:8080", "LOCALHOST"] {
        assert_eq!(style(host).await.status(), StatusCode::OK, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "pages"] {
        let answer = style(host).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{host}");
        assert!(json(answer).await["error"].as_str().unwrap().contains("localhost"));
    }
    let own = server.url();
    let post =
        async |origin: &str| client.post(format!("{own}/api/runs")).header("origin", origin).send().await.unwrap();
    for origin in ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:1"] {
        assert_eq!(post(origin).await.status(), StatusCode::FORBIDDEN, "{origin}");
    }
    assert_eq!(played.runs.load(Ordering::SeqCst), 0);
    assert_eq!(post(&own).await.status(), StatusCode::ACCEPTED);
    let style = style("localhost").await;
    let policy = style.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
}

#[tokio::test]
async fn a_run_is_started_once_and_refused_while_it_is_alive() {
    let (_, server, client) = start().await;
    let post = async || client.post(format!("{}/api/runs", server.url())).send().await.unwrap();
    assert_eq!(post().await.status(), StatusCode::ACCEPTED);
    let again = post().await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    assert_eq!(json(again).await, json!({"error": "a run is under way: wait for its end"}));
}

#[tokio::test]
async fn queries_only_read_and_their_answers_are_bounded() {
    let (_, server, client) = start().await;
    let query = async |sql: &str| {
        let request = client.post(format!("{}/api/query", server.url())).header("content-type", "application/json");
        request.body(json!({"sql": sql}).to_string()).send().await.unwrap()
    };
    let answer =
        json(query("SELECT 1 AS one, CAST(NULL AS VARCHAR) AS nothing, 'a<b' AS text, NULL AS untyped").await).await;
    assert_eq!(answer["rows"], json!([["1", null, "a<b", null]]));
    assert_eq!(answer["columns"][0], json!({"name": "one", "type": "Int64", "numeric": true}));
    assert_eq!(answer["cut"], false);
    for sql in [
        "DROP TABLE names",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO names SELECT * FROM names",
        "COPY (SELECT 1) TO '/tmp/freshet-page-test.csv'",
        "SET datafusion.execution.batch_size = 1",
        "CREATE EXTERNAL TABLE passwords STORED AS CSV LOCATION '/etc/passwd'",
        "SELECT 1; DROP TABLE names",
    ] {
        let answer = query(sql).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{sql}");
        let error = json(answer).await["error"].as_str().unwrap().to_owned();
        assert!(
            error.contains("Write a SELECT") || error.contains("There is:") || error.contains("a single SQL statement"),
            "{sql}: {error}"
        );
    }
    assert!(!std::path::Path::new("/tmp/freshet-page-test.csv").exists());
    let unknown = json(query("SELECT * FROM pepole").await).await;
    assert!(unknown["error"].as_str().unwrap().contains("names("), "{unknown}");
    // 4,096 rows, and each text of 4,000 characters in another one.
    let digits = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7)) AS";
    let many = format!("SELECT 1 FROM {digits} a(n), {digits} b(n), {digits} c(n), {digits} d(n)");
    let answer = json(query(&many).await).await;
    assert_eq!((answer["rows"].as_array().unwrap().len(), &answer["cut"]), (sql::ROWS, &json!(true)));
    let long = format!("SELECT repeat('x', 4000) FROM {digits} a(n), {digits} b(n), {digits} c(n), {digits} d(n)");
    let answer = json(query(&long).await).await;
    assert!(answer["rows"].as_array().unwrap().len() <= 501 && answer["cut"] == true);
    let url = format!("{}/api/query", server.url());
    let no_json = client.post(&url).body("SELECT 1").send().await.unwrap();
    assert_eq!(no_json.status(), StatusCode::BAD_REQUEST);
    assert!(json(no_json).await["error"].as_str().unwrap().contains("application/json"));
    let wrong = client.get(format!("{}/api/dead-letters?limit=all", server.url())).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let nowhere = client.get(format!("{}/api/elsewhere", server.url())).send().await.unwrap();
    assert_eq!((nowhere.status(), json(nowhere).await["error"].is_string()), (StatusCode::NOT_FOUND, true));
    let read = client.get(&url).send().await.unwrap();
    assert_eq!((read.status(), json(read).await["error"].is_string()), (StatusCode::METHOD_NOT_ALLOWED, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_while_nobody_looks_and_once_for_all_who_do() {
    let (played, server, client) = start().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(played.asked(), 0);
    let url = format!("{}/api/events", server.url());
    let (began, mut viewers) = (std::time::Instant::now(), Vec::new());
    for _ in 0..5 {
        let mut viewer = client.get(&url).send().await.unwrap();
        let event = viewer.chunk().await.unwrap().unwrap();
        assert!(event.starts_with(b"event: status"), "{event:?}");
        viewers.push(viewer);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (asked, most) = (played.asked(), began.elapsed().as_millis() / 200 + 1);
    assert!(asked > 3 && u128::from(asked) <= most, "asked {asked} times, {most} would be one sampler's");
    drop(viewers);
    // The server notices with its next event.
    tokio::time::sleep(GONE + Duration::from_secs(3)).await;
    let asked = played.asked();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(played.asked(), asked);

    // Who is connected and reads no more is nobody, either; when he reads again, there is something new to read.
    let live = Live::new(Looker::new(played.clone()), "names".to_owned(), view());
    let mut viewer = live.look();
    viewer.next().await.unwrap();
    tokio::time::sleep(GONE + Duration::from_secs(3)).await;
    let asked = played.asked();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(played.asked(), asked);
    viewer.next().await.unwrap();
    viewer.next().await.unwrap();
    assert!(played.asked() > asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_has_a_reason_and_no_numbers() {
    let (played, server, client) = start().await;
    played.gone.store(true, Ordering::SeqCst);
    // The brokers are given ten seconds.
    let status = json(client.get(format!("{}/api/status", server.url())).send().await.unwrap()).await;
    assert_eq!(status["consumer"], json!({"trouble": "it does not run: look into its log"}));
    let topic = status["topic"]["trouble"].as_str().unwrap();
    assert!(topic.contains("127.0.0.1:1 does not answer") && topic.contains("broker's log"), "{topic}");
    assert_eq!((&status["topic"]["partitions"], &status["healthy"]), (&Value::Null, &json!(false)));
    assert_eq!(status["lake"]["trouble"], "s3://lake/names has no rows yet");
    let page = client.get(server.url()).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("it does not run: look into its log") && !page.contains("consumer.retries"), "{page}");
    // And it comes back.
    played.gone.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let page = client.get(server.url()).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(r#"data-value="consumer.retries" data-raw="1">1<"#), "{page}");
    // What others wrote is text, and never markup.
    assert!(page.contains("&lt;killed&gt; &amp; gone") && !page.contains("<killed>"), "{page}");
    let mut out = Vec::new();
    let args = format!("freshet status --json --api {}", server.url());
    let crate::Command::Status(args) = <crate::Cli as clap::Parser>::parse_from(args.split(' ')).command else {
        panic!()
    };
    let code = status::run(&LakeArgs::default(), &args, &mut out).await.unwrap();
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(1)));
    let said: Status = serde_json::from_slice(&out).unwrap();
    assert_eq!(said.consumer.known.unwrap().source.unwrap().attempts.len(), 3);
}

/// A document with everything in it, drawn.
fn drawn() -> (Status, Frame, String) {
    let metrics = |names: &'static [pipeline::telemetry::Metric]| -> std::collections::BTreeMap<String, u64> {
        names.iter().zip(1_000..).map(|(metric, value)| (metric.name.to_owned(), value)).collect()
    };
    let run = document::Run { ended: 1, duration_ms: Some(5_000), error: None, metrics: metrics(document::PRODUCER) };
    let file = document::File { name: "names_topic+0+e0+7.parquet".to_owned(), rows: 10, bytes: 900 };
    let hour = "dt=2026-11-23/hour=05".to_owned();
    let directory = document::Directory { name: hour, objects: 6, rows: 60, bytes: 5_400, files: vec![file] };
    let partition = Partition { partition: 0, start_offset: 0, end_offset: 67, committed: Some(60), lag: 7 };
    let source = document::EventSource {
        invocations: 3,
        retries: 1,
        attempts: [AttemptOutcome::Running, AttemptOutcome::Failed, AttemptOutcome::Ok].map(|o| attempt(1, o)).into(),
        ..document::EventSource::default()
    };
    let doings = Doings {
        trouble: None,
        functions: Section::of(Ok(Functions { producer: function("p"), consumer: function("c") })),
        schedule: Section::of(Ok(Schedule { runs: 2, last_run: Some(run), next_run: Some(5), ..Schedule::default() })),
        producer: Section::of(Ok(document::Producer { since: 1, metrics: metrics(document::PRODUCER) })),
        consumer: Section::of(Ok(document::Consumer {
            consumer_group_id: "freshet-names".to_owned(),
            source: Some(source),
            since: 1,
            metrics: metrics(document::CONSUMER),
        })),
    };
    let topic = Topic {
        name: "names_topic".to_owned(),
        bootstrap_servers: "b:9092".to_owned(),
        records: 67,
        lag: 7,
        partitions: vec![partition],
    };
    let lake = document::Lake {
        bucket: "lake".to_owned(),
        prefix: "names".to_owned(),
        objects: 6,
        rows: 60,
        freshness_seconds: Some(3),
        directories: vec![directory],
        more_directories: 1,
        ..document::Lake::default()
    };
    let status = assemble("names", doings, Section::of(Ok(topic)), Section::of(Ok(lake)));
    let frame = frame_of(&status);
    let page = view().page("names", &frame).unwrap();
    (status, frame, page)
}

fn view() -> View {
    View::new(sql::saved(&pipeline::datasets::load("names").unwrap()), api::version()).unwrap()
}

fn frame_of(status: &Status) -> Frame {
    frame_after(&Frame::default(), status)
}

fn frame_after(before: &Frame, status: &Status) -> Frame {
    let (lags, attempts) = Default::default();
    let history = chart::History {
        now: status.at,
        running: false,
        producer: None,
        consumer: None,
        lag: None,
        lags: &lags,
        attempts: &attempts,
    };
    view().frame(before, status, &history, &letters::Found::default())
}

#[test]
fn where_no_event_source_can_be_asked_the_consumers_own_numbers_are_shown() {
    let (mut status, _, _) = drawn();
    let consumer = status.consumer.known.as_mut().unwrap();
    consumer.source = None;
    consumer.metrics.retain(|name, _| name == "RowsStored" || name == "RangesAdopted");
    for name in ["DuplicatesDropped", "DeadLetters", "OffsetGaps", "DatasetMismatch", "CreateTimeBatches"] {
        consumer.metrics.insert(name.to_owned(), 0);
    }
    let frame = frame_of(&status);
    for (name, (_, html)) in &frame.parts {
        assert!(!html.contains("cannot be drawn"), "{name}: {html}");
    }
    assert!(frame.parts["consumer"].1.contains("data-value=\"consumer.RowsStored\""));
}

#[test]
fn each_number_on_the_page_is_the_documents_at_the_path_beside_it() {
    let (status, _, page) = drawn();
    let json = serde_json::to_value(&status).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for place in page.split("data-value=\"").skip(1) {
        let (path, rest) = place.split_once('"').unwrap();
        let value =
            json.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or_else(|| panic!("{path} is not there"));
        let raw = rest.strip_prefix(" data-raw=\"").unwrap_or_else(|| panic!("{path} has no number"));
        assert_eq!(raw.split_once('"').unwrap().0, value.to_string(), "{path}");
        seen.insert(path);
    }
    for path in [
        "schedule.runs",
        "producer.RecordsPublished",
        "producer.RecordsFetched",
        "producer.FetchRetries",
        "topic.partitions.0.end_offset",
        "topic.partitions.0.committed",
        "topic.partitions.0.lag",
        "consumer.retries",
        "consumer.RangesAdopted",
        "consumer.DuplicatesDropped",
        "lake.objects",
        "lake.rows",
        "lake.bytes",
        "lake.dead_letters",
    ] {
        assert!(seen.contains(path), "{path} is not on the page: {seen:?}");
    }
    for outcome in ["ok", "failed", "running"] {
        assert!(page.contains(&format!("data-outcome=\"{outcome}\"")), "{outcome}");
    }
    for id in ["schedule", "producer", "topic", "consumer", "lake", "charts", "sql", "dead-letters", "verify"] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    // Nothing inline, and nothing from elsewhere.
    for forbidden in ["style=", "onclick", "<style", "http://", "https://"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn each_part_that_knows_nothing_says_why() {
    let reason = "it has gone <away>";
    let status = assemble("names", Doings::unknown(reason), Section::unknown(reason), Section::unknown(reason));
    let frame = frame_of(&status);
    for part in ["schedule", "producer", "topic", "consumer", "lake"] {
        let html = &frame.parts[part].1;
        assert!(html.contains("it has gone &lt;away&gt;") && !html.contains("data-raw"), "{part}: {html}");
    }
    assert!(
        frame.parts["summary"].1.contains("schedule, producer, topic, consumer, lake"),
        "{:?}",
        frame.parts["summary"]
    );
}

#[test]
fn each_field_and_each_request_is_explained() {
    fn names(value: &Value, found: &mut std::collections::BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                found.insert(name.clone());
                names(value, found);
            }),
            Value::Array(values) => values.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let docs = include_str!("../../../docs/PAGE.md");
    let (status, ..) = drawn();
    let mut fields = std::collections::BTreeSet::new();
    names(&serde_json::to_value(&status).unwrap(), &mut fields);
    for field in fields {
        let said = ["`", ".", "\""].iter().any(|before| docs.contains(&format!("{before}{field}")));
        assert!(said, "docs/PAGE.md does not explain {field}");
    }
    for request in include_str!("api.rs").split("/api/").skip(1).filter_map(|rest| rest.split(['"', '?']).next()) {
        assert!(docs.contains(&format!("/api/{request}")), "docs/PAGE.md does not have /api/{request}");
    }
    for name in ["PAGE_PORT", "FRESHET_API"] {
        assert!([docs, include_str!("../../../docs/CONFIGURATION.md")].concat().contains(name), "{name}");
    }
}

#[test]
fn the_document_reads_back_as_it_was_written() {
    let (status, ..) = drawn();
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    let silent = Section::<Topic>::unknown("no answer");
    assert_eq!(serde_json::to_value(&silent).unwrap(), json!({"trouble": "no answer"}));
    assert_eq!(serde_json::from_value::<Section<Topic>>(json!({"trouble": "no answer"})).unwrap(), silent);
}

#[test]
fn parts_that_are_as_before_are_not_sent_again() {
    let (status, frame, _) = drawn();
    let mut later = status.clone();
    later.lake.known.as_mut().unwrap().rows += 1;
    let next = frame_after(&frame, &later);
    let changed: Vec<&str> = next.parts.iter().filter(|(_, (number, _))| *number == 2).map(|(name, _)| *name).collect();
    assert_eq!(changed, ["lake"]);
}
