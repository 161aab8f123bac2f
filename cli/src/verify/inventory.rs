//! What was found in the lake, as it was found.

use std::collections::BTreeMap;

use pipeline::lake::{DataKey, Ledger, LettersKey, RangeMetadata};

use super::runs::Runs;
use crate::Target;
use crate::catalog::Registered;
use crate::kafka::Watermarks;

#[derive(Debug, Clone)]
pub struct Inventory {
    pub target: Target,
    pub deep: bool,
    pub ledgers: Vec<LedgerObject>,
    pub objects: Vec<DataObject>,
    pub letters: Vec<LettersObject>,
    /// Keys under the prefixes of data and ledgers that are not ours.
    pub foreign: Vec<String>,
    /// `None` where no catalog is configured.
    pub registered: Option<Vec<Registered>>,
    /// `None` where no broker is given.
    pub watermarks: Option<BTreeMap<i32, Watermarks>>,
    /// Milliseconds since 1970: dead letters of directories before it may have been deleted by the lifecycle rule.
    pub letters_since: i64,
}

#[derive(Debug, Clone)]
pub struct LedgerObject {
    pub key: String,
    pub topic: String,
    pub partition: i32,
    pub ledger: Result<Ledger, String>,
}

#[derive(Debug, Clone)]
pub struct DataObject {
    /// The whole key.
    pub name: String,
    pub key: DataKey,
    /// Bytes.
    pub size: u64,
    pub metadata: Result<RangeMetadata, String>,
    /// `None` unless the rows were read.
    pub rows: Option<Result<Rows, String>>,
}

/// The rows of one data object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// SHA-256 of the object's bytes, hex.
    pub sha256: String,
    pub count: u64,
    pub offsets: Runs,
    /// Rows whose offset another row of the object has too.
    pub repeated: u64,
    /// Whether each row's offset is greater than the one before.
    pub ordered: bool,
    /// Rows of another partition or epoch than the object's key says.
    pub strangers: u64,
}

#[derive(Debug, Clone)]
pub struct LettersObject {
    pub name: String,
    pub key: LettersKey,
    /// Offsets of its letters; `None` unless they were read.
    pub offsets: Option<Result<Runs, String>>,
}
