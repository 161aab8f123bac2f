//! Parquet: one row group an object, statistics on, field ids from the dataset file, timestamps as UTC microseconds.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use pipeline::dataset::{Codec, Dataset, Type};
use pipeline::lake::arrow_schema;

use super::{EncodeError, Stamp};
use crate::decode::{Cell, Row};

pub struct ParquetEncoder {
    schema: Arc<Schema>,
    codec: Codec,
    columns: Vec<Column>,
    partition: Int32Builder,
    offset: Int64Builder,
    epoch: Int32Builder,
    timestamp: TimestampMicrosecondBuilder,
    extra: StringBuilder,
}

enum Column {
    String(StringBuilder),
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Double(Float64Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl ParquetEncoder {
    pub fn new(dataset: &Dataset, codec: Codec, rows: usize, bytes: usize) -> ParquetEncoder {
        let bytes = bytes / dataset.columns.len().max(1);
        let column = |kind| match kind {
            Type::String => Column::String(StringBuilder::with_capacity(rows, bytes)),
            Type::Boolean => Column::Boolean(BooleanBuilder::with_capacity(rows)),
            Type::Integer => Column::Integer(Int64Builder::with_capacity(rows)),
            Type::Double => Column::Double(Float64Builder::with_capacity(rows)),
            Type::Timestamp => Column::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC")),
        };
        ParquetEncoder {
            schema: Arc::new(arrow_schema(dataset)),
            codec,
            columns: dataset.columns.iter().map(|c| column(c.kind)).collect(),
            partition: Int32Builder::with_capacity(rows),
            offset: Int64Builder::with_capacity(rows),
            epoch: Int32Builder::with_capacity(rows),
            timestamp: TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            extra: StringBuilder::new(),
        }
    }

    pub fn append(&mut self, row: &Row, stamp: Stamp) {
        for (column, cell) in self.columns.iter_mut().zip(&row.cells) {
            // The decoder makes cells of the column's type only; anything else would be a null.
            match (column, cell) {
                (Column::String(builder), Cell::Text(text)) => builder.append_value(text),
                (Column::String(builder), _) => builder.append_null(),
                (Column::Boolean(builder), Cell::Boolean(value)) => builder.append_value(*value),
                (Column::Boolean(builder), _) => builder.append_null(),
                (Column::Integer(builder), Cell::Integer(value)) => builder.append_value(*value),
                (Column::Integer(builder), _) => builder.append_null(),
                (Column::Double(builder), Cell::Double(value)) => builder.append_value(*value),
                (Column::Double(builder), _) => builder.append_null(),
                (Column::Timestamp(builder), Cell::Timestamp(value)) => builder.append_value(*value),
                (Column::Timestamp(builder), _) => builder.append_null(),
            }
        }
        self.partition.append_value(stamp.partition);
        self.offset.append_value(stamp.offset);
        self.epoch.append_value(i32::try_from(stamp.epoch).unwrap_or(i32::MAX));
        self.timestamp.append_value(stamp.timestamp.saturating_mul(1000));
        self.extra.append_option(row.extra());
    }

    pub fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.epoch.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.extra.finish()),
        ];
        arrays.extend(self.columns.iter_mut().map(Column::finish));
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).map_err(|e| EncodeError(e.to_string()))?;
        let mut writer = ArrowWriter::try_new(Vec::new(), self.schema.clone(), Some(self.properties(&batch)?))?;
        if batch.num_rows() > 0 {
            writer.write(&batch)?;
        }
        Ok(writer.into_inner()?)
    }

    fn properties(&self, batch: &RecordBatch) -> Result<WriterProperties, EncodeError> {
        let compression = match self.codec {
            Codec::Snappy => Compression::SNAPPY,
            Codec::None | Codec::Gzip => Compression::UNCOMPRESSED,
            Codec::Zstd => Compression::ZSTD(ZstdLevel::try_new(1)?),
        };
        let mut properties = WriterProperties::builder()
            .set_compression(compression)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // An event holds far less: one row group an object.
            .set_max_row_group_row_count(Some(1_000_000))
            .set_created_by(concat!("freshet ", env!("CARGO_PKG_VERSION")).to_owned());
        for (field, values) in self.schema.fields().iter().zip(batch.columns()) {
            let column = ColumnPath::from(field.name().as_str());
            let texts = values.as_string_opt::<i32>();
            let repeats = texts.map_or(matches!(field.name().as_str(), "_partition" | "_epoch"), repeats);
            if repeats {
                continue;
            }
            properties = properties.set_column_dictionary_enabled(column.clone(), false);
            // Lengths apart from texts, and each number as its difference to the one before: fewer bytes, and half the work for zstd.
            let encoding = match field.data_type() {
                DataType::Utf8 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
                DataType::Int64 | DataType::Timestamp(..) => Encoding::DELTA_BINARY_PACKED,
                _ => Encoding::PLAIN,
            };
            properties = properties.set_column_encoding(column, encoding);
        }
        Ok(properties.build())
    }
}

/// Whether a dictionary pays: where values hardly repeat, building one is most of the column's cost, and is thrown away.
fn repeats(texts: &StringArray) -> bool {
    const SAMPLE: usize = 512;
    let sample = texts.iter().flatten().take(SAMPLE);
    let distinct: HashSet<&str> = sample.clone().collect();
    distinct.len() * 2 <= sample.count()
}

impl Column {
    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::String(builder) => Arc::new(builder.finish()),
            Column::Boolean(builder) => Arc::new(builder.finish()),
            Column::Integer(builder) => Arc::new(builder.finish()),
            Column::Double(builder) => Arc::new(builder.finish()),
            Column::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}
