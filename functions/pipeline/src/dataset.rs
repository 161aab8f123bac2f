//! A dataset: one API, its topic, its columns and its place in the lake. A wrong file is refused with file, line and
//! reason.
//!
//! The build script compiles this file too, so it uses nothing else of the crate.

// The path is given because the build script takes this file by its path, too.
#[path = "dataset/file.rs"]
mod file;

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use file::check_prefix;

/// The first column id that a dataset file may use; those below belong to the system columns, `dt` and `hour`.
pub const FIRST_COLUMN_ID: i32 = 100;

#[derive(Debug, Clone)]
pub struct Dataset {
    pub name: String,
    pub description: String,
    pub source: Source,
    pub schedule: Schedule,
    pub topic: Topic,
    pub lake: Lake,
    pub columns: Vec<Column>,
    /// SHA-256 of the file, hex: says whether two programs were built from the same definition.
    pub sha256: String,
}

/// Where the records come from.
#[derive(Debug, Clone)]
pub struct Source {
    pub url: String,
    /// Sent with each request. For secrets use `API_AUTHORIZATION`, never the file.
    pub headers: Vec<(String, String)>,
    /// Yields the array of records of an answer.
    pub records: Expression,
    /// Yields the API's own error message where an answer holds one.
    pub error: Option<Expression>,
}

#[derive(Debug, Clone)]
pub struct Schedule {
    pub every: Duration,
    pub run: Duration,
    pub fetch_every: Duration,
}

/// The topic as the producer creates it.
#[derive(Debug, Clone)]
pub struct Topic {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i32,
    pub retention: Duration,
}

#[derive(Debug, Clone)]
pub struct Lake {
    /// Key prefix of the data objects, without slashes at its ends.
    pub prefix: String,
    pub format: Format,
}

/// How a data object is written. The codec of NDJSON is part of its file extension, that of Parquet is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Parquet(Codec),
    Ndjson(Codec),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Zstd,
    Snappy,
    Gzip,
    None,
}

impl Format {
    /// File extension of a data object. It is part of the key, so the ledger pins it.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Parquet(_) => "parquet",
            Format::Ndjson(Codec::Zstd) => "json.zst",
            Format::Ndjson(Codec::None) => "json",
            Format::Ndjson(_) => "json.gz",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Column {
    /// Permanent, never reused; written into Parquet as the field id.
    pub id: i32,
    pub name: String,
    pub kind: Type,
    pub required: bool,
    /// Replace the value by its keyed hash before it leaves the producer.
    pub hashed: bool,
    pub expression: Expression,
    pub description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    String,
    Boolean,
    Integer,
    Double,
    Timestamp,
}

impl Type {
    /// The column's type in Glue, Hive and Athena.
    pub fn hive(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::Boolean => "boolean",
            Type::Integer => "bigint",
            Type::Double => "double",
            Type::Timestamp => "timestamp",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::String => "string",
            Type::Boolean => "boolean",
            Type::Integer => "integer",
            Type::Double => "double",
            Type::Timestamp => "timestamp",
        })
    }
}

/// A compiled JMESPath expression.
pub type Expression = jmespath::Expression<'static>;

/// Prints as compilers do, so that an editor can jump to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetError {
    pub file: String,
    pub line: u64,
    pub reason: String,
}

impl fmt::Display for DatasetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}

impl std::error::Error for DatasetError {}

impl Dataset {
    /// Reads and checks a dataset file; `file` is the name that errors carry.
    pub fn parse(file: &str, text: &str) -> Result<Dataset, DatasetError> {
        let file_error = |line, reason| DatasetError { file: file.to_owned(), line, reason };
        let yaml: file::Yaml = serde_saphyr::from_str(text).map_err(|e| {
            let line = e.location().map_or(1, |l| l.line());
            let full = e.without_snippet().to_string();
            file_error(line, file::cut(&full))
        })?;
        let sha256 = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        yaml.check(sha256).map_err(|(location, reason)| file_error(location.line(), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name: orders
source:
  url: https://example.com/orders
  records: data[].items[]
schedule: { every_minutes: 5, run_seconds: 120, fetch_every_seconds: 10 }
topic: { name: orders, partitions: 3, replication_factor: 1, retention_hours: 24 }
lake: { prefix: orders, format: ndjson }
columns:
  - { id: 100, name: order_id, type: integer, required: true, expression: id }
  - { id: 101, name: paid, type: boolean, expression: paid }
queries:
  - { name: unpaid, sql: SELECT count(*) FROM orders WHERE NOT paid }
"#;

    /// Replaces `from` by `to` in a good file and returns how it is refused.
    fn refused(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        Dataset::parse("datasets/orders.yaml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn a_good_file_is_read() {
        let dataset = Dataset::parse("datasets/orders.yaml", GOOD).unwrap();
        assert_eq!(dataset.lake.format, Format::Ndjson(Codec::Gzip));
        assert_eq!(dataset.columns[0].kind, Type::Integer);
        assert!(dataset.columns[0].required && !dataset.columns[1].required);
        assert_eq!(dataset.sha256.len(), 64);
    }

    #[test]
    fn a_wrong_file_is_refused_with_file_line_and_reason() {
        let cases = [
            ("type: integer", "type: int", "datasets/orders.yaml:9: unknown type `int`: use one of string"),
            ("expression: id }", "expression: 'id[' }", "datasets/orders.yaml:9: bad JMESPath expression `id[`"),
            ("expression: id }", "expression: 'joyn(id)' }", "datasets/orders.yaml:9: JMESPath has no function `joyn`"),
            (
                "expression: id }",
                "expression: 'a[?joyn(id)]' }",
                "datasets/orders.yaml:9: JMESPath has no function `joyn`",
            ),
            (
                "name: paid",
                "name: order_id",
                "datasets/orders.yaml:10: column `order_id` stands twice, first in line 9",
            ),
            ("id: 101", "id: 100", "datasets/orders.yaml:10: column id 100 stands twice, first in line 9"),
            ("id: 101", "id: 7", "datasets/orders.yaml:10: column id 7 is the system's"),
            ("name: paid", "name: hour", "datasets/orders.yaml:10: `hour` is reserved"),
            ("name: paid", "name: _offset", "datasets/orders.yaml:10: `_offset` is reserved"),
            ("name: paid", "name: Paid", "datasets/orders.yaml:10: `Paid` is not a column name"),
            ("run_seconds: 120", "run_seconds: 300", "datasets/orders.yaml:5: a run of 300 s does not end before"),
            ("format: ndjson", "format: avro", "datasets/orders.yaml:7: unknown format `avro`"),
            (
                "format: ndjson",
                "format: ndjson, codec: snappy",
                "datasets/orders.yaml:7: unknown codec `snappy` for ndjson",
            ),
            ("prefix: orders", "prefix: _orders", "datasets/orders.yaml:7: `_orders` is no lake prefix"),
            (
                "name: orders, partitions",
                "name: or+ders, partitions",
                "datasets/orders.yaml:6: `or+ders` is no topic name",
            ),
            ("url: https", "url: htps", "datasets/orders.yaml:3: `htps://example.com/orders` is no URL"),
            (
                "type: boolean, ",
                "type: boolean, hash: hmac-sha256, ",
                "datasets/orders.yaml:10: a hashed column is a string",
            ),
            ("name: unpaid", "name: un-paid", "datasets/orders.yaml:12: `un-paid` is not a query name"),
            (
                "sql: SELECT count(*) FROM orders WHERE NOT paid",
                "sql: ''",
                "datasets/orders.yaml:12: query `unpaid` is empty",
            ),
            ("  records:", "  recods:", "datasets/orders.yaml:4: "),
        ];
        for (from, to, expected) in cases {
            let message = refused(from, to);
            assert!(message.starts_with(expected), "{to}: {message}");
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        for text in ["", "- 1", "name: [", "\u{0}", "name: &a *a", "columns: {}", "%YAML 9", "name: orders"] {
            assert!(Dataset::parse("f", text).is_err(), "{text:?}");
        }
    }
}
