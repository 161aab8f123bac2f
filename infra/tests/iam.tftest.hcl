# Every policy of the plan, scanned. That what the functions ask for is allowed by them is shown by `make cloud-test`, which records each call.
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

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

run "no_policy_is_wider_than_it_need_be" {
  command = plan
  assert {
    condition     = !anytrue([for action in flatten([for s in flatten([for policy in concat([for p in values(aws_iam_role_policy.producer) : p.policy], [for p in values(aws_iam_role_policy.consumer) : p.policy], [for r in values(aws_iam_role.producer) : r.assume_role_policy], [for r in values(aws_iam_role.consumer) : r.assume_role_policy], [for p in aws_s3_bucket_policy.lake : p.policy], [for e in aws_vpc_endpoint.s3 : e.policy], [aws_sns_topic_policy.alarms.policy]) : jsondecode(policy).Statement]) : s.Action]) : strcontains(action, "*")])
    error_message = "A policy names actions with `*`."
  }
  assert {
    condition     = alltrue([for s in flatten([for policy in concat([for p in values(aws_iam_role_policy.producer) : p.policy], [for p in values(aws_iam_role_policy.consumer) : p.policy], [for r in values(aws_iam_role.producer) : r.assume_role_policy], [for r in values(aws_iam_role.consumer) : r.assume_role_policy], [for p in aws_s3_bucket_policy.lake : p.policy], [for e in aws_vpc_endpoint.s3 : e.policy], [aws_sns_topic_policy.alarms.policy]) : jsondecode(policy).Statement]) : !anytrue([for key in keys(s) : startswith(key, "Not")])])
    error_message = "A policy says what is not meant: NotAction, NotResource or NotPrincipal."
  }
  assert {
    # EC2 knows no narrower resource for interfaces. Everything else names service, account and the beginning of the resource.
    condition = alltrue([for s in flatten([for policy in concat(values(aws_iam_role_policy.producer), values(aws_iam_role_policy.consumer)) : jsondecode(policy.policy).Statement]) : alltrue([for resource in s.Resource :
      resource == "*" ? length(setsubtract(s.Action, local.function_interface_actions)) == 0 || length(setsubtract(s.Action, local.mapping_interface_actions)) == 0 :
      can(regex("^arn:aws:(s3:::[a-z0-9-]+|(kafka|logs|glue|secretsmanager|kms):eu-central-1:111122223333:[a-z-]+([:/][^*]|$))", resource))
    ])])
    error_message = "A role's policy opens a resource that is wider than it need be."
  }
  assert {
    condition     = length(setsubtract(concat(local.function_interface_actions, local.mapping_interface_actions), ["ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs", "ec2:UnassignPrivateIpAddresses"])) == 0
    error_message = "More is allowed on every resource than what Lambda needs for its interfaces."
  }
  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.producer["names"].policy).Statement : s.Sid => { effect = s.Effect, action = s.Action, resource = s.Resource } if !startswith(s.Sid, "NetworkInterfaces") } == {
      Logs        = { effect = "Allow", action = ["logs:CreateLogStream", "logs:PutLogEvents"], resource = ["arn:aws:logs:eu-central-1:111122223333:log-group:/aws/lambda/freshet-names-producer:*"] }
      DeadLetters = { effect = "Allow", action = ["s3:PutObject"], resource = ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1/names_dead_letters/*"] }
      Secrets     = { effect = "Allow", action = ["secretsmanager:GetSecretValue"], resource = ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-*"] }
      Cluster     = { effect = "Allow", action = ["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"], resource = ["arn:aws:kafka:eu-central-1:111122223333:cluster/freshet/*"] }
      Topic       = { effect = "Allow", action = ["kafka-cluster:CreateTopic", "kafka-cluster:DescribeTopic", "kafka-cluster:DescribeTopicDynamicConfiguration", "kafka-cluster:WriteData"], resource = ["arn:aws:kafka:eu-central-1:111122223333:topic/freshet/*/names_topic"] }
    }
    error_message = "The producer may do something else than publish, keep dead letters and read its secrets: ${aws_iam_role_policy.producer["names"].policy}"
  }
  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.consumer["names"].policy).Statement : s.Sid => { effect = s.Effect, action = s.Action, resource = s.Resource } if !startswith(s.Sid, "NetworkInterfaces") } == {
      Logs                  = { effect = "Allow", action = ["logs:CreateLogStream", "logs:PutLogEvents"], resource = ["arn:aws:logs:eu-central-1:111122223333:log-group:/aws/lambda/freshet-names-consumer:*"] }
      MissingIsNotForbidden = { effect = "Allow", action = ["s3:ListBucket"], resource = ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1"] }
      DataAndLedger         = { effect = "Allow", action = ["s3:GetObject", "s3:PutObject"], resource = ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1/names/*", "arn:aws:s3:::freshet-lake-111122223333-eu-central-1/_ledger/names/*"] }
      DeadLetters           = { effect = "Allow", action = ["s3:PutObject"], resource = ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1/names_dead_letters/*"] }
      Partitions            = { effect = "Allow", action = ["glue:CreatePartition", "glue:GetTable"], resource = ["arn:aws:glue:eu-central-1:111122223333:catalog", "arn:aws:glue:eu-central-1:111122223333:database/freshet", "arn:aws:glue:eu-central-1:111122223333:table/freshet/names"] }
      Cluster               = { effect = "Allow", action = ["kafka-cluster:Connect", "kafka-cluster:DescribeClusterDynamicConfiguration"], resource = ["arn:aws:kafka:eu-central-1:111122223333:cluster/freshet/*"] }
      Topic                 = { effect = "Allow", action = ["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"], resource = ["arn:aws:kafka:eu-central-1:111122223333:topic/freshet/*/names_topic"] }
      ConsumerGroup         = { effect = "Allow", action = ["kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup"], resource = ["arn:aws:kafka:eu-central-1:111122223333:group/freshet/*/freshet-names"] }
      LookUpCluster         = { effect = "Allow", action = ["kafka:DescribeClusterV2", "kafka:GetBootstrapBrokers"], resource = ["arn:aws:kafka:eu-central-1:111122223333:cluster/freshet/*"] }
    }
    error_message = "The consumer may do something else than read the topic, and write and register rows: ${aws_iam_role_policy.consumer["names"].policy}"
  }
  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.producer["names"].policy).Statement : s if s.Sid == "NetworkInterfacesNotByCode"]) == { Sid = "NetworkInterfacesNotByCode", Effect = "Deny", Action = local.function_interface_actions, Resource = ["*"], Condition = { ArnEquals = { "lambda:SourceFunctionArn" = ["arn:aws:lambda:eu-central-1:111122223333:function:freshet-names-producer"] } } }
    error_message = "The producer's own code may make and delete interfaces: ${aws_iam_role_policy.producer["names"].policy}"
  }
  assert {
    condition     = alltrue([for role in [aws_iam_role.producer["names"], aws_iam_role.consumer["names"]] : jsondecode(role.assume_role_policy).Statement == [{ Effect = "Allow", Principal = { Service = "lambda.amazonaws.com" }, Action = "sts:AssumeRole" }]])
    error_message = "Somebody else than Lambda may take a role."
  }
  assert {
    condition     = jsondecode(aws_sns_topic_policy.alarms.policy).Statement == [{ Sid = "AlarmsOfThisAccount", Effect = "Allow", Principal = { Service = "cloudwatch.amazonaws.com" }, Action = ["sns:Publish"], Resource = ["arn:aws:sns:eu-central-1:111122223333:freshet-alarms"], Condition = { StringEquals = { "aws:SourceAccount" = "111122223333" } } }]
    error_message = "Somebody else than this account's alarms may publish to their topic: ${aws_sns_topic_policy.alarms.policy}"
  }
  assert {
    # A managed policy, or one attached in another way, would not be in this plan's policies.
    condition     = toset(flatten([for f in fileset(path.module, "*.tf") : regexall("(?m)^resource \"(aws_iam_[a-z_]+)\"", file(f))])) == toset(["aws_iam_role", "aws_iam_role_policy"]) && !anytrue([for f in fileset(path.module, "*.tf") : strcontains(file(f), "managed_policy_arns")])
    error_message = "Permissions are given by something that the assertions above do not look at."
  }
}

run "no_policy_is_wider_with_all_that_can_be_brought_along" {
  command = plan
  variables {
    create_cluster            = false
    hash_key_secrets          = { names = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mine-AbCdEf" }
    kms_key_arn               = "arn:aws:kms:eu-central-1:111122223333:key/mine"
    secret_kms_key_arns       = ["arn:aws:kms:eu-central-1:111122223333:key/of-the-secret"]
    api_authorization_secrets = { names = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-AbCdEf" }
    kafka = {
      bootstrap_servers  = ["kafka.example:9094"]
      authentication     = "scram-sha-512"
      secret_arn         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf"
      subnet_ids         = ["subnet-1"]
      security_group_ids = ["sg-1"]
    }
  }
  assert {
    condition     = !anytrue([for action in flatten([for s in flatten([for policy in concat([for p in values(aws_iam_role_policy.producer) : p.policy], [for p in values(aws_iam_role_policy.consumer) : p.policy], [for r in values(aws_iam_role.producer) : r.assume_role_policy], [for r in values(aws_iam_role.consumer) : r.assume_role_policy], [for p in aws_s3_bucket_policy.lake : p.policy], [for e in aws_vpc_endpoint.s3 : e.policy], [aws_sns_topic_policy.alarms.policy]) : jsondecode(policy).Statement]) : s.Action]) : strcontains(action, "*")])
    error_message = "A policy names actions with `*`."
  }
  assert {
    condition     = alltrue([for s in flatten([for policy in concat([for p in values(aws_iam_role_policy.producer) : p.policy], [for p in values(aws_iam_role_policy.consumer) : p.policy], [for r in values(aws_iam_role.producer) : r.assume_role_policy], [for r in values(aws_iam_role.consumer) : r.assume_role_policy], [for p in aws_s3_bucket_policy.lake : p.policy], [for e in aws_vpc_endpoint.s3 : e.policy], [aws_sns_topic_policy.alarms.policy]) : jsondecode(policy).Statement]) : !anytrue([for key in keys(s) : startswith(key, "Not")])])
    error_message = "A policy says what is not meant: NotAction, NotResource or NotPrincipal."
  }
  assert {
    # EC2 knows no narrower resource for interfaces. Everything else names service, account and the beginning of the resource.
    condition = alltrue([for s in flatten([for policy in concat(values(aws_iam_role_policy.producer), values(aws_iam_role_policy.consumer)) : jsondecode(policy.policy).Statement]) : alltrue([for resource in s.Resource :
      resource == "*" ? length(setsubtract(s.Action, local.function_interface_actions)) == 0 || length(setsubtract(s.Action, local.mapping_interface_actions)) == 0 :
      can(regex("^arn:aws:(s3:::[a-z0-9-]+|(kafka|logs|glue|secretsmanager|kms):eu-central-1:111122223333:[a-z-]+([:/][^*]|$))", resource))
    ])])
    error_message = "A role's policy opens a resource that is wider than it need be."
  }
  assert {
    condition     = length(setsubtract(concat(local.function_interface_actions, local.mapping_interface_actions), ["ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs", "ec2:UnassignPrivateIpAddresses"])) == 0
    error_message = "More is allowed on every resource than what Lambda needs for its interfaces."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.producer["names"].policy).Statement : s.Sid => s.Resource if contains(["Secrets", "SecretKeys"], s.Sid) } == { Secrets = ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:mine-AbCdEf", "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-AbCdEf", "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf"], SecretKeys = ["arn:aws:kms:eu-central-1:111122223333:key/of-the-secret"] }
    error_message = "The producer reads other secrets than the hash's key, the API's and Kafka's: ${aws_iam_role_policy.producer["names"].policy}"
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.consumer["names"].policy).Statement : s.Sid => s.Resource if contains(["KafkaSignIn", "SecretKeys"], s.Sid) } == { KafkaSignIn = ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf"], SecretKeys = ["arn:aws:kms:eu-central-1:111122223333:key/of-the-secret"] }
    error_message = "The consumer reads other secrets than Kafka's: ${aws_iam_role_policy.consumer["names"].policy}"
  }
}
