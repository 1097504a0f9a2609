# nirvana's commands. `make help` lists them.
# PYTHON picks the interpreter (3.11 or newer): make setup PYTHON=/opt/python/bin/python3

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
PEERS_READY := $(PEERS)/.ready
TESTS ?= tests
WORKERS ?= 2

# The stamp holds the folder it was made in, because an environment does not survive being moved.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
ifneq ($(shell cat $(PEERS_READY) 2>/dev/null),$(CURDIR))
.PHONY: $(PEERS_READY)
endif

.PHONY: help setup demo test verify check format mutation bench bench-quality zoo lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    from noise to pictures: set up, train a small model on real pictures, sample it"
	@echo "make test    set up and run the tests (TESTS=tests/diffusion for a part)"
	@echo "make verify  prove every solver on every schedule, and write docs/verification.md (half an hour)"
	@echo "make check   formatting, lint, types, direction of imports"
	@echo "make format  format the code and mend what the linter can"
	@echo "make bench   measure speed beside the peers, who get an environment of their own (about 20 minutes)"
	@echo "make bench-quality  measure training time to equal quality beside the peers (hours)"
	@echo "make mutation  inject bugs into the mathematics and count those the tests catch (up to 40 minutes)"
	@echo "make zoo MODEL=fashion  train, measure and pack a model that ships, with its card (hours; goes on where stopped)"
	@echo "make setup   create .venv with nirvana and the tools, as constraints.txt pins them"
	@echo "make lock    renew constraints.txt from pyproject.toml"
	@echo "make clean   remove .venv, .venv-peers and caches (runs/ stays)"

setup: $(READY)
	@echo "Ready: $(BIN)/nirvana"

$(READY): pyproject.toml constraints.txt tests/diffusion/parity/references.txt scripts/setup.sh
	@scripts/setup.sh $(VENV) "$(PYTHON)"

demo: $(READY)
	@$(BIN)/nirvana demo

# One thread a worker: two workers with two threads each would fight over two cores.
test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

verify: $(READY)
	@$(BIN)/nirvana verify --out docs

check: $(READY)
	@$(BIN)/ruff format --check --quiet . || { echo "make format mends this"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/python -m pytest tests/test_architecture.py

format: $(READY)
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/python scripts/readme_links.py
	@$(BIN)/python scripts/solvers_page.py

mutation: $(READY)
	@OMP_NUM_THREADS=1 PYTHONPATH=scripts $(BIN)/python -m mutation --workers $(WORKERS) --page docs/verification.md

$(PEERS_READY): pyproject.toml constraints.txt benchmarks/peers.txt scripts/peers.sh
	@scripts/peers.sh $(PEERS) "$(PYTHON)"

bench: $(READY) $(PEERS_READY)
	@for file in benchmarks/bench_*.py; do echo "$$file"; $(BIN)/python $$file || exit 1; done

bench-quality: $(READY) $(PEERS_READY)
	@$(BIN)/python benchmarks/time_to_quality.py

zoo: $(READY)
	@PYTHONPATH=scripts $(BIN)/python -m zoo $(MODEL)

lock:
	@scripts/lock.sh "$(PYTHON)"

clean:
	@rm -rf $(VENV) $(PEERS) .pytest_cache .ruff_cache .hypothesis build dist
	@find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
