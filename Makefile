# `make` says what there is. Everything runs in .venv, made on first use from constraints.txt; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find native src -name '*.?pp' -o -name '*.inc' -o -name '*.py') CMakeLists.txt pyproject.toml
OTHER := array_state.py|kernels/(functional|arrays|xla|tensorflow).py
REQUIRE_NATIVE := $(if $(shell command -v c++),--require-native)

.PHONY: help install compare test lint bench sanitize docs gpu clean loc
help:
	@echo "make install   the package with all that is needed, in $(VENV)"
	@echo "make compare   Adam or AdamW? where decay hardly matters and where it decides: two verdicts, report/index.html"
	@echo "make test      what CI runs: lint, types, tests"
	@echo "make lint      ruff, pyright, clang-format"
	@echo "make bench     speed and error beside other implementations; takes half an hour on a quiet machine and 4 GB of packages"
	@echo "make sanitize  the native kernel under address, undefined-behaviour and thread sanitizers"
	@echo "make docs      the documentation as a site, in site/"
	@echo "make gpu       the tests and benchmarks that need a GPU, in 9 minutes; figures in benchmarks/results/gpu.json, or in OUT"
	@echo "make loc       lines of code against their budgets"
	@echo "make clean     remove what was built"

$(VENV)/installed: $(SOURCES) constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt 'torch==2.13.0'
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt '.[dev]'
# On all cores: 143 s of processor time in 76 s on two, where pip compiles one file after another. Some files of packages are
# not for this version of Python.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
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
	$(BIN)/python -m pytest -q --doctest-modules --doctest-ignore-import-errors --pyargs adamas
# The code of Chinese pages is that of the English ones, byte for byte (tests/test_translations.py): it runs once.
	$(BIN)/python -m pytest -q --doctest-glob='*.md' --ignore=docs/zh README.md docs

bench: install
	$(BIN)/python -m pip install -q -c constraints.txt '.[bench]'
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.run --lean
	$(BIN)/python -m benchmarks.run --fronts
	$(BIN)/python -m benchmarks.render

sanitize: install
	$(BIN)/python -m pip install -q -c constraints.txt nanobind cmake
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/native/sanitize.sh

docs: install
	$(BIN)/python -m pip install -q -c constraints.txt '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

# This runs on a bare checkout, by the system's Python, and is done in 9 minutes: see benchmarks/gpu/suite.py.
gpu:
	@PYTHONPATH=src $(PYTHON) -m benchmarks.gpu.suite --out $(or $(OUT),benchmarks/results)/gpu.json

loc:
	@cd src/adamas && echo "core Python $$(ls reference.py scalars.py options.py decay.py formats/*.py state/*.py kernels/*.py kernels/gpu/*.py torch/*.py torch/trainers/*.py | grep -vE '$(OTHER)' | xargs cat | wc -l) of 7610"
	@cd src/adamas && echo "frameworks  $$(ls numpy.py jax/*.py keras/*.py checkpoint/*.py formats/*.py kernels/*.py 2>/dev/null | grep -E '^(numpy|jax|keras|checkpoint)|$(OTHER)' | xargs cat | wc -l) of 4700"
	@echo "compare     $$(find src/adamas/compare -name '*.py' | xargs cat | wc -l) of 10050"
	@echo "page        $$(cat src/adamas/language.py src/adamas/page/*.py | wc -l) of 600"
	@echo "native C++  $$(cat native/* | wc -l) of 2880"
	@echo "bench       $$(find src/adamas/bench benchmarks -name '*.py' | xargs cat | wc -l) of 5020"

clean:
	rm -rf $(VENV) build dist report site .pytest_cache .ruff_cache .hypothesis
