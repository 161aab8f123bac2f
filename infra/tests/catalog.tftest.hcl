# What Athena sees: tables, workgroup, saved queries. That engines read the values is shown by `make cloud-test`.
# The provider and the overrides are explained in defaults.tftest.hcl.
provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "111122223333" }
}

override_data {
  target = data.aws_availability_zones.available
  values = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
}

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

run "the_tables_columns_are_the_datasets" {
  command = plan
  assert {
    # The system's first, so that a column that is appended is the last.
    condition = [for c in aws_glue_catalog_table.data["names"].storage_descriptor[0].columns : "${c.name} ${c.type}"] == concat(
      ["_partition int", "_offset bigint", "_epoch int", "_timestamp timestamp", "_extra string"],
      [for c in yamldecode(file("../datasets/names.yaml")).columns : "${c.name} ${c.type}"],
    )
    error_message = "The table has other columns: ${jsonencode([for c in aws_glue_catalog_table.data["names"].storage_descriptor[0].columns : "${c.name} ${c.type}"])}"
  }
  assert {
    condition     = [for c in aws_glue_catalog_table.data["names"].storage_descriptor[0].columns : c.comment if c.name == "zip"] == [one([for c in yamldecode(file("../datasets/names.yaml")).columns : c.description if c.name == "zip"])]
    error_message = "A column's comment is not its description in the dataset file."
  }
  assert {
    condition     = [for k in aws_glue_catalog_table.data["names"].partition_keys : "${k.name} ${k.type}"] == ["dt string", "hour string"]
    error_message = "The table is not partitioned by dt and hour."
  }
  assert {
    condition     = aws_glue_catalog_table.data["names"].name == "names" && aws_glue_catalog_table.data["names"].database_name == "freshet" && aws_glue_catalog_table.data["names"].table_type == "EXTERNAL_TABLE" && aws_glue_catalog_table.data["names"].storage_descriptor[0].location == "s3://freshet-lake-111122223333-eu-central-1/names/"
    error_message = "The table bears another name, or lies elsewhere."
  }
  assert {
    condition     = aws_glue_catalog_table.data["names"].storage_descriptor[0].ser_de_info[0].serialization_library == "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe" && aws_glue_catalog_table.data["names"].storage_descriptor[0].input_format == "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat" && aws_glue_catalog_table.data["names"].storage_descriptor[0].output_format == "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"
    error_message = "The table is not read as Parquet."
  }
  assert {
    condition     = aws_glue_catalog_table.data["names"].parameters.classification == "parquet" && !anytrue([for name in keys(aws_glue_catalog_table.data["names"].parameters) : startswith(name, "projection.")])
    error_message = "Partitions of the table are projected: what the consumer registers would be ignored."
  }
}

run "dead_letters_have_a_table_of_their_own" {
  command = plan
  assert {
    condition     = [for c in aws_glue_catalog_table.dead_letters["names"].storage_descriptor[0].columns : c.name] == ["id", "dataset", "stage", "error", "topic", "partition", "epoch", "offset", "timestamp", "key", "headers", "payload"]
    error_message = "The table has other columns: ${jsonencode([for c in aws_glue_catalog_table.dead_letters["names"].storage_descriptor[0].columns : c.name])}"
  }
  assert {
    condition     = aws_glue_catalog_table.dead_letters["names"].name == "names_dead_letters" && aws_glue_catalog_table.dead_letters["names"].storage_descriptor[0].location == "s3://freshet-lake-111122223333-eu-central-1/names_dead_letters/" && aws_glue_catalog_table.dead_letters["names"].storage_descriptor[0].ser_de_info[0].serialization_library == "org.openx.data.jsonserde.JsonSerDe"
    error_message = "The table bears another name, lies elsewhere, or is not read as JSON."
  }
  assert {
    condition     = aws_glue_catalog_table.dead_letters["names"].parameters["storage.location.template"] == "s3://freshet-lake-111122223333-eu-central-1/names_dead_letters/dt=$${dt}/" && aws_glue_catalog_table.dead_letters["names"].parameters["projection.enabled"] == "true" && [for k in aws_glue_catalog_table.dead_letters["names"].partition_keys : k.name] == ["dt"]
    error_message = "The days of dead letters, which nobody registers, are not projected."
  }
}

run "the_workgroup_decides_and_the_questions_are_saved" {
  command = plan
  variables {
    bytes_scanned_limit_gib = 2
  }
  assert {
    condition     = aws_athena_workgroup.this[0].configuration[0].enforce_workgroup_configuration && aws_athena_workgroup.this[0].configuration[0].engine_version[0].selected_engine_version == "Athena engine version 3" && aws_athena_workgroup.this[0].configuration[0].bytes_scanned_cutoff_per_query == 2147483648
    error_message = "A client could override the workgroup, its engine is another, or its limit is."
  }
  assert {
    condition     = one(aws_athena_workgroup.this[0].configuration[0].result_configuration[0].encryption_configuration).encryption_option == "SSE_S3" && aws_athena_workgroup.this[0].configuration[0].result_configuration[0].output_location == "s3://freshet-lake-111122223333-eu-central-1/_athena/freshet/"
    error_message = "Results are not encrypted, or lie among the rows."
  }
  assert {
    condition     = toset(keys(aws_athena_named_query.saved)) == toset(["names.latest_rows", "names.freshness", "names.duplicates", "names.dead_letters_by_reason", "names.people_by_nation"])
    error_message = "Other queries are saved: ${jsonencode(keys(aws_athena_named_query.saved))}"
  }
  assert {
    condition     = aws_athena_named_query.saved["names.people_by_nation"].query == one(yamldecode(file("../datasets/names.yaml")).queries).sql && aws_athena_named_query.saved["names.people_by_nation"].description == one(yamldecode(file("../datasets/names.yaml")).queries).description
    error_message = "The dataset's own query is another: ${aws_athena_named_query.saved["names.people_by_nation"].query}"
  }
  assert {
    condition     = length(regexall("GROUP BY \"_partition\", \"_epoch\", \"_offset\"\\s+HAVING count\\(\\*\\) > 1$", aws_athena_named_query.saved["names.duplicates"].query)) == 1
    error_message = "Duplicates are looked for by something else than partition, epoch and offset: ${aws_athena_named_query.saved["names.duplicates"].query}"
  }
}

run "without_a_catalog_nothing_is_registered" {
  command = plan
  variables {
    create_catalog              = false
    create_cluster              = false
    create_event_source_mapping = false
    kafka                       = { bootstrap_servers = ["kafka.example:9092"], authentication = "none", tls = false }
  }
  assert {
    condition     = length(aws_glue_catalog_database.this) + length(aws_glue_catalog_table.data) + length(aws_glue_catalog_table.dead_letters) + length(aws_athena_workgroup.this) + length(aws_athena_named_query.saved) == 0
    error_message = "Something of a catalog is made."
  }
  assert {
    condition     = !contains(keys(aws_lambda_function.consumer["names"].environment[0].variables), "GLUE_DATABASE") && !strcontains(aws_iam_role_policy.consumer["names"].policy, "glue:")
    error_message = "The consumer would register, or may."
  }
  assert {
    condition     = length(output.query) == 0 && !strcontains(output.verify_commands[0], "GLUE_DATABASE")
    error_message = "The outputs speak of a catalog."
  }
}
