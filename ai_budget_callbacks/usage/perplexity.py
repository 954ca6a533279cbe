"""Usage of Perplexity's Sonar models (the API ended on 2026-09-27; what it cost stays true).

Facts (docs.perplexity.ai pricing, facts/pricing.md 3.9): a request has a fee by the size of its search context; deep
research bills citation and reasoning tokens outside `completion_tokens` and the total, and each search.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Terms, Usage, openai
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read", "shaped"]

READER = "perplexity/1"

_OUTSIDE = {
    "output_citation": "citation_tokens",
    "output_reasoning": "reasoning_tokens",
    "web_search": "num_search_queries",
}


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object is Perplexity's."""
    return any(key in raw for key in ("citation_tokens", "num_search_queries", "search_context_size"))


def read(raw: Any) -> Usage | None:
    """Read a `usage` object.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    counts = Counts()
    units = {bucket: counts.read(source, key) or 0 for bucket, key in _OUTSIDE.items()}
    size = source.get("search_context_size")
    units["request_fee"] = 1 if isinstance(size, str) else 0
    usage = openai.read(raw)
    if usage is None:
        return None
    said = usage.buckets.get("output_reasoning", 0)  # in the details, or as what a total has beyond its parts
    units["output_reasoning"] = max(units["output_reasoning"] - said, 0)
    terms = Terms(search_context=size if isinstance(size, str) else None)
    return replace(
        usage.with_units(units), reader=READER, terms=terms, flags=tuple(dict.fromkeys((*usage.flags, *counts.flags)))
    )
