//! `freshet query`: SQL over the lake, by DataFusion.

mod objects;
mod output;
mod tables;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Args;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::{Error, Lake, LakeArgs};
pub use output::OutputFormat;
use output::Writer;

/// Run one SQL query over the lake
///
/// The table is named as the dataset; its columns are the dataset's, `_partition`, `_offset`, `_epoch`, `_timestamp`,
/// `_extra`, and the directories' `dt` and `hour`. The records that could not become rows are in `<dataset>_dead_letters`.
/// A condition on dt and hour reads those directories alone.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: freshet query 'SELECT nation, count(*) AS people FROM names GROUP BY nation ORDER BY 2 DESC LIMIT 5'"
)]
pub struct QueryArgs {
    /// One statement that only reads
    pub sql: String,
    /// How rows are written: an aligned table, one JSON array, or CSV with a header
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    pub format: OutputFormat,
}

pub async fn run(args: &LakeArgs, query: &QueryArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let lake = Lake::open(args).await?;
    let session = Session::open(&lake)?;
    let mut rows = session.stream(&query.sql).await?;
    let mut writer = Writer::new(query.format, rows.schema(), out);
    while let Some(batch) = rows.next().await {
        writer.write(batch.map_err(|e| session.refused(&e))?)?;
    }
    writer.finish()?;
    if let Some(note) = session.unread() {
        // A note that cannot be written is a note less.
        let _ = writeln!(std::io::stderr(), "freshet: {note}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The answer to one query, whole in memory: for a caller that knows it to be small.
pub async fn query(lake: &Lake, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
    let session = Session::open(lake)?;
    let frame = session.plan(sql).await?;
    let schema = frame.schema().inner().clone();
    let batches = frame.collect().await.map_err(|e| session.refused(&e))?;
    Ok((schema, batches))
}

/// The answer to one query as the aligned table that the command prints.
pub async fn query_table(lake: &Lake, sql: &str) -> Result<String, Error> {
    let (schema, batches) = query(lake, sql).await?;
    Ok(output::table(&schema, &batches)?)
}

/// The answer to one query as JSON objects, a NULL as null.
pub async fn query_json(lake: &Lake, sql: &str) -> Result<Vec<serde_json::Value>, Error> {
    let (schema, batches) = query(lake, sql).await?;
    let mut text = Vec::new();
    let mut writer = Writer::new(OutputFormat::Json, schema, &mut text);
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    serde_json::from_slice(&text).map_err(|e| Error::Stopped(format!("an answer is no JSON: {e}. This is a defect")))
}

/// DataFusion with the lake's tables in it.
pub(crate) struct Session {
    context: SessionContext,
    /// What there is to ask, for a statement that asks for something else.
    tables: String,
    objects: std::sync::Arc<objects::LakeObjects>,
    extension: String,
}

impl Session {
    fn open(lake: &Lake) -> Result<Session, Error> {
        Session::with(lake, RuntimeEnvBuilder::new())
    }

    /// One whose sorting and grouping may take so many bytes, and no disk.
    pub(crate) fn open_bounded(lake: &Lake, memory: usize) -> Result<Session, Error> {
        let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        Session::with(lake, RuntimeEnvBuilder::new().with_memory_limit(memory, 1.0).with_disk_manager_builder(no_disk))
    }

    fn with(lake: &Lake, runtime: RuntimeEnvBuilder) -> Result<Session, Error> {
        let objects = std::sync::Arc::new(objects::LakeObjects::new(lake));
        let (context, tables) = tables::register(lake, objects.clone(), runtime)
            .map_err(|e| Error::stopped(format!("cannot set up the tables: {e}. Please report this")))?;
        Ok(Session { context, tables, objects, extension: lake.target.extension.clone() })
    }

    async fn plan(&self, sql: &str) -> Result<DataFrame, Error> {
        let plan = self.context.state().create_logical_plan(sql).await.map_err(|e| self.refused(&e))?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        if read_only.verify_plan(&plan).is_err() {
            return Err(Error::stopped(
                "freshet query only reads, so the statement was not run. Write a SELECT; rows enter the lake through the consumer alone",
            ));
        }
        self.context.execute_logical_plan(plan).await.map_err(|e| self.refused(&e))
    }

    /// The rows of one statement, as they come.
    pub(crate) async fn stream(&self, sql: &str) -> Result<SendableRecordBatchStream, Error> {
        self.plan(sql).await?.execute_stream().await.map_err(|e| self.refused(&e))
    }

    pub(crate) fn refused(&self, error: &DataFusionError) -> Error {
        match error.find_root() {
            DataFusionError::Plan(_) | DataFusionError::SchemaError(..) | DataFusionError::SQL(..) => {
                let reason = error.strip_backtrace();
                Error::stopped(format!("the query cannot be run: {reason}\nThere is:\n{}", self.tables.trim_end()))
            }
            _ => Error::stopped(format!(
                "the query failed: {}\nIf an object cannot be read, `freshet verify --deep` names it",
                error.strip_backtrace()
            )),
        }
    }

    /// Objects of another format than the dataset's are in no table: say so rather than answer with less.
    fn unread(&self) -> Option<String> {
        let others = self.objects.others.load(Ordering::Relaxed);
        (others > 0).then(|| {
            format!(
                "{others} objects under the prefix are not .{} and were not read. Query them with the dataset file of their \
                 format (--dataset), or see `freshet verify`",
                self.extension
            )
        })
    }
}

#[cfg(test)]
mod tests;
