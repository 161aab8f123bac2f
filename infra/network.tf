# The cluster and the producer live in private subnets; one NAT lets the producer reach the API, and the event source mapping reach Lambda.
# The consumer needs none of it: it speaks to S3 and Glue only.
locals {
  create_network = var.create_cluster && var.create_network

  vpc_id     = local.create_network ? aws_vpc.this[0].id : var.vpc_id
  subnet_ids = local.create_network ? aws_subnet.private[*].id : var.subnet_ids

  # Where the APIs of the datasets listen; the producer may reach nothing else outside.
  api_ports = toset([
    for d in local.datasets :
    try(tonumber(regex("^https?://[^/]*:([0-9]+)", d.source.url)[0]), startswith(d.source.url, "https") ? 443 : 80)
  ])
}

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:The subnets ignore what becomes of the list later
  count = local.create_network ? 1 : 0
  state = "available"
  # MSK refuses this zone.
  exclude_zone_ids = ["use1-az3"]
  # Local zones and wavelength zones have no MSK.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:Nothing but brokers and producers is in it, nothing is let in from outside, and flow logs cost by the gigabyte
  count                = local.create_network ? 1 : 0
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# Without a rule: what belongs to no group of ours is reachable by nobody.
resource "aws_default_security_group" "closed" {
  count  = local.create_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "private" {
  count             = local.create_network ? var.zone_count : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = data.aws_availability_zones.available[0].names[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 3, count.index)
  tags              = { Name = "${var.name}-private-${count.index}" }

  lifecycle {
    # The list of zones changes when one is added, or is away for an hour: that must not replace the subnets, and with them the cluster.
    ignore_changes = [availability_zone]
    precondition {
      condition     = var.zone_count <= length(data.aws_availability_zones.available[0].names)
      error_message = "The region has fewer zones with MSK than zone_count: lower it, with broker_count."
    }
  }
}

# The NAT's own; nothing else is in it.
resource "aws_subnet" "public" {
  count             = local.create_network ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = data.aws_availability_zones.available[0].names[0]
  cidr_block        = cidrsubnet(var.vpc_cidr, 3, 7)
  tags              = { Name = "${var.name}-public" }

  lifecycle {
    ignore_changes = [availability_zone]
  }
}

resource "aws_internet_gateway" "this" {
  count  = local.create_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = var.name }
}

resource "aws_eip" "nat" {
  count      = local.create_network ? 1 : 0
  domain     = "vpc"
  tags       = { Name = "${var.name}-nat" }
  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  count         = local.create_network ? 1 : 0
  allocation_id = aws_eip.nat[0].id
  subnet_id     = aws_subnet.public[0].id
  tags          = { Name = var.name }
}

resource "aws_route_table" "public" {
  count  = local.create_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this[0].id
  }
  tags = { Name = "${var.name}-public" }
}

resource "aws_route_table_association" "public" {
  count          = local.create_network ? 1 : 0
  subnet_id      = aws_subnet.public[0].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_route_table" "private" {
  count  = local.create_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.this[0].id
  }
  tags = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count          = local.create_network ? var.zone_count : 0
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[0].id
}

# Free, and keeps the producer's dead letters off the NAT. It opens the lake's bucket and no other.
resource "aws_vpc_endpoint" "s3" {
  count             = local.create_network ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  service_name      = "com.amazonaws.${local.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private[0].id]
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "DeadLetters"
      Effect    = "Allow"
      Principal = "*"
      Action    = ["s3:PutObject"]
      Resource  = ["${local.bucket_arn}/*"]
    }]
  })
  tags = { Name = "${var.name}-s3" }
}

resource "aws_security_group" "producer" {
  count       = var.create_cluster ? 1 : 0
  name        = "${var.name}-producer"
  description = "The producers: out to Kafka, the APIs and AWS"
  vpc_id      = local.vpc_id
  tags        = { Name = "${var.name}-producer" }
}

resource "aws_vpc_security_group_egress_rule" "producer_to_kafka" {
  count                        = var.create_cluster ? 1 : 0
  security_group_id            = aws_security_group.producer[0].id
  description                  = "Kafka with TLS and IAM"
  referenced_security_group_id = aws_security_group.kafka[0].id
  ip_protocol                  = "tcp"
  from_port                    = 9098
  to_port                      = 9098
}

# 443 also for Secrets Manager and S3, which the producer asks itself.
resource "aws_vpc_security_group_egress_rule" "producer_to_api" {
  for_each          = var.create_cluster ? toset([for port in setunion(local.api_ports, [443]) : tostring(port)]) : toset([])
  security_group_id = aws_security_group.producer[0].id
  description       = "The APIs and AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
}
