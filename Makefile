# make demo: the main job on MovieLens-100K.  make test: lint, types and all tests.
# Each makes the environment first. PYTHON chooses the interpreter, VENV the folder of the environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A CPU build of torch suffices; an environment variable such as PIP_EXTRA_INDEX_URL chooses another.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint types format env clean

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dealrec needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing packages into $(VENV) (a few minutes, once) ..."
	$(PIP) --constraint constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: env
	$(BIN)/dealrec demo --run-dir runs/demo

test: lint types
	$(BIN)/python -m pytest

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs build dist
