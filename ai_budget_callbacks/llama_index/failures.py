"""An end that carries an exception as what it means for money: nothing was billed, something was seen, or nobody knows.

Facts: facts/llamaindex.md 7. Once the answer has begun nothing is given back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from ai_budget_callbacks.errors import AIBudgetError
from ai_budget_callbacks.http_errors import HTTP_ERROR, http_status, never_sent
from ai_budget_callbacks.llama_index.extract import outcome_of, text_size
from ai_budget_callbacks.meter import Outcome

__all__ = ["Failure", "judge", "judged"]

log = logging.getLogger("ai_budget_callbacks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an exception means.

    Attributes:
        outcome: What to book, or None when nothing was billed and the hold is given back.
        reason: Words for the entry or the event.
    """

    outcome: Outcome | None
    reason: str


def judge(error: BaseException, last: Any = None) -> Failure:
    """Judge the end of a call.

    Args:
        error: The exception; `GeneratorExit` and `CancelledError` are a caller that went away.
        last: The latest chunk of its stream, where chunks came.
    """
    name = type(error).__name__
    if last is None:
        status = http_status(error)
        if status is not None and status >= HTTP_ERROR:
            return Failure(outcome=None, reason=f"the provider answered HTTP {status}")
        if isinstance(error, AIBudgetError):  # of a call inside this one: nothing was sent for this one itself
            return Failure(outcome=None, reason=f"a call inside it was refused ({name})")
        if never_sent(error):
            return Failure(outcome=None, reason=f"the request was never sent ({name})")
        reason = f"sent, and no answer was seen ({name})"
        return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)
    reason = f"the answer was cut ({name})"
    partial = outcome_of(last)
    if not text_size(last) and partial.usage is None:
        return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)
    return Failure(outcome=replace(partial, kind="cut", reason=reason), reason=reason)


def judged(error: BaseException, last: Any = None) -> Failure:
    """The same; what our own reader cannot judge is booked as unknown, loudly."""
    try:
        return judge(error, last)
    except Exception as fault:
        log.exception("A failure could not be judged and is booked as unknown.")
        reason = f"its failure could not be judged ({type(fault).__name__})"
        return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)
