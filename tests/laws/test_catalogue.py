"""What is read from the catalogue: each kind of unit at its published price, tiers and batches, how a name was matched."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from ai_budget_callbacks.pricing import RateCard, Unpriced
from ai_budget_callbacks.pricing.card import price_usage
from ai_budget_callbacks.pricing.catalogue import Catalogue, catalogue
from ai_budget_callbacks.usage import Terms
from tests.support.goldens import NOW, usage


def card(provider: str, model: str, at: datetime = NOW, **terms) -> RateCard:
    found = catalogue().card(provider, model, Terms(**terms), at)
    assert isinstance(found, RateCard), found
    return found


def reason(provider: str, model: str, at: datetime = NOW, **terms) -> str:
    found = catalogue().card(provider, model, Terms(**terms), at)
    assert isinstance(found, Unpriced), found
    return found.reason


# USD for a million tokens, or for a thousand units, as genai-prices 0.2.3 prints them
@pytest.mark.parametrize(
    ("provider", "model", "bucket", "usd", "per"),
    [
        ("openai", "gpt-realtime", "input_uncached", "4", 1_000_000),
        ("openai", "gpt-realtime", "cache_read", "0.4", 1_000_000),
        ("openai", "gpt-realtime", "output_text", "16", 1_000_000),
        ("openai", "gpt-realtime", "input_audio", "32", 1_000_000),
        ("openai", "gpt-realtime", "cache_read_audio", "0.4", 1_000_000),
        ("openai", "gpt-realtime", "input_image", "5", 1_000_000),
        ("openai", "gpt-realtime", "cache_read_image", "0.5", 1_000_000),
        ("openai", "gpt-realtime", "output_audio", "64", 1_000_000),
        ("google", "gemini-3.8-live", "input_video", "1", 1_000_000),
        ("google", "gemini-2.5-flash-image", "output_image", "30", 1_000_000),
        ("perplexity", "sonar-deep-research", "output_citation", "2", 1_000_000),
        ("perplexity", "sonar-deep-research", "output_reasoning", "3", 1_000_000),
        ("anthropic", "claude-sonnet-4-6", "cache_write_5m", "3.75", 1_000_000),
        ("anthropic", "claude-sonnet-4-6", "cache_write_1h", "6", 1_000_000),
        ("openai", "gpt-5.6", "cache_write", "5", 1_000_000),
        ("openai", "gpt-4o", "web_search", "10", 1_000),
        ("openai", "gpt-4o", "file_search", "2.5", 1_000),
        ("perplexity", "sonar", "request_fee", "12", 1_000),
    ],
)
def test_each_kind_of_unit_is_read_at_its_printed_price(provider, model, bucket, usd, per):
    rate = card(provider, model).rates[bucket]
    assert (rate.usd, rate.per) == (Decimal(usd), per)


def test_a_tier_is_read_with_its_threshold():
    rate = card("openai", "gpt-5.4").rates["input_uncached"]
    assert [(tier.above, tier.usd) for tier in rate.tiers] == [(272_000, Decimal(5))]


@pytest.mark.parametrize(
    ("provider", "inherits"),
    [
        (
            "openai",
            {"output_reasoning": "output_text", "input_tool": "input_uncached", "cache_write": "input_uncached"},
        ),
        ("azure", {"output_reasoning": "output_text", "input_tool": "input_uncached", "cache_write": "input_uncached"}),
        ("openrouter", {"output_reasoning": "output_text", "input_tool": "input_uncached"}),
    ],
)
def test_what_is_billed_as_something_else(provider, inherits):
    assert dict(card(provider, "openai/gpt-4o" if provider == "openrouter" else "gpt-4o").inherits) == inherits


def test_a_fee_by_the_request_is_billed_once_beside_the_tokens():
    # 1000 x 1 + 100 x 1, and 0.012 for the request
    cost = price_usage(usage(input_uncached=1_000, output_text=100), card("perplexity", "sonar"))
    assert cost.pico == 1_100_000_000 + 12_000_000_000


@pytest.mark.parametrize(
    ("terms", "label", "per_million"),
    [
        ({}, "standard", "1.25"),
        ({"service_tier": "on_demand"}, "standard", "1.25"),
        ({"service_tier": "Flex"}, "service_tier=flex", "0.625"),
        ({"service_tier": "priority"}, "service_tier=priority", "2.5"),
        ({"batch": True}, "processing=batch", "0.625"),
        ({"batch": True, "service_tier": "default", "speed": "standard"}, "processing=batch", "0.625"),
        ({"speed": "Normal"}, "standard", "1.25"),
        ({"speed": ""}, "standard", "1.25"),
        ({"speed": "default"}, "standard", "1.25"),
    ],
    ids=str,
)
def test_terms_choose_the_price(terms, label, per_million):
    found = card("openai", "gpt-5", **terms)
    assert (found.source.terms, found.rates["input_uncached"].usd) == (label, Decimal(per_million))


def test_a_variant_keeps_the_fees_and_none_of_the_standard_token_prices():
    batch = card("openai", "gpt-4.1-nano", batch=True)
    assert "cache_read" in card("openai", "gpt-4.1-nano").rates
    assert "cache_read" not in batch.rates, "a standard rate beside a batch price is a wrong price"
    assert card("openai", "gpt-4o", batch=True).rates["web_search"].usd == Decimal(10)
    assert card("anthropic", "claude-opus-5", speed="FAST").source.terms == "speed=fast"


def test_a_batch_price_holds_from_its_first_day_on():
    before, since = datetime(2026, 10, 13, 23, 59, 59, tzinfo=UTC), datetime(2026, 10, 14, tzinfo=UTC)
    assert reason("openai", "gpt-4o", before, batch=True).endswith("has no price for gpt-4o at processing=batch")
    assert card("openai", "gpt-4o", since, batch=True).rates["input_uncached"].usd == Decimal("1.25")


def test_what_has_no_price_says_why():
    name = catalogue().name
    assert name == "genai-prices 0.2.3"
    assert reason("openai", "nothing") == f"{name} does not know 'nothing' of provider 'openai'"
    assert reason("azure", "phi-4-reasoning:free") == f"{name} has no price for phi-4-reasoning:free of azure"
    assert reason("openai", "gpt-4o", speed="fast") == f"{name} has no price for gpt-4o at speed=fast"
    assert reason("azure", "gpt-4o", batch=True) == f"{name} has no price for gpt-4o at processing=batch"
    assert (
        reason("openai", "gpt-5", batch=True, service_tier="flex", speed="fast")
        == "no price known for the combination {'service_tier': 'flex', 'processing': 'batch', 'speed': 'fast'}"
    )


@pytest.mark.parametrize(
    ("provider", "model", "tiers"),
    [
        ("openai", "gpt-5", ("flex", "priority", "fast")),
        ("openai", "gpt-4o", ("priority", "fast")),
        ("openai", "o1", ()),
        ("azure", "gpt-5", ()),  # tiers are their seller's own
        ("anthropic", "claude-opus-5", ()),
        ("openai", "nothing", ()),
    ],
)
def test_the_tiers_that_may_be_served(provider, model, tiers):
    assert catalogue().service_tiers(provider, model) == tiers


@pytest.mark.parametrize(
    ("provider", "model", "known", "rule"),
    [
        ("openai", "gpt-4o", "gpt-4o", "exact"),
        ("openai", "GPT-4o", "gpt-4o", "exact"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o", "exact"),  # listed by that name
        ("openai", "gpt-5.6", "gpt-5.6-sol", "exact"),
        ("openai", "gpt-5-6-sol-2026-07-01", "gpt-5.6-sol", "pattern"),
        ("openai", "ft:gpt-3.5-turbo", "ft:gpt-3.5-turbo-", "exact"),
        ("openai", "gpt-4.1-20250414", "gpt-4.1", "dated"),
        ("deepseek", "deepseek-chat-v3-0324-2026-01-31", "deepseek-chat", "dated"),  # of another of its names
        ("aws", "us.anthropic.claude-sonnet-4-6-20260101-v1:0", "regional.anthropic.claude-sonnet-4-6-v1:0", "dated"),
        ("anthropic", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5", "dated"),
        ("anthropic", "claude-sonnet-4-5-latest", "claude-sonnet-4-5", "dated"),
        ("mistral", "magistral-small-", "magistral-small", "exact"),
        ("mistral", "magistral-small-latest", "magistral-small", "dated"),
        ("mistral", "magistral-small-2509", "magistral-small", "prefix"),
        ("google", "gemini-3.5-flash-001", "gemini-3.5-flash", "dated"),  # Google numbers its versions
        ("google", "gemini-2.5-pro-preview-06-05", "gemini-2.5-pro", "dated"),
        ("google", "gemini-2.5-flash-lite-preview", "gemini-2.5-flash-lite", "exact"),
        ("google", "gemini-2.5-flash-lite-preview-2025-06-17", "gemini-2.5-flash-lite", "dated"),
        ("openai", "computer-use-anything", "computer-use", "prefix"),
        ("google", "gemini-2.5-pro-native-audio", "gemini-2.5-pro", "prefix"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "exact"),
        ("aws", "us.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0", "exact"),
        ("aws", "amazon.nova-pro-v2:0", "amazon.nova-pro-v1:0", "prefix"),  # another model
        (
            "aws",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "exact",
        ),
        (
            "aws",
            "arn:aws:bedrock:us-east-1:012345678901:inference-profile/us.anthropic.claude-sonnet-4-6",
            "regional.anthropic.claude-sonnet-4-6-v1:0",
            "exact",
        ),
        (
            "aws",
            "anthropic.claude-sonnet-4-5-20250929-v2:0",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "prefix",
        ),
    ],
)
def test_an_entry_says_how_its_model_was_found(provider, model, known, rule):
    source = card(provider, model).source
    assert (source.provider, source.model, source.rule) == (provider, known, rule)


def test_a_model_that_its_seller_lists_as_free_says_so():
    free = card("openrouter", "deepseek/deepseek-r1:free")
    assert (free.free, dict(free.rates)) == (True, {})
    assert (free.source.name, free.source.terms) == (catalogue().name, "free")
    cost = price_usage(usage(input_uncached=1), free)
    assert (cost.status, cost.pico, cost.reason) == ("free", 0, "deepseek/deepseek-r1:free is listed as free")


def test_a_list_of_ones_own_has_its_own_name_and_day():
    made = Catalogue([], name="mine", as_of=date(2026, 11, 1))
    assert (made.name, made.as_of) == ("mine", date(2026, 11, 1))
    assert made.card("openai", "gpt-4o", Terms(), NOW) == Unpriced(
        reason="mine does not know 'gpt-4o' of provider 'openai'"
    )


def test_an_address_and_a_word_name_a_provider_or_nobody():
    found = catalogue()
    assert found.provider_for_url("https://api.anthropic.com/v1/messages") == "anthropic"
    assert found.provider_for_url("https://mine.openai.azure.com/openai") == "azure"
    assert found.provider_for_url("http://localhost:11434") is None
    words = ("google_genai", "google_vertexai", "azure_openai", "mistralai", "anthropic", "ollama")
    assert [found.provider_for_name(word) for word in words] == [
        "google",
        "google",
        "azure",
        "mistral",
        "anthropic",
        None,
    ]
