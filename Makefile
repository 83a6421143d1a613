# `make demo` and `make test` do everything themselves: they create .venv and install what is missing.
# The first run downloads packages; later runs start at once.

VENV := .venv
RUN := $(VENV)/bin/python

# The MLX backend: Metal comes with mlx on a Mac; on Linux an NVIDIA GPU or the CPU.
BACKEND ?= $(shell if [ "$$(uname -s)" = Darwin ]; then echo metal; \
	elif command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then echo cuda; \
	else echo cpu; fi)
EXTRAS := $(filter-out metal,$(BACKEND))
comma := ,

# Stamps carry a checksum of pyproject.toml and the backend: a change of either installs again.
KEY := $(BACKEND)-$(firstword $(shell cksum pyproject.toml))
RUNTIME := $(VENV)/.runtime-$(KEY)
DEV := $(VENV)/.dev-$(KEY)
PARITY := $(VENV)/.parity-$(KEY)
# Many tests start Python: where this is set, each of them would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=
# Tests run in this many processes, each with a thread of its own for products.
WORKERS ?= 2
PYTEST := VLMKIT_THREADS=1 $(RUN) -m pytest -q -n $(WORKERS) --dist worksteal -p no:benchmark
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-all parity bench lint types clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME)  ## A trained vision-language model answers questions about images (no download)
	@$(RUN) -m experiments.demo

test: $(DEV)  ## All tests that need neither torch nor mlx-vlm
	@$(PYTEST)

test-quick: $(DEV)  ## What one runs on every save: without what takes half a second
	@$(PYTEST) --hypothesis-profile=quick \
	  -m "not whole and not torch and not mlx_vlm and not llama_cpp and not slow"

test-all: $(PARITY)  ## Everything, also the comparison with transformers and mlx-vlm
	@$(RUN) -m pytest -q -m ""

bench: $(DEV)  ## Targets and growth curves, to benchmarks/results (ARGS=benchmarks/bench_x.py: one alone)
ifdef ARGS
	@$(RUN) -m pytest -q --benchmark-only --benchmark-group-by=group $(ARGS)
else
	@$(RUN) -m benchmarks.reach --save
	@$(RUN) -m benchmarks.curves --save
	@$(RUN) -m vlmkit bench kv contexts=[1024] batches=[1] repetitions=5 --format md
endif

lint: $(DEV)  ## Style: ruff
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

types: $(DEV)  ## Types: mypy --strict
	@$(RUN) -m mypy

parity: $(PARITY)  ## Install the reference implementations (torch, mlx-vlm)

clean:  ## Remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build *.egg-info

# The first interpreter that is new enough and can make a virtual environment.
$(RUN):
	@for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	  if $$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "vlmkit needs Python 3.11 or newer with venv (on Debian: apt install python3-venv);" \
	    "name one with: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "creating $(VENV) with $$($$found --version)"; $$found -m venv $(VENV)

$(RUNTIME): | $(RUN)
	@echo "installing vlmkit, backend: $(BACKEND)"
	@$(PIP) -e "$(if $(EXTRAS),.[$(EXTRAS)],.)"
	@touch $@

$(DEV): | $(RUN)
	@echo "installing vlmkit for development, backend: $(BACKEND)"
	@$(PIP) -e ".[$(if $(EXTRAS),$(EXTRAS)$(comma))dev]"
	@touch $(RUNTIME) $@

# torch by itself first: what comes later then keeps this build instead of choosing one.
$(PARITY): $(DEV)
	@echo "installing torch and mlx-vlm"
	@$(PIP) "torch==2.13.0"
	@$(PIP) -e ".[$(if $(EXTRAS),$(EXTRAS)$(comma))dev,parity]"
	@touch $@
