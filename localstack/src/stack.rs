//! The whole pipeline on one machine: broker, S3, catalog, API and both functions, wired as Terraform wires them on AWS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use pipeline::dataset::{Dataset, Format};
use pipeline::datasets::{self, LoadError};
use pipeline::lake::{PARTITION_COLUMNS, hive_columns};
use serde_json::{Value, json};

use crate::api::{self, Api, ApiOptions};
use crate::broker::{self, Broker};
use crate::event_source::{ConfigError, EventSource, EventSourceConfig, EventSourceKind, invoker};
use crate::glue::{self, GlueServer};
use crate::process::Log;
use crate::runtime::{Function, FunctionConfig, InvokeError, StartError};
use crate::s3::{self, S3Server};

/// Bucket, Glue database and cluster of the stack.
pub const BUCKET: &str = "lake";
pub const DATABASE: &str = "freshet";
const CLUSTER_ARN: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/local/00000000-0000-0000-0000-000000000000-1";
const REGION: &str = "us-east-1";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Dataset(#[from] LoadError),
    #[error("the folder {} cannot be used: {source}. Name another one", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    S3(#[from] s3::Error),
    #[error(transparent)]
    Glue(#[from] glue::Error),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error(transparent)]
    Function(#[from] StartError),
    #[error("the topic could not be made: {0}")]
    Topic(InvokeError),
    #[error("the system gives no random bytes for the hash key: {0}. Try again")]
    Random(getrandom::Error),
    #[error(transparent)]
    EventSource(#[from] ConfigError),
}

/// Where the producer's records come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The URL of the dataset file.
    Live,
    /// The stand-in for the Random User API, `results` people an answer.
    People { options: ApiOptions, results: u32 },
    /// One JSON document, whatever is asked for.
    Document(String),
}

/// What the stack is made of. Environments are added to what the stack sets, and win over it.
#[derive(Debug, Clone)]
pub struct StackConfig {
    /// `s3/` holds the bucket, `catalog.json` the catalog, `*.log` what the functions wrote.
    pub folder: PathBuf,
    /// A dataset of this build, or the path of a `.yaml` file.
    pub dataset: String,
    /// The folder of the binaries `producer` and `consumer`.
    pub binaries: PathBuf,
    pub broker: PathBuf,
    /// Brokers that run already, `host:port`, comma-separated, instead of the embedded one.
    pub kafka: Option<String>,
    pub source: Source,
    pub producer: Vec<(String, String)>,
    pub consumer: Vec<(String, String)>,
    pub producer_timeout: Duration,
    pub consumer_timeout: Duration,
    pub batch_size: usize,
    pub batching_window: Duration,
    pub pollers: usize,
    /// Retries come in another size than the attempt that failed.
    pub resize_retries: bool,
}

impl StackConfig {
    /// `names` on recorded people, with batches that fill up to a second.
    pub fn new(folder: impl Into<PathBuf>, binaries: impl Into<PathBuf>, broker: impl Into<PathBuf>) -> StackConfig {
        StackConfig {
            folder: folder.into(),
            dataset: "names".to_owned(),
            binaries: binaries.into(),
            broker: broker.into(),
            kafka: None,
            source: Source::People { options: ApiOptions { distinct: true, ..ApiOptions::default() }, results: 10 },
            producer: Vec::new(),
            consumer: Vec::new(),
            producer_timeout: Duration::from_secs(150),
            consumer_timeout: Duration::from_secs(60),
            batch_size: 10_000,
            batching_window: Duration::from_secs(1),
            pollers: 2,
            resize_retries: false,
        }
    }
}

/// A running stack. Dropped, it stops at once; [`Stack::stop`] stops it in order.
pub struct Stack {
    pub dataset: Dataset,
    pub api: Option<Api>,
    broker: Option<Broker>,
    bootstrap_servers: String,
    pub s3: S3Server,
    pub glue: GlueServer,
    pub producer: Function,
    pub consumer: Function,
    pub event_source: EventSource,
}

impl Stack {
    pub async fn start(config: StackConfig) -> Result<Stack, Error> {
        let dataset = datasets::load(&config.dataset)?;
        let objects = config.folder.join("s3");
        std::fs::create_dir_all(&objects).map_err(|source| Error::Folder { path: objects.clone(), source })?;

        let (broker, bootstrap_servers) = match &config.kafka {
            Some(servers) => (None, servers.clone()),
            None => {
                let broker = Broker::start(&config.broker).await?;
                let servers = broker.bootstrap_servers();
                (Some(broker), servers)
            }
        };
        let s3 = S3Server::start(&objects, BUCKET).await?;
        let glue = GlueServer::start(&config.folder.join("catalog.json")).await?;
        create_table(&glue, &dataset)?;
        let (api, url) = match &config.source {
            Source::Live => (None, dataset.source.url.clone()),
            Source::People { options, results } => {
                let api = Api::start(options.clone()).await?;
                let url = format!("{}?results={results}", api.url());
                (Some(api), url)
            }
            Source::Document(json) => {
                let api = Api::start_document(json.clone()).await?;
                let url = api.url();
                (Some(api), url)
            }
        };

        let function = |name: &str, timeout, own: Vec<(&str, String)>, given: &[(String, String)]| {
            let mut environment = shared_environment(&config.dataset, &s3);
            environment.extend(own.into_iter().map(|(k, v)| (k.to_owned(), v)));
            environment.extend(given.iter().cloned());
            let log = Log::File(config.folder.join(format!("{name}.log")));
            let binary = config.binaries.join(name);
            Function::start(FunctionConfig { environment, timeout, log, ..FunctionConfig::new(name, binary) })
        };
        let producer_environment = vec![
            ("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers.clone()),
            ("TOPIC_REPLICATION_FACTOR", "1".to_owned()),
            ("API_URL", url),
            ("HASH_KEY", random_key()?),
        ];
        let producer = function("producer", config.producer_timeout, producer_environment, &config.producer)?;
        let consumer_environment =
            vec![("GLUE_DATABASE", DATABASE.to_owned()), ("AWS_ENDPOINT_URL_GLUE", glue.endpoint())];
        let consumer = function("consumer", config.consumer_timeout, consumer_environment, &config.consumer)?;

        // The topic exists before the event source does.
        let answer = producer.invoke(Bytes::from_static(br#"{"ensure_topic": true}"#)).await;
        answer.map_err(Error::Topic)?;
        let topic = &dataset.topic.name;
        let event_source = EventSource::start(
            EventSourceConfig {
                batch_size: config.batch_size,
                maximum_batching_window: config.batching_window,
                pollers: config.pollers,
                resize_retries: config.resize_retries,
                event_source: EventSourceKind::Msk { cluster_arn: CLUSTER_ARN.to_owned() },
                // A poller learns with its next heartbeat that another one has joined, and what it has in flight by then is delivered
                // again: so the group is complete before there is much to deliver.
                kafka_properties: vec![("heartbeat.interval.ms".to_owned(), "500".to_owned())],
                retry_backoff_cap: Duration::from_secs(1),
                ..EventSourceConfig::new(topic, &bootstrap_servers, format!("freshet-{}", dataset.name))
            },
            invoker(&consumer),
        )?;
        Ok(Stack { dataset, api, broker, bootstrap_servers, s3, glue, producer, consumer, event_source })
    }

    /// Ends the event source, the functions, and then what they speak to.
    pub async fn stop(self) -> Result<(), Error> {
        let Stack { api, broker, s3, glue, producer, consumer, event_source, .. } = self;
        event_source.stop().await;
        producer.stop().await;
        consumer.stop().await;
        if let Some(api) = api {
            api.stop().await;
        }
        glue.stop().await;
        s3.stop().await;
        match broker {
            Some(broker) => Ok(broker.stop().await?),
            None => Ok(()),
        }
    }

    /// The embedded broker's process, for a test that halts or kills it.
    pub fn broker_pid(&self) -> Option<u32> {
        self.broker.as_ref()?.pid()
    }

    /// The address of Kafka, as clients take it.
    pub fn bootstrap_servers(&self) -> String {
        self.bootstrap_servers.clone()
    }
}

fn shared_environment(dataset: &str, s3: &S3Server) -> Vec<(String, String)> {
    // A dataset by path is found wherever the function's process runs.
    let path = Path::new(dataset);
    let dataset = std::path::absolute(path).ok().filter(|_| path.is_file());
    let dataset = dataset.map_or_else(|| path.display().to_string(), |path| path.display().to_string());
    [
        ("DATASET", dataset.as_str()),
        ("S3_BUCKET", BUCKET),
        ("S3_ENDPOINT", &s3.endpoint()),
        ("S3_PATH_STYLE_ACCESS", "true"),
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", s3.access_key()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A key for hashed columns that lives as long as the stack: nothing local can be compared with another lake's hashes.
fn random_key() -> Result<String, Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(Error::Random)?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Database and table as Terraform makes them.
pub fn create_table(glue: &GlueServer, dataset: &Dataset) -> Result<(), glue::Error> {
    let columns = |columns: Vec<(String, &str)>| -> Vec<Value> {
        columns.into_iter().map(|(name, hive)| json!({"Name": name, "Type": hive})).collect()
    };
    let (input, output, serde) = match dataset.lake.format {
        Format::Parquet(_) => (
            "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        ),
        Format::Ndjson(_) => (
            "org.apache.hadoop.mapred.TextInputFormat",
            "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
            "org.openx.data.jsonserde.JsonSerDe",
        ),
    };
    glue.ensure("CreateDatabase", &json!({"DatabaseInput": {"Name": DATABASE}}))?;
    let keys = PARTITION_COLUMNS.map(|(name, hive)| (name.to_owned(), hive)).to_vec();
    let table = json!({
        "Name": dataset.name,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": columns(keys),
        "StorageDescriptor": {
            "Columns": columns(hive_columns(dataset)),
            "Location": format!("s3://{BUCKET}/{}/", dataset.lake.prefix),
            "InputFormat": input,
            "OutputFormat": output,
            "SerdeInfo": {"SerializationLibrary": serde},
        },
    });
    glue.ensure("CreateTable", &json!({"DatabaseName": DATABASE, "TableInput": table}))
}
