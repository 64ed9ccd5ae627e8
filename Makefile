# `make serve` and `make test` do all the set-up on a fresh machine, each in one command.
PYTHON ?= python3
PORT ?= 8000
CONFIG ?= config/serve.yaml
# Where pip looks for torch besides PyPI; a machine without a GPU may name a CPU index here.
TORCH_INDEX ?=
MODEL ?= mochi
# A file each at a time, those that start clusters first: much of the tests is waiting.
BY_FILE := --dist loadfile --no-loadscope-reorder

BIN := .venv/bin
STAMP := .venv/.installed
# Compares the page's JavaScript with the types in its comments; comes by npm.
TSC := .ci-venvs/typescript-7.0.2/node_modules/.bin/tsc
CLIENTS := .ci-venvs/openai-2.54.0/.installed .ci-venvs/openai-3.54.0/.installed
PIP_EXTRA := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

help:
	@echo "make serve         start the service (PORT=8000, CONFIG=config/serve.yaml)"
	@echo "make test          lint, types and the default tests"
	@echo "make test-system   tests that need chromium, node or the openai client, or take long"
	@echo "make test-gpu      tests that need a CUDA GPU"
	@echo "make check         ruff and mypy; after the first 'make types' the page's types too"
	@echo "make types         the types of the page's JavaScript (needs npm)"
	@echo "make bench         the benchmarks, each prints a table"
	@echo "make soak          kill matrix, bursts and long runs"
	@echo "make weights       download published weights (MODEL=mochi|opensora, ACCEPT_LICENCE=1)"
	@echo "make constraints   write constraints.txt anew from the venv"

# The stamp is a file, not the folder: a failed `python3 -m venv` leaves a half-made folder behind.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "venv is missing: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install -q --disable-pip-version-check $(PIP_EXTRA) -c constraints.txt -e '.[dev]'
	@touch $@

serve: $(STAMP)
	@exec $(BIN)/python -m deployments.launch --config $(CONFIG) --port $(PORT)

test: check
	$(BIN)/python -m pytest -q -n 3 $(BY_FILE)

test-system: $(STAMP) $(CLIENTS) types
	$(BIN)/python -m pytest -q -n 2 $(BY_FILE) -m system

# The official clients, each version in a virtual environment of its own.
.ci-venvs/openai-%/.installed:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check openai==$*
	@touch $@

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

soak: $(STAMP)
	$(BIN)/python -m pytest -q -m soak

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if [ -x $(TSC) ]; then $(TSC) -p static/jsconfig.json; \
	else echo "not checked: the types of the page (make types, which needs npm)"; fi

types: $(TSC)
	$(TSC) -p static/jsconfig.json

.ci-venvs/typescript-%/node_modules/.bin/tsc:
	npm install --silent --no-audit --no-fund --prefix .ci-venvs/typescript-$* typescript@$*

bench: $(STAMP)
	@for program in decode_memory encode startup latency overhead; do $(BIN)/python -m benchmarks.$$program || exit 1; done

weights: $(STAMP)
	$(BIN)/python -m deployments.weights $(MODEL) $(if $(ACCEPT_LICENCE),--accept-licence)

constraints:
	$(BIN)/pip freeze --exclude-editable | sed -E '/^#/d; s/^(torch==[^+]+)\+.*/\1/' > constraints.txt

.PHONY: help serve test test-system test-gpu soak check types bench weights constraints
