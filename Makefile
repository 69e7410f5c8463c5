# `make demo` and `make test` work on a bare machine with Python, pip, make and git.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Optional dependencies to install; CI adds the trackers, which are large.
EXTRAS ?= dev
# The demo needs none of them, but takes an environment that has them where there is one.
LEAN := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.lean)
TAG ?= demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: help demo test cheats check bench docs dist clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, then a small real research run (5 minutes)"
	@echo "make test    install, then the whole test suite"
	@echo "make cheats  try every known cheat on every backend, and honest variants beside them (about 40 minutes;"
	@echo "             BACKEND=null takes 6)"
	@echo "make check   ruff, mypy, import-linter, commit subjects"
	@echo "make bench   run the CPU-sized benchmarks and write benchmarks/RESULTS.md"
	@echo "make docs    write docs/commands.md from the help of the commands"
	@echo "make dist    write the wheel and the sdist to dist/"
	@echo "make clean   remove everything that make has made, except runs/"

# requirements.lock holds the hashes of what is installed, where it is for this Python, system and extras (.ci/lock.py);
# PyTorch, whose builds differ by device, and everything elsewhere follow the versions in constraints.txt.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
QUIETLY := | { grep --line-buffered -E '^ *(Downloading .* (MB|GB)|Installing collected)' | cut -c1-100 || true; }
$(VENV)/.lean: EXTRAS :=
$(STAMP) $(VENV)/.lean: pyproject.toml constraints.txt requirements.lock .ci/lock.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); PyTorch is large, so the first time takes some minutes ..."
	@set -o pipefail; if $(BIN)/python .ci/lock.py --show "$(EXTRAS)" > $(VENV)/requirements.lock; then \
		$(PIP) --require-hashes --no-deps --only-binary :all: -r $(VENV)/requirements.lock $(QUIETLY) && \
		$(PIP) -c constraints.txt torch $(QUIETLY) && \
		$(PIP) --no-deps --no-build-isolation -e ".$(if $(EXTRAS),[$(EXTRAS)])" $(QUIETLY); \
	else \
		echo "requirements.lock is not for this Python, system or extras: versions by constraints.txt, without hashes"; \
		$(PIP) -c constraints.txt -e ".$(if $(EXTRAS),[$(EXTRAS)])" $(QUIETLY); \
	fi
	@$(BIN)/python -m pip check --disable-pip-version-check
	@$(BIN)/ar --version
	@touch $@

demo: $(LEAN)
	@$(BIN)/ar --preset demo loop --tag $(TAG) --hours 0.07
	@echo && echo "A text by the baseline and one by the best file, each after ten seconds of training:" && echo
	@$(BIN)/ar sample --tag $(TAG) --baseline --tokens 60
	@echo && echo "The report, with the picture and the difference that the run found:"
	@$(BIN)/ar report --tag $(TAG)
	@echo && echo "What next?" && echo \
		"  $(BIN)/ar verify --tag $(TAG)      if a change was kept: does it hold on the test set?" && echo \
		"  $(BIN)/ar dashboard --tag $(TAG)   look at every experiment in a browser" && echo \
		"  $(BIN)/ar --preset cpu loop -n 20                    the real thing on this machine; on an H100: ar loop"

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal tests

cheats: $(STAMP)
	$(BIN)/python tests/cheats $(if $(BACKEND),--backend $(BACKEND)) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(KEEP),--keep $(KEEP)) $(if $(PAGE),--page $(PAGE))

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python .ci/check_subjects.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# docs/commands.md is generated; a test fails when it is stale.
docs: $(STAMP)
	$(BIN)/python -m autoresearch.core.cli.reference > docs/commands.md

dist: $(LEAN)
	@$(BIN)/python -c "from setuptools import build_meta as build; build.build_sdist('dist'); build.build_wheel('dist')" \
		> /dev/null && ls -l dist && rm -rf build *.egg-info

clean:
	rm -rf $(VENV) build dist *.egg-info
