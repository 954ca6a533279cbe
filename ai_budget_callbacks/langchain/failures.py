"""An error event as what it means for money: nothing was billed, something was seen, or nobody knows.

Facts: facts/langchain.md 3.5 and 9. An HTTP status counts only when it is the *response's* (an error object inside
a 200 stream may carry a code and billed usage); "never sent" and "reset after sending" differ only in a cause
levels down; a timeout derives from the connection error and is checked first. Once the answer has begun none of this
releases anything: the error may be another handler's (a webhook that answered 500, a sink that refused to connect).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

from ai_budget_callbacks.booking import outcome_of_body
from ai_budget_callbacks.http_errors import HTTP_ERROR, answer_body, http_status, never_sent
from ai_budget_callbacks.langchain.extract import first_message, outcome_of, text_size
from ai_budget_callbacks.meter import Outcome
from ai_budget_callbacks.usage._counts import mapping

__all__ = ["Failure", "judge"]

_CALLBACKS = "langchain_core.callbacks.manager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an error event means.

    Attributes:
        outcome: What to settle, or None when nothing was billed and the hold is given back.
        reason: Words for the entry or the event.
    """

    outcome: Outcome | None
    reason: str


def judge(error: BaseException, result: Any, *, choices: int, provider: str, last_chunk_usage: Any = None) -> Failure:
    """Judge an error event.

    Args:
        error: The exception.
        result: The event's `response`: chunks so far, and the provider's answer where the error carries one.
        choices: As for `outcome_of`.
        provider: As for `outcome_of`.
        last_chunk_usage: As for `outcome_of`.
    """
    name = type(error).__name__
    foreign = _raised_by_a_handler(error)
    status = None if foreign else http_status(error)
    if status is not None and status < HTTP_ERROR:
        paid = outcome_of_body(_body(result) or answer_body(error))
        if paid is not None:
            return Failure(outcome=replace(paid, response=result), reason=str(paid.reason))
    begun = foreign or last_chunk_usage is not None or _has_chunks(result)
    if not begun and status is not None and status >= HTTP_ERROR:
        return Failure(outcome=None, reason=f"the provider answered HTTP {status}")
    if not begun and never_sent(error):
        return Failure(outcome=None, reason=f"the request was never sent ({name})")
    seen = text_size(result)
    partial = outcome_of(result, choices=choices, provider=provider, last_chunk_usage=last_chunk_usage)
    if seen or partial.usage is not None:
        reason = f"the answer was cut ({name})"
        return Failure(outcome=replace(partial, kind="cut", reason=reason), reason=reason)
    reason = f"sent, and no answer was seen ({name})"
    return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)


def _raised_by_a_handler(error: BaseException) -> bool:
    """Whether a callback raised it (`on_llm_new_token` of a handler beside ours): chunks had come by then.

    LangChain adds a chunk to the result after its event, and `invoke` of a streaming model adds none, so the result
    alone does not show it (langchain-core 1.8.3).
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == _CALLBACKS:
            return True
        trace = trace.tb_next
    return False


def _has_chunks(result: Any) -> bool:
    return any(
        isinstance(generation, (ChatGenerationChunk, GenerationChunk))
        for generations in getattr(result, "generations", None) or ()
        for generation in generations or ()
    )


def _body(result: Any) -> Any:
    """The provider's body that LangChain put on the error's generation, wherever in the result it is."""
    for generations in getattr(result, "generations", None) or ():
        for generation in generations or ():
            body = mapping(getattr(getattr(generation, "message", None), "response_metadata", None)).get("body")
            if body is not None:
                return body
    return mapping(getattr(first_message(result), "response_metadata", None)).get("body")
