# Plain `make` prints the targets. `make demo` fetches what it needs through cargo and nothing else; `make test` also through pip, mvn and go.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

CARGO ?= cargo
# The cargo-lambda on the PATH where it is new enough, otherwise one of our own. It is called by its path, because cargo would look
# into its own folder first, where an older one may lie.
LAMBDA_TOOLS := $(CURDIR)/target/tools/cargo-lambda
CARGO_LAMBDA := $(or $(shell cargo-lambda lambda --version 2>/dev/null | \
	awk '$$1 == "cargo-lambda" && ($$2 ~ /^1\.(9|[1-9][0-9])\./ || $$2 + 0 >= 2) { print $$1 }'),$(LAMBDA_TOOLS)/bin/cargo-lambda)
BROKER := localstack/broker/target/debug/freshet-broker
TEST := FRESHET_BROKER=$(CURDIR)/$(BROKER) FRESHET_BINARIES=$(CURDIR)/target/debug CARGO_LAMBDA='$(CARGO_LAMBDA)' $(CARGO) test --locked
# Processor of this machine, as Lambda names it.
HOST_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
# The demo speaks plaintext Kafka on the loopback: built without OpenSSL it is ready two minutes earlier.
DEMO_BUILD := --locked --no-default-features --bins -p producer -p consumer -p freshet

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make demo RECORDS=200000   push that many people through, and measure'
	@echo '  make demo CHAOS=1          kill processes at random meanwhile (with RECORDS=…)'
	@echo '  make demo LIVE=1           fetch from the live API'
	@echo '  make demo DATASET=x.yaml   your own dataset file, from the API that it names'
	@echo '  make demo KEEP=1           keep the schedule running until Ctrl-C'
	@echo '  make demo PAGE=1           the same, with a page that shows it, at http://localhost:8080 (PAGE_PORT=8090: another port)'
	@echo '  make test PROPTEST_CASES=100000   a longer search for histories that break the protocol'
	@echo '  make prove SECONDS=3600    inject faults for that long (600 unless told otherwise)'
	@echo '  make prove HISTORIES=1000000   play that many histories on the handler instead, on all cores'
	@echo '  make prove SEED=42         the choices of an earlier run once more; with HISTORIES=… the very same histories'
	@echo '  make bench-peers RECORDS=200000   a shorter run beside the peers'
	@echo '  make fuzz SECONDS=3600     search for damaged input that breaks something (600 unless told otherwise; SEED=42 FUZZ_CASE=7: one case of an earlier run)'

.PHONY: demo
demo: toolchain ## Run the whole pipeline on this machine, without Docker, and query what it stored
	@$(MAKE) -j2 broker demo-build
	target/debug/freshet $(if $(DATASET),--dataset $(DATASET)) demo --broker $(BROKER) \
		$(if $(RECORDS),--records $(RECORDS)) $(if $(filter 1,$(CHAOS)),--chaos) \
		$(if $(filter 1,$(LIVE)),--live) $(if $(filter 1,$(KEEP)),--keep) \
		$(if $(filter 1,$(PAGE)),--page $(if $(PAGE_PORT),--listen 127.0.0.1:$(PAGE_PORT)))

# Beside the broker: each build has stretches in which it keeps one core busy only.
.PHONY: demo-build
demo-build: toolchain
	$(CARGO) build $(DEMO_BUILD)

# Command-line variables (SQL, SERVICE, DATASET) reach the script by themselves.
LOCAL := local-up local-down local-status local-logs local-query local-verify local-invoke local-reset
.PHONY: $(LOCAL)
local-up: ## Start the stack in Docker: LocalStack, Redpanda and its console, event source, page; wait for the first rows
local-down: ## End it; the topic is kept
local-status: ## What is healthy, last run, records, lag, objects, freshness; the page has more
local-logs: ## Follow the logs (SERVICE=event-source, provision, …); SERVICE=producer or consumer: that function's of the last hour
local-query: ## SQL over its lake (SQL='SELECT …')
local-verify: ## Prove that its lake holds each offset exactly once
local-invoke: ## Run its producer now
local-reset: ## End it, and wipe its data
$(LOCAL):
	@localstack/local.sh $(@:local-%=%)

.PHONY: local-test
local-test: toolchain perl broker cloud-tools ## The stack's way without Docker: the same provisioning and event source on stand-ins
	$(CARGO) build --locked --workspace --bins
	$(TEST) --workspace --test pipeline local:: -- --nocapture

.PHONY: page-test
page-test: toolchain perl broker page-tools ## The page in a headless Chromium, against the demo; screenshots in target/screenshots
	$(CARGO) build --locked --workspace --bins
	$(TEST) --workspace --test pipeline page:: -- --nocapture

.PHONY: page-tools
page-tools:
	@tests/cloud/tools.sh chromium || tests/cloud/skip.sh 'no browser looks at the page: the line above says why'
	@tests/cloud/tools.sh axe || tests/cloud/skip.sh 'the page is not looked at with axe-core: the line above says why'

.PHONY: test
test: toolchain perl broker infra-test cloud-tools page-tools ## Run every test; what is skipped is said, with the reason
	$(CARGO) build --locked --workspace --bins
	$(TEST) --workspace --no-fail-fast

.PHONY: lint
lint: toolchain perl ## Formatting, clippy with warnings denied, unused dependencies
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path localstack/broker/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(MAKE) unused
	@if command -v python3 >/dev/null; then docs/cost.py --check; else echo 'docs/COST.md and SCALE.md are not checked: python3 is missing' >&2; fi

# cargo-machete reads the sources; it is installed into target/ and needs no compiler plug-in.
MACHETE := target/tools/bin/cargo-machete
.PHONY: unused
unused: toolchain
	@test -x $(MACHETE) || $(CARGO) install --quiet --locked --root target/tools --target-dir target/tools/build cargo-machete@0.9.2
	$(MACHETE) --skip-target-dir .

.PHONY: deploy
deploy: toolchain perl ## Build, apply infra/ to your AWS account, ship the code of both functions
	ARCH=$(ARCH) infra/deploy.sh $(ARGS)

.PHONY: ship
ship: cargo-lambda ## Ship code that is built to the functions of the applied state, without applying
	CARGO_LAMBDA='$(CARGO_LAMBDA)' infra/ship.sh

.PHONY: infra-test
infra-test: ## Format, validity and claims of infra/, without an account
	@infra/init.sh >/dev/null || { tests/cloud/skip.sh 'infra/ is not tested: the lines above say what is missing'; exit; }; \
	terraform -chdir=infra fmt -check -recursive -diff && terraform -chdir=infra validate && terraform -chdir=infra test

# checkov passes over a file that it cannot parse, and counts it in one line.
CHECKOV := target/tools/checkov
.PHONY: infra-scan
infra-scan: ## Scan infra/ with checkov
	@test -x $(CHECKOV)/bin/checkov || { python3 -m venv $(CHECKOV) && $(CHECKOV)/bin/pip install --quiet checkov==3.3.30; }
	@$(CHECKOV)/bin/checkov -d infra --compact --quiet --skip-download --framework terraform > target/tools/checkov.txt; status=$$?; cat target/tools/checkov.txt; \
	! grep -q 'Parsing errors' target/tools/checkov.txt && exit $$status

.PHONY: cloud-test
cloud-test: toolchain perl broker infra-test cloud-tools ## Apply infra/ to an emulator, run the whole way, read it with Athena's engine, destroy
	$(CARGO) build --locked --workspace --bins
	$(TEST) --workspace --test pipeline cloud:: -- --nocapture

# What the cloud tests need and cargo does not bring. A part that cannot be had is said, and its tests are skipped; on CI that is a failure.
.PHONY: cloud-tools
cloud-tools:
	@$(MAKE) build ARCH=$(HOST_ARCH) || tests/cloud/skip.sh 'the functions are not built for Lambda: the lines above say why'
	@tests/cloud/tools.sh ministack || tests/cloud/skip.sh 'the emulator is not there: the line above says why'
	@tests/cloud/tools.sh kafka || tests/cloud/skip.sh 'Apache Kafka is not there: the line above says why'
	@tests/cloud/tools.sh localstack || tests/cloud/skip.sh 'LocalStack is not there: the line above says why'
	@tests/cloud/tools.sh compose || tests/cloud/skip.sh 'docker-compose.yaml is not read: the line above says why'
	@tests/cloud/tools.sh trino || tests/cloud/skip.sh "Athena's engine is not there: the line above says why"

.PHONY: aws-smoke
aws-smoke: toolchain perl ## The whole way on a real AWS account, then destroyed (about 30 cents)
	tests/cloud/aws-smoke.sh

.PHONY: mutations
mutations: toolchain perl ## Take out each guard of the protocol in turn: model and tests must notice (half an hour)
	tests/mutations.sh

# bash has a variable of that name for itself, which reaches make where somebody exports it: only the command line counts.
PROVE_SECONDS := $(if $(filter command%,$(origin SECONDS)),$(SECONDS),600)
.PHONY: prove
prove: toolchain perl ## Break everything around the consumer, and prove that each record is stored once (SECONDS=, SEED=, HISTORIES=)
	@$(MAKE) $(if $(HISTORIES),prove-histories,prove-faults)

.PHONY: prove-faults
prove-faults: broker
	@tests/cloud/tools.sh kafka || tests/cloud/skip.sh 'Apache Kafka is not there, only the embedded broker is used: the line above says why'
	$(CARGO) build --locked --workspace --bins
	PROVE_SECONDS=$$(($(PROVE_SECONDS) / 2)) PROVE_SEED=$(SEED) \
		$(TEST) --workspace --test pipeline -- --nocapture --test-threads=1 prove::whatever

# Metrics are lines on standard output; what was done, and what was found, is on standard error.
FUZZ_SECONDS := $(if $(filter command%,$(origin SECONDS)),$(SECONDS),600)
.PHONY: fuzz
fuzz: toolchain perl ## Throw damaged events, records, dataset files and objects at what reads them (SECONDS=, SEED=)
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(SEED) $(CARGO) test --locked --workspace --test pipeline -- --nocapture --test-threads=1 fuzz:: >/dev/null

# The function's metrics, a line an attempt, go to standard output; progress and table to standard error. HISTORY= is the number
# of the first one.
.PHONY: prove-histories
prove-histories:
	PROVE_HISTORIES=$(HISTORIES) PROVE_SEED=$(SEED) PROVE_HISTORY=$(HISTORY) $(CARGO) test --locked --workspace --test pipeline \
		-- --ignored --exact --nocapture histories::long::each_of_very_many_histories_stores_each_record_once >/dev/null

.PHONY: bench
bench: toolchain ## What one full event costs the consumer, beside others (a quarter of an hour, most of it to compile)
	$(CARGO) build --locked --release -p bench
	target/release/bench

# The functions as Lambda gets them, and the program that hosts them.
.PHONY: bench-hosted
bench-hosted: toolchain perl
	$(CARGO) build --locked --release -p producer -p consumer
	$(CARGO) build --locked --release -p bench

.PHONY: bench-cold
bench-cold: bench-hosted ## Each function's time from exec to its first `/next` (OTHER=folder: in turn with the binaries there)
	target/release/bench cold $(OTHER)

.PHONY: bench-memory
bench-memory: bench-hosted ## The most memory that the consumer holds over 200 full events
	target/release/bench memory

.PHONY: bench-growth
bench-growth: bench-hosted ## What an event costs by its partitions and by the size of its records
	target/release/bench growth

.PHONY: cost
cost: ## Compute docs/COST.md and what docs/SCALE.md derives: dollars a GB, beside others; objects, limits
	docs/cost.py

.PHONY: bench-peers
bench-peers: toolchain ## Kafka to S3, ours beside Spark and Python, into docs/BENCHMARKS.md (RECORDS=, ROUNDS=; half an hour, half of it to compile)
	tests/cloud/tools.sh peers kafka versitygw
	@tests/cloud/tools.sh spark || tests/cloud/skip.sh 'Spark is not there and is not measured: the line above says why'
	$(CARGO) build --locked --release -p bench -p consumer -p peers
	target/tools/peers/bin/python -B tests/peers/bench.py $(or $(RECORDS),2000000)

.PHONY: broker
broker: toolchain ## Build the embedded Kafka broker (a workspace of its own)
	$(CARGO) build --locked --ignore-rust-version --manifest-path localstack/broker/Cargo.toml

ARCH := arm64
TRIPLE_arm64 := aarch64-unknown-linux-gnu
TRIPLE_x86_64 := x86_64-unknown-linux-gnu
.PHONY: build
build: ## Build the functions' zips for Lambda, in target/lambda (ARCH=x86_64; ARCH="arm64 x86_64")
	$(if $(filter-out arm64 x86_64,$(ARCH)),$(error Lambda has arm64 and x86_64, not $(filter-out arm64 x86_64,$(ARCH)): run make build ARCH=arm64))
	@for arch in $(ARCH); do $(MAKE) build-$$arch || exit; done

# The glibc of Lambda's provided.al2023. The machine that builds may have a newer one, or another processor: zig links against the
# version that is named, on any machine. cargo-lambda hands zig to all that ask for a compiler as Rust does; librdkafka's configure
# asks CC and CXX instead, and would take this machine's gcc. Its list of exported symbols names some that are compiled out, which
# zig's linker refuses unless told otherwise. Its objects are cut into sections, as all others are, so that what nobody calls is left
# out; no C is ever unwound, since a panic aborts. The two make the producer's zip 5 % smaller.
GLIBC := 2.34
zig = $(CARGO_LAMBDA) zig $(1) -- -fno-sanitize=all -target $(TRIPLE_$*:-unknown-linux-gnu=-linux-gnu.$(GLIBC))
.PHONY: build-arm64 build-x86_64
build-arm64 build-x86_64: build-%: toolchain perl cargo-lambda
	@ls "$$(rustc --print target-libdir --target $(TRIPLE_$*))"/libstd-*.rlib >/dev/null 2>&1 || rustup target add $(TRIPLE_$*) || { \
		echo 'Rust lacks the standard library for $*: run "rustup target add $(TRIPLE_$*)" with a network, then make again' >&2; exit 1; }
	CC='$(call zig,cc)' CXX='$(call zig,c++)' LDFLAGS=-Wl,--undefined-version \
		CFLAGS='-ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables' \
		$(CARGO_LAMBDA) lambda build --release --locked --output-format zip -p producer -p consumer \
		--target $(TRIPLE_$*).$(GLIBC) --lambda-dir target/lambda/$*

# cargo-lambda is on PyPI, and so is zig.
CARGO_LAMBDA_VERSION := 1.9.2
ZIG_VERSION := 0.17.1
LAMBDA_TOOLS_READY := $(LAMBDA_TOOLS)/ready-$(CARGO_LAMBDA_VERSION)-$(ZIG_VERSION)
.PHONY: cargo-lambda
ifeq ($(CARGO_LAMBDA),$(LAMBDA_TOOLS)/bin/cargo-lambda)
export CARGO_ZIGBUILD_PYTHON_PATH := $(LAMBDA_TOOLS)/bin/python3
cargo-lambda: $(LAMBDA_TOOLS_READY)
endif

CARGO_LAMBDA_YOURSELF := or install cargo-lambda 1.9 or later yourself (https://www.cargo-lambda.info), then run make again
$(LAMBDA_TOOLS_READY):
	@python3 -m venv --clear $(LAMBDA_TOOLS) || { \
		echo 'python3 with venv is missing (it fetches cargo-lambda): on Debian and Ubuntu, apt-get install python3-venv; $(CARGO_LAMBDA_YOURSELF)' >&2; exit 1; }
	@$(LAMBDA_TOOLS)/bin/pip install --quiet --disable-pip-version-check cargo-lambda==$(CARGO_LAMBDA_VERSION) ziglang==$(ZIG_VERSION) || { \
		echo 'cargo-lambda cannot be fetched from PyPI: the lines above say why; make that work, $(CARGO_LAMBDA_YOURSELF)' >&2; exit 1; }
	@touch $@

.PHONY: clean
clean: ## Remove what was built, and the demo's lake
	$(CARGO) clean
	$(CARGO) clean --manifest-path localstack/broker/Cargo.toml

# Kafka's TLS and SASL are OpenSSL's, which is built from its sources.
.PHONY: perl
perl:
	@command -v perl >/dev/null || { echo 'perl is missing (OpenSSL is built with it): on Debian and Ubuntu, apt-get install build-essential' >&2; exit 1; }

.PHONY: toolchain
toolchain:
	@command -v $(CARGO) >/dev/null || { echo 'cargo is missing: install Rust with rustup (https://rustup.rs), then run make again' >&2; exit 1; }
	@command -v cc >/dev/null || { echo 'a C compiler is missing: on Debian and Ubuntu, apt-get install build-essential' >&2; exit 1; }
