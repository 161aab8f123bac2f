# Everything about a dataset comes from its file; see docs/CONFIGURATION.md for the keys.
locals {
  dataset_paths = {
    for choice in var.datasets :
    choice => can(regex("\\.ya?ml$", choice)) ? choice : "${path.module}/../datasets/${choice}.yaml"
  }

  datasets = {
    for choice, path in local.dataset_paths : yamldecode(file(path)).name => merge(yamldecode(file(path)), {
      # What the functions' DATASET says: they embed the files of datasets/.
      choice = choice
      sha256 = filesha256(path)
      hashed = anytrue([for column in yamldecode(file(path)).columns : can(column.hash)])
    })
  }

  hive_types = {
    string    = "string"
    boolean   = "boolean"
    integer   = "bigint"
    double    = "double"
    timestamp = "timestamp"
  }

  function_names = {
    for name in keys(local.datasets) : name => {
      producer = "${var.name}-${name}-producer"
      consumer = "${var.name}-${name}-consumer"
    }
  }
}

# Only checks: what `terraform plan` refuses before anything is made.
resource "terraform_data" "datasets" {
  lifecycle {
    precondition {
      condition     = length(distinct([for d in local.datasets : d.topic.name])) == length(local.datasets)
      error_message = "Two datasets write to the same topic: give each a `topic.name` of its own."
    }
    precondition {
      # A lake inside another's dead letters would expire with them.
      condition = alltrue(flatten([for a, one in local.datasets : [for b, other in local.datasets :
        a == b || !anytrue([for taken in ["${one.lake.prefix}/", "${one.lake.prefix}_dead_letters/"] : startswith("${other.lake.prefix}/", taken)])
      ]]))
      error_message = "Two datasets share a `lake.prefix`, or one lies inside the other's data or dead letters: give each a place of its own."
    }
    precondition {
      condition     = !anytrue([for name in keys(local.datasets) : contains(keys(local.datasets), "${name}_dead_letters")])
      error_message = "A dataset is named as another's table of dead letters: give it another `name`."
    }
    precondition {
      condition     = alltrue([for d in local.datasets : d.schedule.run_seconds < d.schedule.every_minutes * 60])
      error_message = "A run must end before the next one starts: lower `schedule.run_seconds` or raise `schedule.every_minutes` in the dataset file."
    }
    precondition {
      condition     = alltrue([for d in local.datasets : d.schedule.run_seconds <= 840])
      error_message = "`schedule.run_seconds` can be 840 at most: a Lambda function ends after 900 s."
    }
    precondition {
      condition     = alltrue([for d in local.datasets : d.schedule.every_minutes <= 1440])
      error_message = "`schedule.every_minutes` can be 1440 at most: the alarms count by runs, and CloudWatch by a day at most."
    }
    precondition {
      condition     = !var.create_cluster || alltrue([for d in local.datasets : d.topic.replication_factor <= var.broker_count])
      error_message = "A dataset's `topic.replication_factor` is larger than broker_count: raise broker_count or lower it in the dataset file."
    }
    precondition {
      condition     = !var.create_cluster || alltrue([for d in local.datasets : d.topic.replication_factor >= var.min_insync_replicas])
      error_message = "A dataset's `topic.replication_factor` is smaller than min_insync_replicas, so that nothing could be published: raise it in the dataset file."
    }
    precondition {
      condition     = alltrue([for name in keys(var.hash_key_secrets) : try(local.datasets[name].hashed, false)])
      error_message = "hash_key_secrets names a dataset that `datasets` does not hold, or that hashes no column."
    }
    precondition {
      condition     = alltrue([for name in keys(var.api_authorization_secrets) : contains(keys(local.datasets), name)])
      error_message = "api_authorization_secrets names a dataset that `datasets` does not hold."
    }
  }
}
