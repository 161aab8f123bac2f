# Kafka, ours or brought along: how each is reached and signed into, by the producer and by the event source mapping, and what the roles may do there.
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

override_data {
  target = data.aws_msk_bootstrap_brokers.mine
  values = {
    bootstrap_brokers_sasl_iam   = "b-1.mine.example:9098"
    bootstrap_brokers_sasl_scram = "b-1.mine.example:9096"
  }
}

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

run "the_cluster_speaks_tls_and_iam_only" {
  command = plan
  assert {
    condition     = aws_msk_cluster.this[0].client_authentication[0].sasl[0].iam && aws_msk_cluster.this[0].client_authentication[0].sasl[0].scram != true && aws_msk_cluster.this[0].client_authentication[0].unauthenticated != true && length(aws_msk_cluster.this[0].client_authentication[0].tls) == 0
    error_message = "The cluster can be signed into otherwise than with IAM."
  }
  assert {
    condition     = aws_msk_cluster.this[0].encryption_info[0].encryption_in_transit[0].client_broker == "TLS" && aws_msk_cluster.this[0].encryption_info[0].encryption_in_transit[0].in_cluster
    error_message = "Something could speak to the brokers, or they among themselves, without TLS."
  }
  assert {
    condition = toset(split("\n", trimspace(aws_msk_configuration.this[0].server_properties))) == toset([
      "auto.create.topics.enable=false",
      "default.replication.factor=2",
      "log.message.timestamp.type=LogAppendTime",
      "min.insync.replicas=1",
      "unclean.leader.election.enable=false",
    ])
    error_message = "The cluster's properties are others: ${aws_msk_configuration.this[0].server_properties}"
  }
  assert {
    condition     = aws_msk_cluster.this[0].logging_info[0].broker_logs[0].cloudwatch_logs[0].enabled && aws_msk_cluster.this[0].logging_info[0].broker_logs[0].cloudwatch_logs[0].log_group == aws_cloudwatch_log_group.kafka[0].name
    error_message = "The brokers do not log."
  }
  assert {
    condition     = aws_appautoscaling_policy.broker_volumes[0].target_tracking_scaling_policy_configuration[0].disable_scale_in && aws_appautoscaling_policy.broker_volumes[0].target_tracking_scaling_policy_configuration[0].target_value == 60
    error_message = "The disks do not grow before they are full, or Terraform thinks that they could shrink."
  }
  assert {
    condition = alltrue([for rule in concat(aws_vpc_security_group_ingress_rule.kafka_from_itself, aws_vpc_security_group_ingress_rule.kafka_from_producer, aws_vpc_security_group_egress_rule.kafka_to_itself, aws_vpc_security_group_egress_rule.producer_to_kafka) :
      rule.from_port == 9098 && rule.to_port == 9098 && rule.ip_protocol == "tcp" && rule.cidr_ipv4 == null
    ])
    error_message = "The brokers are open on another port than that of IAM, or to addresses instead of groups."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.kafka_from_itself) == 1 && length(aws_vpc_security_group_egress_rule.kafka_to_itself) == 1 && aws_vpc_security_group_egress_rule.kafka_to_aws[0].to_port == 443
    error_message = "The event source mapping, whose interfaces lie in the brokers' group, reaches not the brokers, or not Lambda."
  }
}

run "larger_clusters_follow_their_variables" {
  command = plan
  variables {
    zone_count            = 3
    broker_count          = 6
    min_insync_replicas   = 2
    broker_instance_type  = "kafka.m7g.large"
    kafka_version         = "3.9.x"
    broker_volume_gib     = 50
    broker_volume_max_gib = 50
  }
  assert {
    condition     = aws_msk_cluster.this[0].number_of_broker_nodes == 6 && aws_msk_cluster.this[0].broker_node_group_info[0].instance_type == "kafka.m7g.large" && aws_msk_cluster.this[0].kafka_version == "3.9.x"
    error_message = "Number, type or version of the brokers is not that of the variables."
  }
  assert {
    condition     = length(aws_subnet.private) == 3 && length(local.subnet_ids) == 3
    error_message = "The brokers are not in three zones."
  }
  assert {
    condition     = length(regexall("(?m)^default.replication.factor=3$", aws_msk_configuration.this[0].server_properties)) == 1 && length(regexall("(?m)^min.insync.replicas=2$", aws_msk_configuration.this[0].server_properties)) == 1
    error_message = "The cluster's replication is not that of its brokers and the variable: ${aws_msk_configuration.this[0].server_properties}"
  }
  assert {
    condition     = length(aws_appautoscaling_target.broker_volumes) == 0 && length(aws_appautoscaling_policy.broker_volumes) == 0
    error_message = "Disks of which the largest size is the first one are scaled."
  }
  assert {
    condition     = [for alarm in aws_cloudwatch_metric_alarm.broker_disk : alarm.dimensions["Broker ID"]] == ["1", "2", "3", "4", "5", "6"]
    error_message = "Not each broker's disk is watched."
  }
}

run "ones_own_msk_cluster_is_signed_into_with_the_roles" {
  command = plan
  variables {
    create_cluster = false
    kafka = {
      cluster_arn        = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1"
      subnet_ids         = ["subnet-1", "subnet-2"]
      security_group_ids = ["sg-1"]
    }
  }
  assert {
    condition     = length(aws_msk_cluster.this) + length(aws_msk_configuration.this) + length(aws_cloudwatch_log_group.kafka) + length(aws_appautoscaling_target.broker_volumes) + length(aws_cloudwatch_metric_alarm.broker_disk) == 0
    error_message = "Something of a cluster is made beside one's own."
  }
  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.private) + length(aws_nat_gateway.this) + length(aws_security_group.kafka) + length(aws_security_group.producer) + length(aws_vpc_endpoint.s3) == 0
    error_message = "Something of a network is made without a cluster of ours in it."
  }
  assert {
    condition     = aws_lambda_function.producer["names"].vpc_config[0].subnet_ids == toset(["subnet-1", "subnet-2"]) && aws_lambda_function.producer["names"].vpc_config[0].security_group_ids == toset(["sg-1"])
    error_message = "The producer does not run in the subnets and the group that were given."
  }
  assert {
    condition     = { for name, value in aws_lambda_function.producer["names"].environment[0].variables : name => value if startswith(name, "KAFKA_") } == { KAFKA_BOOTSTRAP_SERVERS = "b-1.mine.example:9098", KAFKA_SASL_MECHANISM = "AWS_MSK_IAM", KAFKA_SECURITY_PROTOCOL = "sasl_ssl" }
    error_message = "The producer reaches Kafka otherwise: ${jsonencode(aws_lambda_function.producer["names"].environment[0].variables)}"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].event_source_arn == "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1" && length(aws_lambda_event_source_mapping.consumer["names"].source_access_configuration) == 0 && length(aws_lambda_event_source_mapping.consumer["names"].self_managed_event_source) == 0
    error_message = "The mapping does not poll the cluster that was given, or signs in with a secret."
  }
  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.producer["names"].policy).Statement : s.Sid => s.Resource if contains(["Cluster", "Topic"], s.Sid) } == {
      Cluster = ["arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1"]
      Topic   = ["arn:aws:kafka:eu-central-1:111122223333:topic/mine/0a1b2c3d-1/names_topic"]
    }
    error_message = "The producer may publish elsewhere: ${aws_iam_role_policy.producer["names"].policy}"
  }
  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.consumer["names"].policy).Statement : s.Sid => s.Resource if contains(["Cluster", "Topic", "ConsumerGroup", "LookUpCluster"], s.Sid) } == {
      Cluster       = ["arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1"]
      Topic         = ["arn:aws:kafka:eu-central-1:111122223333:topic/mine/0a1b2c3d-1/names_topic"]
      ConsumerGroup = ["arn:aws:kafka:eu-central-1:111122223333:group/mine/0a1b2c3d-1/freshet-names"]
      LookUpCluster = ["arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1"]
    }
    error_message = "The mapping may read elsewhere: ${aws_iam_role_policy.consumer["names"].policy}"
  }
}

run "ones_own_msk_cluster_is_signed_into_with_scram" {
  command = plan
  variables {
    create_cluster      = false
    secret_kms_key_arns = ["arn:aws:kms:eu-central-1:111122223333:key/of-the-secret"]
    kafka = {
      cluster_arn        = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1"
      authentication     = "scram-sha-512"
      secret_arn         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:AmazonMSK_mine-AbCdEf"
      subnet_ids         = ["subnet-1"]
      security_group_ids = ["sg-1"]
    }
  }
  assert {
    condition = { for name, value in aws_lambda_function.producer["names"].environment[0].variables : name => value if startswith(name, "KAFKA_") } == {
      KAFKA_BOOTSTRAP_SERVERS       = "b-1.mine.example:9096"
      KAFKA_SASL_CREDENTIALS_SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:AmazonMSK_mine-AbCdEf"
      KAFKA_SASL_MECHANISM          = "SCRAM-SHA-512"
      KAFKA_SECURITY_PROTOCOL       = "sasl_ssl"
    }
    error_message = "The producer reaches Kafka otherwise: ${jsonencode(aws_lambda_function.producer["names"].environment[0].variables)}"
  }
  assert {
    condition     = { for access in aws_lambda_event_source_mapping.consumer["names"].source_access_configuration : access.type => access.uri } == { SASL_SCRAM_512_AUTH = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:AmazonMSK_mine-AbCdEf" }
    error_message = "The mapping signs in otherwise: ${jsonencode(aws_lambda_event_source_mapping.consumer["names"].source_access_configuration)}"
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.producer["names"].policy, "kafka-cluster:") && !strcontains(aws_iam_role_policy.consumer["names"].policy, "kafka-cluster:")
    error_message = "A role has permissions of IAM on a cluster that is signed into with SCRAM."
  }
  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.consumer["names"].policy).Statement : s.Action if s.Sid == "LookUpCluster"]) == ["kafka:DescribeClusterV2", "kafka:GetBootstrapBrokers", "kafka:ListScramSecrets"]
    error_message = "The mapping may not look up the cluster and its secrets: ${aws_iam_role_policy.consumer["names"].policy}"
  }
  assert {
    condition = alltrue([for policy in [aws_iam_role_policy.producer["names"].policy, aws_iam_role_policy.consumer["names"].policy] : alltrue([
      contains(flatten([for s in jsondecode(policy).Statement : s.Resource if s.Action == ["secretsmanager:GetSecretValue"]]), "arn:aws:secretsmanager:eu-central-1:111122223333:secret:AmazonMSK_mine-AbCdEf"),
      contains(flatten([for s in jsondecode(policy).Statement : s.Resource if s.Action == ["kms:Decrypt"]]), "arn:aws:kms:eu-central-1:111122223333:key/of-the-secret"),
    ])])
    error_message = "A role may not read the secret of the sign-in, or not decrypt it."
  }
}

run "a_private_kafka_without_a_sign_in_is_reached_from_its_subnets" {
  command = plan
  variables {
    create_cluster = false
    kafka = {
      bootstrap_servers  = ["kafka-1.example:9092", "kafka-2.example:9092"]
      authentication     = "none"
      tls                = false
      subnet_ids         = ["subnet-1", "subnet-2"]
      security_group_ids = ["sg-1"]
    }
  }
  assert {
    condition     = { for name, value in aws_lambda_function.producer["names"].environment[0].variables : name => value if startswith(name, "KAFKA_") } == { KAFKA_BOOTSTRAP_SERVERS = "kafka-1.example:9092,kafka-2.example:9092", KAFKA_SECURITY_PROTOCOL = "plaintext" }
    error_message = "The producer reaches Kafka otherwise: ${jsonencode(aws_lambda_function.producer["names"].environment[0].variables)}"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].event_source_arn == null && aws_lambda_event_source_mapping.consumer["names"].self_managed_event_source[0].endpoints == tomap({ KAFKA_BOOTSTRAP_SERVERS = "kafka-1.example:9092,kafka-2.example:9092" })
    error_message = "The mapping does not poll the brokers that were given."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.consumer["names"].self_managed_kafka_event_source_config[0].consumer_group_id == "freshet-names" && aws_lambda_event_source_mapping.consumer["names"].starting_position == "TRIM_HORIZON"
    error_message = "The mapping's consumer group is not fixed, or it does not begin with the first record."
  }
  assert {
    condition     = toset([for access in aws_lambda_event_source_mapping.consumer["names"].source_access_configuration : "${access.type} ${access.uri}"]) == toset(["VPC_SUBNET subnet:subnet-1", "VPC_SUBNET subnet:subnet-2", "VPC_SECURITY_GROUP security_group:sg-1"])
    error_message = "The mapping's interfaces lie elsewhere: ${jsonencode(aws_lambda_event_source_mapping.consumer["names"].source_access_configuration)}"
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.producer["names"].policy, "kafka") && !strcontains(aws_iam_role_policy.consumer["names"].policy, "kafka") && !strcontains(aws_iam_role_policy.consumer["names"].policy, "secretsmanager")
    error_message = "A role has permissions of MSK, or reads a secret, where there is neither."
  }
  assert {
    condition     = contains([for s in jsondecode(aws_iam_role_policy.consumer["names"].policy).Statement : s.Sid], "NetworkInterfaces")
    error_message = "The mapping may not make its interfaces in the subnets."
  }
}

run "a_kafka_on_the_internet_is_signed_into_with_plain" {
  command = plan
  variables {
    create_cluster = false
    kafka = {
      bootstrap_servers = ["kafka.example:9094"]
      authentication    = "plain"
      secret_arn        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf"
    }
  }
  assert {
    condition = { for name, value in aws_lambda_function.producer["names"].environment[0].variables : name => value if startswith(name, "KAFKA_") } == {
      KAFKA_BOOTSTRAP_SERVERS       = "kafka.example:9094"
      KAFKA_SASL_CREDENTIALS_SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf"
      KAFKA_SASL_MECHANISM          = "PLAIN"
      KAFKA_SECURITY_PROTOCOL       = "sasl_ssl"
    }
    error_message = "The producer reaches Kafka otherwise: ${jsonencode(aws_lambda_function.producer["names"].environment[0].variables)}"
  }
  assert {
    condition     = { for access in aws_lambda_event_source_mapping.consumer["names"].source_access_configuration : access.type => access.uri } == { BASIC_AUTH = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf" }
    error_message = "The mapping signs in otherwise: ${jsonencode(aws_lambda_event_source_mapping.consumer["names"].source_access_configuration)}"
  }
  assert {
    condition     = length(aws_lambda_function.producer["names"].vpc_config) == 0 && !strcontains(aws_iam_role_policy.producer["names"].policy, "ec2:") && !strcontains(aws_iam_role_policy.consumer["names"].policy, "ec2:")
    error_message = "A function is in a VPC, or may make interfaces, and Kafka is reached over the internet."
  }
}

run "a_private_kafka_is_signed_into_with_scram" {
  command = plan
  variables {
    create_cluster = false
    kafka = {
      bootstrap_servers  = ["kafka.example:9094"]
      authentication     = "scram-sha-256"
      secret_arn         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf"
      subnet_ids         = ["subnet-1"]
      security_group_ids = ["sg-1"]
    }
  }
  assert {
    condition     = aws_lambda_function.producer["names"].environment[0].variables.KAFKA_SASL_MECHANISM == "SCRAM-SHA-256"
    error_message = "The producer signs in otherwise: ${jsonencode(aws_lambda_function.producer["names"].environment[0].variables)}"
  }
  assert {
    condition     = { for access in aws_lambda_event_source_mapping.consumer["names"].source_access_configuration : access.type => access.uri } == { SASL_SCRAM_256_AUTH = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf", VPC_SUBNET = "subnet:subnet-1", VPC_SECURITY_GROUP = "security_group:sg-1" }
    error_message = "The mapping signs in otherwise: ${jsonencode(aws_lambda_event_source_mapping.consumer["names"].source_access_configuration)}"
  }
}
