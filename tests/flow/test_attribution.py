"""Whose money was it: run, thread, agent, node, tool, user, metadata; and which budgets a call counts on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from ai_budget_callbacks import Budget, BudgetExceeded, ConfigError, track
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from ai_budget_callbacks.events import BudgetWarning
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import audit, chat, read_back
from tests.support.provider import FarEnd
from tests.support.versions import SAYS_AGENT, SAYS_AGENT_BESIDE_METADATA, SAYS_TOOL_CALL_ID

QUESTION = "What is two plus two?"
ASK = {"messages": [("human", QUESTION)]}
ANSWER = Reply(text="Four.", input_tokens=1000, output_tokens=200)  # $0.00027
UNIT = Decimal("0.00027")


def _config(*callbacks, **more):
    return {"callbacks": list(callbacks), **more}


def _usd(calls):
    return str(calls * UNIT)


def _script(request):
    """An offered tool is called once, then text. Every answer costs $0.00027."""
    offered = request.body.get("tools") or []
    called = any(message.get("role") == "tool" for message in request.body["messages"])
    calls = (
        (ToolCall(offered[0]["function"]["name"], {"topic": "sums"}, id="call_7"),) if offered and not called else ()
    )
    return Reply(text="" if calls else "Four.", tool_calls=calls, input_tokens=1000, output_tokens=200)


class _State(TypedDict):
    said: str


# -- run, thread, node


def test_a_chains_calls_belong_to_its_root_run(serve, handler, ledger):
    far = serve(ANSWER)
    model, budget, run_id = chat(far), handler(Budget(usd="1")), uuid.uuid4()
    chain = RunnableLambda(lambda q: model.invoke(q)) | RunnableLambda(lambda m: model.invoke(m.text))
    chain.invoke(QUESTION, config=_config(budget, run_id=run_id))
    model.invoke(QUESTION, config=_config(budget))
    books = audit(far, ledger, requests=3, entries=3, usd=_usd(3))
    assert books.column("run_id")[:2] == [str(run_id)] * 2, "calls of a chain belong to the run of its root"
    assert books.column("run_id")[2] == books.column("call_id")[2], "a lone call is its own run"
    assert budget.meter.summary(run=str(run_id)).cost_usd == 2 * UNIT, "a run's cost must be askable by its id"


async def test_async_fan_out_belongs_to_the_same_run(serve, handler, ledger):
    far = serve(ANSWER)
    model, budget, run_id = chat(far), handler(Budget(usd="1")), uuid.uuid4()

    async def both(question):
        return await asyncio.gather(model.ainvoke(question), asyncio.create_task(model.ainvoke(question)))

    await RunnableLambda(both).ainvoke(QUESTION, config=_config(budget, run_id=run_id))
    books = audit(far, ledger, requests=2, entries=2, usd=_usd(2))
    assert books.column("run_id") == [str(run_id)] * 2


def test_a_graphs_calls_know_their_thread_and_node(serve, handler, ledger):
    far = serve(ANSWER)
    model = chat(far)
    graph = StateGraph(_State)
    graph.add_node("plan", lambda _: {"said": model.invoke(QUESTION).text})
    graph.add_node("write", lambda _: {"said": model.invoke(QUESTION).text})
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "write")
    graph.add_edge("write", END)
    app = graph.compile(checkpointer=InMemorySaver())
    budget = handler(Budget(usd="1"))
    for thread in ("t1", "t2"):
        app.invoke({"said": ""}, config=_config(budget, configurable={"thread_id": thread}))
    books = audit(far, ledger, requests=4, entries=4, usd=_usd(4))
    assert books.column("thread") == ["t1", "t1", "t2", "t2"], f"threads: {books.column('thread')}"
    assert books.column("node") == ["plan", "write", "plan", "write"], f"nodes: {books.column('node')}"
    assert len(set(books.column("run_id"))) == 2, "two invokes of a graph are two runs"


@pytest.mark.parametrize("name", ["summarise", "modelling", "Promptly answer"])
def test_a_named_step_of_a_chain_is_its_node(serve, handler, ledger, name):
    far = serve(ANSWER)
    model = chat(far)
    chain = RunnableLambda(lambda q: model.invoke(q)).with_config(run_name=name)
    chain.invoke(QUESTION, config=_config(handler(Budget(usd="1"))))
    assert audit(far, ledger, requests=1, entries=1, usd=_usd(1)).one()["node"] == name


# -- agents and tools


def test_an_agent_its_tool_and_its_sub_agent(serve, handler, ledger):
    """boss calls a tool, the tool runs another agent, that agent calls its own tool, which asks a model."""
    far = serve(_script)
    model = chat(far)

    @tool
    def dig(topic: str) -> str:
        """Ask a model."""
        return model.invoke(topic).text

    researcher = create_agent(chat(far), [dig], name="researcher")

    @tool
    def research(topic: str) -> str:
        """Ask the researcher."""
        return researcher.invoke({"messages": [("human", topic)]})["messages"][-1].text

    boss = create_agent(chat(far), [research], name="boss")
    budget, run_id = handler(Budget(usd="1")), uuid.uuid4()
    boss.invoke(ASK, config=_config(budget, run_id=run_id, metadata={"user_id": "alice"}))
    books = audit(far, ledger, requests=5, entries=5, usd=_usd(5))
    # boss asks; researcher asks; the model in the researcher's tool; researcher ends; boss ends
    outer, inner = "boss" if SAYS_AGENT_BESIDE_METADATA else None, "researcher" if SAYS_AGENT else None
    assert books.column("agent") == [outer, inner, inner, inner, outer]
    assert books.column("tool") == [None, "research", "dig", "research", None]
    ids = [None, "call_7", "call_7", "call_7", None]
    assert books.column("tool_call_id") == (ids if SAYS_TOOL_CALL_ID else [None] * 5)
    assert books.column("node") == ["model", "model", "tools", "model", "model"]
    assert set(books.column("run_id")) == {str(run_id)}, "a sub-agent's calls belong to the outer run"
    assert set(books.column("user")) == {"alice"}, "metadata reaches every descendant"
    spent = {name: totals.cost_usd for name, totals in budget.summary().by("agent").items()}
    by_agent = {outer or "(none)": 2 * UNIT, inner or "(none)": 3 * UNIT} if inner else {"(none)": 5 * UNIT}
    assert spent == by_agent, f"the summary by agent says {spent}"


async def test_parallel_tools_keep_their_own_call_ids(serve, handler, ledger):
    def script(request):
        first = request.body.get("tools") and not any(m.get("role") == "tool" for m in request.body["messages"])
        calls = tuple(ToolCall("dig", {"topic": "sums"}, id=f"call_{i}") for i in range(3)) if first else ()
        return Reply(text="" if calls else "Four.", tool_calls=calls, input_tokens=1000, output_tokens=200)

    far = serve(script)
    model = chat(far)

    @tool
    async def dig(topic: str) -> str:
        """Ask a model."""
        return (await model.ainvoke(topic)).text

    await create_agent(chat(far), [dig], name="boss").ainvoke(ASK, config=_config(handler(Budget(usd="1"))))
    books = audit(far, ledger, requests=5, entries=5, usd=_usd(5))
    inside = {row["tool_call_id"] for row in books.entries if row["tool"] == "dig"}
    assert inside == ({"call_0", "call_1", "call_2"} if SAYS_TOOL_CALL_ID else {None}), (
        f"three tools ran at once, their calls say {inside}"
    )


def test_budgets_by_agent_and_tool(serve, handler, ledger):
    far = serve(_script)
    model = chat(far)

    @tool
    def dig(topic: str) -> str:
        """Ask a model."""
        return model.invoke(topic).text + model.invoke(topic).text

    agent = create_agent(chat(far), [dig], name="boss")
    budget = handler(Budget(calls=1, match={"tool": "dig"}), Budget(calls=10, by=("agent", "tool")))
    with pytest.raises(BudgetExceeded):
        agent.invoke(ASK, config=_config(budget))  # boss asks, dig asks once, dig's second is refused
    books = audit(far, ledger, requests=2, entries=2, usd=_usd(2))
    scopes = {row["scope"]: row["spent"] for row in books.balances if row["scope"] != "[]"}
    name = "boss" if SAYS_AGENT else "(none)"
    assert scopes == {f'["{name}", "(none)"]': 1, f'["{name}", "dig"]': 1}, f"balances by agent and tool: {scopes}"


# -- users and metadata


def test_users_come_from_metadata_or_from_the_block(serve, handler, meter, ledger):
    far = serve(ANSWER)
    counted = meter()
    chat(far).invoke(QUESTION, config=_config(handler(), metadata={"user_id": "alice"}))
    with track(meter=counted, user="bob", metadata={"job": "nightly"}):
        chat(far).invoke(QUESTION)
        chat(far).invoke(QUESTION, config={"metadata": {"user_id": "carol", "feature": "search"}})
        with track(user="dave", metadata={"job": "inner", "more": 7}):
            chat(far).invoke(QUESTION)
    books = audit(far, ledger, requests=4, entries=4, usd=_usd(4))
    assert books.column("user") == ["alice", "bob", "carol", "dave"]
    assert books.column("metadata") == [
        None,
        {"job": "nightly"},
        {"job": "nightly", "feature": "search"},
        {"job": "inner", "more": "7"},
    ]


def test_a_budget_by_a_metadata_key(serve, handler, ledger):
    far = serve(ANSWER)
    budget, model = handler(Budget(calls=1, by="tenant")), chat(far)
    model.invoke(QUESTION, config=_config(budget, metadata={"tenant": "acme"}))
    model.invoke(QUESTION, config=_config(budget, metadata={"tenant": "globex"}))
    with pytest.raises(BudgetExceeded, match="acme"):
        model.invoke(QUESTION, config=_config(budget, metadata={"tenant": "acme"}))
    model.invoke(QUESTION, config=_config(budget))  # without the key it counts under "(none)"
    books = audit(far, ledger, requests=3, entries=3, usd=_usd(3))
    assert sorted(row["scope"] for row in books.balances) == ['["(none)"]', '["acme"]', '["globex"]']


def test_durable_user_budgets_outlive_the_handler(serve, handler, meter, ledger):
    far = serve(ANSWER)
    budget = Budget(calls=2, per="total", by="user", name="user-total")
    model = chat(far)
    for number in range(2):
        made = handler(budget)
        model.invoke(QUESTION, config=_config(made, metadata={"user_id": "alice"}))
        if number == 0:
            made.close()
    with pytest.raises(BudgetExceeded, match="alice"):
        model.invoke(QUESTION, config=_config(handler(budget), metadata={"user_id": "alice"}))
    model.invoke(QUESTION, config=_config(made, metadata={"user_id": "bob"}))
    audit(far, ledger, requests=3, entries=3, usd=_usd(3))
    left = {view.scope: (view.spent, view.remaining) for view in meter(budget).balances()}
    assert left == {("alice",): (2, 0), ("bob",): (1, 1)}, f"another meter on the file must see what was spent: {left}"


# -- which budgets a call counts on


def test_every_run_has_its_own_budget(serve, handler, ledger):
    far = serve(ANSWER)
    model = chat(far)
    budget = handler(Budget(calls=2, per="run"))

    def ask(times):
        for _ in range(times):
            model.invoke(QUESTION)

    chain = RunnableLambda(ask)
    for _ in range(3):
        chain.invoke(2, config=_config(budget))
    with pytest.raises(BudgetExceeded):
        chain.invoke(3, config=_config(budget))
    chain.invoke(1, config=_config(budget))
    books = audit(far, ledger, requests=9, entries=9, usd=_usd(9))
    assert books.spent("calls") == [2, 2, 2, 2, 1], f"each root invoke has a balance of its own: {books.spent('calls')}"


def test_a_handler_in_a_constructor_counts_under_itself(serve, handler, ledger):
    """Its parents are unseen, so "per run" is not "per call": all its calls inside chains share one balance."""
    far = serve(ANSWER)
    budget = handler(Budget(calls=3, per="run"))
    model = chat(far, callbacks=[budget])
    chain = RunnableLambda(lambda q: model.invoke(q)) | RunnableLambda(lambda m: model.invoke(m.text))
    chain.invoke(QUESTION)
    with pytest.raises(BudgetExceeded):
        chain.invoke(QUESTION)
    audit(far, ledger, requests=3, entries=3, usd=_usd(3))


def test_a_constructor_handler_is_seen_everywhere(serve, handler, ledger):
    far = serve(ANSWER)
    budget = handler(Budget(calls=10))
    model = chat(far, callbacks=[budget])
    model.invoke(QUESTION)
    model.invoke(QUESTION, config={"callbacks": []})
    model.generate_prompt([_prompt()])
    thread = threading.Thread(target=model.invoke, args=(QUESTION,))
    thread.start()
    thread.join()
    audit(far, ledger, requests=4, entries=4, usd=_usd(4))


def _prompt():
    from langchain_core.prompts import ChatPromptTemplate

    return ChatPromptTemplate.from_messages([("human", QUESTION)]).invoke({})


def test_nested_blocks_are_nested_budgets(serve, meter, ledger):
    far = serve(ANSWER)
    model, counted = chat(far), meter()
    with pytest.raises(BudgetExceeded), track(Budget(calls=3), meter=counted) as outer:
        with pytest.raises(BudgetExceeded), track(Budget(calls=2)) as inner:
            for _ in range(3):
                model.invoke(QUESTION)  # the third is refused by the inner block
        assert inner.exceeded and not outer.exceeded, "a refused inner block must not exceed the outer one"
        model.invoke(QUESTION)  # the outer block has one left
        with pytest.raises(BudgetExceeded):
            model.invoke(QUESTION)
        assert outer.exceeded
    books = audit(far, ledger, requests=3, entries=3, usd=_usd(3))
    assert sorted(books.spent("calls")) == [2, 3], f"both balances count their calls: {books.spent('calls')}"
    assert (outer.summary().calls, inner.summary().calls) == (3, 2)
    assert outer.summary().cost_usd == 3 * UNIT


def test_two_handlers_on_one_ledger_are_one_entry_and_two_limits(serve, handler, ledger):
    far = serve(ANSWER)
    wide, tight = handler(Budget(calls=5)), handler(Budget(calls=2))
    model = chat(far)
    for _ in range(2):
        model.invoke(QUESTION, config=_config(wide, tight))
    with pytest.raises(BudgetExceeded):
        model.invoke(QUESTION, config=_config(wide, tight))
    books = audit(far, ledger, requests=2, entries=2, usd=_usd(2))
    assert books.spent("calls") == [2, 2], f"both handlers count both calls: {books.spent('calls')}"
    assert (wide.summary().calls, tight.summary().calls) == (2, 2)
    for _ in range(3):
        model.invoke(QUESTION, config=_config(wide))
    with pytest.raises(BudgetExceeded):
        model.invoke(QUESTION, config=_config(wide))
    audit(far, ledger, requests=5, entries=5, usd=_usd(5))


async def test_two_handlers_on_one_ledger_async(serve, handler, ledger):
    far = serve(ANSWER)
    wide, tight = handler(Budget(calls=50)), handler(Budget(calls=5))
    got = await chat(far).abatch([QUESTION] * 10, config=_config(wide, tight), return_exceptions=True)
    assert sum(isinstance(item, BudgetExceeded) for item in got) == 5
    books = audit(far, ledger, requests=5, entries=5, usd=_usd(5))
    assert books.spent("calls") == [5, 5], f"what one budget refused must not stay on the other: {books.spent('calls')}"


def test_two_ledgers_each_have_their_entry(serve, handler, tmp_path, ledger):
    far = serve(ANSWER)
    first, second = handler(Budget(calls=5)), handler(Budget(calls=1), ledger=tmp_path / "other.db")
    chat(far).invoke(QUESTION, config=_config(first, second))
    with pytest.raises(BudgetExceeded):
        chat(far).invoke(QUESTION, config=_config(first, second))
    audit(far, ledger, requests=1, entries=1, usd=_usd(1))
    audit(far, tmp_path / "other.db", requests=1, entries=1, usd=_usd(1))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_attached_everywhere_a_call_is_one_entry(serve, handler, meter, ledger, is_async):
    far = serve(ANSWER)
    budget = handler(Budget(calls=5))
    model = chat(far, callbacks=[budget])
    chain = RunnableLambda(lambda q: model.invoke(q), lambda q: model.ainvoke(q))
    with track(Budget(calls=5), meter=meter()) as run:
        for _ in range(2):
            config = _config(budget)
            await chain.ainvoke(QUESTION, config=config) if is_async else chain.invoke(QUESTION, config=config)
    books = audit(far, ledger, requests=2, entries=2, usd=_usd(2))
    assert books.spent("calls") == [2, 2], f"the handler's and the block's balance: {books.spent('calls')}"
    assert (run.summary().calls, budget.summary().calls) == (2, 2)


@pytest.mark.parametrize("first", ["wide", "raising"])
def test_the_second_handlers_limit_raises_at_the_end_too(serve, handler, ledger, first):
    """One entry settled to the union: every handler's crossing and warnings must be seen, whichever settles first."""
    far, events = serve(ANSWER), []
    wide = handler(Budget(usd="5"))
    raising = handler(Budget(usd="0.0002", at_limit="raise"), reserve="none", listeners=[events.append])
    order = (wide, raising) if first == "wide" else (raising, wide)
    with pytest.raises(BudgetExceeded) as caught:
        chat(far).invoke(QUESTION, config=_config(*order))
    assert caught.value.response is not None
    books = audit(far, ledger, requests=1, entries=1, usd=_usd(1))
    assert books.spent() == [UNIT, UNIT], f"both balances count the call: {books.spent()}"
    assert raising.exceeded
    assert [event.fraction for event in events if isinstance(event, BudgetWarning)] == ["0.8"], "its warning was lost"


def test_a_blocks_limit_raises_at_the_end_beside_a_handler(serve, handler, meter, ledger):
    far = serve(ANSWER)
    with (
        pytest.raises(BudgetExceeded),
        track(Budget(usd="0.0002", at_limit="raise"), meter=meter(reserve="none")) as run,
    ):
        chat(far).invoke(QUESTION, config=_config(handler(Budget(usd="5"))))
    assert run.exceeded, "the block's own budget was crossed"
    audit(far, ledger, requests=1, entries=1, usd=_usd(1))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_run_id_given_twice_hides_no_call(serve, handler, ledger, is_async):
    """A config that is used again carries the same run id; each answer was paid for."""
    far = serve(ANSWER)
    config = _config(handler(Budget(calls=3)), run_id=uuid.uuid4())
    for _ in range(3):
        await chat(far).ainvoke(QUESTION, config=config) if is_async else chat(far).invoke(QUESTION, config=config)
    books = audit(far, ledger, requests=3, entries=3, usd=_usd(3))
    assert books.spent("calls") == [3]
    with pytest.raises(BudgetExceeded):
        chat(far).invoke(QUESTION, config=config)
    audit(far, ledger, requests=3, entries=3, usd=_usd(3))


# -- track() in all its forms


async def test_async_blocks_do_not_mix(serve, meter, ledger):
    far = serve(ANSWER)
    counted, model = meter(), chat(far)

    async def work(user, times):
        async with track(Budget(calls=5), meter=counted, user=user) as run:
            for _ in range(times):
                await model.ainvoke(QUESTION)
        return run.summary().calls

    assert await asyncio.gather(work("alice", 1), work("bob", 3)) == [1, 3], "blocks of two tasks mixed up their calls"
    books = audit(far, ledger, requests=4, entries=4, usd=_usd(4))
    assert sorted(books.column("user")) == ["alice", "bob", "bob", "bob"]


def test_each_call_of_a_decorated_function_is_its_own_block(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)

    @track(Budget(calls=2), meter=meter(), user="alice")
    def ask(times):
        return [model.invoke(QUESTION).text for _ in range(times)]

    assert ask(2) == ["Four."] * 2
    assert ask(2) == ["Four."] * 2, "a second call of the function has a budget of its own"
    with pytest.raises(BudgetExceeded):
        ask(3)
    books = audit(far, ledger, requests=6, entries=6, usd=_usd(6))
    assert books.spent("calls") == [2, 2, 2]
    assert len(set(books.column("run_id"))) == 3


async def test_a_decorated_coroutine_function(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)

    @track(Budget(calls=1), meter=meter())
    async def ask(times):
        return [(await model.ainvoke(QUESTION)).text for _ in range(times)]

    assert await asyncio.gather(ask(1), ask(1)) == [["Four."], ["Four."]]
    with pytest.raises(BudgetExceeded):
        await ask(2)
    books = audit(far, ledger, requests=3, entries=3, usd=_usd(3))
    assert books.spent("calls") == [1, 1, 1]


def test_a_generator_function_cannot_be_decorated(meter):
    with pytest.raises(ConfigError, match="generator"):

        @track(Budget(calls=1), meter=meter())
        def ask():
            yield 1


def test_a_block_keeps_its_own_exception(serve, meter, ledger):
    far = serve(ANSWER)
    with pytest.raises(ZeroDivisionError, match="mine"), track(Budget(calls=1), meter=meter()) as run:
        chat(far).invoke(QUESTION)
        with pytest.raises(BudgetExceeded):
            chat(far).invoke(QUESTION)
        raise ZeroDivisionError("mine")
    assert run.exceeded
    audit(far, ledger, requests=1, entries=1, usd=_usd(1))


def test_a_block_that_swallows_its_refusal_raises_at_its_exit(serve, meter, ledger):
    far = serve(ANSWER)
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter()):
        chat(far).invoke(QUESTION)
        with pytest.raises(BudgetExceeded):
            chat(far).invoke(QUESTION)
    audit(far, ledger, requests=1, entries=1, usd=_usd(1))


def test_a_block_used_up_exactly_is_no_failure(serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(usd="0.00054"), meter=meter()) as run:
        chat(far).invoke(QUESTION)
        chat(far).invoke(QUESTION)
    assert not run.exceeded
    assert run.summary().cost_usd == Decimal("0.00054")
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_block_sees_calls_that_bypass_config(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)
    with track(Budget(calls=5), meter=meter()) as run:
        model.invoke(QUESTION, config={"callbacks": []})
        model.generate_prompt([_prompt()])
    assert run.summary().calls == 2
    audit(far, ledger, requests=2, entries=2, usd=_usd(2))


def test_after_a_block_nothing_is_counted_for_it(serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(calls=5), meter=meter()) as run:
        chat(far).invoke(QUESTION)
    chat(far).invoke(QUESTION)  # outside: nobody asked for it to be counted
    assert run.summary().calls == 1
    audit(far, ledger, requests=2, entries=1, exact=False)


def test_a_stream_that_outlives_its_block_is_still_priced(serve, meter, ledger):
    """The block's end books it as unknown, its real end corrects that."""
    far = serve(Reply(text="one two three", input_tokens=1000, output_tokens=200))
    with track(Budget(usd="1"), meter=meter()) as run:
        stream = chat(far).stream(QUESTION)
        next(stream)
    assert list(stream)
    books = audit(far, ledger, requests=1, entries=2, usd=_usd(1))
    assert [row["kind"] for row in books.entries] == ["call", "adjustment"]
    assert books.spent() == [UNIT]
    assert (run.summary().calls, run.summary().cost_usd) == (1, UNIT), "a block's summary includes the correction"


# -- a process of its own: import order, install(), plain threads


OTHER_PROCESS = """
import json, sys, threading
url, early, late = sys.argv[1:]
from ai_budget_callbacks import Budget, BudgetExceeded, Meter, install, track

out = {"imported_first": "langchain_core" in sys.modules}
meter = Meter(ledger=early)
with track(Budget(calls=5), meter=meter, user="early") as run:
    out["imported_by_track"] = "langchain_core" in sys.modules
    from langchain_openai import ChatOpenAI
    model = ChatOpenAI(base_url=url, api_key="sk-x", model="gpt-4o-mini", max_retries=0)
    model.invoke("inside a block that was opened before LangChain was imported")
out["early"] = run.summary().calls

from langchain_core.runnables import RunnableLambda
from ai_budget_callbacks.events import BudgetWarning
from ai_budget_callbacks.langchain import BudgetCallbackHandler

def in_a_thread(question):
    found = []
    def work():
        try:
            found.append(model.invoke(question).text)
        except BudgetExceeded as refusal:
            found.append(type(refusal).__name__)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]

handler = BudgetCallbackHandler(Budget(calls=1), meter)
chain = RunnableLambda(in_a_thread)
out["unseen"] = [chain.invoke("plain thread", config={"callbacks": [handler]}) for _ in range(2)]
out["by_handler"] = handler.summary().calls
everything = Meter(Budget(calls=2), ledger=late)
install(everything)
out["seen"] = [in_a_thread("plain thread") for _ in range(3)]
out["installed"] = everything.summary().calls
try:
    model.invoke("main thread", config={"callbacks": []})
except BudgetExceeded:
    out["main"] = "refused"
meter.close(); everything.close()
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def other_process(tmp_path_factory, one_certificate):
    """Started with the module, so that its imports run beside the other tests."""
    folder = tmp_path_factory.mktemp("other")
    early, late = folder / "early.db", folder / "late.db"
    with FarEnd(ANSWER) as far:
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, far.base_url, str(early), str(late)],
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": str(one_certificate), "HOME": str(folder)},
        )
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        yield json.loads(out.splitlines()[-1]), far, early, late


def test_a_block_works_for_frameworks_imported_inside_it(other_process):
    out, _, early, _ = other_process
    assert not out["imported_first"] and not out["imported_by_track"], "importing the package imported a framework"
    assert out["early"] == 1, "the call was made inside the block and is not on its bill"
    entry = read_back(early).one()
    assert (entry["user"], entry["cost_usd"]) == ("early", "0.00027")


def test_plain_threads_are_seen_by_install_and_not_by_a_config_handler(other_process):
    out, far, _, late = other_process
    assert out["unseen"] == ["Four.", "Four."] and out["by_handler"] == 0, "a plain thread does not inherit config"
    assert out["seen"] == ["Four.", "Four.", "LangChainBudgetExceeded"], f"install() must limit threads: {out['seen']}"
    assert out["installed"] == 2
    assert out["main"] == "refused", "install() must reach calls that clear their callbacks"
    books = read_back(late)
    assert (books.statuses, books.booked_usd, books.holds) == (["priced", "priced"], 2 * UNIT, [])
    assert len(far.requests) == 5, f"1 in the block, 2 uncounted, 2 installed; {len(far.requests)} were sent"


def test_two_meters_in_one_process_can_count_the_same_call(serve, handler, meter, ledger):
    """A handler given a meter and a block given the same meter: one entry, both in their summaries."""
    far = serve(ANSWER)
    counted = meter(Budget(calls=5))
    budget = BudgetCallbackHandler(Budget(calls=3), counted)
    with track(Budget(calls=2), meter=counted) as run:
        chat(far).invoke(QUESTION, config=_config(budget))
    books = audit(far, ledger, requests=1, entries=1, usd=_usd(1))
    assert books.spent("calls") == [1, 1, 1], f"meter, handler and block each count the call: {books.spent('calls')}"
    assert (run.summary().calls, budget.summary().calls, counted.summary().calls) == (1, 1, 1)
