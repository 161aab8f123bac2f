//! Others: what a first version in Rust looks like, and the least that any version has to do.

use std::io::{BufWriter, Cursor, Write};
use std::sync::Arc;

use arrow_json::ReaderBuilder;
use arrow_schema::{DataType, Field, Schema};
use aws_lambda_events::kafka::KafkaEvent;
use base64_simd::STANDARD;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

/// Every record as a tree, with its offset beside the columns.
fn trees(payload: &[u8]) -> Result<Vec<Value>, Failure> {
    let event: KafkaEvent = serde_json::from_slice(payload)?;
    let mut rows = Vec::new();
    for record in event.records.into_values().flatten() {
        let value = STANDARD.decode_to_vec(record.value.unwrap_or_default())?;
        let mut row: Value = serde_json::from_slice(&value)?;
        row["_partition"] = json!(record.partition);
        row["_offset"] = json!(record.offset);
        row["_epoch"] = json!(0);
        row["_timestamp"] = json!(record.timestamp.0.timestamp_micros());
        rows.push(row);
    }
    Ok(rows)
}

/// Ours, with timestamps without a zone: arrow-json does not know zones by name.
pub fn schema() -> Arc<Schema> {
    let ours = pipeline::lake::arrow_schema(&crate::ours::dataset("parquet", "zstd"));
    let without_zone = |field: &Arc<Field>| match field.data_type() {
        DataType::Timestamp(unit, _) => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Timestamp(*unit, None)))
        }
        _ => field.clone(),
    };
    Arc::new(Schema::new(ours.fields().iter().map(without_zone).collect::<Vec<_>>()))
}

/// aws_lambda_events, serde_json's trees, arrow-json.
pub fn naive_parquet(payload: &[u8], schema: &Arc<Schema>) -> Result<Bytes, Failure> {
    let rows = trees(payload)?;
    let mut decoder = ReaderBuilder::new(schema.clone()).with_batch_size(rows.len()).build_decoder()?;
    decoder.serialize(&rows)?;
    let batch = decoder.flush()?.ok_or("no rows")?;
    let compression = Compression::ZSTD(ZstdLevel::try_new(1)?);
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?.into())
}

/// The same trees as lines, in gzip at the level of ours.
pub fn naive_ndjson(payload: &[u8]) -> Result<Bytes, Failure> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Or each quotation mark would be a call of its own.
    let mut lines = BufWriter::new(gzip);
    for row in trees(payload)? {
        serde_json::to_writer(&mut lines, &row)?;
        lines.write_all(b"\n")?;
    }
    let gzip = lines.into_inner().map_err(|e| e.into_error())?;
    Ok(gzip.finish()?.into())
}

/// The values of an event, each still in base64: what the floor begins with.
pub fn values(payload: &[u8]) -> Vec<String> {
    let event: Value = serde_json::from_slice(payload).unwrap_or_default();
    let batches = event["records"].as_object().into_iter().flat_map(|records| records.values());
    let records = batches.filter_map(Value::as_array).flatten();
    records.filter_map(|record| Some(record["value"].as_str()?.to_owned())).collect()
}

/// Out of base64 and into zstd at level 1; nothing is parsed.
pub fn floor(values: &[String]) -> Result<Bytes, Failure> {
    let size = values.iter().map(|value| value.len() / 4 * 3 + 1).sum();
    let mut lines = Vec::with_capacity(size);
    for value in values {
        STANDARD.decode_append(value.as_bytes(), &mut lines)?;
        lines.push(b'\n');
    }
    Ok(zstd::stream::encode_all(Cursor::new(lines), 1)?.into())
}
