//! Records that did not reach the topic, kept in the lake's dead letters.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use pipeline::lake::{Condition, DeadLetter, Directory, Layout, PutRequest, Store, to_ndjson};
use tokio::time::{Instant, timeout, timeout_at};

/// How long one object may take where the deadline is unknown.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// The dead letters of one run.
pub struct DeadLetters {
    dataset: String,
    topic: String,
    /// The invocation's id and when it began: Lambda gives the retry of an invocation the same id, and its letters are others.
    run: String,
    count: u64,
    open: Vec<DeadLetter>,
    /// Objects that could not be stored yet.
    unstored: Vec<Object>,
}

struct Object {
    name: String,
    timestamp: i64,
    letters: Vec<DeadLetter>,
}

impl DeadLetters {
    pub fn new(dataset: &str, topic: &str, request_id: &str, started_ms: i64) -> DeadLetters {
        let run = format!("{request_id}-{started_ms}");
        let (dataset, topic) = (dataset.to_owned(), topic.to_owned());
        DeadLetters { dataset, topic, run, count: 0, open: Vec::new(), unstored: Vec::new() }
    }

    /// `stage` is `transform` or `deliver`.
    pub fn add(&mut self, stage: &str, error: String, payload: &[u8], now_ms: i64) {
        self.open.push(DeadLetter {
            id: format!("{}-{}", self.run, self.count),
            dataset: self.dataset.clone(),
            stage: stage.to_owned(),
            error,
            topic: self.topic.clone(),
            partition: None,
            epoch: None,
            offset: None,
            timestamp: now_ms,
            key: None,
            headers: Vec::new(),
            payload: Some(base64_simd::STANDARD.encode_to_string(payload)),
        });
        self.count += 1;
    }

    /// How many letters were written in this run.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Stores the letters added since the last call as one object. What cannot be stored is kept for [`DeadLetters::finish`].
    pub async fn store<S: Store>(&mut self, store: &S, layout: &Layout, tick: u64, until: Option<Instant>) {
        let letters = std::mem::take(&mut self.open);
        let Some(first) = letters.first() else { return };
        let object = Object { name: format!("producer+{}+{tick}", self.run), timestamp: first.timestamp, letters };
        if let Err(reason) = put(store, layout, &object, until).await {
            let letters = object.letters.len();
            tracing::warn!(letters, reason, "Dead letters could not be stored; the end of the run tries again");
            self.unstored.push(object);
        }
    }

    /// Stores what was left. Letters that even then find no place are written to the log, whole: they hold no hashed
    /// column's source. Yields how many.
    pub async fn finish<S: Store>(self, store: &S, layout: &Layout, until: Option<Instant>) -> u64 {
        let mut lost = 0;
        for object in &self.unstored {
            let Err(reason) = put(store, layout, object, until).await else { continue };
            for letter in &object.letters {
                let letter = serde_json::to_string(letter).unwrap_or_default();
                tracing::error!(
                    letter,
                    reason,
                    "A dead letter could not be stored: this line is its only copy, keep it"
                );
                lost += 1;
            }
        }
        lost
    }
}

async fn put<S: Store>(store: &S, layout: &Layout, object: &Object, until: Option<Instant>) -> Result<(), String> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let compressed = gzip.write_all(&to_ndjson(&object.letters)).and_then(|()| gzip.finish());
    let request = PutRequest {
        key: layout.dead_letters(Directory::of(object.timestamp), &object.name),
        body: Bytes::from(compressed.map_err(|e| e.to_string())?),
        // Refused is fine: the name is this run's own, so it was our own write, the answer of which was lost.
        condition: Condition::Absent,
        content_type: "application/x-ndjson",
        metadata: Default::default(),
    };
    let put = store.put(request);
    let in_time = match until {
        Some(until) => timeout_at(until, put).await,
        None => timeout(STORE_TIMEOUT, put).await,
    };
    match in_time {
        Ok(stored) => stored.map(|_| ()).map_err(|e| e.to_string()),
        Err(_) => Err("S3 did not answer in time".to_owned()),
    }
}
