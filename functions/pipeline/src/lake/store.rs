//! What the lake asks of an object store: atomic conditional PUTs, reads that see every finished write, listing.

use std::collections::HashMap;
use std::future::Future;

use bytes::Bytes;

#[derive(Debug, Clone)]
pub struct Object {
    pub body: Bytes,
    pub etag: String,
}

#[derive(Debug, Clone)]
pub struct Head {
    pub etag: String,
    pub size: u64,
    pub metadata: HashMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub size: u64,
}

/// When a PUT may take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: <etag>`
    Matches(String),
}

#[derive(Debug, Clone)]
pub struct PutRequest {
    pub key: String,
    pub body: Bytes,
    pub condition: Condition,
    pub content_type: &'static str,
    pub metadata: HashMap<String, String>,
}

/// How a conditional PUT ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Stored {
        etag: String,
    },
    /// 412: the condition did not hold. After a lost answer it may be our own write that is there.
    Refused,
    /// 404: `If-Match` on a key that is gone.
    Missing,
}

/// Any other end of a request. Nothing is known of whether a failed PUT took effect.
#[derive(Debug, Clone, thiserror::Error)]
#[error("S3 {operation} of {key} failed: {reason}{advice}")]
pub struct StoreError {
    pub operation: &'static str,
    pub key: String,
    pub reason: String,
    pub advice: &'static str,
}

/// Keys are relative to the lake's bucket.
pub trait Store: Send + Sync {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Object>, StoreError>> + Send;
    fn head(&self, key: &str) -> impl Future<Output = Result<Option<Head>, StoreError>> + Send;
    fn put(&self, request: PutRequest) -> impl Future<Output = Result<Put, StoreError>> + Send;
    /// Up to `limit` keys with that prefix, in the order of their bytes; all of them for `None`.
    fn list(&self, prefix: &str, limit: Option<usize>) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;
}
