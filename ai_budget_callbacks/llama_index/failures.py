"""An end that carries an exception as what it means for money: nothing was billed, something was seen, or nobody knows.

Facts: facts/llamaindex.md 7. Once the answer has begun nothing is given back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.booking import outcome_of_body
from ai_budget_callbacks.errors import AIBudgetError
from ai_budget_callbacks.http_errors import HTTP_ERROR, answer_body, http_status, never_sent
from ai_budget_callbacks.llama_index.extract import outcome_of, text_size
from ai_budget_callbacks.meter import Outcome

if TYPE_CHECKING:
    from ai_budget_callbacks.usage import Usage

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


def judge(error: BaseException, last: Any = None, seen: int = 0) -> Failure:
    """Judge the end of a call.

    Args:
        error: The exception; `GeneratorExit` and `CancelledError` are a caller that went away.
        last: The latest chunk of its stream, where chunks came.
        seen: Bytes of all chunks' text: of some integrations a chunk holds its own part alone.
    """
    name = type(error).__name__
    if last is None:
        status = http_status(error)
        if status is not None and status >= HTTP_ERROR:
            return Failure(outcome=None, reason=f"the provider answered HTTP {status}")
        paid = outcome_of_body(answer_body(error)) if status is not None else None
        if paid is not None:
            return Failure(outcome=paid, reason=str(paid.reason))
        if (
            isinstance(error, AIBudgetError) and getattr(error, "entry", None) is None
        ):  # of a call inside this one: nothing was sent for this one itself
            return Failure(outcome=None, reason=f"a call inside it was refused ({name})")
        if never_sent(error):
            return Failure(outcome=None, reason=f"the request was never sent ({name})")
        reason = f"sent, and no answer was seen ({name})"
        return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)
    reason = f"the answer was cut ({name})"
    partial = outcome_of(last)
    seen = max(seen, text_size(last))
    if not seen and partial.usage is None:
        return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)
    usage = partial.usage and _at_least(partial.usage, seen)
    cut = replace(partial, kind="cut", reason=reason, output_bytes=seen, usage=usage)
    return Failure(outcome=cut, reason=reason)


def _at_least(usage: Usage, seen: int) -> Usage:
    """The usage of a stream's first event says one token of output, whatever came after it (Anthropic)."""
    more = -(-seen * 2 // 5) - usage.output_tokens  # 2.5 bytes a token
    if more <= 0:
        return usage
    return replace(usage.with_units({"output_text": more}), flags=(*usage.flags, "partly_counted"))


def judged(error: BaseException, last: Any = None, seen: int = 0) -> Failure:
    """The same; what our own reader cannot judge is booked as unknown, loudly."""
    try:
        return judge(error, last, seen)
    except Exception as fault:
        log.exception("A failure could not be judged and is booked as unknown.")
        reason = f"its failure could not be judged ({type(fault).__name__})"
        return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)
