//! The page's source in the demo: everything runs in this process, and writes its logs into the demo's folder.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use localstack::schedule::Schedule as Ticks;
use localstack::stack::Stack;
use pipeline::kafka::KafkaConfig;
use tokio::sync::Mutex;

use crate::event_source::SourceStatus;
use crate::status::document::{Function, Functions, Run, Schedule};
use crate::status::metrics::Metrics;
use crate::status::source::{Pipeline, Role, Source};
use crate::{Error, Lake, kafka};

/// The most that one look reads of a log, so that a long one is not held in memory at once.
const READ: u64 = 16 << 20;

pub struct OfDemo {
    stack: Arc<Stack>,
    schedule: Arc<Ticks>,
    every: Duration,
    folder: PathBuf,
    since: i64,
    pipeline: Arc<Pipeline>,
    /// Bytes of the logs that were read: the producer's and the consumer's.
    read: [Mutex<u64>; 2],
}

impl OfDemo {
    /// `every` is the schedule's interval, `folder` where the logs are.
    pub fn new(stack: Arc<Stack>, schedule: Arc<Ticks>, every: Duration, lake: Lake, folder: &Path) -> OfDemo {
        let pipeline = Arc::new(Pipeline { lake, polled: stack.event_source.config() });
        OfDemo {
            stack,
            schedule,
            every,
            folder: folder.to_owned(),
            since: pipeline::telemetry::now_ms(),
            pipeline,
            read: Default::default(),
        }
    }
}

#[async_trait]
impl Source for OfDemo {
    async fn pipeline(&self) -> Result<Arc<Pipeline>, Error> {
        Ok(self.pipeline.clone())
    }

    async fn kafka(&self) -> Result<KafkaConfig, Error> {
        kafka::connect_embedded(&self.pipeline.polled.bootstrap_servers, &self.pipeline.lake.sdk).await
    }

    fn every(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn functions(&self) -> Result<Functions, String> {
        let one = |function: &localstack::runtime::Function| Function {
            name: function.name().to_owned(),
            state: "Active".to_owned(),
            memory_mib: None,
            timeout_seconds: None,
        };
        Ok(Functions { producer: one(&self.stack.producer), consumer: one(&self.stack.consumer) })
    }

    async fn schedule(&self, runs: &Metrics) -> Result<Schedule, String> {
        let stats = self.schedule.stats();
        let last_run = stats.last.map(|run| {
            let ended = run.started.as_millisecond() + i64::try_from(run.duration.as_millis()).unwrap_or(i64::MAX);
            // A run that died wrote none.
            let own = runs.last.as_ref().filter(|line| line.at >= run.started.as_millisecond());
            Run {
                ended,
                duration_ms: u64::try_from(run.duration.as_millis()).ok(),
                error: run.result.err().map(|error| error.to_string()),
                metrics: own.map(|line| line.metrics.clone()).unwrap_or_default(),
            }
        });
        Ok(Schedule {
            rule: None,
            expression: Some(format!("every {} s", self.every.as_secs())),
            state: Some("ENABLED".to_owned()),
            runs: stats.runs,
            failures: stats.failures,
            running: stats.running,
            last_run,
            next_run: stats.next.map(|next| next.as_millisecond()),
        })
    }

    fn since(&self) -> i64 {
        self.since
    }

    async fn written(&self, role: Role) -> Result<String, String> {
        let (name, read) = match role {
            Role::Producer => ("producer.log", &self.read[0]),
            Role::Consumer => ("consumer.log", &self.read[1]),
        };
        let (path, mut read) = (self.folder.join(name), read.lock().await);
        let from = *read;
        let shown = path.display().to_string();
        let lines = tokio::task::spawn_blocking(move || whole_lines(&path, from)).await;
        let lines = lines.map_err(|e| e.to_string()).and_then(|lines| lines.map_err(|e| e.to_string()));
        let lines = lines.map_err(|reason| format!("{shown} cannot be read: {reason}. Start the demo again"))?;
        *read += lines.len() as u64;
        Ok(String::from_utf8_lossy(&lines).into_owned())
    }

    async fn event_source(&self) -> Result<Option<SourceStatus>, String> {
        let polled = &self.pipeline.polled;
        Ok(Some(SourceStatus {
            function_name: self.stack.consumer.name().to_owned(),
            topic: polled.topic.clone(),
            consumer_group_id: polled.consumer_group_id.clone(),
            stats: self.stack.event_source.stats(),
        }))
    }

    async fn start_run(&self) -> Result<bool, Error> {
        Ok(self.schedule.start_now().await)
    }
}

/// What a file has from there on, up to its last line's end.
fn whole_lines(path: &Path, from: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    bytes.truncate(end);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_that_is_being_written_is_left_for_the_next_time() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "one\ntwo\nth").unwrap();
        assert_eq!(whole_lines(file.path(), 0).unwrap(), b"one\ntwo\n");
        assert_eq!(whole_lines(file.path(), 8).unwrap(), b"");
        writeln!(file, "ree").unwrap();
        assert_eq!(whole_lines(file.path(), 8).unwrap(), b"three\n");
    }
}
