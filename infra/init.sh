#!/usr/bin/env bash
# `terraform init`, from the registry or, where none can be reached, from a local mirror of the provider: the folder that TERRAFORM_PLUGIN_DIR names, or
# one that lies where packages put them. Arguments go to `terraform init`; TERRAFORM_FOLDER is the configuration's folder, this one by default.
set -euo pipefail
folder=${TERRAFORM_FOLDER:-$(dirname "$0")}

# A configuration file that is not there makes every command warn.
if [[ -n ${TF_CLI_CONFIG_FILE:-} && ! -f $TF_CLI_CONFIG_FILE ]]; then export TF_CLI_CONFIG_FILE=/dev/null; fi

if ! command -v terraform >/dev/null; then
    echo 'terraform is missing: install version 1.11 or later (https://developer.hashicorp.com/terraform/install), then run this again' >&2
    exit 1
fi

init() { terraform -chdir="$folder" init -input=false -no-color "$@"; }

if [[ -n ${TERRAFORM_PLUGIN_DIR:-} ]]; then
    init -plugin-dir="$TERRAFORM_PLUGIN_DIR" "$@" && exit
    echo "TERRAFORM_PLUGIN_DIR is $TERRAFORM_PLUGIN_DIR: it must hold <host>/hashicorp/aws/5.100.0/<os_arch>/; correct or unset it" >&2
    exit 1
fi
if failure=$(init "$@" 2>&1); then exit; fi
if [[ $failure == *'could not connect to'* || $failure == *'Failed to query available provider'* ]]; then
    # ROOT/<host>/hashicorp/aws/<version>/<os_arch>/terraform-provider-aws_v…
    provider=$(find /opt /usr/local/share /usr/share /var/lib "$HOME"/.terraform.d "$HOME"/.local/share/terraform -xdev -type f \
        -path '*/hashicorp/aws/5.100.0/*' -name 'terraform-provider-aws_v5.100.0*' -not -path '*/.terraform/*' -print -quit 2>/dev/null || true)
    if [[ -n $provider ]]; then
        init -plugin-dir="${provider%/*/hashicorp/aws/*}" "$@"
        exit
    fi
    failure+=$'\nterraform cannot get the provider hashicorp/aws: open the way to its registry, or set TERRAFORM_PLUGIN_DIR to a folder that mirrors it'
elif [[ $failure == *'state migration'* || $failure == *'Backend configuration changed'* ]]; then
    failure+=$'\nThe backend has changed: run `terraform -chdir=infra init -migrate-state` to take the state along, or with -reconfigure to begin another one'
fi
echo "$failure" >&2
exit 1
