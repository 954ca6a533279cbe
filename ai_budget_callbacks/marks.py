"""A call of one framework inside a call of another: a mark in the caller's context joins the two reports of a request.

The outer adapter leaves a mark when a call of a known wrapper class starts; the inner one takes it and its report is
of the same call. A mark counts only while that call is open in this process, once, and for the other framework:
booking a request twice is visible in `verify`, booking two as one is not.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_budget_callbacks.errors import BudgetExceeded, ConfigError
from ai_budget_callbacks.locks import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_budget_callbacks.booking import Outcome
    from ai_budget_callbacks.inflight import Target
    from ai_budget_callbacks.usage import Call

__all__ = [
    "WRAPPERS",
    "Mark",
    "book_untaken",
    "is_wrapper",
    "leave_mark",
    "mark_waits",
    "note_wrapper",
    "take_mark",
    "with_marked",
]

WRAPPERS = {"LangChainLLM"}
"""Names of classes whose every call is one call of the other framework (llama-index-llms-langchain 0.9)."""


@dataclass(slots=True, kw_only=True)
class Mark:
    """A call of a wrapper.

    Attributes:
        call_id: Its call id.
        framework: Whose call it is.
        origin: What its announcement is withdrawn by: see `inflight.begin`.
        is_open: Whether it has not ended.
        targets: Meters that count it and do not know its price; they count what it wraps, which has one.
        taken_by: The report of the other framework that is of the same request, once there is one.
    """

    call_id: str
    framework: str
    origin: object
    is_open: bool = True
    targets: tuple[Target, ...] = ()
    taken_by: str | None = None


_lock = ForkSafeLock()
_mark: ContextVar[Mark | None] = ContextVar("ai_budget_mark", default=None)


def note_wrapper(name: str | type) -> None:
    """A class becomes a known wrapper: see `scope.register_wrapper`.

    Raises:
        ConfigError: Neither a class nor a name.
    """
    text = name.__name__ if isinstance(name, type) else name
    if not isinstance(text, str) or not text.isidentifier():
        raise ConfigError(f"register_wrapper() takes a class or its name, not {name!r}.")
    WRAPPERS.add(text)


def is_wrapper(kind: type) -> bool:
    """Whether a class, or one it derives from, is a known wrapper."""
    return any(base.__name__ in WRAPPERS for base in kind.__mro__)


def leave_mark(call_id: str, framework: str, origin: object, targets: Sequence[Target] = ()) -> Mark:
    """A wrapper's call was admitted and is about to be made in this context."""
    mark = Mark(call_id=call_id, framework=framework, origin=origin, targets=tuple(targets))
    _mark.set(mark)
    return mark


def take_mark(framework: str, report: str) -> Mark | None:
    """The call that a report of this framework is part of, or None when it is a call of its own.

    Args:
        framework: Who reports.
        report: Its run or event id: all handlers of one report take the same mark.
    """
    mark = _mark.get()
    with _lock:
        if not _is_for(mark, framework) or mark is None or mark.taken_by not in {None, report}:
            return None
        mark.taken_by = report
    return mark


def mark_waits(framework: str) -> bool:
    """Whether a call of a wrapper around here hands its meters on to calls of this framework."""
    mark = _mark.get()
    return _is_for(mark, framework) and mark is not None and bool(mark.targets or mark.taken_by is None)


def with_marked(targets: Sequence[Target], framework: str) -> list[Target]:
    """Targets, and those that an open wrapper around here hands on: to each call made in it, the first or not."""
    mark = _mark.get()
    more = mark.targets if mark is not None and _is_for(mark, framework) else ()
    return [*targets, *(item for item in more if item not in targets)]


def book_untaken(mark: Mark | None, call: Call, outcome: Outcome | None) -> list[BudgetExceeded]:
    """A wrapper's call ended, and nothing inside it was reported: it was a request, and nothing was held for it.

    Returns:
        Crossings of budgets with `at_limit="raise"`.
    """
    crossings = []
    if mark is not None and mark.targets and mark.taken_by is None and outcome is not None:
        for target in mark.targets:
            target.meter.say(
                f"untaken {call.model}",
                f"A call of {call.model!r}, whose class is registered as a wrapper, was not reported by what it wraps. "
                "It is booked without a price; give its name one in prices=, or do not register the class.",
            )
            try:
                target.meter.book_spent(call, outcome, extra=target.extra, scopes=target.scopes)
            except BudgetExceeded as crossing:
                crossings.append(crossing)
    return crossings


def _is_for(mark: Mark | None, framework: str) -> bool:
    return mark is not None and mark.is_open and mark.framework != framework
