"""Forty calls at once against a budget for five, in every way LangChain and LangGraph run things at once.

`python -m tests.flow.parallel_table` prints what was sent and billed; test_parallel.py asserts it.

One call by hand: the question is 21 bytes, so the worst case is 21 + 16 for the message + 512 for the request = 549
input tokens, and 100 output tokens (max_tokens): 549 x 0.15 + 100 x 0.60 = 142.35 per million. The server bills
just that, so five calls use up 5 x 0.00014235 = 0.00071175 exactly.
"""

from __future__ import annotations

import asyncio
import logging
import operator
import tempfile
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

from ai_budget_callbacks import Budget, BudgetExceeded
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from ai_budget_callbacks.events import CallReserved, CallSettled
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import chat
from tests.support.provider import FarEnd

QUESTION = "What is two plus two?"
MANY = 40
MAX_TOKENS = 100
AT_THE_BOUND = Reply(text="one two three four five six", input_tokens=549, output_tokens=MAX_TOKENS, delay_s=0.03)
UNIT_USD = Decimal("0.00014235")
FIVE_USD = Decimal("0.00071175")


@dataclass
class Held:
    """A listener that remembers what each call held and cost."""

    held: dict[str, Decimal] = field(default_factory=dict)
    cost: dict[str, Decimal] = field(default_factory=dict)

    def __call__(self, event: Any) -> None:
        if isinstance(event, CallReserved):
            self.held[event.call.id] = event.held_usd or Decimal(0)
        elif isinstance(event, CallSettled):
            self.cost[event.entry.call_id] = event.entry.booked_usd or Decimal(0)

    @property
    def underestimated_usd(self) -> Decimal:
        """What all calls together cost beyond their holds: the most the books can be past the limit."""
        return sum((max(self.cost[i] - self.held[i], Decimal(0)) for i in self.cost), Decimal(0))


@dataclass(frozen=True)
class Outcome:
    """What forty calls came to."""

    sent: int
    billed_usd: Decimal
    refused: int
    held: Held


def model(far: FarEnd, **options: Any) -> Any:
    """A model whose worst case is the one computed above: output bounded, tier pinned."""
    return chat(far, **{"max_tokens": MAX_TOKENS, "service_tier": "default"} | options)


def _refused(results: Any) -> int:
    return sum(isinstance(item, BudgetExceeded) for item in results)


async def batch(far: FarEnd, config: Any) -> int:
    return _refused(model(far).batch([QUESTION] * MANY, config=config, return_exceptions=True))


async def batch_wide(far: FarEnd, config: Any) -> int:
    wide = {**config, "max_concurrency": MANY}
    return _refused(model(far).batch([QUESTION] * MANY, config=wide, return_exceptions=True))


async def abatch(far: FarEnd, config: Any) -> int:
    return _refused(await model(far).abatch([QUESTION] * MANY, config=config, return_exceptions=True))


async def threads(far: FarEnd, config: Any) -> int:
    client, results, barrier = model(far), [], threading.Barrier(MANY)

    def work() -> None:
        barrier.wait()
        try:
            results.append(client.invoke(QUESTION, config=config))
        except BudgetExceeded as refusal:
            results.append(refusal)

    pool = [threading.Thread(target=work) for _ in range(MANY)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return _refused(results)


async def runnable_parallel(far: FarEnd, config: Any) -> int:
    client = model(far)
    with suppress(BudgetExceeded):
        RunnableParallel({f"b{i}": client for i in range(MANY)}).invoke(QUESTION, config=config)
        return 0
    return 1


async def runnable_parallel_async(far: FarEnd, config: Any) -> int:
    client = model(far)
    with suppress(BudgetExceeded):
        await RunnableParallel({f"b{i}": client for i in range(MANY)}).ainvoke(QUESTION, config=config)
        return 0
    return 1


class _State(TypedDict):
    said: Annotated[list[str], operator.add]


def _graph(far: FarEnd) -> Any:
    client = model(far)

    def node(_: _State) -> Any:
        return {"said": [client.invoke(QUESTION).text]}

    async def anode(_: _State) -> Any:
        return {"said": [(await client.ainvoke(QUESTION)).text]}

    graph = StateGraph(_State)
    for number in range(MANY):
        graph.add_node(f"n{number}", RunnableLambda(node, anode))
        graph.add_edge(START, f"n{number}")
        graph.add_edge(f"n{number}", END)
    return graph.compile()


async def graph_nodes(far: FarEnd, config: Any) -> int:
    with suppress(BudgetExceeded):
        _graph(far).invoke({"said": []}, config=config)
        return 0
    return 1


async def graph_nodes_async(far: FarEnd, config: Any) -> int:
    with suppress(BudgetExceeded):
        await _graph(far).ainvoke({"said": []}, config=config)
        return 0
    return 1


def _agent(far: FarEnd) -> Any:
    client = model(far)

    @tool
    def look_up(topic: str) -> str:
        """Ask a model."""
        return client.invoke(topic).text

    return create_agent(model(far), [look_up])


async def tools(far: FarEnd, config: Any) -> int:
    with suppress(BudgetExceeded):
        _agent(far).invoke({"messages": [("human", QUESTION)]}, config=config)
        return 0
    return 1


async def closed_streams(far: FarEnd, config: Any) -> int:
    client, results, barrier = model(far), [], threading.Barrier(MANY)

    def work() -> None:
        barrier.wait()
        try:
            stream = client.stream(QUESTION, config=config)
            next(stream), next(stream)
            stream.close()
        except BudgetExceeded as refusal:
            results.append(refusal)

    pool = [threading.Thread(target=work) for _ in range(MANY)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return _refused(results)


async def closed_streams_one_by_one(far: FarEnd, config: Any) -> int:
    client, refused = model(far), 0
    for _ in range(MANY):
        try:
            stream = client.stream(QUESTION, config=config)
            next(stream), next(stream)
            stream.close()
        except BudgetExceeded:
            refused += 1
    return refused


def many_tools(request: Any) -> Reply:
    """The first answer of an agent asks for forty tools; every other is text. All cost the bound."""
    asked = request.body.get("tools") and not any(m.get("role") == "tool" for m in request.body["messages"])
    calls = tuple(ToolCall("look_up", {"topic": QUESTION}) for _ in range(MANY)) if asked else ()
    text = "" if calls else AT_THE_BOUND.text
    return Reply(text=text, tool_calls=calls, input_tokens=549, output_tokens=MAX_TOKENS, delay_s=0.03)


def modest(request: Any) -> Reply:
    """As `many_tools`, with the input tokens such a question has: 15 x 0.15 + 100 x 0.60 = 62.25 per million."""
    return replace(many_tools(request), input_tokens=15)


INDEPENDENT = (batch, batch_wide, abatch, threads)
ONE_RUN = (runnable_parallel, runnable_parallel_async, graph_nodes, graph_nodes_async, tools)
STREAMS = (closed_streams, closed_streams_one_by_one)


async def measure(way: Any, budget: Budget, path: Path, reply: Any = many_tools, **options: Any) -> Outcome:
    """Run forty calls in one way under a budget."""
    held = Held()
    with FarEnd(reply) as far:
        handler = BudgetCallbackHandler(budget, ledger=path, listeners=[held], **options)
        refused = await way(far, {"callbacks": [handler]})
        await _settled(handler, far)
        handler.close()
        return Outcome(len(far.requests), far.billed_usd, refused, held)


async def _settled(handler: BudgetCallbackHandler, far: FarEnd) -> None:
    """Calls that were on their way when a sibling was refused still end (`gather` does not cancel them)."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=2)
    for _ in range(200):
        if not handler.meter.ledger.open_holds() and len(far.bill) == len(far.requests):
            return
        await asyncio.sleep(0.01)


MODEST_FIVE_USD = Decimal("0.00031125")  # 5 x 0.00006225


async def _print_table() -> None:
    print(f"{'forty at once':<26} {'budget':<36} {'sent':>4} {'limit':>12} {'billed':>12} {'ratio':>6}")
    every = (*INDEPENDENT, *ONE_RUN, *STREAMS)
    rows: list[Any] = [(way, Budget(calls=5), "5 calls", many_tools, {}) for way in every]
    for mode in ("worst_case", "expected", "none"):
        worst = mode == "worst_case"
        usd, reply = (FIVE_USD, many_tools) if worst else (MODEST_FIVE_USD, modest)
        label = f"5 {'worst cases' if worst else 'usual calls'}, {mode}"
        rows += [(way, Budget(usd=usd), label, reply, {"reserve": mode}) for way in every]
    with tempfile.TemporaryDirectory() as folder:
        for number, (way, budget, label, reply, options) in enumerate(rows):
            got = await measure(way, budget, Path(folder) / f"{number}.db", reply, **options)
            limit = FIVE_USD if budget.unit == "calls" else budget.usd
            ratio = got.billed_usd / limit
            print(f"{way.__name__:<26} {label:<36} {got.sent:>4} {limit:>12} {got.billed_usd:>12} {ratio:>6.2f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    asyncio.run(_print_table())
