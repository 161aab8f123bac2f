//! What a function does, for those who watch: counters, and a broadcast of each invocation's start and end.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::broadcast;

use super::InvokeError;

/// How many events a slow reader may fall behind.
const BACKLOG: usize = 1_024;

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    FunctionError,
    Timeout,
    Crashed,
    InitFailed,
    PayloadTooLarge,
    Stopped,
}

impl Outcome {
    pub(super) fn of(result: &Result<Bytes, InvokeError>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(InvokeError::FunctionError { .. }) => Outcome::FunctionError,
            Err(InvokeError::Timeout(_)) => Outcome::Timeout,
            Err(InvokeError::Crashed { .. }) => Outcome::Crashed,
            Err(InvokeError::InitFailed { .. }) => Outcome::InitFailed,
            Err(InvokeError::PayloadTooLarge { .. }) => Outcome::PayloadTooLarge,
            Err(InvokeError::Stopped | InvokeError::Unreachable { .. } | InvokeError::Refused { .. }) => {
                Outcome::Stopped
            }
        }
    }
}

/// The start or the end of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvocationEvent {
    Started {
        request_id: String,
        payload_bytes: usize,
    },
    Ended {
        request_id: String,
        /// Since the invocation had a place, the start of a process included.
        duration: Duration,
        outcome: Outcome,
        response_bytes: usize,
    },
}

/// Counts since the start of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionStats {
    pub invocations: u64,
    pub succeeded: u64,
    /// Answered with an error by the function itself.
    pub function_errors: u64,
    pub timeouts: u64,
    pub crashes: u64,
    pub init_failures: u64,
    pub cold_starts: u64,
    /// Processes killed by [`super::Function::kill_one`].
    pub killed: u64,
    /// Invocations under way.
    pub running: usize,
    /// Processes alive.
    pub processes: usize,
    /// Bytes of all requests.
    pub payload_bytes: u64,
    /// The sum over all ended invocations.
    pub duration: Duration,
}

pub(super) struct Recorder {
    stats: Mutex<FunctionStats>,
    events: broadcast::Sender<InvocationEvent>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { stats: Mutex::default(), events: broadcast::Sender::new(BACKLOG) }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<InvocationEvent> {
        self.events.subscribe()
    }

    pub(super) fn stats(&self) -> FunctionStats {
        self.lock().clone()
    }

    pub(super) fn started(&self, request_id: &str, payload_bytes: usize) {
        let mut stats = self.lock();
        stats.invocations += 1;
        stats.running += 1;
        stats.payload_bytes += payload_bytes as u64;
        drop(stats);
        // Fails when nobody watches.
        let _ = self.events.send(InvocationEvent::Started { request_id: request_id.to_owned(), payload_bytes });
    }

    pub(super) fn cold_start(&self) {
        self.lock().cold_starts += 1;
    }

    pub(super) fn ended(&self, request_id: String, duration: Duration, result: &Result<Bytes, InvokeError>) {
        let outcome = Outcome::of(result);
        let mut stats = self.lock();
        stats.running -= 1;
        stats.duration += duration;
        match outcome {
            Outcome::Success => stats.succeeded += 1,
            Outcome::FunctionError | Outcome::PayloadTooLarge => stats.function_errors += 1,
            Outcome::Timeout => stats.timeouts += 1,
            Outcome::Crashed => stats.crashes += 1,
            Outcome::InitFailed => stats.init_failures += 1,
            Outcome::Stopped => {}
        }
        drop(stats);
        let response_bytes = result.as_ref().map_or(0, Bytes::len);
        let _ = self.events.send(InvocationEvent::Ended { request_id, duration, outcome, response_bytes });
    }

    pub(super) fn killed(&self) {
        self.lock().killed += 1;
    }

    fn lock(&self) -> MutexGuard<'_, FunctionStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
