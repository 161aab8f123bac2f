# The bucket, its policy, and what encrypts and deletes.
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

override_resource {
  target          = aws_msk_cluster.this
  override_during = plan
  values = {
    arn                        = "arn:aws:kafka:eu-central-1:111122223333:cluster/freshet/0a1b2c3d-1"
    bootstrap_brokers_sasl_iam = "b-1.freshet.example:9098,b-2.freshet.example:9098"
  }
}

override_module {
  target  = module.hash_key
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet/names/hash-key-20261124-AbCdEf" }
}

run "the_bucket_is_private_and_written_on_condition_only" {
  command = plan
  assert {
    condition     = alltrue([for b in aws_s3_bucket_public_access_block.lake : b.block_public_acls && b.block_public_policy && b.ignore_public_acls && b.restrict_public_buckets]) && length(aws_s3_bucket_public_access_block.lake) == 1
    error_message = "The bucket could be made public."
  }
  assert {
    condition     = one(aws_s3_bucket_ownership_controls.lake[0].rule).object_ownership == "BucketOwnerEnforced" && one(one(aws_s3_bucket_server_side_encryption_configuration.lake[0].rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "Objects could belong to others, or lie there in clear."
  }
  assert {
    condition     = aws_s3_bucket.lake[0].bucket == "freshet-lake-111122223333-eu-central-1" && aws_s3_bucket_policy.lake[0].policy == output.bucket_policy
    error_message = "The bucket bears another name, or has another policy than the output shows."
  }
  assert {
    condition = one([for s in jsondecode(aws_s3_bucket_policy.lake[0].policy).Statement : s if s.Sid == "TlsOnly"]) == {
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"]
      Resource  = ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1", "arn:aws:s3:::freshet-lake-111122223333-eu-central-1/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }
    error_message = "The bucket could be spoken to without TLS: ${aws_s3_bucket_policy.lake[0].policy}"
  }
  assert {
    condition = one([for s in jsondecode(aws_s3_bucket_policy.lake[0].policy).Statement : s if s.Sid == "CreateOnly"]) == {
      Sid       = "CreateOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:PutObject"]
      Resource  = ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1/names/*", "arn:aws:s3:::freshet-lake-111122223333-eu-central-1/names_dead_letters/*"]
      Condition = { Bool = { "s3:ObjectCreationOperation" = "true" }, Null = { "s3:if-none-match" = "true" } }
    }
    error_message = "A data object or a dead letter could be replaced: ${aws_s3_bucket_policy.lake[0].policy}"
  }
  assert {
    condition = one([for s in jsondecode(aws_s3_bucket_policy.lake[0].policy).Statement : s if s.Sid == "LedgerOnlyOnCondition"]) == {
      Sid       = "LedgerOnlyOnCondition"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:PutObject"]
      Resource  = ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1/_ledger/names/*", "arn:aws:s3:::freshet-lake-111122223333-eu-central-1/_replay/names/*"]
      Condition = { Bool = { "s3:ObjectCreationOperation" = "true" }, Null = { "s3:if-none-match" = "true", "s3:if-match" = "true" } }
    }
    error_message = "A ledger could be replaced without having been read: ${aws_s3_bucket_policy.lake[0].policy}"
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_s3_bucket_policy.lake[0].policy).Statement : s.Effect == "Deny"])
    error_message = "The bucket's policy lets somebody in: ${aws_s3_bucket_policy.lake[0].policy}"
  }
}

run "rows_and_ledgers_never_expire" {
  command = plan
  variables {
    dead_letter_retention_days  = 90
    query_result_retention_days = 3
  }
  assert {
    condition     = { for rule in aws_s3_bucket_lifecycle_configuration.lake[0].rule : rule.filter[0].prefix => rule.expiration[0].days if length(rule.expiration) > 0 } == { "names_dead_letters/" = 90, "_athena/freshet/" = 3 }
    error_message = "Something else than dead letters and query results expires, or they after another time."
  }
  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.lake[0].rule : rule.abort_incomplete_multipart_upload[0].days_after_initiation if length(rule.abort_incomplete_multipart_upload) > 0]) == 1
    error_message = "Parts of uploads that were never finished are kept, and paid for."
  }
  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.lake[0].rule : rule.status == "Enabled"])
    error_message = "A rule is not in force."
  }
  assert {
    condition     = aws_glue_catalog_table.dead_letters["names"].parameters["projection.dt.range"] == "NOW-91DAYS,NOW+1DAYS" && strcontains(output.verify_commands[0], "--dead-letter-days 90")
    error_message = "The table of dead letters, or verify, looks back over another time than they are kept."
  }
}

run "a_customer_key_encrypts_what_holds_data" {
  command = plan
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/mine"
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.lake[0].rule).apply_server_side_encryption_by_default).kms_master_key_id == "arn:aws:kms:eu-central-1:111122223333:key/mine" && one(one(aws_s3_bucket_server_side_encryption_configuration.lake[0].rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms" && one(aws_s3_bucket_server_side_encryption_configuration.lake[0].rule).bucket_key_enabled
    error_message = "The lake is encrypted with another key, or asks for it object by object."
  }
  assert {
    condition     = one(aws_athena_workgroup.this[0].configuration[0].result_configuration[0].encryption_configuration).kms_key_arn == "arn:aws:kms:eu-central-1:111122223333:key/mine" && one(aws_athena_workgroup.this[0].configuration[0].result_configuration[0].encryption_configuration).encryption_option == "SSE_KMS"
    error_message = "Athena's results are encrypted with another key."
  }
  assert {
    condition     = alltrue([for g in concat(values(aws_cloudwatch_log_group.producer), values(aws_cloudwatch_log_group.consumer), aws_cloudwatch_log_group.kafka) : g.kms_key_id == "arn:aws:kms:eu-central-1:111122223333:key/mine"]) && aws_msk_cluster.this[0].encryption_info[0].encryption_at_rest_kms_key_arn == "arn:aws:kms:eu-central-1:111122223333:key/mine"
    error_message = "A log or the brokers' disks are encrypted with another key."
  }
  assert {
    condition     = alltrue([for policy in [aws_iam_role_policy.producer["names"].policy, aws_iam_role_policy.consumer["names"].policy] : one([for s in jsondecode(policy).Statement : s if s.Sid == "CustomerKey"]) == { Sid = "CustomerKey", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = ["arn:aws:kms:eu-central-1:111122223333:key/mine"] }])
    error_message = "A function may not use the key."
  }
}

run "ones_own_bucket_keeps_its_settings" {
  command = plan
  variables {
    create_bucket = false
    bucket_name   = "mine"
  }
  assert {
    condition     = length(aws_s3_bucket.lake) + length(aws_s3_bucket_policy.lake) + length(aws_s3_bucket_public_access_block.lake) + length(aws_s3_bucket_ownership_controls.lake) + length(aws_s3_bucket_server_side_encryption_configuration.lake) + length(aws_s3_bucket_lifecycle_configuration.lake) == 0
    error_message = "A bucket of one's own is changed."
  }
  assert {
    condition     = alltrue([for f in [aws_lambda_function.producer["names"], aws_lambda_function.consumer["names"]] : f.environment[0].variables.S3_BUCKET == "mine"]) && aws_glue_catalog_table.data["names"].storage_descriptor[0].location == "s3://mine/names/" && aws_athena_workgroup.this[0].configuration[0].result_configuration[0].output_location == "s3://mine/_athena/freshet/"
    error_message = "The functions, the table or Athena's results are not in the bucket that was given."
  }
  assert {
    condition     = length(regexall("arn:aws:s3:::mine/", output.bucket_policy)) > 0 && length(regexall("freshet-lake", output.bucket_policy)) == 0
    error_message = "The policy to merge is another bucket's: ${output.bucket_policy}"
  }
  assert {
    condition     = alltrue([for policy in [aws_iam_role_policy.producer["names"].policy, aws_iam_role_policy.consumer["names"].policy, aws_vpc_endpoint.s3[0].policy] : strcontains(policy, "arn:aws:s3:::mine") && !strcontains(policy, "freshet-lake")])
    error_message = "A policy opens another bucket."
  }
}

run "a_lake_that_may_be_destroyed_is_said_to_be" {
  command = plan
  variables {
    force_destroy = true
    bucket_name   = "mine"
  }
  assert {
    condition     = aws_s3_bucket.lake[0].force_destroy && aws_athena_workgroup.this[0].force_destroy && aws_s3_bucket.lake[0].bucket == "mine"
    error_message = "Bucket or workgroup would stay, or the bucket bears another name."
  }
}
