//! Looks at a pipeline, part by part: each part is asked by itself, so that one that is slow does not hold up the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use localstack::event_source::{EventSourceConfig, Lag};
use pipeline::telemetry::now_ms;
use tokio::sync::Mutex;

use super::document::{
    CONSUMER, Consumer, Directory, EventSource, File, Functions, Lake, PRODUCER, Partition, Producer, Schedule,
    Section, Status, Topic,
};
use super::metrics::Metrics;
use super::source::{Pipeline, Role, Source};
use crate::event_source::SourceStatus;
use crate::kafka::GroupClient;
use crate::verify::check::{check, total};
use crate::verify::collect::{Known, collect_new};
use crate::verify::inventory::{DataObject, Inventory};
use crate::verify::{VerifyOptions, add_catalog};
use crate::{Error, text};

/// So many failures in a row are no accident.
const STUCK: u64 = 3;
/// How long a client asks the brokers: a token for MSK lives a quarter of an hour.
const CLIENT: Duration = Duration::from_secs(300);
const DIRECTORIES: usize = 48;
const FILES: usize = 5;

/// What functions, schedule, logs and event source say.
#[derive(Debug, Clone)]
pub struct Doings {
    /// Why nothing at all can be asked.
    pub trouble: Option<String>,
    pub functions: Section<Functions>,
    pub schedule: Section<Schedule>,
    pub producer: Section<Producer>,
    pub consumer: Section<Consumer>,
}

impl Doings {
    pub fn unknown(reason: &str) -> Doings {
        Doings {
            trouble: None,
            functions: Section::unknown(reason),
            schedule: Section::unknown(reason),
            producer: Section::unknown(reason),
            consumer: Section::unknown(reason),
        }
    }
}

pub struct Looker {
    pub source: Arc<dyn Source>,
    producer: Mutex<Metrics>,
    consumer: Mutex<Metrics>,
    objects: Mutex<Known>,
    group: Mutex<Option<Kept>>,
}

/// The client of the last look.
struct Kept {
    pipeline: Arc<Pipeline>,
    made: Instant,
    client: GroupClient,
}

impl Looker {
    pub fn new(source: Arc<dyn Source>) -> Looker {
        let since = source.since();
        Looker {
            source,
            producer: Mutex::new(Metrics::new(PRODUCER, since)),
            consumer: Mutex::new(Metrics::new(CONSUMER, since)),
            objects: Mutex::default(),
            group: Mutex::default(),
        }
    }

    /// Everything once.
    pub async fn status(&self, dataset: &str) -> Status {
        let (doings, topic, lake) = tokio::join!(self.doings(), self.topic(), self.lake());
        assemble(dataset, doings, topic, lake)
    }

    pub async fn doings(&self) -> Doings {
        let pipeline = match self.source.pipeline().await {
            Ok(pipeline) => pipeline,
            Err(error) => {
                let reason = error.to_string();
                return Doings { trouble: Some(reason.clone()), ..Doings::unknown(&reason) };
            }
        };
        let (functions, producer, consumer, source) = tokio::join!(
            self.source.functions(),
            self.read(Role::Producer),
            self.read(Role::Consumer),
            self.source.event_source(),
        );
        let schedule = match &producer {
            Ok(runs) => self.source.schedule(runs).await,
            Err(reason) => Err(reason.clone()),
        };
        let producer = producer.map(|metrics| Producer { since: metrics.since, metrics: metrics.sums });
        let consumer = consumer.and_then(|metrics| Ok(consumer_of(&pipeline, metrics, source?)));
        Doings {
            trouble: None,
            functions: Section::of(functions),
            schedule: Section::of(schedule).but(no_rule),
            producer: Section::of(producer),
            consumer: match consumer {
                Ok((consumer, trouble)) => Section { trouble, known: Some(consumer) },
                Err(reason) => Section::unknown(reason),
            },
        }
    }

    async fn read(&self, role: Role) -> Result<Metrics, String> {
        let metrics = match role {
            Role::Producer => &self.producer,
            Role::Consumer => &self.consumer,
        };
        let mut metrics = metrics.lock().await;
        let text = self.source.written(role).await?;
        metrics.read(&text, now_ms());
        Ok(metrics.clone())
    }

    /// What the logs said when they were read last.
    pub async fn metrics(&self) -> (Metrics, Metrics) {
        (self.producer.lock().await.clone(), self.consumer.lock().await.clone())
    }

    pub async fn topic(&self) -> Section<Topic> {
        let pipeline = match self.source.pipeline().await {
            Ok(pipeline) => pipeline,
            Err(error) => return Section::unknown(error.to_string()),
        };
        let EventSourceConfig { topic, bootstrap_servers: brokers, consumer_group_id: group, .. } = &*pipeline.polled;
        let Kept { made, client, .. } = match self.group_client(&pipeline, group).await {
            Ok(kept) => kept,
            Err(error) => return Section::unknown(format!("{topic} at {brokers} cannot be asked: {error}")),
        };
        match client.lag(topic).await {
            Ok((client, lags)) => {
                *self.group.lock().await = Some(Kept { pipeline: pipeline.clone(), made, client });
                Section::of(Ok(topic_of(topic, brokers, &lags)))
            }
            // By another client next time: a secret may have been rotated.
            Err(error) => Section::unknown(format!(
                "{topic} at {brokers} does not answer: {error}. Check the network, KAFKA_*, what its user may do, and the broker's log"
            )),
        }
    }

    /// That of the last look, if it may still ask.
    async fn group_client(&self, pipeline: &Arc<Pipeline>, group: &str) -> Result<Kept, String> {
        let kept = self.group.lock().await.take();
        match kept {
            Some(kept) if Arc::ptr_eq(&kept.pipeline, pipeline) && kept.made.elapsed() < CLIENT => return Ok(kept),
            Some(kept) => kept.client.close().await,
            None => {}
        }
        let config = self.source.kafka().await.map_err(|e| e.to_string())?;
        let client = GroupClient::connect(config, group).await?;
        Ok(Kept { pipeline: pipeline.clone(), made: Instant::now(), client })
    }

    /// Lets go of the brokers, until they are asked again.
    pub async fn rest(&self) {
        let kept = self.group.lock().await.take();
        if let Some(kept) = kept {
            kept.client.close().await;
        }
    }

    pub async fn lake(&self) -> Section<Lake> {
        let found = async {
            let pipeline = self.source.pipeline().await?;
            self.inventory(&pipeline).await.map(|inventory| lake_of(&pipeline, &inventory))
        };
        match found.await {
            Ok(lake) => {
                let place = format!("s3://{}/{}", lake.bucket, lake.prefix);
                let trouble = |lake: &Lake| match lake {
                    Lake { findings: 1.., .. } => {
                        let findings = text::count(lake.findings, "finding");
                        Some(format!("{place}: {findings}: `freshet verify` names each and its cure"))
                    }
                    Lake { rows: 0, .. } => Some(format!("{place} has no rows yet")),
                    _ => None,
                };
                Section::of(Ok(lake)).but(trouble)
            }
            Err(error) => Section::unknown(error.to_string()),
        }
    }

    async fn inventory(&self, pipeline: &Pipeline) -> Result<Inventory, Error> {
        let lake = &pipeline.lake;
        let mut objects = self.objects.lock().await;
        let mut inventory = collect_new(&lake.store(), &lake.target, &VerifyOptions::default(), &mut objects).await?;
        add_catalog(lake, &mut inventory).await?;
        Ok(inventory)
    }
}

/// The whole document.
pub fn assemble(dataset: &str, doings: Doings, topic: Section<Topic>, lake: Section<Lake>) -> Status {
    let Doings { trouble, functions, schedule, producer, consumer } = doings;
    let lag = topic.known.as_ref().map(|topic| topic.lag);
    let consumer = consumer.but(|consumer| stuck(consumer, lag));
    let troubles =
        [&functions.trouble, &schedule.trouble, &producer.trouble, &topic.trouble, &consumer.trouble, &lake.trouble];
    let healthy = trouble.is_none() && troubles.iter().all(|trouble| trouble.is_none());
    Status {
        dataset: dataset.to_owned(),
        healthy,
        at: now_ms(),
        trouble,
        functions,
        schedule,
        producer,
        topic,
        consumer,
        lake,
    }
}

/// Every rule has a state.
fn no_rule(schedule: &Schedule) -> Option<String> {
    let rule = schedule.rule.as_ref().filter(|_| schedule.state.is_none())?;
    Some(format!(
        "the rule {rule} is not there, and nothing starts runs: apply infra/ again (in Docker: make local-up)"
    ))
}

fn stuck(consumer: &Consumer, lag: Option<i64>) -> Option<String> {
    let source = consumer.source.as_ref()?;
    (source.failures_in_a_row >= STUCK && lag != Some(0)).then(|| {
        let error = source.last_error.as_deref().unwrap_or_default();
        format!(
            "lag {}; {} invocations, {} failed, the last {} in a row: {error}",
            text::or_dash(lag),
            source.invocations,
            source.failures,
            source.failures_in_a_row
        )
    })
}

/// The consumer, and what is wrong with its event source.
fn consumer_of(pipeline: &Pipeline, metrics: Metrics, status: Option<SourceStatus>) -> (Consumer, Option<String>) {
    let consumer_group_id = pipeline.polled.consumer_group_id.clone();
    let mut consumer = Consumer { consumer_group_id, source: None, since: metrics.since, metrics: metrics.sums };
    let Some(SourceStatus { stats, .. }) = status else { return (consumer, None) };
    let unassigned = stats.assigned.values().all(Vec::is_empty).then(|| {
        let reason = stats.last_error.as_deref().unwrap_or("it has just started");
        format!("no partition is assigned to it yet: {reason}")
    });
    consumer.source = Some(EventSource {
        invocations: stats.invocations,
        failures: stats.failures,
        failures_in_a_row: stats.failures_in_a_row,
        retries: stats.retries,
        received: stats.received,
        records: stats.records,
        given_up: stats.given_up,
        abandoned: stats.abandoned,
        in_flight: stats.in_flight as u64,
        last_error: stats.last_error,
        attempts: stats.attempts.into_iter().rev().collect(),
    });
    (consumer, unassigned)
}

fn topic_of(name: &str, brokers: &str, lags: &BTreeMap<i32, Lag>) -> Topic {
    let partition = |(partition, lag): (&i32, &Lag)| Partition {
        partition: *partition,
        start_offset: lag.low,
        end_offset: lag.high,
        committed: lag.committed,
        lag: lag.records(),
    };
    Topic {
        name: name.to_owned(),
        bootstrap_servers: brokers.to_owned(),
        records: lags.values().map(|lag| lag.high - lag.low).sum(),
        lag: lags.values().map(Lag::records).sum(),
        partitions: lags.iter().map(partition).collect(),
    }
}

fn lake_of(pipeline: &Pipeline, inventory: &Inventory) -> Lake {
    let report = check(inventory);
    let target = &pipeline.lake.target;
    let newest = inventory.ledgers.iter().filter_map(|found| found.ledger.as_ref().ok()?.newest_timestamp).max();
    let mut by_directory: BTreeMap<String, Vec<&DataObject>> = BTreeMap::new();
    for object in &inventory.objects {
        by_directory.entry(object.key.directory.to_string()).or_default().push(object);
    }
    let more = by_directory.len().saturating_sub(DIRECTORIES);
    Lake {
        bucket: target.bucket.clone(),
        prefix: target.layout.prefix.clone(),
        objects: total(&report.partitions, |p| p.ranges),
        rows: total(&report.partitions, |p| p.rows),
        bytes: inventory.objects.iter().map(|object| object.size).sum(),
        dead_letters: total(&report.partitions, |p| p.dead_letters),
        newest_record: newest,
        freshness_seconds: newest.map(|newest| (now_ms() - newest) / 1000),
        findings: report.findings.len() as u64,
        directories: by_directory.into_iter().rev().take(DIRECTORIES).map(directory).collect(),
        more_directories: more as u64,
    }
}

fn directory((name, mut objects): (String, Vec<&DataObject>)) -> Directory {
    let rows = |object: &DataObject| object.metadata.as_ref().map_or(0, |metadata| metadata.records);
    objects.sort_by_key(|object| std::cmp::Reverse((object.key.epoch, object.key.start, object.key.partition)));
    let file = |object: &&DataObject| File {
        name: object.name.rsplit('/').next().unwrap_or_default().to_owned(),
        rows: rows(object),
        bytes: object.size,
    };
    Directory {
        objects: objects.len() as u64,
        rows: objects.iter().map(|object| rows(object)).sum(),
        bytes: objects.iter().map(|object| object.size).sum(),
        files: objects.iter().take(FILES).map(file).collect(),
        name,
    }
}
