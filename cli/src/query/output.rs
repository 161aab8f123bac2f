//! Rows as text: an aligned table, JSON or CSV.

use std::io::{self, Write};

use clap::ValueEnum;
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Table,
    /// One array of objects; a NULL is written as null.
    Json,
    Csv,
}

/// Writes batches as they come; an aligned table must see them all first.
pub enum Writer<'a> {
    Table { schema: SchemaRef, batches: Vec<RecordBatch>, out: &'a mut dyn Write },
    Json(json::writer::Writer<&'a mut dyn Write, json::writer::JsonArray>),
    Csv(Box<csv::Writer<&'a mut dyn Write>>),
}

impl<'a> Writer<'a> {
    pub fn new(format: OutputFormat, schema: SchemaRef, out: &'a mut dyn Write) -> Writer<'a> {
        match format {
            OutputFormat::Table => Writer::Table { schema, batches: Vec::new(), out },
            OutputFormat::Json => Writer::Json(json::WriterBuilder::new().with_explicit_nulls(true).build(out)),
            OutputFormat::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // The header of an answer without rows; a failure comes back with the next write.
                let _ = writer.write(&RecordBatch::new_empty(schema));
                Writer::Csv(Box::new(writer))
            }
        }
    }

    pub fn write(&mut self, batch: RecordBatch) -> io::Result<()> {
        match self {
            Writer::Table { batches, .. } => {
                batches.push(batch);
                Ok(())
            }
            Writer::Json(writer) => writer.write(&batch).map_err(io_error),
            Writer::Csv(writer) => writer.write(&batch).map_err(io_error),
        }
    }

    pub fn finish(self) -> io::Result<()> {
        match self {
            Writer::Table { schema, batches, out } => writeln!(out, "{}", table(&schema, &batches)?),
            Writer::Json(mut writer) => {
                writer.finish().map_err(io_error)?;
                writeln!(writer.into_inner())
            }
            Writer::Csv(_) => Ok(()),
        }
    }
}

pub fn table(schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<String> {
    let header_alone = [RecordBatch::new_empty(schema.clone())];
    let shown = if batches.is_empty() { &header_alone } else { batches };
    pretty_format_batches(shown).map(|text| text.to_string()).map_err(io_error)
}

/// A closed pipe must be told from other failures.
fn io_error(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, source) => source,
        other => io::Error::other(other),
    }
}
