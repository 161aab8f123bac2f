//! The newest dead letters, as they are shown: with their payload as text where it is text.

use std::collections::HashMap;
use std::sync::Arc;

use base64_simd::STANDARD;
use pipeline::lake::{DeadLetter, Listed, Store};
use serde::Serialize;

use crate::verify::rows::whole_letters;
use crate::{Error, Lake};

/// How many the page shows.
pub const SHOWN: usize = 50;
/// The most that one asks for.
pub const MOST: usize = 1_000;
/// Only so many objects are read, the newest days' first.
const OBJECTS: usize = 200;
/// How much of a payload, and of a reason, is shown.
const CHARACTERS: usize = 2_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownLetter {
    pub id: String,
    /// `transform` or `deliver` in the producer, `decode` in the consumer.
    pub stage: String,
    pub reason: String,
    pub topic: String,
    /// Absent, with epoch and offset, where the record never reached the topic.
    pub partition: Option<i32>,
    pub epoch: Option<u32>,
    pub offset: Option<i64>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Text, or base64 where it is none; absent for a tombstone.
    pub payload: Option<String>,
    /// `utf-8` or `base64`
    pub encoding: &'static str,
    /// Of the payload, also where only its beginning is shown.
    pub bytes: usize,
    pub cut: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The newest first.
    pub letters: Vec<ShownLetter>,
    /// There are others.
    pub more: bool,
    /// Objects that hold no letters, each with the reason.
    pub unreadable: Vec<String>,
}

/// What was read before: an object of letters is written once.
#[derive(Debug, Default)]
pub struct Letters(HashMap<String, Arc<Result<Vec<ShownLetter>, String>>>);

impl Letters {
    pub async fn newest(&mut self, lake: &Lake, limit: usize) -> Result<Found, Error> {
        let store = lake.store();
        // `…_dead_letters/dt=2026-11-23/…`: the greatest are of the last day.
        let mut keys: Vec<String> = store
            .list(&lake.target.layout.dead_letters_prefix(), None)
            .await?
            .into_iter()
            .map(|Listed { key, .. }| key)
            .collect();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let mut found = Found { more: keys.len() > OBJECTS, ..Found::default() };
        keys.truncate(OBJECTS);
        self.0.retain(|key, _| keys.contains(key));
        for key in keys {
            let letters = match self.0.get(&key) {
                Some(letters) => letters.clone(),
                None => {
                    let Some(object) = store.get(&key).await? else { continue };
                    let name = key.clone();
                    // Unpacking is work for the processor, not for the thread that waits for the network.
                    let read = tokio::task::spawn_blocking(move || read(&name, &object.body)).await;
                    let letters = Arc::new(read.unwrap_or_else(|panic| Err(format!("{key} cannot be read ({panic})"))));
                    self.0.insert(key, letters.clone());
                    letters
                }
            };
            match &*letters {
                Ok(letters) => found.letters.extend(letters.iter().cloned()),
                Err(reason) => found.unreadable.push(reason.clone()),
            }
        }
        let place = |letter: &ShownLetter| (letter.timestamp, letter.partition, letter.offset);
        found.letters.sort_by(|a, b| (place(b), &b.id).cmp(&(place(a), &a.id)));
        // Letters are stored at least once.
        found.letters.dedup_by(|a, b| a.id == b.id);
        found.more |= found.letters.len() > limit;
        found.letters.truncate(limit);
        Ok(found)
    }
}

/// The newest of one object.
fn read(key: &str, body: &[u8]) -> Result<Vec<ShownLetter>, String> {
    let mut letters = whole_letters(body).map_err(|reason| format!("{key} {reason}"))?;
    letters.sort_by_key(|letter| std::cmp::Reverse((letter.timestamp, letter.offset)));
    letters.truncate(MOST);
    Ok(letters.into_iter().map(shown).collect())
}

fn shown(letter: DeadLetter) -> ShownLetter {
    let bytes =
        letter.payload.as_ref().map(|text| STANDARD.decode_to_vec(text).unwrap_or_else(|_| text.clone().into()));
    let size = bytes.as_ref().map_or(0, Vec::len);
    let (payload, encoding) = match bytes.map(String::from_utf8) {
        None => (None, "utf-8"),
        Some(Ok(text)) => (Some(text), "utf-8"),
        Some(Err(_)) => (letter.payload, "base64"),
    };
    let cut = payload.as_ref().is_some_and(|text| text.chars().nth(CHARACTERS).is_some());
    ShownLetter {
        id: letter.id,
        stage: letter.stage,
        reason: beginning(&letter.error),
        topic: letter.topic,
        partition: letter.partition,
        epoch: letter.epoch,
        offset: letter.offset,
        timestamp: letter.timestamp,
        payload: payload.as_deref().map(beginning),
        encoding,
        bytes: size,
        cut,
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: Option<&[u8]>) -> DeadLetter {
        DeadLetter {
            id: "t+0+e0+7".into(),
            dataset: "names".into(),
            stage: "decode".into(),
            error: "no JSON".into(),
            topic: "t".into(),
            partition: Some(0),
            epoch: Some(0),
            offset: Some(7),
            timestamp: 5,
            key: None,
            headers: Vec::new(),
            payload: payload.map(|bytes| STANDARD.encode_to_string(bytes)),
        }
    }

    #[test]
    fn a_payload_is_shown_as_text_where_it_is_text_and_its_beginning_where_it_is_long() {
        let text = shown(letter(Some(b"<b>poison</b>")));
        assert_eq!(
            (text.payload.as_deref(), text.encoding, text.bytes, text.cut),
            (Some("<b>poison</b>"), "utf-8", 13, false)
        );
        let binary = shown(letter(Some(&[0xff, 0xfe])));
        assert_eq!((binary.payload.as_deref(), binary.encoding, binary.bytes), (Some("//4="), "base64", 2));
        let long = shown(letter(Some("ä".repeat(3_000).as_bytes())));
        assert_eq!((long.payload.unwrap().chars().count(), long.bytes, long.cut), (CHARACTERS, 6_000, true));
        assert_eq!(shown(letter(None)).payload, None);
    }
}
