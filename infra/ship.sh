#!/usr/bin/env bash
# Ships the built code to every function that the state names, without building or applying.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -n ${TF_CLI_CONFIG_FILE:-} && ! -f $TF_CLI_CONFIG_FILE ]]; then export TF_CLI_CONFIG_FILE=/dev/null; fi
terraform -chdir=infra output -json deploy_commands | tr -d '[]"' | tr ',' '\n' | while read -r command; do
    [[ -n $command ]] || continue
    echo "$command"
    ${CARGO_LAMBDA:-cargo lambda} ${command#cargo lambda } </dev/null
done
