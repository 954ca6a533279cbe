"""Usage of Amazon Bedrock: Converse, and what `invoke_model` says in its response headers.

Facts (Bedrock API reference, recorded responses, facts/pricing.md 3.4): `inputTokens` excludes cached tokens, as
Anthropic's does; `totalTokens` includes them; `cacheDetails` splits writes by their time to live, without it they live
five minutes; reasoning is inside `outputTokens` and has no counter. The body of an invoked model is in that model's own
format; several models have their counts in the headers alone.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Terms, Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_headers", "read", "shaped"]

READER = "bedrock/1"

_HEADERS = {
    "input_uncached": "x-amzn-bedrock-input-token-count",
    "output_text": "x-amzn-bedrock-output-token-count",
}
_LIFETIMES = {"5m": "cache_write_5m", "1h": "cache_write_1h"}


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object is Converse's (Nova answers `invoke_model` with it too)."""
    return "inputTokens" in raw or "outputTokens" in raw


def read(raw: Any) -> Usage | None:
    """Read the `usage` object of a Converse answer, or of the `metadata` event of its stream.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    counts = Counts()
    plain = counts.read(source, "inputTokens")
    output = counts.read(source, "outputTokens")
    cached = counts.read(source, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = counts.read(source, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    if plain is None and output is None and not cached and not written:
        return None
    if plain is None and not cached and not written:
        counts.flag("input_absent")
    counts.put("input_uncached", plain)
    counts.put("cache_read", cached)
    _read_writes(counts, source.get("cacheDetails"), written or 0)
    counts.put("output_text", output)
    total = counts.read(source, "totalTokens")
    beyond = 0 if total is None else total - sum(counts.buckets.values())
    if beyond:
        counts.flag("inconsistent")
        counts.put("output_text", max(beyond, 0))  # the larger reading cannot undercharge
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw=raw,
        flags=tuple(counts.flags),
        terms=_terms(source),
    )


def _read_writes(counts: Counts, details: Any, written: int) -> None:
    known = 0
    for item in map(mapping, details if isinstance(details, list) else ()):
        tokens = counts.read(item, "inputTokens") or 0
        counts.put(_LIFETIMES.get(str(item.get("ttl")), "cache_write"), tokens)
        known += tokens
    if known > written:
        counts.flag("inconsistent")  # the larger reading stands
    counts.put("cache_write" if known else "cache_write_5m", max(written - known, 0))


def _terms(source: Mapping[str, Any]) -> Terms:
    tier = mapping(source.get("serviceTier")).get("type")
    return Terms(service_tier=tier if isinstance(tier, str) else None)


def from_headers(headers: Mapping[str, Any]) -> Usage | None:
    """Read the token counts among the response headers of `invoke_model`.

    Args:
        headers: By name in any case; a value may be a list of one.

    Returns:
        The usage, or None when no header reports any.
    """
    by_name = {str(name).lower(): value for name, value in headers.items()}
    found: dict[str, Any] = {}
    for name in _HEADERS.values():
        value = by_name.get(name)
        text = value[0] if isinstance(value, list) and value else value
        if isinstance(text, (str, int)) and str(text).isascii() and str(text).isdecimal():
            found[name] = int(text)
    counts = Counts()
    for bucket, name in _HEADERS.items():
        counts.put(bucket, counts.read(found, name))
    if not counts.buckets:
        return None
    return Usage(
        buckets=MappingProxyType(counts.buckets), reader="bedrock-headers/1", raw=found, flags=tuple(counts.flags)
    )
