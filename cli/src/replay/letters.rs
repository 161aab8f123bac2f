//! The lake's dead letters: what is known of each, and its record when it goes back to the topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64_simd::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::lake::{DeadLetter, Layout, Store};

use crate::Error;
use crate::verify::rows;

/// A replayed record carries the letter's id. Of several, the last is that of its latest replay.
pub const REPLAY_ID: &str = "freshet-replay-id";
/// Where the letter's record came from: `topic/partition/epoch/offset`, or the topic alone where it never got there.
pub const REPLAY_FROM: &str = "freshet-replay-from";

/// Each is whole in memory while it is read.
const READS_AT_ONCE: usize = 4;

/// Where a letter's record lies on the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub partition: i32,
    pub epoch: u32,
    pub offset: i64,
}

/// A dead letter without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub id: String,
    pub stage: String,
    pub error: String,
    pub topic: String,
    /// `None` for a record that is not known to have reached the topic.
    pub place: Option<Place>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub tombstone: bool,
    /// How often its record had been replayed before it became this letter.
    pub replays: usize,
    /// Key of the object that holds it.
    pub object: Arc<str>,
}

impl Letter {
    fn of(letter: DeadLetter, object: &Arc<str>) -> Letter {
        let place = || Some(Place { partition: letter.partition?, epoch: letter.epoch?, offset: letter.offset? });
        Letter {
            place: place(),
            tombstone: letter.payload.is_none(),
            replays: letter.headers.iter().filter(|header| header.name == REPLAY_ID).count(),
            object: object.clone(),
            id: letter.id,
            stage: letter.stage,
            error: letter.error,
            topic: letter.topic,
            timestamp: letter.timestamp,
        }
    }
}

/// All letters of a lake, each once, in the order of their times.
#[derive(Debug, Default)]
pub struct Letters {
    pub letters: Vec<Letter>,
    /// Objects that cannot be read, each with the reason.
    pub unreadable: Vec<String>,
}

pub async fn collect<S: Store>(store: &S, layout: &Layout) -> Result<Letters, Error> {
    let listed = store.list(&layout.dead_letters_prefix(), None).await?;
    let read: Vec<Letters> =
        stream::iter(listed).map(|listed| of_object(store, listed.key)).buffered(READS_AT_ONCE).try_collect().await?;
    let (mut found, mut known) = (Letters::default(), BTreeSet::new());
    for Letters { letters, unreadable } in read {
        // Letters are stored at least once.
        found.letters.extend(letters.into_iter().filter(|letter| known.insert(letter.id.clone())));
        found.unreadable.extend(unreadable);
    }
    found.letters.sort_by(|a, b| (a.timestamp, a.place, &a.id).cmp(&(b.timestamp, b.place, &b.id)));
    Ok(found)
}

async fn of_object<S: Store>(store: &S, key: String) -> Result<Letters, Error> {
    let object: Arc<str> = key.into();
    Ok(match read(store, &object).await? {
        Ok(letters) => {
            let letters = letters.into_iter().map(|letter| Letter::of(letter, &object)).collect();
            Letters { letters, unreadable: Vec::new() }
        }
        Err(reason) => Letters { letters: Vec::new(), unreadable: vec![format!("{object} {reason}")] },
    })
}

async fn read<S: Store>(store: &S, object: &str) -> Result<Result<Vec<DeadLetter>, String>, Error> {
    let Some(found) = store.get(object).await? else { return Ok(Ok(Vec::new())) };
    // Unpacking is work for the processor, not for the thread that waits for the network.
    let letters = tokio::task::spawn_blocking(move || rows::whole_letters(&found.body)).await;
    Ok(letters.unwrap_or_else(|panic| Err(format!("cannot be read ({panic})"))))
}

/// A letter's record as it goes to the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub id: String,
    /// `None` leaves the choice to Kafka's client.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The records of these letters, in their order; an error is the end of a sentence that begins with the letter.
pub async fn records<S: Store>(store: &S, letters: &[&Letter]) -> Result<Vec<Result<Record, String>>, Error> {
    let mut found = BTreeMap::new();
    let wanted: BTreeSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
    let objects: BTreeSet<&str> = letters.iter().map(|letter| &*letter.object).collect();
    for object in objects {
        for letter in read(store, object).await?.unwrap_or_default() {
            if wanted.contains(letter.id.as_str()) {
                found.entry(letter.id.clone()).or_insert(letter);
            }
        }
    }
    let gone = || Err("is not in the lake any more".to_owned());
    Ok(letters.iter().map(|letter| found.remove(&letter.id).map_or_else(gone, record)).collect())
}

fn record(letter: DeadLetter) -> Result<Record, String> {
    let bytes = |what: &str, text: Option<String>| {
        let decoded = text.map(|text| STANDARD.decode_to_vec(text)).transpose();
        decoded.map_err(|_| format!("has a {what} that is not base64"))
    };
    let from = match (letter.partition, letter.epoch, letter.offset) {
        (Some(partition), Some(epoch), Some(offset)) => format!("{}/{partition}/{epoch}/{offset}", letter.topic),
        _ => letter.topic,
    };
    let mut headers = Vec::with_capacity(letter.headers.len() + 2);
    for header in letter.headers {
        // Kafka's client takes names as C does.
        if header.name.contains('\0') {
            return Err("has a header whose name holds a NUL".to_owned());
        }
        headers.push((header.name, bytes("header", header.value)?));
    }
    headers.push((REPLAY_ID.to_owned(), Some(letter.id.clone().into_bytes())));
    headers.push((REPLAY_FROM.to_owned(), Some(from.into_bytes())));
    Ok(Record {
        id: letter.id,
        partition: letter.partition,
        key: bytes("key", letter.key)?,
        value: bytes("value", letter.payload)?,
        headers,
    })
}
