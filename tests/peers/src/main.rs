//! Drains a topic into a function: the event source as it runs everywhere outside of AWS, and as many processes of the function as it
//! has pollers. `tests/peers/bench.py` measures it, and everything that it starts.

use std::time::Duration;

use localstack::event_source::{EventSource, EventSourceConfig, EventSourceKind, invoker};
use localstack::process::Log;
use localstack::runtime::{Function, FunctionConfig};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

const CLUSTER_ARN: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/bench/00000000-0000-0000-0000-000000000000-1";
const EVERY: Duration = Duration::from_millis(20);
/// After so many failures in a row the function will not recover.
const FAILURES: u64 = 10;

/// One thread feeds the processes, as one thread works in each of them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    // As `freshet event-source` does.
    pipeline::memory::keep_what_is_freed();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, records, pollers, binary, variables @ ..] = &arguments[..] else {
        return Err("usage: peers BROKERS TOPIC RECORDS POLLERS BINARY [NAME=VALUE…]".into());
    };
    let (records, pollers): (u64, usize) = (records.parse()?, pollers.parse()?);
    let variable = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let function = Function::start(FunctionConfig {
        environment: variables.iter().filter_map(variable).collect(),
        timeout: Duration::from_secs(60),
        memory_mb: 512,
        log: Log::Null,
        ..FunctionConfig::new("bench", binary)
    })?;
    let config = EventSourceConfig {
        // The most that AWS allows.
        batch_size: 10_000,
        maximum_batching_window: Duration::from_secs(1),
        pollers,
        event_source: EventSourceKind::Msk { cluster_arn: CLUSTER_ARN.to_owned() },
        ..EventSourceConfig::new(topic, brokers, format!("bench-{}", std::process::id()))
    };
    let source = EventSource::start(config, invoker(&function))?;
    let stats = loop {
        let stats = source.stats();
        if stats.records >= records {
            break stats;
        }
        if stats.failures_in_a_row > FAILURES {
            return Err(stats.last_error.unwrap_or_default().into());
        }
        tokio::time::sleep(EVERY).await;
    };
    source.stop().await;
    let cold_starts = function.stats().cold_starts;
    function.stop().await;
    // Whoever measures knows what all of it took; the rest is the function's processes.
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let own = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    let figures = json!({
        "invocations": stats.invocations, "failures": stats.failures, "payload_bytes": stats.payload_bytes,
        "processes": cold_starts, "event_source_cpu": own,
    });
    println!("{figures}");
    Ok(())
}
