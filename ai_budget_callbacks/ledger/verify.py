"""The books checked against themselves. Reads only; every line says what is wrong and where.

Invariants I1, I2, I4, I5 of facts/ledger.md 3.4, the arithmetic of every priced entry, and what looks like one
response booked twice.
"""

from __future__ import annotations

import json
from typing import Any

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import pico_from_usd

__all__ = ["verify"]

_SPENT = """
SELECT balance.id, budget, window_key, scope, spent, COALESCE(total, 0) FROM balance LEFT JOIN
  (SELECT CAST(part.key AS INTEGER) AS id, SUM(part.value) AS total
   FROM entry, json_each(entry.amounts) AS part GROUP BY 1) AS booked ON booked.id = balance.id
WHERE spent <> COALESCE(total, 0)
"""
_HELD = """
SELECT balance.id, budget, window_key, scope, held, COALESCE(total, 0) FROM balance LEFT JOIN
  (SELECT CAST(part.key AS INTEGER) AS id, SUM(part.value) AS total
   FROM hold, json_each(hold.amounts) AS part GROUP BY 1) AS open ON open.id = balance.id
WHERE held <> COALESCE(total, 0)
"""
_BOTH = """
SELECT call_id FROM hold WHERE 'call:' || call_id IN (SELECT key FROM entry) OR call_id IN (SELECT key FROM entry)
"""
_TWICE = """
SELECT provider, response_id, count(*) FROM entry
WHERE kind = 'call' AND response_id IS NOT NULL AND status NOT IN ('free') GROUP BY 1, 2 HAVING count(*) > 1
"""
_ZERO = "SELECT id FROM entry WHERE kind = 'call' AND status IN ('priced', 'reported') AND COALESCE(cost_pico, 0) <= 0"
# The lines of an adjustment are those of the whole cost, of which it adds the difference.
_MONEY = """
SELECT id, cost_pico, cost_usd, lines, CASE WHEN adjusts IS NULL THEN cost_pico ELSE
  (SELECT SUM(cost_pico) FROM entry AS old WHERE (old.id = entry.adjusts OR old.adjusts = entry.adjusts)
   AND old.id <= entry.id) END
FROM entry WHERE status = 'priced' OR cost_pico IS NOT NULL
"""
_BOOKED = """
SELECT entry.id, entry.booked_pico, MAX(part.value) FROM entry, json_each(entry.amounts) AS part
JOIN balance ON balance.id = CAST(part.key AS INTEGER) AND balance.unit = 'usd'
WHERE entry.kind <> 'adjustment' GROUP BY entry.id HAVING COALESCE(entry.booked_pico, 0) <> MAX(part.value)
"""
# An entry and its adjustments together are booked once, as what they moved the balances by.
_ADJUSTED = """
WITH corrected AS (SELECT DISTINCT adjusts AS call FROM entry WHERE adjusts IS NOT NULL),
sums AS (
  SELECT COALESCE(adjusts, id) AS call, SUM(booked_pico) AS booked, SUM(cost_pico) AS cost, MAX(id) AS last
  FROM entry WHERE adjusts IS NOT NULL OR id IN corrected GROUP BY 1),
moved AS (
  SELECT COALESCE(adjusts, entry.id) AS call, balance.id AS balance, SUM(part.value) AS amount
  FROM entry, json_each(entry.amounts) AS part
  JOIN balance ON balance.id = CAST(part.key AS INTEGER) AND balance.unit = 'usd'
  WHERE adjusts IS NOT NULL OR entry.id IN corrected GROUP BY 1, 2),
most AS (SELECT call, MAX(amount) AS amount FROM moved GROUP BY 1)
SELECT sums.call, COALESCE(booked, 0), most.amount, cost, last.status, origin.kind
FROM sums LEFT JOIN most ON most.call = sums.call
JOIN entry AS last ON last.id = sums.last LEFT JOIN entry AS origin ON origin.id = sums.call
"""
_MISSING = """
SELECT entry.id, part.key FROM entry, json_each(entry.amounts) AS part
WHERE CAST(part.key AS INTEGER) NOT IN (SELECT id FROM balance)
"""


def verify(conn: Any) -> list[str]:
    """One line for each thing that is wrong; an empty list for books that add up."""
    wrong = [f"file: {row[0]}" for row in conn.execute("PRAGMA integrity_check").fetchall() if row[0] != "ok"]
    for _, budget, window, scope, spent, total in conn.execute(_SPENT).fetchall():
        wrong.append(f"balance {budget} {window} {scope}: spent is {spent}, its entries sum to {total}")
    for _, budget, window, scope, held, total in conn.execute(_HELD).fetchall():
        wrong.append(f"balance {budget} {window} {scope}: held is {held}, its open holds sum to {total}")
    wrong += [f"call {row[0]}: has an entry and still an open hold" for row in conn.execute(_BOTH).fetchall()]
    for provider, response_id, count in conn.execute(_TWICE).fetchall():
        wrong.append(f"response {response_id} of {provider}: booked {count} times (or the server repeats ids)")
    wrong += [f"entry {row[0]}: priced at nothing" for row in conn.execute(_ZERO).fetchall()]
    for entry, booked, moved in conn.execute(_BOOKED).fetchall():
        wrong.append(f"entry {entry}: booked {booked} pico-dollars, and moved its USD balances by {moved}")
    for entry, balance in conn.execute(_MISSING).fetchall():
        wrong.append(f"entry {entry}: moved balance {balance}, which does not exist")
    return wrong + _check_adjusted(conn) + _check_arithmetic(conn)


def _check_adjusted(conn: Any) -> list[str]:
    wrong = []
    for root, booked, moved, cost, status, kind in conn.execute(_ADJUSTED).fetchall():
        if kind in {None, "adjustment"}:
            wrong.append(f"entry {root}: is adjusted, and is no entry of its own")
        elif moved is not None and moved != booked:
            wrong.append(f"entry {root}: booked {booked} pico-dollars with its adjustments, and moved {moved}")
        if status in {"priced", "reported"} and (cost or 0) <= 0:
            wrong.append(f"entry {root}: adjusted to a cost of {cost} pico-dollars, and {status}")
    return wrong


def _check_arithmetic(conn: Any) -> list[str]:
    wrong = []
    for entry, pico, text, lines, whole in conn.execute(_MONEY):
        if pico is None or _pico(text) != pico:
            wrong.append(f"entry {entry}: cost_usd is {text}, cost_pico is {pico}")
        elif lines is not None:
            amounts = [_pico(line.get("amount_usd")) for line in json.loads(lines)]
            total = None if None in amounts else sum(filter(None, amounts))
            if total != whole:
                wrong.append(f"entry {entry}: its lines sum to {total} pico-dollars, its cost is {whole}")
    return wrong


def _pico(text: object) -> int | None:
    """An amount as written, or None when it is no amount."""
    try:
        return pico_from_usd(text, what="amount")
    except ConfigError:
        return None
