# Plain `make` prints the targets. `make demo` and `make test` fetch what they need through cargo and nothing else.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

CARGO ?= cargo
BROKER := localstack/broker/target/debug/freshet-broker
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
	@echo '  make test PROPTEST_CASES=100000   a longer search for histories that break the protocol'

.PHONY: demo
demo: toolchain ## Run the whole pipeline on this machine, without Docker, and query what it stored
	@$(MAKE) -j2 broker demo-build
	target/debug/freshet $(if $(DATASET),--dataset $(DATASET)) demo --broker $(BROKER) \
		$(if $(RECORDS),--records $(RECORDS)) $(if $(filter 1,$(CHAOS)),--chaos) \
		$(if $(filter 1,$(LIVE)),--live) $(if $(filter 1,$(KEEP)),--keep)

# Beside the broker: each build has stretches in which it keeps one core busy only.
.PHONY: demo-build
demo-build: toolchain
	$(CARGO) build $(DEMO_BUILD)

.PHONY: test
test: toolchain perl broker ## Run every test; what is skipped is said, with the reason
	$(CARGO) build --locked --workspace --bins
	FRESHET_BROKER=$(CURDIR)/$(BROKER) FRESHET_BINARIES=$(CURDIR)/target/debug $(CARGO) test --locked --workspace --no-fail-fast

.PHONY: lint
lint: toolchain perl ## Formatting, clippy with warnings denied, unused dependencies
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path localstack/broker/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(MAKE) unused

# cargo-machete reads the sources; it is installed into target/ and needs no compiler plug-in.
MACHETE := target/tools/bin/cargo-machete
.PHONY: unused
unused: toolchain
	@test -x $(MACHETE) || $(CARGO) install --quiet --locked --root target/tools --target-dir target/tools/build cargo-machete@0.9.2
	$(MACHETE) --skip-target-dir .

.PHONY: mutations
mutations: toolchain perl ## Take out each guard of the protocol in turn: the tests must notice (a quarter of an hour)
	tests/mutations.sh

.PHONY: broker
broker: toolchain ## Build the embedded Kafka broker (a workspace of its own)
	$(CARGO) build --locked --ignore-rust-version --manifest-path localstack/broker/Cargo.toml

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
