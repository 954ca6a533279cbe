"""Reports that are never a call: of methods that only call another one, which reports itself, and of mocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import EventPayload
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.structured_llm import StructuredLLM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_budget_callbacks.llama_index.tree import Span

__all__ = ["is_shell"]

_STRUCTURED = "structured_llm"


def is_shell(span: Span | None, payload: Mapping[str, Any]) -> bool:
    """Whether a start event is of a method that only wraps another one that reports itself, or sends nothing.

    Core's `MockLLM` and `MockEmbedding` have no far end. `StructuredLLM`'s answer is a parsed object without usage.
    What `CustomLLM` makes out of its subclass's `complete` and `stream_complete` makes its streams outside of any
    span, so nesting does not show (core 0.12 to 0.14).
    """
    described = payload.get(EventPayload.SERIALIZED) or {}
    if described.get("class_name") == _STRUCTURED:
        return True
    if span is None or span.instance is None:
        return False
    kind = type(span.instance)
    if kind.__module__.startswith("llama_index.core.") and kind.__name__.startswith("Mock"):
        return True
    owner = next((base for base in kind.__mro__ if span.method in vars(base)), None)
    return owner in (CustomLLM, StructuredLLM)
