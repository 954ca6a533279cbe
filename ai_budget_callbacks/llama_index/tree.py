"""The tree of spans: which method of what runs inside which, kept from span events (facts/llamaindex.md 6).

LlamaIndex gives a span its parent's id from a ContextVar of its own, which reaches its threads, tasks and workflow
steps. Who a call belongs to, and whether a report is inside another, is read from here by ids alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.llama_index.workarounds import active_span_id
from ai_budget_callbacks.locks import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ai_budget_callbacks.llama_index.reports import Report

__all__ = ["Span", "SpanTree", "span_tree"]

_MAX_OPEN = 100_000
_MAX_ENDED = 10_000
_MAX_DEPTH = 64  # of a path; a deeper one loses its beginning
# methods that are a stage of an application, by the name of the stage (core 0.12 to 0.14)
_STEPS = {
    **dict.fromkeys(("query", "aquery"), "query"),
    **dict.fromkeys(("retrieve", "aretrieve"), "retrieve"),
    **dict.fromkeys(("synthesize", "asynthesize"), "synthesize"),
    **dict.fromkeys(("postprocess_nodes", "apostprocess_nodes"), "postprocess_nodes"),
    **dict.fromkeys(("get_response", "aget_response"), "synthesize"),
}
_CHATS = frozenset({"chat", "achat", "stream_chat", "astream_chat"})
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True, kw_only=True, eq=False)
class Span:
    """A method that runs, or ran.

    Attributes:
        id, parent: Span ids.
        root: Id of the outermost span that was seen.
        method: The method's name.
        instance, arguments: Whose method, and what it was called with; dropped when it ends.
        is_open: Whether it runs.
        step: The nearest stage around it: `query`, `retrieve`, `synthesize`, `chat`, or a workflow's step.
        agent, tool, tool_call_id: The nearest agent and tool around it, where a workflow's event says.
        path: (id, name) of every span from the root down, itself included. Ids are their last 12 digits.
        reported: Whether a callback event came from it or from inside it.
        report: The latest report that is of this span.
        reports: All of them: a batch of embeddings has several.
        batches: Embedding requests that started in it.
    """

    id: str
    parent: str | None
    root: str
    method: str
    instance: Any = None
    arguments: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    is_open: bool = True
    step: str | None = None
    agent: str | None = None
    tool: str | None = None
    tool_call_id: str | None = None
    path: tuple[tuple[str, str], ...] = ()
    reported: bool = False
    report: Report | None = None
    batches: int = 0
    reports: list[Report] = field(default_factory=list)


class SpanTree:
    """Spans by id. Safe to use from pool threads."""

    def __init__(self) -> None:
        self._open: dict[str, Span] = {}
        self._ended: OrderedDict[str, Span] = OrderedDict()
        self._lock = ForkSafeLock()

    def start(self, span_id: str, parent_id: str | None, instance: Any, arguments: Mapping[str, Any]) -> Span:
        """A method starts."""
        parent = self.get(parent_id)
        name = span_id[:-37] if len(span_id) > 37 else span_id  # noqa: PLR2004 - Class.method-<uuid>
        method = name.rpartition(".")[2]
        event = arguments.get("ev")
        span = Span(
            id=span_id,
            parent=parent_id,
            root=parent.root if parent is not None else span_id,
            method=method,
            instance=instance,
            arguments=arguments,
            step=_step(method, instance, event) or (parent.step if parent else None),
            agent=_agent(instance, event) or (parent.agent if parent else None),
            tool=_word(event, "tool_name") or (parent.tool if parent else None),
            tool_call_id=_word(event, "tool_id") or (parent.tool_call_id if parent else None),
            path=((parent.path if parent else ()) + ((span_id[-12:], name),))[-_MAX_DEPTH:],
        )
        with self._lock:
            if len(self._open) >= _MAX_OPEN:  # spans whose end never came
                self._open.pop(next(iter(self._open)))
            self._open[span_id] = span
        return span

    def get(self, span_id: str | None) -> Span | None:
        """A span that runs or ended lately."""
        return None if span_id is None else self._open.get(span_id) or self._ended.get(span_id)

    def current(self) -> Span | None:
        """The span that runs here."""
        return self._open.get(active_span_id.get() or "")

    def note_report(self, span: Span | None, *, inner: bool) -> None:
        """A callback event came from a span: those around it need no other report.

        Args:
            span: The span.
            inner: It is of another kind than those around it may be, and says nothing of them.
        """
        if span is not None:
            span.reported = True
            for around in () if inner else self.around(span):
                around.reported = True

    def around(self, span: Span | None) -> Iterator[Span]:
        """Open spans around one, innermost first, without itself."""
        while span is not None:
            span = self._open.get(span.parent or "")
            if span is not None:
                yield span

    def end(self, span_id: str) -> Span | None:
        """A method ended, however."""
        with self._lock:
            span = self._open.pop(span_id, None)
            if span is None:
                return None
            self._ended[span_id] = span
            while len(self._ended) > _MAX_ENDED:
                self._ended.popitem(last=False)
        span.is_open = False
        return span

    def drop_content(self, span: Span) -> None:
        """An ended span is kept for those that started in it, without what it was called with."""
        span.instance, span.arguments, span.report, span.reports = None, _NOTHING, None, []

    def forget(self) -> None:
        """In a forked child: what runs is the parent's."""
        self._open.clear()


def _step(method: str, instance: Any, event: Any) -> str | None:
    if event is not None:  # a workflow's step
        return method
    if method in _CHATS:
        return "chat" if _is_engine(instance) else None
    return _STEPS.get(method)


def _is_engine(instance: Any) -> bool:
    return any(base.__name__ == "BaseChatEngine" for base in type(instance).__mro__)


def _agent(instance: Any, event: Any) -> str | None:
    found = _word(event, "current_agent_name")
    if found is None and any(base.__name__ == "BaseWorkflowAgent" for base in type(instance).__mro__):
        found = _word(instance, "name")
    return found


def _word(holder: Any, name: str) -> str | None:
    value = getattr(holder, name, None)
    return value if isinstance(value, str) and value else None


span_tree = SpanTree()
