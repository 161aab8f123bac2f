//! The newest dead letters, as they are shown: with their payload as text where it is text.

use std::collections::HashMap;

use aws_sdk_s3::error::DisplayErrorContext;
use base64_simd::STANDARD;
use pipeline::lake::{DeadLetter, Store};
use serde::Serialize;

use crate::verify::rows::whole_letters;
use crate::{Error, Lake};

/// How many the page shows.
pub const SHOWN: usize = 50;
/// The most that one asks for.
pub const MOST: usize = 1_000;
/// Only so many objects are read, those that were stored last, and of each so many letters are kept.
const OBJECTS: usize = 50;
const OF_OBJECT: usize = 100;
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
pub struct Letters(HashMap<String, Result<Newest, String>>);

/// Of one object.
#[derive(Debug)]
struct Newest {
    letters: Vec<ShownLetter>,
    /// It has others.
    more: bool,
}

impl Letters {
    pub async fn newest(&mut self, lake: &Lake, limit: usize) -> Result<Found, Error> {
        let mut keys = stored(lake).await?;
        let mut found = Found { more: keys.len() > OBJECTS, ..Found::default() };
        keys.truncate(OBJECTS);
        self.0.retain(|key, _| keys.contains(key));
        let store = lake.store();
        for key in &keys {
            if self.0.contains_key(key) {
                continue;
            }
            let Some(object) = store.get(key).await? else { continue };
            let name = key.clone();
            // Unpacking is work for the processor, not for the thread that waits for the network.
            let read = tokio::task::spawn_blocking(move || read(&name, &object.body)).await;
            let newest = read.unwrap_or_else(|panic| Err(format!("{key} cannot be read ({panic})")));
            self.0.insert(key.clone(), newest);
        }
        let mut letters: Vec<&ShownLetter> = Vec::new();
        for newest in keys.iter().filter_map(|key| self.0.get(key)) {
            match newest {
                Ok(newest) => {
                    found.more |= newest.more;
                    letters.extend(&newest.letters);
                }
                Err(reason) => found.unreadable.push(reason.clone()),
            }
        }
        let place = |letter: &ShownLetter| (letter.timestamp, letter.partition, letter.offset);
        letters.sort_by(|a, b| (place(b), &b.id).cmp(&(place(a), &a.id)));
        // Letters are stored at least once.
        letters.dedup_by(|a, b| a.id == b.id);
        found.more |= letters.len() > limit;
        found.letters = letters.into_iter().take(limit).cloned().collect();
        Ok(found)
    }
}

/// Keys of all objects of letters, the one that was stored last first. Their names tell no more than the day.
async fn stored(lake: &Lake) -> Result<Vec<String>, Error> {
    let (bucket, prefix) = (&lake.target.bucket, lake.target.layout.dead_letters_prefix());
    let mut pages = lake.client.list_objects_v2().bucket(bucket).prefix(&prefix).into_paginator().send();
    let mut objects = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| {
            let reason = DisplayErrorContext(e);
            Error::stopped(format!(
                "cannot list s3://{bucket}/{prefix}: {reason}. Check the bucket, the network and the credentials"
            ))
        })?;
        let listed = page.contents.unwrap_or_default().into_iter();
        objects.extend(listed.filter_map(|object| Some((object.last_modified, object.key?))));
    }
    objects.sort_unstable_by(|a, b| b.cmp(a));
    Ok(objects.into_iter().map(|(_, key)| key).collect())
}

/// The newest of one object.
fn read(key: &str, body: &[u8]) -> Result<Newest, String> {
    let mut letters = whole_letters(body).map_err(|reason| format!("{key} {reason}"))?;
    letters.sort_by_key(|letter| std::cmp::Reverse((letter.timestamp, letter.offset)));
    let more = letters.len() > OF_OBJECT;
    letters.truncate(OF_OBJECT);
    Ok(Newest { letters: letters.into_iter().map(shown).collect(), more })
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
    use std::io::Write;
    use std::time::Duration;

    use localstack::s3::S3Server;
    use localstack::stack::BUCKET;
    use pipeline::config::{LakeConfig, S3Config};
    use pipeline::lake::to_ndjson;

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

    #[test]
    fn of_a_large_object_the_newest_are_kept() {
        let letters: Vec<DeadLetter> =
            (0..150).map(|at| DeadLetter { timestamp: at, id: at.to_string(), ..letter(None) }).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&to_ndjson(&letters)).unwrap();
        let newest = read("key", &gzip.finish().unwrap()).unwrap();
        assert_eq!((newest.letters.len(), newest.letters[0].timestamp, newest.more), (OF_OBJECT, 149, true));
    }

    #[tokio::test]
    async fn the_objects_that_were_stored_last_are_read_whatever_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3Server::start(folder.path(), BUCKET).await.unwrap();
        let credentials = aws_credential_types::Credentials::new(s3.access_key(), s3.secret_key(), None, None, "test");
        let sdk = pipeline::aws::loader().region(aws_config::Region::from_static("us-east-1"));
        let sdk = sdk.credentials_provider(credentials).load().await;
        let config = LakeConfig {
            bucket: BUCKET.to_owned(),
            prefix: "names".to_owned(),
            ledger_prefix: "_ledger".to_owned(),
            s3: S3Config { region: None, endpoint: Some(s3.endpoint()), path_style: true },
        };
        let lake = Lake::new(pipeline::datasets::load("names").unwrap(), &config, sdk, None);
        let put = async |name: &str| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&to_ndjson(&[DeadLetter { id: name.to_owned(), ..letter(None) }])).unwrap();
            let key = lake.target.layout.dead_letters("dt=2026-11-23/hour=05".parse().unwrap(), name);
            let body = gzip.finish().unwrap().into();
            lake.client.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap();
        };
        for number in 0..OBJECTS {
            put(&format!("b{number:02}")).await;
        }
        let mut letters = Letters::default();
        assert!(!letters.newest(&lake, MOST).await.unwrap().more);
        // S3 counts whole seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        put("a").await;
        let found = letters.newest(&lake, MOST).await.unwrap();
        let ids: Vec<&str> = found.letters.iter().map(|letter| letter.id.as_str()).collect();
        assert!(ids.contains(&"a") && !ids.contains(&"b00") && ids.len() == OBJECTS && found.more, "{ids:?}");
        assert_eq!(letters.newest(&lake, 1).await.unwrap().letters.len(), 1);
    }
}
