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
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::document::{Function, Functions, PRODUCER, Run, Schedule};
use super::metrics::{Line, Metrics};
use super::source::{Pipeline, Role, Source};
use crate::event_source::SourceStatus;
use crate::outputs::{self, Outputs};
use crate::{Error, Lake, LakeArgs};

const PATIENCE: Duration = Duration::from_secs(10);
/// The event source writes its status every second.
const STALE: Duration = Duration::from_secs(15);
/// Each look is a handful of requests, to services that are paid for or slow.
const EVERY: Duration = Duration::from_secs(5);
/// What was written before is not summed up.
const HOUR_MS: i64 = 3_600_000;
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
    opened: Mutex<Option<Opened>>,
    /// Where each function's log was read up to.
    read: Mutex<BTreeMap<Role, Position>>,
    /// A run that was started here and has not ended.
    run: Mutex<Option<JoinHandle<()>>>,
}

/// A deployment as its outputs describe it.
#[derive(Clone)]
struct Opened {
    outputs: Arc<str>,
    pipeline: Arc<Pipeline>,
    functions: outputs::Functions,
    rule: Option<String>,
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

    async fn open(&self) -> Result<Opened, Error> {
        let (text, outputs) = Outputs::read_text(&self.outputs)?;
        let mut opened = self.opened.lock().await;
        if let Some(opened) = opened.as_ref().filter(|opened| *opened.outputs == text) {
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
        Ok(opened.insert(Opened { outputs: text.into(), pipeline, functions, rule }).clone())
    }

    async fn client(&self, service: Service) -> Result<(Opened, Client), String> {
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
            for event in events["events"].as_array().into_iter().flatten() {
                metrics.read(event["message"].as_str().unwrap_or_default(), 0);
            }
        }
        Ok(metrics.last)
    }
}

const LOGS: Service = Service { id: "CloudWatch Logs", name: "logs" };

#[async_trait]
impl Source for Deployed {
    async fn pipeline(&self) -> Result<Arc<Pipeline>, Error> {
        Ok(self.open().await?.pipeline)
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
            let answer = call(&events, "AWSEvents.DescribeRule", &json!({"Name": rule})).await?;
            let text = |field: &str| answer[field].as_str().map(str::to_owned);
            (schedule.expression, schedule.state) = (text("ScheduleExpression"), text("State"));
        }
        let last = match &runs.last {
            Some(last) => Some(last.clone()),
            None => self.last_run().await?,
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
        let mut read = self.read.lock().await;
        let positions = read.entry(role).or_default();
        let mut text = String::new();
        for stream in streams(&logs, &group).await? {
            let position = positions.entry(stream.clone()).or_insert((self.since, 0));
            read_stream(&logs, &group, &stream, position, &mut text).await?;
        }
        Ok(text)
    }

    async fn event_source(&self) -> Result<Option<SourceStatus>, String> {
        let Some(file) = self.status_file.as_deref() else { return Ok(None) };
        let silent = "it does not run: look into its log";
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

/// The streams that were written to last; none where the function has never run.
async fn streams(logs: &Client, group: &str) -> Result<Vec<String>, String> {
    let request = json!({"logGroupName": group, "orderBy": "LastEventTime", "descending": true, "limit": STREAMS});
    let answer = match call(logs, "Logs_20140328.DescribeLogStreams", &request).await {
        Err(reason) if reason.contains("ResourceNotFoundException") => return Ok(Vec::new()),
        answer => answer?,
    };
    let names = answer["logStreams"].as_array().into_iter().flatten();
    Ok(names.filter_map(|stream| stream["logStreamName"].as_str().map(str::to_owned)).collect())
}

/// Reads on from a place in a stream. Times are all that the API takes, and several events may share one.
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
        let events: Vec<&Value> = answer["events"].as_array().into_iter().flatten().collect();
        for event in &events {
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
        if events.is_empty() || next.is_null() || *next == request["nextToken"] {
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
        return Err(format!("{what}: status {} ({said})", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|e| format!("{what}: no JSON ({e})"))
}
