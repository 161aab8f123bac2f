//! What replays write down in the bucket: who is at work, what is about to be produced, what was. Every write is conditional.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::lake::{Condition, Layout, Put, PutRequest, Store};
use pipeline::telemetry::now_ms;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::topic::Spot;
use crate::progress::Progress;
use crate::{Error, text};

const READS_AT_ONCE: usize = 16;
const LOCK: &str = "lock";
/// By how much the clocks of two machines may differ: S3 refuses requests whose time is a quarter of an hour off.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1800);

/// How fast a run goes, and when it is known to have ended.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Letters a second.
    pub rate: u32,
    /// A batch is sent within this time after the lock was renewed for it; what is left then is not sent.
    pub send_within: Duration,
    /// How long Kafka's client tries to deliver a record. Nothing of it is sent later.
    pub delivery_timeout: Duration,
    /// What had left a client that was killed has arrived after this time.
    pub on_the_wire: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        let seconds = Duration::from_secs;
        Pace { rate: 200, send_within: seconds(20), delivery_timeout: seconds(30), on_the_wire: seconds(10) }
    }
}

impl Pace {
    /// So long after a run's last sign of life nothing of it reaches the topic any more.
    fn settles(&self) -> Duration {
        self.send_within + self.delivery_timeout + self.on_the_wire
    }
}

/// The time in which a batch may be sent. A process that was halted meanwhile finds it over, by whichever clock went on.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    began: Instant,
    began_at: SystemTime,
    length: Duration,
}

impl Window {
    fn new(length: Duration) -> Window {
        Window { began: Instant::now(), began_at: SystemTime::now(), length }
    }

    pub fn is_open(&self) -> bool {
        // A wall clock that was set back says nothing.
        self.began.elapsed() < self.length && self.began_at.elapsed().map_or(true, |passed| passed < self.length)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LockObject {
    run: String,
    owner: String,
    /// Milliseconds since 1970.
    renewed: i64,
    settles_ms: u64,
    released: bool,
}

/// One batch of a run: written before anything of it is produced, and again when all of it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub run: String,
    pub number: u32,
    pub owner: String,
    pub topic: String,
    /// Milliseconds since 1970: when it was written, or last taken up.
    pub written: i64,
    pub settles_ms: u64,
    /// Where each partition ended before the first record of the batch was produced.
    pub partitions: BTreeMap<i32, End>,
    /// Ids of the letters.
    pub letters: Vec<String>,
    pub done: Option<Done>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub high: i64,
    /// The ledger's epoch: another one later says that the topic was made anew.
    pub epoch: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Where each letter's record lies now.
    pub replayed: BTreeMap<String, Spot>,
    /// Letters that are not on the topic, each with the reason.
    pub refused: BTreeMap<String, String>,
}

/// A batch that was begun and not finished.
#[derive(Debug, Clone)]
pub struct Open {
    pub key: String,
    pub batch: Batch,
    etag: String,
}

/// What earlier runs did.
#[derive(Debug, Default)]
pub struct Replays {
    /// Ids of letters whose record was replayed.
    pub done: BTreeSet<String>,
    pub open: Vec<Open>,
}

pub async fn replays<S: Store>(store: &S, layout: &Layout) -> Result<Replays, Error> {
    let prefix = layout.replays();
    let listed = store.list(&prefix, None).await?.into_iter().map(|listed| listed.key);
    // A key further down is another lake's.
    let ours = listed.filter(|key| key.strip_prefix(&prefix).is_some_and(|name| !name.contains('/')));
    let batches = ours.filter(|key| *key != layout.replay(LOCK));
    let read: Vec<Option<Open>> =
        stream::iter(batches).map(|key| batch(store, key)).buffered(READS_AT_ONCE).try_collect().await?;
    let mut replays = Replays::default();
    for open in read.into_iter().flatten() {
        match &open.batch.done {
            Some(done) => replays.done.extend(done.replayed.keys().cloned()),
            None => replays.open.push(open),
        }
    }
    Ok(replays)
}

async fn batch<S: Store>(store: &S, key: String) -> Result<Option<Open>, Error> {
    let Some(object) = store.get(&key).await? else { return Ok(None) };
    let batch = serde_json::from_slice(&object.body).map_err(|e| {
        Error::stopped(format!(
            "{key} is no batch of a replay ({e}), so nothing was replayed. Use the version that wrote it; or, where it was damaged, delete it: \
             its letters then count as never replayed, and may be stored twice"
        ))
    })?;
    Ok(Some(Open { key, batch, etag: object.etag }))
}

/// Writes an object; `None` where somebody else was first. A write whose answer was lost is known by its content.
async fn put<S: Store>(
    store: &S,
    key: &str,
    value: &impl Serialize,
    condition: Condition,
) -> Result<Option<String>, Error> {
    // Structs of texts and numbers always serialise.
    let body = Bytes::from(serde_json::to_vec_pretty(value).unwrap_or_default());
    let request = PutRequest {
        key: key.to_owned(),
        body: body.clone(),
        condition,
        content_type: "application/json",
        metadata: Default::default(),
    };
    match store.put(request).await? {
        Put::Stored { etag } => Ok(Some(etag)),
        Put::Refused | Put::Missing => {
            let found = store.get(key).await?;
            Ok(found.filter(|found| found.body == body).map(|found| found.etag))
        }
    }
}

/// One run's right to replay this lake's letters, as long as it renews it.
pub struct Lock<'s, S> {
    store: &'s S,
    layout: Layout,
    key: String,
    run: String,
    owner: String,
    pace: Pace,
    etag: Mutex<String>,
    /// Since then nobody else was at work.
    pub quiet_since: Instant,
}

impl<'s, S: Store> Lock<'s, S> {
    /// Takes the lock. That of another run is watched: where it is renewed the other run is alive, where it is not for as
    /// long as something of that run could still arrive it is taken over.
    pub async fn take(
        store: &'s S,
        layout: &Layout,
        owner: &str,
        pace: Pace,
        progress: &Progress,
    ) -> Result<Lock<'s, S>, Error> {
        let (layout, key, owner) = (layout.clone(), layout.replay(LOCK), owner.to_owned());
        let (run, etag, quiet_since) = (new_run(), Mutex::default(), Instant::now());
        let mut lock = Lock { store, layout, key, run, owner, pace, etag, quiet_since };
        let condition = lock.wait_for(progress).await?;
        match put(store, &lock.key, &lock.object(false), condition).await? {
            Some(etag) => *lock.etag.get_mut() = etag,
            None => {
                return Err(Error::stopped(
                    "another replay has begun at the same moment. Wait for its end, then run the command again",
                ));
            }
        }
        Ok(lock)
    }

    /// Waits until the lock may be taken, on the condition that it is then still as it was read.
    async fn wait_for(&mut self, progress: &Progress) -> Result<Condition, Error> {
        let mut watched: Option<(String, Instant)> = None;
        loop {
            let found = self.store.get(&self.key).await?;
            self.quiet_since = Instant::now();
            let Some(object) = found else { return Ok(Condition::Absent) };
            let lock: LockObject = serde_json::from_slice(&object.body).map_err(|e| {
                Error::stopped(format!(
                    "{} is no lock of a replay ({e}). Make sure that no replay is under way, delete it, and run the command again",
                    self.key
                ))
            })?;
            if lock.released {
                return Ok(Condition::Matches(object.etag));
            }
            let first = watched.is_none();
            let (etag, since) = watched.get_or_insert_with(|| (object.etag.clone(), Instant::now()));
            if *etag != object.etag {
                return Err(under_way(&lock));
            }
            let left = patience(lock.renewed, lock.settles_ms).saturating_sub(since.elapsed());
            if left.is_zero() {
                self.quiet_since = *since;
                return Ok(Condition::Matches(object.etag));
            }
            if first {
                progress.say(&format!(
                    "Replay {} of {} has not ended: watching for {} s whether it is alive",
                    lock.run,
                    lock.owner,
                    left.as_secs_f64().ceil()
                ));
            }
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    fn object(&self, released: bool) -> LockObject {
        let settles_ms = self.settles_ms();
        LockObject { run: self.run.clone(), owner: self.owner.clone(), renewed: now_ms(), settles_ms, released }
    }

    fn settles_ms(&self) -> u64 {
        u64::try_from(self.pace.settles().as_millis()).unwrap_or(u64::MAX)
    }

    /// Says that this run is alive; the window is that of a batch whose records follow.
    pub async fn renew(&self) -> Result<Window, Error> {
        let window = Window::new(self.pace.send_within);
        self.write_lock(false).await?;
        Ok(window)
    }

    async fn write_lock(&self, released: bool) -> Result<(), Error> {
        let mut etag = self.etag.lock().await;
        loop {
            if let Some(written) =
                put(self.store, &self.key, &self.object(released), Condition::Matches(etag.clone())).await?
            {
                *etag = written;
                return Ok(());
            }
            // An earlier write of ours may be there, the answer of which was lost.
            let found = self.store.get(&self.key).await?.ok_or_else(|| self.lost())?;
            let ours = serde_json::from_slice::<LockObject>(&found.body).is_ok_and(|lock| lock.run == self.run);
            if !ours || *etag == found.etag {
                return Err(self.lost());
            }
            *etag = found.etag;
        }
    }

    fn lost(&self) -> Error {
        Error::stopped(format!(
            "another run has taken the replay over ({}): this one showed no sign of life for {} s. Wait for the other's end, then run \
             the command again: what this one began is finished then",
            self.key,
            self.pace.settles().as_secs_f64()
        ))
    }

    /// Renews until another run has the lock.
    pub async fn keep(&self) -> Error {
        loop {
            tokio::time::sleep(self.pace.settles() / 12).await;
            match self.renew().await {
                // A store that fails for a moment fails no run; the next batch asks it anew.
                Ok(_) | Err(Error::Store(_)) => {}
                Err(lost) => return lost,
            }
        }
    }

    pub async fn release(self) -> Result<(), Error> {
        self.write_lock(true).await
    }

    /// Waits until nothing of the run that began or last took up the batch can reach the topic any more.
    pub async fn wait_until_settled(&self, batch: &Batch, progress: &Progress) {
        let left = patience(batch.written, batch.settles_ms).saturating_sub(self.quiet_since.elapsed());
        if !left.is_zero() {
            progress.say(&format!(
                "Replay {} of {} did not finish: waiting {} s, until nothing of it can reach the topic any more",
                batch.run,
                batch.owner,
                left.as_secs_f64().ceil()
            ));
            tokio::time::sleep(left).await;
        }
    }

    /// Writes down what will be produced, before it is.
    pub async fn begin(
        &self,
        number: u32,
        topic: &str,
        partitions: BTreeMap<i32, End>,
        letters: Vec<String>,
    ) -> Result<Open, Error> {
        let batch = Batch {
            run: self.run.clone(),
            number,
            owner: self.owner.clone(),
            topic: topic.to_owned(),
            written: now_ms(),
            settles_ms: self.settles_ms(),
            partitions,
            letters,
            done: None,
        };
        let key = self.layout.replay(&format!("{}+{number:06}", self.run));
        let etag = put(self.store, &key, &batch, Condition::Absent).await?.ok_or_else(|| {
            Error::stopped(format!("{key} was there already, and nothing of it was replayed. Run the command again"))
        })?;
        Ok(Open { key, batch, etag })
    }

    /// Takes a batch up that another run began: its time counts anew.
    pub async fn take_up(&self, open: Open) -> Result<Open, Error> {
        let batch = Batch { written: now_ms(), settles_ms: self.settles_ms(), ..open.batch.clone() };
        self.write(open, batch).await
    }

    pub async fn finish(&self, open: Open, done: Done) -> Result<(), Error> {
        let batch = Batch { done: Some(done), ..open.batch.clone() };
        self.write(open, batch).await.map(drop)
    }

    async fn write(&self, open: Open, batch: Batch) -> Result<Open, Error> {
        match put(self.store, &open.key, &batch, Condition::Matches(open.etag)).await? {
            Some(etag) => Ok(Open { key: open.key, batch, etag }),
            None => Err(Error::stopped(format!(
                "{} was changed by another run. Wait for its end, then run the command again",
                open.key
            ))),
        }
    }
}

/// How long to watch before something counts as settled; nothing, where it is so old that no clock can be that wrong.
fn patience(written: i64, settles_ms: u64) -> Duration {
    let settles = Duration::from_millis(settles_ms);
    let age = Duration::from_millis(u64::try_from(now_ms().saturating_sub(written)).unwrap_or_default());
    if age > settles.saturating_add(CLOCKS_DIFFER) { Duration::ZERO } else { settles }
}

fn under_way(lock: &LockObject) -> Error {
    Error::stopped(format!(
        "another replay is under way: {} of {}, alive at {}. Wait for its end; if you end it instead, this command takes over what it \
         leaves, {} s later",
        lock.run,
        lock.owner,
        text::time(lock.renewed),
        Duration::from_millis(lock.settles_ms).as_secs_f64()
    ))
}

/// Runs sort by their time; two at the same moment differ all the same.
fn new_run() -> String {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    format!("{time}-{:08x}", fastrand::u32(..))
}
