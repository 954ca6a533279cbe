# Two commands: `make demo` and `make test`. Both make what they need in .venv; only Python, git and make are assumed.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo test check lint typecheck contracts sabotage compat compare live record mutate mutate-report bench clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

.venv/.demo: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[langchain,demo]'
	@touch $@

.venv/.dev: .venv/.demo
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[langchain,demo]' --group dev
	@touch $@

.venv/.mutation: .venv/.dev
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --group mutation
	@touch $@

demo: .venv/.demo  ## watch a limit hold; no key, no network
	@$(BIN)/ai-budget demo

test: .venv/.dev  ## the tests
	@$(PYTEST) -q -n 2 --dist loadfile

check: lint typecheck contracts  ## style, types and import contracts

lint: .venv/.dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

typecheck: .venv/.dev
	@$(BIN)/mypy

contracts: .venv/.dev
	@$(BIN)/lint-imports

sabotage: .venv/.dev  ## break money on purpose, once for each known way; the suite must go red
	@$(BIN)/python -m tests.sabotage

live: .venv/.dev  ## the real APIs with your own keys, for at most 5 cents; each provider is skipped without its key
	@$(PYTEST) -q -s tests/live

record: .venv/.dev  ## the same, and keep what they answered as the project's cassettes, without keys and ids
	@$(PYTEST) -q -s --record-mode=rewrite tests/live

compat: .venv/.dev  ## the oldest, some between and the newest LangChain and LlamaIndex, each in an environment of its own
	@$(BIN)/python -m tests.compat

compare: .venv/.dev  ## genai-prices, litellm and us on the same recorded answers; litellm in an environment of its own
	@$(BIN)/python -m tests.compare

mutate: .venv/.mutation  ## MODULE=ai_budget_callbacks/money.py: change that module a little, once for each way; goes on where it stopped
	@nice -n 19 $(BIN)/python -m tests.mutation $(MODULE)

mutate-report: .venv/.mutation  ## the score of every module that was mutated
	@$(BIN)/python -m tests.mutation --report

bench: .venv/.dev  ## ratios side by side, in one run
	@$(BIN)/python -m benchmarks

clean:
	@rm -rf .venv .compat .compare .pytest_cache .mypy_cache .ruff_cache .hypothesis .mutation
