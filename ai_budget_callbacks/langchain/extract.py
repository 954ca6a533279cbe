"""An `LLMResult` as an `Outcome`: where LangChain keeps usage, and what it does to it on the way.

Raw provider usage is preferred wherever it is kept; `usage_metadata` is read where it is not (streams, Responses).
What is known to be lost is in docs/limits.md. Facts: facts/langchain.md 3, measured on langchain-core 1.8.3,
langchain-openai 1.7.4, langchain-anthropic 1.7.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ai_budget_callbacks.langchain.regained import (
    bedrock_metrics,
    bedrock_usage,
    of_perplexity,
    with_cost,
    with_modalities,
    with_tier,
)
from ai_budget_callbacks.meter import Outcome
from ai_budget_callbacks.sizes import shown_size
from ai_budget_callbacks.usage import Terms, Usage, anthropic, flat, openai
from ai_budget_callbacks.usage._counts import Counts, mapping
from ai_budget_callbacks.usage.wire import anthropic_shaped

__all__ = ["counted_elsewhere", "is_cache_hit", "outcome_of", "read_usage_metadata", "text_size", "undouble"]

READER = "langchain.usage_metadata/1"
_TIERS = ("flex", "priority")
_OWN_IDS = ("run-", "run--", "lc_")
_LATER = frozenset({"queued", "in_progress"})  # Responses: what comes of it is asked for apart from this call
_STATE_THEIR_COST = frozenset({"openrouter", "x-ai"})  # in the usage object, which only a plain invoke keeps


def outcome_of(
    result: Any,
    *,
    choices: int,
    provider: str,
    last_chunk_usage: Any = None,
    hidden_reasoning: bool = False,
    asked_speed: str | None = None,
    shared: bool = False,
    streamed: bool = False,
    asked: str = "",
    sounds: bool = False,
) -> Outcome:
    """What an end event says.

    Args:
        result: The event's `LLMResult`.
        choices: `n` of the request; streamed choices come back merged with their strings repeated.
        provider: Catalogue provider id.
        last_chunk_usage: The last chunk's `usage_metadata` when several chunks of one stream carried usage: those
            numbers are cumulative and LangChain adds them up (facts/langchain.md 9).
        hidden_reasoning: Whether the model may reason out of sight.
        asked_speed: The speed the request asked for; streams lose the one that was served.
        shared: One of several prompts of a `generate`, or of several calls at once that may be the same question.
        streamed: Chunks came: it was sent, whatever mark its stored twin bears.
        asked: The model that was asked for.
        sounds: Whether the request has audio that has a price of its own.
    """
    message = first_message(result)
    if message is not None and not streamed and is_cache_hit(message, result, shared=shared):
        return Outcome(kind="cached", response=result)
    metadata = mapping(getattr(message, "response_metadata", None))
    llm_output = mapping(getattr(result, "llm_output", None))
    usage = _usage(message, metadata, llm_output, provider, choices, last_chunk_usage)
    if usage is None and message is None:
        usage, metadata = _of_text_model(result)
    if usage is not None and provider == "google":
        usage = with_modalities(usage, message, metadata, model=asked, sounds=sounds)
    if usage is not None and usage.reader == READER and asked_speed and usage.terms.speed is None:
        usage = replace(usage, terms=replace(usage.terms, speed=asked_speed))
    # a text model's `llm_output` has the name of its constructor, whatever was sent (langchain-openai 1.7)
    model = metadata.get("model_name") or metadata.get("model") or (message and llm_output.get("model_name"))
    if provider == "aws":
        # what was asked for is what answers; langchain-aws (1.9) repeats its constructor, and a Claude on Bedrock says
        # its name without the region, which has a price
        model = None
    if usage is None and metadata.get("status") in _LATER:
        return Outcome(kind="unknown", reason="it is answered in the background, unseen", response=result)
    # a compaction can be most of the bill, and its tokens were dropped: what was seen is a lower bound
    short = usage is not None and "compaction_unseen" in usage.flags
    return Outcome(
        kind="cut" if short else "answer",
        reason="the tokens of its compaction were dropped on the way" if short else None,
        usage=usage,
        response_model=undouble(str(model), choices) if model else None,
        response_id=_response_id(message, metadata, llm_output),
        response=result,
        output_bytes=text_size(result),
        hidden_reasoning=hidden_reasoning,
    )


def first_message(result: Any) -> Any:
    """The first generation's message, or None (text models, empty results)."""
    for generations in getattr(result, "generations", None) or ():
        for generation in generations or ():
            return getattr(generation, "message", None)
    return None


def is_cache_hit(message: Any, result: Any, *, shared: bool) -> bool:
    """Whether LangChain served a message from its LLM cache: it marks those with an int 0 under `total_cost`.

    The mark is put on the stored object, so a paid answer bears it too when another prompt of the same `generate` hit
    that entry before its end event. A hit has no `llm_output`; a prompt that shares its `generate` and could be either
    (the Responses API has no `llm_output` at all) is booked, never free.
    """
    metadata = getattr(message, "usage_metadata", None)
    if not isinstance(metadata, Mapping) or metadata.get("total_cost", 1) != 0:
        return False
    if getattr(result, "llm_output", None):
        return False
    return not (shared and metadata.get("input_tokens") and _from_responses(message))


def _from_responses(message: Any) -> bool:
    return str(getattr(message, "id", "") or "").startswith("resp_")


def counted_elsewhere(result: Any) -> bool:
    """A prompt of a text-model batch whose usage stands with the first prompt: one request, many runs.

    `LLMResult.flatten` gives every prompt but the first an empty `token_usage` (langchain_core.outputs).
    """
    llm_output = getattr(result, "llm_output", None)
    return first_message(result) is None and isinstance(llm_output, Mapping) and llm_output.get("token_usage") == {}


def _usage(
    message: Any,
    metadata: Mapping[str, Any],
    llm_output: Mapping[str, Any],
    provider: str,
    choices: int,
    last_chunk_usage: Any,
) -> Usage | None:
    tier = metadata.get("service_tier")
    tier = undouble(tier, choices) if isinstance(tier, str) else None
    raw = None if last_chunk_usage is not None else metadata.get("token_usage") or llm_output.get("token_usage")
    if isinstance(raw, Mapping) and raw:
        usage = openai.read(raw, service_tier=tier)
        return None if usage is None else usage.with_units(_tool_units(message))
    raw = None if last_chunk_usage is not None else metadata.get("usage")
    if isinstance(raw, Mapping) and raw:
        if provider == "aws" and "prompt_tokens" in raw:
            return bedrock_usage(raw)
        return anthropic.read(raw) if anthropic_shaped(raw) else openai.read(raw, service_tier=tier)
    found = last_chunk_usage if last_chunk_usage is not None else getattr(message, "usage_metadata", None)
    if not isinstance(found, Mapping):
        return _elsewhere(metadata, provider)
    usage = _of_metadata(found, metadata, provider, tier)
    if usage is None:
        return None
    units = _tool_units(message)
    lost = _lost(provider, message, units)
    return replace(usage.with_units(units), flags=(*usage.flags, *lost))


def _elsewhere(metadata: Mapping[str, Any], provider: str) -> Usage | None:
    """Usage that LangChain's own field has not."""
    if provider == "cohere":
        return _billed_units(metadata)
    return bedrock_metrics(metadata) if provider == "aws" else None


def _of_metadata(
    found: Mapping[str, Any], metadata: Mapping[str, Any], provider: str, tier: str | None
) -> Usage | None:
    if provider == "perplexity":
        return of_perplexity(found, metadata)
    usage = read_usage_metadata(found, provider=provider, service_tier=tier)
    if usage is None:
        return None
    if provider == "openrouter":
        return with_cost(usage, metadata)
    return with_tier(usage, metadata) if provider == "aws" else usage


def _billed_units(metadata: Mapping[str, Any]) -> Usage | None:
    """What Cohere bills of a stream: langchain-cohere 0.6 keeps it under `token_count`, and gives no usage."""
    usage = openai.read(metadata.get("token_count"))
    return None if usage is None else replace(usage, reader="cohere.billed_units/1")


def _lost(provider: str, message: Any, units: Mapping[str, int]) -> list[str]:
    """What the price may hang on and LangChain dropped with the raw usage, where this answer shows that it matters."""
    lost = []
    metadata = mapping(getattr(message, "response_metadata", None))
    if provider == "anthropic":
        kinds = {(mapping(block).get("type"), mapping(block).get("name")) for block in _blocks(message)}
        lost += ["searches_counted"] if units.get("web_search") else []
        lost += ["compaction_unseen"] if ("compaction", None) in kinds else []
        lost += ["other_model"] if ("server_tool_use", "advisor") in kinds else []
    elif provider == "cohere":
        # a plain answer's `token_count` is `tokens`; a stream's is what is billed, and has a total
        kept = mapping(metadata.get("token_count"))
        lost += [] if "total_tokens" in kept else ["billed_units_unseen"]
    elif provider in _STATE_THEIR_COST:
        lost += [] if metadata.get("cost") is not None else ["cost_unseen"]
    elif provider == "perplexity":
        lost += ["cost_unseen"] if metadata.get("object") == "response" else []  # its Agent API states it
    return lost


def _of_text_model(result: Any) -> tuple[Usage | None, Mapping[str, Any]]:
    """Usage and metadata of a text model that keeps them with its generation (langchain-ollama 1.1, -aws 1.9)."""
    for generations in getattr(result, "generations", None) or ():
        for generation in generations or ():
            info = mapping(getattr(generation, "generation_info", None))
            return bedrock_metrics(info) or flat.read(info), info
    return None, mapping(None)


def read_usage_metadata(found: Mapping[str, Any], *, provider: str, service_tier: str | None = None) -> Usage | None:
    """Read LangChain's `UsageMetadata`.

    `input_tokens` includes cache reads and writes. OpenAI's flex and priority tiers rename the detail keys
    (`flex_cache_read`, and `flex` for the rest); Anthropic's writes stand under `ephemeral_*` when the lifetime is
    known, and `cache_creation` is then 0 on purpose.

    Returns:
        The usage, or None when it reports nothing. Zeros are absent counts here: `{"prompt_tokens": null}` becomes 0.
    """
    counts = Counts()
    total_in = counts.read(found, "input_tokens")
    total_out = counts.read(found, "output_tokens")
    if not total_in and not total_out:
        return None
    inside, outside = mapping(found.get("input_token_details")), mapping(found.get("output_token_details"))
    prefix = next((f"{tier}_" for tier in _TIERS if any(str(k).startswith(tier) for k in (*inside, *outside))), "")

    def detail(source: Mapping[str, Any], key: str) -> int:
        return counts.read(source, prefix + key, key) or 0

    cache_read, written = detail(inside, "cache_read"), detail(inside, "cache_creation")
    five_minutes = counts.read(inside, "ephemeral_5m_input_tokens") or 0
    one_hour = counts.read(inside, "ephemeral_1h_input_tokens") or 0
    audio_in, audio_out = detail(inside, "audio"), detail(outside, "audio")
    reasoning = detail(outside, "reasoning")
    if provider == "x-ai" and (total_out or 0) >= reasoning == _excess(counts, found, total_in, total_out):
        total_out = (total_out or 0) - reasoning  # langchain-xai adds it to outputs that have it already
    parts: tuple[int, ...] = (cache_read, written, five_minutes, one_hour, audio_in)
    if cache_read + written > (total_in or 0) >= max(cache_read, written):
        parts = (max(cache_read, written),)  # OpenRouter counts tokens as read and as written, and bills both
        counts.flag("inconsistent")
    counts.put("input_uncached", counts.rest(total_in or 0, *parts))
    counts.put("cache_read", cache_read)
    # Anthropic without a lifetime: five minutes is the documented default; OpenAI has no lifetimes
    counts.put("cache_write_5m" if provider == "anthropic" else "cache_write", written)
    if written and provider == "anthropic":
        counts.flag("lifetimes_unseen")
    counts.put("cache_write_5m", five_minutes)
    counts.put("cache_write_1h", one_hour)
    counts.put("input_audio", audio_in)
    on_top = max((counts.read(found, "total_tokens") or 0) - (total_in or 0) - (total_out or 0), 0)
    _put_output(counts, total_out or 0, on_top, reasoning, audio_out)
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=READER,
        raw=dict(found),
        flags=tuple(counts.flags),
        terms=Terms(service_tier=service_tier or prefix.rstrip("_") or None),
    )


def _put_output(counts: Counts, total: int, on_top: int, reasoning: int, audio: int) -> None:
    if on_top and on_top != reasoning:
        counts.flag("inconsistent")  # whatever it is, the larger reading cannot undercharge
    within = 0 if on_top == reasoning else reasoning
    counts.put("output_text", counts.rest(total, within, audio))
    counts.put("output_reasoning", within + on_top)
    counts.put("output_audio", audio)


def _excess(counts: Counts, found: Mapping[str, Any], total_in: int | None, total_out: int | None) -> int:
    """What input and output say beyond the total; 0 where there is none."""
    total = counts.read(found, "total_tokens")
    return (total_in or 0) + (total_out or 0) - total if total else 0


def _blocks(message: Any) -> list[Any]:
    content = getattr(message, "content", None)
    blocks: list[Any] = list(content) if isinstance(content, list) else []
    return blocks + (mapping(getattr(message, "additional_kwargs", None)).get("tool_outputs") or [])


def _tool_units(message: Any) -> dict[str, int]:
    """Billed tool calls that no counter shows: content blocks, and `tool_outputs` of older output versions."""
    blocks = _blocks(message)
    units = openai.count_output_items(blocks)
    searches = sum(
        1
        for block in map(mapping, blocks)
        if block.get("type") in {"server_tool_use", "server_tool_call"} and block.get("name") == "web_search"
    )
    if searches:
        units["web_search"] = units.get("web_search", 0) + searches
    return units


def _response_id(message: Any, metadata: Mapping[str, Any], llm_output: Mapping[str, Any]) -> str | None:
    for value in (metadata.get("id"), getattr(message, "id", None), llm_output.get("id")):
        if isinstance(value, str) and value and not value.startswith(_OWN_IDS):
            return value
    return None


def undouble(text: str, choices: int) -> str:
    """A string LangChain repeated once for each streamed choice (`"gpt-4ogpt-4o"` for n=2), once."""
    if choices > 1 and len(text) % choices == 0:
        part = text[: len(text) // choices]
        if part * choices == text:
            return part
    return text


def text_size(result: Any) -> int:
    """UTF-8 bytes of all visible output: text, tool calls, and other content blocks as JSON."""
    size = 0
    for generations in getattr(result, "generations", None) or ():
        for generation in generations or ():
            message = getattr(generation, "message", None)
            if message is None:
                size += len((getattr(generation, "text", "") or "").encode("utf-8", "surrogatepass"))
                continue
            content = message.content
            size += shown_size(content)
            size += sum(shown_size(call) for call in getattr(message, "tool_calls", None) or ())
            size += sum(shown_size(call) for call in getattr(message, "invalid_tool_calls", None) or ())
    return size
