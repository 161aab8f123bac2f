//! `freshet-broker --port N`: a Kafka-protocol broker for one laptop, in memory, on the loopback only.
//!
//! It says `listening 127.0.0.1:N` on stdout once clients can connect, and is silent otherwise. It ends when its stdin
//! does: whoever started it holds the other end of that pipe, so the kernel closes it even when the parent is killed
//! with SIGKILL, and no broker is ever left behind. SIGTERM and Ctrl-C end it too.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use nisshi_broker::broker::Builder;
use nisshi_broker::coordinator::group::administrator::GroupCoordinatorConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

const USAGE: &str = "usage: freshet-broker --port N   (a free port of this machine, 1-65535)";

/// The exit status for a port that someone else has: the parent picks another one and tries again.
const PORT_IN_USE: u8 = 98;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let Some(port) = port(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => match failure.downcast_ref::<nisshi_broker::Error>() {
            Some(nisshi_broker::Error::ListenerInUse { addr }) => {
                eprintln!("{addr} is in use: choose another --port");
                ExitCode::from(PORT_IN_USE)
            }
            _ => {
                eprintln!("the broker stopped: {failure}");
                ExitCode::FAILURE
            }
        },
    }
}

/// The one argument. Port 0 is refused, because the broker would advertise it to its clients as it stands.
fn port(mut arguments: impl Iterator<Item = String>) -> Option<u16> {
    let (flag, value, end) = (arguments.next()?, arguments.next()?, arguments.next());
    match value.parse() {
        Ok(port) if flag == "--port" && end.is_none() && port != 0 => Some(port),
        _ => None,
    }
}

#[tokio::main(worker_threads = 2)]
async fn serve(port: u16) -> Result<(), Failure> {
    let url = Url::parse(&format!("tcp://{}:{port}", Ipv4Addr::LOCALHOST))?;
    let mut broker = Builder::<(), (), (), (), (), ()>::default()
        .node_id(1)
        .cluster_id("freshet")
        .incarnation_id(Uuid::from_u128(1))
        .listener(url.clone())
        .advertised_listener(url)
        .storage(Url::parse("memory://demo/")?)
        .group_coordinator(GroupCoordinatorConfig {
            // Kafka waits 3 s for more members of a new group. There is one.
            initial_rebalance_delay: Duration::ZERO,
            ..GroupCoordinatorConfig::default()
        })
        .silent(true)
        .build()
        .await?;
    // `serve` is these two; apart, the first poll below is known to bind the port.
    broker.register().await?;

    let listening = broker.listen(Instant::now());
    tokio::pin!(listening);
    // The first poll runs as far as binding the port, without waiting for anything: if it does not end there with an
    // error, clients can connect, and to this process rather than to another one that was quicker.
    tokio::select! {
        biased;
        ended = &mut listening => return Ok(ended?),
        () = std::future::ready(()) => {}
    }
    announce(port)?;
    exit_with_the_parent();

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = listening => Ok(ended?),
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

fn announce(port: u16) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening {}:{port}", Ipv4Addr::LOCALHOST)?;
    stdout.flush()
}

/// Ends the process at the end of stdin, from a thread of its own: a blocking read cannot be given up, and tokio would
/// wait for it at shutdown.
fn exit_with_the_parent() {
    std::thread::spawn(|| {
        let mut buffer = [0; 256];
        while matches!(std::io::stdin().lock().read(&mut buffer), Ok(read) if read > 0) {}
        std::process::exit(0);
    });
}
