"""Many LlamaIndex calls at once under one limit: `python -m tests.llama.parallel_table` prints what was sent and billed.

The same is asserted by tests/adapters/test_adapter.py (threads, tasks, worst-case holds) and test_gate.py.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks import Budget, Meter, track
from ai_budget_callbacks.demo.loopback import Reply
from tests.llama.kit import ASK, chat, index_of
from tests.support.audit import read_back
from tests.support.provider import FarEnd

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 20
# 21 bytes + 16 a message + 512 a request = 549 tokens in, 100 out at most: $0.00014235 a call
ONE = Decimal("0.00014235")
BILLED = Reply(text="Four.", input_tokens=549, output_tokens=100, delay_s=0.05, service_tier=None)


def _threads(call: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(call) for _ in range(AT_ONCE)]:
            future.exception()


def _model(far: Any) -> Any:
    return chat(far, max_tokens=100, additional_kwargs={"service_tier": "default"})


def threads(far: Any, run: Any) -> None:
    model = _model(far)
    _threads(run.bind(lambda: model.chat(ASK)))


def streams(far: Any, run: Any) -> None:
    model = _model(far)
    _threads(run.bind(lambda: list(model.stream_chat(ASK))))


def tasks(far: Any, _run: Any) -> None:
    model = _model(far)

    async def all_at_once() -> None:
        await asyncio.gather(*(model.achat(ASK) for _ in range(AT_ONCE)), return_exceptions=True)

    asyncio.run(all_at_once())


def closed_streams(far: Any, run: Any) -> None:
    model = _model(far)

    def one() -> None:
        stream = model.stream_chat(ASK)
        next(stream)
        next(stream)
        stream.close()

    _threads(run.bind(one))


def query_engines(far: Any, _run: Any) -> None:
    engine = index_of().as_query_engine(llm=_model(far))

    async def all_at_once() -> None:
        await asyncio.gather(*(engine.aquery("What is two plus two?") for _ in range(AT_ONCE)), return_exceptions=True)

    asyncio.run(all_at_once())


WAYS = {
    f"{AT_ONCE} threads": threads,
    f"{AT_ONCE} tasks": tasks,
    f"{AT_ONCE} streams in threads": streams,
    f"{AT_ONCE} streams closed after 2 chunks": closed_streams,
    f"{AT_ONCE} queries of an engine": query_engines,
}


def go(way: Any, budget: Budget, **options: Any) -> tuple[int, Decimal, int, int]:
    """Requests, bill, entries and holds left."""
    with tempfile.TemporaryDirectory() as folder, FarEnd(BILLED) as far:
        path = Path(folder) / "spend.db"
        meter = Meter(ledger=path, **options)
        try:
            with track(budget, meter=meter) as run:
                way(far, run)
        except Exception:  # noqa: BLE001, S110 - the block tells of the refusals at its exit
            pass
        meter.close()
        books = read_back(path)
        return len(far.requests), far.billed_usd, len(books.entries), len(books.holds)


def main() -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)
    limit = 3 * ONE
    print(f'| | Budget(calls=3): sent, entries, holds left | Budget(usd="{limit}"), worst_case: sent, billed / limit |')
    print("|---|---|---|")
    for name, way in WAYS.items():
        sent, _, entries, held = go(way, Budget(calls=3))
        exact = go(way, Budget(usd=limit), reserve="worst_case")
        print(f"| {name} | {sent}, {entries}, {held} | {exact[0]}, ${exact[1]} / ${limit} = {exact[1] / limit:.2f} |")


if __name__ == "__main__":
    main()
