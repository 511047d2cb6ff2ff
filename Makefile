# The commands of the project; `make` alone lists them.
.DEFAULT_GOAL := help

VENV ?= .venv
ARGS ?=
# Two test processes with one thread each (tests/conftest.py); PYTEST_ARGS="-n 0 ..." runs them in one.
PYTEST_ARGS ?=
TORTURE_ARGS ?=
BENCH_ARGS ?=

ifneq ($(words $(VENV)),1)
$(error VENV must be one folder without spaces)
endif

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

# Packages from outside must not be seen inside the environment.
unexport PYTHONPATH
unexport PYTHONHOME
export PYTHONNOUSERSITE := 1

.PHONY: help demo test torture bench lint venv venv-dev preflight lock clean FORCE

help:
	@echo "make demo    install into $(VENV) where needed, then run the pipeline on the sample data"
	@echo "             (more arguments for it: make demo ARGS=\"--set refine.preset=psa\")"
	@echo "make test    all checks: ruff, mypy, pytest (options: make test PYTEST_ARGS=\"-k metrics -x\")"
	@echo "make torture hostile files, kills, damage and errors, about 20 minutes (options: TORTURE_ARGS=\"-k kill\")"
	@echo "make bench   every benchmark beside its plain reference, about half an hour (options: BENCH_ARGS=\"cams refine\")"
	@echo "make lint    ruff and mypy only"
	@echo "make venv    install only (venv-dev: with the development tools)"
	@echo "make lock    rewrite requirements.txt and requirements-dev.txt from pyproject.toml"
	@echo "make clean   remove $(VENV) and caches; runs/ stays"
	@echo "Settings: VENV=/some/folder (default .venv), PYTHON=/path/to/python3.11 to install with"

demo: $(READY)
	$(PY) run_pipeline.py run --config configs/sample.toml --name sample $(ARGS)

# Tests run even where the checks before them fail, and either failure counts.
test: $(READY_DEV)
	@status=0; \
	$(MAKE) --no-print-directory lint || { status=$$?; echo "ruff or mypy failed, see above; the tests run all the same"; }; \
	echo "pytest -n 2 $(PYTEST_ARGS)"; $(PY) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS) || status=$$?; \
	exit $$status

# The long form of tests/robustness (options of pytest: make torture TORTURE_ARGS="-k kill").
torture: $(READY_DEV)
	$(PY) -m pytest --hypothesis-profile torture -n 2 -rs tests/robustness $(TORTURE_ARGS)

# All figures of docs/performance.md but those of a GPU (options: make bench BENCH_ARGS="cams refine").
bench: $(READY_DEV)
	$(PY) -m tests.benchmarks $(BENCH_ARGS)

lint: $(READY_DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

venv: $(READY)

venv-dev: $(READY_DEV)

preflight:
	@scripts/preflight.sh "$(VENV)"

# Both files are written last (see scripts/venv.sh). An environment whose interpreter has gone,
# because Python was removed or the folder came from elsewhere, is made again.
$(READY): requirements.txt $(if $(wildcard $(PY)),,FORCE)
	@scripts/venv.sh run "$(VENV)"

$(READY_DEV): requirements-dev.txt $(READY)
	@scripts/venv.sh dev "$(VENV)"

lock:
	@scripts/lock.sh

clean:
	@scripts/clean.sh "$(VENV)"
