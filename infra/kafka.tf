# One description of Kafka for whoever needs it, be the cluster ours or brought along: addresses, sign-in, network, ARNs.
locals {
  authentication = var.create_cluster ? "iam" : var.kafka.authentication
  tls            = var.create_cluster ? true : var.kafka.tls
  kafka_secret   = var.create_cluster ? null : var.kafka.secret_arn

  # An ARN that is known before the cluster is made: its uuid is left open.
  cluster_arn_pattern = var.create_cluster ? "arn:${local.partition}:kafka:${local.here}:cluster/${var.name}/*" : var.kafka.cluster_arn
  cluster_arn         = var.create_cluster ? aws_msk_cluster.this[0].arn : var.kafka.cluster_arn
  is_msk              = var.create_cluster || try(var.kafka.cluster_arn, null) != null

  bootstrap_servers = (
    var.create_cluster ? aws_msk_cluster.this[0].bootstrap_brokers_sasl_iam :
    length(var.kafka.bootstrap_servers) > 0 ? join(",", var.kafka.bootstrap_servers) :
    local.authentication == "iam" ? data.aws_msk_bootstrap_brokers.mine[0].bootstrap_brokers_sasl_iam :
    data.aws_msk_bootstrap_brokers.mine[0].bootstrap_brokers_sasl_scram
  )

  producer_subnet_ids         = var.create_cluster ? local.subnet_ids : var.kafka.subnet_ids
  producer_security_group_ids = var.create_cluster ? [aws_security_group.producer[0].id] : var.kafka.security_group_ids

  # KAFKA_* of the producer, see docs/CONFIGURATION.md.
  kafka_environment = merge(
    {
      KAFKA_BOOTSTRAP_SERVERS = local.bootstrap_servers
      KAFKA_SECURITY_PROTOCOL = "${local.authentication == "none" ? "" : "sasl_"}${local.tls ? "ssl" : "plaintext"}"
    },
    local.authentication == "none" ? {} : { KAFKA_SASL_MECHANISM = local.authentication == "iam" ? "AWS_MSK_IAM" : upper(local.authentication) },
    local.kafka_secret == null ? {} : { KAFKA_SASL_CREDENTIALS_SECRET = local.kafka_secret },
  )
}

data "aws_msk_bootstrap_brokers" "mine" {
  count       = !var.create_cluster && local.is_msk ? 1 : 0
  cluster_arn = var.kafka.cluster_arn
}
