"""The adapter contract runs unchanged against every adapter that is installed."""

from __future__ import annotations

import pytest

from tests.adapters.drivers import ADAPTERS
from tests.support.fixtures import ledger, meter, serve

__all__ = ["ledger", "meter", "serve"]


@pytest.fixture(params=ADAPTERS, ids=lambda kind: kind.name)
def adapter(request):
    """A driver's class."""
    return request.param


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
