# Glue: a database for the deployment, and of each dataset the table of its rows and the table of its dead letters.
locals {
  database = replace(var.name, "-", "_")

  # What the consumer adds to every row (functions/pipeline/src/lake/schema.rs); a test holds this list, and the types above, against the code's.
  system_columns = [
    { name = "_partition", type = "int", comment = "Kafka partition" },
    { name = "_offset", type = "bigint", comment = "Kafka offset" },
    { name = "_epoch", type = "int", comment = "Life of the partition's offsets, see DESIGN.md" },
    { name = "_timestamp", type = "timestamp", comment = "Kafka timestamp, UTC" },
    { name = "_extra", type = "string", comment = "Fields that no column names, as JSON" },
  ]

  dead_letter_columns = [
    { name = "id", type = "string", comment = "A letter may be stored twice: count distinct ids" },
    { name = "dataset", type = "string", comment = "" },
    { name = "stage", type = "string", comment = "transform and deliver are the producer's, decode is the consumer's" },
    { name = "error", type = "string", comment = "What was wrong" },
    { name = "topic", type = "string", comment = "" },
    { name = "partition", type = "int", comment = "Null for a record that never reached the topic" },
    { name = "epoch", type = "int", comment = "" },
    { name = "offset", type = "bigint", comment = "" },
    { name = "timestamp", type = "bigint", comment = "Milliseconds since 1970" },
    { name = "key", type = "string", comment = "Base64" },
    { name = "headers", type = "array<struct<name:string,value:string>>", comment = "Values are base64" },
    { name = "payload", type = "string", comment = "Base64" },
  ]

  # How Athena reads each `lake.format`.
  formats = {
    parquet = {
      classification = "parquet"
      input          = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
      output         = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"
      serde          = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
    }
    ndjson = {
      classification = "json"
      input          = "org.apache.hadoop.mapred.TextInputFormat"
      output         = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
      serde          = "org.openx.data.jsonserde.JsonSerDe"
    }
  }
}

resource "aws_glue_catalog_database" "this" {
  count       = var.create_catalog ? 1 : 0
  name        = local.database
  description = "Lake of the deployment ${var.name}"
}

# Directories are registered by the consumer, before the first object is written into one: no crawler and no partition projection.
resource "aws_glue_catalog_table" "data" {
  for_each      = { for name, d in local.datasets : name => d if var.create_catalog }
  database_name = aws_glue_catalog_database.this[0].name
  name          = each.key
  description   = try(each.value.description, null)
  table_type    = "EXTERNAL_TABLE"

  parameters = {
    EXTERNAL       = "TRUE"
    classification = local.formats[each.value.lake.format].classification
  }

  dynamic "partition_keys" {
    for_each = ["dt", "hour"]
    content {
      name = partition_keys.value
      type = "string"
    }
  }

  storage_descriptor {
    location      = "s3://${local.bucket}/${each.value.lake.prefix}/"
    input_format  = local.formats[each.value.lake.format].input
    output_format = local.formats[each.value.lake.format].output

    ser_de_info {
      serialization_library = local.formats[each.value.lake.format].serde
      parameters            = { "serialization.format" = "1" }
    }

    dynamic "columns" {
      # The system's first: an appended column is then the last, as Athena's check of older partitions needs it.
      for_each = concat(
        local.system_columns,
        [for c in each.value.columns : { name = c.name, type = local.hive_types[c.type], comment = try(c.description, "") }],
      )
      content {
        name    = columns.value.name
        type    = columns.value.type
        comment = columns.value.comment
      }
    }
  }
}

# Both functions write dead letters, and neither registers: here projection is the simpler truth. It ends where the lifecycle rule deletes.
resource "aws_glue_catalog_table" "dead_letters" {
  for_each      = { for name, d in local.datasets : name => d if var.create_catalog }
  database_name = aws_glue_catalog_database.this[0].name
  name          = "${each.key}_dead_letters"
  description   = "Records of ${each.key} that could not become rows, whole, with the reason"
  table_type    = "EXTERNAL_TABLE"

  parameters = {
    EXTERNAL                    = "TRUE"
    classification              = "json"
    "projection.enabled"        = "true"
    "projection.dt.type"        = "date"
    "projection.dt.format"      = "yyyy-MM-dd"
    "projection.dt.range"       = "NOW-${var.dead_letter_retention_days + 1}DAYS,NOW+1DAYS"
    "storage.location.template" = "s3://${local.bucket}/${local.prefixes[each.key].dead_letters}/dt=$${dt}/"
  }

  partition_keys {
    name = "dt"
    type = "string"
  }

  storage_descriptor {
    location      = "s3://${local.bucket}/${local.prefixes[each.key].dead_letters}/"
    input_format  = local.formats.ndjson.input
    output_format = local.formats.ndjson.output

    ser_de_info {
      serialization_library = local.formats.ndjson.serde
      parameters            = { "serialization.format" = "1" }
    }

    dynamic "columns" {
      for_each = local.dead_letter_columns
      content {
        name    = columns.value.name
        type    = columns.value.type
        comment = columns.value.comment
      }
    }
  }
}
