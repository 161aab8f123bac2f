//! The event of Lambda's Kafka event source, borrowed from the payload: MSK's (`aws:kafka`) and self-managed Kafka's.
//!
//! Shape: <https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html#msk-sample-event>. `aws_lambda_events::kafka` owns
//! every text and refuses an event whose records lack headers; a test holds the two against each other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use pipeline::lake::Directory;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::plain::Plain;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    #[serde(borrow)]
    event_source: Option<Text<'a>>,
    /// The MSK cluster's ARN; self-managed Kafka has none.
    #[serde(borrow)]
    event_source_arn: Option<Text<'a>>,
    /// By `<topic>-<partition>`. The key is not used: each record says both.
    #[serde(borrow)]
    records: Option<BTreeMap<Text<'a>, Vec<Record<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<'a> {
    #[serde(borrow)]
    pub topic: Text<'a>,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// `LOG_APPEND_TIME` or `CREATE_TIME`.
    #[serde(borrow)]
    pub timestamp_type: Option<Text<'a>>,
    /// Base64.
    #[serde(borrow)]
    pub key: Option<Text<'a>>,
    /// Base64; absent for a tombstone.
    #[serde(borrow)]
    pub value: Option<Text<'a>>,
    /// `[{"name": [signed bytes]}, …]`; looked into only for a dead letter.
    #[serde(borrow, default)]
    pub headers: Option<&'a RawValue>,
}

/// The records of one topic-partition, in the order of their offsets, each offset once.
pub struct Batch<'e, 'a> {
    pub topic: &'e str,
    pub partition: i32,
    pub records: Vec<&'e Record<'a>>,
    /// Records that the event holds a second time.
    pub repeated: u64,
}

impl<'e, 'a> Batch<'e, 'a> {
    fn new(topic: &'e str, partition: i32, mut records: Vec<&'e Record<'a>>) -> Batch<'e, 'a> {
        let received = records.len();
        records.sort_by_key(|record| record.offset);
        records.dedup_by_key(|record| record.offset);
        let repeated = (received - records.len()) as u64;
        Batch { topic, partition, records, repeated }
    }

    /// The directories of the records' own timestamps.
    pub fn directories(&self) -> Vec<Directory> {
        let mut directories: Vec<_> = self.records.iter().map(|record| Directory::of(record.timestamp)).collect();
        directories.sort();
        directories.dedup();
        directories
    }
}

impl<'a> Event<'a> {
    /// The error says what is wrong with the payload.
    pub fn parse(payload: &'a [u8]) -> Result<Event<'a>, String> {
        // At once: text by text takes several times as long.
        let payload = simdutf8::compat::from_utf8(payload).map_err(|e| e.to_string())?;
        let event = match Event::parse_plain(payload) {
            Some(event) => event,
            None => serde_json::from_str(payload).map_err(|e| e.to_string())?,
        };
        match &event.event_source {
            Some(source) if matches!(&*source.0, "aws:kafka" | "SelfManagedKafka") => {}
            Some(source) => {
                return Err(format!("its eventSource is `{}`, not aws:kafka or SelfManagedKafka", source.0));
            }
            None => return Err("it has no eventSource".to_owned()),
        }
        for record in event.records() {
            if record.offset < 0 || record.offset == i64::MAX || record.partition < 0 {
                let Record { topic, partition, offset, .. } = record;
                return Err(format!("it holds the impossible offset {offset} of {}-{partition}", topic.0));
            }
        }
        Ok(event)
    }

    /// An event as Lambda writes it.
    fn parse_plain(payload: &'a str) -> Option<Event<'a>> {
        let mut json = Plain(payload);
        json.skip("{\"eventSource\":")?;
        let event_source = Some(Text::plain(json.string()?));
        let event_source_arn = Text::plain_if_there(&mut json, ",\"eventSourceArn\":")?;
        json.skip(",\"bootstrapServers\":")?;
        json.string()?;
        json.skip(",\"records\":{")?;
        let mut records = BTreeMap::new();
        loop {
            let key = Text::plain(json.string()?);
            json.skip(":[")?;
            let (mut batch, mut head) = (Vec::new(), None);
            loop {
                batch.push(Record::next(&mut json, &mut head)?);
                if json.skip(",").is_none() {
                    break;
                }
            }
            json.skip("]")?;
            records.insert(key, batch);
            if json.skip(",").is_none() {
                break;
            }
        }
        json.skip("}}")?;
        json.end()?;
        Some(Event { event_source, event_source_arn, records: Some(records) })
    }

    pub fn cluster(&self) -> Option<&str> {
        self.event_source_arn.as_deref()
    }

    /// Groups the records by topic-partition.
    pub fn batches(&self) -> Vec<Batch<'_, 'a>> {
        let mut groups: BTreeMap<(&str, i32), Vec<&Record<'a>>> = BTreeMap::new();
        for records in self.records.iter().flat_map(BTreeMap::values) {
            for run in records.chunk_by(|one, next| one.partition == next.partition && one.topic == next.topic) {
                groups.entry((&run[0].topic, run[0].partition)).or_default().extend(run);
            }
        }
        groups.into_iter().map(|((topic, partition), records)| Batch::new(topic, partition, records)).collect()
    }

    fn records(&self) -> impl Iterator<Item = &Record<'a>> {
        self.records.iter().flat_map(BTreeMap::values).flatten()
    }
}

impl<'a> Record<'a> {
    /// The record that the text begins with, whatever it looks like; `None` where there is none. `head` is that of the one before.
    fn next(json: &mut Plain<'a>, head: &mut Option<Head<'a>>) -> Option<Record<'a>> {
        let mut plain = Plain(json.0);
        if let Some(record) = Record::next_plain(&mut plain, head) {
            *json = plain;
            return Some(record);
        }
        let mut values = serde_json::Deserializer::from_str(json.0).into_iter();
        let record = values.next()?.ok()?;
        json.0 = json.0.get(values.byte_offset()..)?;
        Some(record)
    }

    /// A record with a value and without headers, as Lambda writes it.
    fn next_plain(json: &mut Plain<'a>, head: &mut Option<Head<'a>>) -> Option<Record<'a>> {
        let Head { topic, partition, .. } = match head {
            Some(same) if json.skip(same.text).is_some() => same,
            _ => head.insert(Head::next(json)?),
        };
        let (topic, partition) = (Text::plain(topic), *partition);
        let offset = json.integer()?;
        json.skip(",\"timestamp\":")?;
        let timestamp = json.integer()?;
        json.skip(",\"timestampType\":")?;
        let timestamp_type = Some(Text::plain(json.string()?));
        let key = Text::plain_if_there(json, ",\"key\":")?;
        json.skip(",\"value\":")?;
        let value = Some(Text::plain(json.string()?));
        json.skip(",\"headers\":[]}")?;
        Some(Record { topic, partition, offset, timestamp, timestamp_type, key, value, headers: None })
    }

    pub fn is_create_time(&self) -> bool {
        self.timestamp_type.as_deref() == Some("CREATE_TIME")
    }

    /// Name and bytes of each header; `None` for a null value. Empty where the event's headers cannot be read: they are
    /// no part of the row.
    pub fn headers(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let parsed: Option<Vec<BTreeMap<String, Option<Vec<i16>>>>> =
            self.headers.and_then(|raw| serde_json::from_str(raw.get()).ok());
        // Lambda writes Java's signed bytes; -1 is 0xff.
        let bytes = |signed: Vec<i16>| signed.into_iter().map(|b| (b & 0xff) as u8).collect();
        let entries = parsed.unwrap_or_default().into_iter().flatten();
        entries.map(|(name, value)| (name, value.map(bytes))).collect()
    }
}

/// What a record begins with, up to the number of its offset. Those of one partition all begin alike.
struct Head<'a> {
    text: &'a str,
    topic: &'a str,
    partition: i32,
}

impl<'a> Head<'a> {
    fn next(json: &mut Plain<'a>) -> Option<Head<'a>> {
        let record = json.0;
        json.skip("{\"topic\":")?;
        let topic = json.string()?;
        json.skip(",\"partition\":")?;
        let partition = json.integer()?.try_into().ok()?;
        json.skip(",\"offset\":")?;
        let text = record.get(..record.len() - json.0.len())?;
        Some(Head { text, topic, partition })
    }
}

/// A text that is borrowed from the payload unless it holds escapes. (`Option<Cow<str>>` would always copy.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'a> Text<'a> {
    fn plain(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }

    /// A field that may be left out; the outer `None` is for a value that is not plain.
    fn plain_if_there(json: &mut Plain<'a>, key: &str) -> Option<Option<Text<'a>>> {
        match json.skip(key) {
            Some(()) => json.string().map(|text| Some(Text::plain(text))),
            None => Some(None),
        }
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSK: &str = r#"{"eventSource":"aws:kafka","eventSourceArn":"arn:aws:kafka:eu-west-1:1:cluster/c/1",
        "bootstrapServers":"b-1:9098,b-2:9098","records":{"t-0":[
        {"topic":"t","partition":0,"offset":16,"timestamp":1545084650988,"timestampType":"LOG_APPEND_TIME","key":"YWJj","value":"e30=","headers":[{"h":[104,-1]}]},
        {"topic":"t","partition":0,"offset":15,"timestamp":1545084650987,"timestampType":"CREATE_TIME","value":"e30=","headers":[]},
        {"topic":"t","partition":0,"offset":15,"timestamp":1545084650987,"timestampType":"CREATE_TIME","value":null,"headers":[]}],
        "t-1":[{"topic":"t","partition":1,"offset":0,"timestamp":7,"timestampType":"LOG_APPEND_TIME","headers":[]}]}}"#;

    #[test]
    fn records_are_grouped_by_partition_in_offset_order_each_offset_once() {
        let event = Event::parse(MSK.as_bytes()).unwrap();
        let batches = event.batches();
        let offsets: Vec<Vec<i64>> = batches.iter().map(|b| b.records.iter().map(|r| r.offset).collect()).collect();
        assert_eq!(offsets, [vec![15, 16], vec![0]]);
        assert_eq!(batches[0].records[1].timestamp, 1_545_084_650_988);
        assert_eq!((batches[0].repeated, batches[1].repeated), (1, 0));
        assert_eq!(batches[0].records[1].headers(), [("h".to_owned(), Some(vec![104, 255]))]);
        assert!(batches[0].records[0].is_create_time());
        assert!(batches[1].records[0].value.is_none());
    }

    #[test]
    fn the_reference_type_reads_the_same_event_alike() {
        let reference: aws_lambda_events::kafka::KafkaEvent = serde_json::from_str(MSK).unwrap();
        let event = Event::parse(MSK.as_bytes()).unwrap();
        assert_eq!(reference.event_source_arn.as_deref(), event.cluster());
        for (ours, theirs) in event.records().zip(["t-0", "t-1"].iter().flat_map(|key| &reference.records[*key])) {
            assert_eq!(theirs.topic.as_deref(), Some(&*ours.topic));
            assert_eq!((theirs.partition, theirs.offset), (i64::from(ours.partition), ours.offset));
            // The reference goes by floats and can lose a millisecond; ours must not: it decides about directories.
            assert!((theirs.timestamp.0.timestamp_millis() - ours.timestamp).abs() <= 1);
            assert_eq!((theirs.key.as_deref(), theirs.value.as_deref()), (ours.key.as_deref(), ours.value.as_deref()));
        }
    }

    /// Every event that differs in one place from a usual one.
    #[test]
    fn what_the_short_way_takes_the_long_way_takes_alike() {
        let usual = r#"{"eventSource":"aws:kafka","eventSourceArn":"a","bootstrapServers":"b","records":{"t-0":[{"topic":"t","partition":0,"offset":12,"timestamp":7,"timestampType":"LOG_APPEND_TIME","key":"YQ==","value":"e30=","headers":[]},{"topic":"t","partition":0,"offset":13,"timestamp":7,"timestampType":"LOG_APPEND_TIME","value":"e30=","headers":[{"h":[104]}]}],"t-1":[{"topic":"t","partition":1,"offset":0,"timestamp":7,"value":null}]}}"#;
        let mut taken = 0;
        for at in 0..usual.len() {
            let (before, behind) = usual.split_at(at);
            for piece in ["", "0", "-", ".", "e", "\"", "\\", ",", "}", "]", ":", " ", "\n", "null", "\"offset\":"] {
                for behind in [behind, &behind[1..]] {
                    let payload = format!("{before}{piece}{behind}");
                    if let Some(short) = Event::parse_plain(&payload) {
                        taken += 1;
                        let long: Event = serde_json::from_str(&payload).unwrap_or_else(|e| panic!("{payload}: {e}"));
                        assert_eq!(shown(&short), shown(&long), "{payload}");
                    }
                }
            }
        }
        assert!(taken > 400, "{taken}");
    }

    fn shown(event: &Event) -> String {
        let records = event
            .records()
            .map(|r| (&r.topic, r.partition, r.offset, r.timestamp, &r.timestamp_type, &r.key, &r.value, r.headers()));
        let keys: Vec<_> = event.records.iter().flat_map(BTreeMap::keys).collect();
        format!("{:?} {:?} {keys:?} {:?}", event.event_source, event.event_source_arn, records.collect::<Vec<_>>())
    }

    #[test]
    fn a_self_managed_event_without_records_or_headers_is_read() {
        assert!(
            Event::parse(br#"{"eventSource":"SelfManagedKafka","bootstrapServers":"b"}"#).unwrap().batches().is_empty()
        );
        let bare = br#"{"eventSource":"SelfManagedKafka","records":{"x":[{"topic":"\u0074","partition":0,"offset":1,"timestamp":2}]}}"#;
        let event = Event::parse(bare).unwrap();
        assert_eq!((event.batches()[0].topic, event.cluster()), ("t", None));
    }

    #[test]
    fn what_is_no_kafka_event_is_refused_in_words() {
        for (payload, reason) in [
            ("", "EOF"),
            ("[]", "invalid"),
            ("{}", "no eventSource"),
            (r#"{"eventSource":"aws:s3"}"#, "`aws:s3`"),
            (r#"{"eventSource":"aws:kafka","records":{"t-0":[{"topic":"t"}]}}"#, "missing field"),
            (
                r#"{"eventSource":"aws:kafka","records":{"t-0":[{"topic":"t","partition":0,"offset":-1,"timestamp":0}]}}"#,
                "impossible offset",
            ),
        ] {
            let error = Event::parse(payload.as_bytes()).err().unwrap();
            assert!(error.contains(reason), "{payload}: {error}");
        }
    }
}
