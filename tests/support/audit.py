"""The books read by a second connection, and the assertion every flow test ends with.

`read_back` opens the ledger file with plain sqlite3 and knows its tables only; `audit` compares requests at the server,
entries in the file, holds left open, and booked with billed.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

PICO = Decimal(10) ** -12


@dataclass(frozen=True)
class Books:
    """The ledger file as another program sees it."""

    entries: list[dict[str, Any]]
    balances: list[dict[str, Any]]
    holds: list[dict[str, Any]]
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def booked_usd(self) -> Decimal:
        """What USD balances count, adjustments included."""
        return sum((row["booked_pico"] or 0 for row in self.entries), 0) * PICO

    @property
    def cost_usd(self) -> Decimal:
        """The known costs."""
        return sum((row["cost_pico"] or 0 for row in self.entries), 0) * PICO

    @property
    def statuses(self) -> list[str]:
        """Status of each entry, in order of booking."""
        return [row["status"] for row in self.entries]

    def spent(self, unit: str = "usd") -> list[Decimal | int]:
        """What the balances of a unit count."""
        rows = [row["spent"] for row in self.balances if row["unit"] == unit]
        return [spent * PICO for spent in rows] if unit == "usd" else rows

    def column(self, name: str) -> list[Any]:
        """One column of the call entries."""
        return [row[name] for row in self.entries if row["kind"] == "call"]

    def one(self) -> dict[str, Any]:
        """The only entry."""
        assert len(self.entries) == 1, f"one provider response was expected on the books, {len(self.entries)} are"
        return self.entries[0]


def read_back(path: Any) -> Books:
    """Entries, balances and holds, through a connection of our own."""
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    conn.row_factory = sqlite3.Row
    try:
        entries = [dict(row) for row in conn.execute("SELECT * FROM entry ORDER BY id")]
        balances = [dict(row) for row in conn.execute("SELECT * FROM balance ORDER BY id")]
        holds = [dict(row) for row in conn.execute("SELECT * FROM hold")]
    finally:
        conn.close()
    for row in entries:
        for name in ("usage", "raw_usage", "amounts", "metadata", "flags", "lines", "source"):
            row[name] = json.loads(row[name]) if row[name] else row[name]
    return Books(entries, balances, holds)


def audit(far: Any, path: Any, *, requests: int, entries: int, usd: str | None = None, exact: bool = True) -> Books:
    """The four numbers that must agree after any flow.

    Args:
        far: The far end.
        path: The ledger file.
        requests: Requests that must have reached the server.
        entries: Rows the ledger must have.
        usd: The bill, computed by hand from published prices; None where the server's own bill is the only opinion.
        exact: Whether every cost is known: booked == billed to the last digit.
    """
    books = read_back(path)
    sent = len(far.requests)
    assert sent == requests, f"{sent} requests were sent (and paid for), {requests} were expected"
    rows = len(books.entries)
    assert rows == entries, f"{sent} requests left {rows} entries on the books, expected {entries}: {books.statuses}"
    held = [row["amounts"] for row in books.holds]
    assert not held, f"{len(held)} holds are still open and lock up money nobody will spend: {held}"
    open_amounts = {row["budget"]: row["held"] for row in books.balances if row["held"]}
    assert not open_amounts, f"balances still hold {open_amounts} with no hold open"
    for row in books.balances:
        total = sum((entry["amounts"] or {}).get(str(row["id"]), 0) for entry in books.entries)
        assert row["spent"] == total, f"balance {row['budget']} says {row['spent']} spent, its entries sum to {total}"
    if usd is not None:
        assert far.billed_usd == Decimal(usd), f"the server billed ${far.billed_usd}, by hand it is ${usd}"
    if exact:
        booked = books.booked_usd
        assert booked == far.billed_usd, f"the books say ${booked}, the provider billed ${far.billed_usd}"
    return books
