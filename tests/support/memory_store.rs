//! S3 in memory: strongly consistent, conditional PUTs atomic. Each request waits at a gate where a test asks for it, so
//! that attempts can be interleaved request by request, killed between two of them, or have a request land after their death.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use bytes::Bytes;
use consumer::catalog::{Catalog, CatalogError};
use pipeline::lake::{Condition, Directory, Head, Listed, Object, Put, PutRequest, Store, StoreError};

#[derive(Debug, Clone)]
pub struct Stored {
    pub body: Bytes,
    pub etag: String,
    pub metadata: HashMap<String, String>,
}

/// The bucket: shared by all attempts.
#[derive(Debug, Default)]
pub struct Bucket {
    pub objects: BTreeMap<String, Stored>,
    /// Directories that the catalog knows.
    pub registered: Vec<Directory>,
    /// A register call fails while it is set.
    pub catalog_down: bool,
    version: u64,
}

impl Bucket {
    pub fn put(&mut self, request: &PutRequest) -> Put {
        let there = self.objects.get(&request.key).map(|o| o.etag.as_str());
        match (&request.condition, there) {
            (Condition::Absent, Some(_)) => return Put::Refused,
            (Condition::Matches(_), None) => return Put::Missing,
            (Condition::Matches(etag), Some(there)) if etag != there => return Put::Refused,
            _ => {}
        }
        self.version += 1;
        let etag = format!("\"{}\"", self.version);
        let stored = Stored { body: request.body.clone(), etag: etag.clone(), metadata: request.metadata.clone() };
        self.objects.insert(request.key.clone(), stored);
        Put::Stored { etag }
    }
}

/// How an attempt's requests get through.
#[derive(Debug, Default)]
struct Line {
    gated: bool,
    granted: bool,
    waker: Option<Waker>,
    /// The PUT that waits at the gate.
    on_the_wire: Option<PutRequest>,
    /// The store dies before its request with this number.
    dies_at: Option<usize>,
    /// The request with which it dies takes effect all the same.
    applied_at_death: bool,
    requests: usize,
}

/// One attempt's view of the bucket.
#[derive(Clone, Default)]
pub struct MemoryStore {
    bucket: Arc<Mutex<Bucket>>,
    line: Arc<Mutex<Line>>,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// The same bucket, for another attempt.
    pub fn attempt(&self) -> MemoryStore {
        MemoryStore { bucket: self.bucket.clone(), line: Arc::default() }
    }

    /// Every request waits for [`MemoryStore::grant`].
    pub fn gated(&self) -> MemoryStore {
        let store = self.attempt();
        store.line.lock().unwrap().gated = true;
        store
    }

    /// The request with this number, from 0, fails; with `applied` it takes effect, and only its answer is lost.
    pub fn dying(&self, at: usize, applied: bool) -> MemoryStore {
        let store = self.attempt();
        {
            let mut line = store.line.lock().unwrap();
            (line.dies_at, line.applied_at_death) = (Some(at), applied);
        }
        store
    }

    pub fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap()
    }

    pub fn requests(&self) -> usize {
        self.line.lock().unwrap().requests
    }

    /// Lets one request through.
    pub fn grant(&self) {
        let mut line = self.line.lock().unwrap();
        line.granted = true;
        if let Some(waker) = line.waker.take() {
            waker.wake();
        }
    }

    /// The PUT that an attempt had sent when it was killed.
    pub fn take_wire(&self) -> Option<PutRequest> {
        self.line.lock().unwrap().on_the_wire.take()
    }

    /// Waits at the gate; an error says that the store is dead. `true` in it: the request takes effect all the same.
    async fn pass(
        &self,
        operation: &'static str,
        key: &str,
        put: Option<&PutRequest>,
    ) -> Result<(), (StoreError, bool)> {
        self.line.lock().unwrap().on_the_wire = put.cloned();
        poll_fn(|context| {
            let mut line = self.line.lock().unwrap();
            if line.gated && !line.granted {
                line.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            line.granted = false;
            Poll::Ready(())
        })
        .await;
        let mut line = self.line.lock().unwrap();
        line.on_the_wire = None;
        let number = line.requests;
        line.requests += 1;
        match line.dies_at {
            Some(at) if number >= at => {
                let applied = number == at && line.applied_at_death;
                Err((
                    StoreError { operation, key: key.to_owned(), reason: "the store died".into(), advice: "" },
                    applied,
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.pass("GET", key, None).await.map_err(|(e, _)| e)?;
        Ok(self.bucket().objects.get(key).map(|o| Object { body: o.body.clone(), etag: o.etag.clone() }))
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.pass("HEAD", key, None).await.map_err(|(e, _)| e)?;
        let head = |o: &Stored| Head { etag: o.etag.clone(), size: o.body.len() as u64, metadata: o.metadata.clone() };
        Ok(self.bucket().objects.get(key).map(head))
    }

    async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
        if let Err((error, applied)) = self.pass("PUT", &request.key, Some(&request)).await {
            if applied {
                self.bucket().put(&request);
            }
            return Err(error);
        }
        Ok(self.bucket().put(&request))
    }

    async fn list(&self, prefix: &str, limit: Option<usize>) -> Result<Vec<Listed>, StoreError> {
        self.pass("LIST", prefix, None).await.map_err(|(e, _)| e)?;
        let bucket = self.bucket();
        let matching = bucket.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let listed = matching.map(|(key, o)| Listed { key: key.clone(), size: o.body.len() as u64 });
        Ok(listed.take(limit.unwrap_or(usize::MAX)).collect())
    }
}

/// A catalog beside the bucket; it can be down.
impl Catalog for MemoryStore {
    async fn register(&self, directory: Directory) -> Result<(), CatalogError> {
        let mut bucket = self.bucket();
        if bucket.catalog_down {
            return Err(CatalogError { directory, table: "names".into(), reason: "down".into() });
        }
        if !bucket.registered.contains(&directory) {
            bucket.registered.push(directory);
        }
        Ok(())
    }
}
