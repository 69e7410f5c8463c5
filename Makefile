# Two commands do everything on a bare machine with Python, pip, make and git: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TREE := .build/tree/autoresearch

.PHONY: demo test check bench clean tree
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, then a small real research run (about 5 minutes)"
	@echo "make test    install, then the whole test suite"
	@echo "make check   ruff, mypy, import-linter"
	@echo "make bench   the CPU-sized benchmarks; writes benchmarks/RESULTS.md"
	@echo "make clean   remove what make made"

# Versions that work together are pinned in constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# mypy wants one folder per package; the install maps four folders into one package.
tree:
	@mkdir -p $(TREE)
	@for part in core backends agent autoresearch/__init__.py; do ln -sfn ../../../$$part $(TREE)/$${part##*/}; done

demo: $(STAMP)
	@$(BIN)/ar demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 tests

check: $(STAMP) tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# import-linter does not follow links, so it reads a copy.
	@rm -rf .build/copy && mkdir -p .build/copy && cp -RL .build/tree/autoresearch .build/copy/
	PYTHONPATH=.build/copy $(BIN)/lint-imports --no-cache

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .build *.egg-info
