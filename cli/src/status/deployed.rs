//! A deployed pipeline: AWS or the emulator of AWS_ENDPOINT_URL, the brokers, the bucket, and the status file of the event source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use localstack::event_source::LambdaFunction;
use localstack::runtime::InvokeError;
use localstack::schedule::scheduled_event;
use pipeline::aws::signed::{Answer, Client, Service};
use pipeline::kafka::KafkaConfig;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use super::document::{Function, Functions, PRODUCER, Run, Schedule};
use super::metrics::{Line, Metrics};
use super::source::{Pipeline, Role, Source};
use crate::event_source::SourceStatus;
use crate::outputs::{self, Outputs};
use crate::{Error, Lake, LakeArgs, kafka};

const PATIENCE: Duration = Duration::from_secs(10);
/// The event source writes its status every second.
const STALE: Duration = Duration::from_secs(15);
/// Each look is a handful of requests, to services that are paid for or slow.
const EVERY: Duration = Duration::from_secs(5);
/// What was written before is not summed up.
const HOUR_MS: i64 = 3_600_000;
/// So long after its last line a log is not written to any more.
const ENDED_MS: i64 = 24 * HOUR_MS;
/// The most that one look reads of a log.
const STREAMS: u64 = 5;
const PAGES: usize = 10;
/// A run that is refused is refused at once; one that begins takes longer.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

pub struct Deployed {
    lake: LakeArgs,
    outputs: PathBuf,
    status_file: Option<PathBuf>,
    since: i64,
    opened: Mutex<Option<Arc<Opened>>>,
    /// Where each function's log was read up to.
    read: Mutex<BTreeMap<Role, Position>>,
    /// A run that was started here and has not ended.
    run: Mutex<Option<JoinHandle<()>>>,
}

/// A deployment as its outputs describe it.
struct Opened {
    outputs: String,
    pipeline: Arc<Pipeline>,
    functions: outputs::Functions,
    rule: Option<String>,
    /// The last run of before `since`.
    old_run: OnceCell<Option<Line>>,
}

/// By stream: the newest event's time, and how many events of that time were read.
type Position = BTreeMap<String, (i64, usize)>;

impl Deployed {
    /// `outputs` is what `terraform output -json` prints, `status_file` what the event source writes.
    pub fn new(lake: &LakeArgs, outputs: &Path, status_file: Option<&Path>) -> Deployed {
        Deployed {
            lake: lake.clone(),
            outputs: outputs.to_owned(),
            status_file: status_file.map(Path::to_owned),
            since: pipeline::telemetry::now_ms() - HOUR_MS,
            opened: Mutex::default(),
            read: Mutex::default(),
            run: Mutex::default(),
        }
    }

    async fn open(&self) -> Result<Arc<Opened>, Error> {
        let (text, outputs) = Outputs::read_text(&self.outputs)?;
        let mut opened = self.opened.lock().await;
        if let Some(opened) = opened.as_ref().filter(|opened| opened.outputs == text) {
            return Ok(opened.clone());
        }
        let bucket = self.lake.bucket.clone().or_else(|| outputs.bucket().map(str::to_owned));
        let lake = Lake::open(&LakeArgs { bucket, ..self.lake.clone() }).await?;
        let dataset = &lake.dataset.name;
        let mapping = outputs.mappings()?.remove(dataset);
        let mapping = mapping
            .ok_or_else(|| Error::stopped(format!("Terraform's outputs have no event source of `{dataset}`")))?;
        let (functions, rule) = (outputs.functions(dataset)?.clone(), outputs.schedule(dataset).map(str::to_owned));
        let pipeline = Arc::new(Pipeline { lake, polled: Arc::new(mapping.config) });
        let old_run = OnceCell::new();
        Ok(opened.insert(Arc::new(Opened { outputs: text, pipeline, functions, rule, old_run })).clone())
    }

    async fn client(&self, service: Service) -> Result<(Arc<Opened>, Client), String> {
        let opened = self.open().await.map_err(|e| e.to_string())?;
        let client = Client::new(&opened.pipeline.lake.sdk, service, None).map_err(|e| e.to_string())?;
        Ok((opened, client))
    }

    /// The newest run that the newest streams end with, however old.
    async fn last_run(&self) -> Result<Option<Line>, String> {
        let (opened, logs) = self.client(LOGS).await?;
        let group = format!("/aws/lambda/{}", opened.functions.producer);
        let mut metrics = Metrics::new(PRODUCER, 0);
        for stream in streams(&logs, &group).await? {
            let request = json!({"logGroupName": group, "logStreamName": stream, "startFromHead": false, "limit": 200});
            let events = call(&logs, "Logs_20140328.GetLogEvents", &request).await?;
            let messages = events["events"].as_array().into_iter().flatten();
            let lines: Vec<&str> = messages.filter_map(|event| event["message"].as_str()).map(str::trim_end).collect();
            metrics.read(&lines.join("\n"), 0);
        }
        Ok(metrics.last)
    }
}

const NOT_FOUND: &str = "ResourceNotFoundException";
const LOGS: Service = Service { id: "CloudWatch Logs", name: "logs" };

#[async_trait]
impl Source for Deployed {
    async fn pipeline(&self) -> Result<Arc<Pipeline>, Error> {
        Ok(self.open().await?.pipeline.clone())
    }

    async fn kafka(&self) -> Result<KafkaConfig, Error> {
        let opened = self.open().await?;
        let Pipeline { lake, polled } = &*opened.pipeline;
        kafka::connect(&polled.bootstrap_servers, &lake.sdk).await
    }

    fn every(&self) -> Duration {
        EVERY
    }

    /// Both are there, and can be invoked.
    async fn functions(&self) -> Result<Functions, String> {
        let (opened, client) = self.client(Service { id: "Lambda", name: "lambda" }).await?;
        let outputs::Functions { producer, consumer } = &opened.functions;
        Ok(Functions { producer: function(&client, producer).await?, consumer: function(&client, consumer).await? })
    }

    async fn schedule(&self, runs: &Metrics) -> Result<Schedule, String> {
        let (opened, events) = self.client(Service { id: "EventBridge", name: "events" }).await?;
        let mut schedule = Schedule { rule: opened.rule.clone(), runs: runs.invocations, ..Schedule::default() };
        if let Some(rule) = &opened.rule {
            let answer = match call(&events, "AWSEvents.DescribeRule", &json!({"Name": rule})).await {
                // Without a state: it is not there.
                Err(reason) if reason.contains(NOT_FOUND) => Value::Null,
                answer => answer?,
            };
            let text = |field: &str| answer[field].as_str().map(str::to_owned);
            (schedule.expression, schedule.state) = (text("ScheduleExpression"), text("State"));
        }
        let last = match &runs.last {
            Some(last) => Some(last.clone()),
            None => opened.old_run.get_or_try_init(|| self.last_run()).await?.clone(),
        };
        schedule.last_run =
            last.map(|line| Run { ended: line.at, duration_ms: line.duration_ms, error: None, metrics: line.metrics });
        schedule.running = self.run.lock().await.as_ref().is_some_and(|run| !run.is_finished());
        Ok(schedule)
    }

    fn since(&self) -> i64 {
        self.since
    }

    async fn written(&self, role: Role) -> Result<String, String> {
        let (opened, logs) = self.client(LOGS).await?;
        let function = match role {
            Role::Producer => &opened.functions.producer,
            Role::Consumer => &opened.functions.consumer,
        };
        let group = format!("/aws/lambda/{function}");
        // All or nothing: what a look has read that fails or is given up, the next one reads again.
        let mut positions = self.read.lock().await.get(&role).cloned().unwrap_or_default();
        let streams = streams(&logs, &group).await?;
        let mut text = String::new();
        for stream in &streams {
            let position = positions.entry(stream.clone()).or_insert((self.since, 0));
            read_stream(&logs, &group, stream, position, &mut text).await?;
        }
        // One that is not among the newest may be again, and would be read twice if it were forgotten at once.
        let ended = pipeline::telemetry::now_ms() - ENDED_MS;
        positions.retain(|stream, (newest, _)| streams.contains(stream) || *newest > ended);
        self.read.lock().await.insert(role, positions);
        Ok(text)
    }

    async fn event_source(&self) -> Result<Option<SourceStatus>, String> {
        let Some(file) = self.status_file.as_deref() else { return Ok(None) };
        let silent = "it does not run: look into the log of `freshet event-source`";
        let written = std::fs::metadata(file).and_then(|file| file.modified()).map_err(|_| silent.to_owned())?;
        if SystemTime::now().duration_since(written).is_ok_and(|age| age > STALE) {
            return Err(silent.to_owned());
        }
        let status = std::fs::read(file).map_err(|_| silent.to_owned())?;
        let mut status: BTreeMap<String, SourceStatus> =
            serde_json::from_slice(&status).map_err(|e| format!("its status cannot be read: {e}"))?;
        let dataset = self.open().await.map_err(|e| e.to_string())?.pipeline.lake.dataset.name.clone();
        status.remove(&dataset).map(Some).ok_or_else(|| format!("it does not poll for `{dataset}`"))
    }

    async fn start_run(&self) -> Result<bool, Error> {
        let opened = self.open().await?;
        let mut run = self.run.lock().await;
        if run.as_ref().is_some_and(|run| !run.is_finished()) {
            return Ok(false);
        }
        let producer = opened.functions.producer.clone();
        let stopped = |e: &dyn std::fmt::Display| Error::stopped(format!("{producer} did not run: {e}"));
        let function = LambdaFunction::new(&opened.pipeline.lake.sdk, &producer).map_err(|e| stopped(&e))?;
        let event = scheduled_event(&producer, Timestamp::now());
        // Waited for: an asynchronous one would be queued behind the run that is alive, and nobody would say so.
        let (ended, end) = tokio::sync::oneshot::channel();
        *run = Some(tokio::spawn(async move {
            let answer = function.invoke(event).await;
            // Nobody waits for a run that has begun.
            let _ = ended.send(answer);
        }));
        match tokio::time::timeout(REFUSED_WITHIN, end).await {
            Ok(Ok(Err(InvokeError::Refused { status: 429, .. }))) => Ok(false),
            Ok(Ok(Err(error))) => Err(stopped(&error)),
            _ => Ok(true),
        }
    }
}

async fn function(client: &Client, name: &str) -> Result<Function, String> {
    let path = format!("/2015-03-31/functions/{name}/configuration");
    let answer = client.send(Method::GET, &path, &[], Bytes::new(), PATIENCE).await.map_err(|e| e.to_string())?;
    if answer.status == 404 {
        return Err(format!("{name} is not there: provision again, and look into its log"));
    }
    let configuration = body(name, &answer)?;
    let state = configuration["State"].as_str().unwrap_or("Active");
    if state != "Active" && state != "Inactive" {
        let reason = configuration["StateReason"].as_str().unwrap_or("the emulator's log says why");
        return Err(format!("{name} is {state}: {reason}"));
    }
    Ok(Function {
        name: name.to_owned(),
        state: state.to_owned(),
        memory_mib: configuration["MemorySize"].as_u64(),
        timeout_seconds: configuration["Timeout"].as_u64(),
    })
}

/// The streams that were written to last, the newest at the end; none where the function has never run.
async fn streams(logs: &Client, group: &str) -> Result<Vec<String>, String> {
    let request = json!({"logGroupName": group, "orderBy": "LastEventTime", "descending": true, "limit": STREAMS});
    let answer = match call(logs, "Logs_20140328.DescribeLogStreams", &request).await {
        Err(reason) if reason.contains(NOT_FOUND) => return Ok(Vec::new()),
        answer => answer?,
    };
    let names = answer["logStreams"].as_array().into_iter().flatten().rev();
    Ok(names.filter_map(|stream| stream["logStreamName"].as_str().map(str::to_owned)).collect())
}

/// Reads on from a place in a stream. A place is a time, which several events may share: the API's own tokens end after a day.
async fn read_stream(
    logs: &Client,
    group: &str,
    stream: &str,
    position: &mut (i64, usize),
    text: &mut String,
) -> Result<(), String> {
    let mut request =
        json!({"logGroupName": group, "logStreamName": stream, "startFromHead": true, "startTime": position.0});
    let (from, mut skip) = *position;
    for _ in 0..PAGES {
        let answer = call(logs, "Logs_20140328.GetLogEvents", &request).await?;
        for event in answer["events"].as_array().into_iter().flatten() {
            let at = event["timestamp"].as_i64().unwrap_or_default();
            if at < from {
                continue;
            }
            if at == from && skip > 0 {
                skip -= 1;
                continue;
            }
            *position =
                if at > position.0 { (at, 1) } else { (position.0, position.1 + usize::from(at == position.0)) };
            // An emulator may put several lines into one message.
            text.push_str(event["message"].as_str().unwrap_or_default().trim_end());
            text.push('\n');
        }
        let next = &answer["nextForwardToken"];
        // A page may be empty and not the last.
        if next.is_null() || *next == request["nextToken"] {
            return Ok(());
        }
        request["nextToken"] = next.clone();
    }
    Ok(())
}

/// One call of a service that speaks JSON.
async fn call(client: &Client, target: &str, request: &Value) -> Result<Value, String> {
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
    let answer = client.post("/", &headers, request.to_string().into(), PATIENCE).await.map_err(|e| e.to_string())?;
    body(target, &answer)
}

fn body(what: &str, answer: &Answer) -> Result<Value, String> {
    if answer.status != 200 {
        let said: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        let refused = matches!(answer.status, 401 | 403) || said.contains("AccessDenied");
        let advice = if refused {
            "check the credentials, and whether they may do that (docs/PAGE.md lists what is needed)"
        } else {
            "it is asked again; check the region and AWS_ENDPOINT_URL if it stays so"
        };
        return Err(format!("{what}: status {} ({said}): {advice}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|e| format!("{what}: no JSON ({e}): check AWS_ENDPOINT_URL"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::http::{HeaderMap, StatusCode};
    use axum::{Json, Router};
    use localstack::event_source::EventSourceConfig;
    use pipeline::config::{LakeConfig, S3Config};
    use pipeline::telemetry::now_ms;

    use super::*;

    /// AWS, as the test plays it: an answer to a target's last word and the request.
    type Played = dyn FnMut(&str, &Value) -> (u16, Value) + Send;

    async fn deployed(folder: &Path, played: impl FnMut(&str, &Value) -> (u16, Value) + Send + 'static) -> Deployed {
        let played: Arc<Mutex<Played>> = Arc::new(Mutex::new(played));
        let answer = move |headers: HeaderMap, body: Bytes| async move {
            let target = headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap();
            let request = serde_json::from_slice(&body).unwrap();
            let (status, answer) = (played.lock().unwrap())(target, &request);
            (StatusCode::from_u16(status).unwrap(), Json(answer))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });

        let outputs = folder.join("outputs.json");
        let text = r#"{"event_sources": {"value": {}}}"#.to_owned();
        std::fs::write(&outputs, &text).unwrap();
        let credentials = aws_credential_types::Credentials::new("key", "secret", None, None, "test");
        let sdk = pipeline::aws::loader().region(aws_config::Region::from_static("us-east-1"));
        let sdk = sdk.credentials_provider(credentials).endpoint_url(&endpoint).load().await;
        let config = LakeConfig {
            bucket: "lake".to_owned(),
            prefix: "names".to_owned(),
            ledger_prefix: "_ledger".to_owned(),
            s3: S3Config { region: None, endpoint: None, path_style: true },
        };
        let lake = Lake::new(pipeline::datasets::load("names").unwrap(), &config, sdk, None);
        let polled = Arc::new(EventSourceConfig::new("names_topic", "127.0.0.1:1", "freshet-names"));
        let deployed = Deployed::new(&LakeArgs::default(), &outputs, None);
        *deployed.opened.lock().await = Some(Arc::new(Opened {
            outputs: text,
            pipeline: Arc::new(Pipeline { lake, polled }),
            functions: outputs::Functions { producer: "p".to_owned(), consumer: "c".to_owned() },
            rule: Some("freshet-names".to_owned()),
            old_run: OnceCell::new(),
        }));
        deployed
    }

    fn streams_of(names: &[&str]) -> (u16, Value) {
        (200, json!({"logStreams": names.iter().map(|name| json!({"logStreamName": name})).collect::<Vec<_>>()}))
    }

    /// A stream with one line, behind an empty page.
    fn events_of(request: &Value) -> (u16, Value) {
        let name = &request["logStreamName"];
        let events = match request["nextToken"].as_str() {
            Some("1") => json!([{"timestamp": now_ms() - 1000, "message": format!("{}\n", name.as_str().unwrap())}]),
            _ => json!([]),
        };
        let next = if request["nextToken"].is_null() { "1" } else { "2" };
        (200, json!({"events": events, "nextForwardToken": next}))
    }

    #[tokio::test]
    async fn a_look_that_fails_in_the_middle_loses_nothing_and_the_older_stream_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut failed = false;
        let deployed = deployed(folder.path(), move |target, request| match target {
            "DescribeLogStreams" => streams_of(&["newer", "older"]),
            _ if request["logStreamName"] == "newer" && !std::mem::replace(&mut failed, true) => (500, json!({})),
            _ => events_of(request),
        });
        let deployed = deployed.await;
        assert!(deployed.written(Role::Producer).await.unwrap_err().contains("500"));
        assert_eq!(deployed.written(Role::Producer).await.unwrap(), "older\nnewer\n");
    }

    #[tokio::test]
    async fn what_was_read_is_not_read_again_though_its_stream_was_not_listed_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let (at, mut looks) = (now_ms() - 1000, 0);
        let deployed = deployed(folder.path(), move |target, request| {
            if target == "DescribeLogStreams" {
                looks += 1;
                return streams_of(if looks == 2 { &["another"] } else { &["one"] });
            }
            let event = json!({"timestamp": at, "message": request["logStreamName"]});
            let events = if request["nextToken"].is_null() { json!([event]) } else { json!([]) };
            (200, json!({"events": events, "nextForwardToken": "end"}))
        });
        let deployed = deployed.await;
        let mut read = Vec::new();
        for _ in 0..3 {
            read.push(deployed.written(Role::Consumer).await.unwrap());
        }
        assert_eq!(read, ["one\n", "another\n", ""]);
    }

    #[tokio::test]
    async fn without_its_rule_the_last_run_is_known_and_looked_up_once() {
        const RUN: &str = r#"{"RecordsFetched":20,"_aws":{"Timestamp":1000}}"#;
        let folder = tempfile::tempdir().unwrap();
        let mut listed = 0;
        let deployed = deployed(folder.path(), move |target, _| match target {
            "DescribeRule" => (400, json!({"__type": "ResourceNotFoundException", "message": "Rule does not exist"})),
            "DescribeLogStreams" => {
                listed += 1;
                assert_eq!(listed, 1);
                streams_of(&["one"])
            }
            _ => (200, json!({"events": [{"message": RUN}]})),
        });
        let deployed = deployed.await;
        for _ in 0..2 {
            let schedule = deployed.schedule(&Metrics::new(PRODUCER, 0)).await.unwrap();
            assert_eq!((schedule.rule.as_deref(), schedule.state.as_deref()), (Some("freshet-names"), None));
            assert_eq!(schedule.last_run.unwrap().ended, 1000);
        }
    }
}
