# make demo: what selected samples are worth, on MovieLens-100K; then one run with an LLM.
# make test: lint, types and all tests.  make quick: without the slow tests.
# make test-exports: with the stacks.
# make test-versions: quick tests with each Python that there is.  make test-latest: what works with models, with the newest
# releases of transformers and of what goes with it.  make package: what is published, and the demo with it;
# DEMO_ARGS='--set select.budget=8 ...' makes it a smaller one.  make docs: the documentation, into site/, with its references
# written anew; make docs-serve: shown while it is edited.
# make gpu: on a machine with a CUDA GPU, whether it computes what a CPU does, and how fast; MODEL an LLM's folder, OUT the JSON.
# make families: the table of docs/families.md, written anew by the tests that it is of.
# Each makes the environment first. PYTHON chooses the interpreter, VENV the folder of the environment.
PYTHON ?= python3
VENV ?= .venv
OUT ?= gpu.json
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A CPU build of torch suffices; an environment variable such as PIP_EXTRA_INDEX_URL chooses another.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Tests are compiled once and kept, or each process that runs them would rewrite all their asserts.
unexport PYTHONDONTWRITEBYTECODE
# Several processes run the tests, each of a contiguous part of them, so that most fixtures are made once.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

# The fine-tuning stacks that test-exports reads exports with, each in an environment of its own: their versions exclude
# one another, and ours. LLaMA-Factory imports torchaudio, which has to be of torch's release.
STACKS ?= .venv-stacks
STACK_PACKAGES_trl := 'trl[peft]==1.16.0' torch==2.13.0
STACK_PACKAGES_llamafactory := llamafactory==0.9.5 torch==2.11.0 torchaudio==2.11.0 torchvision==0.26.0
STACK_PACKAGES_axolotl := axolotl==0.19.0 torch==2.13.0

# The interpreters that test-versions tries where they are there, the environments VERSIONS-3.x that it makes for them,
# and what it runs in each.
VERSIONS ?= .venv
PYTHONS ?= python3.11 python3.12 python3.13
VERSION_TESTS ?= tests/cli/test_commands.py tests/api tests/test_packaging.py tests/data tests/selection tests/exporting/test_exports.py

# The environment and the packages of test-latest, taken as new as the index has them, and what it runs.
LATEST ?= .venv-latest
LATEST_PACKAGES ?= transformers peft accelerate tokenizers safetensors sentence-transformers
LATEST_TESTS ?= tests/families tests/recommenders tests/finetuning tests/effort tests/stages/test_recommenders.py tests/exporting/test_exports.py

.PHONY: demo test quick test-exports test-versions test-latest package docs docs-serve reference families gpu lint types format env clean

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
	$(BIN)/dealrec demo --llm --run-dir runs/demo-llm

test: lint types
	$(PYTEST)

quick: lint types
	$(PYTEST) -m "not slow and not stacks" --durations 5 --durations-min 2

test-exports: env $(addprefix $(STACKS)/,$(addsuffix /.installed,trl llamafactory axolotl))
	$(PIP) --constraint constraints.txt --editable '.[export]'
	DEALREC_STACKS=$(abspath $(STACKS)) $(BIN)/python -m pytest tests/exporting

$(STACKS)/%/.installed:
	$(PYTHON) -m venv $(@D)
	@echo "installing $* into $(@D) (a few minutes and gigabytes, once) ..."
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(STACK_PACKAGES_$*)
	touch $@

test-versions:
	@for python in $(PYTHONS); do \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
	    || { echo "there is no $$python: left out"; continue; }; \
	  echo "Python $$version:"; \
	  $(MAKE) --no-print-directory env PYTHON=$$python VENV=$(VERSIONS)-$$version \
	    && $(VERSIONS)-$$version/bin/python -m pytest $(VERSION_TESTS) || exit 1; \
	done

test-latest:
	$(MAKE) --no-print-directory env VENV=$(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $(LATEST_PACKAGES) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(LATEST)/bin/python -m pip list 2>/dev/null | grep -E "^($$(echo $(LATEST_PACKAGES) torch | tr ' ' '|')) "
	$(LATEST)/bin/python -m pytest --numprocesses logical --maxprocesses 4 $(LATEST_TESTS)

package:
	PYTHON="$(PYTHON)" DEMO_ARGS="$(DEMO_ARGS)" .ci/package

gpu: env
	$(BIN)/python -m benchmarks.gpu --out $(OUT) $(if $(MODEL),--model $(MODEL))

families: env
	DEALREC_WRITE_FAMILIES=1 $(BIN)/python -m pytest tests/families

reference: env
	$(BIN)/python docs/generate.py

docs: reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "open site/index.html"

docs-serve: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --open

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VERSIONS)-3.* $(LATEST) $(STACKS) runs build dist site
