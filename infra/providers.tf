provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }

  # Only an emulator is spoken to like this; on AWS none of it is set.
  s3_use_path_style           = local.emulated
  skip_credentials_validation = local.emulated
  skip_metadata_api_check     = local.emulated

  dynamic "endpoints" {
    for_each = local.emulated ? [var.endpoint_url] : []
    content {
      appautoscaling = endpoints.value
      athena         = endpoints.value
      cloudwatch     = endpoints.value
      ec2            = endpoints.value
      events         = endpoints.value
      glue           = endpoints.value
      iam            = endpoints.value
      kafka          = endpoints.value
      lambda         = endpoints.value
      logs           = endpoints.value
      s3             = endpoints.value
      secretsmanager = endpoints.value
      sns            = endpoints.value
      sts            = endpoints.value
    }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  emulated  = var.endpoint_url != null
  tags      = merge({ Project = "freshet", Deployment = var.name }, var.tags)
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.name
  # The end of `arn:aws:service:region:account`, which most ARNs share. ARNs are built from names so that a plan can show every policy whole.
  here = "${local.region}:${local.account}"
}
