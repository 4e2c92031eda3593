# `make demo` and `make test` both work as the first command on a fresh clone: they need Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test soak guard lint format clean

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (PyTorch is large: a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

## Standard training, TRADES and TRADES + TRAIN on the digits data set, three seeds each, then the comparison.
demo: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh benchmarks/demo.sh

## All tests; with COVER=yes also which lines they run, at a third more time. Many wait for processes and screens, so
## there is a worker more than there are cores.
test: $(INSTALLED)
	@$(BIN)/python -m pytest -n $$(( $$(nproc) + 1 )) --maxprocesses 5 --dist worksteal --durations=25 \
		$(if $(COVER),--cov --cov-report=term:skip-covered --cov-fail-under=90)

## The storms among the tests at full size: kills, closed terminals, races, fuzz. Says where they struck; takes long.
SOAK := TRAINCTL_KILLS=100 TRAINCTL_CLOSES=50 TRAINCTL_QUEUED=200 TRAINCTL_FUZZ=10000 TRAINCTL_DAMAGES=100 \
	TRAINCTL_FOLDERS=1000 TRAINCTL_STORM_SECONDS=60 TRAINCTL_RESIZES=18
STORMS := $(addprefix tests/test_,kills.py survive.py queue.py scheduler.py fuzz_recipes.py registry_damage.py \
	registry_hostile.py registry_storm.py tui_storm.py)
soak: $(INSTALLED)
	@$(SOAK) $(BIN)/python -m pytest -n $$(nproc) --dist worksteal --timeout=3600 -rP $(STORMS)

## Has the tool itself become slower? Ratios measured side by side, never seconds; no part of `test`.
guard: $(INSTALLED)
	@$(BIN)/python benchmarks/guard.py

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
