"""What an integration left out of LangChain's usage and keeps elsewhere in the message, put back.

Where it keeps nothing, the dearest reading is taken and the entry says so. Measured: langchain-google-genai 4.4.2, -aws
1.9.1, -openrouter 0.2.9, -perplexity 1.4.2.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Terms, Usage, anthropic, google
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["bedrock_metrics", "bedrock_usage", "of_perplexity", "with_cost", "with_modalities", "with_tier"]

_AS_AUDIO = {"input_uncached": "input_audio", "cache_read": "cache_read_audio"}
_AS_IMAGES = {"output_text": "output_image"}
_IMAGES = frozenset({"image", "image_url"})
_METRICS = "amazon-bedrock-invocationMetrics"
_METRIC_BUCKETS = {
    "inputTokenCount": "input_uncached",
    "outputTokenCount": "output_text",
    "cacheReadInputTokenCount": "cache_read",
    "cacheWriteInputTokenCount": "cache_write",
}


def with_modalities(usage: Usage, message: Any, metadata: Mapping[str, Any], *, model: str, sounds: bool) -> Usage:
    """A Gemini usage with its searches, and all that may be audio or images counted as such: nothing says how much is.

    Args:
        usage: What LangChain reports: the modality lists are dropped.
        message: The answer.
        metadata: Its `response_metadata`.
        model: Who was asked.
        sounds: Whether the request has audio or video, and the model has a price for it.
    """
    usage = usage.with_units(google.count_grounding(metadata.get("grounding_metadata"), model))
    content = getattr(message, "content", None)
    drawn = any(mapping(block).get("type") in _IMAGES for block in (content if isinstance(content, list) else ()))
    moves = (_AS_AUDIO if sounds else {}) | (_AS_IMAGES if drawn else {})
    if not any(name in usage.buckets for name in moves):
        return usage
    buckets: dict[str, int] = {}
    for name, count in usage.buckets.items():
        to = moves.get(name, name)
        buckets[to] = buckets.get(to, 0) + count
    return replace(usage, buckets=MappingProxyType(buckets), flags=(*usage.flags, "modalities_unseen"))


def with_cost(usage: Usage, metadata: Mapping[str, Any]) -> Usage:
    """An OpenRouter usage with the cost it states, which `ChatOpenRouter` keeps beside it.

    It drops `is_byok`. The fee for a key of one's own is a small part of what that key paid, which `cost` has not.
    """
    cost = metadata.get("cost")
    if cost is None:
        return usage
    details = mapping(metadata.get("cost_details"))
    upstream = details.get("upstream_inference_cost")
    own_key = _number(cost) and _number(upstream) and upstream > 2 * cost
    return replace(usage, raw={**mapping(usage.raw), "cost": cost, "cost_details": dict(details), "is_byok": own_key})


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def with_tier(usage: Usage, metadata: Mapping[str, Any]) -> Usage:
    """A Bedrock usage with its service tier, which Converse reports beside it."""
    tier = mapping(metadata.get("serviceTier")).get("type")
    return replace(usage, terms=replace(usage.terms, service_tier=tier)) if isinstance(tier, str) else usage


def bedrock_usage(raw: Mapping[str, Any]) -> Usage | None:
    """What `ChatBedrock` makes of the token counts in an answer's headers: its prompt is without the cached tokens."""
    usage = anthropic.read(
        {
            "input_tokens": raw.get("prompt_tokens"),
            "output_tokens": raw.get("completion_tokens"),
            "cache_read_input_tokens": raw.get("cache_read_input_tokens"),
            "cache_creation_input_tokens": raw.get("cache_write_input_tokens"),
        }
    )
    if usage is None or usage.nothing:
        return None
    lost = ("lifetimes_unseen",) if "cache_write_5m" in usage.buckets else ()  # no header has them
    return replace(usage, reader="langchain.bedrock_headers/1", raw=dict(raw), flags=(*usage.flags, *lost))


def bedrock_metrics(metadata: Mapping[str, Any]) -> Usage | None:
    """The metrics at the end of a Bedrock stream, where langchain-aws makes no usage of them."""
    source, counts = mapping(metadata.get(_METRICS)), Counts()
    for key, bucket in _METRIC_BUCKETS.items():
        counts.put(bucket, counts.read(source, key))
    if not counts.buckets:
        return None
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader="langchain.bedrock_metrics/1",
        raw=dict(source),
        flags=tuple(counts.flags),
    )


def of_perplexity(found: Mapping[str, Any], metadata: Mapping[str, Any]) -> Usage | None:
    """A Perplexity usage: reasoning and citations are outside the output, and searches and the fee in no counter."""
    counts = Counts()
    details = mapping(found.get("output_token_details"))
    counts.put("input_uncached", counts.read(found, "input_tokens"))
    counts.put("output_text", counts.read(found, "output_tokens"))
    counts.put("output_reasoning", counts.read(details, "reasoning"))
    counts.put("output_citation", counts.read(details, "citation_tokens"))
    if not counts.buckets:
        return None
    searches, size = counts.read(metadata, "num_search_queries"), metadata.get("search_context_size")
    counts.put("web_search", searches)
    counts.put("request_fee", 1 if isinstance(size, str) else 0)
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader="langchain.perplexity/1",
        raw={**found, "num_search_queries": searches, "search_context_size": size},
        flags=tuple(counts.flags),
        terms=Terms(search_context=size if isinstance(size, str) else None),
    )
