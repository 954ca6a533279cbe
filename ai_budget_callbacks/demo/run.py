"""`ai-budget demo`: real clients and real agents of both frameworks, a provider on loopback, and a limit that holds.

Everything but the provider is what a user runs. It fails when our total and the provider's own bill differ by as
much as the last digit.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, Meter
from ai_budget_callbacks.demo.llama import query_and_agent
from ai_budget_callbacks.demo.loopback import LoopbackProvider, RecordedRequest, Reply, ToolCall
from ai_budget_callbacks.langchain import BudgetCallbackHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run_demo"]

MODEL = "gpt-4o-mini"
QUESTION = "Find every paper about budgets and read them all."


@tool
def search(query: str) -> str:
    """Search the library; it always has more."""
    return f"10 of 48,213 papers about {query}. There is a next page."


def _never_done(request: RecordedRequest) -> Reply:
    """A model that always wants one more page: the loop that burns money."""
    if not request.body.get("tools"):
        embeds = request.path.endswith("/embeddings")
        return Reply() if embeds else Reply(text="Plans.", input_tokens=180, output_tokens=20)
    call = ToolCall(name="search", arguments={"query": f"budgets, page {request.number}"})
    return Reply(text="", tool_calls=(call,), input_tokens=640 + 90 * (request.number % 7), output_tokens=60)


def run_demo(*, ledger: str | None = None, live: bool = False) -> int:
    """Run the demo and print what happens.

    Args:
        ledger: Ledger file; None for a new temporary one.
        live: Use the real API with `OPENAI_API_KEY`, under a budget of one cent.

    Returns:
        Exit code: 0, or 1 when the totals differ or the limit did not hold.
    """
    path = ledger or str(Path(tempfile.mkdtemp(prefix="ai-budget-demo-")) / "spend.db")
    if live and not os.environ.get("OPENAI_API_KEY"):
        print("--live needs OPENAI_API_KEY in the environment.")
        return 1
    with _quiet(), nullcontext() if live else LoopbackProvider(_never_done) as provider:
        code = _live(path) if provider is None else _loopback(path, provider)
    print(f"\nThe ledger is {path}. Look further:")
    print(f"  {_started_as('ai-budget')} report --ledger {path} --by step,tool,model")
    print(f"  {_started_as('ai-budget')} verify --ledger {path}")
    print(f"  {_started_as('sqlite-utils')} rows {path} calls --limit 3")
    return code


def _started_as(program: str) -> str:
    """A program as it can be typed here: beside the `ai-budget` this is, which need not be on the PATH."""
    own = Path(sys.argv[0])
    if own.name == "__main__.py":
        module = {"ai-budget": "ai_budget_callbacks"}.get(program, program.replace("-", "_"))
        return f"{shlex.quote(sys.executable)} -m {module}"
    beside = own.with_name(program)
    typed = own.parent != Path() and own.name == "ai-budget" and beside.exists()
    return shlex.quote(str(beside)) if typed else program


def _agent(base_url: str | None) -> Any:
    local: dict[str, Any] = {"base_url": base_url, "api_key": "no-key-needed"} if base_url else {}
    return create_agent(ChatOpenAI(model=MODEL, max_completion_tokens=200, **local), [search], name="researcher")


def _loopback(path: str, provider: LoopbackProvider) -> int:
    meter = Meter(ledger=path, reserve="worst_case")
    print("1. An agent that would never stop, under Budget(usd='0.003').")
    handler = BudgetCallbackHandler(meter, Budget(usd="0.003"))
    held = _stopped(handler, provider)

    print("\n2. The same with at_limit='raise', reserve='none': one call may cross, and its answer is not lost.")
    crossing = BudgetCallbackHandler(Budget(usd="0.0005", at_limit="raise"), ledger=path, reserve="none")
    crossed = _crossed(crossing, provider)

    print("\n3. LlamaIndex on the same meter, in track(Budget(usd='0.002')): a query engine, then the agent.")
    both = query_and_agent(meter, provider, model=MODEL)

    print("\n4. What the meter counted, by step, agent, tool, model and user.")
    print(meter.summary())

    print("\n5. Our ledger beside the provider's own bill.")
    chats, embeddings = (_sides(path, provider, is_chat=is_chat) for is_chat in (True, False))
    print(f"   ledger:   ${chats.ours:f}  in {chats.entries} entries")
    print(f"   provider: ${chats.theirs.normalize():f}  in {chats.responses} responses")
    equal = chats.ours == chats.theirs
    print("   equal to the last digit." if equal else "   THEY DIFFER: please report this.")
    print(
        f"   embeddings: ${embeddings.ours:f} estimated from the texts, ${embeddings.theirs.normalize():f} billed: "
        "LlamaIndex drops their usage."
    )
    crossing.close()
    meter.close()
    return 0 if equal and held and crossed and both else 1


@dataclass(frozen=True)
class _Sides:
    ours: Decimal
    theirs: Decimal
    entries: int
    responses: int


def _sides(path: str, provider: LoopbackProvider, *, is_chat: bool) -> _Sides:
    """What the ledger file and the provider say of chat answers, or of embeddings."""
    reader = Meter(ledger=path)
    entries = [entry for entry in reader.entries() if (entry.model == MODEL) is is_chat]
    reader.close()
    billed = [item for item in provider.bill if (item.model == MODEL) is is_chat]
    return _Sides(
        sum((entry.cost_usd or Decimal(0) for entry in entries), Decimal(0)),
        sum((item.usd for item in billed), Decimal(0)),
        len(entries),
        len(billed),
    )


def _stopped(handler: BudgetCallbackHandler, provider: LoopbackProvider) -> bool:
    before = len(provider.requests)
    try:
        _agent(provider.base_url).invoke(_question(), config={"callbacks": [handler], "recursion_limit": 1000})
    except BudgetExceeded as stop:
        print(f"   BudgetExceeded after {len(provider.requests) - before} requests: {stop}")
        spent = handler.summary().booked_usd
        print(f"   spent ${spent:f} of $0.003; the request that did not fit was never sent.")
        return spent <= stop.limit  # type: ignore[operator]  # a USD budget's limit is a Decimal
    print("   THE LIMIT DID NOT HOLD: please report this.")
    return False


def _crossed(handler: BudgetCallbackHandler, provider: LoopbackProvider) -> bool:
    try:
        _agent(provider.base_url).invoke(_question(), config={"callbacks": [handler], "recursion_limit": 1000})
    except BudgetExceeded as stop:
        print(f"   BudgetExceeded: {stop}")
        if stop.response is None or stop.entry is None:
            print("   THE RESPONSE IS LOST: please report this.")
            return False
        message = stop.response.generations[0][0].message
        wanted = message.tool_calls[0]["args"]["query"]
        cost = f"${stop.entry.cost_usd:f}"
        print(f"   on the exception: entry {stop.entry.id} ({cost}) and the paid answer, asking {wanted!r}.")
        return True
    print("   THE LIMIT DID NOT HOLD: please report this.")
    return False


def _live(path: str) -> int:
    handler = BudgetCallbackHandler(Budget(usd="0.01"), ledger=path, reserve="worst_case")
    try:
        answer = _agent(None).invoke(_question(), config={"callbacks": [handler], "recursion_limit": 50})
        print(answer["messages"][-1].text)
    except BudgetExceeded as stop:
        print(f"BudgetExceeded: {stop}")
    print(handler.summary())
    handler.close()
    return 0


def _question() -> Any:
    return {"messages": [{"role": "user", "content": QUESTION}]}


@contextmanager
def _quiet() -> Iterator[None]:
    """LangChain logs each raising callback at WARNING; here the exception itself is shown."""
    logger = logging.getLogger("langchain_core.callbacks.manager")
    before = logger.level
    logger.setLevel(logging.ERROR)
    logging.getLogger("ai_budget_callbacks").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
