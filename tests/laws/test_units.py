"""What is billed by another unit than tokens in OpenAI's family: seconds of speech, hosted tools, containers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage import Usage, openai
from ai_budget_callbacks.usage.wire import read_body, read_usage
from tests.laws.test_readers import COUNT, NONSENSE, ODD, assert_sound, objects
from tests.support.goldens import NOW

CHAT = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
BOTH = {"input_uncached": 1_000, "output_text": 100}


# -- seconds


@pytest.mark.parametrize(
    ("seconds", "billed"), [(12, 12), (12.0, 12), (12.01, 13), (0.2, 1), (0, None), (0.0, None)], ids=repr
)
def test_a_part_of_a_second_is_billed_whole(seconds, billed):
    raw = {"type": "duration", "seconds": seconds}
    found = read_usage(raw)
    assert dict(found.buckets) == ({"audio_seconds": billed} if billed else {})
    assert (found.raw, found.flags, found.reader) == (raw, (), "openai/1")
    assert read_body({"text": "hi", "usage": raw}).usage == found


@pytest.mark.parametrize("seconds", [None, "12", -1, -0.5, float("nan"), float("inf"), True, [3], 10**12], ids=repr)
def test_seconds_that_are_no_duration_are_absent(seconds):
    assert openai.read({"type": "duration", "seconds": seconds}) is None


@pytest.mark.parametrize("raw", [{"seconds": 12}, {"type": "tokens", "seconds": 12}], ids=repr)
def test_seconds_of_something_else_are_not_billed(raw):
    assert openai.read(raw) is None


def test_an_hour_of_whisper_costs_what_the_catalogue_says():
    found = openai.read({"type": "duration", "seconds": 90})
    cost = PriceBook().price(found, provider="openai", model="whisper-1", requested="whisper-1", at=NOW)
    assert usd_text(cost.pico) == "0.009"  # 0.006 a minute


def test_the_sound_of_a_transcription_is_no_text():
    raw = {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
        "output_tokens": 45,
        "total_tokens": 59,
    }
    assert dict(read_usage(raw).buckets) == {"input_uncached": 4, "input_audio": 10, "output_text": 45}


# -- hosted tools


@pytest.mark.parametrize(
    ("more", "units"),
    [
        ({"server_side_tool_usage_details": {"web_search_calls": 2}}, {"web_search": 2}),
        ({"server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 3}}, {"web_search": 5}),
        (
            {"server_side_tool_usage_details": {"code_interpreter_calls": 1, "document_search_calls": 4}},
            {"code_execution": 1, "file_search": 4},
        ),
        ({"server_side_tool_usage_details": {"file_search_calls": 1, "mcp_calls": 9}}, {"file_search": 1}),
        ({"server_side_tool_usage_details": {"web_search_calls": 0}}, {}),
        ({"server_side_tool_usage_details": None}, {}),
        ({"server_tool_use_details": {"web_search_requests": 2}}, {"web_search": 2}),
        ({"server_tool_use": {"web_search_requests": 2}}, {"web_search": 2}),
        ({"server_tool_use_details": {}, "server_tool_use": {"web_search_requests": 2}}, {"web_search": 2}),
    ],
    ids=repr,
)
def test_tools_that_the_usage_counts_are_billed(more, units):
    found = openai.read({**CHAT, **more})
    assert (dict(found.buckets), found.flags) == (BOTH | units, ())


def test_tools_that_stand_where_no_object_is_are_flagged():
    found = openai.read({**CHAT, "server_side_tool_usage_details": [2]})
    assert (dict(found.buckets), found.flags) == (BOTH, ("invalid_count",))


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_of_tools_is_flagged_and_never_billed(nonsense):
    for more in (
        {"server_side_tool_usage_details": {"web_search_calls": nonsense}},
        {"server_tool_use": {"web_search_requests": nonsense}},
    ):
        found = openai.read({**CHAT, **more})
        assert (dict(found.buckets), found.flags) == (BOTH, ("invalid_count",))


def test_tools_that_the_usage_counts_are_not_counted_again_in_the_output():
    items = [{"type": "web_search_call"}] * 3
    usage = {"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100}
    counted = {**usage, "server_side_tool_usage_details": {"web_search_calls": 2}}
    assert dict(read_body({"usage": counted, "output": items}).usage.buckets) == BOTH | {"web_search": 2}
    assert dict(read_body({"usage": usage, "output": items}).usage.buckets) == BOTH | {"web_search": 3}


@pytest.mark.parametrize(
    ("items", "units"),
    [
        ([{"type": "code_interpreter_call", "container_id": "a"}] * 3, {"code_execution": 1}),
        ([{"type": "code_interpreter_call", "container_id": name} for name in "aba"], {"code_execution": 2}),
        ([{"type": "code_interpreter_call"}] * 2, {"code_execution": 2}),
        ([{"type": "code_interpreter_call", "container_id": None}] * 2, {"code_execution": 2}),
        ([{"type": "file_search_call"}, {"type": "image_generation_call"}, {"type": None}, None], {"file_search": 1}),
    ],
    ids=repr,
)
def test_a_container_is_billed_once_however_many_calls_share_it(items, units):
    assert openai.count_output_items(items) == units


# -- reasoning that cannot be inside the completion


@pytest.mark.parametrize(
    ("reasoning", "total", "buckets", "flags"),
    [
        (2809, 14428, {"output_text": 1499, "output_reasoning": 2809}, ()),
        (2809, None, {"output_text": 1499, "output_reasoning": 2809}, ("inconsistent",)),
        (1000, None, {"output_text": 499, "output_reasoning": 1000}, ()),
        (1499, None, {"output_reasoning": 1499}, ()),
        (2809, 11619, {"output_reasoning": 2809}, ("inconsistent",)),  # the total says that it is inside
    ],
)
def test_more_reasoning_than_completion_is_on_top_of_it_where_no_total_says_otherwise(reasoning, total, buckets, flags):
    raw = {
        "prompt_tokens": 10120,
        "completion_tokens": 1499,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    found = openai.read(raw)
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 10120} | buckets, flags)


# -- damage


@settings(max_examples=200, deadline=None)
@given(
    objects(
        "prompt_tokens total_tokens type seconds server_side_tool_usage_details server_tool_use",
        st.one_of(ODD, st.just("duration"), objects("web_search_calls x_search_calls web_search_requests", ODD)),
    )
)
def test_counting_units_survives_damage(raw: dict[str, Any]):
    assert_sound(openai.read(raw))
    assert_sound(read_body({"usage": raw, "output": [raw, None]}).usage)


@settings(max_examples=100, deadline=None)
@given(objects("web_search_calls x_search_calls code_interpreter_calls file_search_calls", COUNT))
def test_no_call_of_a_tool_is_lost(calls):
    found = openai.read({**CHAT, "server_side_tool_usage_details": calls})
    assert isinstance(found, Usage)
    assert sum(found.buckets.values()) == 1_100 + sum(calls.values())


# -- images


def test_the_images_api_bills_images_apart_from_text():
    raw = {
        "input_tokens": 50,
        "output_tokens": 1_000,
        "total_tokens": 1_050,
        "input_tokens_details": {"image_tokens": 40, "text_tokens": 10},
        "output_tokens_details": {"image_tokens": 900, "text_tokens": 100},
    }
    found = read_usage(raw)
    billed = {"input_uncached": 10, "input_image": 40, "output_text": 100, "output_image": 900}
    assert (dict(found.buckets), found.flags) == (billed, ())
    # 10 x 5 + 40 x 8 + 100 x 10 + 900 x 32 a million; all of it at the price of text is 0.01025
    cost = PriceBook().price(found, provider="openai", model="gpt-image-1.5", requested=None, at=NOW)
    assert (cost.status, cost.usd) == ("priced", Decimal("0.03017"))


@pytest.mark.parametrize("details", [{}, {"output_tokens_details": None}, {"output_tokens_details": {}}], ids=str)
@pytest.mark.parametrize(
    ("model", "usd"),
    # 10 x 5 + 40 x 8 + 1000 x 32; with 10 and 40; with 2 and 2.50 and 8: at the price of text 0.01037 for the first
    [("gpt-image-1.5", "0.03237"), ("gpt-image-1", "0.04045"), ("gpt-image-1-mini", "0.00812")],
)
def test_all_that_the_images_api_makes_without_details_is_an_image(model, usd, details):
    split = {"image_tokens": 40, "text_tokens": 10}
    raw = {
        "input_tokens": 50,
        "output_tokens": 1_000,
        "total_tokens": 1_050,
        "input_tokens_details": split,
        **details,
    }
    found = read_usage(raw)
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 10, "input_image": 40, "output_image": 1_000}, ())
    cost = PriceBook().price(found, provider="openai", model=model, requested=None, at=NOW)
    assert (cost.status, cost.usd) == ("priced", Decimal(usd))
    # details of another kind, as Responses gives them, say nothing of images
    text = read_usage({**raw, "input_tokens_details": {"cached_tokens": 0}})
    assert dict(text.buckets) == {"input_uncached": 50, "output_text": 1_000}


def test_an_image_drawn_behind_openais_format_is_no_text():
    details = {"reasoning_tokens": 5, "image_tokens": 1_290}
    raw = {"prompt_tokens": 10, "completion_tokens": 1_300, "total_tokens": 1_310, "completion_tokens_details": details}
    assert dict(read_usage(raw).buckets) == {
        "input_uncached": 10,
        "output_text": 5,
        "output_reasoning": 5,
        "output_image": 1_290,
    }
    # a picture in the prompt is plain input there
    seen = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "prompt_tokens_details": {"text_tokens": 10, "image_tokens": 90},
    }
    assert dict(read_usage(seen).buckets) == {"input_uncached": 100, "output_text": 5}
