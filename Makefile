# `make quickstart` runs the main job on the embedded default, `make test` passes all tests.
# Both make what they need first: a virtual environment in .venv with psdevise installed.
PYTHON ?= python3

.PHONY: .venv quickstart test lint clean

# Made anew when what is installed changes. The stamp comes last, so that an installation that broke off is not
# taken for a whole one.
.venv: .venv/installed

.venv/installed: setup.cfg constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "psdevise needs Python 3.11 to 3.13; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-build-isolation --editable '.[dev]'
	@touch $@

quickstart: .venv/installed
	.venv/bin/psdevise run jobs/quickstart.yaml

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy psdevise

# Those without Ray side by side; the others share one local cluster, one after the other.
test: lint
	.venv/bin/python -m pytest -m "not ray" --numprocesses logical --maxprocesses 4
	.venv/bin/python -m pytest -m ray

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
