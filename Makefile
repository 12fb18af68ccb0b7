# Strata's everyday commands; `make` alone lists them.
#
# `make demo` and `make test` need Python 3.11 to 3.13 (with venv and pip) and nothing else: the
# first call fills .venv with the versions of envs/requirements.lock, later calls find it ready.
#
# Variables, as in `make test CORES=8`:
#   CORES        how many processes work at the same time
#   PYTHON       the Python that .venv is made of (default: the first suitable one on the PATH)
#   PYTHON_ENV   the folder of an environment of your own (conda, a CUDA build of torch, ...) to use
#                as it is; it needs `pip install --editable '.[dev]'` once
#   PYTEST_ARGS  further arguments to pytest: make test PYTEST_ARGS="-k ising"

CORES ?= 2
PYTHON_ENV ?=
PYTEST_ARGS ?=

SUITABLE := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c '$(SUITABLE)' 2>/dev/null && echo $$python && break; done)

BIN := $(if $(PYTHON_ENV),$(PYTHON_ENV),$(CURDIR)/.venv)/bin
READY := $(if $(PYTHON_ENV),,.venv/.ready)
# Not only the commands named here, but also the `python` that they start, is the environment's.
RUN := env PATH="$(BIN):$$PATH"

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-system system-packages lint lint-style lint-types lint-workflow format docs lock clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Run every family's small experiments and print how far each is from the exact answer
	$(RUN) snakemake --cores $(CORES) demo
	$(RUN) snakemake --cores 1 verdicts

test: $(READY) ## Run the tests
	$(RUN) pytest --numprocesses $(CORES) --dist loadscope $(PYTEST_ARGS)

test-slow: $(READY) ## Run the tests that take minutes
	$(RUN) pytest --numprocesses $(CORES) -m slow --timeout 3600 $(PYTEST_ARGS)

test-system: $(READY) ## Run the tests on a real cluster and in a browser (see system-packages)
	$(RUN) pytest -m system --timeout 1800 $(PYTEST_ARGS)

system-packages: ## Install what test-system needs: Slurm and Chromium, of Debian's packages, as root
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		slurmctld slurmd slurm-client munge chromium chromium-driver

lint: lint-style lint-types lint-workflow ## Check style, types and workflow; change nothing

lint-style: $(READY)
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) snakefmt --check Snakefile workflow

lint-types: $(READY)
	$(RUN) mypy

lint-workflow: $(READY)
	$(RUN) snakemake --lint

format: $(READY) ## Rewrite the code in the house style
	$(RUN) ruff format .
	$(RUN) ruff check --fix .
	$(RUN) snakefmt Snakefile workflow

docs: $(READY) ## Write config/README.md anew from the settings models
	$(RUN) python -m strata.documentation --config config/config.yaml --readme config/README.md

# The file .ready is the lock that .venv was filled from: another lock or pyproject.toml fills anew.
.venv/.ready: envs/requirements.lock pyproject.toml
	@.venv/bin/python -c 'import pip; $(SUITABLE)' 2>/dev/null \
	|| { "$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null && "$(PYTHON)" -m venv --clear .venv; } \
	|| { echo "Strata needs Python 3.11, 3.12 or 3.13 with venv and pip, and none was found:" \
	     "install one, or name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Filling .venv from envs/requirements.lock; this takes a few minutes, once."
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@cp envs/requirements.lock $@

# torch keeps its pin (change it in the lock by hand); what only its CUDA builds need is left out.
lock: ## Renew envs/requirements.lock: the newest versions that pyproject.toml allows
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	"$(PYTHON)" -m venv "$$scratch" && \
	"$$scratch/bin/python" -m pip install "$$(grep '^torch==' envs/requirements.lock)" -e '.[dev]' && \
	"$$scratch/bin/python" -m pip freeze --all --exclude-editable | sed 's/+.*//' | tr 'A-Z_' 'a-z-' \
	| grep -vE '^(pip|triton|cuda-[^=]*|nvidia-[^=]*)==' | LC_ALL=C sort -t = -k 1,1 > "$$scratch/pins" && \
	grep '^#' envs/requirements.lock | cat - "$$scratch/pins" > "$$scratch/lock" && \
	cp "$$scratch/lock" envs/requirements.lock

clean: ## Remove .venv and the tools' caches; results and Snakemake's records stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
