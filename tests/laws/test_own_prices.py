"""Prices of one's own: deployments priced as another model, factors by provider, every part of a price; by hand."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.admission import Policy, admit
from ai_budget_callbacks.booking import Outcome, book_outcome
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import Price, PriceBook, RateCard, SameAs, Unpriced
from ai_budget_callbacks.pricing.estimate import Learned, max_output_tokens
from ai_budget_callbacks.usage import Call, Other, Request, Terms, Usage
from tests.support.corpus import index
from tests.support.goldens import NOW, usage

PICO = 10**12
ARN = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/k2j4"
# as published, USD per million: facts/pricing.md 3 and the catalogue's tests
GPT_4O = {"input_uncached": "2.50", "cache_read": "1.25", "output_text": "10"}
SONNET_4_5_IN_EUROPE = {"input_uncached": "3.30", "cache_read": "0.33", "output_text": "16.50"}


def pico(book: PriceBook, provider: str, model: str, *, asked: str | None = None, **buckets: int) -> int | None:
    return book.price(usage(**buckets), provider=provider, model=model, requested=asked, at=NOW).pico


def ceiling(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


# -- SameAs


@pytest.mark.parametrize(
    ("name", "provider", "target", "rates"),
    [
        ("chat-eu", "azure", "azure/gpt-4o-2024-08-06", GPT_4O),
        ("chat-eu", "azure", "azure_openai/gpt-4o", GPT_4O),  # the word of a client is as good
        (ARN, "aws", "aws/eu.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET_4_5_IN_EUROPE),
        (
            "fast",
            "openai",
            "anthropic/claude-haiku-4-5",
            {"input_uncached": "1", "output_text": "5"},
        ),  # a proxy's alias
        ("house/fast", "house", "openai/gpt-4o", GPT_4O),
    ],
)
def test_a_deployment_costs_what_the_model_it_is_said_to_be_costs(name, provider, target, rates):
    book = PriceBook({name: SameAs(target)})
    for bucket, usd in rates.items():
        assert pico(book, provider, name, **{bucket: 1_000}) == Fraction(usd) * PICO / 1_000, bucket
    assert book.knows(provider, name, NOW)
    assert pico(PriceBook(), provider, name, input_uncached=1) is None


def test_a_factor_on_a_deployment_multiplies_every_token_price():
    book = PriceBook({"chat-eu": SameAs("azure/gpt-4o", factor="1.1")})
    # 600 x 2.75 + 400 x 1.375 + 100 x 11 = 3300 per million
    assert pico(book, "azure", "chat-eu", input_uncached=600, cache_read=400, output_text=100) == 3_300_000_000


def test_what_answers_under_the_models_own_name_costs_what_was_declared_for_the_deployment():
    """Azure's answers name the model; the deployment that was asked for has the price."""
    book = PriceBook({"chat-eu": SameAs("azure/gpt-4o", factor="1.1")})
    assert pico(book, "azure", "gpt-4o-2024-08-06", asked="chat-eu", input_uncached=1_000) == 2_750_000_000
    assert pico(book, "azure", "gpt-4o-2024-08-06", asked="gpt-4o", input_uncached=1_000) == 2_500_000_000


def test_a_deployment_is_billed_as_it_was_held_where_its_model_has_a_price_of_ones_own_too():
    book = PriceBook({"gpt-4o": Price(input="1", output="2"), "chat-eu": SameAs("azure/gpt-4o", factor="1.1")})
    held = book.card("azure", "chat-eu", Terms(), NOW)
    assert isinstance(held, RateCard)
    assert held.rates["input_uncached"].usd == Decimal("1.1")
    assert pico(book, "azure", "gpt-4o-2024-08-06", asked="chat-eu", input_uncached=1_000) == 1_100_000_000


def test_a_deployment_has_the_tiers_the_terms_and_the_corrections_of_its_model():
    book = PriceBook({"long": SameAs("openai/gpt-5.4", factor="2"), "us": SameAs("anthropic/claude-opus-5")})
    assert pico(book, "openai", "long", input_uncached=272_000) == 272_000 * 5_000_000  # 2.50 x 2
    assert pico(book, "openai", "long", input_uncached=272_001) == 272_001 * 10_000_000  # 5 x 2
    flex = book.card("openai", "long", Terms(service_tier="flex"), NOW)
    assert isinstance(flex, RateCard)
    assert (flex.source.terms, flex.rates["input_uncached"].usd) == ("service_tier=flex", Decimal("2.50"))
    assert isinstance(book.card("openai", "long", Terms(service_tier="scale"), NOW), Unpriced)
    there = PriceBook().card("anthropic", "claude-opus-5", Terms(inference_geo="us"), NOW)
    here = book.card("anthropic", "us", Terms(inference_geo="us"), NOW)
    assert isinstance(there, RateCard)
    assert isinstance(here, RateCard)
    assert (here.rates, here.corrected) == (there.rates, there.corrected)


def test_a_bound_for_a_deployment_takes_in_every_tier_of_its_model():
    book = PriceBook({"mine": SameAs("openai/gpt-5", factor="1.5")})
    cards = book.cards_for_bound("openai", "mine", None, NOW)
    assert not isinstance(cards, Unpriced)
    found = {card.source.terms: card.rates["input_uncached"].usd for card in cards}
    assert (found["standard"], found["service_tier=flex"]) == (Decimal("1.875"), Decimal("0.9375"))
    assert found["service_tier=priority"] == Decimal("3.75")


def test_a_deployment_is_resolved_to_its_model_and_keeps_its_dated_snapshots():
    book = PriceBook({"Chat-EU": SameAs("azure/gpt-4o-2024-08-06")})
    assert book.resolved("azure", "chat-eu", NOW) == "gpt-4o"
    assert book.resolved("azure", "chat-eu-2026-01-31", NOW) == "gpt-4o"
    assert book.behind("azure", "CHAT-EU") == ("azure", "gpt-4o-2024-08-06")
    assert book.behind("azure", "gpt-4o") == ("azure", "gpt-4o")


def test_a_deployment_of_a_model_with_a_price_of_ones_own_has_that_price():
    book = PriceBook({"openai/gpt-4o": Price(input="1", output="2"), "mine": SameAs("openai/gpt-4o", factor="3")})
    assert pico(book, "any", "mine", input_uncached=1_000, output_text=1_000) == 9_000_000_000
    assert book.cards_for_bound("any", "mine", None, NOW) == [book.card("any", "mine", Terms(), NOW)]


def test_a_model_may_be_said_to_be_the_catalogues_of_its_own_name():
    book = PriceBook({"gpt-4o": SameAs("azure/gpt-4o", factor="2")})
    assert pico(book, "openai", "gpt-4o", input_uncached=1_000) == 5_000_000_000


def test_an_advisor_of_a_deployment_is_one_of_its_seller_on_its_terms():
    found = Usage(
        buckets={"input_uncached": 1_000}, others=(Other(model="claude-haiku-4-5", buckets={"input_uncached": 1_000}),)
    )
    book = PriceBook({"prod": SameAs("anthropic/claude-sonnet-4-5", factor="1.1")})
    cost = book.price(found, provider="house", model="prod", requested="prod", at=NOW)
    assert cost.pico == 3_300_000_000 + 1_100_000_000
    assert [line.model for line in cost.lines] == [None, "claude-haiku-4-5"]


def test_the_entry_says_what_was_declared_which_factors_and_the_list_price():
    book = PriceBook({"chat-eu": SameAs("azure/gpt-4o", factor="1.1")}, factors={"azure_openai": "0.9"})
    cost = book.price(usage(input_uncached=10, web_search=1), provider="azure", model="chat-eu", requested=None, at=NOW)
    source = cost.source.to_dict()
    assert (source["provider"], source["model"], source["rule"]) == ("azure", "gpt-4o", "declared")
    assert source["declared"] == "prices['chat-eu']"
    assert source["factors"] == ["0.9 by factors['azure_openai']", "1.1 by prices['chat-eu']"]
    tokens, search = (line.to_dict() for line in cost.lines)
    assert (tokens["unit_price_usd"], tokens["list_price_usd"]) == ("2.475", "2.5")
    assert (search["unit_price_usd"], "list_price_usd" in search) == ("10", False), "a fee stays at its list price"
    plain = PriceBook().price(usage(input_uncached=10), provider="azure", model="gpt-4o", requested=None, at=NOW)
    assert {"declared", "factors"}.isdisjoint(plain.source.to_dict())
    assert "list_price_usd" not in plain.lines[0].to_dict()


def test_a_deployment_that_is_said_to_be_no_model_is_an_error_before_any_call():
    with pytest.raises(ConfigError, match=r"prices\['x'\] is said to be a model without a price: .*'gpt-4oo'"):
        PriceBook({"x": SameAs("openai/gpt-4oo")})
    with pytest.raises(ConfigError, match=r"prices\['x'\]: the catalogue has no provider 'acme'"):
        PriceBook({"x": SameAs("acme/gpt-4o")})
    with pytest.raises(ConfigError, match="is said to be a model without a price"):
        PriceBook({"x": SameAs("openai/y"), "y": SameAs("openai/gpt-4o")})  # no chains
    with pytest.raises(ConfigError, match="must be what one use costs"):
        PriceBook({"tool/x": SameAs("openai/gpt-4o")})


@pytest.mark.parametrize("model", ["gpt-4o", "/gpt-4o", "openai/", "", 4])
def test_what_names_no_provider_and_model_is_refused(model):
    with pytest.raises(ConfigError, match='must be "provider/model"'):
        SameAs(model)


@pytest.mark.parametrize("factor", ["0", "-1", "85", "10.01", "x", True, None, float("nan")])
def test_what_is_no_factor_is_refused(factor):
    with pytest.raises(ConfigError) as caught:
        SameAs("openai/gpt-4o", factor=factor)
    assert caught.value.message.startswith(f"SameAs('openai/gpt-4o', factor={factor!r}) must be ")
    with pytest.raises(ConfigError, match=r"\Afactors\['openai'\].* must be "):
        PriceBook(factors={"openai": factor})


def test_the_largest_factor_is_ten():
    assert SameAs("openai/gpt-4o", factor=10).factor == 10


# -- holds for a deployment


def call(model: str, provider: str = "azure", **request) -> Call:
    return Call(id="1", framework="direct", provider=provider, model=model, started_at=NOW, request=Request(**request))


@pytest.mark.parametrize("mode", ["expected", "worst_case"])
def test_a_deployment_is_held_like_its_model_times_the_factor(mode):
    book = PriceBook({"chat-eu": SameAs("openai/gpt-5", factor="3")})
    policy = Policy.read(mode, "refuse")

    def admitted(made: Call):
        return admit(made, [], book, policy, lambda _: Learned())

    ours = admitted(call("chat-eu", text_bytes=1_000)).estimate
    model = admitted(call("gpt-5", "openai", text_bytes=1_000)).estimate
    assert (ours.input_tokens, ours.output_tokens) == (model.input_tokens, model.output_tokens)
    assert ours.usd_pico == 3 * model.usd_pico
    if mode == "worst_case":
        assert ours.output_tokens == max_output_tokens("openai", "gpt-5")


def test_a_deployment_has_the_limits_of_its_model_whatever_its_own_name_is_one_of():
    """One that is called gpt-4o and is Claude is bounded as Claude, and one of an unknown provider as its model."""
    book = PriceBook({"gpt-4o": SameAs("anthropic/claude-opus-4-5"), "house/gpt-5": SameAs("openai/gpt-5")})
    policy = Policy.read("worst_case", "refuse")

    def most_output(provider: str, model: str) -> int:
        return admit(call(model, provider, text_bytes=9), [], book, policy, lambda _: Learned()).estimate.output_tokens

    assert most_output("openai", "gpt-4o") == max_output_tokens("anthropic", "claude-opus-4-5")
    assert most_output("house", "gpt-5") == max_output_tokens("openai", "gpt-5")


def test_a_deployment_of_a_model_that_thinks_out_of_sight_keeps_its_hold():
    """Visible text bounds nothing where the model behind the name reasons; the adapter knows the name alone."""
    made = call("chat-eu", text_bytes=1_000)

    def booked(model: str):
        book = PriceBook({"chat-eu": SameAs(model)})
        admission = admit(made, [], book, Policy.read("expected", "refuse"), lambda _: Learned())
        outcome = Outcome(kind="answer", output_bytes=10)
        return book_outcome(made, outcome, admission, book, Policy.read("expected", "refuse"), store_content=False)

    assert (booked("openai/gpt-5").keep_hold, booked("openai/gpt-4o").keep_hold) == (True, False)


# -- factors


def test_a_factor_multiplies_the_list_prices_of_its_provider_and_nothing_else():
    book = PriceBook({"mine": Price(input="1")}, factors={"openai": "0.85"})
    assert pico(book, "openai", "gpt-4o", input_uncached=1_000) == 2_125_000_000
    assert pico(book, "openai", "gpt-4o", web_search=1) == 10_000_000_000, "a fee by the use is at its list price"
    assert pico(book, "azure", "gpt-4o", input_uncached=1_000) == 2_500_000_000
    assert pico(book, "openai", "mine", input_uncached=1_000) == 1_000_000_000
    assert book.card("openai", "mine", Terms(), NOW).source.factors == ()
    assert PriceBook(factors={"openai": 1}).card("openai", "gpt-4o", Terms(), NOW).listed is None


def test_a_factor_takes_in_what_a_model_bills_by_the_hour_or_the_unit_of_work():
    # whisper: 0.006 a minute
    assert pico(PriceBook(factors={"openai": "0.5"}), "openai", "whisper-1", audio_seconds=60) == 3_000_000_000
    # rerank: 2.00 a thousand, a price we added
    assert pico(PriceBook(factors={"cohere": "0.5"}), "cohere", "rerank-v3.5", rerank_search_unit=1) == 1_000_000_000


def test_a_factor_never_touches_a_cost_the_provider_stated():
    raw = {"cost_in_usd_ticks": 37_756_000}
    stated = replace(usage(input_uncached=10), raw=raw)
    book = PriceBook(factors={"x-ai": "0.5"})
    cost = book.price(stated, provider="x-ai", model="grok-4", requested="grok-4", at=NOW)
    assert (cost.status, cost.pico, cost.source.factors) == ("reported", 3_775_600_000, ())


def test_a_discount_lowers_no_bound_where_the_provider_may_state_the_cost():
    def dearest(factor: str) -> int:
        cards = PriceBook(factors={"x-ai": factor}).cards_for_bound("x-ai", "grok-4", None, NOW)
        assert not isinstance(cards, Unpriced)
        return max(card.dearest(("input_uncached",), 1_000, 1_000) for card in cards)

    assert dearest("0.5") == dearest("1")
    assert dearest("2") == 2 * dearest("1")


def test_a_free_model_stays_free():
    book = PriceBook({"mine": "free"}, factors={"openai": "2"})
    assert book.price(usage(input_uncached=1), provider="openai", model="mine", requested=None, at=NOW).status == "free"


def test_a_factor_of_a_provider_nobody_knows_is_an_error():
    with pytest.raises(ConfigError, match=r"factors\['acme'\]: the catalogue has no provider of that name"):
        PriceBook(factors={"acme": "0.85"})


FACTORS = st.decimals(min_value="0.0001", max_value="10", places=4)


@settings(max_examples=200, deadline=None)
@given(FACTORS, FACTORS, st.dictionaries(st.sampled_from(sorted(GPT_4O)), st.integers(1, 10**7), min_size=1))
def test_factors_are_exact(ours, its, buckets):
    """Each line is count x list price x factors, rounded up to a pico-dollar once; the list price is on the line."""
    book = PriceBook({"d": SameAs("openai/gpt-4o", factor=its)}, factors={"openai": ours})
    for model, factor in (("gpt-4o", Fraction(ours)), ("d", Fraction(ours) * Fraction(its))):
        cost = book.price(usage(**buckets), provider="openai", model=model, requested=None, at=NOW)
        for line in cost.lines:
            listed = Fraction(GPT_4O[line.bucket])
            assert line.amount_pico == ceiling(line.count * listed * factor * PICO / 1_000_000)
            assert Fraction(line.unit_price_usd) == listed * factor
            assert Fraction(line.list_price_usd or line.unit_price_usd) == listed
        assert cost.pico == sum(line.amount_pico for line in cost.lines)


@pytest.mark.parametrize(
    "behind", ["free", Price(input="1000", output="1000"), SameAs("openai/gpt-4o-mini")], ids=["free", "dear", "listed"]
)
def test_a_deployment_with_a_price_is_billed_as_it_was_held_whatever_the_name_in_the_answer_costs(behind):
    book = PriceBook({"chat-eu": Price(input="10", output="10"), "gpt-4o-mini": behind})
    for model in ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "chat-eu"):
        cost = book.price(usage(input_uncached=1_000), provider="azure", model=model, requested="chat-eu", at=NOW)
        assert (cost.status, cost.pico) == ("priced", 10_000_000_000)


def test_a_deployment_may_have_the_name_of_another_sellers_model():
    book = PriceBook({"mistral-large-latest": Price(input="10", output="10"), "gpt-4o": Price(input="1", output="1")})
    for requested, expected in (("gpt-4o", 1), ("mistral-large-latest", 10), ("gpt-4o", 1)):
        found = usage(input_uncached=1_000)
        cost = book.price(found, provider="azure", model="gpt-4o-2024-08-06", requested=requested, at=NOW)
        assert cost.pico == expected * 1_000_000_000


def test_a_model_that_is_said_to_be_another_is_that_whatever_answers():
    book = PriceBook({"gpt-4o-mini": SameAs("openai/gpt-4o", factor="2"), "gpt-4.1": Price(input="1", output="1")})
    # 2.50 x 2 a million
    cost = book.price(usage(input_uncached=1_000), provider="openai", model="gpt-4.1", requested="gpt-4o-mini", at=NOW)
    assert cost.pico == 5_000_000_000


def test_a_name_without_a_price_leaves_it_to_the_name_in_the_answer():
    book = PriceBook({"gpt-4o": Price(input="1", output="1")})
    cost = book.price(usage(input_uncached=1_000), provider="azure", model="gpt-4o", requested="router-x", at=NOW)
    assert cost.pico == 1_000_000_000


def test_a_model_that_answers_for_another_costs_what_was_declared_for_it():
    """A router's fallback: both are models, and the one that worked is billed."""
    book = PriceBook({"gpt-4o": Price(input="1", output="1"), "gpt-4.1": Price(input="10", output="10")})
    found = [
        book.price(usage(input_uncached=1_000), provider="openai", model=model, requested="gpt-4o", at=NOW).pico
        for model in ("gpt-4o", "gpt-4o-2024-08-06", "gpt-4.1")
    ]
    assert found == [1_000_000_000, 1_000_000_000, 10_000_000_000]


@pytest.mark.parametrize(
    ("word", "provider", "model"),
    [
        ("bedrock", "aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("google_genai", "google", "gemini-2.5-pro"),
        ("azure_openai", "azure", "gpt-4o"),
        ("Azure_OpenAI".lower(), "azure", "chat-eu"),
        ("house", "house", "mine"),
    ],
)
def test_a_price_for_one_provider_may_name_it_as_a_client_does(word, provider, model):
    book = PriceBook({f"{word}/{model}": Price(input="100", output="100")})
    assert pico(book, provider, model, input_uncached=1_000) == 100_000_000_000
    assert pico(book, "groq", "openai/gpt-oss-120b", input_uncached=1_000) == pico(
        PriceBook(), "groq", "openai/gpt-oss-120b", input_uncached=1_000
    )


def test_one_model_has_one_price_and_one_provider_one_factor():
    with pytest.raises(
        ConfigError, match=r"prices\['gpt-4o'\]: that name has a price already, in other letters or another word"
    ):
        PriceBook({"GPT-4o": Price(input="1"), "gpt-4o": Price(input="2")})
    with pytest.raises(
        ConfigError, match=r"prices\['bedrock/mine'\]: that name has a price already, in other letters or"
    ):
        PriceBook({"aws/mine": Price(input="1"), "bedrock/mine": Price(input="2")})
    with pytest.raises(ConfigError, match=r"factors\['gemini'\] and factors\['google'\] are one provider's"):
        PriceBook(factors={"google": "0.5", "gemini": "0.9"})


def test_a_factor_of_one_changes_nothing_and_is_told():
    card = PriceBook(factors={"openai": "1"}).card("openai", "gpt-4o", Terms(), NOW)
    assert isinstance(card, RateCard)
    assert (card.source.factors, card.listed) == (("1 by factors['openai']",), None)
    assert pico(PriceBook(factors={"openai": "1"}), "openai", "gpt-4o", input_uncached=1_000) == 2_500_000_000
    plain = PriceBook({"d": SameAs("openai/gpt-4o")}).card("openai", "d", Terms(), NOW)
    assert isinstance(plain, RateCard)
    assert plain.source.factors == ()


# -- the parts of a Price


@pytest.mark.parametrize(
    ("part", "bucket", "count", "expected"),
    [
        ("input_image", "input_image", 1_000, 7_000_000_000),
        ("input_image", "cache_read_image", 1_000, 7_000_000_000),
        ("output_image", "output_image", 1_000, 7_000_000_000),
        ("cache_read_audio", "cache_read_audio", 1_000, 7_000_000_000),
        ("file_search", "file_search", 2, 14 * PICO),
        ("grounded_request", "grounded_request", 2, 14 * PICO),
        ("code_execution", "code_execution", 2, 14 * PICO),
        ("image", "images", 2, 14 * PICO),
        ("document_page", "document_pages", 2, 14 * PICO),
        ("rerank_search", "rerank_search_unit", 2, 14 * PICO),
        ("audio_hour", "audio_seconds", 1_800, 7 * PICO // 2),
    ],
)
def test_each_part_of_a_price_is_billed_in_its_own_unit(part, bucket, count, expected):
    assert pico(PriceBook({"mine": Price(**{part: "7"})}), "any", "mine", **{bucket: count}) == expected


def test_what_has_no_price_of_its_own_costs_what_input_or_output_does():
    found = Price(input="1", output="2").rates()
    assert {name for name, rate in found.items() if rate.usd == 1} == {
        *("input_uncached", "input_tool", "input_image", "input_video", "cache_read", "cache_read_image"),
        *("cache_write", "cache_write_5m", "cache_write_1h"),
    }
    assert {name for name, rate in found.items() if rate.usd == 2} == {
        *("output_text", "output_image", "output_citation", "output_reasoning"),
    }


@pytest.mark.parametrize("value", [Price(input="1"), "free"], ids=["price", "free"])
def test_the_entry_of_a_price_of_ones_own_says_where_it_stands(value):
    card = PriceBook({"mine": value}).card("any", "mine", Terms(), NOW)
    assert isinstance(card, RateCard)
    source = card.source
    assert (source.kind, source.name, source.model, source.rule) == ("user", "prices['mine']", "mine", "declared")
    assert (source.terms, dict(card.rates)) == (("free", {}) if value == "free" else ("standard", value.rates()))


def test_an_amount_that_is_none_is_named_by_its_bucket():
    with pytest.raises(ConfigError, match=r"\APrice\(web_search\) must be a decimal number"):
        Price(input="1", web_search="x")


def test_a_tool_has_one_price():
    with pytest.raises(ConfigError, match=r"prices\['tool/x'\] must be what one use costs"):
        PriceBook({"tool/x": Price(request="1", image="2")})


def test_images_cost_what_text_does_where_they_have_no_price_and_cached_ones_what_cached_input_does():
    plain = PriceBook({"mine": Price(input="1", output="2", cache_read="0.5")})
    assert pico(plain, "any", "mine", input_image=1_000, cache_read_image=1_000, output_image=1_000) == 3_500_000_000
    own = PriceBook({"mine": Price(input="1", cache_read="0.5", input_image="3")})
    assert pico(own, "any", "mine", input_image=1_000, cache_read_image=1_000) == 3_500_000_000


@pytest.mark.parametrize(
    ("word", "tokens", "per_million"),
    [("above", 200_000, 3), ("above", 200_001, 6), ("at_least", 199_999, 3), ("at_least", 200_000, 6)],
)
def test_a_long_request_costs_its_own_price_whole(word, tokens, per_million):
    long = {word: {200_000: Price(input="6", output="22.50")}}
    book = PriceBook({"mine": Price(input="3", output="15", **long)})
    output = {3: 15, 6: Decimal("22.50")}[per_million]
    assert pico(book, "any", "mine", input_uncached=tokens, output_text=10) == (
        tokens * per_million * 1_000_000 + 10 * output * 1_000_000
    )
    cached = pico(book, "any", "mine", cache_read=tokens - 1, input_uncached=1)
    assert cached == tokens * per_million * 1_000_000, "all input counts, and cached input is derived in each step"


def test_several_thresholds_each_hold_from_their_own_on():
    price = Price(input="1", above={200: Price(input="3"), 100: Price(input="2")}, at_least={300: Price(input="4")})
    book = PriceBook({"mine": price})
    found = [pico(book, "any", "mine", input_uncached=count) // count for count in (100, 101, 200, 201, 299, 300)]
    assert found == [1_000_000, 2_000_000, 2_000_000, 3_000_000, 3_000_000, 4_000_000]


@pytest.mark.parametrize(
    ("long", "said"),
    [
        ({"above": {200_000: Price(input="6")}}, "must name the same token prices: output is in one only"),
        ({"above": {200_000: Price(input="6", output="1", reasoning="2")}}, "reasoning is in one only"),
        ({"above": {200_000: Price(input="6", output="1", request="2")}}, "name token prices only"),
        ({"above": {200_000: Price(input="6", output="1", per=1)}}, "must be one Price"),
        ({"above": {200_000: "6"}}, "must be one Price"),
        ({"above": {2: Price(input="6", output="1", above={3: Price(input="7", output="1")})}}, "must be one Price"),
        ({"above": {2: Price(input="6", output="1", at_least={3: Price(input="7", output="1")})}}, "must be one Price"),
        (
            {"above": {2: Price(input="6", output="1", reasoning="1", cache_read="1")}},
            ": cache_read, reasoning is in one",
        ),
        ({"above": {0: Price(input="6", output="1")}}, "positive number of input tokens"),
        ({"above": {"200000": Price(input="6", output="1")}}, "positive number of input tokens"),
        ({"above": 200_000}, r"\APrice\(above=…\) is {input tokens: Price"),
        ({"at_least": 200_000}, r"\APrice\(at_least=…\) is {input tokens: Price"),
        ({"above": {0: "6"}}, r"\APrice\(above={0: …}\): the threshold is"),
        ({"at_least": {0: "6"}}, r"\APrice\(at_least={0: …}\): the threshold is"),
        (
            {"above": {1: Price(input="6", output="1")}, "at_least": {2: Price(input="6", output="1")}},
            r"\APrice\(above=…, at_least=…\) name one threshold twice\.\Z",
        ),
    ],
)
def test_a_long_requests_price_that_would_bill_nonsense_is_refused(long, said):
    with pytest.raises(ConfigError, match=said):
        Price(input="3", output="15", **long)


# names of model_limits.json, and of the recorded answers, that the catalogue takes for a model with a shorter name
DOUBTED = {
    ("google", "gemini-3.1-pro-preview-customtools"),
    ("deepseek", "deepseek-v4-flash-vision-exp"),
    ("anthropic", "claude-2.1"),
    ("aws", "us.amazon.nova-micro-v1:O"),  # a slip of the pen that Bedrock took
}


def _common() -> set[tuple[str, str]]:
    text = files("ai_budget_callbacks.pricing").joinpath("data/model_limits.json").read_text(encoding="utf-8")
    known = {(name, model) for name, table in json.loads(text).items() if isinstance(table, dict) for model in table}
    recorded = ((call["provider"], call["request_model"]) for recording in index() for call in recording["calls"])
    return known | {(PriceBook().provider(None, provider)[0], model) for provider, model in recorded if model}


def test_common_models_are_priced_without_a_doubt(caplog):
    common = _common()
    book = PriceBook()
    with caplog.at_level(logging.WARNING, "ai_budget_callbacks"):
        for provider, model in sorted(common):
            book.card(provider, model, Terms(), NOW)
    doubted = {(record.args[1], record.args[0]) for record in caplog.records}
    assert len(common) > 800
    assert doubted == DOUBTED


# -- a match by a rule that also catches other models


def test_a_price_by_an_over_wide_rule_is_said_once_with_what_to_declare(caplog):
    book = PriceBook()
    with caplog.at_level(logging.WARNING, "ai_budget_callbacks"):
        for _ in range(3):
            book.card("google", "gemini-2.5-pro-native-audio", Terms(), NOW)
            book.card("google", "gemini-2.5-pro-native-audio", Terms(service_tier="flex"), NOW)
    (said,) = caplog.messages
    assert "'gemini-2.5-pro-native-audio' of google is priced as 'gemini-2.5-pro'" in said
    assert 'prices={"gemini-2.5-pro-native-audio": SameAs("google/gemini-2.5-pro")}' in said
    caplog.clear()
    sure = PriceBook({"gemini-2.5-pro-native-audio": SameAs("google/gemini-2.5-pro")})
    assert sure.knows("google", "gemini-2.5-pro-native-audio", NOW)
    assert not caplog.messages
