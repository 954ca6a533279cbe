"""Gemini's Interactions API and Vertex embeddings: totals by hand, modalities, and damage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.usage.google import embedded, read, shaped
from ai_budget_callbacks.usage.wire import read_body, read_usage
from tests.laws.test_readers import COUNT, NONSENSE, ODD, assert_sound, objects


def totals(given: Any = 100, made: Any = 20, **more: Any) -> dict[str, Any]:
    return {"total_input_tokens": given, "total_output_tokens": made, **more}


def by_modality(key: str, **counts: Any) -> dict[str, Any]:
    return {key: [{"modality": kind, "tokens": count} for kind, count in counts.items()]}


@pytest.mark.parametrize(
    "raw",
    [
        totals(None, None),
        totals("12", True),
        {"total_thought_tokens": None, "total_tokens": 5},
    ],
    ids=repr,
)
def test_usage_without_a_count_is_absent_not_zero(raw):
    assert read(raw) is None


@pytest.mark.parametrize(
    ("raw", "buckets", "flags"),
    [
        (totals(), {"input_uncached": 100, "output_text": 20}, ()),
        (totals(0, 0), {}, ()),
        (totals(100.0, None), {"input_uncached": 100}, ()),
        pytest.param(
            totals(
                total_thought_tokens=7,
                total_cached_tokens=40,
                total_tool_use_tokens=30,
                total_tokens=157,
            ),
            {"input_uncached": 60, "cache_read": 40, "input_tool": 30, "output_text": 20, "output_reasoning": 7},
            (),
            id="thoughts and a tool's prompt are on top",
        ),
        pytest.param(
            totals(total_cached_tokens=120), {"cache_read": 120, "output_text": 20}, ("inconsistent",), id="more cached"
        ),
        pytest.param(
            totals(**by_modality("input_tokens_by_modality", text=60, audio=40)),
            {"input_uncached": 60, "input_audio": 40, "output_text": 20},
            (),
            id="spoken to",
        ),
        pytest.param(
            totals(total_cached_tokens=80, **by_modality("input_tokens_by_modality", text=60, audio=40)),
            {"cache_read": 80, "input_audio": 20, "output_text": 20},
            (),
            id="the text was cached first",
        ),
        pytest.param(
            totals(**by_modality("output_tokens_by_modality", text=5, AUDIO=10, image=5)),
            {"input_uncached": 100, "output_text": 5, "output_audio": 10, "output_image": 5},
            (),
            id="dearer output",
        ),
        pytest.param(
            totals(**by_modality("output_tokens_by_modality", audio=25)),
            {"input_uncached": 100, "output_audio": 25},
            ("inconsistent",),
            id="more audio than output",
        ),
        pytest.param(
            totals(total_tokens=150),
            {"input_uncached": 100, "output_text": 20, "output_reasoning": 30},
            ("inconsistent",),
            id="the total knows more",
        ),
        pytest.param(
            totals(**by_modality("input_tokens_by_modality", text=60, audio=50)),
            {"input_uncached": 60, "input_audio": 50, "output_text": 20},
            ("inconsistent",),
            id="the modalities know more than the input",
        ),
        pytest.param(
            totals(None, **by_modality("input_tokens_by_modality", audio=50)),
            {"input_audio": 50, "output_text": 20},
            ("inconsistent",),
            id="the modalities alone know of an input",
        ),
        pytest.param(
            totals(None, **by_modality("input_tokens_by_modality", text=1)),
            {"input_uncached": 1, "output_text": 20},
            ("inconsistent",),
            id="of one token",
        ),
        pytest.param(
            totals(input_tokens_by_modality=[{"modality": "audio", "tokens": 30}, {"modality": "AUDIO", "tokens": 10}]),
            {"input_uncached": 60, "input_audio": 40, "output_text": 20},
            (),
            id="a modality in two parts",
        ),
        pytest.param(
            totals(None, total_tokens=120),
            {"output_text": 20, "output_reasoning": 100},
            ("inconsistent",),
            id="an input that the total alone knows, at the dearer rate",
        ),
        pytest.param(
            totals(100, None, total_tokens=150),
            {"input_uncached": 100, "output_reasoning": 50},
            ("inconsistent",),
            id="an output that the total alone knows",
        ),
        pytest.param(
            totals(total_tokens=110),
            {"input_uncached": 100, "output_text": 20},
            ("inconsistent",),
            id="the total knows less",
        ),
    ],
)
def test_totals_by_hand(raw, buckets, flags):
    found = read(raw)
    assert (dict(found.buckets), found.flags, found.reader) == (buckets, flags, "google-interactions/1")
    assert found.raw == raw
    assert shaped(raw)
    assert read_usage(raw) == found
    event = {"event_type": "interaction.complete", "interaction": {"model": "gemini-2.5-flash", "usage": raw}}
    assert read_body([event]).usage.buckets == buckets


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_is_flagged_and_never_billed(nonsense):
    found = read(totals(100, nonsense))
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100}, ("invalid_count",))
    for key in ("total_tool_use_tokens", "total_cached_tokens", "total_thought_tokens"):
        found = read(totals(**{key: nonsense}))
        assert (dict(found.buckets), found.flags) == ({"input_uncached": 100, "output_text": 20}, ("invalid_count",))
    found = read(totals(**by_modality("input_tokens_by_modality", audio=nonsense)))
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100, "output_text": 20}, ("invalid_count",))


# -- embeddings of Vertex


def texts(*counts: Any) -> dict[str, Any]:
    return {
        "predictions": [{"embeddings": {"values": [0.1], "statistics": {"token_count": count}}} for count in counts]
    }


@pytest.mark.parametrize(
    ("answer", "buckets", "flags"),
    [
        (texts(5), {"input_uncached": 5}, ()),
        (texts(5, 7.0, None), {"input_uncached": 12}, ()),
        (texts(5, "x"), {"input_uncached": 5}, ("invalid_count",)),
        (texts(0, 0), {}, ()),
    ],
    ids=repr,
)
def test_the_statistics_of_each_embedded_text_are_summed(answer, buckets, flags):
    found = embedded(answer)
    assert (dict(found.buckets), found.flags) == (buckets, flags)
    assert read_body(answer).usage == found
    assert read(found.raw).buckets == found.buckets


@pytest.mark.parametrize(
    "answer", [{}, {"predictions": None}, {"predictions": [None, {"embeddings": None}]}, texts(), texts("x")], ids=repr
)
def test_embeddings_without_statistics_are_absent(answer):
    assert embedded(answer) is None
    assert read_body(answer).usage is None


# -- damage

NAMES = (
    "total_input_tokens total_output_tokens total_thought_tokens total_cached_tokens total_tool_use_tokens total_tokens"
)
LISTS = "input_tokens_by_modality output_tokens_by_modality"
DETAIL = objects("modality tokens", st.one_of(ODD, st.sampled_from(["audio", "IMAGE", "text"])))


@settings(max_examples=250, deadline=None)
@given(objects(f"{NAMES} {LISTS}", st.one_of(ODD, st.lists(st.one_of(ODD, DETAIL), max_size=3))))
def test_the_reader_survives_damage_and_never_books_a_negative(raw):
    assert_sound(read(raw))
    assert_sound(embedded({"predictions": [{"embeddings": {"statistics": raw}}, raw]}))


@settings(max_examples=250, deadline=None)
@given(
    objects(NAMES, COUNT),
    objects(
        LISTS,
        st.lists(st.fixed_dictionaries({"modality": st.sampled_from(["audio", "image"]), "tokens": COUNT}), max_size=2),
    ),
)
def test_the_reader_never_loses_a_token_that_a_total_states(raw, details):
    found = read({**raw, **details}) if shaped(raw) else None
    if found is None:
        return
    assert found.input_tokens >= raw.get("total_input_tokens", 0) + raw.get("total_tool_use_tokens", 0)
    assert found.output_tokens >= raw.get("total_output_tokens", 0) + raw.get("total_thought_tokens", 0)
    assert found.total_tokens >= raw.get("total_tokens", 0), "the larger reading is the one that cannot undercharge"
