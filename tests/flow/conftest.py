"""Fixtures of the flow tests: a server with its own bill, a ledger file, handlers that are closed afterwards."""

from __future__ import annotations

import pytest

from ai_budget_callbacks import Meter
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import audit, read_back
from tests.support.provider import FarEnd

__all__ = ["audit", "read_back"]


@pytest.fixture
def serve():
    """`serve(reply, **options)`: a started `FarEnd`, stopped after the test."""
    running = []

    def start(*args, **options):
        far = FarEnd(*args, **options).start()
        running.append(far)
        return far

    yield start
    for far in running:
        far.stop()


@pytest.fixture
def ledger(tmp_path):
    """Path of the ledger file."""
    return tmp_path / "spend.db"


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


@pytest.fixture
def meter(ledger):
    """`meter(budgets, **options)`: a `Meter` on the ledger file."""
    made = []

    def make(budgets=(), **options):
        made.append(Meter(budgets, **({"ledger": ledger} | options)))
        return made[-1]

    yield make
    for item in made:
        item.close()
