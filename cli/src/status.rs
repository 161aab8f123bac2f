//! `freshet status`: where the records are on their way, step by step, asked of those who do the work.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use clap::Args;
use http::Method;
use jiff::Timestamp;
use localstack::event_source::{Lag, Mapping, lag};
use pipeline::aws::signed::{Answer, Client, Service};
use serde_json::{Value, json};

use crate::event_source::SourceStatus;
use crate::outputs::{Functions, Outputs};
use crate::verify::check::total;
use crate::verify::collect::ledgers;
use crate::verify::{VerifyOptions, verify};
use crate::{Error, Lake, LakeArgs, text};

const PATIENCE: Duration = Duration::from_secs(10);
/// The event source writes its status every second.
const STALE: Duration = Duration::from_secs(15);
/// So many failures in a row are no accident.
const STUCK: u64 = 3;
const AGAIN: Duration = Duration::from_secs(2);

/// Show what a deployment does: functions, schedule, topic, event source, lake
///
/// Asks AWS, or the emulator of AWS_ENDPOINT_URL, the brokers and the bucket. Exit status 1 where a step is in trouble.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// What `terraform output -json` prints
    #[arg(long, value_name = "OUTPUTS.json", env = "FRESHET_OUTPUTS")]
    outputs: PathBuf,
    /// The file that `freshet event-source --status-file` writes; without it the event source is not asked
    #[arg(long, value_name = "FILE", env = "FRESHET_STATUS_FILE")]
    status_file: Option<PathBuf>,
    /// Wait up to so many seconds, until every step is well and rows are in the lake
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What is known of one step. `details` are for machines.
struct Step {
    name: &'static str,
    state: Result<Known, String>,
}

struct Known {
    text: String,
    details: Value,
}

pub async fn run(lake: &LakeArgs, args: &StatusArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let deadline = Instant::now() + Duration::from_secs(args.wait.unwrap_or(0));
    let steps = loop {
        let steps = look(lake, args).await?;
        let well = steps.iter().all(|step| step.state.is_ok());
        if well || Instant::now() >= deadline {
            break steps;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let trouble = steps.iter().find_map(|step| Some((step.name, step.state.as_ref().err()?)));
    if args.json {
        let one = |step: &Step| match &step.state {
            Ok(known) => (step.name.replace(' ', "_"), json!({"ok": true, "details": known.details})),
            Err(reason) => (step.name.replace(' ', "_"), json!({"ok": false, "reason": reason})),
        };
        let steps: serde_json::Map<String, Value> = steps.iter().map(one).collect();
        writeln!(out, "{:#}", json!({"dataset": lake.dataset_name(), "healthy": trouble.is_none(), "steps": steps}))?;
    } else {
        for step in &steps {
            let (mark, text) = match &step.state {
                Ok(known) => ("ok", &known.text),
                Err(reason) => ("!!", reason),
            };
            writeln!(out, "{mark}  {:<12}  {text}", step.name)?;
        }
        if let (Some((name, _)), Some(seconds)) = (trouble, args.wait) {
            writeln!(
                out,
                "\nAfter {seconds} s no record has come all the way: it stops at the first line with !!, {name}."
            )?;
        }
    }
    Ok(if trouble.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn look(args: &LakeArgs, status: &StatusArgs) -> Result<Vec<Step>, Error> {
    let outputs = match Outputs::read(&status.outputs) {
        Ok(outputs) => outputs,
        Err(error) => return Ok(vec![Step { name: "provision", state: Err(error.to_string()) }]),
    };
    let bucket = args.bucket.clone().or_else(|| outputs.bucket().map(str::to_owned));
    let lake = Lake::open(&LakeArgs { bucket, ..args.clone() }).await?;
    let dataset = lake.dataset.name.clone();
    let names = outputs.functions(&dataset)?;
    let mut mappings = outputs.mappings()?;
    let mapping = mappings.remove(&dataset);
    let mapping =
        mapping.ok_or_else(|| Error::stopped(format!("Terraform's outputs have no event source of `{dataset}`")))?;
    let lags = topic_lags(&mapping).await;
    Ok(vec![
        Step { name: "functions", state: functions(&lake, names).await },
        Step { name: "schedule", state: schedule(&lake, outputs.schedule(&dataset), &names.producer).await },
        Step { name: "topic", state: topic(&mapping, &lags) },
        Step { name: "event source", state: event_source(status.status_file.as_deref(), &dataset, lags.as_ref().ok()) },
        Step { name: "lake", state: stored(&lake).await },
    ])
}

/// Both are there, and can be invoked.
async fn functions(lake: &Lake, names: &Functions) -> Result<Known, String> {
    let client = client(lake, Service { id: "Lambda", name: "lambda" })?;
    let mut details = json!({});
    for name in [&names.producer, &names.consumer] {
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
        details[name] = json!({"state": state, "memory_mib": configuration["MemorySize"], "timeout_seconds": configuration["Timeout"]});
    }
    Ok(Known { text: format!("{}, {} can be invoked", names.producer, names.consumer), details })
}

/// Whether it fires, and what the last run did, by the producer's own metrics in its log.
async fn schedule(lake: &Lake, rule: Option<&str>, producer: &str) -> Result<Known, String> {
    let mut details = json!({"last_run": null});
    let mut text = "no rule is known".to_owned();
    if let Some(rule) = rule {
        let events = client(lake, Service { id: "EventBridge", name: "events" })?;
        let answer = call(&events, "AWSEvents.DescribeRule", &json!({"Name": rule})).await?;
        let (state, expression) = (&answer["State"], &answer["ScheduleExpression"]);
        text = format!("{} {}", expression.as_str().unwrap_or_default(), state.as_str().unwrap_or_default());
        details["state"] = state.clone();
        details["expression"] = expression.clone();
    }
    match last_run(lake, producer).await? {
        None => text += ", no run has ended yet",
        Some(run) => {
            let count = |name: &str| run[name].as_u64().unwrap_or_default();
            let at = run["_aws"]["Timestamp"].as_i64().unwrap_or_default();
            text += &format!(
                ", last run ended {} ({} ago): {} fetched, {} published, {} rejected",
                text::time(at),
                age(at),
                count("RecordsFetched"),
                count("RecordsPublished"),
                count("RecordsRejected")
            );
            details["last_run"] = json!({"ended": text::time(at), "metrics": metrics(&run)});
        }
    }
    Ok(Known { text, details })
}

async fn last_run(lake: &Lake, producer: &str) -> Result<Option<Value>, String> {
    let logs = client(lake, Service { id: "CloudWatch Logs", name: "logs" })?;
    let group = format!("/aws/lambda/{producer}");
    let request = json!({"logGroupName": group, "orderBy": "LastEventTime", "descending": true, "limit": 3});
    let streams = call(&logs, "Logs_20140328.DescribeLogStreams", &request).await?;
    let mut newest: Option<Value> = None;
    for stream in streams["logStreams"].as_array().into_iter().flatten() {
        let request = json!({"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": false, "limit": 200});
        let events = call(&logs, "Logs_20140328.GetLogEvents", &request).await?;
        let lines = events["events"].as_array().into_iter().flatten().filter_map(|event| event["message"].as_str());
        // An emulator may put several lines into one message.
        let runs = lines.flat_map(str::lines).filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        for run in runs.filter(|run| run["RecordsFetched"].is_u64()) {
            let time = |run: &Value| run["_aws"]["Timestamp"].as_i64();
            if newest.as_ref().is_none_or(|newest| time(&run) > time(newest)) {
                newest = Some(run);
            }
        }
    }
    Ok(newest)
}

fn metrics(run: &Value) -> Value {
    let own = |(name, value): (&String, &Value)| value.is_u64().then(|| (name.clone(), value.clone()));
    Value::Object(run.as_object().into_iter().flatten().filter_map(own).collect())
}

async fn topic_lags(mapping: &Mapping) -> Result<BTreeMap<i32, Lag>, String> {
    lag(&Arc::new(mapping.config.clone())).await.map_err(|e| e.to_string())
}

fn topic(mapping: &Mapping, lags: &Result<BTreeMap<i32, Lag>, String>) -> Result<Known, String> {
    let (name, brokers) = (&mapping.config.topic, &mapping.config.bootstrap_servers);
    let lags = lags
        .as_ref()
        .map_err(|reason| format!("{name} at {brokers} does not answer: {reason}. Look into the broker's log"))?;
    let records: i64 = lags.values().map(|lag| lag.high - lag.low).sum();
    let partitions: Vec<Value> = lags
        .iter()
        .map(|(partition, lag)| {
            json!({"partition": partition, "low": lag.low, "high": lag.high, "committed": lag.committed, "lag": lag.records()})
        })
        .collect();
    let text = format!("{name} holds {records} records in {}", text::count(lags.len() as u64, "partition"));
    Ok(Known { text, details: json!({"name": name, "records": records, "partitions": partitions}) })
}

fn event_source(file: Option<&Path>, dataset: &str, lags: Option<&BTreeMap<i32, Lag>>) -> Result<Known, String> {
    let lag: Option<i64> = lags.map(|lags| lags.values().map(Lag::records).sum());
    let behind = format!("lag {}", text::or_dash(lag));
    let Some(file) = file else { return Ok(Known { text: behind, details: json!({"lag": lag}) }) };
    let silent = "it does not run: look into its log";
    let written = std::fs::metadata(file).and_then(|file| file.modified()).map_err(|_| silent.to_owned())?;
    if SystemTime::now().duration_since(written).is_ok_and(|age| age > STALE) {
        return Err(silent.to_owned());
    }
    let status = std::fs::read(file).map_err(|_| silent.to_owned())?;
    let status: BTreeMap<String, SourceStatus> =
        serde_json::from_slice(&status).map_err(|e| format!("its status cannot be read: {e}"))?;
    let status = status.get(dataset).ok_or_else(|| format!("it does not poll for `{dataset}`"))?;
    let stats = &status.stats;
    if stats.assigned.values().all(Vec::is_empty) {
        let reason = stats.last_error.as_deref().unwrap_or("it has just started");
        return Err(format!("no partition is assigned to it yet: {reason}"));
    }
    let text = format!("{behind}; {} invocations, {} failed", stats.invocations, stats.failures);
    if stats.failures_in_a_row >= STUCK && lag != Some(0) {
        let error = stats.last_error.as_deref().unwrap_or_default();
        return Err(format!("{text}, the last {} in a row: {error}", stats.failures_in_a_row));
    }
    Ok(Known { text, details: json!({"lag": lag, "status": status}) })
}

async fn stored(lake: &Lake) -> Result<Known, String> {
    let place = format!("s3://{}/{}", lake.target.bucket, lake.target.layout.prefix);
    let report = verify(lake, &VerifyOptions::default()).await.map_err(|e| e.to_string())?;
    let (ledgers, _) = ledgers(&lake.store(), &lake.target).await.map_err(|e| e.to_string())?;
    let newest = ledgers.iter().filter_map(|found| found.ledger.as_ref().ok()?.newest_timestamp).max();
    let partitions = &report.partitions;
    let (objects, rows, letters) =
        (total(partitions, |p| p.ranges), total(partitions, |p| p.rows), total(partitions, |p| p.dead_letters));
    let findings = report.findings.len() as u64;
    if findings > 0 {
        return Err(format!("{place}: {}: `freshet verify` names each and its cure", text::count(findings, "finding")));
    }
    if rows == 0 {
        return Err(format!("{place} has no rows yet"));
    }
    let freshness = newest.map(|newest| (pipeline::telemetry::now_ms() - newest) / 1000);
    let newest_row = newest.map_or_else(String::new, |newest| format!("; newest record {} old", age(newest)));
    let text = format!(
        "{place} has {rows} rows in {}, {}{newest_row}",
        text::count(objects, "object"),
        text::count(letters, "dead letter")
    );
    let details = json!({
        "objects": objects, "rows": rows, "dead_letters": letters, "newest_record": newest.map(text::time), "freshness_seconds": freshness,
    });
    Ok(Known { text, details })
}

fn client(lake: &Lake, service: Service) -> Result<Client, String> {
    Client::new(&lake.sdk, service, None).map_err(|e| e.to_string())
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

/// How long ago, in the largest unit that says enough.
fn age(ms: i64) -> String {
    let seconds = Timestamp::now().as_second() - ms.div_euclid(1000);
    match seconds {
        ..=119 => format!("{} s", seconds.max(0)),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
