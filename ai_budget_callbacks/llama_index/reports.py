"""Reports of requests: LlamaIndex tells of one request up to three times, and one of them is its call.

A report inside another (by open spans, never by time) is of the same request, unless another one was before it. A
`structured_llm` is never a call: what it wraps reports itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.llama_index.tree import span_tree
from ai_budget_callbacks.locks import ForkSafeLock

if TYPE_CHECKING:
    from ai_budget_callbacks.llama_index.capture import GateHandler
    from ai_budget_callbacks.llama_index.tree import Span
    from ai_budget_callbacks.meter import Outcome

__all__ = ["Report", "close_report", "open_report"]

_lock = ForkSafeLock()


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Report:
    """One report of a request, shared by all gates that are told of it.

    Attributes:
        id: The event's id.
        kind: `"llm"` or `"embedding"`; one of a kind is never a report of a request of the other.
        call_id: Id of the call it is of: its own, or that of the report it is inside.
        span: The span it comes from, or None where there was none.
        origin: What its call's announcement is withdrawn by: one for all reports of the call.
        root: The outermost report of the call, or None where this is it.
        told: What its call ended with.
        has_inner: Whether another report of the same request came from inside it.
        is_open: Whether its end has not come.
        last: The latest chunk of its stream.
        chunks: How many chunks came.
        texts: Texts of an embedding request that are not in its cache.
        counted: Whether those are known.
        gates: Gates that were told of its start.
    """

    id: str
    kind: str
    call_id: str
    span: Span | None
    origin: object
    root: Report | None = None
    told: Outcome | None = None
    has_inner: bool = False
    is_open: bool = True
    last: Any = None
    chunks: int = 0
    texts: tuple[str, ...] = ()
    counted: bool = False
    gates: list[GateHandler] = field(default_factory=list)


_open: dict[str, Report] = {}


def open_report(event_id: str, kind: str, span: Span | None) -> Report:
    """The report of an event that starts, the same for every gate that is told of it."""
    with _lock:
        report = _open.get(event_id)
        if report is None:
            outer = _outer(span, kind)
            if outer is None:
                report = Report(id=event_id, kind=kind, call_id=event_id, span=span, origin=object())
            else:
                outer.has_inner = True
                root = outer.root or outer
                report = Report(
                    id=event_id, kind=kind, call_id=outer.call_id, span=span, origin=outer.origin, root=root
                )
            _open[event_id] = report
            if span is not None:
                span.report = report
                span.reports.append(report)
        return report


def close_report(report: Report) -> None:
    """Its end came, or never will."""
    report.is_open = False
    with _lock:
        _open.pop(report.id, None)


def _outer(span: Span | None, kind: str) -> Report | None:
    """The open report that one from this span is inside, and is the first inside."""
    for around in span_tree.around(span):
        report = around.report
        if report is not None and report.is_open and report.kind == kind:
            return None if report.has_inner else report
    return None
