# Every target makes its own environment; `make run` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH ?=
PYZ ?= streamkit.pyz

.PHONY: run test check bench bare oldest services pyz clean

$(VENV)/.server: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[server]'
	touch $@

$(VENV)/.installed: $(VENV)/.server
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

.venv-bare/.installed:
	$(PYTHON) -m venv .venv-bare
	.venv-bare/bin/pip install --quiet --disable-pip-version-check pytest
	touch $@

.venv-oldest/.installed:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check pytest pytest-timeout h11 \
		gunicorn==22.0.0 werkzeug==2.3.0 flask==2.3.0
	touch $@

run: $(VENV)/.server  ## the demo on http://127.0.0.1:8000 under stock gunicorn
	$(BIN)/gunicorn --threads 4 --bind 127.0.0.1:8000 --access-logfile - --chdir examples/demo app:app

test: $(VENV)/.installed  ## everything that this machine can run
	$(BIN)/python -X dev -m pytest --timeout 120

check: $(VENV)/.installed  ## format, lint, types, layers, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_public_names.py

bench: $(VENV)/.bench  ## the figures of benchmarks/README.md; BENCH=name runs one
	$(BIN)/python -m benchmarks $(BENCH)

bare: .venv-bare/.installed  ## the suite with no dependency installed but pytest
	.venv-bare/bin/python -X dev -m pytest

oldest: .venv-oldest/.installed  ## the servers' tests with the oldest versions that setup.cfg allows
	.venv-oldest/bin/python -X dev -m pytest --timeout 120 -k 'gunicorn or werkzeug' \
		$(addprefix tests/wire/test_,detached.py disconnects.py gunicorn_hooks.py servers.py)

services:  ## Debian packages that some tests need: servers, and clients to try them with
	apt-get update
	apt-get install -y --no-install-recommends \
		nginx-light apache2-bin chromium curl wget aria2 ffmpeg openssl unzip redis-server

pyz:  ## one file, $(PYZ), for scripts that can install nothing
	set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	copy='import sys, shutil; shutil.copytree(*sys.argv[1:], ignore=shutil.ignore_patterns("__pycache__", "var"))'; \
	$(PYTHON) -c "$$copy" streamkit "$$folder/streamkit"; \
	$(PYTHON) -c "$$copy" examples/demo "$$folder/demo"; \
	cp streamkit/__main__.py "$$folder/__main__.py"; \
	$(PYTHON) -m zipapp "$$folder" --output $(PYZ) --python '/usr/bin/env python3' --compress

clean:
	rm -rf $(VENV) .venv-bare .venv-oldest build dist *.egg-info $(PYZ)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
