//! Apache Kafka: brokers that are their own controllers (KRaft), fetched by `tests/cloud/tools.sh kafka`. They can be killed and started again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::server::{free_port, guarded, root};
use super::stack::skip;

const START: Duration = Duration::from_secs(120);
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";

/// A cluster of brokers on the loopback. Dropped, it is gone.
pub struct KafkaCluster {
    folder: PathBuf,
    ports: Vec<u16>,
    brokers: Vec<Option<Child>>,
}

impl KafkaCluster {
    /// Starts so many brokers with replication of everything to all of them, `min.insync.replicas` one less, and waits until each knows each.
    /// `None`, loudly, where Java or Kafka is not there.
    pub async fn start(folder: &Path, brokers: usize) -> Option<KafkaCluster> {
        let installed = Command::new("java").arg("-version").output();
        if !installed.is_ok_and(|output| output.status.success()) || libraries().is_none() {
            return skip(
                "Apache Kafka is not there: install a JDK of version 17 or later, then run `tests/cloud/tools.sh kafka`",
            );
        }
        let ports: Vec<u16> = (0..brokers).map(|_| free_port()).collect();
        let controllers: Vec<u16> = (0..brokers).map(|_| free_port()).collect();
        let voters: Vec<String> =
            controllers.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect();
        let mut cluster = KafkaCluster { folder: folder.to_owned(), ports, brokers: Vec::new() };
        for (index, controller) in controllers.iter().enumerate() {
            let home = cluster.home(index);
            std::fs::create_dir_all(&home).unwrap();
            let (id, port) = (index + 1, cluster.ports[index]);
            let (factor, insync) = (brokers, brokers.saturating_sub(1).max(1));
            let properties = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\ncontroller.listener.names=CONTROLLER\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\nauto.create.topics.enable=false\n\
                 default.replication.factor={factor}\nmin.insync.replicas={insync}\noffsets.topic.replication.factor={factor}\n\
                 offsets.topic.num.partitions=4\ntransaction.state.log.replication.factor={factor}\ntransaction.state.log.min.isr={insync}\n\
                 transaction.state.log.num.partitions=4\nshare.coordinator.state.topic.replication.factor={factor}\n\
                 share.coordinator.state.topic.min.isr={insync}\ngroup.initial.rebalance.delay.ms=0\nbroker.session.timeout.ms=6000\n\
                 log.cleaner.dedupe.buffer.size=2097152\nlog.cleaner.threads=1\nnum.network.threads=2\nnum.io.threads=2\n",
                voters.join(","),
                home.join("data").display(),
            );
            std::fs::write(home.join("server.properties"), properties).unwrap();
            let mut format = Command::new("java");
            format.args(java("kafka.tools.StorageTool")).args(["format", "--cluster-id", CLUSTER_ID, "--config"]);
            let format = format.arg(home.join("server.properties")).output().unwrap();
            assert!(format.status.success(), "{format:?}");
            cluster.brokers.push(None);
        }
        for index in 0..brokers {
            cluster.restart(index);
        }
        cluster.until_complete().await;
        Some(cluster)
    }

    fn home(&self, index: usize) -> PathBuf {
        self.folder.join(format!("kafka-{}", index + 1))
    }

    /// Kills it as a power cut does (SIGKILL).
    pub fn kill(&mut self, index: usize) {
        let mut broker = self.brokers[index].take().expect("it runs");
        broker.kill().unwrap();
        broker.wait().unwrap();
    }

    /// Starts a broker that was killed, with what is on its disk.
    pub fn restart(&mut self, index: usize) {
        let home = self.home(index);
        let mut command = guarded(&home.join("log"));
        command.arg("java").args(java("kafka.Kafka")).arg(home.join("server.properties"));
        self.brokers[index] = Some(command.spawn().unwrap());
    }

    /// Waits until every broker that runs knows every other one, and has caught up with it where it leads nothing yet.
    pub async fn until_complete(&self) {
        let alive = self.brokers.iter().filter(|broker| broker.is_some()).count();
        let deadline = Instant::now() + START;
        loop {
            let servers = self.bootstrap_servers();
            let seen = tokio::task::spawn_blocking(move || complete(&servers, alive)).await.unwrap();
            if seen {
                return;
            }
            assert!(Instant::now() < deadline, "{alive} brokers are not complete within {} s", START.as_secs());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub fn bootstrap_servers(&self) -> String {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        for mut broker in self.brokers.iter_mut().filter_map(Option::take) {
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

/// Every broker is listed, and no partition lacks a leader or a replica in sync.
fn complete(servers: &str, alive: usize) -> bool {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let Ok(metadata) = client.fetch_metadata(None, Duration::from_secs(5)) else { return false };
    let whole = |partition: &rdkafka::metadata::MetadataPartition| {
        partition.leader() > 0 && partition.isr().len() == alive.min(partition.replicas().len())
    };
    metadata.brokers().len() == alive && metadata.topics().iter().flat_map(|topic| topic.partitions()).all(whole)
}

fn libraries() -> Option<PathBuf> {
    let tools = std::fs::read_dir(root().join("target/tools")).ok()?;
    tools
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kafka-")))
}

/// Arguments of `java` that run one of Kafka's programs.
fn java(class: &str) -> Vec<std::ffi::OsString> {
    let options = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"].map(Into::into);
    options.into_iter().chain([libraries().unwrap().join("*").into(), class.into()]).collect()
}
