# The workgroup: where results go, how they are encrypted and how much a query may scan are its settings, not the client's.
resource "aws_athena_workgroup" "this" {
  count         = var.create_catalog ? 1 : 0
  name          = var.name
  description   = "Queries over the lake of the deployment ${var.name}"
  force_destroy = var.force_destroy

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = var.bytes_scanned_limit_gib * 1024 * 1024 * 1024

    engine_version {
      selected_engine_version = "Athena engine version 3"
    }

    result_configuration {
      output_location = "s3://${local.bucket}/${local.query_results_prefix}/"
      encryption_configuration {
        encryption_option = var.kms_key_arn == null ? "SSE_S3" : "SSE_KMS"
        kms_key_arn       = var.kms_key_arn
      }
    }
  }
}

locals {
  # Questions that every dataset answers; its file adds its own, or replaces one by its name.
  common_queries = {
    for name, d in local.datasets : name => [
      {
        name        = "latest_rows"
        description = "The newest rows of the last two days"
        sql         = <<-SQL
          SELECT ${join(", ", [for c in d.columns : "\"${c.name}\""])}, "_timestamp"
          FROM ${name}
          WHERE dt >= date_format(current_date - INTERVAL '1' DAY, '%Y-%m-%d')
          ORDER BY "_timestamp" DESC
          LIMIT 20
        SQL
      },
      {
        name        = "freshness"
        description = "When the newest row was published, and how old it is"
        sql         = <<-SQL
          SELECT max("_timestamp") AS newest,
                 date_diff('second', max("_timestamp"), CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp)) AS age_seconds
          FROM ${name}
          WHERE dt >= date_format(current_date - INTERVAL '1' DAY, '%Y-%m-%d')
        SQL
      },
      {
        name        = "duplicates"
        description = "Records that are stored more than once: must be none. Reads the whole lake"
        sql         = <<-SQL
          SELECT "_partition", "_epoch", "_offset", count(*) AS copies
          FROM ${name}
          GROUP BY "_partition", "_epoch", "_offset"
          HAVING count(*) > 1
        SQL
      },
      {
        name        = "dead_letters_by_reason"
        description = "What could not become a row, by stage and reason"
        sql         = <<-SQL
          SELECT stage, error, count(DISTINCT id) AS letters,
                 from_unixtime(max("timestamp") / 1000) AS newest
          FROM ${name}_dead_letters
          GROUP BY stage, error
          ORDER BY letters DESC
        SQL
      },
    ]
  }

  saved_queries = merge(flatten([
    for name, d in local.datasets : [
      for queries in [local.common_queries[name], try(d.queries, [])] : {
        for query in queries : "${name}.${query.name}" => merge({ description = "" }, query)
      }
    ]
  ])...)
}

resource "aws_athena_named_query" "saved" {
  for_each    = { for name, query in local.saved_queries : name => query if var.create_catalog }
  name        = each.key
  description = each.value.description
  workgroup   = aws_athena_workgroup.this[0].id
  database    = aws_glue_catalog_database.this[0].name
  query       = trimspace(each.value.sql)
}
