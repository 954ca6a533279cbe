"""Fixtures of the LlamaIndex tests: a server with its own bill, a ledger file, handlers that are closed afterwards."""

from __future__ import annotations

import pytest
from llama_index.core import Settings

from ai_budget_callbacks import Meter
from ai_budget_callbacks.llama_index import BudgetCallbackHandler
from tests.llama.kit import no_handlers
from tests.support.provider import FarEnd


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


@pytest.fixture(autouse=True)
def _own_settings():
    """No test leaves its handlers or models in LlamaIndex's process-wide settings."""
    yield
    Settings.callback_manager = no_handlers()
    Settings._llm = Settings._embed_model = None
