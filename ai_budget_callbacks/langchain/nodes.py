"""Chains, tools and retrievers: where in the tree a call is made, and the fee of a tool or retriever that has one.

A fee is held at the start event, so that a tool is refused before it runs (a raise there keeps its body from running;
measured, facts/langchain.md 2.3), and booked at its end.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler

from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.charges import charge_call, one_use
from ai_budget_callbacks.errors import AIBudgetError, ConfigError, Refusal
from ai_budget_callbacks.inflight import begin, call_id_for, finish, finish_all, withdraw
from ai_budget_callbacks.langchain.errors import adapted
from ai_budget_callbacks.langchain.request import who_of
from ai_budget_callbacks.langchain.tasks import TaskWatch
from ai_budget_callbacks.langchain.tree import Node, RunTree
from ai_budget_callbacks.meter import Meter, OpenCall, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.inflight import Target
    from ai_budget_callbacks.usage import Call

__all__ = ["NodeHandler"]

log = logging.getLogger("ai_budget_callbacks")

_LATE = 1_000


@dataclass(frozen=True, slots=True)
class _Fee:
    """What is held for one use of a tool or retriever."""

    call: Call
    held: list[tuple[Meter, OpenCall]]
    task: Any


class NodeHandler(BaseCallbackHandler):
    """Keeps the tree of runs. What a call is, its subclass knows."""

    def __init__(self) -> None:
        super().__init__()
        self._tree = RunTree()
        self._fees: dict[str, _Fee] = {}
        self._late_fees: OrderedDict[str, _Fee] = OrderedDict()  # ended with their run; a late end still counts
        self._tasks = TaskWatch(self.lost)

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:
        """Meters that count a call made under these `track()` blocks."""
        raise NotImplementedError

    def note(self, refusal: Refusal) -> None:
        """A call was refused or crossed."""

    def saw(self, *, call: bool) -> None:
        """LangChain told of something: a model call that starts, or a chain, tool or retriever."""

    def root_ended(self, root: str) -> None:
        """A root run ended."""

    def lost(self, run_ids: list[str]) -> None:
        """Calls and fees that will get no end event."""

    def node(self, run_id: Any) -> Node | None:
        """A running chain, tool or retriever, or None when it was not seen."""
        return self._tree.above(run_id)

    # -- start events

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Remember a chain so that calls below it find their root, step and tool."""
        self.saw(call=False)
        self._tree.start(run_id, parent_run_id, name=kwargs.get("name"))

    def on_retriever_start(
        self, serialized: Any, query: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Remember a retriever, which may call models; hold its fee, if it has one."""
        self.saw(call=False)
        name = kwargs.get("name") or (serialized or {}).get("name") or "retriever"
        node = self._tree.start(run_id, parent_run_id, name=name)
        known = (kwargs.get("metadata") or {}).get("ls_retriever_name")  # its own, whatever this use is called
        self._hold_fee("retriever", (name, known), node, run_id, parent_run_id, kwargs)

    def on_tool_start(
        self, serialized: Any, input_str: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Remember a tool; LLM calls inside it are attributed to it. Hold its fee, if it has one."""
        self.saw(call=False)
        # ToolNode runs tools with name=None; the serialised name is always there (langchain-core 1.8.3)
        name = kwargs.get("name") or (serialized or {}).get("name") or "tool"
        node = self._tree.start(run_id, parent_run_id, tool=name, tool_call_id=kwargs.get("tool_call_id"))
        # its price is looked for under its own name first: `run_name` renames one use of it
        self._hold_fee("tool", ((serialized or {}).get("name"), name), node, run_id, parent_run_id, kwargs)

    # -- end events

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain ended."""
        self._end_node(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain failed or was cancelled."""
        self._end_node(run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool ended: its fee is due."""
        self._book_fee(run_id, output)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool failed: nobody knows whether its fee is due."""
        self._lose_fee(run_id, error)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever ended: its fee is due."""
        self._book_fee(run_id, documents)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever failed: nobody knows whether its fee is due."""
        self._lose_fee(run_id, error)

    def _end_node(self, run_id: UUID) -> None:
        root = self._tree.end(run_id)
        if root is not None:
            self.root_ended(root)

    # -- fees

    def _hold_fee(
        self,
        kind: str,
        names: Sequence[str | None],
        node: Node,
        run_id: UUID,
        parent_run_id: UUID | None,
        kwargs: Mapping[str, Any],
    ) -> None:
        metadata = kwargs.get("metadata")
        mark = kwargs if metadata is None else metadata  # one object for all handlers of this event
        runs = current_blocks()
        try:
            priced = [(target, name) for target in self.targets(runs) if (name := _priced(target, kind, names))]
            if not priced:
                return
            if str(run_id) in self._fees:
                raise ConfigError(  # noqa: TRY301 - it must be withdrawn like any refusal
                    f"Two tools at once have the run_id {run_id} and cannot be told apart. Give each its own."
                )
            who = who_of(run_id, parent_run_id, node, metadata or {}, None, runs)
            call_id = call_id_for(str(run_id), mark)
            held: list[tuple[Meter, OpenCall]] = []
            for target, name in priced:
                call = charge_call(kind, name, who, charge_id=call_id, framework="langchain")
                held.append((target.meter, begin(call, target, runs, mark=mark, forget=self._forget(run_id))))
        except BaseException as error:
            self._tree.end(run_id)  # it will not run, and gets no end event
            withdraw(mark)
            if not isinstance(error, AIBudgetError):
                raise
            if isinstance(error, Refusal):
                self.note(error)
            raise adapted(error) from None
        self._fees[str(run_id)] = _Fee(call, held, self._tasks.opened(str(run_id)))

    def _forget(self, run_id: UUID) -> Any:
        return lambda: self._fees.pop(str(run_id), None)

    def _take_fee(self, run_id: UUID) -> list[tuple[Meter, OpenCall]]:
        key = str(run_id)
        fee = self._fees.pop(key, None) or self._late_fees.pop(key, None)
        if fee is None:
            return []
        self._tasks.ended(fee.task, key)
        return fee.held

    def _book_fee(self, run_id: UUID, response: Any) -> None:
        first = finish_all(self._take_fee(run_id), one_use(response))
        self._end_node(run_id)
        if first is not None:
            if isinstance(first, Refusal):
                self.note(first)
            raise adapted(first) from None

    def _lose_fee(self, run_id: UUID, error: BaseException) -> None:
        reason = f"it failed ({type(error).__name__}); whether its fee is due was not seen"
        for meter, opened in self._take_fee(run_id):
            try:
                finish(opened, meter, Outcome(kind="unknown", reason=reason))
            except AIBudgetError as crossing:  # the error under way is the one the caller must see
                if isinstance(crossing, Refusal):
                    self.note(crossing)
        self._end_node(run_id)

    def fees_of(self, root: str) -> list[str]:
        """Run ids of a root's open fees."""
        return [key for key, fee in list(self._fees.items()) if fee.call.who.run_id == root]

    def set_fees_aside(self, run_ids: Sequence[str]) -> list[str]:
        """Keep what a late end event needs; returns the call ids of those that were open."""
        left = [fee.call.id for key in run_ids if (fee := self._fees.get(key)) is not None]
        for key in run_ids:
            fee = self._fees.pop(key, None)
            if fee is not None:
                self._late_fees[key] = fee
        while len(self._late_fees) > _LATE:
            self._late_fees.popitem(last=False)
        return left

    def forget_fees(self) -> None:
        """In a forked child: fees in flight are the parent's to end."""
        self._fees.clear()
        self._late_fees.clear()


def _priced(target: Target, kind: str, names: Sequence[str | None]) -> str | None:
    """The name that a meter has a price for: one of these, or a retriever's that LangChain shortens to one of them."""
    declared = target.meter.prices.fees(kind)
    exact = next((name for name in names if name in declared), None)
    if exact is not None or kind != "retriever":
        return exact
    return next((name for name in declared if _short(name) in names), None)


def _short(retriever: str) -> str:
    """A retriever's class as `metadata["ls_retriever_name"]` has it (langchain-core 1.8.3)."""
    return retriever.removeprefix("Retriever").removesuffix("Retriever").lower()
