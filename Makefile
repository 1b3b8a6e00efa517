# `make` says what there is. Everything runs in .venv, made on first use from constraints.txt; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find native src -name '*.?pp' -o -name '*.inc' -o -name '*.py') CMakeLists.txt pyproject.toml
REQUIRE_NATIVE := $(if $(shell command -v c++),--require-native)

.PHONY: help install compare test lint bench sanitize docs gpu clean loc
help:
	@echo "make install   the package with all that is needed, in $(VENV)"
	@echo "make compare   Adam or AdamW? on real digits: a verdict, and report/index.html"
	@echo "make test      what CI runs: lint, types, tests"
	@echo "make lint      ruff, pyright, clang-format"
	@echo "make bench     speed and error beside other implementations; half an hour on a quiet machine, and 4 GB of them"
	@echo "make sanitize  the native kernel under address, undefined-behaviour and thread sanitizers"
	@echo "make docs      the documentation as a site, in site/"
	@echo "make gpu       the tests and benchmarks that need a GPU"
	@echo "make loc       lines of code against their budgets"
	@echo "make clean     remove what was built"

$(VENV)/installed: $(SOURCES) constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt 'torch==2.13.0'
	$(BIN)/python -m pip install -q -c constraints.txt '.[dev]'
	@touch $@

install: $(VENV)/installed

compare: install
	$(BIN)/adamas compare digits --out report --resume

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run --Werror native/* tests/native/*.cpp tests/conformance/*.cpp

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(REQUIRE_NATIVE)
	$(BIN)/python -m pytest -q --doctest-modules --pyargs adamas
	$(BIN)/python -m pytest -q --doctest-glob='*.md' README.md docs

bench: install
	$(BIN)/python -m pip install -q -c constraints.txt '.[bench]'
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.run --lean
	$(BIN)/python -m benchmarks.render

sanitize: install
	$(BIN)/python -m pip install -q -c constraints.txt nanobind cmake
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/native/sanitize.sh

docs: install
	$(BIN)/python -m pip install -q -c constraints.txt '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

gpu:
	PYTHONPATH=src $(PYTHON) -m pytest -q -m gpu -p no:cacheprovider tests

loc:
	@cd src/adamas && echo "core Python $$(cat reference.py scalars.py decay.py formats/*.py kernels/*.py torch/*.py | wc -l) of 6000"
	@echo "native C++  $$(cat native/* | wc -l) of 2000"

clean:
	rm -rf $(VENV) build dist report site .pytest_cache .ruff_cache .hypothesis
