"""Fixtures of the tests of other providers' clients: a ledger file, and handlers that are closed afterwards."""

from __future__ import annotations

import pytest

from ai_budget_callbacks import langchain, llama_index
from tests.support.fixtures import ledger

__all__ = ["ledger"]


def _made(kind, ledger):
    made = []

    def make(*budgets, **options):
        made.append(kind(*budgets, **({"ledger": ledger} | options)))
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.fixture
def handler(ledger):
    """`handler(*budgets, **meter_options)`: LangChain's `BudgetCallbackHandler` on the ledger file."""
    yield from _made(langchain.BudgetCallbackHandler, ledger)


@pytest.fixture
def index_handler(ledger):
    """The same of LlamaIndex's."""
    yield from _made(llama_index.BudgetCallbackHandler, ledger)
