"""Requests that no event reports, seen as spans alone (facts/llamaindex.md 1.3).

`structured_predict` of several integrations talks to the provider itself, and a model class without core's decorators
reports nothing. Of the first a hold is taken when its span starts, and a refusal reaches the caller through the prompt
it formats. The second cannot be stopped: it is booked when it ended, so that the next call is refused. Both are counted
from what is visible, marked `estimated`, and named once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, ImageBlock
from llama_index.core.llms.structured_llm import StructuredLLM

from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.errors import AIBudgetError
from ai_budget_callbacks.llama_index.capture import GateHandler, Start
from ai_budget_callbacks.llama_index.extract import result_size
from ai_budget_callbacks.llama_index.models import LIMITS
from ai_budget_callbacks.llama_index.reports import Report, open_report
from ai_budget_callbacks.llama_index.streams import sends_when_read
from ai_budget_callbacks.llama_index.tree import span_tree
from ai_budget_callbacks.llama_index.workarounds import refuse_prompt, take_back
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.meter import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_budget_callbacks.llama_index.tree import Span

__all__ = ["admit_again", "book_undecorated", "end_structured", "forget_named", "is_structured", "start_structured"]

log = logging.getLogger("ai_budget_callbacks")

_STRUCTURED = frozenset(
    {
        "structured_predict",
        "astructured_predict",
        "stream_structured_predict",
        "astream_structured_predict",
        "structured_predict_without_function_calling",
    }
)
_CALLS = frozenset(
    {
        "chat",
        "achat",
        "stream_chat",
        "astream_chat",
        "complete",
        "acomplete",
        "stream_complete",
        "astream_complete",
    }
)
_NO_USAGE = "LlamaIndex reports neither this request nor its usage; counted from what is visible"
_named: set[str] = set()
_refused: dict[str, tuple[Any, AIBudgetError]] = {}  # prompt and refusal, by span id
_lock = ForkSafeLock()


def is_structured(span: Span) -> bool:
    """Whether a span may be a request of its own that no event reports."""
    return (
        span.method in _STRUCTURED
        and isinstance(span.instance, BaseLLM)
        and not isinstance(span.instance, StructuredLLM)
        and not any(around.report is not None and around.method in _STRUCTURED for around in span_tree.around(span))
    )


def start_structured(span: Span, gates: Sequence[GateHandler]) -> None:
    """Hold for a structured call; where that is refused, its prompt refuses."""
    runs = current_blocks()
    report: Report | None = None
    for gate in gates:
        try:
            targets = gate.targets(runs)
            if targets:
                report = report or open_report(span.id, "llm", span)
                gate.begin(report, _start(span), targets, runs)
        except AIBudgetError as error:
            _refuse(span, error)
            return


def _start(span: Span) -> Start:
    given = {"response_format": span.arguments.get("output_cls"), **(span.arguments.get("llm_kwargs") or {})}
    if not sends_when_read(span.instance):  # native paths have limits of their own (llms-anthropic 0.12.3: 8,192)
        given = {**dict.fromkeys(LIMITS), **given}
    return Start(payload={}, given=given, messages=_messages(span), instance=span.instance)


def _refuse(span: Span, error: AIBudgetError) -> None:
    prompt = span.arguments.get("prompt")
    if prompt is not None:
        with _lock:
            if not any(other is prompt for other, _ in _refused.values()):
                refuse_prompt(prompt, _raise_here)
            _refused[span.id] = (prompt, error)


def _raise_here() -> None:
    """Raise inside a span that was refused, and nowhere else: prompts are shared."""
    here = span_tree.current()
    for span in () if here is None else (here, *span_tree.around(here)):
        if span.id in _refused:
            raise _refused[span.id][1]


def admit_again(span: Span) -> None:
    """A refused span ended; its prompt is left as it was once nothing else that was refused uses it."""
    with _lock:
        prompt, _ = _refused.pop(span.id, (None, None))
        if prompt is not None and not any(other is prompt for other, _ in _refused.values()):
            take_back(prompt)


def _messages(span: Span) -> list[Any]:
    """The prompt's messages, as it will format them; where that fails here it will fail there, before it sends.

    A prompt that calls functions while it is formatted is not formatted twice: its parts are taken as they stand, and
    what the functions return has no bound.
    """
    prompt: Any = span.arguments.get("prompt")
    given = span.arguments.get("prompt_args") or {}
    if getattr(prompt, "function_mappings", None):
        parts = getattr(prompt, "message_templates", None) or [getattr(prompt, "template", None) or ""]
        return [*parts, *map(str, given.values()), ChatMessage(blocks=[ImageBlock(url="about:blank")])]
    try:
        return list(prompt.format_messages(**given))
    except Exception:
        return []


def end_structured(span: Span, result: Any, error: BaseException | None) -> None:
    """A structured call ended: if nothing inside it reported a request, it was one itself."""
    report = span.reports[0]
    if not report.is_open:
        return
    for gate in report.gates:
        if error is not None:
            gate.fail(report, error)
        elif report.has_inner or _made_by_core(result):
            gate.end(report, lambda _: None, "what is inside it is counted")
        elif not isinstance(result, (Generator, AsyncGenerator)):
            outcome = Outcome(kind="answer", output_bytes=result_size(result), reason=_NO_USAGE, response=result)
            _quietly(gate, report, outcome)
    if not report.has_inner and error is None and not _made_by_core(result):
        _name(span, "reports no event for it")


def _made_by_core(result: Any) -> bool:
    """Whether a stream is one of core's own, which calls a method that reports itself when it is read."""
    code = getattr(result, "gi_code", None) or getattr(result, "ag_code", None)
    return code is not None and f"{os.sep}llama_index{os.sep}core{os.sep}" in code.co_filename


def _quietly(gate: GateHandler, report: Report, outcome: Outcome) -> None:
    """Nothing can be raised from a span; a crossing is noted and closes."""
    try:
        gate.end(report, lambda _: outcome)
    except AIBudgetError as crossing:
        log.debug("%s", crossing)


def book_undecorated(span: Span, gates: Sequence[GateHandler], result: Any) -> None:
    """Book a call of a model class that reports no event, after it was made."""
    if not gates or span.method not in _CALLS or span.reported:
        return
    if not isinstance(span.instance, BaseLLM) or isinstance(span.instance, StructuredLLM):
        return
    messages = span.arguments.get("messages")
    prompt = span.arguments.get("prompt")
    given = span.arguments.get("kwargs") or {}
    start = Start(
        payload={}, given=given, messages=messages if messages is not None else [prompt or ""], instance=span.instance
    )
    outcome = Outcome(kind="answer", output_bytes=result_size(result), reason=_NO_USAGE, response=result)
    if isinstance(result, (Generator, AsyncGenerator)):
        outcome = Outcome(kind="unknown", reason=_NO_USAGE)
    for gate in gates:
        gate.book_unreported(span, start, outcome)
    _name(span, "has no llm_chat_callback() or llm_completion_callback() on it, so LlamaIndex reports no event")


def _name(span: Span, why: str) -> None:
    name = f"{type(span.instance).__name__}.{span.method}"
    if name not in _named:
        _named.add(name)
        log.warning(
            "%s() is unmetered by LlamaIndex: it %s. Its requests are counted from what is visible and marked "
            "estimated; see docs/limits.md for what to use instead.",
            name,
            why,
        )


def forget_named() -> None:
    """Name every path again, as in a new process."""
    _named.clear()
