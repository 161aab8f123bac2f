locals {
  console = local.partition == "aws-cn" ? "console.amazonaws.cn" : local.partition == "aws-us-gov" ? "console.amazonaws-us-gov.com" : "console.aws.amazon.com"

  newest_rows    = { for name in keys(local.datasets) : name => "SELECT * FROM ${name} WHERE dt = date_format(current_date, '%Y-%m-%d') ORDER BY \"_timestamp\" DESC LIMIT 20" }
  dashboard_urls = { for name in keys(local.datasets) : name => "https://${local.region}.${local.console}/cloudwatch/home?region=${local.region}#dashboards/dashboard/${var.name}-${name}" }
}

output "query" {
  description = "To paste into Athena, or behind `aws athena start-query-execution`."
  value = var.create_catalog ? {
    for name in keys(local.datasets) : name => {
      workgroup = aws_athena_workgroup.this[0].name
      database  = local.database
      sql       = local.newest_rows[name]
    }
  } : {}
}

output "next_steps" {
  description = "What a person wants after an apply, as text: terraform output -raw next_steps."
  value = join("", concat(
    flatten([for name, functions in local.function_names : concat(
      var.create_catalog ? ["# Query ${name} in Athena, workgroup ${var.name}, database ${local.database}\n${local.newest_rows[name]}\n\n"] : [],
      ["# Dashboard\n${local.dashboard_urls[name]}\n\n"],
      ["# Logs\n${join("", [for function_name in values(functions) : "aws logs tail /aws/lambda/${function_name} --follow --region ${local.region}\n"])}\n"],
    )]),
    ["# New code, after make build\nmake ship\n"],
  ))
}

output "dashboard_urls" {
  description = "The dashboard of each dataset."
  value       = local.dashboard_urls
}

output "log_commands" {
  description = "Follow the logs."
  value       = { for name, functions in local.function_names : name => [for function_name in values(functions) : "aws logs tail /aws/lambda/${function_name} --follow --region ${local.region}"] }
}

output "deploy_commands" {
  description = "Ship new code after `make build`; Terraform leaves it alone."
  # The consumer's first, as the keys are sorted: it must know a new column before the producer fills it.
  value = flatten([
    for functions in values(local.function_names) : [
      for function, function_name in functions :
      "cargo lambda deploy ${function_name} --binary-name ${function} --lambda-dir target/lambda/${var.architecture} --region ${local.region}"
    ]
  ])
}

output "verify_commands" {
  description = "Prove that the lake holds each offset exactly once."
  value = [
    for name in keys(local.datasets) :
    "S3_BUCKET=${local.bucket} S3_REGION=${local.region}${var.create_catalog ? " GLUE_DATABASE=${local.database}" : ""} cargo run -p freshet -- --dataset ${name} verify --deep --dead-letter-days ${var.dead_letter_retention_days}"
  ]
}

output "functions" {
  description = "Names of the functions, by dataset."
  value       = local.function_names
}

output "schedules" {
  description = "Name of the EventBridge rule that starts each dataset's producer."
  value       = { for name, rule in aws_cloudwatch_event_rule.schedule : name => rule.name }
}

output "bucket" {
  description = "The lake's bucket."
  value       = local.bucket
}

output "bucket_policy" {
  description = "What the lake needs of a bucket policy: with create_bucket = false, merge it into yours."
  value       = local.bucket_policy
}

output "event_sources" {
  description = "How the topic of each dataset is polled, as Lambda's CreateEventSourceMapping takes it: for `freshet event-source`, or another poller of your own, with create_event_source_mapping = false."
  value = {
    for name, d in local.datasets : name => merge(
      {
        FunctionName                      = local.function_names[name].consumer
        Topics                            = [d.topic.name]
        SelfManagedEventSource            = { Endpoints = { KAFKA_BOOTSTRAP_SERVERS = split(",", local.bootstrap_servers) } }
        SelfManagedKafkaEventSourceConfig = { ConsumerGroupId = local.consumer_groups[name] }
        StartingPosition                  = "TRIM_HORIZON"
        BatchSize                         = var.batch_size
        MaximumBatchingWindowInSeconds    = var.batching_window_seconds
      },
      var.provisioned_pollers == null ? {} : {
        ProvisionedPollerConfig = { MinimumPollers = var.provisioned_pollers.minimum, MaximumPollers = var.provisioned_pollers.maximum }
      },
    )
  }
}

output "alarm_topic_arn" {
  description = "SNS topic of the alarms: subscribe your pager to it."
  value       = aws_sns_topic.alarms.arn
}
