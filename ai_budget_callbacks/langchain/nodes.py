"""Chains, tools and retrievers: where in the tree a call is made, and the fee of a tool or retriever that has one.

A fee is held at the start event, so that a tool is refused before it runs (a raise there keeps its body from running;
measured, facts/langchain.md 2.3), and booked at its end.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler

from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.charges import charge_call, one_use
from ai_budget_callbacks.errors import AIBudgetError, Refusal
from ai_budget_callbacks.inflight import begin, call_id_for, finish, withdraw
from ai_budget_callbacks.langchain.errors import adapted
from ai_budget_callbacks.langchain.request import who_of
from ai_budget_callbacks.langchain.tree import Node, RunTree
from ai_budget_callbacks.meter import Meter, OpenCall, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.inflight import Target

__all__ = ["NodeHandler"]


class NodeHandler(BaseCallbackHandler):
    """Keeps the tree of runs. What a call is, its subclass knows."""

    def __init__(self) -> None:
        super().__init__()
        self._tree = RunTree()
        self._fees: dict[str, list[tuple[Meter, OpenCall]]] = {}

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:
        """Meters that count a call made under these `track()` blocks."""
        raise NotImplementedError

    def note(self, refusal: Refusal) -> None:
        """A call was refused or crossed."""

    def saw(self, *, call: bool) -> None:
        """LangChain told of something: a model call that starts, or a chain, tool or retriever."""

    def root_ended(self, root: str) -> None:
        """A root run ended."""

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
        self._hold_fee("retriever", name, node, run_id, parent_run_id, kwargs)

    def on_tool_start(
        self, serialized: Any, input_str: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Remember a tool; LLM calls inside it are attributed to it. Hold its fee, if it has one."""
        self.saw(call=False)
        # ToolNode runs tools with name=None; the serialised name is always there (langchain-core 1.8.3)
        name = kwargs.get("name") or (serialized or {}).get("name") or "tool"
        node = self._tree.start(run_id, parent_run_id, tool=name, tool_call_id=kwargs.get("tool_call_id"))
        self._hold_fee("tool", name, node, run_id, parent_run_id, kwargs)

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
        self, kind: str, name: str, node: Node, run_id: UUID, parent_run_id: UUID | None, kwargs: Mapping[str, Any]
    ) -> None:
        runs = current_blocks()
        targets = [target for target in self.targets(runs) if target.meter.prices.fee(kind, name) is not None]
        if not targets:
            return
        metadata = kwargs.get("metadata")
        mark = kwargs if metadata is None else metadata  # one object for all handlers of this event
        who = who_of(run_id, parent_run_id, node, metadata or {}, None, runs)
        call = charge_call(kind, name, who, charge_id=call_id_for(str(run_id), mark), framework="langchain")
        held: list[tuple[Meter, OpenCall]] = []
        try:
            for target in targets:
                held.append((target.meter, begin(call, target, runs, mark=mark, forget=self._forget(run_id))))  # noqa: PERF401 - what was held before a refusal must be known
        except BaseException as error:
            self._tree.end(run_id)  # it will not run, and gets no end event
            withdraw(mark)
            if not isinstance(error, AIBudgetError):
                raise
            if isinstance(error, Refusal):
                self.note(error)
            raise adapted(error) from None
        self._fees[str(run_id)] = held

    def _forget(self, run_id: UUID) -> Any:
        return lambda: self._fees.pop(str(run_id), None)

    def _book_fee(self, run_id: UUID, response: Any) -> None:
        first: AIBudgetError | None = None
        for meter, opened in self._fees.pop(str(run_id), ()):
            try:
                finish(opened, meter, one_use(response))
            except AIBudgetError as error:
                first = first or error
        self._end_node(run_id)
        if first is not None:
            if isinstance(first, Refusal):
                self.note(first)
            raise adapted(first) from None

    def _lose_fee(self, run_id: UUID, error: BaseException) -> None:
        reason = f"it failed ({type(error).__name__}); whether its fee is due was not seen"
        for meter, opened in self._fees.pop(str(run_id), ()):
            with suppress(AIBudgetError):  # the error under way is the one the caller must see
                finish(opened, meter, Outcome(kind="unknown", reason=reason))
        self._end_node(run_id)

    def drop_fees(self, root: str | None = None) -> bool:
        """Forget open fees of a root (or all): they are booked elsewhere. Returns whether there were any."""
        lost = [
            key
            for key, held in list(self._fees.items())
            if root is None or any(opened.call.who.run_id == root for _, opened in held)
        ]
        for key in lost:
            self._fees.pop(key, None)
        return bool(lost)
