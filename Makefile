SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# PYTHON=3.13 works in an environment of its own, with that interpreter and the same locked versions.
VENV := .venv$(addprefix -,$(PYTHON))
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Pays when Spark starts often on one machine.
FAST_SPARK := $(VENV)/.fast-spark
comma := ,
QUICK := "not slow and not cluster and not ui and not security"
# Tests that other targets run, and what they import.
OTHERS := $(addprefix --ignore=tests/,benchmarks cluster security ui)
NEEDS_JAVA = command -v "$${JAVA_HOME:+$$JAVA_HOME/bin/}java" >/dev/null || { echo "Spark and HDFS need Java 17 or newer, on \
	the path or named by JAVA_HOME; \`make demo\` and \`make test\` do without." >&2; exit 1; }
# The browser that the tests of the pages drive.
CHROMIUM := /usr/bin/chromium
# What installs everything else is pinned, and its download compared with a hash.
UV_PIN := uv-pin.txt
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' $(UV_PIN))
BUILD = docker build --file docker/Dockerfile $(addprefix --build-arg PYTHON=,$(BASE))
FEDTASKS_VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The uv on the path, if it is of this version, else one of our own.
UV := $(shell [ "$$(uv --version 2>/dev/null | cut -d' ' -f2)" = "$(UV_VERSION)" ] && echo uv || echo .tools/bin/uv)
# Compiled at once: importing TensorFlow for the first time takes 20 s otherwise.
export UV_COMPILE_BYTECODE := 1
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := $(VENV)
export PIP_ROOT_USER_ACTION := ignore
# Tests and demo start many processes, which would compile this package each if the environment forbids to keep it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## Show what can be made.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(INSTALLED) ## Install everything into .venv, with the locked versions; PYTHON=3.13 for another interpreter.
	@:

$(INSTALLED): pyproject.toml uv.lock $(wildcard fedtasks/crypto/native/*.[ch]) | $(filter .tools/%,$(UV))
	@echo "Installing into $(VENV), which takes about a minute …"
	@$(UV) sync --frozen --all-extras --quiet $(addprefix --python ,$(PYTHON))
	@touch $@

$(CHROMIUM):
	@echo "Installing the browser for the tests of the pages …"
	@apt-get update -qq && apt-get install -qq -y chromium >/dev/null

$(FAST_SPARK): $(INSTALLED)
	@$(NEEDS_JAVA)
	@echo "Preparing a faster start of Spark, which takes about a minute …"
	@$(BIN)/fedtasks spark prepare || echo "Spark starts at its usual pace."
	@touch $@

.tools/bin/uv: $(UV_PIN)
	@rm -rf .tools
	@python3 -m pip install --quiet --target .tools --require-hashes -r $(UV_PIN) || \
		{ python3 -m venv .tools && .tools/bin/python -m pip install --quiet --require-hashes -r $(UV_PIN); }
	@touch $@

.PHONY: demo
demo: setup ## Train one model from two parties on this machine; KEEP=1 leaves both Airflows up.
	@$(BIN)/fedtasks demo $(if $(KEEP),--keep)

.PHONY: demo-cluster
demo-cluster: $(FAST_SPARK) ## The demo on a real HDFS and Spark cluster, started on this machine; needs Java.
	@$(NEEDS_JAVA)
	@$(BIN)/python -m tests.support.demo_cluster $(if $(KEEP),--keep)

.PHONY: demo-daily
demo-daily: setup ## Let a model retrain over five simulated days; takes about four minutes.
	@$(BIN)/fedtasks demo --daily

.PHONY: demo-stream
demo-stream: setup ## Join two logs that keep growing, and train on what was joined; takes about four minutes.
	@$(BIN)/fedtasks demo --stream $(if $(KEEP),--keep)

.PHONY: demo-compose
demo-compose: ## The demo in containers, of which the two gateways alone meet; builds their images first; needs Docker with Compose.
	@docker/demo.sh

.PHONY: images
images: ## Build the images of a party by Docker; BASE= is another base image, TAG= how they are tagged.
	@for target in gateway airflow trainer spark; do $(BUILD) --target $$target --tag localhost/fedtasks/$$target:$(or $(TAG),latest) \
		--label org.opencontainers.image.version=$(FEDTASKS_VERSION) \
		--label org.opencontainers.image.revision=$$(git rev-parse HEAD) .; done

.PHONY: wheels
wheels: ## Fetch into docker/wheels all that images are made of, to build them without a network.
	@$(BUILD) --target wheels --output docker/wheels .

.PHONY: test
test: $(INSTALLED) ## Run all tests but the slow ones, the browser's and those on a cluster; needs no Java.
	@$(BIN)/pytest -m $(QUICK) -n 4 --dist loadfile --no-loadscope-reorder $(OTHERS)

.PHONY: test-cluster
test-cluster: $(FAST_SPARK) ## Run the tests on a real HDFS and Spark cluster, started on this machine.
	@$(NEEDS_JAVA)
	@$(BIN)/pytest -m cluster

.PHONY: test-ui
test-ui: $(INSTALLED) $(CHROMIUM) ## Run the tests of the pages in a headless browser, against two Airflows.
	@$(BIN)/pytest -m ui $(if $(PICTURES),--pictures $(PICTURES)) tests/ui

.PHONY: test-security
test-security: $(INSTALLED) ## Attack the product: hostile peers, files and requests, and a fuzz; FUZZ_SECONDS= for each parser.
	@$(BIN)/pytest -m security tests/security

.PHONY: simulate
simulate: setup ## Play schedules of faults between two parties in one process and audit each; SEEDS= sets how many, FIRST= from which.
	@$(BIN)/python -m fedtasks.testing.simulation --seeds $(or $(SEEDS),2000) --first $(or $(FIRST),0)

.PHONY: test-slow
test-slow: $(INSTALLED) ## Run the slow tests.
	@$(BIN)/pytest -m "slow and not cluster and not ui and not security"

.PHONY: lint
lint: setup ## Check style, types and layers.
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: setup ## Bring all files into the one style.
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

.PHONY: bench
bench: $(FAST_SPARK) ## Measure every algorithm; each prints a table and one JSON object.
	@for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file; done

.PHONY: bench-link
bench-link: setup ## Measure a link through two gateways.
	@$(BIN)/python tests/benchmarks/bench_link.py

.PHONY: bench-psi
bench-psi: setup ## Measure private set intersection; IDS= sets how many ids each side has, ENGINE= and SCHEMES= how.
	@IDS=$(or $(IDS),1000000) ENGINE=$(or $(ENGINE),duckdb) SCHEMES=$(or $(SCHEMES),oprf$(comma)blind_rsa) $(BIN)/python tests/benchmarks/bench_psi.py

.PHONY: bench-kernel
bench-kernel: setup ## Measure the kernels of batch arithmetic side by side, on one core.
	@$(BIN)/python tests/benchmarks/bench_kernel.py

.PHONY: bench-online
bench-online: setup ## Measure live lookups; TAGS= sets how many tags each side has.
	@TAGS=$(or $(TAGS),1000000) $(BIN)/python tests/benchmarks/bench_online.py

.PHONY: bench-sources
bench-sources: setup ## Measure the copy of a PostgreSQL table and the pass over it; ROWS= of the table, READERS= such as 1,2,4.
	@ROWS=$(or $(ROWS),1000000) READERS=$(or $(READERS),1$(comma)2$(comma)4) $(BIN)/python tests/benchmarks/bench_sources.py

.PHONY: bench-trees
bench-trees: setup ## Measure boosted trees; DATASET= is synthetic, or credit_default or mnist from folder DATA=.
	@DATASET=$(or $(DATASET),synthetic) DATA=$(DATA) ROWS=$(ROWS) DEPTH=$(or $(DEPTH),3) TREES=$(or $(TREES),5) BINS=$(or $(BINS),32) \
		KEY_BITS=$(or $(KEY_BITS),2048) $(BIN)/python tests/benchmarks/bench_trees.py

.PHONY: bench-embedding
bench-embedding: setup ## Measure what an embedding gives away of its features, made up or from folder DATA=, and what less costs.
	@DATA=$(DATA) SEEDS=$(or $(SEEDS),3) $(BIN)/python tests/benchmarks/bench_embedding.py

.PHONY: bench-label-protection
bench-label-protection: setup ## Measure what protecting labels costs and hides; DATA= is a folder with credit_default.
	@DATA=$(DATA) SEEDS=$(or $(SEEDS),1) $(BIN)/python tests/benchmarks/label_protection.py

.PHONY: bench-ratings
bench-ratings: setup ## Take made-up ratings of movies through all steps to exported halves, beside one Keras model; SEEDS= of it.
	@SEEDS=$(or $(SEEDS),3) $(BIN)/python tests/benchmarks/bench_ratings.py

.PHONY: bench-nn
bench-nn: setup ## Measure a network in halves beside the joint one; PARTS= of rate,slow,workers,payload,quality,ratings,memory,leak, DATA= for credit data, ROWS=.
	@PARTS=$(PARTS) DATA=$(DATA) ROWS=$(ROWS) ROUNDS=$(ROUNDS) $(BIN)/python tests/benchmarks/bench_nn.py

.PHONY: bench-join
bench-join: setup ## Measure the streaming join; ROWS= of the leader's log, PARTS= of rate,live,pairs, SECONDS= of part live.
	@PARTS=$(PARTS) ROWS=$(ROWS) SECONDS=$(SECONDS) ROUNDS=$(ROUNDS) $(BIN)/python tests/benchmarks/bench_join.py

.PHONY: bench-local-steps
bench-local-steps: setup ## Measure what local steps between exchanges of a split network are worth; DATA= is a folder with credit_default.
	@DATA=$(DATA) SEEDS=$(SEEDS) NETWORK=$(NETWORK) $(BIN)/python tests/benchmarks/bench_local_steps.py

.PHONY: bench-nn-memory
bench-nn-memory: setup ## Measure the memory of a split network's training; ROWS= sets numbers of rows, such as 1000000,10000000.
	@ROWS=$(ROWS) $(BIN)/python tests/benchmarks/bench_nn_memory.py

.PHONY: bench-pages
bench-pages: setup ## Measure the pages' answers; RUNS= sets how many runs the store has.
	@RUNS=$(or $(RUNS),10000) $(BIN)/python tests/benchmarks/bench_pages.py

.PHONY: bench-flood
bench-flood: setup ## Measure how much one peer at its worst slows another's calls and link.
	@$(BIN)/python tests/benchmarks/bench_flood.py

.PHONY: bench-store-away
bench-store-away: setup ## Stop PostgreSQL for a minute at random instants of runs; TRIES= and AWAY= (seconds) change that.
	@$(BIN)/python tests/benchmarks/store_away.py --tries $(or $(TRIES),20) --away $(or $(AWAY),60)

.PHONY: bench-gateways
bench-gateways: setup ## Kill the active one of two gateways every 20 s under 20 runs; MINUTES= and EVERY= (seconds) change that.
	@$(BIN)/python tests/benchmarks/several_gateways.py --minutes $(or $(MINUTES),5) --every $(or $(EVERY),20)

.PHONY: soak
soak: setup ## Run two gateways for ten minutes and see whether they stay small; MINUTES= changes that.
	@$(BIN)/python tests/benchmarks/soak.py --minutes $(or $(MINUTES),10)

.PHONY: chaos
chaos: setup ## Kill and cut off two real Airflows at random for MINUTES=15; SEED=, ONLY=gateway for one sort of fault.
	@$(BIN)/python tests/benchmarks/chaos.py --minutes $(or $(MINUTES),15) --seed $(or $(SEED),1) $(addprefix --only ,$(ONLY))

.PHONY: protos
protos: setup ## Generate the wire stubs from protos/.
	@$(BIN)/python protos/generate.py

.PHONY: docs
docs: setup ## Generate docs/errors.md, the tables of messages and clauses, and the example of a data check.
	@$(BIN)/python docs/generate_errors.py
	@$(BIN)/python docs/generate_messages.py
	@$(BIN)/python docs/generate_clauses.py
	@$(BIN)/python docs/generate_data_check.py

.PHONY: clean
clean: ## Remove what the other targets made, but the environment.
	@rm -rf .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build spark-warehouse
	@find . -name __pycache__ -not -path './.venv*/*' -not -path './.tools/*' -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean ## Remove the environment too.
	@rm -rf .venv .venv-* .tools
