# Every command that a person or CI runs. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help up ui test soak check fmt bench clean

VENV := .venv/bin
UI   := dashboards/ui
# The UI is built again only when one of its sources is newer than the last build.
UI_SOURCES := $(shell find $(UI) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
# Everything there is, and what is left out of a binary unless somebody asks for it.
ALL := --locked --workspace --features tollgate-proxy/kubernetes
DATA    ?= data
TRAFFIC ?= 20

help: ## List these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

up: ui ## Build and run the whole system on this machine; Ctrl-C stops it (DATA=dir, TRAFFIC=requests a second)
	cargo build --release --locked --bin tollgate
	@exec target/release/tollgate up --data $(DATA) --traffic $(TRAFFIC)

ui: $(UI)/dist/index.html ## Build the operator's page into dashboards/ui/dist

$(UI)/dist/index.html: $(UI_SOURCES)
	cd $(UI) && npm ci --no-audit --no-fund && npm run build
	@touch $@

test: ## Install what the tests need, then run all of them
	tools/test-dependencies
	$(MAKE) --no-print-directory ui
	cargo build $(ALL) --bins
	PATH="$(CURDIR)/$(VENV):$$PATH" cargo nextest run $(ALL) --no-fail-fast
	cargo test $(ALL) --doc
	cd $(UI) && npm run check && npm test
	tools/page-test

soak: ## What `make test` runs a slice of: a million cases of each property, five minutes of rotation, a hundred reloads, twenty restarts, scans of all TLS ports
	cargo test --release --locked -p tollgate-authz --features soak --lib -- policy::tests::properties
	cargo test --release --locked -p tollgate-proxy --features soak --test it -- rotation reload restart hostile
	cargo test --release --locked -p tollgate-e2e --features soak --test it -- rollout
	PATH="$(CURDIR)/$(VENV):$$PATH" cargo test --release --locked -p tollgate-ratelimit --features soak --test it -- quota_envoy failover
	PROPTEST_CASES=1000000 cargo test --release --locked -p tollgate-paths --test it -- properties
	cargo build --release --locked --bin tollgate
	tools/check-dependencies
	tools/scan

check: ## Format, lints, docs, dependency rules and example files, without running tests
	tools/check-dependencies
	cargo fmt --all --check
	cargo clippy $(ALL) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc $(ALL) --no-deps
	PATH="$(CURDIR)/$(VENV):$$PATH" cargo deny --locked check bans licenses sources
	tools/tidy
	tools/envoy-descriptors --check

fmt: ## Format the Rust code
	cargo fmt --all

bench: ui ## Measure what is shipped against peers doing the same job (`target/dist/tollgate-bench --help`)
	tools/test-dependencies wrk valgrind
	cargo build --profile dist --locked --bins
	cargo build --release --locked --manifest-path bench/limitador/Cargo.toml
	for scenario in chain plain check limits keys mtls overload floods footprint routes; do target/dist/tollgate-bench $$scenario || exit 1; done

clean: ## Remove what was built and downloaded (not ./data)
	cargo clean
	rm -rf .venv $(UI)/dist $(UI)/node_modules
