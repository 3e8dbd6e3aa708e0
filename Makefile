# `make run` and `make test` need Python 3.10-3.13, git and make, and set up everything else in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help run test latex lint format tiny tiny-atp clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamp names what was installed; a change of pyproject.toml installs again, nothing else does.
$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found, 3.10 to 3.13 needed: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing atp-eval into $(VENV) (about 7 GB with PyTorch, 2 to 3 minutes) ..."
	@$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/pip install -q -e '.[dev]'
	@touch $@

run: $(VENV)/.run  ## install, run the embedded model over the mini-suite, write the comparison page
	$(BIN)/atp-eval run

# Two processes with a thread each: the tests are many and small.
test: $(VENV)/.dev  ## install, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

latex: $(VENV)/.dev  ## the tests that need pdflatex, which CI has
	$(BIN)/python -m pytest -m latex tests/analysis

lint: $(VENV)/.dev  ## ruff format and check, mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tiny: $(VENV)/.run  ## train the embedded model again from scratch (hours on 2 cores)
	$(BIN)/python -m atp_eval.tiny --work build/tiny

tiny-atp: $(VENV)/.run  ## train the embedded model's ATP adapters (5 to 10 minutes each on 2 cores)
	$(BIN)/python -m atp_eval.scenes.instructions --folder build/atp/data
	$(BIN)/atp-eval train configs/tiny/atp_144.yaml --resume
	$(BIN)/atp-eval train configs/tiny/atp_88.yaml --resume
	$(BIN)/atp-eval train configs/tiny/atp_144_trained.yaml --resume

clean:  ## remove the environment and caches
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
