"""The columns that entries are grouped by in reports: their names, and what an entry has in each."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ai_budget_callbacks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_budget_callbacks.ledger import Entry

__all__ = ["DIMENSIONS", "NONE", "check_columns", "column_value"]

DIMENSIONS = ("step", "agent", "tool", "model", "user", "provider", "thread", "run", "status", "day", "framework")
NONE = "(none)"


def column_value(entry: Entry, dimension: str, last: Entry | None = None) -> str:
    """What an entry has in a column of reports (or under a metadata key); "(none)" where it has nothing.

    Args:
        entry: The entry.
        dimension: The column.
        last: The last adjustment of the call, if it has any: its status is the one the call has by now.
    """
    if dimension == "status":
        return (last or entry).status
    if dimension == "step":
        return entry.node or NONE
    if dimension == "run":
        return entry.run_id or NONE
    if dimension == "day":
        return entry.at.date().isoformat()
    value = getattr(entry, dimension, None)
    if value is None and dimension not in DIMENSIONS:
        value = entry.metadata.get(dimension)
    return str(value) if value else NONE


def check_columns(names: Sequence[str], entries: Sequence[Entry]) -> None:
    """Refuse names that would put everything under "(none)".

    Raises:
        ConfigError: A name is neither a column nor a metadata key of any of the entries.
    """
    for name in names if entries else ():
        _check_column(name, entries)


def _check_column(name: str, entries: Sequence[Entry]) -> None:
    keys = {key for entry in entries for key in entry.metadata}
    if name in DIMENSIONS or name in keys or hasattr(entries[0], name):
        return
    near = difflib.get_close_matches(name, [*DIMENSIONS, "node", *keys], n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{name!r} is no column ({', '.join(DIMENSIONS)}), and no metadata key of these entries.{meant}")
