"""The 53 published golden costs: the same buckets and the same cost to the last digit."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from typing import Any

import pytest

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import Cost, PriceBook
from ai_budget_callbacks.usage import Usage
from ai_budget_callbacks.usage.wire import read_body
from tests.support.goldens import shared

PICO = 10**12
CASES: list[dict[str, Any]] = json.loads(shared("facts/pricing_goldens.json").read_text(encoding="utf-8"))
each_case = pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
BOOK = PriceBook()
NOT_IN_USAGE = {  # what an answer of the case has beside its usage object, and no answer at all has of a cache's storage
    "openai-web-search-tool": {"web_search": 2},
    "gemini-grounded-prompt": {"grounded_request": 1},
    "gemini-cache-storage": {"cache_storage_token_hours": 50_000},  # 100,000 tokens for half an hour
}


def read(case: dict[str, Any]) -> Usage:
    context = case.get("price_context", {})
    batch = context.get("processing") == "batch"
    found = read_body(case["raw_usage"], service_tier=context.get("service_tier"), batch=batch, model=case["model"])
    units = NOT_IN_USAGE.get(case["id"], {})
    assert found.usage is not None or case["api"] == "cachedContents", f"{case['id']}: billed usage was read as absent"
    return (found.usage or Usage(buckets={})).with_units(units)


def price(case: dict[str, Any]) -> Cost:
    at = datetime.fromisoformat(case["request_time_utc"])
    provider, certain = BOOK.provider(None, case["provider"])
    assert certain
    return BOOK.price(read(case), provider=provider, model=case["model"], requested=case["model"], at=at)


def test_none_of_the_53_goldens_was_dropped():
    assert len(CASES) == 53
    assert len({case["id"] for case in CASES}) == 53


@each_case
def test_every_token_stands_in_the_bucket_it_is_billed_in(case):
    assert dict(read(case).buckets) == case["buckets"], case["note"]


@each_case
def test_cost_is_right_to_the_last_digit(case):
    cost = price(case)
    reported = "provider_reported_cost" in case
    assert (cost.status, cost.reason) == ("reported" if reported else "priced", None)
    assert usd_text(cost.pico) == case["expected_cost_usd"], case["note"]
    assert format(cost.usd, "f") == case["expected_cost_usd"], f"{case['id']}: USD text differs from the pico amount"


@each_case
def test_every_bucket_has_a_line_at_the_published_unit_price(case):
    at = datetime.fromisoformat(case["request_time_utc"])
    found = replace(read(case), raw=None)  # the table's price, also where the provider states the cost
    provider, _ = BOOK.provider(None, case["provider"])
    cost = BOOK.price(found, provider=provider, model=case["model"], requested=case["model"], at=at)
    assert usd_text(cost.pico) == case["expected_cost_usd"], "the provider's own figure and the table's differ"
    lines = {line.bucket: line for line in cost.lines}
    assert lines.keys() == case["unit_prices"].keys(), f"{case['id']}: a bucket is billed twice or not at all"
    uplift = case.get("multiplier", {"factor": "1", "buckets": []})
    for bucket, published in case["unit_prices"].items():
        factor = Fraction(uplift["factor"]) if bucket in uplift["buckets"] else Fraction(1)
        unit = Fraction(published["usd"]) / published["per"] * factor
        line = lines[bucket]
        assert Fraction(line.unit_price_usd) / line.per == unit, f"{case['id']}: wrong unit price for {bucket}"
        assert line.amount_pico == line.count * unit * PICO, f"{case['id']}: {bucket} is not count x unit price"
        assert line.count == case["buckets"][bucket]
