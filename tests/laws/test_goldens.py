"""27 published golden costs (OpenAI, Anthropic, Azure): the same buckets and the same cost to the last digit."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from typing import Any

import pytest

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import Cost, PriceBook
from ai_budget_callbacks.usage import Usage, anthropic, openai
from tests.support.goldens import shared

PICO = 10**12
CASES: list[dict[str, Any]] = [
    case
    for case in json.loads(shared("facts/pricing_goldens.json").read_text(encoding="utf-8"))
    if case["provider"] in {"openai", "anthropic", "azure"}
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])


def read(case: dict[str, Any]) -> Usage:
    raw, context = case["raw_usage"], case.get("price_context", {})
    if case["provider"] == "anthropic":
        found = anthropic.read(anthropic.merge_stream(raw) if isinstance(raw, list) else raw)
    else:
        found = openai.read(raw, service_tier=context.get("service_tier"))
    assert found is not None, f"{case['id']}: billed usage was read as absent"
    if context.get("processing") == "batch":
        found = replace(found, terms=replace(found.terms, batch=True))
    items = raw.get("_output_items", {}) if isinstance(raw, dict) else {}
    return found.with_units({name.removesuffix("_call"): count for name, count in items.items()})


def price(case: dict[str, Any]) -> Cost:
    at = datetime.fromisoformat(case["request_time_utc"])
    return PriceBook().price(read(case), provider=case["provider"], model=case["model"], requested=case["model"], at=at)


def test_none_of_the_27_goldens_was_dropped():
    assert len(CASES) == 27
    assert len({case["id"] for case in CASES}) == 27


@each_case
def test_every_token_stands_in_the_bucket_it_is_billed_in(case):
    assert dict(read(case).buckets) == case["buckets"], case["note"]


@each_case
def test_cost_is_right_to_the_last_digit(case):
    cost = price(case)
    assert (cost.status, cost.reason) == ("priced", None)
    assert usd_text(cost.pico) == case["expected_cost_usd"], case["note"]
    assert format(cost.usd, "f") == case["expected_cost_usd"], f"{case['id']}: USD text differs from the pico amount"


@each_case
def test_every_bucket_has_a_line_at_the_published_unit_price(case):
    lines = {line.bucket: line for line in price(case).lines}
    assert lines.keys() == case["unit_prices"].keys(), f"{case['id']}: a bucket is billed twice or not at all"
    uplift = case.get("multiplier", {"factor": "1", "buckets": []})
    for bucket, published in case["unit_prices"].items():
        factor = Fraction(uplift["factor"]) if bucket in uplift["buckets"] else Fraction(1)
        unit = Fraction(published["usd"]) / published["per"] * factor
        line = lines[bucket]
        assert Fraction(line.unit_price_usd) / line.per == unit, f"{case['id']}: wrong unit price for {bucket}"
        assert line.amount_pico == line.count * unit * PICO, f"{case['id']}: {bucket} is not count x unit price"
        assert line.count == case["buckets"][bucket]
