"""A provider's response body, bare usage object or stream of events as a `Usage`: which reader reads what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ai_budget_callbacks.usage import Usage, anthropic, google, openai
from ai_budget_callbacks.usage._counts import mapping

__all__ = ["PROVIDERS", "Body", "anthropic_shaped", "read_body", "read_usage"]

PROVIDERS = ("openai", "azure", "anthropic", "google")


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a body says.

    Attributes:
        usage: The usage, or None when it reports none.
        model: The model it names, or None.
    """

    usage: Usage | None
    model: str | None


def read_body(
    provider: str,
    body: Any,
    *,
    service_tier: str | None = None,
    batch: bool = False,
    geo: str | None = None,
    model: str | None = None,
) -> Body:
    """Read a response body, its usage object alone, or the list of a stream's events.

    Args:
        provider: One of `PROVIDERS`.
        body: Decoded JSON.
        service_tier: Tier where the body does not say it.
        batch: The call went through the batch API (no usage object says so at OpenAI).
        geo: Region where the body does not say it.
        model: Model to price by; the body's own word where it is None (Gemini's generations count searches apart).

    Raises:
        KeyError: No reader for that provider.
    """
    if provider not in PROVIDERS:
        raise KeyError(provider)
    if provider == "google":
        found = _read_google(body, model)
    else:
        found = _read_anthropic(body) if provider == "anthropic" else _read_openai(body)
    if found.usage is None:
        return found
    terms = found.usage.terms
    terms = replace(
        terms,
        service_tier=terms.service_tier or service_tier,
        batch=terms.batch or batch,
        inference_geo=geo or terms.inference_geo,
    )
    return replace(found, usage=replace(found.usage, terms=terms))


def read_usage(raw: Any, *, service_tier: str | None = None) -> Usage | None:
    """Read a usage object by its shape, where only a client's word says which family it is.

    Args:
        raw: The object.
        service_tier: The tier of the response it stands in.
    """
    source = mapping(raw)
    if google.shaped(source):
        return google.read(raw)
    if anthropic_shaped(source):
        return anthropic.read(raw)
    return openai.read(raw, service_tier=service_tier)


def anthropic_shaped(raw: Mapping[str, Any]) -> bool:
    """Whether a usage object is Anthropic's: OpenAI's Responses names its totals alike, and has details."""
    if "prompt_tokens" not in raw and ("cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw):
        return True
    return "input_tokens" in raw and not any(
        key in raw for key in ("input_tokens_details", "prompt_tokens", "total_tokens")
    )


def _read_anthropic(body: Any) -> Body:
    if isinstance(body, list):
        started = next((mapping(mapping(e).get("message")) for e in body if "message" in mapping(e)), mapping(None))
        return Body(usage=anthropic.read(anthropic.merge_stream(body)), model=_text(started.get("model")))
    source = mapping(body)
    raw = source.get("usage") if isinstance(source.get("usage"), Mapping) else source
    return Body(usage=anthropic.read(_public(raw)), model=_text(source.get("model")))


def _read_openai(body: Any) -> Body:
    if isinstance(body, list):
        # chat chunks carry `usage`, Responses events carry it in their `response`; the last one holds
        events = [mapping(mapping(e).get("response")) or mapping(e) for e in body]
        body = next((e for e in reversed(events) if isinstance(e.get("usage"), Mapping)), None)
        if body is None:
            return Body(usage=None, model=None)
    source = mapping(body)
    raw = source.get("usage") if isinstance(source.get("usage"), Mapping) else source
    usage = openai.read(_public(raw), service_tier=_text(source.get("service_tier")))
    items = source.get("output")
    if usage is not None and isinstance(items, list):
        usage = usage.with_units(openai.count_output_items(items))
    return Body(usage=usage, model=_text(source.get("model")))


def _read_google(body: Any, asked: str | None) -> Body:
    """A `generateContent` answer, or the list of a stream's: the last usage holds, and any of them may be grounded."""
    answers = [mapping(item) for item in (body if isinstance(body, list) else [body])]
    model = next((name for item in answers if (name := _text(item.get("modelVersion") or item.get("model")))), None)
    reported = [mapping(item.get("usageMetadata")) or item for item in answers]
    raw = next((found for found in reversed(reported) if google.shaped(found)), None)
    usage = google.read(_public(raw))
    if usage is not None:
        usage = usage.with_units(_grounding(answers, asked or model or ""))
    return Body(usage=usage, model=model)


def _grounding(answers: list[Mapping[str, Any]], model: str) -> dict[str, int]:
    """The most searches that any of an answer's chunks tells of: later chunks repeat what earlier ones said."""
    most: dict[str, int] = {}
    for answer in answers:
        candidates = answer.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            found = google.count_grounding(mapping(candidate).get("groundingMetadata"), model)
            most = max(most, found, key=lambda units: sum(units.values()))
    return most


def _public(raw: Any) -> Mapping[str, Any]:
    """Without keys that begin with an underscore: notes of whoever stored the object."""
    return MappingProxyType({key: value for key, value in mapping(raw).items() if not str(key).startswith("_")})


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
