"""Who a call belongs to (facts/llamaindex.md 6): run, step, agent, tool, user; bound where it starts."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from llama_index.core.tools import FunctionTool

from ai_budget_callbacks import Budget, BudgetExceeded, track
from ai_budget_callbacks.demo.loopback import Reply
from tests.llama.kit import QUESTION, chat, embedding, index_of, script
from tests.llama.own_workflows import SyncStep
from tests.support import llama_versions
from tests.support.audit import audit, read_back
from tests.support.llama_versions import LACKS_AGENTS, agents

ANSWER = Reply(text="Four.", input_tokens=1000, output_tokens=200)


def engine(far, *gates, **options):
    index = index_of()
    index._embed_model = embedding(far, *gates)
    return index.as_query_engine(llm=chat(far, *gates), **options)


def test_the_stages_of_a_query_are_steps_of_one_run(serve, meter, ledger):
    far, own = serve(script), meter()
    queries = engine(far)
    with track(meter=own) as run:
        queries.query(QUESTION)
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    assert books.column("node") == ["retrieve", "synthesize"]
    assert books.column("run_id") == [run.id] * 2
    assert set(run.summary().by("step")) == {"retrieve", "synthesize"}
    text = str(run.tree())
    classes = ("RetrieverQueryEngine", "VectorIndexRetriever", "CompactAndRefine")
    if not llama_versions.SPANS_NAME_CLASSES:
        classes = ("BaseQueryEngine", "BaseRetriever", "BaseSynthesizer")
    for name in map(".".join, zip(classes, ("query", "retrieve", "synthesize"), strict=True)):
        assert name in text


def test_without_a_block_the_outermost_method_is_the_run(serve, handler, ledger):
    far, gate = serve(script), handler(Budget(usd="0.50", per="run"))
    model, embeds = chat(far, gate), embedding(far, gate)
    model.complete("known from now on")
    embeds.get_text_embedding("known too")
    index = index_of()
    index._embed_model = embeds
    queries = index.as_query_engine(llm=model)
    for _ in range(2):
        queries.query(QUESTION)
    runs = read_back(ledger).column("run_id")[2:]
    assert runs[0] == runs[1] != runs[2] == runs[3]
    engine_class = "RetrieverQueryEngine" if llama_versions.SPANS_NAME_CLASSES else "BaseQueryEngine"
    assert runs[0].startswith(f"{engine_class}.query-")


async def test_agents_steps_and_tools_are_named(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far, inner = serve(script), []

    async def look_up(topic: str) -> str:
        """Look something up."""
        inner.append(topic)
        return str(await chat(far).acomplete("inside the tool"))

    tool = FunctionTool.from_defaults(async_fn=look_up, name="look_up")
    helper = agents.FunctionAgent(name="helper", description="d", llm=chat(far), tools=[tool])
    async with track(meter=meter(), user="alice") as run:
        await agents.AgentWorkflow(agents=[helper], root_agent="helper").run(QUESTION)
    books = audit(far, ledger, requests=3, entries=3, usd="0.00081")
    assert inner == ["sums"]
    assert books.column("agent") == ["helper", None, "helper"], "a tool's event of a workflow of agents names none"
    assert books.column("node") == ["run_agent_step", "call_tool", "run_agent_step"]
    assert books.column("tool") == [None, "look_up", None]
    assert books.column("tool_call_id")[1]
    assert books.column("user") == ["alice"] * 3
    assert run.summary().by("tool")["look_up"].calls == 1


async def test_a_sync_tool_in_a_thread_belongs_to_its_run(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far = serve(script)

    def look_up(topic: str) -> str:
        """Look something up."""
        return str(chat(far).complete("inside the tool"))

    agent = agents.FunctionAgent(
        name="helper", llm=chat(far), tools=[FunctionTool.from_defaults(fn=look_up, name="look_up")]
    )
    async with track(meter=meter()) as run:
        await agent.run(QUESTION)
    books = audit(far, ledger, requests=3, entries=3, usd="0.00081")
    assert books.column("run_id") == [run.id] * 3
    assert books.column("agent")[0] == "helper"
    assert books.column("tool")[1] == "look_up"


async def test_a_sync_step_in_a_thread_belongs_to_its_run(serve, meter, ledger):
    llama_versions.needs(llama_versions.LACKS_STEP_CONTEXT)
    far = serve(script)
    workflow = SyncStep()
    workflow.llm = chat(far)
    async with track(meter=meter(), user="erin") as run:
        await workflow.run(question=QUESTION)
    entry = audit(far, ledger, requests=1, entries=1, usd="0.00027").one()
    assert (entry["run_id"], entry["user"], entry["node"]) == (run.id, "erin", "ask")


async def test_two_runs_of_one_agent_at_once_stay_apart(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far, own = serve(script), meter()
    agent = agents.FunctionAgent(llm=chat(far), tools=[])

    async def one(user):
        async with track(meter=own, user=user) as run:
            await agent.run(QUESTION)
        return run.id

    ids = await asyncio.gather(one("a"), one("b"))
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert sorted(zip(books.column("user"), books.column("run_id"), strict=True)) == [("a", ids[0]), ("b", ids[1])]


async def test_an_agent_started_inside_a_block_and_awaited_outside_belongs_to_it(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far = serve(script)
    agent = agents.FunctionAgent(llm=chat(far), tools=[])
    async with track(meter=meter()) as run:
        running = agent.run(QUESTION)
        await asyncio.sleep(0)
    await running
    books = read_back(ledger)
    assert len(far.requests) == 1
    assert {row["run_id"] for row in books.entries} == {run.id}
    assert books.booked_usd == far.billed_usd


def test_a_chat_engine_that_answers_from_a_thread_belongs_to_the_block(serve, meter, ledger):
    far = serve(script)
    chats = index_of().as_chat_engine(chat_mode="context", llm=chat(far))
    with track(meter=meter(), user="bob") as run:
        answer = chats.stream_chat(QUESTION)
        for _ in answer.response_gen:
            pass
    entry = audit(far, ledger, requests=1, entries=1, usd="0.00027").one()
    step = "chat" if llama_versions.CHATS_FROM_A_THREAD else "synthesize"
    assert (entry["run_id"], entry["user"], entry["node"]) == (run.id, "bob", step)


def test_a_streaming_engine_read_after_the_block_needs_wrap(serve, meter, ledger):
    far, own = serve(script), meter()
    queries = engine(far, streaming=True)
    with track(meter=own, user="carol") as run:
        wrapped = run.wrap(queries.query(QUESTION).response_gen)
    for _ in wrapped:
        pass
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    assert books.column("user") == ["carol"] * 2
    assert books.column("run_id") == [run.id] * 2


def test_a_refusal_inside_a_wrapped_stream_is_raised_to_its_reader(serve, meter, ledger):
    far, own = serve(script), meter()
    queries = engine(far, streaming=True)
    if not llama_versions.ENGINES_ASK_WHEN_READ:  # there is no stream then
        with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=own):
            queries.query(QUESTION)
    else:
        with track(Budget(calls=1), meter=own) as run:
            wrapped = run.wrap(queries.query(QUESTION).response_gen)
        with pytest.raises(BudgetExceeded):
            list(wrapped)
    audit(far, ledger, requests=1, entries=1, exact=False)


def test_plain_threads_and_pools_are_reached_by_bind(serve, meter, ledger):
    far, own = serve(ANSWER), meter()
    model = chat(far)
    with track(meter=own) as run:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run.bind(model.complete), ["a", "b", "c"]))
        thread = threading.Thread(target=run.bind(model.complete), args=("d",))
        thread.start()
        thread.join()
    books = audit(far, ledger, requests=4, entries=4, usd="0.00108")
    assert books.column("run_id") == [run.id] * 4


def test_a_charge_in_a_tool_belongs_to_it(serve, handler, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far, gate = serve(script), handler(Budget(usd="0.50"))

    def look_up(topic: str) -> str:
        """Look something up."""
        gate.charge("0.008", name="search", user="dora")
        return topic

    agent = agents.FunctionAgent(
        name="helper", llm=chat(far, gate), tools=[FunctionTool.from_defaults(fn=look_up, name="look_up")]
    )
    asyncio.run(_run(agent))
    charge = next(row for row in read_back(ledger).entries if row["kind"] == "charge")
    assert (charge["cost_usd"], charge["tool"], charge["user"]) == ("0.008", "look_up", "dora")


async def _run(agent):
    return await agent.run(QUESTION)
