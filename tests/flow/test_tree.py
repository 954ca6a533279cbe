"""Where in the tree of chains, agents and tools the money went: the exact text, and sums that are those of the leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import uuid
from decimal import Decimal
from typing import TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

from ai_budget_callbacks import Budget, Price, track
from ai_budget_callbacks.calltree import Leaf, call_tree
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import audit, chat, read_back
from tests.support.books import fork, wait
from tests.support.versions import LACKS_MERGED_CONFIG, needs

QUESTION = "What is two plus two?"
ASK = {"messages": [("human", QUESTION)]}
ANSWER = Reply(text="Four.", input_tokens=1000, output_tokens=200)  # $0.00027 at gpt-4o-mini
RUN = uuid.UUID("01a20000-0000-7000-8000-000000000001")
FEES = {"tool/research": Price(request="0.008")}


def _script(request):
    """An offered tool is called once, then text. Every answer costs $0.00027."""
    offered = request.body.get("tools") or []
    called = any(message.get("role") == "tool" for message in request.body["messages"])
    names = [offered[0]["function"]["name"]] if offered and not called else []
    calls = tuple(ToolCall(name, {"topic": "sums"}, id="call_7") for name in names)
    return Reply(text="" if calls else "Four.", tool_calls=calls, input_tokens=1000, output_tokens=200)


def _config(*callbacks, run_id=RUN, **more):
    return {"callbacks": list(callbacks), "run_id": run_id, **more}


def _says(tree, text):
    """The tree's exact text; and everything in it adds up."""
    assert str(tree) == text.strip("\n"), f"the tree says\n{tree}"
    _adds_up(tree)


def _leaves(tree):
    for child in tree.children:
        if isinstance(child, Leaf):
            yield child.entry
        else:
            yield from _leaves(child)


def _adds_up(tree):
    """Every node's total is the sum of its leaves, counted here and not by the report."""
    entries = list(_leaves(tree))
    assert tree.totals.cost_pico == sum(entry.cost_pico or 0 for entry in entries), tree.name
    assert tree.totals.booked_pico == sum(entry.booked_pico or 0 for entry in entries), tree.name
    assert tree.totals.calls == sum(entry.kind == "call" for entry in entries), tree.name
    assert tree.totals.input_tokens == sum(entry.usage.input_tokens for entry in entries if entry.usage), tree.name
    for child in tree.children:
        if not isinstance(child, Leaf):
            _adds_up(child)


def _chain(far):
    model = chat(far)
    draft = RunnableLambda(lambda q: model.invoke(q)).with_config(run_name="draft")
    return draft | RunnableLambda(lambda m: model.invoke(m.text)).with_config(run_name="polish")


CHAIN = """
01a20000-0000-7000-8000-000000000001  2 calls  $0.00054
└─ RunnableSequence  2 calls  $0.00054
   ├─ draft  1 call  $0.00027
   │  └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
   └─ polish  1 call  $0.00027
      └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
"""


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_chain(serve, handler, ledger, way):
    far, budget = serve(ANSWER), handler(Budget(usd="1"))
    if way == "async":
        await _chain(far).ainvoke(QUESTION, config=_config(budget))
    else:
        _chain(far).invoke(QUESTION, config=_config(budget))
    audit(far, ledger, requests=2, entries=2, usd="0.00054")
    _says(budget.tree(), CHAIN)
    _says(call_tree(budget.meter.entries(run=str(RUN))), CHAIN)


def test_the_rows_of_a_chain(serve, handler):
    far, budget = serve(ANSWER), handler(Budget(usd="1"))
    _chain(far).invoke(QUESTION, config=_config(budget))
    rows = list(budget.tree().rows())
    assert [(row["depth"], row["name"], row["kind"], row["calls"], row["cost_usd"], row["status"]) for row in rows] == [
        (0, str(RUN), "node", 2, "0.00054", ""),
        (1, "RunnableSequence", "node", 2, "0.00054", ""),
        (2, "draft", "node", 1, "0.00027", ""),
        (3, "gpt-4o-mini", "call", 1, "0.00027", "priced"),
        (2, "polish", "node", 1, "0.00027", ""),
        (3, "gpt-4o-mini", "call", 1, "0.00027", "priced"),
    ]
    assert [row["entry"] for row in rows] == ["", "", "", 1, "", 2]
    assert all(row.keys() == rows[0].keys() for row in rows), "a CSV needs the same columns in every row"


def _two_agents(far, *inner):
    """boss calls the tool research, which runs the agent researcher, whose tool dig asks a model."""
    model = chat(far)

    @tool
    def dig(topic: str) -> str:
        """Ask a model."""
        return model.invoke(topic).text

    researcher = create_agent(chat(far), [dig], name="researcher").with_config(callbacks=list(inner))

    @tool
    def research(topic: str) -> str:
        """Ask the researcher."""
        return researcher.invoke({"messages": [("human", topic)]})["messages"][-1].text

    return create_agent(chat(far), [research], name="boss")


OUTER = """
01a20000-0000-7000-8000-000000000001  5 calls  $0.00935
└─ boss  5 calls  $0.00935
   ├─ model  1 call  $0.00027
   │  └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
   ├─ tools  3 calls  $0.00881
   │  └─ research  3 calls  $0.00881
   │     ├─ researcher  3 calls  $0.00081
   │     │  ├─ model  1 call  $0.00027
   │     │  │  └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
   │     │  ├─ tools  1 call  $0.00027
   │     │  │  └─ dig  1 call  $0.00027
   │     │  │     └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
   │     │  └─ model  1 call  $0.00027
   │     │     └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
   │     └─ charge: research  $0.008
   └─ model  1 call  $0.00027
      └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
"""

INNER = """
01a20000-0000-7000-8000-000000000001  3 calls  $0.00081
└─ boss  3 calls  $0.00081
   └─ tools  3 calls  $0.00081
      └─ research  3 calls  $0.00081
         └─ researcher  3 calls  $0.00081
            ├─ model  1 call  $0.00027
            │  └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
            ├─ tools  1 call  $0.00027
            │  └─ dig  1 call  $0.00027
            │     └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
            └─ model  1 call  $0.00027
               └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
"""


def test_an_agent_with_a_sub_agent_that_has_a_budget_of_its_own(serve, meter, ledger):
    """One ledger: each handler's tree shows the calls it saw, at the place they have in the whole run."""
    needs(LACKS_MERGED_CONFIG)  # the outer handler is not told of an agent that has callbacks of its own
    far, shared = serve(_script), meter(prices=FEES)
    outer, inner = BudgetCallbackHandler(shared, Budget(usd="1")), BudgetCallbackHandler(shared, Budget(usd="1"))
    _two_agents(far, inner).invoke(ASK, config=_config(outer))
    books = audit(far, ledger, requests=5, entries=6, usd="0.00135", exact=False)
    assert books.spent() == [Decimal("0.00935"), Decimal("0.00081")]
    _says(outer.tree(), OUTER)
    _says(inner.tree(), INNER)


def test_the_same_in_a_block(serve, meter, ledger):
    far = serve(_script)
    with track(Budget(usd="1"), meter=meter(prices=FEES)) as run:
        _two_agents(far).invoke(ASK, config={"run_id": RUN})
        run.meter.charge("0.01", name="download")
        chat(far).invoke(QUESTION)
    lines = OUTER.strip("\n").splitlines()[1:]
    inside = [lines[0].replace("└─", "├─"), *("│" + line[1:] for line in lines[1:])]
    rest = ["├─ charge: download  $0.01", "└─ gpt-4o-mini  1000 + 200 tokens  $0.00027"]
    _says(run.tree(), "\n".join([f"{run.id}  6 calls  $0.01962", *inside, *rest]))


def test_parallel_nodes(serve, handler, ledger):
    class State(TypedDict):
        left: str
        right: str

    far = serve(ANSWER)
    model, first = chat(far), threading.Event()

    def left(_):
        try:
            return {"left": model.invoke(QUESTION).text + model.invoke(QUESTION).text}
        finally:
            first.set()

    def right(_):
        assert first.wait(20)
        return {"right": model.invoke(QUESTION).text}

    graph = StateGraph(State)
    for name, node in (("left", left), ("right", right)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    budget = handler(Budget(usd="1"))
    graph.compile(name="both").invoke({"left": "", "right": ""}, config=_config(budget))
    audit(far, ledger, requests=3, entries=3, usd="0.00081")
    _says(
        budget.tree(),
        f"""
{RUN}  3 calls  $0.00081
└─ both  3 calls  $0.00081
   ├─ left  2 calls  $0.00054
   │  ├─ gpt-4o-mini  1000 + 200 tokens  $0.00027
   │  └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
   └─ right  1 call  $0.00027
      └─ gpt-4o-mini  1000 + 200 tokens  $0.00027
""",
    )


async def test_async_tasks_keep_their_places(serve, handler, ledger):
    far = serve(ANSWER)
    model = chat(far)

    async def both(question):
        steps = [RunnableLambda(model.ainvoke).with_config(run_name=name) for name in ("a", "b", "c")]
        return await asyncio.gather(*(step.ainvoke(question) for step in steps))

    budget = handler(Budget(usd="1"))
    await RunnableLambda(both).with_config(run_name="fan").ainvoke(QUESTION, config=_config(budget))
    tree = budget.tree()
    _adds_up(tree)
    (fan,) = tree.children
    assert (fan.name, sorted(child.name for child in fan.children)) == ("fan", ["a", "b", "c"])
    assert [child.totals.cost_usd for child in fan.children] == [Decimal("0.00027")] * 3


def test_two_runs_and_a_call_alone(serve, handler):
    far, budget = serve(ANSWER), handler(Budget(usd="1"))
    for number in (1, 2):
        _chain(far).invoke(QUESTION, config=_config(budget, run_id=uuid.UUID(int=number)))
    chat(far).invoke(QUESTION, config={"callbacks": [budget]})
    one = [line.replace("└─ RunnableSequence", "├─ RunnableSequence") for line in CHAIN.strip("\n").splitlines()[1:]]
    one = [one[0], *("│" + line[1:] for line in one[1:])]
    last = "└─ gpt-4o-mini  1000 + 200 tokens  $0.00027"
    _says(budget.tree(), "\n".join(["all runs  5 calls  $0.00135", *one, *one, last]))


def test_a_step_used_twice_is_two_nodes(serve, handler):
    far, budget = serve(ANSWER), handler(Budget(usd="1"))
    model = chat(far)
    step = RunnableLambda(lambda q: model.invoke(q).text).with_config(run_name="step")
    (step | step).invoke(QUESTION, config=_config(budget))
    (sequence,) = budget.tree().children
    assert [child.name for child in sequence.children] == ["step", "step"], "two uses are two places in the tree"


def test_what_is_not_priced_says_so(serve, handler, ledger):
    far = serve([ANSWER, Reply(usage="omit", text="Four.", input_tokens=10), Reply(model="gpt-zero")])
    far._prices["gpt-zero"] = far._prices["gpt-4o-mini"]
    budget = handler(Budget(calls=9), prices={"tool/search": Price(request="0.008")})

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        for _ in range(3):
            chat(far).invoke(QUESTION)
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        search.invoke({"topic": "sums"}, config=_config(budget))
    estimated = next(row for row in read_back(ledger).entries if row["status"] == "estimated")["cost_usd"]
    tree = budget.tree()
    _adds_up(tree)
    lines = [line.strip(" └├─│") for line in str(tree).splitlines()[2:]]
    assert lines[0] == "gpt-4o-mini  1000 + 200 tokens  $0.00027"
    assert lines[1].endswith(f"${estimated}  estimated (the provider reported no usage)")
    assert lines[2].startswith("gpt-zero  ") and "cost unknown  unpriced" in lines[2]
    assert lines[3].startswith("charge: search  cost unknown  unknown (it failed (ValueError)")
    assert "1 unpriced calls in no total" in str(tree).splitlines()[0]
    assert "$0.008 booked for calls whose outcome is unknown" in str(tree).splitlines()[0]


def test_the_place_of_a_call_survives_its_process(meter, ledger):
    """A call and a tool of a process that was killed are booked by the next one where they were made."""
    durable = Budget(usd="1", per="total", name="total")

    @tool
    def research(topic: str) -> str:
        """Never come back."""
        step.invoke(topic)

    step = RunnableLambda(lambda topic: os.kill(os.getpid(), signal.SIGKILL)).with_config(run_name="deep")

    def work():
        budget = BudgetCallbackHandler(durable, ledger=ledger, prices=FEES)
        chain = RunnableLambda(lambda topic: research.invoke({"topic": topic})).with_config(run_name="outer")
        chain.invoke("sums", config=_config(budget))

    assert wait(fork(work)) == -signal.SIGKILL
    shared = meter([durable], prices=FEES)
    _says(
        call_tree(shared.entries(run=str(RUN))),
        f"""
{RUN}  0 calls  $0 ($0.008 booked for calls whose outcome is unknown; $0.008 booked on budgets)
└─ outer  0 calls  $0 ($0.008 booked for calls whose outcome is unknown; $0.008 booked on budgets)
   └─ research  0 calls  $0 ($0.008 booked for calls whose outcome is unknown; $0.008 booked on budgets)
      └─ charge: research  cost unknown  unknown (the process that made the call died; the outcome was never seen)
""",
    )


def test_a_late_answer_stands_beside_what_it_corrects(serve, handler, ledger):
    """An async chain is cancelled; its sync call goes on in a thread and ends after the run."""
    far = serve(Reply(text="Four.", input_tokens=1000, output_tokens=200, delay_s=0.4))
    model, ended = chat(far), threading.Event()

    def ask(question):
        try:
            return model.invoke(question)
        finally:
            ended.set()

    async def cancelled():
        task = asyncio.create_task(RunnableLambda(ask).with_config(run_name="ask").ainvoke(QUESTION, _config(budget)))
        while not far.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    budget = handler(Budget(usd="1"))
    asyncio.run(cancelled())
    assert ended.wait(20)
    tree = budget.tree()
    _adds_up(tree)
    (ask_node,) = tree.children
    assert [child.entry.kind for child in ask_node.children] == ["call", "adjustment"]
    assert (tree.totals.cost_usd, tree.totals.booked_usd, tree.totals.unknown_usd) == (
        Decimal("0.00027"), Decimal("0.00027"), 0)  # fmt: skip
    assert str(tree).splitlines()[0] == f"{RUN}  1 call  $0.00027"


def test_nothing_is_an_empty_tree(handler):
    assert str(handler(Budget(usd="1")).tree()) == "all runs  0 calls  $0"
