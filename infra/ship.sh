#!/usr/bin/env bash
# `make ship`: ships the built code to every function of the applied state, without building or applying.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -n ${TF_CLI_CONFIG_FILE:-} && ! -f $TF_CLI_CONFIG_FILE ]]; then export TF_CLI_CONFIG_FILE=/dev/null; fi
stop() { echo "ship: $1" >&2; exit 1; }

command -v terraform >/dev/null || stop 'terraform is missing, which knows the functions: install it, or run the lines of the README by hand'
commands=$(terraform -chdir=infra output -json deploy_commands 2>/dev/null) || stop 'nothing is deployed from here: run make deploy'
tr -d '[]"' <<<"$commands" | tr ',' '\n' | while read -r command; do
    [[ -n $command ]] || continue
    echo "$command"
    # The same cargo-lambda that built the code, wherever it lies.
    "${CARGO_LAMBDA:-cargo}" ${command#cargo } </dev/null
done
