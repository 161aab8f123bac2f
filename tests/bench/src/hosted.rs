//! The consumer's real binary, hosted as Lambda does, before an S3 and a Glue catalog on the loopback.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use localstack::glue::GlueServer;
use localstack::process::Log;
use localstack::runtime::{Function, FunctionConfig};
use localstack::s3::S3Server;
use localstack::stack::{BUCKET, DATABASE, create_table};
use serde_json::Value;
use tempfile::TempDir;

use crate::Failure;
use crate::event::{self, Shape};
use crate::ours::dataset;

/// What the process may write to: heap, stacks and buffers, in KB. A Lambda of 128 MB.
const LIMIT_KB: u32 = 131_072;

pub struct Hosted {
    folder: TempDir,
    s3: S3Server,
    glue: GlueServer,
    function: Function,
    requests: Arc<AtomicU64>,
    /// Of each partition.
    next_offsets: Vec<i64>,
}

/// One event's price.
pub struct Cost {
    pub rows: u64,
    pub cpu_ms: f64,
    pub requests: u64,
    pub bytes_out: u64,
}

impl Hosted {
    pub async fn start(format: &str, codec: &str, partitions: usize) -> Result<Hosted, Failure> {
        let folder = tempfile::tempdir()?;
        let s3 = S3Server::start(&folder.path().join("s3"), BUCKET).await?;
        let requests = Arc::new(AtomicU64::new(0));
        let count = requests.clone();
        s3.set_hook(Some(Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            None
        })));
        let glue = GlueServer::start(&folder.path().join("catalog.json")).await?;
        create_table(&glue, &dataset(format, codec))?;
        let file = folder.path().join("names.yaml");
        std::fs::write(&file, crate::ours::dataset_file(format, codec))?;

        // The shell becomes the consumer, and keeps its number.
        let consumer = std::env::current_exe()?.with_file_name("consumer");
        let limited = folder.path().join("limited");
        let (pid, consumer) = (folder.path().join("pid"), consumer.display());
        std::fs::write(
            &limited,
            format!("#!/bin/sh\nulimit -d {LIMIT_KB}\necho $$ > {}\nexec {consumer}\n", pid.display()),
        )?;
        std::fs::set_permissions(&limited, std::fs::Permissions::from_mode(0o755))?;
        let environment = [
            ("DATASET", file.display().to_string()),
            ("S3_BUCKET", BUCKET.to_owned()),
            ("S3_ENDPOINT", s3.endpoint()),
            ("S3_PATH_STYLE_ACCESS", "true".to_owned()),
            ("GLUE_DATABASE", DATABASE.to_owned()),
            ("AWS_ENDPOINT_URL_GLUE", glue.endpoint()),
            ("AWS_ACCESS_KEY_ID", s3.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", s3.secret_key().to_owned()),
        ];
        let function = Function::start(FunctionConfig {
            environment: environment.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            timeout: Duration::from_secs(60),
            max_concurrency: 1,
            log: Log::Null,
            ..FunctionConfig::new("consumer", limited)
        })?;
        Ok(Hosted { folder, s3, glue, function, requests, next_offsets: vec![0; partitions] })
    }

    /// A full event that goes on where the last one ended.
    pub async fn event(&mut self, seed: u64, record_bytes: Option<usize>) -> Result<Cost, Failure> {
        let event = event::of_shape(seed, Shape { first_offsets: &self.next_offsets, record_bytes });
        let rows = event.rows.len() as u64;
        for row in &event.rows {
            let partition = row["_partition"].as_u64().and_then(|n| self.next_offsets.get_mut(n as usize));
            *partition.ok_or("the event has a partition too many")? += 1;
        }
        self.requests.store(0, Ordering::Relaxed);
        let before = self.cpu_ms();
        let report: Value = serde_json::from_slice(&self.function.invoke(event.payload.into()).await?)?;
        let cpu_ms = self.cpu_ms() - before;
        if report["rows"].as_u64() != Some(rows) {
            return Err(format!("the consumer stored something else than {rows} rows: {report}").into());
        }
        let bytes_out = report["bytes_out"].as_u64().unwrap_or_default();
        Ok(Cost { rows, cpu_ms, requests: self.requests.load(Ordering::Relaxed), bytes_out })
    }

    /// The most that was resident at any time, in MB (10⁶ bytes).
    pub fn peak_mb(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(self.proc().ok_or("no process runs")?.join("status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("Linux alone tells VmHWM")?;
        Ok(peak.trim().trim_end_matches(" kB").parse::<f64>()? * 1.024 / 1e3)
    }

    fn proc(&self) -> Option<PathBuf> {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).ok()?;
        Some(PathBuf::from("/proc").join(pid.trim()))
    }

    /// Of all threads so far; 0 before the process is there.
    fn cpu_ms(&self) -> f64 {
        let tasks = self.proc().and_then(|proc| std::fs::read_dir(proc.join("task")).ok());
        let files = tasks.into_iter().flatten().flatten().map(|task| task.path().join("schedstat"));
        let times = files.filter_map(|file| std::fs::read_to_string(file).ok()?.split(' ').next()?.parse::<f64>().ok());
        times.sum::<f64>() / 1e6
    }

    pub async fn stop(self) {
        self.function.stop().await;
        self.glue.stop().await;
        self.s3.stop().await;
    }
}
