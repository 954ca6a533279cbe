"""Every recorded answer of the corpus, of 22 providers, read from the wire: the usage is what its index says is billed."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_UP, Decimal
from typing import Any

import pytest

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage.wire import Body, read_body
from tests.support.corpus import billed, cassette, folded, index, wire_json

RECORDED_CALLS = 412  # 2026-11-25; a corpus that shrinks must not pass
BOOK = PriceBook()

# "file#index": why our reader rightly differs. An entry that starts to agree fails the test.
EXCEPTIONS = {
    "openrouter/chat-completions-minimax-m2-free-openrouter-stream-error.yaml#0": (
        "11 reasoning tokens of 10 output tokens: flagged, and the larger reading; the index clips it to 10"
    ),
}
# Read and written tokens are the same ones and billed twice, so the buckets sum to more than the total says.
COUNTED_TWICE = {"openrouter/chat-completions-gemini-2-5-flash-openrouter-cache-instructions-gemini-real-api.yaml#0"}

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{recording['file'].removeprefix('recordings/')}#{call['index']}": (recording["file"], call)
    for recording in index()
    for call in recording["calls"]
    if "ambiguous" not in call["features"]
}


def read(key: str) -> Body:
    file, call = CALLS[key]
    response = cassette(file)[call["index"]]["response"]
    return read_body(wire_json(response["body"]["string"]), headers=response["headers"], model=call["request_model"])


def test_the_corpus_is_whole_and_every_exception_names_a_call():
    assert len(CALLS) == RECORDED_CALLS
    assert {*EXCEPTIONS, *COUNTED_TWICE} <= CALLS.keys()


@pytest.mark.parametrize("key", CALLS)
def test_recorded_answer_is_read_as_billed(key):
    _, call = CALLS[key]
    found = read(key).usage
    if call["expected_usage"] is None:
        assert found is None, "an answer without usage was given one"
        return
    assert found is not None, "billed usage was read as absent"
    agrees = folded(found.buckets, call["provider"]) == billed(call)
    total = call["expected_usage"]["total"]
    if total is not None and key not in COUNTED_TWICE:
        agrees = agrees and sum(n for name, n in folded(found.buckets, "").items() if name not in NO_TOKENS) == total
    if key in EXCEPTIONS:
        assert not agrees, f"agrees now; drop the exception: {EXCEPTIONS[key]}"
        assert "inconsistent" in found.flags
    else:
        assert agrees, f"read {dict(found.buckets)}, billed {call['expected_usage']}"


NO_TOKENS = {"web_search_requests", "rerank_search_unit"}


ADVISED = [
    key
    for key, (_, call) in CALLS.items()
    if any(e["kind"] == "advisor_message" for e in call.get("extra_usage") or ())
]


@pytest.mark.parametrize("key", ADVISED)
def test_an_advisors_bill_is_counted_under_its_own_model(key):
    _, call = CALLS[key]
    found = read(key).usage
    assert found is not None
    expected = {
        extra["model"]: {name: n for name, n in extra["usage"].items() if n and name != "total"}
        for extra in call["extra_usage"]
        if extra["kind"] == "advisor_message"
    }
    assert {other.model: folded(other.buckets, "") for other in found.others} == expected
    assert found.total_tokens == sum(found.buckets[n] for n in found.buckets if "web" not in n) + sum(
        n for buckets in expected.values() for n in buckets.values()
    )


REPORTED = [key for key, (_, call) in CALLS.items() if call.get("reported_cost") is not None]


@pytest.mark.parametrize("key", REPORTED)
def test_what_openrouter_says_it_charged_is_what_is_booked(key):
    _, call = CALLS[key]
    body = read(key)
    at = datetime.fromisoformat("2026-11-24T13:00:00+00:00")
    asked = call["request_model"]
    cost = BOOK.price(body.usage, provider="openrouter", model=body.model or asked, requested=asked, at=at)
    if not Decimal(str(call["reported_cost"])):
        assert (cost.status, cost.pico) == ("free", 0), "a free answer is free for a reason, or it is unpriced"
        return
    assert cost.status == "reported"
    stated = Decimal(repr(call["reported_cost"]))
    assert Decimal(usd_text(cost.pico)) == stated.quantize(Decimal("1E-12"), ROUND_UP)
