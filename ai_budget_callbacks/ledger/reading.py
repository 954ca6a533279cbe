"""What reports ask of the file besides entries. Reads only, in SQL, so that a million rows stay in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.budget import Budget
from ai_budget_callbacks.ledger import KnownBudget, LedgerStatus
from ai_budget_callbacks.ledger.rows import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["known_budgets", "latest_runs", "status"]

_LATEST_RUNS = """
SELECT run_id FROM entry WHERE run_id IS NOT NULL AND id NOT IN (SELECT id FROM entry WHERE adjusts IS NOT NULL)
GROUP BY run_id ORDER BY MAX(id) DESC LIMIT ?
"""
_BUDGETS = "SELECT key, name, identity, last_limit FROM budget ORDER BY created_at, key"
# what was corrected counts once, as its last correction
_STATUS = """
SELECT status, count(*) FROM entry WHERE id NOT IN (SELECT adjusts FROM entry WHERE adjusts IS NOT NULL)
AND (adjusts IS NULL OR id IN (SELECT MAX(id) FROM entry WHERE adjusts IS NOT NULL GROUP BY adjusts)) GROUP BY status
"""


def latest_runs(conn: Any, count: int) -> list[str]:
    """Ids of the runs that booked something last, the latest first; a correction of an old run is none."""
    return [row[0] for row in conn.execute(_LATEST_RUNS, (count,)).fetchall()]


def known_budgets(conn: Any) -> list[KnownBudget]:
    """Every budget the file has seen, with the limit of the process that gave it last."""
    return [
        KnownBudget(key=key, budget=Budget.known(name, identity, limit))
        for key, name, identity, limit in conn.execute(_BUDGETS).fetchall()
    ]


def status(conn: Any) -> LedgerStatus:
    """How much is in the file, and since when."""
    counts: Mapping[str, int] = dict(conn.execute(_STATUS).fetchall())
    first, last = conn.execute("SELECT MIN(at), MAX(at) FROM entry").fetchone()
    return LedgerStatus(
        entries=counts,
        first_at=None if first is None else moment(first),
        last_at=None if last is None else moment(last),
        open_holds=int(conn.execute("SELECT count(*) FROM hold").fetchone()[0]),
        size_bytes=int(
            conn.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]
        ),
    )
