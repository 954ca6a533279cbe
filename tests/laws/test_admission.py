"""What a call asks of its budgets, by hand: which budgets, how much on each, and what is refused before the ledger.

The model costs $1 a million input tokens and $2 a million output tokens, so a token is 1,000,000 or 2,000,000
pico-dollars. Its call: 1,001 bytes of text in one message → 401 + 16 input tokens, at most 100 output tokens.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ai_budget_callbacks.admission import Policy, admit, exceeded
from ai_budget_callbacks.budget import Attached, BalanceKey, Budget
from ai_budget_callbacks.errors import BudgetExceeded, PriceUnknown
from ai_budget_callbacks.ledger import NoRoom
from ai_budget_callbacks.pricing import Price, PriceBook, RateCard
from ai_budget_callbacks.pricing.estimate import Learned
from ai_budget_callbacks.usage import Call, Request, Who
from tests.support.goldens import NOW

M = 10**6
BOOK = PriceBook({"mine": Price(input="1", output="2"), "gratis": "free", "tool/search": Price(request="0.008")})
INPUT, OUTPUT = 417, 100
USUAL = INPUT * M + OUTPUT * 2 * M
FLOOR = INPUT * M + 2 * M  # its input and one output token

USD = Budget(usd="1")
WARNS = Budget(usd="1", at_limit="warn")
TOKENS = Budget(tokens=5_000)
CALLS = Budget(calls=7)
MODES = {"usd": USD, "warns": WARNS, "tokens": TOKENS, "calls": CALLS}


def made(model="mine", provider="openai", *, who=None, kind="call", **request):
    sizes = {"text_bytes": 1_001, "messages": 1, "max_output_tokens": 100}
    return Call(
        id="a",
        kind=kind,
        framework="direct",
        provider=provider,
        model=model,
        started_at=NOW,
        who=who or Who(),
        request=Request(**(sizes | request)),
    )


def attach(*budgets, block=False):
    return [Attached.make(budget, "owner", index, block=block) for index, budget in enumerate(budgets)]


def ask(call, *budgets, reserve="expected", on_unpriced="refuse", book=BOOK, learned=lambda _: Learned(), sent=False):
    policy = Policy(reserve=reserve, on_unpriced=on_unpriced)
    return admit(call, attach(*budgets), book, policy, learned, sent=sent)


def wants(found):
    return [(want.amount, want.floor, want.limit) for want in found.wants]


# -- the reservation modes


@pytest.mark.parametrize(
    ("reserve", "usd", "tokens", "held"),
    [
        ("expected", (USUAL, FLOOR), (INPUT + OUTPUT, INPUT + 1), USUAL),
        # the bytes themselves, 16 a message and 512 a request: 1001 + 16 + 512 tokens of input
        ("worst_case", (1_529 * M + 200 * M, None), (1_629, None), 1_729 * M),
        ("none", (0, None), (0, None), 0),
        (3_000_000, (3_000_000, None), (INPUT + OUTPUT, None), 3_000_000),
    ],
)
def test_what_each_mode_holds(reserve, usd, tokens, held):
    found = ask(made(), USD, WARNS, TOKENS, CALLS, reserve=reserve)
    assert wants(found) == [
        (*usd, 10**12),
        (*usd, None),
        (*tokens, 5_000),
        (1, None, 7),
    ]
    assert [want.key for want in found.wants] == [
        BalanceKey(f"budget-{i}@owner", unit, "attached", "[]")
        for i, unit in enumerate(("usd", "usd", "tokens", "calls"), 1)
    ]
    assert [item.budget for item in found.attached] == [USD, WARNS, TOKENS, CALLS]
    assert (found.held_pico, found.unpriced) == (held, None)
    assert isinstance(found.card, RateCard)
    assert found.card.source.name == "prices['mine']"


def test_what_was_learned_sizes_the_hold():
    seen = []

    def learned(call):
        seen.append(call)
        return Learned(text_bytes=1_000, text_tokens=100, outputs=(3,) * 8)  # 10 bytes a token, 3 tokens an answer

    found = ask(made(), USD, learned=learned)
    assert wants(found) == [((101 + 16) * M + 3 * 2 * M, 117 * M + 2 * M, 10**12)]
    assert seen == [made()]


# -- which budgets


@pytest.mark.parametrize(
    ("match", "applies"),
    [
        ({"model": "gpt-4o-mini"}, True),
        ({"model": "gpt-4o-mini-2024-07-18"}, True),
        ({"model": "gpt-4o"}, False),
        ({"provider": "openai"}, True),
        ({"provider": "azure"}, False),
        ({"user": "al*"}, True),
        ({"user": "bob"}, False),
    ],
)
def test_only_budgets_that_match_are_asked(match, applies):
    call = made("gpt-4o-mini-2024-07-18", who=Who(user="alice"))
    found = ask(call, CALLS, Budget(calls=3, match=match), TOKENS)
    assert [item.budget.unit for item in found.attached] == ["calls", *(["calls"] if applies else []), "tokens"]
    assert len(found.wants) == len(found.attached)


def test_a_scope_by_model_is_the_name_the_price_book_knows():
    found = ask(made("gpt-4o-mini-2024-07-18"), Budget(usd="1", by="model"))
    assert [want.key.scope for want in found.wants] == ['["gpt-4o-mini"]']


def test_a_free_model_touches_no_usd_balance():
    found = ask(made("gratis"), USD, TOKENS, CALLS)
    assert [item.budget.unit for item in found.attached] == ["tokens", "calls"]
    assert wants(found) == [(INPUT + OUTPUT, INPUT + 1, 5_000), (1, None, 7)]
    assert found.card.free


# -- without a price


@pytest.mark.parametrize("reserve", ["expected", "none", "worst_case", 3_000_000])
def test_a_call_nobody_can_price_is_refused_where_a_usd_budget_stops(reserve):
    with pytest.raises(PriceUnknown) as caught:
        ask(made("nobodys"), TOKENS, WARNS, USD, reserve=reserve)
    assert caught.value.budget == USD
    assert caught.value.message.startswith("No price is known for model 'nobodys' of provider 'openai' (")
    assert '\n    prices={"nobodys": Price(input="0.15", output="0.60", per=1_000_000)}\n' in caught.value.message


def test_the_refusal_says_why_there_is_no_price():
    reason = ask(made("nobodys")).unpriced
    with pytest.raises(PriceUnknown) as caught:
        ask(made("nobodys"), USD)
    assert reason
    assert f"({reason})" in caught.value.message


@pytest.mark.parametrize("budgets", [(), (WARNS,), (TOKENS, CALLS), (Budget(usd="1", match={"user": "bob"}),)])
def test_a_call_nobody_can_price_goes_on_where_no_usd_budget_stops(budgets):
    found = ask(made("nobodys"), *budgets)
    assert (found.card, found.held_pico) == (None, None)
    assert found.unpriced
    assert [want.amount for want in found.wants if want.key.unit == "usd"] == ([0] if budgets == (WARNS,) else [])


@pytest.mark.parametrize(
    ("reserve", "held"), [("expected", 5_000_000), ("none", 5_000_000), (3_000_000, 5_000_000), (8_000_000, 8_000_000)]
)
def test_an_amount_for_unpriced_calls_is_held(reserve, held):
    found = ask(made("nobodys"), USD, on_unpriced=5_000_000, reserve=reserve)
    assert [want.amount for want in found.wants] == [held]
    assert found.held_pico == held
    assert found.wants[0].floor is None


def test_an_amount_for_unpriced_calls_is_not_for_priced_ones():
    assert ask(made(), USD, on_unpriced=9 * 10**11).held_pico == USUAL


@pytest.mark.parametrize(
    "budget", [Budget(calls=3, match={"model": "gpt-*"}), Budget(tokens=9, match={"user": "x", "model": "*"})]
)
def test_a_name_nobody_knows_is_refused_where_a_budget_matches_on_model(budget):
    with pytest.raises(PriceUnknown) as caught:
        ask(made("nobodys"), CALLS, budget, on_unpriced=5_000_000)
    assert caught.value.budget == budget
    assert caught.value.message.startswith(
        f"Budget {budget.label!r} matches on model, and 'nobodys' of provider 'openai'"
    )


@pytest.mark.parametrize(
    "budget",
    [Budget(calls=3, match={"user": "x"}), Budget(calls=3, match={"model": "gpt-*"}, at_limit="warn"), Budget(calls=3)],
)
def test_a_name_nobody_knows_is_no_matter_elsewhere(budget):
    assert ask(made("nobodys"), budget).card is None


# -- the provider

DUAL = PriceBook({"dual": Price(input="1", output="2"), "azure/dual": Price(input="3", output="4")})


@pytest.mark.parametrize(("provider", "dollars"), [("openai", (1, 2)), ("azure", (3, 4))])
@pytest.mark.parametrize(("reserve", "tokens"), [("expected", INPUT), ("worst_case", 1_529)])
def test_a_call_is_held_at_its_own_providers_price(provider, dollars, reserve, tokens):
    found = ask(made("dual", provider), USD, book=DUAL, reserve=reserve)
    assert found.held_pico == tokens * dollars[0] * M + OUTPUT * dollars[1] * M


@pytest.mark.parametrize("tier", [None, "flex"])
def test_a_model_of_another_provider_has_no_price_here(tier):
    call = made("gpt-4o-mini", "a-reseller", service_tier=tier)
    with pytest.raises(PriceUnknown):
        ask(call, USD)
    with pytest.raises(PriceUnknown, match="matches on model"):
        ask(call, Budget(calls=3, match={"model": "gpt-*"}))


# -- tiers


def test_a_pinned_tier_is_held_at_its_own_price():
    # gpt-5 is 1.25/10 a million, flex half, priority twice
    usual, flex, priority = (
        ask(made("gpt-5", service_tier=tier), USD).held_pico for tier in (None, "flex", "priority")
    )
    assert usual == 1_250_000 * INPUT + 10_000_000 * OUTPUT
    assert (flex * 2, priority) == (usual, usual * 2)


def test_a_tier_without_a_price_is_held_at_the_usual_one():
    found = ask(made("gpt-4o-mini", service_tier="no-such-tier"), USD)
    assert found.held_pico == 150_000 * INPUT + 600_000 * OUTPUT
    assert found.unpriced is None


def test_a_speed_is_part_of_what_is_asked():
    # claude-opus-4-8: 5/25 a million, fast twice that
    usual = ask(made("claude-opus-4-8", "anthropic"), USD).held_pico
    assert usual == 5 * M * INPUT + 25 * M * OUTPUT
    assert ask(made("claude-opus-4-8", "anthropic", speed="fast"), USD).held_pico == 2 * usual


# -- worst case


def test_the_worst_case_is_that_of_the_tier_and_speed_that_are_asked():
    # gpt-5 pinned to flex may still be served at the usual tier; unpinned, at priority (2.50/20)
    def worst(**request):
        return ask(made("gpt-5", **request), USD, reserve="worst_case").held_pico

    assert worst(service_tier="flex") == 1_250_000 * 1_529 + 10_000_000 * OUTPUT
    assert worst() == 2 * worst(service_tier="flex")
    fast = ask(made("claude-opus-4-8", "anthropic", speed="fast"), USD, reserve="worst_case").held_pico
    slow = ask(made("claude-opus-4-8", "anthropic"), USD, reserve="worst_case").held_pico
    assert fast == 2 * slow


@pytest.mark.parametrize("budget", [USD, TOKENS])
def test_a_call_without_a_bound_is_refused_in_the_worst_case(budget):
    with pytest.raises(PriceUnknown) as caught:
        ask(made(other_parts=1), CALLS, WARNS, budget, reserve="worst_case")
    assert caught.value.budget == budget
    assert caught.value.message == (
        "reserve=\"worst_case\" cannot bound this call of 'mine': images, audio and files have no proven token bound; "
        'reserve a USD amount instead. Nothing was sent. Set what is missing, or use reserve="expected".'
    )


@pytest.mark.parametrize("budgets", [(), (CALLS,), (WARNS,), (Budget(tokens=9, at_limit="warn"), CALLS)])
def test_a_call_without_a_bound_goes_on_where_nothing_it_cannot_count_stops(budgets):
    found = ask(made(other_parts=1), *budgets, reserve="worst_case")
    assert found.estimate.input_tokens == INPUT + 1_500
    assert found.held_pico == USUAL + 1_500 * M


def test_the_worst_case_of_a_call_without_a_price_still_bounds_its_tokens():
    found = ask(made("nobodys"), TOKENS, reserve="worst_case")
    assert wants(found) == [(1_629, None, 5_000)]
    assert found.held_pico is None


@pytest.mark.parametrize(
    ("reserve", "bound", "whole"),
    [("worst_case", None, 16_384), ("worst_case", 100, None), ("expected", None, None), ("expected", 100, None)],
)
def test_an_output_that_only_the_model_bounds_is_said(reserve, bound, whole):
    # gpt-4o-mini: 0.15/0.60 a million, at most 16,384 output tokens; at priority 0.25/1
    found = ask(made("gpt-4o-mini", max_output_tokens=bound), USD, reserve=reserve)
    assert found.whole_output == whole
    text = exceeded(made("gpt-4o-mini"), found, NoRoom(found.wants[0], 0, 10**12 - 1)).message
    hint = (
        "; this call needs $0.01676625 (worst case: the model's whole output maximum of 16384 tokens; "
        "set max_tokens or max_completion_tokens on the model). "
    )
    assert (hint in text) is (whole is not None), text


def test_what_has_no_output_is_bounded():
    found = ask(made("text-embedding-3-small", max_output_tokens=None, output=False), USD, reserve="worst_case")
    assert found.whole_output is None


# -- what was sent already


@pytest.mark.parametrize("reserve", ["expected", "worst_case", "none", 3_000_000])
def test_what_was_sent_already_holds_nothing(reserve):
    found = ask(made(), USD, TOKENS, CALLS, reserve=reserve, sent=True)
    assert wants(found) == [(0, None, 10**12), (0, None, 5_000), (1, None, 7)]
    assert found.held_pico == 0


def test_what_was_sent_already_is_refused_for_nothing():
    assert ask(made("nobodys"), USD, sent=True).unpriced
    assert ask(made("nobodys"), Budget(calls=3, match={"model": "gpt-*"}), sent=True).wants == ()
    assert ask(made(other_parts=1), USD, reserve="worst_case", sent=True).held_pico == 0
    assert ask(made("nobodys"), USD, on_unpriced=7, sent=True).held_pico == 7


# -- charges


@pytest.mark.parametrize(
    ("reserve", "held"), [("expected", 8 * 10**9), ("worst_case", 8 * 10**9), (3, 8 * 10**9), ("none", 0)]
)
def test_a_tool_holds_its_fee_on_usd_budgets_alone(reserve, held):
    call = made("search", "tool", kind="charge", messages=0, output=False)
    found = ask(call, USD, WARNS, TOKENS, CALLS, reserve=reserve)
    assert wants(found) == [(held, None, 10**12), (held, None, None)]
    assert [item.budget for item in found.attached] == [USD, WARNS]
    assert found.held_pico == held
    assert found.card.source.name == "prices['tool/search']"
    assert (found.estimate.usd_pico, found.estimate.tokens) == (8 * 10**9, INPUT - 16)
    assert found.unpriced is None


def test_a_charge_of_no_known_price_asks_for_nothing_and_is_not_refused():
    found = ask(made("download", "charge", kind="charge"), USD, Budget(usd="2", by="model", match={"model": "down*"}))
    assert wants(found) == [(0, None, 10**12), (0, None, 2 * 10**12)]
    assert found.wants[1].key.scope == '["download"]'
    assert (found.card, found.held_pico, found.unpriced) == (None, 0, None)


def test_a_charge_asks_only_budgets_that_match():
    call = made("search", "tool", kind="charge")
    found = ask(call, USD, Budget(usd="2", match={"model": "other"}), Budget(usd="3", match={"user": "x"}))
    assert [item.budget for item in found.attached] == [USD]


# -- a price that lacks what every call of a model has

PARTS = PriceBook(
    {
        "no-output": Price(input="1"),
        "no-input": Price(output="2"),
        "fee": Price(request="0.5"),
        "output-0": Price(input="1", output="0"),
    }
)


@pytest.mark.parametrize(
    ("model", "lacks"), [("no-output", "no output"), ("no-input", "no input"), ("fee", "no input and no output")]
)
@pytest.mark.parametrize("reserve", ["expected", "worst_case", "none", 3])
def test_a_price_that_is_not_whole_is_no_price(model, lacks, reserve):
    with pytest.raises(PriceUnknown, match=f"the price of '{model}' has {lacks}") as refused:
        ask(made(model), TOKENS, USD, book=PARTS, reserve=reserve)
    assert refused.value.budget is USD
    given = {"no-output": 'output="…"', "no-input": 'input="…"', "fee": 'input="…", output="…"'}[model]
    assert f'Give {given} in prices={{"{model}": Price(…)}}' in refused.value.message
    found = ask(made(model), WARNS, TOKENS, CALLS, book=PARTS, reserve="expected")
    assert found.unpriced == f"the price of '{model}' has {lacks}"
    assert wants(found) == [(0, None, None), (INPUT + OUTPUT, INPUT + 1, 5_000), (1, None, 7)]


def test_an_output_declared_at_0_is_a_price():
    assert ask(made("output-0"), USD, book=PARTS).held_pico == INPUT * M


def test_what_has_no_output_needs_no_price_for_it():
    found = ask(made("no-output", output=False), USD, book=PARTS)
    assert (found.held_pico, found.unpriced, found.estimate.output_tokens) == (INPUT * M, None, 0)
    with pytest.raises(PriceUnknown, match=r"the price of 'no-input' has no input\)"):
        ask(made("no-input", output=False), USD, book=PARTS)


def test_of_what_is_not_whole_the_larger_of_amount_and_part_is_held_and_nothing_less():
    found = ask(made("no-output"), USD, book=PARTS, on_unpriced=5 * 10**9)
    assert wants(found) == [(5 * 10**9, None, 10**12)]
    assert wants(ask(made("no-output"), USD, book=PARTS, on_unpriced=7)) == [(INPUT * M, None, 10**12)]


# -- the refusal


@pytest.mark.parametrize(("block", "closes"), [(True, "owner"), (False, None)])
def test_a_refusal_has_the_numbers_of_the_budget_that_refused(block, closes):
    day = Budget(usd="0.5", per="day", name="day", tz="Europe/Berlin")
    policy = Policy(reserve="expected", on_unpriced="refuse")
    found = admit(made(), attach(CALLS, day, block=block), BOOK, policy, lambda _: Learned())
    error = exceeded(made(), found, NoRoom(found.wants[1], 4 * 10**11, 999 * 10**8))
    assert type(error) is BudgetExceeded
    assert error.budget == day
    assert (error.limit, error.spent, error.held, error.needed) == (
        Decimal("0.5"),
        Decimal("0.4"),
        Decimal("0.0999"),
        Decimal("0.000617"),
    )
    assert error.resets_at.astimezone(UTC) == datetime(2026, 11, 24, 23, tzinfo=UTC)
    assert error.closes == closes
    assert (error.entry, error.response) == (None, None)
    assert error.message == (
        "Budget 'day' has no room for this call: $0.4 spent and $0.0999 held by calls in flight, of $0.5; this call "
        "needs $0.000617. Nothing was sent. The window rolls over at 2026-11-25T00:00:00+01:00. "
        "Raise the limit, or end the run here."
    )


def test_a_refusal_by_calls_counts_in_calls():
    found = ask(made(who=Who(user="alice")), USD, Budget(calls=7, by="user"))
    error = exceeded(made(), found, NoRoom(found.wants[1], 4, 3))
    assert (error.limit, error.spent, error.held, error.needed, error.resets_at) == (7, 4, 3, 1, None)
    assert error.message == (
        "Budget '7 calls' for [\"alice\"] is used up: 4 calls spent and 3 calls held by calls in flight, of 7 calls. "
        "Nothing was sent. Raise the limit, or end the run here."
    )
