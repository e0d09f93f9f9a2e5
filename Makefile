# `make run` and `make test` each set up all they need on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test lint install clean help

help:
	@echo "make run      install, then serve the workbench at http://127.0.0.1:8501"
	@echo "make test     install, then lint, type-check and run all tests"
	@echo "make lint     ruff, mypy and import rules alone"
	@echo "make install  make $(VENV) with everything in it"

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' \
		|| { echo "Draftree needs Python 3.11 or 3.12; choose one with: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

run: install
	$(BIN)/draftree app

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser" -n logical --maxprocesses 8 --dist worksteal
	$(BIN)/python -m pytest -m browser -n logical --maxprocesses 4 --dist loadfile

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
