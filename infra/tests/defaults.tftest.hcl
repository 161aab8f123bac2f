# What `terraform apply` makes where nothing is said: the cheapest set-up that is sound.
#
# The real provider without an account: plans ask AWS for nothing but two data sources, which are overridden. A mocked provider cannot be used, it
# knows no ephemeral resources. What AWS would compute is given only where an assertion needs it.
#
# The hash's key is the one thing that no plan without an account shows: its module asks AWS for a random text while planning, and is replaced here.
# `make cloud-test` applies it, and looks for the key in state, plan and logs.
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
  # What Lambda takes where nothing is said: for ever.
  values = { maximum_retry_attempts = -1, maximum_record_age_in_seconds = -1 }
}

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

run "the_defaults_are_the_cheapest_sound_set_up" {
  command = plan
  assert {
    condition     = aws_msk_cluster.this[0].number_of_broker_nodes == 2 && aws_msk_cluster.this[0].broker_node_group_info[0].instance_type == "kafka.t3.small"
    error_message = "The cluster is not two of the smallest brokers."
  }
  assert {
    condition     = aws_msk_cluster.this[0].broker_node_group_info[0].storage_info[0].ebs_storage_info[0].volume_size == 10 && aws_appautoscaling_target.broker_volumes[0].max_capacity == 100
    error_message = "The brokers' disks do not begin at 10 GiB and end at 100."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_eip.nat) == 1 && length(aws_subnet.public) == 1 && length(aws_subnet.private) == 2
    error_message = "The network is not two private subnets with one NAT."
  }
  assert {
    condition     = alltrue([for e in aws_vpc_endpoint.s3 : e.vpc_endpoint_type == "Gateway"])
    error_message = "An endpoint of the VPC is not of the kind that is free."
  }
  assert {
    condition     = alltrue([for m in aws_lambda_event_source_mapping.consumer : length(m.provisioned_poller_config) == 0 && length(m.metrics_config) == 0])
    error_message = "The event source mapping is not on demand, or has metrics that are paid for."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].memory_size == 256 && aws_lambda_function.consumer["names"].memory_size == 256
    error_message = "The functions have not 256 MiB each."
  }
  assert {
    condition     = aws_athena_workgroup.this[0].configuration[0].bytes_scanned_cutoff_per_query == 10737418240
    error_message = "A query is not stopped at 10 GiB."
  }
  assert {
    condition     = !aws_s3_bucket.lake[0].force_destroy && !aws_athena_workgroup.this[0].force_destroy
    error_message = "A lake that is not empty could be destroyed."
  }
  assert {
    condition     = length(aws_sns_topic_subscription.email) == 0
    error_message = "Somebody is mailed without having asked."
  }
}

run "the_mapping_never_skips_a_record" {
  command = plan
  assert {
    condition = alltrue([for m in aws_lambda_event_source_mapping.consumer : alltrue([
      m.maximum_retry_attempts == -1,
      m.maximum_record_age_in_seconds == -1,
      m.bisect_batch_on_function_error == null,
      m.function_response_types == null,
      length(m.filter_criteria) == 0,
      length(m.destination_config) == 0,
    ])])
    error_message = "The mapping limits retries or age, bisects, filters, reports parts of a batch as done, or has a destination for what it gives up."
  }
  assert {
    condition     = alltrue([for m in aws_lambda_event_source_mapping.consumer : m.starting_position == "TRIM_HORIZON" && m.enabled != false])
    error_message = "The mapping does not begin with the topic's first record."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].amazon_managed_kafka_event_source_config[0].consumer_group_id == "freshet-names"
    error_message = "The consumer group is not fixed: a mapping that is made anew would not go on where the last one was."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].event_source_arn == aws_msk_cluster.this[0].arn && aws_lambda_event_source_mapping.consumer["names"].topics == toset([yamldecode(file("../datasets/names.yaml")).topic.name])
    error_message = "The mapping does not poll the dataset's topic on our cluster."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].batch_size == 10000 && aws_lambda_event_source_mapping.consumer["names"].maximum_batching_window_in_seconds == 60
    error_message = "Batch size and window are not those of the variables."
  }
  assert {
    condition     = length(aws_lambda_event_source_mapping.consumer["names"].source_access_configuration) == 0
    error_message = "The mapping signs in with something else than the function's role."
  }
}

run "a_run_that_could_not_start_is_not_caught_up" {
  command = plan
  assert {
    condition     = aws_cloudwatch_event_target.producer["names"].retry_policy[0].maximum_retry_attempts == 0 && aws_cloudwatch_event_target.producer["names"].retry_policy[0].maximum_event_age_in_seconds == 60
    error_message = "EventBridge would repeat the start of a run."
  }
  assert {
    condition     = aws_lambda_function_event_invoke_config.producer["names"].maximum_retry_attempts == 0 && aws_lambda_function_event_invoke_config.producer["names"].maximum_event_age_in_seconds == 60
    error_message = "Lambda would repeat a run, or keep its event for longer than a minute."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].reserved_concurrent_executions == 1
    error_message = "Two runs of the producer could overlap."
  }
  assert {
    condition     = aws_lambda_function.consumer["names"].reserved_concurrent_executions == -1
    error_message = "The consumer's partitions could not be worked on side by side."
  }
  assert {
    condition     = aws_cloudwatch_event_rule.schedule["names"].schedule_expression == "rate(5 minutes)" && aws_cloudwatch_event_rule.schedule["names"].state == "ENABLED"
    error_message = "The producer does not start as often as the dataset file says."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].timeout == 180 && aws_lambda_function.consumer["names"].timeout == 60
    error_message = "The producer has not its run and a minute to end it, or the consumer not the minute that the variable says."
  }
  assert {
    condition     = aws_lambda_permission.schedule["names"].principal == "events.amazonaws.com" && aws_lambda_permission.schedule["names"].action == "lambda:InvokeFunction"
    error_message = "EventBridge may not start the producer."
  }
}

run "both_functions_are_of_the_same_make" {
  command = plan
  assert {
    condition = alltrue([for f in concat(values(aws_lambda_function.producer), values(aws_lambda_function.consumer)) : alltrue([
      f.architectures == tolist(["arm64"]),
      f.runtime == "provided.al2023",
      f.logging_config[0].log_format == "JSON",
      f.logging_config[0].application_log_level == "INFO",
      f.logging_config[0].log_group == "/aws/lambda/${f.function_name}",
    ])])
    error_message = "A function is not arm64, not on provided.al2023, or does not log JSON into its own group."
  }
  assert {
    condition     = endswith(aws_lambda_function.producer["names"].filename, "target/lambda/arm64/producer/bootstrap.zip") && endswith(aws_lambda_function.consumer["names"].filename, "target/lambda/arm64/consumer/bootstrap.zip")
    error_message = "The first code is not where make build puts it."
  }
  assert {
    condition     = alltrue([for g in concat(values(aws_cloudwatch_log_group.producer), values(aws_cloudwatch_log_group.consumer), aws_cloudwatch_log_group.kafka) : g.retention_in_days == 30])
    error_message = "A log is kept for ever."
  }
  assert {
    condition     = length(aws_lambda_function.producer["names"].vpc_config) == 1 && length(aws_lambda_function.consumer["names"].vpc_config) == 0
    error_message = "The producer is outside the VPC, or the consumer inside."
  }
  assert {
    condition = aws_lambda_function.producer["names"].environment[0].variables == tomap({
      DATASET                 = "names"
      DATASET_SHA256          = filesha256("../datasets/names.yaml")
      HASH_KEY_SECRET         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf"
      KAFKA_BOOTSTRAP_SERVERS = "b-1.freshet.example:9098,b-2.freshet.example:9098"
      KAFKA_SASL_MECHANISM    = "AWS_MSK_IAM"
      KAFKA_SECURITY_PROTOCOL = "sasl_ssl"
      METRICS_NAMESPACE       = "freshet"
      S3_BUCKET               = "freshet-lake-111122223333-eu-central-1"
    })
    error_message = "The producer's environment is another: ${jsonencode(aws_lambda_function.producer["names"].environment[0].variables)}"
  }
  assert {
    condition = aws_lambda_function.consumer["names"].environment[0].variables == tomap({
      DATASET           = "names"
      DATASET_SHA256    = filesha256("../datasets/names.yaml")
      GLUE_DATABASE     = "freshet"
      METRICS_NAMESPACE = "freshet"
      S3_BUCKET         = "freshet-lake-111122223333-eu-central-1"
    })
    error_message = "The consumer's environment is another: ${jsonencode(aws_lambda_function.consumer["names"].environment[0].variables)}"
  }
  assert {
    condition     = jsondecode(aws_lambda_invocation.ensure_topic["names"].input) == { ensure_topic = true }
    error_message = "The topic is not made before it is polled."
  }
}

run "a_person_can_paste_the_outputs" {
  command = plan
  assert {
    condition     = output.deploy_commands[0] == "cargo lambda deploy freshet-names-consumer --binary-name consumer --lambda-dir target/lambda/arm64 --region eu-central-1" && length(output.deploy_commands) == 2
    error_message = "The commands that ship code are others: ${jsonencode(output.deploy_commands)}"
  }
  assert {
    condition     = output.log_commands.names == ["aws logs tail /aws/lambda/freshet-names-consumer --follow --region eu-central-1", "aws logs tail /aws/lambda/freshet-names-producer --follow --region eu-central-1"]
    error_message = "The commands that follow the logs are others: ${jsonencode(output.log_commands)}"
  }
  assert {
    condition     = output.dashboard_urls.names == "https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1#dashboards/dashboard/${aws_cloudwatch_dashboard.this["names"].dashboard_name}"
    error_message = "The dashboard's address is another: ${output.dashboard_urls.names}"
  }
  assert {
    condition     = output.query.names.workgroup == "freshet" && output.query.names.database == "freshet" && startswith(output.query.names.sql, "SELECT * FROM names WHERE dt = ")
    error_message = "The query is another: ${jsonencode(output.query)}"
  }
  assert {
    condition     = output.verify_commands == ["S3_BUCKET=freshet-lake-111122223333-eu-central-1 S3_REGION=eu-central-1 GLUE_DATABASE=freshet cargo run -p freshet -- --dataset names verify --deep --dead-letter-days 30"]
    error_message = "The command that verifies is another: ${jsonencode(output.verify_commands)}"
  }
}
