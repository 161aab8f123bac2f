//! The Glue catalog: each directory of the lake is a registered partition before the first object is written into it.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use aws_sdk_glue::Client;
use aws_sdk_glue::error::DisplayErrorContext;
use aws_sdk_glue::types::{PartitionInput, StorageDescriptor};
use pipeline::lake::{Directory, Layout};
use tokio::sync::OnceCell;

#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "cannot register {directory} in Glue's {table}: {reason}. Check that the table exists and that the role may glue:GetTable and glue:CreatePartition on it (Lake Formation can deny both); Kafka keeps the records meanwhile"
)]
pub struct CatalogError {
    pub directory: Directory,
    pub table: String,
    pub reason: String,
}

pub trait Catalog: Send + Sync {
    /// Returns once the directory is a partition of the table.
    fn register(&self, directory: Directory) -> impl Future<Output = Result<(), CatalogError>> + Send;
}

/// Glue where a database is configured; without one there is nothing to register.
pub enum Partitions {
    Glue(Box<GlueCatalog>),
    Off,
}

impl Catalog for Partitions {
    async fn register(&self, directory: Directory) -> Result<(), CatalogError> {
        match self {
            Partitions::Glue(glue) => glue.register(directory).await,
            Partitions::Off => Ok(()),
        }
    }
}

pub struct GlueCatalog {
    client: Client,
    database: String,
    table: String,
    bucket: String,
    layout: Layout,
    /// What the table says of its files, read once a container. A partition carries its own copy.
    descriptor: OnceCell<StorageDescriptor>,
    /// Registered by this container, or found to be.
    known: Mutex<HashSet<Directory>>,
}

impl GlueCatalog {
    pub fn new(client: Client, database: String, table: String, bucket: String, layout: Layout) -> GlueCatalog {
        GlueCatalog { client, database, table, bucket, layout, descriptor: OnceCell::new(), known: Mutex::default() }
    }

    async fn read_descriptor(&self) -> Result<StorageDescriptor, String> {
        let answer = self.client.get_table().database_name(&self.database).name(&self.table).send().await;
        let table = answer.map_err(|e| DisplayErrorContext(e).to_string())?.table;
        let descriptor = table.and_then(|t| t.storage_descriptor).ok_or("the table has no storage descriptor")?;
        let expected = format!("s3://{}/{}", self.bucket, self.layout.prefix);
        let location = descriptor.location.as_deref().unwrap_or_default();
        if location.trim_end_matches('/') != expected {
            return Err(format!("the table lies at `{location}`, the lake at `{expected}`"));
        }
        Ok(descriptor)
    }
}

impl Catalog for GlueCatalog {
    async fn register(&self, directory: Directory) -> Result<(), CatalogError> {
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&directory) {
            return Ok(());
        }
        let table = format!("{}.{}", self.database, self.table);
        let error = |reason| CatalogError { directory, table, reason };
        let mut descriptor = match self.descriptor.get_or_try_init(|| self.read_descriptor()).await {
            Ok(descriptor) => descriptor.clone(),
            Err(reason) => return Err(error(reason)),
        };
        descriptor.location = Some(format!("s3://{}/{}", self.bucket, self.layout.directory(directory)));
        let values = directory.values().to_vec();
        let partition = PartitionInput::builder().set_values(Some(values)).storage_descriptor(descriptor).build();
        let answer = self
            .client
            .create_partition()
            .database_name(&self.database)
            .table_name(&self.table)
            .partition_input(partition)
            .send()
            .await;
        match answer {
            Ok(_) => {}
            Err(e) if e.as_service_error().is_some_and(|e| e.is_already_exists_exception()) => {}
            Err(e) => return Err(error(DisplayErrorContext(e).to_string())),
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(directory);
        Ok(())
    }
}
