"""Usage of Cohere's own API: chat (v1 and v2), generate, embed, rerank.

Facts (docs.cohere.com, recorded responses, facts/pricing.md 3.5): `billed_units` is what is billed; `tokens` counts the
template's overhead too, and `cached_tokens` can exceed the billed input without any price of its own. A rerank bills
search units: one query over up to 100 documents.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read", "shaped"]

READER = "cohere/1"

_UNITS = {
    "input_uncached": "input_tokens",
    "output_text": "output_tokens",
    "rerank_search_unit": "search_units",
    "images": "images",
}


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage (v2) or meta object (v1) is Cohere's."""
    return "billed_units" in raw or ("tokens" in raw and "input_tokens" in mapping(raw["tokens"]))


def read(raw: Any) -> Usage | None:
    """Read a `usage` (v2) or `meta` (v1) object.

    Returns:
        The usage, or None when it reports nothing. Where only `tokens` is there it is read and flagged
        `billed_units_unseen`: it is no less than what is billed.
    """
    source = mapping(raw)
    counts = Counts()
    units = mapping(source.get("billed_units"))
    found = {bucket: counts.read(units, key) for bucket, key in _UNITS.items()}
    if all(count is None for count in found.values()):
        units = mapping(source.get("tokens"))
        found = {bucket: counts.read(units, key) for bucket, key in _UNITS.items()}
        counts.flag("billed_units_unseen")
    if all(count is None for count in found.values()):
        return None
    for bucket, count in found.items():
        counts.put(bucket, count)
    kept = {key: source[key] for key in ("billed_units", "tokens", "cached_tokens") if key in source}
    return Usage(buckets=MappingProxyType(counts.buckets), reader=READER, raw=kept, flags=tuple(counts.flags))
