# The event source mapping: polls the topic, invokes the consumer, commits only after success. It is retried until it succeeds and never configured to
# skip: no retry limit, no record age, no filter, no destination. A batch that cannot be stored blocks its partition, and alarms say so.
locals {
  # Fixed: a mapping that is made anew goes on where the last one was.
  consumer_groups = { for name in keys(local.datasets) : name => "${var.name}-${name}" }

  source_access = concat(
    local.authentication == "scram-sha-512" ? [{ type = "SASL_SCRAM_512_AUTH", uri = local.kafka_secret }] : [],
    local.authentication == "scram-sha-256" ? [{ type = "SASL_SCRAM_256_AUTH", uri = local.kafka_secret }] : [],
    local.authentication == "plain" ? [{ type = "BASIC_AUTH", uri = local.kafka_secret }] : [],
    local.is_msk ? [] : [for id in var.kafka.subnet_ids : { type = "VPC_SUBNET", uri = "subnet:${id}" }],
    local.is_msk ? [] : [for id in var.kafka.security_group_ids : { type = "VPC_SECURITY_GROUP", uri = "security_group:${id}" }],
  )
}

# The producer makes the topic, with the settings that the pipeline rests on, before anything polls it.
resource "aws_lambda_invocation" "ensure_topic" {
  for_each      = local.datasets
  function_name = aws_lambda_function.producer[each.key].function_name
  input         = jsonencode({ ensure_topic = true })
  triggers      = { topic = jsonencode(each.value.topic) }
  depends_on = [
    aws_appautoscaling_policy.broker_volumes,
    aws_nat_gateway.this,
    aws_route_table_association.private,
    aws_vpc_security_group_egress_rule.producer_to_api,
    aws_vpc_security_group_egress_rule.producer_to_kafka,
    aws_vpc_security_group_ingress_rule.kafka_from_producer,
  ]
}

resource "aws_lambda_event_source_mapping" "consumer" {
  for_each                           = { for name, d in local.datasets : name => d if var.create_event_source_mapping }
  function_name                      = aws_lambda_function.consumer[each.key].arn
  event_source_arn                   = local.is_msk ? local.cluster_arn : null
  topics                             = [each.value.topic.name]
  starting_position                  = "TRIM_HORIZON"
  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = var.batching_window_seconds

  dynamic "amazon_managed_kafka_event_source_config" {
    for_each = local.is_msk ? [1] : []
    content {
      consumer_group_id = local.consumer_groups[each.key]
    }
  }

  dynamic "self_managed_event_source" {
    for_each = local.is_msk ? [] : [1]
    content {
      endpoints = { KAFKA_BOOTSTRAP_SERVERS = local.bootstrap_servers }
    }
  }

  dynamic "self_managed_kafka_event_source_config" {
    for_each = local.is_msk ? [] : [1]
    content {
      consumer_group_id = local.consumer_groups[each.key]
    }
  }

  dynamic "source_access_configuration" {
    for_each = local.source_access
    content {
      type = source_access_configuration.value.type
      uri  = source_access_configuration.value.uri
    }
  }

  dynamic "provisioned_poller_config" {
    for_each = var.provisioned_pollers == null ? [] : [var.provisioned_pollers]
    content {
      minimum_pollers = provisioned_poller_config.value.minimum
      maximum_pollers = provisioned_poller_config.value.maximum
    }
  }

  dynamic "metrics_config" {
    for_each = var.event_source_metrics ? [1] : []
    content {
      metrics = ["EventCount"]
    }
  }

  depends_on = [
    aws_glue_catalog_table.data,
    aws_lambda_invocation.ensure_topic,
    aws_s3_bucket_policy.lake,
    aws_vpc_security_group_egress_rule.kafka_to_aws,
    aws_vpc_security_group_egress_rule.kafka_to_itself,
    aws_vpc_security_group_ingress_rule.kafka_from_itself,
  ]
}
