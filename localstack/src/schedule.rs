//! A schedule: what an EventBridge rule does with a function of reserved concurrency 1, without retries. A tick during a
//! run is skipped, and nothing is caught up on.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::runtime::{Function, InvokeError, random_id};

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Run {
    pub started: Timestamp,
    pub duration: Duration,
    pub result: Result<Bytes, InvokeError>,
}

/// Counted since the start.
#[derive(Debug, Clone, Default)]
pub struct ScheduleStats {
    pub runs: u64,
    pub failures: u64,
    /// Ticks that came while a run was alive.
    pub skipped: u64,
    pub running: bool,
    pub last: Option<Run>,
    /// When the next tick is due; `None` after [`Schedule::stop`].
    pub next: Option<Timestamp>,
}

/// A running schedule. Dropping it ends the ticks; a run under way goes on by itself.
pub struct Schedule {
    stats: Arc<Mutex<ScheduleStats>>,
    fire: mpsc::UnboundedSender<Fired>,
    task: JoinHandle<()>,
}

impl Schedule {
    /// Fires at once and then every `every` (at least 1 ms).
    pub fn start(every: Duration, function: Function) -> Schedule {
        Self::start_at(every, tokio::time::Instant::now(), function)
    }

    /// Fires first at `first`.
    pub fn start_at(every: Duration, first: tokio::time::Instant, function: Function) -> Schedule {
        let stats = Arc::new(Mutex::new(ScheduleStats::default()));
        let (fire, fired) = mpsc::unbounded_channel();
        let rule = Rule { every: every.max(Duration::from_millis(1)), function, stats: stats.clone() };
        let task = tokio::spawn(rule.run(first, fired));
        Schedule { stats, fire, task }
    }

    /// Fires now, besides the ticks, and waits for the result; `None` when a run is alive, which counts as skipped.
    pub async fn fire_now(&self) -> Option<Result<Bytes, InvokeError>> {
        let ended = self.fire().await?;
        // Fails only after the tokio runtime has begun to shut down.
        Some(ended.await.unwrap_or(Err(InvokeError::Stopped)))
    }

    /// Fires now, besides the ticks, and waits for nothing; false when a run is alive, which counts as skipped.
    pub async fn start_now(&self) -> bool {
        self.fire().await.is_some()
    }

    async fn fire(&self) -> Option<oneshot::Receiver<Result<Bytes, InvokeError>>> {
        let (begun, begins) = oneshot::channel();
        let (ended, ends) = oneshot::channel();
        // The same is true of these.
        let _ = self.fire.send(Fired { begun, ended });
        begins.await.unwrap_or(true).then_some(ends)
    }

    /// Ends the ticks, and waits for the run under way.
    pub async fn stop(mut self) {
        // The rule ends when nobody can fire any more.
        let (closed, _) = mpsc::unbounded_channel();
        self.fire = closed;
        let _ = (&mut self.task).await;
    }

    pub fn stats(&self) -> ScheduleStats {
        lock(&self.stats).clone()
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(stats: &Mutex<ScheduleStats>) -> MutexGuard<'_, ScheduleStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Rule {
    every: Duration,
    function: Function,
    stats: Arc<Mutex<ScheduleStats>>,
}

/// Somebody fires besides the ticks.
struct Fired {
    /// False when a run is alive.
    begun: oneshot::Sender<bool>,
    ended: oneshot::Sender<Result<Bytes, InvokeError>>,
}

impl Rule {
    async fn run(self, first: tokio::time::Instant, mut fired: mpsc::UnboundedReceiver<Fired>) {
        let mut ticks = tokio::time::interval_at(first, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.announce(first.saturating_duration_since(tokio::time::Instant::now()));
        let mut running: Option<JoinHandle<()>> = None;
        loop {
            let by_hand = tokio::select! {
                _ = ticks.tick() => {
                    self.announce(self.every);
                    None
                }
                by_hand = fired.recv() => match by_hand {
                    Some(by_hand) => Some(by_hand),
                    None => break,
                }
            };
            let alive = {
                let mut stats = lock(&self.stats);
                let alive = stats.running;
                stats.skipped += u64::from(alive);
                stats.runs += u64::from(!alive);
                stats.running = true;
                alive
            };
            if alive {
                tracing::warn!(
                    function = self.function.name(),
                    "A scheduled run is skipped, because the one before is still alive; give the schedule a longer interval if this goes on."
                );
                if let Some(by_hand) = by_hand {
                    let _ = by_hand.begun.send(false);
                }
                continue;
            }
            // Whoever fired may not wait for either.
            let ended = by_hand.map(|by_hand| {
                let _ = by_hand.begun.send(true);
                by_hand.ended
            });
            running = Some(tokio::spawn(fire(self.function.clone(), self.stats.clone(), ended)));
        }
        lock(&self.stats).next = None;
        if let Some(running) = running {
            let _ = running.await;
        }
    }

    fn announce(&self, wait: Duration) {
        lock(&self.stats).next = Timestamp::now().checked_add(wait).ok();
    }
}

type Ended = oneshot::Sender<Result<Bytes, InvokeError>>;

async fn fire(function: Function, stats: Arc<Mutex<ScheduleStats>>, ended: Option<Ended>) {
    let started = Timestamp::now();
    let clock = Instant::now();
    let result = function.invoke(scheduled_event(function.arn(), started)).await;
    if let Err(error) = &result {
        tracing::warn!(function = function.name(), %error, "A scheduled run failed; the next tick tries again.");
    }
    {
        let mut stats = lock(&stats);
        stats.running = false;
        stats.failures += u64::from(result.is_err());
        stats.last = Some(Run { started, duration: clock.elapsed(), result: result.clone() });
    }
    if let Some(ended) = ended {
        let _ = ended.send(result);
    }
}

/// EventBridge's "Scheduled Event" (see "Scheduled events" in its user guide) for a function of this ARN, or of this name.
pub fn scheduled_event(function_arn: &str, time: Timestamp) -> Bytes {
    // arn:aws:lambda:REGION:ACCOUNT:function:NAME
    let mut parts = function_arn.split(':').skip(3);
    let (region, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let name = function_arn.rsplit(':').next().unwrap_or_default();
    let seconds = Timestamp::from_second(time.as_second()).unwrap_or(time);
    let event = serde_json::json!({
        "version": "0",
        "id": random_id(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": account,
        "time": seconds.to_string(),
        "region": region,
        "resources": [format!("arn:aws:events:{region}:{account}:rule/{name}-schedule")],
        "detail": {},
    });
    Bytes::from(event.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_eventbridges_scheduled_event() {
        let time: Timestamp = "2026-11-05T06:07:08.4Z".parse().unwrap();
        let event = scheduled_event("arn:aws:lambda:eu-west-1:000000000000:function:producer", time);
        let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(event["time"], "2026-11-05T06:07:08Z");
        assert_eq!(event["source"], "aws.events");
        assert_eq!(event["detail-type"], "Scheduled Event");
        assert_eq!(event["region"], "eu-west-1");
        assert_eq!(event["resources"][0], "arn:aws:events:eu-west-1:000000000000:rule/producer-schedule");
        assert_eq!(event["detail"], serde_json::json!({}));
    }
}
