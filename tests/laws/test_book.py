"""Where a price is looked for: whose API it is, which name a price of one's own is found by, which day's price holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import Price, PriceBook, RateCard, Source, Unpriced
from ai_budget_callbacks.usage import Terms
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
