# The doors of the project. `make run` sets up and shows the main job; `make test` sets up and runs every test.
#
# A bare Debian 12 or Raspberry Pi OS needs this line first:
#   sudo apt-get install -y git make gcc libc6-dev python3-venv mosquitto

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
FOR    ?=
ENGINE_SOURCES := $(wildcard nis_edge/native/*.c nis_edge/native/*.h) setup.py
APT_LINE := sudo apt-get install -y git make gcc libc6-dev python3-venv mosquitto

# Tests in stages, fast first. A stage that can't run here says so; it never counts as passed.
PYTEST := $(BIN)/python -m pytest -q
# Four at a time also on two cores: many of the fast tests wait for a disk's flush.
FAST   := $(PYTEST) -n 4 -m 'not slow and not system and not arm64 and not oracle'

.PHONY: help setup run test test-fast test-system test-slow test-arm64 test-oracle test-update-kill test-spool-kill check format clean

help:
	@echo "make run [FOR=20]  set up, then the main job: the daemon judges a demo team, publishes, takes a signed update"
	@echo "make test          set up, then every test that can run on this machine, and what could not"
	@echo "make check         ruff, mypy --strict, C with -Wall -Wextra -Werror, fast tests"
	@echo "make setup         only .venv with the development extras and the C engine"

# --- setup: idempotent, offline when complete ------------------------------------------------------------------------

setup: $(VENV)/.complete $(VENV)/.engine

$(VENV)/.complete: pyproject.toml
	@missing=; for tool in gcc $(PYTHON); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	 [ -z "$$missing" ] || { echo "make setup: missing:$$missing. On Debian or Raspberry Pi OS: $(APT_LINE)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	 { echo "make setup: $(PYTHON) lacks venv or is older than 3.10. On Debian or Raspberry Pi OS: $(APT_LINE)"; exit 2; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,tui]'
	@touch $(VENV)/.engine $@

$(VENV)/.engine: $(ENGINE_SOURCES) | $(VENV)/.complete
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# --- the main job ------------------------------------------------------------------------------------------------------

run: setup
	@$(BIN)/python -m nis_ota.demo $(if $(FOR),--for $(FOR))

# --- tests -------------------------------------------------------------------------------------------------------------

test: setup
	@$(MAKE) --no-print-directory test-fast test-system test-slow test-arm64 test-oracle

test-fast: setup
	@echo "== fast tests"
	$(FAST)

test-system: setup
	@echo "== system tests (real broker, real processes)"
	@command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || \
	 echo "NOT RUN in part: mosquitto is missing. On Debian or Raspberry Pi OS: $(APT_LINE)"
	$(PYTEST) -m 'system and not slow'

test-slow: setup
	@echo "== slow tests (soak, simulation in depth)"
	$(PYTEST) -m 'slow and not arm64 and not oracle'

test-arm64: setup
	@echo "== aarch64 under qemu-user (cortex-a72, cortex-a76, max)"
	@if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null; \
	 then $(PYTEST) -s -m 'arm64'; \
	 else echo "NOT RUN: needs: sudo apt-get install -y gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"; fi

test-oracle: setup
	@echo "== oracles (transformers, torch)"
	@if $(BIN)/python -c 'import torch, transformers, accelerate' 2>/dev/null; \
	 then $(PYTEST) -m 'oracle'; \
	 else echo "NOT RUN: needs the train extra (torch); recorded oracle outputs were compared in the fast tests instead"; fi

test-update-kill: setup
	@echo "== a whole update, killed or failed at every relevant system call"
	NIS_UPDATE_KILL=all $(PYTEST) -s tests/system/test_update_kill.py

test-spool-kill: setup
	@echo "== 1000 kills of the sender and 200 outages of the broker under 200 records a second: about half an hour"
	NIS_SPOOL_KILLS=1000 NIS_SPOOL_OUTAGES=200 $(PYTEST) -s tests/system/test_spool_kill.py

check: lint
	$(FAST)

# What `make check` adds to the fast tests.
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	gcc -std=c11 -O2 -Wall -Wextra -Werror -ffp-contract=off -fsyntax-only $(wildcard nis_edge/native/*.c)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
	rm -f nis_edge/native/*.so
