# Two commands: `make run` and `make test`. Both set up .venv first; nothing but Python 3.11+ and the package index is needed.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHED := $(VENV)/.bench
ARGS ?=

# One thread a process: stages and tests run side by side, and two pools of threads on two cores are ten times slower.
export OMP_NUM_THREADS ?= 1

.PHONY: setup run serve stop test test-slow check bench ui clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV) (2 to 5 minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
		--constraint requirements.lock --editable '.[dev]'
	@touch $@

# Two shards: annotation and the last evaluation, which the rest waits for, use both of two cores.
run: $(STAMP)  ## The main job; ARGS="--seeds 3" and the like are passed on
	@RA3_SHARDS=$${RA3_SHARDS:-2} $(BIN)/ra3 run --preset demo $(ARGS)

serve: $(STAMP)  ## Prefect, MLflow and a worker in the background, with the flows deployed
	@$(BIN)/ra3 serve $(ARGS)

stop: $(STAMP)
	@$(BIN)/ra3 stop

test: $(STAMP)
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## The tests that take minutes
	@$(BIN)/pytest -m slow $(ARGS)

check: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright

$(BENCHED): $(STAMP)
	@echo "Installing what bench/ compares with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
		--constraint requirements.lock --editable '.[bench]'
	@touch $@

bench: $(BENCHED)  ## Speed against peers and the baseline, into bench/RESULTS.md; ARGS="--accept" makes a new baseline
	@$(BIN)/python bench/run.py $(ARGS)

ui: $(STAMP)  ## MLflow and Prefect on this machine
	@$(BIN)/ra3 ui

clean:  ## Everything that is made here, the runs included; data/ and .venv stay
	rm -rf artifacts pipeline reports .cache mlflow/mlflow.db* mlflow/artifacts .pytest_cache .ruff_cache .hypothesis
