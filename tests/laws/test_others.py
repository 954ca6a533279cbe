"""Another model inside an answer (Anthropic's advisor): its own price, its own threshold, one sum."""

from __future__ import annotations

from typing import Any

import pytest

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import Price, PriceBook
from ai_budget_callbacks.usage import Usage, anthropic
from tests.support.goldens import NOW

SONNET, OPUS = "claude-sonnet-4-5", "claude-opus-4-6"  # 3 and 15 (from 200,001 input tokens 6 and 22.50); 5 and 25


def advised(given: int = 1_000, made: int = 100, *, by: str = OPUS, **said: Any) -> Usage:
    advice = {"type": "advisor_message", "model": by, "input_tokens": 2_000, "output_tokens": 30}
    return anthropic.read({"input_tokens": given, "output_tokens": made, "iterations": [advice], **said})


def price(found: Usage, prices: dict[str, Any] | None = None, model: str = SONNET):
    return PriceBook(prices).price(found, provider="anthropic", model=model, requested=model, at=NOW)


def test_advice_is_billed_at_the_advisors_price_and_its_lines_say_whose_they_are():
    cost = price(advised())
    # 1000 x 3 + 100 x 15 = 4500; 2000 x 5 + 30 x 25 = 10750
    assert (cost.status, usd_text(cost.pico)) == ("priced", "0.01525")
    assert [(line.bucket, line.count, line.model) for line in cost.lines] == [
        ("input_uncached", 1_000, None),
        ("output_text", 100, None),
        ("input_uncached", 2_000, OPUS),
        ("output_text", 30, OPUS),
    ]
    assert sum(line.amount_pico for line in cost.lines) == cost.pico
    assert cost.source.model == SONNET


@pytest.mark.parametrize("nobody", [{}, {"model": None}, {"model": ""}, {"model": 7}], ids=repr)
def test_advice_of_nobody_is_flagged_and_hides_nothing_behind_it(nobody):
    advice = {"type": "advisor_message", "input_tokens": 9, **nobody}
    compaction = {"type": "compaction", "input_tokens": 100, "output_tokens": 10}
    found = anthropic.read({"input_tokens": 5, "output_tokens": 6, "iterations": [advice, compaction]})
    assert (dict(found.buckets), found.others) == ({"input_uncached": 105, "output_text": 16}, ())
    assert found.flags == ("other_model", "compaction")


def test_each_model_has_its_own_threshold():
    # 199000 x 3 + 100 x 15; what the advisor read does not make the answer a long one
    assert usd_text(price(advised(199_000)).pico) == "0.60925"
    # 200001 x 6 + 100 x 22.50, and the advisor's own input is short
    assert usd_text(price(advised(200_001, by=SONNET)).pico) == "1.208706"


def test_conditions_of_sale_hold_for_both():
    # half of everything
    assert usd_text(price(advised(service_tier="batch")).pico) == "0.007625"
    cost = price(advised(inference_geo="us"), model=OPUS)
    # 1.1 x (1000 x 5 + 100 x 25 + 10750)
    assert usd_text(cost.pico) == "0.020075"


@pytest.mark.parametrize("unknown", ["claude-nobody", "12"])
def test_advice_without_a_price_makes_the_answer_unpriced_and_its_own_part_is_known(unknown):
    cost = price(advised(by=unknown))
    assert (cost.status, cost.pico, cost.part_pico) == ("unpriced", None, 4_500_000_000)
    assert unknown in cost.reason


def test_an_answer_without_a_price_keeps_what_its_advice_costs():
    cost = price(advised(), model="claude-nobody")
    assert (cost.status, cost.pico, cost.part_pico) == ("unpriced", None, 10_750_000_000)
    alone = price(advised(0, 0))
    assert (alone.status, alone.pico, alone.part_pico) == ("unpriced", None, 10_750_000_000)


@pytest.mark.parametrize(
    ("prices", "status", "usd"),
    [
        ({SONNET: "free"}, "priced", "0.01075"),
        ({OPUS: "free"}, "priced", "0.0045"),
        ({SONNET: "free", OPUS: "free"}, "free", "0"),
        ({OPUS: Price(input="1", output="1")}, "priced", "0.00653"),
        ({SONNET: Price(input="1", output="1")}, "priced", "0.01185"),
    ],
    ids=str,
)
def test_ones_own_price_of_either_holds(prices, status, usd):
    cost = price(advised(), prices)
    assert (cost.status, usd_text(cost.pico)) == (status, usd)
    assert (cost.reason is None) == (status == "priced")
