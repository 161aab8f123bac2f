//! A function of AWS Lambda on this machine: its real binary, started as a process, spoken to over the Lambda Runtime
//! API. As on AWS one process handles one invocation at a time, stays for the next one, and is killed when it runs
//! past its time-out.
//!
//! Unlike on AWS a process is not frozen between two invocations, its memory is not limited, and an idle one stays
//! until the function is stopped.

mod api;
mod environment;
mod events;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::process::Signal;
use tokio::sync::{Semaphore, broadcast};

pub use self::events::{FunctionStats, InvocationEvent, Outcome};
use self::{environment::Environment, events::Recorder};
pub use crate::process::Log;

/// The most bytes of a request or a response, as for a synchronous invocation on AWS.
pub const MAX_PAYLOAD: usize = 6_291_456;
/// How long a stopped process has between SIGTERM and SIGKILL, as on AWS with an internal extension.
const SHUTDOWN: Duration = Duration::from_millis(500);
const ACCOUNT: &str = "000000000000";

/// A function and how it runs.
#[derive(Debug, Clone)]
pub struct FunctionConfig {
    pub name: String,
    /// The binary that Lambda would know as `bootstrap`.
    pub binary: PathBuf,
    /// Added to what Lambda itself sets, and stronger than that. Nothing else of the host's environment is passed on.
    pub environment: Vec<(String, String)>,
    /// From the hand-over of the payload to the end of the response.
    pub timeout: Duration,
    /// Told to the function as `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`; not enforced.
    pub memory_mb: u32,
    /// The most processes that work at once (reserved concurrency). Further invocations wait.
    pub max_concurrency: usize,
    pub log: Log,
    /// For tests of two attempts alive at once: after a time-out the process goes on to its own end, as does a request
    /// of a real Lambda that is already on its way, and is only then ended. It does not count as working meanwhile.
    pub abandon_on_timeout: bool,
}

impl FunctionConfig {
    /// Lambda's own defaults but for the concurrency: 3 s, 128 MB, up to 10 processes, no log.
    pub fn new(name: impl Into<String>, binary: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            binary: binary.into(),
            environment: Vec::new(),
            timeout: Duration::from_secs(3),
            memory_mb: 128,
            max_concurrency: 10,
            log: Log::Null,
            abandon_on_timeout: false,
        }
    }

    /// `AWS_REGION` of the environment, or us-east-1.
    fn region(&self) -> &str {
        let region = self.environment.iter().rev().find(|(name, _)| name == "AWS_REGION");
        region.map_or("us-east-1", |(_, value)| value)
    }
}

/// Why a function cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the binary {path} of function {name} cannot be used: {source}; build it, or correct its path")]
    Binary { name: String, path: PathBuf, source: io::Error },
    #[error("the log {log:?} of function {name} cannot be written: {source}; make its folder, or name another file")]
    Log { name: String, log: Log, source: io::Error },
    #[error("function {name} has a {field} of 0; give it at least 1")]
    Zero { name: String, field: &'static str },
}

/// Which of the two payloads was too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Request,
    Response,
}

/// Why an invocation brought no response. What happened before the failure stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// The handler answered with an error; its process lives on.
    #[error("the function failed with {error_type}: {message}; look into its log")]
    FunctionError { error_type: String, message: String },
    #[error("the function did not answer within {0:?}; raise its time-out, or give it less at once")]
    Timeout(Duration),
    #[error(
        "the function's process ended in the middle of an invocation ({status}); look into its log. Its last words: {stderr}"
    )]
    Crashed { status: String, stderr: String },
    /// The process ended, or reported an error, before it asked for its first invocation.
    #[error("the function could not start: {reason}; correct its configuration, or look into its log")]
    InitFailed { reason: String },
    #[error("the {payload:?} has {bytes} bytes, and {MAX_PAYLOAD} is the most; send less at once")]
    PayloadTooLarge { payload: Payload, bytes: usize },
    #[error("the function was stopped; start it again")]
    Stopped,
    /// Only from invokers that speak to a Lambda elsewhere.
    #[error("the function could not be reached: {message}; check the endpoint")]
    Unreachable { message: String },
    /// The same: the API answered, and did not run the function.
    #[error("the Lambda API answers {status} ({error_type}: {message}); {}", advice(*status))]
    Refused { status: u16, error_type: String, message: String },
}

fn advice(status: u16) -> &'static str {
    match status {
        403 => "the credentials need lambda:InvokeFunction on the function",
        404 => "check its name, its region and the endpoint",
        413 => "send less at once",
        429 => "other invocations take all of its concurrency: it succeeds when they end, or raise that",
        500.. => "the service is in trouble, try again later",
        _ => "check the function and the endpoint",
    }
}

/// What [`Function::kill_one`] hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    pub pid: u32,
    /// The process was in the middle of an invocation.
    pub busy: bool,
}

/// A hosted function. Clones are handles on the same one; its processes are killed when the last handle is dropped.
#[derive(Clone)]
pub struct Function {
    inner: Arc<Inner>,
}

struct Inner {
    config: FunctionConfig,
    arn: String,
    permits: Semaphore,
    stopped: AtomicBool,
    processes: Mutex<Processes>,
    recorder: Recorder,
}

/// Every process that was not seen dead, and among them those that wait for work, the most recently used last.
#[derive(Default)]
struct Processes {
    all: Vec<Arc<Environment>>,
    idle: Vec<Arc<Environment>>,
}

impl Function {
    /// Checks the configuration. Processes start with the invocations that need them.
    ///
    /// # Errors
    /// When the binary is missing, the log cannot be opened, or the concurrency or the time-out is 0.
    pub fn start(mut config: FunctionConfig) -> Result<Function, StartError> {
        let name = config.name.clone();
        config.binary = config.binary.canonicalize().map_err(|source| StartError::Binary {
            name: name.clone(),
            path: config.binary.clone(),
            source,
        })?;
        if config.max_concurrency == 0 {
            return Err(StartError::Zero { name, field: "max_concurrency" });
        }
        if config.timeout.is_zero() {
            return Err(StartError::Zero { name, field: "timeout" });
        }
        config.log.open().map_err(|source| StartError::Log { name, log: config.log.clone(), source })?;
        let arn = format!("arn:aws:lambda:{}:{ACCOUNT}:function:{}", config.region(), config.name);
        let inner = Inner {
            permits: Semaphore::new(config.max_concurrency.min(Semaphore::MAX_PERMITS)),
            config,
            arn,
            stopped: AtomicBool::new(false),
            processes: Mutex::default(),
            recorder: Recorder::new(),
        };
        Ok(Function { inner: Arc::new(inner) })
    }

    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    pub fn arn(&self) -> &str {
        &self.inner.arn
    }

    /// Invokes the function and waits for its response, on an idle process if there is one.
    ///
    /// The invocation goes on when the returned future is dropped, as it does on AWS when a caller hangs up.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(&self, payload: Bytes) -> Result<Bytes, InvokeError> {
        let inner = self.inner.clone();
        match tokio::spawn(async move { inner.invoke(payload).await }).await {
            Ok(result) => result,
            // The tokio runtime is shutting down.
            Err(_) => Err(InvokeError::Stopped),
        }
    }

    /// Kills (SIGKILL) a living process chosen at random and waits for its end. `None` when none lives.
    pub async fn kill_one(&self) -> Option<Killed> {
        let alive = self.inner.alive();
        let environment = fastrand::choice(alive)?;
        let killed = Killed { pid: environment.process.pid(), busy: environment.is_busy() };
        environment.process.signal(Signal::KILL);
        environment.process.exited().await;
        self.inner.recorder.killed();
        Some(killed)
    }

    /// Halts every living process (SIGSTOP); the clocks of their invocations run on. Returns how many.
    pub fn pause(&self) -> usize {
        self.inner.signal_all(Signal::STOP)
    }

    /// Lets halted processes go on (SIGCONT). Returns how many live.
    pub fn resume(&self) -> usize {
        self.inner.signal_all(Signal::CONT)
    }

    /// Ends all processes (SIGTERM, SIGKILL after 500 ms) and returns when none is left. Invocations that wait or run
    /// fail, and so do later ones.
    pub async fn stop(&self) {
        self.inner.stopped.store(true, Ordering::Release);
        self.inner.permits.close();
        let mut processes = std::mem::take(&mut *self.inner.processes());
        processes.idle.clear();
        for environment in &processes.all {
            environment.process.signal(Signal::TERM);
            // A halted process meets its SIGTERM only when it goes on.
            environment.process.signal(Signal::CONT);
        }
        let deadline = tokio::time::Instant::now() + SHUTDOWN;
        for environment in &processes.all {
            if tokio::time::timeout_at(deadline, environment.process.exited()).await.is_err() {
                environment.process.signal(Signal::KILL);
            }
        }
        for environment in &processes.all {
            environment.process.exited().await;
        }
    }

    /// Counted since the start.
    pub fn stats(&self) -> FunctionStats {
        FunctionStats { processes: self.inner.alive().len(), ..self.inner.recorder.stats() }
    }

    /// What happens from now on: start and end of each invocation. A reader that falls 1,024 events behind loses the
    /// oldest.
    pub fn events(&self) -> broadcast::Receiver<InvocationEvent> {
        self.inner.recorder.subscribe()
    }
}

impl Inner {
    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Vec<Arc<Environment>> {
        let mut processes = self.processes();
        processes.all.retain(|environment| environment.process.is_alive());
        processes.all.clone()
    }

    fn signal_all(&self, signal: Signal) -> usize {
        let alive = self.alive();
        for environment in &alive {
            environment.process.signal(signal);
        }
        alive.len()
    }

    async fn invoke(self: Arc<Self>, payload: Bytes) -> Result<Bytes, InvokeError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(InvokeError::PayloadTooLarge { payload: Payload::Request, bytes: payload.len() });
        }
        let _permit = self.permits.acquire().await.map_err(|_| InvokeError::Stopped)?;
        let request_id = random_id();
        self.recorder.started(&request_id, payload.len());
        let began = Instant::now();
        let result = match self.deliver(&request_id, payload).await {
            Err(_) if self.stopped.load(Ordering::Acquire) => Err(InvokeError::Stopped),
            other => other,
        };
        self.recorder.ended(request_id, began.elapsed(), &result);
        result
    }

    async fn deliver(&self, request_id: &str, payload: Bytes) -> Result<Bytes, InvokeError> {
        loop {
            let environment = match self.idle() {
                Some(environment) => environment,
                None => self.new_environment().await?,
            };
            if let Some(result) = self.run(environment, request_id, payload.clone()).await {
                return result;
            }
            // The process had died before it fetched the payload: it was never delivered, so that another may have it.
        }
    }

    /// The process that was used last: it is the likeliest to be warm in every cache.
    fn idle(&self) -> Option<Arc<Environment>> {
        let mut processes = self.processes();
        while let Some(environment) = processes.idle.pop() {
            if environment.process.is_alive() {
                return Some(environment);
            }
        }
        None
    }

    async fn new_environment(&self) -> Result<Arc<Environment>, InvokeError> {
        self.recorder.cold_start();
        let prepared = Environment::listen(&self.config, &self.arn).await?;
        let environment = {
            let mut processes = self.processes();
            if self.stopped.load(Ordering::Acquire) {
                return Err(InvokeError::Stopped);
            }
            let environment = Arc::new(prepared.spawn(&self.config)?);
            processes.all.retain(|environment| environment.process.is_alive());
            processes.all.push(environment.clone());
            environment
        };
        environment.ready().await?;
        Ok(environment)
    }

    /// `None`: the process had died before it fetched the payload.
    async fn run(
        &self,
        environment: Arc<Environment>,
        request_id: &str,
        payload: Bytes,
    ) -> Option<Result<Bytes, InvokeError>> {
        let timeout = self.config.timeout;
        let mut invocation = environment.send(request_id, payload, timeout).await;
        match tokio::time::timeout(timeout, invocation.result(&environment)).await {
            Ok(result) => {
                if environment.process.is_alive() {
                    self.processes().idle.push(environment);
                }
                result
            }
            Err(_) if self.config.abandon_on_timeout => {
                tokio::spawn(async move {
                    let _ = invocation.result(&environment).await;
                    environment.process.signal(Signal::TERM);
                });
                Some(Err(InvokeError::Timeout(timeout)))
            }
            Err(_) => {
                environment.process.signal(Signal::KILL);
                environment.process.exited().await;
                Some(Err(InvokeError::Timeout(timeout)))
            }
        }
    }
}

/// A random identifier in the form of a UUID (version 4).
pub(crate) fn random_id() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_has_the_form_of_a_uuid() {
        let id = random_id();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4', "{id}");
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert_ne!(id, random_id());
    }

    #[test]
    fn a_function_without_binary_or_concurrency_is_refused() {
        let missing = Function::start(FunctionConfig::new("f", "no/such/binary"));
        assert!(matches!(missing, Err(StartError::Binary { .. })));
        let mut config = FunctionConfig::new("f", std::env::current_exe().unwrap());
        config.max_concurrency = 0;
        assert!(matches!(Function::start(config), Err(StartError::Zero { field: "max_concurrency", .. })));
    }
}
