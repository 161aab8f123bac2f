# The deployment.

variable "name" {
  description = "Name of this deployment and the beginning of every resource's name. A second environment has a second name."
  type        = string
  default     = "freshet"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}[a-z0-9]$", var.name))
    error_message = "name is 2 to 21 of a-z, 0-9 and -, begins with a letter and does not end in -."
  }
}

variable "region" {
  description = "AWS region. Null: the profile's or AWS_REGION's."
  type        = string
  default     = null
  validation {
    condition     = var.region == null || can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a region's name such as eu-central-1."
  }
}

variable "tags" {
  description = "Tags of every resource, beside Project and Deployment."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:")])
    error_message = "Tags that begin with `aws:` are AWS's own: choose another key."
  }
}

variable "datasets" {
  description = "Datasets of this deployment: names of files in ../datasets without `.yaml`. On an emulator also paths of .yaml files. They share cluster, network, bucket and database."
  type        = list(string)
  default     = ["names"]
  validation {
    condition     = length(var.datasets) > 0 && length(distinct(var.datasets)) == length(var.datasets)
    error_message = "datasets names at least one dataset, and none twice."
  }
  validation {
    condition     = alltrue([for d in var.datasets : can(yamldecode(file(can(regex("\\.ya?ml$", d)) ? d : "${path.module}/../datasets/${d}.yaml")).name)])
    error_message = "A dataset of `datasets` has no readable file: datasets/<name>.yaml must exist and be YAML with a `name`."
  }
  validation {
    condition     = length(distinct([for d in var.datasets : try(yamldecode(file(can(regex("\\.ya?ml$", d)) ? d : "${path.module}/../datasets/${d}.yaml")).name, d)])) == length(distinct(var.datasets))
    error_message = "Two of the dataset files bear the same name: each needs a `name` of its own."
  }
  validation {
    condition     = alltrue([for d in var.datasets : length(try("${var.name}-${yamldecode(file(can(regex("\\.ya?ml$", d)) ? d : "${path.module}/../datasets/${d}.yaml")).name}-producer", "")) <= 64])
    error_message = "The name of a function, <name>-<dataset>-producer, would have more than 64 characters: shorten `name`, or the dataset's."
  }
  validation {
    condition     = var.endpoint_url != null || !anytrue([for d in var.datasets : can(regex("\\.ya?ml$", d))])
    error_message = "Paths in `datasets` are for emulators: functions on AWS embed the files of datasets/. Put the file there, run `make build`, and name it without `.yaml`."
  }
}

variable "force_destroy" {
  description = "Let `terraform destroy` delete the bucket with everything in it, and the hash's key at once. False keeps a lake that is not empty."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "Customer key for the lake, query results, logs, secrets and the brokers' disks. Null: AWS's own keys, without cost. Its key policy must allow CloudWatch Logs to use it."
  type        = string
  default     = null
  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key (arn:aws:kms:…:key/…), not of an alias."
  }
}

variable "secret_kms_key_arns" {
  description = "Customer keys of secrets that are yours (kafka.secret_arn, api_authorization_secrets, hash_key_secrets), so that the functions may decrypt them."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for arn in var.secret_kms_key_arns : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", arn))])
    error_message = "secret_kms_key_arns are ARNs of keys (arn:aws:kms:…:key/…), not of aliases."
  }
}

variable "endpoint_url" {
  description = "URL of an AWS emulator (LocalStack, MiniStack). Null: AWS."
  type        = string
  default     = null
  validation {
    condition     = var.endpoint_url == null || can(regex("^https?://[^/]+$", var.endpoint_url))
    error_message = "endpoint_url is http://host:port without a path."
  }
}

# Network.

variable "create_network" {
  description = "Make a VPC for the cluster and the producer. False: give vpc_id and subnet_ids. Without a cluster of its own (create_cluster = false) none is made."
  type        = bool
  default     = true
}

variable "vpc_cidr" {
  description = "Address range of the VPC, /16 to /24."
  type        = string
  default     = "10.42.0.0/16"
  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 24, false)
    error_message = "vpc_cidr is an IPv4 range between /16 and /24, such as 10.42.0.0/16."
  }
}

variable "zone_count" {
  description = "Availability zones with a private subnet and brokers. A change later makes a new cluster: what is on the topics is gone with the old one."
  type        = number
  default     = 2
  validation {
    condition     = contains([2, 3], var.zone_count)
    error_message = "zone_count is 2 or 3: MSK spreads its brokers over two or three zones."
  }
}

variable "vpc_id" {
  description = "Your VPC, with create_network = false."
  type        = string
  default     = null
  validation {
    condition     = (var.vpc_id != null) == (var.create_cluster && !var.create_network)
    error_message = "vpc_id goes with create_network = false and create_cluster = true, and only with them."
  }
}

variable "subnet_ids" {
  description = "Your private subnets in two or three zones, with create_network = false. They need a way to the internet (NAT) for the API and the event source mapping."
  type        = list(string)
  default     = []
  validation {
    condition     = var.create_cluster && !var.create_network ? contains([2, 3], length(var.subnet_ids)) : length(var.subnet_ids) == 0
    error_message = "subnet_ids are two or three private subnets with create_network = false and create_cluster = true; otherwise leave them empty."
  }
}

# Kafka.

variable "create_cluster" {
  description = "Make an MSK cluster. False: bring your own Kafka, see `kafka`."
  type        = bool
  default     = true
}

variable "kafka" {
  description = <<-TEXT
    Your own Kafka, with create_cluster = false: an MSK cluster by cluster_arn, or any other by bootstrap_servers ("host:port").
    authentication: iam (MSK only), scram-sha-512, scram-sha-256, plain or none. secret_arn holds {"username": …, "password": …} for SCRAM and PLAIN.
    subnet_ids and security_group_ids are where the producer runs; for a self-managed cluster the event source mapping too. Without subnets both reach the brokers over the internet.
  TEXT
  type = object({
    cluster_arn        = optional(string)
    bootstrap_servers  = optional(list(string), [])
    authentication     = optional(string, "iam")
    tls                = optional(bool, true)
    secret_arn         = optional(string)
    subnet_ids         = optional(list(string), [])
    security_group_ids = optional(list(string), [])
  })
  default = null
  validation {
    condition     = (var.kafka == null) == var.create_cluster
    error_message = "kafka goes with create_cluster = false, and only with it."
  }
  validation {
    condition     = var.kafka == null || (try(var.kafka.cluster_arn, null) != null) != (length(try(var.kafka.bootstrap_servers, [])) > 0)
    error_message = "kafka names either an MSK cluster by cluster_arn, or a self-managed one by bootstrap_servers."
  }
  validation {
    condition     = try(var.kafka.cluster_arn, null) == null || can(regex("^arn:[a-z-]+:kafka:[a-z0-9-]+:[0-9]{12}:cluster/[^/]+/[^/]+$", var.kafka.cluster_arn))
    error_message = "kafka.cluster_arn is an MSK cluster's ARN (arn:aws:kafka:…:cluster/<name>/<uuid>)."
  }
  validation {
    condition     = alltrue([for server in try(var.kafka.bootstrap_servers, []) : can(regex("^[^:/ ,]+:[0-9]{1,5}$", server))])
    error_message = "kafka.bootstrap_servers are of the form host:port, one an element."
  }
  validation {
    condition     = var.kafka == null || contains(["iam", "scram-sha-512", "scram-sha-256", "plain", "none"], try(var.kafka.authentication, ""))
    error_message = "kafka.authentication is iam, scram-sha-512, scram-sha-256, plain or none."
  }
  validation {
    condition     = try(var.kafka.authentication, null) != "iam" || try(var.kafka.cluster_arn, null) != null
    error_message = "kafka.authentication = \"iam\" is MSK's: give cluster_arn, or another authentication for bootstrap_servers."
  }
  validation {
    condition     = try(var.kafka.cluster_arn, null) == null || contains(["iam", "scram-sha-512"], try(var.kafka.authentication, ""))
    error_message = "With kafka.cluster_arn the authentication is iam or scram-sha-512: MSK offers no other."
  }
  validation {
    condition     = var.kafka == null || contains(["scram-sha-512", "scram-sha-256", "plain"], try(var.kafka.authentication, "")) == (try(var.kafka.secret_arn, null) != null)
    error_message = "kafka.secret_arn goes with SCRAM and PLAIN, and only with them."
  }
  validation {
    condition     = try(var.kafka.secret_arn, null) == null || can(regex("^arn:[a-z-]+:secretsmanager:", var.kafka.secret_arn))
    error_message = "kafka.secret_arn is the ARN of a Secrets Manager secret (arn:aws:secretsmanager:…)."
  }
  validation {
    condition     = try(var.kafka.tls, true) || try(var.kafka.cluster_arn, null) == null
    error_message = "MSK takes a sign-in over TLS only: leave kafka.tls true."
  }
  validation {
    condition     = try(var.kafka.tls, true) || try(var.kafka.authentication, "") == "none" || !var.create_event_source_mapping
    error_message = "Lambda's event source mapping signs in over TLS only: leave kafka.tls true, or poll with something else (create_event_source_mapping = false)."
  }
  validation {
    condition     = try(var.kafka.authentication, "") != "none" || length(try(var.kafka.subnet_ids, [])) > 0 || !var.create_event_source_mapping
    error_message = "Lambda's event source mapping reaches brokers over the internet only with a sign-in: give kafka.authentication, or kafka.subnet_ids and kafka.security_group_ids."
  }
  validation {
    condition     = try(var.kafka.cluster_arn, null) == null || try(var.kafka.authentication, "") == "iam" || var.kms_key_arn != null || length(var.secret_kms_key_arns) > 0
    error_message = "MSK's SCRAM secrets are encrypted with a customer key, which both functions must use: name it in secret_kms_key_arns."
  }
  validation {
    condition     = length(try(var.kafka.subnet_ids, [])) == 0 || length(try(var.kafka.security_group_ids, [])) > 0
    error_message = "kafka.subnet_ids need kafka.security_group_ids beside them."
  }
  validation {
    condition     = var.endpoint_url != null || try(var.kafka.cluster_arn, null) == null || length(try(var.kafka.subnet_ids, [])) > 0
    error_message = "An MSK cluster is reached from inside its VPC: give kafka.subnet_ids and kafka.security_group_ids."
  }
}

variable "kafka_version" {
  description = "Kafka version of the MSK cluster."
  type        = string
  default     = "3.8.x"
  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.([0-9]+|x)(\\.[a-z0-9]+)?$", var.kafka_version))
    error_message = "kafka_version is a version that MSK offers, such as 3.8.x."
  }
}

variable "broker_instance_type" {
  description = "Instance type of the brokers."
  type        = string
  default     = "kafka.t3.small"
  validation {
    condition     = can(regex("^kafka\\.[a-z0-9]+\\.[a-z0-9]+$", var.broker_instance_type))
    error_message = "broker_instance_type is one of MSK's standard brokers, such as kafka.t3.small or kafka.m7g.large."
  }
}

variable "broker_count" {
  description = "Brokers, a multiple of the zones."
  type        = number
  default     = 2
  validation {
    condition     = var.broker_count > 0 && var.broker_count % (var.create_network ? var.zone_count : max(length(var.subnet_ids), 1)) == 0
    error_message = "broker_count is a multiple of the number of zones: MSK puts the same number of brokers into each."
  }
}

variable "min_insync_replicas" {
  description = "Replicas that must have a record before it counts as published. With two brokers: 1 loses acknowledged records if a disk dies while the other broker is away; 2 stops publishing whenever a broker is away, patching included. With three: 2."
  type        = number
  default     = 1
  validation {
    # Kafka's own topics have three replicas at most: with more nobody could commit an offset.
    condition     = var.min_insync_replicas >= 1 && var.min_insync_replicas <= min(var.broker_count, 3)
    error_message = "min_insync_replicas is between 1 and broker_count, and 3 at most."
  }
}

variable "broker_volume_gib" {
  description = "Disk of each broker at the start, GiB."
  type        = number
  default     = 10
  validation {
    condition     = var.broker_volume_gib >= 1 && var.broker_volume_gib <= 16384
    error_message = "broker_volume_gib is between 1 and 16384."
  }
}

variable "broker_volume_max_gib" {
  description = "Up to where the disks grow by themselves, GiB. They never shrink."
  type        = number
  default     = 100
  validation {
    condition     = var.broker_volume_max_gib >= var.broker_volume_gib && var.broker_volume_max_gib <= 16384
    error_message = "broker_volume_max_gib is between broker_volume_gib and 16384."
  }
}

# Functions.

variable "architecture" {
  description = "Processor of both functions: arm64 or x86_64. The code must be built for it (make build ARCH=…)."
  type        = string
  default     = "arm64"
  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is arm64 or x86_64."
  }
}

variable "zip_folder" {
  description = "Where the first code of the functions lies: <folder>/producer/bootstrap.zip and <folder>/consumer/bootstrap.zip. Null: where make build puts it. Later code is shipped by cargo lambda deploy."
  type        = string
  default     = null
}

variable "producer_memory_mib" {
  description = "Memory of the producer, MiB. The processor's share grows with it."
  type        = number
  default     = 256
  validation {
    condition     = var.producer_memory_mib >= 128 && var.producer_memory_mib <= 10240
    error_message = "producer_memory_mib is between 128 and 10240."
  }
}

variable "consumer_memory_mib" {
  description = "Memory of the consumer, MiB. A full event fits into 128; more memory brings a larger share of the processor."
  type        = number
  default     = 256
  validation {
    condition     = var.consumer_memory_mib >= 128 && var.consumer_memory_mib <= 10240
    error_message = "consumer_memory_mib is between 128 and 10240."
  }
}

variable "consumer_timeout_seconds" {
  description = "Time limit of the consumer, seconds. Lambda's event source mapping takes functions of 14 minutes at most."
  type        = number
  default     = 60
  validation {
    condition     = var.consumer_timeout_seconds >= 10 && var.consumer_timeout_seconds <= 840
    error_message = "consumer_timeout_seconds is between 10 and 840."
  }
}

variable "reserve_concurrency" {
  description = "Reserve one execution for the producer, so that two runs never overlap. New accounts have too few for that (a limit of 10, and 100 must stay unreserved): false there."
  type        = bool
  default     = true
}

variable "producer_environment" {
  description = "More variables for the producers, see docs/CONFIGURATION.md. No secrets: they would be readable in the state."
  type        = map(string)
  default     = {}
  validation {
    condition     = length(setintersection(keys(var.producer_environment), ["HASH_KEY", "API_AUTHORIZATION", "KAFKA_SASL_PASSWORD"])) == 0
    error_message = "Secrets do not go into producer_environment: use api_authorization_secrets and kafka.secret_arn; the hash's key is made for you."
  }
  validation {
    condition     = length(setintersection(keys(var.producer_environment), ["DATASET", "DATASET_SHA256", "GLUE_DATABASE", "GLUE_TABLE", "METRICS_NAMESPACE", "S3_BUCKET", "S3_CHECKPOINT_PREFIX", "S3_OUTPUT_PREFIX"])) == 0
    error_message = "producer_environment cannot move the dataset, the bucket, the prefixes, the table or the metrics: policies, tables and alarms are made for those of the other variables and the dataset file."
  }
}

variable "consumer_environment" {
  description = "More variables for the consumers, see docs/CONFIGURATION.md."
  type        = map(string)
  default     = {}
  validation {
    condition     = length(setintersection(keys(var.consumer_environment), ["DATASET", "DATASET_SHA256", "GLUE_DATABASE", "GLUE_TABLE", "METRICS_NAMESPACE", "S3_BUCKET", "S3_CHECKPOINT_PREFIX", "S3_OUTPUT_PREFIX"])) == 0
    error_message = "consumer_environment cannot move the dataset, the bucket, the prefixes, the table or the metrics: policies, tables and alarms are made for those of the other variables and the dataset file."
  }
}

variable "api_authorization_secrets" {
  description = "By dataset, the ARN of a Secrets Manager secret that holds the API's Authorization header."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for arn in values(var.api_authorization_secrets) : can(regex("^arn:[a-z-]+:secretsmanager:", arn))])
    error_message = "api_authorization_secrets maps a dataset's name to a secret's ARN (arn:aws:secretsmanager:…)."
  }
}

variable "hash_key_secrets" {
  description = "By dataset, the ARN of a Secrets Manager secret of yours that holds the key of the hashed columns, for instance to keep the hashes of an older deployment. A dataset that is not named here gets a new key."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for arn in values(var.hash_key_secrets) : can(regex("^arn:[a-z-]+:secretsmanager:", arn))])
    error_message = "hash_key_secrets maps a dataset's name to a secret's ARN (arn:aws:secretsmanager:…)."
  }
}

variable "log_level" {
  description = "Application log level of both functions."
  type        = string
  default     = "INFO"
  validation {
    condition     = contains(["TRACE", "DEBUG", "INFO"], var.log_level)
    error_message = "log_level is TRACE, DEBUG or INFO: above INFO Lambda would drop the metrics' lines as well."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept, days."
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of CloudWatch's: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

# Event source mapping and schedule.

variable "create_event_source_mapping" {
  description = "Let Lambda poll the topic. False: something else does, such as the event source of localstack/."
  type        = bool
  default     = true
}

variable "batch_size" {
  description = "Records of one invocation of the consumer at most. Lambda also ends a batch at 6 MB."
  type        = number
  default     = 10000
  validation {
    condition     = var.batch_size >= 1 && var.batch_size <= 10000
    error_message = "batch_size is between 1 and 10000."
  }
}

variable "batching_window_seconds" {
  description = "How long records are gathered before the consumer is invoked, seconds: larger objects against fresher rows."
  type        = number
  default     = 60
  validation {
    condition     = var.batching_window_seconds >= 0 && var.batching_window_seconds <= 300
    error_message = "batching_window_seconds is between 0 and 300."
  }
}

variable "provisioned_pollers" {
  description = "Pollers of provisioned mode: about $135 a month for each event poller unit, which is up to 20 MB/s by up to ten pollers (four at their full 5 MB/s). Null: on demand, without cost."
  type        = object({ minimum = number, maximum = number })
  default     = null
  validation {
    condition     = var.provisioned_pollers == null || try(var.provisioned_pollers.minimum >= 1 && var.provisioned_pollers.maximum >= var.provisioned_pollers.minimum && var.provisioned_pollers.maximum <= 2000, false)
    error_message = "provisioned_pollers has a minimum of 1 or more, and a maximum that is not below it and 2000 at most."
  }
}

variable "event_source_metrics" {
  description = "Let the event source mapping report how many events it polled, invoked and failed (CloudWatch's price of custom metrics)."
  type        = bool
  default     = false
}

variable "schedule_enabled" {
  description = "Run the producers on their schedule. False pauses them; what is on the topic is still stored."
  type        = bool
  default     = true
}

# Lake, catalog, Athena.

variable "create_bucket" {
  description = "Make the lake's bucket. False: bucket_name is yours, and so are its policy and lifecycle (see the output bucket_policy)."
  type        = bool
  default     = true
}

variable "bucket_name" {
  description = "Name of the lake's bucket. Null: <name>-lake-<account>-<region>."
  type        = string
  default     = null
  validation {
    condition     = var.bucket_name == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name is 3 to 63 of a-z, 0-9, - and ., as S3 wants it."
  }
  validation {
    condition     = var.create_bucket || var.bucket_name != null
    error_message = "create_bucket = false needs bucket_name: the bucket that is yours."
  }
}

variable "dead_letter_retention_days" {
  description = "How long dead letters are kept, days. `freshet verify --dead-letter-days` takes the same number."
  type        = number
  default     = 30
  validation {
    condition     = var.dead_letter_retention_days >= 1 && var.dead_letter_retention_days <= 3650
    error_message = "dead_letter_retention_days is between 1 and 3650."
  }
}

variable "query_result_retention_days" {
  description = "How long Athena's results are kept, days."
  type        = number
  default     = 7
  validation {
    condition     = var.query_result_retention_days >= 1 && var.query_result_retention_days <= 3650
    error_message = "query_result_retention_days is between 1 and 3650."
  }
}

variable "create_catalog" {
  description = "Make the Glue database and tables, and Athena's workgroup with its saved queries. False: the consumer registers nothing."
  type        = bool
  default     = true
}

variable "bytes_scanned_limit_gib" {
  description = "A query that would scan more is stopped, GiB. Athena takes $5 a TB."
  type        = number
  default     = 10
  validation {
    condition     = var.bytes_scanned_limit_gib >= 1
    error_message = "bytes_scanned_limit_gib is 1 or more."
  }
}

# Monitoring.

variable "alarm_email" {
  description = "Address that alarms are mailed to, after it was confirmed. Null: the SNS topic has no subscriber of ours."
  type        = string
  default     = null
  validation {
    condition     = var.alarm_email == null || can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", var.alarm_email))
    error_message = "alarm_email is an e-mail address."
  }
}
