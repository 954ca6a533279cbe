"""Every wrapper that could spend on after a refusal, one case each (facts/langchain.md 1.4).

`python -m tests.flow.wrapper_table` runs them and prints what happened; test_refusal.py asserts it.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents import middleware as offered
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import RetryPolicy

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import chat
from tests.support.provider import FarEnd
from tests.support.versions import (
    LACKS_DEFAULT_RETRY_ON,
    LACKS_ERROR_HANDLER,
    LACKS_SPARED_REFUSALS,
    LACKS_SUMMARY_TRIGGER,
    default_retry_on,
    lacks_middleware,
)

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "What is two plus two?"
ASK = {"messages": [("human", QUESTION)]}


def script(request: Any) -> Reply:
    """A tool call where a tool is offered and none was called yet, else text. Every answer costs $0.00027."""
    offered = request.body.get("tools") or []
    called = any(message.get("role") == "tool" for message in request.body["messages"])
    calls = (ToolCall(offered[0]["function"]["name"], {"topic": "sums"}),) if offered and not called else ()
    return Reply(text="" if calls else "Four.", tool_calls=calls, input_tokens=1000, output_tokens=200)


@dataclass(frozen=True)
class Case:
    """One wrapper.

    Attributes:
        name: As users write it.
        build: Makes the runnable from the far end; a run of it makes at least one call more than the budget has.
        input: What it is run with.
        trip_at: How many calls are made and paid for before the one that the wrapper gets refused.
        outcome: "raised", or "returned" where the wrapper hides the refusal from the caller.
        lacks: Why the installed versions cannot run it, or "".
    """

    name: str
    build: Callable[[FarEnd], Runnable]
    input: Any = QUESTION
    trip_at: int = 1
    outcome: str = "raised"
    lacks: str = ""


@dataclass(frozen=True)
class Result:
    """What one run of a case did."""

    outcome: str
    error: BaseException | None
    sent: int
    exceeded: bool


# -- models and chains: two calls of the wrapped model in one run


def _twice(wrap: Callable[[Any], Runnable]) -> Callable[[FarEnd], Runnable]:
    def build(far: FarEnd) -> Runnable:
        model = wrap(chat(far))

        def run(question: str) -> str:
            model.invoke(question)
            return model.invoke(question).text

        async def arun(question: str) -> str:
            await model.ainvoke(question)
            return (await model.ainvoke(question)).text

        return RunnableLambda(run, arun)

    return build


def _twice_streamed(wrap: Callable[[Any], Runnable]) -> Callable[[FarEnd], Runnable]:
    def build(far: FarEnd) -> Runnable:
        model = wrap(chat(far))

        def run(question: str) -> str:
            return "".join(chunk.text for _ in range(2) for chunk in model.stream(question))

        async def arun(question: str) -> str:
            return "".join([chunk.text for _ in range(2) async for chunk in model.astream(question)])

        return RunnableLambda(run, arun)

    return build


def _retry(**options: Any) -> Callable[[Any], Runnable]:
    return lambda model: model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False, **options)


def _fallbacks(model: Any) -> Runnable:
    return model.with_fallbacks([model.with_config(tags=["second"]), model.with_config(tags=["third"])])


# -- agents: the first call asks for the tool, the second is refused


@tool
def look_up(topic: str) -> str:
    """Look something up."""
    return f"All about {topic}."


def _agent(*middleware: Callable[[Any], Any]) -> Callable[[FarEnd], Runnable]:
    def build(far: FarEnd) -> Runnable:
        model = chat(far)
        return create_agent(model, [look_up], middleware=[make(model) for make in middleware])

    return build


def _tool_with_llm(far: FarEnd) -> Any:
    model = chat(far)

    def look_deep(topic: str) -> str:
        """Ask a model about a topic."""
        return model.invoke(topic).text

    async def alook_deep(topic: str) -> str:
        """Ask a model about a topic."""
        return (await model.ainvoke(topic)).text

    made = tool(look_deep)
    made.coroutine = alook_deep
    return made


def _agent_with_llm_tool(*middleware: Callable[[], Any]) -> Callable[[FarEnd], Runnable]:
    def build(far: FarEnd) -> Runnable:
        return create_agent(chat(far), [_tool_with_llm(far)], middleware=[make() for make in middleware])

    return build


def _tool_node(**options: Any) -> Callable[[FarEnd], Runnable]:
    def build(far: FarEnd) -> Runnable:
        deep = _tool_with_llm(far)
        model = chat(far).bind_tools([deep])

        def call_model(state: MessagesState) -> Any:
            return {"messages": [model.invoke(state["messages"])]}

        async def acall_model(state: MessagesState) -> Any:
            return {"messages": [await model.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("model", RunnableLambda(call_model, acall_model))
        graph.add_node("tools", ToolNode([deep], **options))
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
        return graph.compile()

    return build


# -- graphs: two nodes, the second is refused


class _State(TypedDict):
    said: str


def _two_nodes(**options: Any) -> Callable[[FarEnd], Runnable]:
    def build(far: FarEnd) -> Runnable:
        model = chat(far)

        def node(_: _State) -> Any:
            return {"said": model.invoke(QUESTION).text}

        async def anode(_: _State) -> Any:
            return {"said": (await model.ainvoke(QUESTION)).text}

        graph = StateGraph(_State)
        graph.add_node("n1", RunnableLambda(node, anode), **options)
        graph.add_node("n2", RunnableLambda(node, anode), **options)
        graph.add_edge(START, "n1")
        graph.add_edge("n1", "n2")
        graph.add_edge("n2", END)
        return graph.compile()

    return build


def _handled(_: _State) -> Any:
    return {"said": "handled"}


_NOW = {"initial_delay": 0.0, "jitter": False}
CASES = (
    Case("no wrapper", _twice(lambda model: model)),
    Case("with_retry(stop_after_attempt=3)", _twice(_retry())),
    Case(
        "with_retry(default_retry_on)",
        _twice(_retry(retry_if_exception_type=default_retry_on)),
        lacks=LACKS_DEFAULT_RETRY_ON,
    ),
    Case("with_fallbacks([m, m])", _twice(_fallbacks)),
    Case("with_retry .stream", _twice_streamed(_retry())),
    Case("with_fallbacks .stream", _twice_streamed(_fallbacks)),
    Case(
        "ModelRetryMiddleware",
        _agent(lambda _: offered.ModelRetryMiddleware(max_retries=3, **_NOW)),
        ASK,
        # it makes a message of what it gives up on, unless that is not to be retried
        outcome="returned" if LACKS_SPARED_REFUSALS else "raised",
        lacks=lacks_middleware("ModelRetryMiddleware"),
    ),
    Case("ModelFallbackMiddleware", _agent(lambda model: offered.ModelFallbackMiddleware(model, model)), ASK),
    Case(
        "SummarizationMiddleware",
        _agent(lambda model: offered.SummarizationMiddleware(model, trigger=("messages", 3), keep=("messages", 1))),
        ASK,
        lacks=LACKS_SUMMARY_TRIGGER,
    ),
    Case(
        "ToolRetryMiddleware, LLM in tool",
        _agent_with_llm_tool(lambda: offered.ToolRetryMiddleware(max_retries=2, **_NOW)),
        ASK,
    ),
    Case(
        "ToolErrorMiddleware, LLM in tool",
        _agent_with_llm_tool(lambda: offered.ToolErrorMiddleware(on_error=lambda error, request: "failed")),  # noqa: ARG005
        ASK,
        lacks=lacks_middleware("ToolErrorMiddleware"),
    ),
    Case("ToolNode(handle_tool_errors=True)", _tool_node(handle_tool_errors=True), ASK),
    Case("ToolNode default, LLM in tool", _tool_node(), ASK),
    Case("create_agent default, LLM in tool", _agent_with_llm_tool(), ASK),
    Case("node RetryPolicy(max_attempts=3)", _two_nodes(retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.01)), {"said": ""}),
    Case("node error_handler", _two_nodes(error_handler=_handled), {"said": ""}, outcome="returned", lacks=LACKS_ERROR_HANDLER),
)  # fmt: skip
IN_TOOL = {case.name for case in CASES if "in tool" in case.name or "handle_tool_errors" in case.name}

BUDGETS = ("calls", "usd", "raise")


def budget_for(kind: str, case: Case) -> Budget:
    """A budget that the case's first call uses up. With "raise" the call that crosses is the one wrapped."""
    if kind == "calls":
        return Budget(calls=case.trip_at)
    if kind == "usd":
        return Budget(usd="0.00027")  # exactly the price of one answer
    return Budget(usd="0.0004" if case.name in IN_TOOL else "0.0002", at_limit="raise")


def paid_calls(kind: str, case: Case) -> int:
    """How many requests the budget pays for, the crossing one included."""
    return 2 if kind == "raise" and case.name in IN_TOOL else case.trip_at


async def run_case(case: Case, kind: str, how: str, far: FarEnd, path: Path, *, is_async: bool) -> Result:
    """Run one case under one budget, given in a handler or a `track()` block."""
    runnable = case.build(far)
    far.reset()
    budget = budget_for(kind, case)
    if how == "track":
        return await _run_tracked(runnable, case.input, budget, far, path, is_async=is_async)
    handler = BudgetCallbackHandler(budget, ledger=path)
    outcome, error = "returned", None
    try:
        await _run(runnable, case.input, {"callbacks": [handler]}, is_async=is_async)
    except BudgetExceeded as exceeded:
        outcome, error = "raised", exceeded
    try:
        handler.raise_if_exceeded()
        told = False
    except BudgetExceeded:
        told = handler.exceeded
    handler.close()
    return Result(outcome, error, len(far.requests), told)


async def _run_tracked(
    runnable: Runnable, given: Any, budget: Budget, far: FarEnd, path: Path, *, is_async: bool
) -> Result:
    meter = Meter(ledger=path)
    outcome, error, run = "returned", None, None
    try:
        with track(budget, meter=meter) as run:
            await _run(runnable, given, {}, is_async=is_async)
            outcome = "raised at the block's exit"
        outcome = "returned"
    except BudgetExceeded as exceeded:
        outcome, error = ("raised" if outcome == "returned" else outcome), exceeded
    meter.close()
    return Result(outcome, error, len(far.requests), bool(run and run.exceeded))


async def _run(runnable: Runnable, given: Any, config: Any, *, is_async: bool) -> Any:
    return await runnable.ainvoke(given, config=config) if is_async else runnable.invoke(given, config=config)


async def _print_table() -> None:
    head = ("wrapper", "budget", "outcome", "handler.exceeded", "requests after the limit", "track()")
    print("{:<36} {:<6} {:<9} {:<17} {:<25} {}".format(*head))
    with FarEnd(script) as far, tempfile.TemporaryDirectory() as folder:
        rows = [(case, kind) for case in CASES for kind in BUDGETS if not case.lacks]
        for number, (case, kind) in enumerate(rows):
            cells = []
            for how in ("handler", "track"):
                both = [
                    await run_case(case, kind, how, far, Path(folder) / f"{number}-{how}-{way}.db", is_async=way)
                    for way in (False, True)
                ]
                cells.append(
                    (
                        " / ".join(dict.fromkeys(result.outcome for result in both)),
                        " / ".join(dict.fromkeys(str(result.exceeded) for result in both)),
                        " / ".join(dict.fromkeys(str(result.sent - paid_calls(kind, case)) for result in both)),
                    )
                )
            (outcome, exceeded, after), (tracked, _, tracked_after) = cells
            print(
                f"{case.name:<36} {kind:<6} {outcome:<9} {exceeded:<17} {after:<25} {tracked} ({tracked_after} after)"
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    asyncio.run(_print_table())
