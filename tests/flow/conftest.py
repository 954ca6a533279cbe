"""Fixtures of the flow tests: handlers that are closed afterwards, and what every flow test has."""

from __future__ import annotations

import pytest

from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import audit, read_back
from tests.support.fixtures import ledger, meter, serve

__all__ = ["audit", "ledger", "meter", "read_back", "serve"]


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
