"""What a reserve and a settle cost, layer by layer, beside one raw insert."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
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
    from pathlib import Path

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


# A call of each kind: few buckets, and every bucket of a long prompt with caches, thinking and searches.
PRICED = {
    "two buckets": ("openai", "gpt-4o-mini", USAGE),
    "seven buckets, caches and a tier": (
        "anthropic",
        "claude-sonnet-4-5",
        Usage(
            buckets=MappingProxyType(
                {
                    "input_uncached": 1_000,
                    "cache_read": 50_000,
                    "cache_write_5m": 300,
                    "cache_write_1h": 200,
                    "output_text": 100,
                    "output_reasoning": 400,
                    "web_search": 2,
                }
            )
        ),
    ),
}


def pricing(kind: str) -> Callable[[], Any]:
    """One call priced with the card in the cache: lines and provenance too."""
    provider, model, usage = PRICED[kind]
    at = datetime.now(UTC)
    found = BOOK.price(usage, provider=provider, model=model, requested=model, at=at)
    assert found.status == "priced"
    assert len(found.lines) == len(usage.buckets)
    assert found.source
    return lambda: BOOK.price(usage, provider=provider, model=model, requested=model, at=at)


def genai_pricing(kind: str) -> Callable[[], Any]:
    """The same counts by the library whose data we read."""
    from genai_prices import Usage as Theirs
    from genai_prices import calc_price

    provider, model, usage = PRICED[kind]
    counts = usage.buckets
    writes = {f"cache_write_{life}_tokens": counts.get(f"cache_write_{life}") for life in ("5m", "1h")}
    theirs = Theirs(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=counts.get("cache_read"),
        cache_write_tokens=sum(filter(None, writes.values())) or None,
        web_searches=counts.get("web_search"),
        **writes,
    )
    at = datetime.now(UTC)
    assert calc_price(theirs, model, provider_id=provider, genai_request_timestamp=at).total_price == cost_of(kind)
    return lambda: calc_price(theirs, model, provider_id=provider, genai_request_timestamp=at)


def cost_of(kind: str) -> Any:
    """What it costs, to see that both price the same thing."""
    return pricing(kind)().usd


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


def workers(path: Path, count: int, pairs: int = 640) -> float:
    """Pairs of reserve and settle a second, by some threads on one meter and one balance."""
    meter = Meter([Budget(usd="1000000", per="total", name="b")], ledger=str(path))
    outcome = Outcome(kind="answer", usage=USAGE, response_model="gpt-4o-mini")
    together = threading.Barrier(count + 1)

    def work() -> None:
        together.wait()
        for _ in range(pairs // count):
            meter.settle(meter.reserve(call()), outcome)

    with ThreadPoolExecutor(count) as pool:
        done = [pool.submit(work) for _ in range(count)]
        together.wait()
        started = time.perf_counter()
        for item in done:
            item.result()
        return pairs / (time.perf_counter() - started)


def filled(path: Path, rows: int) -> Callable[[], Any]:
    """A pair on a ledger that has so many entries already: copies of one, made in SQL."""
    meter = Meter([Budget(usd="1000000", per="total", name="b")], ledger=str(path))
    outcome = Outcome(kind="answer", usage=USAGE, response_model="gpt-4o-mini")
    meter.settle(meter.reserve(call()), outcome)
    meter.close()
    conn = sqlite3.connect(path, isolation_level=None)
    columns = [row[1] for row in conn.execute("PRAGMA table_info(entry)") if row[1] not in {"id", "key", "run_id"}]
    names = ", ".join(columns)
    conn.execute("PRAGMA synchronous=OFF")
    conn.execute("PRAGMA cache_size=-200000")
    conn.execute(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        f"INSERT INTO entry(id, key, run_id, {names}) "
        f"SELECT i, 'call:' || printf('%032d', i), 'run-' || (i / 10), {names} FROM n, entry WHERE entry.id = 1",
        (rows,),
    )
    conn.execute("INSERT OR IGNORE INTO entry_scope(scope, entry) SELECT 'handler', id FROM entry")
    conn.close()
    again = Meter([Budget(usd="1000000", per="total", name="b")], ledger=str(path))
    return lambda: again.settle(again.reserve(call()), outcome)
