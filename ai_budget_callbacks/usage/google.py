"""Usage of Gemini's `generateContent`, over the API and Vertex, as JSON and as its Python client has it.

Facts (facts/pricing.md 3, recorded responses): `promptTokenCount` includes cached tokens; tool prompts and thoughts
come on top of prompt and candidates; modalities stand in lists of details. A stream's last `usageMetadata` holds.
Searches are in no counter: they are read from the answer's `groundingMetadata`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Terms, Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["count_grounding", "embedded", "read", "shaped"]

READER = "google/1"

_BY_PROMPT = re.compile(
    r"\bgemini-[12]\b"
)  # older generations bill a search by the prompt it grounds, newer ones by query
_SOURCES = ("web", "maps")
_ON_DEMAND = "ON_DEMAND"
_PROMPT = ("promptTokenCount", "prompt_token_count")
_CANDIDATES = ("candidatesTokenCount", "candidates_token_count")
_THOUGHTS = ("thoughtsTokenCount", "thoughts_token_count")
_SHAPE = frozenset((*_PROMPT, *_CANDIDATES, *_THOUGHTS))
_INTERACTION = ("total_input_tokens", "total_output_tokens", "total_thought_tokens")


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object is of this family."""
    return any(key in raw for key in _SHAPE) or any(key in raw for key in _INTERACTION)


def read(raw: Any) -> Usage | None:
    """Read a `usageMetadata` object, with its keys in camel or in snake case.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    if any(key in source for key in _INTERACTION):
        return _read_interaction(source)
    counts = Counts()
    prompt = counts.read(source, *_PROMPT)
    candidates = counts.read(source, *_CANDIDATES)
    thoughts = counts.read(source, *_THOUGHTS)
    if prompt is None and candidates is None and thoughts is None:
        return None
    cached = counts.read(source, "cachedContentTokenCount", "cached_content_token_count") or 0
    tool = counts.read(source, "toolUsePromptTokenCount", "tool_use_prompt_token_count") or 0
    asked = _details(counts, source, "promptTokensDetails", "prompt_tokens_details", "promptTokenDetails")
    if (prompt or 0) < sum(asked.values()):
        counts.flag("inconsistent")
        prompt = sum(asked.values())  # the larger reading
    audio = asked.get("AUDIO", 0)
    cached_audio = _details(counts, source, "cacheTokensDetails", "cache_tokens_details").get("AUDIO", 0)
    counts.put("cache_read", counts.rest(cached, cached_audio))
    counts.put("cache_read_audio", cached_audio)
    audio_left = counts.rest(audio, cached_audio)
    counts.put("input_audio", audio_left)
    counts.put("input_uncached", counts.rest(prompt or 0, cached, audio_left))
    counts.put("input_tool", tool)
    _read_output(counts, source, candidates or 0)
    _read_thoughts(counts, source, (prompt or 0) + tool + (candidates or 0), thoughts or 0)
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw=raw,
        flags=tuple(counts.flags),
        terms=Terms(service_tier=_tier(source)),
    )


def _read_interaction(source: Mapping[str, Any]) -> Usage | None:
    """Usage of the Interactions API: the tool prompt and thoughts come on top here too."""
    counts = Counts()
    read_in, read_out, thoughts = (counts.read(source, key) for key in _INTERACTION)
    if read_in is None and read_out is None and thoughts is None:
        return None
    cached = counts.read(source, "total_cached_tokens") or 0
    tool = counts.read(source, "total_tool_use_tokens") or 0
    asked = _by_modality(counts, source, "input_tokens_by_modality")
    if sum(asked.values()) > (read_in or 0):
        counts.flag("inconsistent")
        read_in = sum(asked.values())  # the larger reading
    # nobody says which part was cached: text first, as the dearer reading
    audio = max(min(asked.get("AUDIO", 0), (read_in or 0) - cached), 0)
    counts.put("cache_read", cached)
    counts.put("input_audio", audio)
    counts.put("input_uncached", counts.rest(read_in or 0, cached, audio))
    counts.put("input_tool", tool)
    made = _by_modality(counts, source, "output_tokens_by_modality")
    dearer = {bucket: made.get(kind, 0) for bucket, kind in (("output_audio", "AUDIO"), ("output_image", "IMAGE"))}
    counts.put("output_text", counts.rest(read_out or 0, *dearer.values()))
    for bucket, count in dearer.items():
        counts.put(bucket, count)
    total = counts.read(source, "total_tokens")
    beyond = 0 if total is None else total - (read_in or 0) - tool - (read_out or 0) - (thoughts or 0)
    if beyond:
        counts.flag("inconsistent")
    counts.put("output_reasoning", (thoughts or 0) + max(beyond, 0))
    return Usage(
        buckets=MappingProxyType(counts.buckets), reader="google-interactions/1", raw=source, flags=tuple(counts.flags)
    )


def embedded(answer: Mapping[str, Any]) -> Usage | None:
    """The usage of a Vertex embedding answer, which counts each text in its statistics; None where it has none."""
    predictions = answer.get("predictions")
    counts = Counts()
    found = [
        counts.read(mapping(mapping(mapping(item).get("embeddings")).get("statistics")), "token_count")
        for item in (predictions if isinstance(predictions, list) else ())
    ]
    known = [count for count in found if count is not None]
    if not known:
        return None
    usage = read({"promptTokenCount": sum(known)})
    return usage and replace(usage, flags=(*usage.flags, *counts.flags))


def _by_modality(counts: Counts, source: Mapping[str, Any], key: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in map(mapping, counts.listed(source, key)):
        name = str(item.get("modality")).upper()
        found[name] = found.get(name, 0) + (counts.read(item, "tokens") or 0)
    return found


def _read_output(counts: Counts, source: Mapping[str, Any], candidates: int) -> None:
    by_kind = _details(counts, source, "candidatesTokensDetails", "candidates_tokens_details")
    audio = by_kind.get("AUDIO", 0)
    images = by_kind.get("IMAGE", 0) + by_kind.get("VIDEO", 0)  # dearer than text; videos have no bucket of their own
    counts.put("output_text", counts.rest(candidates, audio, images))
    counts.put("output_audio", audio)
    counts.put("output_image", images)


def _read_thoughts(counts: Counts, source: Mapping[str, Any], others: int, thoughts: int) -> None:
    """Thoughts, and whatever else the total says beyond the other counts (prompt, tool prompt, candidates)."""
    total = counts.read(source, "totalTokenCount", "total_token_count")
    beyond = 0 if total is None else total - others - thoughts
    if beyond:
        counts.flag("inconsistent")
    counts.put("output_reasoning", thoughts + max(beyond, 0))  # the larger reading cannot undercharge


def count_grounding(metadata: Any, model: str) -> dict[str, int]:
    """Billed searches of one answer: facts/pricing.md 3. The free quota cannot be seen, so none is free here.

    Args:
        metadata: The `groundingMetadata` of a candidate, with its keys in camel or in snake case.
        model: Who answered: Gemini 1 and 2 bill the grounded prompt, later ones each unique query that is not empty
            (ai.google.dev/gemini-api/docs/google-search).
    """
    source = mapping(metadata)
    asked = _list(source, "webSearchQueries", "web_search_queries")
    queries = len({query for query in asked if isinstance(query, str) and query.strip()})
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


def _details(counts: Counts, source: Mapping[str, Any], *keys: str) -> dict[str, int]:
    """Tokens by modality of a list of `{modality, tokenCount}`."""
    found: dict[str, int] = {}
    for item in map(mapping, counts.listed(source, *keys)):
        kind = item.get("modality")
        name = str(getattr(kind, "value", kind)).upper()
        found[name] = found.get(name, 0) + (counts.read(item, "tokenCount", "token_count") or 0)
    return found
