"""A response as an `Outcome`: where LlamaIndex's integrations keep usage (facts/llamaindex.md 5).

`raw` is the provider's own object: an answer, the last chunk or event of a stream, or a dict of either. What is known
to be lost is in docs/limits.md. Measured: llms-openai 0.8.3, -anthropic 0.12.3, -google-genai 0.11.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.llama_index.regained import billed_units, converse, of_stream
from ai_budget_callbacks.meter import Outcome
from ai_budget_callbacks.sizes import shown_size
from ai_budget_callbacks.usage import INPUT_BUCKETS, Usage, anthropic, google, openai
from ai_budget_callbacks.usage._counts import mapping
from ai_budget_callbacks.usage.wire import read_usage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["counted_texts", "outcome_of", "result_size", "same_answer", "text_size", "with_content"]

# integrations that keep their usage beside the raw object (bedrock-converse, ollama, openai's Responses streams)
_BESIDE = ("usage", "usage_metadata")


def outcome_of(
    response: Any,
    *,
    asked: str = "",
    hidden_reasoning: bool = False,
    asked_speed: str | None = None,
    asked_caching: bool = False,
) -> Outcome:
    """What an end event, or the last chunk of a stream that was cut, says.

    Args:
        response: A `ChatResponse` or `CompletionResponse`, or None.
        hidden_reasoning: Whether the model may reason out of sight.
        asked: The model that was asked for, where the answer does not say who gave it.
        asked_speed: The speed the request asked for, where the answer does not say.
        asked_caching: Whether the request asked for cache writes, without which nothing is written or read.
    """
    raw = of_stream(getattr(response, "raw", None))
    answer = _field(raw, "response") or raw  # `response.completed` of the Responses API carries the answer
    tier, model, response_id = (_text(_field(answer, name)) for name in ("service_tier", "model", "id"))
    usage = _usage(response, answer, tier)
    if usage is not None and _field(raw, "type") == "message_delta":
        usage = _of_last_event(usage, asked_caching=asked_caching)
    if usage is not None and asked_speed and usage.terms.speed is None:
        usage = replace(usage, terms=replace(usage.terms, speed=asked_speed))
    items = _plain(_field(answer, "output"))
    if usage is not None and isinstance(items, list):
        usage = usage.with_units(openai.count_output_items(list(map(_plain, items))))
    if usage is not None:
        usage = usage.with_units(google.count_grounding(_plain(_field(answer, "grounding_metadata")), model or asked))
    return Outcome(
        kind="answer",
        usage=usage,
        response_model=model,
        response_id=response_id,
        response=response,
        output_bytes=text_size(response),
        hidden_reasoning=hidden_reasoning,
    )


def _usage(response: Any, answer: Any, tier: str | None) -> Usage | None:
    found = converse(answer) or billed_units(answer)
    if found is not None:
        return found
    message = getattr(response, "message", None)
    beside = mapping(getattr(response, "additional_kwargs", None))
    inside = mapping(getattr(message, "additional_kwargs", None))
    started = _plain(inside.get("usage"))  # Anthropic's stream: input tokens of its first event
    held = (
        _field(answer, "usage"),
        _field(answer, "usage_metadata"),
        _field(_plain(_field(answer, "x_groq")), "usage"),
    )
    for found in (*held, *(beside.get(name) for name in _BESIDE)):
        raw = _plain(found)
        if isinstance(raw, Mapping) and raw:
            usage = _anthropic_stream(raw, started) or read_usage(raw, service_tier=tier)
            if usage is not None:
                return usage
    usage = read_usage(started) if isinstance(started, Mapping) and started else None
    # token counts that core's convention puts beside the answer (Bedrock Converse, Ollama, many others)
    return usage or read_usage(_counts_of(beside))


def _counts_of(beside: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside an answer without what may be content (citations, annotations, thoughts): usage is kept."""
    return {
        name: value
        for name, value in beside.items()
        if isinstance(value, (int, float)) or (isinstance(value, Mapping) and name.endswith("details"))
    }


def _anthropic_stream(raw: Mapping[str, Any], started: Any) -> Usage | None:
    """Usage of a stream whose last event reports output alone; what its first one said of the input is kept."""
    if not isinstance(started, Mapping) or raw.get("input_tokens") or not raw.get("output_tokens"):
        return None
    known = {key: value for key, value in raw.items() if value is not None}
    return anthropic.read({**started, **known, "input_tokens": started.get("input_tokens")})


def _of_last_event(usage: Usage, *, asked_caching: bool) -> Usage:
    """Usage of an Anthropic stream, of whose first event llms-anthropic 0.12.3 keeps the plain input tokens alone.

    Where the last event has no counters of caches, and the request asked for them, what is known of the input is less
    than was billed: it is dropped, so that all of it is counted.
    """
    raw = mapping(usage.raw)
    silent = raw.get("cache_read_input_tokens") is None and raw.get("cache_creation_input_tokens") is None
    if silent and asked_caching:
        left = {name: count for name, count in usage.buckets.items() if name not in INPUT_BUCKETS}
        return replace(usage, buckets=MappingProxyType(left), flags=(*usage.flags, "caches_unseen"))
    if usage.buckets.get("cache_write_5m") and not mapping(raw.get("cache_creation")):
        return replace(usage, flags=(*usage.flags, "lifetimes_unseen"))
    return usage


def text_size(response: Any) -> int:
    """UTF-8 bytes of all visible output: text, tool calls, and other content blocks as JSON."""
    message = getattr(response, "message", None)
    if message is None:
        return shown_size(getattr(response, "text", None) or "")
    blocks = getattr(message, "blocks", None)
    if blocks is None:
        return shown_size(getattr(message, "content", None) or "")
    size = 0
    said: dict[str, str] = {}
    for block in blocks:
        kind = getattr(block, "block_type", "")
        if kind in {"text", "thinking"}:
            text = (block.text if kind == "text" else block.content) or ""
            before = said.get(kind, "")
            # llms-mistralai 0.11.0 adds a block with all text so far for each chunk
            size += shown_size(text) - (shown_size(before) if text.startswith(before) else 0)
            said[kind] = text
        elif kind == "tool_call":
            size += shown_size([block.tool_name, _json(block.tool_kwargs)])
        else:
            size += shown_size(_plain(block))
    return size + (shown_size(_old_tool_calls(message)) if size == 0 else 0)


def _old_tool_calls(message: Any) -> list[Any]:
    calls = mapping(getattr(message, "additional_kwargs", None)).get("tool_calls")
    return [_plain(call) for call in calls] if isinstance(calls, list) else []


def _json(value: Any) -> Any:
    return value if isinstance(value, str) else {"value": value}


def result_size(result: Any) -> int:
    """Bytes of what a method returned: of a response its text, of a parsed model its JSON."""
    if hasattr(result, "message") or hasattr(result, "text"):
        return text_size(result)
    return shown_size(_plain(result)) if result is not None else 0


def same_answer(outcome: Outcome, told: Outcome | None) -> bool:
    """Whether two reports tell of one answer: by its id where both have one, else by its usage."""
    if told is None or outcome.usage is None:
        return False
    if outcome.response_id is not None and told.response_id is not None:
        return outcome.response_id == told.response_id
    return told.usage is not None and dict(outcome.usage.buckets) == dict(told.usage.buckets)


def with_content(outcome: Outcome, prompt: Any) -> Outcome:
    """The outcome with what was asked and said, for a meter that stores it."""
    response = outcome.response
    message = getattr(response, "message", None)
    answer = getattr(message, "content", None) if message is not None else getattr(response, "text", None)
    return replace(outcome, content={"prompt": prompt, "completion": answer})


def counted_texts(texts: Sequence[str], response: Any) -> Outcome:
    """An embedding request: LlamaIndex discards its usage, so it is counted from the texts.

    Args:
        texts: What was sent; nothing where all of it came from the model's cache.
        response: The vectors.
    """
    if not texts:
        return Outcome(kind="cached", response=response)
    reason = "LlamaIndex reports no usage of embeddings; counted from the texts"
    return Outcome(kind="answer", reason=reason, response=response)


def _field(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)


def _plain(value: Any) -> Any:
    """A client's object as JSON has it."""
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump()
    return vars(value) if hasattr(value, "__dict__") and not isinstance(value, (type, Mapping)) else value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
