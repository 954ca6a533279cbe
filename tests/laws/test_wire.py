"""A body as a provider sends it, its usage object alone, or a stream's events: the same usage each way."""

from __future__ import annotations

from typing import Any

import pytest

from ai_budget_callbacks.usage import Terms
from ai_budget_callbacks.usage.wire import Body, read_body, read_usage

CHAT = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
RESPONSES = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
CLAUDE = {"input_tokens": 100, "output_tokens": 20}
BOTH = {"input_uncached": 100, "output_text": 20}


def buckets(found: Body) -> dict[str, int] | None:
    return None if found.usage is None else dict(found.usage.buckets)


# -- OpenAI's family


@pytest.mark.parametrize("usage", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_a_body_and_its_usage_object_alone_are_the_same_usage(usage):
    whole = read_body({"id": "x", "model": "gpt-4o-2024-08-06", "usage": usage})
    assert (buckets(whole), whole.model) == (BOTH, "gpt-4o-2024-08-06")
    assert whole.usage.reader == "openai/1"
    assert dict(whole.usage.raw) == usage
    alone = read_body(usage)
    assert (buckets(alone), alone.model) == (BOTH, None)
    assert alone.usage == whole.usage


@pytest.mark.parametrize(
    "nothing", [{}, [], None, "text", 7, {"usage": None}, {"usage": {}}, [{}], [None, "x"], [{"usage": None}]], ids=repr
)
def test_a_body_without_usage_is_absent_not_zero(nothing):
    assert read_body(nothing) == Body(usage=None, model=None)


def test_a_body_that_reports_nothing_still_names_its_model():
    found = read_body({"model": "gpt-4o", "usage": {}}, service_tier="flex", batch=True, geo="us")
    assert found == Body(usage=None, model="gpt-4o")


@pytest.mark.parametrize("model", [None, "", 7, ["gpt-4o"]], ids=repr)
@pytest.mark.parametrize("usage", [CHAT, CLAUDE], ids=["openai", "anthropic"])
def test_a_model_that_is_no_text_is_no_model(usage, model):
    found = read_body({"model": model, "usage": usage})
    assert (buckets(found), found.model) == (BOTH, None)


def test_the_last_report_of_a_chat_stream_holds():
    first = {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103}
    stream = [
        {"model": "gpt-4o", "usage": first},
        {"model": "gpt-4o-2024-08-06", "usage": CHAT},
        {"model": "other", "usage": None},
        "[DONE]",
    ]
    found = read_body(stream)
    assert (buckets(found), found.model) == (BOTH, "gpt-4o-2024-08-06"), "a cumulative report was taken from the middle"


def test_events_of_a_responses_stream_carry_the_response_inside():
    stream = [
        {"type": "response.created", "response": {"model": "gpt-5", "usage": None}},
        {"type": "response.output_text.delta", "delta": "Four."},
        {
            "type": "response.completed",
            "response": {
                "model": "gpt-5-2025-08-07",
                "service_tier": "flex",
                "usage": RESPONSES,
                "output": [{"type": "web_search_call", "action": {"type": "search"}}, {"type": "message"}],
            },
        },
    ]
    found = read_body(stream)
    assert buckets(found) == BOTH | {"web_search": 1}
    assert found.model == "gpt-5-2025-08-07"
    assert found.usage.terms == Terms(service_tier="flex")


def test_tool_calls_among_the_output_are_billed_and_other_output_is_not():
    items = [
        {"type": "reasoning"},
        {"type": "web_search_call"},
        {"type": "web_search_call"},
        {"type": "file_search_call"},
        {"type": "message"},
    ]
    found = read_body({"usage": RESPONSES, "output": items})
    assert buckets(found) == BOTH | {"web_search": 2, "file_search": 1}
    shared = [{"type": "code_interpreter_call", "container_id": "a"}] * 2
    found = read_body({"usage": RESPONSES, "output": [*shared, {"type": "file_search_call"}]})
    assert buckets(found) == BOTH | {"code_execution": 1, "file_search": 1}
    assert buckets(read_body({"usage": RESPONSES, "output": {"type": "web_search_call"}})) == BOTH
    assert read_body({"usage": {}, "output": items}).usage is None, (
        "tool calls beside no usage were taken for all of it"
    )


@pytest.mark.parametrize(
    ("said", "given", "tier"),
    [
        ("priority", "flex", "priority"),
        ("priority", None, "priority"),
        (None, "flex", "flex"),
        ("", "flex", "flex"),
        (7, None, None),
        (None, None, None),
    ],
)
def test_the_tier_of_the_body_goes_before_the_one_given(said, given, tier):
    found = read_body({"usage": CHAT, "service_tier": said}, service_tier=given)
    assert found.usage.terms == Terms(service_tier=tier)


def test_a_tier_that_one_event_states_holds_for_the_stream():
    stream = [{"usage": CHAT, "service_tier": "flex"}, {"usage": None}]
    assert read_body(stream).usage.terms == Terms(service_tier="flex")
    event = {"interaction": {"usage": {"total_input_tokens": 100}, "service_tier": "flex"}}
    assert read_body([event]).usage.terms == Terms(service_tier="flex")


# -- where a usage object and a model's name stand


@pytest.mark.parametrize("place", ["response", "message", "metadata", "delta", "interaction", "x_groq"])
def test_an_event_may_have_its_usage_inside(place):
    assert buckets(read_body([{place: {"usage": CHAT}}, {"choices": []}])) == BOTH


@pytest.mark.parametrize(
    "said",
    [
        *({key: "a-model"} for key in ("model", "modelVersion", "model_id", "model_version")),
        *({place: {"model": "a-model"}} for place in ("response", "message", "interaction")),
    ],
    ids=repr,
)
def test_a_model_is_named_in_many_words(said):
    found = read_body([said, {"usage": CHAT}])
    assert (buckets(found), found.model) == (BOTH, "a-model")


def test_of_reports_of_zeros_alone_the_last_one_names_the_model():
    zeros = {"prompt_tokens": 0, "completion_tokens": 0}
    assert read_body([{"model": "asked", "usage": zeros}, {"model": "answered", "usage": zeros}]).model == "answered"


# -- Anthropic


def test_an_anthropic_body_and_its_usage_object_alone_are_the_same_usage():
    whole = read_body({"id": "msg_1", "model": "claude-sonnet-4-5", "usage": CLAUDE})
    assert (buckets(whole), whole.model) == (BOTH, "claude-sonnet-4-5")
    assert whole.usage.reader == "anthropic/1"
    assert dict(whole.usage.raw) == CLAUDE
    alone = read_body(CLAUDE)
    assert (buckets(alone), alone.model) == (BOTH, None)


def test_an_anthropic_stream_names_its_model_at_the_start_and_its_output_at_the_end():
    stream: list[Any] = [
        None,
        {"type": "ping"},
        {
            "type": "message_start",
            "message": {"model": "claude-sonnet-4-5", "usage": {"input_tokens": 100, "output_tokens": 1}},
        },
        {"type": "message_start", "message": {"model": "later"}},
        {"type": "message_delta", "usage": {"output_tokens": 20}},
    ]
    found = read_body(stream)
    assert (buckets(found), found.model) == (BOTH, "claude-sonnet-4-5")


# -- Gemini

GEMINI = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120}
SEARCHED = {"groundingMetadata": {"webSearchQueries": ["a", "b"]}}


def test_a_gemini_body_and_its_usage_object_alone_are_the_same_usage():
    whole = read_body({"responseId": "x", "modelVersion": "gemini-2.5-flash", "usageMetadata": GEMINI})
    assert (buckets(whole), whole.model) == (BOTH, "gemini-2.5-flash")
    assert whole.usage.reader == "google/1"
    assert dict(whole.usage.raw) == GEMINI
    alone = read_body(GEMINI | {"_note": "recorded"})
    assert (buckets(alone), alone.model) == (BOTH, None)
    assert alone.usage == whole.usage


def test_the_last_report_of_a_gemini_stream_holds():
    stream = [
        {
            "modelVersion": "gemini-3-flash-preview",
            "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 9},
        },
        {"candidates": [SEARCHED]},
        {"usageMetadata": GEMINI, "candidates": [None, SEARCHED, {"groundingMetadata": None}]},
        {"usageMetadata": None, "candidates": "x"},
        "[DONE]",
    ]
    found = read_body(stream)
    assert (buckets(found), found.model) == (BOTH | {"web_search": 2}, "gemini-3-flash-preview")
    assert buckets(read_body([{"promptTokenCount": 1}, GEMINI])) == BOTH


@pytest.mark.parametrize(
    ("said", "given", "units"),
    [
        ("gemini-2.5-flash", None, {"grounded_request": 1}),
        ("gemini-3-flash-preview", None, {"web_search": 2}),
        (None, "gemini-2.5-pro", {"grounded_request": 1}),
        ("gemini-3-flash-preview", "gemini-2.5-pro", {"grounded_request": 1}),
    ],
)
def test_searches_of_gemini_are_counted_as_the_model_to_price_by_bills_them(said, given, units):
    body = {"modelVersion": said, "usageMetadata": GEMINI, "candidates": [SEARCHED]}
    assert buckets(read_body(body, model=given)) == BOTH | units
    assert read_body({"modelVersion": said, "candidates": [SEARCHED]}, model=given).usage is None


# -- a usage object of nobody knows whose family


@pytest.mark.parametrize(
    ("raw", "reader", "counts"),
    [
        (CHAT, "openai/1", BOTH),
        (RESPONSES, "openai/1", BOTH),
        (CLAUDE, "anthropic/1", BOTH),
        (GEMINI, "google/1", BOTH),
        # what is read from a cache is inside OpenAI's total and comes on top of Anthropic's
        (CLAUDE | {"cache_read_input_tokens": 50, "total_tokens": 170}, "anthropic/1", BOTH | {"cache_read": 50}),
        (
            CLAUDE | {"cache_creation_input_tokens": 50, "total_tokens": 170},
            "anthropic/1",
            BOTH | {"cache_write_5m": 50},
        ),
        (
            CLAUDE | {"input_tokens_details": {"cached_tokens": 40}},
            "openai/1",
            BOTH | {"input_uncached": 60, "cache_read": 40},
        ),
        (CHAT | {"input_tokens": 100}, "openai/1", BOTH),
        ({"prompt_tokens": 100, "completion_tokens": 20, "input_tokens": 100}, "openai/1", BOTH),
        (
            CLAUDE | {"input_token_details": {"cached_tokens": 40}},
            "openai/1",
            BOTH | {"input_uncached": 60, "cache_read": 40},
        ),
        ({"output_tokens": 20}, "openai/1", {"output_text": 20}),
        ({"completion_tokens": 20}, "openai/1", {"output_text": 20}),
        ({"prompt_tokens": 100}, "openai/1", {"input_uncached": 100}),
        ({"input_tokens": 100, "input_tokens_details": None}, "openai/1", {"input_uncached": 100}),
        ({"total_tokens": 100}, "openai/1", {"input_uncached": 100}),
        ({"type": "duration", "seconds": 12}, "openai/1", {"audio_seconds": 12}),
        (CHAT | RESPONSES | {"seconds": 12}, "openai/1", BOTH),
        (  # an image inside the completion, thoughts on top of it
            CHAT | {"completion_tokens_details": {"image_tokens": 15, "reasoning_tokens": 30}, "total_tokens": 150},
            "openai/1",
            {"input_uncached": 100, "output_text": 5, "output_image": 15, "output_reasoning": 30},
        ),
    ],
)
def test_a_usage_object_is_read_by_its_shape(raw, reader, counts):
    found = read_usage(raw)
    assert (found.reader, dict(found.buckets), found.terms) == (reader, counts, Terms())


def test_a_client_that_sends_both_families_words_is_of_openais():
    # LiteLLM: the prompt includes what was read
    found = read_usage(CHAT | {"cache_read_input_tokens": 40})
    assert found.reader == "openai/1"
    assert found.input_tokens == 100


def test_a_tier_beside_a_usage_object_is_taken():
    assert read_usage(CHAT, service_tier="flex").terms == Terms(service_tier="flex")
    said = {"inputTokens": 100, "outputTokens": 20, "serviceTier": {"type": "priority"}}
    assert read_usage(said, service_tier="flex").terms == Terms(service_tier="priority"), "its own word goes first"
    assert read_usage({"prompt_tokens": None}, service_tier="flex") is None


@pytest.mark.parametrize("raw", [None, "usage", {}, [CHAT]], ids=repr)
def test_what_is_no_usage_object_is_absent(raw):
    assert read_usage(raw) is None


# -- what the caller adds


def test_notes_of_whoever_stored_the_object_are_no_usage():
    found = read_body(CHAT | {"_note": "recorded", "_output_items": {"web_search_call": 2}})
    assert dict(found.usage.raw) == CHAT
    assert dict(read_body(CLAUDE | {"_note": "recorded"}).usage.raw) == CLAUDE


@pytest.mark.parametrize(
    ("body", "asked", "terms"),
    [
        ({}, {"batch": True}, Terms(batch=True)),
        ({"service_tier": "batch"}, {}, Terms(batch=True)),
        ({"service_tier": "batch"}, {"batch": False}, Terms(batch=True)),
        ({}, {"service_tier": "priority"}, Terms(service_tier="priority")),
        ({"service_tier": "standard"}, {"service_tier": "priority"}, Terms(service_tier="standard")),
        ({"inference_geo": "us"}, {}, Terms(inference_geo="us")),
        ({}, {"geo": "us"}, Terms(inference_geo="us")),
        ({"inference_geo": "not_available"}, {"geo": "us"}, Terms(inference_geo="us")),
        ({"speed": "fast"}, {"batch": True, "geo": "us"}, Terms(speed="fast", batch=True, inference_geo="us")),
    ],
)
def test_terms_the_body_lacks_are_the_callers(body, asked, terms):
    found = read_body({"usage": CLAUDE | body}, **asked)
    assert found.usage.terms == terms
    assert buckets(found) == BOTH
    assert read_body(CLAUDE | body, **asked).usage.terms == terms, "of the usage object alone"


def test_a_batch_of_openai_is_said_by_the_caller_alone():
    assert read_body(CHAT, batch=True).usage.terms == Terms(batch=True)
    assert read_body(CHAT).usage.terms == Terms()


# -- which report holds


@pytest.mark.parametrize(
    "zeros", [{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"input_tokens": 0, "output_tokens": 0}]
)
def test_a_report_of_zeros_does_not_undo_one_that_counted(zeros):
    assert buckets(read_body([{"usage": CHAT}, {"usage": zeros}])) == BOTH
    assert buckets(read_body({"usage": zeros, "usageMetadata": GEMINI})) == BOTH
    alone = read_body([{"usage": zeros}])
    assert (buckets(alone), alone.usage.nothing) == ({}, True), "a reported zero is not an absent usage"


def test_an_anthropic_event_without_input_does_not_undo_the_start_of_the_stream():
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 90}}}
    end = {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 20}
    both = {"input_uncached": 10, "cache_read": 90, "output_text": 20}
    assert buckets(read_body([start, {"type": "message_delta", "usage": end}])) == both
    # what says anything of the input says all of it: a compaction's start has the input before it
    later = {"input_tokens": 4, "cache_read_input_tokens": 0, "output_tokens": 20}
    found = read_body([start, {"type": "message_delta", "usage": later}])
    assert buckets(found) == {"input_uncached": 4, "output_text": 20}


def test_an_answer_of_advice_alone_is_not_nothing():
    advice = {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2000, "output_tokens": 30}
    found = read_body({"usage": {"input_tokens": 0, "output_tokens": 0, "iterations": [advice]}}).usage
    assert not found.nothing
    assert (found.buckets, found.total_tokens) == ({}, 2030)
