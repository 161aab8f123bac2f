//! What a data object says of its range, as S3 user metadata. A late twin, `verify` and `ledger rebuild` read it.

use std::collections::HashMap;
use std::str::FromStr;

/// The first record of a range, which need not have the range's first offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstRecord {
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeMetadata {
    /// The last offset of the range, inclusive.
    pub end: i64,
    /// Rows in the object.
    pub records: u64,
    pub dead_letters: u64,
    /// Milliseconds since 1970. Absent where every record lies in the future.
    pub newest_timestamp: Option<i64>,
    pub first: FirstRecord,
    /// SHA-256 of the object's bytes, hex.
    pub sha256: String,
}

impl RangeMetadata {
    pub fn to_map(&self) -> HashMap<String, String> {
        let mut map = HashMap::from([
            ("end-offset".to_owned(), self.end.to_string()),
            ("records".to_owned(), self.records.to_string()),
            ("dead-letters".to_owned(), self.dead_letters.to_string()),
            ("first-offset".to_owned(), self.first.offset.to_string()),
            ("first-timestamp".to_owned(), self.first.timestamp.to_string()),
            ("sha256".to_owned(), self.sha256.clone()),
        ]);
        if let Some(newest) = self.newest_timestamp {
            map.insert("newest-timestamp".to_owned(), newest.to_string());
        }
        map
    }

    /// The error names the entry that is missing or wrong.
    pub fn from_map(map: &HashMap<String, String>) -> Result<RangeMetadata, String> {
        fn number<T: FromStr>(map: &HashMap<String, String>, name: &str) -> Result<T, String> {
            let text = map.get(name).ok_or_else(|| format!("has no `{name}` in its metadata"))?;
            text.parse().map_err(|_| format!("has `{text}` as `{name}` in its metadata"))
        }
        Ok(RangeMetadata {
            end: number(map, "end-offset")?,
            records: number(map, "records")?,
            dead_letters: number(map, "dead-letters")?,
            newest_timestamp: match map.contains_key("newest-timestamp") {
                true => Some(number(map, "newest-timestamp")?),
                false => None,
            },
            first: FirstRecord { offset: number(map, "first-offset")?, timestamp: number(map, "first-timestamp")? },
            sha256: map.get("sha256").cloned().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reads_back_as_written_and_names_what_is_missing() {
        let first = FirstRecord { offset: 3, timestamp: -1 };
        let range =
            RangeMetadata { end: 9, records: 5, dead_letters: 1, newest_timestamp: None, first, sha256: "ab".into() };
        let mut map = range.to_map();
        assert_eq!(RangeMetadata::from_map(&map).unwrap(), range);
        map.remove("end-offset");
        assert!(RangeMetadata::from_map(&map).unwrap_err().contains("`end-offset`"));
    }
}
