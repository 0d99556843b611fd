# Everything a new machine needs: Python 3.11 and a package index.
#   make run    set up, then the quickstart experiment
#   make test   set up, then lint, types and tests

export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test lint

setup: .venv/.stamp

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e ".[dev]"
	$(BIN)/python -m pip check
	touch $@

run: .venv/.stamp
	$(BIN)/lottery run quickstart

test: lint
	$(BIN)/pytest

lint: .venv/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
