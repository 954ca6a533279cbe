"""Usage of Ollama's own API: counts stand in the answer itself; a cached prompt is not read again and has none."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ai_budget_callbacks.usage import Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

__all__ = ["read"]

READER = "ollama/1"
_KEYS = {"prompt_eval_count": "input_uncached", "eval_count": "output_text"}


def read(raw: Any) -> Usage | None:
    """Read the last object of a generate or chat answer.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    counts = Counts()
    for key, bucket in _KEYS.items():
        counts.put(bucket, counts.read(source, key))
    if not counts.buckets:
        return None
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw={key: source[key] for key in _KEYS if key in source},  # the object holds the answer's text too
        flags=tuple(counts.flags),
    )
