"""Laws of the multiplication: exact, complete, monotone, and unpriced rather than wrong."""

from __future__ import annotations

import decimal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import INT64_MAX, usd_text
from ai_budget_callbacks.pricing import Cost, Price, PriceBook, Rate, RateCard, Source, Unpriced
from ai_budget_callbacks.pricing.card import price_usage
from ai_budget_callbacks.pricing.corrections import load
from ai_budget_callbacks.usage import BUCKETS, INPUT_BUCKETS, Other, Terms, Usage, anthropic, openai
from tests.support.goldens import NOW, by_hand, usage

PICO = 10**12
BOOK = PriceBook()

# Published unit prices, USD per million tokens (a thousand searches); pairs are below and above the threshold.
# facts/pricing.md 3, the goldens, and the providers' price pages as read on 2026-11-24.
GPT_4O = {
    "input_uncached": "2.50",
    "cache_read": "1.25",
    "cache_write": "2.50",  # free before GPT-5.6: a written token is an input token
    "output_text": "10",
    "output_reasoning": "10",
    "web_search": "10",
}
GPT_5_4 = {
    "input_uncached": ("2.50", "5"),
    "cache_read": ("0.25", "0.50"),
    "output_text": ("15", "22.50"),
    "output_reasoning": ("15", "22.50"),
    "web_search": "10",
}
GPT_5_6 = {
    "input_uncached": ("4", "8"),
    "cache_read": ("0.40", "0.80"),
    "cache_write": ("5", "10"),
    "output_text": ("20", "30"),
    "output_reasoning": ("20", "30"),
    "web_search": "10",
}
SONNET_4_5 = {
    "input_uncached": ("3", "6"),
    "cache_read": ("0.30", "0.60"),
    "cache_write_5m": ("3.75", "7.50"),
    "cache_write_1h": ("6", "12"),
    "output_text": ("15", "22.50"),
    "output_reasoning": ("15", "22.50"),
    "web_search": "10",
}
HAIKU_5_5 = {
    "input_uncached": ("0.10", "0.50"),
    "cache_read": ("0.01", "0.05"),
    "cache_write_5m": ("0.125", "0.625"),
    "cache_write_1h": ("0.20", "1"),
    "output_text": ("0.50", "2.50"),
    "output_reasoning": ("0.50", "2.50"),
    "web_search": "10",
}
MODELS: dict[tuple[str, str], tuple[dict[str, Any], int | None]] = {
    ("openai", "gpt-4o"): (GPT_4O, None),
    ("openai", "gpt-5.4"): (GPT_5_4, 272_000),
    ("openai", "gpt-5.6"): (GPT_5_6, 272_000),
    ("anthropic", "claude-sonnet-4-5"): (SONNET_4_5, 200_000),
    ("anthropic", "claude-haiku-5-5"): (HAIKU_5_5, 100_000),
}


def price(
    found: Usage, provider: str, model: str, *, book: PriceBook = BOOK, at: datetime = NOW, asked: str | None = None
) -> Cost:
    return book.price(found, provider=provider, model=model, requested=asked or model, at=at)


def usd(found: Usage, provider: str, model: str, **more: Any) -> str:
    cost = price(found, provider, model, **more)
    assert cost.status in {"priced", "reported"}, cost.reason
    return usd_text(cost.pico)


def refused(found: Usage, provider: str, model: str, **more: Any) -> str:
    """The reason why something has no price; fails when it got one."""
    cost = price(found, provider, model, **more)
    assert (cost.status, cost.pico, cost.usd, cost.lines) == ("unpriced", None, None, ())
    return cost.reason


def with_terms(found: Usage, **terms: Any) -> Usage:
    return replace(found, terms=Terms(**terms))


@st.composite
def priced_usages(draw: st.DrawFn) -> tuple[str, str, dict[str, int]]:
    """A model and counts in its buckets; input is drawn to both sides of every threshold."""
    (provider, model), (rates, _) = draw(st.sampled_from(sorted(MODELS.items(), key=str)))
    counts = st.one_of(st.just(0), st.integers(1, 400_000))
    buckets = {name: draw(counts) for name in rates}
    buckets["web_search"] = draw(st.integers(0, 20))
    buckets = {name: count for name, count in buckets.items() if count}
    return provider, model, buckets or {"output_text": 1}


# -- exactness


@settings(max_examples=300, deadline=None)
@given(priced_usages())
@example(("openai", "gpt-5.4", {"input_uncached": 272_000, "output_text": 1}))
@example(("openai", "gpt-5.4", {"input_uncached": 271_999, "cache_read": 2, "output_text": 1}))
@example(("anthropic", "claude-sonnet-4-5", {"cache_write_1h": 200_001}))
def test_cost_is_counts_times_published_prices(drawn):
    provider, model, buckets = drawn
    rates, above = MODELS[provider, model]
    cost = price(usage(**buckets), provider, model)
    assert cost.pico == by_hand(buckets, rates, above=above), "not count x published unit price"
    assert sum(line.amount_pico for line in cost.lines) == cost.pico, "the lines do not add up to the cost"
    assert {line.bucket: line.count for line in cost.lines} == buckets, "a bucket is billed twice or not at all"


def in_tier(model: tuple[str, str], buckets: dict[str, int]) -> bool:
    above = MODELS[model][1]
    return above is None or sum(buckets.get(name, 0) for name in INPUT_BUCKETS) <= above


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.data())
def test_cost_is_linear_in_every_bucket_inside_one_tier(model, data):
    bucket = data.draw(st.sampled_from(sorted(MODELS[model][0])))
    base = {"input_uncached": 11, "output_text": 7}
    step, times = data.draw(st.integers(1, 900)), data.draw(st.integers(2, 100))
    more, most = dict(base), dict(base)
    more[bucket] = base.get(bucket, 0) + step
    most[bucket] = base.get(bucket, 0) + step * times
    assert in_tier(model, most)
    costs = [price(usage(**buckets), *model).pico for buckets in (base, more, most)]
    assert costs[2] - costs[0] == times * (costs[1] - costs[0]), f"{bucket} is not billed in proportion"
    assert costs[1] > costs[0], f"{bucket} is billed at nothing"


@settings(max_examples=200, deadline=None)
@given(priced_usages(), st.data())
def test_more_of_anything_never_costs_less_not_even_across_a_tier(drawn, data):
    provider, model, buckets = drawn
    more = dict(buckets)
    bucket = data.draw(st.sampled_from(sorted(MODELS[provider, model][0])))
    more[bucket] = more.get(bucket, 0) + data.draw(st.integers(1, 300_000))
    assert price(usage(**more), provider, model).pico > price(usage(**buckets), provider, model).pico


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["gpt-4o", "gpt-5.4"]),
    st.integers(0, 300_000),
    st.integers(1, 20_000),
    st.integers(),
    st.integers(),
)
def test_details_that_get_lost_never_make_a_call_cheaper(model, prompt, completion, cached, reasoning):
    bare = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    detailed = {
        **bare,
        "prompt_tokens_details": {"cached_tokens": cached % (prompt + 1)},
        "completion_tokens_details": {"reasoning_tokens": reasoning % (completion + 1)},
    }
    rates, above = MODELS["openai", model]
    bare_pico = price(openai.read(bare), "openai", model).pico
    flat = {"input_uncached": prompt, "output_text": completion}
    assert bare_pico == by_hand(flat, rates, above=above), "absent details: all input uncached, all output text"
    assert price(openai.read(detailed), "openai", model).pico <= bare_pico


def test_the_threshold_counts_all_input_and_moves_the_whole_request():
    # 272,000 is still short: 272000 x 2.50 + 1000 x 15 = 680000 + 15000
    assert usd(usage(input_uncached=272_000, output_text=1_000), "openai", "gpt-5.4") == "0.695"
    # one cached token more: 272000 x 5 + 1 x 0.50 + 1000 x 22.50 = 1360000 + 0.5 + 22500
    long = usage(input_uncached=272_000, cache_read=1, output_text=1_000)
    assert usd(long, "openai", "gpt-5.4") == "1.3825005"
    # output does not count towards it: 10 x 2.50 + 300000 x 15
    assert usd(usage(input_uncached=10, output_text=300_000), "openai", "gpt-5.4") == "4.500025"
    # written tokens do: 10 x 6 + 200000 x 7.50 + 1 x 22.50
    written = usage(input_uncached=10, cache_write_5m=200_000, output_text=1)
    assert usd(written, "anthropic", "claude-sonnet-4-5") == "1.5000825"


@pytest.mark.parametrize("rounding", [decimal.ROUND_UP, decimal.ROUND_DOWN, decimal.ROUND_HALF_EVEN])
def test_the_callers_decimal_context_changes_nothing(rounding):
    with decimal.localcontext() as context:
        context.prec, context.rounding = 3, rounding
        for trap in (decimal.Inexact, decimal.Rounded, decimal.FloatOperation):
            context.traps[trap] = True
        book = PriceBook({"mine": Price(input="0.123456", output="0.987654")})
        # 111111 x 2.50 + 2006 x 1.25 + 3333 x 10 = 277777.5 + 2507.5 + 33330
        found = usage(input_uncached=111_111, cache_read=2_006, output_text=3_333)
        cost = price(found, "openai", "gpt-4o", book=book)
        # 1000001 x 0.123456 + 1 x 0.987654
        own = price(usage(input_uncached=1_000_001, output_text=1), "openai", "mine", book=book)
        stated = price(openai.read({"prompt_tokens": 1, "cost": 0.000123456789}), "openrouter", "any", book=book)
        texts = [format(each.usd, "f") for each in (cost, own, stated)]
    assert texts == ["0.313615", "0.12345711111", "0.000123456789"]


@pytest.mark.parametrize("precision", [1, 2, 3])
def test_the_callers_decimal_context_does_not_poison_a_regional_card(precision):
    book = PriceBook()
    found = with_terms(usage(input_uncached=1, cache_write_5m=1_000_000), inference_geo="us")
    with decimal.localcontext() as context:
        context.prec = precision
        price(found, "anthropic", "claude-opus-4-6", book=book)
    # 1 x 5.50 + 1000000 x 6.875, also long after the caller's context is gone
    assert usd(found, "anthropic", "claude-opus-4-6", book=book) == "6.8750055"


def test_no_float_stands_between_a_count_and_a_cost():
    book = PriceBook({"mine": Price(input=0.15, output=0.6, request=0.01)})
    found = usage(input_uncached=7, cache_read=5, output_text=3)
    cards = [BOOK.card(*model, Terms(), NOW) for model in MODELS] + [book.own("openai", "mine")]
    for card in cards:
        for rate in card.rates.values():
            assert type(rate.usd) is Decimal
            assert type(rate.per) is int
            assert {type(tier.usd) for tier in rate.tiers} <= {Decimal}
    for cost in (price(found, "openai", "gpt-4o"), price(found, "openai", "mine", book=book)):
        assert type(cost.pico) is int
        assert type(cost.usd) is Decimal
        for line in cost.lines:
            kinds = (type(line.count), type(line.unit_price_usd), type(line.per), type(line.amount_pico))
            assert kinds == (int, Decimal, int, int)


PRICES = st.decimals(min_value=Decimal("0.0000001"), max_value=Decimal(1_000), places=7)


@settings(max_examples=300, deadline=None)
@given(PRICES, PRICES, st.sampled_from([1, 3, 7, 3_600, 1_000, 999_999, 1_000_000]), st.data())
def test_a_price_that_does_not_terminate_rounds_each_line_up_by_less_than_one_pico(dollars, other, per, data):
    counts = {name: data.draw(st.integers(1, 10**7)) for name in ("input_uncached", "output_text")}
    book = PriceBook({"mine": Price(input=dollars, output=other, per=per)})
    cost = price(usage(**counts), "any", "mine", book=book)
    assert len(cost.lines) == 2
    for line, stated in zip(cost.lines, (dollars, other), strict=True):
        exact = line.count * Fraction(stated) * PICO / per
        assert 0 <= line.amount_pico - exact < 1, "a line is rounded down, or up by a whole pico-dollar"


def test_one_third_of_a_dollar_is_rounded_up_and_never_drops_a_pico():
    book = PriceBook({"mine": Price(input="1", output="1", per=3)})
    assert usd(usage(input_uncached=1), "any", "mine", book=book) == "0.333333333334"
    assert usd(usage(input_uncached=3), "any", "mine", book=book) == "1"
    assert usd(usage(input_uncached=1, output_text=1), "any", "mine", book=book) == "0.666666666668"


# -- completeness: unpriced rather than wrong


@pytest.mark.parametrize(
    ("provider", "model", "buckets", "named"),
    [
        ("openai", "gpt-4o", {"input_uncached": 600, "input_audio": 400}, "input_audio"),
        ("openai", "gpt-4o", {"output_text": 60, "output_audio": 40}, "output_audio"),
        ("openai", "gpt-4o", {"cache_read": 5, "cache_read_audio": 5}, "cache_read_audio"),
        ("openai", "gpt-4o", {"input_uncached": 5, "input_image": 5}, "input_image"),
        ("anthropic", "claude-sonnet-4-5", {"input_uncached": 5, "code_execution": 1}, "code_execution"),
        ("openai", "text-embedding-3-small", {"input_uncached": 8, "output_text": 1}, "output_text"),
        ("openai", "text-embedding-3-small", {"input_uncached": 8, "output_reasoning": 1}, "output_reasoning"),
        ("openai", "text-embedding-3-small", {"input_uncached": 8, "web_search": 1}, "web_search"),
        ("anthropic", "claude-sonnet-4-5", {"input_uncached": 8, "file_search": 1}, "file_search"),
    ],
)
def test_a_bucket_without_a_price_is_unpriced_and_never_billed_at_its_parents_rate(provider, model, buckets, named):
    assert refused(usage(**buckets), provider, model) == f"no price for {named} of {model}"


def test_a_usage_of_nothing_is_unpriced_not_free():
    assert refused(usage(), "openai", "gpt-4o") == "the usage has no counts"


def test_a_usage_with_another_models_tokens_in_it_is_unpriced():
    found = anthropic.read(
        {"input_tokens": 5, "output_tokens": 6, "iterations": [{"type": "advisor_message", "input_tokens": 2529}]}
    )
    reason = "part of the usage belongs to another model without a price"
    assert refused(found, "anthropic", "claude-sonnet-4-5") == reason


@cache
def catalogue_cards() -> list[tuple[str, str, RateCard]]:
    from genai_prices.data import providers  # only for the names

    names = [(provider.id, model.id) for provider in providers for model in provider.models]
    found = [(*name, BOOK.card(*name, Terms(), NOW)) for name in names]
    return [item for item in found if isinstance(item[2], RateCard)]


def test_no_bucket_of_any_priced_model_in_the_catalogue_costs_nothing():
    cards = catalogue_cards()
    assert len(cards) > 1_500
    assert {(provider, model.rpartition(":")[2]) for provider, model, card in cards if card.free} == {
        ("openrouter", "free")
    }
    for provider, model, card in cards:
        if card.free:  # its seller lists it so, and the reason says it
            continue
        for bucket in BUCKETS:
            cost = price_usage(usage(**{bucket: 1}), card)
            worth = cost.pico is None if cost.status == "unpriced" else cost.pico > 0
            assert worth, f"one {bucket} of {provider}/{model} costs {cost.status} {cost.pico}"


STANDARD = {"input_uncached": 1_000, "output_text": 100}


@pytest.mark.parametrize("tier", ["scale", "Scale", "reserved", "", "turbo"])
def test_an_unknown_service_tier_is_unpriced_not_standard(tier):
    assert "gpt-5 at service_tier=" in refused(with_terms(usage(**STANDARD), service_tier=tier), "openai", "gpt-5")


@pytest.mark.parametrize("tier", [None, "default", "standard", "auto", "DEFAULT"])
def test_the_standard_tiers_cost_the_standard_price(tier):
    # 1000 x 1.25 + 100 x 10
    assert usd(with_terms(usage(**STANDARD), service_tier=tier), "openai", "gpt-5") == "0.00225"


@pytest.mark.parametrize(
    ("tier", "expected"),
    [("priority", "0.0045"), ("PRIORITY", "0.0045"), ("flex", "0.001125")],  # 2.50/20 and 0.625/5
)
def test_a_service_tier_costs_its_own_price(tier, expected):
    assert usd(with_terms(usage(**STANDARD), service_tier=tier), "openai", "gpt-5") == expected


def test_a_tier_before_its_first_known_price_is_unpriced_not_standard():
    found = with_terms(usage(**STANDARD), service_tier="priority")
    before, since = datetime(2026, 10, 11, 23, 59, tzinfo=UTC), datetime(2026, 10, 12, tzinfo=UTC)
    assert "at service_tier=priority" in refused(found, "openai", "gpt-5", at=before)
    assert usd(found, "openai", "gpt-5", at=since) == "0.0045"


def test_the_price_of_the_day_of_the_call_holds():
    # o3 fell from 10/40 to 2/8 on 2025-06-10
    found = usage(input_uncached=1_000, output_text=100)
    assert usd(found, "openai", "o3", at=datetime(2025, 6, 1, tzinfo=UTC)) == "0.014"
    assert usd(found, "openai", "o3") == "0.0028"


def test_a_batch_price_without_a_cached_rate_does_not_borrow_the_standard_one():
    # gpt-4.1-nano in batches: 0.05/0.20, no cached rate published
    assert usd(with_terms(usage(**STANDARD), batch=True), "openai", "gpt-4.1-nano") == "0.00007"
    cached = with_terms(usage(input_uncached=10, cache_read=10), batch=True)
    assert refused(cached, "openai", "gpt-4.1-nano") == "no price for cache_read of gpt-4.1-nano"


def test_conditions_nobody_prices_together_are_unpriced():
    both = with_terms(usage(**STANDARD), batch=True, service_tier="flex")
    assert refused(both, "openai", "gpt-5").startswith("no price known for the combination")
    assert "speed=fast" in refused(with_terms(usage(**STANDARD), speed="fast"), "openai", "gpt-4o")


@pytest.mark.parametrize(
    "terms",
    [{"service_tier": "priority"}, {"service_tier": "flex"}, {"batch": True}, {"speed": "fast"}],
    ids=str,
)
def test_azure_does_not_inherit_openais_tiers(terms):
    assert "has no price for gpt-4o at" in refused(with_terms(usage(**STANDARD), **terms), "azure", "gpt-4o")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("groq", "gpt-4o"),
        ("openai", "claude-sonnet-4-5"),
        ("anthropic", "gpt-4o"),
        ("openai", "no-such-model"),
        ("nobody", "gpt-4o"),
        ("", "gpt-4o"),
    ],
)
def test_a_model_known_only_under_another_provider_is_unpriced(provider, model):
    reason = refused(usage(**STANDARD), provider, model)
    assert reason == f"genai-prices 0.2.3 does not know {model!r} of provider {provider!r}"
    assert isinstance(BOOK.card(provider, model, Terms(), NOW), Unpriced)
    assert BOOK.resolved(provider, model, NOW) is None


# -- a price of one's own


MINE = {"mine": Price(input="0.15", output="0.60")}


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({"input_uncached": 1_000_000, "output_text": 1_000_000}, "0.75"),
        ({"cache_read": 1_000_000}, "0.15"),  # not given: cached input costs what input costs
        ({"cache_write": 1_000_000}, "0.15"),
        ({"cache_write_5m": 1_000_000}, "0.15"),
        ({"cache_write_1h": 1_000_000}, "0.15"),
        ({"input_image": 1_000_000}, "0.15"),
        ({"input_tool": 1_000_000}, "0.15"),
        ({"output_reasoning": 1_000_000}, "0.6"),
        ({"output_image": 1_000_000}, "0.6"),
    ],
)
def test_what_a_price_of_ones_own_leaves_out_costs_what_its_parent_costs(buckets, expected):
    assert usd(usage(**buckets), "any", "mine", book=PriceBook(MINE)) == expected


@pytest.mark.parametrize("bucket", ["input_audio", "output_audio", "cache_read_audio", "web_search", "file_search"])
def test_audio_and_fees_are_never_derived_from_a_price_of_ones_own(bucket):
    found = usage(input_uncached=1, **{bucket: 1})
    assert refused(found, "any", "mine", book=PriceBook(MINE)) == f"no price for {bucket} of mine"


def test_every_part_of_a_price_of_ones_own_is_used():
    own = Price(
        input="1",
        output="2",
        cache_read="3",
        cache_write="4",
        cache_write_1h="5",
        reasoning="6",
        input_audio="7",
        output_audio="8",
        web_search="0.5",
        request="0.25",
        per=1_000,
    )
    found = usage(
        input_uncached=1,
        output_text=1,
        cache_read=1,
        cache_write=1,
        cache_write_5m=1,
        cache_write_1h=1,
        output_reasoning=1,
        input_audio=1,
        output_audio=1,
        web_search=2,
    )
    # (1 + 2 + 3 + 4 + 4 + 5 + 6 + 7 + 8) / 1000 + 2 x 0.5 + 0.25
    cost = price(found, "any", "mine", book=PriceBook({"mine": own}))
    assert usd_text(cost.pico) == "1.29"
    assert [line.amount_pico for line in cost.lines if line.bucket == "request_fee"] == [PICO // 4]


def test_an_embedding_price_of_ones_own_does_not_price_output():
    book = PriceBook({"embed": Price(input="0.02")})
    assert usd(usage(input_uncached=8), "any", "embed", book=book) == "0.00000016"
    assert (
        refused(usage(input_uncached=8, output_text=1), "any", "embed", book=book)
        == "no price for output_text of embed"
    )


def test_ones_own_price_beats_the_catalogue_and_the_provider_and_is_found_by_the_requested_name():
    book = PriceBook({"GPT-4o": Price(input="1", output="1"), "azure/prod": Price(input="2", output="2")})
    assert usd(usage(input_uncached=1_000_000), "openai", "gpt-4o", book=book) == "1"
    assert usd(usage(input_uncached=1_000_000), "openai", "gpt-4o-2024-08-06", asked="gpt-4o", book=book) == "1"
    assert usd(usage(input_uncached=1_000_000), "azure", "prod", book=book) == "2"
    assert "does not know 'prod'" in refused(usage(input_uncached=1_000_000), "openai", "prod", book=book)
    stated = openai.read({"prompt_tokens": 1_000_000, "cost": 9.0})
    assert usd(stated, "openrouter", "x", asked="gpt-4o", book=book) == "1"


def test_a_price_declared_for_one_provider_keeps_the_models_own_name():
    book = PriceBook({"openai/my-model": Price(input="1", output="1")})
    assert book.resolved("openai", "my-model", NOW) == "my-model"


@pytest.mark.parametrize("kind", ["tool", "retriever", "reranker"])
def test_the_price_of_one_use_is_no_models_price(kind):
    book = PriceBook({f"{kind}/Search": Price(request="0.008"), f"{kind}": Price(input="1")})
    card = book.fee(kind, "Search")
    assert (dict(card.rates), card.free, dict(card.inherits)) == ({"request_fee": Rate(Decimal("0.008"), 1)}, False, {})
    assert card.source == Source(kind="user", name=f"prices['{kind}/Search']", model="Search", rule="declared")
    assert usd(usage(request_fee=1), kind, "Search", book=book) == "0.008"
    assert book.fee(kind, "search") is book.fee("charge", "Search") is book.own(kind, "Search") is None
    assert book.own("openai", f"{kind}/Search") is None
    assert price(usage(input_uncached=1), kind, "Search", book=book).status == "unpriced"
    assert book.own("openai", kind) is not None, "a model may be called like that"


@pytest.mark.parametrize(
    "value", ["free", Price(input="1"), Price(input="1", request="0"), None, "0.008"], ids=lambda v: str(v)[:40]
)
def test_the_price_of_one_use_is_an_amount(value):
    with pytest.raises(ConfigError) as caught:
        PriceBook({"tool/search": value})
    assert caught.value.message == (
        f"prices['tool/search'] must be what one use costs: Price(request=\"0.008\"), not {value!r}."
    )


def test_a_price_of_one_use_names_nothing_else_and_what_it_would_never_bill_is_refused():
    book = PriceBook({"tool/search": Price(request="0.5")})
    assert dict(book.fee("tool", "search").rates) == {"request_fee": Rate(Decimal("0.5"), 1)}
    with pytest.raises(ConfigError, match="what one use costs"):
        PriceBook({"tool/search": Price(input="1", output="2", request="0.5")})


def test_free_is_a_value_with_a_reason_and_covers_every_bucket():
    cost = price(usage(**dict.fromkeys(BUCKETS, 1)), "any", "llama", book=PriceBook({"llama": "free"}))
    assert (cost.status, cost.pico, cost.reason) == ("free", 0, "declared free")


@pytest.mark.parametrize("word", ["Free", "", 0, "0.15", None, ("0.15", "0.60")], ids=repr)
def test_anything_but_a_price_or_free_is_refused(word):
    with pytest.raises(ConfigError) as caught:
        PriceBook({"mine": word})
    assert caught.value.message == (
        f'prices[\'mine\'] must be a Price(…), a SameAs("provider/model") or "free", not {word!r}.'
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"input": "0", "output": "0"},
            'All amounts of this Price are 0. A model that costs nothing is declared "free".',
        ),
        ({"input": 0}, 'All amounts of this Price are 0. A model that costs nothing is declared "free".'),
        ({"input": "-1", "output": "1"}, "Price(…) amounts must not be negative."),
        ({"input": "1", "output": "1", "request": "-0.1"}, "Price(…) amounts must not be negative."),
        ({"input": "NaN"}, "Price(input_uncached) must be a finite amount, not 'NaN'."),
        ({"input": float("inf")}, "Price(input_uncached) must be a finite amount, not inf."),
        ({"input": "cheap"}, "Price(input_uncached) must be a decimal number such as '0.50', not 'cheap'."),
        ({"input": True}, "Price(input_uncached) must be a decimal string, Decimal or int, not bool."),
        ({"input": "1", "per": 0}, "Price(per=…) must be a positive int, not 0."),
        ({"input": "1", "per": True}, "Price(per=…) must be a positive int, not True."),
        ({"input": "1", "per": 1e6}, "Price(per=…) must be a positive int, not 1000000.0."),
    ],
    ids=str,
)
def test_a_price_that_would_bill_nonsense_is_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        Price(**arguments)
    assert caught.value.message == message


# -- what the provider itself states


@pytest.mark.parametrize(
    ("provider", "raw", "expected"),
    [
        ("openrouter", {"prompt_tokens": 194, "completion_tokens": 2, "cost": 0.00014}, "0.00014"),
        ("openrouter", {"prompt_tokens": 1, "cost": "0.000505"}, "0.000505"),
        ("openrouter", {"prompt_tokens": 1, "cost": Decimal("0.1")}, "0.1"),
        ("openrouter", {"prompt_tokens": 1, "cost": 1}, "1"),
        # the user's own key paid upstream: both
        (
            "openrouter",
            {"prompt_tokens": 1, "cost": 0.00014, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.001}},
            "0.00114",
        ),
        (
            "openrouter",
            {"prompt_tokens": 1, "cost": 0.00014, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.001}},
            "0.00014",
        ),
        # finer than a pico-dollar: up, never to 0
        ("openrouter", {"prompt_tokens": 1, "cost": 1e-13}, "0.000000000001"),
        ("x-ai", {"prompt_tokens": 10120, "completion_tokens": 1499, "cost_in_usd_ticks": 232856000}, "0.0232856"),
        ("x-ai", {"prompt_tokens": 1, "cost_in_usd_ticks": 1}, "0.0000000001"),
    ],
    ids=str,
)
def test_a_cost_the_provider_states_is_taken_to_the_last_digit(provider, raw, expected):
    cost = price(openai.read(raw), provider, "whatever")
    assert (cost.status, usd_text(cost.pico)) == ("reported", expected)


@pytest.mark.parametrize(
    "nonsense", [None, 0, 0.0, -1, -0.5, True, "much", "NaN", float("nan"), float("inf"), {}, [1]], ids=repr
)
def test_a_stated_cost_that_is_none_falls_back_to_the_table(nonsense):
    found = openai.read({"prompt_tokens": 1_000, "completion_tokens": 100, "cost": nonsense})
    cost = price(found, "openrouter", "openai/gpt-4o")
    assert (cost.status, usd_text(cost.pico)) == ("priced", "0.0035")  # 1000 x 2.50 + 100 x 10


@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_a_cost_field_of_a_provider_that_states_none_is_ignored(provider):
    raw = {"prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0.0000001, "cost_in_usd_ticks": 1}
    assert usd(openai.read(raw), provider, "gpt-4o") == "0.0035"


@pytest.mark.parametrize(
    ("provider", "raw"), [("openrouter", {"cost": 1e30}), ("x-ai", {"cost_in_usd_ticks": 10**30})], ids=str
)
def test_a_stated_cost_beyond_every_balance_is_nonsense_and_not_booked(provider, raw):
    cost = price(openai.read({"prompt_tokens": 10, "completion_tokens": 5, **raw}), provider, "whatever")
    assert cost.pico is None or cost.pico <= INT64_MAX


# -- corrections of ours to the catalogue


@pytest.mark.parametrize(
    ("geo", "expected"),
    [
        ("us", "0.00825"),  # 1000 x 5.50 + 100 x 27.50
        ("global", "0.0075"),  # 1000 x 5 + 100 x 25
        ("not_available", "0.0075"),
        (None, "0.0075"),
    ],
)
def test_us_only_inference_costs_a_tenth_more(geo, expected):
    assert usd(with_terms(usage(**STANDARD), inference_geo=geo), "anthropic", "claude-opus-4-6") == expected


def test_us_only_inference_raises_every_token_price_and_no_fee():
    found = usage(
        input_uncached=1_000_000,
        cache_read=1_000_000,
        cache_write_5m=1_000_000,
        cache_write_1h=1_000_000,
        output_text=1_000_000,
        output_reasoning=1_000_000,
        web_search=1_000,
    )
    # 5.50 + 0.55 + 6.875 + 11 + 27.50 + 27.50, and 10 for a thousand searches
    assert usd(with_terms(found, inference_geo="us"), "anthropic", "claude-opus-4-6") == "88.925"
    # in batches half of the token prices: 2.75 + 13.75
    batch = usage(input_uncached=1_000_000, output_text=1_000_000)
    assert usd(with_terms(batch, inference_geo="us", batch=True), "anthropic", "claude-opus-4-6") == "16.5"


@pytest.mark.parametrize(
    ("geo", "model"), [("eu", "claude-opus-4-6"), ("us", "claude-sonnet-4-5"), ("us", "claude-3-haiku")]
)
def test_a_region_nobody_prices_is_unpriced(geo, model):
    reason = refused(with_terms(usage(**STANDARD), inference_geo=geo), "anthropic", model)
    assert reason.startswith(f"no price known for inference_geo={geo!r} of ")


CORRECTED = {
    # 600 x 2.50 + 400 x 40 + 60 x 10 + 40 x 80
    "openai-audio-preview": (
        "openai",
        "gpt-4o-audio-preview",
        usage(input_uncached=600, input_audio=400, output_text=60, output_audio=40),
        "0.0213",
    ),
    # 10 x 5 + 40 x 10 + 4160 x 40
    "openai-gpt-image-1": (
        "openai",
        "gpt-image-1",
        usage(input_uncached=10, input_image=40, output_image=4_160),
        "0.16685",
    ),
    # 10 x 2 + 1000 x 8
    "openai-gpt-image-1-mini": (
        "openai",
        "gpt-image-1-mini",
        usage(input_uncached=10, output_image=1_000),
        "0.00802",
    ),
    # 10 x 5 + 40 x 8 + 1000 x 30
    "openai-gpt-image-2": (
        "openai",
        "gpt-image-2",
        usage(input_uncached=10, input_image=40, output_image=1_000),
        "0.03037",
    ),
    # 1000 x 0.10 + 100 x 0.40, and 3 searches at 10 a thousand
    "openai-web-search-fee": (
        "openai",
        "gpt-4.1-nano",
        usage(input_uncached=1_000, output_text=100, web_search=3),
        "0.03014",
    ),
    # 1000 x 0.30 + 100 x 2.50, and 3 grounded prompts at 35 a thousand
    "gemini-2-grounding-fee": (
        "google",
        "gemini-2.5-flash",
        usage(input_uncached=1_000, output_text=100, grounded_request=3),
        "0.10555",
    ),
    "anthropic-us-inference": (
        "anthropic",
        "claude-opus-4-6",
        with_terms(usage(input_uncached=1_000, output_text=100), inference_geo="us"),
        "0.00825",
    ),
    # 50,000 tokens for an hour at 4.50 a million
    "gemini-cache-storage": ("google", "gemini-2.5-pro", usage(cache_storage_token_hours=50_000), "0.225"),
    # 1000 x 0.10 + 100 x 0.40, and 2 searches at 2.50 a thousand
    "openai-file-search-fee": (
        "openai",
        "gpt-4.1-nano",
        usage(input_uncached=1_000, output_text=100, file_search=2),
        "0.00514",
    ),
    # 1000 x 2.50 + 100 x 10, and one container
    "openai-code-interpreter": (
        "openai",
        "gpt-4o",
        usage(input_uncached=1_000, output_text=100, code_execution=1),
        "0.0335",
    ),
    # 1000 x 1.25 + 100 x 2.50; 2 searches and 1 run at 5, 4 collections at 2.50 a thousand
    "xai-tool-fees": (
        "x-ai",
        "grok-4.3",
        usage(input_uncached=1_000, output_text=100, web_search=2, code_execution=1, file_search=4),
        "0.0265",
    ),
    # 500 x 0.30 + 1500 x 0.03 + 100 x 0.90
    "mistral-codestral-cached": (
        "mistral",
        "codestral-latest",
        usage(input_uncached=500, cache_read=1_500, output_text=100),
        "0.000285",
    ),
    # 1000 x 1 + 100 x 1, and the fee
    "perplexity-low-context": (
        "perplexity",
        "sonar",
        with_terms(usage(**STANDARD, request_fee=1), search_context="low"),
        "0.0061",
    ),
    "perplexity-medium-context": (
        "perplexity",
        "sonar",
        with_terms(usage(**STANDARD, request_fee=1), search_context="medium"),
        "0.0091",
    ),
    # 1000 x 3 + 100 x 15, and the fee
    "perplexity-pro-low-context": (
        "perplexity",
        "sonar-pro",
        with_terms(usage(**STANDARD, request_fee=1), search_context="low"),
        "0.0105",
    ),
    "perplexity-pro-medium-context": (
        "perplexity",
        "sonar-pro",
        with_terms(usage(**STANDARD, request_fee=1), search_context="medium"),
        "0.0145",
    ),
    "cohere-rerank": ("cohere", "rerank-v3.5", usage(rerank_search_unit=3), "0.006"),
    # 1000 x 3.60 + 2000 x 0.36 + 300 x 4.50 + 400 x 7.20 + 100 x 18
    "bedrock-govcloud-sonnet-4-5": (
        "aws",
        "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0",
        usage(input_uncached=1_000, cache_read=2_000, cache_write_5m=300, cache_write_1h=400, output_text=100),
        "0.01035",
    ),
    # 1000 x 3.75 + 400 x 1.875 + 100 x 15
    "openai-fine-tuned-4o": (
        "openai",
        "ft:gpt-4o-2024-08-06:acme::9xYz",
        usage(input_uncached=1_000, cache_read=400, output_text=100),
        "0.006",
    ),
    # 1000 x 0.30 + 400 x 0.15 + 100 x 1.20
    "openai-fine-tuned-4o-mini": (
        "openai",
        "ft:gpt-4o-mini-2024-07-18:acme::9xYz",
        usage(input_uncached=1_000, cache_read=400, output_text=100),
        "0.00048",
    ),
}
WEEKENDS = {  # Saturday and Sunday, at an hour that is peak from Monday to Friday
    # 1000 x 0.15 + 1000 x 0.003 + 100 x 0.60
    "deepseek-flash-weekend": ("deepseek-flash", "0.000213"),
    "deepseek-v4-flash-weekend": ("deepseek-v4-flash", "0.000213"),
    # 1000 x 0.66 + 1000 x 0.022 + 100 x 1.98
    "deepseek-pro-weekend": ("deepseek-v4-pro", "0.00088"),
}


def test_every_correction_has_a_case_by_hand():
    assert {row.name for row in load()} == {*CORRECTED, *WEEKENDS}


def test_a_correction_fills_a_gap_only_where_it_says_so():
    assert {row.name for row in load() if not row.fills and not row.adds} == {
        "anthropic-us-inference",
        "deepseek-flash-weekend",
        "deepseek-v4-flash-weekend",
        "deepseek-pro-weekend",
        "perplexity-low-context",
        "perplexity-medium-context",
        "perplexity-pro-low-context",
        "perplexity-pro-medium-context",
    }


@pytest.mark.parametrize("name", WEEKENDS)
@pytest.mark.parametrize(
    ("day", "times"), [("2026-11-27", 2), ("2026-11-28", 1), ("2026-11-29", 1), ("2026-11-30", 2)], ids=str
)
def test_a_weekend_has_no_peak_hours(name, day, times):
    model, expected = WEEKENDS[name]
    found = usage(input_uncached=1_000, cache_read=1_000, output_text=100)
    cost = price(found, "deepseek", model, at=datetime.fromisoformat(f"{day}T02:00:00+00:00"))
    assert cost.pico == times * int(Decimal(expected) * 10**12)
    assert (name in cost.source.corrections) == (times == 1)


@pytest.mark.parametrize("hours", [-8, 0, 9])
def test_a_day_is_that_of_utc_wherever_the_clock_of_the_call_stands(hours):
    found = usage(input_uncached=1_000_000)
    zone = timezone(timedelta(hours=hours))
    for moment, expected in (
        ("2026-11-28T02:00", "0.15"),
        ("2026-11-29T23:59", "0.15"),
        ("2026-11-27T23:59", "0.15"),
        ("2026-11-27T03:59", "0.3"),
        ("2026-11-30T01:30", "0.3"),
    ):
        at = datetime.fromisoformat(f"{moment}:00+00:00").astimezone(zone)
        assert usd(found, "deepseek", "deepseek-flash", book=PriceBook(), at=at) == expected, at


@pytest.fixture
def local(monkeypatch):
    """`local("Asia/Tokyo")`: where this process takes itself to be."""

    def set_zone(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_a_day_is_that_of_utc_wherever_this_process_runs(local, zone):
    local(zone)
    found = usage(input_uncached=1_000_000)
    for moment, expected in (("2026-11-28T02:00", "0.15"), ("2026-11-27T02:00", "0.3"), ("2026-11-29T23:30", "0.15")):
        at = datetime.fromisoformat(f"{moment}:00+00:00")
        assert usd(found, "deepseek", "deepseek-flash", book=PriceBook(), at=at) == expected, at


@pytest.mark.parametrize(
    ("model", "day", "expected"),
    # Saturdays at 02:00 UTC: before a price held, its weekend is not known and the catalogue's peak price stands
    [
        ("deepseek-v4-flash", "2026-09-05", "0.3"),
        ("deepseek-v4-flash", "2026-09-12", "0.15"),
        ("deepseek-v4-pro", "2026-08-15", "1.32"),
        ("deepseek-v4-pro", "2026-08-22", "0.66"),
    ],
)
def test_a_weekend_before_a_price_is_not_billed_at_it(model, day, expected):
    at = datetime.fromisoformat(f"{day}T02:00:00+00:00")
    assert usd(usage(input_uncached=1_000_000), "deepseek", model, at=at) == expected


def test_a_correction_of_a_bucket_that_was_not_used_is_not_named():
    cost = price(usage(**STANDARD), "openai", "gpt-4.1-nano")
    assert cost.source.corrections == ()


@pytest.mark.parametrize("name", CORRECTED)
def test_a_correction_is_applied_and_named_in_the_provenance(name):
    provider, model, found, expected = CORRECTED[name]
    cost = price(found, provider, model)
    assert usd_text(cost.pico) == expected
    assert name in cost.source.corrections, "the entry does not say that its price was corrected"
    plain = price(usage(input_uncached=1_000), "anthropic", "claude-opus-4-6")
    assert plain.source.corrections == ()


def test_every_us_only_model_is_in_the_catalogue_and_costs_a_tenth_more():
    row = next(row for row in load() if row.name == "anthropic-us-inference")
    for model in row.models:
        found = usage(input_uncached=1_000_000)
        plain = price(found, "anthropic", model)
        uplifted = price(with_terms(found, inference_geo="us"), "anthropic", model)
        assert uplifted.pico * 10 == plain.pico * 11, f"{model} is not billed 1.1x"


GOVCLOUD = "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.mark.parametrize("tier", [None, "default", "standard", "auto", "on_demand"])
def test_a_model_that_a_correction_adds_says_so_and_has_the_usual_derived_prices(tier):
    # 1000 x 3.60 + 100 x 3.60 and 200 x 18 for thoughts
    found = with_terms(usage(input_uncached=1_000, input_tool=100, output_reasoning=200), service_tier=tier)
    cost = price(found, "aws", GOVCLOUD)
    assert usd_text(cost.pico) == "0.00756"
    assert cost.source.to_dict() == {
        "kind": "catalogue",
        "name": "ai-budget-callbacks corrections of 2026-11-25",
        "provider": "aws",
        "model": GOVCLOUD,
        "rule": "exact",
        "terms": "standard",
        "corrections": ["bedrock-govcloud-sonnet-4-5"],
    }


@pytest.mark.parametrize(
    "terms",
    [{"batch": True}, {"service_tier": "priority"}, {"speed": "fast"}, {"service_tier": "priority", "batch": True}],
    ids=str,
)
def test_a_model_that_a_correction_adds_has_no_price_on_other_terms(terms):
    assert "does not know" in refused(with_terms(usage(**STANDARD), **terms), "aws", GOVCLOUD)
    assert "does not know" in refused(with_terms(usage(rerank_search_unit=1), **terms), "cohere", "rerank-v3.5")


# -- provenance and the card itself


def test_a_price_says_where_it_comes_from():
    source = price(with_terms(usage(**STANDARD), service_tier="flex"), "openai", "gpt-5-2025-08-07").source
    assert source.to_dict() == {
        "kind": "catalogue",
        "name": "genai-prices 0.2.3",
        "provider": "openai",
        "model": "gpt-5",
        "rule": "exact",
        "terms": "service_tier=flex",
        "corrections": [],
    }


def test_an_inherited_rate_needs_an_explicit_rule():
    rates = {"output_text": Rate(Decimal(10), 1_000_000)}
    card = RateCard(rates=rates, source=Source(kind="user", name="test", model="m"))
    assert price_usage(usage(output_reasoning=1), card).reason == "no price for output_reasoning of m"
    card = replace(card, inherits={"output_reasoning": "output_text"})
    assert price_usage(usage(output_reasoning=1), card).pico == 10_000_000


# -- another model's usage inside an answer

ADVICE = Other(model="claude-opus-4-5", buckets={"input_uncached": 2_000, "output_text": 40})


def test_an_advisor_is_billed_at_its_own_price_and_named_on_its_lines():
    found = replace(usage(**STANDARD), others=(ADVICE,))
    cost = price(found, "anthropic", "claude-sonnet-4-5")
    # 1000 x 3 + 100 x 15, and 2000 x 5 + 40 x 25
    assert (cost.status, usd_text(cost.pico)) == ("priced", "0.0155")
    assert [(line.model, line.bucket, usd_text(line.amount_pico)) for line in cost.lines] == [
        (None, "input_uncached", "0.003"),
        (None, "output_text", "0.0015"),
        ("claude-opus-4-5", "input_uncached", "0.01"),
        ("claude-opus-4-5", "output_text", "0.001"),
    ]
    assert (found.input_tokens, found.output_tokens) == (3_000, 140)


def test_an_advisor_without_a_price_makes_the_answer_unpriced_with_the_rest_of_it_known():
    found = replace(usage(**STANDARD), others=(replace(ADVICE, model="claude-nobody-knows"), ADVICE))
    cost = price(found, "anthropic", "claude-sonnet-4-5")
    assert (cost.status, cost.pico) == ("unpriced", None)
    assert "claude-nobody-knows" in cost.reason
    assert cost.part_pico == 15_500_000_000


def test_an_advisor_may_have_a_price_of_ones_own_and_a_free_answer_is_not_free_with_it():
    book = PriceBook({"claude-mine": "free", "advisor": Price(input="1", output="2")})
    found = replace(usage(**STANDARD), others=(replace(ADVICE, model="advisor"),))
    cost = price(found, "anthropic", "claude-mine", book=book)
    # 2000 x 1 + 40 x 2
    assert (cost.status, cost.reason, usd_text(cost.pico)) == ("priced", None, "0.00208")
    free = replace(usage(**STANDARD), others=(replace(ADVICE, model="claude-mine"),))
    assert price(free, "anthropic", "claude-mine", book=book).status == "free"


# -- free by its seller's list


@pytest.mark.parametrize(
    ("stated", "status"), [({"cost": 0}, "free"), ({"cost": "0.002"}, "reported"), ({}, "free")], ids=repr
)
def test_what_openrouter_lists_as_free_is_free_unless_it_charged(stated, status):
    raw = {"prompt_tokens": 10, "completion_tokens": 5} | stated
    cost = price(openai.read(raw), "openrouter", "openai/gpt-oss-20b:free")
    assert cost.status == status
    assert bool(cost.pico) == (status == "reported")
    assert cost.reason or status == "reported", "free without a reason"


def test_a_stated_cost_of_nothing_does_not_make_a_model_free():
    raw = {"prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0}
    # 1000 x 2.50 + 100 x 10
    assert usd(openai.read(raw), "openrouter", "openai/gpt-4o") == "0.0035"
