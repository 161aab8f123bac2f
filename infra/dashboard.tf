# A dashboard a dataset, in the order of the page on one machine (docs/PAGE.md): schedule, producer, topic, consumer, lake from left to right, as a
# record flows, and below them what needs a look. tests/metric_names.rs compares each name and unit here with what the functions write.
locals {
  # Of a widget, `lambda` and `ours` have each function's metrics, `events` those of the schedule's rule. All of one widget have its unit.
  dashboard_columns = [
    {
      title = "Schedule", x = 0, width = 4
      widgets = [
        { title = "Runs started", unit = "Count", stat = "Sum", events = ["Invocations", "FailedInvocations"] },
        { title = "Runs that failed, or could not start", unit = "Count", stat = "Sum", lambda = { producer = ["Errors", "Throttles"] } },
        { title = "Run time", unit = "Milliseconds", stat = "Maximum", lambda = { producer = ["Duration"] } },
      ]
    },
    {
      title = "Producer", x = 4, width = 5
      widgets = [
        { title = "Fetched and published", unit = "Count", stat = "Sum", ours = { producer = ["RecordsFetched", "RecordsPublished"] } },
        { title = "Retries, and fetches that brought nothing", unit = "Count", stat = "Sum", ours = { producer = ["FetchRetries", "FetchFailures"] } },
        { title = "Dead letters: not transformed, not delivered", unit = "Count", stat = "Sum", ours = { producer = ["RecordsRejected", "DeliveryFailures"] } },
      ]
    },
    {
      title = "Topic", x = 9, width = 5
      widgets = [
        { title = "Lag", unit = "Count", stat = "Maximum", lambda = { consumer = ["OffsetLag"] } },
        { title = "Records in and out", unit = "Count", stat = "Sum", ours = { producer = ["RecordsPublished"], consumer = ["RowsStored"] } },
        { title = "Offsets that never came, batches without LogAppendTime", unit = "Count", stat = "Sum", ours = { consumer = ["OffsetGaps", "CreateTimeBatches"] } },
      ]
    },
    {
      title = "Consumer", x = 14, width = 5
      widgets = [
        { title = "Invocations", unit = "Count", stat = "Sum", lambda = { consumer = ["Invocations", "Errors", "Throttles"] } },
        { title = "Invocation time", unit = "Milliseconds", stat = "Maximum", lambda = { consumer = ["Duration"] } },
        { title = "Retries: ranges adopted, duplicates dropped", unit = "Count", stat = "Sum", ours = { consumer = ["RangesAdopted", "DuplicatesDropped"] } },
      ]
    },
    {
      title = "Lake", x = 19, width = 5
      widgets = [
        { title = "Rows and objects", unit = "Count", stat = "Sum", ours = { consumer = ["RowsStored", "ObjectsWritten"] } },
        { title = "Freshness of stored rows", unit = "Milliseconds", stat = "Maximum", ours = { consumer = ["Freshness"] } },
        { title = "Bytes in and out", unit = "Bytes", stat = "Sum", ours = { consumer = ["BytesIn", "BytesOut"] } },
      ]
    },
  ]
  dashboard_below = [
    { title = "Dead letters of every stage", unit = "Count", stat = "Sum", ours = { producer = ["RecordsRejected", "DeliveryFailures"], consumer = ["DeadLetters"] } },
    { title = "Code with another dataset file than was applied", unit = "Count", stat = "Maximum", ours = { producer = ["DatasetMismatch"], consumer = ["DatasetMismatch"] } },
  ]

  # Each widget with its place. Above stand the alarms and a line of titles.
  dashboard_cells = concat(
    flatten([for column in local.dashboard_columns : [for row, widget in column.widgets : merge(widget, { x = column.x, y = 4 + 6 * row, width = column.width })]]),
    [for index, widget in local.dashboard_below : merge(widget, { x = 12 * index, y = 22, width = 12 })],
  )
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
      [for index, column in local.dashboard_columns : {
        type = "text", x = column.x, y = 3, width = column.width, height = 1
        properties = {
          markdown   = index == 0 ? "### ${column.title}" : "### → ${column.title}"
          background = "transparent"
        }
      }],
      [for cell in local.dashboard_cells : {
        type = "metric", x = cell.x, y = cell.y, width = cell.width, height = 6
        properties = {
          title  = cell.title
          region = local.region
          stat   = cell.stat
          period = 300
          yAxis  = { left = { label = cell.unit, showUnits = false, min = 0 } }
          metrics = concat(
            [for metric in try(cell.events, []) : ["AWS/Events", metric, "RuleName", aws_cloudwatch_event_rule.schedule[each.key].name]],
            concat([for function in ["producer", "consumer"] : concat(
              [for metric in try(cell.lambda[function], []) : ["AWS/Lambda", metric, "FunctionName", local.function_names[each.key][function]]],
              [for metric in try(cell.ours[function], []) : [var.name, metric, "dataset", each.key, "function", function]],
            )]...),
          )
        }
      }],
    )
  })
}
