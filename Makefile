# marketenvs: make leaderboard | test | test-slow | lint | docs
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := constraints.txt
SUITE ?= quick
export OMP_NUM_THREADS ?= 1

.PHONY: leaderboard test test-slow lint docs clean

# The quick leaderboard over every market: tables, a results folder and a page. Finished runs are reused.
leaderboard: $(VENV)/.installed-quick
	$(BIN)/marketenvs leaderboard --suite $(SUITE)

test: $(VENV)/.installed-all
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-all
	$(BIN)/python -m pytest -m slow --durations=20

lint: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-all
	$(BIN)/marketenvs docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact version: a newer one would bring gigabytes of CUDA packages.
$(VENV)/.installed-quick: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing marketenvs with SB3 and plotting into $(VENV) (about a minute) ..."
	$(PIP) install --quiet torch==2.13.0 -c $(CONSTRAINTS)
	$(PIP) install --quiet -e '.[quick]' -c $(CONSTRAINTS)
	@touch $@

$(VENV)/.installed-all: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing everything the tests use into $(VENV) (some minutes) ..."
	$(PIP) install --quiet torch==2.13.0 -c $(CONSTRAINTS)
	$(PIP) install --quiet -e '.[all]' -c $(CONSTRAINTS)
	@touch $@

clean:
	rm -rf $(VENV) results site build dist .pytest_cache .ruff_cache .mypy_cache
