# Starts a run of the producer. A run that fails or finds the last one still at work is not repeated: the next comes by itself.
resource "aws_cloudwatch_event_rule" "schedule" {
  for_each            = local.datasets
  name                = "${var.name}-${each.key}"
  description         = "Runs ${local.function_names[each.key].producer}"
  schedule_expression = each.value.schedule.every_minutes == 1 ? "rate(1 minute)" : "rate(${each.value.schedule.every_minutes} minutes)"
  state               = var.schedule_enabled ? "ENABLED" : "DISABLED"
}

resource "aws_cloudwatch_event_target" "producer" {
  for_each = local.datasets
  rule     = aws_cloudwatch_event_rule.schedule[each.key].name
  arn      = aws_lambda_function.producer[each.key].arn
  retry_policy {
    maximum_retry_attempts       = 0
    maximum_event_age_in_seconds = 60
  }
  # Not before the topic is made: with one reserved execution a run would be in the way of making it.
  depends_on = [aws_lambda_permission.schedule, aws_lambda_function_event_invoke_config.producer, aws_lambda_invocation.ensure_topic]
}

resource "aws_lambda_permission" "schedule" {
  for_each      = local.datasets
  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.producer[each.key].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.schedule[each.key].arn
}
