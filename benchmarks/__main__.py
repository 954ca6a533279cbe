"""`make bench`: what ledger, meter, pricing, handler and import cost, beside what they are measured by.

One run, interleaved; ratios are to one raw autocommit insert on a file with the same pragmas. Goals: DESIGN 8.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import books, chains, engines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUNDS, CALLS = 5, 300
GOALS = {
    "SQL of reserve + settle, 1 balance": "≤ 6x",
    "SQL of reserve + settle, 3 balances": "≤ 7x",
    "meter.reserve + settle": "≤ 10x and ≤ 150 µs",
    "pricing one warm call": "≤ 10 µs",
}


def timed(function: Callable[[], Any], times: int) -> list[float]:
    """Microseconds of each call, with the garbage collector off."""
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


def medians(runners: Mapping[str, Callable[[], Any]], times: int = CALLS) -> dict[str, float]:
    """Median of each, measured in turns, so that a slow minute is slow for all."""
    taken: dict[str, list[float]] = {name: [] for name in runners}
    for run in runners.values():
        timed(run, 20)
    for _ in range(ROUNDS):
        for name, run in runners.items():
            taken[name] += timed(run, times)
    return {name: statistics.median(values) for name, values in taken.items()}


def imports() -> tuple[float, float]:
    """Milliseconds of a bare Python, and of one that imports the package."""

    def once(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - started) * 1e3

    bare, ours = [], []
    for _ in range(7):
        bare.append(once("pass"))
        ours.append(once("import ai_budget_callbacks"))
    return statistics.median(bare), statistics.median(ours)


def layers(where: Path) -> float:
    """SQL, ledger, meter, pricing. Returns the unit."""
    found = medians(
        {
            "raw insert": books.raw_insert(where / "raw.db"),
            "SQL of reserve + settle, 1 balance": books.sql_pair(where / "sql1.db", 1),
            "SQL of reserve + settle, 3 balances": books.sql_pair(where / "sql3.db", 3),
            "ledger.reserve + settle, 1 balance": books.ledger_pair(where / "one.db", 1),
            "ledger.reserve + settle, 3 balances": books.ledger_pair(where / "three.db", 3),
            "meter.reserve + settle": books.meter_pair(where / "meter.db"),
            "the same, 1e3 entries in the file": books.filled(where / "e3.db", 1_000),
            "the same, 1e6 entries in the file": books.filled(where / "e6.db", 1_000_000),
            "pricing one warm call": books.cost,
        }
    )
    unit = found["raw insert"]
    print(f"{'':42} {'median µs':>10} {'/ raw insert':>13}  goal")
    for name, value in found.items():
        print(f"{name:42} {value:10.1f} {value / unit:12.1f}x  {GOALS.get(name, '')}")
    return unit


def pricing() -> None:
    """One warm call with lines and provenance, beside genai_prices.calc_price in the same turns."""
    print(f"\n{'pricing one warm call, with lines':42} {'median µs':>10} {'/ calc_price':>13}  goal")
    for kind in books.PRICED:
        found = medians({"ours": books.pricing(kind), "genai_prices.calc_price": books.genai_pricing(kind)})
        theirs = found["genai_prices.calc_price"]
        for name, value in found.items():
            goal = "≤ 10 µs and ≤ 1/5" if name == "ours" else ""
            print(f"{f'{name}, {kind}':42} {value:10.1f} {value / theirs:13.3f}  {goal}")


def threads(where: Path) -> None:
    """Pairs a second on one meter, by 1, 8 and 64 threads."""
    rates = {count: books.workers(where / f"w{count}.db", count) for count in (1, 8, 64)}
    print(f"\n{'threads on one meter':42} {'pairs/s':>10} {'/ 1 thread':>13}")
    for count, rate in rates.items():
        print(f"{count:42} {rate:10.0f} {rate / rates[1]:12.2f}x")


def handler_table(what: str, module: Any, where: Path) -> None:
    """One call in four ways, without a handler, with others', with ours."""
    loop = asyncio.new_event_loop()
    found: dict[str, dict[str, float]] = {}
    named = module.handlers(where)
    for way in module.WAYS:
        found[way] = medians({name: module.runner(way, handler, loop) for name, handler in named.items()}, 60)
    loop.close()
    print(f"\n{what:42}" + "".join(f"{way:>18}" for way in module.WAYS))
    for name in named:
        cells = (f"{found[way][name]:.0f} (+{found[way][name] - found[way]['none']:.0f})" for way in module.WAYS)
        print(f"{name:42}" + "".join(f"{cell:>18}" for cell in cells) + ("  goal +150" if name == "ours" else ""))


def main() -> None:
    where = Path(tempfile.mkdtemp(prefix="bench-", dir=sys.argv[1] if len(sys.argv) > 1 else Path.cwd()))
    try:
        layers(where)
        pricing()
        threads(where)
        handler_table("a LangChain chain, µs (over no handler)", chains, where)
        handler_table("a LlamaIndex model, µs (over no handler)", engines, where)
        bare, ours = imports()
        print(f"\n{'import over bare Python, ms':42} {ours - bare:10.1f} {'':13}  ≤ 50 ms")
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
