//! The JSON of the event, byte for byte as AWS's Kafka event source sends it ("Using Lambda with Apache Kafka" in
//! AWS's documentation). Written by hand: a record is copied and encoded once, and its size is known when it arrives.

use std::io::Write;

use base64_simd::STANDARD;
use bytes::Bytes;
use rdkafka::{
    Message, Timestamp,
    message::{BorrowedMessage, Headers},
};

use super::{EventSourceConfig, EventSourceKind, batch::Record};

/// What the bytes of a record are made from.
pub(super) struct Source<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp: Timestamp,
    pub(super) key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Source<'a> {
    pub(super) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key, header.value.unwrap_or_default())).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key(),
            value: message.payload(),
            headers,
        }
    }

    /// Appends the record as it stands in the event. A null key is left out, a null value is `null`, `headers` is always
    /// there; a header without value has an empty one.
    pub(super) fn encode(&self, topic: &str, out: &mut Vec<u8>) {
        let (timestamp, timestamp_type) = match self.timestamp {
            Timestamp::CreateTime(time) => (time, "CREATE_TIME"),
            Timestamp::LogAppendTime(time) => (time, "LOG_APPEND_TIME"),
            Timestamp::NotAvailable => (-1, "NO_TIMESTAMP_TYPE"),
        };
        // Not with `write!`, which takes three times as long; writing to a vector cannot fail.
        let number = |out: &mut Vec<u8>, number: i64| drop(serde_json::to_writer(out, &number));
        out.extend_from_slice(br#"{"topic":""#);
        out.extend_from_slice(topic.as_bytes());
        out.extend_from_slice(br#"","partition":"#);
        number(out, self.partition.into());
        out.extend_from_slice(br#","offset":"#);
        number(out, self.offset);
        out.extend_from_slice(br#","timestamp":"#);
        number(out, timestamp);
        out.extend_from_slice(br#","timestampType":""#);
        out.extend_from_slice(timestamp_type.as_bytes());
        out.push(b'"');
        if let Some(key) = self.key {
            out.extend_from_slice(br#","key":""#);
            STANDARD.encode_append(key, out);
            out.push(b'"');
        }
        match self.value {
            Some(value) => {
                out.extend_from_slice(br#","value":""#);
                STANDARD.encode_append(value, out);
                out.extend_from_slice(br#"","headers":["#);
            }
            None => out.extend_from_slice(br#","value":null,"headers":["#),
        }
        for (index, (name, value)) in self.headers.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            let _ = serde_json::to_writer(&mut *out, name);
            out.extend_from_slice(b":[");
            for (index, byte) in value.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                // Java's bytes are signed, and it is Java that writes AWS's events.
                let _ = write!(out, "{}", byte.cast_signed());
            }
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
    }
}

/// What stands around the records of every event of one source.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    head: Vec<u8>,
    topic: String,
}

const TAIL: &[u8] = b"}}";

impl Envelope {
    pub(super) fn new(config: &EventSourceConfig) -> Self {
        let mut head = Vec::new();
        let mut text = |name: &str, value: &str| {
            head.extend_from_slice(if head.is_empty() { b"{" } else { b"," });
            let _ = serde_json::to_writer(&mut head, name);
            head.push(b':');
            let _ = serde_json::to_writer(&mut head, value);
        };
        match &config.event_source {
            EventSourceKind::Msk { cluster_arn } => {
                text("eventSource", "aws:kafka");
                text("eventSourceArn", cluster_arn);
            }
            EventSourceKind::SelfManaged => text("eventSource", "SelfManagedKafka"),
        }
        text("bootstrapServers", &config.bootstrap_servers);
        head.extend_from_slice(br#","records":{"#);
        Self { head, topic: config.topic.clone() }
    }

    /// The bytes of an event without records.
    pub(super) fn len(&self) -> usize {
        self.head.len() + TAIL.len()
    }

    /// What the first record of a partition adds besides itself: `,"topic-0":[]`.
    pub(super) fn partition_len(&self, partition: i32) -> usize {
        let digits = partition.max(0).checked_ilog10().unwrap_or(0) as usize + 1;
        self.topic.len() + digits + 7
    }

    /// The event of these records: grouped by partition, in each in the order given.
    pub(super) fn encode(&self, records: &[Record]) -> Bytes {
        let mut partitions: Vec<i32> = Vec::new();
        for record in records {
            if !partitions.contains(&record.partition) {
                partitions.push(record.partition);
            }
        }
        partitions.sort_unstable();
        let size = records.iter().map(|record| record.json.len() + 1).sum::<usize>();
        let around = partitions.iter().map(|partition| self.partition_len(*partition)).sum::<usize>();
        let mut out = Vec::with_capacity(self.len() + size + around);
        out.extend_from_slice(&self.head);
        for (index, partition) in partitions.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(out, r#"{comma}"{}-{partition}":["#, self.topic);
            let mut first = true;
            for record in records.iter().filter(|record| record.partition == *partition) {
                if !first {
                    out.push(b',');
                }
                first = false;
                out.extend_from_slice(&record.json);
            }
            out.push(b']');
        }
        out.extend_from_slice(TAIL);
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn encode(source: &Source<'_>, topic: &str) -> Vec<u8> {
        let mut out = Vec::new();
        source.encode(topic, &mut out);
        out
    }

    fn record(partition: i32, offset: i64, value: Option<&[u8]>) -> Record {
        let source = Source {
            partition,
            offset,
            timestamp: Timestamp::LogAppendTime(1_700_000_000_123),
            key: None,
            value,
            headers: Vec::new(),
        };
        Record {
            partition,
            offset,
            timestamp: 0,
            generation: 0,
            received: Instant::now(),
            json: encode(&source, "names").into(),
        }
    }

    #[test]
    fn a_record_reads_as_aws_writes_it() {
        let source = Source {
            partition: 3,
            offset: 15,
            timestamp: Timestamp::CreateTime(1_545_084_650_987),
            key: Some(b"key"),
            value: Some(b"Hello, this is a test."),
            headers: vec![("headerKey", b"headerValue"), ("headerKey", &[0, 127, 128, 255]), ("a\"b", b"")],
        };
        let expected = concat!(
            r#"{"topic":"mytopic","partition":3,"offset":15,"timestamp":1545084650987,"timestampType":"CREATE_TIME","#,
            r#""key":"a2V5","value":"SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==","headers":[{"headerKey":[104,101,97,100,101,"#,
            r#"114,86,97,108,117,101]},{"headerKey":[0,127,-128,-1]},{"a\"b":[]}]}"#,
        );
        assert_eq!(String::from_utf8(encode(&source, "mytopic")).unwrap(), expected);
    }

    #[test]
    fn a_tombstone_has_a_null_value_and_a_null_key_is_left_out() {
        let json = String::from_utf8(record(0, 7, None).json.to_vec()).unwrap();
        assert!(json.ends_with(r#""timestampType":"LOG_APPEND_TIME","value":null,"headers":[]}"#), "{json}");
    }

    #[test]
    fn an_event_groups_by_partition_keeps_the_order_and_has_the_size_that_was_foretold() {
        let config = EventSourceConfig {
            event_source: EventSourceKind::Msk { cluster_arn: "arn:aws:kafka:eu-west-1:1:cluster/c/1".to_owned() },
            ..EventSourceConfig::new("names", "b-1:9092,b-2:9092", "group")
        };
        let envelope = Envelope::new(&config);
        let records =
            [record(10, 5, Some(b"a")), record(0, 1, Some(b"b")), record(10, 6, Some(b"c")), record(0, 2, None)];
        let event = envelope.encode(&records);
        let json: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(json["eventSource"], "aws:kafka");
        assert_eq!(json["eventSourceArn"], "arn:aws:kafka:eu-west-1:1:cluster/c/1");
        assert_eq!(json["bootstrapServers"], "b-1:9092,b-2:9092");
        let offsets = |partition: &str| {
            let records = json["records"][partition].as_array().unwrap();
            records.iter().map(|record| record["offset"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(offsets("names-0"), [1, 2]);
        assert_eq!(offsets("names-10"), [5, 6]);
        let foretold = envelope.len()
            + envelope.partition_len(0)
            + envelope.partition_len(10)
            + records.iter().map(|record| record.json.len()).sum::<usize>()
            + 2; // A comma between the two records of each partition.
        // The first partition has no comma before it.
        assert_eq!(event.len(), foretold - 1);
    }

    #[test]
    fn a_self_managed_event_has_no_arn() {
        let envelope = Envelope::new(&EventSourceConfig::new("names", "localhost:9092", "group"));
        let event = envelope.encode(&[]);
        let expected = r#"{"eventSource":"SelfManagedKafka","bootstrapServers":"localhost:9092","records":{}}"#;
        assert_eq!(event, expected.as_bytes());
        assert_eq!(envelope.len(), event.len());
    }
}
