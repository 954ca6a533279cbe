"""Costs that a provider states: taken to the last digit with where they come from, or not at all."""

from __future__ import annotations

import pytest

from ai_budget_callbacks.money import INT64_MAX
from ai_budget_callbacks.pricing import Cost, Source
from ai_budget_callbacks.pricing.reported import reported_cost

XAI = Source(kind="reported", name="xAI cost_in_usd_ticks")
OPENROUTER = Source(kind="reported", name="OpenRouter usage.cost")
MOST_TICKS = 92_233_720_368_547_758  # a tick is 100 pico-dollars, and 2**63 - 1 of those are all there may be


def own(cost, upstream, *, key=True):
    """Usage of a call that ran on the user's own key."""
    return {"cost": cost, "is_byok": key, "cost_details": {"upstream_inference_cost": upstream}}


@pytest.mark.parametrize(
    ("provider", "raw", "pico", "source"),
    [
        ("x-ai", {"cost_in_usd_ticks": 1}, 100, XAI),
        ("x-ai", {"cost_in_usd_ticks": MOST_TICKS}, MOST_TICKS * 100, XAI),
        ("openrouter", {"cost": "0.1"}, 10**11, OPENROUTER),
        ("openrouter", {"cost": 0.1}, 10**11, OPENROUTER),
        ("openrouter", {"cost": "9223372.036854775807"}, INT64_MAX, OPENROUTER),
        ("openrouter", own("0.1", "0.5"), 6 * 10**11, OPENROUTER),
        ("openrouter", own(0, "0.5"), 5 * 10**11, OPENROUTER),  # no fee of OpenRouter's, and the provider's bill
        ("openrouter", own("0.1", None), 10**11, OPENROUTER),
        ("openrouter", own("0.1", "nonsense"), 10**11, OPENROUTER),
        ("openrouter", own("0.1", "0.5", key=False), 10**11, OPENROUTER),
        ("openrouter", {"cost": "0.1", "is_byok": True, "cost_details": None}, 10**11, OPENROUTER),
        ("openrouter", {"cost": "0.0000000000001"}, 1, OPENROUTER),  # finer than a pico-dollar: rounded up
    ],
)
def test_what_is_stated_is_taken(provider, raw, pico, source):
    assert reported_cost(provider, raw) == Cost(status="reported", pico=pico, source=source)


@pytest.mark.parametrize(
    ("provider", "raw"),
    [
        ("x-ai", {"cost_in_usd_ticks": 0}),
        ("x-ai", {"cost_in_usd_ticks": -1}),
        ("x-ai", {"cost_in_usd_ticks": MOST_TICKS + 1}),
        ("x-ai", {"cost_in_usd_ticks": True}),
        ("x-ai", {"cost_in_usd_ticks": "5"}),
        ("x-ai", {"cost": "0.1"}),
        ("openrouter", {"cost_in_usd_ticks": 5}),
        ("openrouter", {"cost": 0}),
        ("openrouter", {"cost": "-0.1"}),
        ("openrouter", {"cost": None, "is_byok": True, "cost_details": {"upstream_inference_cost": "0.5"}}),
        ("openrouter", {"cost": "9223372.036854775808"}),
        ("openrouter", {"cost": True}),
        ("openrouter", {"cost": ["0.1"]}),
        ("openrouter", {"cost": "nan"}),
        ("openrouter", None),
        ("x-ai", "cost_in_usd_ticks"),
        ("openai", {"cost": "0.1", "cost_in_usd_ticks": 5}),
    ],
)
def test_what_is_nonsense_or_not_stated_is_not(provider, raw):
    assert reported_cost(provider, raw) is None


@pytest.mark.parametrize(
    ("requested", "status"),
    [
        ("deepseek/deepseek-r1:free", "free"),
        ("openai/gpt-4o", None),
        (None, None),
        ("a/b:free:online", None),
        ("", None),
    ],
)
def test_a_stated_zero_is_taken_for_a_free_variant_alone(requested, status):
    source = Source(kind="reported", name="OpenRouter usage.cost", model=requested)
    free = Cost(status="free", pico=0, source=source, reason="OpenRouter charged 0 for its free variant")
    for zero in (0, 0.0, "0"):
        cost = reported_cost("openrouter", {"cost": zero}, requested=requested)
        assert cost == (free if status else None)
    assert reported_cost("x-ai", {"cost_in_usd_ticks": 0}, requested=requested) is None
