# `make` lists the targets. A target installs what it needs into .venv, pinned with hashes.
PYTHON ?= python3
BIN := .venv/bin
LEVEL ?= runtime
WORKERS ?= 6
# Empty is unset: without bytecode each worker compiles all tests again, which takes six seconds of a core.
export PYTHONDONTWRITEBYTECODE :=
LOWEST := tests/unit/test_credentials.py tests/unit/test_iam_credentials.py tests/unit/test_tracing.py \
  $(patsubst %,tests/integration/test_%.py,api aws_credentials cluster_owner iam_login queue_contract tracing tracing_collector) \
  $(patsubst %,clients/python/tests/test_%.py,consumer publish tracing) \
  $(patsubst %,clients/python/tests/outbox/test_%.py,add relay)
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/tools: requirements/build.txt
	@echo "making .venv"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@touch $@

# Two levels: the packages of the sidecar, then those of the tests.
.venv/runtime: .venv/tools requirements/runtime.txt pyproject.toml clients/python/pyproject.toml
	@echo "installing the sidecar and its client"
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --require-hashes -r requirements/runtime.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e clients/python -e .
	@$(BIN)/python -m compileall -q sidecar clients/python/src
	@touch $@

.venv/dev: .venv/runtime requirements/dev.txt
	@echo "installing the test tools"
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

# The lowest versions that both distributions allow; `make install` has the newest.
.venv-lowest/ready: .venv/tools requirements/lowest.txt pyproject.toml clients/python/pyproject.toml
	@echo "installing the lowest versions that are allowed"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	@VIRTUAL_ENV=.venv-lowest $(BIN)/uv pip install --quiet --require-hashes -r requirements/lowest.txt
	@VIRTUAL_ENV=.venv-lowest $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

.venv-registry/ready: .venv/tools requirements/registry.txt
	@echo "installing the example registry"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-registry
	@VIRTUAL_ENV=.venv-registry $(BIN)/uv pip install --quiet --require-hashes -r requirements/registry.txt
	@touch $@

# MLflow is large, and has packages that nothing else needs: an environment for each of the two versions that are tested.
.venv-mlflow-%/ready: .venv/tools requirements/mlflow-%.txt pyproject.toml clients/python/pyproject.toml
	@echo "installing MLflow, the $* version that is allowed"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-mlflow-$*
	@VIRTUAL_ENV=.venv-mlflow-$* $(BIN)/uv pip install --quiet --require-hashes -r requirements/mlflow-$*.txt
	@VIRTUAL_ENV=.venv-mlflow-$* $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

.venv-release/ready: .venv/tools requirements/release.txt
	@echo "installing the writer of the SBOM"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-release
	@VIRTUAL_ENV=.venv-release $(BIN)/uv pip install --quiet --require-hashes -r requirements/release.txt
	@touch $@

.venv-site/ready: .venv/tools requirements/site.txt
	@echo "installing the builder of the site"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-site
	@VIRTUAL_ENV=.venv-site $(BIN)/uv pip install --quiet --require-hashes -r requirements/site.txt
	@touch $@

.venv-proto/ready: requirements/proto.txt
	@echo "installing the generator of the contract"
	@$(PYTHON) -m venv --clear .venv-proto
	@.venv-proto/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/proto.txt
	@touch $@

.PHONY: install demo serve registry test checks lint types imports proto proto-export proto-clients proto-check unit foreign lowest mlflow soak
.PHONY: mutants bench docs site chart pins dist image clean
install: .venv/dev ## Install the sidecar, the client and all tools into .venv

demo: .venv/runtime .venv-registry/ready ## See it work: publish, kill Redis, publish, bring it back (a minute at most)
	@$(BIN)/python -m scripts.demo .venv-registry/bin/python

serve: .venv/runtime ## Run the sidecar with a Valkey server of its own
	@SPOOL_DIR=$${SPOOL_DIR:-.cache/spool} $(BIN)/modelready-sidecar serve --embedded

registry: .venv-registry/ready ## Run the example registry beside the sidecar of `make serve`
	@mkdir -p .cache
	@export DATABASE_URL=$${DATABASE_URL:-sqlite:///.cache/registry.db} PYTHONPATH=clients/python/src:clients/python/examples && \
	  .venv-registry/bin/python -m registry.tables && exec .venv-registry/bin/python -m uvicorn registry.app:app

test: ## Lint, types, import rules, contract and all tests
	@$(MAKE) --no-print-directory -j2 checks unit

checks: lint types imports proto-check ## All of that but the tests, which run beside it in `make test`

lint: .venv/dev ## ruff: lint and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/dev ## mypy, strict, on the code and on the examples of the documents
	@$(BIN)/mypy && $(BIN)/python scripts/examples.py

imports: .venv/dev ## import-linter: imports point one way
	@$(BIN)/lint-imports

# Else each worker compiles all tests for itself.
.venv/tests: .venv/dev $(shell find conftest.py tests clients/python/tests -name '*.py')
	@$(BIN)/pytest --collect-only -qqq >/dev/null
	@touch $@

# More workers than a small machine has cores: most tests wait, for a server or a clock.
unit: .venv/tests ## All tests but the long ones
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not soak and not foreign" $(ARGS)

foreign: .venv/dev .venv-proto/ready ## The clients in Go and TypeScript, and the contract in tools of other languages
	@$(BIN)/pytest -n 2 --dist loadfile -m "foreign and not soak" tests/foreign $(ARGS)

lowest: .venv-lowest/ready ## Tests of publishing, consuming, login and tracing with the lowest versions that are allowed
	@.venv-lowest/bin/pytest -n $(WORKERS) --dist worksteal -m "not soak" $(LOWEST) $(ARGS)

MLFLOW ?= newest
mlflow: .venv-mlflow-$(MLFLOW)/ready ## Tests of the MLflow plug-in with the newest MLflow; MLFLOW=lowest: the lowest that is allowed
	@.venv-mlflow-$(MLFLOW)/bin/pytest -m "not soak" clients/python/tests/mlflow_plugin $(ARGS)

soak: .venv/dev ## The long tests
	@$(BIN)/pytest -m soak --timeout 1800 $(ARGS)

mutants: .venv/dev ## Change the core in one place at a time and list the changes that no test notices; ARGS="-j 2 --seconds 600 PATH..."
	@$(BIN)/python scripts/mutants.py $(ARGS)

bench: .venv/dev ## Measure, as ratios to baselines, and write bench/RESULTS.md
	@$(BIN)/python -m bench $(ARGS)

proto: .venv-proto/ready ## Generate the Python code of the contract
	@.venv-proto/bin/python proto/contract.py generate

proto-export: .venv-proto/ready ## Write the contract with all that it imports to .cache/contract, for other generators
	@rm -rf .cache/contract && .venv-proto/bin/python proto/contract.py export .cache/contract

proto-clients: .venv-proto/ready ## Generate the code of the clients in Go and TypeScript; needs go, node and npm
	@.venv-proto/bin/python proto/clients.py

proto-check: .venv-proto/ready ## Lint, format, staleness and compatibility of the contract
	@.venv-proto/bin/python proto/contract.py check

docs: .venv/dev ## Generate docs/configuration.md, .env.example, alarms, dashboards and the rotation function in the template
	@$(BIN)/python scripts/configuration.py && $(BIN)/python -m scripts.monitoring && $(BIN)/python scripts/embed_rotation.py

site: .venv-site/ready ## Build the site of the documents, with a reference of the client, in .cache/site; fails for a broken link
	@.venv-site/bin/mkdocs build # --quiet would let broken links pass

chart: .venv/dev ## Lint the Helm chart and render it for the tests; needs helm
	@$(BIN)/python -m scripts.chart

# Each environment is pinned from pyproject.toml; `modelready` itself is here and in no registry. Of axe-playwright-python
# the tests need axe-core alone, not a second browser.
PINNED := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --excludes /dev/stdin
BOTH := pyproject.toml clients/python/pyproject.toml
UPGRADE ?= --upgrade
pins: .venv/tools ## Pin the newest versions, with hashes; with UPGRADE= keep those that are pinned
	@without=mlflow-skinny; pin() { printf 'modelready\nplaywright\n%s\n' "$$without" | $(PINNED) -o requirements/"$$@"; }; set -e; \
	pin build.txt $(UPGRADE) --group build; \
	pin proto.txt $(UPGRADE) --group proto; \
	pin release.txt $(UPGRADE) --group release; \
	pin site.txt $(UPGRADE) --group site; \
	pin runtime.txt $(UPGRADE) --extra embedded $(BOTH); \
	pin image.txt $(UPGRADE) --extra aws --extra consumer --extra embedded --extra otel --extra outbox $(BOTH); \
	pin registry.txt $(UPGRADE) --extra sqlalchemy --group registry clients/python/pyproject.toml; \
	pin dev.txt $(UPGRADE) --all-extras --group dev $(BOTH); \
	pin lowest.txt --resolution lowest-direct --all-extras --group test $(BOTH); \
	without=; \
	pin mlflow-newest.txt $(UPGRADE) --all-extras --group mlflow $(BOTH); \
	pin mlflow-lowest.txt --resolution lowest-direct --all-extras --group mlflow $(BOTH)

REPOSITORY ?=
dist: .venv/tools .venv-release/ready ## Build wheels, source distributions and SBOMs in dist/; REPOSITORY=URL: with project URLs
	@$(BIN)/python -m scripts.dist --repository "$(REPOSITORY)"

IMAGE ?= modelready-sidecar
# Buildx builds for several platforms, but keeps them only in a registry: PLATFORMS=linux/amd64,linux/arm64 PUSH=--push.
PLATFORMS ?=
PUSH ?=
image: ## Build the image IMAGE; PLATFORMS=linux/amd64,linux/arm64 PUSH=--push: for both, with SBOM and provenance
	docker $(if $(PLATFORMS),buildx build --platform $(PLATFORMS) --sbom=true --provenance=mode=max $(PUSH),build) \
	  --tag $(IMAGE) --build-arg REVISION=$$(git rev-parse HEAD) .

clean: ## Remove everything that the targets made
	@rm -rf .venv .venv-* .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
