"""What the Cohere reader makes of billed units, of tokens alone, and of damage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage.cohere import read, shaped
from ai_budget_callbacks.usage.wire import read_body, read_usage
from tests.laws.test_readers import COUNT, NONSENSE, ODD, assert_sound, objects
from tests.support.goldens import NOW


def tokens(**counts: Any) -> dict[str, Any]:
    return {"tokens": counts}


def billed(**counts: Any) -> dict[str, Any]:
    return {"billed_units": counts}


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        [],
        "usage",
        7,
        {"billed_units": None},
        {"billed_units": {}, "tokens": {}},
        {"billed_units": {"input_tokens": None}, "tokens": None},
        {"billed_units": [5], "tokens": "x"},
        {"billed_units": {"input_tokens": "12", "output_tokens": True}},
        {"cached_tokens": 5},
    ],
    ids=repr,
)
def test_usage_without_a_count_is_absent_not_zero(raw):
    assert read(raw) is None


def test_zeros_are_reported_and_nothing():
    found = read(billed(input_tokens=0, output_tokens=0))
    assert (found.nothing, found.flags) == (True, ())


@pytest.mark.parametrize(
    ("raw", "buckets", "flags"),
    [
        pytest.param(
            billed(input_tokens=5, output_tokens=418) | tokens(input_tokens=71, output_tokens=418),
            {"input_uncached": 5, "output_text": 418},
            (),
            id="the template's overhead is not billed",
        ),
        pytest.param(
            billed(input_tokens=5.0, output_tokens=418.0), {"input_uncached": 5, "output_text": 418}, (), id="floats"
        ),
        pytest.param(billed(search_units=3), {"rerank_search_unit": 3}, (), id="rerank"),
        pytest.param(billed(input_tokens=8), {"input_uncached": 8}, (), id="embed"),
        pytest.param(
            billed(input_tokens=8) | tokens(input_tokens=8, output_tokens=0),
            {"input_uncached": 8},
            (),
            id="no output is none",
        ),
        pytest.param(
            billed(images=2, image_tokens=90), {"images": 2, "input_image": 90}, (), id="images are no plain input"
        ),
        pytest.param(
            billed(search_units=3) | tokens(input_tokens=9),
            {"rerank_search_unit": 3},
            (),
            id="tokens of a rerank are not billed",
        ),
        pytest.param(
            billed(input_tokens=41, output_tokens=10) | {"cached_tokens": 1_400},
            {"input_uncached": 41, "output_text": 10},
            (),
            id="cached tokens have no price and are never subtracted",
        ),
        pytest.param(
            tokens(input_tokens=71, output_tokens=418),
            {"input_uncached": 71, "output_text": 418},
            ("billed_units_unseen",),
            id="tokens alone",
        ),
        pytest.param(
            billed() | tokens(input_tokens=71, output_tokens=418),
            {"input_uncached": 71, "output_text": 418},
            ("billed_units_unseen",),
            id="billed units without a unit",
        ),
        pytest.param(
            billed(input_tokens=5) | tokens(input_tokens=71, output_tokens=418),
            {"input_uncached": 5, "output_text": 418},
            ("billed_units_unseen",),
            id="one half unseen",
        ),
        pytest.param(
            billed(input_tokens=5, output_tokens="many") | tokens(input_tokens=71, output_tokens=418),
            {"input_uncached": 5, "output_text": 418},
            ("invalid_count", "billed_units_unseen"),
            id="one half is nonsense",
        ),
        pytest.param(
            billed(input_tokens=5, classifications=3),
            {"input_uncached": 5},
            ("unknown_unit",),
            id="a unit nobody knows",
        ),
        pytest.param(billed(classifications=3), {}, ("unknown_unit",), id="a unit nobody knows, alone"),
        pytest.param(billed(input_tokens=5, classifications=0), {"input_uncached": 5}, (), id="none of it"),
    ],
)
def test_shapes_by_hand(raw, buckets, flags):
    found = read(raw)
    assert (dict(found.buckets), found.flags, found.reader) == (buckets, flags, "cohere/1")
    assert read(found.raw) == found
    assert shaped(raw)
    assert read_usage(raw) == found


def test_what_is_kept_is_counts_alone_and_what_is_another_familys_is_left_to_it():
    said = billed(input_tokens=5) | tokens(input_tokens=71) | {"cached_tokens": 64}
    assert read({**said, "api_version": {"version": "2"}}).raw == said
    assert not any(map(shaped, ({"prompt_tokens": 5}, {"tokens": 5}, {"tokens": {"total": 5}})))


@pytest.mark.parametrize(
    "body",
    [
        lambda usage: {"usage": usage},
        lambda usage: {"meta": {"api_version": {"version": "1"}, **usage}},
        lambda usage: [{"type": "content-delta"}, {"type": "message-end", "delta": {"usage": usage}}],
        lambda usage: [{"event_type": "stream-end", "response": {"meta": usage}}],
    ],
    ids=["v2", "v1", "v2 stream", "v1 stream"],
)
def test_every_version_puts_the_same_object_somewhere_else(body):
    usage = billed(input_tokens=5, output_tokens=418)
    assert dict(read_body(body(usage)).usage.buckets) == {"input_uncached": 5, "output_text": 418}


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_is_flagged_and_never_billed(nonsense):
    found = read(billed(input_tokens=100, output_tokens=nonsense))
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100}, ("invalid_count",))
    assert "invalid_count" in read(billed(search_units=1, images=nonsense)).flags


def test_a_unit_without_a_bucket_is_unpriced_and_so_are_images():
    def price(raw: dict[str, Any], model: str):
        return PriceBook().price(read(raw), provider="cohere", model=model, requested=model, at=NOW)

    assert price(billed(input_tokens=1_000), "embed-v4.0").pico == 120_000_000
    assert price(billed(input_tokens=1_000, classifications=3), "embed-v4.0").reason == (
        "part of the usage is billed in a unit that is not known here"
    )
    assert price(billed(images=1, image_tokens=90), "embed-v4.0").status == "unpriced"


UNITS = "input_tokens output_tokens search_units images image_tokens classifications"


@settings(max_examples=250, deadline=None)
@given(st.one_of(ODD, objects("billed_units tokens cached_tokens", st.one_of(ODD, objects(UNITS, ODD)))))
def test_the_reader_survives_damage_and_never_books_a_negative(raw):
    assert_sound(read(raw))


@settings(max_examples=200, deadline=None)
@given(objects("input_tokens output_tokens search_units", COUNT), objects("input_tokens output_tokens", COUNT))
def test_the_reader_never_loses_what_is_billed(units, counted):
    found = read({"billed_units": units, "tokens": counted})
    if found is None:
        assert not units
        assert not counted
        return
    assert found.buckets.get("rerank_search_unit", 0) == units.get("search_units", 0)
    if "input_tokens" in units or "output_tokens" in units:
        for half, key in (("input_uncached", "input_tokens"), ("output_text", "output_tokens")):
            assert found.buckets.get(half, 0) == units.get(key, counted.get(key, 0))
