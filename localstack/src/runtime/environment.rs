//! An execution environment: one process together with the Runtime API that it speaks to.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rustix::process::Signal;
use tokio::sync::oneshot;

use super::{
    FunctionConfig, InvokeError, Payload,
    api::{Api, Init, Invocation, Reply},
    random_id,
};
use crate::process::{Exit, Process};

/// AWS gives the start 10 s and then tries it once more within the invocation; here both are one.
const INIT_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Environment {
    api: Api,
    pub(super) process: Process,
}

/// A Runtime API that no process speaks to yet.
pub(super) struct Prepared {
    api: Api,
}

impl Environment {
    pub(super) async fn listen(config: &FunctionConfig, arn: &str) -> Result<Prepared, InvokeError> {
        let api = Api::start(&config.name, arn).await.map_err(|error| InvokeError::InitFailed {
            reason: format!("no port is free on the loopback ({error})"),
        })?;
        Ok(Prepared { api })
    }

    /// Waits until the process asks for its first invocation.
    pub(super) async fn ready(&self) -> Result<(), InvokeError> {
        let mut init = self.api.init();
        let settled = tokio::select! {
            biased;
            init = init.wait_for(|init| *init != Init::Running) => init.map_or(Init::Running, |init| init.clone()),
            exit = self.process.exited() => {
                return Err(InvokeError::InitFailed { reason: format!("it ended ({}), saying: {}", describe(&exit), exit.stderr) });
            }
            () = tokio::time::sleep(INIT_TIMEOUT) => Init::Running,
        };
        match settled {
            Init::Ready => Ok(()),
            Init::Running => {
                self.process.signal(Signal::KILL);
                Err(InvokeError::InitFailed { reason: format!("it asked for no invocation within {INIT_TIMEOUT:?}") })
            }
            Init::Failed { error_type, message } => {
                self.process.signal(Signal::KILL);
                Err(InvokeError::InitFailed { reason: format!("{error_type}: {message}") })
            }
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.api.is_busy()
    }

    /// Hands an invocation over.
    pub(super) async fn send(&self, request_id: &str, payload: Bytes, timeout: Duration) -> Running {
        let (reply, answer) = oneshot::channel();
        let fetched = Arc::new(AtomicBool::new(false));
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + timeout;
        let invocation = Invocation {
            request_id: request_id.to_owned(),
            payload,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            reply,
            fetched: fetched.clone(),
        };
        self.api.send(invocation).await;
        Running { answer, fetched }
    }
}

impl Prepared {
    /// Starts the process.
    pub(super) fn spawn(self, config: &FunctionConfig) -> Result<Environment, InvokeError> {
        let environment = variables(config, self.api.address());
        let process = Process::spawn(&config.binary, &environment, &config.log).map_err(|error| {
            InvokeError::InitFailed { reason: format!("{} could not be run ({error})", config.binary.display()) }
        })?;
        Ok(Environment { api: self.api, process })
    }
}

/// An invocation in the hands of a process.
pub(super) struct Running {
    answer: oneshot::Receiver<Reply>,
    fetched: Arc<AtomicBool>,
}

impl Running {
    /// What came of it; `None` when the process ended before it fetched the payload. Cancel-safe.
    pub(super) async fn result(&mut self, environment: &Environment) -> Option<Result<Bytes, InvokeError>> {
        let reply = tokio::select! {
            // A process may answer and end at once: the answer counts.
            biased;
            reply = &mut self.answer => reply,
            exit = environment.process.exited() => match self.answer.try_recv() {
                Ok(reply) => Ok(reply),
                Err(_) if !self.fetched.load(Ordering::Acquire) => return None,
                Err(_) => return Some(Err(InvokeError::Crashed { status: describe(&exit), stderr: exit.stderr })),
            },
        };
        Some(match reply {
            Ok(Reply::Success(response)) => Ok(response),
            Ok(Reply::Error { error_type, message }) => Err(InvokeError::FunctionError { error_type, message }),
            Ok(Reply::TooLarge { bytes }) => Err(InvokeError::PayloadTooLarge { payload: Payload::Response, bytes }),
            // The connection broke off while the invocation was handed over: the process is as good as dead.
            Err(_) => {
                environment.process.signal(Signal::KILL);
                let exit = environment.process.exited().await;
                Err(InvokeError::Crashed { status: describe(&exit), stderr: exit.stderr })
            }
        })
    }
}

fn describe(exit: &Exit) -> String {
    exit.status.map_or_else(|| "killed with its host".to_owned(), |status| status.to_string())
}

/// What Lambda sets, then what the configuration sets, which is stronger.
fn variables(config: &FunctionConfig, runtime_api: &str) -> Vec<(String, String)> {
    let name = &config.name;
    let task_root = config.binary.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let temporary = std::env::temp_dir().to_string_lossy().into_owned();
    let lambda = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        // Not the user's: no profile of theirs may leak into a function.
        ("HOME", temporary.clone()),
        ("TMPDIR", temporary),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("LAMBDA_TASK_ROOT", task_root),
        ("_HANDLER", "bootstrap".to_owned()),
        ("AWS_LAMBDA_RUNTIME_API", runtime_api.to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", config.memory_mb.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("[$LATEST]{}", random_id().replace('-', ""))),
        ("AWS_REGION", config.region().to_owned()),
        ("AWS_DEFAULT_REGION", config.region().to_owned()),
    ];
    let lambda = lambda.into_iter().map(|(name, value)| (name.to_owned(), value));
    lambda.chain(config.environment.iter().cloned()).collect()
}
