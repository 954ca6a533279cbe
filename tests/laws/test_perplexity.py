"""What the Perplexity reader makes of fees, citations and reasoning outside the totals, and of damage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage import Terms
from ai_budget_callbacks.usage.perplexity import read, shaped
from ai_budget_callbacks.usage.wire import read_usage
from tests.laws.test_readers import COUNT, NONSENSE, ODD, assert_sound, objects
from tests.support.goldens import NOW

CHAT = {"prompt_tokens": 14, "completion_tokens": 300, "total_tokens": 314}
BOTH = {"input_uncached": 14, "output_text": 300}


@pytest.mark.parametrize(
    ("more", "buckets", "flags"),
    [
        ({"search_context_size": "low"}, {"request_fee": 1}, ()),
        ({"search_context_size": None}, {}, ()),
        ({"citation_tokens": 50}, {"output_citation": 50}, ()),
        ({"citation_tokens": 0, "num_search_queries": 0}, {}, ()),
        ({"num_search_queries": 18, "reasoning_tokens": 40}, {"web_search": 18, "output_reasoning": 40}, ()),
        (  # the details know of reasoning inside the completion: the larger of the two
            {"num_search_queries": 1, "reasoning_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 100}},
            {"web_search": 1, "output_text": 200, "output_reasoning": 100},
            (),
        ),
        (
            {"num_search_queries": 1, "reasoning_tokens": 140, "completion_tokens_details": {"reasoning_tokens": 100}},
            {"web_search": 1, "output_text": 200, "output_reasoning": 140},
            (),
        ),
        # a total that has the reasoning in it, and one that is a token beyond its parts
        (
            {"num_search_queries": 1, "reasoning_tokens": 40, "total_tokens": 354},
            {"web_search": 1, "output_reasoning": 40},
            ("inconsistent",),
        ),
        (
            {"num_search_queries": 1, "reasoning_tokens": 40, "total_tokens": 315},
            {"web_search": 1, "output_reasoning": 40},
            ("inconsistent",),
        ),
    ],
    ids=repr,
)
def test_what_is_billed_outside_the_totals(more, buckets, flags):
    raw = {**CHAT, **more}
    found = read(raw)
    assert (dict(found.buckets), found.flags, found.reader) == (BOTH | buckets, flags, "perplexity/1")
    assert found.raw is raw
    assert shaped(raw)
    assert read_usage(raw) == found


@pytest.mark.parametrize(
    "raw", [None, {}, [], "x", {"citation_tokens": 5}, {"search_context_size": "low", "prompt_tokens": None}], ids=repr
)
def test_usage_without_a_count_is_absent_not_zero(raw):
    assert read(raw) is None


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_is_flagged_and_never_billed(nonsense):
    for key in ("citation_tokens", "num_search_queries", "reasoning_tokens"):
        found = read({**CHAT, "search_context_size": "low", key: nonsense})
        assert (dict(found.buckets), found.flags) == (BOTH | {"request_fee": 1}, ("invalid_count",))


@pytest.mark.parametrize(
    ("size", "fee"),
    # 1000 x 1 + 100 x 1, and the fee of a context; a size nobody knows costs what the largest does
    [("low", "0.0061"), ("medium", "0.0091"), ("high", "0.0131"), ("LOW", "0.0131"), ("", "0.0131"), (None, "0.0131")],
)
def test_the_fee_is_that_of_the_context(size, fee):
    found = read({"prompt_tokens": 1_000, "completion_tokens": 100, "search_context_size": size})
    assert found.terms == Terms(search_context=size)
    cost = PriceBook().price(found, provider="perplexity", model="sonar", requested="sonar", at=NOW)
    assert usd_text(cost.pico) == fee
    assert sum(line.bucket == "request_fee" for line in cost.lines) == 1


def test_a_size_that_is_no_word_is_none_and_an_answer_without_any_field_is_not_perplexitys():
    found = read({**CHAT, "search_context_size": 7})
    assert (dict(found.buckets), found.terms) == (BOTH, Terms())
    assert not shaped(CHAT)


NAMES = "prompt_tokens completion_tokens total_tokens citation_tokens num_search_queries reasoning_tokens"


@settings(max_examples=250, deadline=None)
@given(st.one_of(ODD, objects(f"{NAMES} search_context_size completion_tokens_details", ODD)))
def test_the_reader_survives_damage_and_never_books_a_negative(raw):
    assert_sound(read(raw))


@settings(max_examples=250, deadline=None)
@given(objects(NAMES, COUNT), objects("reasoning_tokens", COUNT))
def test_the_reader_never_loses_a_token_that_a_field_states(raw: dict[str, Any], details):
    found = read({**raw, "completion_tokens_details": details})
    if found is None:
        return
    assert found.buckets.get("output_citation", 0) == raw.get("citation_tokens", 0)
    assert found.buckets.get("web_search", 0) == raw.get("num_search_queries", 0)
    assert found.buckets.get("output_reasoning", 0) >= max(
        raw.get("reasoning_tokens", 0), details.get("reasoning_tokens", 0)
    )
    assert found.total_tokens >= raw.get("total_tokens", 0) + raw.get("citation_tokens", 0)
