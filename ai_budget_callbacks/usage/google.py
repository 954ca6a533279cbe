"""Usage of Gemini's `generateContent`, over the API and Vertex, as JSON and as its Python client has it.

Facts (facts/pricing.md 3, recorded responses): `promptTokenCount` includes cached tokens; tool prompts and thoughts
come on top of prompt and candidates; modalities stand in lists of details. A stream's last `usageMetadata` holds.
Searches are in no counter: they are read from the answer's `groundingMetadata`.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Terms, Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["count_grounding", "read", "shaped"]

READER = "google/1"

_BY_PROMPT = re.compile(
    r"\bgemini-[12]\b"
)  # older generations bill a search by the prompt it grounds, newer ones by query
_SOURCES = ("web", "maps")
_ON_DEMAND = "ON_DEMAND"


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object is of this family."""
    return any(key in raw for key in ("promptTokenCount", "prompt_token_count", "candidatesTokenCount"))


def read(raw: Any) -> Usage | None:
    """Read a `usageMetadata` object, with its keys in camel or in snake case.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    counts = Counts()
    prompt = counts.read(source, "promptTokenCount", "prompt_token_count")
    candidates = counts.read(source, "candidatesTokenCount", "candidates_token_count")
    if prompt is None and candidates is None:
        return None
    cached = counts.read(source, "cachedContentTokenCount", "cached_content_token_count") or 0
    tool = counts.read(source, "toolUsePromptTokenCount", "tool_use_prompt_token_count") or 0
    thoughts = counts.read(source, "thoughtsTokenCount", "thoughts_token_count") or 0
    audio = _audio(counts, source, "promptTokensDetails", "prompt_tokens_details")
    cached_audio = _audio(counts, source, "cacheTokensDetails", "cache_tokens_details")
    audio_out = _audio(counts, source, "candidatesTokensDetails", "candidates_tokens_details")
    counts.put("cache_read", counts.rest(cached, cached_audio))
    counts.put("cache_read_audio", cached_audio)
    audio_left = counts.rest(audio, cached_audio)
    counts.put("input_audio", audio_left)
    counts.put("input_uncached", counts.rest(prompt or 0, cached, audio_left))
    counts.put("input_tool", tool)
    counts.put("output_text", counts.rest(candidates or 0, audio_out))
    counts.put("output_audio", audio_out)
    total = counts.read(source, "totalTokenCount", "total_token_count")
    beyond = 0 if total is None else total - (prompt or 0) - tool - (candidates or 0) - thoughts
    if beyond > 0:
        counts.flag("inconsistent")  # whatever it is, the larger reading cannot undercharge
        thoughts += beyond
    elif beyond < 0:
        counts.flag("inconsistent")
    counts.put("output_reasoning", thoughts)
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw=raw,
        flags=tuple(counts.flags),
        terms=Terms(service_tier=_tier(source)),
    )


def count_grounding(metadata: Any, model: str) -> dict[str, int]:
    """Billed searches of one answer: facts/pricing.md 3. The free quota cannot be seen, so none is free here.

    Args:
        metadata: The `groundingMetadata` of a candidate, with its keys in camel or in snake case.
        model: Who answered: Gemini 1 and 2 bill the grounded prompt, later ones every query.
    """
    source = mapping(metadata)
    queries = len(_list(source, "webSearchQueries", "web_search_queries"))
    chunks = map(mapping, _list(source, "groundingChunks", "grounding_chunks"))
    if not queries and not any(chunk.get(kind) for chunk in chunks for kind in _SOURCES):
        return {}
    return {"grounded_request": 1} if _BY_PROMPT.search(model) else {"web_search": max(queries, 1)}


def _tier(source: Mapping[str, Any]) -> str | None:
    """The service tier, which Vertex calls a type of traffic, `ON_DEMAND_FLEX` for example."""
    kind = source.get("serviceTier") or source.get("trafficType") or source.get("traffic_type")
    name = getattr(kind, "value", kind)
    if not isinstance(name, str) or name in {_ON_DEMAND, "TRAFFIC_TYPE_UNSPECIFIED"}:
        return None  # Vertex has sent a bare number too
    return name.removeprefix(f"{_ON_DEMAND}_").lower() or None


def _list(source: Mapping[str, Any], *keys: str) -> list[Any]:
    return next((source[key] for key in keys if isinstance(source.get(key), list)), [])


def _audio(counts: Counts, source: Mapping[str, Any], *keys: str) -> int:
    """Audio tokens in a list of `{modality, tokenCount}`."""
    found = 0
    for item in map(mapping, _list(source, *keys)):
        kind = item.get("modality")
        if str(getattr(kind, "value", kind)).upper() == "AUDIO":
            found += counts.read(item, "tokenCount", "token_count") or 0
    return found
