"""The past priced again: what the real meter booked, what `reprice` makes of it, and what the file says afterwards.

Published unit prices, USD a million tokens: gpt-4o-mini 0.15 input, 0.075 cached, 0.60 output; flex of gpt-5 0.625 and 5.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ai_budget_callbacks import Budget, Price, SameAs
from ai_budget_callbacks.errors import LedgerError
from ai_budget_callbacks.ledger import Query, open_ledger
from ai_budget_callbacks.meter import Outcome
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.report import summarise
from ai_budget_callbacks.reprice import apply, difference_row, reprice
from ai_budget_callbacks.standing import standing
from ai_budget_callbacks.usage import Call, Request, Terms, Usage, Who, anthropic, openai
from tests.support.audit import read_back
from tests.support.books import audit, fork, wait

AT = datetime(2026, 11, 24, 13, tzinfo=UTC)
DAY = timedelta(days=1)
MINI = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
CACHED = MINI | {"prompt_tokens_details": {"cached_tokens": 400}}
DEARER = PriceBook({"gpt-4o-mini": Price(input="0.30", output="1.20")})


def made(call_id="a", model="gpt-4o-mini", provider="openai", **who):
    return Call(
        id=call_id, framework="direct", provider=provider, model=model, started_at=AT,
        who=Who(run_id="run-1", root_seen=True, **who), request=Request(text_bytes=400, max_output_tokens=100),
    )  # fmt: skip


def answered(raw=MINI, reader=openai.read, **fields):
    return Outcome(kind="answer", usage=reader(raw) if callable(reader) else reader, **fields)


def spend(meter, outcome=None, **fields):
    return meter.settle(meter.reserve(made(**fields)), outcome or answered())


def look(path, book=None):
    store = open_ledger(str(path), read_only=True)
    try:
        return reprice(store.entries(Query()), book or PriceBook())
    finally:
        store.close()


def post(path, book=None, at=AT + DAY):
    store = open_ledger(str(path))
    try:
        return apply(store, reprice(list(store.entries(Query())), book or PriceBook()), at)
    finally:
        store.close()


def table(found):
    return [(row["was_usd"], row["is_usd"], row["difference_usd"], row["why"]) for row in map(difference_row, found)]


BUDGETS = (
    Budget(usd="5", per="total", name="usd"),
    Budget(tokens=99_999, per="total", name="tokens"),
    Budget(calls=99, per="total", name="calls"),
)


def spent(path):
    return {row["unit"]: row["spent"] for row in read_back(path).balances}


def test_what_is_right_is_left_alone(meter, ledger):
    m = meter(BUDGETS)
    spend(m)
    spend(m, answered(CACHED), call_id="b")
    assert look(ledger) == []
    assert post(ledger) == []
    assert len(read_back(ledger).entries) == 2


def test_a_changed_price_is_one_adjustment_that_moves_every_balance(meter, ledger):
    m = meter(BUDGETS)
    spend(m, user="alice")
    # 1000 x 0.15 + 100 x 0.60 = 0.00021; at twice the price 0.00042
    found = look(ledger, DEARER)
    assert table(found) == [("0.00021", "0.00042", "0.00021", "price")]
    assert len(read_back(ledger).entries) == 1, "a dry run wrote something"
    assert [settled.fresh for settled in post(ledger, DEARER)] == [True]
    assert spent(ledger) == {"usd": 420_000_000, "tokens": 1100, "calls": 1}
    books = read_back(ledger)
    assert (books.cost_usd, books.booked_usd) == (Decimal("0.00042"), Decimal("0.00042"))
    first, second = books.entries
    assert (first["cost_pico"], second["cost_pico"], second["kind"]) == (210_000_000, 210_000_000, "adjustment")
    assert (second["adjusts"], second["user"], second["run_id"]) == (first["id"], "alice", "run-1")
    assert second["reason"] == "repriced: price"
    assert (audit(ledger), m.ledger.verify()) == ([], [])
    assert post(ledger, DEARER) == [], "a second run found something"
    assert [found.left for found in look(ledger)] == [True], "a price of one's own was taken back by the list"
    summary = summarise(m.entries())
    assert (summary.calls, summary.cost_usd, summary.input_tokens) == (1, Decimal("0.00042"), 1000)
    assert summary.by("model")["gpt-4o-mini"].cost_usd == Decimal("0.00042")
    assert m.balances()[0].spent == Decimal("0.00042")


def test_prices_that_go_to_and_fro_end_where_they_began(meter, ledger):
    spend(meter(BUDGETS))
    for book in (DEARER, None, DEARER, None):
        # the catalogue's word again after a price of one's own: only where that is given up on purpose
        post(ledger, book or PriceBook({"gpt-4o-mini": Price(input="0.15", output="0.60")}))
    assert (spent(ledger)["usd"], read_back(ledger).cost_usd) == (210_000_000, Decimal("0.00021"))
    assert audit(ledger) == []


def test_a_price_that_was_missing_makes_the_call_priced(meter, ledger):
    """1000 x 2 + 100 x 8 = 0.0028; $0.05 was booked for want of a price."""
    m = meter(BUDGETS, on_unpriced="0.05")
    entry = spend(m, model="brand-new")
    assert (entry.status, spent(ledger)["usd"]) == ("unpriced", 50_000_000_000)
    book = PriceBook({"brand-new": Price(input="2", output="8")})
    assert table(look(ledger, book)) == [("", "0.0028", "0.0028", "unpriced → priced")]
    post(ledger, book)
    assert spent(ledger) == {"usd": 2_800_000_000, "tokens": 1100, "calls": 1}
    total = summarise(m.entries()).totals
    assert (total.cost_usd, total.booked_usd, total.unpriced_calls) == (Decimal("0.0028"), Decimal("0.0028"), 0)
    assert (m.ledger.verify(), audit(ledger)) == ([], [])


def test_one_without_a_price_today_is_left_and_named(meter, ledger):
    spend(meter(BUDGETS, on_unpriced="0.05"), model="brand-new")
    (found,) = look(ledger)
    assert (found.left, "does not know 'brand-new'" in found.why) == (True, True)
    assert post(ledger) == []


def stale(**buckets):
    """A usage as a reader with a fault left it: the raw usage has 400 cached tokens."""
    return Usage(buckets=buckets, reader="openai/0", raw=CACHED)


def test_a_better_reader_is_told_from_another_price(meter, ledger):
    """600 x 0.15 + 400 x 0.075 + 100 x 0.60 = 0.00018, where 0.00021 was booked."""
    m = meter(BUDGETS)
    spend(m, answered(reader=stale(input_uncached=1000, output_text=100)))
    assert table(look(ledger)) == [("0.00021", "0.00018", "-0.00003", "reader")]
    # at twice the price: 600 x 0.30 + 400 x 0.30 + 100 x 1.20
    assert table(look(ledger, DEARER)) == [("0.00021", "0.00042", "0.00021", "reader + price")]
    post(ledger)
    assert read_back(ledger).entries[1]["usage"] == {"input_uncached": 600, "cache_read": 400, "output_text": 100}
    assert spent(ledger) == {"usd": 180_000_000, "tokens": 1100, "calls": 1}
    assert (look(ledger), m.ledger.verify()) == ([], [])


def test_a_reader_that_dropped_tokens_moves_token_balances(meter, ledger):
    m = meter(BUDGETS)
    spend(m, answered(reader=stale(input_uncached=600, output_text=100)))
    post(ledger)
    assert spent(ledger) == {"usd": 180_000_000, "tokens": 1100, "calls": 1}
    summary = summarise(m.entries())
    assert (summary.input_tokens, summary.output_tokens, summary.calls) == (1000, 100, 1)
    assert m.ledger.verify() == []


def test_searches_that_the_usage_object_does_not_show_are_not_forgotten(meter, ledger):
    """Two searches at $10 a thousand were counted in the content."""
    usage = openai.read(MINI).with_units({"web_search": 2})
    entry = spend(meter(BUDGETS), answered(reader=usage), model="gpt-4o")
    assert entry.cost_usd == Decimal("0.0235")  # 1000 x 2.50 + 100 x 10 a million, and 0.02
    assert look(ledger) == []


def test_the_tier_is_not_forgotten(meter, ledger):
    """gpt-5 flex: 1000 x 0.625 + 100 x 5 = 0.001125; OpenAI says the tier beside the usage, not in it."""
    usage = openai.read(MINI, service_tier="flex")
    entry = spend(meter(BUDGETS), answered(reader=usage), model="gpt-5")
    assert entry.cost_usd == Decimal("0.001125")
    assert look(ledger) == [], "a flex call was priced again at the standard rate"
    assert next(meter().entries()).usage.terms == Terms(service_tier="flex")


def test_an_unknown_tier_stays_unpriced_until_it_has_a_price(meter, ledger):
    usage = openai.read(MINI, service_tier="scale")
    entry = spend(meter(BUDGETS), answered(reader=usage), model="gpt-4o")
    assert entry.status == "unpriced"
    assert [found.left for found in look(ledger)] == [True], "a call of another tier was priced at the standard rate"


def test_terms_that_an_older_version_did_not_store_are_not_guessed(meter, ledger, tmp_path):
    m = meter(BUDGETS)
    entries = [
        spend(m, answered(reader=openai.read(MINI, service_tier="flex")), call_id="flex", model="gpt-5"),
        spend(m, answered(reader=openai.read(MINI, service_tier="scale")), call_id="scale", model="gpt-4o"),
    ]
    old = [replace(entry, terms=None, usage=replace(entry.usage, terms=Terms())) for entry in entries]
    (found,) = reprice(old, PriceBook())
    assert (found.call.entry.call_id, found.left, found.why) == ("scale", True, "its terms were not stored")


@pytest.mark.parametrize(
    ("terms", "usd"),
    # gpt-5: 1.25 and 10; batch and flex at half; 1000 and 100 tokens
    [(Terms(), "0.00225"), (Terms(batch=True), "0.001125"), (Terms(service_tier="flex"), "0.001125")],
    ids=["standard", "batch", "flex"],
)
def test_the_terms_of_a_call_are_those_of_its_correction(meter, ledger, terms, usd):
    """A reader that took 900 input tokens and reasoning beside the output is mended; the price is that of the terms."""
    m = meter(BUDGETS)
    stale = Usage(
        buckets={"input_uncached": 900, "output_text": 100, "output_reasoning": 7},
        reader="openai/0", raw=MINI, terms=terms, flags=("lifetimes_unseen",),
    )  # fmt: skip
    spend(m, answered(reader=stale), model="gpt-5")
    post(ledger)
    assert read_back(ledger).cost_usd == Decimal(usd)
    last = list(m.entries())[-1]
    assert (last.kind, last.terms, last.flags) == ("adjustment", terms, ("lifetimes_unseen",))
    assert look(ledger) == []


@pytest.mark.parametrize("terms", [Terms(batch=True), Terms(service_tier="flex")], ids=["batch", "flex"])
def test_terms_that_only_the_price_remembers_are_read_off_it(meter, ledger, terms):
    """An older version stored no terms; the entry's price says that it was sold in a batch."""
    entry = spend(meter(BUDGETS), answered(reader=replace(openai.read(MINI), terms=terms)), model="gpt-5")
    assert entry.cost_usd == Decimal("0.001125")
    old = replace(entry, terms=None, usage=replace(entry.usage, terms=Terms()))
    assert reprice([old], PriceBook()) == []


def test_what_we_counted_is_an_estimate_again_after_it_was_said_to_be_free(meter, ledger):
    m = meter(BUDGETS)
    m.settle(m.reserve(made()), Outcome(kind="answer", output_bytes=50))
    post(ledger, PriceBook({"gpt-4o-mini": "free"}))
    assert [entry.status for entry in m.entries()] == ["estimated", "free"]
    post(ledger, PriceBook({"gpt-4o-mini": Price(input="0.15", output="0.60")}))
    total = summarise(m.entries()).totals
    assert (total.cost_usd, total.estimated_usd) == (Decimal("0.0000384"), Decimal("0.0000384"))


def test_a_usage_that_no_reader_of_today_reads_stands_as_it_was_read(meter, ledger):
    spend(meter(BUDGETS), answered(reader=replace(openai.read(MINI), raw={"of": "another time"})))
    assert look(ledger) == []
    assert table(look(ledger, DEARER)) == [("0.00021", "0.00042", "0.00021", "price")]


def test_a_price_of_ones_own_hangs_on_no_terms(meter, ledger):
    entry = spend(meter(BUDGETS, prices={"gpt-4o-mini": Price(input="0.15", output="0.60")}))
    old = replace(entry, terms=None, usage=replace(entry.usage, terms=Terms()))
    assert [(found.left, found.cost.pico) for found in reprice([old], DEARER)] == [(False, 420_000_000)]


def test_a_late_answer_of_a_deployment_is_found_by_each_of_its_names(meter):
    m = meter(BUDGETS, prices={"chat-eu": SameAs("azure/gpt-4o")})
    opened = m.reserve(made(model="chat-eu", provider="azure"))
    m.settle(opened, Outcome(kind="unknown"))
    m.settle(opened, answered(response_model="gpt-4o-2024-08-06"))
    (call,) = standing(m.entries())
    assert [call.is_of(name) for name in ("chat-eu", "GPT-4o", "gpt-4o-2024-08-06", "gpt-4o-mini")] == [
        *(True, True, True),
        False,
    ]


def test_an_advisor_that_an_older_reader_could_not_price(meter, ledger):
    """It was flagged, and the whole answer had no price: $0.05 was booked."""
    advised = {"type": "advisor_message", "model": "claude-haiku-4-5", "input_tokens": 1000, "output_tokens": 100}
    raw = {"input_tokens": 10, "output_tokens": 100, "iterations": [advised]}
    old = Usage(
        buckets={"input_uncached": 10, "output_text": 100}, reader="anthropic/1", raw=raw, flags=("other_model",)
    )
    m = meter(BUDGETS, on_unpriced="0.05")
    entry = spend(m, answered(reader=old), provider="anthropic", model="claude-opus-4-5")
    assert entry.status == "unpriced"
    assert table(look(ledger)) == [("", "0.00405", "0.00405", "unpriced → priced + reader")]
    post(ledger)
    assert spent(ledger)["tokens"] == 1210
    assert (look(ledger), m.ledger.verify()) == ([], [])


def test_what_is_not_ours_to_price_is_left(meter, ledger):
    m = meter(BUDGETS, prices={"gpt-4o-mini": Price(input="0.10", output="0.40"), "gratis": "free"})
    spend(m)
    spend(m, call_id="b", model="gratis")
    m.charge("0.25", name="gpu")
    m.settle(m.reserve(made("c")), Outcome(kind="unknown"))
    m.settle(m.reserve(made("d")), Outcome(kind="cached"))
    raw = MINI | {"cost": 0.01}
    spend(m, answered(raw), call_id="e", provider="openrouter", model="openai/gpt-4o-mini")
    assert [(found.left, found.why) for found in look(ledger)] == [
        (True, "a price of your own, which is not given here")
    ], "a negotiated price was replaced by the list"
    assert post(ledger) == []
    # with the price given it is compared: 1000 x 0.05 + 100 x 0.20
    mine = PriceBook({"gpt-4o-mini": Price(input="0.05", output="0.20")})
    assert [(row[0], row[1]) for row in table(look(ledger, mine))] == [("0.00014", "0.00007")]


def test_a_discount_and_a_deployment_are_not_booked_back_to_the_list(meter, ledger):
    prices, factors = {"chat-eu": SameAs("openai/gpt-4o-mini", factor="1.1")}, {"openai": "0.85"}
    m = meter(BUDGETS, prices=prices, factors=factors)
    spend(m)
    spend(m, answered(response_model="gpt-4o-mini-2024-07-18"), call_id="b", model="chat-eu", provider="azure")
    assert [(found.left, found.why) for found in look(ledger)] == [
        (True, "a factor of your own, which is not given here"),
        (True, "a SameAs of your own, which is not given here"),
    ]
    assert post(ledger) == []
    assert look(ledger, PriceBook(prices, factors=factors)) == []
    # another agreement: 0.00021 x 0.85 = 0.0001785 becomes 0.00021 x 0.80; x 1.1 for the deployment
    found = look(ledger, PriceBook(prices, factors={"openai": "0.80"}))
    assert [(row[0], row[1]) for row in table(found)] == [("0.0001785", "0.000168"), ("0.00019635", "0.0001848")]


@pytest.mark.parametrize(
    ("booked", "today", "cost"),
    # 1000 x 0.15 + 100 x 0.60 at the list: 0.00021
    [
        ({"factors": {"openai": "0.85"}}, {"factors": {"openai": "1"}}, "0.00021"),  # the discount has ended
        ({"factors": {"openai": "0.85"}}, {"prices": {"gpt-4o-mini": Price(input="0.10", output="0.40")}}, "0.00014"),
        ({"factors": {"openai": "0.85"}}, {"prices": {"gpt-4o-mini": SameAs("openai/gpt-4o-mini")}}, None),
        ({"prices": {"gpt-4o-mini": Price(input="1", output="1")}}, {"factors": {"openai": "0.5"}}, None),
        (
            {"prices": {"gpt-4o-mini": Price(input="1", output="1")}},
            {"prices": {"gpt-4o-mini": SameAs("openai/gpt-4o-mini", factor="2")}},
            "0.00042",
        ),
        (
            {"prices": {"gpt-4o-mini": SameAs("openai/gpt-4o-mini", factor="2")}},
            {"prices": {"gpt-4o-mini": SameAs("openai/gpt-4o-mini")}},
            "0.00021",
        ),
        (
            {"prices": {"gpt-4o-mini": SameAs("openai/gpt-4o-mini", factor="2")}},
            {"prices": {"gpt-4o-mini": Price(input="1", output="1")}},
            "0.0011",
        ),
    ],
)
def test_one_price_of_ones_own_gives_way_to_another_that_is_given(meter, ledger, booked, today, cost):
    spend(meter(BUDGETS, **booked))
    before = read_back(ledger).cost_usd
    post(ledger, PriceBook(today.get("prices"), factors=today.get("factors")))
    assert read_back(ledger).cost_usd == (before if cost is None else Decimal(cost))


def test_a_price_that_puts_a_call_at_nothing_is_none(meter, ledger):
    """Nothing is never a price: a model that costs nothing is declared free."""
    spend(meter(BUDGETS), answered({"prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000}))
    (found,) = look(ledger, PriceBook({"gpt-4o-mini": Price(input="0", output="2")}))
    assert (found.left, found.why) == (True, "no price: the list puts it at an impossible amount")
    assert difference_row(found)["is_usd"] == "0"


def test_a_model_that_was_said_to_be_free_may_get_a_price_again(meter, ledger):
    m = meter(BUDGETS)
    spend(m)
    free = PriceBook({"gpt-4o-mini": "free"})
    post(ledger, free)
    assert (spent(ledger)["usd"], look(ledger, free)) == (0, [])
    assert [(found.left, found.why) for found in look(ledger)] == [
        (True, "a price of your own, which is not given here")
    ]
    post(ledger, PriceBook({"gpt-4o-mini": Price(input="0.15", output="0.60")}))
    assert (spent(ledger)["usd"], read_back(ledger).cost_usd) == (210_000_000, Decimal("0.00021"))
    assert (audit(ledger), m.ledger.verify()) == ([], [])


def test_a_stated_cost_is_not_replaced_by_a_price_of_ones_own(meter, ledger):
    raw = MINI | {"cost": 0.01}
    spend(meter(BUDGETS), answered(raw), provider="openrouter", model="openai/gpt-4o-mini")
    mine = PriceBook({"openai/gpt-4o-mini": Price(input="0.05", output="0.20")})
    assert [(found.left, found.why) for found in look(ledger, mine)] == [(True, "the provider stated its cost")]


def test_what_we_counted_stays_an_estimate(meter, ledger):
    """400 bytes are 160 tokens and 16 for framing, 50 bytes of answer 20: 176 x 0.15 + 20 x 0.60 a million."""
    m = meter(BUDGETS)
    entry = m.settle(m.reserve(made()), Outcome(kind="answer", output_bytes=50))
    assert (entry.status, entry.cost_usd) == ("estimated", Decimal("0.0000384"))
    assert look(ledger) == []
    post(ledger, DEARER)
    assert spent(ledger)["usd"] == 76_800_000
    total = summarise(m.entries()).totals
    assert (total.cost_usd, total.estimated_usd) == (Decimal("0.0000768"), Decimal("0.0000768"))


def test_a_cut_answer_keeps_its_hold(meter, ledger):
    """Held: 176 x 0.15 + 100 x 0.60 = 0.0000864. Seen: 10 + 1 tokens."""
    m = meter(BUDGETS)
    seen = openai.read({"prompt_tokens": 10, "completion_tokens": 1})
    entry = m.settle(m.reserve(made()), Outcome(kind="cut", usage=seen, output_bytes=4))
    assert (entry.status, entry.booked_usd) == ("estimated", Decimal("0.0000864"))
    post(ledger, DEARER)
    assert (spent(ledger)["usd"], read_back(ledger).cost_usd) == (86_400_000, Decimal("0.0000042"))
    total = summarise(m.entries()).totals
    assert (total.booked_usd, total.estimated_usd) == (Decimal("0.0000864"), Decimal("0.0000864"))
    assert m.ledger.verify() == []


def test_a_cut_answer_that_was_more_than_its_hold_follows_its_price_down_to_the_hold(meter, ledger):
    """Held: 0.0000864. Seen: 1000 x 0.15 + 100 x 0.60 = 0.00021; at half the price 0.000105, at a tenth 0.000021."""
    m = meter(BUDGETS)
    m.settle(m.reserve(made()), Outcome(kind="cut", usage=openai.read(MINI), output_bytes=4))
    assert spent(ledger)["usd"] == 210_000_000
    for prices, known, booked in (
        (Price(input="0.075", output="0.30"), "0.000105", 105_000_000),
        (Price(input="0.015", output="0.060"), "0.000021", 86_400_000),
        (Price(input="0.15", output="0.60"), "0.00021", 210_000_000),
    ):
        post(ledger, PriceBook({"gpt-4o-mini": prices}))
        assert (spent(ledger)["usd"], read_back(ledger).cost_usd) == (booked, Decimal(known))
        assert summarise(m.entries()).totals.booked_usd == Decimal(booked) / 10**12
    assert (audit(ledger), m.ledger.verify()) == ([], [])


@pytest.mark.parametrize("budgets", [BUDGETS, BUDGETS[1:]], ids=["usd", "no usd"])
def test_what_a_cut_answer_was_booked_at_for_want_of_a_hold_stays(meter, ledger, budgets):
    """Seen: 10 x 0.15 + 1 x 0.60; without holds it is booked at its estimate of 176 x 0.15 + 100 x 0.60 a million."""
    m = meter(budgets, reserve="none")
    seen = openai.read({"prompt_tokens": 10, "completion_tokens": 1})
    m.settle(m.reserve(made()), Outcome(kind="cut", usage=seen, output_bytes=4))
    post(ledger, DEARER)
    books = read_back(ledger)
    assert (books.cost_usd, books.booked_usd) == (Decimal("0.0000042"), Decimal("0.0000864"))
    assert spent(ledger).get("usd", 86_400_000) == 86_400_000
    assert (audit(ledger), m.ledger.verify()) == ([], [])


@pytest.mark.parametrize("reserve", ["expected", "none"])
def test_a_hold_that_was_kept_is_not_given_back_by_a_price_that_goes_up_and_down(meter, ledger, reserve):
    """Held, or estimated where nothing is: 0.0000864. Seen: 10 x 0.15 + 1 x 0.60 = 0.0000021, later a hundred times that."""
    m = meter(BUDGETS, reserve=reserve)
    seen = openai.read({"prompt_tokens": 10, "completion_tokens": 1})
    m.settle(m.reserve(made()), Outcome(kind="cut", usage=seen, output_bytes=4))
    for prices, booked in (
        (Price(input="15", output="60"), 210_000_000),
        (Price(input="0.15", output="0.60"), 86_400_000),
    ):
        post(ledger, PriceBook({"gpt-4o-mini": prices}))
        assert spent(ledger) == {"usd": booked, "tokens": 276, "calls": 1}
    assert (audit(ledger), m.ledger.verify()) == ([], [])


def test_a_better_reader_of_a_cut_answer_gives_no_tokens_back(meter, ledger):
    """41 tokens were seen, today's reader sees 51; 276 were held."""
    m = meter(BUDGETS[1:])
    stale = Usage(
        buckets={"input_uncached": 40, "output_text": 1},
        reader="openai/0",
        raw={"prompt_tokens": 50, "completion_tokens": 1},
    )
    m.settle(m.reserve(made()), Outcome(kind="cut", usage=stale, output_bytes=4))
    assert spent(ledger)["tokens"] == 276
    post(ledger)
    assert spent(ledger)["tokens"] == 276


def test_a_whole_answer_that_gets_a_price_costs_what_it_costs(meter, ledger):
    """What was booked for want of a price is given back: 176 x 0.15 + 20 x 0.60 a million were counted."""
    m = meter(BUDGETS, on_unpriced="0.05")
    m.settle(m.reserve(made(model="brand-new")), Outcome(kind="answer", output_bytes=50))
    assert spent(ledger)["usd"] == 50_000_000_000
    post(ledger, PriceBook({"brand-new": Price(input="0.15", output="0.60")}))
    assert (spent(ledger)["usd"], read_back(ledger).cost_usd) == (38_400_000, Decimal("0.0000384"))
    assert summarise(m.entries()).totals.estimated_usd == Decimal("0.0000384")


def test_a_cut_answer_that_had_no_price_is_an_estimate_when_it_gets_one(meter, ledger):
    m = meter(BUDGETS, on_unpriced="0.05")
    seen = openai.read({"prompt_tokens": 10, "completion_tokens": 1})
    m.settle(m.reserve(made(model="brand-new")), Outcome(kind="cut", usage=seen, output_bytes=4))
    book = PriceBook({"brand-new": Price(input="2", output="8")})
    assert table(look(ledger, book)) == [("", "0.000028", "0.000028", "unpriced → estimated")]
    post(ledger, book)
    assert spent(ledger)["usd"] == 50_000_000_000, "what was held for the part nobody saw was given back"


def test_a_late_answer_is_priced_again_too(meter, ledger):
    m = meter(BUDGETS)
    opened = m.reserve(made())
    m.settle(opened, Outcome(kind="unknown"))
    m.settle(opened, answered())
    assert look(ledger) == []
    assert table(look(ledger, DEARER)) == [("0.00021", "0.00042", "0.00021", "price")]
    post(ledger, DEARER)
    assert spent(ledger) == {"usd": 420_000_000, "tokens": 1100, "calls": 1}
    assert summarise(m.entries()).totals.unknown_pico == 0
    assert m.ledger.verify() == []


def test_a_late_answer_of_another_model_stays_that_models(meter, ledger):
    """gpt-4o-2024-05-13 costs 5 and 15, and the gpt-4o that was asked for 2.50 and 10; 900 tokens of 1000 were read."""
    m = meter(BUDGETS)
    opened = m.reserve(made(model="gpt-4o"))
    m.settle(opened, Outcome(kind="unknown"))
    stale = Usage(buckets={"input_uncached": 900, "output_text": 100}, reader="openai/0", raw=MINI)
    m.settle(opened, answered(reader=stale, response_model="gpt-4o-2024-05-13"))
    assert table(look(ledger)) == [("0.006", "0.0065", "0.0005", "reader")]
    for _ in range(2):
        post(ledger)
        assert (spent(ledger)["usd"], read_back(ledger).cost_usd) == (6_500_000_000, Decimal("0.0065"))
    assert look(ledger) == []
    found = summarise(m.entries()).by("model")
    assert {name: (totals.calls, totals.cost_usd) for name, totals in found.items()} == {
        "gpt-4o": (1, Decimal("0.0065"))
    }


def test_tokens_that_a_better_reader_moves_between_input_and_output_move_though_the_cost_is_the_same(meter, ledger):
    m = meter(BUDGETS, prices={"gpt-4o-mini": Price(input="1", output="1")})
    stale = Usage(buckets={"input_uncached": 900, "output_text": 200}, reader="openai/0", raw=MINI, flags=("odd",))
    spend(m, answered(reader=stale))
    post(ledger, m.prices)
    summary = summarise(m.entries())
    assert (summary.input_tokens, summary.output_tokens, summary.cost_usd) == (1000, 100, Decimal("0.0011"))
    last = list(m.entries())[-1]
    assert (last.kind, last.flags, last.terms) == ("adjustment", (), Terms())
    assert post(ledger, m.prices) == []


def test_a_late_answer_brings_its_content(meter, ledger):
    m = meter(BUDGETS, store_content=True)
    opened = m.reserve(made())
    m.settle(opened, Outcome(kind="unknown"))
    m.settle(opened, answered(content={"said": "four"}))
    with sqlite3.connect(ledger) as conn:
        rows = conn.execute("SELECT kind, text_bytes, content FROM entry ORDER BY id").fetchall()
    assert rows == [("call", 400, None), ("adjustment", 400, '{"said": "four"}')]


def test_what_cannot_be_corrected_is_told(meter, ledger):
    m = meter(BUDGETS)
    spend(m)
    post(ledger, DEARER)
    (item,) = look(ledger, PriceBook({"gpt-4o-mini": Price(input="3", output="3")}))
    unpriced = replace(item, cost=replace(item.cost, pico=None))
    store = open_ledger(str(ledger))
    with pytest.raises(LedgerError, match=r"Entry 1 was not corrected: a correction must say what the call cost\."):
        apply(store, [unpriced], AT)
    for number in (2, 99):
        gone = replace(item, call=replace(item.call, entry=replace(item.call.entry, id=number)))
        with pytest.raises(LedgerError, match=rf"There is no entry {number} to correct; an adjustment is corrected"):
            apply(store, [gone], AT)
    store.close()


def test_claude_is_read_again_by_its_own_reader(meter, ledger):
    """claude-opus-4-5: 10 x 5 + 1000 x 0.50 + 100 x 25 a million = 0.00305."""
    raw = {"input_tokens": 10, "cache_read_input_tokens": 1000, "output_tokens": 100}
    entry = spend(meter(BUDGETS), answered(raw, anthropic.read), provider="anthropic", model="claude-opus-4-5")
    assert entry.cost_usd == Decimal("0.00305")
    assert look(ledger) == []


def test_every_reader_of_the_package_reads_again():
    """A dot in a reader's name means that a framework counted; no reader of a provider's object has one."""
    from pathlib import Path

    import ai_budget_callbacks.usage as package

    texts = [path.read_text() for path in Path(package.__file__).parent.glob("*.py")]
    names = {name for text in texts for name in re.findall(r'"([\w.-]+/\d+)"', text)}
    assert {"openai/1", "anthropic/1", "google/1", "ollama/1"} <= names
    assert [name for name in names if "." in name] == [], "its usages would stand as they were read first"


def test_counts_of_a_framework_stand_as_they_were_read(meter, ledger):
    """LangChain's `usage_metadata` looks like OpenAI's object and names its details otherwise."""
    from ai_budget_callbacks.langchain.extract import read_usage_metadata

    found = {
        "input_tokens": 1000,
        "output_tokens": 100,
        "total_tokens": 1100,
        "input_token_details": {"cache_read": 400},
    }
    entry = spend(meter(BUDGETS), answered(reader=read_usage_metadata(found, provider="openai")))
    assert entry.cost_usd == Decimal("0.00018")
    assert look(ledger) == [], "cached tokens were read again as fresh ones"


def test_an_advisor_inside_an_answer_is_read_again_with_it(meter, ledger):
    advised = {"type": "advisor_message", "model": "claude-haiku-4-5", "input_tokens": 1000, "output_tokens": 100}
    raw = {"input_tokens": 10, "output_tokens": 100, "iterations": [advised]}
    entry = spend(meter(BUDGETS), answered(raw, anthropic.read), provider="anthropic", model="claude-opus-4-5")
    # 10 x 5 + 100 x 25, and 1000 x 1 + 100 x 5 of the advisor, a million
    assert entry.cost_usd == Decimal("0.00405")
    assert look(ledger) == []


def test_killed_between_two_adjustments(meter, ledger):
    """What was posted stays, what was not is posted by the next run: nothing twice."""
    m = meter(BUDGETS)
    for name in "abcd":
        spend(m, call_id=name)
    m.close()

    def half():
        store = open_ledger(str(ledger))
        found = reprice(list(store.entries(Query())), DEARER)

        def until_the_third():
            yield from found[:2]
            os.kill(os.getpid(), signal.SIGKILL)

        apply(store, until_the_third(), AT + DAY)

    assert wait(fork(half)) == -signal.SIGKILL
    assert audit(ledger) == []
    assert spent(ledger)["usd"] == 2 * 420_000_000 + 2 * 210_000_000
    assert len(post(ledger, DEARER)) == 2
    assert post(ledger, DEARER) == []
    assert spent(ledger) == {"usd": 4 * 420_000_000, "tokens": 4400, "calls": 4}
    assert (len(read_back(ledger).entries), audit(ledger)) == (8, [])


def test_two_that_looked_before_either_wrote(meter, ledger):
    spend(meter(BUDGETS))
    found = look(ledger, DEARER)
    store = open_ledger(str(ledger))
    assert [settled.fresh for settled in (*apply(store, found, AT), *apply(store, found, AT))] == [True, False]
    store.close()
    assert spent(ledger)["usd"] == 420_000_000, "two runs at once moved the money twice"


@pytest.mark.parametrize("declared", ["free"])
def test_a_model_declared_free_gives_its_money_back(meter, ledger, declared):
    m = meter(BUDGETS)
    spend(m)
    post(ledger, PriceBook({"gpt-4o-mini": declared}))
    assert spent(ledger) == {"usd": 0, "tokens": 1100, "calls": 1}
    assert (summarise(m.entries()).totals.free_calls, m.ledger.verify()) == (1, [])
