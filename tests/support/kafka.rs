//! Apache Kafka: brokers that are their own controllers (KRaft), fetched by `tests/cloud/tools.sh kafka`. They can be killed and started
//! again, and a test's body can run on them as on the embedded broker.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;

use super::server::{free_port, guarded, root};
use super::stack::skip;

const START: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
const BROKERS: usize = 3;

/// Which Kafka a test's body runs on.
pub enum Brokers {
    /// The one that a stack starts for itself.
    Embedded,
    Apache(KafkaCluster),
}

impl Brokers {
    /// Three brokers. `None`, loudly, where Java or Kafka is not there.
    pub async fn apache() -> Option<Brokers> {
        KafkaCluster::start().await.map(Brokers::Apache)
    }

    /// Where the brokers are that run already.
    pub fn bootstrap_servers(&self) -> Option<String> {
        match self {
            Brokers::Embedded => None,
            Brokers::Apache(cluster) => Some(cluster.bootstrap_servers()),
        }
    }

    pub fn replication_factor(&self) -> i32 {
        match self {
            Brokers::Embedded => 1,
            Brokers::Apache(_) => BROKERS as i32,
        }
    }

    /// What the last body has left on brokers that go on: its topics, and with them the offsets of its groups.
    pub async fn clear(&self) {
        if let Brokers::Apache(cluster) = self {
            cluster.delete_topics().await;
        }
    }
}

/// A test for each of the bodies on the embedded broker, and one in which all of them run on Apache Kafka, one after the other.
macro_rules! on_each_broker {
    ($($body:ident),+ $(,)?) => {
        mod on_the_embedded_broker {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $body() {
                    super::$body(&$crate::support::kafka::Brokers::Embedded).await;
                }
            )+
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn on_apache_kafka() {
            let Some(brokers) = $crate::support::kafka::Brokers::apache().await else { return };
            $(
                println!("• {}", stringify!($body));
                $body(&brokers).await;
                brokers.clear().await;
            )+
        }
    };
}
pub(crate) use on_each_broker;

/// Brokers on the loopback, everything on all of them, `min.insync.replicas` one less. Dropped, they are gone.
pub struct KafkaCluster {
    folder: tempfile::TempDir,
    ports: Vec<u16>,
    brokers: Vec<Option<Child>>,
}

impl KafkaCluster {
    /// Returns when each broker knows each other one.
    async fn start() -> Option<KafkaCluster> {
        let brokers = BROKERS;
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
        let mut cluster = KafkaCluster { folder: tempfile::tempdir().unwrap(), ports, brokers: Vec::new() };
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
                 log.cleaner.dedupe.buffer.size=2097152\nlog.cleaner.threads=1\nlog.cleaner.backoff.ms=200\n\
                 log.retention.check.interval.ms=300\nlog.initial.task.delay.ms=300\nnum.network.threads=2\nnum.io.threads=2\n",
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
        self.folder.path().join(format!("kafka-{}", index + 1))
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

    pub fn brokers(&self) -> usize {
        self.brokers.len()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.bootstrap_servers()).create().unwrap()
    }

    async fn delete_topics(&self) {
        let admin = self.admin();
        let metadata = admin.inner().fetch_metadata(None, SOON).unwrap();
        let names: Vec<_> =
            metadata.topics().iter().map(|topic| topic.name()).filter(|n| !n.starts_with("__")).collect();
        if names.is_empty() {
            return;
        }
        for deleted in admin.delete_topics(&names, &AdminOptions::new()).await.unwrap() {
            deleted.unwrap();
        }
    }

    pub async fn set_partitions(&self, topic: &str, partitions: usize) {
        let more = NewPartitions::new(topic, partitions);
        self.admin().create_partitions([&more], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        self.until_complete().await;
    }

    /// Instead of what was set for the topic before.
    pub async fn configure(&self, topic: &str, settings: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        change.entries.extend(settings.iter().copied());
        self.admin().alter_configs([&change], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// Waits until whichever broker is asked knows these settings of a topic. Nobody can choose which one a client asks, so that several do.
    pub async fn until_configured(&self, topic: &str, settings: &[(&str, &str)]) {
        let deadline = Instant::now() + START;
        let (mut known, resource) = (0, ResourceSpecifier::Topic(topic));
        while known < 2 * self.brokers() {
            let described = self.admin().describe_configs([&resource], &AdminOptions::new()).await;
            let config = described.ok().and_then(|mut topics| topics.pop()?.ok());
            let is_set = |(name, expected): &(&str, &str)| {
                let entry = config.as_ref().and_then(|config| config.get(name));
                entry.and_then(|entry| entry.value.as_deref()) == Some(*expected)
            };
            if settings.iter().all(is_set) {
                known += 1;
                continue;
            }
            known = 0;
            assert!(Instant::now() < deadline, "{topic} is not set to {settings:?} within {} s", START.as_secs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Gives each of a topic's partitions another leader, as an operator does who moves load between brokers: the replicas in another
    /// order, and the first of them elected. Returns how many have moved.
    pub async fn move_leaders(&self, topic: &str) -> usize {
        let before = self.leaders(topic);
        let brokers = self.brokers() as i32;
        let partitions = before.iter().map(|(partition, leader)| {
            // The next one of the ring leads.
            let replicas: Vec<i32> = (0..brokers).map(|n| (leader + n) % brokers + 1).collect();
            json!({"topic": topic, "partition": partition, "replicas": replicas})
        });
        let plan = json!({"version": 1, "partitions": partitions.collect::<Vec<_>>()});
        let file = self.folder.path().join("reassignment.json");
        std::fs::write(&file, plan.to_string()).unwrap();
        let file = file.display().to_string();
        let reassign = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
        self.tool(reassign, &["--reassignment-json-file", &file, "--execute"]).await;
        let elect = "org.apache.kafka.tools.LeaderElectionCommand";
        self.tool(elect, &["--election-type", "preferred", "--all-topic-partitions"]).await;
        self.until_complete().await;
        self.leaders(topic).iter().filter(|leader| !before.contains(leader)).count()
    }

    /// Partitions and their leaders.
    fn leaders(&self, topic: &str) -> Vec<(i32, i32)> {
        let admin = self.admin();
        let metadata = admin.inner().fetch_metadata(Some(topic), SOON).unwrap();
        metadata.topics()[0].partitions().iter().map(|partition| (partition.id(), partition.leader())).collect()
    }

    /// Runs one of Kafka's commands to its end.
    async fn tool(&self, class: &str, arguments: &[&str]) {
        let mut command = tokio::process::Command::new("java");
        command.args(java(class)).args(["--bootstrap-server", &self.bootstrap_servers()]).args(arguments);
        let output = command.kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{class}: {output:?}");
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
