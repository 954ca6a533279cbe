"""The card's arithmetic where no catalogue price goes: prices that do not terminate, exact products, every bucket."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import Price, PriceBook, Rate, RateCard, Source
from ai_budget_callbacks.pricing.card import Line, Tier, price_usage
from tests.support.goldens import NOW, usage

HERE = Source(kind="user", name="here", model="m")


def card(**rates: Rate) -> RateCard:
    return RateCard(rates=rates, source=HERE)


@pytest.mark.parametrize(
    ("count", "pico"),
    [
        (0, 0),
        (1, 333_333_333_334),
        (2, 666_666_666_667),
        (3, 1_000_000_000_000),
        # 1,000,000 and a third of a dollar; a float has no room for the last digits
        (3_000_001, 1_000_000_333_333_333_334),
    ],
)
def test_a_hold_at_a_price_that_does_not_terminate_is_rounded_up(count, pico):
    third = card(input_uncached=Rate(Decimal(1), 3))
    assert third.dearest(("input_uncached",), count, 0) == pico
    assert third.dearest(("input_uncached",), count, 0) == pico, "the second time it comes from the card's memory"


def test_a_hold_takes_the_dearest_bucket_and_every_tier_the_input_can_reach():
    tiered = Rate(Decimal(2), 1, (Tier(100, Decimal(4)), Tier(200, Decimal(3))))
    made = card(input_uncached=tiered, cache_write=Rate(Decimal("2.5"), 1))
    both = ("input_uncached", "cache_write")
    assert made.dearest(("input_uncached",), 7, 100) == 14 * 10**12
    assert made.dearest(both, 7, 100) == 17_500_000_000_000
    assert made.dearest(both, 7, 101) == 28 * 10**12
    assert made.dearest(both, 7, 201) == 28 * 10**12, "the tier in between is the dearest and may apply"
    assert made.dearest(("output_text",), 7, 201) == 0, "a bucket without a rate is left out"


def test_a_scaled_rate_is_the_exact_product_and_no_digit_longer():
    rate = Rate(Decimal("0.123456789012345678"), 1_000, (Tier(5, Decimal(10)), Tier(9, Decimal(5))))
    scaled = rate.scaled(Decimal("1.1"))
    # 0.123456789012345678 + 0.0123456789012345678
    assert str(scaled.usd) == "0.1358024679135802458"
    assert [(tier.above, str(tier.usd)) for tier in scaled.tiers] == [(5, "11"), (9, "5.5")]
    assert scaled.per == 1_000


def test_a_line_is_text_to_the_last_digit_and_says_only_what_it_has():
    plain = Line("input_uncached", 3, Decimal("1E-8"), 1_000_000, 5)
    told = {
        "bucket": "input_uncached",
        "count": 3,
        "unit_price_usd": "0.00000001",
        "per": 1_000_000,
        "amount_usd": "0.000000000005",
    }
    assert plain.to_dict() == told
    advised = plain._replace(model="claude-haiku-4-5", list_price_usd=Decimal("2E+1"))
    assert advised.to_dict() == {**told, "model": "claude-haiku-4-5", "list_price_usd": "20"}


def test_a_model_that_a_list_has_as_free_is_not_said_to_be_declared():
    listed = RateCard(rates={}, source=Source(kind="catalogue", name="a list", model="m"), free=True)
    assert price_usage(usage(input_uncached=1), listed).reason == "m is listed as free"


def test_a_free_cost_says_who_declared_it():
    made = PriceBook({"llama": "free"}).price(
        usage(input_uncached=1), provider="any", model="llama", requested=None, at=NOW
    )
    assert made.source == Source(kind="user", name="prices['llama']", model="llama", rule="declared", terms="free")


def test_a_card_without_a_name_still_says_what_it_lacks():
    nameless = RateCard(rates={}, source=Source(kind="user", name="here"))
    assert price_usage(usage(output_text=1), nameless).reason == "no price for output_text of the model"


@pytest.mark.parametrize(
    ("bucket", "pico"),
    [
        ("input_uncached", 1_000_000),
        ("input_tool", 1_000_000),
        ("input_image", 1_000_000),
        ("input_video", 1_000_000),
        ("cache_read", 3_000_000),
        ("cache_read_image", 3_000_000),
        ("cache_write", 4_000_000),
        ("cache_write_5m", 4_000_000),
        ("cache_write_1h", 4_000_000),
        ("output_text", 2_000_000),
        ("output_image", 2_000_000),
        ("output_citation", 2_000_000),
        ("output_reasoning", 2_000_000),
    ],
)
def test_each_bucket_of_a_price_of_ones_own_costs_what_its_kind_costs(bucket, pico):
    book = PriceBook({"mine": Price(input="1", output="2", cache_read="3", cache_write="4")})
    cost = book.price(usage(**{bucket: 1}), provider="any", model="mine", requested=None, at=NOW)
    assert (cost.status, cost.pico) == ("priced", pico)


@pytest.mark.parametrize(("field", "bucket"), [("web_search", "web_search"), ("request", "request_fee")])
def test_a_fee_that_is_no_amount_is_named(field, bucket):
    with pytest.raises(ConfigError, match=rf"^Price\({bucket}\) must be a decimal number such as '0\.50', not 'dear'"):
        Price(input="1", **{field: "dear"})


def test_the_fee_of_a_request_is_one_line_of_one():
    book = PriceBook({"mine": Price(input="1", request="0.25")})
    cost = book.price(usage(input_uncached=2), provider="any", model="mine", requested=None, at=NOW)
    assert [(line.bucket, line.count, line.amount_pico) for line in cost.lines] == [
        ("input_uncached", 2, 2_000_000),
        ("request_fee", 1, 250_000_000_000),
    ]


@pytest.mark.parametrize(
    ("buckets", "with_output", "without"),
    [
        ((), ("input", "output"), ("input",)),
        (("input_uncached",), ("output",), ()),
        (("output_text",), ("input",), ("input",)),
        (("input_uncached", "output_text"), (), ()),
        (("request_fee",), ("input", "output"), ("input",)),
    ],
)
def test_what_a_card_lacks_is_said(buckets, with_output, without):
    made = card(**dict.fromkeys(buckets, Rate(Decimal(1), 1)))
    assert (made.lacks(output=True), made.lacks(output=False)) == (with_output, without)


def test_a_free_card_lacks_nothing():
    assert RateCard(rates={}, source=HERE, free=True).lacks(output=True) == ()


def test_of_what_cannot_be_priced_whole_every_priced_part_counts():
    made = card(cache_read=Rate(Decimal("0.5"), 1), output_text=Rate(Decimal(2), 1), request_fee=Rate(Decimal(7), 1))
    # 4 x 0.50, 5 x 2 and the fee; the bucket in between has no rate
    cost = price_usage(usage(cache_read=4, input_uncached=3, output_text=5), made)
    assert (cost.status, cost.pico, cost.part_pico) == ("unpriced", None, 19 * 10**12)
    assert cost.reason == "no price for input_uncached of m"
