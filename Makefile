# Every target may be called again at any time: stamp files make the second call fast.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NPM    := $(shell command -v npm 2>/dev/null)
PAGE   := src/flatwater/server/static/index.html
UI_SOURCES := $(shell test -f ui/package.json && find ui -type f -not -path 'ui/node_modules/*' -not -path 'ui/dist/*' -not -path 'ui/test-results/*')
ARGS   ?=
# Test processes: more than cores, since the tests of workers and servers mostly wait for them.
JOBS   ?= 4

# Many container images set it. The tests start a thousand processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run demo test test-pythons sanitize lint format bench soak ui browser lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.package ui ## make .venv with the flatwater command in it, and the page

run: install ## start the server with the demo plant on http://127.0.0.1:8350 (ARGS="--port 8351" adds flags)
	$(BIN)/flatwater serve --demo $(ARGS)

demo: run ## the same as run

test: install browser ## run the tests (ARGS="tests/bounded -k cache" chooses some)
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-pythons: ## build the parts in C with Python 3.11, 3.12 and 3.13 and test it there
	@.ci/pythons $(ARGS)

sanitize: $(VENV)/.locked ## test the parts in C under AddressSanitizer, UBSan and valgrind
	@.ci/sanitize $(ARGS)

lint: $(VENV)/.locked ## ruff, formatting, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

format: $(VENV)/.locked ## let ruff format and repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## measure against the peers, side by side (ARGS adds flags)
	$(BIN)/python benchmarks/engine.py $(ARGS)

soak: install ## prove that memory stays flat: about ten minutes (ARGS="short pending" chooses some)
	$(BIN)/python benchmarks/soak.py $(ARGS)

# The page is built from ui/ by npm. Without npm (or without ui/) the server still serves its API.
ifeq ($(wildcard ui/package.json),)
ui: ## build the page from ui/ when its sources changed
	@echo "ui/ holds no page yet: nothing to build"
else ifeq ($(NPM),)
ui:
	@echo "npm was not found: the page is not built, the API works without it (install Node.js 20 or later, then 'make ui')"
else
ui: $(PAGE)
endif

$(PAGE): ui/node_modules/.installed $(UI_SOURCES)
	cd ui && $(NPM) run build
	@touch $@

ui/node_modules/.installed: ui/package.json ui/package-lock.json
	cd ui && $(NPM) ci --no-audit --no-fund
	@touch $@

browser: ## find Chromium for the page's tests, or install Debian's when root
	@.ci/browser

lock: $(VENV)/.uv ## remake requirements.lock from pyproject.toml
	$(VENV)/uv/bin/uv pip compile pyproject.toml --output-file requirements.lock --upgrade --quiet --no-header \
		--universal --python-version 3.11 --generate-hashes --extra postgres --extra mysql --extra live --group dev

clean: ## remove everything that these targets made
	rm -rf $(VENV) ui/node_modules src/flatwater/server/static build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Flatwater needs Python 3.11 or later; call make with PYTHON=python3.12, for example"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.locked: requirements.lock | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@touch $@

$(VENV)/.package: pyproject.toml setup.py src/flatwater/memory/_heap.c src/flatwater/memory/sampler.c src/flatwater/memory/_watch.c src/flatwater/memory/_inject.c src/flatwater/guard/_meter.c $(VENV)/.locked
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The peers are measured at their current versions, so they are not locked.
$(VENV)/.bench: $(VENV)/.package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' --no-build-isolation
	@touch $@

$(VENV)/.uv: | $(VENV)/.made
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@
