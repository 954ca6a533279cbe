"""Usage of Anthropic messages, single objects and the usage events of a stream.

Facts (Anthropic API reference, recorded responses, facts/pricing.md 3.2): `input_tokens` excludes both cache
fields; `output_tokens` includes thinking; a stream's `message_delta` numbers are cumulative; without a
`cache_creation` breakdown all writes live 5 minutes; server tools make the breakdown smaller than the total.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Other, Terms, Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["merge_stream", "read"]

READER = "anthropic/1"

_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def merge_stream(events: Sequence[Any]) -> dict[str, Any]:
    """Fold the usage-bearing events of one stream into a single usage object.

    Args:
        events: Events in order, each `{"type": …, "usage": {…}}`, or `message_start` with the usage inside
            its `message`.

    Returns:
        The last value of every field, the rule for cumulative counters: never a sum. No prompt is empty: an event
        whose input is 0 in all its counters (servers that imitate the format) does not undo an earlier one's.
    """
    merged: dict[str, Any] = {}
    for event in events:
        usage = mapping(event).get("usage") or mapping(mapping(event).get("message")).get("usage")
        said = {key: value for key, value in mapping(usage).items() if value is not None}
        if all(type(count) is int and not count for count in (said.get(key, 0) for key in _INPUT)):
            said.update({key: merged[key] for key in _INPUT if key in merged})
        merged.update(said)
    return merged


def read(raw: Any) -> Usage | None:
    """Read a `usage` object of a messages response.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    counts = Counts()
    plain = counts.read(source, "input_tokens")
    output = counts.read(source, "output_tokens")
    cache_read = counts.read(source, "cache_read_input_tokens")
    cache_written = counts.read(source, "cache_creation_input_tokens")
    if plain is None and output is None and not cache_read and not cache_written:
        return None
    if plain is None and not cache_read and not cache_written:
        counts.flag("input_absent")
    counts.put("input_uncached", plain)
    counts.put("cache_read", cache_read)
    _read_writes(counts, counts.part(source, "cache_creation"), cache_written)
    thinking = counts.read(counts.part(source, "output_tokens_details"), "thinking_tokens") or 0
    counts.put("output_text", counts.rest(output or 0, thinking))
    counts.put("output_reasoning", thinking)
    counts.put("web_search", counts.read(counts.part(source, "server_tool_use"), "web_search_requests"))
    others = _read_iterations(counts, counts.listed(source, "iterations"))
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw=raw,
        flags=tuple(counts.flags),
        terms=_terms(source),
        others=others,
    )


def _read_writes(counts: Counts, split: Mapping[str, Any], total: int | None) -> None:
    five_minutes = counts.read(split, "ephemeral_5m_input_tokens") or 0
    one_hour = counts.read(split, "ephemeral_1h_input_tokens") or 0
    known = five_minutes + one_hour
    beyond = (total or 0) - known
    if beyond < 0:
        counts.flag("inconsistent")
        beyond = 0
    if known:
        counts.put("cache_write", beyond)  # server tools: more written than the breakdown says
    else:
        counts.put("cache_write_5m", beyond)  # no breakdown: five minutes is the documented default
    counts.put("cache_write_5m", five_minutes)
    counts.put("cache_write_1h", one_hour)


def _read_iterations(counts: Counts, iterations: Sequence[Any]) -> tuple[Other, ...]:
    """Compaction runs on the same model, an advisor on another one; both are billed on top of the answer.

    Of these the totals have `message` alone, so what else there may be is billed on top too.
    """
    others: dict[str, Counts] = {}
    for entry in map(mapping, iterations):
        if entry.get("type") == "compaction":
            _read_iteration(counts, entry)
            counts.flag("compaction")
        elif entry.get("type") == "advisor_message":
            model = entry.get("model")
            if not isinstance(model, str) or not model:
                counts.flag("other_model")  # billed, and nobody can say at what price
                continue
            advice = others.setdefault(model, Counts())
            _read_iteration(advice, entry)
            for flag in (*advice.flags, *(() if advice.buckets else ("other_model",))):
                counts.flag(flag)
        elif entry.get("type") != "message":
            counts.flag("other_model")
    return tuple(
        Other(model=model, buckets=MappingProxyType(advice.buckets))
        for model, advice in others.items()
        if advice.buckets
    )


def _read_iteration(counts: Counts, entry: Mapping[str, Any]) -> None:
    counts.put("input_uncached", counts.read(entry, "input_tokens"))
    counts.put("cache_read", counts.read(entry, "cache_read_input_tokens"))
    written = counts.read(entry, "cache_creation_input_tokens")
    _read_writes(counts, counts.part(entry, "cache_creation"), written)
    counts.put("output_text", counts.read(entry, "output_tokens"))


def _terms(source: Mapping[str, Any]) -> Terms:
    tier = source.get("service_tier")
    speed = source.get("speed")
    geo = source.get("inference_geo")
    return Terms(
        service_tier=tier if isinstance(tier, str) and tier != "batch" else None,
        batch=tier == "batch",
        speed=speed if isinstance(speed, str) else None,
        inference_geo=geo if isinstance(geo, str) else None,
    )
