#!/usr/bin/env bash
# `make deploy`: looks whether everything is there, builds, applies, and ships the code of both functions of every dataset. Arguments go to `terraform apply`.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -n ${TF_CLI_CONFIG_FILE:-} && ! -f $TF_CLI_CONFIG_FILE ]]; then export TF_CLI_CONFIG_FILE=/dev/null; fi
ARCH=${ARCH:-arm64}
MAKE=${MAKE:-make}

stop() { echo "deploy: $1" >&2; exit 1; }

# Before ten minutes of building, what can be known at once: tools, region, credentials.
command -v terraform >/dev/null || stop 'terraform is missing: install version 1.11 or later, https://developer.hashicorp.com/terraform/install'
version=$(terraform version -json | sed -n 's/.*"terraform_version": *"\([0-9.]*\).*/\1/p')
[[ $(printf '%s\n1.11.0\n' "$version" | sort -V | head -1) == 1.11.0 ]] || stop "terraform is $version: version 1.11 or later keeps the hash's key out of the state"

if [[ -z ${TF_VAR_region:-${AWS_REGION:-${AWS_DEFAULT_REGION:-}}} ]]; then
    region=$(command -v aws >/dev/null && aws configure get region || true)
    [[ -n $region ]] || stop 'no region is set: export AWS_REGION, for instance AWS_REGION=eu-central-1'
    export AWS_REGION=$region
fi
export AWS_REGION=${AWS_REGION:-${TF_VAR_region:-${AWS_DEFAULT_REGION:-}}}

if command -v aws >/dev/null; then
    who=$(aws sts get-caller-identity --query Arn --output text 2>&1) || stop "AWS does not accept the credentials ($who): run \`aws sso login\`, or set AWS_PROFILE"
    echo "deploy: as $who, in $AWS_REGION"
else
    echo 'deploy: the aws command is not here, so Terraform is the first to try the credentials'
fi

$MAKE build ARCH="$ARCH"
infra/init.sh
terraform -chdir=infra apply -var "architecture=$ARCH" "$@"

# Terraform makes the functions with the first code and then leaves code alone: this ships it, now and whenever it has changed.
infra/ship.sh
terraform -chdir=infra output
