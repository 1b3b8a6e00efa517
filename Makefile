# `make` says what there is. Everything runs in .venv, made on first use from constraints.txt; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find native src -name '*.?pp' -o -name '*.inc' -o -name '*.py') CMakeLists.txt pyproject.toml
REQUIRE_NATIVE := $(if $(shell command -v c++),--require-native)

.PHONY: help install compare test lint bench sanitize docs gpu clean loc
help:
	@echo "make install   the package with all that is needed, in $(VENV)"
	@echo "make compare   Adam or AdamW? where decay hardly matters and where it decides: two verdicts, report/index.html"
	@echo "make test      what CI runs: lint, types, tests"
	@echo "make lint      ruff, pyright, clang-format"
	@echo "make bench     speed and error beside other implementations; half an hour on a quiet machine, and 4 GB of them"
	@echo "make sanitize  the native kernel under address, undefined-behaviour and thread sanitizers"
	@echo "make docs      the documentation as a site, in site/"
	@echo "make gpu       the tests and benchmarks that need a GPU, in 9 minutes; figures in benchmarks/results/gpu.json, or in OUT"
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
	$(BIN)/adamas compare digits modular --budget quick --out report --resume

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run --Werror native/* tests/native/*.cpp tests/conformance/*.cpp

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(REQUIRE_NATIVE)
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

# On a bare checkout, by the system's Python, and done in 9 minutes. Only modules with such tests are collected, and no
# plugins: others may import what is not there.
gpu: export PYTHONPATH := src
gpu:
	@$(PYTHON) -m benchmarks.gpu --check
	@tests=0; rows=0; \
	grep -rlE --include='test_*.py' 'mark\.gpu|NEEDS_A_GPU|EVERYWHERE' tests | sort | \
		PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 timeout -s INT -k 10 230 xargs -P 4 -n 1 \
		$(PYTHON) -m pytest -q -m gpu -p no:cacheprovider --continue-on-collection-errors || tests=$$?; \
	if [ $$tests = 124 ]; then echo "make gpu: the tests were CUT SHORT after 230 s"; fi; \
	timeout -s INT -k 5 280 $(PYTHON) -m benchmarks.gpu --out $(or $(OUT),benchmarks/results)/gpu.json || rows=$$?; \
	if [ $$tests != 0 ]; then echo "make gpu: the tests FAILED, pytest's exit code is $$tests"; fi; \
	if [ $$rows != 0 ]; then echo "make gpu: the benchmarks FAILED, exit code $$rows"; fi; \
	[ $$tests = 0 ] && [ $$rows = 0 ]

loc:
	@cd src/adamas && echo "core Python $$(cat reference.py scalars.py options.py decay.py formats/*.py state/*.py kernels/*.py kernels/gpu/*.py torch/*.py | wc -l) of 7400"
	@echo "native C++  $$(cat native/* | wc -l) of 2300"

clean:
	rm -rf $(VENV) build dist report site .pytest_cache .ruff_cache .hypothesis
