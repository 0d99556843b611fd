# Everything a new machine needs: Python 3.11 and a package index.
#   make run    install what running needs, then the quickstart experiment
#   make test   install the test tools as well, then lint, types and tests
#   make integrations  install Hugging Face's, Lightning's, ONNX's, Ray's and trackers' libraries too, then train through them,
#               compute what is exported, and build the site
#   make docs   the site of docs/, into site/
#   make faults the slow proofs: disk errors, flipped bits, a hundred kills: several minutes

export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test integrations docs faults lint

setup: .venv/.dev

.venv/.run: pyproject.toml constraints.txt
	@echo "== installing lottery and what running needs into .venv: a minute or two, most of it PyTorch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e ".[quickstart]"
	touch $@

.venv/.dev: .venv/.run
	@echo "== installing the test tools"
	$(BIN)/python -m pip install -q -e ".[dev]"
	$(BIN)/python -m pip check
	touch $@

.venv/.integrations: .venv/.dev
	@echo "== installing what the integrations need"
	$(BIN)/python -m pip install -q -e ".[docs,hf,lightning,mlflow,onnx,ray,wandb]"
	$(BIN)/python -m pip check
	touch $@

.venv/.docs: .venv/.run
	@echo "== installing what the site needs"
	$(BIN)/python -m pip install -q -e ".[docs]"
	touch $@

run: .venv/.run
	@echo "== lottery run quickstart: 330 small networks, about a minute on two cores"
	$(BIN)/lottery run quickstart

test: lint
	$(BIN)/pytest

integrations: .venv/.integrations
	$(BIN)/pytest -o addopts="-q -rs" --timeout 600 tests/integrations

docs: .venv/.docs
	$(BIN)/mkdocs build --strict

faults: .venv/.dev
	$(BIN)/pytest -o addopts="-n 2 -q -s" --timeout 3600 tests/faults

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
