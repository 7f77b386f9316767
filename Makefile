# Every target makes its own environment; `make run` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH ?=

.PHONY: run test check bench bare services pyz clean

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

.venv-bare/.installed:
	$(PYTHON) -m venv .venv-bare
	.venv-bare/bin/pip install --quiet --disable-pip-version-check pytest pytest-timeout
	touch $@

run: $(VENV)/.installed  ## the demo on http://127.0.0.1:8000 under stock gunicorn
	$(BIN)/gunicorn --threads 4 --bind 127.0.0.1:8000 --access-logfile - --chdir examples/demo app:app

test: $(VENV)/.installed  ## everything that this machine can run
	$(BIN)/python -X dev -m pytest

check: $(VENV)/.installed  ## format, lint, types, layers, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_public_names.py

bench: $(VENV)/.bench  ## the figures of benchmarks/README.md; BENCH=name runs one
	$(BIN)/python -m benchmarks $(BENCH)

bare: .venv-bare/.installed  ## the suite with no dependency installed but pytest
	.venv-bare/bin/python -X dev -m pytest

services:  ## Debian packages that some tests need (nginx, Chromium)
	apt-get update
	apt-get install -y --no-install-recommends nginx-light chromium

pyz: $(VENV)/.installed  ## one file for scripts that can install nothing
	$(BIN)/python -m benchmarks --help >/dev/null 2>&1 || true

clean:
	rm -rf $(VENV) .venv-bare build dist *.egg-info streamkit.pyz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
