//! `freshet demo --page`, a process of its own as `make demo PAGE=1` starts it, and what a test does to it from outside.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;

use crate::support::server::{self, Server};
use crate::support::stack::{binaries, skip};

pub struct Demo {
    /// `None` while it is stopped.
    server: Option<Server>,
    port: u16,
    folder: tempfile::TempDir,
}

impl Demo {
    /// Returns when the page answers. `None`, loudly, where the demo is not built, or where processes cannot be found.
    pub async fn start() -> Option<Demo> {
        let (binaries, broker) = binaries()?;
        if !Path::new("/proc/self/stat").exists() {
            return skip("the functions' processes are found in /proc, which is not here: run the test on Linux");
        }
        let folder = tempfile::tempdir().unwrap();
        let arguments = |command: &mut Command, port: u16| arguments(command, port, folder.path(), &binaries, &broker);
        let server = Server::start(folder.path().join("demo.log"), arguments, ready).await;
        Some(Demo { port: server.port(), server: Some(server), folder })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// As a machine does that loses its power: at once, with all that it has started.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// From the start, with another lake, at the same address.
    pub async fn start_again(&mut self) {
        let (binaries, broker) = binaries().unwrap();
        let folder = self.folder.path();
        let arguments = |command: &mut Command, port: u16| arguments(command, port, folder, &binaries, &broker);
        let server = Server::start_at(self.port, folder.join("demo.log"), arguments, ready).await;
        self.server = Some(server.expect("the demo starts again; its log says why not"));
    }

    /// What the API says, as `freshet status` and the page have it.
    pub async fn status(&self) -> Value {
        let answer = server::http().get(format!("{}/api/status", self.url())).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// What `freshet verify --json` says of the lake on disk and of the topic.
    pub async fn verify(&self) -> Value {
        let (binaries, _) = binaries().unwrap();
        let mut command = tokio::process::Command::new(binaries.join("freshet"));
        command.arg("--local").arg(self.lake());
        command.args(["verify", "--deep", "--json", "--kafka", &self.brokers().await]);
        let output = command.kill_on_drop(true).output().await.unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// Halts the functions of this name, and lets them go on (`-STOP`, `-CONT`), or ends them (`-KILL`). Returns how many.
    pub fn signal(&self, function: &str, signal: &str) -> usize {
        let demo = self.server.as_ref().expect("it runs").id();
        let processes = children(demo, function);
        for process in &processes {
            // One that has just ended has no use for the signal.
            let _ = Command::new("kill").args([signal, &process.to_string()]).output().unwrap();
        }
        processes.len()
    }

    /// Waits until rows have reached the lake, halts the producer, so that nothing more comes, and waits until all that is on the topic is
    /// in the lake. `signal("producer", "-CONT")` lets it go on.
    pub async fn at_rest(&self) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        // A producer that is halted before it has published, or before it has started, leaves an empty topic, or none that rests.
        while self.status().await["lake"]["rows"].as_u64().unwrap_or_default() == 0
            || self.signal("producer", "-STOP") == 0
        {
            assert!(Instant::now() < deadline, "no rows have reached the lake");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        loop {
            let report = self.verify().await;
            let partitions = report["partitions"].as_array().unwrap();
            if !partitions.is_empty() && partitions.iter().all(|p| p["lag"] == 0 && p["in_flight"] == 0) {
                return report;
            }
            assert!(Instant::now() < deadline, "the consumer does not come to rest: {report:#}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Puts a record on the topic, as somebody else's producer would. Returns its partition and offset.
    pub async fn publish(&self, value: &[u8]) -> (i32, i64) {
        let status = self.status().await;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers().await);
        let producer: FutureProducer = config.create().unwrap();
        let topic = status["topic"]["name"].as_str().unwrap();
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).payload(value);
        let delivered = producer.send(record, Duration::from_secs(10)).await.unwrap();
        (delivered.partition, delivered.offset)
    }

    fn lake(&self) -> std::path::PathBuf {
        self.folder.path().join("lake")
    }

    async fn brokers(&self) -> String {
        self.status().await["topic"]["bootstrap_servers"].as_str().unwrap().to_owned()
    }
}

fn arguments(command: &mut Command, port: u16, folder: &Path, binaries: &Path, broker: &Path) {
    command.arg(binaries.join("freshet")).args(["demo", "--page", "--listen", &format!("127.0.0.1:{port}")]);
    command.arg("--folder").arg(folder.join("lake")).arg("--broker").arg(broker);
}

async fn ready(port: u16) -> bool {
    let answer = server::http().get(format!("http://127.0.0.1:{port}/api/status")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// Processes of a name whose parent is this one.
fn children(parent: u32, name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        // `PID (NAME) STATE PARENT …`
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((pid, rest)) = stat.split_once(" (") else { continue };
        let Some((command, rest)) = rest.rsplit_once(") ") else { continue };
        let is_child = rest.split(' ').nth(1) == Some(&parent.to_string());
        if is_child && command == name {
            found.extend(pid.parse::<u32>());
        }
    }
    found
}
