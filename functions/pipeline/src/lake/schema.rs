//! The table's columns, in order: the system's, then the dataset's. Glue, Arrow and SQL all see this one list.
//!
//! The system's come first so that a column that is appended is the table's last. A Glue partition keeps the columns of the
//! day when it was registered, and Athena holds those of JSON tables against the table's by their place:
//! <https://docs.aws.amazon.com/athena/latest/ug/updates-and-partitions.html>

use crate::dataset::Dataset;

/// A column that the consumer adds to every row. Its id is below every id of a dataset file.
#[derive(Debug, Clone, Copy)]
pub struct SystemColumn {
    pub id: i32,
    pub name: &'static str,
    pub hive: &'static str,
    pub comment: &'static str,
}

/// Partition number, offset, epoch and Kafka timestamp identify the row's record; `_extra` holds, as JSON text, the fields
/// that no column names.
pub const SYSTEM_COLUMNS: [SystemColumn; 5] = [
    SystemColumn { id: 1, name: "_partition", hive: "int", comment: "Kafka partition" },
    SystemColumn { id: 2, name: "_offset", hive: "bigint", comment: "Kafka offset" },
    SystemColumn { id: 3, name: "_epoch", hive: "int", comment: "Life of the partition's offsets, see DESIGN.md" },
    SystemColumn { id: 4, name: "_timestamp", hive: "timestamp", comment: "Kafka timestamp, UTC" },
    SystemColumn { id: 5, name: "_extra", hive: "string", comment: "Fields that no column names, as JSON" },
];

/// The Hive partition columns; both are strings, as in the keys. Their ids are reserved for table formats that want them.
pub const PARTITION_COLUMNS: [(&str, &str); 2] = [("dt", "string"), ("hour", "string")];

/// The dead-letter table, partitioned by `dt`.
pub const DEAD_LETTER_COLUMNS: [(&str, &str); 12] = [
    ("id", "string"),
    ("dataset", "string"),
    ("stage", "string"),
    ("error", "string"),
    ("topic", "string"),
    ("partition", "int"),
    ("epoch", "int"),
    ("offset", "bigint"),
    ("timestamp", "bigint"),
    ("key", "string"),
    ("headers", "array<struct<name:string,value:string>>"),
    ("payload", "string"),
];

/// Name and Hive type of each column of the data table, without the partition columns.
pub fn hive_columns(dataset: &Dataset) -> Vec<(String, &'static str)> {
    let own = dataset.columns.iter().map(|c| (c.name.clone(), c.kind.hive()));
    SYSTEM_COLUMNS.iter().map(|c| (c.name.to_owned(), c.hive)).chain(own).collect()
}

/// The same columns as an Arrow schema, each with its Parquet field id. Timestamps are UTC microseconds.
#[cfg(feature = "arrow")]
pub fn arrow_schema(dataset: &Dataset) -> arrow_schema::Schema {
    use std::collections::HashMap;

    use arrow_schema::{DataType, Field, Schema, TimeUnit};

    use crate::dataset::Type;

    let micros = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |id: i32, name: &str, data_type, nullable| {
        let id = HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
        Field::new(name, data_type, nullable).with_metadata(id)
    };
    let own = dataset.columns.iter().map(|column| {
        let data_type = match column.kind {
            Type::String => DataType::Utf8,
            Type::Boolean => DataType::Boolean,
            Type::Integer => DataType::Int64,
            Type::Double => DataType::Float64,
            Type::Timestamp => micros(),
        };
        // Nullable also where required: a column that becomes required later must still read older objects.
        field(column.id, &column.name, data_type, true)
    });
    let system = SYSTEM_COLUMNS.iter().map(|column| {
        let data_type = match column.hive {
            "int" => DataType::Int32,
            "bigint" => DataType::Int64,
            "timestamp" => micros(),
            _ => DataType::Utf8,
        };
        field(column.id, column.name, data_type, column.name == "_extra")
    });
    Schema::new(system.chain(own).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "arrow")]
    #[test]
    fn glue_columns_and_arrow_schema_have_the_same_names_in_the_same_order() {
        let dataset = crate::datasets::load("names").unwrap();
        let hive: Vec<_> = hive_columns(&dataset).into_iter().map(|(name, _)| name).collect();
        let arrow: Vec<_> = arrow_schema(&dataset).fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(hive, arrow);
        assert_eq!(hive[..5], ["_partition", "_offset", "_epoch", "_timestamp", "_extra"]);
    }

    #[test]
    fn the_dead_letter_table_has_the_fields_of_a_dead_letter() {
        let letter = crate::lake::DeadLetter {
            id: String::new(),
            dataset: String::new(),
            stage: String::new(),
            error: String::new(),
            topic: String::new(),
            partition: None,
            epoch: None,
            offset: None,
            timestamp: 0,
            key: None,
            headers: Vec::new(),
            payload: None,
        };
        let text = String::from_utf8(crate::lake::to_ndjson(&[letter])).unwrap();
        let mut at = 0;
        for (name, _) in DEAD_LETTER_COLUMNS {
            let place = text.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} is not in {text}"));
            assert!(place >= at, "{name} is out of order");
            at = place;
        }
        assert_eq!(text.matches("\":").count(), DEAD_LETTER_COLUMNS.len());
    }
}
