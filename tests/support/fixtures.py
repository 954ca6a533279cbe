"""Fixtures that every flow test has, whatever its framework: a server with its own bill, a ledger file, meters.

A conftest takes them by importing them.
"""

from __future__ import annotations

import pytest

from ai_budget_callbacks import Meter
from tests.support.provider import FarEnd

__all__ = ["ledger", "meter", "serve"]


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
def meter(ledger):
    """`meter(budgets, **options)`: a `Meter` on the ledger file."""
    made = []

    def make(budgets=(), **options):
        made.append(Meter(budgets, **({"ledger": ledger} | options)))
        return made[-1]

    yield make
    for item in made:
        item.close()
