"""Money beyond model calls: a tool, a retriever, a fee. Held before it is spent, refused like a call, booked once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from click.testing import CliRunner
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from ai_budget_callbacks import Budget, BudgetExceeded, ConfigError, LedgerError, Meter, Price, track
from ai_budget_callbacks.cli import main
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from ai_budget_callbacks.events import CallRefused, CallReserved, CallSettled
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import PICO, audit, chat, read_back
from tests.support.books import fork, wait
from tests.support.versions import LACKS_MODEL_ERROR, SAYS_AGENT_BESIDE_METADATA, SAYS_TOOL_CALL_ID, needs

AGENT = "boss" if SAYS_AGENT_BESIDE_METADATA else None
CALL_IDS = {"call_0", "call_1", "call_2"} if SAYS_TOOL_CALL_ID else {None}

QUESTION = "What is two plus two?"
ASK = {"messages": [("human", QUESTION)]}
ANSWER = Reply(text="Four.", input_tokens=1000, output_tokens=200)  # $0.00027 at gpt-4o-mini
UNIT = Decimal("0.00027")
FEE = Decimal("0.008")
PRICES = {
    "tool/search": Price(request="0.008"),
    "retriever/DocsRetriever": Price(request="0.002"),
}


def _config(*callbacks, **more):
    return {"callbacks": list(callbacks), **more}


def _kinds(books):
    return [(row["kind"], row["provider"], row["model"], row["status"]) for row in books.entries]


def _fees(books):
    """Charge entries: (status, cost, booked) in USD."""
    usd = lambda pico: None if pico is None else pico * PICO  # noqa: E731
    return [
        (row["status"], usd(row["cost_pico"]), usd(row["booked_pico"]))
        for row in books.entries
        if row["kind"] == "charge"
    ]


def _clean(ledger):
    """`ai-budget verify` of a ledger."""
    result = CliRunner().invoke(main, ["verify", "--ledger", str(ledger)])
    assert result.exit_code == 0, f"the books do not add up: {result.output}"
    assert "0 open holds" in result.output, result.output


@pytest.fixture
def search(ledger):
    """A priced tool, sync and async, that tells what was held while its body ran."""
    seen = []

    def held():
        seen.append([row["held"] * PICO for row in read_back(ledger).balances if row["unit"] == "usd"])

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        held()
        return f"found {topic}"

    async def found(topic: str) -> str:
        held()
        return f"found {topic}"

    search.coroutine = found
    search.metadata = {"seen": seen}
    return search


@pytest.fixture
def ran(search):
    """What was held each time the body of `search` ran."""
    return search.metadata["seen"]


async def _use(way, runnable, value, config):
    if way == "async":
        return await runnable.ainvoke(value, config=config)
    return runnable.invoke(value, config=config)


WAYS = pytest.mark.parametrize("way", ["sync", "async"])


class DocsRetriever(BaseRetriever):
    """Documents that cost money to find."""

    fails: bool = False
    slow: bool = False

    def _get_relevant_documents(self, query, *, run_manager):
        if self.fails:
            raise RuntimeError("no index")
        return [Document(page_content=query)]

    async def _aget_relevant_documents(self, query, *, run_manager):
        if self.slow:
            await asyncio.sleep(30)
        return self._get_relevant_documents(query, run_manager=run_manager)


# -- a tool's fee: held while it runs, booked at its end


@WAYS
async def test_a_tools_fee_is_held_while_it_runs_and_booked_at_its_end(handler, ledger, search, ran, way):
    events = []
    budget = handler(Budget(usd="1"), prices=PRICES, listeners=[events.append])
    assert await _use(way, search, {"topic": "sums"}, _config(budget)) == "found sums"
    books = read_back(ledger)
    assert ran == [[FEE]], f"while the tool ran ${ran} was held, its fee is ${FEE}"
    assert _kinds(books) == [("charge", "tool", "search", "priced")]
    assert _fees(books) == [("priced", FEE, FEE)]
    assert books.spent() == [FEE]
    assert books.one()["lines"] == [
        {"bucket": "request_fee", "count": 1, "unit_price_usd": "0.008", "per": 1, "amount_usd": "0.008"}
    ]
    assert [type(event) for event in events] == [CallReserved, CallSettled]
    assert (events[0].held_usd, events[1].entry.cost_usd) == (FEE, FEE)
    _clean(ledger)


@WAYS
async def test_a_tool_that_does_not_fit_is_refused_before_its_body_runs(serve, handler, ledger, search, ran, way):
    """$0.017 is two uses and a bit; the rest of the run is closed, so no model is asked either."""
    far, events = serve(ANSWER), []
    budget = handler(Budget(usd="0.017"), prices=PRICES, listeners=[events.append])
    model = chat(far)

    async def work(_):
        for _ in range(2):
            await _use(way, search, {"topic": "sums"}, None)
        with pytest.raises(BudgetExceeded) as refused:
            await _use(way, search, {"topic": "sums"}, None)
        assert (refused.value.spent, refused.value.needed) == (2 * FEE, FEE)
        with pytest.raises(BudgetExceeded):
            await model.ainvoke(QUESTION)

    await RunnableLambda(work).ainvoke(QUESTION, config=_config(budget))
    assert len(ran) == 2, f"a budget for two uses let the body run {len(ran)} times"
    assert budget.exceeded
    books = read_back(ledger)
    assert (len(far.requests), len(books.holds)) == (0, 0)
    assert _fees(books) == [("priced", FEE, FEE)] * 2
    assert sum(isinstance(event, CallRefused) for event in events) >= 1
    _clean(ledger)


def test_a_budget_that_is_exactly_used_up_refuses_the_next_use(handler, ledger, search, ran):
    budget = handler(Budget(usd="0.016"), prices=PRICES)
    for _ in range(2):
        search.invoke({"topic": "sums"}, config=_config(budget))
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=_config(budget))
    assert len(ran) == 2
    assert read_back(ledger).spent() == [2 * FEE]


def test_model_calls_and_fees_share_a_budget(serve, handler, ledger, search, ran):
    """$0.0083 has room for the tool and one answer, not for two answers and the tool."""
    far = serve(ANSWER)
    budget = handler(Budget(usd="0.0083"), prices=PRICES, reserve="none")
    model = chat(far)
    model.invoke(QUESTION, config=_config(budget))
    search.invoke({"topic": "sums"}, config=_config(budget))
    model.invoke(QUESTION, config=_config(budget))  # 0.00854 spent: the last admitted call crosses, reserve is none
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=_config(budget))
    books = audit(far, ledger, requests=2, entries=3, usd="0.00054", exact=False)
    assert books.spent() == [2 * UNIT + FEE]
    assert len(ran) == 1


def test_call_and_token_budgets_are_untouched_by_fees(handler, ledger, search):
    budget = handler(Budget(calls=1), Budget(tokens=10), Budget(usd="1"), prices=PRICES)
    for _ in range(3):
        search.invoke({"topic": "sums"}, config=_config(budget))
    budget.charge("0.01", name="download")
    books = read_back(ledger)
    assert books.spent() == [3 * FEE + Decimal("0.01")]
    assert sum(books.spent("calls") + books.spent("tokens")) == 0, "a fee is no call and has no tokens"
    summary = budget.summary()
    assert (summary.calls, summary.cost_usd) == (0, 3 * FEE + Decimal("0.01"))


@pytest.mark.parametrize(
    ("reserve", "held"), [("none", Decimal(0)), ("expected", FEE), ("worst_case", FEE), ("0.5", FEE)]
)
def test_a_fee_is_known_whatever_is_reserved_for_calls(handler, ledger, search, ran, reserve, held):
    budget = handler(Budget(usd="0.009"), prices=PRICES, reserve=reserve)
    search.invoke({"topic": "sums"}, config=_config(budget))
    assert ran == [[held]]
    assert _fees(read_back(ledger)) == [("priced", FEE, FEE)]
    if reserve == "none":  # settled money only: what is left admits one more, which crosses
        search.invoke({"topic": "sums"}, config=_config(budget))
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=_config(budget))
    assert read_back(ledger).spent() == [len(ran) * FEE]


# -- how a tool can end


@WAYS
async def test_a_tool_that_raises_is_booked_at_its_fee_as_unknown(serve, handler, ledger, way):
    @tool
    def search(topic: str) -> str:
        """Search the web."""
        raise ValueError("the search failed")

    budget = handler(Budget(usd="0.02"), prices=PRICES)
    for _ in range(2):
        with pytest.raises(ValueError, match="the search failed"):
            await _use(way, search, {"topic": "sums"}, _config(budget))
    with pytest.raises(BudgetExceeded):
        await _use(way, search, {"topic": "sums"}, _config(budget))
    books = read_back(ledger)
    assert _fees(books) == [("unknown", None, FEE)] * 2, "a search that failed may have been billed"
    assert "ValueError" in books.entries[0]["reason"]
    assert books.spent() == [2 * FEE]
    assert budget.summary().unknown_usd == 2 * FEE
    _clean(ledger)


def test_arguments_that_do_not_fit_the_tool_are_booked_on_the_safe_side(handler, ledger, search, ran):
    budget = handler(Budget(usd="1"), prices=PRICES)
    with pytest.raises(Exception, match="topic"):
        search.invoke({"subject": "sums"}, config=_config(budget))
    assert ran == []
    assert _fees(read_back(ledger)) == [("unknown", None, FEE)]


async def test_a_cancelled_tool_is_booked_at_its_fee(handler, ledger):
    started = asyncio.Event()

    @tool
    async def search(topic: str) -> str:
        """Search the web."""
        started.set()
        await asyncio.sleep(30)

    budget = handler(Budget(usd="1"), prices=PRICES)
    task = asyncio.create_task(search.ainvoke({"topic": "sums"}, config=_config(budget)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    books = read_back(ledger)
    assert _fees(books) == [("unknown", None, FEE)]
    assert (books.holds, books.spent()) == ([], [FEE])


async def test_a_tool_that_goes_on_after_its_run_was_cancelled_is_booked_at_once_and_corrected(handler, ledger):
    """A sync tool in a thread cannot be cancelled: its end comes when the run is over."""
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    class Slow(DocsRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return [Document(page_content=query)]

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        started.set()
        assert go_on.wait(20)
        return "found"

    def work(_):
        try:
            return search.invoke({"topic": "sums"})
        finally:
            ended.set()

    budget = handler(Budget(usd="1"), prices=PRICES)
    task = asyncio.create_task(RunnableLambda(work).ainvoke(QUESTION, config=_config(budget)))
    assert await asyncio.to_thread(started.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _fees(read_back(ledger)) == [("unknown", None, FEE)], "nobody may see its end; its fee must count now"
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 20)
    books = read_back(ledger)
    assert [(row["kind"], row["status"], row["booked_pico"]) for row in books.entries] == [
        ("charge", "unknown", 8 * 10**9),
        ("adjustment", "priced", 0),
    ], "a late end tells the truth, and adds nothing to what was booked already"
    assert books.spent() == [FEE]
    assert (budget.summary().cost_usd, budget.summary().unknown_usd) == (FEE, 0)
    _clean(ledger)


def test_model_calls_inside_a_priced_tool_are_entries_of_their_own(serve, handler, ledger):
    far = serve(ANSWER)
    model = chat(far)

    @tool
    def search(topic: str) -> str:
        """Ask a model."""
        return model.invoke(topic).text

    budget = handler(Budget(usd="1"), Budget(usd="1", by="tool", name="by tool"), prices=PRICES)
    RunnableLambda(lambda topic: search.invoke({"topic": topic})).invoke("sums", config=_config(budget))
    books = audit(far, ledger, requests=1, entries=2, usd="0.00027", exact=False)
    assert [(row["kind"], row["tool"]) for row in books.entries] == [("call", "search"), ("charge", "search")]
    assert books.spent() == [UNIT + FEE] * 2
    assert len({row["run_id"] for row in books.entries}) == 1


def test_a_refused_call_inside_a_tool_leaves_the_tools_fee_on_the_books(serve, handler, ledger):
    far = serve(ANSWER)
    model = chat(far)

    @tool
    def search(topic: str) -> str:
        """Ask a model."""
        return model.invoke(topic).text

    budget = handler(Budget(usd="1"), Budget(calls=1), prices=PRICES)
    search.invoke({"topic": "sums"}, config=_config(budget))
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=_config(budget))
    books = audit(far, ledger, requests=1, entries=3, usd="0.00027", exact=False)
    assert _fees(books) == [("priced", FEE, FEE), ("unknown", None, FEE)]


# -- agents


def _agent(far, used, **options):
    return create_agent(chat(far), [used], name="boss", **options)


def _three_searches(request):
    """Three searches at once, then text."""
    called = any(message.get("role") == "tool" for message in request.body["messages"])
    calls = () if called else tuple(ToolCall("search", {"topic": "sums"}, id=f"call_{i}") for i in range(3))
    return Reply(text="Four." if called else "", tool_calls=calls, input_tokens=1000, output_tokens=200)


@WAYS
async def test_three_tools_at_once_on_a_budget_for_two(serve, handler, ledger, search, ran, way):
    far = serve(_three_searches)
    budget = handler(Budget(usd="0.0165", match={"tool": "search"}), prices=PRICES)
    with pytest.raises(BudgetExceeded):
        await _use(way, _agent(far, search), ASK, _config(budget))
    if way == "async":  # LangGraph ends with the first error; the tools that run go on
        await _until(lambda: len(read_back(ledger).entries) >= 3 and not read_back(ledger).holds)
    books = read_back(ledger)
    assert len(ran) <= 2, f"a budget for two uses let the body run {len(ran)} times"
    assert len(far.requests) == 1, "the refused run asked the model again"
    assert sum(booked for _, _, booked in _fees(books)) == 2 * FEE
    assert max(books.spent()) == 2 * FEE
    assert max(sum(held) for held in ran) <= 2 * FEE
    _clean(ledger)


async def _until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


@WAYS
async def test_tools_of_an_agent_are_charged_where_they_ran(serve, handler, ledger, search, way):
    far, run_id = serve(_three_searches), uuid.uuid4()
    budget = handler(Budget(usd="1"), prices=PRICES)
    await _use(
        way, _agent(far, search), ASK, _config(budget, run_id=run_id, metadata={"user_id": "alice", "job": "nightly"})
    )
    books = audit(far, ledger, requests=2, entries=5, usd="0.00054", exact=False)
    charges = [row for row in books.entries if row["kind"] == "charge"]
    assert {row["tool_call_id"] for row in charges} == CALL_IDS
    for row in charges:
        found = {name: row[name] for name in ("run_id", "user", "agent", "node", "tool", "framework")}
        assert found == {
            "run_id": str(run_id), "user": "alice", "agent": AGENT, "node": "tools", "tool": "search",
            "framework": "langchain",
        }  # fmt: skip
        assert row["metadata"] == {"job": "nightly"}
    assert books.spent() == [2 * UNIT + 3 * FEE]
    assert budget.summary().by("tool")["search"].cost_usd == 3 * FEE


def test_a_refused_tool_whose_error_is_swallowed_ends_the_run_all_the_same(serve, handler, ledger, search, ran):
    """The agent tells the model of the error; the model must not be asked."""
    from langchain.agents.middleware import wrap_tool_call
    from langchain_core.messages import ToolMessage

    @wrap_tool_call
    def swallow(request, run):
        try:
            return run(request)
        except Exception as error:
            return ToolMessage(str(error), tool_call_id=request.tool_call["id"])

    far = serve(_three_searches)
    budget = handler(Budget(usd="0.005"), prices=PRICES, reserve="none", listeners=[])
    budget.charge("0.005", name="all of it")
    with pytest.raises(BudgetExceeded):
        _agent(far, search, middleware=[swallow]).invoke(ASK, config=_config(budget))
    assert (len(far.requests), ran) == (0, [])
    tight = handler(Budget(usd="0.005", match={"tool": "search"}), prices=PRICES)
    with pytest.raises(BudgetExceeded):
        _agent(far, search, middleware=[swallow]).invoke(ASK, config=_config(tight))
    assert (len(far.requests), ran) == (1, []), "after a refused tool the model was asked again"


# -- one use, one charge


@pytest.mark.parametrize("name", ["renamed", None])
@WAYS
async def test_a_tool_keeps_its_price_under_another_run_name(handler, ledger, search, way, name):
    budget = handler(Budget(usd="1"), prices=PRICES)
    more = {} if name is None else {"run_name": name}
    await _use(way, search, {"topic": "sums"}, _config(budget, **more))
    assert _fees(read_back(ledger)) == [("priced", FEE, FEE)], "a name in the trace must not make a tool free"


def test_two_handlers_on_one_ledger_are_one_charge_and_two_limits(handler, ledger, search, ran):
    wide, tight = handler(Budget(usd="1"), prices=PRICES), handler(Budget(usd="0.009"), prices=PRICES)
    search.invoke({"topic": "sums"}, config=_config(wide, tight))
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=_config(wide, tight))
    books = read_back(ledger)
    assert _fees(books) == [("priced", FEE, FEE)]
    assert books.spent() == [FEE, FEE]
    assert (wide.summary().cost_usd, tight.summary().cost_usd, len(ran)) == (FEE, FEE, 1)
    search.invoke({"topic": "sums"}, config=_config(wide))
    assert read_back(ledger).spent() == [2 * FEE, FEE], "what one budget refused must not stay on the other"
    _clean(ledger)


def test_two_ledgers_each_have_their_charge(handler, ledger, tmp_path, search):
    other = tmp_path / "other.db"
    search.invoke(
        {"topic": "sums"},
        config=_config(
            handler(Budget(usd="1"), prices=PRICES),
            handler(Budget(usd="1"), prices={"tool/search": Price(request="0.01")}, ledger=other),
            handler(Budget(usd="1"), ledger=tmp_path / "third.db"),
        ),
    )
    assert _fees(read_back(ledger)) == [("priced", FEE, FEE)]
    assert _fees(read_back(other)) == [("priced", Decimal("0.01"), Decimal("0.01"))]
    assert _fees(read_back(tmp_path / "third.db")) == [], "a meter without a price for it does not charge"


@WAYS
async def test_a_handler_and_a_block_on_one_meter_are_one_charge(meter, ledger, search, ran, way):
    shared = meter(prices=PRICES)
    budget = BudgetCallbackHandler(shared, Budget(usd="1"))
    with pytest.raises(BudgetExceeded), track(Budget(usd="0.009"), meter=shared, user="bob") as run:
        await _use(way, search, {"topic": "sums"}, _config(budget))
        await _use(way, search, {"topic": "sums"}, _config(budget))
    books = read_back(ledger)
    assert _fees(books) == [("priced", FEE, FEE)]
    assert sorted(books.spent()) == [FEE, FEE], "the handler's and the block's balance"
    assert (run.summary().cost_usd, budget.summary().cost_usd, len(ran)) == (FEE, FEE, 1)
    assert (books.one()["user"], books.one()["run_id"]) == ("bob", run.id)


def test_a_tool_in_a_block_needs_no_handler(meter, ledger, search, ran):
    with pytest.raises(BudgetExceeded), track(Budget(usd="0.009"), meter=meter(prices=PRICES)) as run:
        search.invoke({"topic": "sums"})
        try:
            search.invoke({"topic": "sums"})
        except BudgetExceeded:
            pass  # the block's exit says it all the same
    assert (run.exceeded, len(ran), read_back(ledger).spent()) == (True, 1, [FEE])


def test_a_run_id_used_again_hides_no_fee(handler, ledger, search, ran):
    config = _config(handler(Budget(usd="0.0241"), prices=PRICES), run_id=uuid.uuid4())
    for _ in range(3):
        search.invoke({"topic": "sums"}, config=config)
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=config)
    assert _fees(read_back(ledger)) == [("priced", FEE, FEE)] * 3
    assert len(ran) == 3


def test_one_run_id_twice_at_once_leaves_no_hold_open(handler, ledger):
    inside, go_on = threading.Event(), threading.Event()

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        inside.set()
        assert go_on.wait(20)
        return "found"

    budget = handler(Budget(usd="1"), prices=PRICES)
    config = _config(budget, run_id=uuid.uuid4())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(search.invoke, {"topic": "sums"}, config)
        assert inside.wait(20)
        with pytest.raises(ConfigError, match="cannot be told apart"):
            search.invoke({"topic": "sums"}, config=config)
        go_on.set()
        assert first.result(20) == "found"
    assert _fees(read_back(ledger)) == [("priced", FEE, FEE)]
    _clean(ledger)


# -- the limit at the end of a tool


@WAYS
async def test_raise_at_the_end_of_a_tool_comes_after_the_commit_with_what_it_returned(handler, ledger, search, way):
    budget = handler(Budget(usd="0.007", at_limit="raise"), prices=PRICES, reserve="none")
    with pytest.raises(BudgetExceeded) as caught:
        await _use(way, search, {"topic": "sums"}, _config(budget))
    assert caught.value.response == "found sums", "what was paid for is on the exception"
    assert caught.value.entry.cost_usd == FEE
    books = read_back(ledger)
    assert (_fees(books), books.spent()) == ([("priced", FEE, FEE)], [FEE])
    assert budget.exceeded


@pytest.mark.parametrize("first", ["wide", "raising"])
def test_the_other_handlers_are_settled_too_when_one_raises_at_the_end(handler, ledger, search, first):
    wide = handler(Budget(usd="1"), prices=PRICES)
    raising = handler(Budget(usd="0.007", at_limit="raise"), prices=PRICES, reserve="none")
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=_config(*((wide, raising) if first == "wide" else (raising, wide))))
    books = read_back(ledger)
    assert (_fees(books), books.spent()) == ([("priced", FEE, FEE)], [FEE, FEE])
    assert raising.exceeded
    _clean(ledger)


def test_warn_stops_no_tool(handler, ledger, search, ran, caplog):
    budget = handler(Budget(usd="0.007", at_limit="warn"), prices=PRICES)
    for _ in range(3):
        search.invoke({"topic": "sums"}, config=_config(budget))
    assert (len(ran), read_back(ledger).spent()) == (3, [3 * FEE])


@pytest.mark.parametrize("first", ["wide", "raising"])
def test_a_raise_at_the_end_of_a_tool_leaves_no_hold_open_on_another_ledger(handler, ledger, tmp_path, search, first):
    """LangChain tells the second handler of no end when the first one raises there."""
    other = tmp_path / "other.db"
    wide = handler(Budget(usd="1"), prices=PRICES, ledger=other)
    raising = handler(Budget(usd="0.007", at_limit="raise"), prices=PRICES, reserve="none")
    with pytest.raises(BudgetExceeded):
        search.invoke({"topic": "sums"}, config=_config(*((wide, raising) if first == "wide" else (raising, wide))))
    for path in (ledger, other):
        assert _fees(read_back(path)) == [("priced", FEE, FEE)]
        _clean(path)


# -- retrievers


@WAYS
async def test_a_retrievers_fee(serve, handler, ledger, way):
    far = serve(ANSWER)
    budget = handler(Budget(usd="0.0045"), prices=PRICES)
    chain = DocsRetriever() | RunnableLambda(len)
    for _ in range(2):
        assert await _use(way, chain, "sums", _config(budget)) == 1
    with pytest.raises(BudgetExceeded):
        await _use(way, chain, "sums", _config(budget))
    books = read_back(ledger)
    fee = Decimal("0.002")
    assert _kinds(books) == [("charge", "retriever", "DocsRetriever", "priced")] * 2
    assert (_fees(books), len(far.requests)) == ([("priced", fee, fee)] * 2, 0)
    _clean(ledger)


@WAYS
async def test_a_retriever_keeps_its_price_under_another_run_name(handler, ledger, way):
    budget = handler(Budget(usd="1"), prices=PRICES)
    await _use(way, DocsRetriever(), "sums", _config(budget, run_name="knowledge"))
    assert _kinds(read_back(ledger)) == [("charge", "retriever", "DocsRetriever", "priced")]


@WAYS
async def test_a_retriever_that_fails_is_booked_at_its_fee(handler, ledger, way):
    budget = handler(Budget(usd="1"), prices=PRICES)
    with pytest.raises(RuntimeError, match="no index"):
        await _use(way, DocsRetriever(fails=True), "sums", _config(budget))
    assert _fees(read_back(ledger)) == [("unknown", None, Decimal("0.002"))]


@pytest.mark.parametrize("where", ["alone", "chain"])
async def test_a_cancelled_retriever_is_booked_at_its_fee(handler, ledger, where):
    """LangChain fires no event for it (1.8.3): the end of its task, or of its run, closes the hold."""
    budget = handler(Budget(usd="1"), prices=PRICES)
    slow = DocsRetriever(slow=True)
    runnable = slow if where == "alone" else RunnableLambda(slow.ainvoke)

    async def work():
        await runnable.ainvoke("sums", config=_config(budget))

    task = asyncio.create_task(work())
    await _until(lambda: read_back(ledger).holds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: not read_back(ledger).holds, 5)
    assert _fees(read_back(ledger)) == [("unknown", None, Decimal("0.002"))]


# -- charges that the user's code states


def test_a_charge_outside_and_inside_blocks(meter, ledger):
    shared = meter([Budget(usd="1")])
    shared.charge("0.5", name="gpu hour", user="carol", run="job-7", metadata={"region": "eu", "size": 3})
    with track(Budget(usd="1"), meter=shared, user="alice", metadata={"job": "nightly"}) as outer:
        shared.charge(Decimal("0.01"), name="search")
        with track(Budget(usd="1"), user="bob", metadata={"step": "two"}) as inner:
            shared.charge("0.02", name="search", metadata={"step": "mine"})
    books = read_back(ledger)
    assert [(row["kind"], row["provider"], row["model"], row["status"], row["cost_usd"]) for row in books.entries] == [
        ("charge", "charge", "gpu hour", "reported", "0.5"),
        ("charge", "charge", "search", "reported", "0.01"),
        ("charge", "charge", "search", "reported", "0.02"),
    ]
    assert [(row["user"], row["run_id"]) for row in books.entries] == [
        ("carol", "job-7"), ("alice", outer.id), ("bob", outer.id)]  # fmt: skip
    assert [row["metadata"] for row in books.entries] == [
        {"region": "eu", "size": "3"},
        {"job": "nightly"},
        {"job": "nightly", "step": "mine"},
    ]
    assert books.spent() == [Decimal("0.53"), Decimal("0.03"), Decimal("0.02")], "the meter, the outer, the inner block"
    assert (outer.summary().cost_usd, inner.summary().cost_usd) == (Decimal("0.03"), Decimal("0.02"))
    assert shared.summary(run="job-7").cost_usd == Decimal("0.5")
    assert shared.summary().cost_usd == Decimal("0.53")
    _clean(ledger)


def test_a_charge_counts_in_the_blocks_of_its_own_meter_only(meter, ledger, tmp_path):
    """And in the run that its model calls belong to, so that a budget per run counts both."""
    one, two = meter(), meter([Budget(usd="0.03", per="run")], ledger=tmp_path / "two.db")
    with track(Budget(usd="1"), meter=one) as outer, track(Budget(usd="1"), meter=two):
        one.charge("0.01", name="a")
        two.charge("0.02", name="b")
    assert read_back(ledger).spent() == [Decimal("0.01")]
    books = read_back(tmp_path / "two.db")
    assert books.spent() == [Decimal("0.02")] * 2
    assert books.one()["run_id"] == outer.id, "the outermost block is the run, whichever meter counts it"


def test_a_charge_and_the_calls_of_a_run_share_its_budget(serve, meter, ledger, tmp_path):
    far = serve(ANSWER)
    other = meter(ledger=tmp_path / "other.db")
    shared = meter([Budget(usd="0.0202", per="run")], reserve="none")
    budget = BudgetCallbackHandler(shared)
    with pytest.raises(BudgetExceeded), track(meter=other):
        chat(far).invoke(QUESTION, config=_config(budget))
        shared.charge("0.02", name="download")
        chat(far).invoke(QUESTION, config=_config(budget))
    assert read_back(ledger).spent() == [UNIT + Decimal("0.02")]
    assert len(far.requests) == 1


def test_a_charge_past_the_limit_is_booked_and_the_next_start_refused(serve, meter, ledger, caplog):
    far = serve(ANSWER)
    shared = meter([Budget(usd="0.01")])
    with caplog.at_level(logging.WARNING):
        entry = shared.charge("0.02", name="download")
    assert entry.cost_usd == Decimal("0.02"), "money that was spent is booked, whatever is left"
    assert any("0.02" in record.getMessage() for record in caplog.records), "crossing a limit is told"
    with pytest.raises(BudgetExceeded):
        chat(far).invoke(QUESTION, config=_config(BudgetCallbackHandler(shared)))
    shared.charge("0.03", name="download")
    assert (len(far.requests), read_back(ledger).spent()) == (0, [Decimal("0.05")])


def test_a_charge_that_crosses_a_limit_that_raises_closes_its_block(serve, meter, ledger):
    far = serve(ANSWER)
    with pytest.raises(BudgetExceeded), track(Budget(usd="0.01", at_limit="raise"), meter=meter()) as run:
        with pytest.raises(BudgetExceeded) as caught:
            run.meter.charge("0.02", name="download")
        assert caught.value.entry.cost_usd == Decimal("0.02")
        assert run.exceeded, "a crossing that was swallowed must be known to the block"
        with pytest.raises(BudgetExceeded):
            chat(far).invoke(QUESTION)
    assert (len(far.requests), read_back(ledger).spent()) == (0, [Decimal("0.02")])


def test_a_handlers_charge_that_crosses_is_known_to_the_handler(serve, handler, ledger):
    needs(LACKS_MODEL_ERROR)
    from langchain_core.exceptions import ModelError

    far = serve(ANSWER)
    budget = handler(Budget(usd="0.01", at_limit="raise"), Budget(usd="5"))
    with pytest.raises(BudgetExceeded) as caught:
        budget.charge("0.02", name="download")
    assert isinstance(caught.value, ModelError), "LangChain's retries must leave it alone"
    assert budget.exceeded
    with pytest.raises(BudgetExceeded):
        chat(far).invoke(QUESTION, config=_config(budget))
    assert (len(far.requests), read_back(ledger).spent()) == (0, [Decimal("0.02")] * 2)


@pytest.mark.parametrize(
    "usd",
    ["0", "-0.01", "nan", "inf", "-inf", "", "a lot", 0.008, float("nan"), None, True, "1e-13", "1e8", Decimal("NaN"), 0, -1],
    ids=repr,
)  # fmt: skip
def test_what_is_no_amount_is_refused_and_nothing_is_booked(handler, ledger, usd):
    budget = handler(Budget(usd="1"))
    for charge in (budget.charge, budget.meter.charge):
        with pytest.raises(ConfigError, match=r"charge\(usd"):
            charge(usd, name="download")
    assert read_back(ledger).entries == []


def test_the_smallest_amount_is_exact(meter, ledger):
    meter([Budget(usd="1")]).charge("0.000000000001", name="a grain")
    assert (read_back(ledger).one()["cost_pico"], read_back(ledger).spent()) == (1, [PICO])


def test_after_close_nothing_is_charged(handler, meter, ledger, search, ran):
    shared, budget = meter([Budget(usd="1")], prices=PRICES), handler(Budget(usd="1"), prices=PRICES)
    budget.close()
    shared.close()
    for charge in (budget.charge, shared.charge):
        with pytest.raises(ConfigError, match="closed"):
            charge("0.01", name="download")
    with pytest.raises(ConfigError, match="closed"):
        search.invoke({"topic": "sums"}, config=_config(budget))
    assert (ran, read_back(ledger).entries) == ([], [])


def test_a_handlers_charge_belongs_to_where_it_was_made(serve, handler, ledger):
    """In an agent's tool: run, user, agent, node, tool and its call; and the handler's own budgets."""

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        budget.charge("0.005", name="tavily", metadata={"pages": 3})
        return "found"

    far, run_id = serve(_three_searches), uuid.uuid4()
    budget = handler(Budget(usd="1"), Budget(usd="1", by=("agent", "tool"), name="by"), Budget(calls=2))
    _agent(far, search).invoke(ASK, config=_config(budget, run_id=run_id, metadata={"user_id": "alice"}))
    books = audit(far, ledger, requests=2, entries=5, usd="0.00054", exact=False)
    charges = [row for row in books.entries if row["kind"] == "charge"]
    for row in charges:
        found = {name: row[name] for name in ("run_id", "user", "agent", "node", "tool", "model", "framework")}
        assert found == {
            "run_id": str(run_id), "user": "alice", "agent": AGENT, "node": "tools", "tool": "search",
            "model": "tavily", "framework": "langchain",
        }  # fmt: skip
        assert row["metadata"] == {"pages": "3"}
    assert {row["tool_call_id"] for row in charges} == CALL_IDS
    spent = {row["scope"]: row["spent"] * PICO for row in books.balances if row["unit"] == "usd"}
    assert spent == {
        "[]": 2 * UNIT + Decimal("0.015"),
        f'["{AGENT or "(none)"}", "(none)"]': 2 * UNIT,
        f'["{AGENT or "(none)"}", "search"]': Decimal("0.015"),
    }
    assert budget.meter.summary(run=str(run_id)).cost_usd == 2 * UNIT + Decimal("0.015")


def test_a_handlers_charge_counts_in_a_block_around_it(meter, ledger):
    """As a model call there would."""
    shared = meter([Budget(usd="1")])
    budget = BudgetCallbackHandler(shared, Budget(usd="1"))
    with track(Budget(usd="1"), meter=shared, user="bob") as run:
        budget.charge("0.01", name="download")
    books = read_back(ledger)
    assert books.spent() == [Decimal("0.01")] * 3
    assert (books.one()["user"], books.one()["run_id"]) == ("bob", run.id)
    assert (run.summary().cost_usd, budget.summary().cost_usd) == (Decimal("0.01"), Decimal("0.01"))


def test_a_charge_alone_is_in_no_run(handler, ledger):
    handler(Budget(usd="1", per="run")).charge("0.01", name="download")
    books = read_back(ledger)
    assert (books.one()["run_id"], books.spent()) == (None, [Decimal("0.01")])


# -- prices that are none


@pytest.mark.parametrize(
    "prices",
    [
        {"tool/search": "free"},
        {"tool/search": Price(input="1", output="2")},
        {"tool/search": Price(request="0.008", input="1")},
        {"tool/": Price(request="0.008")},
        {"retriever/docs": "0.002"},
        {"reranker/cohere": Decimal("0.002")},
    ],
    ids=lambda prices: repr(next(iter(prices.items())))[:60],
)
def test_a_price_that_is_none_is_refused_at_construction(prices):
    with pytest.raises(ConfigError, match="what one use costs"):
        Meter(ledger=":memory:", prices=prices)


# -- when the ledger cannot be written


def test_a_charge_that_cannot_be_written_is_kept_and_written_later(meter, ledger, caplog):
    shared = meter([Budget(usd="1")])
    aside = ledger.with_suffix(".aside")
    shared.charge("0.01", name="first")
    ledger.rename(aside)
    with caplog.at_level(logging.ERROR):
        assert shared.charge("0.02", name="second") is None, "money that was spent is no error of the caller's"
    assert any("kept in memory" in record.getMessage() for record in caplog.records), "a cost not written is loud"
    assert not ledger.exists(), "a new, empty ledger would forget what was spent"
    aside.rename(ledger)
    shared.charge("0.03", name="third")
    books = read_back(ledger)
    assert sorted(row["model"] for row in books.entries) == ["first", "second", "third"]
    assert books.spent() == [Decimal("0.06")]
    shared.charge("0.04", name="fourth")
    assert read_back(ledger).spent() == [Decimal("0.10")], "what was kept was written twice"
    _clean(ledger)


def test_a_fee_that_cannot_be_written_at_its_end_is_written_later(handler, ledger):
    aside = ledger.with_suffix(".aside")

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        ledger.rename(aside)
        return "found"

    budget = handler(Budget(usd="1"), prices=PRICES)
    assert search.invoke({"topic": "sums"}, config=_config(budget)) == "found", "what was paid for was lost"
    aside.rename(ledger)
    assert (len(read_back(ledger).holds), read_back(ledger).entries) == (1, []), "its hold must stay until then"
    budget.close()
    assert _fees(read_back(ledger)) == [("priced", FEE, FEE)]
    _clean(ledger)


def test_with_the_ledger_deleted_no_priced_tool_runs(handler, ledger, search, ran):
    budget = handler(Budget(usd="1"), prices=PRICES)
    ledger.unlink()
    with pytest.raises(LedgerError, match="deleted"):
        search.invoke({"topic": "sums"}, config=_config(budget))
    assert (ran, ledger.exists()) == ([], False)


# -- a process that dies, and a handler that is closed, while a tool runs


def test_the_fee_of_a_killed_process_is_booked_by_the_next(meter, ledger):
    durable = Budget(usd="1", per="total", by="tool", name="total")

    @tool
    def search(topic: str) -> str:
        """Search the web, and never come back."""
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        budget = BudgetCallbackHandler(durable, ledger=ledger, prices=PRICES)
        search.invoke({"topic": "sums"}, config=_config(budget, metadata={"user_id": "alice"}))

    assert wait(fork(work)) == -signal.SIGKILL
    books = read_back(ledger)
    assert (books.entries, len(books.holds)) == ([], 1)
    shared = meter([durable], prices=PRICES)  # opening sweeps
    books = read_back(ledger)
    assert _kinds(books) == [("charge", "tool", "search", "unknown")]
    assert _fees(books) == [("unknown", None, FEE)]
    assert (books.holds, books.spent()) == ([], [FEE])
    assert (books.one()["user"], books.one()["tool"]) == ("alice", "search")
    assert json.loads(books.one()["path"])[-1][1] == "search"
    (left,) = shared.balances(tool="search")
    assert (left.spent, left.remaining) == (FEE, 1 - FEE)
    assert shared.summary(run=books.one()["run_id"]).calls == 0, "a lost fee is no call"
    _clean(ledger)


def test_a_handler_closed_while_a_tool_runs_books_its_fee(meter, ledger):
    inside, go_on = threading.Event(), threading.Event()

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        inside.set()
        assert go_on.wait(20)
        return "found"

    budget = BudgetCallbackHandler(Budget(usd="1"), ledger=ledger, prices=PRICES)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(search.invoke, {"topic": "sums"}, _config(budget))
        assert inside.wait(20)
        budget.close()
        books = read_back(ledger)
        go_on.set()
        assert running.result(20) == "found"
    assert _fees(books) == [("unknown", None, FEE)], "nothing may count it later"
    assert books.holds == []
