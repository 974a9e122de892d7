# Two commands for a fresh machine: `make search` and `make test`. Each makes what it needs; `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin
TARGET ?= 15
RUN_DIR ?= runs/search-$(shell date +%Y%m%d-%H%M%S)
PYTEST_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PYTHON
# Tests start many processes, each of which would otherwise compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help search test slow gpu lint format wheel clean
.DELETE_ON_ERROR:

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

search: run_dir := $(RUN_DIR)
search: $(VENV)/.installed ## search on the embedded digits and print the result (TARGET=15 milliseconds, RUN_DIR=...)
	$(BIN)/python train_search.py --target_lat $(TARGET) --run_dir $(run_dir)
	$(BIN)/python parsing_model.py --model_path $(run_dir)

test: lint ## ruff, mypy and the default tests (PYTEST_ARGS=...)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope $(PYTEST_ARGS)

slow: $(VENV)/.installed-dev ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu" $(PYTEST_ARGS)

gpu: $(VENV)/.installed-dev ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## ruff, formatting and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed-dev ## build the source archive and the wheel into dist/
	$(BIN)/python -m build

clean: ## remove the environment, caches and builds; runs/ stays
	rm -rf $(VENV) build dist *.egg-info tfnas/supernet/cpu/_kernels*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis

# pip is the last thing that a finished environment gets
$(BIN)/pip:
	@scripts/make_venv.sh $(VENV)

$(VENV)/.installed: setup.cfg setup.py pyproject.toml $(wildcard tfnas/supernet/cpu/_kernels*.[ch]) | $(BIN)/pip
	@echo "Installing the packages (about 6 GB on disk with torch; a few minutes the first time)"
	$(BIN)/python -m pip install "pip>=22.3"
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $@
