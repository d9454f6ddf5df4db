# Each target does its own set-up: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
OUT ?= runs/demo-seed$(SEED)
JOBS ?= 1
BIN := $(VENV)/bin
# One thread a process: on a contended machine two cost more than they bring.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test lint setup bench clean study-sokoban study-webshop study-alfworld

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repro-rl needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## train a tiny agent from nothing with RePro and write a report (SEED=0)
	$(BIN)/repro-rl demo --out $(OUT) seed=$(SEED)

test: setup  ## the whole test suite
	$(BIN)/python -m pytest -n 2

study-sokoban study-webshop study-alfworld: study-%: setup  ## all methods, five seeds (JOBS=1 SEEDS=0,1,2 STUDY=folder)
	$(BIN)/repro-rl compare $* --out $(or $(STUDY),runs/study-$*) --jobs $(JOBS) $(if $(SEEDS),--seeds $(SEEDS))

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/sokoban.py
	$(BIN)/python benchmarks/webshop.py

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
