# What each function may do, and nothing else. `*` stands as a resource only where AWS offers no narrower one: for network interfaces.
locals {
  assume_by_lambda = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  log_group_arns = {
    for name, functions in local.function_names : name => {
      for function, function_name in functions :
      function => "arn:${local.partition}:logs:${local.here}:log-group:/aws/lambda/${function_name}:*"
    }
  }

  # Topic and group of a cluster have its ARN with another type in it.
  topic_arns = { for name, d in local.datasets : name => local.is_msk ? "${replace(local.cluster_arn_pattern, ":cluster/", ":topic/")}/${d.topic.name}" : null }
  group_arns = { for name in keys(local.datasets) : name => local.is_msk ? "${replace(local.cluster_arn_pattern, ":cluster/", ":group/")}/${local.consumer_groups[name]}" : null }

  # Interfaces in a VPC, which Lambda makes with the function's role: for a function, and for a mapping that polls.
  function_interface_actions = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
  ]
  mapping_interface_actions = [
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
  ]

  customer_key = var.kms_key_arn == null ? [] : [{
    Sid      = "CustomerKey"
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource = [var.kms_key_arn]
  }]
  secret_keys = length(var.secret_kms_key_arns) == 0 ? [] : [{
    Sid      = "SecretKeys"
    Effect   = "Allow"
    Action   = ["kms:Decrypt"]
    Resource = var.secret_kms_key_arns
  }]

  producer_in_vpc = length(local.producer_subnet_ids) > 0
  # On a self-managed cluster the mapping's interfaces lie where the producer's do; on MSK in the cluster's own subnets.
  mapping_in_vpc = var.create_event_source_mapping && (local.is_msk || local.producer_in_vpc)

  producer_secrets = {
    for name, d in local.datasets : name => compact([
      lookup(local.hash_key_patterns, name, null),
      lookup(var.api_authorization_secrets, name, null),
      local.kafka_secret,
    ])
  }

  producer_policies = {
    for name, d in local.datasets : name => concat(
      [
        {
          Sid      = "Logs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = [local.log_group_arns[name].producer]
        },
        {
          Sid      = "DeadLetters"
          Effect   = "Allow"
          Action   = ["s3:PutObject"]
          Resource = ["${local.bucket_arn}/${local.prefixes[name].dead_letters}/*"]
        },
      ],
      length(local.producer_secrets[name]) == 0 ? [] : [{
        Sid      = "Secrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = local.producer_secrets[name]
      }],
      local.customer_key,
      length(local.producer_secrets[name]) == 0 ? [] : local.secret_keys,
      [for statement in [
        {
          Sid      = "Cluster"
          Effect   = "Allow"
          Action   = ["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"]
          Resource = [local.cluster_arn_pattern]
        },
        {
          Sid    = "Topic"
          Effect = "Allow"
          Action = [
            "kafka-cluster:CreateTopic",
            "kafka-cluster:DescribeTopic",
            "kafka-cluster:DescribeTopicDynamicConfiguration",
            "kafka-cluster:WriteData",
          ]
          Resource = [local.topic_arns[name]]
        },
      ] : statement if local.authentication == "iam"],
      [for statement in [
        {
          Sid      = "NetworkInterfaces"
          Effect   = "Allow"
          Action   = local.function_interface_actions
          Resource = ["*"]
        },
        {
          # The function's own code has no use for them.
          Sid       = "NetworkInterfacesNotByCode"
          Effect    = "Deny"
          Action    = local.function_interface_actions
          Resource  = ["*"]
          Condition = { ArnEquals = { "lambda:SourceFunctionArn" = ["arn:${local.partition}:lambda:${local.here}:function:${local.function_names[name].producer}"] } }
        },
      ] : statement if local.producer_in_vpc],
    )
  }

  consumer_policies = {
    for name, d in local.datasets : name => concat(
      [
        {
          Sid      = "Logs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = [local.log_group_arns[name].consumer]
        },
        {
          # Without it S3 answers 403 for an object that is not there, and the protocol could not tell it from a refusal.
          Sid      = "MissingIsNotForbidden"
          Effect   = "Allow"
          Action   = ["s3:ListBucket"]
          Resource = [local.bucket_arn]
        },
        {
          Sid      = "DataAndLedger"
          Effect   = "Allow"
          Action   = ["s3:GetObject", "s3:PutObject"]
          Resource = ["${local.bucket_arn}/${local.prefixes[name].data}/*", "${local.bucket_arn}/${local.prefixes[name].ledger}/*"]
        },
        {
          Sid      = "DeadLetters"
          Effect   = "Allow"
          Action   = ["s3:PutObject"]
          Resource = ["${local.bucket_arn}/${local.prefixes[name].dead_letters}/*"]
        },
      ],
      var.create_catalog ? [{
        Sid    = "Partitions"
        Effect = "Allow"
        Action = ["glue:CreatePartition", "glue:GetTable"]
        Resource = [
          "arn:${local.partition}:glue:${local.here}:catalog",
          "arn:${local.partition}:glue:${local.here}:database/${local.database}",
          "arn:${local.partition}:glue:${local.here}:table/${local.database}/${name}",
        ]
      }] : [],
      local.customer_key,
      local.kafka_secret == null || !var.create_event_source_mapping ? [] : local.secret_keys,
      # The event source mapping polls with this role.
      [for statement in [
        {
          Sid      = "Cluster"
          Effect   = "Allow"
          Action   = ["kafka-cluster:Connect", "kafka-cluster:DescribeClusterDynamicConfiguration"]
          Resource = [local.cluster_arn_pattern]
        },
        {
          Sid      = "Topic"
          Effect   = "Allow"
          Action   = ["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"]
          Resource = [local.topic_arns[name]]
        },
        {
          Sid      = "ConsumerGroup"
          Effect   = "Allow"
          Action   = ["kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup"]
          Resource = [local.group_arns[name]]
        },
      ] : statement if local.authentication == "iam" && var.create_event_source_mapping],
      local.is_msk && var.create_event_source_mapping ? [{
        Sid      = "LookUpCluster"
        Effect   = "Allow"
        Action   = concat(["kafka:DescribeClusterV2", "kafka:GetBootstrapBrokers"], local.kafka_secret == null ? [] : ["kafka:ListScramSecrets"])
        Resource = [local.cluster_arn_pattern]
      }] : [],
      local.kafka_secret == null || !var.create_event_source_mapping ? [] : [{
        Sid      = "KafkaSignIn"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = [local.kafka_secret]
      }],
      local.mapping_in_vpc ? [{
        Sid      = "NetworkInterfaces"
        Effect   = "Allow"
        Action   = local.mapping_interface_actions
        Resource = ["*"]
      }] : [],
    )
  }
}

resource "aws_iam_role" "producer" {
  for_each           = local.datasets
  name               = local.function_names[each.key].producer
  assume_role_policy = local.assume_by_lambda
}

resource "aws_iam_role_policy" "producer" {
  for_each = local.datasets
  name     = "producer"
  role     = aws_iam_role.producer[each.key].id
  policy   = jsonencode({ Version = "2012-10-17", Statement = local.producer_policies[each.key] })
}

resource "aws_iam_role" "consumer" {
  for_each           = local.datasets
  name               = local.function_names[each.key].consumer
  assume_role_policy = local.assume_by_lambda
}

resource "aws_iam_role_policy" "consumer" {
  for_each = local.datasets
  name     = "consumer"
  role     = aws_iam_role.consumer[each.key].id
  policy   = jsonencode({ Version = "2012-10-17", Statement = local.consumer_policies[each.key] })
}
