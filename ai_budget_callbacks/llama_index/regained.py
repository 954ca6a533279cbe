"""Usage where LlamaIndex's integrations keep it in a shape of their own.

Measured: llms-bedrock-converse 0.15.5, -cohere 0.9.0, -mistralai 0.11.0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ai_budget_callbacks.usage import Usage, bedrock, openai
from ai_budget_callbacks.usage._counts import mapping

__all__ = ["billed_units", "converse", "of_stream"]


def converse(answer: Any) -> Usage | None:
    """Usage of Bedrock's Converse: its input is without cached tokens, and its total has them."""
    source = mapping(answer)
    source = mapping(source.get("metadata")) or source  # the last event of a stream
    raw = mapping(source.get("usage"))
    usage = bedrock.read(dict(raw))
    tier = mapping(source.get("serviceTier")).get("type")
    if usage is None or not isinstance(tier, str):
        return usage
    return replace(usage, terms=replace(usage.terms, service_tier=tier))


def billed_units(answer: Any) -> Usage | None:
    """What Cohere bills: its integration keeps the client's object, or that object's fields, as `raw`."""
    answer = _field(answer, "response") or answer  # the last event of a stream
    units = _field(_field(answer, "meta"), "billed_units")
    counts = {name: _field(units, name) for name in ("input_tokens", "output_tokens")}
    usage = openai.read({name: count for name, count in counts.items() if count is not None})
    return usage and replace(usage, reader="cohere.billed_units/1")


def of_stream(raw: Any) -> Any:
    """What an event of a stream holds: Mistral's client puts the chunk into one."""
    data = _field(raw, "data")
    return data if _field(data, "choices") is not None else raw


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
