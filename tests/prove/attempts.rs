//! What stands between the event source and the function: it sees every attempt, and can give up on one that lives on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use localstack::event_source::Invoker;
use localstack::runtime::{Function, InvokeError};
use serde::Deserialize;

pub struct Attempts {
    function: Function,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How long the caller waits for the function. It may live on, as on AWS when a connection to Lambda breaks.
    patience: Option<Duration>,
    next: u64,
    live: BTreeMap<u64, Vec<Span>>,
    /// How many records the last attempt had that began with this partition and offset.
    sizes: HashMap<(i32, i64), i64>,
    /// Per partition the offset behind the last one of an attempt that succeeded.
    done: HashMap<i32, i64>,
    counts: Counts,
}

/// Since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub attempts: u64,
    pub failed: u64,
    /// Attempts that began while another one with some of the same records was alive.
    pub twins: u64,
    /// Attempts that began where an earlier one did, with another number of records.
    pub other_sizes: u64,
    /// Attempts with records that the function had taken already.
    pub redelivered: u64,
    /// Attempts that the function gave up on because its time was nearly up.
    pub out_of_time: u64,
    /// Attempts that were ended by the function's time-out.
    pub time_outs: u64,
    /// Attempts in which the consumer stopped a partition.
    pub stopped: u64,
    /// Attempts whose process died by itself.
    pub crashes: u64,
    pub ranges_adopted: u64,
}

impl Counts {
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            attempts: self.attempts - before.attempts,
            failed: self.failed - before.failed,
            twins: self.twins - before.twins,
            other_sizes: self.other_sizes - before.other_sizes,
            redelivered: self.redelivered - before.redelivered,
            out_of_time: self.out_of_time - before.out_of_time,
            time_outs: self.time_outs - before.time_outs,
            stopped: self.stopped - before.stopped,
            crashes: self.crashes - before.crashes,
            ranges_adopted: self.ranges_adopted - before.ranges_adopted,
        }
    }
}

/// Offsets of a partition, the last one inclusive.
#[derive(Debug, Clone, Copy)]
struct Span {
    partition: i32,
    first: i64,
    last: i64,
}

impl Attempts {
    pub fn of(function: &Function) -> Arc<Attempts> {
        Arc::new(Attempts { function: function.clone(), state: Mutex::default() })
    }

    pub fn invoker(self: &Arc<Self>) -> Invoker {
        let attempts = self.clone();
        Arc::new(move |event| Box::pin(attempts.clone().invoke(event)))
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// `None`: the caller waits for as long as the function takes.
    pub fn set_patience(&self, patience: Option<Duration>) {
        self.state().patience = patience;
    }

    /// The topic was made anew: what was delivered was of another one.
    pub fn forget(&self) {
        let mut state = self.state();
        state.sizes.clear();
        state.done.clear();
    }

    pub fn alive(&self) -> usize {
        self.state().live.len()
    }

    /// Waits until no attempt is alive.
    pub async fn ended(&self) {
        while self.alive() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn invoke(self: Arc<Self>, event: Bytes) -> Result<Bytes, InvokeError> {
        let id = self.begin(spans(&event));
        let patience = self.state().patience;
        let attempts = self.clone();
        // It goes on when its caller does not.
        let running = tokio::spawn(async move {
            let result = attempts.function.invoke(event).await;
            attempts.end(id, &result);
            result
        });
        match patience {
            None => running.await.unwrap(),
            Some(patience) => match tokio::time::timeout(patience, running).await {
                Ok(result) => result.unwrap(),
                Err(_) => Err(InvokeError::Unreachable { message: "the caller gave up".to_owned() }),
            },
        }
    }

    fn begin(&self, spans: Vec<Span>) -> u64 {
        let mut state = self.state();
        let mut counts = state.counts;
        let overlaps = |a: &Span, b: &Span| a.partition == b.partition && a.first <= b.last && b.first <= a.last;
        let twin = state.live.values().flatten().any(|live| spans.iter().any(|span| overlaps(span, live)));
        counts.attempts += 1;
        counts.twins += u64::from(twin);
        counts.redelivered +=
            u64::from(spans.iter().any(|s| state.done.get(&s.partition).is_some_and(|d| s.first < *d)));
        let mut other_size = false;
        for span in &spans {
            let size = span.last - span.first;
            let before = state.sizes.insert((span.partition, span.first), size);
            other_size |= before.is_some_and(|before| before != size);
        }
        counts.other_sizes += u64::from(other_size);
        state.counts = counts;
        let id = state.next;
        state.next += 1;
        state.live.insert(id, spans);
        id
    }

    fn end(&self, id: u64, result: &Result<Bytes, InvokeError>) {
        let mut state = self.state();
        let spans = state.live.remove(&id).unwrap_or_default();
        let counts = &mut state.counts;
        counts.failed += u64::from(result.is_err());
        match result {
            Ok(report) => {
                let report: serde_json::Value = serde_json::from_slice(report).unwrap();
                counts.ranges_adopted += report["ranges_adopted"].as_u64().unwrap();
                for span in spans {
                    let done = state.done.entry(span.partition).or_default();
                    *done = (*done).max(span.last + 1);
                }
            }
            Err(InvokeError::FunctionError { error_type, .. }) if error_type == "OutOfTime" => counts.out_of_time += 1,
            Err(InvokeError::FunctionError { error_type, .. }) if error_type == "Stopped" => counts.stopped += 1,
            Err(InvokeError::Timeout(_)) => counts.time_outs += 1,
            Err(InvokeError::Crashed { status, .. }) => counts.crashes += u64::from(!status.contains("SIGKILL")),
            Err(_) => {}
        }
    }
}

fn spans(event: &[u8]) -> Vec<Span> {
    #[derive(Deserialize)]
    struct Event {
        records: BTreeMap<String, Vec<Record>>,
    }
    #[derive(Deserialize)]
    struct Record {
        partition: i32,
        offset: i64,
    }
    let event: Event = serde_json::from_slice(event).unwrap();
    let span = |records: &Vec<Record>| {
        let (first, last) = (records.first()?, records.last()?);
        Some(Span { partition: first.partition, first: first.offset, last: last.offset })
    };
    event.records.values().filter_map(span).collect()
}
