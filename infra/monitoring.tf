# Alarms on what needs a person, and a dashboard in the order in which a record flows. docs/CONFIGURATION.md explains each metric.
locals {
  # Every metric of ours has these two dimensions (functions/pipeline/src/telemetry.rs); the namespace is the deployment's name.
  producer_dimensions = { for name in keys(local.datasets) : name => { dataset = name, function = "producer" } }
  consumer_dimensions = { for name in keys(local.datasets) : name => { dataset = name, function = "consumer" } }

  # A metric that comes once a run needs periods at least as long as the schedule: in shorter ones most are empty, and neither silence nor failure shows.
  run_period = { for name, d in local.datasets : name => max(300, d.schedule.every_minutes * 60) }
  # Two runs and a batch may pass before silence means something.
  patience_periods = { for name, d in local.datasets : name => 2 + ceil((var.batching_window_seconds + 60) / local.run_period[name]) }

  # One metric, one threshold each. `missing` says what no data means.
  alarms = merge([
    for name, d in local.datasets : {
      "${name}-producer-errors" = {
        description = "Two runs of the producer in a row failed, or brought nothing: see its log for the reason."
        namespace   = "AWS/Lambda", metric = "Errors", dimensions = { FunctionName = local.function_names[name].producer }
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = local.run_period[name], periods = 2, missing = "notBreaching"
      }
      "${name}-producer-found-nothing" = {
        description = "No record was fetched: the API is empty or down, or the schedule does not run."
        namespace   = var.name, metric = "RecordsFetched", dimensions = local.producer_dimensions[name]
        statistic   = "Sum", threshold = 1, comparison = "LessThanThreshold", period = local.run_period[name], periods = local.patience_periods[name], missing = "breaching"
      }
      "${name}-producer-throttled" = {
        description = "Runs could not start: the last one was still at work (lower run_seconds), or the account's concurrency is used up (Service Quotas)."
        namespace   = "AWS/Lambda", metric = "Throttles", dimensions = { FunctionName = local.function_names[name].producer }
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = local.run_period[name], periods = 2, missing = "notBreaching"
      }
      "${name}-consumer-errors" = {
        description = "Batches fail again and again: a partition is not stored meanwhile. The consumer's log names the cure."
        namespace   = "AWS/Lambda", metric = "Errors", dimensions = { FunctionName = local.function_names[name].consumer }
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 3, missing = "notBreaching"
      }
      "${name}-consumer-throttled" = {
        description = "The consumer could not start: the account's concurrency is used up (Service Quotas)."
        namespace   = "AWS/Lambda", metric = "Throttles", dimensions = { FunctionName = local.function_names[name].consumer }
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 3, missing = "notBreaching"
      }
      # Measured when rows are stored, it cannot grow when nothing is: silence is the alarm.
      "${name}-freshness" = {
        description = "No fresh row reached the lake: read the consumer's log, then the producer's."
        namespace   = var.name, metric = "Freshness", dimensions = local.consumer_dimensions[name]
        statistic   = "Maximum", threshold = 1000 * (2 * d.schedule.every_minutes * 60 + var.batching_window_seconds), comparison = "GreaterThanThreshold"
        period      = local.run_period[name], periods = local.patience_periods[name], missing = "breaching"
      }
      "${name}-dead-letters" = {
        description = "Records on the topic could not become rows: run the saved query ${name}.dead_letters_by_reason."
        namespace   = var.name, metric = "DeadLetters", dimensions = local.consumer_dimensions[name]
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 1, missing = "notBreaching"
      }
      "${name}-rejected" = {
        description = "Records of the API could not be transformed: run the saved query ${name}.dead_letters_by_reason, stage transform."
        namespace   = var.name, metric = "RecordsRejected", dimensions = local.producer_dimensions[name]
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 1, missing = "notBreaching"
      }
      "${name}-undelivered" = {
        description = "Kafka did not take records: see the producer's log; they are in ${name}_dead_letters, stage deliver."
        namespace   = var.name, metric = "DeliveryFailures", dimensions = local.producer_dimensions[name]
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 1, missing = "notBreaching"
      }
      "${name}-offset-gaps" = {
        description = "Offsets were never delivered: records expired before they were stored (see the lag), or the topic is compacted or transactional (set cleanup.policy=delete)."
        namespace   = var.name, metric = "OffsetGaps", dimensions = local.consumer_dimensions[name]
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 1, missing = "notBreaching"
      }
      "${name}-create-time" = {
        description = "The topic is not LogAppendTime, which exactly-once rests on: set message.timestamp.type of the topic."
        namespace   = var.name, metric = "CreateTimeBatches", dimensions = local.consumer_dimensions[name]
        statistic   = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 1, missing = "notBreaching"
      }
      "${name}-producer-dataset-mismatch" = {
        description = "The producer's code embeds another dataset file than was applied: run make deploy."
        namespace   = var.name, metric = "DatasetMismatch", dimensions = local.producer_dimensions[name]
        statistic   = "Maximum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 1, missing = "notBreaching"
      }
      "${name}-consumer-dataset-mismatch" = {
        description = "The consumer's code embeds another dataset file than was applied: run make deploy."
        namespace   = var.name, metric = "DatasetMismatch", dimensions = local.consumer_dimensions[name]
        statistic   = "Maximum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, periods = 1, missing = "notBreaching"
      }
    }
  ]...)

  # An hour, or a run where they are rarer: a period without one would have nothing to measure the lag by.
  lag_period = { for name in keys(local.datasets) : name => max(3600, local.run_period[name]) }
  lag_alarms = [for name in keys(local.datasets) : "${name}-offset-lag" if var.create_event_source_mapping]

  # Paused producers are silent on purpose.
  silent_when_paused = ["producer-found-nothing", "freshness"]
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing
  actions_enabled     = var.schedule_enabled || !anytrue([for suffix in local.silent_when_paused : endswith(each.key, suffix)])
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# How many hours of production lie before the consumer, against the hours that the topic keeps: beyond them records are lost.
resource "aws_cloudwatch_metric_alarm" "lag" {
  for_each            = { for name, d in local.datasets : name => d if var.create_event_source_mapping }
  alarm_name          = "${var.name}-${each.key}-offset-lag"
  alarm_description   = "The consumer is behind by more than a quarter of the topic's retention (${each.value.topic.retention_hours} h): what expires is lost. Its log says why it does not get on."
  evaluation_periods  = 1
  threshold           = each.value.topic.retention_hours / 4
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "hours"
    label       = "Hours behind"
    return_data = true
    # A period in which nothing was published counts as one record: a lag that stays then shows as well. Filled wherever it stands, since a
    # missing operand makes the whole expression missing.
    expression = "${local.lag_period[each.key] / 3600} * lag / IF(FILL(published, 0) > 1, FILL(published, 0), 1)"
  }
  metric_query {
    id = "lag"
    metric {
      namespace   = "AWS/Lambda"
      metric_name = "OffsetLag"
      dimensions  = { FunctionName = local.function_names[each.key].consumer }
      stat        = "Maximum"
      period      = local.lag_period[each.key]
    }
  }
  metric_query {
    id = "published"
    metric {
      namespace   = var.name
      metric_name = "RecordsPublished"
      dimensions  = local.producer_dimensions[each.key]
      stat        = "Sum"
      period      = local.lag_period[each.key]
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "broker_disk" {
  count               = var.create_cluster ? var.broker_count : 0
  alarm_name          = "${var.name}-broker-${count.index + 1}-disk"
  alarm_description   = "The broker's disk is nearly full: raise broker_volume_max_gib, or shorten the topics' retention."
  namespace           = "AWS/Kafka"
  metric_name         = "KafkaDataLogsDiskUsed"
  dimensions          = { "Cluster Name" = var.name, "Broker ID" = tostring(count.index + 1) }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 3
  threshold           = 85
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "missing"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:CloudWatch could not publish to a topic under AWS's own key, and an alarm's text holds names and numbers, no record
  name = "${var.name}-alarms"
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AlarmsOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Action    = ["sns:Publish"]
      Resource  = ["arn:${local.partition}:sns:${local.here}:${var.name}-alarms"]
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_sns_topic_subscription" "email" {
  count     = var.alarm_email == null ? 0 : 1
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}
