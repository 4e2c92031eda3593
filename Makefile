# `make demo` and `make test` both work as the first command on a fresh clone: they need Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint format clean

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (PyTorch is large: a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

## Standard training, TRADES and TRADES + TRAIN on the digits data set, three seeds each, then the comparison.
demo: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh benchmarks/demo.sh

## All tests with coverage. Many wait for processes and screens, so there is a worker more than there are cores.
test: $(INSTALLED)
	@$(BIN)/python -m pytest -n $$(( $$(nproc) + 1 )) --maxprocesses 5 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED)
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo dist .coverage* .mypy_cache .ruff_cache .pytest_cache
