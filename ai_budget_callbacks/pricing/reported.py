"""Costs that the provider itself states in the usage object. They beat any table.

xAI: `cost_in_usd_ticks`, 1 USD = 10**10 ticks, tools included. OpenRouter: `cost` in USD, always present, plus
`cost_details.upstream_inference_cost` when the user's own key paid (`is_byok`) (facts/pricing.md 3.8, 3.10).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import INT64_MAX, PICO, exact_decimal
from ai_budget_callbacks.pricing.card import Cost, Source

__all__ = ["REPORTING", "reported_cost"]

REPORTING = frozenset({"x-ai", "openrouter"})  # providers that may state a cost

_TICKS_PER_USD = 10**10


def reported_cost(provider: str, raw: Any, *, requested: str | None = None) -> Cost | None:
    """The cost a raw usage object states, or None when it states none (or states nonsense).

    A stated 0 is taken only where the model that was asked for is one that OpenRouter lists as free (`…:free`).
    """
    if not isinstance(raw, Mapping):
        return None
    if provider == "x-ai":
        ticks = raw.get("cost_in_usd_ticks")
        if type(ticks) is int and 0 < ticks <= INT64_MAX // (PICO // _TICKS_PER_USD):
            return _reported(ticks * (PICO // _TICKS_PER_USD), "xAI cost_in_usd_ticks")
    if provider == "openrouter":
        pico = _usd(raw.get("cost"))
        details = raw.get("cost_details")
        if pico is not None and raw.get("is_byok") and isinstance(details, Mapping):
            pico += _usd(details.get("upstream_inference_cost")) or 0
        if pico and pico <= INT64_MAX:
            return _reported(pico, "OpenRouter usage.cost")
        if pico == 0 and requested is not None and requested.endswith(":free"):
            source = Source(kind="reported", name="OpenRouter usage.cost", model=requested)
            return Cost(status="free", pico=0, source=source, reason="OpenRouter charged 0 for its free variant")
    return None


def _reported(pico: int, name: str) -> Cost:
    return Cost(status="reported", pico=pico, source=Source(kind="reported", name=name))


def _usd(value: Any) -> int | None:
    """USD as stated, in pico-dollars rounded up. A JSON number that became a float is read by its repr."""
    try:
        number = exact_decimal(value, what="reported cost")
    except ConfigError:
        return None
    if number < 0:
        return None
    top, bottom = number.as_integer_ratio()
    return -(-top * PICO // bottom)
