"""The traps of facts/langchain.md 7 and the incomplete calls of 3.5 and 9: one small case for each.

`python -m tests.flow.trap_table` runs them and prints what was sent, booked and billed, what is still held, and what
the caller saw; test_traps.py asserts it. One answer is 1000 x 0.15 + 200 x 0.60 = 270 per million: $0.00027.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import logging
import operator
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import httpx
from langchain.agents import create_agent
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.load import dumps, loads
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track
from ai_budget_callbacks.demo.loopback import ChatWire, Reply, sse
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow import wrapper_table
from tests.flow.kit import chat, claude, read_back, responses, text_model
from tests.support.provider import ClaudeReply, FarEnd
from tests.support.versions import (
    LACKS_NODE_TIMEOUT,
    LACKS_V3_EVENTS,
    LOADS_ALLOWED_ONLY,
    NAMES_STREAM_ERRORS,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

QUESTION = "What is two plus two?"
WORDS = "one two three four five six seven eight nine ten"
UNIT = Decimal("0.00027")
ANSWER = Reply(text="Four.", input_tokens=1000, output_tokens=200)
NEVER = Reply(text="Four.", input_tokens=1000, output_tokens=200, delay_s=60)  # ends with its server
DRIP = Reply(text=WORDS, input_tokens=1000, output_tokens=200, chunk_delay_s=0.02)
SECRET, SPOKEN = "the-patients-name-is-Jane-Roe", "her-diagnosis-is-none-of-your-business"
ALLOWED = {"allowed_objects": "core"} if LOADS_ALLOWED_ONLY else {}
PATIENCE_S = 10.0  # for what other threads and tasks do; nothing waits this long when it goes well


@dataclass
class World:
    """What a case works with: a server, a ledger file, and handlers that are closed after the books were read."""

    far: FarEnd
    path: Path
    made: list[Any] = field(default_factory=list)

    def handler(self, *budgets: Any, **options: Any) -> BudgetCallbackHandler:
        self.made.append(BudgetCallbackHandler(*(budgets or (Budget(usd="5"),)), **({"ledger": self.path} | options)))
        return self.made[-1]

    def meter(self, *budgets: Budget, **options: Any) -> Meter:
        self.made.append(Meter(budgets, ledger=self.path, **options))
        return self.made[-1]

    def config(self, *budgets: Any, **options: Any) -> Any:
        return {"callbacks": [self.handler(*budgets, **options)]}

    async def sent(self, count: int = 1) -> None:
        """Wait until so many requests are billed."""
        await until(lambda: len(self.far.bill) >= count, f"{count} requests were expected and never came")

    def close(self) -> None:
        for item in self.made:
            item.close()


@dataclass(frozen=True)
class Case:
    """One trap, or one variant of it.

    Attributes:
        trap: Number in facts/langchain.md 7, or the section that describes the situation.
        name: What happens.
        run: Does it; returns what the caller saw.
        reply: The server's script.
        requests: How many must be sent.
        statuses: The entries that must be on the books; `+` marks the adjustment of an earlier one.
        usd: The bill by hand.
        exact: Whether booked must be the bill; else no less than it.
        saw: What the caller must see.
        server: The far end's class.
        lacks: Why the installed versions cannot run it, or "".
    """

    trap: str
    name: str
    run: Callable[[World], Awaitable[str]]
    reply: Any
    requests: int
    statuses: tuple[str, ...]
    usd: Decimal
    exact: bool
    saw: str
    server: type[FarEnd]
    lacks: str = ""


@dataclass(frozen=True)
class Result:
    """What a case came to."""

    saw: str
    requests: int
    statuses: tuple[str, ...]
    holds: int
    booked: Decimal
    billed: Decimal


CASES: list[Case] = []


def case(
    trap: str,
    name: str,
    reply: Any = ANSWER,
    *,
    requests: int = 1,
    statuses: tuple[str, ...] | None = None,
    usd: str | Decimal | None = None,
    exact: bool = True,
    saw: str = "answered",
    server: type[FarEnd] = FarEnd,
    lacks: str = "",
) -> Callable[[Any], Any]:
    """Register a case; without more it is so many requests, each priced at one answer."""

    def add(run: Any) -> Any:
        booked = ("priced",) * requests if statuses is None else statuses
        bill = requests * UNIT if usd is None else Decimal(usd)
        CASES.append(Case(trap, name, run, reply, requests, tuple(sorted(booked)), bill, exact, saw, server, lacks))
        return run

    return add


def both(trap: str, name: str, reply: Any = ANSWER, **expected: Any) -> Callable[[Any], Any]:
    """A case on sync and async paths: `run(world, is_async)`."""

    def add(run: Any) -> Any:
        case(trap, f"{name}, sync", reply, **expected)(functools.partial(run, is_async=False))
        case(trap, f"{name}, async", reply, **expected)(functools.partial(run, is_async=True))
        return run

    return add


def unseen(requests: int = 1, *, status: str = "unknown", saw: str = "answered", **more: Any) -> dict[str, Any]:
    """What is expected where the outcome was not seen, or in part: booked at no less than billed."""
    return {"requests": requests, "statuses": (status,) * requests, "exact": False, "saw": saw} | more


# -- what happens to the caller


def name_of(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}({', '.join(map(name_of, error.exceptions))})"
    # newer versions of langchain-openai raise subclasses of the client's errors, older ones those themselves
    clients = (kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("openai"))
    return "BudgetExceeded" if isinstance(error, BudgetExceeded) else next(clients, type(error).__name__)


async def seen(call: Any) -> str:
    """Make a call, given as a coroutine or a function; what its caller saw."""
    try:
        if callable(call):
            call()
        else:
            await call
    except BaseException as error:
        return name_of(error)
    return "answered"


async def until(done: Callable[[], Any], why: str, patience_s: float = PATIENCE_S) -> None:
    for _ in range(int(patience_s * 200)):
        if done():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(why)


async def cancelled(world: World, call: Any, sent: int = 1) -> str:
    """Cancel the task of a call once its requests are out."""
    task = asyncio.create_task(call)
    await world.sent(sent)
    task.cancel()
    return await seen(task)


async def in_time(world: World, call: Any, sent: int = 1) -> Any:
    """`asyncio.timeout` around a call; the time is up once its requests are out."""

    async def expire(limit: asyncio.Timeout) -> None:
        await world.sent(sent)
        limit.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as limit:
        watch = asyncio.create_task(expire(limit))
        try:
            return await call
        finally:
            watch.cancel()


def ask(model: Any, config: Any, *, is_async: bool, question: Any = QUESTION) -> Any:
    """One call, ready for `seen`."""
    return model.ainvoke(question, config=config) if is_async else lambda: model.invoke(question, config=config)


async def read(stream: Any, *, is_async: bool) -> None:
    if is_async:
        async for _ in stream:
            pass
    else:
        for _ in stream:
            pass


def stream_of(model: Any, config: Any, *, is_async: bool) -> Any:
    return model.astream(QUESTION, config=config) if is_async else model.stream(QUESTION, config=config)


def prompts(*texts: str) -> list[list[Any]]:
    return [[HumanMessage(text)] for text in texts or ("a", "b", "c")]


# -- 1: async handlers are swallowed on sync paths; ours is sync


class Async(AsyncCallbackHandler):
    """What users write first; its raise is swallowed on sync paths."""

    raise_error = True


@both("1", "limit of 1, two calls", saw="answered, BudgetExceeded")
async def _(world: World, *, is_async: bool) -> str:
    config, model = world.config(Budget(calls=1)), chat(world.far)
    return ", ".join([await seen(ask(model, config, is_async=is_async)) for _ in range(2)])


@both("1", "the same beside an AsyncCallbackHandler", saw="answered, BudgetExceeded")
async def _(world: World, *, is_async: bool) -> str:
    config, model = {"callbacks": [Async(), world.handler(Budget(calls=1))]}, chat(world.far)
    return ", ".join([await seen(ask(model, config, is_async=is_async)) for _ in range(2)])


@case("1", "sync invoke inside a coroutine's chain", saw="answered, BudgetExceeded")
async def _(world: World) -> str:
    model, config = chat(world.far), world.config(Budget(calls=1))

    async def careless(question: str) -> str:
        return model.invoke(question).text  # blocks the loop, as people do

    return ", ".join([await seen(RunnableLambda(careless).ainvoke(QUESTION, config=config)) for _ in range(2)])


# -- 2: wrappers that spend on, or hide the refusal (all of them: wrapper_table.py)


def _wrapper(wrapped: wrapper_table.Case) -> None:
    paid = wrapper_table.paid_calls("calls", wrapped)
    usd = str(paid * UNIT)

    @both("2", wrapped.name, wrapper_table.script, requests=paid, usd=usd, saw=f"{wrapped.outcome}, exceeded", lacks=wrapped.lacks)  # fmt: skip
    async def _(world: World, *, is_async: bool) -> str:
        got = await wrapper_table.run_case(wrapped, "calls", "handler", world.far, world.path, is_async=is_async)
        return f"{got.outcome}, {'exceeded' if got.exceeded else 'NOT exceeded'}"


NAMED = ("with_retry(stop", "with_fallbacks([", "ModelRetry", "ModelFallback", "ToolNode(handle", "node RetryPolicy", "node error")  # fmt: skip
for wrapped_case in wrapper_table.CASES:
    if wrapped_case.name.startswith(NAMED):
        _wrapper(wrapped_case)


# -- 3: many at once


@both("3", "(a)batch of 40, budget for 2", requests=2, saw="2 answered, 38 refused")
async def _(world: World, *, is_async: bool) -> str:
    model, config = chat(world.far), world.config(Budget(calls=2))
    many = [QUESTION] * 40
    got = (
        await model.abatch(many, config=config, return_exceptions=True)
        if is_async
        else model.batch(many, config=config, return_exceptions=True)
    )
    refused = sum(isinstance(item, BudgetExceeded) for item in got)
    return f"{len(got) - refused} answered, {refused} refused"


# -- 4: one response and several choices, several prompts, or a cache


@both("4", "n=2", Reply(text="Four.", input_tokens=1000, output_tokens=400), usd="0.00039")
async def _(world: World, *, is_async: bool) -> str:
    return await seen(ask(chat(world.far, n=2), world.config(), is_async=is_async))


@both("4", "n=2 streamed", Reply(text="Four.", input_tokens=1000, output_tokens=400), usd="0.00039")
async def _(world: World, *, is_async: bool) -> str:
    return await seen(read(stream_of(chat(world.far, n=2), world.config(), is_async=is_async), is_async=is_async))


# three prompts of a text model, one request: 3000 x 1.50 + 600 x 2.00 = 5700 per million
TEXT3 = Reply(text="Four.", input_tokens=3000, output_tokens=600)


@both("4", "OpenAI(LLM).batch of 3", TEXT3, usd="0.0057")
async def _(world: World, *, is_async: bool) -> str:
    model, config = text_model(world.far), world.config(Budget(usd="5"), Budget(calls=3))
    return await seen(model.abatch(["a"] * 3, config=config) if is_async else lambda: model.batch(["a"] * 3, config=config))  # fmt: skip


@both("4", "OpenAI(LLM).generate of 3", TEXT3, usd="0.0057")
async def _(world: World, *, is_async: bool) -> str:
    model, callbacks = text_model(world.far), [world.handler()]
    return await seen(model.agenerate(["a", "b", "c"], callbacks=callbacks) if is_async else lambda: model.generate(["a", "b", "c"], callbacks=callbacks))  # fmt: skip


@both("4", "generate of 3 chat prompts", requests=3)
async def _(world: World, *, is_async: bool) -> str:
    model, callbacks = chat(world.far), [world.handler()]
    return await seen(model.agenerate(prompts(), callbacks=callbacks) if is_async else lambda: model.generate(prompts(), callbacks=callbacks))  # fmt: skip


class SqliteCache(BaseCache):
    """A cache that keeps text, as SQLAlchemyCache and the Redis ones do: no object is shared between calls."""

    def __init__(self) -> None:
        self._conn = sqlite3.connect(":memory:", check_same_thread=False)
        self._conn.execute("CREATE TABLE cache(prompt, llm, value, PRIMARY KEY(prompt, llm))")
        self._lock = threading.Lock()

    def lookup(self, prompt: str, llm_string: str) -> Any:
        with self._lock:
            row = self._conn.execute(
                "SELECT value FROM cache WHERE prompt=? AND llm=?", (prompt, llm_string)
            ).fetchone()
        return None if row is None else [loads(item, **ALLOWED) for item in json.loads(row[0])]

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        text = json.dumps([dumps(item) for item in return_val])
        with self._lock:
            self._conn.execute("INSERT OR REPLACE INTO cache VALUES(?, ?, ?)", (prompt, llm_string, text))

    def clear(self, **_: Any) -> None:
        self._conn.execute("DELETE FROM cache")


def _cached(cache: type[BaseCache], label: str) -> None:
    hits = ("priced", *("free",) * 5)

    @both("4", f"five {label} hits at once", requests=1, statuses=hits)
    async def _(world: World, *, is_async: bool) -> str:
        model, config = chat(world.far, cache=cache()), world.config(Budget(usd="5"), Budget(calls=1))
        model.invoke(QUESTION, config=config)
        unlimited = world.config()  # a used-up budget refuses at the start, before the cache is asked
        many = [QUESTION] * 5
        return await seen(model.abatch(many, config=unlimited) if is_async else lambda: model.batch(many, config=unlimited))  # fmt: skip


_cached(InMemoryCache, "InMemoryCache")
_cached(SqliteCache, "SQLite-like cache")


@case("4", "a text model's cache hit fires nothing", usd="0.0019")
async def _(world: World) -> str:
    model, config = text_model(world.far, cache=InMemoryCache()), world.config()
    return await seen(lambda: [model.invoke(QUESTION, config=config) for _ in range(3)])


@case("4", "a text batch with one prompt cached", requests=2, usd="0.0038")
async def _(world: World) -> str:
    model, config = text_model(world.far, cache=InMemoryCache()), world.config()
    return await seen(lambda: (model.invoke("a", config=config), model.batch(["a", "b", "c"], config=config)))


def _twins(label: str, make: Any, reply: Reply, usd: str, **options: Any) -> None:
    @case("4", f"{label}: generate of one prompt twice, cached", reply, statuses=("priced", "free"), usd=usd)
    async def _(world: World) -> str:
        """The hit marks the stored object, which is the paid answer's own."""
        model = make(world.far, cache=InMemoryCache(), **options)
        return await seen(lambda: model.generate(prompts("a", "a"), callbacks=[world.handler()]))


_twins("chat", chat, ANSWER, "0.00027")
_twins("chat streaming=True", chat, ANSWER, "0.00027", streaming=True)
CLAUDE = ClaudeReply(text="Four.", input_tokens=1000, output_tokens=200)  # 1000 x 3 + 200 x 15 = 6000 per million
_twins("Claude streaming=True", claude, CLAUDE, "0.006", streaming=True)


class Meeting(InMemoryCache):
    """Holds the paid call between its store and its end event until the other call has been served from the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.stored, self.served = threading.Event(), threading.Event()

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        super().update(prompt, llm_string, return_val)
        self.stored.set()
        self.served.wait(PATIENCE_S)


def _meeting(label: str, make: Any, **more: Any) -> None:
    options = more.pop("options", {})

    @case("4", f"{label}: a hit between the paid call's store and its end", **more)
    async def _(world: World) -> str:
        cache, config = Meeting(), world.config()
        model = make(world.far, cache=cache, **options)
        paid = asyncio.create_task(asyncio.to_thread(model.invoke, QUESTION, config=config))
        await asyncio.to_thread(cache.stored.wait, PATIENCE_S)
        hit = await seen(lambda: model.invoke(QUESTION, config=config))
        cache.served.set()
        return await seen(paid) if hit == "answered" else hit


_meeting("chat", chat, statuses=("priced", "free"))
_meeting("chat streaming=True", chat, statuses=("priced", "free"), options={"streaming": True})
# nothing but its id tells a Responses hit from the answer it hit: one of the two is booked, whichever ends first
_meeting("Responses", responses, statuses=("priced", "free"))


# -- 5: usage that is missing or says nothing

ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
NULLS = dict.fromkeys(ZEROS)
SMALL = {"text": WORDS, "input_tokens": 15, "output_tokens": 12}  # 15 x 0.15 + 12 x 0.60 = 9.45 per million


@both("5", "stream without usage", Reply(**SMALL), **unseen(status="estimated", usd="0.00000945"))
async def _(world: World, *, is_async: bool) -> str:
    model = chat(world.far, stream_usage=False)
    return await seen(read(stream_of(model, world.config(), is_async=is_async), is_async=is_async))


def _no_usage(label: str, usage: Any) -> None:
    @both("5", f"usage {label}", Reply(usage=usage, **SMALL), **unseen(status="estimated", usd="0.00000945"))
    async def _(world: World, *, is_async: bool) -> str:
        return await seen(ask(chat(world.far), world.config(), is_async=is_async))


_no_usage("of zeros", ZEROS)
_no_usage("of nulls", NULLS)


# -- 6: paid answers that arrive as errors


class Answer(BaseModel):
    """A number."""

    number: int


def _structured(label: str, make: Any, reply: Reply, error: str) -> None:
    @both("6", f"{label} structured answer", reply, saw=error)
    async def _(world: World, *, is_async: bool) -> str:
        model = make(world.far).with_structured_output(Answer, method="json_schema")
        return await seen(ask(model, world.config(), is_async=is_async))


PAID = {"input_tokens": 1000, "output_tokens": 200}
TRUNCATED = Reply(text='{"numb', finish_reason="length", **PAID)
_structured("truncated", chat, TRUNCATED, "LengthFinishReasonError")
_structured("filtered", chat, Reply(text='{"n', finish_reason="content_filter", **PAID), "ContentFilterFinishReasonError")  # fmt: skip
_structured("misshapen", chat, Reply(text='{"word": "four"}', **PAID), "ValidationError")
_structured("truncated Responses", responses, TRUNCATED, "ValidationError")


@case("6", "truncated structured answer, streamed", TRUNCATED, **unseen(status="estimated", saw="LengthFinishReasonError"))  # fmt: skip
async def _(world: World) -> str:
    model = chat(world.far).with_structured_output(Answer, method="json_schema")
    return await seen(read(stream_of(model, world.config(), is_async=False), is_async=False))


# -- 7: cancelled calls, which fire nothing


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def graph_of(**nodes: Any) -> Any:
    """Nodes side by side."""
    graph = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    return graph.compile()


EMPTY = {"said": []}


def _cancelled(label: str, make: Callable[[World], Any], **more: Any) -> None:
    expected = unseen(saw="CancelledError") | more

    @case("7", f"{label} cancelled", NEVER, **expected)
    async def _(world: World) -> str:
        return await cancelled(world, make(world), len(expected["statuses"]))


def _chain(world: World) -> Any:
    model = chat(world.far)

    async def step(question: str) -> str:
        return (await model.ainvoke(question)).text

    return RunnableLambda(step)


_cancelled("bare ainvoke", lambda w: chat(w.far).ainvoke(QUESTION, config=w.config()))
_cancelled("ainvoke(streaming=True)", lambda w: chat(w.far, streaming=True).ainvoke(QUESTION, config=w.config()))
_cancelled("ainvoke in a chain", lambda w: _chain(w).ainvoke(QUESTION, config=w.config()))
_cancelled("create_agent", lambda w: create_agent(chat(w.far), []).ainvoke({"messages": [("human", QUESTION)]}, config=w.config()))  # fmt: skip
_cancelled("with_fallbacks", lambda w: chat(w.far).with_fallbacks([chat(w.far)]).ainvoke(QUESTION, config=w.config()))
_cancelled(
    "agenerate of 3",
    lambda w: chat(w.far).agenerate(prompts(), callbacks=[w.handler()]),
    **unseen(3, saw="CancelledError"),
)


@case("7", "OpenAI(LLM).agenerate of 3 cancelled", NEVER, requests=1, statuses=("unknown",) * 3, usd="0.0019", exact=False, saw="CancelledError")  # fmt: skip
async def _(world: World) -> str:
    """The first prompt's hold alone would not cover the one request of all three."""
    handler = world.handler(reserve="0.001")
    return await cancelled(world, text_model(world.far).agenerate(["a", "b", "c"], callbacks=[handler]))


@case("7", "asyncio.wait_for", NEVER, **unseen(saw="TimeoutError"))
async def _(world: World) -> str:
    call = asyncio.create_task(chat(world.far).ainvoke(QUESTION, config=world.config()))
    await world.sent()
    return await seen(asyncio.wait_for(call, 0))


@case("7", "asyncio.timeout in a task that lives on", NEVER, **unseen(saw="TimeoutError"))
async def _(world: World) -> str:
    async def service() -> str:
        return await seen(in_time(world, chat(world.far).ainvoke(QUESTION, config=world.config())))

    return await asyncio.create_task(service())


def _swallowed(label: str, attach: Callable[[World], tuple[dict[str, Any], Any]], *, graph: bool) -> None:
    where = "node" if graph else "chain"

    @case("7", f"timeout swallowed inside a {where}, {label}", NEVER, **unseen())
    async def _(world: World) -> str:
        """The step goes on, so the run ends well; the caller's own task is still alive when the books are read."""
        options, config = attach(world)
        model = chat(world.far, **options)

        async def step(_: Any) -> Any:
            with contextlib.suppress(TimeoutError):
                await in_time(world, model.ainvoke(QUESTION))
            return EMPTY

        runnable = graph_of(step=step) if graph else RunnableLambda(step)
        said = await seen(runnable.ainvoke(EMPTY, config=config))
        await no_holds(world)
        return said


async def no_holds(world: World) -> None:
    """Inside the case, before its task ends and closes what it lost."""
    with contextlib.suppress(AssertionError):
        await until(lambda: not read_back(world.path).holds, "", 1.0)
    holds = read_back(world.path).holds
    assert not holds, f"{len(holds)} holds are open after the run ended"


def _constructor(world: World) -> Any:
    return {"callbacks": [world.handler()]}, {}


def _constructor_and_config(world: World) -> Any:
    return {"callbacks": [world.handler()]}, world.config()


for is_graph in (False, True):
    _swallowed("handler in config", lambda w: ({}, w.config()), graph=is_graph)
    _swallowed("handler in the constructor", _constructor, graph=is_graph)
    _swallowed("one in each", _constructor_and_config, graph=is_graph)


@case("7", "timeout swallowed inside a chain, in a block", NEVER, **unseen())
async def _(world: World) -> str:
    model = chat(world.far)

    async def step(_: Any) -> None:
        with contextlib.suppress(TimeoutError):
            await in_time(world, model.ainvoke(QUESTION))

    async with track(Budget(usd="5"), meter=world.meter()):
        said = await seen(RunnableLambda(step).ainvoke(QUESTION))
        await no_holds(world)
    return said


@case("7", "asyncio.timeout in a block", NEVER, **unseen(saw="TimeoutError"))
async def _(world: World) -> str:
    async with track(Budget(usd="5"), meter=world.meter()):
        return await seen(in_time(world, chat(world.far).ainvoke(QUESTION)))


@case("7", "LangGraph sibling cancelled by a failure", NEVER, **unseen(saw="ZeroDivisionError"))
async def _(world: World) -> str:
    model = chat(world.far)

    async def fails(_: State) -> Any:
        await world.sent()
        raise ZeroDivisionError

    async def asks(_: State) -> Any:
        return {"said": [(await model.ainvoke(QUESTION)).text]}

    return await seen(graph_of(fails=fails, asks=asks).ainvoke(EMPTY, config=world.config()))


@case("7", "LangGraph sibling cancelled by a refusal", NEVER, **unseen(saw="BudgetExceeded"))
async def _(world: World) -> str:
    model = chat(world.far)

    async def second(_: State) -> Any:
        await world.sent()
        return {"said": [(await model.ainvoke(QUESTION)).text]}

    async def first(_: State) -> Any:
        return {"said": [(await model.ainvoke(QUESTION)).text]}

    return await seen(graph_of(a=first, b=second).ainvoke(EMPTY, config=world.config(Budget(calls=1))))


@case(
    "7", "LangGraph sibling of a refusal, in a thread", Reply(text="Four.", delay_s=0.2, **PAID), saw="BudgetExceeded"
)
async def _(world: World) -> str:
    """Threads are not cancelled: what was sent is answered and priced."""
    model, out = chat(world.far), threading.Event()

    def second(_: State) -> Any:
        while not world.far.bill and not out.wait(0.005):
            pass
        return {"said": [model.invoke(QUESTION).text]}

    def first(_: State) -> Any:
        return {"said": [model.invoke(QUESTION).text]}

    said = await seen(lambda: graph_of(a=first, b=second).invoke(EMPTY, config=world.config(Budget(calls=1))))
    out.set()
    return said


@case("7", "LangGraph node timeout", NEVER, **unseen(saw="NodeTimeoutError", lacks=LACKS_NODE_TIMEOUT))
async def _(world: World) -> str:
    model = chat(world.far)

    async def asks(_: State) -> Any:
        return {"said": [(await model.ainvoke(QUESTION)).text]}

    graph = StateGraph(State)
    graph.add_node("asks", asks, timeout=1.0)
    graph.add_edge(START, "asks")
    graph.add_edge("asks", END)
    return await seen(graph.compile().ainvoke(EMPTY, config=world.config()))


@case("7", "graph.astream broken off", NEVER, **unseen())
async def _(world: World) -> str:
    model = chat(world.far)

    async def quick(_: State) -> Any:
        await world.sent()
        return {"said": ["quick"]}

    async def asks(_: State) -> Any:
        return {"said": [(await model.ainvoke(QUESTION)).text]}

    graph = graph_of(quick=quick, asks=asks)
    stream = graph.astream(EMPTY, stream_mode="updates", config=world.config())
    await anext(stream)
    return await seen(stream.aclose())


SLOW = Reply(text="Four.", delay_s=0.3, **PAID)


@case("7", "gather of 3, one cancelled", SLOW, requests=3, statuses=("priced", "priced", "unknown"), exact=False, saw="answered, CancelledError, answered")  # fmt: skip
async def _(world: World) -> str:
    model, config = chat(world.far), world.config()
    tasks = [asyncio.create_task(model.ainvoke(QUESTION, config=config)) for _ in range(3)]
    await world.sent(3)
    tasks[1].cancel()
    return ", ".join([await seen(task) for task in tasks])


@case("7", "abatch of 3 cancelled", NEVER, **unseen(3, saw="CancelledError"))
async def _(world: World) -> str:
    return await cancelled(world, chat(world.far).abatch([QUESTION] * 3, config=world.config()), 3)


async def _left_in_a_thread(world: World) -> str:
    """A sync step under a cancelled async parent goes on in its thread."""
    model, config = chat(world.far), world.config()
    chain = RunnableLambda(lambda question: model.invoke(question))
    task = asyncio.create_task(chain.ainvoke(QUESTION, config=config))
    await until(lambda: world.far.requests, "nothing was sent")
    task.cancel()
    said = await seen(task)
    assert read_back(world.path).statuses == ["unknown"], "the end of the cancelled run must close its calls"
    return said


@case("7", "late end after the root's error", SLOW, statuses=("unknown", "+priced"), saw="CancelledError")
async def _(world: World) -> str:
    said = await _left_in_a_thread(world)
    await until(lambda: len(read_back(world.path).entries) == 2, "the late end was lost")
    return said


@case("7", "a task that outlives its chain", SLOW, statuses=("unknown", "+priced"))
async def _(world: World) -> str:
    model, left = chat(world.far), []

    async def forgets(question: str) -> None:
        left.append(asyncio.create_task(model.ainvoke(question)))
        await world.sent()

    said = await seen(RunnableLambda(forgets).ainvoke(QUESTION, config=world.config()))
    await asyncio.wait(left)
    return said


@case("7", "cancelled and past its limit: said", NEVER, **unseen(saw="CancelledError, exceeded"))
async def _(world: World) -> str:
    handler = world.handler(Budget(usd="0.0001", at_limit="raise"), reserve="none")
    said = await cancelled(world, chat(world.far).ainvoke(QUESTION, config={"callbacks": [handler]}))
    await until(lambda: read_back(world.path).entries, "the cancelled call is not on the books")
    await until(lambda: handler.exceeded, "its crossing was not said")  # right after the entry, by another task
    return f"{said}, exceeded"


# -- 8: event streams v3 (end and error for one run), v2


async def _v3(model: Any, config: Any) -> None:
    stream = await model.astream_events(QUESTION, version="v3", config=config)
    async for _ in stream:
        pass


@case("8", "astream_events v3 to its end", DRIP, lacks=LACKS_V3_EVENTS)
async def _(world: World) -> str:
    return await seen(_v3(chat(world.far), world.config()))


@case("8", "stream_events v3 to its end", DRIP, lacks=LACKS_V3_EVENTS)
async def _(world: World) -> str:
    return await seen(lambda: list(chat(world.far).stream_events(QUESTION, version="v3", config=world.config())))


@case("8", "astream_events v3, the end raises and an error follows", DRIP, saw="exceeded", lacks=LACKS_V3_EVENTS)
async def _(world: World) -> str:
    handler = world.handler(Budget(usd="0.0002", at_limit="raise"), reserve="none")
    await seen(_v3(chat(world.far), {"callbacks": [handler]}))  # langchain-core may swallow the raise
    await until(lambda: read_back(world.path).entries, "the answer is not on the books")
    return "exceeded" if handler.exceeded else "NOT exceeded"


@case("8", "astream_events v3 refused", saw="answered, BudgetExceeded", lacks=LACKS_V3_EVENTS)
async def _(world: World) -> str:
    model, config = chat(world.far), world.config(Budget(calls=1))
    return ", ".join([await seen(_v3(model, config)) for _ in range(2)])


@case("8", "astream_events v3 broken off, aclose", DRIP, **unseen(lacks=LACKS_V3_EVENTS))
async def _(world: World) -> str:
    stream = await chat(world.far).astream_events(QUESTION, version="v3", config=world.config())
    async for _ in stream:
        break
    return await seen(stream.aclose())


@case("8", "astream_events v3 broken off: its producer goes on", DRIP, lacks=LACKS_V3_EVENTS)
async def _(world: World) -> str:
    stream = await chat(world.far).astream_events(QUESTION, version="v3", config=world.config())
    async for _ in stream:
        break
    await until(lambda: read_back(world.path).entries, "the producer's end is not on the books")
    return "answered"


@case("8", "stream_events v3 broken off", DRIP, **unseen(lacks=LACKS_V3_EVENTS))
async def _(world: World) -> str:
    """Nothing closes it: langchain-core 1.8.3 fires no event for a sync v3 stream that is dropped."""
    stream = chat(world.far).stream_events(QUESTION, version="v3", config=world.config())
    next(iter(stream))
    del stream
    gc.collect()
    await no_holds(world)
    return "answered"


@both("8", "(a)stream_events v3 of an agent", DRIP, lacks=LACKS_V3_EVENTS)
async def _(world: World, *, is_async: bool) -> str:
    agent, given = create_agent(chat(world.far), []), {"messages": [("human", QUESTION)]}
    if not is_async:
        return await seen(lambda: list(agent.stream_events(given, version="v3", config=world.config())))

    async def events() -> None:
        async for _ in await agent.astream_events(given, version="v3", config=world.config()):
            pass

    return await seen(events())


@case("8", "astream_events v2 broken off", DRIP, **unseen(status="unknown"))
async def _(world: World) -> str:
    async for event in chat(world.far).astream_events(QUESTION, version="v2", config=world.config()):
        if event["event"] == "on_chat_model_stream":
            break
    return "answered"


# -- 9: tiers and caches; 600 x 1.25 + 400 x 0.125 + 500 x 10 = 5800 per million at gpt-5's standard tier


def _tier(tier: str, usd: str) -> None:
    reply = Reply(input_tokens=1000, cached_tokens=400, output_tokens=500, reasoning_tokens=300, service_tier=tier)

    @both("9", f"{tier} tier with cached input, streamed", reply, usd=usd)
    async def _(world: World, *, is_async: bool) -> str:
        model = chat(world.far, model="gpt-5", service_tier=tier)
        return await seen(read(stream_of(model, world.config(), is_async=is_async), is_async=is_async))


_tier("priority", "0.0116")
_tier("flex", "0.0029")
FIVE_MINUTES = ClaudeReply(input_tokens=1000, cached_tokens=2000, write_5m_tokens=300, output_tokens=200)
TWO_WRITES = ClaudeReply(input_tokens=1000, cached_tokens=2000, write_5m_tokens=300, write_1h_tokens=100, output_tokens=200)  # fmt: skip


@both("9", "Claude, writes of 5 minutes and 1 hour", TWO_WRITES, usd="0.008325")
async def _(world: World, *, is_async: bool) -> str:
    """1000 x 3 + 2000 x 0.30 + 300 x 3.75 + 100 x 6 + 200 x 15 = 8325 per million."""
    return await seen(ask(claude(world.far), world.config(), is_async=is_async))


@both("9", "Claude streamed, writes of 5 minutes", FIVE_MINUTES, usd="0.007725")
async def _(world: World, *, is_async: bool) -> str:
    return await seen(read(stream_of(claude(world.far), world.config(), is_async=is_async), is_async=is_async))


# -- 10: one call, one entry, however often the handler is attached


@both("10", "constructor + config + block")
async def _(world: World, *, is_async: bool) -> str:
    handler = world.handler(Budget(calls=5))
    model = chat(world.far, callbacks=[handler])
    with track(Budget(calls=5), meter=world.meter()):
        return await seen(ask(model, {"callbacks": [handler]}, is_async=is_async))


@both("10", "with_config + config of one model", DRIP)
async def _(world: World, *, is_async: bool) -> str:
    """LangChain joins the two lists and tells the handler of every event twice (langchain-core 1.8.3)."""
    config = world.config(Budget(usd="5"), Budget(calls=1))
    model = chat(world.far).with_config(config)
    return await seen(read(stream_of(model, config, is_async=is_async), is_async=is_async))


@both("10", "two handlers on one ledger", requests=2, saw="answered, answered, BudgetExceeded")
async def _(world: World, *, is_async: bool) -> str:
    config, model = {"callbacks": [world.handler(Budget(calls=5)), world.handler(Budget(calls=2))]}, chat(world.far)
    return ", ".join([await seen(ask(model, config, is_async=is_async)) for _ in range(3)])


@case("10", "two handlers on one ledger, cancelled", NEVER, **unseen(saw="CancelledError"))
async def _(world: World) -> str:
    config = {"callbacks": [world.handler(), world.handler(Budget(calls=2))]}
    return await cancelled(world, chat(world.far).ainvoke(QUESTION, config=config))


# -- 11, 14: with a checkpointer


class Told(TypedDict):
    said: int


def _three_nodes(world: World, saver: Any) -> Any:
    """n1, n2, n3 ask one after another; the state holds neither prompts nor answers."""
    model = chat(world.far)

    def node(state: Told) -> Any:
        model.invoke(SECRET)
        return {"said": state["said"] + 1}

    async def anode(state: Told) -> Any:
        await model.ainvoke(SECRET)
        return {"said": state["said"] + 1}

    graph = StateGraph(Told)
    for name in ("n1", "n2", "n3"):
        graph.add_node(name, RunnableLambda(node, anode))
    graph.add_edge(START, "n1")
    graph.add_edge("n1", "n2")
    graph.add_edge("n2", "n3")
    graph.add_edge("n3", END)
    return graph.compile(checkpointer=saver)


def _savers(world: World) -> Any:
    return {
        "InMemorySaver": InMemorySaver,
        "SqliteSaver": lambda: SqliteSaver(sqlite3.connect(checkpoint_file(world), check_same_thread=False)),
    }


def checkpoint_file(world: World) -> Path:
    return world.path.with_name(f"{world.path.stem}-checkpoints.db")


def _bytes_of(path: Path) -> bytes:
    return b"".join(part.read_bytes() for part in sorted(path.parent.glob(f"{path.name}*")))


def _resume(trap: str, saver: str, mode: str, requests: int, committed: int) -> None:
    @case(trap, f"{mode}, then resume, {saver}", Reply(text=SPOKEN, **PAID), requests=requests, saw="BudgetExceeded, answered")  # fmt: skip
    async def _(world: World) -> str:
        thread = {"configurable": {"thread_id": "t1"}}
        graph = _three_nodes(world, _savers(world)[saver]())
        # two answers use it up: the second crosses
        budget = Budget(usd="0.0004", at_limit=mode)
        first = await seen(lambda: graph.invoke({"said": 0}, config={**thread, **world.config(budget)}))
        state = graph.get_state(thread)
        assert state.values["said"] == committed, f"{committed} answers must be in the checkpoint: {state.values}"
        errors = [task.error for task in state.tasks]
        assert "used up" in str(errors) or "past its limit" in str(errors) or "Budget" in str(errors), errors
        second = await seen(lambda: graph.invoke(None, config={**thread, **world.config(Budget(calls=9))}))
        assert graph.get_state(thread).values["said"] == 3
        text = repr(list(graph.checkpointer.list(thread))).encode()
        if saver == "SqliteSaver":
            graph.checkpointer.conn.close()
            text += _bytes_of(checkpoint_file(world))
        assert SECRET.encode() not in text, "a prompt is in the checkpoint"
        assert SPOKEN.encode() not in text, "an answer is in the checkpoint"
        return f"{first}, {second}"


_resume("11", "InMemorySaver", "refuse", 3, 2)
_resume("11", "SqliteSaver", "refuse", 3, 2)
_resume("14", "InMemorySaver", "raise", 4, 1)
_resume("14", "SqliteSaver", "raise", 4, 1)


@case("11", "refuse, then resume, async", requests=3, saw="BudgetExceeded, answered")
async def _(world: World) -> str:
    thread, graph = {"configurable": {"thread_id": "t1"}}, _three_nodes(world, InMemorySaver())
    first = await seen(graph.ainvoke({"said": 0}, config={**thread, **world.config(Budget(calls=2))}))
    second = await seen(graph.ainvoke(None, config={**thread, **world.config(Budget(calls=2))}))
    return f"{first}, {second}"


# -- 12: what config does not reach, install() does; in a process of its own, for it cannot be undone

INSTALLED = """
import asyncio, sys, threading
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from ai_budget_callbacks import Budget, BudgetExceeded, Meter, install
url, path = sys.argv[1:]
model = ChatOpenAI(base_url=url, api_key="sk-x", model="gpt-4o-mini", max_retries=0)
meter = Meter([Budget(calls=4)], ledger=path)
install(meter)

def plain_thread():
    found = []
    def work():
        try:
            found.append(model.invoke("q"))
        except BudgetExceeded as refusal:
            found.append(refusal)
    thread = threading.Thread(target=work)
    thread.start(); thread.join()
    if isinstance(found[0], BudgetExceeded):
        raise found[0]

def executor():
    async def main():
        await asyncio.get_running_loop().run_in_executor(None, lambda: model.invoke("q"))
    asyncio.run(main())

ways = [plain_thread, executor, lambda: model.generate([[HumanMessage("q")]]), lambda: model.invoke("q", config={"callbacks": []})]
said = []
for way in ways * 2:
    try:
        way(); said.append("answered")
    except BudgetExceeded:
        said.append("refused")
meter.close()
print(", ".join(said))
"""


@case("12", "thread, executor, generate(), callbacks=[] under install()", requests=4, saw=", ".join(["answered"] * 4 + ["refused"] * 4))  # fmt: skip
async def _(world: World) -> str:
    command = [sys.executable, "-c", INSTALLED, world.far.base_url, str(world.path)]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=root, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip() or done.stderr


# -- 13: a ledger opened in one thread, used from others


@case("13", "handler made in a thread, used from pools and the loop", requests=14)
async def _(world: World) -> str:
    with ThreadPoolExecutor(1) as pool:
        handler = pool.submit(world.handler).result()
    model, config = chat(world.far), {"callbacks": [handler]}
    await asyncio.gather(*(asyncio.to_thread(model.invoke, QUESTION, config=config) for _ in range(4)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: model.invoke(QUESTION, config=config), range(4)))
    model.batch([QUESTION] * 3, config=config)
    await model.abatch([QUESTION] * 3, config=config)
    return "answered"


# -- 15: task groups


@case("15", "TaskGroup: a refusal cancels the sibling", NEVER, **unseen(saw="ExceptionGroup(BudgetExceeded)"))
async def _(world: World) -> str:
    model, config = chat(world.far), world.config(Budget(calls=1))

    async def both_at_once() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(model.ainvoke(QUESTION, config=config))
            await world.sent()
            group.create_task(model.ainvoke(QUESTION, config=config))

    said = "answered"
    try:
        await both_at_once()
    except* BudgetExceeded as refused:
        said = name_of(refused)
    return said


@case("15", "TaskGroup: a failing sibling", NEVER, **unseen(saw="ExceptionGroup(ZeroDivisionError)"))
async def _(world: World) -> str:
    model, config = chat(world.far), world.config()

    async def fails() -> None:
        await world.sent()
        raise ZeroDivisionError

    async def both_at_once() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(model.ainvoke(QUESTION, config=config))
            group.create_task(fails())

    return await seen(both_at_once())


@case("15", "TaskGroup in a block that it crosses", requests=2, saw="ExceptionGroup(BudgetExceeded)")
async def _(world: World) -> str:
    model = chat(world.far)

    async def service() -> None:
        async with track(Budget(calls=2), meter=world.meter()):
            for _ in range(2):
                await model.ainvoke(QUESTION)
            async with asyncio.TaskGroup() as group:
                group.create_task(model.ainvoke(QUESTION))

    return await seen(service())


# -- 3.5: streams that are left, cut, or broken


def _left(label: str, leave: Callable[[Any], Awaitable[None]], *, is_async: bool, make: Any = chat, **more: Any) -> None:  # fmt: skip
    kind = "astream" if is_async else "stream"
    reply = CLAUDE_DRIP if make is claude else DRIP
    expected = unseen(status="estimated") | more

    @case("3.5", f"{make.__name__}.{kind} {label}", reply, **expected)
    async def _(world: World) -> str:
        held = [stream_of(make(world.far), world.config(), is_async=is_async)]
        for _ in range(3):  # the first has no text
            await anext(held[0]) if is_async else next(held[0])
        await leave(held)
        await no_holds(world)
        return "answered"


CLAUDE_DRIP = ClaudeReply(text=WORDS, chunk_delay_s=0.02, **PAID)


async def _close(held: list[Any]) -> None:
    held.pop().close()


async def _aclose(held: list[Any]) -> None:
    await held.pop().aclose()


async def _collect(held: list[Any]) -> None:
    held.clear()


for maker, bill in ((chat, UNIT), (responses, UNIT), (claude, Decimal("0.006"))):
    _left("closed", _close, is_async=False, make=maker, usd=bill)
    _left("closed", _aclose, is_async=True, make=maker, usd=bill)
    _left("collected unclosed", _collect, is_async=False, make=maker, usd=bill)
    _left("collected unclosed", _collect, is_async=True, make=maker, usd=bill)


@both("3.5", "break out of a stream", DRIP, **unseen(status="estimated"))
async def _(world: World, *, is_async: bool) -> str:
    stream = stream_of(chat(world.far), world.config(), is_async=is_async)
    if is_async:
        async for chunk in stream:
            if chunk.text:
                break
    else:
        for chunk in stream:
            if chunk.text:
                break
    del stream
    await no_holds(world)
    return "answered"


@case("3.5", "task cancelled in astream", DRIP, **unseen(status="estimated", saw="CancelledError"))
async def _(world: World) -> str:
    began = asyncio.Event()

    async def consume() -> None:
        async for chunk in chat(world.far).astream(QUESTION, config=world.config()):
            if chunk.text:
                began.set()

    task = asyncio.create_task(consume())
    await began.wait()
    task.cancel()
    return await seen(task)


@case("3.5", "a chain's astream cancelled", DRIP, **unseen(saw="CancelledError", statuses=("unknown", "+estimated")))
async def _(world: World) -> str:
    """Its root's error comes first; the model's own follows when the stream is collected."""
    chain = ChatPromptTemplate.from_template("{question}") | chat(world.far) | StrOutputParser()
    began = asyncio.Event()

    async def consume() -> None:
        async for text in chain.astream({"question": QUESTION}, config=world.config()):
            if text:
                began.set()

    task = asyncio.create_task(consume())
    await began.wait()
    task.cancel()
    said = await seen(task)
    del task  # it keeps the stream's frames
    gc.collect()
    await until(lambda: len(read_back(world.path).entries) == 2, "the stream's own end was lost")
    return said


@both("3.5", "with_fallbacks, left at the first chunk", DRIP, **unseen())
async def _(world: World, *, is_async: bool) -> str:
    """Its root run never ends then, and its model runs in a step of its own (langchain-core 1.8.3)."""
    model = chat(world.far).with_fallbacks([chat(world.far)])
    stream = stream_of(model, world.config(), is_async=is_async)
    await anext(stream) if is_async else next(stream)
    return await seen(stream.aclose() if is_async else stream.close)


CUT = Reply(text=WORDS, cut_after_chunks=6, chunk_delay_s=0.01, **PAID)


@both("3.5", "connection dies mid-stream", CUT, **unseen(status="estimated", saw="APIConnectionError" if NAMES_STREAM_ERRORS else "RemoteProtocolError"))  # fmt: skip
async def _(world: World, *, is_async: bool) -> str:
    return await seen(read(stream_of(chat(world.far), world.config(), is_async=is_async), is_async=is_async))


@both("3.5", "connection dies before the body", Reply(cut_after_chunks=0, **PAID), **unseen(saw="APIConnectionError"))
async def _(world: World, *, is_async: bool) -> str:
    return await seen(ask(chat(world.far), world.config(), is_async=is_async))


@both("3.5", "client read timeout", NEVER, **unseen(saw="APITimeoutError"))
async def _(world: World, *, is_async: bool) -> str:
    return await seen(ask(chat(world.far, timeout=0.5), world.config(), is_async=is_async))


def _http(status: int, error: str) -> None:
    @both("3.5", f"HTTP {status}", Reply(status=status), statuses=(), usd="0", saw=error)
    async def _(world: World, *, is_async: bool) -> str:
        return await seen(ask(chat(world.far), world.config(), is_async=is_async))


_http(429, "RateLimitError")
_http(500, "InternalServerError")


class BreaksOff(FarEnd):
    """An error object with a code of its own inside a 200 stream, as OpenRouter sends it."""

    class Wire(ChatWire):
        def frames(self) -> list[bytes]:
            error = {"message": "upstream gave up", "type": "server_error", "param": None, "code": 400}
            return [*super().frames()[:5], sse({"error": error}), b"data: [DONE]\n\n"]

    wires = {**FarEnd.wires, "/v1/chat/completions": Wire}


@both("3.5", "error object in a 200 stream", DRIP, **unseen(status="estimated", saw="APIError"), server=BreaksOff)
async def _(world: World, *, is_async: bool) -> str:
    return await seen(read(stream_of(chat(world.far), world.config(), is_async=is_async), is_async=is_async))


class Webhook(BaseCallbackHandler):
    """Posts every token somewhere; that place is down."""

    raise_error = True

    def __init__(self, error: Exception, at: int) -> None:
        self.error, self.left = error, at

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def _answered_500() -> Exception:
    request = httpx.Request("POST", "http://hooks.example/tokens")
    return httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))


def _webhook(label: str, make_error: Callable[[], Exception], at: int, status: str) -> None:
    saw = type(make_error()).__name__

    @both("3.5", f"another handler's {label} at token {at}", DRIP, **unseen(status=status, saw=saw))
    async def _(world: World, *, is_async: bool) -> str:
        config = {"callbacks": [Webhook(make_error(), at), world.handler()]}
        return await seen(read(stream_of(chat(world.far), config, is_async=is_async), is_async=is_async))

    @both("3.5", f"the same, invoke with streaming=True, {label} at {at}", DRIP, **unseen(saw=saw))
    async def _(world: World, *, is_async: bool) -> str:
        config = {"callbacks": [world.handler(), Webhook(make_error(), at)]}
        return await seen(ask(chat(world.far, streaming=True), config, is_async=is_async))


_webhook("HTTP 500", _answered_500, 1, "unknown")
_webhook("HTTP 500", _answered_500, 4, "estimated")
_webhook("refused connection", lambda: httpx.ConnectError("down"), 4, "estimated")


def second_fails(request: Any) -> Reply:
    return Reply(status=500) if request.body["messages"][-1]["content"] == "b" else ANSWER


@case("3.5", "generate of 3, the second fails", second_fails, requests=2, statuses=("unknown",) * 2, usd=UNIT, exact=False, saw="InternalServerError")  # fmt: skip
async def _(world: World) -> str:
    """Prompts go out one after another: the first was paid and gets no end event, the third was never sent."""
    model, callbacks = chat(world.far), [world.handler()]
    return await seen(lambda: model.generate(prompts(), callbacks=callbacks))


@case("3.5", "agenerate of 3, the second fails", second_fails, requests=3, statuses=("unknown", "unknown", "+priced", "+priced"), usd=2 * UNIT, saw="InternalServerError")  # fmt: skip
async def _(world: World) -> str:
    """The others' ends come after its error."""
    return await seen(chat(world.far).agenerate(prompts(), callbacks=[world.handler()]))


@both("3.5", "OpenAI(LLM) batch in two requests, the second fails", [ANSWER, Reply(status=500)], requests=2, statuses=("unknown",) * 3, usd="0.0019", exact=False, saw="InternalServerError")  # fmt: skip
async def _(world: World, *, is_async: bool) -> str:
    """More prompts than the client's own batch size are several requests; the first was answered and is billed."""
    model, callbacks = text_model(world.far, batch_size=2), [world.handler(reserve="0.001")]
    return await seen(model.agenerate(["a", "b", "c"], callbacks=callbacks) if is_async else lambda: model.generate(["a", "b", "c"], callbacks=callbacks))  # fmt: skip


@case("3.5", "OpenAI(LLM) batch of 3 times out", NEVER, requests=1, statuses=("unknown",) * 3, usd="0.0019", exact=False, saw="APITimeoutError")  # fmt: skip
async def _(world: World) -> str:
    model, callbacks = text_model(world.far, timeout=0.5), [world.handler(reserve="0.001")]
    return await seen(lambda: model.generate(["a", "b", "c"], callbacks=callbacks))


@case("3.5", "batch_as_completed broken off", SLOW, requests=3)
async def _(world: World) -> str:
    """What its pool has taken up is sent, answered and priced."""
    config = world.config() | {"max_concurrency": 2}
    for _ in chat(world.far).batch_as_completed([QUESTION] * 3, config=config):
        break
    await world.sent(3)
    return "answered"


# -- 1.2: other handlers that raise, so that the call's end is never told


class Raises(BaseCallbackHandler):
    """A guard rail."""

    raise_error = True

    def __init__(self, at: str) -> None:
        setattr(self, at, self._no)

    def _no(self, *args: Any, **kwargs: Any) -> None:
        raise PermissionError


@both("1.2", "a guard refuses after us: nothing is sent", requests=0, statuses=("unknown",), usd="0", exact=False, saw="PermissionError")  # fmt: skip
async def _(world: World, *, is_async: bool) -> str:
    config = {"callbacks": [world.handler(), Raises("on_chat_model_start")]}
    said = await seen(ask(chat(world.far), config, is_async=is_async))
    await no_holds(world)
    return said


@case("1.2", "a handler before us raises at the end", **unseen(saw="PermissionError"))
async def _(world: World) -> str:
    config = {"callbacks": [Raises("on_llm_end"), world.handler()]}
    said = await seen(ask(chat(world.far), config, is_async=False))
    await no_holds(world)
    return said


# -- running and printing


async def run_case(item: Case, path: Path) -> Result:
    """Run a case, wait until what it left behind is on the books, and read them."""
    with item.server(item.reply) as far:
        world = World(far, path)
        try:
            said = await asyncio.create_task(item.run(world))
            await _quiet(world, item)
            books = read_back(path)
        finally:
            world.close()
        marks = {"call": "", "adjustment": "+"}
        statuses = sorted(marks[row["kind"]] + row["status"] for row in books.entries)
        held = len(books.holds) + sum(1 for row in books.balances if row["held"])
        return Result(said, len(far.requests), tuple(statuses), held, books.booked_usd, far.billed_usd)


async def _quiet(world: World, item: Case) -> None:
    """Until no hold is open and all requests have arrived: other tasks and threads end what was left."""
    for _ in range(400):
        books = read_back(world.path)
        if not books.holds and len(books.entries) >= len(item.statuses) and len(world.far.requests) >= item.requests:
            return
        await asyncio.sleep(0.005)


def ratio(result: Result) -> str:
    if result.booked == result.billed:
        return "exact"
    return f"{result.booked / result.billed:.2f}" if result.billed else "over"


def counted(statuses: tuple[str, ...]) -> str:
    parts: Iterator[str] = (f"{statuses.count(name)} {name}" for name in dict.fromkeys(statuses))
    return ", ".join(parts) or "none"


async def _print_table() -> int:
    columns = "{:<4} {:<62} {:>4} {:>7}  {:<28} {:>5} {:>8}  {}"
    print(columns.format("trap", "case", "sent", "entries", "statuses", "holds", "booked/b", "the caller saw"))
    wrong, cases = 0, [item for item in CASES if not item.lacks]
    with tempfile.TemporaryDirectory() as folder:
        for number, item in enumerate(cases):
            try:
                got = await run_case(item, Path(folder) / f"{number}.db")
            except AssertionError as error:
                wrong += 1
                print(f"{item.trap:<4} {item.name:<62} FAILED: {error}")
                continue
            right = (got.requests, got.statuses, got.holds, got.saw) == (item.requests, item.statuses, 0, item.saw)
            right &= got.booked == got.billed if item.exact else got.booked >= got.billed
            wrong += not right
            statuses = counted(got.statuses)
            cells = (item.trap, item.name, got.requests, len(got.statuses), statuses, got.holds, ratio(got), got.saw)
            print(columns.format(*cells) + ("" if right else "   <-- WRONG"))
    print(f"{len(cases) - wrong} of {len(cases)} as they must be")
    return wrong


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    sys.exit(min(asyncio.run(_print_table()), 1))
