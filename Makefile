# `make quickstart` runs the main job on the embedded default, `make test` passes all tests.
# Both make what they need first: a virtual environment in .venv with psdevise installed.
PYTHON ?= python3

.PHONY: quickstart test lint clean

# Made anew when what is installed changes; .venv itself is the target, so that `make .venv` is all there is to say.
.venv: setup.cfg constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "psdevise needs Python 3.11 to 3.13; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools wheel
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-build-isolation --editable '.[dev]'
	@touch .venv

quickstart: .venv
	.venv/bin/psdevise run jobs/quickstart.yaml

lint: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy psdevise

test: lint
	.venv/bin/python -m pytest

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
