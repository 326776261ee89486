# Muster: `make run` starts the demo school, `make test` passes all tests. Nothing else is needed
# beforehand than Python 3.11 or newer with venv, make and git.

.DEFAULT_GOAL := help
SHELL := /bin/bash
UV := uv==0.13.9
BIN := .venv/bin

# The first Python that is new enough; empty if there is none.
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# The stamp holds the folder the environment was made in: its scripts name that folder, so a moved
# one is broken although its files look newer than the locks.
VENV_IS_SOUND := $(shell [ "$$(cat .venv/uv.stamp 2>/dev/null)" = "$$(pwd -P)" ] && $(BIN)/python -c 'import pip' 2>/dev/null && echo yes)

.PHONY: run test lint bench lock screenshots clean help unsound

run: .venv/run.stamp  ## start Muster with the demo school
	@MUSTER_DEMO=$${MUSTER_DEMO:-1} $(BIN)/python main.py run

test: .venv/dev.stamp lint  ## run every test
	@$(BIN)/python -m tests.browser
	@$(BIN)/python -m tests.servers
	@$(BIN)/python -m pytest

lint: .venv/dev.stamp  ## style, types, import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/dev.stamp  ## measure, and print p50/p99 and the machine
	@$(BIN)/python -m tests.bench

screenshots: .venv/dev.stamp  ## photograph every page into build/screenshots
	@$(BIN)/python -m tests.browser
	@$(BIN)/python -m tests.ui.screenshots

lock: .venv/uv.stamp  ## write the lock files anew: hashes, no addresses
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' pyproject.toml --group dev -o requirements-dev.lock

clean:  ## remove what was installed and built; the data stay
	rm -rf .venv build .mypy_cache .ruff_cache .hypothesis .import_linter_cache

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# A half-made, moved or copied environment is made anew.
.venv/uv.stamp: Makefile $(if $(VENV_IS_SOUND),,unsound)
	@if [ -z "$(PYTHON)" ]; then echo "Muster needs Python 3.11 or newer; install it and run make again."; exit 1; fi
	@if [ -z "$(VENV_IS_SOUND)" ]; then \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && rm -rf .venv && $(PYTHON) -m venv .venv || { \
			rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; install its venv package (Debian, Ubuntu: apt-get install python3-venv) and run make again."; exit 1; }; \
	fi
	@echo "Installing …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location '$(UV)'
	@pwd -P > $@

.venv/run.stamp: .venv/uv.stamp requirements.lock
	@$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

.venv/dev.stamp: .venv/uv.stamp requirements-dev.lock
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@
