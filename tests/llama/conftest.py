"""Fixtures of the LlamaIndex tests: a server with its own bill, a ledger file, handlers that are closed afterwards."""

from __future__ import annotations

import pytest
from llama_index.core import Settings

from ai_budget_callbacks.llama_index import BudgetCallbackHandler
from tests.llama.kit import no_handlers
from tests.support.fixtures import ledger, meter, serve

__all__ = ["ledger", "meter", "serve"]


@pytest.fixture
def handler(ledger):
    """`handler(*budgets, **meter_options)`: a `BudgetCallbackHandler` on the ledger file."""
    made = []

    def make(*budgets, **options):
        made.append(BudgetCallbackHandler(*budgets, **({"ledger": ledger} | options)))
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.fixture(autouse=True)
def _own_settings():
    """No test leaves its handlers or models in LlamaIndex's process-wide settings."""
    yield
    Settings.callback_manager = no_handlers()
    Settings._llm = Settings._embed_model = None
