//! `freshet demo`: the whole pipeline on this machine, on recorded people, and then the proof of what it stored.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::Region;
use aws_credential_types::Credentials;
use clap::Args;
use jiff::Timestamp;
use localstack::api::ApiOptions;
use localstack::glue::GlueServer;
use localstack::runtime::FunctionStats;
use localstack::s3::S3Server;
use localstack::schedule::{Schedule, scheduled_event};
use localstack::stack::{self, Source, Stack, StackConfig};
use pipeline::config::{LakeConfig, S3Config};
use pipeline::dataset::Dataset;

use crate::catalog::Catalog;
use crate::page::{self, of_demo::OfDemo};
use crate::verify::{VerifyOptions, verify};
use crate::{Error, Lake, LakeArgs, kafka, query, text};

/// The dataset of the recorded people.
const NAMES: &str = "names";
const NATIONS: &str = "SELECT nation, count(*) AS people, min(city) AS a_city FROM names GROUP BY nation ORDER BY people DESC, nation LIMIT 10";
const DISTINCT: &str = "SELECT count(*) AS rows, count(DISTINCT email) AS people FROM names";
/// How many objects the tree shows of each directory.
const SHOWN: usize = 5;
/// How long the consumer may take after the last record was published.
const DRAIN: Duration = Duration::from_secs(600);
/// The interval of the schedule.
const EVERY: Duration = Duration::from_secs(10);

/// Run the whole pipeline on this machine, without Docker, and look at what it stored
///
/// Starts an embedded Kafka broker, an embedded S3, a stand-in for the API and for the catalog, and both Lambda functions
/// behind the Lambda Runtime API. `make demo` builds what it needs.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the lake is left; an earlier demo's lake there is removed
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    folder: PathBuf,
    /// Push this many distinct people through, and measure
    #[arg(long)]
    records: Option<u64>,
    /// Fetch from the live API instead of recorded answers
    #[arg(long, conflicts_with = "records")]
    live: bool,
    /// Kill consumer and producer processes at random meanwhile (SIGKILL)
    #[arg(long)]
    chaos: bool,
    /// Keep the schedule running until Ctrl-C
    #[arg(long, conflicts_with = "records")]
    keep: bool,
    /// Keep it running, and serve a page that shows it
    #[arg(long, conflicts_with = "records")]
    page: bool,
    /// Address of the page
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080", requires = "page")]
    listen: SocketAddr,
    /// The embedded broker's binary
    #[arg(long, value_name = "FILE", default_value = "localstack/broker/target/debug/freshet-broker")]
    broker: PathBuf,
}

/// Of the options about the lake, the dataset counts: one other than `names` is fetched from its own API.
pub async fn run(lake: &LakeArgs, args: &DemoArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let dataset = lake.dataset_name();
    if dataset != NAMES && args.records.is_some() {
        return Err(Error::stopped(
            "--records makes people, for the dataset `names`: leave it out, or leave --dataset out",
        ));
    }
    tokio::select! {
        done = demo(&dataset, args, out) => done,
        // Everything that was started is dropped with the unfinished demo, and ends.
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nStopped. Nothing is left running.");
            Ok(ExitCode::from(130))
        }
    }
}

async fn demo(dataset: &str, args: &DemoArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let config = stack_config(dataset, args)?;
    if args.page {
        // Before an earlier lake is removed.
        page::is_free(args.listen)?;
    }
    clear(&args.folder)?;
    writeln!(out, "Starting broker, S3, catalog, API and functions on the loopback …")?;
    let stack = Arc::new(Stack::start(config).await.map_err(stopped)?);
    let chaos = args.chaos.then(|| Chaos::start(stack.clone()));
    let progress = Progress::start(stack.clone(), args.records);
    let started = Instant::now();
    let produced = match args.records {
        Some(records) => publish(&stack, records).await?,
        None => run_schedule(&stack, args, out).await?,
    };
    if tokio::time::timeout(DRAIN, stack.event_source.drained()).await.is_err() {
        let reason = stack.event_source.stats().last_error.unwrap_or_default();
        let log = args.folder.join("consumer.log").display().to_string();
        return Err(Error::stopped(format!(
            "the consumer did not store everything in time ({reason}): look into {log}"
        )));
    }
    progress.stop();
    drop(chaos);
    let wall = started.elapsed();

    let lake = open(&stack).await;
    let sample = format!("SELECT * FROM {} LIMIT 5", stack.dataset.name);
    let queries = if dataset == NAMES { vec![NATIONS, DISTINCT] } else { vec![sample.as_str()] };
    for sql in queries {
        writeln!(out, "\n{sql}\n{}", query::query_table(&lake, sql).await?)?;
    }
    tree(&args.folder.join("s3").join(stack::BUCKET), out)?;
    if args.records.is_some() || args.chaos {
        measured(&stack, &args.folder, &produced, wall, out)?;
    }
    let kafka = kafka::connect_embedded(&stack.bootstrap_servers(), &lake.sdk).await?;
    let report = verify(&lake, &VerifyOptions { deep: true, kafka: Some(kafka), ..VerifyOptions::default() }).await?;
    writeln!(out, "freshet verify --deep\n{}", report.to_text())?;

    let rows: u64 = report.partitions.iter().map(|p| p.rows).sum();
    let people = if args.records.is_some() { distinct_people(&lake).await? } else { rows };
    let whole = args.records.is_none_or(|expected| rows == expected && people == expected);
    let table = lake.dataset.name.clone();
    drop(lake);
    // The progress and the chaos have ended, so this is the last handle; otherwise dropping it ends everything as well.
    if let Ok(stack) = Arc::try_unwrap(stack) {
        stack.stop().await.map_err(stopped)?;
    }
    if let Some(expected) = args.records.filter(|_| !whole) {
        writeln!(out, "{expected} people were asked for; the lake holds {rows} rows of {people} people.")?;
    }
    let folder = args.folder.display();
    let option = if dataset == NAMES { String::new() } else { format!("--dataset {dataset} ") };
    let freshet = format!("target/debug/freshet {option}--local {folder}");
    writeln!(out, "The lake is in {folder}. Try:")?;
    writeln!(out, "  {freshet} query \"SELECT * FROM {table} WHERE _offset < 3\"")?;
    writeln!(out, "  {freshet} verify --deep")?;
    writeln!(out, "  {freshet} ledger show")?;
    Ok(if report.findings.is_empty() && whole { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Removes an earlier demo's lake, and nothing else.
fn clear(folder: &Path) -> Result<(), Error> {
    let is_demo = folder.join("catalog.json").is_file() || folder.join("s3").join(stack::BUCKET).is_dir();
    let occupied = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !is_demo {
        let shown = folder.display();
        return Err(Error::stopped(format!("{shown} holds something else than a demo's lake: give another --folder")));
    }
    if is_demo {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(std::fs::create_dir_all(folder)?)
}

fn stack_config(dataset: &str, args: &DemoArgs) -> Result<StackConfig, Error> {
    let exe = std::env::current_exe()?;
    let binaries = exe.parent().map(Path::to_owned).unwrap_or_default();
    let mut config = StackConfig::new(&args.folder, binaries, &args.broker);
    config.dataset = dataset.to_owned();
    let (run, fetch_every) = match (args.records, args.live || dataset != NAMES) {
        (Some(records), _) => {
            let options = ApiOptions { distinct: true, remaining: Some(records), ..ApiOptions::default() };
            config.source = Source::People { options, results: 2_000 };
            ("3", "0.02")
        }
        (None, true) => {
            config.source = Source::Live;
            ("12", "4")
        }
        (None, false) => ("5", "0.5"),
    };
    config.producer =
        vec![("RUN_SECONDS".to_owned(), run.to_owned()), ("FETCH_EVERY_SECONDS".to_owned(), fetch_every.to_owned())];
    config.resize_retries = args.chaos;
    Ok(config)
}

/// What became of the producer's runs.
#[derive(Default)]
struct Produced {
    runs: u64,
    failed_runs: u64,
    /// Handed out by the API and never published, because the producer was killed in between.
    lost_in_producer: u64,
}

/// The schedule, for one run; to be kept, until Ctrl-C ends the whole demo.
async fn run_schedule(stack: &Arc<Stack>, args: &DemoArgs, out: &mut dyn Write) -> Result<Produced, Error> {
    if args.page {
        // Before the first run: the page sums up from here on.
        let schedule = Arc::new(Schedule::start(EVERY, stack.producer.clone()));
        let source = OfDemo::new(stack.clone(), schedule, EVERY, open(stack).await, &args.folder);
        let server = page::serve(args.listen, &[], &stack.dataset, Arc::new(source)).await?;
        writeln!(out, "The page is at {}    Ctrl-C ends everything.", page::url(&server))?;
        out.flush()?;
        return std::future::pending().await;
    }
    let schedule = Schedule::start(EVERY, stack.producer.clone());
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let stats = schedule.stats();
        let Some(last) = stats.last.filter(|_| !args.keep && stats.runs > 0 && !stats.running) else { continue };
        let produced = Produced { runs: stats.runs, failed_runs: stats.failures, lost_in_producer: 0 };
        schedule.stop().await;
        return match last.result {
            Ok(_) => Ok(produced),
            Err(error) => Err(Error::stopped(format!("the producer's run failed: {error}. Look into producer.log"))),
        };
    }
}

/// Runs the producer until exactly `records` people are on the topic. The API hands each person out once: what a killed
/// producer had fetched and not published is made up for with other people.
async fn publish(stack: &Stack, records: u64) -> Result<Produced, Error> {
    let mut produced = Produced::default();
    loop {
        produced.runs += 1;
        let event = scheduled_event(stack.producer.arn(), Timestamp::now());
        if let Err(error) = stack.producer.invoke(event).await {
            produced.failed_runs += 1;
            if stack.producer.stats().killed == 0 {
                return Err(Error::stopped(format!("the producer's run failed: {error}. Look into producer.log")));
            }
        }
        let published = published(stack).await?;
        let Some(api) = stack.api.as_ref() else { return Ok(produced) };
        let missing = records.saturating_sub(published);
        let remaining = api.remaining().unwrap_or_default();
        produced.lost_in_producer += missing.saturating_sub(remaining);
        if missing == 0 {
            return Ok(produced);
        }
        api.set_remaining(missing);
    }
}

/// Records on the topic. What a killed producer had on the wire may still arrive: only a number that stays counts.
async fn published(stack: &Stack) -> Result<u64, Error> {
    let mut last = None;
    loop {
        let lag = stack.event_source.lag().await;
        let lag = lag.map_err(|e| Error::stopped(format!("the broker does not answer: {e}. Start the demo again")))?;
        let now: i64 = lag.values().map(|lag| lag.high).sum();
        if last.replace(now) == Some(now) {
            return Ok(now.unsigned_abs());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The stack's lake, read through the stack's own S3 and catalog.
pub async fn open(stack: &Stack) -> Lake {
    open_on(&stack.dataset, &stack.s3, &stack.glue).await
}

/// The lake of a dataset on an embedded S3 and catalog.
pub async fn open_on(dataset: &Dataset, s3: &S3Server, glue: &GlueServer) -> Lake {
    let credentials = Credentials::new(s3.access_key(), s3.secret_key(), None, None, "embedded");
    let loader = pipeline::aws::loader().region(Region::from_static("us-east-1")).credentials_provider(credentials);
    let sdk = loader.load().await;
    let glue = aws_sdk_glue::config::Builder::from(&sdk).endpoint_url(glue.endpoint()).build();
    let catalog = Catalog {
        client: aws_sdk_glue::Client::from_conf(glue),
        database: stack::DATABASE.to_owned(),
        table: dataset.name.clone(),
    };
    let config = LakeConfig {
        bucket: stack::BUCKET.to_owned(),
        prefix: dataset.lake.prefix.clone(),
        ledger_prefix: "_ledger".to_owned(),
        s3: S3Config { region: None, endpoint: Some(s3.endpoint()), path_style: true },
    };
    Lake::new(dataset.clone(), &config, sdk, Some(catalog))
}

async fn distinct_people(lake: &Lake) -> Result<u64, Error> {
    let rows = query::query_json(lake, DISTINCT).await?;
    Ok(rows.first().and_then(|row| row["people"].as_u64()).unwrap_or_default())
}

/// The objects of the lake as a tree, with their sizes.
fn tree(root: &Path, out: &mut dyn Write) -> Result<(), Error> {
    fn walk(folder: &Path, depth: usize, out: &mut dyn Write) -> std::io::Result<()> {
        let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let (mut shown, mut more) = (0, 0);
        for entry in entries {
            let (name, indent) = (entry.file_name(), "  ".repeat(depth));
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                writeln!(out, "{indent}{name}/")?;
                walk(&entry.path(), depth + 1, out)?;
            } else if shown < SHOWN {
                shown += 1;
                writeln!(out, "{indent}{name}  {} bytes", entry.metadata()?.len())?;
            } else {
                more += 1;
            }
        }
        if more > 0 {
            writeln!(out, "{}… and {}", "  ".repeat(depth), text::count(more, "more object"))?;
        }
        Ok(())
    }
    writeln!(out, "s3://{}", stack::BUCKET)?;
    walk(root, 1, out)?;
    Ok(writeln!(out)?)
}

/// Records and bytes a second of each stage, while it was at work.
fn measured(
    stack: &Stack,
    folder: &Path,
    produced: &Produced,
    wall: Duration,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let log = std::fs::read_to_string(folder.join("consumer.log")).unwrap_or_default();
    let total = |name: &str| -> u64 {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| line.get(name)?.as_u64()).sum()
    };
    let records = stack.event_source.stats().records;
    let row = |stage: &str, stats: &FunctionStats, bytes: u64| {
        let seconds = stats.duration.as_secs_f64().max(0.001);
        let mb = bytes as f64 / 1e6;
        let numbers = [records as f64 / seconds, mb / seconds];
        vec![
            stage.to_owned(),
            records.to_string(),
            format!("{mb:.1}"),
            stats.invocations.to_string(),
            format!("{seconds:.1}"),
            format!("{:.0}", numbers[0]),
            format!("{:.1}", numbers[1]),
        ]
    };
    let (producer, consumer) = (stack.producer.stats(), stack.consumer.stats());
    let header = ["stage", "records", "MB", "invocations", "busy s", "records/s", "MB/s"];
    let rows = [row("API → topic", &producer, total("BytesIn")), row("topic → lake", &consumer, total("BytesIn"))];
    writeln!(out, "{}", text::table(&header, &rows))?;
    let stored = total("BytesOut") as f64 / 1e6;
    writeln!(
        out,
        "{:.1} s from the first fetch to the last row; {stored:.1} MB stored, this build unoptimised.",
        wall.as_secs_f64()
    )?;
    if consumer.killed + producer.killed > 0 {
        writeln!(
            out,
            "Killed: the consumer {} times, the producer {} times in {} runs; {} people were fetched and lost with it, before they \
             reached the topic.\nThe consumer's {} retries dropped {} repeated records and adopted {} ranges.",
            consumer.killed,
            producer.killed,
            produced.runs,
            produced.lost_in_producer,
            stack.event_source.stats().retries,
            total("DuplicatesDropped"),
            total("RangesAdopted"),
        )?;
    }
    Ok(writeln!(out)?)
}

/// A task that ends when it is dropped.
struct Background(tokio::task::JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Kills processes of both functions at random.
struct Chaos;

impl Chaos {
    fn start(stack: Arc<Stack>) -> Background {
        Background(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(150..900))).await;
                // The consumer more often: it is the one that promises.
                let function = if fastrand::u8(..4) == 0 { &stack.producer } else { &stack.consumer };
                function.kill_one().await;
            }
        }))
    }
}

/// A line about what happens, on standard error.
struct Progress {
    _task: Background,
}

impl Progress {
    fn start(stack: Arc<Stack>, records: Option<u64>) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let every = Duration::from_millis(if terminal { 200 } else { 5_000 });
        let task = Background(tokio::spawn(async move {
            let of = records.map_or_else(String::new, |records| format!(" of {records}"));
            loop {
                tokio::time::sleep(every).await;
                let (source, producer, consumer) =
                    (stack.event_source.stats(), stack.producer.stats(), stack.consumer.stats());
                let killed = match producer.killed + consumer.killed {
                    0 => String::new(),
                    killed => format!(" · {killed} processes killed"),
                };
                let served = stack.api.as_ref().map_or_else(String::new, |api| format!("{} fetched · ", api.served()));
                let line =
                    format!("  {served}{}{of} stored · {} invocations{killed}", source.records, consumer.invocations);
                if terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
            }
        }));
        Progress { _task: task }
    }

    fn stop(self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::stopped(error.to_string())
}
