# A module of its own, so that mocked tests can replace it: mock providers know no ephemeral resources.
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

variable "name_prefix" {
  description = "Beginning of the secret's name."
  type        = string
}

variable "kms_key_arn" {
  description = "Customer key of the secret. Null: AWS's own."
  type        = string
}

variable "recovery_window_in_days" {
  description = "How long a deleted key can be restored, days. Without it nothing can be joined with the old hashes again. 0: at once."
  type        = number
}

# Ephemeral, and written through a write-only argument: it is in no state and no plan.
ephemeral "aws_secretsmanager_random_password" "key" {
  password_length     = 64
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "key" {
  #checkov:skip=CKV2_AWS_57:A new key makes new hashes, which join with no old one
  name_prefix             = var.name_prefix
  description             = "Key of the hashed columns (HMAC-SHA256). A new one makes new hashes."
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_window_in_days
}

resource "aws_secretsmanager_secret_version" "key" {
  secret_id        = aws_secretsmanager_secret.key.id
  secret_string_wo = ephemeral.aws_secretsmanager_random_password.key.random_password
  # Written once. Raising it would replace the key, and with it every hash.
  secret_string_wo_version = 1
}

output "arn" {
  description = "ARN of the secret, once it holds the key."
  value       = aws_secretsmanager_secret_version.key.arn
}
