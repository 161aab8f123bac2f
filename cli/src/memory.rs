//! A lake for tests: what it is called, and a store in memory with S3's conditions.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use pipeline::lake::{Condition, Head, Layout, Listed, Object, Put, PutRequest, Store, StoreError};

use crate::Target;

/// The lake of the topic `t`, whose data objects have this extension.
pub fn target(extension: &str) -> Target {
    Target {
        bucket: "lake".into(),
        layout: Layout { prefix: "names".into(), ledger_prefix: "_ledger".into() },
        dataset: "names".into(),
        topic: "t".into(),
        extension: extension.into(),
    }
}

#[derive(Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, (u64, PutRequest)>>,
}

impl MemoryStore {
    /// Puts an object there whatever is there already.
    pub fn place(&self, key: &str, body: impl Into<Bytes>, metadata: std::collections::HashMap<String, String>) {
        let request =
            PutRequest { key: key.into(), body: body.into(), condition: Condition::Absent, content_type: "", metadata };
        let mut objects = self.objects.lock().unwrap();
        let version = objects.get(key).map_or(0, |(version, _)| version + 1);
        objects.insert(key.to_owned(), (version, request));
    }

    pub fn body(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(key).map(|(_, object)| object.body.clone())
    }
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let objects = self.objects.lock().unwrap();
        Ok(objects.get(key).map(|(version, o)| Object { body: o.body.clone(), etag: etag(*version) }))
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let objects = self.objects.lock().unwrap();
        let head = |(version, o): &(u64, PutRequest)| Head {
            etag: etag(*version),
            size: o.body.len() as u64,
            metadata: o.metadata.clone(),
        };
        Ok(objects.get(key).map(head))
    }

    async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
        let found = self.objects.lock().unwrap().get(&request.key).map(|(version, _)| etag(*version));
        match (&request.condition, found) {
            (Condition::Absent, Some(_)) => return Ok(Put::Refused),
            (Condition::Matches(_), None) => return Ok(Put::Missing),
            (Condition::Matches(wanted), Some(found)) if *wanted != found => return Ok(Put::Refused),
            _ => {}
        }
        let PutRequest { key, body, metadata, .. } = request;
        self.place(&key, body, metadata);
        let version = self.objects.lock().unwrap().get(&key).map_or(0, |(version, _)| *version);
        Ok(Put::Stored { etag: etag(version) })
    }

    async fn list(&self, prefix: &str, limit: Option<usize>) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects.lock().unwrap();
        let matching = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let listed = matching.map(|(key, (_, o))| Listed { key: key.clone(), size: o.body.len() as u64 });
        Ok(listed.take(limit.unwrap_or(usize::MAX)).collect())
    }
}
