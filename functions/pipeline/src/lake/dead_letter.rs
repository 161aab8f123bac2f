//! A record that could not become a row, kept whole with the reason. NDJSON, one letter a line, gzip around the object.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Letters are stored at least once: readers keep one a `id`. The consumer's is `<topic>+<partition>+e<epoch>+<offset>`.
    pub id: String,
    pub dataset: String,
    /// Where it failed: `transform` or `deliver` in the producer, `decode` in the consumer.
    pub stage: String,
    /// What was wrong. Never holds a hashed column's source.
    pub error: String,
    pub topic: String,
    /// Absent, with epoch and offset, for a record that never reached the topic.
    pub partition: Option<i32>,
    pub epoch: Option<u32>,
    pub offset: Option<i64>,
    /// Milliseconds since 1970: the record's Kafka timestamp, or when the producer failed.
    pub timestamp: i64,
    /// Base64.
    pub key: Option<String>,
    pub headers: Vec<Header>,
    /// Base64; absent for a tombstone.
    pub payload: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub name: String,
    /// Base64; absent for a null header.
    pub value: Option<String>,
}

/// One letter a line.
pub fn to_ndjson(letters: &[DeadLetter]) -> Vec<u8> {
    let mut lines = Vec::new();
    for letter in letters {
        // Texts and numbers always serialise, and a Vec takes every write.
        let _ = serde_json::to_writer(&mut lines, letter);
        lines.push(b'\n');
    }
    lines
}
