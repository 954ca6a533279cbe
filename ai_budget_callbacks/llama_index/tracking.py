"""The span handler that keeps gates in place, and `track()` and `install()` under LlamaIndex.

Registered once with the root dispatcher, and inert by itself: for `track()` and `install()` it puts one gate into the
models it sees while a block is open or a meter installed; of a handler it knows the models that handler was given to,
and puts it back where an engine replaced their manager (facts/llamaindex.md 4).
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatInProgressEvent, LLMCompletionInProgressEvent
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler

from ai_budget_callbacks.blocks import current_blocks, note_outside_call
from ai_budget_callbacks.errors import Refusal
from ai_budget_callbacks.inflight import block_targets
from ai_budget_callbacks.llama_index.capture import GateHandler
from ai_budget_callbacks.llama_index.streams import sends_when_read
from ai_budget_callbacks.llama_index.tree import span_tree
from ai_budget_callbacks.llama_index.unmetered import (
    admit_again,
    book_undecorated,
    end_structured,
    is_structured,
    start_structured,
)
from ai_budget_callbacks.llama_index.workarounds import before_replaced, carry_context, let_errors_through, put_first
from ai_budget_callbacks.marks import mark_waits
from ai_budget_callbacks.meter import Outcome
from ai_budget_callbacks.scope import installed
from ai_budget_callbacks.sizes import shown_size

if TYPE_CHECKING:
    import inspect
    from collections.abc import Sequence

    from llama_index.core.instrumentation.events.base import BaseEvent  # type: ignore[attr-defined]

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.inflight import Target
    from ai_budget_callbacks.llama_index.reports import Report
    from ai_budget_callbacks.llama_index.tree import Span

__all__ = ["TrackingGate", "attach", "tracking_gate"]

log = logging.getLogger("ai_budget_callbacks")


class TrackingGate(GateHandler):
    """Counts calls for the `track()` blocks around them and for the installed meter."""

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:
        """One target for each meter, with the budgets of all blocks that use it."""
        return block_targets(runs, installed())


tracking_gate = TrackingGate()


class _Watch(BaseSpanHandler[Any]):
    """Told of every span before its method runs. What it raises is swallowed, so it logs."""

    def new_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A method starts."""
        try:
            span = span_tree.start(id_, parent_span_id, instance, bound_args.arguments)
            _started(span)
        except Exception:
            log.exception("A LlamaIndex span could not be followed; calls in it may go uncounted.")

    def prepare_to_exit_span(
        self, id_: str, bound_args: inspect.BoundArguments, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> Any:
        """A method returned."""
        _ended(id_, result, None)

    def prepare_to_drop_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> Any:
        """A method raised."""
        _ended(id_, None, err or RuntimeError("its span was dropped"))


class _Chunks(BaseEventHandler):
    """Keeps the latest chunk of every stream: a stream that is cut has no other record of what was seen."""

    @classmethod
    def class_name(cls) -> str:
        """As the framework asks."""
        return "AIBudgetChunks"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """A chunk came."""
        if isinstance(event, (LLMChatInProgressEvent, LLMCompletionInProgressEvent)):
            report = _streams.get(event.span_id or "")
            if report is not None:
                report.last = event.response
                report.seen += shown_size(getattr(event.response, "delta", None) or "")


_streams: weakref.WeakValueDictionary[str, Report] = weakref.WeakValueDictionary()
_of_settings: weakref.WeakSet[GateHandler] = weakref.WeakSet()
# gates of a model's manager, by the model; a manager that was replaced gets them back
_known: dict[int, tuple[weakref.ref[Any], Any, tuple[GateHandler, ...]]] = {}


def _gates(instance: Any) -> tuple[GateHandler, ...]:
    """Gates that must be told of a model's calls."""
    manager = getattr(instance, "callback_manager", None)
    present = [item for item in getattr(manager, "handlers", ()) if isinstance(item, GateHandler)]
    own = [item for item in present if item is not tracking_gate and not _in_settings(item)]
    gates = list(dict.fromkeys(item for item in present if item is not tracking_gate))
    known = _known.get(id(instance))
    if known is not None and known[0]() is instance and known[1] is not manager:
        gates = list(dict.fromkeys((*known[2], *gates)))
    if own and (known is None or known[1] is not manager or known[2] != tuple(own)):
        _remember(instance, manager, tuple(own))
    if tracking_gate in present or current_blocks() or installed() is not None or mark_waits("llama_index"):
        gates.insert(0, tracking_gate)
    return tuple(gates)


def _in_settings(gate: GateHandler) -> bool:
    """Whether a gate is, or was, one of the process's settings: those give it to a model, and take it away again."""
    _of_settings.update(item for item in Settings.callback_manager.handlers if isinstance(item, GateHandler))
    return gate in _of_settings


def _remember(instance: Any, manager: Any, gates: tuple[GateHandler, ...]) -> None:
    key = id(instance)
    _known[key] = (weakref.ref(instance, lambda _: _known.pop(key, None)), manager, gates)


def _started(span: Span) -> None:
    blocks = current_blocks()
    for block in blocks:
        block.note_event()
    if not isinstance(span.instance, (BaseLLM, BaseEmbedding)):
        return
    gates = _gates(span.instance)
    if gates:
        put_first(span.instance, gates, everywhere=tracking_gate)
        manager = span.instance.callback_manager
        known = _known.get(id(span.instance))
        if known is not None and known[1] is not manager:
            _remember(span.instance, manager, known[2])
    if is_structured(span):
        start_structured(span, gates)
    elif not blocks and installed() is None and isinstance(span.instance, BaseLLM):
        note_outside_call()


def _ended(span_id: str, result: Any, error: BaseException | None) -> None:
    span = span_tree.end(span_id)
    if span is None:
        return
    try:
        _end(span, result, error)
    except Exception:
        log.exception("The end of a LlamaIndex span could not be followed; its hold will be booked as unknown.")
    span_tree.drop_content(span)


def _end(span: Span, result: Any, error: BaseException | None) -> None:
    if not isinstance(span.instance, (BaseLLM, BaseEmbedding)):
        return
    admit_again(span)
    stream = isinstance(result, (Generator, AsyncGenerator))
    if any(report.id == span.id for report in span.reports):
        end_structured(span, result, error)
    elif span.reports and error is not None:
        _drop(span, error)
    elif not span.reported:
        book_undecorated(span, _gates(span.instance), result, error)
    if stream:
        for report in span.reports:
            _streams[span.id] = report
            lazy = sends_when_read(span.instance)
            weakref.finalize(result, _unread, report, lazy).atexit = False


def _drop(span: Span, error: BaseException) -> None:
    """Reports that got no end event: of a model none was sent, of a batch of embeddings some may be billed."""
    left = [report for report in span.reports if report.is_open]
    unsent = isinstance(span.instance, BaseLLM) or (isinstance(error, Refusal) and error.entry is None)
    for report in left:
        for gate in report.gates:
            if unsent:
                gate.end(report, lambda _: None, f"it was stopped before it was sent ({type(error).__name__})")
            elif len(left) == 1:
                gate.fail(report, error)
            else:
                reason = f"one request of its batch failed ({type(error).__name__}); the others may be billed"
                gate.end(report, lambda _, why=reason: Outcome(kind="unknown", reason=why))


def _unread(report: Report, lazy: bool) -> None:  # noqa: FBT001 - finalize calls it
    """A stream is dropped. One that nobody read from gets no end event, an async one may get it too late."""
    if not report.is_open:
        return
    for gate in report.gates:
        if report.last is not None:
            gate.fail(report, GeneratorExit())
        elif lazy:
            gate.end(report, lambda _: None, "its stream was dropped unread, and it sends when it is read")
        else:
            reason = "its stream was dropped unread"
            gate.end(report, lambda _, why=reason: Outcome(kind="unknown", reason=why))


_attached = False


def attach() -> None:
    """Register with the root dispatcher, once."""
    global _attached  # noqa: PLW0603 - once for the process
    if not _attached:
        _attached = True
        root = get_dispatcher()
        root.add_span_handler(_Watch())
        root.add_event_handler(_Chunks())
        carry_context()
        let_errors_through()
        for kind in (BaseLLM, BaseEmbedding):
            before_replaced(kind, _gates)
