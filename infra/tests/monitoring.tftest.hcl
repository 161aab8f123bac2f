# Alarms, and the dashboard in the order of the flow.
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
  target          = aws_sns_topic.alarms
  override_during = plan
  values          = { arn = "arn:aws:sns:eu-central-1:111122223333:freshet-alarms" }
}

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

run "silence_is_an_alarm_and_every_alarm_is_heard" {
  command = plan
  variables {
    alarm_email = "on-call@example.com"
  }
  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.this), values(aws_cloudwatch_metric_alarm.lag), aws_cloudwatch_metric_alarm.broker_disk) : alarm.alarm_actions == toset(["arn:aws:sns:eu-central-1:111122223333:freshet-alarms"]) && alarm.ok_actions == toset(["arn:aws:sns:eu-central-1:111122223333:freshet-alarms"]) && alarm.actions_enabled])
    error_message = "An alarm, or its end, does not go to the topic."
  }
  assert {
    condition     = aws_sns_topic_subscription.email[0].endpoint == "on-call@example.com" && aws_sns_topic_subscription.email[0].protocol == "email" && aws_sns_topic.alarms.kms_master_key_id == null
    error_message = "Nobody is mailed, or CloudWatch could not publish to the topic for its encryption."
  }
  assert {
    # Freshness is measured when rows are stored, and cannot grow when nothing is.
    condition     = [for key, alarm in aws_cloudwatch_metric_alarm.this : key if alarm.treat_missing_data == "breaching"] == ["names-freshness", "names-producer-found-nothing"] && aws_cloudwatch_metric_alarm.this["names-freshness"].metric_name == "Freshness"
    error_message = "Silence means something else: ${jsonencode([for key, alarm in aws_cloudwatch_metric_alarm.this : key if alarm.treat_missing_data == "breaching"])}"
  }
  assert {
    # Two runs of five minutes, and the window of a batch.
    condition     = aws_cloudwatch_metric_alarm.this["names-freshness"].threshold == 660000 && aws_cloudwatch_metric_alarm.this["names-freshness"].comparison_operator == "GreaterThanThreshold" && aws_cloudwatch_metric_alarm.this["names-freshness"].statistic == "Maximum"
    error_message = "Rows count as stale after another time than two runs and a window."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["names-producer-found-nothing"].threshold == 1 && aws_cloudwatch_metric_alarm.this["names-producer-found-nothing"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.this["names-producer-found-nothing"].statistic == "Sum"
    error_message = "A run that fetches nothing is no alarm."
  }
  assert {
    condition     = alltrue([for key, alarm in aws_cloudwatch_metric_alarm.this : alarm.threshold == 0 && alarm.comparison_operator == "GreaterThanThreshold" if !contains(["names-freshness", "names-producer-found-nothing"], key)])
    error_message = "An alarm on what should never be leaves some of it alone."
  }
  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.this) : alarm.evaluation_periods == alarm.datapoints_to_alarm && alarm.evaluation_periods * alarm.period <= (alarm.period < 3600 ? 86400 : 604800)])
    error_message = "An alarm looks back further than CloudWatch does."
  }
  assert {
    condition     = toset([for alarm in values(aws_cloudwatch_metric_alarm.this) : "${try(alarm.dimensions.function, alarm.dimensions.FunctionName)} ${alarm.metric_name}"]) == toset(["producer RecordsFetched", "producer RecordsRejected", "producer DeliveryFailures", "producer DatasetMismatch", "consumer DatasetMismatch", "consumer Freshness", "consumer DeadLetters", "consumer OffsetGaps", "consumer CreateTimeBatches", "freshet-names-producer Errors", "freshet-names-producer Throttles", "freshet-names-consumer Errors", "freshet-names-consumer Throttles"])
    error_message = "Something else is watched."
  }
}

run "a_lag_is_an_alarm_before_records_expire" {
  command = plan
  assert {
    condition     = aws_cloudwatch_metric_alarm.lag["names"].threshold == yamldecode(file("../datasets/names.yaml")).topic.retention_hours / 4 && aws_cloudwatch_metric_alarm.lag["names"].comparison_operator == "GreaterThanThreshold"
    error_message = "The consumer may be behind by another time than a quarter of the topic's retention."
  }
  assert {
    condition = { for q in aws_cloudwatch_metric_alarm.lag["names"].metric_query : q.id => length(q.metric) == 0 ? q.expression : "${q.metric[0].stat} of ${q.metric[0].namespace} ${q.metric[0].metric_name} in ${q.metric[0].period}" } == {
      hours     = "1 * lag / IF(FILL(published, 0) > 1, FILL(published, 0), 1)"
      lag       = "Maximum of AWS/Lambda OffsetLag in 3600"
      published = "Sum of freshet RecordsPublished in 3600"
    }
    error_message = "The lag is measured otherwise."
  }
  assert {
    condition     = [for q in aws_cloudwatch_metric_alarm.lag["names"].metric_query : q.id if q.return_data] == ["hours"] && one([for q in aws_cloudwatch_metric_alarm.lag["names"].metric_query : q.metric[0].dimensions if q.id == "lag"]) == tomap({ FunctionName = "freshet-names-consumer" })
    error_message = "The alarm is on something else than the hours behind, or on another function's lag."
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.broker_disk) == 2 && alltrue([for alarm in aws_cloudwatch_metric_alarm.broker_disk : alarm.dimensions["Cluster Name"] == "freshet" && alarm.metric_name == "KafkaDataLogsDiskUsed" && alarm.threshold == 85])
    error_message = "Not each broker's disk is watched."
  }
}

run "every_metric_is_one_that_somebody_writes" {
  command = plan
  assert {
    # docs/CONFIGURATION.md has a row for each metric of the code, and a test there sees to it.
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.this) : can(regex("\\| `${alarm.metric_name}` \\| \\w+ \\| (${alarm.dimensions.function}|both) \\|", file("../docs/CONFIGURATION.md"))) && alarm.dimensions.dataset == "names" if alarm.namespace == "freshet"])
    error_message = "An alarm is on a metric that its function does not write."
  }
  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.this) : contains(["Errors", "Throttles"], alarm.metric_name) && alarm.namespace == "AWS/Lambda" if alarm.namespace != "freshet"])
    error_message = "An alarm is on a metric that is neither ours nor Lambda's."
  }
  assert {
    condition = alltrue(flatten([for w in jsondecode(aws_cloudwatch_dashboard.this["names"].dashboard_body).widgets : [for m in w.properties.metrics :
      # The metric's row in the table of the documentation has its unit, which the widget's axis has, too.
      m[0] == "freshet" ? can(regex("\\| `${m[1]}` \\| ${w.properties.yAxis.left.label} \\| (${m[5]}|both) \\|", file("../docs/CONFIGURATION.md"))) && m[2] == "dataset" && m[3] == "names" && m[4] == "function" :
      m[0] == "AWS/Events" ? contains(["Invocations", "FailedInvocations"], m[1]) && m[2] == "RuleName" && m[3] == aws_cloudwatch_event_rule.schedule["names"].name :
      m[0] == "AWS/Lambda" && contains(["OffsetLag", "Invocations", "Errors", "Throttles", "Duration"], m[1]) && m[2] == "FunctionName" && contains(["freshet-names-producer", "freshet-names-consumer"], m[3])
    ] if w.type == "metric"]))
    error_message = "The dashboard shows a metric that nobody writes: ${aws_cloudwatch_dashboard.this["names"].dashboard_body}"
  }
  assert {
    # Five columns, which fill the 24 of the grid from left to right.
    condition     = [for w in jsondecode(aws_cloudwatch_dashboard.this["names"].dashboard_body).widgets : [w.x, w.width, w.properties.markdown] if w.type == "text"] == [[0, 4, "### Schedule"], [4, 5, "### → Producer"], [9, 5, "### → Topic"], [14, 5, "### → Consumer"], [19, 5, "### → Lake"]]
    error_message = "The dashboard is not in the order in which a record flows."
  }
  assert {
    condition = { for w in jsondecode(aws_cloudwatch_dashboard.this["names"].dashboard_body).widgets : w.x => w.properties.title... if w.type == "metric" && w.y < 22 } == {
      "0"  = ["Runs started", "Runs that failed, or could not start", "Run time"]
      "4"  = ["Fetched and published", "Retries, and fetches that brought nothing", "Dead letters: not transformed, not delivered"]
      "9"  = ["Lag", "Records in and out", "Offsets that never came, batches without LogAppendTime"]
      "14" = ["Invocations", "Invocation time", "Retries: ranges adopted, duplicates dropped"]
      "19" = ["Rows and objects", "Freshness of stored rows", "Bytes in and out"]
    }
    error_message = "A widget is not in the column of what it shows."
  }
  assert {
    # No two stand on the same place, and none reaches beyond the grid.
    condition = alltrue(flatten([for i, a in jsondecode(aws_cloudwatch_dashboard.this["names"].dashboard_body).widgets : [for j, b in jsondecode(aws_cloudwatch_dashboard.this["names"].dashboard_body).widgets :
      i >= j || a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y
    ]])) && alltrue([for w in jsondecode(aws_cloudwatch_dashboard.this["names"].dashboard_body).widgets : w.x + w.width <= 24])
    error_message = "Widgets of the dashboard lie on each other, or beyond its 24 columns."
  }
  assert {
    condition     = toset([for arn in jsondecode(aws_cloudwatch_dashboard.this["names"].dashboard_body).widgets[0].properties.alarms : split(":alarm:", arn)[1]]) == toset([for alarm in concat(values(aws_cloudwatch_metric_alarm.this), values(aws_cloudwatch_metric_alarm.lag)) : alarm.alarm_name])
    error_message = "The dashboard does not show each alarm of the dataset."
  }
}
