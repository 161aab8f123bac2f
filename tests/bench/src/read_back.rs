//! What came out, as rows that can be held against what went in.

use std::io::Read;

use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

pub fn parquet(object: Bytes) -> Result<Vec<Value>, Failure> {
    let mut lines = Vec::new();
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut lines);
    for batch in ParquetRecordBatchReaderBuilder::try_new(object)?.build()? {
        let mut batch = batch?;
        // In a zone by name, which arrow-json does not write.
        if let Ok(timestamp) = batch.schema().index_of("_timestamp") {
            batch.remove_column(timestamp);
        }
        writer.write(&batch)?;
    }
    writer.finish()?;
    rows(&lines)
}

pub fn gzip(object: &[u8]) -> Result<Vec<Value>, Failure> {
    let mut lines = Vec::new();
    flate2::read::GzDecoder::new(object).read_to_end(&mut lines)?;
    rows(&lines)
}

pub fn zstd(object: &[u8]) -> Result<Vec<Value>, Failure> {
    rows(&zstd::stream::decode_all(object)?)
}

/// Without what the system adds, but for partition and offset.
fn rows(lines: &[u8]) -> Result<Vec<Value>, Failure> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let row = |line: &[u8]| {
        let mut row: Value = serde_json::from_slice(line)?;
        if let Value::Object(fields) = &mut row {
            for name in ["_epoch", "_timestamp", "_extra"] {
                fields.remove(name);
            }
        }
        Ok(row)
    };
    lines.map(row).collect()
}
