# The commands of this project. Each sets the environment up first; that is quick when nothing changed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LOCKED := requirements/dev.txt pyproject.toml contracts/pyproject.toml client/pyproject.toml

.PHONY: setup demo up test compose-test faults check docs wheels stick clean

setup: $(STAMP)
	@deploy/setup-bubblewrap.sh

$(STAMP): $(LOCKED)
	@echo "Setting up .venv ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e contracts -e client -e .
	@touch $(STAMP)

demo: setup
	@$(BIN)/python -m tutorials.demo

up: setup
	@$(BIN)/medperf-server up

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/unit

test: check
	tests/with_engines.sh $(BIN)/python -m pytest -q -n 2 --dist loadgroup --ignore tests/compose tests

# docker-compose.yml for real, from a clean state: builds its images, some ten minutes.
compose-test: setup
	tests/with_engines.sh --networks $(BIN)/python -m pytest -q tests/compose

# Minutes of people at work while something is killed, frozen or cut off each second; the report is the counts. Then
# a benchmark run, while its client and the engine's daemon are killed 50 times.
FAULTS_REPORT ?= /tmp/medperf-faults.md
faults: setup
	MEDPERF_FAULTS_COMMANDS=10000 MEDPERF_FAULTS_INJURIES=110 MEDPERF_FAULTS_CLUSTER=1 MEDPERF_FAULTS_REPORT=$(FAULTS_REPORT) \
	    $(BIN)/python -m pytest -q -s tests/deployed/test_faults.py
	MEDPERF_FAULTS_KILLS=50 tests/with_engines.sh $(BIN)/python -m pytest -q -s tests/faults/test_killed_engine.py

docs: setup
	@$(BIN)/python docs/generate.py

wheels: setup
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir dist ./contracts ./client
	@ls dist

# STICK: where to. PYTHON_VERSION (3.12), MACHINE (x86_64, aarch64), MANIFESTS (mlcube.yaml files): of that machine.
STICK ?= dist/stick
stick: setup
	@$(BIN)/python deploy/stick.py $(STICK) --python-version "$(PYTHON_VERSION)" --machine "$(MACHINE)" \
	    $(foreach manifest,$(MANIFESTS),--manifest $(manifest))

clean:
	rm -rf .cache .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
