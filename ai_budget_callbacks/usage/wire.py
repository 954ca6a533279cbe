"""A provider's response body, bare usage object or stream of events as a `Usage`: which reader reads what.

The reader is chosen by the shape of the usage object, not by the provider's name: Bedrock, Google, Azure, DeepSeek and
Ollama answer in several formats each, and two dozen providers in OpenAI's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.usage import Usage, anthropic, bedrock, cohere, flat, google, openai, perplexity
from ai_budget_callbacks.usage._counts import mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Body", "anthropic_shaped", "read_body", "read_usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a body says.

    Attributes:
        usage: The usage, or None when it reports none.
        model: The model it names, or None.
    """

    usage: Usage | None
    model: str | None


def anthropic_shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object is Anthropic's: OpenAI's Responses names its totals alike, and has details."""
    if "prompt_tokens" in raw:
        return False
    if "cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw:
        return True
    return "input_tokens" in raw and not any(
        key in raw for key in ("input_tokens_details", "input_token_details", "total_tokens")
    )


def _openai_shaped(raw: Mapping[str, Any]) -> bool:
    names = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "seconds")
    return any(key in raw for key in names)


# Most particular first: each later shape would take an earlier one's objects for its own.
_FAMILIES: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Any], Usage | None]], ...] = (
    (flat.shaped, flat.read),
    (bedrock.shaped, bedrock.read),
    (cohere.shaped, cohere.read),
    (google.shaped, google.read),
    (anthropic_shaped, anthropic.read),
    (perplexity.shaped, perplexity.read),
    (_openai_shaped, openai.read),
)


def read_usage(raw: Any, *, service_tier: str | None = None) -> Usage | None:
    """Read a usage object by its shape, where only a client's word says which family it is.

    Args:
        raw: The object.
        service_tier: The tier of the response it stands in, where the object does not say one.

    Returns:
        The usage, or None when it reports nothing or is of no known family.
    """
    source = mapping(raw)
    for shaped, read in _FAMILIES:
        if shaped(source):
            usage = read(raw)
            if usage is None or service_tier is None or usage.terms.service_tier is not None:
                return usage
            return replace(usage, terms=replace(usage.terms, service_tier=service_tier))
    return None


def read_body(
    body: Any,
    *,
    headers: Mapping[str, Any] | None = None,
    service_tier: str | None = None,
    batch: bool = False,
    geo: str | None = None,
    model: str | None = None,
) -> Body:
    """Read a response body, its usage object alone, or the list of a stream's events.

    Args:
        body: Decoded JSON.
        headers: Response headers, by name: some of Bedrock's models have their usage there alone.
        service_tier: Tier where the body does not say it.
        batch: The call went through the batch API (no usage object says so at OpenAI).
        geo: Region where the body does not say it.
        model: Model to price by; the body's own word where it is None (Gemini's generations count searches apart).
    """
    answers = [mapping(item) for item in (body if isinstance(body, list) else [body])]
    usage, bearer = _usage(answers)
    named = _model(bearer) or next((name for answer in answers if (name := _model(answer))), None)
    usage = bedrock.completed(usage, headers)
    if usage is None:
        return Body(usage=None, model=named)
    terms = usage.terms
    said = next((tier for answer in reversed(answers) if (tier := _tier(answer)) and tier != "batch"), None)
    terms = replace(
        terms,
        service_tier=terms.service_tier or said or service_tier,
        batch=terms.batch or batch,
        speed=terms.speed or _latency(answers),
        inference_geo=geo or terms.inference_geo,
    )
    units = {**_items(answers), **_grounding(answers, model or named or "")}
    units = {name: count for name, count in units.items() if name not in usage.buckets}  # the usage may count them too
    return Body(usage=replace(usage.with_units(units), terms=terms), model=named)


def _usage(answers: Sequence[Mapping[str, Any]]) -> tuple[Usage | None, Mapping[str, Any]]:
    """The usage of one answer, and the event that reports it.

    A stream's counters are cumulative, so the last object that reports any holds; one of zeros only where no other
    reports more.
    """
    zeros: tuple[Usage | None, Mapping[str, Any]] = (None, mapping(None))
    for usage, answer in _reports(answers):
        if usage is not None and not usage.nothing:
            return usage, answer
        if usage is not None and zeros[0] is None:
            zeros = usage, answer
    return zeros


def _reports(answers: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Usage | None, Mapping[str, Any]]]:
    """What may be the usage of one answer, with the event that reports it, the surest first."""
    if any(answer.get("type") in {"message_start", "message_delta"} for answer in answers):
        yield anthropic.read(_public(anthropic.merge_stream(answers))), mapping(None)
    yield flat.read_stream(answers), mapping(None)
    for answer in reversed(answers):
        for found in _places(answer):
            yield read_usage(_public(found)), answer
        yield google.embedded(answer), answer


def _places(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Where an answer or an event may have its usage object, the surest place first."""
    for outer in ("", "response", "message", "metadata", "delta", "interaction", "x_groq"):
        holder = mapping(answer.get(outer)) if outer else answer
        for inner in ("usage", "usageMetadata", "meta", "amazon-bedrock-invocationMetrics"):
            if isinstance(holder.get(inner), Mapping):
                yield holder[inner]
    yield answer


def _latency(answers: Sequence[Mapping[str, Any]]) -> str | None:
    """The speed that a Bedrock answer was served at, which has its own price where it is no usual one."""
    for answer in reversed(answers):
        for holder in (answer, mapping(answer.get("metadata"))):
            latency = mapping(holder.get("performanceConfig")).get("latency")
            if isinstance(latency, str) and latency != "standard":
                return latency
    return None


def _items(answers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Billed tool calls among the output items of a Responses answer, whole or as the last event of a stream."""
    for answer in reversed(answers):
        for holder in (answer, mapping(answer.get("response"))):
            if isinstance(holder.get("output"), list) and "usage" in holder:
                return openai.count_output_items(holder["output"])
    return {}


def _grounding(answers: Sequence[Mapping[str, Any]], model: str) -> dict[str, int]:
    """The most searches that any of an answer's chunks tells of: later chunks repeat what earlier ones said."""
    most: dict[str, int] = {}
    for answer in answers:
        candidates = answer.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            found = google.count_grounding(mapping(candidate).get("groundingMetadata"), model)
            most = max(most, found, key=lambda units: sum(units.values()))
    return most


def _model(answer: Mapping[str, Any]) -> str | None:
    for holder in (answer, *(mapping(answer.get(name)) for name in ("response", "message", "interaction"))):
        for key in ("model", "modelVersion", "model_id", "model_version"):
            if isinstance(holder.get(key), str) and holder[key]:
                return str(holder[key])
    return None


def _tier(answer: Mapping[str, Any]) -> str | None:
    """The tier that an answer of OpenAI's family or an interaction states beside its usage."""
    for holder in (answer, *(mapping(answer.get(name)) for name in ("response", "interaction"))):
        tier = holder.get("service_tier")
        if isinstance(tier, str) and tier:
            return tier
    tier = mapping(answer.get("serviceTier")).get("type")  # Bedrock Converse
    return tier if isinstance(tier, str) and tier else None


def _public(raw: Any) -> Mapping[str, Any]:
    """Without keys that begin with an underscore: notes of whoever stored the object."""
    return MappingProxyType({key: value for key, value in mapping(raw).items() if not str(key).startswith("_")})
