"""What the ledger must say after every play of one framework; each framework's test file derives from it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import pytest

from ai_budget_callbacks import Budget
from tests.recordings.player import aplay, few, names, play, plays
from tests.recordings.verdict import EXCEPTIONS, complaints

if TYPE_CHECKING:
    from tests.recordings.exchange import Framework

__all__ = ["Recordings"]


class Recordings:
    """The ledger has what was billed.

    Attributes:
        framework: Whose clients play.
        calls: Single calls that the clients of the test group play; a corpus that shrinks must not pass.
    """

    framework: ClassVar[Framework]
    calls: ClassVar[int]

    def pytest_generate_tests(self, metafunc):
        if "item" in metafunc.fixturenames:
            found = plays(self.framework)
            metafunc.parametrize("item", found, ids=lambda item: item.id)
        elif "async_item" in metafunc.fixturenames:
            metafunc.parametrize("async_item", few(plays(self.framework)), ids=lambda item: item.id)

    @pytest.fixture
    def books(self, tmp_path):
        """A handler with room for everything, and its file. No USD budget: unknown models are sent too."""
        path = tmp_path / "played.db"
        handler = self.framework.handler(Budget(calls=1_000), Budget(tokens=10**9), ledger=path)
        yield handler, path
        handler.close()

    def test_the_ledger_has_what_was_billed(self, item, books):
        handler, path = books
        wrong = complaints(item, play(item, handler), path)
        assert not wrong, "\n".join(wrong)

    async def test_the_async_path_books_the_same(self, async_item, books):
        handler, path = books
        wrong = complaints(async_item, await aplay(async_item, handler), path)
        assert not wrong, "\n".join(wrong)

    def test_the_list_names_calls_that_exist(self):
        listed = EXCEPTIONS.names(self.framework)
        assert listed <= names(self.framework), f"no such calls: {sorted(listed - names(self.framework))}"

    def test_nothing_dropped_out(self):
        tested = {name for name, client in self.framework.clients.items() if not client.conflict}
        missing = sorted(name for name in tested if not self.framework.clients[name].installed)
        assert not missing or not os.environ.get("CI"), f"not installed, so not played: {missing}"
        singles = [item for item in plays(self.framework) if item.way == "single"]
        played = [client for item in singles for client in item.clients if client in tested]
        assert missing or len(played) == self.calls
