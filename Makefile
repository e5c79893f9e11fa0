# `make run` and `make test` are all a newcomer needs; `make help` lists the rest.

CARGO ?= cargo
# Arguments for the service: make run ARGS='--window 4m --prune-schedule "* * * * *"'
ARGS ?=
# Which fault tests to run: make soak SOAK_ARGS=faults::network
SOAK_ARGS ?= faults::
# The server that tests and benchmarks run on, instead of the installed one: make test REDIS_SERVER=path/to/valkey-server
REDIS_SERVER ?=
# Arguments of the benchmarks: make bench BENCH_ARGS='--only singles --rounds 3'
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test e2e soak redis browser bench-tools fmt lint doc check-deploy check-examples audit bench bench-scale fuzz-api release ci

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: redis ## Serve on 127.0.0.1:8080 with a private Redis; ARGS='...' are passed on, RELEASE=1 optimizes
	@exec $(CARGO) run $(if $(RELEASE),--release) --locked -- $(ARGS)

# Tests wait for timeouts more than for a core.
test: redis ## Run all tests, on real Redis processes; REDIS_SERVER=path/to/valkey-server for another engine
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(getconf _NPROCESSORS_ONLN)))} scripts/with-redis $(CARGO) test --locked

e2e: redis browser ## Look at the pages in a browser; pictures of them are in target/e2e
	$(CARGO) build --locked
	rm -rf "$${CARGO_TARGET_DIR:-target}/e2e"
	scripts/with-redis $(CARGO) test --locked --package segment-estimator-e2e

soak: redis ## Run the fault tests for an hour; SOAK_ARGS=faults::network for some, FAULT_SEED=7 for known faults
	SOAK=1 scripts/with-redis $(CARGO) test --release --locked --test it $(SOAK_ARGS) -- --nocapture --test-threads 1

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Check the format, and clippy without a warning
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc: ## Build the documentation without a warning
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

check-deploy: ## Check the alerts, their receivers and the dashboard under deploy/
	@scripts/check-deploy

check-examples: redis ## Run the clients of examples/ while the service and Redis are killed under them
	$(CARGO) build --locked
	@scripts/with-redis scripts/check-examples

audit: ## Check advisories, licences and sources of all crates with cargo-deny, installed into target/tools if missing
	@scripts/audit

bench: redis bench-tools ## Measure the service; REDIS_SERVER=path/to/valkey-server, BENCH_ARGS='--rounds 3'
	$(CARGO) bench --locked --bench service -- $(if $(REDIS_SERVER),--redis-server '$(REDIS_SERVER)') $(BENCH_ARGS)

bench-scale: redis ## Measure how all grows to 30 million pairs; BENCH_ARGS='--pairs 300000,1000000,3000000' in minutes
	$(CARGO) bench --locked --bench scale -- $(if $(REDIS_SERVER),--redis-server '$(REDIS_SERVER)') $(BENCH_ARGS)

fuzz-api: ## Have schemathesis try the API by its document; EXAMPLES=5000 SEED=2 for another run
	@scripts/fuzz-api

release: ## Build the archive, the SBOM and SHA256SUMS of a release into target/release-artifacts, from a clean checkout
	@scripts/release

ci: lint doc check-deploy audit test check-examples e2e ## What CI runs

redis:
	@scripts/ensure-redis

browser:
	@scripts/ensure-browser

bench-tools:
	@scripts/ensure-bench-tools
