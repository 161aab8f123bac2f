# The network, ours or brought along, and what may leave it.
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

run "the_network_has_one_way_out_and_none_in" {
  command = plan
  assert {
    condition     = [for s in aws_subnet.private : s.availability_zone] == ["eu-central-1a", "eu-central-1b"] && !anytrue([for s in concat(aws_subnet.private, aws_subnet.public) : s.map_public_ip_on_launch])
    error_message = "The subnets are not in the first two zones, or give out public addresses."
  }
  assert {
    condition     = length(distinct([for s in concat(aws_subnet.private, aws_subnet.public) : s.cidr_block])) == 3
    error_message = "Subnets overlap."
  }
  assert {
    condition     = [for r in aws_route_table.private[0].route : r.cidr_block] == ["0.0.0.0/0"] && alltrue([for r in aws_route_table.private[0].route : r.gateway_id == ""])
    error_message = "The private subnets go out otherwise than through the NAT."
  }
  assert {
    condition     = length(aws_route_table_association.private) == 2 && length(aws_vpc_endpoint.s3) == 1
    error_message = "A private subnet has no way out, or S3 is reached through the NAT."
  }
  assert {
    condition     = one(jsondecode(aws_vpc_endpoint.s3[0].policy).Statement).Action == ["s3:PutObject"] && one(jsondecode(aws_vpc_endpoint.s3[0].policy).Statement).Resource == ["arn:aws:s3:::freshet-lake-111122223333-eu-central-1/*"]
    error_message = "The endpoint opens more than the lake's bucket to what is in the network: ${aws_vpc_endpoint.s3[0].policy}"
  }
  assert {
    condition     = aws_vpc.this[0].cidr_block == "10.42.0.0/16" && aws_vpc.this[0].enable_dns_hostnames && aws_vpc.this[0].enable_dns_support
    error_message = "The VPC has another range, or does not know the brokers' names."
  }
}

run "the_producer_reaches_kafka_the_apis_and_aws_and_nothing_else" {
  command = plan
  variables {
    endpoint_url = "http://localhost:4566"
    datasets     = ["names", "tests/datasets/people.yaml"]
  }
  assert {
    # 443 is the API of names, and AWS; 8080 the API of people.
    condition     = { for port, rule in aws_vpc_security_group_egress_rule.producer_to_api : port => "${rule.ip_protocol} ${rule.from_port}-${rule.to_port} ${rule.cidr_ipv4}" } == { 443 = "tcp 443-443 0.0.0.0/0", 8080 = "tcp 8080-8080 0.0.0.0/0" }
    error_message = "The producers reach other ports: ${jsonencode(keys(aws_vpc_security_group_egress_rule.producer_to_api))}"
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.producer_to_kafka[0].to_port == 9098 && aws_vpc_security_group_egress_rule.producer_to_kafka[0].cidr_ipv4 == null
    error_message = "The producers reach the brokers on another port, or everybody on theirs."
  }
}

run "the_network_follows_its_variables" {
  command = plan
  variables {
    vpc_cidr     = "172.20.0.0/20"
    zone_count   = 3
    broker_count = 3
  }
  assert {
    condition     = aws_vpc.this[0].cidr_block == "172.20.0.0/20" && [for s in concat(aws_subnet.private, aws_subnet.public) : s.cidr_block] == ["172.20.0.0/23", "172.20.2.0/23", "172.20.4.0/23", "172.20.14.0/23"]
    error_message = "The subnets are not parts of the range: ${jsonencode([for s in concat(aws_subnet.private, aws_subnet.public) : s.cidr_block])}"
  }
  assert {
    condition     = [for s in aws_subnet.private : s.availability_zone] == ["eu-central-1a", "eu-central-1b", "eu-central-1c"] && length(aws_route_table_association.private) == 3 && length(aws_nat_gateway.this) == 1
    error_message = "Not each of three zones has a private subnet, or there is more than one NAT."
  }
}

run "ones_own_network_is_used_and_none_is_made" {
  command = plan
  variables {
    create_network = false
    vpc_id         = "vpc-1"
    subnet_ids     = ["subnet-1", "subnet-2"]
  }
  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.private) + length(aws_subnet.public) + length(aws_internet_gateway.this) + length(aws_eip.nat) + length(aws_nat_gateway.this) + length(aws_route_table.private) + length(aws_route_table.public) + length(aws_vpc_endpoint.s3) + length(aws_default_security_group.closed) == 0
    error_message = "Something of a network is made beside one's own."
  }
  assert {
    condition     = aws_security_group.kafka[0].vpc_id == "vpc-1" && aws_security_group.producer[0].vpc_id == "vpc-1"
    error_message = "The security groups are not in the VPC that was given."
  }
  assert {
    condition     = aws_msk_cluster.this[0].broker_node_group_info[0].client_subnets == toset(["subnet-1", "subnet-2"]) && aws_lambda_function.producer["names"].vpc_config[0].subnet_ids == toset(["subnet-1", "subnet-2"])
    error_message = "The brokers or the producer are not in the subnets that were given."
  }
}

run "a_region_with_too_few_zones_is_refused" {
  command = plan
  variables {
    zone_count   = 3
    broker_count = 3
  }
  override_data {
    target = data.aws_availability_zones.available
    values = { names = ["us-west-1a", "us-west-1c"] }
  }
  expect_failures = [aws_subnet.private]
}
