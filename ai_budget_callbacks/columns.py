"""The columns that entries are grouped by in reports: their names, and what an entry has in each."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ai_budget_callbacks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Sequence

    from ai_budget_callbacks.ledger import Entry

__all__ = ["DIMENSIONS", "NONE", "check_columns", "column_value"]

DIMENSIONS = ("step", "agent", "tool", "model", "user", "provider", "thread", "run", "status", "day", "framework")
NONE = "(none)"
_METADATA = "metadata."


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
    if dimension.startswith(_METADATA):
        value = entry.metadata.get(dimension.removeprefix(_METADATA))
    else:
        value = getattr(entry, dimension, None)
    return str(value) if value else NONE


def check_columns(names: Sequence[str], entries: Sequence[Entry], sums: Container[str] = ()) -> list[str]:
    """The names as `column_value` takes them: one that is no dimension is a metadata key where any entry has it.

    Args:
        names: What was asked for; `metadata.KEY` is always the key.
        entries: The entries.
        sums: Names of what is summed up: a column of such a name would be lost behind the sum.

    Raises:
        ConfigError: A name is neither a column nor a metadata key of any of the entries, or one of the sums.
    """
    keys = {key for entry in entries for key in entry.metadata}
    for name in names:
        if name in sums:
            also = f" For the metadata key, write {_METADATA}{name}." if name in keys else ""
            raise ConfigError(f"{name!r} is a sum, and nothing to group by ({', '.join(DIMENSIONS)}).{also}")
    return [_column(name, keys, entries) for name in names] if entries else list(names)


def _column(name: str, keys: Collection[str], entries: Sequence[Entry]) -> str:
    if name in DIMENSIONS or name == "node" or (name.startswith(_METADATA) and name.removeprefix(_METADATA) in keys):
        return name
    if name in keys:
        return f"{_METADATA}{name}"
    if hasattr(entries[0], name):
        return name
    near = difflib.get_close_matches(name, [*DIMENSIONS, "node", *keys], n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{name!r} is no column ({', '.join(DIMENSIONS)}), and no metadata key of these entries.{meant}")
