"""What a request asks for where its event does not say it: at the call, in the body's extras, or for later."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from ai_budget_callbacks import Budget, BudgetExceeded, track
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.events import CallReserved
from tests.flow.kit import audit, chat, claude, read_back, responses, text_model
from tests.support.provider import ClaudeReply

QUEUED = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "queued",
    "background": True,
    "model": "gpt-4o-mini",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": None,
}


def _held(model, handler, *, ask="q", **options):
    events = []
    budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
    model.invoke(ask, config={"callbacks": [budget]}, **options)
    (amount,) = [event.held_usd for event in events if isinstance(event, CallReserved)]
    return amount


# -- a text model's limits of output, given at the call: $1.50 and $2 a million


@pytest.mark.parametrize("limit", [100, 3000])
def test_a_text_models_limit_of_a_call_is_held_like_its_own(serve, handler, limit):
    far = serve(Reply(text="hi", input_tokens=5, output_tokens=5))
    whole = _held(text_model(far, max_tokens=limit), handler)
    assert _held(text_model(far, max_tokens=100), handler, max_tokens=limit) == whole
    assert _held(text_model(far, max_tokens=100).bind(max_tokens=limit), handler) == whole
    assert whole > limit * Decimal("0.000002")


async def test_text_models_at_once_spend_no_more_than_their_limits(serve, meter, ledger):
    far = serve(Reply(text="hi", input_tokens=500, output_tokens=3000))
    model = text_model(far, max_tokens=100)
    with pytest.raises(BudgetExceeded), track(Budget(usd="0.0145"), meter=meter(reserve="worst_case")):
        asked = [model.ainvoke("q" * 300, max_tokens=3000) for _ in range(6)]
        await asyncio.gather(*asked, return_exceptions=True)
    assert len(far.requests) == 2, "two holds of $0.007017 fit"
    audit(far, ledger, requests=2, entries=2, usd="0.0135")


def test_a_text_model_that_is_asked_for_another_is_priced_as_that(serve, handler, ledger):
    """babbage-002 costs 0.40 and 0.40, and gpt-3.5-turbo-instruct 1.50 and 2; the event has the constructor's name."""
    far = serve(Reply(text="hi", input_tokens=1000, output_tokens=200))
    model = text_model(far, model="babbage-002").bind(model="gpt-3.5-turbo-instruct")
    model.invoke("q", config={"callbacks": [handler(Budget(usd="1"))]})
    assert far.requests[0].body["model"] == "gpt-3.5-turbo-instruct"
    audit(far, ledger, requests=1, entries=1, usd="0.0019")


# -- another model in extra_body: it is the one that is sent


def test_a_model_in_the_bodys_extras_is_the_one_that_is_held(serve, handler):
    far = serve(Reply(text="hi", input_tokens=5, output_tokens=5))
    settings = {"max_tokens": 10, "service_tier": "default"}
    dear = _held(chat(far, model="gpt-4o", **settings), handler)
    for model in (
        chat(far, extra_body={"model": "gpt-4o"}, **settings),
        chat(far, **settings).bind(extra_body={"model": "gpt-4o"}),
    ):
        assert _held(model, handler) == dear
        assert far.requests[-1].body["model"] == "gpt-4o"
    assert dear > 10 * _held(chat(far, **settings), handler)


def test_claudes_too(serve, handler):
    far = serve(ClaudeReply(text="hi"))
    dear = _held(claude(far, model="claude-sonnet-4-5", max_tokens=10), handler)
    model = claude(far, model="claude-haiku-4-5", max_tokens=10).bind(extra_body={"model": "claude-sonnet-4-5"})
    assert _held(model, handler) == dear


# -- answered in the background


def _later(request):
    if request.body.get("background"):
        return Reply(text="word " * 2000, input_tokens=1000, output_tokens=2000, body=QUEUED)
    return Reply(text="Four.", input_tokens=1000, output_tokens=20)


@pytest.mark.parametrize("reserve", ["expected", "worst_case", "none", "0.00005"])
@pytest.mark.parametrize("way", ["bind", "model_kwargs"])
def test_what_is_answered_in_the_background_is_booked_at_the_most_it_may_take(serve, meter, ledger, reserve, way):
    """At most 2,500 tokens of output: each costs up to 0.0015 and its prompt; the provider bills 0.00135 for each."""
    far = serve(_later)
    counted = meter(Budget(usd="0.02", name="day", per="total"), reserve=reserve)
    model = responses(far, max_tokens=2500)
    later = (
        model.bind(background=True)
        if way == "bind"
        else responses(far, max_tokens=2500, model_kwargs={"background": True})
    )
    with pytest.raises(BudgetExceeded), track(meter=counted):
        for _ in range(8):
            model.invoke("Write")
        for _ in range(100):
            later.invoke("Write a long story")
    assert far.billed_usd <= Decimal("0.02") + Decimal("0.0015"), "more than one call beyond the limit"
    rows = [row for row in read_back(ledger).entries if row["status"] == "unknown"]
    assert len(rows) == len(far.requests) - 8
    assert {row["reason"] for row in rows} == {"it is answered in the background, unseen"}
    assert all(row["booked_pico"] >= 1_500_000_000 for row in rows)
