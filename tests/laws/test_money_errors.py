"""Money is exact text and exact integers; errors survive pickling, copying and process pools with what was paid for."""

from __future__ import annotations

import copy
import decimal
import importlib
import multiprocessing
import pickle
import re
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.budget import Budget
from ai_budget_callbacks.errors import (
    AIBudgetError,
    BudgetExceeded,
    ConfigError,
    LedgerError,
    PriceUnknown,
    UsageMissing,
)
from ai_budget_callbacks.money import INT64_MAX, exact_decimal, pico_from_usd, usd_decimal, usd_text

# -- money

AMOUNTS = st.integers(-INT64_MAX, INT64_MAX)
PLAIN = re.compile(r"-?(0|[1-9]\d*)(\.\d*[1-9])?\Z")


@settings(max_examples=500, deadline=None)
@given(AMOUNTS)
def test_money_goes_out_as_text_and_comes_back_the_same(pico):
    text = usd_text(pico)
    assert pico_from_usd(text, what="amount") == pico, "an amount changed on its way through its own text"
    assert Fraction(text) == Fraction(pico, 10**12)
    assert PLAIN.match(text), f"{text!r} is no plain decimal"


@settings(max_examples=500, deadline=None)
@given(AMOUNTS)
def test_money_goes_out_as_decimal_and_comes_back_the_same(pico):
    number = usd_decimal(pico)
    assert type(number) is Decimal
    assert pico_from_usd(number, what="amount") == pico
    assert number.as_integer_ratio() == Fraction(pico, 10**12).as_integer_ratio()


@settings(max_examples=300, deadline=None)
@given(AMOUNTS, st.integers(1, 12))
def test_the_callers_decimal_context_does_not_reach_money(pico, precision):
    with decimal.localcontext() as context:
        context.prec, context.rounding = precision, decimal.ROUND_UP
        for trap in (decimal.Inexact, decimal.Rounded, decimal.FloatOperation, decimal.Subnormal):
            context.traps[trap] = True
        text, number = usd_text(pico), usd_decimal(pico)
        back = pico_from_usd(text, what="amount"), pico_from_usd(number, what="amount")
    assert back == (pico, pico)


def test_a_context_that_traps_nothing_does_not_let_nonsense_through():
    with decimal.localcontext() as context:
        context.clear_traps()
        with pytest.raises(ConfigError):
            pico_from_usd("fifty", what="amount")


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0"),
        (1, "0.000000000001"),
        (-1, "-0.000000000001"),
        (160_000, "0.00000016"),
        (10**12, "1"),
        (1_500_000_000_000, "1.5"),
        (-1_500_000_000_000, "-1.5"),
        (100 * 10**12, "100"),
        (INT64_MAX, "9223372.036854775807"),
    ],
)
def test_money_as_people_read_it(pico, text):
    assert usd_text(pico) == text
    assert format(usd_decimal(pico), "f") == text


@settings(max_examples=300, deadline=None)
@given(st.decimals(min_value=0, max_value=9_000_000, places=12))
def test_reading_loses_nothing(amount):
    assert pico_from_usd(amount, what="amount") == Fraction(amount) * 10**12


@settings(max_examples=300, deadline=None)
@given(st.floats(min_value=1e-6, max_value=9e6).map(lambda x: round(x, 6)))
def test_a_float_literal_is_what_it_looks_like(number):
    assert pico_from_usd(number, what="amount") == Fraction(repr(number)) * 10**12


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "limit must be a decimal string, Decimal or int, not bool."),
        (None, "limit must be a decimal string, Decimal or int, not NoneType."),
        (b"1", "limit must be a decimal string, Decimal or int, not bytes."),
        ("", "limit must be a decimal number such as '0.50', not ''."),
        ("1 000", "limit must be a decimal number such as '0.50', not '1 000'."),
        ("nan", "limit must be a finite amount, not 'nan'."),
        (float("-inf"), "limit must be a finite amount, not -inf."),
        ("1e-13", "limit is finer than 1e-12 USD: '1e-13'."),
        ("1e-41", "limit is out of range: '1e-41'."),
        ("1e41", "limit is out of range: '1e41'."),
        ("1e-40", "limit is finer than 1e-12 USD: '1e-40'."),
        (
            "9223372.036854775808",
            "limit is beyond what one balance can hold (9223372.036854775807 USD): '9223372.036854775808'.",
        ),
    ],
    ids=repr,
)
def test_an_amount_that_cannot_be_held_exactly_is_refused(value, message):
    with pytest.raises(ConfigError) as caught:
        pico_from_usd(value, what="limit")
    assert caught.value.message == message


@pytest.mark.parametrize("value", ["0." + "3" * 61, "1." + "0" * 60 + "1"], ids=["thirds", "one-and-a-bit"])
def test_an_amount_of_many_digits_is_refused_as_a_config_error(value):
    with pytest.raises(ConfigError):
        pico_from_usd(value, what="limit")


def test_exact_decimal_keeps_every_digit():
    digits = "0." + "123456789" * 12
    assert format(exact_decimal(digits, what="price"), "f") == digits


# -- errors

importlib.import_module("ai_budget_callbacks.langchain.errors")  # its subclasses count too


def every_class(base: type[AIBudgetError] = AIBudgetError) -> list[type[AIBudgetError]]:
    found = [base]
    for child in base.__subclasses__():
        found += every_class(child)
    return list(dict.fromkeys(found))


CLASSES = every_class()
each_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
REFUSALS = [kind for kind in CLASSES if issubclass(kind, (BudgetExceeded, PriceUnknown))]
each_refusal = pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.__name__)

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle-{n}": lambda e, n=n: pickle.loads(pickle.dumps(e, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
}
each_way = pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)


@dataclass
class Answer:
    """Stands for a framework's response object."""

    text: str


FACTS = {
    "budget": Budget(usd="0.50", name="b"),
    "limit": Decimal("0.50"),
    "spent": Decimal("0.49"),
    "held": Decimal("0.001"),
    "needed": Decimal("0.02"),
    "resets_at": datetime(2026, 12, 1, tzinfo=UTC),
    "entry": {"id": 7},
    "response": Answer("paid for"),
}


def test_the_classes_under_test_are_all_there_are():
    names = {kind.__name__ for kind in CLASSES}
    assert names >= {
        "AIBudgetError",
        "Refusal",
        "BudgetExceeded",
        "PriceUnknown",
        "UsageMissing",
        "LedgerError",
        "ConfigError",
        "LangChainBudgetExceeded",
        "LangChainPriceUnknown",
    }
    assert len(REFUSALS) == 4


@each_class
@each_way
def test_every_error_survives_a_copy_with_its_text_and_attributes(kind, again):
    error = kind("Budget 'b' is used up.")
    error.tags = ["mine"]
    error.add_note("seen in node draft")
    twin = again(error)
    assert type(twin) is kind
    assert (str(twin), twin.message, twin.args) == ("Budget 'b' is used up.",) * 2 + (("Budget 'b' is used up.",),)
    assert twin.tags == ["mine"]
    assert twin.__notes__ == ["seen in node draft"]


@each_refusal
@each_way
def test_a_refusal_survives_a_copy_with_its_numbers_and_the_paid_answer(kind, again):
    error = kind("text", **FACTS)
    error.closes = "block-1"
    twin = again(error)
    assert {name: getattr(twin, name) for name in FACTS} == FACTS, "what was paid for, or why, got lost in a copy"
    assert twin.closes == "block-1"


@each_way
def test_missing_usage_keeps_the_answer_and_the_entry(again):
    twin = again(UsageMissing("text", entry={"id": 7}, response=Answer("paid for")))
    assert (twin.entry, twin.response) == ({"id": 7}, Answer("paid for"))


@each_refusal
def test_an_answer_that_cannot_be_pickled_is_dropped_and_nothing_else_is(kind):
    error = kind("text", **{**FACTS, "response": threading.Lock()})
    twin = pickle.loads(pickle.dumps(error))
    assert twin.response is None
    assert {name: getattr(twin, name) for name in FACTS if name != "response"} == {
        name: value for name, value in FACTS.items() if name != "response"
    }
    assert error.response is not None, "pickling took the answer from the original"


def test_a_plain_copy_keeps_an_answer_that_cannot_be_pickled():
    answer = threading.Lock()
    assert copy.copy(BudgetExceeded("text", response=answer)).response is answer


@each_refusal
def test_a_later_refusal_of_the_same_run_has_the_numbers_and_not_the_first_answer(kind):
    error = kind("text", **FACTS)
    later = error.again()
    assert later is not error
    assert type(later) is kind
    assert (later.response, later.entry) == (None, None), "one answer would be handed out twice"
    assert (later.spent, later.limit, later.budget) == (FACTS["spent"], FACTS["limit"], FACTS["budget"])
    assert error.response == FACTS["response"]


def refuse_in_a_worker(what: str) -> None:
    response = threading.Lock() if what == "unpicklable" else Answer("paid for")
    raise BudgetExceeded("no room", **{**FACTS, "response": response})


def test_a_refusal_crosses_a_process_pool_and_the_pool_lives_on():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        unpicklable, plain = (pool.submit(refuse_in_a_worker, what) for what in ("unpicklable", "plain"))
        with pytest.raises(BudgetExceeded, match="no room") as dropped:
            unpicklable.result(60)
        with pytest.raises(BudgetExceeded, match="no room") as kept:
            plain.result(60)
    assert dropped.value.response is None
    assert kept.value.response == Answer("paid for")
    assert kept.value.spent == Decimal("0.49")


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (BudgetExceeded, (AIBudgetError, RuntimeError)),
        (PriceUnknown, (AIBudgetError, RuntimeError)),
        (UsageMissing, (AIBudgetError, RuntimeError)),
        (LedgerError, (AIBudgetError, RuntimeError)),
        (ConfigError, (AIBudgetError, ValueError)),
    ],
)
def test_errors_are_caught_by_their_documented_bases(kind, bases):
    for base in bases:
        assert issubclass(kind, base)
    assert issubclass(kind, Exception)


def test_a_price_unknown_is_no_budget_exceeded():
    assert not issubclass(PriceUnknown, BudgetExceeded)
    assert not issubclass(BudgetExceeded, PriceUnknown)


@pytest.mark.parametrize("kind", [kind for kind in REFUSALS if kind.__name__.startswith("LangChain")])
def test_langchains_own_retries_leave_a_refusal_alone(kind):
    from tests.support.versions import LACKS_MODEL_ERROR, needs

    needs(LACKS_MODEL_ERROR)
    from langchain_core.exceptions import ModelError

    error = kind("no room")
    assert isinstance(error, ModelError)
    assert error.is_retryable is False, "a refused call would be bought again by a retry"
