"""Holds before a call: the worst case bounds every answer; the expected case is what it says, in USD by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import Price, PriceBook, Rate, RateCard, Source, Unpriced
from ai_budget_callbacks.pricing.estimate import (
    Estimate,
    Learned,
    expected,
    max_output_tokens,
    reasons_out_of_sight,
    worst_case,
)
from ai_budget_callbacks.usage import Call, Request, Terms
from tests.support.goldens import NOW, usage

BOOK = PriceBook()
NOTHING = Learned()

# A Request holds sizes, no text, so bytes are what can be proven (no tokenizer is asked).
PER_MESSAGE, PER_TOOL, PER_REQUEST = 16, 16, 512  # framing, facts/pricing.md 6


def call(provider: str, model: str, **request: Any) -> Call:
    return Call(id="1", framework="direct", provider=provider, model=model, started_at=NOW, request=Request(**request))


def bound(made: Call, book: PriceBook = BOOK) -> Estimate | Unpriced:
    request = made.request
    cards = book.cards_for_bound(made.provider, made.model, request.service_tier, NOW, speed=request.speed)
    return cards if isinstance(cards, Unpriced) else worst_case(made, cards)


def guess(made: Call, learned: Learned = NOTHING, book: PriceBook = BOOK) -> Estimate:
    card = book.card(made.provider, made.model, Terms(service_tier=made.request.service_tier), NOW)
    assert isinstance(card, RateCard), card
    return expected(made, [card], learned)


def sizes(found: Estimate | Unpriced) -> tuple[int, int, str]:
    assert isinstance(found, Estimate), found
    return found.input_tokens, found.output_tokens, usd_text(found.usd_pico)


# -- worst case: by hand


@pytest.mark.parametrize(
    ("provider", "model", "request_", "expected_"),
    [
        # an image is output too: (100 + 16 + 512) x 0.30 + 8192 x 30
        (
            "google",
            "gemini-2.5-flash-image",
            {"text_bytes": 100, "max_output_tokens": 8_192},
            (628, 8_192, "0.2459484"),
        ),
        # OpenRouter bills the cache writes of OpenAI's models: (1000 + 16 + 512) x 5 + 10 x 20
        (
            "openrouter",
            "openai/gpt-5.6-sol",
            {"text_bytes": 1_000, "max_output_tokens": 10, "service_tier": "default"},
            (1_528, 10, "0.00784"),
        ),
        # the dearest tier, priority at 2.50/20: (10000 + 300 + 2 x 16 + 16 + 512) x 2.50 + 1000 x 20
        (
            "openai",
            "gpt-5",
            {"text_bytes": 10_000, "messages": 2, "tool_bytes": 300, "tools": 1, "max_output_tokens": 1_000},
            (10_860, 1_000, "0.04715"),
        ),
        # pinned to standard, 1.25/10: 10860 x 1.25 + 1000 x 10
        (
            "openai",
            "gpt-5",
            {
                "text_bytes": 10_000,
                "messages": 2,
                "tool_bytes": 300,
                "tools": 1,
                "max_output_tokens": 1_000,
                "service_tier": "default",
            },
            (10_860, 1_000, "0.023575"),
        ),
        # "auto" pins nothing: 1528 x 2.50 + 10 x 20
        (
            "openai",
            "gpt-5",
            {"text_bytes": 1_000, "max_output_tokens": 10, "service_tier": "auto"},
            (1_528, 10, "0.00402"),
        ),
        # without max_tokens the model's maximum, 128,000: 1528 x 2.50 + 128000 x 20
        ("openai", "gpt-5", {"text_bytes": 1_000}, (1_528, 128_000, "2.56382")),
        # n multiplies output only: 1528 x 1.25 + 3 x 100 x 10
        (
            "openai",
            "gpt-5",
            {"text_bytes": 1_000, "max_output_tokens": 100, "choices": 3, "service_tier": "default"},
            (1_528, 300, "0.00491"),
        ),
        (
            "openai",
            "gpt-5",
            {"text_bytes": 1_000, "choices": 2, "service_tier": "default"},
            (1_528, 256_000, "2.56191"),
        ),
        # at the threshold still short: 272000 x 2.50 + 1000 x 15
        (
            "openai",
            "gpt-5.4",
            {"text_bytes": 271_472, "max_output_tokens": 1_000, "service_tier": "default"},
            (272_000, 1_000, "0.695"),
        ),
        # one byte more may be long: 272001 x 5 + 1000 x 22.50
        (
            "openai",
            "gpt-5.4",
            {"text_bytes": 271_473, "max_output_tokens": 1_000, "service_tier": "default"},
            (272_001, 1_000, "1.382505"),
        ),
        # a written token is dearer than a fresh one since GPT-5.6, and OpenAI writes unasked: 1528 x 5 + 10 x 20
        (
            "openai",
            "gpt-5.6",
            {"text_bytes": 1_000, "max_output_tokens": 10, "service_tier": "default"},
            (1_528, 10, "0.00784"),
        ),
        # Claude: 1528 x 3 + 100 x 15
        ("anthropic", "claude-sonnet-4-5", {"text_bytes": 1_000, "max_output_tokens": 100}, (1_528, 100, "0.006084")),
        # with cache_control the one-hour write, 6: 1528 x 6 + 100 x 15
        (
            "anthropic",
            "claude-sonnet-4-5",
            {"text_bytes": 1_000, "max_output_tokens": 100, "cache_control": True},
            (1_528, 100, "0.010668"),
        ),
        # past 200,000: 200528 x 12 + 100 x 22.50
        (
            "anthropic",
            "claude-sonnet-4-5",
            {"text_bytes": 200_000, "max_output_tokens": 100, "cache_control": True},
            (200_528, 100, "2.408586"),
        ),
        # embeddings have no output: 8528 x 0.02
        ("openai", "text-embedding-3-small", {"text_bytes": 8_000, "output": False}, (8_528, 0, "0.00017056")),
        # Azure at OpenAI's standard list: 1528 x 2.50 + 16384 x 10
        ("azure", "gpt-4o", {"text_bytes": 1_000}, (1_528, 16_384, "0.16766")),
    ],
    ids=str,
)
def test_worst_case_by_hand(provider, model, request_, expected_):
    assert sizes(bound(call(provider, model, **request_))) == expected_


def test_a_pinned_cheap_tier_is_not_bounded_by_the_dearest():
    flex = bound(call("openai", "gpt-5", text_bytes=1_000, max_output_tokens=100, service_tier="flex"))
    # at least 1528 x 0.625 + 100 x 5, less than priority's 1528 x 2.50 + 100 x 20
    assert 1_455_000_000 <= flex.usd_pico < 5_820_000_000


def test_the_floor_is_the_input_and_one_output_token():
    # 1528 x 1.25 + 1 x 10
    found = bound(call("openai", "gpt-5", text_bytes=1_000, max_output_tokens=100, service_tier="default"))
    assert (usd_text(found.floor_pico), found.floor_tokens, found.tokens) == ("0.00192", 1_529, 1_628)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (
            {"other_parts": 1},
            "images, audio and files have no proven token bound; reserve a USD amount instead",
        ),
        (
            {"hosted_tools": ("web_search", "code_interpreter")},
            "the number of hosted tool calls (web_search, code_interpreter) has no bound; reserve a USD amount instead",
        ),
    ],
    ids=str,
)
def test_what_has_no_bound_is_refused_with_what_to_set(request_, reason):
    assert bound(call("openai", "gpt-5", max_output_tokens=5, **request_)) == Unpriced(reason=reason)


def test_an_unknown_maximum_output_is_refused_until_max_tokens_is_set():
    book = PriceBook({"mine": Price(input="1", output="2")})
    reason = "the maximum output of mine is not known; set max_tokens on the model"
    assert bound(call("any", "mine", text_bytes=1_000), book) == Unpriced(reason=reason)
    # 1528 x 1 + 100 x 2
    found = bound(call("any", "mine", text_bytes=1_000, max_output_tokens=100), book)
    assert sizes(found) == (1_528, 100, "0.001728")


def test_a_free_model_holds_no_usd_and_still_holds_tokens():
    book = PriceBook({"llama": "free"})
    found = bound(call("any", "llama", text_bytes=1_000, max_output_tokens=100), book)
    assert sizes(found) == (1_528, 100, "0")


def test_a_request_fee_is_part_of_the_bound_and_of_the_floor():
    book = PriceBook({"mine": Price(input="1", output="2", request="0.5")})
    found = bound(call("any", "mine", text_bytes=1_000, max_output_tokens=100), book)
    assert (usd_text(found.usd_pico), usd_text(found.floor_pico)) == ("0.501728", "0.50153")


# -- worst case: the law

BOUNDED = [
    ("openai", "gpt-4o"),
    ("openai", "gpt-5"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-5.6"),
    ("azure", "gpt-4o"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-opus-4-6"),
]


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(BOUNDED), st.booleans(), st.booleans(), st.data())
def test_no_answer_within_its_sizes_costs_more_than_the_worst_case(model, cached, pinned, data):
    """Whatever tier and region the provider picks, however input splits into cached, written and fresh."""
    tiers = [None, "flex", "priority"] if model[0] == "openai" else [None]
    tier = data.draw(st.sampled_from(tiers))
    request = {
        "text_bytes": data.draw(st.integers(0, 400_000)),
        "messages": data.draw(st.integers(1, 20)),
        "tool_bytes": data.draw(st.integers(0, 5_000)),
        "tools": data.draw(st.integers(0, 3)),
        "max_output_tokens": data.draw(st.integers(1, 20_000)),
        "choices": data.draw(st.integers(1, 3)),
        "cache_control": cached and model[0] == "anthropic",
        "service_tier": (tier or "default") if pinned else None,
    }
    made = call(*model, **request)
    most = bound(made)
    parts = ["input_uncached", "cache_read"]
    parts += ["cache_write_5m", "cache_write_1h"] if request["cache_control"] else []
    parts += ["cache_write"] if model[0] == "openai" else []
    room = request["text_bytes"] + request["tool_bytes"] + PER_REQUEST
    room += PER_MESSAGE * request["messages"] + PER_TOOL * request["tools"]
    buckets = {}
    for part in parts:
        buckets[part] = data.draw(st.integers(0, room))
        room -= buckets[part]
    room = request["max_output_tokens"] * request["choices"]
    buckets["output_text"] = data.draw(st.integers(1, room))
    buckets["output_reasoning"] = room - buckets["output_text"]
    geo = data.draw(st.sampled_from([None, "us"])) if model[0] == "anthropic" else None
    answer = replace(usage(**buckets), terms=Terms(service_tier=tier, inference_geo=geo))
    cost = BOOK.price(answer, provider=model[0], model=model[1], requested=None, at=NOW)
    if isinstance(most, Unpriced):
        assert cost.status == "unpriced", "a call that has a price was refused for want of one"
        return
    if cost.status == "priced":
        assert cost.pico <= most.usd_pico, f"{buckets} at tier {tier} overspends its worst-case hold"
    assert answer.total_tokens <= most.tokens


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(BOUNDED), st.integers(0, 400_000), st.integers(1, 50_000))
def test_a_floor_is_never_more_than_its_hold(model, text_bytes, max_output):
    made = call(*model, text_bytes=text_bytes, max_output_tokens=max_output)
    for found in (bound(made), guess(made)):
        assert 0 < found.floor_pico <= found.usd_pico


def test_a_pinned_tier_without_a_price_has_no_worst_case():
    # Azure's priority tier has no price: its answer will be unpriced, so a standard-price hold proves nothing
    assert isinstance(BOOK.cards_for_bound("azure", "gpt-4o", "priority", NOW), Unpriced)


# -- expected: by hand


@pytest.mark.parametrize(
    ("provider", "model", "request_", "expected_"),
    [
        # 1000 / 2.5 + 3 x 16 + 300 / 3 = 548; first guess 2048: 548 x 2.50 + 2048 x 10
        ("openai", "gpt-4o", {"text_bytes": 1_000, "messages": 3, "tool_bytes": 300}, (548, 2_048, "0.02185")),
        # every part rounds up: 1001 / 2.5 = 400.4, 301 / 3 = 100.33: 401 + 16 + 101
        ("openai", "gpt-4o", {"text_bytes": 1_001, "tool_bytes": 301}, (518, 2_048, "0.021775")),
        # max_tokens caps: 416 x 2.50 + 100 x 10
        ("openai", "gpt-4o", {"text_bytes": 1_000, "max_output_tokens": 100}, (416, 100, "0.00204")),
        # n answers: 416 x 2.50 + 3 x 2048 x 10, or 3 x 100 x 10
        ("openai", "gpt-4o", {"text_bytes": 1_000, "choices": 3}, (416, 6_144, "0.06248")),
        ("openai", "gpt-4o", {"text_bytes": 1_000, "choices": 3, "max_output_tokens": 100}, (416, 300, "0.00404")),
        # an image: 1500 more: 1916 x 2.50 + 10 x 10
        ("openai", "gpt-4o", {"text_bytes": 1_000, "other_parts": 1, "max_output_tokens": 10}, (1_916, 10, "0.00489")),
        # a hosted search: 416 x 2.50 + 10 x 10 + 0.01
        (
            "openai",
            "gpt-4o",
            {"text_bytes": 1_000, "hosted_tools": ("web_search",), "max_output_tokens": 10},
            (416, 10, "0.01114"),
        ),
        # the dearest input rate that applies: GPT-5.6 writes its cache unasked, 416 x 5 + 10 x 20
        ("openai", "gpt-5.6", {"text_bytes": 1_000, "max_output_tokens": 10}, (416, 10, "0.00228")),
        # Claude with cache_control: 416 x 6 + 10 x 15
        (
            "anthropic",
            "claude-sonnet-4-5",
            {"text_bytes": 1_000, "cache_control": True, "max_output_tokens": 10},
            (416, 10, "0.002646"),
        ),
        # the tier that was asked for: 416 x 2.50 + 10 x 20
        (
            "openai",
            "gpt-5",
            {"text_bytes": 1_000, "service_tier": "priority", "max_output_tokens": 10},
            (416, 10, "0.00124"),
        ),
        # the long rate where the guess is long: (750000 / 2.5 + 16) x 5 + 10 x 22.50
        ("openai", "gpt-5.4", {"text_bytes": 750_000, "max_output_tokens": 10}, (300_016, 10, "1.500305")),
        # embeddings: no output; 416 x 0.02
        ("openai", "text-embedding-3-small", {"text_bytes": 1_000, "output": False}, (416, 0, "0.00000832")),
    ],
    ids=str,
)
def test_expected_by_hand(provider, model, request_, expected_):
    assert sizes(guess(call(provider, model, **request_))) == expected_


@pytest.mark.parametrize(
    ("outputs", "request_", "tokens"),
    [
        ((), {}, 2_048),
        ((10,) * 7, {}, 2_048),  # too few: the larger of sample and first guess
        ((5_000,) * 7, {}, 5_000),
        ((10,) * 8, {}, 10),  # enough
        ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), {}, 9),  # 90th percentile
        ((10, 9, 8, 7, 6, 5, 4, 3, 2, 1), {}, 9),  # in any order
        (tuple(range(1, 65)), {}, 58),  # 0.9 x 64 = 57.6
        ((5_000,) * 8, {"max_output_tokens": 100}, 100),
        ((5_000,) * 8, {"max_output_tokens": 100, "choices": 2}, 200),
        ((50,) * 8, {"max_output_tokens": 100, "choices": 2}, 50),  # samples are of whole answers
    ],
    ids=str,
)
def test_expected_output_is_learned(outputs, request_, tokens):
    found = guess(call("openai", "gpt-4o", **request_), Learned(outputs=outputs))
    assert found.output_tokens == tokens
    assert usd_text(found.usd_pico) == usd_text(
        16 * 2_500_000 + tokens * 10_000_000
    )  # 16 of framing at 2.50, output at 10


def test_expected_input_uses_the_bytes_a_token_has_been_seen_to_take():
    # 4000 bytes were 1000 tokens: 1001 / 4 rounds up to 251, + 16
    found = guess(call("openai", "gpt-4o", text_bytes=1_001), Learned(text_bytes=4_000, text_tokens=1_000))
    assert found.input_tokens == 267


def test_without_a_price_tokens_are_still_estimated():
    found = expected(call("any", "mystery", text_bytes=1_000, max_output_tokens=10), [], NOTHING)
    assert (found.usd_pico, found.floor_pico) == (None, None)
    assert (found.tokens, found.floor_tokens) == (426, 417)


def test_a_first_guess_is_never_more_than_the_model_can_say():
    # ada's table entry is its vector length; a model that can say less than 2048 is guessed at its maximum
    assert max_output_tokens("openai", "text-embedding-3-small") == 1_536
    book = PriceBook({"openai/text-embedding-3-small": Price(input="1", output="1")})
    assert guess(call("openai", "text-embedding-3-small"), book=book).output_tokens == 1_536


def test_a_request_fee_and_hosted_searches_are_both_expected():
    book = PriceBook({"mine": Price(input="1", output="2", request="0.5", web_search="0.01")})
    made = call("any", "mine", text_bytes=1_000, max_output_tokens=10, hosted_tools=("web_search", "web_search"))
    found = guess(made, book=book)
    # 0.5 + 2 x 0.01 + 416 x 1 + 10 x 2, and with one output token
    assert (usd_text(found.usd_pico), usd_text(found.floor_pico)) == ("0.520436", "0.520418")


WRITES = {"cache_write": "5", "cache_write_1h": "7"}


@pytest.mark.parametrize(
    ("provider", "prices", "cached", "usd"),
    [
        ("any", {"input": "1", **WRITES}, False, "0.001548"),  # 1528 x 1 + 10 x 2
        ("any", {"input": "1", **WRITES}, True, "0.010716"),  # 1528 x 7 + 10 x 2
        ("any", {"input": "1", "cache_write": "5", "cache_write_1h": "1"}, True, "0.00766"),  # 1528 x 5 + 10 x 2
        ("any", {"input": "3", "cache_write": "1"}, True, "0.004604"),  # 1528 x 3 + 10 x 2
        # OpenAI writes unasked, whoever says the price
        ("openai", {"input": "1", **WRITES}, False, "0.00766"),
        ("azure", {"input": "1", **WRITES}, False, "0.00766"),
        ("openai", {"input": "3", "cache_write": "1"}, False, "0.004604"),
    ],
)
def test_a_bound_by_a_price_of_ones_own_takes_the_dearest_the_input_can_become(provider, prices, cached, usd):
    book = PriceBook({"mine": Price(output="2", **prices)})
    made = call(provider, "mine", text_bytes=1_000, max_output_tokens=10, cache_control=cached)
    assert sizes(bound(made, book)) == (1_528, 10, usd)


@pytest.mark.parametrize("bucket", ["input_uncached", "cache_write", "cache_write_5m", "cache_write_1h"])
def test_each_way_to_bill_cached_input_is_in_the_bound(bucket):
    rates = dict.fromkeys(("input_uncached", "cache_write", "cache_write_5m", "cache_write_1h"), Rate(Decimal(1), 1))
    card = RateCard(rates={**rates, bucket: Rate(Decimal(2), 1)}, source=Source(kind="user", name="here"))
    made = call("any", "mine", text_bytes=1_000, max_output_tokens=1, cache_control=True)
    assert usd_text(worst_case(made, [card]).usd_pico) == "3056"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_free_card_among_others_does_not_hide_the_dearer_ones(order):
    cards = (PriceBook({"mine": "free"}).own("any", "mine"), PriceBook({"mine": Price(input="1")}).own("any", "mine"))
    found = worst_case(call("any", "mine", text_bytes=1_000, max_output_tokens=1), [cards[i] for i in order])
    assert (found.input_tokens, usd_text(found.usd_pico)) == (1_528, "0.001528")


# -- model limits


@pytest.mark.parametrize(
    ("provider", "model", "most"),
    [
        ("openai", "gpt-4o", 16_384),
        ("openai", "GPT-4o", 16_384),
        ("openai", "gpt-4o-2024-05-13", 4_096),  # its own entry beats the undated one
        ("openai", "gpt-4o-2024-11-20", 16_384),
        ("openai", "gpt-5-2025-08-07", 128_000),
        ("azure", "gpt-4o", 16_384),
        ("anthropic", "claude-sonnet-4-5", 64_000),
        ("anthropic", "claude-opus-4-6-20260205", 128_000),
        ("openai", "gpt-4o-mini-2099-01-01", 16_384),
        ("openai", "gpt-5-ultra", None),  # no guess from a shorter name
        ("openai", "gpt-4o-audio-preview", None),
        ("openai", "", None),
        ("groq", "gpt-4o", None),
        ("openai", "claude-sonnet-4-5", None),
    ],
)
def test_the_most_a_model_can_say(provider, model, most):
    assert max_output_tokens(provider, model) == most


def test_models_that_think_out_of_sight_are_known():
    thinkers = [("openai", "gpt-5"), ("openai", "o3"), ("openai", "gpt-5-2025-08-07"), ("anthropic", "claude-opus-4-6")]
    assert all(reasons_out_of_sight(*model) for model in thinkers)
    assert not any(reasons_out_of_sight(*model) for model in [("openai", "gpt-4o"), ("groq", "x")])


# -- worst case: dearer terms than the standard ones


@pytest.mark.parametrize(
    ("model", "asked", "got", "usd"),
    [
        # where inference runs may be a setting of the workspace: 1528 x 5.50 + 1000 x 27.50
        ("claude-opus-4-6", {}, Terms(inference_geo="us"), "0.035904"),
        # fast mode, 10/50: 1528 x 10 + 1000 x 50
        ("claude-opus-5", {"speed": "fast"}, Terms(speed="fast"), "0.06528"),
        # both: 1528 x 11 + 1000 x 55
        pytest.param(
            "claude-opus-5",
            {"speed": "fast"},
            Terms(speed="fast", inference_geo="us"),
            "0.071808",
        ),
    ],
    ids=str,
)
def test_the_worst_case_of_claude_covers_its_dearer_terms(model, asked, got, usd):
    most = bound(call("anthropic", model, text_bytes=1_000, max_output_tokens=1_000, **asked))
    answer = replace(usage(input_uncached=1_528, output_text=1_000), terms=got)
    cost = BOOK.price(answer, provider="anthropic", model=model, requested=None, at=NOW)
    assert (cost.status, usd_text(cost.pico)) == ("priced", usd)
    assert cost.pico <= most.usd_pico, "the answer overspends its worst-case hold"


def test_a_speed_without_a_price_has_no_worst_case():
    assert isinstance(bound(call("anthropic", "claude-opus-4-6", max_output_tokens=10, speed="fast")), Unpriced)
