# Builds, runs and tests Rivero. What is missing on the machine is installed with apt.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The target is named in every call, so that .cargo/config.toml's own holds nowhere but on its machine.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR = $(shell cargo metadata --no-deps --format-version=1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
BINARY = $(TARGET_DIR)/$(HOST)/release/rivero

E2E := tests/e2e
NETWORK := benches/network
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
# For each fuzz target.
FUZZ_SECONDS ?= 60
IMAGE ?= rivero

.PHONY: help
help: ## Shows this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo "Please install a Rust toolchain: https://rustup.rs" >&2; exit 1; }
	@scripts/need cc=build-essential

.PHONY: test-tools
test-tools: tools
	@PATH="$$PATH:/usr/sbin:/sbin" scripts/need git=git node=nodejs npm=npm openssl=openssl chromium=chromium firefox-esr=firefox-esr \
		ffmpeg=ffmpeg turnserver=coturn ip=iproute2 nft=nftables gst-launch-1.0=gstreamer1.0-tools \
		'/usr/lib/*/gstreamer-1.0/libgstopus.so=gstreamer1.0-plugins-base' \
		'/usr/lib/*/gstreamer-1.0/libgstvpx.so=gstreamer1.0-plugins-good' \
		'/usr/lib/*/gstreamer-1.0/libgstopenh264.so=gstreamer1.0-plugins-bad'
	@node -e 'process.exit(Number(parseInt(process.versions.node) < 20))' || { echo "The end-to-end tests need Node 20 or later" >&2; exit 1; }

.PHONY: build
build: tools ## Builds the server
	cargo build --release --locked --target $(HOST)

.PHONY: run
run: build ## Builds and starts the server; ARGS has its flags
	@$(BINARY) $(ARGS)

.PHONY: test
test: test-tools check unit e2e ## Runs every test

.PHONY: check
check: tools ## Checks format and lints
	rustfmt --edition 2024 --check $$(git ls-files '*.rs')
	cargo clippy --workspace --all-targets --locked --target $(HOST) -- -D warnings

.PHONY: unit
unit: tools ## Runs the tests that need no browser
	cargo test --workspace --locked --target $(HOST)

.PHONY: e2e
e2e: test-tools build relay $(E2E)/node_modules/.package-lock.json ## Runs a browser and an application against the server
	RIVERO_BIN="$(BINARY)" npm --prefix $(E2E) test

.PHONY: relay
relay: tools
	cargo build --release --locked --target $(HOST) --package rivero-network

.PHONY: network-bench
network-bench: test-tools build relay $(E2E)/node_modules/.package-lock.json ## Plays bad networks to browsers, and makes a page of plots; SCENARIOS names some
	RIVERO_BIN="$(BINARY)" node $(NETWORK)/run.mjs $(SCENARIOS)

.PHONY: joins
joins: test-tools build $(E2E)/node_modules/.package-lock.json ## Measures how soon JOINS (100) late viewers see a picture
	RIVERO_BIN="$(BINARY)" npm --prefix $(E2E) run joins

# Install scripts are left out: one package names a script that it does not contain.
$(E2E)/node_modules/.package-lock.json: $(E2E)/package-lock.json
	npm --prefix $(E2E) ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: bench
bench: tools ## Runs the benchmarks
	cargo bench --locked --target $(HOST)

# Instrumentation is asked for with unstable flags; the variable lets the stable compiler take them.
.PHONY: fuzz
fuzz: tools ## Fuzzes each parser of foreign bytes for FUZZ_SECONDS (60)
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
	@for target in $(FUZZ_TARGETS); do \
		echo "=== $$target"; \
		mkdir -p fuzz/corpus/$$target; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --target $(HOST) $$target fuzz/corpus/$$target fuzz/seeds/$$target \
			$$([ $$target != sdp ] || echo tests/golden) -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=10 -print_final_stats=1; \
	done

.PHONY: licences
licences: tools ## Checks that no dependency has a licence that deny.toml does not allow
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked
	cargo deny check bans licenses sources

.PHONY: image
image: ## Builds the container image IMAGE (rivero)
	docker build -t $(IMAGE) .
