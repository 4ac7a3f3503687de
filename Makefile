# Every target does all of its own set-up on a fresh clone. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
# Test processes; two cores are common, and more of them only compete for the one Redis.
JOBS ?= 2
# More for pytest: make test ARGS="tests/runs -x"
ARGS ?=
export HOST PORT

BIN := $(VENV)/bin
# The name of a stamp holds the checksum of its lock: installed again when the lock's content changed, not its date.
checksum = $(shell cksum < $(1) | cut -d ' ' -f 1)
RUNTIME := $(VENV)/.runtime-$(call checksum,requirements.lock)
DEV := $(VENV)/.dev-$(call checksum,requirements-dev.lock)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input install --prefer-binary --require-hashes

PACKAGES := accounts agentsite approvals evals runs traces tests manage.py
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS)
# Their conftests refuse a test that wants a database, so another one changes nothing.
WITHOUT_SERVICES := adapters engine loop samples

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-services coverage e2e agentbarrier bench lint format

help: ## list these targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: $(RUNTIME) ## start everything at http://HOST:PORT; Ctrl-C stops it
	@exec $(BIN)/python manage.py up

test: $(DEV) ## every test that needs only Python
	@env -u DATABASE_URL -u REDIS_URL $(PYTEST) -m "not e2e and not services" tests $(ARGS)

test-services: $(DEV) ## what reaches a database or Redis, on those of DATABASE_URL, REDIS_URL
	@if [ -z "$$DATABASE_URL" ] || [ -z "$$REDIS_URL" ]; then \
	  echo "make test-services needs DATABASE_URL (postgres://USER:PASSWORD@HOST:PORT/NAME) and REDIS_URL (redis://HOST:PORT/0)." >&2; \
	  exit 2; \
	fi
	@$(PYTEST) -m "not e2e and not standalone" $(WITHOUT_SERVICES:%=--ignore=tests/%) tests $(ARGS)

coverage: $(DEV) ## all branches of the parser, the validator and the router are tested
	@$(BIN)/python -m coverage run -m pytest -c /dev/null --rootdir . -p no:django -q \
	  tests/engine tests/loop/test_recovery.py tests/loop/test_answers.py tests/adapters/test_validation.py $(ARGS)
	@$(BIN)/python -m coverage report

e2e: $(DEV) ## the browser tests; needs Chromium on the PATH
	@env -u DATABASE_URL -u REDIS_URL $(PYTEST) -m e2e tests $(ARGS)

agentbarrier: $(DEV) ## the independent suite AgentBarrier over the product; leaves junit-agentbarrier.xml
	@$(BIN)/python -m agentbarrier verify tests.agentbarrier.standalone:adapter --strict-skips \
	  --operation-timeout 30 --tool-timeout 2 --junit junit-agentbarrier.xml $(ARGS)

bench: $(DEV) ## the benchmarks
	@$(BIN)/python -m tests.bench

lint: $(DEV) ## style, types, layers, templates, migrations, deployment settings
	@$(BIN)/ruff check $(PACKAGES)
	@$(BIN)/ruff format --check $(PACKAGES)
	@$(BIN)/mypy $(PACKAGES)
	@$(BIN)/lint-imports
	@$(BIN)/djlint templates --lint --quiet
	@data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && export AGENTSITE_DATA_DIR="$$data" && unset DATABASE_URL REDIS_URL && \
	  $(BIN)/python manage.py makemigrations --check --dry-run && \
	  ALLOWED_HOSTS=agentsite.harborpine.example $(BIN)/python manage.py check --deploy --fail-level WARNING

format: $(DEV) ## put the code into its one layout
	@$(BIN)/ruff check --fix $(PACKAGES)
	@$(BIN)/ruff format $(PACKAGES)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "agentsite needs Python 3.11 or newer: make run PYTHON=python3.11" >&2; exit 1; }
	@echo "setting up: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing (Debian: apt install python3-venv)." >&2; exit 1; }

$(RUNTIME): | $(VENV)/bin/python
	@echo "setting up: pinned packages from requirements.lock (once; about a minute)"
	@$(PIP) -r requirements.lock
	@rm -f $(VENV)/.runtime-* && touch $@

$(DEV): | $(VENV)/bin/python
	@echo "setting up: pinned packages from requirements-dev.lock (once; about a minute)"
	@$(PIP) -r requirements-dev.lock
	@rm -f $(VENV)/.runtime-* $(VENV)/.dev-* && touch $(RUNTIME) $@
