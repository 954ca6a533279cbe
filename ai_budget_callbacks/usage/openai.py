"""Usage of the OpenAI wire family: chat completions, completions, Responses, embeddings, realtime.

Facts (OpenAI API reference and recorded responses, facts/pricing.md 3.1): `prompt_tokens` includes cached,
cache-write, audio and image tokens; `completion_tokens` includes reasoning, audio and rejected predictions.
Realtime modality totals include their cached part; the split is in `cached_tokens_details`.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Terms, Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["count_output_items", "read"]

READER = "openai/1"

# Output items of the Responses API that cost a fee and are in no counter (facts/pricing.md 3.1).
_ITEM_BUCKETS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_execution",
}


# Counters of xAI's hosted tools (docs.x.ai/developers/pricing); a search of X has the price of a web search.
_TOOL_COUNTERS = {
    "web_search": ("web_search_calls", "x_search_calls"),
    "file_search": ("file_search_calls", "document_search_calls"),
    "code_execution": ("code_interpreter_calls",),
}


def read(raw: Any, *, service_tier: str | None = None) -> Usage | None:
    """Read a usage object of the family.

    Args:
        raw: The `usage` object of a response body.
        service_tier: The response's `service_tier`, which stands beside `usage`, not in it.

    Returns:
        The usage, or None when the object reports nothing (absent, null, or without any count).
    """
    source = mapping(raw)
    counts = Counts()
    prompt = counts.read(source, "prompt_tokens", "input_tokens")
    completion = counts.read(source, "completion_tokens", "output_tokens")
    total = counts.read(source, "total_tokens")
    if prompt is None and completion is None:
        if total is None:
            return _read_duration(source)
        prompt = total  # embeddings of some servers report a total alone
    elif prompt is None and total is not None and completion is not None:
        prompt = max(total - completion, 0)
        counts.flag("inconsistent")
    elif completion is None and total is not None and prompt is not None:
        completion = max(total - prompt, 0)
    _read_input(counts, source, prompt or 0)
    _read_output(counts, source, prompt or 0, completion or 0, total)
    _read_tools(counts, source)
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw=raw,
        flags=tuple(counts.flags),
        terms=Terms(service_tier=service_tier),
    )


def _read_duration(source: Mapping[str, Any]) -> Usage | None:
    """Transcriptions of models that bill time: `{"type": "duration", "seconds": 12}`."""
    seconds = source.get("seconds")
    if source.get("type") != "duration":
        return None
    counts = Counts()
    if isinstance(seconds, float) and math.isfinite(seconds) and seconds >= 0:
        seconds = math.ceil(seconds)  # the larger reading of a part
    whole = counts.read({"seconds": seconds}, "seconds")
    counts.put("audio_seconds", whole)
    if whole is None:
        return None
    return Usage(buckets=MappingProxyType(counts.buckets), reader=READER, raw=dict(source), flags=tuple(counts.flags))


def _read_tools(counts: Counts, source: Mapping[str, Any]) -> None:
    """Calls of hosted tools that the usage itself counts (xAI, OpenRouter)."""
    used = counts.part(source, "server_side_tool_usage_details")
    for bucket, keys in _TOOL_COUNTERS.items():
        for key in keys:
            counts.put(bucket, counts.read(used, key))
    asked = counts.part(source, "server_tool_use_details", "server_tool_use")
    counts.put("web_search", counts.read(asked, "web_search_requests"))


def _read_input(counts: Counts, source: Mapping[str, Any], prompt: int) -> None:
    details = counts.part(source, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    cached_split = counts.part(details, "cached_tokens_details")
    cached = counts.read(details, "cached_tokens") or counts.read(source, "prompt_cache_hit_tokens") or 0
    written = counts.read(details, "cache_write_tokens", "cache_creation_tokens") or 0
    audio = counts.read(details, "audio_tokens") or 0
    image = counts.read(details, "image_tokens") or 0
    cached_audio = counts.read(cached_split, "audio_tokens") or 0
    cached_image = counts.read(cached_split, "image_tokens") or 0
    # realtime and the images API price image input apart; elsewhere it is plain
    if "input_token_details" not in source and not _of_images_api(source):
        image = 0
    audio_left = counts.rest(audio, cached_audio)
    image_left = counts.rest(image, cached_image)
    cached_text = counts.rest(cached, cached_audio, cached_image)
    if cached + written > prompt >= max(cached, written):
        # OpenRouter reports the same tokens as read and as written and bills both: the larger reading.
        counts.flag("inconsistent")
        counts.put("input_uncached", counts.rest(prompt, max(cached, written)))
    else:
        counts.put("input_uncached", counts.rest(prompt, cached, written, audio_left, image_left))
    counts.put("cache_read", cached_text)
    counts.put("cache_read_audio", cached_audio)
    counts.put("cache_read_image", cached_image)
    counts.put("cache_write", written)
    counts.put("input_audio", audio_left)
    counts.put("input_image", image_left)


def _of_images_api(source: Mapping[str, Any]) -> bool:
    """Whether the details split all of the input in text and images, as the images API's do."""
    return "text_tokens" in mapping(source.get("input_tokens_details"))


def _read_output(counts: Counts, source: Mapping[str, Any], prompt: int, completion: int, total: int | None) -> None:
    details = counts.part(source, "completion_tokens_details", "output_tokens_details", "output_token_details")
    reasoning = counts.read(details, "reasoning_tokens") or 0
    audio = counts.read(details, "audio_tokens") or 0
    image = counts.read(details, "image_tokens") or 0  # the images API; models that draw, behind OpenRouter
    if not details and _of_images_api(source):
        image = completion  # it draws, and up to gpt-image-2 it gives no details of that (BerriAI/litellm issue 31142)
    on_top = 0
    if total is None and reasoning > completion:
        on_top = reasoning  # it cannot be inside: xAI counts it apart, and no total says so here
        counts.flag("inconsistent")
    if total is not None and total != prompt + completion:
        on_top = total - prompt - completion
        if on_top < 0:
            counts.flag("inconsistent")
            on_top = 0
        elif on_top != reasoning:
            # Gemini behind this wire format leaves its thoughts out of completion_tokens: the difference is
            # billed output. Whatever else it may be, the larger reading is the one that cannot undercharge.
            counts.flag("inconsistent")
    if on_top:
        inside = 0 if on_top == reasoning else reasoning
        counts.put("output_text", counts.rest(completion, audio, image, inside))
        counts.put("output_reasoning", on_top + inside)
    else:
        counts.put("output_text", counts.rest(completion, reasoning, audio, image))
        counts.put("output_reasoning", reasoning)
    counts.put("output_audio", audio)
    counts.put("output_image", image)


def count_output_items(items: Sequence[Any]) -> dict[str, int]:
    """Billable tool calls among the output items (or content blocks) of a Responses answer.

    A `web_search_call` counts when its action is `search` or it names none; opening a page is free
    (recorded responses, corpus README). A code interpreter is billed by the container, which several calls may share.
    """
    found: dict[str, int] = {}
    containers: set[str] = set()
    for item in items:
        entry = mapping(item)
        bucket = _ITEM_BUCKETS.get(str(entry.get("type")))
        if bucket is None:
            continue
        if bucket == "web_search" and mapping(entry.get("action")).get("type", "search") != "search":
            continue
        container = entry.get("container_id")
        if isinstance(container, str):
            if container in containers:
                continue
            containers.add(container)
        found[bucket] = found.get(bucket, 0) + 1
    return found
