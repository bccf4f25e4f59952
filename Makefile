# Everything a developer does. Each target makes what it needs: the virtual
# environment, the dependencies and, where the machine has none, a PostgreSQL.

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs freeze clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## protect a CRM and watch it work (ROWS=5000, KEEP=1)
	@$(RUN) -m gdprdb demo $(if $(ROWS),--rows $(ROWS)) $(if $(KEEP),--keep)

# a worker and its server take turns, and some tests wait: one more than there are processors;
# in the order of their names, which puts no long file at the end
test: $(READY) ## run all tests (ARGS="-k consent")
	@$(RUN) -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## check style, types, SQL, migrations and function bodies
	@tools/lint

bench: $(READY) ## measure against a plain table and a hand-made stack, and the audit (QUICK=1); the rest: bench-rights, -orm, -reads, -search, -enabling
	@QUICK=$(QUICK) $(RUN) -m bench
	@QUICK=$(QUICK) RECORDS=$(RECORDS) $(RUN) -m bench.audit

bench-%: $(READY)
	@QUICK=$(QUICK) PEOPLE=$(PEOPLE) RECORDS=$(RECORDS) $(RUN) -m bench.$*

docs: $(READY) ## write the reference pages from the database's own comments
	@$(RUN) docs/build.py

freeze: $(READY) ## assemble the release of this version from sql/
	@$(RUN) -m gdprdb.release freeze

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml tools/setup
	@tools/setup $(VENV)
	@touch $(READY)
