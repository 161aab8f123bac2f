//! One child process: started with a clean environment, signalled, watched, and never left behind.
//!
//! A single task owns the child and is the only one that signals it, so that no signal can reach a process id which the
//! system has given to somebody else meanwhile. When the last [`Process`] handle is dropped, the task kills the child.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// How many of the last lines on stderr are kept for the message about a crash.
const STDERR_LINES: usize = 20;
/// Longer lines on stderr are cut in what is kept (not in the log).
const STDERR_LINE: usize = 2_000;
/// How long the last words of a dead process are waited for: a grandchild may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Where stdout and stderr of a process go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    /// Appended to this file, which is made when it is missing.
    File(PathBuf),
    /// To the host's own stdout and stderr.
    Inherit,
    /// Nowhere. The last lines of stderr still stand in the error about a crash.
    Null,
}

impl Log {
    /// Opens the file for appending; `None` unless it is a file.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        match self {
            Log::File(path) => OpenOptions::new().create(true).append(true).open(path).map(Some),
            Log::Inherit | Log::Null => Ok(None),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub(crate) status: Option<ExitStatus>,
    /// The last lines that it wrote to stderr.
    pub(crate) stderr: String,
}

/// A handle on a living or dead child. The child is killed when it is dropped.
pub(crate) struct Process {
    pid: u32,
    signals: mpsc::UnboundedSender<Signal>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts `binary` with exactly the given environment, in a process group of its own: a Ctrl-C in the terminal
    /// reaches the host alone, which then ends its children in order.
    pub(crate) fn spawn(binary: &Path, environment: &[(String, String)], log: &Log) -> io::Result<Process> {
        let file = log.open()?;
        let stdout = match (&file, log) {
            (Some(file), _) => Stdio::from(file.try_clone()?),
            (None, Log::Inherit) => Stdio::inherit(),
            (None, _) => Stdio::null(),
        };
        let mut child = Command::new(binary)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default();
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let inherit = *log == Log::Inherit;
        let reader = child.stderr.take().map(|pipe| tokio::spawn(read_stderr(pipe, kept.clone(), file, inherit)));
        let (signals, received) = mpsc::unbounded_channel();
        let (exited, exit) = watch::channel(None);
        tokio::spawn(watch_over(child, received, reader, kept, exited));
        Ok(Process { pid, signals, exit })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.exit.borrow().is_none() && !self.signals.is_closed()
    }

    /// Sends a signal; one to a dead process is dropped.
    pub(crate) fn signal(&self, signal: Signal) {
        // The receiver is gone only when the process has ended.
        let _ = self.signals.send(signal);
    }

    /// Waits until the process has ended. Cancel-safe.
    pub(crate) async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = match exit.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        };
        ended.unwrap_or(Exit { status: None, stderr: String::new() })
    }
}

async fn watch_over(
    mut child: Child,
    mut signals: mpsc::UnboundedReceiver<Signal>,
    reader: Option<JoinHandle<()>>,
    kept: Arc<Mutex<VecDeque<String>>>,
    exited: watch::Sender<Option<Exit>>,
) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.ok(),
            signal = signals.recv() => match signal {
                Some(signal) => send(&child, signal),
                // Nobody holds the process any more.
                None => {
                    send(&child, Signal::KILL);
                    break child.wait().await.ok();
                }
            }
        }
    };
    if let Some(reader) = reader {
        let _ = tokio::time::timeout(LAST_WORDS, reader).await;
    }
    let stderr = kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect::<Vec<_>>().join("\n");
    exited.send_replace(Some(Exit { status, stderr }));
}

fn send(child: &Child, signal: Signal) {
    // `id` is `None` once the child was reaped; until then the process id is surely its own.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, signal)
    {
        tracing::warn!(%error, ?signal, "A signal could not be sent to a function's process; end it by hand if it stays.");
    }
}

async fn read_stderr(pipe: ChildStderr, kept: Arc<Mutex<VecDeque<String>>>, mut file: Option<File>, inherit: bool) {
    let mut lines = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(read) = lines.read_until(b'\n', &mut line).await
        && read > 0
    {
        // A full disk must not stop the function: what cannot be logged is still kept for the message.
        if let Some(file) = &mut file {
            let _ = file.write_all(&line);
        } else if inherit {
            let _ = io::stderr().write_all(&line);
        }
        let text = String::from_utf8_lossy(&line);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(text.trim_end().chars().take(STDERR_LINE).collect());
        if kept.len() > STDERR_LINES {
            kept.pop_front();
        }
        line.clear();
    }
}
