# Several datasets in one deployment: what is shared, and what each has for itself. Paths of dataset files are for emulators (endpoint_url), and for tests.
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

variables {
  endpoint_url = "http://localhost:4566"
  datasets     = ["names", "../tests/datasets/orders.yaml", "tests/datasets/people.yaml"]
}

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

override_resource {
  target          = aws_msk_cluster.this
  override_during = plan
  values = {
    arn                        = "arn:aws:kafka:eu-central-1:111122223333:cluster/freshet/0a1b2c3d-1"
    bootstrap_brokers_sasl_iam = "b-1.freshet.example:9098,b-2.freshet.example:9098"
  }
}

run "datasets_share_cluster_network_bucket_and_database" {
  command = plan
  assert {
    condition     = length(aws_msk_cluster.this) == 1 && length(aws_vpc.this) == 1 && length(aws_nat_gateway.this) == 1 && length(aws_s3_bucket.lake) == 1 && length(aws_glue_catalog_database.this) == 1 && length(aws_athena_workgroup.this) == 1
    error_message = "Cluster, network, bucket, database or workgroup exist more than once."
  }
  assert {
    condition = alltrue([for each in [
      aws_lambda_function.producer, aws_lambda_function.consumer, aws_lambda_function_event_invoke_config.producer, aws_lambda_invocation.ensure_topic, aws_lambda_event_source_mapping.consumer, aws_lambda_permission.schedule,
      aws_cloudwatch_event_rule.schedule, aws_cloudwatch_event_target.producer, aws_cloudwatch_log_group.producer, aws_cloudwatch_log_group.consumer, aws_cloudwatch_dashboard.this, aws_cloudwatch_metric_alarm.lag,
      aws_iam_role.producer, aws_iam_role.consumer, aws_iam_role_policy.producer, aws_iam_role_policy.consumer, aws_glue_catalog_table.data, aws_glue_catalog_table.dead_letters,
    ] : keys(each) == ["names", "orders", "people"]])
    error_message = "Something that each dataset needs for itself does not exist once for each."
  }
  assert {
    condition     = { for name, f in aws_lambda_function.producer : name => f.environment[0].variables.DATASET } == { names = "names", orders = "../tests/datasets/orders.yaml", people = "tests/datasets/people.yaml" } && aws_lambda_function.consumer["orders"].environment[0].variables.DATASET_SHA256 == filesha256("../tests/datasets/orders.yaml")
    error_message = "A function does not know its dataset, or not the file's hash."
  }
  assert {
    condition     = { for name, f in aws_lambda_function.producer : name => contains(keys(f.environment[0].variables), "HASH_KEY_SECRET") } == { names = true, orders = false, people = true } && !strcontains(aws_iam_role_policy.producer["orders"].policy, "secretsmanager")
    error_message = "A producer that hashes nothing has a key, or one that hashes has none."
  }
  assert {
    condition     = { for name, m in aws_lambda_event_source_mapping.consumer : name => one(m.topics) } == { names = "names_topic", orders = "shop.orders", people = "people.topic" } && length(distinct([for m in aws_lambda_event_source_mapping.consumer : m.amazon_managed_kafka_event_source_config[0].consumer_group_id])) == 3
    error_message = "A mapping polls another dataset's topic, or in its group."
  }
  assert {
    condition = alltrue([for name, policy in aws_iam_role_policy.consumer : toset(flatten([for s in jsondecode(policy.policy).Statement : s.Resource if s.Sid == "DataAndLedger"])) == toset([
      for place in ["", "_ledger/"] : "arn:aws:s3:::freshet-lake-111122223333-eu-central-1/${place}${ { names = "names", orders = "shop/orders", people = "lake/people" }[name]}/*"
    ])])
    error_message = "A consumer may write into another dataset's lake."
  }
  assert {
    condition     = toset([for rule in aws_s3_bucket_lifecycle_configuration.lake[0].rule : rule.filter[0].prefix if length(rule.expiration) > 0]) == toset(["_athena/freshet/", "names_dead_letters/", "shop/orders_dead_letters/", "lake/people_dead_letters/"])
    error_message = "Something else than the datasets' dead letters and the query results expires."
  }
  assert {
    condition     = alltrue([for name in ["names", "orders", "people"] : length([for alarm in keys(aws_cloudwatch_metric_alarm.this) : alarm if startswith(alarm, "${name}-")]) == 13])
    error_message = "A dataset lacks alarms."
  }
}

run "each_dataset_has_its_own_format_and_columns" {
  command = plan
  assert {
    condition     = { for name, t in aws_glue_catalog_table.data : name => t.parameters.classification } == { names = "parquet", orders = "parquet", people = "json" }
    error_message = "A table is not of the format of its dataset file."
  }
  assert {
    condition     = aws_glue_catalog_table.data["people"].storage_descriptor[0].ser_de_info[0].serialization_library == "org.openx.data.jsonserde.JsonSerDe" && aws_glue_catalog_table.data["people"].storage_descriptor[0].input_format == "org.apache.hadoop.mapred.TextInputFormat" && aws_glue_catalog_table.data["people"].storage_descriptor[0].output_format == "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
    error_message = "NDJSON is not read as JSON."
  }
  assert {
    condition     = [for c in aws_glue_catalog_table.data["people"].storage_descriptor[0].columns : "${c.name} ${c.type}" if !startswith(c.name, "_")] == ["email string", "born timestamp", "adult boolean", "visits bigint"]
    error_message = "The columns of people are others: ${jsonencode([for c in aws_glue_catalog_table.data["people"].storage_descriptor[0].columns : "${c.name} ${c.type}"])}"
  }
  assert {
    condition     = [for c in aws_glue_catalog_table.data["orders"].storage_descriptor[0].columns : "${c.name} ${c.type}" if !startswith(c.name, "_")] == ["order_id bigint", "paid boolean", "ordered_at timestamp", "quantity bigint", "total double", "first_article string", "note string"]
    error_message = "The columns of orders are others: ${jsonencode([for c in aws_glue_catalog_table.data["orders"].storage_descriptor[0].columns : "${c.name} ${c.type}"])}"
  }
  assert {
    condition     = aws_glue_catalog_table.data["people"].storage_descriptor[0].location == "s3://freshet-lake-111122223333-eu-central-1/lake/people/" && aws_glue_catalog_table.dead_letters["people"].storage_descriptor[0].location == "s3://freshet-lake-111122223333-eu-central-1/lake/people_dead_letters/"
    error_message = "A table lies elsewhere than its dataset file says."
  }
  assert {
    condition     = aws_athena_named_query.saved["people.freshness"].query == "SELECT 1" && startswith(aws_athena_named_query.saved["orders.freshness"].query, "SELECT max(")
    error_message = "A dataset's own query does not replace the one that every dataset has, or another's."
  }
}

run "a_run_is_shorter_than_its_interval" {
  command = plan
  assert {
    condition     = { for name, rule in aws_cloudwatch_event_rule.schedule : name => rule.schedule_expression } == { names = "rate(5 minutes)", orders = "rate(15 minutes)", people = "rate(1 minute)" }
    error_message = "A schedule is not that of its dataset file, or not what EventBridge reads: ${jsonencode({ for name, rule in aws_cloudwatch_event_rule.schedule : name => rule.schedule_expression })}"
  }
  assert {
    condition     = { for name, f in aws_lambda_function.producer : name => f.timeout } == { names = 180, orders = 90, people = 90 }
    error_message = "A producer has not its run and a minute to end it."
  }
  assert {
    condition     = alltrue([for d in local.datasets : d.schedule.run_seconds < 60 * d.schedule.every_minutes])
    error_message = "A run does not end before the next one starts."
  }
  assert {
    # In shorter periods most would be empty, and in longer ones none could be missed.
    condition     = { for name in ["names", "orders", "people"] : name => one(distinct([for key, alarm in aws_cloudwatch_metric_alarm.this : alarm.period if startswith(key, "${name}-producer-") && !endswith(key, "mismatch")])) } == { names = 300, orders = 900, people = 300 }
    error_message = "The alarms on runs do not count by runs."
  }
}
