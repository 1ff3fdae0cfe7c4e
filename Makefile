# The same commands for people, hooks and CI. Each target installs the packages that it needs, once.

# Your settings: CONFIG, NAME, GATES, REGISTRY_TOOLS_TRUST. See docs/how-to/your-own-table.md.
-include own.mk

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq
FRAMEWORKS ?= $(VENV)-frameworks
PORT   ?= 5000
NAME   ?= $(if $(findstring data=,$(ARGS)),$(error your own table needs a name: make run NAME=MODEL ARGS="…"),iris)
STAGE  ?= staging
# A configuration file names the model and the stage itself.
ifdef CONFIG
TRAIN   = python -m pipeline train --config "$(CONFIG)"
TRAINED = "$$($(BIN)/python -m pipeline.params.config_file "$(CONFIG)")"
else
TRAIN   = mlflow run . --env-manager local --experiment-name $(NAME) -P name=$(NAME) -P stage=$(STAGE)
TRAINED = $(NAME)@$(STAGE)
endif
STORE  ?= $(or $(MLFLOW_TRACKING_URI),sqlite:///mlflow.db)

# mlflow and the entry points find `python` and each other on the PATH.
export PATH := $(abspath $(BIN)):$(PATH)
# At level INFO, MLflow logs every step between our own lines. MLFLOW_LOGGING_LEVEL=INFO shows them.
export MLFLOW_LOGGING_LEVEL ?= WARNING
# MLflow sends usage data over the network unless this is set.
export MLFLOW_DISABLE_TELEMETRY ?= true
# Without git, MLflow works too; this setting silences the long warning of its git library.
export GIT_PYTHON_REFRESH ?= quiet
# The theme of the site advertises its successor at length.
export NO_MKDOCS_2_WARNING ?= 1

.PHONY: help run test test-slow test-frameworks check docs docs-serve format mlproject lock proto ui console example demo governed screenshots serve bench clean

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s '	'

run: $(VENV)/.run ## Train and register a version in staging, then promote it to production through the gates: ARGS="-P max_iter=300", or CONFIG=config.yaml.
	@$(BIN)/$(TRAIN) $(ARGS)
	@$(BIN)/registry-tools promote $(TRAINED) --to production --reason "make run" $(GATES)

test: $(VENV)/.test ## Run the tests, in about five minutes on two cores: ARGS="--cov" prints the coverage.
	@$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/.test $(VENV)/.spark $(VENV)/.docs ## Run the slow tests, which take minutes or install packages.
	@$(BIN)/python -m pytest -m slow -n 3 --timeout 900 -rs # one more than cores: many tests wait for servers

test-frameworks: $(FRAMEWORKS)/.ready ## Run the tests of CatBoost, Keras, ONNX and others, in an environment of their own.
	@REGISTRY_TOOLS_TEST_FRAMEWORKS=1 $(FRAMEWORKS)/bin/python -m pytest tests/frameworks -rs --timeout 900 $(ARGS)

check: $(VENV)/.test ## Check format, style, types and the layers of imports.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

docs: $(VENV)/.docs ## Build the site of the documents into site/; a dead link is an error.
	@$(BIN)/mkdocs build --strict

docs-serve: PORT = 8000
docs-serve: $(VENV)/.docs ## Show the site, and rebuild it when a page changes: PORT=8000.
	@$(BIN)/mkdocs serve --strict --dev-addr 127.0.0.1:$(PORT)

format: $(VENV)/.test ## Format the code, and fix its style where ruff can.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Each worker process of MLflow's server would print this warning about MLflow's own code. Without the jobs of GenAI,
# which this project does not use, Ctrl-C prints no tracebacks.
UI_WARNINGS := $(or $(PYTHONWARNINGS),ignore:starlette.middleware.wsgi is deprecated)

ui: $(VENV)/.run ## Open the MLflow UI on the example store, or on your store: STORE=sqlite:///mlflow.db, PORT=5000.
ifeq ($(origin STORE),command line)
	@echo "in a few seconds, open http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning"
	@exec env PYTHONWARNINGS="$(UI_WARNINGS)" MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	  $(BIN)/mlflow ui --backend-store-uri "$(STORE)" --port $(PORT) --workers 2
else
	@$(BIN)/python -m pipeline show-example --port $(PORT)
endif

console: PORT = 5002
console: $(VENV)/.run ## Open the console on the example store, or on your registry: STORE=http://127.0.0.1:5000, PORT=5002.
ifeq ($(origin STORE),command line)
	@exec $(BIN)/registry-tools console --tracking-uri "$(STORE)" --port $(PORT)
else
	@$(BIN)/python -m pipeline show-example --console --port $(PORT)
endif

example: $(VENV)/.test ## Rebuild the example store, which has runs of XGBoost and LightGBM.
	@$(BIN)/python -m pipeline make-example

demo: PORT = 5055
demo: $(VENV)/.run ## Show the loop from prediction log to promotion in two minutes, on a page: PORT=5055.
	@$(BIN)/python -m pipeline demo --port $(PORT)

governed: PORT = 5060
governed: $(VENV)/.test ## Run a registry and its console, with two users, whose production stage moves only on evidence: PORT=5060.
	@exec $(BIN)/python -m pipeline governed --port $(PORT)

screenshots: $(VENV)/.test ## Take the screenshots of the README again, from the example store; needs chromium.
	@$(BIN)/python -m tests.support.screenshots

serve: PORT = 5001
serve: $(VENV)/.run ## Serve iris@production, and switch versions when the stage moves: PORT=5001.
	@exec env "MLFLOW_TRACKING_URI=$(STORE)" $(BIN)/registry-tools serve $(NAME)@production --port $(PORT)

bench: $(VENV)/.test ## Run all benchmarks; see benchmarks/.
	@missed=0; for each in serving webhook score sweep run_overhead cli_start registry_scale registry_postgres gated_store console gate_power metric_gate_power slice_power interval_coverage drift onnx_export; do \
	  $(BIN)/python benchmarks/$$each.py || missed=1; done; exit $$missed

mlproject: $(VENV)/.run ## Generate MLproject from the parameters of the commands.
	@$(BIN)/python -m pipeline.mlproject > MLproject.part && mv MLproject.part MLproject

lock: $(VENV)/.test ## Update the lock files from pyproject.toml and deploy/server.in: UPGRADE=1 takes the newest versions.
	@$(BIN)/uv pip compile pyproject.toml --group build $(LOCK) --output-file requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra signing --extra grpc --extra otel --extra boosting --extra explain --extra onnx --group build --group test --constraint requirements.lock $(LOCK) --output-file requirements-test.lock
	@$(BIN)/uv pip compile pyproject.toml --extra signing --extra boosting --extra catboost --extra keras --group build --group test --group frameworks --constraint requirements-test.lock $(LOCK) --output-file requirements-frameworks.lock
	@$(BIN)/uv pip compile pyproject.toml --extra spark --extra url --constraint requirements.lock $(LOCK) --output-file requirements-spark.lock
	@$(BIN)/uv pip compile --group docs --constraint requirements-test.lock $(LOCK) --output-file requirements-docs.lock
	@$(BIN)/uv pip compile deploy/server.in $(LOCK) --output-file deploy/server.lock
	@$(BIN)/uv pip compile deploy/server.in tests/support/s3.in --constraint deploy/server.lock $(LOCK) --output-file tests/support/s3.lock
	@sed -i "s/^# lock: .*/# lock: $$(sha256sum requirements.lock | cut -c1-16)/" conda.yaml

proto: $(VENV)/.test ## Compile the protocol definition that the gRPC server reads.
	@$(BIN)/uv run --quiet --no-project --with grpcio-tools python -m grpc_tools.protoc \
	  --proto_path=$(GRPC) --descriptor_set_out=$(GRPC)/open_inference_grpc.binpb open_inference_grpc.proto

GRPC := registry_tools/serving/grpc

# One lock file for all supported Python versions and platforms, with hashes and without index addresses.
LOCK := --universal --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
        --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) --quiet

clean: ## Remove the environment and the caches, but no store and no model.
	@rm -rf $(VENV) $(FRAMEWORKS) .edge *.egg-info .pytest_cache .mypy_cache .ruff_cache

# All environments share one folder; the tests add packages to it.
$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing the locked packages into $(VENV) (once, about a minute)" >&2
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: requirements-test.lock $(VENV)/.run
	@echo "installing the packages of the tests into $(VENV) (once)" >&2
	@$(PIP) install --require-hashes -r requirements-test.lock
	@touch $@

# pyspark contains Spark, 430 MB, so only the slow tests install it.
$(VENV)/.spark: requirements-spark.lock $(VENV)/.test
	@echo "installing Spark into $(VENV) (once)" >&2
	@$(PIP) install --require-hashes -r requirements-spark.lock
	@touch $@

# 800 MB, which only these tests need.
$(FRAMEWORKS)/.ready: requirements-frameworks.lock pyproject.toml
	@echo "installing the frameworks into $(FRAMEWORKS) (once)" >&2
	@$(PYTHON) -m venv $(FRAMEWORKS)
	@$(FRAMEWORKS)/bin/python -m pip --disable-pip-version-check -qq install --require-hashes -r requirements-frameworks.lock
	@$(FRAMEWORKS)/bin/python -m pip --disable-pip-version-check -qq install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.docs: requirements-docs.lock $(VENV)/.run
	@echo "installing what builds the documents into $(VENV) (once)" >&2
	@$(PIP) install --require-hashes -r requirements-docs.lock
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $(PYTHON) is older than 3.10; choose a newer one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "make: $(PYTHON) cannot create environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
