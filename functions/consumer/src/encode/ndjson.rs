//! NDJSON as Athena's OpenX SerDe reads it: a null is an absent field, a timestamp is `YYYY-MM-DD HH:MM:SS.ffffff` in UTC.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pipeline::dataset::{Codec, Dataset};

use super::{EncodeError, Stamp};
use crate::decode::{Cell, Row};

pub struct NdjsonEncoder {
    columns: Vec<String>,
    sink: Sink,
    line: Vec<u8>,
}

enum Sink {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl NdjsonEncoder {
    pub fn new(dataset: &Dataset, codec: Codec) -> Result<NdjsonEncoder, EncodeError> {
        let sink = match codec {
            Codec::None | Codec::Snappy => Sink::Plain(Vec::new()),
            Codec::Gzip => Sink::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Codec::Zstd => Sink::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
        };
        let columns = dataset.columns.iter().map(|c| c.name.clone()).collect();
        Ok(NdjsonEncoder { columns, sink, line: Vec::new() })
    }

    pub fn append(&mut self, row: &Row, stamp: Stamp) -> Result<(), EncodeError> {
        let line = &mut self.line;
        line.clear();
        for (name, cell) in self.columns.iter().zip(&row.cells) {
            if *cell == Cell::Null {
                continue;
            }
            // Names need no escapes: the dataset file allows letters, digits and `_`.
            write!(line, "{}\"{name}\":", if line.is_empty() { '{' } else { ',' })?;
            match cell {
                Cell::Null => {}
                Cell::Text(span) => serde_json::to_writer(&mut *line, row.text(span)).map_err(io::Error::from)?,
                Cell::Boolean(value) => write!(line, "{value}")?,
                Cell::Integer(value) => write!(line, "{value}")?,
                Cell::Double(value) => serde_json::to_writer(&mut *line, value).map_err(io::Error::from)?,
                Cell::Timestamp(micros) => write!(line, "\"{}\"", sql_timestamp(*micros))?,
            }
        }
        let comma = if line.is_empty() { '{' } else { ',' };
        let Stamp { partition, offset, epoch, timestamp } = stamp;
        let timestamp = sql_timestamp(timestamp.saturating_mul(1000));
        write!(
            line,
            "{comma}\"_partition\":{partition},\"_offset\":{offset},\"_epoch\":{epoch},\"_timestamp\":\"{timestamp}\""
        )?;
        if let Some(extra) = row.extra() {
            line.extend_from_slice(b",\"_extra\":");
            serde_json::to_writer(&mut *line, extra).map_err(io::Error::from)?;
        }
        line.extend_from_slice(b"}\n");
        match &mut self.sink {
            Sink::Plain(bytes) => bytes.extend_from_slice(line),
            Sink::Gzip(encoder) => encoder.write_all(line)?,
            Sink::Zstd(encoder) => encoder.write_all(line)?,
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        Ok(match self.sink {
            Sink::Plain(bytes) => bytes,
            Sink::Gzip(encoder) => encoder.finish()?,
            Sink::Zstd(encoder) => encoder.finish()?,
        })
    }
}

/// Out of the range of years 1 to 9999 there is no such text: the nearest end stands for it.
fn sql_timestamp(micros: i64) -> impl std::fmt::Display {
    const YEAR_ONE: i64 = -62_135_596_800_000_000;
    let time = Timestamp::from_microsecond(micros.max(YEAR_ONE)).unwrap_or(Timestamp::MAX);
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}
