# A dashboard a dataset: API, topic, event source, consumer, lake, from top to bottom as a record flows.
locals {
  dashboards = {
    for name, d in local.datasets : name => [
      {
        title = "API to producer", stat = "Sum"
        metrics = [for metric in ["RecordsFetched", "FetchFailures", "FetchRetries", "RecordsRejected"] :
        [var.name, metric, "dataset", name, "function", "producer"]]
      },
      {
        title = "Producer to topic", stat = "Sum"
        metrics = [for metric in ["RecordsPublished", "DeliveryFailures"] :
        [var.name, metric, "dataset", name, "function", "producer"]]
      },
      {
        title   = "Topic to consumer: offset lag", stat = "Maximum"
        metrics = [["AWS/Lambda", "OffsetLag", "FunctionName", local.function_names[name].consumer]]
      },
      {
        title = "Consumer to lake", stat = "Sum"
        metrics = [for metric in ["RowsStored", "ObjectsWritten", "DuplicatesDropped", "RangesAdopted"] :
        [var.name, metric, "dataset", name, "function", "consumer"]]
      },
      {
        title   = "Freshness of stored rows, ms", stat = "Maximum"
        metrics = [[var.name, "Freshness", "dataset", name, "function", "consumer"]]
      },
      {
        title = "Bytes in and out", stat = "Sum"
        metrics = [for metric in ["BytesIn", "BytesOut"] :
        [var.name, metric, "dataset", name, "function", "consumer"]]
      },
      {
        title = "What needs a look", stat = "Sum"
        metrics = [for metric in ["DeadLetters", "OffsetGaps", "CreateTimeBatches", "DatasetMismatch"] :
        [var.name, metric, "dataset", name, "function", "consumer"]]
      },
      {
        title = "Errors and throttles", stat = "Sum"
        metrics = concat([for function in ["producer", "consumer"] : [for metric in ["Errors", "Throttles"] :
        ["AWS/Lambda", metric, "FunctionName", local.function_names[name][function]]]]...)
      },
      {
        title   = "Duration, ms", stat = "Maximum"
        metrics = [for function in ["producer", "consumer"] : ["AWS/Lambda", "Duration", "FunctionName", local.function_names[name][function]]]
      },
    ]
  }
}

resource "aws_cloudwatch_dashboard" "this" {
  for_each       = local.datasets
  dashboard_name = "${var.name}-${each.key}"
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type = "alarm", x = 0, y = 0, width = 24, height = 3
        properties = {
          title  = "Alarms of ${each.key}"
          alarms = [for alarm in concat(local.lag_alarms, keys(local.alarms)) : "arn:${local.partition}:cloudwatch:${local.here}:alarm:${var.name}-${alarm}" if startswith(alarm, "${each.key}-")]
        }
      }],
      [for index, widget in local.dashboards[each.key] : {
        type = "metric", x = 8 * (index % 3), y = 3 + 6 * floor(index / 3), width = 8, height = 6
        properties = {
          title   = widget.title
          region  = local.region
          stat    = widget.stat
          period  = 300
          metrics = widget.metrics
        }
      }],
    )
  })
}
