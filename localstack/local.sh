#!/usr/bin/env bash
# What `make local-…` does: the stack of docker-compose.yaml, from nothing to rows, and everything that one asks of it afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

# Otherwise an image that was built again from the same files is another one, and its containers are made anew.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1

stop() { echo "local: $1" >&2; exit 1; }
say() { echo "local: $1"; }
compose() { docker compose "$@"; }
# In the container of the event source; in one of its own while that is stopped.
freshet() {
    if runs event-source; then compose exec -T event-source freshet "$@"; else compose run --rm --no-deps -T event-source "$@"; fi
}
runs() { compose ps --services --status running | grep -qx "$1"; }

docker_is_there() {
    command -v docker >/dev/null || stop 'docker is missing: install it (https://docs.docker.com/get-docker), or run `make demo`, which does without'
    local version
    version=$(compose version --short 2>/dev/null) || stop 'docker has no compose: install the plug-in (https://docs.docker.com/compose/install)'
    version=${version#v}
    [[ $(printf '2.24.0\n%s\n' "$version" | sort -V | head -1) == 2.24.0 ]] || stop "docker compose is $version: install 2.24 or later"
    docker info >/dev/null 2>&1 ||
        stop 'Docker does not answer: start Docker Desktop or the service (sudo systemctl start docker); where it is rootless, name its socket in DOCKER_HOST, and in DOCKER_SOCKET in .env'
    compose --profile '*' config --quiet || stop 'docker-compose.yaml and .env do not go together: correct what stands above (.env.example shows each setting)'
}

# SERVICE PORT, a line each, as docker-compose.yaml and .env have them.
published() { compose --profile '*' config | awk '/^[a-z]/ { services = /^services:/ } services && /^  [a-z-]+:$/ { service = $1 } /published:/ { gsub(/[":]/, "", service); gsub(/"/, "", $2); print service, $2 }'; }

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

ports_are_free() {
    local service port
    while read -r service port; do
        if ! runs "$service" && is_taken "$port"; then
            stop "port $port, which $service wants, is taken by another program: end that one, or give $service another port in .env (.env.example has the names)"
        fi
    done < <(published)
}

# The service that failed, and where to look. Those that only wait for it are none.
failed() {
    local service state health code what
    compose --profile '*' ps --all || true
    while IFS=, read -r service state health code; do
        case $state,$health,$code in
        exited,*,0) continue ;;
        exited,*) what="has ended with exit status $code" ;;
        restarting,* | dead,*) what="is $state" ;;
        *,unhealthy,*) what='is unhealthy' ;;
        *) continue ;;
        esac
        stop "$service $what: look into make local-logs SERVICE=$service; then make local-up again, with make local-down before it for a new LocalStack"
    done < <(compose --profile '*' ps --all --format '{{.Service}},{{.State}},{{.Health}},{{.ExitCode}}')
    stop 'the images could not be fetched or built, or a service did not start: the lines above say why'
}

up() {
    docker_is_there
    ports_are_free
    # What was in .env and no longer is: a gateway with real credentials among them.
    local without
    without=$(comm -23 <(compose --profile '*' config --services | sort) <(compose config --services | sort))
    # Names of services, one a word.
    # shellcheck disable=SC2086
    [[ -z $without ]] || compose --profile '*' rm --stop --force $without >/dev/null 2>&1 || true
    trap 'echo; say "no longer waiting. What has started goes on: make local-status shows it, make local-down ends it"; exit 130' INT
    say 'building and starting (the first time: a quarter of an hour, most of it compiling)'
    compose up --detach --build --wait --wait-timeout "${WAIT:-900}" || failed
    say 'everything runs; waiting for the first records in the lake'
    freshet status --wait "${WAIT:-300}" || stop 'look into make local-logs; docs/RUNBOOK.md has the symptoms'
    echo
    published | while read -r service port; do
        case $service,$port in
        page,*) echo "  the page          http://localhost:$port" ;;
        console,*) echo "  Kafka UI          http://localhost:$port" ;;
        localstack,*) echo "  AWS               http://localhost:$port   AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test aws --endpoint-url http://localhost:$port s3 ls" ;;
        redpanda,"$(kafka_port)") echo "  Kafka             localhost:$port" ;;
        redpanda,*) echo "  schema registry   http://localhost:$port" ;;
        esac
    done
    echo
    echo "  make local-query SQL='SELECT nation, count(*) AS people FROM names GROUP BY nation ORDER BY 2 DESC LIMIT 5'"
    echo '  make local-status    make local-verify    make local-invoke    make local-down'
}

kafka_port() { compose config | sed -n 's/.*external:\/\/localhost:\([0-9]*\).*/\1/p'; }

# LocalStack removes the functions' containers as it stops; what is left after it was killed would hold the network.
end() {
    command -v docker >/dev/null && docker info >/dev/null 2>&1 || stop 'Docker does not answer, so that nothing of the stack can be running; start it to be sure'
    # Whatever .env says: it may be wrong.
    compose() { docker compose --env-file /dev/null "$@"; }
    compose rm --stop --force --volumes localstack >/dev/null 2>&1 || true
    local left
    left=$(docker ps --all --quiet --filter label=freshet.function=1)
    # Container ids, one a word.
    # shellcheck disable=SC2086
    [[ -z $left ]] || docker rm --force $left >/dev/null || true
    compose --profile '*' down --remove-orphans "$@"
}

is_running() {
    docker_is_there
    runs localstack || stop 'the stack does not run (no localstack): make local-up'
}

case ${1:-} in
up) up ;;
down)
    end
    say 'nothing runs. The topic is kept: make local-up reads it into a new lake; make local-reset wipes it'
    ;;
reset)
    end --volumes
    say 'everything is wiped but the images (and a bucket of your own): make local-up begins anew'
    ;;
status)
    docker_is_there
    compose --profile '*' ps --all --format 'table {{.Service}}\t{{.Status}}\t{{.Ports}}'
    echo
    is_running
    freshet status
    ;;
logs)
    docker_is_there
    case ${SERVICE:-} in
    producer | consumer)
        dataset=$(compose config | sed -n 's/^ *DATASET: //p' | head -1)
        compose exec -T localstack awslocal logs filter-log-events --log-group-name "/aws/lambda/freshet-$dataset-$SERVICE" \
            --start-time "$(($(date +%s) - 3600))000" --query 'events[].[message]' --output text
        ;;
    # One service, or all.
    *) compose --profile '*' logs --follow --tail 100 ${SERVICE:+"$SERVICE"} ;;
    esac
    ;;
query)
    [[ -n ${SQL:-} ]] || stop "no query: make local-query SQL='SELECT * FROM names LIMIT 5'"
    is_running
    freshet query "$SQL"
    ;;
verify)
    is_running
    freshet verify --deep --kafka redpanda:29092
    ;;
invoke)
    is_running
    freshet invoke
    ;;
*) stop "\`${1:-}\` is not known: say up, down, status, logs, query, verify, invoke or reset" ;;
esac
