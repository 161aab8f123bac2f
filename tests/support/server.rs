//! A server that a test starts beside itself: ready when it is returned, and gone, with every process that it started, when it is dropped
//! or when the test itself is killed.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A program that is started where the machine compiles meanwhile may take its time.
const START: Duration = Duration::from_secs(120);
const PROBE: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(5);
/// How often another port is tried, when someone took the one that was free a moment before.
const ATTEMPTS: usize = 3;
/// Linux gives connections ports from 32768 on, others from 49152 on.
const PORTS: Range<u16> = 20_000..32_768;
/// The end of stdin, which comes also when the test is killed, is the end of the whole process group. What follows it is the program.
const GUARD: &str = r#"exec 3<&0 </dev/null; (cat <&3 >/dev/null; kill -KILL 0) & exec "$@" 3<&-"#;

pub struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts what `arguments` adds to a command that has nothing but `PATH` in its environment, for a port of the loopback that is free,
    /// and waits until it is `ready`. Its output is appended to `log`.
    pub async fn start(
        log: PathBuf,
        arguments: impl Fn(&mut Command, u16),
        ready: impl AsyncFn(u16) -> bool,
    ) -> Server {
        for _ in 0..ATTEMPTS {
            if let Some(server) = Server::start_at(free_port(), log.clone(), &arguments, &ready).await {
                return server;
            }
        }
        panic!("ended before it was ready, {ATTEMPTS} times:\n{}", last_words(&log));
    }

    /// The same for a port that must be this one. `None` when the program has ended before it was ready.
    pub async fn start_at(
        port: u16,
        log: PathBuf,
        arguments: impl Fn(&mut Command, u16),
        ready: impl AsyncFn(u16) -> bool,
    ) -> Option<Server> {
        let mut command = guarded(&log);
        arguments(&mut command, port);
        let mut server = Server { child: command.spawn().unwrap(), port, log };
        let deadline = Instant::now() + START;
        while server.is_alive() {
            // Alive also afterwards: else it was somebody else who answered at this port.
            let answers = tokio::time::timeout(PROBE, ready(port)).await == Ok(true);
            if answers && server.is_alive() {
                return Some(server);
            }
            assert!(Instant::now() < deadline, "not ready within {} s:\n{}", START.as_secs(), server.last_words());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// The program's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Everything that it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn last_words(&self) -> String {
        last_words(&self.log)
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Without its guard it is at least not left behind itself.
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A command whose process ends when its stdin does: when it is dropped, and when the test is killed.
pub fn guarded(log: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", GUARD, "guard"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
    // A group of its own: its end is nobody else's, and Ctrl-C reaches the test alone.
    command.process_group(0);
    command
}

fn last_words(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Nobody listened on it a moment ago, and nobody else in this process gets it. It lies below the ports that systems give to connections:
/// one of those could otherwise hold it when the server binds it, or binds it again after its end.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The repository's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// For plain HTTP on the loopback, past every proxy that the environment names.
pub fn http() -> reqwest::Client {
    // reqwest panics without a process-wide TLS provider, also where there is no TLS; a second one changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}
