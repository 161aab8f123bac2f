//! Rows as text: an aligned table, JSON or CSV.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::rc::Rc;

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
    Json(json::writer::Writer<Output<'a>, json::writer::JsonArray>, Failure),
    Csv(Box<csv::Writer<Output<'a>>>, Failure),
}

/// What went wrong with the output. Arrow's writers turn it into a text, and a closed pipe must be told from other failures.
type Failure = Rc<Cell<Option<ErrorKind>>>;

pub struct Output<'a> {
    out: &'a mut dyn Write,
    failure: Failure,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).inspect_err(|e| self.failure.set(Some(e.kind())))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|e| self.failure.set(Some(e.kind())))
    }
}

impl<'a> Writer<'a> {
    pub fn new(format: OutputFormat, schema: SchemaRef, out: &'a mut dyn Write) -> Writer<'a> {
        let failure = Failure::default();
        let output = |out| Output { out, failure: failure.clone() };
        match format {
            OutputFormat::Table => Writer::Table { schema, batches: Vec::new(), out },
            OutputFormat::Json => {
                let writer = json::WriterBuilder::new().with_explicit_nulls(true).build(output(out));
                Writer::Json(writer, failure)
            }
            OutputFormat::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(output(out));
                // The header of an answer without rows; a failure comes back with the next write.
                let _ = writer.write(&RecordBatch::new_empty(schema));
                Writer::Csv(Box::new(writer), failure)
            }
        }
    }

    pub fn write(&mut self, batch: RecordBatch) -> io::Result<()> {
        match self {
            Writer::Table { batches, .. } => {
                batches.push(batch);
                Ok(())
            }
            Writer::Json(writer, failure) => writer.write(&batch).map_err(|e| io_error(e, failure)),
            Writer::Csv(writer, failure) => writer.write(&batch).map_err(|e| io_error(e, failure)),
        }
    }

    pub fn finish(self) -> io::Result<()> {
        match self {
            Writer::Table { schema, batches, out } => writeln!(out, "{}", table(&schema, &batches)?),
            Writer::Json(mut writer, failure) => {
                writer.finish().map_err(|e| io_error(e, &failure))?;
                writeln!(writer.into_inner())
            }
            Writer::Csv(..) => Ok(()),
        }
    }
}

pub fn table(schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<String> {
    let header_alone = [RecordBatch::new_empty(schema.clone())];
    let shown = if batches.is_empty() { &header_alone } else { batches };
    pretty_format_batches(shown).map(|text| text.to_string()).map_err(io::Error::other)
}

fn io_error(error: ArrowError, failure: &Failure) -> io::Error {
    failure.take().map_or_else(|| io::Error::other(error), io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;
    use std::sync::Arc;

    struct ClosedPipe;

    impl Write for ClosedPipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_as_such_in_every_format() {
        let column: Arc<Int64Array> = Arc::new(vec![1; 10_000].into());
        let batch = RecordBatch::try_from_iter([("n", column as _)]).unwrap();
        for format in [OutputFormat::Table, OutputFormat::Json, OutputFormat::Csv] {
            let mut pipe = ClosedPipe;
            let mut writer = Writer::new(format, batch.schema(), &mut pipe);
            let failed = writer.write(batch.clone()).and_then(|()| writer.finish());
            assert_eq!(failed.unwrap_err().kind(), ErrorKind::BrokenPipe, "{format:?}");
        }
    }
}
