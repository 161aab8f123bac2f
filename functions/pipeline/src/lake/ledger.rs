//! The ledger of one topic-partition: which offset comes next. One small JSON object, replaced only by `If-Match`.

use serde::{Deserialize, Serialize};

use super::Directory;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    pub dataset: String,
    /// The lake's prefix: a new prefix is a new lake with new ledgers.
    pub prefix: String,
    /// File extension of the data objects. It is part of their keys, so a change in mid-flight could store a range twice.
    pub format: String,
    /// ARN of the MSK cluster; self-managed Kafka has none.
    pub cluster: Option<String>,
    pub topic: String,
    pub partition: i32,
    /// Counts the lives of the partition's offsets: raised when the topic was deleted and made anew.
    pub epoch: u32,
    /// Every offset below it is stored.
    pub next_offset: i64,
    /// The latest directory that was written to; directories never go back.
    pub directory: Option<Directory>,
    /// Milliseconds since 1970; the newest timestamp of a stored record.
    pub newest_timestamp: Option<i64>,
}

impl Ledger {
    pub fn parse(body: &[u8]) -> Result<Ledger, serde_json::Error> {
        let ledger: Ledger = serde_json::from_slice(body)?;
        // A range cannot start below the first offset that there is.
        if ledger.next_offset < 0 {
            return Err(serde::de::Error::custom(format_args!("its next_offset is {}", ledger.next_offset)));
        }
        Ok(ledger)
    }

    pub fn to_json(&self) -> Vec<u8> {
        // A struct of texts and numbers always serialises; readers refuse an empty object.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Moves behind a stored range. Everything only ever grows, whoever comes first.
    pub fn advance(&mut self, end: i64, directory: Directory, newest_timestamp: Option<i64>) {
        self.next_offset = self.next_offset.max(end.saturating_add(1));
        self.directory = self.directory.max(Some(directory));
        self.newest_timestamp = self.newest_timestamp.max(newest_timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_back_as_written_and_never_moves_back() {
        let mut ledger = Ledger {
            dataset: "names".into(),
            prefix: "names".into(),
            format: "parquet".into(),
            cluster: None,
            topic: "names_topic".into(),
            partition: 0,
            epoch: 3,
            next_offset: 7,
            directory: None,
            newest_timestamp: None,
        };
        ledger.advance(9, Directory::of(7_200_000), Some(7_200_000));
        ledger.advance(8, Directory::of(0), None);
        assert_eq!((ledger.next_offset, ledger.newest_timestamp), (10, Some(7_200_000)));
        assert_eq!(ledger.directory, Some(Directory::of(7_200_000)));
        assert_eq!(Ledger::parse(&ledger.to_json()).unwrap(), ledger);
        assert!(Ledger::parse(b"").is_err());
    }
}
