"""Usage of answers that state two plain counts beside their text: Ollama, watsonx, Aleph Alpha, some on Bedrock.

Facts (recorded responses, corpus README): nothing of them is cached or reasoned in a counter of its own; a prompt that
Ollama had in memory is not read again and has no count; watsonx repeats counts in a stream, the prompt's in its first
event and the output's growing; Titan counts each of its results.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Usage
from ai_budget_callbacks.usage._counts import Counts, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["merge_stream", "read", "shaped"]


@dataclass(frozen=True, slots=True)
class _Family:
    reader: str
    input: str
    output: str
    every: bool = False  # both counts must be there: one of the names has another meaning elsewhere


_FAMILIES = (
    _Family("ollama/1", "prompt_eval_count", "eval_count"),
    _Family("watsonx/1", "input_token_count", "generated_token_count"),
    _Family("alephalpha/1", "num_tokens_prompt_total", "num_tokens_generated"),
    _Family("llama/1", "prompt_token_count", "generation_token_count", every=True),
    _Family("titan/1", "inputTextTokenCount", "totalOutputTextTokenCount"),
    _Family("bedrock-metrics/1", "inputTokenCount", "outputTokenCount"),
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


def merge_stream(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One object with the counts of a whole answer: of each counter the most that any event says.

    Args:
        events: Objects of a stream, or one answer alone; results inside of one are summed (watsonx, Titan).
    """
    most: dict[str, Any] = {}
    for event in events:
        found = _with_results(event)
        family = _family(found)
        for key in (family.input, family.output) if family is not None else ():
            value = found.get(key)
            if value is not None and (type(most.get(key)) is not int or type(value) is not int or value > most[key]):
                most[key] = value
    return most


def _with_results(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer with the counts of its results among its own."""
    results = [mapping(item) for item in event["results"]] if isinstance(event.get("results"), list) else []
    titan = [item["tokenCount"] for item in results if type(item.get("tokenCount")) is int]
    if "inputTextTokenCount" in event:
        return {"totalOutputTextTokenCount": sum(titan), **event} if titan else event
    if not any(key in item for item in results for key in ("input_token_count", "generated_token_count")):
        return event
    counts = Counts()
    for item in results:
        for key in ("input_token_count", "generated_token_count"):
            counts.put(key, counts.read(item, key))
    return {**event, **counts.buckets}


def read(raw: Any) -> Usage | None:
    """Read an object with the two counts.

    Returns:
        The usage, or None when it reports nothing.
    """
    source = mapping(raw)
    family = _family(source)
    if family is None:
        return None
    counts = Counts()
    counts.put("input_uncached", counts.read(source, family.input))
    counts.put("output_text", counts.read(source, family.output))
    if not counts.buckets:
        return None
    return Usage(
        buckets=MappingProxyType(counts.buckets),
        reader=family.reader,
        # the object holds the answer's text too
        raw={key: source[key] for key in (family.input, family.output) if key in source},
        flags=tuple(counts.flags),
    )
