"""Fifty calls at once against a budget for five, in every way LangChain and LangGraph run things at once, and forty from
four processes.

`python -m tests.flow.parallel_table` prints what was sent and billed; test_parallel.py asserts it.

One call by hand: the question is 21 bytes and 6 tokens, so the worst case is 6 + 16 for the message + 512 for the request
= 534 input tokens, and 100 output tokens (max_tokens): 534 x 0.15 + 100 x 0.60 = 140.1 per million. The server bills just
that, so five calls use up 5 x 0.0001401 = 0.0007005 exactly. Without a tokenizer's file it is 21 for 6: 0.00014235.
"""

from __future__ import annotations

import asyncio
import json
import logging
import operator
import os
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
from ai_budget_callbacks.pricing.tokenizer import token_counter
from tests.flow.kit import chat, read_back
from tests.support.books import Gate, fork, wait
from tests.support.provider import FarEnd

QUESTION = "What is two plus two?"
MANY = 50
PROCESSES, CALLS_EACH = 4, 10
MAX_TOKENS = 100
# The question is 21 bytes and 6 tokens of o200k_base; 16 and 512 of framing. The bound is a little wider where no file of
# that tokenizer is on the disk: (6 + 528) x 0.15 + 100 x 0.60 a million, or (21 + 528) x 0.15 + 60.
COUNTED = token_counter("openai", "gpt-4o-mini") is not None
BOUND_TOKENS = 534 if COUNTED else 549
AT_THE_BOUND = Reply(
    text="one two three four five six", input_tokens=BOUND_TOKENS, output_tokens=MAX_TOKENS, delay_s=0.03
)
UNIT_USD = Decimal("0.0001401") if COUNTED else Decimal("0.00014235")
FIVE_USD = 5 * UNIT_USD


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
    """What all calls came to; entries and holds as the file has them."""

    sent: int
    billed_usd: Decimal
    refused: int
    held: Held
    entries: int
    holds: int


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


async def tasks(far: FarEnd, config: Any) -> int:
    client = model(far)
    made = [asyncio.create_task(client.ainvoke(QUESTION, config=config)) for _ in range(MANY)]
    return _refused(await asyncio.gather(*made, return_exceptions=True))


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

    async def alook_up(topic: str) -> str:
        return (await client.ainvoke(topic)).text

    look_up.coroutine = alook_up
    return create_agent(model(far), [look_up])


async def tools(far: FarEnd, config: Any) -> int:
    with suppress(BudgetExceeded):
        _agent(far).invoke({"messages": [("human", QUESTION)]}, config=config)
        return 0
    return 1


async def tools_async(far: FarEnd, config: Any) -> int:
    with suppress(BudgetExceeded):
        await _agent(far).ainvoke({"messages": [("human", QUESTION)]}, config=config)
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
    """The first answer of an agent asks for fifty tools; every other is text. All cost the bound."""
    asked = request.body.get("tools") and not any(m.get("role") == "tool" for m in request.body["messages"])
    calls = tuple(ToolCall("look_up", {"topic": QUESTION}) for _ in range(MANY)) if asked else ()
    text = "" if calls else AT_THE_BOUND.text
    return Reply(text=text, tool_calls=calls, input_tokens=BOUND_TOKENS, output_tokens=MAX_TOKENS, delay_s=0.03)


def modest(request: Any) -> Reply:
    """As `many_tools`, with the input tokens such a question has: 15 x 0.15 + 100 x 0.60 = 62.25 per million."""
    return replace(many_tools(request), input_tokens=15)


INDEPENDENT = (batch, batch_wide, abatch, threads, tasks)
ONE_RUN = (runnable_parallel, runnable_parallel_async, graph_nodes, graph_nodes_async, tools, tools_async)
STREAMS = (closed_streams, closed_streams_one_by_one)


async def measure(way: Any, budget: Budget, path: Path, reply: Any = many_tools, **options: Any) -> Outcome:
    """Run all calls in one way under a budget."""
    held = Held()
    with FarEnd(reply) as far:
        handler = BudgetCallbackHandler(budget, ledger=path, listeners=[held], **options)
        refused = await way(far, {"callbacks": [handler]})
        await _settled(handler, far)
        outcome = _outcome(far, path, refused, held)
        handler.close()
        return outcome


def _outcome(far: FarEnd, path: Path, refused: int, held: Held) -> Outcome:
    books = read_back(path)
    return Outcome(len(far.requests), far.billed_usd, refused, held, len(books.column("status")), len(books.holds))


def processes(budget: Budget, path: Path, reply: Any = many_tools, **options: Any) -> Outcome:
    """Four processes with ten calls at once each, on one ledger file; the budget must be a durable one."""
    BudgetCallbackHandler(budget, ledger=path, **options).close()  # the children start together on a file that exists
    held, refused, gate = Held(), 0, Gate()
    with FarEnd(reply) as far:
        pipes = []
        for _ in range(PROCESSES):
            reader, writer = os.pipe()
            pipes.append((fork(_one_process, far, budget, path, options, gate, writer), reader))
            os.close(writer)
        gate.open()
        for pid, reader in pipes:
            with os.fdopen(reader) as answers:
                told = json.loads(answers.read() or "{}")
            code = wait(pid)
            assert code == 0, f"a process ended with {code}"
            refused += told["refused"]
            held.held |= {name: Decimal(amount) for name, amount in told["held"].items()}
            held.cost |= {name: Decimal(amount) for name, amount in told["cost"].items()}
        return _outcome(far, path, refused, held)


def _one_process(far: FarEnd, budget: Budget, path: Path, options: Any, gate: Gate, writer: int) -> None:
    held = Held()
    handler = BudgetCallbackHandler(budget, ledger=path, listeners=[held], **options)
    client, config = model(far), {"callbacks": [handler], "max_concurrency": CALLS_EACH}
    gate.wait()
    refused = _refused(client.batch([QUESTION] * CALLS_EACH, config=config, return_exceptions=True))
    handler.close()
    texts = [{name: str(amount) for name, amount in amounts.items()} for amounts in (held.held, held.cost)]
    with os.fdopen(writer, "w") as out:
        json.dump({"refused": refused, "held": texts[0], "cost": texts[1]}, out)


async def _settled(handler: BudgetCallbackHandler, far: FarEnd) -> None:
    """Calls that were on their way when a sibling was refused still end (`gather` does not cancel them)."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=2)
    for _ in range(200):
        if not handler.meter.ledger.open_holds() and len(far.bill) == len(far.requests):
            return
        await asyncio.sleep(0.01)


MODEST_UNIT_USD = Decimal("0.00006225")
MODEST_FIVE_USD = Decimal("0.00031125")  # 5 x 0.00006225


@dataclass(frozen=True)
class Mode:
    """A budget for five and how the meter reserves.

    Attributes:
        name: As printed.
        unit, limit: The budget.
        unit_usd: What one call costs.
        reply: The server's script.
        options: Of the meter.
    """

    name: str
    unit: str
    limit: Any
    unit_usd: Decimal
    reply: Any
    options: dict[str, Any] = field(default_factory=dict)

    def budget(self, *, durable: bool = False) -> Budget:
        return Budget(**{self.unit: self.limit}, **({"per": "total", "name": "all"} if durable else {}))

    @property
    def limit_usd(self) -> Decimal:
        return self.limit * self.unit_usd if self.unit == "calls" else Decimal(self.limit)


AMOUNT_USD = Decimal("0.0001")  # more than a call costs: five holds fit, and what they leave over admits two more
SMALL_USD = Decimal("0.00003")  # half of what a call costs
MODES = (
    Mode("5 calls", "calls", 5, UNIT_USD, many_tools),
    Mode("worst_case", "usd", FIVE_USD, UNIT_USD, many_tools, {"reserve": "worst_case"}),
    Mode("expected", "usd", MODEST_FIVE_USD, MODEST_UNIT_USD, modest, {"reserve": "expected"}),
    Mode("an amount", "usd", 5 * AMOUNT_USD, MODEST_UNIT_USD, modest, {"reserve": AMOUNT_USD}),
    Mode("half the cost", "usd", 5 * SMALL_USD, MODEST_UNIT_USD, modest, {"reserve": SMALL_USD}),
    Mode("none", "usd", MODEST_FIVE_USD, MODEST_UNIT_USD, modest, {"reserve": "none"}),
)


async def _print_table() -> None:
    columns = "{:<26} {:<14} {:>4} {:>7} {:>5} {:>7} {:>11} {:>11} {:>11} {:>11}"
    head = (
        "at once",
        "reserve",
        "sent",
        "entries",
        "holds",
        "refused",
        "limit $",
        "billed $",
        "overspend $",
        "of holds $",
    )
    print(columns.format(*head))
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            for way in (*INDEPENDENT, *ONE_RUN, *STREAMS, None):
                path = Path(folder) / f"{mode.name}-{way.__name__ if way else 'processes'}.db"
                got = (
                    await measure(way, mode.budget(), path, mode.reply, **mode.options)
                    if way
                    else processes(mode.budget(durable=True), path, mode.reply, **mode.options)
                )
                over = max(got.billed_usd - mode.limit_usd, Decimal(0))
                name = way.__name__ if way else f"{PROCESSES} processes x {CALLS_EACH}"
                money = (mode.limit_usd, got.billed_usd, over, got.held.underestimated_usd)
                cells = (
                    name,
                    mode.name,
                    got.sent,
                    got.entries,
                    got.holds,
                    got.refused,
                    *(f"{usd:.8f}" for usd in money),
                )
                print(columns.format(*cells), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    asyncio.run(_print_table())
