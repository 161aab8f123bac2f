//! Ours: the consumer's handler, with a store that keeps the last object and nothing else.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use consumer::catalog::{Catalog, CatalogError};
use consumer::handler::{Attempt, Consumer};
use pipeline::config::{DatasetChoice, LakeConfig, S3Config};
use pipeline::dataset::Dataset;
use pipeline::lake::{Directory, Head, Listed, Object, Put, PutRequest, Store, StoreError};

/// A lake in which nothing of the topic is stored yet, however often it is asked.
#[derive(Clone, Default)]
struct Memory {
    objects: Arc<Mutex<Vec<Bytes>>>,
}

impl Store for Memory {
    async fn get(&self, _: &str) -> Result<Option<Object>, StoreError> {
        Ok(None)
    }

    async fn head(&self, _: &str) -> Result<Option<Head>, StoreError> {
        Ok(None)
    }

    async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
        if request.content_type != "application/json" {
            self.objects.lock().unwrap_or_else(PoisonError::into_inner).push(request.body);
        }
        Ok(Put::Stored { etag: String::new() })
    }

    async fn list(&self, _: &str, _: Option<usize>) -> Result<Vec<Listed>, StoreError> {
        Ok(Vec::new())
    }
}

impl Catalog for Memory {
    async fn register(&self, _: Directory) -> Result<(), CatalogError> {
        Ok(())
    }
}

pub struct Ours {
    consumer: Consumer<Memory, Memory>,
    memory: Memory,
    runtime: tokio::runtime::Runtime,
}

impl Ours {
    pub fn new(format: &str, codec: &str) -> Ours {
        let lake = LakeConfig {
            bucket: "lake".into(),
            prefix: "names".into(),
            ledger_prefix: "_ledger".into(),
            s3: S3Config::default(),
        };
        let memory = Memory::default();
        let choice = DatasetChoice { dataset: dataset(format, codec), mismatch: false };
        let consumer = Consumer::new(choice, &lake, memory.clone(), 4, |_| memory.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Ours { consumer, memory, runtime: runtime.unwrap_or_else(|e| panic!("no runtime: {e}")) }
    }

    /// The objects that an event becomes, one a partition.
    pub fn run(&self, payload: &[u8]) -> Vec<Bytes> {
        let report = self.runtime.block_on(self.consumer.handle(payload, &Attempt::at(pipeline::telemetry::now_ms())));
        if let Err(error) = report {
            panic!("the event was not stored: {error}");
        }
        std::mem::take(&mut *self.memory.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The dataset `names` in another format.
pub fn dataset(format: &str, codec: &str) -> Dataset {
    Dataset::parse("names.yaml", &dataset_file(format, codec)).unwrap_or_else(|e| panic!("{e}"))
}

pub fn dataset_file(format: &str, codec: &str) -> String {
    include_str!("../../../datasets/names.yaml")
        .replace("format: parquet", &format!("format: {format}"))
        .replace("codec: zstd", &format!("codec: {codec}"))
}
