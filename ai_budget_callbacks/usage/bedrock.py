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
    from collections.abc import Mapping, Sequence

__all__ = ["completed", "from_headers", "read", "shaped"]

READER = "bedrock/1"

_HEADERS = {
    "input_uncached": "x-amzn-bedrock-input-token-count",
    "output_text": "x-amzn-bedrock-output-token-count",
}
_CACHED = ("cacheReadInputTokens", "cacheReadInputTokenCount")
_WRITTEN = ("cacheWriteInputTokens", "cacheWriteInputTokenCount")
_SHAPE = frozenset(("inputTokens", "outputTokens", *_CACHED, *_WRITTEN))
_DIGITS = 18  # more of them are no count, and int() refuses very many
_LIFETIMES = {"5m": "cache_write_5m", "1h": "cache_write_1h"}


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object is Converse's (Nova answers `invoke_model` with it too)."""
    return any(key in raw for key in _SHAPE)


def read(raw: Any) -> Usage | None:
    """Read the `usage` object of a Converse answer, or of the `metadata` event of its stream.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    counts = Counts()
    plain = counts.read(source, "inputTokens")
    output = counts.read(source, "outputTokens")
    cached = counts.read(source, *_CACHED)
    written = counts.read(source, *_WRITTEN)
    total = counts.read(source, "totalTokens")
    if plain is None and output is None and not cached and not written and not total:
        return None
    if plain is None and not cached and not written:
        counts.flag("input_absent")
    counts.put("input_uncached", plain)
    counts.put("cache_read", cached)
    _read_writes(counts, counts.listed(source, "cacheDetails"), written or 0)
    counts.put("output_text", output)
    beyond = 0 if total is None else total - sum(counts.buckets.values())
    if beyond:
        counts.flag("inconsistent")
        # an input that nobody read is what the total says beyond the output; else the dearer reading
        half = "input_uncached" if plain is None and output is not None else "output_text"
        counts.put(half, max(beyond, 0))
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw=raw,
        flags=tuple(counts.flags),
        terms=_terms(source),
    )


def _read_writes(counts: Counts, details: Sequence[Any], written: int) -> None:
    known = 0
    for item in map(mapping, details):
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
        text = (value[0] if value else None) if isinstance(value, (list, tuple)) else value
        if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= _DIGITS:
            text = int(text)
        found[name] = text
    found = {name: value for name, value in found.items() if value is not None}
    counts = Counts()
    for bucket, name in _HEADERS.items():
        counts.put(bucket, counts.read(found, name))
    if not counts.buckets:
        return None
    return Usage(
        buckets=MappingProxyType(counts.buckets), reader="bedrock-headers/1", raw=found, flags=tuple(counts.flags)
    )


def completed(usage: Usage | None, headers: Mapping[str, Any] | None) -> Usage | None:
    """A body's usage with the half that it lacks and the headers have: a guardrail's answer names no output."""
    said = None if headers is None else from_headers(headers)
    if said is None or usage is None or usage.nothing:
        return said or usage
    lacking = {"input_uncached": not usage.input_tokens, "output_text": not usage.output_tokens}
    return usage.with_units({bucket: count for bucket, count in said.buckets.items() if lacking[bucket]})
