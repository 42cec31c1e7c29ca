# Everything a newcomer or CI runs. `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := nodes policies models envs launch bridge tests

.PHONY: demo test check lint types contracts slow bench race mutation coverage clean help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[train,dev]'
	@touch $@ $(VENV)/.base

build/types/safetypilot:
	@mkdir -p build/types && ln -sfn ../.. $@

demo: $(VENV)/.base  ## fly the shielded maze, hot-swap the policy half-way (no torch)
	$(BIN)/safetypilot launch maze-demo

test: $(VENV)/.dev  ## the default test suite
	$(BIN)/pytest -n auto --dist loadfile -m 'not slow and not integration'
	$(BIN)/pytest -m 'not slow and integration'  # real processes on real clocks: one after another

check: lint types contracts  ## lint, types, import contracts

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.dev build/types/safetypilot
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

slow: $(VENV)/.dev  ## learning runs, soaks and the kill matrix: an hour or so
	$(BIN)/pytest -m slow --timeout 5400

bench: $(VENV)/.dev  ## pytest-benchmark for the parts, the paced ring for the whole
	$(BIN)/pytest tests/benchmarks -m 'slow or not slow' --benchmark-enable --benchmark-only --benchmark-columns=min,median,max,rounds
	$(BIN)/safetypilot bench latency --load --realtime

race: $(VENV)/.dev  ## every algorithm on Navigation and Maze, five seeds each, both presets: hours
	$(BIN)/python -m tests.benchmarks.race --preset default --out runs/race-default
	$(BIN)/python -m tests.benchmarks.race --preset published --out runs/race-published
	$(BIN)/safetypilot table runs/race-default runs/race-published

mutation: $(VENV)/.dev  ## mutation score of the shield and of the limiter
	$(BIN)/python -m tests.mutation_run shield
	$(BIN)/python -m tests.mutation_run limiter

coverage: $(VENV)/.dev
	$(BIN)/pytest --cov --cov-report=term-missing

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
