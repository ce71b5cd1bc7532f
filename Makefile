# Every target does its own set-up: python3 (3.11 or newer) and make are all it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# PyTorch is needed for language models, and by the tests. Where the default index offers just the large CUDA build,
# name PyTorch's CPU index instead: make test TORCH_INDEX=URL (or set PIP_INDEX_URL for everything).
TORCH       := torch==2.13.0
TORCH_INDEX ?=
WORKERS     ?= 2
# What the tests use besides the development tools. gymnax 1.0.1 declares gymnasium<1.4, but works with 1.4.
EXTRAS      := dev,docs,envs,envpool,jaxenvs,language
GYMNAX      := gymnax==1.0.1

export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo rlhf test lint types docs unit slow learning verify benchmarks clean

help:  ## this list
	@awk -F ':.*##' '/^[a-z]+:.*##/ { printf "make %-11s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.core  ## train PPO on CartPole-v1 until it is solved, with a picture and a GIF
	$(BIN)/vantage demo

rlhf: $(VENV)/.trl  ## RLHF from nothing: a model, a reward model and PPO, with before, after and curves
	$(BIN)/python examples/rlhf.py

test: lint types docs unit  ## every check: lint, types, documentation, tests

lint: $(VENV)/.dev  ## ruff: lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev  ## pyright
	$(BIN)/pyright

docs: $(VENV)/.dev  ## the documentation site, built strictly into site/
	$(BIN)/mkdocs build --strict

unit: $(VENV)/.dev  ## the tests that take minutes in all
	$(BIN)/python -m pytest -n $(WORKERS)

slow: $(VENV)/.dev  ## the tests that take longer
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

learning: $(VENV)/.dev  ## agents trained over several seeds
	$(BIN)/python -m pytest -m learning

verify: $(VENV)/.core  ## every formula against exact values
	$(BIN)/vantage verify

benchmarks: $(VENV)/.core  ## what each benchmark measures, and its command
	@for script in $(wildcard benchmarks/[a-z]*.py); do \
		printf '%-44s' "$(BIN)/python -m benchmarks.$$(basename $$script .py)"; \
		$(BIN)/python -c "import ast, sys; print((ast.get_docstring(ast.parse(open(sys.argv[1]).read())) or '').split(chr(10))[0])" $$script; \
	done

clean:  ## remove what was built, and the environment
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Vantage needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps lie inside the environment, so removing it removes them; a change of pyproject.toml installs again.
$(VENV)/.core: pyproject.toml | $(BIN)/python
	@echo "installing vantage into $(VENV) (about a minute)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.trl: pyproject.toml | $(BIN)/python
	@echo "installing vantage with PyTorch, Transformers and TRL into $(VENV) (a few minutes)"
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) --editable '.[trl]'
	@touch $@ $(VENV)/.core

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing vantage and its development tools into $(VENV) (a few minutes)"
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) --editable '.[$(EXTRAS)]'
	$(PIP) --no-deps $(GYMNAX)
	@touch $@ $(VENV)/.core
