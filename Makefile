# Each target does its own set-up: `make demo` and `make test` work in a fresh clone.
# `make` alone lists the targets; the text behind ## is what the list says of one.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
OUT ?= runs/demo-$(if $(filter-out sokoban-tiny,$(RECIPE)),$(RECIPE)-)seed$(SEED)
JOBS ?= 1
RECIPE ?= sokoban-tiny
# Where torch is installed from, such as https://download.pytorch.org/whl/cpu; empty: where everything is.
TORCH_INDEX ?=
BIN := $(VENV)/bin
VERL_VENV ?= .venv-verl
VERL_BIN := $(VERL_VENV)/bin
VERL_OUT ?= runs/verl-smoke
TRACKERS_VENV ?= .venv-trackers
TRACKERS_BIN := $(TRACKERS_VENV)/bin
TRL_VENV ?= .venv-trl
TRL_BIN := $(TRL_VENV)/bin
ADAPTERS_VENV ?= .venv-adapters
ADAPTERS_BIN := $(ADAPTERS_VENV)/bin
VLLM_VENV ?= .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
OPENENV_VENV ?= .venv-openenv
VERIFIERS_VENV ?= .venv-verifiers
DOCS_VENV ?= .venv-docs
# One thread a process: on a contended machine two cost more than they bring.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test lint setup docs bench bench-speed bench-trl clean verl-setup verl-smoke vllm-setup vllm-check
.PHONY: openenv-setup openenv-check verifiers-setup verifiers-check adapters-setup adapters-check
.PHONY: trackers-setup trackers-check
.PHONY: study-sokoban study-sokoban-rare study-webshop study-alfworld

help:  ## this list
	@awk '/^[a-z].*:.*  ## / { names = $$0; sub(/:.*/, "", names); sub(/.*  ## /, ""); print names "\n    " $$0 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## the package in .venv, for development (downloads torch; PYTHON=python3)
ifneq ($(origin PYTHON),file)
	@$(PYTHON) -c 'import sys; own = sys.version_info[:2]; has = tuple(map(int, sys.argv[2].split("."))); \
		own == has or sys.exit("%s has Python %d.%d, PYTHON=$(PYTHON) is %d.%d; delete %s or give VENV=FOLDER" % \
		(sys.argv[1], *has, *own, sys.argv[1]))' \
		$(VENV) $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repro-rl needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## train a tiny agent from nothing with RePro, and with GiGPO, on one page (SEED=0 RECIPE=sokoban-tiny)
	$(BIN)/repro-rl demo --with gigpo -c $(RECIPE) --out $(OUT) seed=$(SEED)

test: setup  ## the whole test suite
	$(BIN)/python -m pytest -n 2

study-sokoban study-sokoban-rare study-webshop study-alfworld: study-%: setup  ## all methods, all seeds of the study (JOBS=1 SEEDS=0,1,2 STUDY=folder)
	$(BIN)/repro-rl compare $* --out $(or $(STUDY),runs/study-$*) --jobs $(JOBS) $(if $(SEEDS),--seeds $(SEEDS))

lint: setup  ## ruff, mypy and the layers of imports
	$(BIN)/ruff check src tests benchmarks examples docs/data
	$(BIN)/ruff format --check src tests benchmarks examples docs/data
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

verl-setup: $(VERL_VENV)/.ready  ## an environment of its own for verl: its pins are not ours (docs/verl.md)

$(VERL_VENV)/.ready: pyproject.toml constraints-verl.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repro-rl needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VERL_VENV)
	$(VERL_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-verl.txt torch
	$(VERL_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-verl.txt \
		'ray[default]' transformers tensordict TransferQueue numpy accelerate codetiming datasets dill hydra-core pandas \
		peft pyarrow pybind11 pylatexenc torchdata tensorboard fastapi uvicorn cachetools packaging
	$(VERL_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-verl.txt --no-deps verl
	$(VERL_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-verl.txt -e '.[train]' pytest hypothesis
	@touch $@

verl-smoke: verl-setup  ## verl's real trainer on CPU: RePro, then GiGPO, and a check of all they should have written
	$(VERL_BIN)/python -m pytest tests/integrations/verl/test_installed.py
	PYTHONPATH=tests $(VERL_BIN)/python -m support.verl_smoke --out $(VERL_OUT)

vllm-setup: $(VLLM_VENV)/.ready  ## an environment of its own for vLLM on CPU: it pins torch and transformers (docs/vllm.md)

$(VLLM_VENV)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repro-rl needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-vllm.txt
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

vllm-check: vllm-setup  ## vLLM on CPU: an engine in the trainer's process and a real server
	$(VLLM_BIN)/python -m pytest tests/policy/vllm tests/train/test_vllm_runs.py

docs: $(DOCS_VENV)/.ready  ## the site, strictly, without torch; to read it: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build

$(DOCS_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

openenv-setup: $(OPENENV_VENV)/.ready  ## an environment of its own for OpenEnv
verifiers-setup: $(VERIFIERS_VENV)/.ready  ## an environment of its own for verifiers

$(OPENENV_VENV)/.ready: EXTRA := openenv
$(VERIFIERS_VENV)/.ready: EXTRA := verifiers
$(OPENENV_VENV)/.ready $(VERIFIERS_VENV)/.ready: %/.ready: pyproject.toml
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRA)]' pytest hypothesis
	@touch $@

openenv-check: openenv-setup  ## OpenEnv's client, validator and Task API on our servers (docs/adapters.md)
	$(OPENENV_VENV)/bin/python -m pytest tests/integrations/openenv
	$(OPENENV_VENV)/bin/python examples/openenv_client.py

verifiers-check: verifiers-setup  ## vf-eval and vf-validate on our tasksets (docs/adapters.md)
	$(VERIFIERS_VENV)/bin/python -m pytest tests/integrations/verifiers

adapters-setup: $(ADAPTERS_VENV)/.ready $(TRL_VENV)/.ready openenv-setup verifiers-setup  ## environments of their own for the adapters (docs/adapters.md)

adapters-check: adapters-setup openenv-check verifiers-check  ## every adapter against the real package, and its example
	$(ADAPTERS_BIN)/python -m pytest --noconftest tests/integrations/test_session.py tests/integrations/test_gymnasium.py \
		tests/integrations/test_skyrl.py
	$(ADAPTERS_BIN)/python examples/gymnasium_vector.py
	$(ADAPTERS_BIN)/python examples/skyrl_webshop.py
	$(TRL_BIN)/python -m pytest tests/integrations/trl

# gymnasium and SkyRL-Gym, without torch
$(ADAPTERS_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repro-rl needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(ADAPTERS_VENV)
	$(ADAPTERS_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[skyrl]' pytest hypothesis
	@touch $@

trackers-setup: $(TRACKERS_VENV)/.ready  ## an environment of its own with all experiment trackers (docs/trackers.md)

$(TRACKERS_VENV)/.ready: pyproject.toml constraints.txt constraints-trackers.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repro-rl needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(TRACKERS_VENV)
	$(TRACKERS_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(TRACKERS_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-c constraints-trackers.txt -e '.[trackers]' pytest hypothesis
	@touch $@

trackers-check: trackers-setup  ## TensorBoard, W&B offline, MLflow and Trackio: a killed run that goes on is one run there
	$(TRACKERS_BIN)/python -m pytest tests/run/trackers

bench: setup  ## the speed of the environments
	$(BIN)/python benchmarks/sokoban.py
	$(BIN)/python benchmarks/webshop.py

bench-speed: setup  ## generation, update and reflection; BENCH='--recipe alfworld-tiny --init FOLDER'
	$(BIN)/python benchmarks/generation.py $(BENCH)
	$(BIN)/python benchmarks/update.py $(BENCH)
	$(BIN)/python benchmarks/reflection_overhead.py $(BENCH)

bench-trl: $(TRL_VENV)/.ready  ## an iteration beside TRL's, in an environment of its own
	$(TRL_BIN)/python benchmarks/rl_iteration.py $(BENCH)

$(TRL_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "repro-rl needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(TRL_VENV)
	$(TRL_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(TRL_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench,trl]' pytest hypothesis
	@touch $@

clean:  ## remove the environments, the runs and the caches
	rm -rf $(VENV) $(VERL_VENV) $(VLLM_VENV) $(TRL_VENV) $(ADAPTERS_VENV) $(OPENENV_VENV) $(VERIFIERS_VENV)
	rm -rf $(TRACKERS_VENV) $(DOCS_VENV) site runs .pytest_cache .mypy_cache .ruff_cache
