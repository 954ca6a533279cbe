"""A TOML file of prices of one's own is the same as code, to the last digit; each mistake names file, key and remedy."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks import Meter, Price, SameAs
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.pricing.currency import Currency
from ai_budget_callbacks.pricing.file import price_book
from ai_budget_callbacks.usage import Terms
from tests.support.goldens import NOW, usage

PICO = 10**12
WHOLE = """
[prices]
mine = { input = 0.15, output = "0.60", cache_read = 0.1 }
"chat-eu" = { same_as = "azure/gpt-4o", factor = 1.1 }
llama = "free"
"tool/search" = { request = "0.008" }

[prices.long]
input = 3
output = 15
above = { 200000 = { input = 6, output = 22.50 } }

[factors]
openai = 0.85
anthropic = "1.05"

[currency]
code = "EUR"
rate = 0.92
date = 2026-11-20
"""
IN_CODE = {
    "mine": Price(input="0.15", output="0.60", cache_read="0.1"),
    "chat-eu": SameAs("azure/gpt-4o", factor="1.1"),
    "llama": "free",
    "tool/search": Price(request="0.008"),
    "long": Price(input="3", output="15", above={200_000: Price(input="6", output="22.50")}),
}


@pytest.fixture
def toml(tmp_path):
    """`toml(text)`: the path of a file with it."""

    def write(text: str):
        path = tmp_path / "prices.toml"
        path.write_text(text)
        return path

    return write


def costs(book: PriceBook) -> list[int | None]:
    asked = [
        ("openai", "mine", {"input_uncached": 7, "cache_read": 3, "output_text": 5}),
        ("azure", "chat-eu", {"input_uncached": 7, "output_text": 5}),
        ("any", "llama", {"input_uncached": 7}),
        ("any", "long", {"input_uncached": 200_000}),
        ("any", "long", {"input_uncached": 200_001, "output_text": 1}),
        ("openai", "gpt-4o", {"input_uncached": 7}),
        ("anthropic", "claude-haiku-4-5", {"input_uncached": 7}),
        ("tool", "search", {"request_fee": 1}),
    ]
    return [book.price(usage(**b), provider=p, model=m, requested=m, at=NOW).pico for p, m, b in asked]


def test_a_file_is_the_same_as_code(toml):
    book = price_book(toml(WHOLE))
    assert costs(book) == costs(PriceBook(IN_CODE, factors={"openai": "0.85", "anthropic": "1.05"}))
    # 7 x 2.50 x 0.85 = 14.875 and 7 x 1 x 1.05 = 7.35, per million
    assert costs(book)[5:7] == [14_875_000, 7_350_000]
    assert book.currency == Currency(code="EUR", rate=Decimal("0.92"), date=date(2026, 11, 20))
    assert book.card("any", "mine", Terms(), NOW).source.name == "prices.toml['mine']"


def test_the_environment_names_the_file_and_an_argument_goes_before_it(toml, monkeypatch):
    assert costs(price_book())[0] is None
    monkeypatch.setenv("AI_BUDGET_PRICES", str(toml(WHOLE)))
    assert costs(price_book())[0] is not None
    assert costs(price_book({}))[0] is None
    meter = Meter(ledger=":memory:")
    assert costs(meter.prices) == costs(price_book())
    meter.close()
    monkeypatch.setenv("AI_BUDGET_PRICES", "")
    assert price_book().where == "prices"


def test_a_factor_in_code_goes_before_that_of_the_file_in_whatever_word_for_the_provider(toml):
    book = price_book(toml("[factors]\nopenai = 0.85\ngoogle = 0.5"), {"gemini": "0.9"})
    # 2.50 x 0.85 and 1.25 x 0.9 a million
    assert (
        book.price(usage(input_uncached=8), provider="openai", model="gpt-4o", requested=None, at=NOW).pico
        == 17_000_000
    )
    cost = book.price(usage(input_uncached=8), provider="google", model="gemini-2.5-pro", requested=None, at=NOW)
    assert cost.pico == 9_000_000


def test_factors_hold_without_a_file_and_beside_prices_in_code():
    # 7 x 2.50 x 0.85 = 14.875 and 7 x 0.15 x 0.85 + 3 x 0.1 x 0.85 + 5 x 0.60 x 0.85 = 3.6975, per million
    factors = {"openai": "0.85"}
    assert costs(price_book(factors=factors))[5] == 14_875_000
    assert costs(price_book(IN_CODE, factors))[5] == 14_875_000
    assert costs(price_book(IN_CODE, factors))[0] == 4_350_000, "a price of one's own is what one pays"


def test_factors_in_code_go_before_those_of_the_file(toml):
    meter = Meter(ledger=":memory:", prices=str(toml(WHOLE)), factors={"openai": "0.5"})
    assert costs(meter.prices)[5:7] == [7 * 1_250_000, 7_350_000]
    meter.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[prices]\na = { inputt = "1" }', "prices.a: inputt is no part of a price; there are input, output, "),
        ("[prices]\na = { x = 1, y = 2 }", "prices.a: x, y is no part of a price; there are input, output, "),
        ("[prices]\nmy_own = 3", "prices.my_own: write {"),
        ("[prices]\na = 3", 'prices.a: write { input = "0.15", output = "0.60" }, { same_as = "provider/model" } or'),
        ('[prices]\na = { input = "-1" }', "prices.a: Price(…) amounts must not be negative."),
        ('[prices]\na = { input = "0" }', 'prices.a: All amounts of this Price are 0. A model that costs nothing is declared "free".'),
        ("[prices]\na = { input = true }", "prices.a: Price(input_uncached) must be a decimal string"),
        ("[prices]\na = { input = nan }", "prices.a: Price(input_uncached) must be a finite amount"),
        ('[prices]\n"a/b c" = { input = "x" }', 'prices."a/b c": Price(input_uncached) must be a decimal number'),
        ('[prices]\na = { same_as = "gpt-4o" }', "prices.a: SameAs('gpt-4o') must be \"provider/model\""),
        ('[prices]\na = { same_as = "openai/gpt-4o", factor = 110 }', "must be a factor above 0 and up to 10"),
        ('[prices]\na = { same_as = "openai/gpt-4o", input = "1" }', "prices.a: input is no part of a price; there are same_as, factor"),
        ('[prices]\na = { same_as = "openai/gpt-4oo" }', "prices.toml['a'] is said to be a model without a price: "),
        ("[prices]\na = { input = 1, above = 200000 }", "prices.a: write above = { 200000 = "),
        ("[prices]\na = { input = 1, above = { x = { input = 1 } } }", "prices.a: write above = { 200000 = "),
        ("[prices]\na = { input = 1, above = { 9 = { output = 1 } } }", "must name the same token prices"),
        ('[prices]\n"tool/x" = { input = "1" }', "prices.toml['tool/x'] must be what one use costs"),
        ("[factors]\nopenai = 85", "factors.openai: 85 must be a factor above 0 and up to 10: 0.85 for 15 % off"),
        ("[factors]\nacme = 0.85", "factors['acme']: the catalogue has no provider of that name"),
        ('[currency]\ncode = "euro"\nrate = 1\ndate = 2026-11-20', 'currency: code must be three capital letters such as "EUR"'),
        ('[currency]\ncode = "EUR"\nrate = 0\ndate = 2026-11-20', "currency: rate must be units of EUR for 1 USD, more than 0"),
        ('[currency]\ncode = "EUR"\nrate = true\ndate = 2026-11-20', 'currency.rate: write an amount such as "0.92"'),
        ('[currency]\ncode = "EUR"\nrate = "0.92"', "currency.date: Field required"),
        ('[currency]\ncode = "EUR"\nrate = "0.92"\ndate = "soon"', "currency.date: "),
        ('[currency]\ncode = "EUR"\nrate = "1"\ndate = 2026-11-20\nfee = 1', "currency.fee is not known; there are code, rate, date."),
        ("[models]\na = 1", "models is not known; there are prices, factors, currency."),
        ("[prices\n", "is no TOML file: "),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file_the_key_and_what_to_write(toml, text, said):
    path = toml(text)
    with pytest.raises(ConfigError) as caught:
        price_book(path)
    assert caught.value.message.startswith(str(path))
    assert said in caught.value.message
    assert caught.value.message.endswith(".")
    assert not caught.value.message.endswith("..")


def test_all_mistakes_are_told_at_once(toml):
    with pytest.raises(ConfigError) as caught:
        price_book(path := toml('[prices]\na = 3\nb = { inputt = "1" }\n[factors]\nopenai = 85'))
    assert all(line.startswith(f"{path}: ") and line.endswith(".") for line in caught.value.message.splitlines())
    assert [line.partition(": ")[2].partition(":")[0] for line in caught.value.message.splitlines()] == [
        "prices.a",
        "prices.b",
        "factors.openai",
    ]


def test_a_file_that_is_not_there_is_named_and_who_named_it(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="The prices in .*gone.toml cannot be read: No such file"):
        price_book(tmp_path / "gone.toml")
    monkeypatch.setenv("AI_BUDGET_PRICES", str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigError, match=r"gone.toml \(AI_BUDGET_PRICES\) cannot be read"):
        Meter(ledger=":memory:")
    with pytest.raises(ConfigError, match="or the path of a TOML file, not 3"):
        price_book(3)


# -- another currency


@pytest.mark.parametrize(
    ("usd_pico", "rate", "shown"),
    [
        (0, "0.92", "0.00"),
        (PICO, "0.92", "0.92"),
        (123_456_789 * PICO // 1_000, "0.92", "113580.25"),  # 113,580.24588
        (PICO // 8, "1", "0.12"),  # 0.125, half to even
        (145 * PICO // 1_000, "1", "0.14"),  # 0.145, half to even
        (3 * PICO // 8, "1", "0.38"),  # 0.375, half to even
        (PICO // 8 + 1, "1", "0.13"),
        (PICO // 200, "1", "<0.01"),  # half a cent goes to even, which is nothing, and nothing was not spent
        (1, "0.92", "<0.01"),
        (-PICO, "0.92", "-0.92"),
        (-1, "0.92", "-<0.01"),
        (PICO, "157.35", "157.35"),
    ],
)
def test_an_amount_in_another_currency_is_exact_to_the_cent(usd_pico, rate, shown):
    assert Currency(code="EUR", rate=rate, date=date(2026, 11, 20)).text(usd_pico) == shown


@pytest.mark.parametrize("rate", ["many", "1e400", True])
def test_what_is_no_rate_is_named(rate):
    with pytest.raises(ConfigError, match=r"\Arate "):
        Currency(code="EUR", rate=rate, date=date(2026, 11, 20))


@settings(max_examples=200)
@given(st.integers(0, 10**18), st.decimals("0.0001", "2000", places=4))
def test_what_is_shown_is_never_more_than_half_a_cent_away(pico, rate):
    shown = Currency(code="EUR", rate=rate, date=date(2026, 11, 20)).text(pico)
    exact = Fraction(pico, PICO) * Fraction(rate)
    if shown == "<0.01":
        assert 0 < exact <= Fraction(1, 200)
    else:
        assert abs(Fraction(shown) - exact) <= Fraction(1, 200)
