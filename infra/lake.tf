# The lake's bucket. Its policy holds the writers to what the protocol promises: a data object is created once and never replaced.
locals {
  bucket     = coalesce(var.bucket_name, "${var.name}-lake-${local.account}-${local.region}")
  bucket_arn = "arn:${local.partition}:s3:::${local.bucket}"

  # Of each dataset, by what the functions make of its `lake.prefix` (docs/DESIGN.md, "Lake and catalog").
  prefixes = {
    for name, d in local.datasets : name => {
      data         = d.lake.prefix
      dead_letters = "${d.lake.prefix}_dead_letters"
      ledger       = "_ledger/${d.lake.prefix}"
      replay       = "_replay/${d.lake.prefix}"
    }
  }
  query_results_prefix = "_athena/${var.name}"

  bucket_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"]
        Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        # Without `If-None-Match: *` a late attempt could replace what an earlier one has stored.
        Sid       = "CreateOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["s3:PutObject"]
        Resource  = flatten([for p in local.prefixes : ["${local.bucket_arn}/${p.data}/*", "${local.bucket_arn}/${p.dead_letters}/*"]])
        Condition = {
          Null = { "s3:if-none-match" = "true" }
          Bool = { "s3:ObjectCreationOperation" = "true" }
        }
      },
      {
        # A ledger, and what a replay remembers, is created, or moved on from the version that was read; both conditions absent is what is refused.
        Sid       = "LedgerOnlyOnCondition"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["s3:PutObject"]
        Resource  = flatten([for p in local.prefixes : ["${local.bucket_arn}/${p.ledger}/*", "${local.bucket_arn}/${p.replay}/*"]])
        Condition = {
          Null = { "s3:if-none-match" = "true", "s3:if-match" = "true" }
          Bool = { "s3:ObjectCreationOperation" = "true" }
        }
      },
    ]
  })
}

resource "aws_s3_bucket" "lake" {
  #checkov:skip=CKV_AWS_18:Access logs need a bucket of their own; CloudTrail's data events tell the same where they are wanted
  #checkov:skip=CKV_AWS_21:Data objects are created once and never replaced, and of a ledger only the last version counts
  #checkov:skip=CKV_AWS_144:A second region doubles the storage's price; who needs one replicates with a rule of their own
  #checkov:skip=CKV2_AWS_62:Nobody listens
  count         = var.create_bucket ? 1 : 0
  bucket        = local.bucket
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_public_access_block" "lake" {
  count                   = var.create_bucket ? 1 : 0
  bucket                  = aws_s3_bucket.lake[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "lake" {
  count  = var.create_bucket ? 1 : 0
  bucket = aws_s3_bucket.lake[0].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "lake" {
  count  = var.create_bucket ? 1 : 0
  bucket = aws_s3_bucket.lake[0].id
  rule {
    bucket_key_enabled = var.kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_policy" "lake" {
  count      = var.create_bucket ? 1 : 0
  bucket     = aws_s3_bucket.lake[0].id
  policy     = local.bucket_policy
  depends_on = [aws_s3_bucket_public_access_block.lake]
}

# Data objects and ledgers stay for ever: expiring a part of a lake is a decision that `freshet verify` must know of.
resource "aws_s3_bucket_lifecycle_configuration" "lake" {
  count  = var.create_bucket ? 1 : 0
  bucket = aws_s3_bucket.lake[0].id

  dynamic "rule" {
    for_each = local.prefixes
    content {
      id     = "dead-letters-${rule.key}"
      status = "Enabled"
      filter {
        prefix = "${rule.value.dead_letters}/"
      }
      expiration {
        days = var.dead_letter_retention_days
      }
    }
  }

  rule {
    id     = "query-results"
    status = "Enabled"
    filter {
      prefix = "${local.query_results_prefix}/"
    }
    expiration {
      days = var.query_result_retention_days
    }
  }

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}
