//! The embedded Kafka-protocol broker, as a child process.
//!
//! It is a program of its own, because its crates need a workspace of their own: see `localstack/broker/Cargo.toml`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// It listens after a few milliseconds; a machine that compiles meanwhile is slower.
const START: Duration = Duration::from_secs(30);
/// How long a broker may take to end by itself.
const END: Duration = Duration::from_secs(5);
/// How often another port is tried, when someone took the one that was free a moment before.
const ATTEMPTS: usize = 5;
/// The broker's exit status for that (see its `main.rs`).
const PORT_IN_USE: i32 = 98;
/// Lines of the broker's stderr that are kept for an error.
const KEPT_LINES: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the broker {} cannot be started ({source}): build it with `cargo build --ignore-rust-version --manifest-path \
         localstack/broker/Cargo.toml`", binary.display()
    )]
    Spawn { binary: PathBuf, source: std::io::Error },
    #[error("no free port on 127.0.0.1 for the broker ({0}): close some programs and try again")]
    Port(std::io::Error),
    #[error("the broker ended before it listened ({status}): read what it wrote and start again{}", quoted(.stderr))]
    Ended { status: ExitStatus, stderr: String },
    #[error("the broker did not listen within {} s: the machine may be too busy, try again{}", START.as_secs(), quoted(.stderr))]
    Late { stderr: String },
    #[error("the broker's process cannot be waited for ({0}): look for a `freshet-broker` that is left and end it")]
    Wait(std::io::Error),
}

fn quoted(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("\n{stderr}") }
}

/// A running broker, empty at its start: its topics are in its memory. Dropped, it is killed; and if this process is
/// killed itself, the broker ends with it, because its stdin does.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    child: Child,
    stderr: Tail,
}

impl Broker {
    /// Starts the broker on a free port of the loopback, and returns when clients can connect.
    pub async fn start(binary: &Path) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_with(binary, Vec::new(), free_port()?).await {
                Err(Error::Ended { status, .. }) if status.code() == Some(PORT_IN_USE) && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// `before` stands ahead of the broker's own arguments.
    async fn start_with(binary: &Path, before: Vec<OsString>, port: u16) -> Result<Self, Error> {
        let mut child = Command::new(binary)
            .args(before)
            .args(["--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal is for this process, which then stops the broker last of all.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Spawn { binary: binary.to_owned(), source })?;
        let stderr = Tail::of(child.stderr.take());
        let stdout = child.stdout.take();
        let listening = async {
            let mut lines = BufReader::new(stdout?).lines();
            let wanted = format!("listening {}:{port}", Ipv4Addr::LOCALHOST);
            loop {
                if lines.next_line().await.ok()?? == wanted {
                    // Nothing else is ever written there, so nobody has to read on.
                    return Some(());
                }
            }
        };
        match timeout(START, listening).await {
            Ok(Some(())) => Ok(Self { port, child, stderr }),
            // The end of its stdout is its own end.
            Ok(None) => match timeout(END, child.wait()).await {
                Ok(status) => Err(Error::Ended { status: status.map_err(Error::Wait)?, stderr: stderr.finish().await }),
                Err(_) => Err(Error::Late { stderr: stderr.so_far() }),
            },
            Err(_) => Err(Error::Late { stderr: stderr.so_far() }),
        }
    }

    /// `127.0.0.1:PORT`, for `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The process, for a test that kills it.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the broker and waits until it is gone, with all that it held.
    pub async fn stop(mut self) -> Result<(), Error> {
        drop(self.child.stdin.take());
        if timeout(END, self.child.wait()).await.is_err() {
            self.child.kill().await.map_err(Error::Wait)?;
        }
        self.stderr.finish().await;
        Ok(())
    }
}

/// A port that is free now. Another program may take it before the broker does; then the broker says so.
fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::Port)?;
    Ok(listener.local_addr().map_err(Error::Port)?.port())
}

/// Reads a child's stderr for as long as it lives, so that the child never waits for a reader, and keeps its end.
#[derive(Debug)]
struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl Tail {
    fn of(stream: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            let Some(stream) = stream else { return };
            let mut read = BufReader::new(stream).lines();
            while let Ok(Some(line)) = read.next_line().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Self { lines, reader }
    }

    fn so_far(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// All that is there when the child has ended.
    async fn finish(mut self) -> String {
        // A grandchild could hold the pipe open; then what is there has to do.
        let _ = timeout(Duration::from_secs(1), &mut self.reader).await;
        self.so_far()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in the broker's place: what it is given as `--port N` becomes its `$1` and `$2`.
    async fn start_script(script: &str) -> Result<Broker, Error> {
        let before = ["-c", script, "broker"].map(OsString::from).to_vec();
        Broker::start_with(Path::new("/bin/sh"), before, 4242).await
    }

    fn alive(pid: u32) -> bool {
        // A zombie has no command line.
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    }

    #[tokio::test]
    async fn a_broker_is_started_when_it_says_that_it_listens() {
        let broker = start_script("echo noise; echo listening 127.0.0.1:$2; cat").await.unwrap();
        assert_eq!(broker.bootstrap_servers(), "127.0.0.1:4242");
        broker.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_stopped_broker_is_gone() {
        let broker = start_script("echo listening 127.0.0.1:$2; cat").await.unwrap();
        let pid = broker.pid().unwrap();
        assert!(alive(pid));
        broker.stop().await.unwrap();
        assert!(!alive(pid));
    }

    #[tokio::test]
    async fn a_broker_that_ends_at_once_is_an_error_with_its_last_words() {
        let error = start_script("echo 'no space left' >&2; exit 3").await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains("exit status: 3") && message.contains("no space left"), "{message}");
    }

    #[tokio::test]
    async fn a_missing_binary_names_the_command_that_builds_it() {
        let error = Broker::start(Path::new("/nowhere/freshet-broker")).await.unwrap_err();
        assert!(error.to_string().contains("cargo build"), "{error}");
    }

    /// The real one, where it is built: `make` builds it ahead of the tests.
    #[tokio::test]
    async fn the_real_broker_starts_listens_on_the_loopback_and_ends_with_its_stdin() {
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("broker/target/debug/freshet-broker");
        if !binary.exists() {
            assert!(std::env::var_os("FRESHET_REQUIRE_ALL").is_none(), "the broker is not built: run `make broker`");
            eprintln!("SKIPPED: {} is not built: run `make broker`", binary.display());
            return;
        }
        let broker = Broker::start(&binary).await.unwrap();
        let pid = broker.pid().unwrap();
        tokio::net::TcpStream::connect(broker.bootstrap_servers()).await.unwrap();
        broker.stop().await.unwrap();
        assert!(!alive(pid));

        // A port that is taken is told from other failures.
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        match Broker::start_with(&binary, Vec::new(), port).await {
            Err(Error::Ended { status, .. }) => assert_eq!(status.code(), Some(PORT_IN_USE)),
            other => panic!("{other:?}"),
        }
    }
}
