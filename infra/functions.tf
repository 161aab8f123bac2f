# Both functions of each dataset. Terraform makes them with the first code; later code is shipped by `cargo lambda deploy`, which Terraform leaves alone.
locals {
  zip_folder = coalesce(var.zip_folder, "${path.module}/../target/lambda/${var.architecture}")

  # The time that a run takes beyond its fetches: sign-in, topic, the last deliveries.
  producer_timeout_seconds = { for name, d in local.datasets : name => min(900, d.schedule.run_seconds + 60) }

  shared_environment = {
    for name, d in local.datasets : name => merge(
      {
        DATASET           = d.choice
        DATASET_SHA256    = d.sha256
        METRICS_NAMESPACE = var.name
        S3_BUCKET         = local.bucket
      },
      local.emulated ? { S3_PATH_STYLE_ACCESS = "true" } : {},
    )
  }
}

resource "aws_lambda_function" "producer" {
  #checkov:skip=CKV_AWS_50:A run tells its story in one line of log and in metrics; tracing is paid for and needs one more permission
  #checkov:skip=CKV_AWS_116:A run that could not start is not caught up, so that its event is worth nothing
  #checkov:skip=CKV_AWS_173:The environment holds names and ARNs, no secret
  #checkov:skip=CKV_AWS_272:cargo lambda deploy ships the code, and signs nothing
  for_each      = local.datasets
  function_name = local.function_names[each.key].producer
  description   = "${each.value.source.url} to the topic ${each.value.topic.name}"
  role          = aws_iam_role.producer[each.key].arn
  filename      = "${local.zip_folder}/producer/bootstrap.zip"
  runtime       = "provided.al2023"
  handler       = "bootstrap"
  architectures = [var.architecture]
  memory_size   = var.producer_memory_mib
  timeout       = local.producer_timeout_seconds[each.key]

  # One run at a time; -1 reserves nothing.
  reserved_concurrent_executions = var.reserve_concurrency ? 1 : -1

  environment {
    variables = merge(
      local.shared_environment[each.key],
      local.kafka_environment,
      each.value.hashed ? { HASH_KEY_SECRET = local.hash_keys[each.key] } : {},
      contains(keys(var.api_authorization_secrets), each.key) ? { API_AUTHORIZATION_SECRET = var.api_authorization_secrets[each.key] } : {},
      var.producer_environment,
    )
  }

  dynamic "vpc_config" {
    for_each = length(local.producer_subnet_ids) > 0 ? [1] : []
    content {
      subnet_ids         = local.producer_subnet_ids
      security_group_ids = local.producer_security_group_ids
    }
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = var.log_level
    log_group             = aws_cloudwatch_log_group.producer[each.key].name
  }

  lifecycle {
    ignore_changes = [filename, source_code_hash]
  }
  depends_on = [aws_iam_role_policy.producer, aws_cloudwatch_log_group.producer, terraform_data.datasets]
}

resource "aws_lambda_function" "consumer" {
  #checkov:skip=CKV_AWS_50:An invocation tells its story in metrics; tracing is paid for and needs one more permission
  #checkov:skip=CKV_AWS_115:The topic's partitions bound it; a reservation would be taken from the account
  #checkov:skip=CKV_AWS_116:The event source mapping invokes it synchronously, and repeats what failed
  #checkov:skip=CKV_AWS_117:It speaks to S3 and Glue only, and a VPC would bring it nothing but a NAT
  #checkov:skip=CKV_AWS_173:The environment holds names and ARNs, no secret
  #checkov:skip=CKV_AWS_272:cargo lambda deploy ships the code, and signs nothing
  for_each      = local.datasets
  function_name = local.function_names[each.key].consumer
  description   = "The topic ${each.value.topic.name} to s3://${local.bucket}/${each.value.lake.prefix}/"
  role          = aws_iam_role.consumer[each.key].arn
  filename      = "${local.zip_folder}/consumer/bootstrap.zip"
  runtime       = "provided.al2023"
  handler       = "bootstrap"
  architectures = [var.architecture]
  memory_size   = var.consumer_memory_mib
  timeout       = var.consumer_timeout_seconds

  environment {
    variables = merge(
      local.shared_environment[each.key],
      var.create_catalog ? { GLUE_DATABASE = local.database } : {},
      var.consumer_environment,
    )
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = var.log_level
    log_group             = aws_cloudwatch_log_group.consumer[each.key].name
  }

  lifecycle {
    ignore_changes = [filename, source_code_hash]
  }
  depends_on = [aws_iam_role_policy.consumer, aws_cloudwatch_log_group.consumer, terraform_data.datasets]
}

# A run that could not start is not caught up: the next one comes by itself.
resource "aws_lambda_function_event_invoke_config" "producer" {
  for_each                     = local.datasets
  function_name                = aws_lambda_function.producer[each.key].function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

resource "aws_cloudwatch_log_group" "producer" {
  #checkov:skip=CKV_AWS_338:log_retention_days says how long, a month unless you want more
  for_each          = local.datasets
  name              = "/aws/lambda/${local.function_names[each.key].producer}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_cloudwatch_log_group" "consumer" {
  #checkov:skip=CKV_AWS_338:log_retention_days says how long, a month unless you want more
  for_each          = local.datasets
  name              = "/aws/lambda/${local.function_names[each.key].consumer}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}
