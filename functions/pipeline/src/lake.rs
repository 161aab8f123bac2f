//! The lake's layout: object keys, the ledger, what a data object says of itself, dead letters, and the store they lie in.

mod dead_letter;
mod key;
mod ledger;
mod range;
mod s3_store;
mod schema;
mod store;

pub(crate) use key::REPLAYS;

pub use dead_letter::{DeadLetter, Header, to_ndjson};
pub use key::{DataKey, Directory, Layout, LettersKey};
pub use ledger::Ledger;
pub use range::{FirstRecord, RangeMetadata};
pub use s3_store::S3Store;
#[cfg(feature = "arrow")]
pub use schema::arrow_schema;
pub use schema::{DEAD_LETTER_COLUMNS, PARTITION_COLUMNS, SYSTEM_COLUMNS, SystemColumn, hive_columns};
pub use store::{Condition, Head, Listed, Object, Put, PutRequest, Store, StoreError};
