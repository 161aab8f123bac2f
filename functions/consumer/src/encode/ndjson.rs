//! NDJSON as Athena's OpenX SerDe reads it: a null is an absent field, a timestamp is `YYYY-MM-DD HH:MM:SS.ffffff` in UTC.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pipeline::dataset::{Codec, Dataset};

use super::{EncodeError, Stamp};
use crate::decode::{Cell, Row};

pub struct NdjsonEncoder {
    /// `"name":` of each column. Names need no escapes: the dataset file allows letters, digits and `_`.
    names: Vec<String>,
    codec: Codec,
    lines: Vec<u8>,
    clock: SqlClock,
}

impl NdjsonEncoder {
    pub fn new(dataset: &Dataset, codec: Codec, rows: usize, bytes: usize) -> NdjsonEncoder {
        // A line holds the system's columns besides.
        let lines = Vec::with_capacity(bytes + rows * 96);
        let names = dataset.columns.iter().map(|c| format!("\"{}\":", c.name)).collect();
        NdjsonEncoder { names, codec, lines, clock: SqlClock::default() }
    }

    pub fn append(&mut self, row: &Row, stamp: Stamp) -> Result<(), EncodeError> {
        let lines = &mut self.lines;
        lines.push(b'{');
        for (name, cell) in self.names.iter().zip(&row.cells) {
            if *cell == Cell::Null {
                continue;
            }
            lines.extend_from_slice(name.as_bytes());
            match cell {
                Cell::Null => {}
                // It stands in a record of JSON as it is here.
                Cell::Text(Cow::Borrowed(text)) => quote(lines, text),
                Cell::Text(Cow::Owned(text)) => serde_json::to_writer(&mut *lines, text)?,
                Cell::Boolean(value) => serde_json::to_writer(&mut *lines, value)?,
                Cell::Integer(value) => serde_json::to_writer(&mut *lines, value)?,
                Cell::Double(value) => serde_json::to_writer(&mut *lines, value)?,
                Cell::Timestamp(micros) => quote(lines, self.clock.text(*micros)),
            }
            lines.push(b',');
        }
        lines.extend_from_slice(b"\"_partition\":");
        serde_json::to_writer(&mut *lines, &stamp.partition)?;
        lines.extend_from_slice(b",\"_offset\":");
        serde_json::to_writer(&mut *lines, &stamp.offset)?;
        lines.extend_from_slice(b",\"_epoch\":");
        serde_json::to_writer(&mut *lines, &stamp.epoch)?;
        lines.extend_from_slice(b",\"_timestamp\":");
        quote(lines, self.clock.text(stamp.timestamp.saturating_mul(1000)));
        if let Some(extra) = row.extra() {
            lines.extend_from_slice(b",\"_extra\":");
            serde_json::to_writer(&mut *lines, extra)?;
        }
        lines.extend_from_slice(b"}\n");
        Ok(())
    }

    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        Ok(match self.codec {
            Codec::None | Codec::Snappy => self.lines,
            Codec::Gzip => {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                gzip.write_all(&self.lines)?;
                gzip.finish()?
            }
            // In one piece: in a stream, zstd copies what it compresses.
            Codec::Zstd => zstd::bulk::compress(&self.lines, 1)?,
        })
    }
}

fn quote(lines: &mut Vec<u8>, text: &str) {
    lines.push(b'"');
    lines.extend_from_slice(text.as_bytes());
    lines.push(b'"');
}

/// Times as Hive writes them. A batch's times are close to each other: what is above the second is made anew only when it changes.
#[derive(Default)]
struct SqlClock {
    second: Option<i64>,
    text: String,
}

impl SqlClock {
    /// Out of the range of years 1 to 9999 there is no such text: the nearest end stands for it.
    fn text(&mut self, micros: i64) -> &str {
        const YEAR_ONE: i64 = -62_135_596_800_000_000;
        let micros = micros.clamp(YEAR_ONE, Timestamp::MAX.as_microsecond());
        let (second, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        if self.second != Some(second) {
            let time = Timestamp::from_second(second).unwrap_or_default().to_zoned(TimeZone::UTC);
            self.text = time.strftime("%Y-%m-%d %H:%M:%S.000000").to_string();
            self.second = Some(second);
        }
        let fraction = self.text.len() - 6;
        self.text.truncate(fraction);
        let _ = write!(self.text, "{micros:06}");
        &self.text
    }
}
