"""Usage of Cohere's own API: chat (v1 and v2), generate, embed, rerank.

Facts (docs.cohere.com, recorded responses, facts/pricing.md 3.5): `billed_units` is what is billed; `tokens` counts the
template's overhead too, and `cached_tokens` can exceed the billed input without any price of its own. A rerank bills
search units: one query over up to 100 documents. A unit that has no bucket here (classifications) has no price either.
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
    "input_image": "image_tokens",
}
_TOKENS = {bucket: _UNITS[bucket] for bucket in ("input_uncached", "output_text")}


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage (v2) or meta object (v1) is Cohere's."""
    return "billed_units" in raw or ("tokens" in raw and "input_tokens" in mapping(raw["tokens"]))


def read(raw: Any) -> Usage | None:
    """Read a `usage` (v2) or `meta` (v1) object.

    Returns:
        The usage, or None when it reports nothing. What only `tokens` says is read there and flagged
        `billed_units_unseen`: it is no less than what is billed.
    """
    source = mapping(raw)
    counts = Counts()
    units = counts.part(source, "billed_units")
    found = {bucket: counts.read(units, key) for bucket, key in _UNITS.items()}
    if any(counts.read(units, key) for key in units if key not in _UNITS.values()):
        counts.flag("unknown_unit")
    if all(count is None for count in found.values()) or any(found[bucket] is not None for bucket in _TOKENS):
        _read_tokens(counts, counts.part(source, "tokens"), found)
    if all(count is None for count in found.values()) and "unknown_unit" not in counts.flags:
        return None
    for bucket, count in found.items():
        counts.put(bucket, count)
    kept = {key: source[key] for key in ("billed_units", "tokens", "cached_tokens") if key in source}
    return Usage(buckets=MappingProxyType(counts.buckets), reader=READER, raw=kept, flags=tuple(counts.flags))


def _read_tokens(counts: Counts, tokens: Mapping[str, Any], found: dict[str, int | None]) -> None:
    """Fill what the billed units do not say of a text's tokens."""
    for bucket, key in _TOKENS.items():
        if found[bucket] is None:
            found[bucket] = counts.read(tokens, key)
            if found[bucket]:
                counts.flag("billed_units_unseen")
