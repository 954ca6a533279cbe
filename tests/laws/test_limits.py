"""What bounds an answer before it is sent: known maxima, an image's tokens, a prompt that was counted."""

from __future__ import annotations

from typing import Any

import pytest

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import Price, PriceBook, Unpriced
from ai_budget_callbacks.pricing.estimate import Learned, expected, worst_case
from ai_budget_callbacks.pricing.limits import image_tokens, max_output_tokens, reasons_out_of_sight
from ai_budget_callbacks.usage import Call, Request, Terms, Usage
from tests.support.goldens import NOW

BOOK = PriceBook()


def call(provider: str, model: str, **request: Any) -> Call:
    return Call(id="1", framework="direct", provider=provider, model=model, started_at=NOW, request=Request(**request))


def bound(provider: str, model: str, **request: Any) -> tuple[int, int] | str:
    made = call(provider, model, **request)
    cards = BOOK.cards_for_bound(provider, model, None, NOW)
    assert not isinstance(cards, Unpriced)
    found = worst_case(made, cards)
    return found.reason if isinstance(found, Unpriced) else (found.input_tokens, found.output_tokens)


# -- maxima


@pytest.mark.parametrize(
    ("provider", "model", "most", "reasons"),
    [
        ("openai", "gpt-4o-2024-08-06", 16_384, False),
        ("azure", "gpt-4o", 16_384, False),
        ("openai", "ft:gpt-4o-2024-08-06:acme::1", 16_384, False),
        ("azure", "ft:gpt-4o-2024-08-06:acme::1", 16_384, False),
        ("anthropic", "claude-sonnet-4-5-20250929", 64_000, True),
        ("anthropic", "ft:claude-sonnet-4-5-20250929", None, False),
        ("google", "gemini-2.5-pro", 65_536, True),
        ("google", "models/gemini-2.5-pro", 65_536, True),
        ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000, True),
        ("x-ai", "grok-4.20-0309-non-reasoning", 30_000, False),
        ("openrouter", "openai/gpt-4o:nitro", 16_384, False),
        ("openai", "gpt-nobody-knows", None, False),
        ("acme", "gpt-4o", None, False),
    ],
)
def test_what_is_known_of_a_models_output(provider, model, most, reasons):
    assert (max_output_tokens(provider, model), reasons_out_of_sight(provider, model)) == (most, reasons)


def test_thoughts_that_nothing_is_known_to_bound_are_held_in_full_or_refused():
    # grok-4.3 thinks, and max_tokens is only known to bound what it shows: 100 and the model's own maximum
    most = max_output_tokens("x-ai", "grok-4.3")
    assert reasons_out_of_sight("x-ai", "grok-4.3")
    assert bound("x-ai", "grok-4.3", max_output_tokens=100) == (16 + 512, 100 + most)
    assert bound("x-ai", "grok-4.3") == (16 + 512, most)
    assert bound("x-ai", "grok-4.20-0309-non-reasoning", max_output_tokens=100) == (16 + 512, 100)
    assert bound("perplexity", "sonar", max_output_tokens=100) == (16 + 512, 100)
    assert bound("openai", "o3-deep-research", max_output_tokens=100) == (16 + 512, 100)
    said = bound("perplexity", "sonar-deep-research", max_output_tokens=100)
    assert said == "nothing is known to bound the reasoning of sonar-deep-research; reserve a USD amount instead"


# -- images


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-search-preview"),
        ("openai", "gpt-4o-mini-search-preview-2025-03-11"),
        ("openai", "gpt-5-search-api"),
        ("openrouter", "openai/gpt-4o:online"),
        ("openrouter", "perplexity/sonar"),
    ],
)
def test_a_model_that_searches_unasked_has_no_bound(provider, model):
    assert "searches" in bound(provider, model, text_bytes=100, max_output_tokens=10)


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-4o", 85 + 8 * 170),
        ("gpt-4o-2024-08-06", 1_445),
        ("ft:gpt-4o-2024-08-06:acme::1", 1_445),
        ("gpt-4o-mini", 2_833 + 8 * 5_667),
        ("gpt-4.1", 1_445),
        ("gpt-4.1-mini", 2_489),  # 1536 x 1.62 = 2488.32
        ("gpt-4.1-nano", 3_779),  # 1536 x 2.46 = 3778.56
        ("o3", 75 + 8 * 150),
        ("o4-mini", 2_642),  # 1536 x 1.72 = 2641.92
        ("gpt-5", 70 + 8 * 140),
        ("gpt-5-nano", 3_779),
        ("gpt-5.4", None),
        ("gpt-4o-audio-preview", None),
    ],
)
def test_an_image_is_at_most_what_the_models_page_says(model, most):
    assert image_tokens("openai", model) == most
    assert image_tokens("azure", model) == most
    assert image_tokens("anthropic", model) is None


def test_an_image_has_a_bound_where_its_model_has_one_and_other_parts_have_none():
    assert bound("openai", "gpt-4o", images=2, max_output_tokens=10) == (16 + 512 + 2 * 1_445, 10)
    no = "images, audio and files have no proven token bound; reserve a USD amount instead"
    assert bound("openai", "gpt-4o", images=1, other_parts=1, max_output_tokens=10) == no
    assert bound("openai", "gpt-5.4", images=1, max_output_tokens=10) == no
    assert bound("anthropic", "claude-sonnet-4-5", images=1, max_output_tokens=10) == no


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-4o", 16 + 2 * 1_500),  # the guess covers what it can be
        ("gpt-4o-mini", 16 + 2 * 48_169),
        ("gpt-5.4", 16 + 2 * 1_500),
    ],
)
def test_an_expected_hold_has_room_for_the_images(model, tokens):
    made = call("openai", model, images=2, max_output_tokens=10)
    found = expected(made, [BOOK.card("openai", model, Terms(), NOW)], Learned())
    assert found.input_tokens == tokens


def test_images_of_a_small_model_are_held_at_what_they_cost():
    made = call("openai", "gpt-4o-mini", images=1, max_output_tokens=10)
    found = worst_case(made, [BOOK.card("openai", "gpt-4o-mini", Terms(), NOW)])
    # (16 + 512 + 48,169) x 0.15 and 10 x 0.60 a million
    assert usd_text(found.usd_pico) == "0.00731055"


@pytest.mark.parametrize(
    ("model", "held", "image"),
    [
        # (16 + 512) x 0.30 and 2,000 x 30 a million; an image of 1,290 tokens
        ("gemini-2.5-flash-image", "0.0601584", "0.0387003"),
        # 528 x 2 and 2,000 x 120; the same
        ("gemini-3-pro-image-preview", "0.241056", "0.154802"),
    ],
)
def test_an_answer_that_may_be_an_image_is_held_as_one(model, held, image):
    found = worst_case(call("google", model, max_output_tokens=2_000), BOOK.cards_for_bound("google", model, None, NOW))
    assert usd_text(found.usd_pico) == held
    drawn = Usage(buckets={"input_uncached": 1, "output_image": 1_290})
    cost = BOOK.price(drawn, provider="google", model=model, requested=model, at=NOW)
    assert usd_text(cost.pico) == image
    assert cost.pico <= found.usd_pico


@pytest.mark.parametrize(
    ("model", "held"),
    # 528 tokens at what a write costs, or at the input's price; and 10 tokens of output
    [("openai/o3", "0.001066"), ("gpt-oss-120b", "0.001066"), ("llama-9", "0.000538")],
)
def test_another_seller_of_openais_models_is_held_at_unasked_cache_writes(model, held):
    book = PriceBook({model: Price(input="1", output="1", cache_write="2")})
    found = worst_case(call("acme", model, max_output_tokens=10), book.cards_for_bound("acme", model, None, NOW))
    assert usd_text(found.usd_pico) == held


# -- answers that nobody will see


@pytest.mark.parametrize(
    ("model", "limit", "choices", "output"),
    [
        ("gpt-4o", None, 1, 16_384),  # the model's own maximum
        ("gpt-4o", 700, 1, 700),
        ("gpt-4o", 700, 3, 2_100),
        ("brand-new", 700, 2, 1_400),
        ("brand-new", None, 1, 90),  # nothing bounds it: as large as others were
    ],
)
def test_an_answer_in_the_background_is_held_at_the_most_it_may_have(model, limit, choices, output):
    made = call("openai", model, max_output_tokens=limit, choices=choices, background=True)
    assert expected(made, [], Learned(outputs=(90,) * 20)).output_tokens == output
    seen = call("openai", model, max_output_tokens=limit, choices=choices)
    assert expected(seen, [], Learned(outputs=(90,) * 20)).output_tokens == 90


# -- counted prompts


def test_a_prompt_counted_by_its_own_tokenizer_is_held_as_that():
    assert bound("openai", "gpt-4o", text_bytes=900, text_tokens=200, max_output_tokens=10) == (16 + 512 + 200, 10)
    assert bound("openai", "gpt-4o", text_bytes=3, text_tokens=15, max_output_tokens=10) == (16 + 512 + 3, 10)
