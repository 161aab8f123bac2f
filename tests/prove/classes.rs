//! The classes of faults: what each does to a run, and what counts as injected.

use std::time::{Duration, Instant};

use super::bench::{Bench, GROUP, Retries, TIME_OUT};
use super::orders::SETTINGS;
use crate::support::fault_proxy::{Fault, Plan};
use crate::support::kafka::Brokers;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Requests to S3 and Glue, by the proxy.
    Request(Fault),
    /// SIGKILL of a process at work.
    Killed,
    /// SIGSTOP of a process at work; its caller gives up and another attempt begins; SIGCONT: both run at once.
    Halted,
    /// SIGSTOP until the function's time-out has ended the process.
    TimedOut,
    /// A process that may not have the memory that its batch takes.
    Memory,
    /// Requests so slow that the function's time is up in the middle of its work.
    OutOfTime,
    /// A batch that failed comes again in another size, cut at random.
    OtherSize,
    /// The same in provisioned mode, halved.
    Bisected,
    /// Another event source of the group comes and goes.
    Rebalanced,
    /// The group's offsets are set back: records that were committed are delivered again.
    Redelivered,
    /// The event source ends without waiting for its invocations, and another begins where it had committed.
    Restarted,
    /// The topic is deleted and made anew, and an operator resets the ledgers.
    MadeAnew,
    /// SIGKILL of a broker, which comes back with what is on its disk.
    BrokerKilled,
    /// Every partition gets another leader.
    LeaderMoved,
    /// The topic gets one partition more.
    PartitionAdded,
    /// Orders in transactions, half of which are aborted: markers and aborted records are gaps.
    Transaction,
    /// Records are compacted away before they are delivered.
    Compacted,
    /// Records expire, stored ones and such that never were.
    Expired,
    /// All of them but the last, at random.
    Everything,
}

/// Requests that fail, by the proxy.
pub const REQUESTS: [Class; 12] = [
    Class::Request(Fault::Error500),
    Class::Request(Fault::SlowDown),
    Class::Request(Fault::Denied),
    Class::Request(Fault::Conflict),
    Class::Request(Fault::ResetBefore),
    Class::Request(Fault::ResetAfter),
    Class::Request(Fault::AnswerLost),
    Class::Request(Fault::Delay),
    Class::Request(Fault::Late),
    Class::OutOfTime,
    Class::OtherSize,
    Class::Bisected,
];

/// What happens to brokers and topics, on a real cluster only.
pub const BROKERS: [Class; 6] = [
    Class::BrokerKilled,
    Class::LeaderMoved,
    Class::PartitionAdded,
    Class::Transaction,
    Class::Compacted,
    Class::Expired,
];

/// What happens to processes, to the event source and to the topic; and at last everything.
pub const PROCESSES_AND_SOURCE: [Class; 9] = [
    Class::Killed,
    Class::Halted,
    Class::TimedOut,
    Class::Memory,
    Class::Rebalanced,
    Class::Redelivered,
    Class::Restarted,
    Class::MadeAnew,
    Class::Everything,
];

const SOON: Duration = Duration::from_secs(30);
/// A caller that gives up on the function long before the function does.
const IMPATIENT: Duration = Duration::from_millis(900);
/// Every request takes up to so long where it is not requests that fail: so there is something to disturb.
const LATENCY: Duration = Duration::from_millis(80);
/// Kilobytes. With the least of it a process cannot even begin, with the most of it the largest batch goes through.
const LIMITS: std::ops::Range<u32> = 3_700..7_000;

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Request(Fault::Error500) => "500",
            Class::Request(Fault::SlowDown) => "503 SlowDown",
            Class::Request(Fault::Denied) => "403",
            Class::Request(Fault::Conflict) => "409",
            Class::Request(Fault::ResetBefore) => "connection reset, not applied",
            Class::Request(Fault::ResetAfter) => "connection reset, applied",
            Class::Request(Fault::AnswerLost) => "answer lost, applied",
            Class::Request(Fault::Delay) => "delay past the deadline",
            Class::Request(Fault::Late) => "request lands later",
            Class::Request(Fault::Slow) => "slow",
            Class::Killed => "SIGKILL",
            Class::Halted => "SIGSTOP, a twin, SIGCONT",
            Class::TimedOut => "SIGSTOP past the time-out",
            Class::Memory => "memory limit",
            Class::OutOfTime => "deadline",
            Class::OtherSize => "retry of another size",
            Class::Bisected => "bisect",
            Class::Rebalanced => "rebalance",
            Class::Redelivered => "committed offsets again",
            Class::Restarted => "restart of the event source",
            Class::MadeAnew => "topic deleted and made anew",
            Class::BrokerKilled => "SIGKILL of a broker",
            Class::LeaderMoved => "leaders moved",
            Class::PartitionAdded => "partition added",
            Class::Transaction => "transaction",
            Class::Compacted => "compaction",
            Class::Expired => "retention expiry",
            Class::Everything => "everything at random",
        }
    }

    /// A run has shown nothing that has not injected so many.
    pub fn least(self) -> u64 {
        match self {
            Class::MadeAnew | Class::TimedOut | Class::BrokerKilled | Class::LeaderMoved | Class::PartitionAdded => 1,
            // Each costs a time-out or more.
            Class::Halted | Class::OutOfTime | Class::Request(Fault::Delay) => 2,
            Class::Rebalanced | Class::Redelivered | Class::Restarted | Class::Memory => 2,
            Class::Everything => 20,
            _ => 3,
        }
    }

    /// Offsets come to be that hold no record: the consumer has to notice.
    pub fn leaves_gaps(self) -> bool {
        matches!(self, Class::Transaction | Class::Compacted | Class::Expired)
    }

    /// Bytes of every second record, at least.
    pub fn padding(self) -> usize {
        match self {
            // A batch that takes megabytes.
            Class::Memory => 40_000,
            _ => 0,
        }
    }

    /// Before the first step.
    pub async fn begin(self, bench: &mut Bench, seed: u64) {
        let retries = match self {
            Class::OtherSize | Class::Everything => Retries::Resized,
            Class::Bisected => Retries::Bisected,
            _ => Retries::Whole,
        };
        if retries != bench.retries {
            bench.stop_source().await;
            bench.retries = retries;
            bench.start_source();
        }
        let (faults, rate, latency) = match self {
            Class::Request(fault) => (vec![fault], 0.35, Duration::ZERO),
            Class::OutOfTime => (vec![Fault::Slow], 0.9, Duration::ZERO),
            // Retried by nobody but the event source.
            Class::OtherSize | Class::Bisected => (vec![Fault::Denied], 0.3, LATENCY),
            Class::Everything => (Fault::ALL.to_vec(), 0.15, LATENCY),
            _ => (Vec::new(), 0.0, LATENCY),
        };
        bench.proxy.follow(Plan { seed, faults, rate, latency });
        if matches!(self, Class::Halted | Class::Everything) {
            bench.attempts.set_patience(Some(IMPATIENT));
        }
    }

    /// Disturbs once, and says how much of it was injected.
    pub async fn step(self, bench: &mut Bench, number: usize, rng: &mut fastrand::Rng) -> u64 {
        let before = (bench.attempts.counts(), injected(bench));
        let pause = |rng: &mut fastrand::Rng| tokio::time::sleep(Duration::from_millis(rng.u64(50..400)));
        match self {
            Class::Request(_) => {
                pause(rng).await;
                injected(bench) - before.1
            }
            Class::Killed => {
                pause(rng).await;
                u64::from(bench.consumer.kill_one().await.is_some_and(|killed| killed.busy))
            }
            Class::Halted => {
                at_work(bench, rng).await;
                bench.consumer.pause();
                let twins = || bench.attempts.counts().twins > before.0.twins;
                let begun = until(TIME_OUT, twins).await;
                bench.consumer.resume();
                pause(rng).await;
                u64::from(begun)
            }
            Class::TimedOut => {
                at_work(bench, rng).await;
                bench.consumer.pause();
                let time_outs = || bench.attempts.counts().time_outs - before.0.time_outs;
                until(TIME_OUT * 2, || time_outs() > 0).await;
                bench.consumer.resume();
                pause(rng).await;
                time_outs()
            }
            Class::Memory => {
                bench.limit_memory(Some(rng.u32(LIMITS)));
                end_processes(bench).await;
                // A process has to begin and to take a batch before it can be short of memory.
                let crashes = || bench.attempts.counts().crashes - before.0.crashes;
                until(TIME_OUT / 2, || crashes() > 0).await;
                crashes()
            }
            Class::OutOfTime => {
                pause(rng).await;
                bench.attempts.counts().out_of_time - before.0.out_of_time
            }
            Class::OtherSize | Class::Bisected => {
                pause(rng).await;
                bench.attempts.counts().other_sizes - before.0.other_sizes
            }
            Class::Rebalanced => {
                let other = bench.another_source();
                let joined =
                    until(TIME_OUT * 3, || other.stats().assigned.values().any(|owned| !owned.is_empty())).await;
                pause(rng).await;
                other.stop().await;
                u64::from(joined)
            }
            Class::Redelivered => {
                let lag = bench.source().lag().await.unwrap();
                let committed = lag.iter().filter_map(|(partition, lag)| Some((*partition, lag.committed?))).collect();
                bench.stop_source().await;
                let rewound = bench.topic.rewind(GROUP, committed, 100, rng).await;
                bench.start_source();
                let again = || bench.attempts.counts().redelivered > before.0.redelivered;
                u64::from(rewound && until(TIME_OUT * 3, again).await)
            }
            Class::Restarted => {
                at_work(bench, rng).await;
                let alive = bench.attempts.alive() > 0;
                bench.drop_source();
                bench.start_source();
                let goes_on = || bench.attempts.counts().attempts > before.0.attempts;
                let goes_on = until(TIME_OUT * 3, goes_on).await;
                pause(rng).await;
                u64::from(alive && goes_on)
            }
            Class::MadeAnew => make_anew(bench).await,
            Class::BrokerKilled => {
                let broker = rng.usize(..bench.cluster().brokers());
                bench.cluster().kill(broker);
                // Long enough for the others to notice, or too short.
                tokio::time::sleep(Duration::from_millis(rng.u64(500..8_000))).await;
                bench.cluster().restart(broker);
                bench.cluster().until_complete().await;
                1
            }
            Class::LeaderMoved => {
                let topic = bench.topic.name.clone();
                bench.cluster().move_leaders(&topic).await as u64
            }
            Class::PartitionAdded => {
                let topic = bench.topic.clone();
                let partition = topic.partitions();
                bench.cluster().set_partitions(&topic.name, partition as usize + 1).await;
                topic.added().await;
                let source = bench.source();
                u64::from(until(SOON, || source.stats().assigned.values().flatten().any(|p| *p == partition)).await)
            }
            Class::Transaction => {
                pause(rng).await;
                let commit = rng.bool();
                bench.topic.transaction(commit, rng).await;
                1
            }
            Class::Compacted | Class::Expired => self.unread(bench, number, rng).await,
            Class::Everything => {
                let real = matches!(bench.brokers, Brokers::Apache(_));
                let one = match rng.u8(..if real { 12 } else { 10 }) {
                    0..4 => Class::Killed,
                    4 => Class::Halted,
                    5 => Class::Rebalanced,
                    6 => Class::Redelivered,
                    7 => Class::Restarted,
                    8 => {
                        bench.limit_memory(rng.bool().then(|| rng.u32(LIMITS)));
                        pause(rng).await;
                        return bench.attempts.counts().crashes - before.0.crashes;
                    }
                    10 => Class::BrokerKilled,
                    11 => Class::Transaction,
                    _ => Class::OtherSize,
                };
                Box::pin(one.step(bench, number, rng)).await + injected(bench) - before.1
            }
        }
    }

    /// Records leave the topic before anybody has read them.
    async fn unread(self, bench: &mut Bench, number: usize, rng: &mut fastrand::Rng) -> u64 {
        let topic = bench.topic.clone();
        let producer = topic.sending.lock().await;
        // All that was sent before is stored, and the partition has a ledger: in front of its first record there is no gap.
        topic.one(&producer, number, rng).await;
        bench.recover().await;
        bench.stop_source().await;
        let change: &[_] = match self {
            // A segment a record, and the cleaner looks at once.
            Class::Compacted => {
                &[("cleanup.policy", "compact"), ("segment.ms", "1000"), ("min.cleanable.dirty.ratio", "0.001")]
            }
            _ => &[("cleanup.policy", "delete")],
        };
        bench.cluster().configure(&topic.name, &[&SETTINGS, change].concat()).await;
        let gone = match self {
            Class::Compacted => topic.compact(&producer, number, rng).await,
            _ => {
                let gone = topic.send_unread(&producer, number, rng).await;
                let expire = [SETTINGS[0], ("cleanup.policy", "delete"), ("retention.ms", "1")];
                bench.cluster().configure(&topic.name, &expire).await;
                topic.emptied().await;
                gone
            }
        };
        let back = [&SETTINGS[..], &[("cleanup.policy", "delete")]].concat();
        bench.cluster().configure(&topic.name, &back).await;
        // Until every broker has heard of it, and done away with what it had begun.
        bench.cluster().until_configured(&topic.name, &back).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // A gap shows when something comes behind it.
        topic.one(&producer, number, rng).await;
        bench.start_source();
        gone
    }

    /// Nothing more goes wrong.
    pub async fn end(self, bench: &mut Bench) {
        bench.proxy.calm();
        bench.consumer.resume();
        bench.attempts.set_patience(None);
        bench.limit_memory(None);
        if matches!(self, Class::Memory | Class::Everything) {
            end_processes(bench).await;
        }
    }
}

fn injected(bench: &Bench) -> u64 {
    bench.proxy.injected().values().sum()
}

/// Those that come after them find another limit.
async fn end_processes(bench: &Bench) {
    for _ in 0..bench.consumer.stats().processes {
        bench.consumer.kill_one().await;
    }
}

/// Waits for some moment in the middle of an attempt; not for ever.
async fn at_work(bench: &Bench, rng: &mut fastrand::Rng) {
    until(TIME_OUT, || bench.attempts.alive() == 0).await;
    until(TIME_OUT, || bench.attempts.alive() > 0).await;
    tokio::time::sleep(LATENCY.mul_f64(rng.f64() * 2.0)).await;
}

pub async fn until(most: Duration, condition: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > most {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// What nobody has consumed is gone with a topic: it is drained first, so that this can be told from a loss.
async fn make_anew(bench: &mut Bench) -> u64 {
    let topic = bench.topic.clone();
    let mut sending = topic.sending.lock().await;
    bench.recover().await;
    bench.stop_source().await;
    let used = topic.make_anew(&mut sending).await;
    bench.attempts.forget();
    drop(sending);
    // The embedded broker has nothing against an offset that lies ahead of a topic's end, as Kafka does, where a reader
    // would begin at the start of the new topic by itself. A source that starts does so.
    bench.start_source();
    let stopped = bench.attempts.counts().stopped;
    let noticed = until(TIME_OUT * 3, || bench.attempts.counts().stopped > stopped).await;
    bench.stop_source().await;
    tokio::time::sleep(TIME_OUT).await;
    for partition in used {
        bench.reset_ledger(partition).await;
    }
    bench.start_source();
    u64::from(noticed)
}
