# What differs from AWS: laid over infra/ by provision.sh, https://developer.hashicorp.com/terraform/language/files/override
terraform {
  backend "s3" {}
}

locals {
  # A group a lake: a bucket that LocalStack made anew is empty, and a new group reads the topic into it from the beginning, so that the lake is whole again. A
  # bucket of one's own (S3_BUCKET) outlives LocalStack, and so does its group; another bucket or prefix is another lake.
  consumer_groups = { for name, d in local.datasets : name => "${var.name}-${name}-${substr(var.create_bucket ? terraform_data.life.id : sha256("${local.bucket}/${d.lake.prefix}"), 0, 8)}" }
}

# Here Terraform ships the code, too: an image that was built again has other zips.
resource "aws_lambda_function" "producer" {
  source_code_hash = filebase64sha256("${local.zip_folder}/producer/bootstrap.zip")
  lifecycle {
    ignore_changes = []
  }
}

resource "aws_lambda_function" "consumer" {
  source_code_hash = filebase64sha256("${local.zip_folder}/consumer/bootstrap.zip")
  lifecycle {
    ignore_changes = []
  }
}
