"""Where a price is looked for: whose API it is, which name a price of one's own is found by, which day's price holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import Price, PriceBook, RateCard, SameAs, Source, Unpriced
from ai_budget_callbacks.usage import Other, Terms
from tests.support.goldens import NOW, usage


def pico(book: PriceBook, provider: str, model: str, *, at: datetime = NOW, **buckets: int) -> int | None:
    return book.price(usage(**buckets), provider=provider, model=model, requested=None, at=at).pico


@pytest.mark.parametrize(
    ("url", "word", "found"),
    [
        (None, "openai", ("openai", True)),
        (None, "google_genai", ("google", True)),  # the client's word is not the catalogue's
        (None, "google_vertexai", ("google", True)),
        (None, "azure_openai", ("azure", True)),
        (None, "house", ("house", True)),  # unknown to the catalogue: the word stays
        (None, None, ("unknown", True)),
        (None, "", ("unknown", True)),
        ("https://api.openai.com/v1", "house", ("openai", True)),  # the address says more than the word
        ("https://openrouter.ai/api/v1", "openai", ("openrouter", True)),
        ("https://gateway.example/v1", "openai", ("openai", False)),
        ("https://gateway.example/v1", "google_genai", ("google", False)),
        ("https://gateway.example/v1", None, ("unknown", False)),
    ],
    ids=str,
)
def test_the_address_says_whose_prices_hold_and_an_unknown_one_is_uncertain(url, word, found):
    assert PriceBook().provider(url, word) == found


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("mine", 1_000_000),
        ("MINE", 1_000_000),
        ("mine-2026-01-31", 1_000_000),
        ("mine-20260131", 1_000_000),
        ("mine@20260131", 1_000_000),
        ("mine-2026-02-28", 7_000_000),  # a price of its own
        ("mine-2026", None),
        ("mine-20260131-preview", None),
        ("mine-mini", None),
    ],
)
def test_a_price_of_ones_own_holds_for_dated_snapshots_and_nothing_else(model, expected):
    book = PriceBook({"Mine": Price(input="1"), "mine-2026-02-28": Price(input="7")})
    assert pico(book, "any", model, input_uncached=1) == expected


def test_a_price_for_one_provider_is_found_in_any_case_and_only_there():
    book = PriceBook({"House/My-Model": Price(input="3"), "my-model": Price(input="1")})
    assert [pico(book, name, "my-model", input_uncached=1) for name in ("House", "house", "other")] == [
        3_000_000,
        3_000_000,
        1_000_000,
    ]
    assert book.own("house", "my-model").source.name == "prices['House/My-Model']"


def test_the_provider_ends_at_the_first_slash_of_a_name():
    book = PriceBook({"house/team/model": Price(input="3")})
    assert pico(book, "house", "team/model", input_uncached=1) == 3_000_000
    assert book.resolved("house", "team/model", NOW) == "team/model"
    assert pico(book, "any", "house/team/model", input_uncached=1) == 3_000_000, "it may be a whole name"
    assert pico(book, "house/team", "model", input_uncached=1) is None
    nested = PriceBook({"tool/web/search": Price(request="0.5")})
    assert nested.fee("tool", "web/search") is not None


def test_the_names_of_what_has_a_price_for_one_use_are_told_by_kind():
    fee = Price(request="0.5")
    book = PriceBook({"tool/a": fee, "retriever/b": fee, "tool/c": fee, "mine": Price(input="1")})
    assert (book.fees("tool"), book.fees("retriever"), book.fees("reranker")) == (["a", "c"], ["b"], [])


def test_a_dated_name_is_resolved_to_the_catalogues():
    assert PriceBook().resolved("openai", "gpt-4o-2024-08-06", NOW) == "gpt-4o"


def test_a_price_changes_in_the_second_it_changes_whatever_was_looked_up_before():
    # o3 fell from 10 to 2 on 2025-06-10
    change, second = datetime(2025, 6, 10, tzinfo=UTC), timedelta(seconds=1)
    book = PriceBook()
    for at, expected in ((change - second, 10_000_000), (change, 2_000_000), (change - second, 10_000_000)):
        assert pico(book, "openai", "o3", at=at, input_uncached=1) == expected


def test_a_bound_by_a_price_of_ones_own_knows_no_other_card():
    book = PriceBook({"gpt-5": Price(input="1", output="1")})
    assert book.cards_for_bound("openai", "gpt-5", None, NOW) == [book.own("openai", "gpt-5")]


def test_a_bound_takes_in_every_tier_and_speed_that_may_be_served():
    def terms(*asked: str | None, model: str = "gpt-5", provider: str = "openai", speed: str | None = None) -> set[str]:
        cards = PriceBook().cards_for_bound(provider, model, *asked, NOW, speed=speed)
        assert not isinstance(cards, Unpriced)
        return {card.source.terms for card in cards}

    everything = {"standard", "service_tier=flex", "service_tier=fast", "service_tier=priority"}
    assert terms(None) == terms("auto") == terms("") == everything
    assert terms("flex") == {"standard", "service_tier=flex"}
    assert terms("default") == {"standard"}
    assert terms(None, model="gpt-4o", provider="azure") == {"standard"}
    assert terms(None, model="claude-opus-5", provider="anthropic", speed="fast") == {"standard", "speed=fast"}


def test_a_card_is_the_same_one_the_second_time():
    book = PriceBook()
    first = book.card("openai", "gpt-4o", Terms(), NOW)
    assert isinstance(first, RateCard)
    assert book.card("openai", "gpt-4o", Terms(), NOW + timedelta(seconds=59)) is first


def test_a_price_of_one_use_with_a_second_rate_is_refused():
    with pytest.raises(ConfigError, match="must be what one use costs"):
        PriceBook({"tool/search": Price(web_search="1", request="0.5")})


def test_a_price_of_ones_own_says_that_the_user_declared_it():
    book = PriceBook({"Mine": Price(input="1"), "llama": "free"})
    mine, llama = book.own("any", "mine"), book.own("any", "llama")
    assert mine.source == Source(kind="user", name="prices['Mine']", model="Mine", rule="declared", terms="standard")
    assert llama.source == Source(kind="user", name="prices['llama']", model="llama", rule="declared", terms="free")
    assert (mine.free, llama.free, dict(llama.rates)) == (False, True, {})


# -- what is known of a name


@pytest.mark.parametrize(
    ("provider", "model", "known"),
    [
        ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("google", "publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("openai", "ft:gpt-4o-2024-08-06:acme::9xYz", "ft:gpt-4o-2024-08-06"),
        ("openrouter", "openai/gpt-4o:nitro", "openai/gpt-4o"),
        (
            "aws",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0",
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
    ],
)
def test_a_name_is_looked_up_without_where_it_lives(provider, model, known):
    book = PriceBook()
    plain, itself = book.card(provider, known, Terms(), NOW), book.card(provider, model, Terms(), NOW)
    assert isinstance(plain, RateCard)
    assert isinstance(itself, RateCard)
    assert itself.rates == plain.rates


ARN = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/k2j4"


def test_what_has_no_price_says_why():
    book = PriceBook()
    assert book.card("aws", ARN, Terms(), NOW) == Unpriced(
        reason=f"{ARN!r} is a resource of your own and does not say which model answers; declare a price for it"
    )
    for model in ("ft:gpt-4o-2024-08-06:acme::9xYz", "us-gov.anthropic.claude-3-haiku-20240307-v1:0"):
        found = book.card("azure", model, Terms(), NOW)
        assert found == Unpriced(reason=f"{book.catalogue_name} does not know {model!r} of provider 'azure'")


WIDE = (
    "{model!r} of {provider} is priced as {known!r}, by a rule of {list} that catches other models too. Say what it is: "
    'prices={{"{model}": SameAs("{provider}/{better}")}} if that is right, else its Price(…).'
)


@pytest.mark.parametrize(
    ("provider", "model", "known", "better"),
    [
        ("google", "gemini-2.5-pro-native-audio", "gemini-2.5-pro", "gemini-2.5-pro"),
        # the list finds magistral-small under its longer names alone, so there is no better one to give
        ("mistral", "magistral-small-of-mine", "magistral-small", "magistral-small-of-mine"),
    ],
)
def test_a_rule_that_catches_other_models_is_told_once(caplog, provider, model, known, better):
    book = PriceBook()
    for minute in range(3):
        assert isinstance(book.card(provider, model, Terms(), NOW + timedelta(minutes=minute)), RateCard)
    said = WIDE.format(model=model, provider=provider, known=known, better=better, list=book.catalogue_name)
    assert caplog.messages == [said]


def test_a_deployment_said_to_be_what_such_a_rule_catches_is_told_where_there_is_a_better_name(caplog):
    book = PriceBook({"mine": SameAs("mistral/magistral-small-of-mine")})
    assert book.knows("any", "mine", NOW)
    assert not caplog.messages
    PriceBook({"mine": SameAs("google/gemini-2.5-pro-native-audio")})
    assert [message.partition(" is priced as ")[0] for message in caplog.messages] == [
        "'gemini-2.5-pro-native-audio' of google"
    ]


def test_a_deployment_of_one_provider_says_where_it_was_declared():
    book = PriceBook({"House/Fast": SameAs("openai/gpt-4o")})
    for provider, model in (("house", "fast"), ("any", "house/fast")):
        card = book.card(provider, model, Terms(), NOW)
        assert isinstance(card, RateCard)
        assert card.source.declared == "prices['House/Fast']"


# -- which of two names is billed


def test_the_model_that_answered_is_billed_and_not_the_one_that_was_asked_for():
    # 2.50 and 0.15 a million
    found = usage(input_uncached=1_000_000)
    cost = PriceBook().price(found, provider="openai", model="gpt-4o", requested="gpt-4o-mini", at=NOW)
    assert cost.pico == 2_500_000_000_000


def test_a_stated_zero_is_free_where_the_free_variant_was_asked_for():
    stated = replace(usage(input_uncached=10), raw={"cost": 0})
    for requested, status in (("deepseek/deepseek-r1:free", "free"), ("deepseek/deepseek-r1", "priced")):
        cost = PriceBook().price(
            stated, provider="openrouter", model="deepseek/deepseek-r1", requested=requested, at=NOW
        )
        assert cost.status == status


@pytest.mark.parametrize(("factor", "part"), [("1", 3_000_000_000), ("1.1", 3_300_000_000)])
def test_an_advisor_nobody_knows_makes_a_deployments_answer_unpriced(factor, part):
    advised = replace(
        usage(input_uncached=1_000), others=(Other(model="claude-nobody-knows", buckets={"input_uncached": 1}),)
    )
    book = PriceBook({"prod": SameAs("anthropic/claude-sonnet-4-5", factor=factor)})
    cost = book.price(advised, provider="anthropic", model="prod", requested="prod", at=NOW)
    assert (cost.status, cost.pico, cost.part_pico) == ("unpriced", None, part)
    assert "claude-nobody-knows" in cost.reason
