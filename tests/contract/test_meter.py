"""The meter alone, on a real ledger file, without a framework: reserve → settle | release, and what it says meanwhile.

The model costs $1 a million input tokens and $2 a million output tokens. A call has 1,000 bytes of text in one
message (400 + 16 input tokens) and may bring 100 output tokens: it holds $0.000616.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ai_budget_callbacks import scope as scopes
from ai_budget_callbacks.budget import Budget
from ai_budget_callbacks.errors import BudgetExceeded, ConfigError, LedgerError, PriceUnknown, UsageMissing
from ai_budget_callbacks.events import (
    BudgetWarning,
    CallRefused,
    CallReleased,
    CallReserved,
    CallSettled,
    LimitCrossed,
)
from ai_budget_callbacks.meter import Meter, Outcome
from ai_budget_callbacks.pricing import Price
from ai_budget_callbacks.usage import Call, Request, Usage, Who
from tests.support.books import audit, fork, raw, wait

PRICES = {"mine": Price(input="1", output="2"), "gratis": "free", "tool/search": Price(request="0.008")}
HELD = Decimal("0.000616")
UNIT = Decimal("0.000001")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spend.db"


@pytest.fixture
def meter(path):
    opened = []

    def make(*budgets, **options):
        opened.append(Meter(list(budgets), **({"ledger": path, "prices": PRICES} | options)))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def made(call_id="a", model="mine", provider="openai", *, text_bytes=1_000, max_output_tokens=100, at=None, **who):
    return Call(
        id=call_id,
        framework="direct",
        provider=provider,
        model=model,
        started_at=at or datetime.now(UTC),
        who=Who(**who),
        request=Request(text_bytes=text_bytes, messages=1, max_output_tokens=max_output_tokens),
    )


def answer(tokens_in=10, tokens_out=0, kind="answer", **fields):
    counts = {"input_uncached": tokens_in, "output_text": tokens_out}
    return Outcome(kind=kind, usage=Usage(buckets={k: n for k, n in counts.items() if n}, reader="by hand"), **fields)


def spend(meter, call_id, tokens_in=10, tokens_out=0, **who):
    return meter.settle(meter.reserve(made(call_id, **who)), answer(tokens_in, tokens_out))


def seen(meter):
    """(spent, held) of each of a meter's balances."""
    return [(view.spent, view.held) for view in meter.balances()]


def read(path, statement):
    """Rows of the file, by a connection of its own."""
    conn = raw(path)
    try:
        return conn.execute(statement).fetchall()
    finally:
        conn.close()


@contextmanager
def away(path):
    """The ledger's file is not there."""
    hidden = path.with_suffix(".away")
    os.rename(path, hidden)
    try:
        yield
    finally:
        os.rename(hidden, path)


def told(caplog, *, level=logging.WARNING):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


# -- reserve and settle


def test_a_call_is_held_before_it_is_sent_and_booked_after(meter, path):
    events = []
    m = meter(Budget(usd="1"), Budget(tokens=9_000), Budget(calls=3), listeners=[events.append])
    call = made(user="alice", node="draft")
    opened = m.reserve(call, scopes=("handler-1", m.id, "handler-1"))
    assert seen(m) == [(0, HELD), (0, 516), (0, 1)]
    assert (opened.call, opened.booked_as, opened.scopes) == (call, call, (m.id, "handler-1"))
    assert opened.hold.call == call
    entry = m.settle(opened, answer(10, 5, response_id="r-1"))
    assert seen(m) == [(Decimal("0.00002"), 0), (15, 0), (1, 0)]
    assert (entry.status, entry.cost_usd, entry.booked_usd, entry.call_id) == ("priced", 20 * UNIT, 20 * UNIT, "a")
    assert (entry.user, entry.node, entry.response_id) == ("alice", "draft", "r-1")
    assert list(m.entries()) == list(m.entries(scope="handler-1")) == [entry]
    assert events == [CallReserved(call=call, held_usd=HELD), CallSettled(entry=entry)]
    assert audit(path) == []


@pytest.mark.parametrize(("options", "seconds"), [({"ttl_s": 90}, 90), ({}, 1_800)])
def test_the_hold_has_the_estimate_and_the_time_to_live(meter, path, options, seconds):
    m = meter(Budget(usd="1"), **options)
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    m.reserve(made(at=at))
    ((pico, tokens, expires),) = read(path, "SELECT estimate_pico, estimate_tokens, expires_at FROM hold")
    assert (pico, tokens) == (616 * 10**6, 516)
    assert datetime.fromisoformat(expires) == at + timedelta(seconds=seconds)


def test_budgets_of_the_caller_are_checked_beside_the_meters_own(meter):
    m = meter(Budget(calls=9))
    extra = m.attach([Budget(usd="1"), Budget(calls=1, name="one")], "handler-1", block=True)
    assert [(item.owner, item.block, item.key) for item in extra] == [
        ("handler-1", True, "budget-1@handler-1"),
        ("handler-1", True, "one@handler-1"),
    ]
    assert [item.block for item in m.attach([Budget(calls=1)], "handler-1")] == [False]
    m.settle(m.reserve(made("a"), extra=extra), answer())
    with pytest.raises(BudgetExceeded) as caught:
        m.reserve(made("b"), extra=extra)
    assert (caught.value.budget, caught.value.closes) == (extra[1].budget, "handler-1")
    assert seen(m) == [(1, 0)]


def test_a_refusal_holds_nothing_and_is_told(meter, path):
    events = []
    budget = Budget(usd="0.0006")  # 616 do not fit, and neither does the input with one token of 418 and what is held
    m = meter(budget, listeners=[events.append])
    first = m.reserve(made("a", text_bytes=500, max_output_tokens=10))  # 216 + 20 = 236 are held
    with pytest.raises(BudgetExceeded) as caught:
        m.reserve(made("b"))
    assert (caught.value.spent, caught.value.held, caught.value.needed, caught.value.limit) == (
        0,
        236 * UNIT,
        HELD,
        600 * UNIT,
    )
    assert caught.value.budget == budget
    assert caught.value.response is None
    assert events[1:] == [CallRefused(call=events[1].call, budget=budget, reason=caught.value.message)]
    assert (events[1].call.id, len(events)) == ("b", 2)
    assert seen(m) == [(0, 236 * UNIT)]
    m.release(first, "not needed")
    assert m.reserve(made("c")).hold is not None, "a lone call is not starved by its guess"
    assert audit(path) == []


def test_a_released_call_leaves_no_trace(meter):
    events = []
    m = meter(Budget(usd="1"), listeners=[events.append])
    call = made()
    m.release(m.reserve(call), "an HTTP error")
    assert seen(m) == [(0, 0)]
    assert list(m.entries()) == []
    assert events[1:] == [CallReleased(call=call, reason="an HTTP error")]


def test_an_id_used_twice_is_two_calls(meter):
    m = meter(Budget(usd="1"), Budget(calls=5))
    spend(m, "same", 10)
    again = m.reserve(made("same"))
    assert (again.call.id, again.booked_as.id) == ("same", "same#2")
    assert m.settle(again, answer(20)).call_id == "same#2"
    third = m.reserve(made("same"))
    m.release(third, "failed")
    assert seen(m) == [(30 * UNIT, 0), (2, 0)]


def test_a_settle_of_what_is_booked_already_tells_nobody_again(meter):
    events = []
    m = meter(Budget(usd="1"), listeners=[events.append])
    opened = m.reserve(made())
    first = m.settle(opened, answer(10))
    assert m.settle(opened, answer(999)) == first
    assert [type(event) for event in events] == [CallReserved, CallSettled]
    assert seen(m) == [(10 * UNIT, 0)]


def test_a_late_answer_corrects_an_unknown_one(meter):
    m = meter(Budget(usd="1"))
    opened = m.reserve(made())
    assert m.settle(opened, Outcome(kind="unknown", reason="timeout")).status == "unknown"
    assert seen(m) == [(HELD, 0)]
    entry = m.settle(opened, answer(10))
    assert (entry.kind, entry.booked_usd) == ("adjustment", 10 * UNIT - HELD)
    assert seen(m) == [(10 * UNIT, 0)]


def test_a_charge_and_a_call_of_one_id_are_two_things(meter):
    m = meter(Budget(usd="1"), Budget(calls=5))
    call, tool = made("x"), replace(made("x", "search", "tool"), kind="charge")
    opened, fee = m.reserve(call), m.reserve(tool)
    assert seen(m) == [(0, HELD + Decimal("0.008")), (0, 1)]
    m.release(fee, "the tool failed")
    assert seen(m) == [(0, HELD), (0, 1)]
    m.settle(opened, answer(10))
    assert seen(m) == [(10 * UNIT, 0), (1, 0)]


# -- the reservation modes


@pytest.mark.parametrize(
    ("reserve", "held"),
    [
        ("expected", HELD),
        ("worst_case", 1_728 * UNIT),
        ("none", 0),
        ("0.05", Decimal("0.05")),
        ("0.000000000001", Decimal("0.000000000001")),
        (Decimal("0.5"), Decimal("0.5")),
    ],
)
def test_what_each_mode_holds(meter, reserve, held):  # worst case: 1000 + 16 + 512 input tokens, 100 output tokens
    m = meter(Budget(usd="1"), reserve=reserve)
    m.reserve(made())
    assert seen(m) == [(0, held)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reserve": "most"}, "reserve must be 'expected', 'worst_case', 'none' or a positive USD amount such as '0.05', not 'most'."),
        ({"reserve": "0"}, "reserve must be 'expected', 'worst_case', 'none' or a positive USD amount such as '0.05', not '0'."),
        ({"reserve": "-1"}, "reserve must be 'expected', 'worst_case', 'none' or a positive USD amount such as '0.05', not '-1'."),
        ({"reserve": True}, "reserve must be 'expected', 'worst_case', 'none' or a positive USD amount such as '0.05', not True."),
        ({"reserve": 0.5}, "reserve must be 'expected', 'worst_case', 'none' or a positive USD amount such as '0.05', not 0.5."),
        ({"on_unpriced": "allow"}, "on_unpriced must be 'refuse' or a positive USD amount such as '0.05', not 'allow'."),
        ({"on_missing_usage": "ignore"}, 'on_missing_usage must be "estimate" or "raise", not \'ignore\'.'),
        ({"ttl_s": 0}, "ttl_s must be a positive number of seconds, not 0."),
        ({"ttl_s": -1.5}, "ttl_s must be a positive number of seconds, not -1.5."),
        ({"ttl_s": True}, "ttl_s must be a positive number of seconds, not True."),
        ({"ttl_s": "60"}, "ttl_s must be a positive number of seconds, not '60'."),
        ({"ttl_s": float("nan")}, "ttl_s must be a positive number of seconds, not nan."),
        ({"durability": "paper"}, 'durability must be "process" or "power", not \'paper\'.'),
    ],
)  # fmt: skip
def test_nonsense_is_refused_at_construction(path, options, message):
    with pytest.raises(ConfigError) as caught:
        Meter([Budget(usd="1")], ledger=path, **options)
    assert caught.value.message == message


def test_budgets_are_budgets_and_have_names_of_their_own(path):
    with pytest.raises(ConfigError) as caught:
        Meter(["1"], ledger=path)
    assert caught.value.message == "A Budget is expected, not '1'."
    twins = [Budget(usd="1", name="b"), Budget(calls=1, name="a"), Budget(usd="2", name="b")]
    with pytest.raises(ConfigError) as caught:
        Meter(twins, ledger=path)
    assert caught.value.message == "Two budgets of one meter have the same name: ['a', 'b', 'b']."
    Meter([Budget(usd="1"), Budget(usd="1")], ledger=path).close()


def test_one_budget_needs_no_list(path):
    m = Meter(Budget(calls=1), ledger=path, prices=PRICES)
    spend(m, "a")
    with pytest.raises(BudgetExceeded):
        m.reserve(made("b"))
    m.close()


def test_without_a_path_the_ledger_is_the_users_own(tmp_path):
    m = Meter()
    assert m.ledger.url == str(tmp_path / "default.db")  # AI_BUDGET_LEDGER of these tests
    m.close()


def test_a_changed_limit_is_said_once_and_another_identity_refused(meter, caplog):
    caplog.set_level(logging.INFO)
    day = {"per": "day", "name": "day"}
    meter(Budget(usd="1", **day))
    meter(Budget(usd="2", **day))
    meter(Budget(usd="2", **day))
    assert told(caplog, level=logging.INFO)[1:] == [  # the first says where the new ledger is
        "The limit of budget 'day' changed from $1 to $2; what was spent stays spent."
    ]
    with pytest.raises(ConfigError):
        meter(Budget(calls=2, **day))


# -- at the limit


@pytest.mark.parametrize("at_limit", ["refuse", "raise", "warn"])
def test_what_happens_at_the_limit(meter, caplog, at_limit):
    events = []
    budget = Budget(usd="0.0001", at_limit=at_limit, warn_at=())
    m = meter(budget, listeners=[events.append], reserve="none")
    spend(m, "exactly", 100)
    assert [type(event) for event in events] == [CallReserved, CallSettled], (
        "a balance used up exactly is crossed by nobody"
    )
    m2 = meter(budget, listeners=[events.append], reserve="none")
    events.clear()
    opened = m2.reserve(made("over"))
    if at_limit == "raise":
        with pytest.raises(BudgetExceeded) as caught:
            m2.settle(opened, answer(101, response="the answer"))
        error = caught.value
        assert error.response == "the answer"
        assert (error.budget, error.limit, error.spent) == (budget, 100 * UNIT, 101 * UNIT)
        assert error.entry.booked_usd == 101 * UNIT
        assert error.closes is None
        assert error.message == (
            "Budget '$0.0001' was crossed by this call: $0.000101 spent of $0.0001. The call is paid and booked; its "
            "answer is on this exception as .response. Raise the limit, or end the run here."
        )
        assert told(caplog) == []
    else:
        entry = m2.settle(opened, answer(101, response="the answer"))
        assert entry.booked_usd == 101 * UNIT
        (text,) = told(caplog)
        assert text == (
            "Budget '$0.0001' was crossed by this call: $0.000101 spent of $0.0001. The call is paid and booked; its "
            "answer is delivered. Raise the limit, or end the run here."
        )
    assert events[2:] == [LimitCrossed(budget=budget, entry=events[1].entry, spent=101 * UNIT, limit=100 * UNIT)]
    assert seen(m2) == [(101 * UNIT, 0)]
    if at_limit == "warn":
        m2.settle(m2.reserve(made("more")), answer(50))
        assert seen(m2) == [(151 * UNIT, 0)]
        assert len([event for event in events if isinstance(event, LimitCrossed)]) == 1, "crossed once, told twice"
    else:
        with pytest.raises(BudgetExceeded, match="is used up"):
            m2.reserve(made("more"))


def test_a_block_that_is_crossed_is_named(meter):
    m = meter(reserve="none")
    extra = m.attach(
        [Budget(usd="0.0001", at_limit="raise", per="day", name="day", tz="Europe/Berlin")], "block-1", block=True
    )
    m.register(extra)
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    with pytest.raises(BudgetExceeded) as caught:
        m.settle(m.reserve(made(at=at), extra=extra), answer(101))
    assert caught.value.closes == "block-1"
    assert caught.value.resets_at.isoformat() == "2026-11-25T00:00:00+01:00"
    assert "The window rolls over at 2026-11-25T00:00:00+01:00. Raise the limit" in caught.value.message


def test_a_limit_that_is_used_up_exactly_is_crossed_by_the_next_call(meter):
    events = []
    m = meter(Budget(usd="0.0001", at_limit="raise", warn_at=()), listeners=[events.append], reserve="none")
    first, second = m.reserve(made("a")), m.reserve(made("b"))
    m.settle(first, answer(100))
    with pytest.raises(BudgetExceeded) as caught:
        m.settle(second, answer(1))
    assert caught.value.spent == 101 * UNIT
    assert [event.spent for event in events if isinstance(event, LimitCrossed)] == [101 * UNIT]


def test_the_first_crossing_in_the_order_of_budgets_is_raised_and_all_are_told(meter):
    events = []
    tokens, usd, quiet = Budget(tokens=5, at_limit="raise"), Budget(usd="0.000001", at_limit="raise"), Budget(tokens=7)
    m = meter(quiet, tokens, usd, listeners=[events.append], reserve="none")
    with pytest.raises(BudgetExceeded) as caught:
        spend(m, "a", 10)
    assert caught.value.budget == tokens
    assert [event.budget for event in events if isinstance(event, LimitCrossed)] == [quiet, tokens, usd]
    assert [event.spent for event in events if isinstance(event, LimitCrossed)] == [10, 10, 10 * UNIT]


def test_levels_are_told_once_for_each_balance(meter, caplog):
    events = []
    budget = Budget(usd="0.001", by="user", warn_at=("0.8", "0.5"), per="day", name="day")
    m = meter(budget, listeners=[events.append], reserve="none")
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def use(call_id, tokens, user):
        m.settle(m.reserve(made(call_id, at=at, user=user)), answer(tokens))
        found = [event for event in events if isinstance(event, BudgetWarning)]
        events.clear()
        return [(event.fraction, event.spent, event.scope) for event in found], found

    assert use("a", 499, "alice")[0] == []
    assert use("b", 1, "alice")[0] == [("0.5", 500 * UNIT, ("alice",))]
    assert use("c", 299, "alice")[0] == []
    seen_now, full = use("d", 850, "bob")
    assert seen_now == [("0.5", 850 * UNIT, ("bob",)), ("0.8", 850 * UNIT, ("bob",))]
    assert full[0] == BudgetWarning(
        budget=budget,
        scope=("bob",),
        fraction="0.5",
        spent=850 * UNIT,
        limit=1000 * UNIT,
        resets_at=datetime(2026, 11, 25, tzinfo=UTC),
    )
    assert use("e", 1, "alice")[0] == [("0.8", 800 * UNIT, ("alice",))]
    assert told(caplog) == [
        "Budget 'day' for [\"alice\"] passed 0.5 of its limit: $0.0005 spent of $0.001.",
        "Budget 'day' for [\"bob\"] passed 0.5 of its limit: $0.00085 spent of $0.001.",
        "Budget 'day' for [\"bob\"] passed 0.8 of its limit: $0.00085 spent of $0.001.",
        "Budget 'day' for [\"alice\"] passed 0.8 of its limit: $0.0008 spent of $0.001.",
    ]


# -- two meters on one ledger


def test_two_meters_that_count_one_call_book_it_once_and_both_watch(meter, path):
    first_told, second_told = [], []
    a = meter(Budget(usd="1"), Budget(usd="0.00001", at_limit="warn", warn_at=()), listeners=[first_told.append])
    b = meter(Budget(calls=5), Budget(tokens=8, at_limit="warn", warn_at=()), listeners=[second_told.append])
    call = made()
    at_a, at_b = a.reserve(call), b.reserve(call)
    assert (seen(a)[0], seen(b)[0]) == ((0, HELD), (0, 1))
    entry = a.settle(at_a, answer(11))
    assert b.settle(at_b, answer(11)) == entry
    assert list(a.entries()) == [entry]
    assert (seen(a), seen(b)) == ([(11 * UNIT, 0)] * 2, [(1, 0), (11, 0)])
    assert [type(event) for event in first_told] == [CallReserved, CallSettled, LimitCrossed]
    assert [type(event) for event in second_told] == [CallReserved, LimitCrossed], "one settle, told by the first"
    assert [event.budget.unit for event in (first_told[2], second_told[1])] == ["usd", "tokens"]
    assert audit(path) == []


def test_the_second_meter_sees_the_crossing_though_another_call_was_booked_meanwhile(meter, path):
    events = []
    a = meter(Budget(usd="1"), reserve="none")
    b = meter(Budget(usd="0.0001", at_limit="raise", warn_at=()), reserve="none", listeners=[events.append])
    calls = [made("x"), made("y")]
    x, y = [(a.reserve(call), b.reserve(call)) for call in calls]
    a.settle(x[0], answer(101))
    a.settle(y[0], answer(200))
    with pytest.raises(BudgetExceeded) as caught:
        b.settle(x[1], answer(101))
    assert caught.value.spent == 101 * UNIT
    b.settle(y[1], answer(200))
    assert [event.spent for event in events if isinstance(event, LimitCrossed)] == [101 * UNIT]
    assert seen(b) == [(301 * UNIT, 0)]
    assert audit(path) == []


# -- the ledger fails


def test_a_settle_that_cannot_be_written_is_kept_and_written_once(meter, path, caplog):
    events = []
    m = meter(Budget(usd="1"), listeners=[events.append])
    opened = m.reserve(made("lost"), scopes=("handler-1",))
    with away(path):
        assert m.settle(opened, answer(10)) is None
        assert m.settle(opened, answer(10)) is None
    assert [type(event) for event in events] == [CallReserved]
    first, second = told(caplog, level=logging.ERROR)
    assert first == second
    assert first.startswith(
        "The cost of a call could not be written and is kept in memory until the next call: The ledger"
    )
    assert seen(m) == [(0, HELD)]
    spend(m, "next", 5)
    assert seen(m) == [(15 * UNIT, 0)]
    assert [(e.call_id, e.booked_usd) for e in m.entries(scope="handler-1")] == [("lost", 10 * UNIT)]
    assert told(caplog).count("What could not be written before is on the ledger now: call lost.") == 2
    spend(m, "later", 5)
    assert seen(m) == [(20 * UNIT, 0)]
    assert audit(path) == []


@pytest.mark.parametrize("how", ["summary", "close", "charge"])
def test_what_could_not_be_written_is_written_at_the_first_occasion(meter, path, how):
    m = meter(Budget(usd="1"))
    opened = m.reserve(made("lost"))
    with away(path):
        assert m.settle(opened, answer(10)) is None
    if how == "summary":
        assert m.summary().cost_usd == 10 * UNIT
    elif how == "close":
        m.close()
    else:
        m.charge("0.5", name="search")
    assert read(path, "SELECT call_id FROM entry ORDER BY id")[0] == ("lost",)
    assert read(path, "SELECT count(*) FROM hold") == [(0,)]


def test_a_release_that_cannot_be_written_is_kept_too(meter, path, caplog):
    events = []
    m = meter(Budget(usd="1"), listeners=[events.append])
    spend(m, "same", 10)
    opened = m.reserve(made("same"))  # held as same#2
    with away(path):
        m.release(opened, "failed")
    assert [type(event) for event in events] == [CallReserved, CallSettled, CallReserved], (
        "a release nobody wrote was told"
    )
    assert told(caplog, level=logging.ERROR)[0].startswith(
        "A hold could not be released and is tried again at the next call: The ledger"
    )
    assert seen(m) == [(10 * UNIT, HELD)]
    m.summary()
    assert seen(m) == [(10 * UNIT, 0)]
    assert told(caplog) == ["What could not be written before is on the ledger now: call same."]


def test_a_call_that_the_ledger_never_heard_of_is_written_with_its_budgets_and_scopes(meter, path):
    m = meter(Budget(usd="1", at_limit="warn"))
    with away(path):
        opened = m.reserve(made(), scopes=("handler-1",))
        assert m.settle(opened, answer(11)) is None
    m.summary()
    assert seen(m) == [(11 * UNIT, 0)]
    assert [entry.call_id for entry in m.entries(scope="handler-1")] == ["a"]
    assert audit(path) == []


@pytest.mark.parametrize(
    "budgets", [(Budget(usd="1"),), (Budget(usd="1", at_limit="warn"), Budget(calls=9, at_limit="raise"))]
)
def test_nothing_is_sent_uncounted_past_a_budget_that_stops(meter, path, budgets):
    m = meter(*budgets)
    with away(path), pytest.raises(LedgerError):
        m.reserve(made())
    assert list(m.entries()) == []
    assert m.ledger.open_holds() == 0


def test_budgets_of_the_caller_count_when_the_ledger_is_down(meter, path):
    m = meter(Budget(usd="1", at_limit="warn"))
    extra = m.attach([Budget(usd="1")], "handler-1")
    with away(path), pytest.raises(LedgerError):
        m.reserve(made(), extra=extra)


def test_budgets_that_warn_let_calls_through_and_count_them_later(meter, path, caplog):
    events = []
    m = meter(Budget(usd="0.00001", at_limit="warn", warn_at=()), listeners=[events.append])
    with away(path):
        opened = m.reserve(made("a"), scopes=("handler-1",))
        m.reserve(made("b"))
        assert (opened.hold, opened.booked_as, opened.scopes) == (None, opened.call, (m.id, "handler-1"))
    assert told(caplog) == ["The ledger is down; calls go on uncounted because no budget here stops them."]
    assert [type(event) for event in events] == [CallReserved] * 2
    entry = m.settle(opened, answer(11))
    assert seen(m) == [(11 * UNIT, 0)]
    assert list(m.entries(scope="handler-1")) == [entry]
    assert [type(event) for event in events[2:]] == [CallSettled, LimitCrossed]
    assert audit(path) == []


def test_without_budgets_calls_go_on_when_the_ledger_is_down(meter, path):
    m = meter()
    with away(path):
        opened = m.reserve(made())
    assert m.settle(opened, answer(10)).booked_usd == 10 * UNIT


def test_the_ledger_down_does_not_price_the_unpriced(meter, path):
    m = meter(Budget(usd="1"))
    with away(path), pytest.raises(PriceUnknown):
        m.reserve(made(model="nobodys"))


# -- no price


def test_an_unpriced_call_is_refused_where_a_usd_budget_stops(meter):
    events = []
    budget = Budget(usd="1")
    m = meter(Budget(calls=3), budget, listeners=[events.append])
    with pytest.raises(PriceUnknown) as caught:
        m.reserve(made(model="nobodys"))
    assert events == [CallRefused(call=events[0].call, budget=budget, reason=caught.value.message)]
    assert seen(m) == [(0, 0)] * 2


def test_an_unpriced_call_is_recorded_where_none_does_and_said_once(meter, caplog):
    events = []
    m = meter(Budget(usd="1", at_limit="warn"), Budget(calls=9), listeners=[events.append])
    for call_id, model in (("a", "nobodys"), ("b", "nobodys"), ("c", "other"), ("d", "nobodys")):
        m.settle(m.reserve(made(call_id, model)), answer(10))
    assert told(caplog) == [
        "No price is known for 'nobodys' of 'openai'; its calls are recorded without a cost.",
        "No price is known for 'other' of 'openai'; its calls are recorded without a cost.",
    ]
    assert [(e.status, e.cost_usd, e.booked_usd) for e in m.entries()] == [("unpriced", None, None)] * 4
    assert seen(m) == [(0, 0), (4, 0)]
    assert events[0] == CallReserved(call=events[0].call, held_usd=None)


def test_what_a_price_lacks_is_said_where_nothing_is_refused(meter, caplog):
    m = meter(Budget(calls=9), prices={"half": Price(input="1")})
    m.reserve(made(model="half"))
    assert told(caplog) == ["The price of 'half' has no output; its calls of 'openai' are recorded without a cost."]


def test_an_amount_for_unpriced_calls_is_held_and_booked(meter):
    m = meter(Budget(usd="1"), on_unpriced="0.4")
    opened = m.reserve(made("a", "nobodys"))
    assert seen(m) == [(0, Decimal("0.4"))]
    entry = m.settle(opened, answer(10))
    assert (entry.status, entry.cost_usd, entry.booked_usd) == ("unpriced", None, Decimal("0.4"))
    m.settle(m.reserve(made("b", "nobodys")), answer(10))
    assert seen(m) == [(Decimal("0.8"), 0)]
    with pytest.raises(BudgetExceeded):
        m.reserve(made("c", "nobodys"))


def test_a_model_whose_answer_could_not_be_priced_and_held_nothing_is_refused_from_then_on(meter):
    budget = Budget(usd="1")
    m = meter(budget, reserve="none")
    entry = m.settle(m.reserve(made("a")), Outcome(kind="answer", usage=Usage(buckets={"input_audio": 10})))
    assert (entry.status, entry.booked_usd) == ("unpriced", None)
    with pytest.raises(PriceUnknown) as caught:
        m.reserve(made("b"))
    assert caught.value.budget == budget
    assert "(its last answer could not be priced and nothing was held for it)" in caught.value.message
    assert m.reserve(made("c", "gpt-4o-mini")).hold is not None, "another model was refused too"
    assert m.reserve(made("d", "mine", "azure")).hold is not None, "another provider was refused too"


def test_a_model_whose_answer_could_not_be_priced_is_booked_at_its_hold(meter):
    m = meter(Budget(usd="1"))
    entry = m.settle(m.reserve(made("a")), Outcome(kind="answer", usage=Usage(buckets={"input_audio": 10})))
    assert (entry.status, entry.booked_usd) == ("unpriced", HELD)
    assert m.reserve(made("b")).hold is not None


# -- no usage


@pytest.mark.parametrize("kind", ["answer", "cut"])
@pytest.mark.parametrize("insists", [True, False])
def test_an_answer_without_usage_is_booked_before_it_is_complained_about(meter, kind, insists):
    m = meter(Budget(usd="1"), on_missing_usage="raise" if insists else "estimate")
    opened = m.reserve(made())
    outcome = Outcome(kind=kind, output_bytes=50, response="the answer")  # 416 + 2 x 20
    if insists and kind == "answer":
        with pytest.raises(UsageMissing) as caught:
            m.settle(opened, outcome)
        entry = caught.value.entry
        assert caught.value.response == "the answer"
        assert caught.value.message == (
            "The answer of 'mine' carried no usage, and on_missing_usage is 'raise'. The call is booked as estimated. "
            "For OpenAI streams set stream_usage=True on the model."
        )
    else:
        entry = m.settle(opened, outcome)
    assert entry.status == "estimated"
    assert seen(m) == [(HELD if kind == "cut" else 456 * UNIT, 0)]
    assert list(m.entries()) == [entry]


@pytest.mark.parametrize("outcome", [answer(10), Outcome(kind="unknown"), Outcome(kind="cached")], ids=lambda o: o.kind)
def test_an_outcome_that_lacks_no_usage_is_not_complained_about(meter, outcome):
    m = meter(Budget(usd="1"), on_missing_usage="raise")
    assert m.settle(m.reserve(made()), outcome) is not None


# -- closed runs


def refuse(m, call_id, **who):
    with pytest.raises(BudgetExceeded) as caught:
        m.reserve(made(call_id, **who))
    return caught.value


def test_a_closed_run_is_refused_and_no_other(meter):
    events = []
    m = meter(Budget(usd="1"), Budget(calls=1, match={"user": "eve"}), listeners=[events.append])
    spend(m, "a", run_id="r", root_seen=True, user="eve")
    refusal = refuse(m, "b", run_id="r", root_seen=True, user="eve")
    refusal.response = "paid"
    m.close_run("r", refusal)
    m.close_run("r", BudgetExceeded("a later one"))
    events.clear()
    again = refuse(m, "c", run_id="r", root_seen=True)
    assert again is not refusal
    assert (again.message, again.budget, again.response) == (refusal.message, refusal.budget, None)
    assert events == [CallRefused(call=events[0].call, budget=refusal.budget, reason=refusal.message)]
    spend(m, "d", run_id="other", root_seen=True)
    spend(m, "e", run_id="r")  # a handler in a constructor: nobody knows that this is the run
    spend(m, "f")
    m.forget_run("r")
    m.forget_run("never heard of")
    spend(m, "g", run_id="r", root_seen=True)


def test_closed_runs_are_remembered_up_to_a_bound(meter):
    m = meter()
    for number in range(10_001):
        m.close_run(f"r{number}", BudgetExceeded(f"run {number}"))
    spend(m, "a", run_id="r0", root_seen=True)
    assert refuse(m, "b", run_id="r1", root_seen=True).message == "run 1"
    assert refuse(m, "c", run_id="r10000", root_seen=True).message == "run 10000"


# -- listeners


def test_a_listener_that_fails_is_loud_and_changes_nothing(meter, caplog):
    events = []

    def broken(event):
        raise RuntimeError("no disk")

    m = meter(Budget(usd="1"), listeners=[broken, events.append])
    entry = spend(m, "a", 10)
    assert [type(event) for event in events] == [CallReserved, CallSettled]
    assert told(caplog, level=logging.ERROR) == [
        "A listener failed on CallReserved; no number changed.",
        "A listener failed on CallSettled; no number changed.",
    ]
    assert caplog.records[0].exc_info[0] is RuntimeError
    assert entry.booked_usd == 10 * UNIT


# -- lost calls


def test_calls_of_a_dead_process_are_booked_when_a_meter_opens(path, meter):
    def work():
        Meter([Budget(usd="1", per="total", name="all")], ledger=path, prices=PRICES).reserve(made("lost"))

    assert wait(fork(work)) == 0
    m = meter(Budget(usd="1", per="total", name="all"))
    (entry,) = m.entries()
    assert (entry.call_id, entry.status, entry.booked_usd) == ("lost", "unknown", HELD)
    assert seen(m) == [(HELD, 0)]


def test_a_lost_hold_does_not_starve_the_living(meter):
    m = meter(Budget(usd="0.0012"), ttl_s=0.05)
    m.reserve(made("lost"))
    time.sleep(0.06)
    opened = m.reserve(made("a"))  # 616 are lost and 584 left: its input and one token fit, and nobody else holds
    assert seen(m) == [(HELD, Decimal("0.0012") - HELD)]
    assert [(entry.call_id, entry.status) for entry in m.entries()] == [("lost", "unknown")]
    m.settle(opened, answer(10))
    assert seen(m) == [(HELD + 10 * UNIT, 0)]


# -- what was learned


def test_holds_follow_what_answers_took(meter):
    m = meter(Budget(usd="1"))
    for number in range(8):
        spend(m, f"a{number}", 216, 3)  # 200 tokens of text in 1000 bytes: 5 bytes a token
    m.reserve(made("b"))
    assert seen(m)[0][1] == (216 + 2 * 3) * UNIT


def test_answers_whose_cost_the_provider_states_teach_too(meter):
    m = meter(Budget(tokens=99_999))
    usage = Usage(buckets={"input_uncached": 216, "output_text": 3}, raw={"cost": "0.001"})
    for number in range(8):
        opened = m.reserve(made(f"a{number}", "openai/gpt-4o-mini", "openrouter"))
        assert m.settle(opened, Outcome(kind="answer", usage=usage)).status == "reported"
    m.reserve(made("b", "openai/gpt-4o-mini", "openrouter"))
    assert seen(m) == [(8 * 219, 219)]


@pytest.mark.parametrize(
    "outcome",
    [Outcome(kind="unknown"), Outcome(kind="answer", output_bytes=8), Outcome(kind="cached"), answer(216, 3, "cut")],
)
def test_only_what_was_measured_teaches(meter, outcome):
    m = meter(Budget(usd="1"))
    for number in range(8):
        m.settle(m.reserve(made(f"a{number}")), outcome)
    m.reserve(made("b"))
    assert seen(m)[0][1] == HELD


def test_an_answer_settled_twice_teaches_once(meter):
    m = meter(Budget(usd="1"))
    opened = m.reserve(made("a0"))
    for _ in range(8):
        m.settle(opened, answer(216, 3))
    m.reserve(made("b"))
    assert seen(m)[0][1] == (216 + 2 * 100) * UNIT, "one answer is no ninth decile of eight"


# -- content


@pytest.mark.parametrize(
    ("options", "stores"), [({}, False), ({"store_content": False}, False), ({"store_content": True}, True)]
)
def test_content_is_stored_only_when_asked_for(meter, path, options, stores):
    m = meter(**options)
    m.settle(m.reserve(made()), answer(10, content={"prompt": "hi"}))
    ((content,),) = read(path, "SELECT content FROM entry")
    assert (json.loads(content) if content else None) == ({"prompt": "hi"} if stores else None)


# -- charges


def test_a_charge_is_on_every_usd_budget_that_applies(meter):
    events = []
    m = meter(
        Budget(usd="1"),
        Budget(calls=3),
        Budget(tokens=3),
        Budget(usd="1", match={"user": "bob"}),
        Budget(usd="1", by="team"),
        listeners=[events.append],
    )
    entry = m.charge("0.25", name="search", user="alice", run="run-1", metadata={"team": 7})
    assert (entry.kind, entry.status, entry.provider, entry.model) == ("charge", "reported", "charge", "search")
    assert (entry.cost_usd, entry.booked_usd, entry.booked_tokens) == (Decimal("0.25"), Decimal("0.25"), 0)
    assert (entry.user, entry.run_id, dict(entry.metadata)) == ("alice", "run-1", {"team": "7"})
    quarter = (Decimal("0.25"), 0)
    assert [(view.scope, view.spent) for view in m.balances()] == [
        ((), quarter[0]),
        ((), 0),
        ((), 0),
        ((), 0),
        (("7",), quarter[0]),
    ]
    assert events == [CallSettled(entry=entry)]
    assert list(m.entries(scope=m.id)) == list(m.entries(run="run-1")) == [entry]


@pytest.mark.parametrize("usd", ["0", "-1", "x", None, True])
def test_a_charge_is_a_positive_amount(meter, usd):
    m = meter()
    with pytest.raises(ConfigError):
        m.charge(usd, name="search")
    assert list(m.entries()) == []


def test_a_charge_is_booked_past_a_limit_and_the_next_start_refused(meter):
    m = meter(Budget(usd="0.1"))
    m.charge("0.25", name="search")
    m.charge("0.25", name="search")
    assert seen(m) == [(Decimal("0.5"), 0)]
    with pytest.raises(BudgetExceeded):
        m.reserve(made())


def test_a_charge_that_crosses_raises_after_it_is_booked(meter):
    m = meter(Budget(usd="0.1", at_limit="raise"))
    with pytest.raises(BudgetExceeded) as caught:
        m.charge("0.25", name="search")
    assert caught.value.entry.booked_usd == Decimal("0.25")
    assert seen(m) == [(Decimal("0.25"), 0)]


def test_a_charge_belongs_to_the_blocks_around_it_that_use_this_meter(meter):
    m, other = meter(Budget(usd="1")), meter(Budget(usd="2"))
    with (
        scopes.track(Budget(usd="3"), meter=m, user="alice", metadata={"job": "x"}) as outer,
        scopes.track(Budget(usd="4"), meter=other, user="bob"),
    ):
        entry = m.charge("0.25", name="search")
        apart = other.charge("0.5", name="search", user="carol")
    # the innermost block says whose it is, as for a call; which budgets count it is a matter of the meter
    assert (entry.user, entry.run_id, dict(entry.metadata)) == ("bob", outer.id, {"job": "x"})
    assert (apart.user, list(m.entries(scope=outer.id))) == ("carol", [entry])
    spent = {b.key.budget.partition("@")[2]: b.spent for b in m.ledger.balances()}
    assert spent[outer.id] == 25 * 10**10
    assert (spent[m.id], spent[other.id]) == (25 * 10**10, 5 * 10**11)


# -- what was sent already


@pytest.mark.parametrize(("model", "status", "booked"), [("mine", "priced", 20 * UNIT), ("nobodys", "unpriced", None)])
def test_a_call_that_was_sent_already_is_booked_whatever_is_left(meter, model, status, booked):
    m = meter(Budget(usd="0.00001"), Budget(calls=1), reserve="none")
    spend(m, "a", 10)
    entry = m.book_spent(made("b", model), answer(10, 5))
    assert (entry.status, entry.booked_usd) == (status, booked)
    assert seen(m) == [(10 * UNIT + (booked or 0), 0), (2, 0)]


@pytest.mark.parametrize("root_seen", [True, False])
def test_a_run_that_was_crossed_by_what_was_sent_already_is_closed(meter, root_seen):
    m = meter(Budget(usd="0.1", at_limit="raise", match={"user": "eve"}))
    fee = replace(made("fee", "search", "charge", user="eve", run_id="r", root_seen=root_seen), kind="charge")
    with pytest.raises(BudgetExceeded) as caught:
        m.book_spent(fee, Outcome(kind="answer", stated_pico=25 * 10**10))
    spend(m, "a", run_id="other", root_seen=True)
    if root_seen:
        again = refuse(m, "b", run_id="r", root_seen=True)
        assert (again.message, again.budget) == (caught.value.message, caught.value.budget)
    else:
        spend(m, "b", run_id="r", root_seen=True)  # nobody knows that the fee's run is this one


def test_a_block_that_was_crossed_by_a_charge_is_closed_and_not_the_run_around_it(meter):
    m = meter()
    with scopes.track(Budget(usd="9"), meter=m) as outer:
        with pytest.raises(BudgetExceeded), scopes.track(Budget(usd="0.1", at_limit="raise"), meter=m):
            m.charge("0.25", name="search")
        spend(m, "a", run_id=outer.id, root_seen=True)


# -- reading


def test_balances_of_one_scope(meter):
    m = meter(Budget(usd="1", by="user", per="day", name="day"), Budget(calls=9))
    spend(m, "a", 10, user="alice")
    spend(m, "b", 20, user="bob")
    assert [(v.scope, v.spent) for v in m.balances(user="bob")] == [(("bob",), 20 * UNIT), ((), 2)]
    assert [(v.scope, v.spent) for v in m.balances(user="carol")] == [(("carol",), 0), ((), 2)]
    assert [v.scope for v in m.balances()] == [("alice",), ("bob",), ()]


def test_a_per_run_budget_gives_every_run_its_own(meter):
    m = meter(Budget(calls=1, per="run"))
    spend(m, "a", run_id="r1", root_seen=True)
    spend(m, "b", run_id="r2", root_seen=True)
    spend(m, "c", run_id="r1")
    with pytest.raises(BudgetExceeded):
        m.reserve(made("d", run_id="r1", root_seen=True))
    assert sorted(v.window for v in m.balances()) == sorted([m.id, "r1", "r2"])
    m.forget_run("r1")
    assert sorted(v.window for v in m.balances()) == sorted([m.id, "r2"]), "a run that is over is history"
    assert [(v.window, v.spent) for v in m.balances(run="r1")] == [("r1", 1)]
    assert [(v.window, v.spent) for v in m.balances(run="r3")] == [("r3", 0)]


def test_balances_of_somebody_are_not_those_of_everybodys_runs(meter):
    m = meter(
        Budget(usd="9", per="run"), Budget(calls=9, per="run", by=("user", "team")), Budget(usd="1", by="user", per="day", name="day"),
    )  # fmt: skip
    spend(m, "a", 10, run_id="r1", root_seen=True, user="alice", metadata={"team": "x"})
    spend(m, "b", 20, run_id="r2", root_seen=True, user="bob", metadata={"team": "x"})
    found = [(v.budget, v.scope, v.spent) for v in m.balances(user="alice")]
    assert found == [("9 calls per run", ("alice", "x"), 1), ("day", ("alice",), 10 * UNIT)]
    assert [v.scope for v in m.balances(team="x")] == [("alice", "x"), ("bob", "x"), ("alice",), ("bob",)]
    assert m.balances(**{"metadata.team": "x"}) == m.balances(team="x")
    assert [(v.unit, v.spent) for v in m.balances(run="r2", user="bob", team="x")] == [
        ("usd", 20 * UNIT), ("calls", 1), ("usd", 20 * UNIT)]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "said"),
    [("usr", "Did you mean 'user'"), ("agent", "they are by team, user"), ("Team", "Did you mean 'team'")],
)
def test_a_field_that_narrows_nothing_down_is_refused(meter, field, said):
    m = meter(Budget(usd="1", by="user_id", per="day", name="day"), Budget(calls=9, by="metadata.team"))
    spend(m, "a", 10, user="alice")
    with pytest.raises(ConfigError, match=said):
        m.balances(**{field: "alice"})
    assert [v.scope for v in m.balances(user="alice")] == [v.scope for v in m.balances(user_id="alice")]
    with pytest.raises(ConfigError, match="none has a `by`"):
        meter(Budget(calls=9)).balances(user="alice")


def test_a_metadata_key_that_looks_like_a_field_is_not_the_field(meter):
    m = meter(Budget(calls=9, by="metadata.user"))
    spend(m, "a", user="alice", metadata={"user": "wonderland"})
    assert [v.scope for v in m.balances(**{"metadata.user": "wonderland"})] == [("wonderland",)]
    with pytest.raises(ConfigError, match=r"Did you mean 'metadata\.user'"):
        m.balances(user="alice")


def test_a_summary_is_what_this_meter_saw_unless_asked_for_more(meter):
    a, b = meter(), meter()
    spend(a, "a", 10, run_id="r1")
    spend(b, "b", 20, run_id="r1")
    spend(b, "c", 40, run_id="r2")
    assert (a.summary().cost_usd, b.summary().cost_usd) == (10 * UNIT, 60 * UNIT)
    assert (a.summary(run="r1").cost_usd, a.summary(run="r2").cost_usd) == (30 * UNIT, 40 * UNIT)
    assert a.summary(since=datetime.now(UTC) - timedelta(hours=1)).cost_usd == 70 * UNIT
    assert a.summary(since=datetime.now(UTC) + timedelta(hours=1)).calls == 0
    assert [e.call_id for e in a.entries(run="r1")] == ["a", "b"]
    assert [e.call_id for e in a.entries(since=datetime.now(UTC) + timedelta(hours=1))] == []


# -- the end


def test_after_close_nothing_is_admitted(meter):
    m = meter(Budget(usd="1"))
    opened = m.reserve(made("open"))
    assert m.closed is False
    m.close()
    m.close()
    assert m.closed is True
    with pytest.raises(ConfigError) as caught:
        m.reserve(made("b"))
    assert caught.value.message == "This meter was closed; a call after close() would not be counted. Make a new one."
    with pytest.raises(ConfigError) as caught:
        m.charge("0.5", name="search")
    assert caught.value.message == "This meter was closed; a charge after close() would not be counted. Make a new one."
    with pytest.raises(LedgerError):
        m.ledger.open_holds()
    assert m.settle(opened, answer(10)) is None


def test_meters_have_ids_of_their_own(meter):
    a, b = meter(), meter()
    assert a.id != b.id
    assert re.fullmatch(r"meter-[0-9a-f]{32}", a.id)
    assert a.durability == "process"
    assert meter(durability="power").durability == "power"
