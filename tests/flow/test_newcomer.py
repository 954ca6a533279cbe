"""What a new user gets wrong: each is a flow that sent, spent or said nothing where it should have spoken."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ai_budget_callbacks import Budget, BudgetExceeded, Price, PriceUnknown
from tests.flow.kit import audit, chat, read_back
from tests.support.provider import Reply

USAGE = {"text": "Four.", "input_tokens": 1000, "output_tokens": 100}
ZZ = {"zz": {"input": "1", "output": "2"}}


def config(*handlers, **more):
    return {"callbacks": list(handlers), **more}


# -- a price that is not whole


@pytest.mark.parametrize(
    ("price", "lacks"), [(Price(input="1"), "output"), (Price(output="1"), "input"), (Price(request="1"), "input")]
)
@pytest.mark.parametrize("reserve", ["expected", "worst_case", "none", "0.0001"])
def test_a_chat_model_whose_price_is_not_whole_is_refused(serve, handler, ledger, price, lacks, reserve):
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="0.0006"), prices={"zz": price}, reserve=reserve)
    for _ in range(30):
        with pytest.raises(PriceUnknown) as refused:
            chat(far, model="zz", max_completion_tokens=100).invoke("hi", config=config(budget))
    assert f"the price of 'zz' has no {lacks}" in str(refused.value), str(refused.value)
    assert f'{lacks}="…"' in str(refused.value), "it must say what to give"
    audit(far, ledger, requests=0, entries=0)


def test_an_output_that_costs_nothing_is_said_so(serve, handler, ledger):
    far = serve(Reply(**USAGE), prices={"zz": {"input": "1", "output": "0"}})
    budget = handler(Budget(usd="1"), prices={"zz": Price(input="1", output="0")})
    chat(far, model="zz").invoke("hi", config=config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.001")


def test_an_amount_is_held_and_booked_for_a_price_that_is_not_whole(serve, handler, ledger):
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="0.12"), prices={"zz": Price(input="1")}, on_unpriced="0.05")
    with pytest.raises(BudgetExceeded):
        for _ in range(30):
            chat(far, model="zz").invoke("hi", config=config(budget))
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    assert books.statuses == ["unpriced"] * 2
    assert books.spent() == [Decimal("0.10")]


def test_of_an_unpriced_answer_at_least_the_priced_part_is_booked(serve, handler, ledger):
    """1000 input tokens at $1 a token's thousandth: the part alone is $1, and the amount is 5 cents."""
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="3"), prices={"zz": Price(input="1000")}, on_unpriced="0.05")
    with pytest.raises(BudgetExceeded):
        for _ in range(30):
            chat(far, model="zz").invoke("hi", config=config(budget))
    books = audit(far, ledger, requests=3, entries=3, exact=False)
    assert set(books.statuses) == {"unpriced"}
    assert books.column("cost_pico") == [None] * 3, "a part is no cost"
    assert books.spent() == [Decimal(3)]


def test_a_warning_budget_lets_it_go_on_and_counts_the_part(serve, handler, ledger):
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="0.0001", at_limit="warn"), prices={"zz": Price(input="1")})
    for _ in range(3):
        chat(far, model="zz").invoke("hi", config=config(budget))
    books = audit(far, ledger, requests=3, entries=3, exact=False)
    assert books.statuses == ["unpriced"] * 3
    assert books.spent() == [Decimal("0.003")]


def test_a_catalogue_model_that_has_no_output_price_is_refused_as_a_chat_model(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(usd="0.0006"))
    with pytest.raises(PriceUnknown, match="the price of 'text-embedding-3-small' has no output"):
        chat(far, model="text-embedding-3-small").invoke("hi", config=config(budget))
    assert read_back(ledger).entries == []
    assert far.requests == []
