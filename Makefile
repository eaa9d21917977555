# make demo, make test and so on work on a fresh machine: they make the environment first. See README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint figures clean

.venv/installed: requirements.txt requirements-test.txt build-constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and "Python 3.10 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt $(BIN)/pip install -r requirements-test.txt
	touch $@

test: .venv/installed lint
	$(BIN)/python -m pytest

test-all: .venv/installed lint
	$(BIN)/python -m pytest -m "slow or not slow"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv
