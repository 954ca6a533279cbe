"""The ledger contract: what every store promises, through the `Ledger` protocol alone.

Only the tests of tampering and immutability go past the protocol, through `store.sql`.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal

import pytest

from ai_budget_callbacks.budget import Attached, Budget
from ai_budget_callbacks.errors import ConfigError, LedgerError
from ai_budget_callbacks.ledger import NoRoom
from ai_budget_callbacks.report import run_row
from tests.support.books import (
    CALLS,
    HOUR,
    INT64_MAX,
    NOW,
    TOKENS,
    USD,
    call,
    claim,
    correction,
    everything,
    fork,
    key,
    posting,
    state,
    usage,
    wait,
    want,
)

LIMIT = 1_000
OTHER = key("boss")
ALL = (USD, OTHER, TOKENS, CALLS)


def refused(ledger, *args, **fields):
    """The refusal of a claim, which must be one."""
    with pytest.raises(NoRoom) as caught:
        ledger.reserve(claim(*args, **fields))
    return caught.value


def books(ledger):
    """Everything a caller can see of the money."""
    balances = {balance.key: (balance.spent, balance.held) for balance in ledger.balances()}
    return balances, ledger.open_holds(), everything(ledger)


# -- reserve


def test_a_reserve_holds_on_every_balance(ledger):
    hold = ledger.reserve(claim("a", want(USD, 700, LIMIT), want(TOKENS, 30, 40), want(CALLS, 1, 2)))
    assert {hold.keys[i]: amount for i, amount in hold.amounts.items()} == {USD: 700, TOKENS: 30, CALLS: 1}
    assert hold.call.id == "a"
    assert hold.scopes == ("handler-1",)
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(0, 700), (0, 30), (0, 1)]
    assert ledger.open_holds() == 1
    assert ledger.verify() == []


@pytest.mark.parametrize("refusing", range(3))
def test_a_reserve_refused_by_one_balance_holds_on_none(ledger, refusing):
    ledger.settle(posting("before", 900, tokens=90), keys=[USD, TOKENS, CALLS])
    before = books(ledger)
    wants = [want(USD, 100, LIMIT), want(TOKENS, 10, 100), want(CALLS, 1, 2)]
    wants[refusing] = want(wants[refusing].key, wants[refusing].amount + 1, wants[refusing].limit)
    refusal = refused(ledger, "a", *wants)
    assert refusal.want == wants[refusing], "the refusal names another balance than the one that is full"
    assert (refusal.spent, refusal.held) == state(ledger, wants[refusing].key)
    assert books(ledger) == before, "a refused call left money held somewhere"


def test_a_refusal_leaves_no_trace_of_balances_never_used(ledger):
    refused(ledger, "a", want(OTHER, 1, LIMIT), want(USD, LIMIT + 1, LIMIT))
    assert books(ledger) == ({}, 0, [])
    assert state(ledger, OTHER) == (0, 0)
    ledger.settle(posting("b", 5), keys=[TOKENS])
    ledger.settle(posting("c", 7), keys=[OTHER])
    assert state(ledger, OTHER) == (7, 0), "money of one budget was booked on another"
    assert state(ledger, TOKENS) == (0, 0)


def test_a_refused_claim_that_names_a_balance_twice_does_not_misdirect_later_money(ledger):
    refused(ledger, "a", want(USD, 5, 1), want(USD, 5, 1))
    ledger.settle(posting("b", 5), keys=[OTHER])
    ledger.settle(posting("c", 7), keys=[USD])
    assert (state(ledger, OTHER), state(ledger, USD)) == ((5, 0), (7, 0)), "money of one budget was booked on another"


def test_a_settle_that_failed_does_not_change_the_unit_of_later_money(ledger):
    with pytest.raises(LedgerError):
        ledger.settle(posting("a", 0), keys=[TOKENS])  # a priced call for nothing: refused, and its new balance with it
    ledger.settle(posting("b", 80, tokens=3), keys=[USD])
    assert state(ledger, USD) == (80, 0), "dollars were booked as tokens"


@pytest.mark.parametrize("limits", [(1, 100), (100, 1), (None, 1), (1, None), (100, 1, None), (100, None, 1)])
def test_two_limits_on_one_balance_both_hold(ledger, limits):
    assert refused(ledger, "a", *(want(USD, 5, limit) for limit in limits)).want.limit == 1
    assert state(ledger, USD) == (0, 0)
    hold = ledger.reserve(claim("a", *(want(USD, 1, limit) for limit in limits)))
    assert (list(hold.amounts.values()), state(ledger, USD)) == ([1], (0, 1)), "a budget attached twice holds once"


@pytest.mark.parametrize("unit", ["usd", "tokens", "calls"])
@pytest.mark.parametrize(("spent", "held"), [(0, 0), (400, 0), (0, 400), (300, 100), (999, 0), (0, 999)])
def test_refused_exactly_where_the_room_ends(ledger, unit, spent, held):
    balance = key("edge", unit)
    amounts = {"pico": spent, "tokens": spent, "calls": spent}
    ledger.settle(posting("spent", **amounts, status="estimated"), keys=[balance])
    ledger.reserve(claim("held", want(balance, held, LIMIT)))
    remaining = LIMIT - spent - held
    refusal = refused(ledger, "over", want(balance, remaining + 1, LIMIT))
    assert (refusal.spent, refusal.held) == (spent, held)
    ledger.reserve(claim("under", want(balance, remaining - 1, LIMIT)))
    assert state(ledger, balance) == (spent, held + remaining - 1)
    refused(ledger, "two left over", want(balance, 2, LIMIT))
    ledger.reserve(claim("exact", want(balance, 1, LIMIT)))
    assert state(ledger, balance) == (spent, LIMIT - spent)
    refused(ledger, "nothing left", want(balance, 1, LIMIT))
    assert ledger.verify() == []


def test_exactly_what_remains_fits_in_one_hold(ledger):
    ledger.settle(posting("spent", 250), keys=[USD])
    ledger.reserve(claim("exact", want(USD, 750, LIMIT)))
    assert state(ledger, USD) == (250, 750), "a call for exactly the money that was left was not admitted"


@pytest.mark.parametrize(("spent", "held"), [(LIMIT, 0), (LIMIT + 1, 0), (0, LIMIT), (LIMIT - 1, 1)])
def test_a_zero_hold_is_refused_on_a_used_up_balance(ledger, spent, held):
    ledger.settle(posting("spent", spent, status="estimated"), keys=[USD])
    ledger.reserve(claim("held", want(USD, held)))
    refused(ledger, "zero", want(USD, 0, LIMIT))
    refused(ledger, "zero with a floor", want(USD, 0, LIMIT, floor=0))
    assert ledger.reserve(claim("one more", want(USD, 0, LIMIT + 2))).amounts


def test_a_zero_hold_passes_while_anything_is_free(ledger):
    ledger.settle(posting("spent", LIMIT - 1), keys=[USD])
    hold = ledger.reserve(claim("zero", want(USD, 0, LIMIT)))
    assert list(hold.amounts.values()) == [0]
    assert state(ledger, USD) == (LIMIT - 1, 0)


def test_a_lone_call_whose_floor_fits_holds_what_is_free(ledger):
    ledger.settle(posting("spent", 600), keys=[USD])
    hold = ledger.reserve(claim("lone", want(USD, 5_000, LIMIT, floor=400), want(CALLS, 1, 9)))
    assert {hold.keys[i]: amount for i, amount in hold.amounts.items()} == {USD: 400, CALLS: 1}
    assert state(ledger, USD) == (600, 400), "a partial hold must take exactly what is free"
    ledger.settle(posting("lone", 390))
    assert state(ledger, USD) == (990, 0)
    assert ledger.verify() == []


def test_a_lone_call_whose_floor_does_not_fit_is_refused(ledger):
    ledger.settle(posting("spent", 600), keys=[USD])
    refused(ledger, "lone", want(USD, 5_000, LIMIT, floor=401))
    refused(ledger, "lone", want(USD, 401, LIMIT))
    assert state(ledger, USD) == (600, 0)


def test_no_partial_hold_beside_another_hold(ledger):
    ledger.reserve(claim("first", want(USD, 1, LIMIT)))
    refused(ledger, "second", want(USD, LIMIT, LIMIT, floor=1))
    assert state(ledger, USD) == (0, 1), "two calls in flight share money that one of them was promised alone"
    ledger.release("first")
    ledger.reserve(claim("second", want(USD, LIMIT + 1, LIMIT, floor=1)))
    assert state(ledger, USD) == (0, LIMIT)


def test_the_floor_is_not_used_where_the_whole_amount_fits(ledger):
    ledger.reserve(claim("a", want(USD, 300, LIMIT, floor=1)))
    assert state(ledger, USD) == (0, 300)


def test_a_budget_that_only_warns_never_refuses(ledger):
    for index in range(3):
        ledger.reserve(claim(f"a{index}", want(USD, 10 * LIMIT), want(CALLS, 1, 3)))
    assert state(ledger, USD) == (0, 30 * LIMIT)
    refused(ledger, "a3", want(USD, 1), want(CALLS, 1, 3))
    assert state(ledger, USD) == (0, 30 * LIMIT)


def test_each_process_enforces_the_limit_it_was_given(ledger):
    ledger.reserve(claim("a", want(USD, 600, LIMIT)))
    refused(ledger, "b", want(USD, 100, 600))
    ledger.reserve(claim("c", want(USD, 1_400, 2_000)))
    assert state(ledger, USD) == (0, 2_000)


def test_windows_and_scopes_are_balances_of_their_own(ledger):
    january, february, alice = key(window="2026-01"), key(window="2026-02"), key(window="2026-01", scope='["alice"]')
    for index, balance in enumerate((january, february, alice)):
        ledger.reserve(claim(f"c{index}", want(balance, LIMIT, LIMIT)))
    assert [state(ledger, balance) for balance in (january, february, alice)] == [(0, LIMIT)] * 3
    ledger.settle(posting("c0", 10, at=NOW + 40 * 24 * HOUR))
    assert state(ledger, january) == (10, 0), "a call belongs to the window in which it was reserved"
    assert state(ledger, february) == (0, LIMIT)


# -- settle


@pytest.mark.parametrize("actual", [1, 699, 700, 701, 5_000])
def test_a_settle_books_the_truth_whatever_was_held(ledger, actual):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), want(TOKENS, 30, 40), want(CALLS, 1, 2)))
    settled = ledger.settle(posting("a", actual, tokens=55))
    assert settled.fresh
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(actual, 0), (55, 0), (1, 0)]
    assert sorted(settled.moved.values()) == sorted([(actual, actual), (55, 55), (1, 1)])
    assert (settled.entry.kind, settled.entry.status, settled.entry.booked_pico) == ("call", "priced", actual)
    assert ledger.open_holds() == 0
    assert ledger.verify() == []


def test_moved_says_what_each_balance_has_spent_after_it(ledger):
    ledger.settle(posting("a", 100), keys=[USD])
    moved = ledger.settle(posting("b", 30), keys=[USD, OTHER]).moved
    assert sorted(moved.values()) == [(30, 30), (30, 130)]


def test_a_settle_twice_changes_nothing(ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), want(CALLS, 1, 2)))
    first = ledger.settle(posting("a", 80))
    before = books(ledger)
    second = ledger.settle(posting("a", 80))
    third = ledger.settle(posting("a", 99_999, tokens=7), keys=[OTHER], scopes=["elsewhere"])
    assert (second.fresh, third.fresh) == (False, False)
    assert second.entry == third.entry == first.entry
    assert second.moved == third.moved == first.moved, "a second meter cannot see what its balances have spent"
    assert books(ledger) == before, "one answer was booked twice"
    ledger.settle(posting("b", 20), keys=[USD])
    assert (80, 80) in ledger.settle(posting("a", 80)).moved.values(), "a later call is not what this one moved"


def test_a_ledger_opened_to_be_read_says_what_is_there_and_books_nothing(store):
    if not store.shared:
        pytest.skip("a store in memory is opened once")
    store.open().settle(posting("a", 80), keys=[USD])
    reader = store.open(read_only=True)
    before = books(reader)
    assert reader.url == store.url
    assert [balance.spent for balance in reader.balances([USD])] == [80]
    with pytest.raises(LedgerError) as caught:
        reader.settle(posting("b", 20), keys=[USD])
    assert caught.value.message == f"The ledger {store.url} was opened to be read, not written."
    assert books(reader) == before


def test_an_id_used_again_is_a_call_of_its_own(ledger):
    ledger.settle(posting("a", 80), keys=[USD])
    hold = ledger.reserve(claim("a", want(USD, 50, LIMIT), scopes=("inner",)))
    assert hold.call.id == "a#2"
    again = ledger.reserve(claim("a", want(OTHER, 50, LIMIT), scopes=("outer",)))
    assert again.call.id == "a#2", "a second meter opened a hold of its own for the same call"
    assert ledger.open_holds() == 1
    assert not ledger.settle(posting("a", 80)).fresh, "the first call was booked again"
    assert ledger.settle(posting(hold.call, 30)).fresh, "a paid call was dropped because its id was used before"
    assert (state(ledger, USD), state(ledger, OTHER)) == ((110, 0), (30, 0))
    assert [entry.call_id for entry in everything(ledger, scope="outer")] == ["a#2"]
    assert ledger.reserve(claim("a", want(USD, 50, LIMIT))).call.id == "a#3"
    assert ledger.release("a#3")
    assert ledger.reserve(claim("a", want(USD, 50, LIMIT), expires=NOW)).call.id == "a#3"
    assert [entry.call_id for entry in ledger.sweep(NOW)] == ["a#3"]
    assert ledger.settle(posting("a#3", 5)).entry.kind == "adjustment"
    assert state(ledger, USD) == (115, 0)
    assert ledger.verify() == []


def test_the_hold_and_not_the_caller_says_where_a_call_is_booked(ledger):
    ledger.reserve(claim("a", want(USD, 70, LIMIT), scopes=("mine",)))
    ledger.settle(posting("a", 60), keys=[OTHER], scopes=["yours"])
    assert (state(ledger, USD), state(ledger, OTHER)) == ((60, 0), (0, 0))
    assert [entry.call_id for entry in everything(ledger, scope="mine")] == ["a"]
    assert everything(ledger, scope="yours") == []


def test_a_settle_without_a_hold_uses_keys_and_scopes(ledger):
    settled = ledger.settle(posting("a", 60, tokens=9), keys=[USD, TOKENS, CALLS], scopes=["mine", "also-mine"])
    assert settled.fresh
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(60, 0), (9, 0), (1, 0)]
    assert everything(ledger, scope="mine") == everything(ledger, scope="also-mine") == [settled.entry]


def test_a_settle_without_hold_or_keys_is_still_recorded(ledger):
    assert ledger.settle(posting("a", 60)).fresh
    assert [entry.cost_pico for entry in everything(ledger)] == [60]
    assert ledger.balances() == []


@pytest.mark.parametrize(("held", "actual", "booked"), [(700, 10, 700), (700, 700, 700), (10, 700, 700), (0, 5, 5)])
def test_keep_hold_books_at_least_the_hold(ledger, held, actual, booked):
    ledger.reserve(claim("a", want(USD, held, LIMIT), want(TOKENS, held, LIMIT), want(CALLS, 1, 2)))
    settled = ledger.settle(posting("a", actual, tokens=actual, status="estimated", keep=True))
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(booked, 0), (booked, 0), (1, 0)]
    assert settled.entry.booked_pico == booked, "the entry shows less than its balance counts"
    assert settled.entry.cost_pico == actual, "the cost shown must stay what was seen"
    assert ledger.verify() == []


def test_keep_hold_keeps_each_balances_own_hold(ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), want(OTHER, 200, LIMIT)))
    settled = ledger.settle(posting("a", 300, status="estimated", keep=True))
    assert (state(ledger, USD), state(ledger, OTHER)) == ((700, 0), (300, 0))
    assert settled.entry.booked_pico == 700
    assert ledger.verify() == []


def test_an_unpriced_call_books_its_hold_and_no_cost(ledger):
    ledger.reserve(claim("a", want(USD, 50, LIMIT), want(TOKENS, 8, LIMIT), want(CALLS, 1, 2)))
    entry = ledger.settle(posting("a", None, tokens=9, status="unpriced", reason="no price", keep=True)).entry
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(50, 0), (9, 0), (1, 0)]
    assert (entry.cost_usd, entry.booked_usd) == (None, Decimal("0.00000000005"))


def test_an_unpriced_call_with_nothing_to_book_is_null_and_not_zero(ledger):
    entry = ledger.settle(posting("a", None, tokens=9, status="unpriced"), keys=[TOKENS]).entry
    assert (entry.cost_usd, entry.booked_usd) == (None, None)
    assert everything(ledger)[0].booked_usd is None


def test_a_cache_hit_is_free_and_moves_nothing(ledger):
    ledger.reserve(claim("a", want(USD, 50, LIMIT), want(TOKENS, 8, LIMIT), want(CALLS, 1, 2)))
    entry = ledger.settle(posting("a", 0, status="free", reason="framework cache", calls=0)).entry
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(0, 0)] * 3
    assert (entry.status, entry.reason, entry.cost_usd) == ("free", "framework cache", Decimal(0))
    assert ledger.verify() == []


@pytest.mark.parametrize("status", ["priced", "reported"])
def test_a_priced_call_that_costs_nothing_is_refused_by_the_books(ledger, status):
    ledger.reserve(claim("a", want(USD, 50, LIMIT)))
    with pytest.raises(LedgerError):
        ledger.settle(posting("a", 0, status=status))
    assert state(ledger, USD) == (0, 50), "a settle that failed moved money"
    assert everything(ledger) == []


def test_a_charge_is_an_entry_of_its_own_and_no_call(ledger):
    ledger.settle(posting("a", 60), keys=[USD, CALLS])
    settled = ledger.settle(posting("fee", 8, kind="charge", calls=0), keys=[USD, CALLS])
    assert (settled.entry.kind, settled.fresh) == ("charge", True)
    assert (state(ledger, USD), state(ledger, CALLS)) == ((68, 0), (1, 0))
    assert not ledger.settle(posting("fee", 8, kind="charge", calls=0), keys=[USD, CALLS]).fresh
    assert state(ledger, USD) == (68, 0), "a fee was booked twice"


def test_a_charge_does_not_close_the_hold_of_a_call(ledger):
    ledger.reserve(claim("a", want(USD, 50, LIMIT)))
    ledger.settle(posting("a", 8, kind="charge", calls=0), keys=[OTHER])
    assert (state(ledger, USD), state(ledger, OTHER)) == ((0, 50), (8, 0))


def fee(call_id="a", **who):
    """A tool's use that is about to be made."""
    return replace(call(call_id, provider="tool", model="search", **who), kind="charge")


@pytest.mark.parametrize("first", ["call", "charge"])
def test_a_call_and_a_charge_may_share_an_id(ledger, first):
    """A framework gives both a run id of its own, but a user may give one to both."""
    claims = {"call": claim("a", want(USD, 50, LIMIT)), "charge": claim(fee(), want(USD, 8, LIMIT))}
    for name in (first, "charge" if first == "call" else "call"):
        assert ledger.reserve(claims[name]).call.id == "a"
    assert (state(ledger, USD), ledger.open_holds()) == ((0, 58), 2), "one id was taken for one thing"
    ledger.settle(posting(fee(), 8, kind="charge", calls=0))
    assert (state(ledger, USD), ledger.open_holds()) == ((8, 50), 1)
    ledger.settle(posting("a", 60))
    assert (state(ledger, USD), ledger.open_holds()) == ((68, 0), 0)
    assert [(entry.kind, entry.call_id, entry.booked_pico) for entry in everything(ledger)] == [
        ("charge", "a", 8), ("call", "a", 60)]  # fmt: skip
    assert ledger.verify() == []


def test_the_release_of_a_charge_leaves_the_call_of_the_same_id(ledger):
    ledger.reserve(claim("a", want(USD, 50, LIMIT)))
    charged = ledger.reserve(claim(fee(), want(USD, 8, LIMIT))).call
    assert ledger.release(charged.key)
    assert (state(ledger, USD), ledger.open_holds()) == ((0, 50), 1)
    assert not ledger.release(charged.key)
    assert ledger.release(call("a").key)
    assert state(ledger, USD) == (0, 0)


def test_a_charge_whose_id_is_used_again_is_another_charge(ledger):
    for _ in range(3):
        charged = ledger.reserve(claim(fee(), want(USD, 8, LIMIT))).call
        ledger.settle(posting(charged, 8, kind="charge", calls=0))
    assert state(ledger, USD) == (24, 0)
    assert len({entry.call_id for entry in everything(ledger)}) == 3


def test_the_hold_of_a_charge_is_swept_as_a_charge(ledger):
    """A lost fee is no call, and where it was made is not forgotten."""
    path = (("r1", "boss"), ("t1", "search"))
    lost = fee(run_id="run-1", tool="search", path=path)
    ledger.reserve(claim(lost, want(USD, 8, LIMIT), want(CALLS, 0, 9), expires=NOW, pico=8))
    ledger.reserve(claim("a", want(USD, 50, LIMIT), want(CALLS, 1, 9), pico=50))
    (entry,) = ledger.sweep(NOW)
    assert (entry.kind, entry.status, entry.call_id) == ("charge", "unknown", "a")
    assert (entry.provider, entry.model, entry.cost_pico, entry.booked_pico) == ("tool", "search", None, 8)
    assert (entry.run_id, entry.tool, entry.path) == ("run-1", "search", path)
    assert (state(ledger, USD), state(ledger, CALLS)) == ((8, 50), (0, 1)), "the call of that id is still being made"
    assert ledger.sweep(NOW) == []
    late = ledger.settle(posting(fee(), 8, kind="charge", calls=0))
    assert (late.entry.kind, late.entry.adjusts, late.entry.booked_pico) == ("adjustment", entry.id, 0)
    assert not ledger.settle(posting(fee(), 8, kind="charge", calls=0)).fresh
    ledger.settle(posting("a", 60))
    assert (state(ledger, USD), state(ledger, CALLS)) == ((68, 0), (1, 0))
    assert ledger.verify() == []


# -- release


def test_a_release_gives_everything_back(ledger):
    ledger.reserve(claim("stays", want(USD, 100, LIMIT), want(CALLS, 1, 9)))
    ledger.reserve(claim("a", want(USD, 700, LIMIT), want(CALLS, 1, 9)))
    assert ledger.release("a") is True
    assert (state(ledger, USD), state(ledger, CALLS)) == ((0, 100), (0, 1))
    assert everything(ledger) == []


def test_a_release_twice_gives_back_once(ledger):
    ledger.reserve(claim("stays", want(USD, 700, LIMIT)))
    ledger.reserve(claim("a", want(USD, 200, LIMIT)))
    assert [ledger.release("a"), ledger.release("a"), ledger.release("never")] == [True, False, False]
    assert state(ledger, USD) == (0, 700), "money held for another call was given back"


def test_a_release_after_the_settle_changes_nothing(ledger):
    ledger.reserve(claim("a", want(USD, 200, LIMIT)))
    ledger.settle(posting("a", 150))
    before = books(ledger)
    assert ledger.release("a") is False
    assert books(ledger) == before


def test_a_settle_after_the_release_books_to_the_keys(ledger):
    ledger.reserve(claim("a", want(USD, 200, LIMIT)))
    ledger.release("a")
    assert ledger.settle(posting("a", 150), keys=[USD], scopes=["handler-1"]).fresh
    assert state(ledger, USD) == (150, 0), "a call that was paid after all is not in the books"
    assert len(everything(ledger, scope="handler-1")) == 1


def test_a_released_call_may_be_reserved_again(ledger):
    for _ in range(2):
        ledger.reserve(claim("a", want(USD, LIMIT, LIMIT)))
        ledger.release("a")
    assert state(ledger, USD) == (0, 0)


# -- two meters on one call


def test_a_second_claim_adds_only_the_balances_the_hold_lacks(ledger):
    ledger.reserve(claim("a", want(USD, 300, LIMIT), want(CALLS, 1, 2), scopes=("inner",)))
    second = claim("a", want(USD, 999, LIMIT), want(OTHER, 400, LIMIT), scopes=("outer", "inner"))
    hold = ledger.reserve(second)
    assert {hold.keys[i]: hold.amounts[i] for i in hold.keys} == {USD: 300, OTHER: 400}
    assert sorted(hold.amounts.values()) == [1, 300, 400]
    assert set(hold.scopes) == {"inner", "outer"}
    assert [state(ledger, k) for k in (USD, OTHER, CALLS)] == [(0, 300), (0, 400), (0, 1)]
    assert ledger.open_holds() == 1
    ledger.settle(posting("a", 250))
    assert [state(ledger, k) for k in (USD, OTHER, CALLS)] == [(250, 0), (250, 0), (1, 0)]
    inner, outer = everything(ledger, scope="inner"), everything(ledger, scope="outer")
    assert inner == outer == everything(ledger), "one answer must be one entry, seen by both meters"
    assert len(inner) == 1
    assert ledger.verify() == []


def test_a_second_claim_is_checked_like_the_first(ledger):
    ledger.reserve(claim("a", want(USD, 300, LIMIT)))
    ledger.settle(posting("other", 601), keys=[OTHER])
    before = books(ledger)
    refusal = refused(ledger, "a", want(CALLS, 1, 5), want(OTHER, 400, LIMIT), scopes=("outer",))
    assert (refusal.want.key, refusal.spent, refusal.held) == (OTHER, 601, 0)
    assert books(ledger) == before, "a refused second meter left money held"
    ledger.settle(posting("a", 10))
    assert everything(ledger, scope="outer") == []
    assert (state(ledger, USD), state(ledger, OTHER)) == ((10, 0), (601, 0))


def test_a_second_claim_of_the_same_balances_holds_nothing_more(ledger):
    ledger.reserve(claim("a", want(USD, 300, LIMIT)))
    hold = ledger.reserve(claim("a", want(USD, 300, 300)))
    assert state(ledger, USD) == (0, 300)
    assert list(hold.amounts.values()) == [300]


@pytest.mark.parametrize("limit", [299, 1])
def test_a_second_claim_under_a_stricter_limit_is_refused_by_it(ledger, limit):
    ledger.reserve(claim("a", want(USD, 300, LIMIT)))
    refused(ledger, "a", want(USD, 300, limit))
    assert state(ledger, USD) == (0, 300), "a refused second claim must leave the first hold as it was"


@pytest.mark.parametrize(("spent", "beside"), [(700, 0), (400, 300)])
def test_a_second_claim_needs_room_besides_the_calls_own_hold(ledger, spent, beside):
    ledger.settle(posting("spent", spent), keys=[USD])
    ledger.reserve(claim("beside", want(USD, beside)))
    ledger.reserve(claim("a", want(USD, 0, LIMIT)))
    refusal = refused(ledger, "a", want(USD, 0, 700))
    assert (refusal.want, refusal.spent, refusal.held) == (want(USD, 0, 700), spent, beside)
    assert ledger.reserve(claim("a", want(USD, 0, 701))).call.id == "a"


def test_a_second_claim_may_take_a_partial_hold(ledger):
    ledger.reserve(claim("a", want(USD, 300, LIMIT)))
    ledger.settle(posting("other", 700), keys=[OTHER])
    ledger.reserve(claim("a", want(OTHER, 400, LIMIT, floor=300)))
    assert state(ledger, OTHER) == (700, 300)
    ledger.release("a")
    assert (state(ledger, USD), state(ledger, OTHER)) == ((0, 0), (700, 0))


def test_a_merged_hold_keeps_the_larger_estimate_and_the_later_expiry(ledger):
    ledger.reserve(claim("a", want(USD, 1, LIMIT), pico=50, tokens=9, expires=NOW + 2 * HOUR))
    ledger.reserve(claim("a", want(TOKENS, 1, LIMIT), pico=40, tokens=11, expires=NOW + HOUR))
    assert ledger.sweep(NOW + HOUR) == [], "the call was given up before its first meter said so"
    (entry,) = ledger.sweep(NOW + 2 * HOUR)
    assert (entry.booked_pico, entry.booked_tokens) == (50, 11)
    assert (state(ledger, USD), state(ledger, TOKENS)) == ((50, 0), (11, 0))


@pytest.mark.parametrize(("first", "second"), [(None, 40), (40, None)])
def test_a_merged_hold_keeps_the_only_estimate_there_is(ledger, first, second):
    ledger.reserve(claim("a", want(USD, 1, LIMIT), pico=first, expires=NOW))
    ledger.reserve(claim("a", want(OTHER, 1, LIMIT), pico=second, expires=NOW))
    (entry,) = ledger.sweep(NOW)
    assert entry.booked_pico == 40
    assert (state(ledger, USD), state(ledger, OTHER)) == ((40, 0), (40, 0))


# -- sweep and what comes after it


@pytest.mark.parametrize(("held", "estimate", "booked"), [(700, 300, 700), (300, 700, 700), (700, None, 700)])
def test_a_sweep_books_an_expired_call_as_unknown(ledger, held, estimate, booked):
    wants = [want(USD, held), want(TOKENS, held), want(CALLS, 1, 2)]
    ledger.reserve(claim("a", *wants, pico=estimate, tokens=estimate or 0, expires=NOW + HOUR, user="alice"))
    assert ledger.sweep(NOW + HOUR - timedelta(microseconds=1)) == [], "a call was given up before its time"
    swept = ledger.sweep(NOW + HOUR)
    assert [(entry.status, entry.call_id, entry.user, entry.cost_usd) for entry in swept] == [
        ("unknown", "a", "alice", None)
    ]
    assert swept[0].reason == "the hold expired; the outcome was never seen"
    assert (swept[0].booked_pico, swept[0].at, swept[0].started_at) == (booked, NOW + HOUR, NOW)
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(booked, 0), (booked, 0), (1, 0)]
    assert ledger.open_holds() == 0
    assert everything(ledger, scope="handler-1") == swept
    assert ledger.verify() == []


def test_a_second_sweep_does_nothing(ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), expires=NOW))
    ledger.sweep(NOW)
    before = books(ledger)
    assert ledger.sweep(NOW + HOUR) == []
    assert books(ledger) == before, "one lost call was charged twice"


def test_a_sweep_takes_only_what_is_due(ledger):
    for index in range(4):
        ledger.reserve(claim(f"c{index}", want(USD, 10, LIMIT), expires=NOW + index * HOUR))
    assert [entry.call_id for entry in ledger.sweep(NOW + HOUR)] == ["c0", "c1"]
    assert state(ledger, USD) == (20, 20)


def test_a_sweep_leaves_a_living_owner_alone(ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT)))
    assert ledger.sweep(NOW + 365 * 24 * HOUR) == []
    assert state(ledger, USD) == (0, 700)


def test_a_sweep_books_the_calls_of_a_dead_process(store, ledger):
    if not store.shared:
        pytest.skip("a store in memory has one process")

    def other():
        mine = store.open()
        mine.reserve(claim("orphan", want(USD, 700, LIMIT), want(CALLS, 1, 9), pico=800))

    assert wait(fork(other)) == 0
    ledger.reserve(claim("alive", want(USD, 100, LIMIT)))
    (entry,) = ledger.sweep(NOW)
    assert (entry.call_id, entry.status, entry.booked_pico) == ("orphan", "unknown", 800)
    assert entry.reason == "the process that made the call died; the outcome was never seen"
    assert (state(ledger, USD), state(ledger, CALLS)) == ((800, 100), (1, 0))
    assert ledger.verify() == []


def swept(ledger, *wants, **fields):
    """A call that was given up as unknown."""
    ledger.reserve(claim("a", *wants, expires=NOW, **fields))
    (entry,) = ledger.sweep(NOW)
    return entry


@pytest.mark.parametrize("actual", [1, 699, 700, 701, 5_000])
def test_a_late_settle_makes_the_books_as_if_it_had_come_in_time(ledger, actual):
    unknown = swept(ledger, want(USD, 700), want(OTHER, 20), want(TOKENS, 90), want(CALLS, 1), pico=650, tokens=10)
    settled = ledger.settle(posting("a", actual, tokens=33, at=NOW + HOUR), keys=[key("nobody")])
    assert [state(ledger, k) for k in ALL] == [(actual, 0), (actual, 0), (33, 0), (1, 0)]
    assert settled.fresh
    entry = settled.entry
    assert (entry.kind, entry.adjusts, entry.status, entry.cost_pico) == ("adjustment", unknown.id, "priced", actual)
    assert (entry.booked_pico, entry.booked_tokens) == (actual - 700, 33 - 10)
    assert everything(ledger) == everything(ledger, scope="handler-1") == [unknown, entry]
    assert state(ledger, key("nobody")) == (0, 0)
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("late", "spent"),
    [
        ({"pico": 300}, "0.000000000300"),
        ({"pico": 900}, "0.000000000900"),
        ({"pico": 0, "status": "free", "calls": 0}, "0.000000000000"),
        ({"pico": None, "status": "unpriced", "keep": True}, "0.000000000700"),
        ({"pico": 300, "status": "estimated", "keep": True}, "0.000000000300"),  # seen, though its hold is booked
    ],
    ids=str,
)
def test_the_files_sums_count_a_corrected_call_once(store, ledger, late, spent):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), want(CALLS, 1, 9), expires=NOW, run_id="run-1"))
    ledger.sweep(NOW)
    views = ("runs", "spend_by_day", "spend_by_model")
    sums = lambda: {view: store.sql(f"SELECT calls, spent_usd FROM {view}") for view in views}  # noqa: E731
    assert sums() == dict.fromkeys(views, [(1, "0.000000000700")])
    ledger.settle(posting(call("a", run_id="run-1"), **late))
    assert sums() == dict.fromkeys(views, [(1, spent)]), "a lost call and its late answer were added up"


def test_a_correction_on_a_later_day_takes_back_what_was_too_much(store, ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), expires=NOW))
    ledger.sweep(NOW)
    ledger.settle(posting("a", 300, at=NOW + 24 * HOUR))
    days = [("2026-03-01", "0.000000000700"), ("2026-03-02", "-0.000000000400")]
    assert store.sql("SELECT day, spent_usd FROM spend_by_day ORDER BY day") == days


@pytest.mark.parametrize("status", ["free", "estimated"])
def test_a_late_settle_that_costs_nothing_gives_everything_back(ledger, status):
    swept(ledger, want(USD, 700), want(OTHER, 20), want(TOKENS, 90), want(CALLS, 1), pico=650)
    calls = 0 if status == "free" else 1
    settled = ledger.settle(posting("a", 0, status=status, calls=calls))
    assert settled.fresh
    assert [state(ledger, k) for k in ALL] == [(0, 0), (0, 0), (0, 0), (calls, 0)], "a free call stayed charged"
    assert ledger.verify() == []


def test_a_late_settle_twice_adjusts_once(ledger):
    swept(ledger, want(USD, 700), want(CALLS, 1))
    first = ledger.settle(posting("a", 80))
    before = books(ledger)
    second = ledger.settle(posting("a", 80))
    third = ledger.settle(posting("a", 81))
    assert (second.fresh, third.fresh, second.entry, third.entry) == (False, False, first.entry, first.entry)
    assert books(ledger) == before, "one answer was adjusted twice"
    assert len(before[2]) == 2


def test_an_unknown_after_the_sweep_is_a_duplicate(ledger):
    unknown = swept(ledger, want(USD, 700))
    settled = ledger.settle(posting("a", 900, status="unknown", keep=True))
    assert (settled.fresh, settled.entry) == (False, unknown)
    assert state(ledger, USD) == (700, 0)


def test_an_outcome_settled_as_unknown_can_be_corrected_once(ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), want(CALLS, 1, 9)))
    ledger.settle(posting("a", 300, status="unknown", keep=True))
    assert state(ledger, USD) == (700, 0)
    assert ledger.settle(posting("a", 120)).entry.kind == "adjustment"
    assert (state(ledger, USD), state(ledger, CALLS)) == ((120, 0), (1, 0))


def test_other_money_on_the_balance_is_untouched_by_a_late_settle(ledger):
    swept(ledger, want(USD, 700))
    ledger.settle(posting("b", 11), keys=[USD])
    ledger.reserve(claim("c", want(USD, 13)))
    ledger.settle(posting("a", 80))
    assert state(ledger, USD) == (91, 13)


@pytest.mark.parametrize("estimate", [None, 650, 900])
@pytest.mark.parametrize("status", ["estimated", "unpriced"])
def test_a_late_settle_keeps_the_hold_where_one_in_time_would(ledger, status, estimate):
    swept(ledger, want(USD, 700), want(OTHER, 20), want(TOKENS, 90), want(CALLS, 1), pico=estimate)
    pico = 80 if status == "estimated" else None
    entry = ledger.settle(posting("a", pico, tokens=3, status=status, keep=True)).entry
    spent = [state(ledger, k) for k in ALL]
    assert spent == [(700, 0), (max(20, pico or 0), 0), (90, 0), (1, 0)], "a cut stream was booked below its hold"
    assert (entry.cost_pico, entry.booked_pico) == (pico, 700 - max(700, estimate or 0))
    assert ledger.verify() == []


# -- corrections


VIEWS = ("runs", "spend_by_day", "spend_by_model")


def sums(store):
    """What the three views say: calls, input tokens, output tokens, spent."""
    return {
        store.sql(
            f"SELECT SUM(calls), SUM(input_tokens), SUM(output_tokens), SUM(CAST(spent_usd AS REAL)) FROM {view}"
        )[0]
        for view in VIEWS
    }


def spent(store, view="spend_by_model"):
    return [row[0] for row in store.sql(f"SELECT spent_usd FROM {view}")]


@pytest.mark.parametrize("actual", [1, 79, 81, 5_000])
def test_a_correction_makes_the_books_as_if_it_had_been_booked_so(ledger, actual):
    ledger.reserve(claim("a", *(want(k, 1, LIMIT) for k in ALL), run_id="run-1"))
    booked = ledger.settle(
        posting(call("a", run_id="run-1"), 80, tokens=33, usage=usage(input_uncached=30, output_text=3))
    ).entry
    settled = ledger.adjust(booked.id, correction(actual))
    assert [state(ledger, k) for k in ALL] == [(actual, 0), (actual, 0), (33, 0), (1, 0)]
    entry = settled.entry
    assert (settled.fresh, entry.kind, entry.adjusts, entry.status, entry.reason) == (
        True, "adjustment", booked.id, "priced", "repriced")  # fmt: skip
    assert (entry.cost_pico, entry.booked_pico, entry.booked_tokens) == (actual - 80, actual - 80, 0)
    assert (entry.input_tokens, entry.output_tokens, entry.usage) == (0, 0, None)
    assert (entry.run_id, entry.started_at, entry.at) == ("run-1", booked.started_at, NOW + HOUR)
    assert everything(ledger) == everything(ledger, scope="handler-1") == [booked, entry], "an entry was changed"
    assert ledger.verify() == []


def test_a_correction_twice_is_one(ledger):
    booked = ledger.settle(posting("a", 80), keys=[USD, CALLS]).entry
    first = ledger.adjust(booked.id, correction(50))
    before = books(ledger)
    again = ledger.adjust(booked.id, correction(50, at=NOW + 2 * HOUR, reason="another day"))
    assert (again.fresh, again.entry, again.moved) == (False, first.entry, first.moved)
    assert books(ledger) == before, "one correction moved the money twice"
    assert not ledger.adjust(booked.id, correction(50)).fresh


def test_what_is_right_already_is_not_corrected(ledger):
    booked = ledger.settle(posting("a", 80), keys=[USD]).entry
    settled = ledger.adjust(booked.id, correction(80))
    assert (settled.fresh, settled.entry) == (False, booked)
    assert everything(ledger) == [booked]


def test_corrections_follow_each_other(store, ledger):
    booked = ledger.settle(posting("a", 80), keys=[USD]).entry
    for pico in (50, 200, 80, 7):
        ledger.adjust(booked.id, correction(pico))
        assert state(ledger, USD) == (pico, 0)
        assert spent(store) == [f"0.{pico:012d}"], "a second correction was added to the first"
        assert sum(entry.cost_pico for entry in everything(ledger)) == pico
        assert ledger.verify() == []
    assert [entry.adjusts for entry in everything(ledger)] == [None, *[booked.id] * 4]


def test_a_missing_price_that_is_found_replaces_what_was_held(store, ledger):
    ledger.reserve(claim("a", want(USD, 50, LIMIT), want(TOKENS, 8, LIMIT), want(CALLS, 1, 2), run_id="run-1"))
    late = posting(call("a", run_id="run-1"), None, tokens=9, status="unpriced", keep=True, usage=usage(output_text=9))
    booked = ledger.settle(late).entry
    assert spent(store) == ["0.000000000050"]
    entry = ledger.adjust(booked.id, correction(20)).entry
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(20, 0), (9, 0), (1, 0)]
    assert (entry.status, entry.cost_pico, entry.booked_pico) == ("priced", 20, -30)
    assert [spent(store, view) for view in VIEWS] == [["0.000000000020"]] * 3, "a held amount was counted as cost"
    assert store.sql("SELECT calls, unpriced_calls FROM runs") == [(1, 0)], "a priced call is shown as unpriced"
    ledger.adjust(booked.id, correction(30))
    assert (spent(store), state(ledger, USD)) == (["0.000000000030"], (30, 0))
    assert ledger.verify() == []


def test_a_price_that_is_found_for_a_call_that_was_booked_at_nothing(store, ledger):
    booked = ledger.settle(posting("a", None, tokens=9, status="unpriced"), keys=[USD, TOKENS]).entry
    assert booked.booked_pico is None
    entry = ledger.adjust(booked.id, correction(20)).entry
    assert (entry.cost_pico, entry.booked_pico, state(ledger, USD), spent(store)) == (
        20,
        20,
        (20, 0),
        ["0.000000000020"],
    )
    assert ledger.verify() == []


def test_a_better_reading_moves_tokens_too(store, ledger):
    ledger.reserve(claim("a", want(USD, 1, LIMIT), want(TOKENS, 1, LIMIT), want(CALLS, 1, 2)))
    booked = ledger.settle(posting("a", 80, tokens=33, usage=usage(input_uncached=30, output_text=3))).entry
    better = usage(input_uncached=20, cache_read=5, output_text=8)
    entry = ledger.adjust(booked.id, correction(70, usage=better)).entry
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(70, 0), (33, 0), (1, 0)]
    assert (entry.booked_tokens, entry.input_tokens, entry.output_tokens, entry.usage) == (0, -5, 5, better)
    entry = ledger.adjust(booked.id, correction(70, usage=usage(input_uncached=40, output_text=8))).entry
    assert (entry.booked_tokens, entry.input_tokens, entry.output_tokens) == (15, 15, 0)
    assert state(ledger, TOKENS) == (48, 0)
    assert sums(store) == {(1, 40, 8, 7e-11)}
    assert everything(ledger)[-1] == entry
    assert ledger.verify() == []


def test_a_call_declared_free_later_gives_its_money_back(store, ledger):
    ledger.reserve(claim("a", want(USD, 1, LIMIT), want(TOKENS, 1, LIMIT), want(CALLS, 1, 2)))
    booked = ledger.settle(posting("a", 80, tokens=33)).entry
    entry = ledger.adjust(booked.id, correction(0, status="free", reason="declared free")).entry
    assert [state(ledger, k) for k in (USD, TOKENS, CALLS)] == [(0, 0), (33, 0), (1, 0)]
    assert (entry.status, entry.cost_pico, spent(store)) == ("free", -80, ["0.000000000000"])
    assert ledger.verify() == []


@pytest.mark.parametrize(("new", "team", "boss"), [(80, 700, 300), (290, 700, 300), (800, 800, 800)])
def test_what_was_kept_beyond_the_cost_stays_booked(ledger, new, team, boss):
    """A cut stream, booked at its hold: another price of what was seen of it bounds the rest no better."""
    ledger.reserve(claim("a", want(USD, 700, LIMIT), want(OTHER, 300, LIMIT)))
    booked = ledger.settle(posting("a", 250, status="estimated", keep=True)).entry
    assert (state(ledger, USD), state(ledger, OTHER)) == ((700, 0), (300, 0))
    entry = ledger.adjust(booked.id, correction(new, status="estimated", keep_hold=True)).entry
    assert (state(ledger, USD), state(ledger, OTHER)) == ((team, 0), (boss, 0))
    assert (entry.cost_pico, entry.booked_pico) == (new - 250, team - 700)
    assert not ledger.adjust(booked.id, correction(new, status="estimated", keep_hold=True)).fresh
    assert ledger.verify() == []


def test_a_correction_moves_only_the_balances_of_its_entry(ledger):
    booked = ledger.settle(posting("a", 80), keys=[USD]).entry
    ledger.settle(posting("b", 11), keys=[USD, OTHER])
    ledger.reserve(claim("c", want(USD, 13)))
    moved = ledger.adjust(booked.id, correction(50)).moved
    assert (state(ledger, USD), state(ledger, OTHER)) == ((61, 13), (11, 0))
    assert list(moved.values()) == [(-30, 61)]


def test_a_lost_call_can_be_corrected_before_and_after_its_end_is_seen(store, ledger):
    unknown = swept(ledger, want(USD, 700), want(CALLS, 1))
    ledger.adjust(unknown.id, correction(300, usage=usage(input_uncached=3)))
    assert (state(ledger, USD), spent(store)) == ((300, 0), ["0.000000000300"])
    late = ledger.settle(posting("a", 120, tokens=5, usage=usage(input_uncached=4, output_text=1)))
    assert (late.fresh, late.entry.cost_pico, late.entry.adjusts) == (True, -180, unknown.id)
    assert (state(ledger, USD), spent(store)) == ((120, 0), ["0.000000000120"]), "a corrected call was settled on top"
    ledger.adjust(unknown.id, correction(100))
    assert (state(ledger, USD), state(ledger, CALLS), spent(store)) == ((100, 0), (1, 0), ["0.000000000100"])
    assert sums(store) == {(1, 4, 1, 1e-10)}
    assert ledger.verify() == []


def test_what_is_no_entry_of_its_own_is_not_corrected(ledger):
    booked = ledger.settle(posting("a", 80), keys=[USD]).entry
    adjustment = ledger.adjust(booked.id, correction(50)).entry
    before = books(ledger)
    for entry, amount in ((adjustment.id, 30), (99, 30), (booked.id, None)):
        with pytest.raises(LedgerError):
            ledger.adjust(entry, correction(amount))
    assert books(ledger) == before


def test_a_correction_that_fails_changes_nothing(ledger):
    booked = ledger.settle(posting("a", 80), keys=[USD]).entry
    ledger.settle(posting("b", INT64_MAX - 100), keys=[USD])
    before = books(ledger)
    with pytest.raises(LedgerError):
        ledger.adjust(booked.id, correction(200))
    assert books(ledger) == before


def test_a_correction_teaches_no_estimate(ledger):
    booked = ledger.settle(posting("a", 80, usage=usage(input_uncached=30, output_text=3)), keys=[USD]).entry
    ledger.adjust(booked.id, correction(50, usage=usage(input_uncached=31, output_text=3)))
    assert [row[2:] for row in ledger.samples("openai", "gpt-4o-mini", 9)] == [(30, 3)]


def test_corrections_at_once_are_one(ledger):
    booked = ledger.settle(posting("a", 80), keys=[USD]).entry
    fresh = []
    threads = [
        threading.Thread(target=lambda: fresh.append(ledger.adjust(booked.id, correction(50)).fresh)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fresh) == [False] * 7 + [True]
    assert state(ledger, USD) == (50, 0)


ADJUSTED = {
    "booked changed": ("UPDATE entry SET booked_pico = 1 WHERE id = 2", ["entry 1: booked 81 pico-dollars with its adjustments, and moved 50"]),
    "cost changed": ("UPDATE entry SET cost_pico = -31, cost_usd = '-0.000000000031' WHERE id = 2", ["entry 2: its lines sum to 50 pico-dollars, its cost is 49"]),
    "of nothing": ("UPDATE entry SET adjusts = 7 WHERE id = 2", ["entry 7: is adjusted, and is no entry of its own", "entry 7: adjusted to a cost of -30 pico-dollars, and priced", "entry 2: its lines sum to 50 pico-dollars, its cost is -30"]),
    "to nothing": ("UPDATE entry SET cost_pico = -80, cost_usd = '-0.00000000008', lines = NULL WHERE id = 2", ["entry 1: adjusted to a cost of 0 pico-dollars, and priced"]),
}  # fmt: skip


@pytest.mark.parametrize("damage", ADJUSTED)
def test_verify_names_damage_of_a_correction(store, ledger, damage):
    statement, expected = ADJUSTED[damage]
    booked = ledger.settle(posting("a", 80), keys=[USD]).entry
    ledger.adjust(booked.id, correction(50))
    assert ledger.verify() == []
    store.sql("PRAGMA foreign_keys=OFF", statement, unlock=True)
    assert ledger.verify() == expected


# -- budgets


def durable(**fields):
    return Attached.make(Budget(**{"usd": "5", "per": "month", "name": "team", **fields}), "meter-1", 0)


def test_a_known_budget_is_accepted_again(ledger):
    assert ledger.register([durable()]) == []
    assert ledger.register([durable(), durable(name="other")]) == []


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ({"usd": None, "tokens": 5}, '{"by": [], "match": {}, "per": "month", "tz": "UTC", "unit": "tokens"}'),
        ({"per": "day"}, '{"by": [], "match": {}, "per": "day", "tz": "UTC", "unit": "usd"}'),
        ({"by": "user"}, '{"by": ["user"], "match": {}, "per": "month", "tz": "UTC", "unit": "usd"}'),
        (
            {"match": {"model": "gpt*"}},
            '{"by": [], "match": {"model": "gpt*"}, "per": "month", "tz": "UTC", "unit": "usd"}',
        ),
        (
            {"tz": "Europe/Berlin"},
            '{"by": [], "match": {}, "per": "month", "tz": "Europe/Berlin", "unit": "usd"}',
        ),
    ],
    ids=["unit", "per", "by", "match", "tz"],
)
def test_a_durable_name_with_another_identity_is_refused(store, ledger, fields, identity):
    ledger.register([durable()])
    with pytest.raises(ConfigError) as caught:
        ledger.register([durable(name="fresh"), durable(**fields)])
    assert caught.value.message == (
        f"The budget name 'team' is in use in {store.url} as "
        f'{{"by": [], "match": {{}}, "per": "month", "tz": "UTC", "unit": "usd"}}, and this one is {identity}. '
        "Unit, per, by, match and tz are a budget's identity: use another name."
    )
    assert ledger.register([durable(name="fresh", by="user")]) == [], "a refused registration left a budget behind"


def test_a_changed_limit_is_noted_once(ledger):
    ledger.register([durable()])
    assert ledger.register([durable(usd="7.5")]) == [
        "The limit of budget 'team' changed from $5 to $7.5; what was spent stays spent."
    ]
    assert ledger.register([durable(usd="7.5")]) == []


def test_a_small_limit_is_shown_in_plain_text(ledger):
    ledger.register([durable(usd="0.0000001")])
    assert ledger.register([durable()]) == [
        "The limit of budget 'team' changed from $0.0000001 to $5; what was spent stays spent."
    ]


# -- reading


def test_an_entry_reads_back_as_it_was_written(ledger):
    who = {
        "run_id": "run-1", "root_seen": True, "user": "alice", "thread": "t", "agent": "a", "node": "n", "tool": "x",
        "tool_call_id": "xc", "metadata": {"tenant": "acme"},
    }  # fmt: skip
    record = posting(
        call("a", text_bytes=99, **who),
        123,
        tokens=12,
        usage=usage(input_uncached=5, output_text=7),
        response_id="resp-1",
        response_model="gpt-4o-mini-2024-07-18",
        at=(NOW + HOUR).astimezone(timezone(timedelta(hours=9))),
    )
    written = ledger.settle(record, keys=[USD], scopes=["s"]).entry
    (read,) = everything(ledger)
    assert read == written, "the entry handed out is not the entry in the books"
    assert (read.at, read.started_at) == (NOW + HOUR, NOW)
    assert (read.user, read.node, read.tool_call_id, read.metadata) == ("alice", "n", "xc", {"tenant": "acme"})
    assert (read.cost_usd, read.booked_usd, read.booked_tokens) == (Decimal("1.23E-10"), Decimal("1.23E-10"), 12)
    assert dict(read.usage.buckets) == {"input_uncached": 5, "output_text": 7}
    assert (read.response_id, read.response_model, read.model) == ("resp-1",) + ("gpt-4o-mini-2024-07-18",) * 2
    assert read.lines[0]["amount_usd"] == "0.000000000123"


def test_an_unpriced_entry_keeps_its_reader(ledger):
    counted = usage(output_text=7)
    record = posting("a", None, status="unpriced", usage=type(counted)(buckets=counted.buckets, reader="openai.chat"))
    ledger.settle(record, keys=[USD])
    assert everything(ledger)[0].usage.reader == "openai.chat"


def test_entries_are_found_by_scope_run_and_time(ledger):
    for index in range(5):
        ledger.settle(
            posting(f"c{index}", 10, at=NOW + index * HOUR, who={"run_id": f"run-{index % 2}"}),
            keys=[USD],
            scopes=["all", f"scope-{index % 2}"],
        )
    found = lambda **query: [entry.call_id for entry in everything(ledger, **query)]  # noqa: E731
    assert found() == found(scope="all") == ["c0", "c1", "c2", "c3", "c4"]
    assert found(scope="scope-1") == found(run="run-1") == ["c1", "c3"]
    assert found(scope="scope-1", run="run-0") == []
    assert found(since=NOW + HOUR) == ["c1", "c2", "c3", "c4"]
    assert found(until=NOW + HOUR) == ["c0"]
    assert found(since=NOW + HOUR, until=NOW + 3 * HOUR) == ["c1", "c2"]
    tokyo = timezone(timedelta(hours=9))
    assert found(since=(NOW + HOUR).astimezone(tokyo), until=(NOW + 3 * HOUR).astimezone(tokyo)) == ["c1", "c2"]
    assert found(last=2) == ["c3", "c4"]
    assert found(last=1, run="run-1") == ["c3"]
    assert found(scope="nobody") == found(last=0) == []


def test_entries_come_in_order_of_booking_and_not_of_the_clock(ledger):
    for index, hours in enumerate((3, 1, 2)):
        ledger.settle(posting(f"c{index}", 10, at=NOW + hours * HOUR))
    assert [entry.call_id for entry in everything(ledger)] == ["c0", "c1", "c2"]
    assert [entry.id for entry in everything(ledger)] == sorted(entry.id for entry in everything(ledger))


def test_samples_are_the_latest_measured_calls_of_a_model(ledger):
    for index in range(4):
        ledger.settle(
            posting(
                call(f"c{index}", text_bytes=index, node=f"n{index}"),
                10,
                usage=usage(input_uncached=index + 1, output_text=index + 2),
            )
        )
    one = usage(output_text=1)
    ledger.settle(posting("estimated", 10, status="estimated", usage=one))
    ledger.settle(posting("unpriced", None, status="unpriced", usage=one))
    ledger.settle(posting("without usage", 10))
    ledger.settle(posting(call("other model", model="gpt-4o"), 10, usage=one))
    ledger.settle(posting(call("other provider", provider="azure"), 10, usage=one))
    assert ledger.samples("openai", "gpt-4o-mini", 3) == [("n3", 3, 4, 5), ("n2", 2, 3, 4), ("n1", 1, 2, 3)]
    assert ledger.samples("openai", "unseen", 3) == []


def test_balances_reads_what_is_asked_and_creates_nothing(ledger):
    ledger.settle(posting("a", 5), keys=[USD])
    unused = key("unused", "tokens", "2026-01", '["alice"]')
    found = ledger.balances([unused, USD])
    assert [(b.key, b.spent, b.held) for b in found] == [(unused, 0, 0), (USD, 5, 0)]
    assert [b.key for b in ledger.balances()] == [USD], "reading a balance created it"


# -- the books check themselves


def test_the_runs_that_booked_last_come_first(ledger):
    for number, run in enumerate(("r1", "r2", "r1", None, "r3")):
        ledger.settle(posting(call(f"c{number}", run_id=run), 10))
    assert ledger.latest_runs(9) == ["r3", "r1", "r2"]
    assert ledger.latest_runs(2) == ["r3", "r1"]


def test_a_correction_makes_no_run_the_latest_and_does_not_move_its_end(store, ledger):
    first = ledger.settle(posting(call("a", run_id="r1"), 300, at=NOW)).entry
    ledger.settle(posting(call("b", run_id="r2"), 10, at=NOW + HOUR))
    ledger.adjust(first.id, correction(200, at=NOW + 30 * HOUR))
    assert ledger.latest_runs(9) == ["r2", "r1"]
    row = run_row("r1", [entry for entry in everything(ledger) if entry.run_id == "r1"])
    assert (row["ended_at"], row["cost_usd"]) == ("2026-03-01T12:00:00+00:00", "0.0000000002")
    if store.shared:
        assert store.sql("SELECT run_id, substr(ended_at, 1, 13), spent_usd FROM runs ORDER BY 1") == [
            ("r1", "2026-03-01T12", "0.000000000200"), ("r2", "2026-03-01T13", "0.000000000010")]  # fmt: skip


def test_a_ledger_says_which_budgets_it_has_seen(ledger):
    assert ledger.known_budgets() == []
    ledger.register([durable()])
    ledger.register([durable(usd="7.5"), durable(name="words", usd=None, tokens=9)])
    found = {k.key: (k.budget.name, k.budget.unit, k.budget.limit, k.budget.per) for k in ledger.known_budgets()}
    assert found == {
        "team": ("team", "usd", 7_500_000_000_000, "month"),
        "words": ("words", "tokens", 9, "month"),
    }


def test_a_ledger_says_how_much_is_in_it(ledger):
    empty = ledger.status()
    assert (dict(empty.entries), empty.first_at, empty.last_at, empty.open_holds) == ({}, None, None, 0)
    ledger.settle(posting("a", 10, at=NOW + HOUR))
    ledger.settle(posting("b", 10, at=NOW))
    ledger.settle(posting("c", None, status="unpriced", at=NOW + 2 * HOUR))
    ledger.reserve(claim("d", want(USD, 1, LIMIT)))
    full = ledger.status()
    assert (dict(full.entries), full.open_holds) == ({"priced": 2, "unpriced": 1}, 1)
    assert (full.first_at, full.last_at) == (NOW, NOW + 2 * HOUR)
    assert full.size_bytes >= 4096


def test_a_corrected_call_counts_once_under_the_status_it_has_by_now(ledger):
    found = ledger.settle(posting("a", None, status="unpriced", usage=usage(output_text=1))).entry
    ledger.settle(posting("b", 10))
    for pico, status in ((300, "estimated"), (200, "priced")):
        ledger.adjust(found.id, correction(pico, status=status, at=NOW + HOUR))
    full = ledger.status()
    assert (dict(full.entries), full.first_at, full.last_at) == ({"priced": 2}, NOW, NOW + HOUR)


def test_good_books_verify(ledger):
    swept(ledger, want(USD, 700), want(CALLS, 1), pico=9)
    ledger.settle(posting("a", 80))
    ledger.reserve(claim("b", want(USD, 5), want(TOKENS, 7)))
    ledger.settle(posting("fee", 3, kind="charge", calls=0), keys=[USD, TOKENS])
    ledger.settle(posting("hit", 0, status="free", calls=0, response_id="resp"), keys=[USD])
    ledger.settle(posting("paid", 4, response_id="resp"), keys=[USD])
    ledger.settle(posting("unpriced", None, status="unpriced"), keys=[USD])
    assert ledger.verify() == []


TEAM = "balance team total []"
DAMAGES = {
    "spent changed": ("UPDATE balance SET spent = spent + 1", [f"{TEAM}: spent is 81, its entries sum to 80"]),
    "held changed": ("UPDATE balance SET held = held + 1", [f"{TEAM}: held is 6, its open holds sum to 5"]),
    "entry deleted": ("DELETE FROM entry", [f"{TEAM}: spent is 80, its entries sum to 0"]),
    "entry moved": (
        "UPDATE entry SET amounts = json_replace(amounts, '$.1', 79)",
        [
            f"{TEAM}: spent is 80, its entries sum to 79",
            "entry 1: booked 80 pico-dollars, and moved its USD balances by 79",
        ],
    ),
    "cost changed": ("UPDATE entry SET cost_pico = 79", ["entry 1: cost_usd is 0.00000000008, cost_pico is 79"]),
    "cost text changed": (
        "UPDATE entry SET cost_usd = '0.00000000007'",
        ["entry 1: cost_usd is 0.00000000007, cost_pico is 80"],
    ),
    "cost text no number": ("UPDATE entry SET cost_usd = 'much'", ["entry 1: cost_usd is much, cost_pico is 80"]),
    "booked changed": (
        "UPDATE entry SET booked_pico = 1",
        ["entry 1: booked 1 pico-dollars, and moved its USD balances by 80"],
    ),
    "cost removed": ("UPDATE entry SET cost_usd = NULL", ["entry 1: cost_usd is None, cost_pico is 80"]),
    "line changed": (
        "UPDATE entry SET lines = json_replace(lines, '$[0].amount_usd', '0.000000000081')",
        ["entry 1: its lines sum to 81 pico-dollars, its cost is 80"],
    ),
    "line unreadable beside one that is the whole cost": (
        "UPDATE entry SET lines = json_insert(lines, '$[1]', json('{\"amount_usd\": \"much\"}'))",
        ["entry 1: its lines sum to None pico-dollars, its cost is 80"],
    ),
    "cost zeroed": (
        "UPDATE entry SET cost_pico = 0, cost_usd = '0', lines = NULL",
        ["file: CHECK constraint failed in entry", "entry 1: priced at nothing"],
    ),
    "hold left": (
        """INSERT INTO hold SELECT 'a', '{}', scopes, call, estimate_pico, estimate_tokens, owner, opened_at, expires_at
           FROM hold""",
        ["call a: has an entry and still an open hold"],
    ),
    "hold deleted": ("DELETE FROM hold", [f"{TEAM}: held is 5, its open holds sum to 0"]),
    "balance deleted": ("DELETE FROM balance", ["entry 1: moved balance 1, which does not exist"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_each_kind_of_damage(store, ledger, damage):
    statement, expected = DAMAGES[damage]
    ledger.settle(posting("a", 80), keys=[USD])
    ledger.reserve(claim("b", want(USD, 5, LIMIT)))
    assert ledger.verify() == []
    store.sql(statement, unlock=True)
    assert ledger.verify() == expected


def test_verify_names_a_response_that_was_booked_twice(ledger):
    for name in ("a", "b", "c"):
        ledger.settle(posting(name, 80, response_id="resp-1" if name != "c" else "resp-2"), keys=[USD])
    assert ledger.verify() == ["response resp-1 of openai: booked 2 times (or the server repeats ids)"]


@pytest.mark.parametrize("statement", ["UPDATE entry SET cost_pico = 1", "DELETE FROM entry WHERE id = 1"])
def test_the_file_itself_refuses_to_change_an_entry(store, ledger, statement):
    ledger.settle(posting("a", 80), keys=[USD])
    with pytest.raises(Exception, match="ledger entries are immutable"):
        store.sql(statement)
    assert [entry.cost_pico for entry in everything(ledger)] == [80]


@pytest.mark.parametrize("column", ["spent", "held"])
def test_the_file_itself_refuses_money_that_is_no_integer(store, ledger, column):
    ledger.settle(posting("a", 80), keys=[USD])
    with pytest.raises(Exception, match="cannot store REAL value in INTEGER column"):
        store.sql(f"UPDATE balance SET {column} = 0.5")


# -- amounts beyond int64


@pytest.mark.parametrize("amount", [INT64_MAX + 1, 2**64, 10**30])
def test_an_amount_beyond_int64_is_an_error_and_nothing_else(store, ledger, amount):
    ledger.settle(posting("a", 80), keys=[USD])
    before = books(ledger)
    overflow = (
        f"An amount is beyond what the ledger {store.url} can hold (int64; about 9.2 million USD on one balance)."
    )
    for attempt in (
        lambda: ledger.reserve(claim("b", want(USD, amount))),
        lambda: ledger.reserve(claim("b", want(USD, INT64_MAX), pico=amount)),
        lambda: ledger.settle(posting("b", None, status="unpriced", tokens=amount), keys=[TOKENS]),
        lambda: ledger.settle(posting("b", amount), keys=[USD]),
    ):
        with pytest.raises(LedgerError) as caught:
            attempt()
        assert caught.value.message == overflow
        assert books(ledger) == before, "an amount beyond int64 changed the books"


def test_a_balance_never_wraps_past_int64(store, ledger):
    ledger.settle(posting("a", INT64_MAX - 5), keys=[USD])
    ledger.settle(posting("b", 5), keys=[USD])
    assert state(ledger, USD) == (INT64_MAX, 0)
    before = books(ledger)
    for attempt in (
        lambda: ledger.settle(posting("c", 1), keys=[USD, OTHER]),
        lambda: ledger.reserve(claim("d", want(OTHER, 1), want(USD, 1), want(CALLS, INT64_MAX))) and _twice(ledger),
    ):
        with pytest.raises(LedgerError):
            attempt()
        ledger.release("d")
    assert {b: s for b, s in books(ledger)[0].items() if s != (0, 0)} == before[0]
    assert books(ledger)[2] == before[2]


def _twice(ledger):
    return ledger.reserve(claim("e", want(CALLS, 1)))


def test_a_reserve_that_would_overflow_is_refused_by_the_limit(ledger):
    ledger.settle(posting("a", INT64_MAX - 5), keys=[USD])
    refused(ledger, "b", want(USD, INT64_MAX, INT64_MAX))
    refused(ledger, "b", want(USD, 6, INT64_MAX))
    ledger.reserve(claim("b", want(USD, 5, INT64_MAX)))
    assert state(ledger, USD) == (INT64_MAX - 5, 5)


# -- many at once, and the end


def test_threads_on_one_ledger_admit_exactly_the_limit(ledger):
    admitted = []

    def worker(number):
        for index in range(20):
            try:
                ledger.reserve(claim(f"{number}-{index}", want(CALLS, 1, 50), want(USD, 10, LIMIT)))
                admitted.append((number, index))
            except NoRoom:
                pass

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 50, f"{len(admitted)} calls were admitted under a budget for 50"
    assert (state(ledger, CALLS), state(ledger, USD)) == ((0, 50), (0, 500))
    assert ledger.verify() == []


def test_a_closed_ledger_refuses_every_use(store, ledger):
    ledger.reserve(claim("a", want(USD, 5, LIMIT)))
    ledger.close()
    ledger.close()
    uses = {
        "register": lambda: ledger.register([durable()]),
        "reserve": lambda: ledger.reserve(claim("b", want(USD, 5, LIMIT))),
        "settle": lambda: ledger.settle(posting("a", 5)),
        "adjust": lambda: ledger.adjust(1, correction(5)),
        "release": lambda: ledger.release("a"),
        "sweep": lambda: ledger.sweep(NOW),
        "open_holds": ledger.open_holds,
        "balances": ledger.balances,
        "entries": lambda: everything(ledger),
        "samples": lambda: ledger.samples("openai", "gpt-4o-mini", 1),
        "verify": ledger.verify,
    }
    for use in uses.values():
        with pytest.raises(LedgerError) as caught:
            use()
        assert caught.value.message == f"The ledger {store.url} was closed; make a new Meter or handler."


def test_what_was_settled_is_there_for_the_next_opener(store, ledger):
    if not store.shared:
        pytest.skip("a store in memory ends with its process")
    ledger.reserve(claim("open", want(USD, 5, LIMIT)))
    written = ledger.settle(posting("a", 80), keys=[USD], scopes=["s"]).entry
    for again in (store.open(), store.open(durability="power")):
        assert everything(again, scope="s") == [written]
        assert state(again, USD) == (80, 5)
        assert again.settle(posting("a", 80)).fresh is False
    assert store.open(durability="power").settle(posting("b", 20), keys=[USD]).fresh
    assert state(ledger, USD) == (100, 5), "two openers of one ledger see different money"


def test_an_older_file_gets_the_sums_that_count_a_correction_once(store, ledger):
    """A file of the version before: views that knew one adjustment of an entry, and no terms."""
    if not store.shared:
        pytest.skip("a store in memory ends with its process")
    entry = ledger.settle(posting("a", 300, usage=usage(output_text=1))).entry
    ledger.close()
    store.sql(
        "DELETE FROM _sqlite_migrations WHERE name IN ('m005_adjustments', 'm006_ends')",
        "DROP INDEX entry_adjusts",
        *(f"DROP VIEW {view}" for view in VIEWS),
        *(f"CREATE VIEW {view} AS SELECT 'counted twice' AS spent_usd" for view in VIEWS),
        "ALTER TABLE entry DROP COLUMN terms",
    )
    again = store.open()
    assert [spent(store, view) for view in VIEWS] == [["0.000000000300"]] * 3
    assert [(found.id, found.terms) for found in everything(again)] == [(entry.id, None)]
    again.adjust(entry.id, correction(200))
    assert spent(store) == ["0.000000000200"]


# -- what a settle hands back, and odd books


def test_a_settle_names_the_balances_it_was_given(ledger):
    settled = ledger.settle(posting("a", 5), keys=[USD, OTHER])
    assert sorted(settled.keys.values(), key=str) == sorted([USD, OTHER], key=str)
    assert settled.keys.keys() == settled.moved.keys()
    ledger.reserve(claim("b", want(USD, 5, LIMIT)))
    assert dict(ledger.settle(posting("b", 5), keys=[OTHER]).keys) == {}


def test_a_late_settle_says_what_each_balance_has_spent_after_it(ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), expires=NOW))
    ledger.sweep(NOW)
    ledger.settle(posting("other", 50), keys=[USD])
    late = ledger.settle(posting("a", 300))
    assert (list(late.moved.values()), late.entry.booked_pico) == ([(-400, 350)], -400)


def test_an_adjustment_is_the_whole_difference(ledger):
    ledger.reserve(claim("a", want(USD, 700, LIMIT), expires=NOW))
    ledger.sweep(NOW)
    assert ledger.settle(posting("a", 0, status="free", calls=0)).entry.booked_pico == -700
    ledger.settle(posting("b", None, status="unknown"), keys=[USD])
    assert ledger.settle(posting("b", 300)).entry.booked_pico == 300


def test_a_hold_of_the_least_amount_is_kept(ledger):
    ledger.reserve(claim("a", want(USD, 1, LIMIT)))
    assert ledger.settle(posting("a", None, status="unpriced", keep=True)).entry.booked_pico == 1


def test_a_lost_call_counts_as_a_call_whatever_was_held(ledger):
    ledger.reserve(claim("a", want(CALLS, 0, 9), expires=NOW))
    ledger.sweep(NOW)
    assert state(ledger, CALLS) == (1, 0)


def test_a_hold_that_is_not_due_does_not_hide_those_that_are(store, ledger):
    ledger.reserve(claim("a", want(USD, 10, LIMIT)))
    ledger.reserve(claim("b", want(USD, 20, LIMIT), expires=NOW))
    store.sql("UPDATE hold SET owner = 'another-host|1|1|1' WHERE call_id = 'a'")
    assert [entry.call_id for entry in ledger.sweep(NOW)] == ["b"]
    assert state(ledger, USD) == (20, 10)


def test_a_second_hold_of_a_booked_call_is_given_back(store, ledger):
    ledger.settle(posting("a", 80), keys=[USD])
    ledger.reserve(claim("b", want(USD, 50, LIMIT), want(CALLS, 1, 9)))
    store.sql("UPDATE hold SET call_id = 'a'")
    assert not ledger.settle(posting("a", 80)).fresh
    assert (state(ledger, USD), state(ledger, CALLS), ledger.open_holds()) == ((80, 0), (0, 0), 0)
    assert ledger.verify() == []


def test_content_is_kept_where_the_user_asked_for_it(store, ledger):
    ledger.settle(posting("a", 80, content='{"in":"hi"}'))
    ledger.settle(posting("b", 80))
    assert store.sql("SELECT content FROM entry ORDER BY id") == [('{"in":"hi"}',), (None,)]
