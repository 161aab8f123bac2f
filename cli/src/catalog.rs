//! The Glue table: which directories of the lake its readers see.

use aws_sdk_glue::error::DisplayErrorContext;

use crate::Error;

/// A Glue table, and how to reach it.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub client: aws_sdk_glue::Client,
    pub database: String,
    pub table: String,
}

/// A partition of the table as Glue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// `["2026-11-23", "05"]`
    pub values: Vec<String>,
    /// `s3://bucket/prefix/dt=…/hour=…/`, with or without the slash at its end.
    pub location: String,
}

impl Catalog {
    pub async fn partitions(&self) -> Result<Vec<Registered>, Error> {
        let mut pages = self
            .client
            .get_partitions()
            .database_name(&self.database)
            .table_name(&self.table)
            .exclude_column_schema(true)
            .into_paginator()
            .send();
        let mut registered = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                Error::stopped(format!(
                    "cannot read the partitions of the Glue table {}.{}: {}. Check GLUE_DATABASE and GLUE_TABLE \
                     (--glue-database, --glue-table), and that you may call glue:GetPartitions",
                    self.database,
                    self.table,
                    DisplayErrorContext(error)
                ))
            })?;
            registered.extend(page.partitions.unwrap_or_default().into_iter().map(|partition| Registered {
                values: partition.values.unwrap_or_default(),
                location: partition.storage_descriptor.and_then(|s| s.location).unwrap_or_default(),
            }));
        }
        Ok(registered)
    }
}
