#!/usr/bin/env bash
# `make deploy`: looks whether everything is there, builds, applies, and ships the code of both functions of every dataset. Arguments go to Terraform.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -n ${TF_CLI_CONFIG_FILE:-} && ! -f $TF_CLI_CONFIG_FILE ]]; then export TF_CLI_CONFIG_FILE=/dev/null; fi
ARCH=${ARCH:-arm64}
MAKE=${MAKE:-make}

stop() { echo "deploy: $1" >&2; exit 1; }

# Before ten minutes of building, what can be known at once: tools, region, credentials, variables.
[[ $ARCH == arm64 || $ARCH == x86_64 ]] || stop "Lambda has arm64 and x86_64, not $ARCH: run make deploy ARCH=arm64"
[[ -z ${DATASET:-} ]] || stop "DATASET picks a dataset on this machine; here it is a variable of Terraform: make deploy ARGS='-var datasets=[\"$DATASET\"]'"
command -v terraform >/dev/null || stop 'terraform is missing: install version 1.11 or later, https://developer.hashicorp.com/terraform/install'
version=$(terraform version -json 2>/dev/null | sed -n 's/.*"terraform_version": *"\([0-9.]*\).*/\1/p')
[[ $(printf '%s\n1.11.0\n' "${version:-0}" | sort -V | head -1) == 1.11.0 ]] ||
    stop "terraform is ${version:-too old to say}: install 1.11 or later (it keeps the hash's key out of the state), https://developer.hashicorp.com/terraform/install"

export AWS_REGION=${TF_VAR_region:-${AWS_REGION:-${AWS_DEFAULT_REGION:-}}}
if [[ -z $AWS_REGION ]] && command -v aws >/dev/null; then AWS_REGION=$(aws configure get region || true); fi
[[ -n $AWS_REGION ]] || stop 'no region is set: export AWS_REGION, for instance AWS_REGION=eu-central-1'

if command -v aws >/dev/null; then
    if ! who=$(aws sts get-caller-identity --query Arn --output text 2>&1); then
        case $who in
        *'Could not connect'*) stop "AWS cannot be reached in the region $AWS_REGION: check the network and the region's name" ;;
        *'could not be found'*) stop "there is no such profile: correct AWS_PROFILE (aws configure list-profiles)" ;;
        *) stop "AWS does not accept the credentials (${who##*$'\n'}): run \`aws sso login\`, or set AWS_PROFILE" ;;
        esac
    fi
    echo "deploy: as $who, in $AWS_REGION"
fi

infra/init.sh >/dev/null
echo 'deploy: asking Terraform whether variables and credentials will do'
plan=()
for argument in "$@"; do [[ $argument == -auto-approve ]] || plan+=("$argument"); done
refused=$(terraform -chdir=infra plan -input=false -no-color -var "architecture=$ARCH" ${plan[@]+"${plan[@]}"} 2>&1 >/dev/null) || { echo "$refused" >&2; stop 'nothing was built or made: correct what stands above'; }

$MAKE build ARCH="$ARCH"
terraform -chdir=infra apply -var "architecture=$ARCH" "$@"

# Terraform makes the functions with the first code and then leaves code alone: this ships it, now and whenever it has changed.
$MAKE ship
terraform -chdir=infra output -raw next_steps
