"""Budgets refuse nonsense when they are built; windows are pure functions of time; scopes name one balance."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.budget import Attached, BalanceKey, Budget, amount_text, field_key, window_end, window_key
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import Price, PriceBook
from ai_budget_callbacks.usage import Call, Who
from tests.support.goldens import NOW

PICO = 10**12

# -- construction

FIELD_HELP = "use user, thread, agent, node, tool, model, provider, framework, or a metadata key."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "A Budget has exactly one of usd=, tokens=, calls=; 0 were given."),
        ({"usd": None}, "A Budget has exactly one of usd=, tokens=, calls=; 0 were given."),
        ({"usd": "1", "calls": 3}, "A Budget has exactly one of usd=, tokens=, calls=; 2 were given."),
        ({"usd": "1", "tokens": 5, "calls": 3}, "A Budget has exactly one of usd=, tokens=, calls=; 3 were given."),
        ({"usd": "0"}, "Budget(usd='0') must be more than 0; to stop every call, remove the model."),
        ({"usd": 0}, "Budget(usd=0) must be more than 0; to stop every call, remove the model."),
        ({"usd": "-0.5"}, "Budget(usd='-0.5') must be more than 0; to stop every call, remove the model."),
        ({"usd": "NaN"}, "Budget(usd=…) must be a finite amount, not 'NaN'."),
        ({"usd": Decimal("sNaN")}, "Budget(usd=…) must be a finite amount, not Decimal('sNaN')."),
        ({"usd": float("inf")}, "Budget(usd=…) must be a finite amount, not inf."),
        ({"usd": "-Infinity"}, "Budget(usd=…) must be a finite amount, not '-Infinity'."),
        ({"usd": True}, "Budget(usd=…) must be a decimal string, Decimal or int, not bool."),
        ({"usd": "fifty"}, "Budget(usd=…) must be a decimal number such as '0.50', not 'fifty'."),
        ({"usd": "$5"}, "Budget(usd=…) must be a decimal number such as '0.50', not '$5'."),
        ({"usd": "0,50"}, "Budget(usd=…) must be a decimal number such as '0.50', not '0,50'."),
        ({"usd": ["1"]}, "Budget(usd=…) must be a decimal string, Decimal or int, not list."),
        ({"usd": "0.0000000000001"}, "Budget(usd=…) is finer than 1e-12 USD: '0.0000000000001'."),
        (
            {"usd": "9223373"},
            "Budget(usd=…) is beyond what one balance can hold (9223372.036854775807 USD): '9223373'.",
        ),
        ({"usd": "1e99"}, "Budget(usd=…) is out of range: '1e99'."),
        ({"tokens": 0}, "Budget(tokens=0) must be more than 0; to stop every call, remove the model."),
        ({"tokens": -5}, "Budget(tokens=-5) must be more than 0; to stop every call, remove the model."),
        ({"tokens": True}, "Budget(tokens=…) must be an int, not True."),
        ({"tokens": 1e6}, "Budget(tokens=…) must be an int, not 1000000.0."),
        ({"calls": "5"}, "Budget(calls=…) must be an int, not '5'."),
        ({"calls": 2**63}, "Budget(calls=9223372036854775808) is beyond what one balance can hold."),
        (
            {"usd": "1", "per": "week", "name": "w"},
            "Unknown window per='week'; use None, 'run', 'hour', 'day', 'month', 'total'.",
        ),
        (
            {"usd": "1", "per": "Day", "name": "d"},
            "Unknown window per='Day'; use None, 'run', 'hour', 'day', 'month', 'total'.",
        ),
        *(
            (
                {"usd": "1", "per": per},
                f'per="{per}" outlives the process, so the ledger needs a name for it: Budget(…, name="my-{per}").',
            )
            for per in ("hour", "day", "month", "total")
        ),
        (
            {"usd": "1", "per": "day", "name": "d", "tz": "Europe/Berlni"},
            "Unknown time zone tz='Europe/Berlni'; use an IANA name such as 'Europe/Berlin'.",
        ),
        ({"usd": "1", "tz": None}, "Unknown time zone tz=None; use an IANA name such as 'Europe/Berlin'."),
        ({"usd": "1", "tz": ""}, "Unknown time zone tz=''; use an IANA name such as 'Europe/Berlin'."),
        (
            {"usd": "1", "by": "users"},
            "by='users': did you mean 'user'? For a metadata key of that name write 'metadata.users'.",
        ),
        (
            {"usd": "1", "by": ("agent", "User")},
            "by='User': did you mean 'user'? For a metadata key of that name write 'metadata.User'.",
        ),
        (
            {"usd": "1", "match": {"models": "gpt-5*"}},
            "match='models': did you mean 'model'? For a metadata key of that name write 'metadata.models'.",
        ),
        (
            {"usd": "1", "by": "step"},
            "by='step': did you mean 'node'? For a metadata key of that name write 'metadata.step'.",
        ),
        (
            {"usd": "1", "by": ("user", "Run")},
            "by='Run': did you mean per=\"run\"? For a metadata key of that name write 'metadata.Run'.",
        ),
        (
            {"usd": "1", "match": {"day": "x"}},
            "match='day': did you mean per=\"day\"? For a metadata key of that name write 'metadata.day'.",
        ),
        ({"usd": "1", "by": "user id"}, f"by='user id' is no field; {FIELD_HELP}"),
        ({"usd": "1", "by": ("",)}, f"by='' is no field; {FIELD_HELP}"),
        ({"usd": "1", "by": (3,)}, f"by=3 is no field; {FIELD_HELP}"),
        ({"usd": "1", "by": "metadata."}, f"by='metadata.' is no field; {FIELD_HELP}"),
        ({"usd": "1", "match": {"model": ""}}, "match={'model': …} must be a pattern such as 'gpt-5*', not ''."),
        ({"usd": "1", "match": {"model": None}}, "match={'model': …} must be a pattern such as 'gpt-5*', not None."),
        ({"usd": "1", "name": " "}, "Budget name must be a non-empty text without '@', not ' '."),
        ({"usd": "1", "name": "a@b"}, "Budget name must be a non-empty text without '@', not 'a@b'."),
        ({"usd": "1", "name": 7}, "Budget name must be a non-empty text without '@', not 7."),
        ({"usd": "1", "at_limit": "stop"}, 'at_limit must be "refuse", "raise" or "warn", not \'stop\'.'),
        ({"usd": "1", "at_limit": ["warn"]}, 'at_limit must be "refuse", "raise" or "warn", not [\'warn\'].'),
        ({"usd": "1", "by": 5}, "by must be a field or a tuple of fields, not 5."),
        ({"usd": "1", "match": "gpt-5*"}, "match must be a mapping such as {'model': 'gpt-5*'}, not 'gpt-5*'."),
        ({"usd": "1", "tz": []}, "Unknown time zone tz=[]; use an IANA name such as 'Europe/Berlin'."),
        ({"usd": "0." + "3" * 80}, f"Budget(usd=…) is finer than 1e-12 USD: '0.{'3' * 80}'."),
        ({"usd": "1", "at_limit": None}, 'at_limit must be "refuse", "raise" or "warn", not None.'),
        ({"usd": "1", "warn_at": ("0",)}, "warn_at fractions lie in (0, 1], not '0'."),
        ({"usd": "1", "warn_at": ("80",)}, "warn_at fractions lie in (0, 1], not '80'."),
        ({"usd": "1", "warn_at": ("-0.1",)}, "warn_at fractions lie in (0, 1], not '-0.1'."),
        ({"usd": "1", "warn_at": ("nan",)}, "warn_at must be a finite amount, not 'nan'."),
        ({"usd": "1", "warn_at": (True,)}, "warn_at must be a decimal string, Decimal or int, not bool."),
        ({"usd": "1", "warn_at": None}, "warn_at must be a tuple of fractions such as ('0.8',), not None."),
        ({"usd": "1", "warn_at": 1}, "warn_at must be a tuple of fractions such as ('0.8',), not 1."),
    ],
    ids=str,
)
def test_a_budget_that_makes_no_sense_is_refused_at_construction(arguments, message):
    with pytest.raises(ConfigError) as caught:
        Budget(**arguments)
    assert caught.value.message == str(caught.value) == message


def test_positional_limits_are_refused():
    with pytest.raises(TypeError):
        Budget("5")


@pytest.mark.parametrize("half", ["0.5", "0.50", 0.5, Decimal("0.5"), Decimal("0.500"), " 0.5 ", "5e-1"], ids=repr)
def test_half_a_dollar_is_half_a_dollar_however_it_is_written(half):
    assert Budget(usd=half).limit == 500_000_000_000


@pytest.mark.parametrize(
    ("written", "pico"),
    [
        (0.1, 100_000_000_000),  # not 0.1000000000000000055
        (0.3, 300_000_000_000),
        (1e-12, 1),
        ("9223372.036854775807", 2**63 - 1),
        (2, 2 * PICO),
    ],
)
def test_a_limit_is_exact(written, pico):
    budget = Budget(usd=written)
    assert (budget.unit, budget.limit) == ("usd", pico)
    assert format(budget.amount(pico), "f") == amount_text("usd", pico).removeprefix("$")


def test_token_and_call_limits_are_counted_in_their_own_unit():
    assert (Budget(tokens=7).unit, Budget(tokens=7).limit, Budget(tokens=7).amount(3)) == ("tokens", 7, 3)
    assert (Budget(calls=7).unit, Budget(calls=7).limit) == ("calls", 7)
    assert [amount_text("tokens", 1), amount_text("calls", 5), amount_text("usd", -PICO)] == [
        "1 token",
        "5 calls",
        "-$1",
    ]


@pytest.mark.parametrize(
    ("warn_at", "marks"),
    [
        (("0.8",), (("0.8", 800_000_000_000),)),
        ("0.8", (("0.8", 800_000_000_000),)),
        (("0.9", 0.5), (("0.5", 500_000_000_000), ("0.9", 900_000_000_000))),
        ((), ()),
        ((1,), (("1", PICO),)),
    ],
)
def test_warn_marks_are_fractions_of_the_limit(warn_at, marks):
    assert Budget(usd="1", warn_at=warn_at).warn_marks == marks


def test_a_warn_mark_between_two_whole_tokens_waits_for_the_upper_one():
    assert Budget(tokens=7, warn_at="0.5").warn_marks == (("0.5", 4),)


FULL: dict[str, Any] = {
    "usd": "20",
    "per": "day",
    "by": ("user", "job"),
    "name": "user-day",
    "match": {"provider": "openai", "model": "gpt-5*"},
    "tz": "Europe/Berlin",
    "warn_at": ("0.5", "0.8"),
    "at_limit": "raise",
}


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
@pytest.mark.parametrize("arguments", [FULL, {"calls": 3}, {"usd": 0.5}], ids=str)
def test_a_copied_budget_is_the_same_budget(again, arguments):
    budget = Budget(**arguments)
    twin = again(budget)
    assert twin == budget
    assert hash(twin) == hash(budget)
    assert (twin.limit, twin.identity, twin.warn_marks) == (budget.limit, budget.identity, budget.warn_marks)
    assert len({budget, twin}) == 1, "one budget would be counted on two balances"


@pytest.mark.parametrize(
    "change",
    [
        {"usd": "21"},
        {"per": "month"},
        {"by": ("user",)},
        {"name": "other"},
        {"match": {"model": "gpt-5*"}},
        {"tz": "UTC"},
        {"at_limit": "warn"},
    ],
    ids=str,
)
def test_budgets_that_differ_are_not_equal(change):
    assert Budget(**FULL) != Budget(**{**FULL, **change})


def test_identity_is_all_but_the_limit():
    base = Budget(**FULL)
    for harmless in ({"usd": "99"}, {"at_limit": "refuse"}, {"warn_at": ()}):
        assert Budget(**{**FULL, **harmless}).identity == base.identity, f"{harmless} would split one balance in two"
    for real in ({"per": "month"}, {"by": ("user",)}, {"match": None}, {"tz": "UTC"}):
        assert Budget(**{**FULL, **real}).identity != base.identity, f"{real} would share a balance that is another"
    reordered = {"model": "gpt-5*", "provider": "openai"}
    assert Budget(**{**FULL, "match": reordered}).identity == base.identity
    assert Budget(tokens=5).identity != Budget(calls=5).identity


def test_a_budget_is_frozen_and_replace_checks_again():
    budget = Budget(usd="1")
    with pytest.raises(FrozenInstanceError):
        budget.limit = 5
    assert replace(budget, usd="2").limit == 2 * PICO
    with pytest.raises(ConfigError):
        replace(budget, usd="-2")


def test_only_warn_does_not_stop_and_only_calendar_windows_are_durable():
    assert [Budget(usd="1", at_limit=limit).stops for limit in ("refuse", "raise", "warn")] == [True, True, False]
    durable = [Budget(usd="1", per=per, name="n").durable for per in (None, "run", "hour", "day", "month", "total")]
    assert durable == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        ({"usd": "0.50"}, "$0.5"),
        ({"tokens": 1}, "1 token"),
        ({"calls": 3, "per": "run"}, "3 calls per run"),
        ({"usd": "1", "per": "day", "name": "team"}, "team"),
    ],
    ids=str,
)
def test_what_messages_call_a_budget(arguments, label):
    assert Budget(**arguments).label == label


@pytest.mark.parametrize(
    "arguments", [FULL, {"tokens": 9_000, "per": "run"}, {"calls": 3, "name": "n"}, {"usd": 0.5, "by": "user"}], ids=str
)
def test_a_budget_is_read_back_as_the_ledger_knows_it(arguments):
    budget = Budget(**arguments)
    known = Budget.known(budget.name, budget.identity, budget.limit)
    assert (known.name, known.identity, known.unit, known.limit) == (
        budget.name,
        budget.identity,
        budget.unit,
        budget.limit,
    )
    assert (known.per, known.by, dict(known.match), known.tz) == (budget.per, budget.by, dict(budget.match), budget.tz)
    assert (known.at_limit, known.warn_at) == ("refuse", ("0.8",)), "what is no identity is not on the ledger"


# -- windows

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Asia/Kolkata",  # half an hour off
    "America/Sao_Paulo",  # until 2019 summer began at midnight: that midnight did not exist
    "Africa/Cairo",  # and here it still does
)
TIMES = st.datetimes(datetime(2015, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))
CALENDAR = ("hour", "day", "month")


def window(per: str, tz: str) -> Budget:
    return Budget(usd="1", per=per, name="w", tz=tz)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), TIMES, st.fractions(0, 1))
@example("day", "America/Sao_Paulo", datetime(2018, 11, 3, 12, tzinfo=UTC), 0)
@example("day", "America/Sao_Paulo", datetime(2018, 2, 17, 12, tzinfo=UTC), 0)
@example("day", "Africa/Cairo", datetime(2026, 4, 23, 12, tzinfo=UTC), 0)
@example("day", "Africa/Cairo", datetime(2026, 10, 29, 12, tzinfo=UTC), 0)
@example("hour", "Australia/Lord_Howe", datetime(2026, 10, 3, 15, 45, tzinfo=UTC), 0)
@example("hour", "Australia/Lord_Howe", datetime(2026, 4, 4, 15, 15, tzinfo=UTC), 0)  # 01:45 for the second time
@example("hour", "Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC), 0)
@example("month", "Europe/Berlin", datetime(2026, 12, 31, 22, 59, tzinfo=UTC), 0)
def test_a_window_holds_until_its_end_and_no_longer(per, tz, at, share):
    budget = window(per, tz)
    key, end = window_key(budget, at, ""), window_end(budget, at).astimezone(UTC)
    assert end > at, "a call would belong to a window that is over"
    assert window_key(budget, end - timedelta(microseconds=1), "") == key, "the limit would reset too early"
    assert window_key(budget, end, "") != key, "the limit would reset too late"
    assert window_key(budget, window_end(budget, at), "") != key, "the end as shown still belongs to the window"
    between = at + timedelta(microseconds=int((end - at) / timedelta(microseconds=1) * share))
    if between < end:
        assert window_key(budget, between, "") == key, "the limit would reset in the middle of a window"
        assert window_end(budget, between).astimezone(UTC) == end, "resets_at would move"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), st.sampled_from(ZONES), TIMES)
def test_the_key_is_a_function_of_the_instant_alone(per, tz, clients_zone, at):
    budget = window(per, tz)
    elsewhere = at.astimezone(ZoneInfo(clients_zone))
    assert window_key(budget, elsewhere, "a run") == window_key(budget, at, ""), "two processes count on two balances"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ZONES), TIMES)
def test_a_day_has_23_to_25_hours_and_a_month_28_to_31_days(tz, at):
    start = window_end(window("day", tz), at).astimezone(UTC)
    length = window_end(window("day", tz), start).astimezone(UTC) - start
    assert timedelta(hours=23) <= length <= timedelta(hours=25)
    start = window_end(window("month", tz), at).astimezone(UTC)
    length = window_end(window("month", tz), start).astimezone(UTC) - start
    assert timedelta(days=27, hours=23) <= length <= timedelta(days=31, hours=1)


@pytest.mark.parametrize("minute", range(0, 30, 10))
def test_an_hour_window_in_lord_howes_repeated_half_hour_ends_after_it(minute):
    budget, at = window("hour", "Australia/Lord_Howe"), datetime(2026, 4, 4, 15, minute, 5, tzinfo=UTC)
    assert window_end(budget, at).astimezone(UTC) == datetime(2026, 4, 4, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("per", "tz", "at", "key", "end"),
    [
        ("day", "Europe/Berlin", "2026-03-28T22:59:59", "2026-03-28", "2026-03-28T23:00"),
        ("day", "Europe/Berlin", "2026-03-28T23:00:00", "2026-03-29", "2026-03-29T22:00"),  # 23 hours
        ("day", "Europe/Berlin", "2026-10-24T22:00:00", "2026-10-25", "2026-10-25T23:00"),  # 25 hours
        ("day", "America/New_York", "2026-03-08T05:00:00", "2026-03-08", "2026-03-09T04:00"),
        ("day", "America/New_York", "2026-11-01T04:00:00", "2026-11-01", "2026-11-02T05:00"),
        ("day", "Asia/Kolkata", "2026-06-01T18:29:00", "2026-06-01", "2026-06-01T18:30"),
        ("day", "Australia/Lord_Howe", "2026-04-04T13:00:00", "2026-04-05", "2026-04-05T13:30"),  # 24.5 hours
        # midnights that do not exist: the day ends at the jump
        ("day", "America/Sao_Paulo", "2018-11-03T12:00:00", "2018-11-03", "2018-11-04T03:00"),
        ("day", "America/Sao_Paulo", "2018-11-04T03:00:00", "2018-11-04", "2018-11-05T02:00"),
        ("day", "Africa/Cairo", "2026-04-23T12:00:00", "2026-04-23", "2026-04-23T22:00"),
        ("day", "Africa/Cairo", "2026-04-23T22:00:00", "2026-04-24", "2026-04-24T21:00"),
        # the hour before midnight that Cairo passes twice
        ("day", "Africa/Cairo", "2026-10-29T21:30:00", "2026-10-29", "2026-10-29T22:00"),
        ("month", "UTC", "2026-12-31T23:59:59", "2026-12", "2027-01-01T00:00"),
        ("month", "Europe/Berlin", "2026-12-15T12:00:00", "2026-12", "2026-12-31T23:00"),
        ("month", "Europe/Berlin", "2026-12-31T23:00:00", "2027-01", "2027-01-31T23:00"),
        ("month", "Europe/Berlin", "2026-10-01T00:00:00", "2026-10", "2026-10-31T23:00"),  # begins at +02, ends at +01
        ("month", "UTC", "2028-02-29T12:00:00", "2028-02", "2028-03-01T00:00"),
        # the first of November that Havana passes twice: its first midnight ends October
        ("month", "America/Havana", "2026-10-15T12:00:00", "2026-10", "2026-11-01T04:00"),
        ("month", "America/Havana", "2026-11-01T05:30:00", "2026-11", "2026-12-01T05:00"),
        ("hour", "Asia/Kolkata", "2026-06-01T18:29:00", "2026-06-01T23+0530", "2026-06-01T18:30"),
        ("hour", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T02+0200", "2026-10-25T01:00"),
        ("hour", "Europe/Berlin", "2026-10-25T01:30:00", "2026-10-25T02+0100", "2026-10-25T02:00"),
        ("hour", "Europe/Berlin", "2026-03-29T00:30:00", "2026-03-29T01+0100", "2026-03-29T01:00"),
        ("hour", "Europe/Berlin", "2026-03-29T01:00:00", "2026-03-29T03+0200", "2026-03-29T02:00"),
        ("hour", "America/New_York", "2026-11-01T05:30:00", "2026-11-01T01-0400", "2026-11-01T06:00"),
        ("hour", "America/New_York", "2026-11-01T06:30:00", "2026-11-01T01-0500", "2026-11-01T07:00"),
        # Lord Howe: cut short by the change, in both directions
        ("hour", "Australia/Lord_Howe", "2026-04-04T14:45:00", "2026-04-05T01+1100", "2026-04-04T15:00"),
        ("hour", "Australia/Lord_Howe", "2026-10-03T15:45:00", "2026-10-04T02+1100", "2026-10-03T16:00"),
    ],
)
def test_windows_on_the_calendar(per, tz, at, key, end):
    budget, moment = window(per, tz), datetime.fromisoformat(at).replace(tzinfo=UTC)
    shown = window_end(budget, moment)
    assert window_key(budget, moment, "") == key
    assert shown.astimezone(UTC) == datetime.fromisoformat(end).replace(tzinfo=UTC)
    assert shown.tzinfo == ZoneInfo(tz), "resets_at is shown in another zone than the budget's"


def test_windows_without_a_calendar_never_roll_over():
    for budget, key in [
        (Budget(usd="1"), "attached"),
        (Budget(usd="1", per="run"), "run-7"),
        (Budget(usd="1", per="total", name="t"), "total"),
    ]:
        assert window_key(budget, NOW, "run-7") == key
        assert window_end(budget, NOW) is None


# -- scopes


def call(**fields: Any) -> Call:
    who = Who(**{"run_id": "run-1", "root_seen": True, **fields.pop("who", {})})
    base: dict[str, Any] = {"id": "1", "framework": "langchain", "provider": "openai", "model": "gpt-5-2025-08-07"}
    return Call(**{**base, "started_at": NOW, "who": who, **fields})


def scope(by: str | tuple[str, ...], made: Call, resolved: str | None = "gpt-5") -> Any:
    attached = Attached.make(Budget(usd="1", by=by), "handler-1", 0)
    return json.loads(attached.balance(made, resolved).scope)


def test_every_scope_field_is_read_from_its_own_place():
    who = {
        "user": "alice",
        "thread": "t1",
        "agent": "writer",
        "node": "draft",
        "tool": "search",
        "metadata": MappingProxyType({"user": "from metadata", "job": "nightly"}),
    }
    made = call(who=who)
    assert scope(("user", "thread", "agent", "node", "tool"), made) == ["alice", "t1", "writer", "draft", "search"]
    assert scope(("model", "provider", "framework"), made) == ["gpt-5", "openai", "langchain"]
    assert scope("job", made) == ["nightly"]
    assert scope("metadata.job", made) == ["nightly"]
    assert scope("metadata.user", made) == ["from metadata"]
    assert scope((), made) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("user", "user"),
        ("user_id", "user"),
        ("thread_id", "thread"),
        ("node", "node"),
        ("team", "team"),
        ("metadata.team", "team"),
        ("metadata.user", "metadata.user"),
        ("metadata.user_id", "metadata.user_id"),
        ("metadata.metadata.", "metadata."),
    ],
)
def test_a_field_has_one_spelling(name, key):
    assert field_key(name) == key


def test_the_frameworks_names_of_user_and_thread_are_ours():
    made = call(who={"user": "alice", "thread": "t1", "metadata": {"user_id": "other", "thread_id": "other"}})
    assert scope(("user_id", "thread_id"), made) == ["alice", "t1"]
    assert scope(("metadata.user_id", "metadata.thread_id"), made) == ["other", "other"]
    matched = Attached.make(Budget(usd="1", match={"user_id": "al*", "thread_id": "t?"}), "h", 0)
    assert matched.applies(made, None)


def test_a_call_that_lacks_a_field_counts_under_none_and_not_beside_it():
    assert scope(("user", "job", "node"), call()) == ["(none)", "(none)", "(none)"]
    assert scope("user", call(who={"user": ""})) == ["(none)"]
    assert scope("model", call(), None) == ["gpt-5-2025-08-07"], "an unknown model counts under its own name"


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_two_scopes_share_a_balance_only_when_they_are_the_same(left, right):
    attached = Attached.make(Budget(usd="1", by=("user", "job")), "h", 0)

    def key(pair: list[str]) -> Any:
        return attached.balance(call(who={"user": pair[0], "metadata": {"job": pair[1]}}), None)

    same = [value or "(none)" for value in left] == [value or "(none)" for value in right]
    assert (key(left) == key(right)) == same


def test_a_run_has_its_own_balance_only_when_its_root_was_seen():
    attached = Attached.make(Budget(usd="1", per="run"), "handler-1", 0)
    assert attached.balance(call(), None).window == "run-1"
    assert attached.balance(call(who={"root_seen": False}), None).window == "handler-1"
    assert attached.balance(call(who={"run_id": None}), None).window == "handler-1"


def test_a_named_durable_budget_is_shared_and_any_other_belongs_to_its_owner():
    day = Budget(usd="1", per="day", name="day")
    assert Attached.make(day, "a", 0).key == Attached.make(day, "b", 3).key == "day"
    block = Budget(usd="1", name="day")
    keys = {Attached.make(b, owner, i).key for b in (block, Budget(usd="1")) for owner in "ab" for i in (0, 1)}
    assert Attached.make(Budget(usd="1"), "a", 0).key == "budget-1@a"
    assert Attached.make(block, "a", 4).key == "day@a"
    assert len(keys) == 6, "two handlers would share a balance that is not theirs"
    assert "day" not in keys, "a block's budget would count on the durable balance of the same name"


@pytest.mark.parametrize(
    ("match", "resolved", "applies"),
    [
        (None, "gpt-5", True),
        ({"model": "gpt-5*"}, "gpt-5", True),
        ({"model": "gpt-5"}, "gpt-5", True),  # the resolved name
        ({"model": "gpt-5-2025*"}, "gpt-5", True),  # or the dated one that was asked for
        ({"model": "GPT-5*"}, "gpt-5", True),  # nobody means a model by its case
        ({"model": "gpt-4*"}, "gpt-5", False),
        ({"model": "gpt-[45]"}, "gpt-5", True),
        ({"model": "gpt-5*", "provider": "azure"}, "gpt-5", False),
        ({"model": "gpt-5*", "provider": "open*"}, "gpt-5", True),
        ({"user": "*"}, "gpt-5", False),  # a call without a user matches no pattern
        ({"job": "night*"}, "gpt-5", True),
        ({"job": "Night*"}, "gpt-5", False),  # but a job by whatever the user calls it
        ({"framework": "LangChain", "provider": "OPENAI"}, "gpt-5", True),
        ({"metadata.job": "day*"}, "gpt-5", False),
        ({"model": "gpt-5-2025*"}, None, True),
    ],
)
def test_match_decides_which_calls_a_budget_sees(match, resolved, applies):
    attached = Attached.make(Budget(usd="1", match=match), "h", 0)
    made = call(who={"metadata": {"job": "nightly"}})
    assert attached.applies(made, resolved) is applies


def test_a_budget_for_a_model_sees_it_when_its_price_is_declared_for_one_provider():
    book = PriceBook({"openai/my-model": Price(input="1", output="1")})
    attached = Attached.make(Budget(usd="1", match={"model": "my-model*"}), "h", 0)
    made = call(model="my-model")
    assert attached.applies(made, book.resolved("openai", "my-model", NOW))


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(usd="1"), BalanceKey("budget-3@handler-1", "usd", "attached", "[]")),
        (Budget(tokens=5, per="run", name="words"), BalanceKey("words@handler-1", "tokens", "run-1", "[]")),
        (Budget(calls=5, per="total", name="all"), BalanceKey("all", "calls", "total", "[]")),
        # 13:00 in UTC is 22:00 in Tokyo and 02:00 of the next day in Auckland
        (Budget(usd="1", per="hour", name="h", tz="Asia/Tokyo"), BalanceKey("h", "usd", "2026-11-24T22+0900", "[]")),
        (Budget(usd="1", per="day", name="d", tz="Pacific/Auckland"), BalanceKey("d", "usd", "2026-11-25", "[]")),
        (
            Budget(usd="1", per="month", name="m", by=("user", "model")),
            BalanceKey("m", "usd", "2026-11", '["alice", "gpt-5"]'),
        ),
    ],
    ids=str,
)
def test_the_balance_a_call_counts_on_by_hand(budget, expected):
    attached = Attached.make(budget, "handler-1", 2)
    assert attached.balance(call(who={"user": "alice"}), "gpt-5") == expected
    assert (attached.owner, attached.block) == ("handler-1", False)
    assert Attached.make(budget, "handler-1", 2, block=True).block is True


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("usd", 0, "$0"),
        ("usd", 1, "$0.000000000001"),
        ("usd", -1, "-$0.000000000001"),
        ("usd", PICO // 2, "$0.5"),
        ("usd", -PICO // 2, "-$0.5"),
        ("tokens", 0, "0 tokens"),
        ("tokens", 1, "1 token"),
        ("calls", 2, "2 calls"),
        ("calls", -1, "-1 calls"),
    ],
)
def test_an_amount_as_messages_show_it(unit, value, text):
    assert amount_text(unit, value) == text


def test_a_metadata_key_that_only_resembles_a_field_is_a_key():
    assert scope("usage", call(who={"metadata": {"usage": "nightly"}})) == ["nightly"]


def test_budgets_that_differ_have_hashes_that_differ():
    assert len({hash(Budget(usd=f"{number}")) for number in range(1, 9)}) == 8


def test_the_identity_that_stands_in_ledgers_by_hand():
    budget = Budget(usd="1", per="day", by=("user", "job"), match={"provider": "openai", "model": "gpt*"}, name="n")
    assert budget.identity == (
        '{"by": ["user", "job"], "match": {"model": "gpt*", "provider": "openai"}, "per": "day", "tz": "UTC", "unit": "usd"}'
    )


def test_warnings_come_in_the_order_of_their_amounts():
    budget = Budget(usd="1", warn_at=("0.8", "0.0000005", "1"))
    assert [amount for _, amount in budget.warn_marks] == [500_000, 800_000_000_000, PICO]
    with pytest.raises(ConfigError):
        Budget(usd="1", warn_at=("1.000001",))
