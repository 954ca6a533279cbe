"""From an outcome to what is booked, by hand: which status, which cost, and whether the hold is kept.

The model costs $1 a million input tokens and $2 a million output tokens, so a token is 1,000,000 or 2,000,000
pico-dollars. Its call: 1,001 bytes of text in one message → 401 + 16 input tokens, at most 100 output tokens.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ai_budget_callbacks.admission import Policy, admit
from ai_budget_callbacks.booking import Outcome, book_outcome, outcome_of_body
from ai_budget_callbacks.money import INT64_MAX
from ai_budget_callbacks.pricing import Cost, Price, PriceBook, Source
from ai_budget_callbacks.pricing.estimate import Learned
from ai_budget_callbacks.usage import Call, Request, Terms, Usage
from tests.support.goldens import NOW, usage

M = 10**6
BOOK = PriceBook(
    {
        "mine": Price(input="1", output="2"),
        "gratis": "free",
        "in-only": Price(input="1"),
        "half": Price(input="0", output="2"),
        "gold": Price(input="9000000", output="9000000", per=1),
        "brim": Price(input="9223372.036854775807", per=1),
    }
)
EXPECTED = Policy(reserve="expected", on_unpriced="refuse")
ALLOWED = Policy(reserve="expected", on_unpriced=5_000_000)
INPUT, OUTPUT = 417, 100  # what the call is expected to take
ESTIMATE = INPUT * M + OUTPUT * 2 * M


def made(model="mine", provider="openai", **fields):
    request = Request(text_bytes=1_001, messages=1, max_output_tokens=100)
    return Call(id="a", framework="direct", provider=provider, model=model, started_at=NOW, request=request, **fields)


def book(outcome, call=None, policy=EXPECTED, *, store_content=False):
    call = call or made()
    admission = admit(call, [], BOOK, policy, lambda _: Learned())
    return book_outcome(call, outcome, admission, BOOK, policy, store_content=store_content)


def answer(found=None, kind="answer", **fields):
    return Outcome(kind=kind, usage=found, **fields)


def booked(posting):
    return posting.status, posting.booked_pico, posting.booked_tokens, posting.keep_hold


MEASURED = usage(
    input_uncached=10, cache_read=4, output_text=5, output_reasoning=2
)  # 14 + 14 = 28 million pico-dollars


NONE = Policy(reserve="none", on_unpriced="refuse")


@pytest.mark.parametrize("policy", [NONE, Policy(reserve=1, on_unpriced="refuse")], ids=["none", "an amount"])
@pytest.mark.parametrize("found", [None, MEASURED], ids=["seen", "measured"])
def test_a_cut_answer_that_no_hold_bounds_is_booked_at_no_less_than_its_estimate(found, policy):
    posting = book(answer(found, kind="cut", output_bytes=5), policy=policy)
    assert booked(posting) == ("estimated", ESTIMATE, INPUT + OUTPUT, True)


def test_a_cut_answer_that_was_more_than_its_estimate_is_booked_at_that():
    posting = book(answer(usage(input_uncached=1_000, output_text=200), kind="cut"), policy=NONE)
    assert booked(posting) == ("estimated", 1_400 * M, 1_200, True)


def test_a_whole_answer_is_counted_as_seen_whatever_holds_are_made_from():
    assert booked(book(answer(output_bytes=5), policy=NONE)) == ("estimated", INPUT * M + 2 * 2 * M, INPUT + 2, False)


def test_a_cut_answer_that_its_worst_case_bounds_is_booked_as_seen_with_its_hold():
    posting = book(answer(kind="cut", output_bytes=5), policy=Policy(reserve="worst_case", on_unpriced="refuse"))
    assert booked(posting) == ("estimated", INPUT * M + 2 * 2 * M, INPUT + 2, True)


# -- an answer with usage


def test_what_was_measured_is_priced_and_the_hold_given_back():
    before = datetime.now(UTC)
    posting = book(answer(MEASURED, response_id="r-1", response_model="mine-2", reason=None))
    assert booked(posting) == ("priced", 28 * M, 21, False)
    assert (posting.cost.status, posting.cost.pico) == ("priced", 28 * M)
    assert posting.usage is MEASURED
    assert (posting.reason, posting.response_id, posting.response_model, posting.content) == (
        None,
        "r-1",
        "mine-2",
        None,
    )
    assert posting.booked_calls == 1
    assert posting.call == made()
    assert before <= posting.ended_at <= datetime.now(UTC)
    assert posting.ended_at.utcoffset() == timedelta(0)


def test_the_reason_of_an_outcome_is_kept():
    assert book(answer(MEASURED, reason="a body that came as an error")).reason == "a body that came as an error"


@pytest.mark.parametrize(
    ("content", "store", "kept"),
    [
        ({"prompt": "hi"}, True, {"prompt": "hi"}),
        ({"prompt": "hi"}, False, None),
        (None, True, None),
        ({"when": datetime(2026, 1, 2)}, True, {"when": "2026-01-02 00:00:00"}),
        ({}, True, {}),
    ],
)
def test_content_is_kept_only_when_asked_for(content, store, kept):
    posting = book(answer(MEASURED, content=content), store_content=store)
    assert (json.loads(posting.content) if posting.content is not None else None) == kept


def test_the_model_that_answered_is_priced_and_not_the_one_that_was_asked():
    # gpt-4o is 2.50 a million, gpt-4o-mini 0.15
    found = usage(input_uncached=1_000)
    asked = made("gpt-4o-mini")
    assert book(answer(found, response_model="gpt-4o-2024-08-06"), asked).booked_pico == 2_500 * M
    assert book(answer(found), asked).booked_pico == 150 * M
    assert book(answer(found, response_model="unheard-of"), made("mine")).booked_pico == 1_000 * M


def test_a_price_is_that_of_the_calls_provider():
    posting = book(answer(usage(input_uncached=1_000)), made("gpt-4o-mini", provider="a-reseller"))
    assert booked(posting) == ("unpriced", None, 1_000, True)
    assert posting.reason == posting.cost.reason
    assert posting.reason


def test_a_cost_the_provider_states_is_reported():
    stated = replace(MEASURED, raw={"cost": 0.01})
    posting = book(answer(stated), made("whatever/model", provider="openrouter"))
    assert booked(posting) == ("reported", 10**10, 21, False)
    assert posting.cost.status == "reported"


@pytest.mark.parametrize(("policy", "amount"), [(EXPECTED, None), (ALLOWED, 5_000_000)])
def test_usage_without_a_price_is_unpriced_and_keeps_its_hold(policy, amount):
    posting = book(answer(MEASURED, reason="why"), made("nobodys"), policy)
    assert booked(posting) == ("unpriced", amount, 21, True)
    assert posting.cost.pico is None
    assert posting.reason == posting.cost.reason != "why"


def test_a_cost_that_no_ledger_can_hold_is_unpriced():
    # $9,000,000 a token: one fits into 64 bits, two do not
    assert booked(book(answer(usage(input_uncached=1)), made("gold"))) == ("priced", 9 * 10**18, 1, False)
    assert 9 * 10**18 < INT64_MAX < 18 * 10**18
    assert booked(book(answer(usage(input_uncached=1)), made("brim"))) == ("priced", INT64_MAX, 1, False)
    posting = book(answer(usage(input_uncached=2)), made("gold"))
    assert booked(posting) == ("unpriced", None, 2, True)
    assert posting.cost == Cost(
        status="unpriced", pico=None, reason="the cost is beyond what a ledger can hold: damaged usage"
    )


def test_an_answer_that_a_price_list_puts_at_nothing_is_unpriced():
    posting = book(answer(usage(input_uncached=7)), made("half"))
    assert booked(posting) == ("unpriced", None, 7, True)
    assert posting.cost == Cost(
        status="unpriced", pico=None, reason="the price list puts this usage at exactly 0; declare it free"
    )
    assert posting.reason == posting.cost.reason


@pytest.mark.parametrize("kind", ["answer", "cut"])
def test_a_model_declared_free_costs_nothing_whatever_happens(kind):
    posting = book(answer(MEASURED, kind=kind, output_bytes=90), made("gratis"))
    assert booked(posting) == ("free", 0, 21, False)
    posting = book(answer(usage(output_text=5), kind=kind), made("gratis"))
    assert booked(posting) == ("free", 0, INPUT + 5, False)


# -- usage that lacks one half


def test_output_without_input_has_its_input_counted():
    posting = book(answer(usage(output_text=5)))
    assert booked(posting) == ("estimated", INPUT * M + 10 * M, INPUT + 5, True)
    assert dict(posting.usage.buckets) == {"input_uncached": INPUT, "output_text": 5}
    assert posting.usage.flags == ("partly_counted", "hold_kept")
    assert posting.reason == "the provider reported part of the usage"


def test_text_that_was_seen_is_never_no_tokens():
    posting = book(answer(replace(usage(input_uncached=10), flags=("odd",)), output_bytes=51, reason="cut"))
    assert dict(posting.usage.buckets) == {"input_uncached": 10, "output_text": 21}  # 51 bytes at 2.5, rounded up
    assert posting.usage.flags == ("odd", "partly_counted", "hold_kept")
    assert booked(posting) == ("estimated", 10 * M + 42 * M, 31, True)
    assert posting.reason == "cut"


def test_reported_halves_are_not_counted_again():
    posting = book(answer(MEASURED, output_bytes=9_999))
    assert booked(posting) == ("priced", 28 * M, 21, False)
    assert posting.usage.flags == ()
    whole_input = usage(input_uncached=10)  # an embedding, or a filtered answer: nothing was seen
    assert booked(book(answer(whole_input))) == ("priced", 10 * M, 10, False)


def test_a_fee_alone_lacks_nothing():
    fees = PriceBook({"mine": Price(input="1", output="2", web_search="0.01")})
    call = made()
    admission = admit(call, [], fees, EXPECTED, lambda _: Learned())
    outcome = answer(usage(web_search=1))
    posting = book_outcome(call, outcome, admission, fees, EXPECTED, store_content=False)
    assert booked(posting) == ("priced", 10**10, 0, False)


@pytest.mark.parametrize(("reason", "kept"), [(None, "the provider reported part of the usage"), ("closed", "closed")])
def test_usage_seen_before_a_cut_is_a_lower_bound(reason, kept):
    posting = book(answer(MEASURED, kind="cut", reason=reason))
    assert booked(posting) == ("estimated", 28 * M, 21, True)
    assert posting.reason == kept
    assert posting.cost.pico == 28 * M


@pytest.mark.parametrize(("kind", "flags"), [("cut", ("hold_kept",)), ("answer", ())])
def test_usage_seen_before_a_cut_says_so_where_it_has_no_price_yet(kind, flags):
    found = usage(input_uncached=30, output_text=7)
    posting = book(answer(found, kind=kind), made("in-only"))
    assert booked(posting) == ("unpriced", 30 * M, 37, True)
    assert posting.usage == replace(found, flags=flags)


# -- no usage


def test_a_complete_answer_without_usage_is_counted():
    posting = book(answer(output_bytes=50))
    assert booked(posting) == ("estimated", INPUT * M + 20 * 2 * M, INPUT + 20, False)
    assert dict(posting.usage.buckets) == {"input_uncached": INPUT, "output_text": 20}
    assert posting.usage.reader == "counted"
    assert posting.reason == "the provider reported no usage"
    assert posting.cost.pico == posting.booked_pico
    assert posting.booked_calls == 1


def test_what_is_counted_is_priced_as_the_model_that_answered():
    """417 x 5 + 160 x 15 a million where gpt-4o-2024-05-13 answered; the gpt-4o that was asked for costs half."""
    posting = book(answer(output_bytes=400, response_model="gpt-4o-2024-05-13"), made("gpt-4o"))
    assert booked(posting) == ("estimated", INPUT * 5 * M + 160 * 15 * M, INPUT + 160, False)


def test_images_are_counted_where_no_usage_came():
    call = replace(made("gpt-4o-mini"), request=Request(text_bytes=1_001, images=2, max_output_tokens=100))
    # 1,001 bytes at 2.5 and 16 of framing; an image is at most 2,833 + 8 x 5,667 tokens
    counted = INPUT + 2 * 48_169
    posting = book(answer(output_bytes=50), call)
    assert dict(posting.usage.buckets) == {"input_uncached": counted, "output_text": 20}
    assert posting.booked_pico == counted * 150_000 + 20 * 600_000
    half = book(answer(usage(output_text=5)), call)
    assert dict(half.usage.buckets) == {"input_uncached": counted, "output_text": 5}


@pytest.mark.parametrize(
    "body", [None, "text", {}, {"usage": None}, {"usage": {}}, {"model": "m", "usage": []}], ids=repr
)
def test_a_body_without_usage_is_no_paid_answer(body):
    assert outcome_of_body(body) is None


def test_a_paid_body_is_an_answer_with_its_model_tier_and_tools():
    body = {
        "id": "resp_1",
        "model": "gpt-5-2025-08-07",
        "service_tier": "flex",
        "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
        "output": [{"type": "web_search_call"}, {"type": "message"}],
    }
    found = outcome_of_body(body)
    assert (found.kind, found.response_model, found.response_id) == ("answer", "gpt-5-2025-08-07", "resp_1")
    assert dict(found.usage.buckets) == {"input_uncached": 9, "output_text": 4, "web_search": 1}
    assert found.usage.terms == Terms(service_tier="flex")
    assert found.usage.raw == body["usage"], "only the usage is kept, never the answer"
    assert found.reason == "the answer was paid for and then failed to parse"


def test_nonsense_beside_a_paid_usage_is_left_out():
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    found = outcome_of_body({"id": 7, "model": {"a": 1}, "service_tier": ["flex"], "usage": usage, "output": 3})
    assert (found.response_model, found.response_id, found.usage.terms) == (None, None, Terms())
    assert dict(found.usage.buckets) == {"input_uncached": 9, "output_text": 4}


@pytest.mark.parametrize(
    ("outcome", "policy", "keeps"),
    [
        (answer(output_bytes=1), EXPECTED, False),
        (answer(output_bytes=0), EXPECTED, True),
        (answer(kind="cut", output_bytes=50), EXPECTED, True),
        (answer(output_bytes=50, hidden_reasoning=True), EXPECTED, True),
        (answer(output_bytes=50), Policy(reserve="worst_case", on_unpriced="refuse"), True),
        (answer(output_bytes=50), Policy(reserve="none", on_unpriced="refuse"), False),
        (answer(output_bytes=50), Policy(reserve=7, on_unpriced="refuse"), False),
    ],
    ids=["seen", "nothing-seen", "cut", "hidden", "worst-case", "none", "amount"],
)
def test_the_hold_is_kept_where_what_was_seen_bounds_nothing(outcome, policy, keeps):
    posting = book(outcome, policy=policy)
    assert (posting.status, posting.keep_hold) == ("estimated", keeps)


def test_zeros_beside_content_are_absent():
    posting = book(answer(Usage(buckets={}, reader="openai/1"), output_bytes=5, reason="zeros"))
    assert booked(posting) == ("estimated", INPUT * M + 2 * 2 * M, INPUT + 2, False)
    assert (posting.usage.reader, posting.reason) == ("counted", "zeros")


def test_a_call_of_nothing_that_brought_nothing_has_no_buckets():
    call = replace(made(), request=Request(messages=0))
    posting = book(answer(), call)
    assert dict(posting.usage.buckets) == {}
    assert booked(posting) == ("unpriced", None, 0, True)


@pytest.mark.parametrize(("policy", "amount"), [(EXPECTED, None), (ALLOWED, 5_000_000)])
def test_neither_usage_nor_price(policy, amount):
    posting = book(answer(output_bytes=50), made("nobodys"), policy)
    assert booked(posting) == ("unpriced", amount, INPUT + 20, True)
    assert posting.cost is None
    assert posting.usage.reader == "counted"


def test_no_usage_of_a_free_model_is_free():
    posting = book(answer(output_bytes=50), made("gratis"))
    assert booked(posting) == ("free", 0, INPUT + 20, False)
    assert posting.cost.status == "free"
    assert posting.cost.pico == 0


def test_counted_output_without_a_price_is_unpriced_and_not_free():
    posting = book(answer(output_bytes=50), made("in-only"))
    assert booked(posting) == ("unpriced", INPUT * M, INPUT + 20, True), "the part that has a price is booked"
    assert posting.cost is None


@pytest.mark.parametrize(("allowed", "amount"), [("refuse", 30 * M), (20 * M, 30 * M), (40 * M, 40 * M)])
def test_of_an_unpriced_answer_the_larger_of_amount_and_priced_part_is_booked(allowed, amount):
    policy = Policy(reserve="expected", on_unpriced=allowed)
    posting = book(answer(usage(input_uncached=30, output_text=7)), made("in-only"), policy)
    assert booked(posting) == ("unpriced", amount, 37, True)
    assert (posting.cost.pico, posting.cost.part_pico, posting.reason) == (
        None,
        30 * M,
        "no price for output_text of in-only",
    )
    nothing_seen = book(Outcome(kind="unknown"), made("in-only"), policy)
    assert nothing_seen.booked_pico == max(INPUT * M, amount)


# -- nothing seen


@pytest.mark.parametrize(
    ("model", "policy", "amount"),
    [
        ("mine", EXPECTED, ESTIMATE),
        ("mine", ALLOWED, ESTIMATE),
        ("mine", Policy(reserve="expected", on_unpriced=2 * ESTIMATE), ESTIMATE),
        ("nobodys", ALLOWED, 5_000_000),
        ("nobodys", EXPECTED, None),
    ],
)
@pytest.mark.parametrize(("reason", "kept"), [(None, "the outcome was never seen"), ("timeout", "timeout")])
def test_an_outcome_nobody_saw_is_booked_at_its_estimate_or_more(model, policy, amount, reason, kept):
    posting = book(answer(kind="unknown", reason=reason), made(model), policy)
    assert booked(posting) == ("unknown", amount, INPUT + OUTPUT, True)
    assert (posting.reason, posting.usage, posting.cost, posting.booked_calls) == (kept, None, None, 1)


def test_an_unknown_outcome_with_usage_is_measured():
    assert booked(book(answer(MEASURED, kind="unknown"))) == ("priced", 28 * M, 21, False)


# -- cached and stated


@pytest.mark.parametrize(("reason", "kept"), [(None, "framework cache"), ("semantic cache", "semantic cache")])
def test_a_cache_hit_is_free_and_no_call(reason, kept):
    posting = book(answer(MEASURED, kind="cached", reason=reason, response_id="r-1"))
    assert booked(posting) == ("free", 0, 0, False)
    assert posting.booked_calls == 0
    assert posting.cost == Cost(status="free", pico=0, reason=kept)
    assert (posting.reason, posting.response_id, posting.usage) == (kept, "r-1", None)


def test_a_charge_is_what_the_caller_says_and_counts_no_call():
    posting = book(answer(stated_pico=8, reason="search"), made(kind="charge"))
    assert booked(posting) == ("reported", 8, 0, False)
    assert posting.booked_calls == 0
    assert posting.cost == Cost(status="reported", pico=8, source=Source(kind="user", name="charge"))
    assert posting.reason == "search"


def test_the_terms_of_the_response_decide_the_price():
    # gpt-5: 1.25 a million, flex half of it
    flex = replace(usage(input_uncached=1_000), terms=Terms(service_tier="flex"))
    assert book(answer(usage(input_uncached=1_000)), made("gpt-5")).booked_pico == 1_250 * M
    assert book(answer(flex), made("gpt-5")).booked_pico == 625 * M


def test_the_price_is_that_of_the_day_of_the_call():
    # o3 became cheaper on 2025-06-10: 10 → 2 a million
    before = replace(made("o3"), started_at=datetime(2025, 6, 1, tzinfo=UTC))
    assert book(answer(usage(input_uncached=1_000)), made("o3")).booked_pico == 2_000 * M
    assert book(answer(usage(input_uncached=1_000)), before).booked_pico == 10_000 * M
    assert Decimal(book(answer(usage(input_uncached=1_000)), before).booked_pico).scaleb(-12) == Decimal("0.01")
