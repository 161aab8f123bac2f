# The switches of the functions, of the event source mapping and of the schedule.
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

override_resource {
  target          = aws_msk_cluster.this
  override_during = plan
  values = {
    arn                        = "arn:aws:kafka:eu-central-1:111122223333:cluster/freshet/0a1b2c3d-1"
    bootstrap_brokers_sasl_iam = "b-1.freshet.example:9098,b-2.freshet.example:9098"
  }
}

override_resource {
  target          = aws_lambda_event_source_mapping.consumer
  override_during = plan
  values          = { maximum_retry_attempts = -1, maximum_record_age_in_seconds = -1 }
}

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

run "the_functions_follow_their_variables" {
  command = plan
  variables {
    name                      = "staging"
    architecture              = "x86_64"
    producer_memory_mib       = 512
    consumer_memory_mib       = 128
    consumer_timeout_seconds  = 300
    log_level                 = "DEBUG"
    log_retention_days        = 365
    reserve_concurrency       = false
    producer_environment      = { FETCH_EVERY_SECONDS = "30" }
    hash_key_secrets          = { names = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mine-AbCdEf" }
    consumer_environment      = { CONSUMER_CONCURRENCY = "8" }
    api_authorization_secrets = { names = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-AbCdEf" }
    tags                      = { Team = "lake" }
  }
  assert {
    condition     = aws_lambda_function.producer["names"].function_name == "staging-names-producer" && aws_lambda_function.consumer["names"].function_name == "staging-names-consumer"
    error_message = "The functions do not bear the deployment's name."
  }
  assert {
    condition     = alltrue([for f in [aws_lambda_function.producer["names"], aws_lambda_function.consumer["names"]] : f.architectures == tolist(["x86_64"]) && strcontains(f.filename, "/lambda/x86_64/") && f.logging_config[0].application_log_level == "DEBUG"])
    error_message = "Architecture, code or log level of a function is not that of the variables."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].memory_size == 512 && aws_lambda_function.consumer["names"].memory_size == 128 && aws_lambda_function.consumer["names"].timeout == 300
    error_message = "Memory or time limit of a function is not that of the variables."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].reserved_concurrent_executions == -1
    error_message = "An account without spare concurrency would be asked for a reservation."
  }
  assert {
    condition     = alltrue([for g in concat(values(aws_cloudwatch_log_group.producer), values(aws_cloudwatch_log_group.consumer), aws_cloudwatch_log_group.kafka) : g.retention_in_days == 365])
    error_message = "A log is not kept for as long as the variable says."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].environment[0].variables.FETCH_EVERY_SECONDS == "30" && aws_lambda_function.consumer["names"].environment[0].variables.CONSUMER_CONCURRENCY == "8"
    error_message = "A function lacks a variable of its environment that was asked for."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].environment[0].variables.API_AUTHORIZATION_SECRET == "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-AbCdEf" && contains(flatten([for s in jsondecode(aws_iam_role_policy.producer["names"].policy).Statement : s.Resource if s.Sid == "Secrets"]), "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-AbCdEf")
    error_message = "The producer does not know the secret of the API's authorization, or may not read it."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].environment[0].variables.HASH_KEY_SECRET == "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mine-AbCdEf" && length(module.hash_key) == 0
    error_message = "The hashes' key is not the one that was given, or another is made."
  }
  assert {
    condition     = local.tags == { Project = "freshet", Deployment = "staging", Team = "lake" }
    error_message = "The tags of every resource are others: ${jsonencode(local.tags)}"
  }
}

run "provisioned_pollers_skip_nothing_either" {
  command = plan
  variables {
    provisioned_pollers     = { minimum = 1, maximum = 3 }
    event_source_metrics    = true
    batch_size              = 500
    batching_window_seconds = 0
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].provisioned_poller_config[0].minimum_pollers == 1 && aws_lambda_event_source_mapping.consumer["names"].provisioned_poller_config[0].maximum_pollers == 3
    error_message = "The pollers are not those of the variable."
  }
  assert {
    # In this mode Lambda would take limits for Kafka, too.
    condition = alltrue([
      aws_lambda_event_source_mapping.consumer["names"].maximum_retry_attempts == -1,
      aws_lambda_event_source_mapping.consumer["names"].maximum_record_age_in_seconds == -1,
      aws_lambda_event_source_mapping.consumer["names"].bisect_batch_on_function_error == null,
      aws_lambda_event_source_mapping.consumer["names"].function_response_types == null,
      length(aws_lambda_event_source_mapping.consumer["names"].filter_criteria) == 0,
      length(aws_lambda_event_source_mapping.consumer["names"].destination_config) == 0,
      aws_lambda_event_source_mapping.consumer["names"].starting_position == "TRIM_HORIZON",
      aws_lambda_event_source_mapping.consumer["names"].amazon_managed_kafka_event_source_config[0].consumer_group_id == "freshet-names",
    ])
    error_message = "The mapping limits retries or age, bisects, filters, reports parts of a batch as done, has a destination for what it gives up, or begins elsewhere."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].metrics_config[0].metrics == toset(["EventCount"])
    error_message = "The mapping does not count events."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].batch_size == 500 && aws_lambda_event_source_mapping.consumer["names"].maximum_batching_window_in_seconds == 0
    error_message = "Batch size and window are not those of the variables."
  }
}

run "what_something_else_polls_has_no_mapping" {
  command = plan
  variables {
    create_event_source_mapping = false
  }
  assert {
    condition     = length(aws_lambda_event_source_mapping.consumer) == 0 && length(aws_cloudwatch_metric_alarm.lag) == 0 && !strcontains(aws_cloudwatch_dashboard.this["names"].dashboard_body, "offset-lag")
    error_message = "There is a mapping, or an alarm on its lag."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.consumer["names"].policy, "kafka") && !strcontains(aws_iam_role_policy.consumer["names"].policy, "ec2:")
    error_message = "The consumer's role may poll, and nobody polls with it."
  }
  assert {
    condition = jsonencode(output.event_sources.names) == jsonencode({
      FunctionName                      = "freshet-names-consumer"
      Topics                            = ["names_topic"]
      SelfManagedEventSource            = { Endpoints = { KAFKA_BOOTSTRAP_SERVERS = ["b-1.freshet.example:9098", "b-2.freshet.example:9098"] } }
      SelfManagedKafkaEventSourceConfig = { ConsumerGroupId = "freshet-names" }
      StartingPosition                  = "TRIM_HORIZON"
      BatchSize                         = 10000
      MaximumBatchingWindowInSeconds    = 60
    })
    error_message = "A poller of one's own is told something else: ${jsonencode(output.event_sources)}"
  }
}

run "paused_producers_do_not_start" {
  command = plan
  variables {
    schedule_enabled = false
  }
  assert {
    condition     = aws_cloudwatch_event_rule.schedule["names"].state == "DISABLED"
    error_message = "The schedule is not paused."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].enabled != false && length(aws_lambda_invocation.ensure_topic) == 1
    error_message = "What is on the topic would not be stored, or the topic not be made."
  }
  assert {
    condition     = toset([for key, alarm in aws_cloudwatch_metric_alarm.this : key if !alarm.actions_enabled]) == toset(["names-freshness", "names-producer-found-nothing"])
    error_message = "Alarms that are silent while paused are others than those on silence: ${jsonencode([for key, alarm in aws_cloudwatch_metric_alarm.this : key if !alarm.actions_enabled])}"
  }
}
