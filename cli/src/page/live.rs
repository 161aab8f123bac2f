//! What the page shows, kept up to date while somebody looks, and only then: one sampler for all viewers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pipeline::telemetry::now_ms;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::chart::History;
use super::letters::{Found, Letters, SHOWN};
use super::view::{Frame, View};
use crate::Error;
use crate::status::document::{Lake, Section, Status, Topic};
use crate::status::look::{Doings, Looker, assemble};
use crate::status::metrics::{CHARTED, Metrics};

/// How often the topic is asked, and the page is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// How often the lake is listed.
const LAKE_EVERY: Duration = Duration::from_secs(4);
/// Who is asked again and has not answered by then is said to be silent.
const STALE: Duration = Duration::from_secs(30);
/// Who asks once waits for all parts, but not for ever.
const PATIENCE: Duration = Duration::from_secs(15);
/// The first picture comes with what there is by then.
const FIRST: Duration = Duration::from_millis(1500);

/// The parts as they were when they were last asked.
#[derive(Default)]
struct Parts {
    trouble: Option<String>,
    doings: Option<(Instant, Doings)>,
    topic: Option<(Instant, Section<Topic>)>,
    lake: Option<(Instant, Section<Lake>)>,
    letters: Found,
    logs: Option<(Metrics, Metrics)>,
    /// Milliseconds since 1970, and the lag of the whole topic.
    lags: VecDeque<(i64, i64)>,
    /// Ended attempts by their end: milliseconds since 1970, and how long each took.
    attempts: VecDeque<(i64, u64)>,
    newest_attempt: u64,
}

pub struct Live {
    pub looker: Looker,
    pub dataset: String,
    view: View,
    parts: Mutex<Parts>,
    letters: tokio::sync::Mutex<Letters>,
    frames: watch::Sender<Arc<Frame>>,
    sampler: Mutex<Weak<Sampler>>,
}

/// Looks as long as somebody holds it.
struct Sampler(JoinHandle<()>);

impl Drop for Sampler {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Somebody who looks.
pub struct Viewer {
    pub frames: watch::Receiver<Arc<Frame>>,
    live: Arc<Live>,
    _sampler: Arc<Sampler>,
}

impl Live {
    pub fn new(looker: Looker, dataset: String, view: View) -> Arc<Live> {
        let frames = watch::Sender::new(Arc::default());
        let (parts, letters) = (Mutex::default(), tokio::sync::Mutex::default());
        Arc::new(Live { looker, dataset, view, parts, letters, frames, sampler: Mutex::default() })
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// Begins to look, where nobody did.
    pub fn look(self: &Arc<Live>) -> Viewer {
        let mut sampler = lock(&self.sampler);
        let running = sampler.upgrade().filter(|sampler| !sampler.0.is_finished()).unwrap_or_else(|| {
            let started = Arc::new(Sampler(tokio::spawn(sample(self.clone()))));
            *sampler = Arc::downgrade(&started);
            started
        });
        Viewer { frames: self.frames.subscribe(), live: self.clone(), _sampler: running }
    }

    /// The newest dead letters.
    pub async fn letters(&self, limit: usize) -> Result<Found, Error> {
        let pipeline = self.looker.source.pipeline().await?;
        self.letters.lock().await.newest(&pipeline.lake, limit).await
    }

    fn status(&self, parts: &Parts) -> Status {
        let doings =
            answered(&parts.doings, self.looker.source.every()).unwrap_or_else(|reason| Doings::unknown(&reason));
        let topic = answered(&parts.topic, EVERY).unwrap_or_else(Section::unknown);
        let lake = answered(&parts.lake, LAKE_EVERY).unwrap_or_else(Section::unknown);
        assemble(&self.dataset, parts.trouble.clone(), doings, topic, lake)
    }

    fn frame(&self) -> Frame {
        let mut parts = lock(&self.parts);
        let status = self.status(&parts);
        parts.remember(&status);
        let (producer, consumer) = parts.logs.as_ref().map(|(producer, consumer)| (producer, consumer)).unzip();
        let running = status.schedule.known.as_ref().is_some_and(|schedule| schedule.running);
        let history =
            History { now: status.at, running, producer, consumer, lags: &parts.lags, attempts: &parts.attempts };
        self.view.frame(&self.frames.borrow(), &status, &history, &parts.letters)
    }
}

impl Viewer {
    /// The document, with every part as new as one who looks all the time has it.
    pub async fn status(&self) -> Status {
        self.wait(PATIENCE).await;
        self.live.status(&lock(&self.live.parts))
    }

    /// The picture to begin with.
    pub async fn first(&self) -> Arc<Frame> {
        self.wait(FIRST).await;
        Arc::new(self.live.frame())
    }

    async fn wait(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut frames = self.frames.clone();
        // A part that was asked just before need not be asked again.
        let fresh = |taken: Option<Instant>, every| taken.is_some_and(|taken| taken.elapsed() < every);
        let every = self.live.looker.source.every();
        loop {
            {
                let parts = lock(&self.live.parts);
                let doings = fresh(parts.doings.as_ref().map(|(taken, _)| *taken), every);
                let topic = fresh(parts.topic.as_ref().map(|(taken, _)| *taken), EVERY);
                let lake = fresh(parts.lake.as_ref().map(|(taken, _)| *taken), LAKE_EVERY);
                if (doings && topic && lake) || Instant::now() >= deadline {
                    return;
                }
            }
            // Woken with each picture; parts come between two of them.
            let _ = tokio::time::timeout(Duration::from_millis(50), frames.changed()).await;
        }
    }
}

impl Parts {
    fn remember(&mut self, status: &Status) {
        let limit = status.at - CHARTED;
        if let Some(source) = status.consumer.known.as_ref().and_then(|consumer| consumer.source.as_ref()) {
            let newest = source.attempts.first().map_or(0, |attempt| attempt.id);
            // An event source that was started again counts from 1.
            if newest < self.newest_attempt {
                self.newest_attempt = 0;
            }
            let known = self.newest_attempt;
            for attempt in source.attempts.iter().rev().filter(|attempt| attempt.id > known) {
                // One that is under way is looked at again.
                let Some(duration) = attempt.duration_ms else { break };
                self.newest_attempt = attempt.id;
                let end = attempt.started.saturating_add(i64::try_from(duration).unwrap_or(i64::MAX));
                self.attempts.push_back((end, duration));
            }
        }
        while self.lags.front().is_some_and(|(at, _)| *at < limit) {
            self.lags.pop_front();
        }
        while self.attempts.front().is_some_and(|(at, _)| *at < limit) {
            self.attempts.pop_front();
        }
    }
}

/// Asks each part at its own pace, and draws. Ends with its last viewer.
async fn sample(live: Arc<Live>) {
    tokio::join!(doings(&live), topic(&live), lake(&live), draw(&live));
}

async fn doings(live: &Live) {
    let every = live.looker.source.every();
    loop {
        let taken = lock(&live.parts).doings.as_ref().map(|(taken, _)| *taken);
        pause(taken, every).await;
        let doings = live.looker.doings().await;
        let logs = live.looker.metrics().await;
        let trouble = live.looker.source.pipeline().await.err().map(|e| e.to_string());
        let mut parts = lock(&live.parts);
        (parts.trouble, parts.logs) = (trouble, Some(logs));
        parts.doings = Some((Instant::now(), doings));
    }
}

async fn topic(live: &Live) {
    loop {
        let taken = lock(&live.parts).topic.as_ref().map(|(taken, _)| *taken);
        pause(taken, EVERY).await;
        let topic = live.looker.topic().await;
        let mut parts = lock(&live.parts);
        if let Some(topic) = &topic.known {
            parts.lags.push_back((now_ms(), topic.lag));
        }
        parts.topic = Some((Instant::now(), topic));
    }
}

async fn lake(live: &Live) {
    loop {
        let taken = lock(&live.parts).lake.as_ref().map(|(taken, _)| *taken);
        pause(taken, LAKE_EVERY).await;
        let begun = Instant::now();
        let (lake, letters) = tokio::join!(live.looker.lake(), live.letters(SHOWN));
        {
            let mut parts = lock(&live.parts);
            // Where they cannot be read, the lake cannot either, and says so.
            parts.letters = letters.unwrap_or_default();
            parts.lake = Some((Instant::now(), lake));
        }
        // A large lake takes long to list: that is not all that is done for those who look.
        tokio::time::sleep(begun.elapsed() * 3).await;
    }
}

async fn draw(live: &Live) {
    loop {
        live.frames.send_replace(Arc::new(live.frame()));
        tokio::time::sleep(EVERY).await;
    }
}

/// A part, unless it was asked so long ago that it may be otherwise by now.
fn answered<T: Clone>(part: &Option<(Instant, T)>, every: Duration) -> Result<T, String> {
    match part {
        Some((taken, part)) if taken.elapsed() < every + STALE => Ok(part.clone()),
        Some((taken, _)) => Err(format!("no answer for {} s: waiting", taken.elapsed().as_secs())),
        None => Err("no answer yet: waiting".to_owned()),
    }
}

/// Waits until so much time has passed since then.
async fn pause(taken: Option<Instant>, every: Duration) {
    if let Some(taken) = taken {
        tokio::time::sleep_until((taken + every).into()).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
