"""Entries → the tree of chains, agents and tools they were made in, with the cost of each node. No ledger access."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.money import usd_with_sign
from ai_budget_callbacks.report import Totals, last_words_of, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ai_budget_callbacks.ledger import Entry

__all__ = ["CallTree", "Leaf", "call_tree"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry in the tree.

    Attributes:
        entry: The entry.
        totals: What it adds to the sums above it, under the status its call has by now.
    """

    entry: Entry
    totals: Totals

    @property
    def line(self) -> str:
        """What it is, what it took, what it cost."""
        entry = self.entry
        counted = entry.kind != "charge" and (entry.usage is not None or entry.added_tokens is not None)
        tokens = f"  {entry.input_tokens} + {entry.output_tokens} tokens" if counted else ""
        cost = "cost unknown" if entry.cost_pico is None else usd_with_sign(entry.cost_pico)
        kind = "" if entry.kind == "call" else f"{entry.kind}: "
        status = "" if entry.status in {"priced", "reported"} else f"  {entry.status}"
        reason = f" ({entry.reason})" if entry.reason and (status or entry.kind == "adjustment") else ""
        return f"{kind}{entry.model}{tokens}  {cost}{status}{reason}"


@dataclass(frozen=True, slots=True)
class CallTree:
    """One chain, agent, graph or tool, with everything below it. Print it, or walk `children`.

    Attributes:
        name: Its name; of the top the run id, or "all runs".
        totals: Sums over everything below.
        children: Nodes and leaves in the order of their first entry.
    """

    name: str
    totals: Totals
    children: tuple[CallTree | Leaf, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join([self._head(), *self._lines("")])

    def _head(self) -> str:
        total = self.totals
        plural = "" if total.calls == 1 else "s"
        return f"{self.name}  {total.calls} call{plural}  {usd_with_sign(total.cost_pico)}{total.caveats}"

    def _lines(self, indent: str) -> Iterator[str]:
        for index, child in enumerate(self.children):
            last = index == len(self.children) - 1
            branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
            if isinstance(child, Leaf):
                yield f"{indent}{branch}{child.line}"
            else:
                yield f"{indent}{branch}{child._head()}"  # noqa: SLF001 - its own kind
                yield from child._lines(indent + below)  # noqa: SLF001 - same

    def rows(self, depth: int = 0) -> Iterator[dict[str, Any]]:
        """One row for each node and entry from the top down: `depth`, `name`, and the totals or the entry's own."""
        yield {"depth": depth, "name": self.name, "kind": "node"} | self.totals.to_dict() | {"status": "", "entry": ""}
        for child in self.children:
            if isinstance(child, Leaf):
                entry = child.entry
                totals = child.totals.to_dict()
                if entry.cost_pico is None:
                    totals["cost_usd"] = ""
                yield (
                    {"depth": depth + 1, "name": entry.model, "kind": entry.kind}
                    | totals
                    | {
                        "status": entry.status,
                        "entry": entry.id,
                    }
                )
            else:
                yield from child.rows(depth + 1)


def call_tree(entries: Iterable[Entry], name: str | None = None) -> CallTree:
    """The tree of some entries.

    Args:
        entries: In order of booking.
        name: What to call the top; by default the run id they share, else "all runs".
    """
    items = list(entries)
    runs = {entry.run_id for entry in items}
    top = name or (next(iter(runs)) if len(runs) == 1 else None) or "all runs"
    return _node(top, items, 0, last_words_of(items))


def _node(name: str, entries: list[Entry], depth: int, last_words: Mapping[int, Entry]) -> CallTree:
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        step = entry.path[depth] if len(entry.path) > depth else None
        groups.setdefault(step if step is not None else entry.id, []).append(entry)
    children = tuple(
        _node(step[1], group, depth + 1, last_words)
        if isinstance(step, tuple)
        else Leaf(group[0], totals_of(group, last_words))
        for step, group in groups.items()
    )
    return CallTree(name, totals_of(entries, last_words), children)
