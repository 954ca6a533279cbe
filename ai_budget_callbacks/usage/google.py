"""Usage of Gemini's `generateContent`, over the API and Vertex, as JSON and as its Python client has it.

Facts (facts/pricing.md 3, recorded responses): `promptTokenCount` includes cached tokens; tool prompts and thoughts
come on top of prompt and candidates; modalities stand in lists of details. A stream's last `usageMetadata` holds.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read", "shaped"]

READER = "google/1"


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
    return Usage(buckets=MappingProxyType(counts.buckets), reader=READER, raw=raw, flags=tuple(counts.flags))


def _audio(counts: Counts, source: Mapping[str, Any], *keys: str) -> int:
    """Audio tokens in a list of `{modality, tokenCount}`."""
    details: list[Any] = next((source[key] for key in keys if isinstance(source.get(key), list)), [])
    found = 0
    for item in map(mapping, details):
        kind = item.get("modality")
        if str(getattr(kind, "value", kind)).upper() == "AUDIO":
            found += counts.read(item, "tokenCount", "token_count") or 0
    return found
