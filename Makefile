# Two commands for a fresh machine with Python 3.11+, make and a network:
#   make demo    sets everything up and serves the demo project at http://127.0.0.1:8000/
#   make test    sets everything up and runs lint, types and tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
ADDRPORT ?= 127.0.0.1:8000

.PHONY: demo test lint types tests clean

$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

demo: $(VENV)/.runtime
	$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python manage.py demo_data
	exec $(BIN)/python manage.py runprefork $(ADDRPORT) --workers $(WORKERS)

test: lint types tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	$(BIN)/python -X dev -m pytest -n 3 --dist worksteal

clean:
	rm -rf $(VENV)

# Long runs, not part of `make test`.
.PHONY: soak fuzz bench bench-check
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak all

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --seconds 60
	FUZZ_TIMES=10 $(BIN)/python -m pytest -n 3 --timeout 600 tests/http/test_properties.py tests/http/test_response_properties.py

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.compare

bench-check: $(VENV)/.dev
	$(BIN)/python -m benchmarks.check

.PHONY: browser compat dashboard
browser: $(VENV)/.dev
	$(BIN)/python -m tests.browser --times 20

compat: $(VENV)/.dev
	$(BIN)/python -m tests.compat

dashboard: $(VENV)/.dev
	$(BIN)/python -m tests.dashboard
