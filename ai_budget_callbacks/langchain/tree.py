"""The tree of runs, kept from start events: who is whose parent, which tool a call is in, where a root ended.

LangChain delivers no root id (facts/langchain.md 2.3): ids are walked up. Nesting of *calls* is never read from
here; LangChain calls do not nest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ai_budget_callbacks.locks import ForkSafeLock

__all__ = ["Node", "RunTree"]

# names that classes give themselves; anything else is a name a user gave
_GENERIC = re.compile(
    r"(Runnable[A-Z<].*|Runnable|ChatPromptTemplate|PromptTemplate|LangGraph|StrOutputParser|JsonOutputParser"
    r"|PydanticOutputParser|PydanticToolsParser|JsonOutputToolsParser|JsonOutputKeyToolsParser|ChannelWrite<.*|model|tools)\Z"
)
_MAX_NODES = 100_000
_MAX_DEPTH = 64  # of a path; a deeper one loses its beginning


@dataclass(frozen=True, slots=True)
class Node:
    """A chain, tool or retriever that is running.

    Attributes:
        id, parent: Run ids.
        root: Id of the root run, or None when the parents were not seen.
        tool, tool_call_id: The nearest tool, itself included.
        step: The nearest name a user gave to a runnable, itself included.
        path: (id, name) of every node from the root down, itself included. Ids are their last 12 digits.
    """

    id: str
    parent: str | None
    root: str | None
    tool: str | None = None
    tool_call_id: str | None = None
    step: str | None = None
    path: tuple[tuple[str, str], ...] = ()


class RunTree:
    """Running nodes by id. Safe to use from pool threads."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._lock = ForkSafeLock()

    def start(
        self,
        run_id: Any,
        parent_run_id: Any,
        *,
        name: str | None = None,
        tool: str | None = None,
        tool_call_id: str | None = None,
    ) -> Node:
        """A chain, tool or retriever started."""
        above = self.above(parent_run_id)
        step = name if name and not _GENERIC.match(name) and tool is None else None
        node = Node(
            id=str(run_id),
            parent=None if parent_run_id is None else str(parent_run_id),
            root=str(run_id) if parent_run_id is None else (above.root if above else None),
            tool=tool or (above.tool if above else None),
            tool_call_id=tool_call_id if tool else (above.tool_call_id if above else None),
            step=step or (above.step if above else None),
            path=((above.path if above else ()) + ((str(run_id)[-12:], tool or name or "chain"),))[-_MAX_DEPTH:],
        )
        with self._lock:
            if len(self._nodes) >= _MAX_NODES:  # runs whose end never came (a raising handler before ours)
                self._nodes.pop(next(iter(self._nodes)))
            self._nodes[node.id] = node
        return node

    def above(self, parent_run_id: Any) -> Node | None:
        """The parent node, or None when there is none or it was not seen."""
        return None if parent_run_id is None else self._nodes.get(str(parent_run_id))

    def end(self, run_id: Any) -> str | None:
        """A node ended. Returns its id when it was a root."""
        with self._lock:
            node = self._nodes.pop(str(run_id), None)
        return node.id if node is not None and node.parent is None else None
