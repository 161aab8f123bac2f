//! Reads the rows' origins out of data objects, and the letters' offsets out of dead-letter objects.

use std::io::Read;

use bytes::Bytes;
use datafusion::arrow::array::{Array, Int32Array, Int64Array};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pipeline::lake::{DataKey, DeadLetter};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::inventory::Rows;
use super::runs::Runs;

/// Where one row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Origin {
    #[serde(rename = "_partition")]
    partition: i32,
    #[serde(rename = "_offset")]
    offset: i64,
    #[serde(rename = "_epoch")]
    epoch: i64,
}

/// The rows of a data object. The error says what is wrong with it, as the end of a sentence.
pub fn read(key: &DataKey, body: Bytes) -> Result<Rows, String> {
    let sha256 = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
    let origins = match key.extension.as_str() {
        "parquet" => parquet(body)?,
        extension => ndjson(&unpacked(extension, &body)?)?,
    };
    let ours = |o: &Origin| o.partition == key.partition && o.epoch == i64::from(key.epoch);
    let strangers = origins.iter().filter(|o| !ours(o)).count() as u64;
    let ordered = origins.is_sorted_by(|a, b| a.offset < b.offset);
    let (offsets, repeated) = Runs::of(origins.iter().map(|o| o.offset).collect());
    Ok(Rows { sha256, count: origins.len() as u64, offsets, repeated, ordered, strangers })
}

/// The offsets of the consumer's letters in a dead-letter object; repeats are allowed there.
pub fn read_letters(body: &[u8]) -> Result<Runs, String> {
    #[derive(Deserialize)]
    struct Letter {
        offset: Option<i64>,
    }
    let letters: Vec<Letter> = lines(&unpacked("json.gz", body)?)?;
    Ok(Runs::of(letters.into_iter().filter_map(|letter| letter.offset).collect()).0)
}

/// The letters of a dead-letter object, whole.
pub fn whole_letters(body: &[u8]) -> Result<Vec<DeadLetter>, String> {
    lines(&unpacked("json.gz", body)?)
}

fn parquet(body: Bytes) -> Result<Vec<Origin>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(|e| format!("is no Parquet file ({e})"))?;
    let columns = ["_partition", "_offset", "_epoch"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let batches = builder.with_projection(mask).build().map_err(|e| format!("cannot be read ({e})"))?;
    let mut origins = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|e| format!("cannot be read ({e})"))?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("has no column {name}"));
        let wrong = |name: &str| format!("has a column {name} of another type, or with NULLs");
        let int = |name: &str| -> Result<Int32Array, String> {
            let found = column(name)?.as_any().downcast_ref::<Int32Array>().filter(|a| a.null_count() == 0);
            found.cloned().ok_or_else(|| wrong(name))
        };
        let (partitions, epochs) = (int("_partition")?, int("_epoch")?);
        let offsets = column("_offset")?.as_any().downcast_ref::<Int64Array>().filter(|a| a.null_count() == 0);
        let offsets = offsets.ok_or_else(|| wrong("_offset"))?;
        let rows = partitions.values().iter().zip(offsets.values()).zip(epochs.values());
        origins.extend(rows.map(|((partition, offset), epoch)| Origin {
            partition: *partition,
            offset: *offset,
            epoch: i64::from(*epoch),
        }));
    }
    Ok(origins)
}

fn ndjson(text: &[u8]) -> Result<Vec<Origin>, String> {
    lines(text)
}

/// One JSON object a line. A blank line is an error: Athena reads it as a row of NULLs.
fn lines<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<Vec<T>, String> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |(i, line)| serde_json::from_slice(line).map_err(|e| format!("cannot be read in line {} ({e})", i + 1));
    text.split(|byte| *byte == b'\n').enumerate().map(parse).collect()
}

fn unpacked(extension: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    // An object without a byte is an object without a row, whatever its codec.
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    let read = match extension {
        "json.gz" => flate2::read::MultiGzDecoder::new(body).read_to_end(&mut text).map(|_| ()),
        "json.zst" => zstd::stream::copy_decode(body, &mut text),
        "json" => {
            text.extend_from_slice(body);
            Ok(())
        }
        other => return Err(format!("has the unknown extension .{other}")),
    };
    read.map_err(|e| format!("cannot be unpacked as .{extension} ({e})"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn key(extension: &str) -> DataKey {
        let directory = "dt=2026-11-23/hour=05".parse().unwrap();
        DataKey { directory, topic: "t".into(), partition: 2, epoch: 1, start: 0, extension: extension.into() }
    }

    fn line(partition: i32, offset: i64) -> String {
        format!("{{\"name\":\"é\",\"_partition\":{partition},\"_offset\":{offset},\"_epoch\":1}}\n")
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_codec_of_ndjson_is_read_alike() {
        let text = line(2, 3) + &line(2, 4);
        let bodies = [
            ("json", text.clone().into_bytes()),
            ("json.gz", gzip(&text)),
            ("json.zst", zstd::encode_all(text.as_bytes(), 1).unwrap()),
        ];
        for (extension, body) in bodies {
            let rows = read(&key(extension), body.into()).unwrap();
            assert_eq!((rows.count, rows.repeated, rows.ordered, rows.strangers), (2, 0, true, 0), "{extension}");
            assert_eq!(rows.offsets, Runs::of(vec![3, 4]).0);
        }
    }

    #[test]
    fn repeats_disorder_and_strangers_are_told() {
        let text = line(2, 4) + &line(2, 3) + &line(0, 4);
        let rows = read(&key("json"), text.into()).unwrap();
        assert_eq!((rows.count, rows.repeated, rows.ordered, rows.strangers), (3, 1, false, 1));
    }

    #[test]
    fn objects_without_a_row_are_read_and_broken_ones_are_refused() {
        for body in [Vec::new(), gzip("")] {
            assert_eq!(read(&key("json.gz"), body.into()).unwrap().count, 0);
        }
        assert!(read(&key("json"), Bytes::from_static(b"{}\n\n{}")).unwrap_err().contains("line 1"));
        assert!(read(&key("json.gz"), Bytes::from_static(b"{}")).unwrap_err().contains("cannot be unpacked"));
        assert!(read(&key("parquet"), Bytes::new()).unwrap_err().contains("no Parquet file"));
    }

    #[test]
    fn letters_are_read_with_repeats_and_without_offsets() {
        let text = "{\"offset\":5}\n{\"offset\":5}\n{\"offset\":null}\n";
        assert_eq!(read_letters(&gzip(text)).unwrap(), Runs::of(vec![5]).0);
    }
}
