"""What the readers of OpenAI's and Anthropic's formats make of odd usage objects by hand, and of damaged JSON."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.usage import BUCKETS, Terms, Usage, anthropic, openai

# -- by hand: OpenAI's family


def openai_buckets(raw: Any) -> dict[str, int] | None:
    found = openai.read(raw)
    return None if found is None else dict(found.buckets)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        [],
        "usage",
        7,
        {"prompt_tokens": None},
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
        {"prompt_tokens_details": {"cached_tokens": 5}},
        {"prompt_tokens": "12", "completion_tokens": True},
    ],
)
def test_openai_usage_without_a_count_is_absent_not_zero(raw):
    assert openai.read(raw) is None


def test_openai_zeros_are_reported_and_nothing():
    found = openai.read({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    assert found is not None, "a reported zero is not an absent usage"
    assert found.nothing


@pytest.mark.parametrize(
    ("raw", "buckets", "flags"),
    [
        # null details are no details
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None},
            {"input_uncached": 9, "output_text": 3},
            (),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}},
            {"input_uncached": 9, "output_text": 3},
            (),
        ),
        # a null first name does not hide the second
        ({"prompt_tokens": None, "input_tokens": 9, "output_tokens": 1}, {"input_uncached": 9, "output_text": 1}, ()),
        # whole floats are counts (some servers write 9.0)
        ({"prompt_tokens": 9.0, "completion_tokens": 3.0}, {"input_uncached": 9, "output_text": 3}, ()),
        # more cached than there was: the larger reading
        (
            {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 150}},
            {"cache_read": 150, "output_text": 1},
            ("inconsistent",),
        ),
        # OpenRouter reports the same tokens as read and as written, and bills both
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 90},
            },
            {"input_uncached": 10, "cache_read": 80, "cache_write": 90, "output_text": 1},
            ("inconsistent",),
        ),
        # Gemini behind this wire format: 109 - 35 - 12 = 62 thoughts, billed as output
        (
            {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109},
            {"input_uncached": 35, "output_text": 12, "output_reasoning": 62},
            ("inconsistent",),
        ),
        # xAI chat: reasoning outside completion_tokens, 10120 + 1499 + 2809 = 14428
        (
            {
                "prompt_tokens": 10120,
                "completion_tokens": 1499,
                "total_tokens": 14428,
                "completion_tokens_details": {"reasoning_tokens": 2809},
            },
            {"input_uncached": 10120, "output_text": 1499, "output_reasoning": 2809},
            (),
        ),
        # xAI Responses: inside
        (
            {
                "input_tokens": 1000,
                "output_tokens": 300,
                "total_tokens": 1300,
                "output_tokens_details": {"reasoning_tokens": 250},
            },
            {"input_uncached": 1000, "output_text": 50, "output_reasoning": 250},
            (),
        ),
        # hidden on top and reasoning inside: both are billed
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 8},
            },
            {"input_uncached": 10, "output_text": 12, "output_reasoning": 13},
            ("inconsistent",),
        ),
        # a total below its parts is the smaller reading
        (
            {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 25},
            {"input_uncached": 10, "output_text": 20},
            ("inconsistent",),
        ),
        # one half absent: the total gives it
        ({"prompt_tokens": 10, "total_tokens": 25}, {"input_uncached": 10, "output_text": 15}, ()),
        ({"completion_tokens": 10, "total_tokens": 25}, {"input_uncached": 15, "output_text": 10}, ("inconsistent",)),
        ({"total_tokens": 25}, {"input_uncached": 25}, ()),
        # DeepSeek's own name for cache hits
        (
            {"prompt_tokens": 1200, "completion_tokens": 400, "prompt_cache_hit_tokens": 1024},
            {"input_uncached": 176, "cache_read": 1024, "output_text": 400},
            (),
        ),
        # a total that its output fills leaves no input, and none is made up
        ({"completion_tokens": 20, "total_tokens": 20}, {"output_text": 20}, ("inconsistent",)),
        # a prompt of 0 is 0
        ({"prompt_tokens": 0, "completion_tokens": 20, "total_tokens": 20}, {"output_text": 20}, ()),
        # another name for tokens written to a cache; read and written together are the whole prompt
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 40},
            },
            {"cache_read": 60, "cache_write": 40, "output_text": 1},
            (),
        ),
        # realtime: audio without images
        (
            {"input_tokens": 20, "output_tokens": 1, "input_token_details": {"audio_tokens": 15}},
            {"input_uncached": 5, "input_audio": 15, "output_text": 1},
            (),
        ),
        # hidden on top of an answer in sound: 37 - 10 - 20 = 7
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 37,
                "completion_tokens_details": {"audio_tokens": 8},
            },
            {"input_uncached": 10, "output_text": 12, "output_audio": 8, "output_reasoning": 7},
            ("inconsistent",),
        ),
        # rejected predictions are inside completion_tokens
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 220,
                "completion_tokens_details": {"rejected_prediction_tokens": 60},
            },
            {"input_uncached": 5, "output_text": 220},
            (),
        ),
    ],
)
def test_openai_shape_by_hand(raw, buckets, flags):
    found = openai.read(raw)
    assert (dict(found.buckets), found.flags) == (buckets, flags)


NONSENSE = [-5, "12", 10**18, True, False, 1.5, math.nan, math.inf, [3], {"n": 3}]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_openai_nonsense_count_is_flagged_and_never_billed(nonsense):
    found = openai.read({"prompt_tokens": 100, "completion_tokens": nonsense})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100}, ("invalid_count",))
    found = openai.read(
        {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": nonsense}}
    )
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100, "output_text": 7}, ("invalid_count",))


def test_openai_keeps_the_raw_object_and_the_tier_of_the_response():
    raw = {"prompt_tokens": 1, "completion_tokens": 1}
    found = openai.read(raw, service_tier="flex")
    assert found.raw is raw
    assert found.terms == Terms(service_tier="flex")


def test_tool_calls_that_cost_a_fee_are_counted_and_opened_pages_are_not():
    items = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "web_search_call", "action": {"type": "find_in_page"}},
        {"type": "web_search_call"},
        {"type": "file_search_call"},
        {"type": "code_interpreter_call"},
        {"type": "function_call"},
        None,
        "text",
    ]
    assert openai.count_output_items(items) == {"web_search": 2, "file_search": 1, "code_execution": 1}


def test_units_add_up_and_never_go_below_one():
    found = openai.read({"prompt_tokens": 1, "completion_tokens": 1}).with_units({"web_search": 2, "file_search": 0})
    assert dict(found.with_units({"web_search": 1}).buckets) == {"input_uncached": 1, "output_text": 1, "web_search": 3}
    with pytest.raises(ValueError, match=r"bucket web_search must be a positive int, not -1"):
        found.with_units({"web_search": -3})
    with pytest.raises(ValueError, match=r"unknown usage bucket 'searches'; known: input_uncached, input_audio, "):
        found.with_units({"searches": 1})


@pytest.mark.parametrize("count", [0, -1, 1.0, True, None])
def test_a_bucket_holds_a_positive_whole_number(count):
    with pytest.raises(ValueError, match="bucket output_text must be a positive int"):
        Usage(buckets={"output_text": count})


# -- by hand: Anthropic


@pytest.mark.parametrize(
    "raw", [None, {}, [], {"input_tokens": None, "output_tokens": None}, {"service_tier": "standard"}, "x"]
)
def test_anthropic_usage_without_a_count_is_absent_not_zero(raw):
    assert anthropic.read(raw) is None


@pytest.mark.parametrize(
    ("raw", "buckets", "flags"),
    [
        ({"input_tokens": 0, "output_tokens": 0}, {}, ()),
        # no breakdown: five minutes is the documented default
        (
            {"input_tokens": 3, "output_tokens": 2, "cache_creation_input_tokens": 40},
            {"input_uncached": 3, "cache_write_5m": 40, "output_text": 2},
            (),
        ),
        (
            {"input_tokens": 3, "output_tokens": 2, "cache_creation_input_tokens": 40, "cache_creation": None},
            {"input_uncached": 3, "cache_write_5m": 40, "output_text": 2},
            (),
        ),
        # server tools: 12,174 written, the breakdown covers 291; none may be lost
        (
            {
                "input_tokens": 3,
                "output_tokens": 2,
                "cache_creation_input_tokens": 12174,
                "cache_creation": {"ephemeral_5m_input_tokens": 291, "ephemeral_1h_input_tokens": 0},
            },
            {"input_uncached": 3, "cache_write": 11883, "cache_write_5m": 291, "output_text": 2},
            (),
        ),
        # a breakdown larger than its total: the larger reading
        (
            {
                "input_tokens": 3,
                "output_tokens": 2,
                "cache_creation_input_tokens": 10,
                "cache_creation": {"ephemeral_1h_input_tokens": 30},
            },
            {"input_uncached": 3, "cache_write_1h": 30, "output_text": 2},
            ("inconsistent",),
        ),
        # thinking is inside output_tokens
        (
            {"input_tokens": 4, "output_tokens": 250, "output_tokens_details": {"thinking_tokens": 120}},
            {"input_uncached": 4, "output_text": 130, "output_reasoning": 120},
            (),
        ),
        (
            {"input_tokens": 4, "output_tokens": 100, "output_tokens_details": {"thinking_tokens": 120}},
            {"input_uncached": 4, "output_reasoning": 120},
            ("inconsistent",),
        ),
        ({"output_tokens": 9}, {"output_text": 9}, ("input_absent",)),
        (
            {"input_tokens": 1, "output_tokens": 1, "server_tool_use": {"web_search_requests": 2}},
            {"input_uncached": 1, "output_text": 1, "web_search": 2},
            (),
        ),
        # compaction is left out of the top level and billed on the same model
        (
            {
                "input_tokens": 220,
                "output_tokens": 8,
                "iterations": [
                    {"type": "message", "input_tokens": 220, "output_tokens": 8},
                    {"type": "compaction", "input_tokens": 55196, "output_tokens": 125},
                ],
            },
            {"input_uncached": 55416, "output_text": 133},
            ("compaction",),
        ),
        # what a compaction wrote to the cache, with a breakdown and without
        (
            {
                "input_tokens": 1,
                "output_tokens": 1,
                "iterations": [
                    {"type": "compaction", "cache_read_input_tokens": 7, "cache_creation_input_tokens": 50},
                    {
                        "type": "compaction",
                        "output_tokens": 2,
                        "cache_creation_input_tokens": 30,
                        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 30},
                    },
                ],
            },
            {"input_uncached": 1, "cache_read": 7, "cache_write_5m": 50, "cache_write_1h": 30, "output_text": 3},
            ("compaction",),
        ),
        # an advisor without a name: billed, and nobody can say at what price
        (
            {"input_tokens": 5, "output_tokens": 6, "iterations": [{"type": "advisor_message", "input_tokens": 2529}]},
            {"input_uncached": 5, "output_text": 6},
            ("other_model",),
        ),
        (
            {"input_tokens": 5, "output_tokens": 6, "iterations": [{"type": "advisor_message", "model": "claude-x"}]},
            {"input_uncached": 5, "output_text": 6},
            ("other_model",),
        ),
    ],
)
def test_anthropic_by_hand(raw, buckets, flags):
    found = anthropic.read(raw)
    assert (dict(found.buckets), found.flags) == (buckets, flags)


def test_advice_is_counted_under_the_model_that_gave_it_and_in_the_totals():
    advice = {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2000, "output_tokens": 30}
    cached = {"type": "advisor_message", "model": "claude-opus-4-8", "cache_read_input_tokens": 7}
    other = {"type": "advisor_message", "model": "claude-fable-5", "input_tokens": 1, "output_tokens": -1}
    found = anthropic.read({"input_tokens": 5, "output_tokens": 6, "iterations": [advice, cached, other]})
    assert dict(found.buckets) == {"input_uncached": 5, "output_text": 6}
    assert {each.model: dict(each.buckets) for each in found.others} == {
        "claude-opus-4-8": {"input_uncached": 2000, "cache_read": 7, "output_text": 30},
        "claude-fable-5": {"input_uncached": 1},
    }
    assert (found.input_tokens, found.output_tokens) == (2013, 36)
    assert found.flags == ("invalid_count",)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_anthropic_nonsense_count_is_flagged_and_never_billed(nonsense):
    found = anthropic.read({"input_tokens": 100, "output_tokens": nonsense})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100}, ("invalid_count",))
    found = anthropic.read({"input_tokens": 100, "output_tokens": 7, "cache_read_input_tokens": nonsense})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100, "output_text": 7}, ("invalid_count",))


@pytest.mark.parametrize("nonsense", [-5, "12", True, 1.5, [3]], ids=repr)
def test_nonsense_where_details_belong_is_flagged(nonsense):
    plain = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    for key in ("prompt_tokens_details", "completion_tokens_details", "server_side_tool_usage_details"):
        found = openai.read({**plain, key: nonsense})
        assert (dict(found.buckets), found.flags) == ({"input_uncached": 9, "output_text": 3}, ("invalid_count",))
    for key in ("cache_creation", "output_tokens_details", "server_tool_use"):
        found = anthropic.read({"input_tokens": 9, "output_tokens": 3, key: nonsense})
        assert (dict(found.buckets), found.flags) == ({"input_uncached": 9, "output_text": 3}, ("invalid_count",))
    if not isinstance(nonsense, list):
        assert anthropic.read({"input_tokens": 9, "iterations": nonsense}).flags == ("invalid_count",)


@pytest.mark.parametrize("kind", [None, "fallback", 7, ["message"]], ids=repr)
def test_an_iteration_of_another_kind_is_billed_and_nobody_says_at_what_price(kind):
    step = {"type": kind, "input_tokens": 500, "output_tokens": 5}
    found = anthropic.read({"input_tokens": 9, "output_tokens": 3, "iterations": [{"type": "message"}, step]})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 9, "output_text": 3}, ("other_model",))


def test_anthropic_terms_that_change_the_price_are_read():
    counts = {"input_tokens": 1, "output_tokens": 1}
    assert anthropic.read({**counts, "service_tier": "batch"}).terms == Terms(batch=True)
    assert anthropic.read(
        {**counts, "service_tier": "priority", "speed": "fast", "inference_geo": "us"}
    ).terms == Terms(service_tier="priority", speed="fast", inference_geo="us")
    assert anthropic.read({**counts, "service_tier": 1, "speed": 2, "inference_geo": ["us"]}).terms == Terms()


def test_a_stream_is_its_last_word_and_never_a_sum():
    merged = anthropic.merge_stream(
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}},
            {"type": "content_block_delta", "delta": {"text": "hi"}},
            {"type": "message_delta", "usage": {"output_tokens": 10, "input_tokens": None}},
            {"type": "message_delta", "usage": {"output_tokens": 15}},
            {"type": "ping"},
            None,
        ]
    )
    assert merged == {"input_tokens": 25, "output_tokens": 15}


# -- damaged JSON

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**13),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
COUNT = st.integers(0, 10**9)


def objects(names: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names.split(), values))


def details(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    inner = objects("audio_tokens image_tokens text_tokens", values)
    return st.builds(
        lambda flat, split: {**flat, **({"cached_tokens_details": split} if split is not None else {})},
        objects("cached_tokens cache_write_tokens audio_tokens image_tokens reasoning_tokens", values),
        st.one_of(st.none(), inner),
    )


def openai_like(values: st.SearchStrategy[Any], *, broken: bool) -> st.SearchStrategy[dict[str, Any]]:
    parts = st.one_of(details(values), ODD) if broken else details(values)
    return st.builds(
        lambda flat, nested: {**flat, **nested},
        objects("prompt_tokens completion_tokens total_tokens prompt_cache_hit_tokens cost", values),
        objects("prompt_tokens_details completion_tokens_details", parts),
    )


def anthropic_like(values: st.SearchStrategy[Any], *, broken: bool) -> st.SearchStrategy[dict[str, Any]]:
    names = "input_tokens output_tokens cache_read_input_tokens cache_creation_input_tokens"
    split = objects("ephemeral_5m_input_tokens ephemeral_1h_input_tokens", values)
    thinking = objects("thinking_tokens", values)
    tools = objects("web_search_requests", values)
    iterations: st.SearchStrategy[Any] = st.lists(
        st.builds(
            lambda counts, kind: {**counts, "type": kind},
            objects(names, values),
            st.sampled_from(["message", "compaction", "advisor_message"]),
        ),
        max_size=2,
    )
    if broken:
        split, thinking, tools = (st.one_of(part, ODD) for part in (split, thinking, tools))
        iterations = st.one_of(iterations, ODD, st.lists(ODD, max_size=2))
    return st.builds(
        lambda flat, *parts: {
            **flat,
            **dict(
                zip(("cache_creation", "output_tokens_details", "server_tool_use", "iterations"), parts, strict=True)
            ),
        },
        objects(f"{names} service_tier speed inference_geo", values),
        split,
        thinking,
        tools,
        iterations,
    )


def assert_sound(found: Usage | None) -> None:
    for bucket, count in found.buckets.items() if found is not None else ():
        assert bucket in BUCKETS
        assert type(count) is int
        assert count > 0


@settings(max_examples=250, deadline=None)
@given(openai_like(ODD, broken=True))
def test_openai_reader_survives_damage_and_never_books_a_negative(raw):
    assert_sound(openai.read(raw))


@settings(max_examples=250, deadline=None)
@given(anthropic_like(ODD, broken=True))
def test_anthropic_reader_survives_damage_and_never_books_a_negative(raw):
    assert_sound(anthropic.read(raw))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(ODD, st.fixed_dictionaries({}, optional={"usage": ODD, "message": ODD})), max_size=4))
def test_stream_merge_survives_damage(stream):
    assert_sound(anthropic.read(anthropic.merge_stream(stream)))


@settings(max_examples=250, deadline=None)
@given(openai_like(COUNT, broken=False))
def test_openai_reader_never_loses_a_token_that_a_total_states(raw):
    found = openai.read(raw)
    if found is None:
        return
    assert found.input_tokens >= raw.get("prompt_tokens", 0), "input tokens were dropped"
    assert found.output_tokens >= raw.get("completion_tokens", 0), "output tokens were dropped"
    assert found.total_tokens >= raw.get("total_tokens", 0), "the larger reading is the one that cannot undercharge"


@settings(max_examples=250, deadline=None)
@given(anthropic_like(COUNT, broken=False))
def test_anthropic_reader_never_loses_a_token_that_a_field_states(raw):
    found = anthropic.read(raw)
    if found is None:
        return
    split = sum(raw["cache_creation"].values())
    written = max(raw.get("cache_creation_input_tokens", 0), split)
    floor = raw.get("input_tokens", 0) + raw.get("cache_read_input_tokens", 0) + written
    assert found.input_tokens >= floor, "input tokens were dropped"
    assert found.output_tokens >= raw.get("output_tokens", 0), "output tokens were dropped"


INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@settings(max_examples=100, deadline=None)
@given(st.lists(objects("input_tokens output_tokens cache_read_input_tokens", COUNT), min_size=1, max_size=4))
def test_splitting_a_stream_differently_changes_nothing(reports):
    stream = [{"type": "message_delta", "usage": report} for report in reports]
    final: dict[str, int] = {}
    for report in reports:  # a report whose input is 0 all over says nothing of it
        empty = not any(report.get(key) for key in INPUT)
        final |= {key: count for key, count in report.items() if not (empty and key in INPUT and key in final)}
    assert anthropic.read(anthropic.merge_stream(stream)) == anthropic.read(
        anthropic.merge_stream([{"type": "message_start", "message": {"usage": final}}])
    )
    again = stream + stream[-1:]
    assert anthropic.merge_stream(again) == anthropic.merge_stream(stream), "a repeated event was billed again"
