# One vocabulary for people, hooks and CI. Each target makes what it needs; a second call is at once.

# What is yours: NAME, TABLE, GATES, REGISTRY_TOOLS_TRUST. See docs/how-to/your-own-table.md.
-include own.mk

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq
PORT   ?= 5000
NAME   ?= iris
STAGE  ?= staging
STORE  ?= $(or $(MLFLOW_TRACKING_URI),sqlite:///mlflow.db)

# mlflow and the entry points call `python` and each other by name.
export PATH := $(abspath $(BIN)):$(PATH)
# MLflow tells every step at level INFO; our own lines are what counts. MLFLOW_LOGGING_LEVEL=INFO shows all.
export MLFLOW_LOGGING_LEVEL ?= WARNING
# MLflow reports its use over the network unless told not to.
export MLFLOW_DISABLE_TELEMETRY ?= true
# Where there is no git, MLflow does without; its library for git would say so at length.
export GIT_PYTHON_REFRESH ?= quiet
# The theme of the site advertises its successor at length.
export NO_MKDOCS_2_WARNING ?= 1

.PHONY: help run test test-slow check docs docs-serve format lock proto ui example demo screenshots serve bench clean

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s '	'

run: $(VENV)/.run ## Train, register, put into staging, and through the gates into production. ARGS="-P max_iter=300" adds parameters.
	@$(BIN)/mlflow run . --env-manager local --experiment-name $(NAME) -P name=$(NAME) -P stage=$(STAGE) $(TABLE) $(ARGS)
	@$(BIN)/registry-tools promote $(NAME)@$(STAGE) --to production --reason "make run" $(GATES)

test: $(VENV)/.test ## Run the tests, in at most four minutes.
	@$(BIN)/python -m pytest

test-slow: $(VENV)/.test $(VENV)/.spark $(VENV)/.docs ## Run the tests that take minutes or install packages.
	@$(BIN)/python -m pytest -m slow --timeout 900 -rs

check: $(VENV)/.test ## Check format, style, types, and that imports follow the layers.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

docs: $(VENV)/.docs ## Build the site of the documents into site/; a dead link is an error.
	@$(BIN)/mkdocs build --strict

docs-serve: PORT = 8000
docs-serve: $(VENV)/.docs ## Show the site, and rebuild it when a page changes: PORT=8000.
	@$(BIN)/mkdocs serve --strict --dev-addr 127.0.0.1:$(PORT)

format: $(VENV)/.test ## Put the code into the form that `make check` wants.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

ui: $(VENV)/.run ## Open the MLflow UI on the example store, or on STORE=sqlite:///mlflow.db: PORT=5000.
ifeq ($(origin STORE),command line)
	@$(BIN)/mlflow ui --backend-store-uri $(STORE) --port $(PORT)
else
	@$(BIN)/python -m pipeline show-example --port $(PORT)
endif

example: $(VENV)/.run ## Make the example store anew.
	@$(BIN)/python -m pipeline make-example

demo: PORT = 5055
demo: $(VENV)/.run ## Show the loop from log to promotion on this machine, in two minutes, with a page to watch: PORT=5055.
	@$(BIN)/python -m pipeline demo --port $(PORT)

screenshots: $(VENV)/.test ## Take the pictures of the README anew, from the example store; needs chromium.
	@$(BIN)/python -m tests.support.screenshots

serve: PORT = 5001
serve: $(VENV)/.run ## Serve iris@production and follow it: PORT=5001.
	@exec env "MLFLOW_TRACKING_URI=$(STORE)" $(BIN)/registry-tools serve $(NAME)@production --port $(PORT)

bench: $(VENV)/.test ## Measure; see benchmarks/.
	@missed=0; for each in serving score sweep run_overhead cli_start registry_scale registry_postgres gate_power slice_power interval_coverage drift; do \
	  $(BIN)/python benchmarks/$$each.py || missed=1; done; exit $$missed

lock: $(VENV)/.test ## Make the lock files again from pyproject.toml and deploy/server.in.
	@$(BIN)/uv pip compile pyproject.toml --group build $(LOCK) --output-file requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra signing --extra grpc --extra otel --group build --group test --constraint requirements.lock $(LOCK) --output-file requirements-test.lock
	@$(BIN)/uv pip compile pyproject.toml --extra spark --extra url --constraint requirements.lock $(LOCK) --output-file requirements-spark.lock
	@$(BIN)/uv pip compile --group docs --constraint requirements-test.lock $(LOCK) --output-file requirements-docs.lock
	@$(BIN)/uv pip compile deploy/server.in $(LOCK) --output-file deploy/server.lock
	@$(BIN)/uv pip compile deploy/server.in tests/support/s3.in --constraint deploy/server.lock $(LOCK) --output-file tests/support/s3.lock
	@sed -i "s/^# lock: .*/# lock: $$(sha256sum requirements.lock | cut -c1-16)/" conda.yaml

proto: $(VENV)/.test ## Compile the definition of the Open Inference Protocol, which the gRPC server reads.
	@$(BIN)/uv run --quiet --no-project --with grpcio-tools python -m grpc_tools.protoc \
	  --proto_path=$(GRPC) --descriptor_set_out=$(GRPC)/open_inference_grpc.binpb open_inference_grpc.proto

GRPC := registry_tools/serving/grpc

# Every supported Python and platform in one file, with hashes, and no address of an index.
LOCK := --universal --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
        --custom-compile-command 'make lock' --upgrade --quiet

clean: ## Remove the environment and caches; stores and models stay.
	@rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache

# The two environments are one folder; the tests only add to it.
$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing the locked packages into $(VENV) (once, about a minute)" >&2
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: requirements-test.lock $(VENV)/.run
	@echo "installing what the tests need into $(VENV) (once)" >&2
	@$(PIP) install --require-hashes -r requirements-test.lock
	@touch $@

# pyspark brings Spark itself, 430 MB: only the tests that take minutes install it.
$(VENV)/.spark: requirements-spark.lock $(VENV)/.test
	@echo "installing Spark into $(VENV) (once)" >&2
	@$(PIP) install --require-hashes -r requirements-spark.lock
	@touch $@

$(VENV)/.docs: requirements-docs.lock $(VENV)/.run
	@echo "installing what builds the documents into $(VENV) (once)" >&2
	@$(PIP) install --require-hashes -r requirements-docs.lock
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $(PYTHON) is older than 3.10; name a newer one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "make: $(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
