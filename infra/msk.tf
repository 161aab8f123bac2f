# The brokers: TLS and IAM only, no topic that nobody asked for, no unclean leader election.
resource "aws_msk_cluster" "this" {
  count                  = var.create_cluster ? 1 : 0
  cluster_name           = var.name
  kafka_version          = var.kafka_version
  number_of_broker_nodes = var.broker_count

  broker_node_group_info {
    instance_type   = var.broker_instance_type
    client_subnets  = local.subnet_ids
    security_groups = [aws_security_group.kafka[0].id]
    storage_info {
      ebs_storage_info {
        volume_size = var.broker_volume_gib
      }
    }
  }

  client_authentication {
    sasl {
      iam = true
    }
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = var.kms_key_arn
    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.this[0].arn
    revision = aws_msk_configuration.this[0].latest_revision
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.kafka[0].name
      }
    }
  }

  lifecycle {
    # The disks grow by themselves, and never shrink.
    ignore_changes = [broker_node_group_info[0].storage_info[0].ebs_storage_info[0].volume_size]
  }
}

# The producer makes its topic with the settings that the pipeline rests on; these are the cluster's for whatever else is made.
resource "aws_msk_configuration" "this" {
  count             = var.create_cluster ? 1 : 0
  name              = var.name
  server_properties = <<-PROPERTIES
    auto.create.topics.enable=false
    default.replication.factor=${min(var.broker_count, 3)}
    log.message.timestamp.type=LogAppendTime
    min.insync.replicas=${var.min_insync_replicas}
    unclean.leader.election.enable=false
  PROPERTIES
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_cloudwatch_log_group" "kafka" {
  #checkov:skip=CKV_AWS_338:log_retention_days says how long, a month unless you want more
  count             = var.create_cluster ? 1 : 0
  name              = "/aws/msk/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

# The brokers among themselves, the producer, and the event source mapping, whose interfaces lie in this group and these subnets.
resource "aws_security_group" "kafka" {
  count       = var.create_cluster ? 1 : 0
  name        = "${var.name}-kafka"
  description = "The brokers and the event source mapping"
  vpc_id      = local.vpc_id
  tags        = { Name = "${var.name}-kafka" }
}

resource "aws_vpc_security_group_ingress_rule" "kafka_from_itself" {
  count                        = var.create_cluster ? 1 : 0
  security_group_id            = aws_security_group.kafka[0].id
  description                  = "The event source mapping"
  referenced_security_group_id = aws_security_group.kafka[0].id
  ip_protocol                  = "tcp"
  from_port                    = 9098
  to_port                      = 9098
}

resource "aws_vpc_security_group_ingress_rule" "kafka_from_producer" {
  count                        = var.create_cluster ? 1 : 0
  security_group_id            = aws_security_group.kafka[0].id
  description                  = "The producers"
  referenced_security_group_id = aws_security_group.producer[0].id
  ip_protocol                  = "tcp"
  from_port                    = 9098
  to_port                      = 9098
}

resource "aws_vpc_security_group_egress_rule" "kafka_to_itself" {
  count                        = var.create_cluster ? 1 : 0
  security_group_id            = aws_security_group.kafka[0].id
  description                  = "The event source mapping to the brokers"
  referenced_security_group_id = aws_security_group.kafka[0].id
  ip_protocol                  = "tcp"
  from_port                    = 9098
  to_port                      = 9098
}

resource "aws_vpc_security_group_egress_rule" "kafka_to_aws" {
  count             = var.create_cluster ? 1 : 0
  security_group_id = aws_security_group.kafka[0].id
  description       = "The event source mapping to Lambda and STS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_appautoscaling_target" "broker_volumes" {
  count              = var.create_cluster && var.broker_volume_max_gib > var.broker_volume_gib ? 1 : 0
  service_namespace  = "kafka"
  resource_id        = aws_msk_cluster.this[0].arn
  scalable_dimension = "kafka:broker-storage:VolumeSize"
  min_capacity       = 1
  max_capacity       = var.broker_volume_max_gib
}

resource "aws_appautoscaling_policy" "broker_volumes" {
  count              = length(aws_appautoscaling_target.broker_volumes)
  name               = "${var.name}-broker-volumes"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.broker_volumes[0].service_namespace
  resource_id        = aws_appautoscaling_target.broker_volumes[0].resource_id
  scalable_dimension = aws_appautoscaling_target.broker_volumes[0].scalable_dimension
  target_tracking_scaling_policy_configuration {
    disable_scale_in = true
    target_value     = 60
    predefined_metric_specification {
      predefined_metric_type = "KafkaBrokerStorageUtilization"
    }
  }
}
