# The key of the hashed columns: one a dataset that hashes, made by AWS, known to the producer alone.
locals {
  # A name that AWS completes: a destroyed secret keeps its name for weeks, and a new deployment must not wait for it.
  hash_key_name_prefixes = { for name in keys(local.datasets) : name => "${var.name}/${name}/hash-key-" }

  # Where each key lies, and the same as a policy names it before the secret is made.
  hash_keys         = merge({ for name, key in module.hash_key : name => key.arn }, var.hash_key_secrets)
  hash_key_patterns = { for name, d in local.datasets : name => lookup(var.hash_key_secrets, name, "arn:${local.partition}:secretsmanager:${local.here}:secret:${local.hash_key_name_prefixes[name]}*") if d.hashed }
}

module "hash_key" {
  for_each                = { for name, d in local.datasets : name => d if d.hashed && !contains(keys(var.hash_key_secrets), name) }
  source                  = "./hash_key"
  name_prefix             = local.hash_key_name_prefixes[each.key]
  kms_key_arn             = var.kms_key_arn
  recovery_window_in_days = var.force_destroy ? 0 : 30
}
