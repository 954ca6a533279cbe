"""Every recorded answer that a LangChain client here can play, through the handler: the ledger has what was billed."""

from __future__ import annotations

import os

import pytest

from ai_budget_callbacks import Budget
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.recordings.clients import CLIENTS
from tests.recordings.player import Play, aplay, names, play, plays
from tests.recordings.verdict import EXCEPTIONS, judge, unsettled

# pydantic about Mistral's content lists: LangChain's own copying, no money
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")

PLAYS = plays()
TESTED = {name for name, client in CLIENTS.items() if not client.conflict}  # those of the test group
PLAYED_CALLS = 303  # 2026-11-24, single calls of the tested clients; a corpus that shrinks must not pass


def few(found: list[Play]) -> list[Play]:
    """For each client and way the first two plays with and without streams: enough for the async path."""
    kept: dict[tuple, list[Play]] = {}
    for item in found:
        streams = any(exchange.call["streaming"] for exchange in item.exchanges)
        kept.setdefault((item.client, item.way, streams), []).append(item)
    return [item for group in kept.values() for item in group[:2]]


@pytest.fixture
def books(tmp_path):
    """A handler with room for everything, and the file it writes. No USD budget: unknown models are sent too."""
    path = tmp_path / "played.db"
    handler = BudgetCallbackHandler(Budget(calls=1_000), Budget(tokens=10**9), ledger=path)
    yield handler, path
    handler.close()


def check(item, result, path):
    wrong = unsettled(item, result, path)
    for verdict in judge(item, result, path):
        listed = EXCEPTIONS.differs.get(verdict.name)
        if listed is not None and verdict.differs is None:
            wrong.append(f"{verdict.name} agrees now; drop it from exceptions.toml: {EXCEPTIONS.reasons[verdict.name]}")
        elif verdict.differs not in (listed if isinstance(listed, list) else [listed]):
            wrong.append(f"{verdict.name}: {verdict.says}; listed: {listed}")
        if verdict.status != EXCEPTIONS.status.get(verdict.name, verdict.status):
            wrong.append(f"{verdict.name}: part of its bill is missing, and it is booked as {verdict.status}")
        lost = EXCEPTIONS.lost.get(verdict.name, frozenset())
        if verdict.lost != lost:
            wrong.append(f"{verdict.name}: the entry says {sorted(verdict.lost)} was lost; listed: {sorted(lost)}")
        if verdict.raised != EXCEPTIONS.raises.get(verdict.name) and item.way == "single":
            wrong.append(f"{verdict.name}: raised {verdict.raised} after a paid answer")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("item", PLAYS, ids=lambda item: item.id)
def test_the_ledger_has_what_was_billed(item, books):
    handler, path = books
    check(item, play(item, handler), path)


@pytest.mark.parametrize("item", few(PLAYS), ids=lambda item: item.id)
async def test_the_async_path_books_the_same(item, books):
    handler, path = books
    check(item, await aplay(item, handler), path)


def test_the_list_names_calls_that_exist():
    assert EXCEPTIONS.names <= names(), f"no such calls: {sorted(EXCEPTIONS.names - names())}"


def test_nothing_dropped_out():
    missing = sorted(name for name in TESTED if not CLIENTS[name].installed)
    assert not missing or not os.environ.get("CI"), f"not installed, so not played: {missing}"
    singles = [client for item in PLAYS if item.way == "single" for client in item.clients if client in TESTED]
    assert missing or len(singles) == PLAYED_CALLS
