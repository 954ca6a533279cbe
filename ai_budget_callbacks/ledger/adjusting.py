"""Entries written, and corrected by signed adjustments. All inside the transaction of the caller.

An adjustment names the entry it corrects and says what it adds: to the known cost, to what is booked, to the tokens, to
each balance. So sums over entries are right without joins, and what the books say of a call is the sum of its entry and
its adjustments (docs/decisions/0004 and 0012).
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from ai_budget_callbacks.errors import LedgerError
from ai_budget_callbacks.ledger import Entry, Settled
from ai_budget_callbacks.ledger import statements as sql
from ai_budget_callbacks.ledger.rows import entry_fields, entry_of, lines_of, row_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_budget_callbacks.ledger import Correction, Posting
    from ai_budget_callbacks.usage import Usage

__all__ = ["adjust", "booked", "booked_pico", "insert", "late", "mappings"]


def booked(posting: Posting, unit: str, held: int) -> int:
    """What an outcome adds to one balance: its amount in that unit, or what was held where that must be kept."""
    amount = {"usd": posting.booked_pico or 0, "tokens": posting.booked_tokens, "calls": posting.booked_calls}[unit]
    return max(amount, held) if posting.keep_hold else amount


def booked_pico(posting: Posting, usd: Sequence[int]) -> int | None:
    """What was booked in USD: the posting's own amount, or the hold where that was more."""
    if not posting.keep_hold or not usd or max(usd) == 0:
        return posting.booked_pico
    return max(posting.booked_pico or 0, *usd)


def mappings(cursor: Any) -> list[dict[str, Any]]:
    """All rows of a cursor by column."""
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def insert(
    conn: Any,
    fields: dict[str, Any],
    *,
    key: str,
    moved: Mapping[int, tuple[int, int]],
    held: Mapping[int, int],
    scopes: Sequence[str],
    text_bytes: int = 0,
    content: str | None = None,
) -> Entry:
    """Write an entry whose key is not there yet, under its scopes."""
    row = row_of(
        fields,
        key=key,
        amounts={balance: added for balance, (added, _) in moved.items()},
        held=held,
        text_bytes=text_bytes,
        content=content,
    )
    cursor = conn.execute(sql.INSERT_ENTRY, row)
    assert cursor.rowcount == 1, "the entry was looked for in this transaction and was not there"
    for scope in scopes:
        conn.execute(sql.INSERT_SCOPE, (scope, cursor.lastrowid))
    return Entry(id=cursor.lastrowid, **fields)


@dataclasses.dataclass(frozen=True, slots=True)
class _Sums:
    """Rows of one entry and its adjustments, added up.

    Attributes:
        cost_pico: The known cost, or None.
        booked_pico, booked_tokens: What is booked.
        tokens: Input and output tokens.
        amounts: What each balance counts.
    """

    cost_pico: int | None
    booked_pico: int
    booked_tokens: int
    tokens: tuple[int, int]
    amounts: dict[int, int]


def _sums(rows: Sequence[Mapping[str, Any]]) -> _Sums:
    def of(column: str) -> int:
        return sum(row[column] or 0 for row in rows)

    costs = [row["cost_pico"] for row in rows if row["cost_pico"] is not None]
    amounts: dict[int, int] = {}
    for row in rows:
        for balance, amount in orjson.loads(row["amounts"]).items():
            amounts[int(balance)] = amounts.get(int(balance), 0) + amount
    return _Sums(
        cost_pico=sum(costs) if costs else None,
        booked_pico=of("booked_pico"),
        booked_tokens=of("booked_tokens"),
        tokens=(of("input_tokens"), of("output_tokens")),
        amounts=amounts,
    )


class _Books:
    """What the books say of one entry: itself and its adjustments, added up.

    Attributes:
        rows: The entry's row and those of its adjustments, in the order they were posted.
        now: All of them.
        first: Those up to the one that first had a cost: what was booked beyond it then had a reason.
        held: What its hold was, by balance.
    """

    def __init__(self, conn: Any, entry_id: int) -> None:
        self._conn = conn
        self.rows = mappings(conn.execute(sql.HISTORY, (entry_id,)))
        self.now = _sums(self.rows)
        priced = next((number for number, row in enumerate(self.rows, 1) if row["cost_pico"] is not None), None)
        self.first = _sums(self.rows[:priced])
        self.held = {int(k): v for k, v in orjson.loads(self.rows[0]["held"]).items()} if self.rows else {}

    def said(self, column: str) -> Any:
        """The last word in a column, or None."""
        return next((row[column] for row in reversed(self.rows) if row[column] is not None), None)

    def state(self, balance: int) -> tuple[str, int]:
        """Unit of a balance, and what is spent on it by all entries."""
        unit, spent, _ = self._conn.execute(sql.STATE, (balance,)).fetchone()
        return unit, spent

    def added(self, usage: Usage | None) -> tuple[int, int] | None:
        """Tokens to be added so that the books say what a usage says; None where that is all of it."""
        if usage is None:
            return None if self.now.tokens == (0, 0) else (0, 0)
        if self.now.tokens == (0, 0):
            return None
        return usage.input_tokens - self.now.tokens[0], usage.output_tokens - self.now.tokens[1]

    def post(self, fields: dict[str, Any], truth: Mapping[int, int], *, key: str, **kept: Any) -> Settled:
        """Write an adjustment and move each balance to what it should count of this entry."""
        moved: dict[int, tuple[int, int]] = {}
        for balance, amount in truth.items():
            added = amount - self.now.amounts[balance]
            self._conn.execute(sql.ADJUST, {"id": balance, "added": added})
            moved[balance] = (added, self.state(balance)[1])
        root = self.rows[0]["id"]
        scopes = [row[0] for row in self._conn.execute(sql.ENTRY_SCOPES, (root,)).fetchall()]
        entry = insert(self._conn, fields, key=key, moved=moved, held={}, scopes=scopes, **kept)
        return Settled(entry=entry, fresh=True, moved=MappingProxyType(moved))

    def unchanged(self, row: Mapping[str, Any]) -> Settled:
        """What was written before: another meter on this ledger still has to look at its own balances."""
        amounts = {int(balance): added for balance, added in orjson.loads(row["amounts"]).items()}
        moved = {
            balance: (added, self._conn.execute(sql.SPENT_AT, {"id": balance, "entry": row["id"]}).fetchone()[0])
            for balance, added in amounts.items()
        }
        return Settled(entry=entry_of(row), fresh=False, moved=MappingProxyType(moved))


def late(conn: Any, posting: Posting, entry_id: int) -> Settled:
    """A settle whose entry exists: a duplicate, or the truth about a call that was swept as unknown."""
    books = _Books(conn, entry_id)
    root, key = books.rows[0], f"late:{posting.call.key}"
    if root["status"] != "unknown" or posting.status == "unknown":
        return books.unchanged(root)
    known = next((row for row in books.rows if row["key"] == key), None)
    if known is not None:
        return books.unchanged(known)
    truth: dict[int, int] = {}
    usd: list[int] = []
    for balance in books.now.amounts:
        unit, _ = books.state(balance)
        truth[balance] = booked(posting, unit, books.held.get(balance, 0))
        if unit == "usd":
            usd.append(truth[balance])
    fields = entry_fields(
        posting,
        kind="adjustment",
        booked_pico=(booked_pico(posting, usd) or 0) - books.now.booked_pico,
        adjusts=root["id"],
    )
    fields["model"] = root["model"]  # the two cancel in every group (docs/decisions/0012)
    fields["booked_tokens"] -= books.now.booked_tokens
    fields["added_tokens"] = books.added(posting.usage)
    if fields["cost_pico"] is not None:
        fields["cost_pico"] -= books.now.cost_pico or 0
    return books.post(fields, truth, key=key, text_bytes=posting.call.request.text_bytes, content=posting.content)


def adjust(conn: Any, entry_id: int, correction: Correction) -> Settled:
    """See `Ledger.adjust`."""
    books = _Books(conn, entry_id)
    if not books.rows or books.rows[0]["id"] != entry_id or books.rows[0]["kind"] == "adjustment":
        raise LedgerError(f"There is no entry {entry_id} to correct; an adjustment is corrected through its entry.")
    root, last, pico = books.rows[0], books.rows[-1], correction.cost.pico
    if pico is None:
        raise LedgerError(f"Entry {entry_id} was not corrected: a correction must say what the call cost.")
    truth, spent = _truth(books, correction, pico)
    usage, source, now = correction.usage, correction.cost.source, books.now
    tokens = now.booked_tokens if usage is None else usage.total_tokens
    differences = (
        pico - (now.cost_pico or 0),
        spent - now.booked_pico,
        tokens - now.booked_tokens,
        *(() if usage is None else (usage.input_tokens - now.tokens[0], usage.output_tokens - now.tokens[1])),
    )
    if last["status"] == correction.status and truth == now.amounts and not any(differences):
        return books.unchanged(last)
    entry = entry_of(root)
    fields = {item.name: getattr(entry, item.name) for item in dataclasses.fields(entry) if item.name != "id"} | {
        "kind": "adjustment",
        "status": correction.status,
        "reason": correction.reason,
        "at": correction.at,
        "response_model": books.said("response_model"),
        "usage": usage,
        "terms": None if usage is None else usage.terms,
        "flags": () if usage is None else usage.flags,
        "cost_pico": differences[0],
        "booked_pico": differences[1],
        "booked_tokens": differences[2],
        "added_tokens": books.added(usage),
        "adjusts": root["id"],
        "lines": lines_of(correction.cost),
        "source": None if source is None else source.to_dict(),
    }
    return books.post(fields, truth, key=f"adjust:{root['key']}:{len(books.rows)}")


def _truth(books: _Books, correction: Correction, pico: int) -> tuple[dict[int, int], int]:
    """What each balance should count of an entry, and what should be booked for it in USD."""
    tokens = None if correction.usage is None else correction.usage.total_tokens
    first = books.first
    wanted = {"usd": (pico, first.cost_pico), "tokens": (tokens, first.booked_tokens), "calls": (None, None)}
    truth: dict[int, int] = {}
    usd: list[int] = []
    for balance, before in books.now.amounts.items():
        unit, _ = books.state(balance)
        amount, own = wanted[unit]
        if amount is None:
            truth[balance] = before
            continue
        kept = max(books.held.get(balance, 0), _beyond(first.amounts.get(balance, 0), own))
        truth[balance] = max(amount, kept if correction.keep_hold else 0)
        if unit == "usd":
            usd.append(truth[balance])
    if not usd and correction.keep_hold:
        usd.append(_beyond(first.booked_pico, first.cost_pico))
    return truth, max(pico, *usd) if usd else pico


def _beyond(booked: int, own: int | None) -> int:
    """What was booked, where that is more than an entry's own amount: somebody had a reason."""
    return booked if own is not None and booked > own else 0
