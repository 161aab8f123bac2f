//! Records that are given up on, and where they go.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write};

use bytes::Bytes;
use serde_json::json;

use super::{EventSourceConfig, EventSourceKind, OnFailure, batch::Record, event::Envelope};

/// Why the source no longer tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    RetryAttemptsExhausted,
    MaximumRecordAgeExceeded,
    /// The event of a single record is larger than 6,291,456 bytes. It is given up on without an attempt.
    MaximumPayloadSizeExceeded,
}

/// Records that were given up on. Their offsets are committed: the source never delivers them again.
#[derive(Debug, Clone)]
pub struct GivenUp {
    pub condition: Condition,
    /// Attempts that were made.
    pub invocations: u32,
    /// What the last attempt said.
    pub error: String,
    pub records: usize,
    /// Partition, first and last offset.
    pub offsets: BTreeMap<i32, (i64, i64)>,
    /// The event as the function got it, or would have.
    pub payload: Bytes,
}

impl GivenUp {
    pub(super) fn new(
        condition: Condition,
        invocations: u32,
        error: String,
        records: &[Record],
        envelope: &Envelope,
    ) -> Self {
        let mut offsets = BTreeMap::new();
        for record in records {
            offsets.entry(record.partition).or_insert((record.offset, record.offset)).1 = record.offset;
        }
        Self { condition, invocations, error, records: records.len(), offsets, payload: envelope.encode(records) }
    }

    /// The document that AWS sends to an on-failure destination, one line.
    fn document(&self, config: &EventSourceConfig) -> String {
        let records_info: serde_json::Map<String, serde_json::Value> = self
            .offsets
            .iter()
            .map(|(partition, (first, last))| {
                let info = json!({ "firstRecordOffset": first.to_string(), "lastRecordOffset": last.to_string() });
                (format!("{}-{partition}", config.topic), info)
            })
            .collect();
        let arn = match &config.event_source {
            EventSourceKind::Msk { cluster_arn } => Some(cluster_arn),
            EventSourceKind::SelfManaged => None,
        };
        json!({
            "requestContext": {
                "condition": format!("{:?}", self.condition),
                "approximateInvokeCount": self.invocations,
            },
            "responseContext": { "functionError": self.error },
            "version": "1.0",
            "timestamp": jiff::Timestamp::now().to_string(),
            "KafkaBatchInfo": {
                "batchSize": self.records,
                "eventSourceArn": arn,
                "bootstrapServers": config.bootstrap_servers,
                "payloadSize": self.payload.len(),
                "recordsInfo": records_info,
            },
            "payload": String::from_utf8_lossy(&self.payload),
        })
        .to_string()
    }

    /// Brings the records to their destination. Blocks for the time of a write.
    pub(super) fn deliver(&self, config: &EventSourceConfig) -> Result<(), String> {
        match &config.on_failure {
            None => Ok(()),
            Some(OnFailure::Call(call)) => call(self),
            Some(OnFailure::File(path)) => {
                let line = self.document(config) + "\n";
                let file = OpenOptions::new().create(true).append(true).open(path);
                file.and_then(|mut file| file.write_all(line.as_bytes()))
                    .map_err(|error| format!("{} could not be written: {error}", path.display()))
            }
        }
    }
}
