"""Streams: usage that must be asked for, and ones that nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import EventPayload

from ai_budget_callbacks.llama_index.models import is_openai, said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_budget_callbacks.llama_index.tree import Span

__all__ = ["ask_for_usage", "sends_when_read"]

_STREAMS = frozenset({"stream_chat", "astream_chat", "stream_complete", "astream_complete"})
# their servers may not know the option
_NOT_OPENAI = frozenset({"llama_index.llms.openai_like.base"})


def ask_for_usage(span: Span | None, payload: Mapping[str, Any]) -> None:
    """Have OpenAI report the usage of a stream, which it does not unless asked.

    The event's `ADDITIONAL_KWARGS` is the call's own dict (facts/llamaindex.md 13; core 0.12 to 0.14).
    """
    given = payload.get(EventPayload.ADDITIONAL_KWARGS)
    if span is None or not isinstance(given, dict) or span.method not in _STREAMS:
        return
    modules = {base.__module__ for base in type(span.instance).__mro__}
    if not is_openai(span.instance) or modules & _NOT_OPENAI:
        return
    own = said(span.instance, "additional_kwargs") or {}
    if "stream_options" not in given and "stream_options" not in own:
        given["stream_options"] = {"include_usage": True}


def sends_when_read(instance: Any) -> bool:
    """Whether a stream of a model sends its request only when its first chunk is asked for.

    Measured: llms-openai does, chat and completions, sync and async; its Responses and llms-anthropic send when the
    stream is made. Of others it is not known.
    """
    return is_openai(instance)
