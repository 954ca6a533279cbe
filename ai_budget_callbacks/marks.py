"""A call of one framework inside a call of another: a mark in the caller's context joins the two reports of a request.

The outer adapter leaves a mark when a call of a known wrapper class starts; the inner one takes it and its report is
of the same call. A mark counts only while that call is open in this process, once, and for the other framework:
booking a request twice is visible in `verify`, booking two as one is not.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from ai_budget_callbacks.errors import ConfigError

__all__ = ["WRAPPERS", "Mark", "is_wrapper", "leave_mark", "register_wrapper", "take_mark"]

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
        taken_by: The report of the other framework that is of the same request, once there is one.
    """

    call_id: str
    framework: str
    origin: object
    is_open: bool = True
    taken_by: str | None = None


_mark: ContextVar[Mark | None] = ContextVar("ai_budget_mark", default=None)


def register_wrapper(name: str | type) -> None:
    """Say that every call of a class is one call of the other framework, so that both reports are of one request.

    For a model class of LlamaIndex that calls a LangChain model, or the reverse. Without it each report is a call of
    its own: the request is booked twice, which errs on the safe side.

    Args:
        name: The class, or its name.

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


def leave_mark(call_id: str, framework: str, origin: object) -> Mark:
    """A wrapper's call was admitted and is about to be made in this context."""
    mark = Mark(call_id=call_id, framework=framework, origin=origin)
    _mark.set(mark)
    return mark


def take_mark(framework: str, report: str) -> Mark | None:
    """The call that a report of this framework is part of, or None when it is a call of its own.

    Args:
        framework: Who reports.
        report: Its run or event id: all handlers of one report take the same mark.
    """
    mark = _mark.get()
    if mark is None or mark.framework == framework or not mark.is_open:
        return None
    if mark.taken_by not in {None, report}:
        return None
    mark.taken_by = report
    return mark
