.DEFAULT_GOAL := help
# Two tests at once, each worker with one Spark session for all of its tests: one session by itself keeps one core and a half busy.
WORKERS = -n 2 --dist worksteal

.PHONY: help setup broker tools demo demo-kafka test slow soak bench lint format reference docs dist lock clean

help: ## What can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Virtual environment, locked dependencies, JARs; nothing where all is current
	@scripts/setup

demo: setup ## A day of events, joined, settled and reconciled, under ./demo
	@.venv/bin/rejoin demo $(ARGS)

broker: setup ## A Kafka broker to start on this machine (44 MB, once)
	@scripts/setup broker

tools: setup ## What tests look at pages and alerts with, where missing and to be had: Chromium, promtool
	@scripts/setup tools

demo-kafka: broker ## The same through a Kafka broker that is started for it
	@.venv/bin/rejoin demo --kafka $(ARGS)

test: setup tools ## The test suite (ARGS="-k name" for a part)
	@.venv/bin/python -m pytest $(WORKERS) $(ARGS)

slow: broker tools ## The longer proofs: whole processes, kills, more examples
	@.venv/bin/python -m pytest $(WORKERS) -m slow $(ARGS)

soak: setup ## Random histories against the oracle, for as long as it takes (a hundred, some hours)
	@.venv/bin/python -m pytest -m soak $(ARGS)

bench: broker ## Rejoin beside its peers, from Kafka to the final table (half an hour and more; ARGS="--rounds 1")
	@benchmarks/setup-peers
	@.venv/bin/python benchmarks/bench.py $(ARGS)

lint: setup ## ruff and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

format: setup ## Let ruff format and mend
	@.venv/bin/ruff check --fix-only . && .venv/bin/ruff format .

reference: setup ## docs/configuration.md and its JSON schema, from pipelines/config
	@.venv/bin/python -m scripts.reference

docs: setup ## The documentation as a site, under ./site
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

dist: setup ## The wheel, and an archive of its locked dependencies for clusters, under ./dist
	@scripts/dist

lock: ## Resolve the dependencies of pyproject.toml again, with hashes, for all Pythons (needs uv)
	@uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url --upgrade --quiet \
	  --extra dev pyproject.toml --output-file requirements.lock --custom-compile-command "make lock"

clean: ## Remove what the demo and the tests leave behind
	@rm -rf demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
