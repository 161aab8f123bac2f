//! What a run happens on: broker, S3 and catalog, the consumer's binary behind the fault proxy, and an event source.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet::verify::VerifyOptions;
use localstack::broker::Broker;
use localstack::event_source::{EventSource, EventSourceConfig, EventSourceKind};
use localstack::glue::GlueServer;
use localstack::process::Log;
use localstack::runtime::{Function, FunctionConfig};
use localstack::s3::S3Server;
use localstack::stack::{self, BUCKET, DATABASE};
use pipeline::dataset::Dataset;
use pipeline::datasets;

use super::attempts::Attempts;
use super::orders::Topic;
use crate::support::fault_proxy::FaultProxy;
use crate::support::kafka::{Brokers, KafkaCluster};
use crate::support::stack::binaries;

/// The function's: a twentieth of what it has by default on AWS. All other times are scaled with it.
pub const TIME_OUT: Duration = Duration::from_secs(3);
/// A partition that has records left so long after the last fault is stuck.
const STUCK: Duration = Duration::from_secs(90);
pub const GROUP: &str = "freshet-prove";
const DATASET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/orders.yaml");
const CLUSTER_ARN: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/prove/00000000-0000-0000-0000-000000000000-1";

/// How the event source retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retries {
    Whole,
    /// Cut at random.
    Resized,
    /// Provisioned mode: halved.
    Bisected,
}

pub struct Bench {
    pub dataset: Dataset,
    pub brokers: Brokers,
    /// In the place of [`Bench::brokers`].
    embedded: Option<Broker>,
    bootstrap_servers: String,
    pub s3: S3Server,
    pub glue: GlueServer,
    pub proxy: FaultProxy,
    pub consumer: Function,
    pub attempts: Arc<Attempts>,
    pub topic: Arc<Topic>,
    pub retries: Retries,
    source: Option<EventSource>,
    freshet: PathBuf,
    folder: tempfile::TempDir,
}

impl Bench {
    /// For a run over so many classes of faults. `None`, loudly, where the binaries are not built.
    pub async fn start(brokers: Brokers, classes: usize) -> Option<Bench> {
        let (binaries, broker) = binaries()?;
        let folder = tempfile::tempdir().unwrap();
        let dataset = datasets::load(DATASET).unwrap();
        let (embedded, bootstrap_servers) = match brokers.bootstrap_servers() {
            Some(servers) => (None, servers),
            None => {
                let broker = Broker::start(&broker).await.unwrap();
                let servers = broker.bootstrap_servers();
                (Some(broker), servers)
            }
        };
        let s3 = S3Server::start(&folder.path().join("s3"), BUCKET).await.unwrap();
        let glue = GlueServer::start(&folder.path().join("catalog.json")).await.unwrap();
        stack::create_table(&glue, &dataset).unwrap();
        let proxy = FaultProxy::start(TIME_OUT).await;
        proxy.pass_on_to(&s3.endpoint(), &glue.endpoint());

        // What it may write to (heap, stacks, buffers) is limited to what the file says when it starts.
        let limited = folder.path().join("consumer");
        let script = format!(
            "#!/bin/sh\nread -r limit < {}\nulimit -d \"$limit\"\nexec {}\n",
            folder.path().join("limit").display(),
            binaries.join("consumer").display()
        );
        std::fs::write(&limited, script).unwrap();
        std::fs::set_permissions(&limited, std::fs::Permissions::from_mode(0o755)).unwrap();
        let environment = [
            ("DATASET", DATASET),
            ("S3_BUCKET", BUCKET),
            ("S3_ENDPOINT", &proxy.url()),
            ("S3_PATH_STYLE_ACCESS", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", s3.access_key()),
            ("AWS_SECRET_ACCESS_KEY", s3.secret_key()),
            ("AWS_ENDPOINT_URL_GLUE", &proxy.url()),
            ("GLUE_DATABASE", DATABASE),
        ];
        let consumer = Function::start(FunctionConfig {
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            timeout: TIME_OUT,
            log: Log::File(folder.path().join("consumer.log")),
            ..FunctionConfig::new("consumer", limited)
        });
        let consumer = consumer.unwrap();
        let replication = brokers.replication_factor();
        let topic = Topic::make(&dataset.topic.name, &bootstrap_servers, classes, replication).await;
        let mut bench = Bench {
            dataset,
            brokers,
            embedded,
            bootstrap_servers,
            s3,
            glue,
            proxy,
            attempts: Attempts::of(&consumer),
            consumer,
            topic: Arc::new(topic),
            retries: Retries::Whole,
            source: None,
            freshet: binaries.join("freshet"),
            folder,
        };
        bench.limit_memory(None);
        bench.start_source();
        Some(bench)
    }

    /// Kilobytes, for processes that start from now on.
    pub fn limit_memory(&self, limit: Option<u32>) {
        let text = limit.map_or("unlimited".to_owned(), |kb| kb.to_string());
        // Whole or not at all: a process may be starting.
        let (next, file) = (self.folder.path().join("limit.next"), self.folder.path().join("limit"));
        std::fs::write(&next, text + "\n").unwrap();
        std::fs::rename(next, file).unwrap();
    }

    /// An event source of the group, one of maybe several.
    pub fn another_source(&self) -> EventSource {
        // Members notice a rebalance with their next heartbeat, and one that is gone for good is missed.
        let quick = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "300")];
        let config = EventSourceConfig {
            batch_size: 40,
            maximum_batching_window: Duration::from_millis(100),
            pollers: 2,
            event_source: EventSourceKind::Msk { cluster_arn: CLUSTER_ARN.to_owned() },
            retry_backoff_cap: Duration::from_millis(500),
            resize_retries: self.retries == Retries::Resized,
            provisioned: self.retries == Retries::Bisected,
            bisect_batch_on_function_error: self.retries == Retries::Bisected,
            kafka_properties: quick.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..EventSourceConfig::new(&self.dataset.topic.name, &self.bootstrap_servers, GROUP)
        };
        EventSource::start(config, self.attempts.invoker()).unwrap()
    }

    /// The cluster, for classes of faults that only a real one has.
    pub fn cluster(&mut self) -> &mut KafkaCluster {
        match &mut self.brokers {
            Brokers::Apache(cluster) => cluster,
            Brokers::Embedded => panic!("the embedded broker cannot do that"),
        }
    }

    pub fn source(&self) -> &EventSource {
        self.source.as_ref().unwrap()
    }

    pub fn start_source(&mut self) {
        assert!(self.source.is_none());
        self.source = Some(self.another_source());
    }

    /// Waits for its invocations.
    pub async fn stop_source(&mut self) {
        self.source.take().unwrap().stop().await;
    }

    /// Its invocations live on, and nothing that they do is committed.
    pub fn drop_source(&mut self) {
        drop(self.source.take().unwrap());
    }

    /// How long it takes until the topic is drained, every attempt has ended and every late request has landed; and how many
    /// partitions are stuck.
    pub async fn recover(&self) -> (Duration, usize) {
        let begin = Instant::now();
        let drained = tokio::time::timeout(STUCK, self.source().drained()).await;
        let took = begin.elapsed();
        let stuck = match drained {
            Ok(()) => 0,
            Err(_) => self.source().lag().await.unwrap().values().filter(|lag| lag.records() > 0).count(),
        };
        self.attempts.ended().await;
        self.proxy.settled().await;
        (took, stuck)
    }

    pub async fn lake(&self) -> freshet::Lake {
        freshet::demo::open_on(&self.dataset, &self.s3, &self.glue).await
    }

    /// What `freshet verify --deep --kafka` finds.
    pub async fn verify(&self) -> Vec<String> {
        let lake = self.lake().await;
        let kafka = freshet::kafka::connect(&self.bootstrap_servers, &lake.sdk).await.unwrap();
        // The topic's clock is months behind, and no letter is gone.
        let options = VerifyOptions { deep: true, kafka: Some(kafka), dead_letter_days: 365 };
        let report = freshet::verify::verify(&lake, &options).await.unwrap();
        let finding = |finding: &freshet::verify::Finding| {
            let place = finding.place.as_ref().map_or(String::new(), |place| format!("{place}: "));
            format!("{}: {place}{}", finding.kind, finding.message)
        };
        report.findings.iter().map(finding).collect()
    }

    /// `freshet ledger reset`, as an operator runs it.
    pub async fn reset_ledger(&self, partition: i32) {
        let mut command = tokio::process::Command::new(&self.freshet);
        command.args(["--dataset", DATASET, "--bucket", BUCKET, "--path-style", "--endpoint", &self.s3.endpoint()]);
        command.args(["ledger", "reset", &self.dataset.topic.name, &partition.to_string(), "--yes"]);
        command.env("AWS_REGION", "us-east-1").env("AWS_ACCESS_KEY_ID", self.s3.access_key());
        command.env("AWS_SECRET_ACCESS_KEY", self.s3.secret_key()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Offsets without a record, as the consumer's log counts them: an attempt that fails afterwards has told them too, and the next one
    /// does not see them any more.
    pub fn offset_gaps(&self) -> u64 {
        let text = std::fs::read(self.folder.path().join("consumer.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| line.contains("\"OffsetGaps\""));
        let lines = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| line["OffsetGaps"].as_u64()).sum()
    }

    /// The end of the consumer's log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(self.folder.path().join("consumer.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let errors = text.lines().filter(|line| line.contains("ERROR"));
        let errors: Vec<String> = errors.map(|line| line.chars().take(500).collect()).collect();
        errors[errors.len().saturating_sub(4)..].join("\n")
    }

    /// Ends everything but brokers that were there before; those are emptied.
    pub async fn stop(mut self) -> Brokers {
        self.stop_source().await;
        self.consumer.stop().await;
        self.glue.stop().await;
        self.s3.stop().await;
        if let Some(broker) = self.embedded {
            broker.stop().await.unwrap();
        }
        self.brokers.clear().await;
        self.brokers
    }
}
