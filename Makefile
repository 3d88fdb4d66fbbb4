# Every target makes its own environment first: .venv, pinned by requirements/constraints.txt.
# PYTHON names the interpreter for it (3.11 or newer), LMWP_OPS_BUILD what is compiled.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
DATA ?=
VERSIONS ?=
BUDGET ?= 600

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := requirements/constraints.txt
NATIVE := $(shell find csrc -type f) $(wildcard build_tools/*.py)
CXX_SOURCES = $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
PACKAGES := lmwp_ops build_tools $(if $(wildcard models),lmwp_models) $(if $(wildcard bench),lmwp_bench)

# The environment serves this machine alone: where it has no GPU, two targets show that all compiles.
ifeq ($(TORCH_CUDA_ARCH_LIST)$(wildcard /dev/nvidia[0-9] /dev/dxg),)
export TORCH_CUDA_ARCH_LIST := 7.5;9.0
endif

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.built ## make the environment and compile the libraries

$(VENV)/.installed: pyproject.toml setup.py $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c $(CONSTRAINTS) torch setuptools wheel ninja pybind11
	$(PIP) install -q -c $(CONSTRAINTS) --no-build-isolation -e '.[train,bench,dev]'
	touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

test: setup ## run the whole test suite
	$(BIN)/python -m pytest -q -n $(WORKERS)

test-slow: setup ## run what `test` leaves out: other architectures and vectors, more planted faults, long trainings
	$(BIN)/python -m pytest -q -n $(WORKERS) -m slow

lint: setup types ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

# The packages by their import names, for tools that read the tree and not what is installed.
links:
	mkdir -p build/links
	ln -sfn ../../models build/links/lmwp_models
	ln -sfn ../../bench build/links/lmwp_bench

types: setup links ## check types only
	MYPYPATH=build/links $(BIN)/mypy $(addprefix -p ,$(PACKAGES))

demo: setup ## train, evaluate and report on the synthetic set, or on DATA=folder
	$(BIN)/lmwp demo $(if $(DATA),--data "$(DATA)")

bench: setup ## run the regression gate: no benchmark may have become slower on this machine
	$(BIN)/python -m lmwp_bench.gate

gpu-check: links ## build for the GPU at hand, test and time on it within BUDGET seconds; offline too
	PYTHONPATH="$(CURDIR):$(CURDIR)/build/links" \
	  $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m lmwp_bench.gpu_check --budget $(BUDGET)

abi-check: setup ## one wheel under torch 2.11 and a newer one, or under VERSIONS (downloads)
	$(BIN)/python tests/build/abi_check.py $(VERSIONS)

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f lmwp_ops/*.so lmwp_ops/_build_info.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help links setup test test-slow lint types demo bench gpu-check abi-check clean
