#!/usr/bin/env bash
# Applies infra/ to the emulator at AWS_ENDPOINT_URL, tells the event source how to poll (FRESHET_OUTPUTS), and starts the first run of the producers.
# Run again, it changes what has changed. The service `provision` of docker-compose.yaml runs it; so does `make local-test`, without Docker.
set -euo pipefail

stop() { echo "provision: $1" >&2; exit 1; }
say() { echo "provision: $1"; }

: "${AWS_ENDPOINT_URL:?is the address of the emulator: http://host:port}"
: "${KAFKA_BOOTSTRAP_SERVERS:?is the address of Kafka: host:port}"
: "${FRESHET_OUTPUTS:?is the file that the event source follows}"
: "${AWS_REGION:?is the region that the emulator plays}"
export TERRAFORM_FOLDER=${TERRAFORM_FOLDER:-/freshet/infra}
dataset=${DATASET:-names}

# The state lies in the emulator, and is lost with all that it describes.
STATE_BUCKET=freshet-terraform-state
s3() { curl --silent --output /dev/null --aws-sigv4 "aws:amz:$AWS_REGION:s3" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$@"; }
if ! s3 --fail --head "$AWS_ENDPOINT_URL/$STATE_BUCKET"; then
    say 'the emulator is new: everything is made'
    # The event source stops, before there is a consumer that it could invoke with the middle of the topic.
    rm -f "$FRESHET_OUTPUTS"
    s3 --fail --request PUT "$AWS_ENDPOINT_URL/$STATE_BUCKET" || stop "the emulator at $AWS_ENDPOINT_URL makes no bucket: look into its log"
fi

# A bucket of one's own outlives LocalStack, and so must the key of its hashed columns: it is kept beside the outputs, until local-reset.
keep_hash_key() {
    local file=${FRESHET_OUTPUTS%/*}/hash-key name=freshet-own/$dataset/hash-key answer arn
    [[ -s $file ]] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$file.unfinished" && mv "$file.unfinished" "$file")
    # On standard input: a command line can be read by everybody.
    answer=$(printf '{"Name":"%s","SecretString":"%s"}' "$name" "$(<"$file")" | secretsmanager CreateSecret)
    [[ $answer == *'"ARN"'* ]] || answer=$(printf '{"SecretId":"%s"}' "$name" | secretsmanager DescribeSecret)
    arn=$(sed -n 's/.*"ARN": *"\([^"]*\)".*/\1/p' <<<"$answer")
    [[ -n $arn ]] || stop "the emulator keeps no secret: look into its log"
    export TF_VAR_hash_key_secrets="{\"$dataset\":\"$arn\"}"
}
secretsmanager() {
    curl --silent --aws-sigv4 "aws:amz:$AWS_REGION:secretsmanager" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" --data @- \
        --header 'Content-Type: application/x-amz-json-1.1' --header "X-Amz-Target: secretsmanager.$1" "$AWS_ENDPOINT_URL"
}

consumer_environment=''
producer_environment='"TOPIC_REPLICATION_FACTOR":"1"'
if [[ -n ${S3_BUCKET:-} ]]; then
    ! grep -q 'hash: ' "$TERRAFORM_FOLDER/../datasets/$dataset.yaml" || keep_hash_key
    # The functions have the emulator's credentials; the gateway has yours.
    S3_ENDPOINT=${S3_ENDPOINT:-http://s3-gateway:4570}
    curl --silent --output /dev/null --retry 5 --retry-connrefused "$S3_ENDPOINT" ||
        stop "S3_BUCKET is set, and nothing answers at $S3_ENDPOINT: set COMPOSE_PROFILES=bucket in .env as well, and look into the log of s3-gateway"
    bucket="\"S3_ENDPOINT\":\"$S3_ENDPOINT\",\"S3_REGION\":\"${S3_REGION:-$AWS_REGION}\""
    consumer_environment=$bucket
    producer_environment+=,$bucket
    export TF_VAR_create_bucket=false TF_VAR_bucket_name=$S3_BUCKET
else
    export TF_VAR_bucket_name=freshet-lake
fi
# The stand-in runs with the profile `offline`.
if [[ -z ${API_URL:-} ]] && getent hosts api-stand-in >/dev/null 2>&1; then API_URL='http://api-stand-in:8090/api/?results=10'; fi
[[ -z ${API_URL:-} ]] || producer_environment+=",\"API_URL\":\"$API_URL\""
[[ -z ${RUN_SECONDS:-} ]] || producer_environment+=",\"RUN_SECONDS\":\"$RUN_SECONDS\""

case $(uname -m) in aarch64 | arm64) architecture=arm64 ;; *) architecture=x86_64 ;; esac
export TF_VAR_endpoint_url=$AWS_ENDPOINT_URL TF_VAR_region=$AWS_REGION TF_VAR_architecture=$architecture
export TF_VAR_datasets="[\"$dataset\"]"
export TF_VAR_kafka="{\"bootstrap_servers\":[\"${KAFKA_BOOTSTRAP_SERVERS//,/\",\"}\"],\"authentication\":\"none\",\"tls\":false}"
export TF_VAR_consumer_environment="{$consumer_environment}" TF_VAR_producer_environment="{$producer_environment}"

say "applying infra/ to $AWS_ENDPOINT_URL"
"$TERRAFORM_FOLDER/init.sh" -reconfigure >/dev/null \
    -backend-config=bucket=$STATE_BUCKET -backend-config=key=freshet.tfstate -backend-config="region=$AWS_REGION" \
    -backend-config="endpoints={s3=\"$AWS_ENDPOINT_URL\"}" -backend-config=use_path_style=true -backend-config=skip_credentials_validation=true \
    -backend-config=skip_metadata_api_check=true -backend-config=skip_requesting_account_id=true
terraform -chdir="$TERRAFORM_FOLDER" apply -auto-approve -input=false -no-color -compact-warnings ||
    stop 'Terraform could not apply infra/: its message stands above; look into the log of localstack, then run this again'

# Whole or not at all: the event source reads it at any time.
terraform -chdir="$TERRAFORM_FOLDER" output -json >"$FRESHET_OUTPUTS.unfinished"
mv "$FRESHET_OUTPUTS.unfinished" "$FRESHET_OUTPUTS"

# The schedule's own first run comes only after its interval.
"${FRESHET:-freshet}" invoke --no-wait --outputs "$FRESHET_OUTPUTS" || say 'the producer runs at its next schedule'
say 'done'
