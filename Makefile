PYTHON ?= python3
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: demo test lint types audit pages reliability

# The package as a user installs it, in an environment of its own, on three interactions.
demo: .venv-demo/installed
	.venv-demo/$(BIN)/python examples/demo.py

test: .venv/installed
	.venv/$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --durations 20

lint: .venv/installed
	.venv/$(BIN)/ruff check .
	.venv/$(BIN)/ruff format --check .

types: .venv/installed
	.venv/$(BIN)/mypy

# The installed dependencies against the database of known vulnerabilities, where that can be reached.
audit: .venv/installed
	.venv/$(BIN)/python scripts/audit.py

# Everything committed that is rendered from results files: decision, tables, thresholds, cards, plots, demo, trials.
pages: .venv/installed
	PYTHON=.venv/$(BIN)/python scripts/render_pages.sh

# All trials of hostile input and failure, for a quiet machine: hours.
reliability: .venv/installed
	PYTHON=.venv/$(BIN)/python scripts/reliability.sh

.venv-demo/installed: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/$(BIN)/python -m pip install --quiet --disable-pip-version-check .
	touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
