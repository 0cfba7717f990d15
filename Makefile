# Every command that a person or CI runs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export GOFLAGS ?= -buildvcs=false
export CGO_ENABLED := 1

BIN := $(CURDIR)/.bin
MODULES := proto dataplane controlplane reporter test
PACKAGES := $(MODULES:%=./%/...)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)
TOOL = GOWORK=off GOBIN=$(BIN) go install

CLINICS ?= 3
ONCE ?=
FUZZTIME ?= 20s
CORPUS ?=
RUN ?=
SEED ?= 1
CHAOS_SECONDS ?= 240
APPLIANCES ?= 8000

##@ Start here

.PHONY: help
help: ## List every target
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-zA-Z_-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

.PHONY: demo
demo: setup build ## A small MSP with three clinics in network namespaces, attacked (ONCE=1: check and exit; CLINICS=n)
	@bin/kadomori-demo -clinics $(CLINICS) $(if $(filter-out 0,$(ONCE)),-once) -out out/demo

.PHONY: test
test: setup build $(BIN)/gotestsum ## Set up and run all tests (RUN=regexp limits them)
	@mkdir -p out/test
	$(BIN)/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --jsonfile out/test/tests.json -- \
	  -timeout 20m $(if $(RUN),-run '$(RUN)') $(PACKAGES)

##@ Build

.PHONY: setup
setup: ## Install the Debian packages that are missing (needs root only then)
	@tools/setup.sh

.PHONY: build
build: setup ## Build the programs into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./dataplane/cmd/... ./controlplane/cmd/... ./reporter/cmd/... ./test/cmd/...

.PHONY: generate
generate: setup $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(BIN)/templ ## Make all generated code again
	$(BIN)/buf generate
	go generate ./dataplane/internal/xdp/...
	cd controlplane && $(BIN)/templ generate -log-level warn
	go generate ./controlplane/web/...

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin out .bin

##@ Check

.PHONY: verify
verify: $(BIN)/buf ## Generated code is current, modules are tidy, messages stay compatible
	@tools/verify.sh

.PHONY: lint
lint: setup $(BIN)/golangci-lint $(BIN)/buf ## Lint Go, protocols, C and shell
	$(BIN)/buf lint
	$(BIN)/buf format -d --exit-code
	$(BIN)/golangci-lint run --allow-parallel-runners $(PACKAGES)
	git ls-files 'bpf/*.c' 'bpf/*.h' 'dataplane/*.c' 'dataplane/*.h' ':!bpf/headers' | xargs -r clang-format --dry-run -Werror
	git ls-files '*.sh' .ci/run | xargs -r shellcheck

.PHONY: conformance
conformance: setup ## Cases of the rule language and the parsers (CORPUS=folder adds third-party ones)
	@mkdir -p out
	go run ./test/cmd/kadomori-conformance $(if $(CORPUS),-corpus $(CORPUS)) -json out/conformance.json -failures out/conformance-failures.txt

.PHONY: fuzz-short
fuzz-short: setup ## Run every fuzz target for FUZZTIME each (default 20s)
	@FUZZTIME=$(FUZZTIME) tools/fuzz.sh

##@ Measure

.PHONY: bench-wire
bench-wire: setup ## The wire: program, paths, gaps, peers; out/bench/wire.json (root, about 5 minutes)
	@mkdir -p out/bench
	go -C test run ./bench/wire

.PHONY: bench-inspect
bench-inspect: build ## The inspector beside ndpiReader; out/bench/inspect.json (CORPUS=folder for real captures)
	@mkdir -p out/bench
	go -C test run ./bench/inspect -agent ../bin/kadomori-agent $(if $(CORPUS),-corpus $(abspath $(CORPUS))) -out ../out/bench/inspect.json

.PHONY: bench-ingest
bench-ingest: setup ## Ingest against a bare COPY, latency, report and search over 10 M events; out/bench/ingest.json
	@mkdir -p out/bench
	BENCH_OUT=$(CURDIR)/out/bench/ingest.json go test -tags bench -count=1 -timeout 30m -run '^TestBenchIngest$$' -v ./controlplane/internal/ingest

.PHONY: bench-fleet
bench-fleet: build ## APPLIANCES (8000) simulated appliances on one control plane; out/bench/fleet.json
	@mkdir -p out/bench
	@ulimit -n 65536 2>/dev/null || true; bin/kadomori-fleetbench -control bin/kadomori-control -appliances $(APPLIANCES) -out out/bench/fleet.json

.PHONY: chaos
chaos: build ## Kill, cut, slow and fill everything at random for CHAOS_SECONDS (30-600), then count every event (SEED=n)
	CHAOS_SEED=$(SEED) CHAOS_SECONDS=$(CHAOS_SECONDS) go test -tags chaos -count=1 -timeout 20m -run '^TestChaos$$' -v ./test/demo

# Tools, pinned in tools/go.mod and tools/lint/go.mod (apart, because their requirements differ).

$(BIN)/gotestsum $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(BIN)/templ &: tools/go.mod
	cd tools && $(TOOL) tool
	@touch $(BIN)/gotestsum $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(BIN)/templ

$(BIN)/buf $(BIN)/golangci-lint &: tools/lint/go.mod
	cd tools/lint && $(TOOL) tool
	@touch $(BIN)/buf $(BIN)/golangci-lint
