//! Rows → the bytes of a data object, in the dataset's format.

mod ndjson;
mod parquet;

use pipeline::dataset::{Dataset, Format};

use crate::decode::Row;

/// Which record of Kafka's log a row is.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    pub partition: i32,
    pub offset: i64,
    pub epoch: u32,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot encode a data object: {0}. This is a defect: please report it with the dataset file")]
pub struct EncodeError(String);

impl From<::parquet::errors::ParquetError> for EncodeError {
    fn from(error: ::parquet::errors::ParquetError) -> EncodeError {
        EncodeError(error.to_string())
    }
}

impl From<serde_json::Error> for EncodeError {
    fn from(error: serde_json::Error) -> EncodeError {
        EncodeError(error.to_string())
    }
}

impl From<std::io::Error> for EncodeError {
    fn from(error: std::io::Error) -> EncodeError {
        EncodeError(error.to_string())
    }
}

/// Takes rows one by one and gives the object's bytes. No row at all makes a valid, empty object.
pub enum Encoder {
    Parquet(Box<parquet::ParquetEncoder>),
    Ndjson(Box<ndjson::NdjsonEncoder>),
}

impl Encoder {
    /// For about so many rows, made of so many bytes of JSON.
    pub fn new(dataset: &Dataset, rows: usize, bytes: usize) -> Encoder {
        match dataset.lake.format {
            Format::Parquet(codec) => {
                Encoder::Parquet(Box::new(parquet::ParquetEncoder::new(dataset, codec, rows, bytes)))
            }
            Format::Ndjson(codec) => Encoder::Ndjson(Box::new(ndjson::NdjsonEncoder::new(dataset, codec, rows, bytes))),
        }
    }

    pub fn append(&mut self, row: &Row, stamp: Stamp) -> Result<(), EncodeError> {
        match self {
            Encoder::Parquet(encoder) => encoder.append(row, stamp),
            Encoder::Ndjson(encoder) => encoder.append(row, stamp)?,
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Encoder::Parquet(encoder) => encoder.finish(),
            Encoder::Ndjson(encoder) => encoder.finish(),
        }
    }
}

pub fn content_type(format: Format) -> &'static str {
    match format {
        Format::Parquet(_) => "application/vnd.apache.parquet",
        Format::Ndjson(_) => "application/x-ndjson",
    }
}

/// Gzip without a timestamp: equal lines make equal bytes.
pub fn gzip(lines: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, lines)?;
    Ok(encoder.finish()?)
}
