//! The two tables: the dataset's rows and its dead letters. Columns come from where the functions take them.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use pipeline::dataset::{Codec, Format};
use pipeline::lake::{DEAD_LETTER_COLUMNS, PARTITION_COLUMNS, arrow_schema};

use super::objects::LakeObjects;
use crate::Lake;

/// The session, and its tables and columns in words.
pub fn register(
    lake: &Lake,
    objects: Arc<LakeObjects>,
    runtime: RuntimeEnvBuilder,
) -> Result<(SessionContext, String)> {
    let config = SessionConfig::new()
        .with_information_schema(true)
        // Would read the footer of every object before any of them is needed.
        .with_collect_statistics(false)
        // Columns are what the dataset says, not what reads fastest.
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc()?);
    let bucket = format!("s3://{}", lake.target.bucket);
    context.register_object_store(ObjectStoreUrl::parse(&bucket)?.as_ref(), objects);

    let layout = &lake.target.layout;
    let rows = Table {
        name: lake.dataset.name.clone(),
        folder: format!("{bucket}/{}/", layout.prefix),
        schema: arrow_schema(&lake.dataset),
        format: file_format(lake.dataset.lake.format),
        extension: format!(".{}", lake.target.extension),
        partitions: PARTITION_COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect(),
    };
    // `<prefix>_dead_letters/dt=`: the folder before the directories.
    let letters_prefix = layout.dead_letters_prefix();
    let letters = Table {
        name: format!("{}_dead_letters", lake.dataset.name),
        folder: format!("{bucket}/{}", letters_prefix.trim_end_matches("dt=")),
        schema: dead_letter_schema(),
        format: json(FileCompressionType::GZIP),
        extension: ".json.gz".to_owned(),
        partitions: vec!["dt".to_owned()],
    };
    let mut in_words = String::new();
    for table in [rows, letters] {
        let fields = table.schema.fields().iter().map(|f| f.name().clone());
        let columns: Vec<String> = fields.chain(table.partitions.iter().cloned()).collect();
        in_words.push_str(&format!("  {}({})\n", table.name, columns.join(", ")));
        table.register(&context)?;
    }
    Ok((context, in_words))
}

struct Table {
    name: String,
    folder: String,
    schema: Schema,
    format: Arc<dyn FileFormat>,
    extension: String,
    partitions: Vec<String>,
}

impl Table {
    fn register(self, context: &SessionContext) -> Result<()> {
        let partitions = self.partitions.into_iter().map(|name| (name, DataType::Utf8)).collect();
        let options =
            ListingOptions::new(self.format).with_file_extension(self.extension).with_table_partition_cols(partitions);
        let config = ListingTableConfig::new(ListingTableUrl::parse(&self.folder)?)
            .with_listing_options(options)
            .with_schema(Arc::new(self.schema));
        context.register_table(self.name, Arc::new(ListingTable::try_new(config)?))?;
        Ok(())
    }
}

fn file_format(format: Format) -> Arc<dyn FileFormat> {
    match format {
        Format::Parquet(_) => Arc::new(ParquetFormat::default()),
        Format::Ndjson(Codec::Zstd) => json(FileCompressionType::ZSTD),
        Format::Ndjson(Codec::None) => json(FileCompressionType::UNCOMPRESSED),
        Format::Ndjson(_) => json(FileCompressionType::GZIP),
    }
}

fn json(compression: FileCompressionType) -> Arc<dyn FileFormat> {
    Arc::new(JsonFormat::default().with_file_compression_type(compression))
}

fn dead_letter_schema() -> Schema {
    let field = |(name, hive): (&str, &str)| {
        let data_type = match hive {
            "int" => DataType::Int32,
            "bigint" => DataType::Int64,
            "array<struct<name:string,value:string>>" => {
                let members = [Field::new("name", DataType::Utf8, true), Field::new("value", DataType::Utf8, true)];
                DataType::List(Arc::new(Field::new("item", DataType::Struct(Fields::from_iter(members)), true)))
            }
            _ => DataType::Utf8,
        };
        Field::new(name, data_type, true)
    };
    Schema::new(DEAD_LETTER_COLUMNS.into_iter().map(field).collect::<Vec<_>>())
}
