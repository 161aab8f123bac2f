#!/usr/bin/env bash
# `make aws-smoke`: the whole way on a real AWS account, then everything is destroyed again.
#
# Works in a copy of infra/ with a name and a local state of its own, so that no backend, no settings and no other deployment of yours is touched; waits
# for rows, proves them with `freshet verify` and with Athena, and destroys. About 30 cents with a cluster of its own (MSK takes half an hour to make one),
# cents with yours, on which the topic names_topic must not be in use, and stays:
#   make aws-smoke KAFKA='{cluster_arn="arn:…", subnet_ids=["subnet-…"], security_group_ids=["sg-…"]}'
set -euo pipefail
cd "$(dirname "$0")/../.."
if [[ -n ${TF_CLI_CONFIG_FILE:-} && ! -f $TF_CLI_CONFIG_FILE ]]; then export TF_CLI_CONFIG_FILE=/dev/null; fi
stop() { echo "aws-smoke: $1" >&2; exit 1; }

command -v terraform >/dev/null || stop 'terraform is missing: install version 1.11 or later, https://developer.hashicorp.com/terraform/install'
command -v aws >/dev/null || stop 'the aws command is missing, which asks Athena: install the AWS CLI, https://aws.amazon.com/cli/'
export AWS_REGION=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
[[ -n $AWS_REGION ]] || stop 'no region is set: export AWS_REGION'
account=$(aws sts get-caller-identity --query Account --output text) || stop 'AWS does not accept the credentials, or cannot be reached: run `aws sso login`, or set AWS_PROFILE'
for variable in $(compgen -e TF_VAR_ || true); do unset "$variable"; done

ARCH=${ARCH:-arm64}
name="smoke-$(date +%H%M%S)"
work=$(mktemp -d)
mkdir "$work/infra"
cp -R infra/*.tf infra/.terraform.lock.hcl infra/hash_key "$work/infra/"
rm -f "$work/infra/backend.tf"
cp -R datasets "$work/"
terraform() { command terraform -chdir="$work/infra" "$@"; }

echo "aws-smoke: deployment $name in account $account, $AWS_REGION; its state is in $work"
if [[ ${YES:-} != 1 ]]; then
    read -r -p 'This makes resources that cost money and destroys them again. Go on? [y/N] ' answer || stop 'nobody answers: set YES=1 to go on without being asked'
    [[ $answer == [yY]* ]] || stop 'nothing was made'
fi

variables=(-var "name=$name" -var "region=$AWS_REGION" -var "architecture=$ARCH" -var "zip_folder=$PWD/target/lambda/$ARCH" -var force_destroy=true
    -var batching_window_seconds=10 -var "reserve_concurrency=${RESERVE_CONCURRENCY:-true}")
[[ -z ${KAFKA:-} ]] || variables+=(-var create_cluster=false -var "kafka=$KAFKA")

make build ARCH="$ARCH"
cargo build --locked -p freshet
TERRAFORM_FOLDER="$work/infra" infra/init.sh
destroy() {
    echo 'aws-smoke: destroying'
    terraform destroy -auto-approve -input=false "${variables[@]}" && return
    { echo 'aws-smoke: NOT everything is destroyed; run:'; printf ' %q' terraform -chdir="$work/infra" destroy "${variables[@]}"; echo; } >&2
}
trap destroy EXIT
terraform apply -auto-approve -input=false "${variables[@]}"

bucket=$(terraform output -raw bucket)
database=${name//-/_}
ask() { # SQL: runs it in the workgroup and prints the first column, without the header
    local id state
    id=$(aws athena start-query-execution --work-group "$name" --query-execution-context "Database=$database" --query-string "$1" --query QueryExecutionId --output text) ||
        stop "Athena does not take the query: $1"
    while state=$(aws athena get-query-execution --query-execution-id "$id" --query QueryExecution.Status.State --output text); [[ $state == QUEUED || $state == RUNNING ]]; do sleep 1; done
    [[ $state == SUCCEEDED ]] || stop "Athena: $state: $(aws athena get-query-execution --query-execution-id "$id" --query QueryExecution.Status.StateChangeReason --output text)"
    aws athena get-query-results --query-execution-id "$id" --query 'ResultSet.Rows[1:].Data[0].VarCharValue' --output text
}

echo 'aws-smoke: waiting for rows (the schedule fires every 5 minutes, a run takes 2)'
rows=0
for _ in $(seq 60); do
    rows=$(ask 'SELECT count(*) FROM names') || exit
    [[ $rows == 0 ]] || break
    sleep 15
done
[[ $rows != 0 ]] || stop "no row reached the lake within 15 minutes: read the logs of $name-names-producer and $name-names-consumer"

# Paused, and the last batch waited for: what Athena counts and what verify reads are then the same rows.
aws events disable-rule --name "$name-names"
sleep 180
export S3_BUCKET=$bucket S3_REGION=$AWS_REGION GLUE_DATABASE=$database
report=$(target/debug/freshet verify --deep --json) || stop "verify found something: $report"
rows=$(ask 'SELECT count(*) FROM names') || exit
copies=$(ask 'SELECT count(*) FROM (SELECT 1 FROM names GROUP BY "_partition", "_epoch", "_offset" HAVING count(*) > 1)') || exit
clear=$(ask "SELECT count(*) FROM names WHERE zip IS NOT NULL AND NOT regexp_like(zip, '^[0-9a-f]{64}$')") || exit
[[ $copies == 0 && $clear == 0 ]] || stop "Athena sees $copies records stored twice and $clear postcodes in clear"
verified=$(grep -o '"rows": *[0-9]*' <<<"$report" | awk -F: '{ sum += $2 } END { print sum }')
[[ $rows == "$verified" ]] || stop "Athena counts $rows rows, verify $verified"
echo "aws-smoke: $rows rows, each offset once, by Athena and by verify"
