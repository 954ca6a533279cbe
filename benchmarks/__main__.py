"""`make bench`: what ledger, meter, pricing, handler and import cost, beside what they are measured by."""

from __future__ import annotations

import gc
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from uuid_utils import uuid7

from ai_budget_callbacks import Budget, Meter
from ai_budget_callbacks.budget import Attached
from ai_budget_callbacks.ledger import Claim, Posting, Want, open_ledger
from ai_budget_callbacks.meter import Outcome
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage import Call, Request, Usage, Who

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, CALLS = 5, 400
USAGE = Usage(buckets=MappingProxyType({"input_uncached": 1000, "output_text": 100}), reader="openai/1")
BOOK = PriceBook()


def call(user: str = "alice") -> Call:
    return Call(
        id=str(uuid7()),
        framework="langchain",
        provider="openai",
        model="gpt-4o-mini",
        started_at=datetime.now(UTC),
        who=Who(run_id="run", root_seen=True, user=user),
        request=Request(text_bytes=400, max_output_tokens=200),
    )


def timed(function: Callable[[], Any], times: int = CALLS) -> list[float]:
    gc.collect()
    gc.disable()
    try:
        taken = []
        for _ in range(times):
            started = time.perf_counter()
            function()
            taken.append((time.perf_counter() - started) * 1e6)
        return taken
    finally:
        gc.enable()


def raw_insert(path: Path) -> Callable[[], Any]:
    """The unit: one autocommit insert of one row, in a file of its own with the same pragmas."""
    conn = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY", "cache_size=-16384"):
        conn.execute(f"PRAGMA {pragma}")
    conn.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, who TEXT, amount INTEGER)")
    return lambda: conn.execute("INSERT INTO t(who, amount) VALUES(?, ?)", ("alice", 210_000_000))


def sql_pair(path: Path, balances: int) -> Callable[[], Any]:
    """The SQL of one reserve and one settle, without our Python around it."""
    from ai_budget_callbacks.ledger import statements as sql
    from ai_budget_callbacks.ledger.rows import call_json, entry_fields, row_of

    ledger = open_ledger(str(path))
    items = [Attached.make(Budget(usd="1000000", per="total", name=f"b{i}"), "o", i) for i in range(balances)]
    ledger.register(items)
    first = call()
    ledger.reserve(claim(first, items))
    ledger.release(first.id)
    conn = ledger._connection._conn  # noqa: SLF001 - the same connection and pragmas
    posting = Posting(
        call=first, status="priced", ended_at=datetime.now(UTC), usage=USAGE, cost=cost(), booked_pico=210
    )
    fields = entry_fields(posting, kind="call", booked_pico=210, adjusts=None)
    text = call_json(first)
    amounts = "{" + ",".join(f'"{i + 1}":1000' for i in range(balances)) + "}"
    moved = {i + 1: 210 for i in range(balances)}

    def run() -> None:
        key = str(uuid7())
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(sql.OPEN_HOLD, (key,)).fetchone()
        conn.execute(sql.HAS_ENTRY, (f"call:{key}",)).fetchone()
        for i in range(balances):
            conn.execute(sql.RESERVE, {"id": i + 1, "amount": 1000, "lim": 10**18})
        conn.execute(
            sql.INSERT_HOLD,
            {"call_id": key, "amounts": amounts, "scopes": '["h"]', "call": text, "estimate_pico": 1000,
             "estimate_tokens": 10, "owner": "me", "opened_at": "2026", "expires_at": "2027"},
        )  # fmt: skip
        conn.execute("COMMIT")
        row = row_of(fields, key=f"call:{key}", amounts=moved, held=moved, text_bytes=400, content=None)
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(sql.CLOSE_HOLD, (key,)).fetchone()
        conn.execute(sql.HAS_ENTRY, (f"call:{key}",)).fetchone()
        for i in range(balances):
            conn.execute(sql.STATE, (i + 1,)).fetchone()
            conn.execute(sql.SETTLE, {"id": i + 1, "held": 1000, "added": 210})
        entry = conn.execute(sql.INSERT_ENTRY, row).lastrowid
        conn.execute(sql.INSERT_SCOPE, ("h", entry))
        conn.execute("COMMIT")

    return run


def claim(made: Call, items: list[Attached]) -> Claim:
    wants = tuple(Want(key=i.balance(made, None), amount=1000, limit=i.budget.limit) for i in items)
    later = made.started_at + timedelta(hours=1)
    return Claim(call=made, wants=wants, scopes=("h",), estimate_pico=1000, estimate_tokens=10, expires_at=later)


def cost() -> Any:
    return BOOK.price(USAGE, provider="openai", model="gpt-4o-mini", requested=None, at=datetime.now(UTC))


def ledger_pair(path: Path, balances: int) -> Callable[[], Any]:
    """The ledger's methods: lock, side file, JSON, rows."""
    ledger = open_ledger(str(path))
    items = [Attached.make(Budget(usd="1000000", per="total", name=f"b{i}"), "o", i) for i in range(balances)]
    ledger.register(items)
    price = cost()

    def run() -> None:
        made = call()
        ledger.reserve(claim(made, items))
        ledger.settle(
            Posting(call=made, status="priced", ended_at=datetime.now(UTC), usage=USAGE, cost=price, booked_pico=210)
        )

    return run


def meter_pair(path: Path) -> Callable[[], Any]:
    """Estimate, check, hold; price, commit."""
    meter = Meter([Budget(usd="1000000", per="total", name="b")], ledger=str(path))
    outcome = Outcome(kind="answer", usage=USAGE, response_model="gpt-4o-mini")
    return lambda: meter.settle(meter.reserve(call()), outcome)


def chain(path: Path | None, *, idle: bool = False) -> Callable[[], Any]:
    """A prompt and a fake model, in process: without a handler, with one that does nothing, and with ours."""
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.prompts import ChatPromptTemplate

    from ai_budget_callbacks.langchain import BudgetCallbackHandler

    def answers() -> Any:
        while True:
            yield AIMessage(
                content="ok",
                usage_metadata={"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
                response_metadata={"model_name": "gpt-4o-mini"},
            )

    model = GenericFakeChatModel(messages=answers(), metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"})
    made = ChatPromptTemplate.from_messages([("human", "{question}")]) | model
    if idle:
        nothing = BaseCallbackHandler()
        return lambda: made.invoke({"question": "hi"}, config={"callbacks": [nothing]})
    if path is None:
        return lambda: made.invoke({"question": "hi"})
    handler = BudgetCallbackHandler(Budget(usd="1000000"), ledger=str(path))
    return lambda: made.invoke({"question": "hi"}, config={"callbacks": [handler]})


def imports() -> tuple[float, float]:
    def once(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - started) * 1e3

    bare, ours = [], []
    for _ in range(7):
        bare.append(once("pass"))
        ours.append(once("import ai_budget_callbacks"))
    return statistics.median(bare), statistics.median(ours)


def main() -> None:
    where = Path(tempfile.mkdtemp(prefix="bench-", dir=sys.argv[1] if len(sys.argv) > 1 else Path.cwd()))
    try:
        runners: dict[str, Callable[[], Any]] = {
            "raw insert": raw_insert(where / "raw.db"),
            "SQL of reserve + settle, 1 balance": sql_pair(where / "sql1.db", 1),
            "SQL of reserve + settle, 3 balances": sql_pair(where / "sql3.db", 3),
            "ledger.reserve + settle, 1 balance": ledger_pair(where / "one.db", 1),
            "ledger.reserve + settle, 3 balances": ledger_pair(where / "three.db", 3),
            "meter.reserve + settle": meter_pair(where / "meter.db"),
            "pricing one warm call": cost,
            "chain without handler": chain(None),
            "chain with a do-nothing handler": chain(None, idle=True),
            "chain with handler": chain(where / "chain.db"),
        }
        taken: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(ROUNDS):  # interleaved, so that a slow minute is slow for all
            for name, run in runners.items():
                taken[name] += timed(run)
        medians = {name: statistics.median(values) for name, values in taken.items()}
        unit = medians["raw insert"]
        goals = {
            "SQL of reserve + settle, 1 balance": "≤ 6x",
            "SQL of reserve + settle, 3 balances": "≤ 7x",
            "meter.reserve + settle": "≤ 10x and ≤ 150 µs",
            "pricing one warm call": "≤ 10 µs",
        }
        print(f"{'':42} {'median µs':>10} {'/ raw insert':>13}  goal")
        for name, value in medians.items():
            print(f"{name:42} {value:10.1f} {value / unit:12.1f}x  {goals.get(name, '')}")
        overhead = medians["chain with handler"] - medians["chain without handler"]
        print(f"{'handler overhead, one call':42} {overhead:10.1f} {overhead / unit:12.1f}x  ≤ 150 µs")
        bare, ours = imports()
        print(f"{'import over bare Python, ms':42} {ours - bare:10.1f} {'':13}  ≤ 50 ms")
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
