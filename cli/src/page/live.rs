//! What the page shows, kept up to date while somebody looks, and only then: one sampler for all viewers.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// How often the page is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// How often the lake is listed.
const LAKE_EVERY: Duration = Duration::from_secs(4);
/// Who is asked again and takes so much longer than before is said to be silent.
const STALE: Duration = Duration::from_secs(30);
/// Who has not asked for so long looks no more. Viewers ask once a second, also one that is connected, as long as it reads.
pub const GONE: Duration = Duration::from_secs(5);
/// Who asks once waits for all parts, but not for ever.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often those who wait look whether they need to.
const TICK: Duration = Duration::from_millis(50);
/// The first picture comes with what there is by then.
const FIRST: Duration = Duration::from_millis(1500);

/// What one part said when it was asked last.
struct Part<T> {
    said: T,
    took: Duration,
    /// When it is asked again.
    due: Instant,
}

impl<T> Part<T> {
    fn new(said: T, began: Instant, every: Duration) -> Part<T> {
        Part { said, took: began.elapsed(), due: Instant::now() + every }
    }
}

/// What was said, unless an answer is so late that it may be otherwise by now.
fn in_time<T>(part: &Option<Part<T>>) -> Result<&T, String> {
    let Some(part) = part else { return Err("no answer yet: it is waited for".to_owned()) };
    match late(part) {
        Some(time) => Err(format!("no answer for {} s: it is waited for", time.as_secs())),
        None => Ok(&part.said),
    }
}

/// By how much, if it is too late.
fn late<T>(part: &Part<T>) -> Option<Duration> {
    Some(part.due.elapsed()).filter(|time| *time > part.took * 2 + STALE)
}

/// Whether it need not be asked again yet.
fn fresh<T>(part: &Option<Part<T>>) -> bool {
    part.as_ref().is_some_and(|part| Instant::now() < part.due)
}

/// The parts as they were when they were last asked.
#[derive(Default)]
struct Parts {
    doings: Option<Part<Doings>>,
    topic: Option<Part<Section<Topic>>>,
    lake: Option<Part<Section<Lake>>>,
    letters: Found,
    logs: Option<(Metrics, Metrics)>,
    /// Milliseconds since 1970, and the lag of the whole topic.
    lags: VecDeque<(i64, i64)>,
    /// Ended attempts by their end: milliseconds since 1970, and how long each took.
    attempts: VecDeque<(i64, u64)>,
    /// Those of the event source's attempts that are among them, by number and start.
    charted: HashSet<(u64, i64)>,
}

pub struct Live {
    pub looker: Looker,
    pub dataset: String,
    view: View,
    parts: Mutex<Parts>,
    letters: tokio::sync::Mutex<Letters>,
    frames: watch::Sender<Arc<Frame>>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// When somebody looked last.
    last: Option<Instant>,
    sampler: Option<JoinHandle<()>>,
}

/// Somebody who looks.
pub struct Viewer {
    frames: watch::Receiver<Arc<Frame>>,
    live: Arc<Live>,
}

impl Live {
    pub fn new(looker: Looker, dataset: String, view: View) -> Arc<Live> {
        let frames = watch::Sender::new(Arc::default());
        let (parts, letters) = (Mutex::default(), tokio::sync::Mutex::default());
        Arc::new(Live { looker, dataset, view, parts, letters, frames, watched: Mutex::default() })
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    pub fn look(self: &Arc<Live>) -> Viewer {
        self.keep_looking();
        Viewer { frames: self.frames.subscribe(), live: self.clone() }
    }

    /// Begins to look, where nobody did.
    fn keep_looking(self: &Arc<Live>) {
        let mut watched = lock(&self.watched);
        watched.last = Some(Instant::now());
        if watched.sampler.as_ref().is_none_or(JoinHandle::is_finished) {
            watched.sampler = Some(tokio::spawn(sample(self.clone())));
        }
    }

    fn is_watched(&self) -> bool {
        lock(&self.watched).last.is_some_and(|last| last.elapsed() < GONE)
    }

    /// Whether nobody need be asked yet.
    fn is_fresh(&self) -> bool {
        let parts = lock(&self.parts);
        fresh(&parts.doings) && fresh(&parts.topic) && fresh(&parts.lake)
    }

    /// The newest dead letters.
    pub async fn letters(&self, limit: usize) -> Result<Found, Error> {
        let pipeline = self.looker.source.pipeline().await?;
        self.letters.lock().await.newest(&pipeline.lake, limit).await
    }

    fn status(&self, parts: &Parts) -> Status {
        let doings = in_time(&parts.doings).cloned().unwrap_or_else(|reason| Doings::unknown(&reason));
        let topic = in_time(&parts.topic).cloned().unwrap_or_else(Section::unknown);
        let lake = in_time(&parts.lake).cloned().unwrap_or_else(Section::unknown);
        assemble(&self.dataset, doings, topic, lake)
    }

    fn frame(&self) -> Frame {
        let mut parts = lock(&self.parts);
        let status = self.status(&parts);
        parts.remember(&status);
        let (producer, consumer) = parts.logs.as_ref().map(|(producer, consumer)| (producer, consumer)).unzip();
        let running = status.schedule.known.as_ref().is_some_and(|schedule| schedule.running);
        let lag = status.topic.known.as_ref().map(|topic| topic.lag);
        let history =
            History { now: status.at, running, producer, consumer, lag, lags: &parts.lags, attempts: &parts.attempts };
        self.view.frame(&self.frames.borrow(), &status, &history, &parts.letters)
    }
}

impl Viewer {
    /// The next picture. Who waits for it looks, however late it is.
    pub async fn next(&mut self) -> Option<Arc<Frame>> {
        loop {
            self.live.keep_looking();
            if let Ok(changed) = tokio::time::timeout(EVERY, self.frames.changed()).await {
                // Never fails: the sender is held here.
                changed.ok()?;
                return Some(self.frames.borrow_and_update().clone());
            }
        }
    }

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
        loop {
            self.live.keep_looking();
            if self.live.is_fresh() || Instant::now() >= deadline {
                return;
            }
            // Woken with each picture; parts come between two of them.
            let _ = tokio::time::timeout(TICK, frames.changed()).await;
        }
    }
}

impl Parts {
    /// Nobody has asked for long: that is not the parts' fault.
    fn begin_anew(&mut self) {
        self.doings.take_if(|part| late(part).is_some());
        self.topic.take_if(|part| late(part).is_some());
        self.lake.take_if(|part| late(part).is_some());
    }

    fn remember(&mut self, status: &Status) {
        let limit = status.at - CHARTED;
        if let Some(source) = status.consumer.known.as_ref().and_then(|consumer| consumer.source.as_ref()) {
            let mut charted = HashSet::new();
            for attempt in &source.attempts {
                // One that is under way is looked at again.
                let Some(duration) = attempt.duration_ms else { continue };
                let id = (attempt.id, attempt.started);
                if !self.charted.contains(&id) {
                    let end = attempt.started.saturating_add(i64::try_from(duration).unwrap_or(i64::MAX));
                    self.attempts.push_back((end, duration));
                }
                charted.insert(id);
            }
            self.charted = charted;
        }
        self.lags.retain(|(at, _)| *at >= limit);
        self.attempts.retain(|(at, _)| *at >= limit);
    }
}

/// Asks each part at its own pace, and draws, as long as somebody looks.
async fn sample(live: Arc<Live>) {
    lock(&live.parts).begin_anew();
    tokio::select! {
        _ = async { tokio::join!(doings(&live), topic(&live), draw(&live)) } => {}
        () = lake(&live) => {}
    }
    live.looker.rest().await;
}

async fn doings(live: &Live) {
    let every = live.looker.source.every();
    loop {
        let due = lock(&live.parts).doings.as_ref().map(|part| part.due);
        turn(live, due).await;
        let began = Instant::now();
        let doings = live.looker.doings().await;
        let logs = live.looker.metrics().await;
        let mut parts = lock(&live.parts);
        parts.logs = Some(logs);
        parts.doings = Some(Part::new(doings, began, every));
    }
}

async fn topic(live: &Live) {
    let every = live.looker.source.every();
    loop {
        let due = lock(&live.parts).topic.as_ref().map(|part| part.due);
        turn(live, due).await;
        let began = Instant::now();
        let topic = live.looker.topic().await;
        let mut parts = lock(&live.parts);
        if let Some(topic) = &topic.known {
            parts.lags.push_back((now_ms(), topic.lag));
        }
        parts.topic = Some(Part::new(topic, began, every));
    }
}

/// Returns when nobody looks any more, but not in the middle: who asks again later would never see a lake that takes long to list.
async fn lake(live: &Live) {
    loop {
        let due = lock(&live.parts).lake.as_ref().map(|part| part.due);
        while live.is_watched() && due.is_some_and(|due| Instant::now() < due) {
            tokio::time::sleep(TICK).await;
        }
        if !live.is_watched() {
            return;
        }
        let began = Instant::now();
        let (lake, letters) = tokio::join!(live.looker.lake(), live.letters(SHOWN));
        let mut parts = lock(&live.parts);
        // Where they cannot be read, the lake cannot either, and says so.
        parts.letters = letters.unwrap_or_default();
        // A large lake takes long to list: that is not all that is done for those who look.
        parts.lake = Some(Part::new(lake, began, LAKE_EVERY.max(began.elapsed() * 3)));
    }
}

async fn draw(live: &Live) {
    // Whoever comes back to the page shall see something else than that nothing is known yet.
    let began = Instant::now();
    while !live.is_fresh() && began.elapsed() < FIRST {
        tokio::time::sleep(TICK).await;
    }
    loop {
        live.frames.send_replace(Arc::new(live.frame()));
        tokio::time::sleep(EVERY).await;
    }
}

/// Waits until a part is due, and somebody looks: one who has gone may have left a listing under way.
async fn turn(live: &Live, due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
    while !live.is_watched() {
        tokio::time::sleep(TICK).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_always_takes_long_is_not_late() {
        let late = |took, by| {
            let due = Instant::now().checked_sub(Duration::from_secs(by)).unwrap();
            in_time(&Some(Part { said: 7, took: Duration::from_secs(took), due })).copied()
        };
        assert_eq!((late(0, 0), late(0, 29), late(20, 60)), (Ok(7), Ok(7), Ok(7)));
        assert_eq!(late(0, 31), Err("no answer for 31 s: it is waited for".to_owned()));
        assert!(late(20, 71).is_err() && in_time::<i32>(&None).is_err());
    }
}
