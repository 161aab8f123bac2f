# Wrong variables and dataset files are refused by the plan. What the refusal says cannot be asserted here: each is a sentence in variables.tf or
# datasets.tf. Each run breaks one rule alone (or one a variable), so that it fails when that rule is gone.
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

run "values_that_are_too_small_or_no_value_at_all_are_refused" {
  command = plan
  # Above INFO Lambda would drop the metrics; the others are outside of what AWS takes.
  variables {
    name                        = "f"
    region                      = "frankfurt"
    tags                        = { "aws:mine" = "x" }
    kms_key_arn                 = "alias/mine"
    secret_kms_key_arns         = ["alias/mine"]
    endpoint_url                = "localhost:4566"
    vpc_cidr                    = "10.0.0.0/15"
    zone_count                  = 1
    kafka_version               = "latest"
    broker_instance_type        = "t3.small"
    broker_volume_gib           = 0
    architecture                = "arm"
    producer_memory_mib         = 127
    consumer_memory_mib         = 127
    consumer_timeout_seconds    = 9
    producer_environment        = { HASH_KEY = "in clear" }
    consumer_environment        = { S3_OUTPUT_PREFIX = "elsewhere" }
    api_authorization_secrets   = { names = "Bearer of-this" }
    hash_key_secrets            = { names = "in clear" }
    log_level                   = "ERROR"
    log_retention_days          = 0
    batch_size                  = 0
    batching_window_seconds     = -1
    provisioned_pollers         = { minimum = 0, maximum = 1 }
    bucket_name                 = "Mine"
    dead_letter_retention_days  = 0
    query_result_retention_days = 0
    bytes_scanned_limit_gib     = 0
    alarm_email                 = "on-call"
  }
  expect_failures = [var.name, var.region, var.tags, var.kms_key_arn, var.secret_kms_key_arns, var.endpoint_url, var.vpc_cidr, var.zone_count, var.kafka_version, var.broker_instance_type, var.broker_volume_gib, var.architecture, var.producer_memory_mib, var.consumer_memory_mib, var.consumer_timeout_seconds, var.producer_environment, var.consumer_environment, var.api_authorization_secrets, var.hash_key_secrets, var.log_level, var.log_retention_days, var.batch_size, var.batching_window_seconds, var.provisioned_pollers, var.bucket_name, var.dead_letter_retention_days, var.query_result_retention_days, var.bytes_scanned_limit_gib, var.alarm_email]
}

run "values_that_are_too_large_are_refused" {
  command = plan
  # The event source mapping takes functions of 14 minutes at most.
  variables {
    name                        = "a-name-of-22-characters"
    vpc_cidr                    = "10.0.0.0/25"
    zone_count                  = 4
    broker_volume_gib           = 16385
    producer_memory_mib         = 10241
    consumer_memory_mib         = 10241
    consumer_timeout_seconds    = 841
    producer_environment        = { S3_BUCKET = "elsewhere" }
    batch_size                  = 10001
    batching_window_seconds     = 301
    provisioned_pollers         = { minimum = 2, maximum = 1 }
    dead_letter_retention_days  = 3651
    query_result_retention_days = 3651
  }
  expect_failures = [var.name, var.vpc_cidr, var.zone_count, var.broker_volume_gib, var.producer_memory_mib, var.consumer_memory_mib, var.consumer_timeout_seconds, var.producer_environment, var.batch_size, var.batching_window_seconds, var.provisioned_pollers, var.dead_letter_retention_days, var.query_result_retention_days]
}

run "values_that_do_not_fit_each_other_are_refused" {
  command = plan
  # Brokers that two zones cannot share equally, disks that would shrink, a bucket of one's own without its name.
  variables {
    broker_count          = 3
    broker_volume_max_gib = 9
    create_bucket         = false
  }
  expect_failures = [var.broker_count, var.broker_volume_max_gib, var.bucket_name]
}

run "more_replicas_in_sync_than_brokers_are_refused" {
  command = plan
  variables {
    min_insync_replicas = 3
  }
  expect_failures = [var.min_insync_replicas]
}

run "more_replicas_in_sync_than_kafkas_own_topics_have_are_refused" {
  command = plan
  variables {
    broker_count        = 6
    min_insync_replicas = 4
  }
  expect_failures = [var.min_insync_replicas]
}

run "a_network_beside_ours_is_refused" {
  command = plan
  variables {
    vpc_id     = "vpc-1"
    subnet_ids = ["subnet-1", "subnet-2"]
  }
  expect_failures = [var.vpc_id, var.subnet_ids]
}

run "a_network_of_ones_own_needs_its_ids" {
  command = plan
  variables {
    create_network = false
    broker_count   = 1
  }
  expect_failures = [var.vpc_id, var.subnet_ids]
}

run "no_dataset_at_all_is_refused" {
  command = plan
  variables {
    datasets = []
  }
  expect_failures = [var.datasets]
}

run "a_dataset_named_twice_is_refused" {
  command = plan
  variables {
    datasets = ["names", "names"]
  }
  expect_failures = [var.datasets]
}

run "a_dataset_without_a_file_is_refused" {
  command = plan
  variables {
    datasets = ["names", "nmaes"]
  }
  expect_failures = [var.datasets]
}

run "a_path_of_a_dataset_file_is_for_emulators_only" {
  command = plan
  variables {
    datasets = ["tests/datasets/people.yaml"]
  }
  expect_failures = [var.datasets]
}

run "two_dataset_files_of_one_name_are_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/same_name.yaml"]
  }
  expect_failures = [var.datasets]
}

run "two_datasets_of_one_topic_are_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/same_topic.yaml"]
  }
  expect_failures = [terraform_data.datasets]
}

run "a_lake_inside_anothers_dead_letters_is_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/same_place.yaml"]
  }
  expect_failures = [terraform_data.datasets]
}

run "a_table_that_is_anothers_dead_letters_is_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/same_table.yaml"]
  }
  expect_failures = [terraform_data.datasets]
}

run "a_run_that_does_not_end_before_the_next_is_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/endless_run.yaml"]
  }
  expect_failures = [terraform_data.datasets]
}

run "a_run_that_outlives_its_function_is_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/long_run.yaml"]
  }
  expect_failures = [terraform_data.datasets]
}

run "more_than_a_day_between_two_runs_is_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/rare_run.yaml"]
  }
  expect_failures = [terraform_data.datasets]
}

run "more_replicas_than_brokers_are_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/many_replicas.yaml"]
  }
  expect_failures = [terraform_data.datasets]
}

run "a_function_of_too_long_a_name_is_refused" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/long_name.yaml"]
  }
  expect_failures = [var.datasets]
}

run "fewer_replicas_than_must_be_in_sync_are_refused" {
  command = plan
  variables {
    endpoint_url        = "http://localhost:4566"
    datasets            = ["../tests/datasets/orders.yaml"]
    min_insync_replicas = 2
  }
  expect_failures = [terraform_data.datasets]
}

run "a_hash_key_of_a_dataset_that_hashes_nothing_is_refused" {
  command = plan
  variables {
    endpoint_url     = "http://localhost:4566"
    datasets         = ["../tests/datasets/orders.yaml"]
    hash_key_secrets = { orders = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mine-AbCdEf" }
  }
  expect_failures = [terraform_data.datasets]
}

run "an_authorization_for_no_dataset_is_refused" {
  command = plan
  variables {
    api_authorization_secrets = { nmaes = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mine-AbCdEf" }
  }
  expect_failures = [terraform_data.datasets]
}

run "a_kafka_beside_our_cluster_is_refused" {
  command = plan
  variables {
    kafka = { cluster_arn = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}

run "no_kafka_at_all_is_refused" {
  command = plan
  variables {
    create_cluster = false
  }
  expect_failures = [var.kafka]
}

run "a_kafka_without_an_address_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { authentication = "plain", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf" }
  }
  expect_failures = [var.kafka]
}

run "a_kafka_with_two_addresses_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { cluster_arn = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1", bootstrap_servers = ["kafka.example:9092"], subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}

run "an_arn_of_something_else_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { cluster_arn = "arn:aws:kafka:eu-central-1:111122223333:topic/mine/0a1b2c3d-1/names_topic", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}

run "brokers_without_a_port_are_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example"], authentication = "plain", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf" }
  }
  expect_failures = [var.kafka]
}

run "an_unknown_sign_in_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"], authentication = "kerberos", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}

run "the_roles_sign_in_at_msk_only" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"] }
  }
  expect_failures = [var.kafka]
}

run "msk_takes_no_other_sign_in" {
  command = plan
  variables {
    create_cluster      = false
    secret_kms_key_arns = ["arn:aws:kms:eu-central-1:111122223333:key/mine"]
    kafka               = { cluster_arn = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1", authentication = "plain", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}

run "scram_without_a_secret_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"], authentication = "scram-sha-256" }
  }
  expect_failures = [var.kafka]
}

run "a_secret_that_nobody_asks_for_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"], authentication = "none", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}

run "a_secret_that_is_no_arn_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"], authentication = "plain", secret_arn = "kafka" }
  }
  expect_failures = [var.kafka]
}

run "msk_without_tls_is_refused" {
  command = plan
  variables {
    create_cluster              = false
    create_event_source_mapping = false
    kafka                       = { cluster_arn = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1", tls = false, subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}

run "a_mapping_that_signs_in_without_tls_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"], authentication = "plain", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf", tls = false }
  }
  expect_failures = [var.kafka]
}

run "a_mapping_over_the_internet_without_a_sign_in_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"], authentication = "none" }
  }
  expect_failures = [var.kafka]
}

run "subnets_without_a_security_group_are_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { bootstrap_servers = ["kafka.example:9092"], authentication = "plain", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf", subnet_ids = ["subnet-1"] }
  }
  expect_failures = [var.kafka]
}

run "an_msk_cluster_without_subnets_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { cluster_arn = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1" }
  }
  expect_failures = [var.kafka]
}

run "an_msk_secret_without_its_key_is_refused" {
  command = plan
  variables {
    create_cluster = false
    kafka          = { cluster_arn = "arn:aws:kafka:eu-central-1:111122223333:cluster/mine/0a1b2c3d-1", authentication = "scram-sha-512", secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:kafka-AbCdEf", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }
  expect_failures = [var.kafka]
}
