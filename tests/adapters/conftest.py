"""The adapter contract runs unchanged against every adapter that is installed."""

from __future__ import annotations

import pytest

from ai_budget_callbacks import Meter
from tests.adapters.drivers import ADAPTERS
from tests.support.provider import FarEnd


@pytest.fixture(params=ADAPTERS, ids=lambda kind: kind.name)
def adapter(request):
    """A driver's class."""
    return request.param


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
def handler(adapter, ledger):
    """`handler(*budgets, **meter_options)`: the adapter's handler on the ledger file."""
    made = []

    def make(*budgets, **options):
        made.append(adapter.handler(*budgets, **({"ledger": ledger} | options)))
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
