"""Usage of answers that state two plain counts beside their text: Ollama, watsonx, Aleph Alpha, some on Bedrock.

Facts (recorded responses, corpus README): nothing of them is reasoned in a counter of its own, and in Bedrock's metrics
alone something is cached; a prompt that Ollama had in memory is not read again and has no count; watsonx repeats counts
in a stream, the prompt's in its first event and the output's growing; Titan counts each of its results.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["read", "read_stream", "shaped"]


@dataclass(frozen=True, slots=True)
class _Family:
    reader: str
    input: str
    output: str
    result_output: str = ""  # what a result calls its output, where that is another name
    every: bool = False  # both counts must be there: one of the names has another meaning elsewhere
    beside: tuple[tuple[str, str], ...] = ()  # further counters by bucket


_FAMILIES = (
    _Family("ollama/1", "prompt_eval_count", "eval_count"),
    _Family("watsonx/1", "input_token_count", "generated_token_count"),
    _Family("alephalpha/1", "num_tokens_prompt_total", "num_tokens_generated"),
    _Family("llama/1", "prompt_token_count", "generation_token_count", every=True),
    _Family("titan/1", "inputTextTokenCount", "totalOutputTextTokenCount", "tokenCount"),
    _Family(
        "bedrock-metrics/1",
        "inputTokenCount",
        "outputTokenCount",
        beside=(("cache_read", "cacheReadInputTokenCount"), ("cache_write_5m", "cacheWriteInputTokenCount")),
    ),
)


def shaped(raw: Mapping[str, Any]) -> bool:
    """Whether an object is of one of these families."""
    return _family(raw) is not None


def _family(raw: Mapping[str, Any]) -> _Family | None:
    for family in _FAMILIES:
        found = [name in raw for name in (family.input, family.output)]
        if all(found) if family.every else any(found):
            return family
    return None


def read(raw: Any) -> Usage | None:
    """Read an object with the two counts.

    Returns:
        The usage, or None when it reports nothing.
    """
    return read_stream([mapping(raw)])


def read_stream(events: Sequence[Mapping[str, Any]]) -> Usage | None:
    """Read the events of a stream, or one answer alone: of each counter the most that any event says.

    Returns:
        The usage, or None when it reports nothing.
    """
    counts = Counts()
    reader: str | None = None
    most: dict[str, int] = {}
    kept: dict[str, Any] = {}  # without the answer's text, which may stand beside its counts
    for event in events:
        results = [mapping(item) for item in event["results"]] if isinstance(event.get("results"), list) else []
        family = next((found for found in map(_family, (event, *results)) if found is not None), None)
        if family is None:
            continue
        reader = reader or family.reader
        for bucket, key in (("input_uncached", family.input), ("output_text", family.output), *family.beside):
            of_result = family.result_output if bucket == "output_text" and family.result_output else key
            parts = [counts.read(item, of_result) or 0 for item in results]  # each result has its own
            most[bucket] = max(most.get(bucket, 0), counts.read(event, key) or 0, sum(parts))
            if most[bucket] or key in event:
                kept[key] = most[bucket] or event[key]
    if reader is None or not any(most.values()):
        return None
    for bucket, count in most.items():
        counts.put(bucket, count)
    return Usage(buckets=MappingProxyType(counts.buckets), reader=reader, raw=kept, flags=tuple(counts.flags))
