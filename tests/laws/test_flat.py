"""Ollama, watsonx, Aleph Alpha and what invoked models of Bedrock say: two plain counts, whole and in streams."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.usage.flat import read, read_stream, shaped
from ai_budget_callbacks.usage.wire import read_body, read_usage
from tests.laws.test_readers import COUNT, NONSENSE, ODD, assert_sound, objects

FAMILIES = {
    "ollama/1": ("prompt_eval_count", "eval_count"),
    "watsonx/1": ("input_token_count", "generated_token_count"),
    "alephalpha/1": ("num_tokens_prompt_total", "num_tokens_generated"),
    "llama/1": ("prompt_token_count", "generation_token_count"),
    "titan/1": ("inputTextTokenCount", "totalOutputTextTokenCount"),
    "bedrock-metrics/1": ("inputTokenCount", "outputTokenCount"),
}
each_family = pytest.mark.parametrize(("reader", "names"), FAMILIES.items(), ids=list(FAMILIES))
BOTH = {"input_uncached": 10, "output_text": 20}


@each_family
def test_two_counts_by_hand(reader, names):
    given, made = names
    found = read({given: 10, made: 20, "text": "an answer"})
    assert (dict(found.buckets), found.flags, found.reader) == (BOTH, (), reader)
    assert found.raw == {given: 10, made: 20}, "the answer's text was kept beside its counts"
    assert read(found.raw) == found
    assert dict(read({given: 10.0, made: 20}).buckets) == BOTH
    assert read_usage({given: 10, made: 20}).buckets == BOTH


def test_bedrocks_metrics_have_cached_tokens_too():
    raw = {
        "inputTokenCount": 10,
        "outputTokenCount": 5,
        "cacheReadInputTokenCount": 1_000,
        "cacheWriteInputTokenCount": 2_000,
    }
    billed = {"input_uncached": 10, "output_text": 5, "cache_read": 1_000, "cache_write_5m": 2_000}
    assert read_usage(raw).buckets == billed
    assert read_body([{"outputText": "a"}, {"amazon-bedrock-invocationMetrics": raw}]).usage.buckets == billed


@each_family
def test_absent_null_and_zero(reader, names):
    given, made = names
    assert read({given: None, made: None}) is None
    assert read({given: 0, made: 0}) is None, "of zeros alone nothing can be said"
    assert dict(read({given: 10, made: None}).buckets) == {"input_uncached": 10}
    assert dict(read({given: None, made: 20}).buckets) == {"output_text": 20}
    if reader != "llama/1":
        assert dict(read({made: 20}).buckets) == {"output_text": 20}, "a prompt in Ollama's memory has no count"
    else:
        assert not shaped({given: 10}), "the name alone is the Python client's of Gemini"


@each_family
@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_is_flagged_and_never_billed(reader, names, nonsense):
    given, made = names
    found = read({given: 10, made: nonsense})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 10}, ("invalid_count",))
    assert repr(read(found.raw)) == repr(found)
    late = read_stream([{given: 10, made: 20}, {given: nonsense, made: nonsense}])
    assert (dict(late.buckets), late.flags) == (BOTH, ("invalid_count",)), "a damaged event undid what others said"


@pytest.mark.parametrize("raw", [None, {}, [], "x", 7, {"results": []}, {"results": None}, {"results": [None, 3]}])
def test_what_is_of_no_family_is_absent(raw):
    assert read(raw) is None


# -- streams


def test_watsonx_repeats_its_counts_in_a_stream_and_is_not_summed_over_events():
    stream = [
        {"results": [{"input_token_count": 10, "generated_token_count": 1}]},
        {"results": [{"input_token_count": 0, "generated_token_count": 7}]},
        {"results": [{"input_token_count": 0, "generated_token_count": 20}]},
    ]
    assert dict(read_body(stream).usage.buckets) == BOTH


def test_results_of_one_answer_are_summed():
    results = [
        {"input_token_count": 4, "generated_token_count": 5},
        {"input_token_count": 6, "generated_token_count": 15},
    ]
    assert dict(read_body({"results": results}).usage.buckets) == BOTH
    titan = {"inputTextTokenCount": 10, "results": [{"tokenCount": 5}, {"tokenCount": 15.0, "outputText": "x"}, None]}
    assert dict(read_body(titan).usage.buckets) == BOTH


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_of_one_result_is_flagged_and_the_others_are_billed(nonsense):
    titan = read_body({"inputTextTokenCount": 10, "results": [{"tokenCount": 20}, {"tokenCount": nonsense}]}).usage
    assert (dict(titan.buckets), titan.flags) == (BOTH, ("invalid_count",))
    results = [{"input_token_count": 10, "generated_token_count": 20}, {"generated_token_count": nonsense}]
    watsonx = read_body({"results": results}).usage
    assert (dict(watsonx.buckets), watsonx.flags) == (BOTH, ("invalid_count",))


def test_llama_and_titan_streams_are_their_largest_counts():
    llama = [
        {"generation": "a", "prompt_token_count": 10, "generation_token_count": 1},
        {"generation": "b", "prompt_token_count": None, "generation_token_count": 20},
    ]
    assert dict(read_body(llama).usage.buckets) == BOTH
    titan = [
        {"outputText": "a", "index": 0, "totalOutputTextTokenCount": None, "inputTextTokenCount": 10},
        {"outputText": "b", "index": 0, "totalOutputTextTokenCount": 20, "inputTextTokenCount": None},
    ]
    assert dict(read_body(titan).usage.buckets) == BOTH


def test_events_without_counts_end_no_stream():
    stream = [
        {"response": "a"},
        {"prompt_eval_count": 10},
        {"done": False},
        {"prompt_eval_count": 10, "eval_count": 20},
    ]
    assert dict(read_stream(stream).buckets) == BOTH


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(FAMILIES)), st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(1, 10**6)
)
def test_a_stream_cut_into_other_events_reads_the_same(reader, marks, prompt):
    given, made = FAMILIES[reader]
    marks = sorted(marks)
    stream = [{given: prompt if number == 0 else 0, made: mark} for number, mark in enumerate(marks)]
    finer = [stream[0], *({given: 0, made: (a + b) // 2} for a, b in pairwise(marks)), *stream[1:]]
    whole = {given: prompt, made: marks[-1]}
    assert read_stream(stream).buckets == read_stream(finer).buckets == read(whole).buckets
    assert read_stream([*stream, *stream]) == read_stream(stream), "a repeated event was billed again"


# -- damage

NAMES = " ".join(name for names in FAMILIES.values() for name in names)
RESULT = objects("tokenCount input_token_count generated_token_count", ODD)


@settings(max_examples=300, deadline=None)
@given(st.lists(objects(f"{NAMES} results", st.one_of(ODD, st.lists(st.one_of(ODD, RESULT), max_size=3))), max_size=3))
def test_the_reader_survives_damage_and_never_books_a_negative(events):
    assert_sound(read_stream(events))
    assert_sound(read_body(events).usage)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.lists(st.tuples(COUNT, COUNT), min_size=1, max_size=4))
def test_the_reader_never_loses_a_token_that_an_event_states(reader, reports):
    given, made = FAMILIES[reader]
    events: list[dict[str, Any]] = [{given: a, made: b} for a, b in reports]
    found = read_stream(events)
    total = (max(a for a, _ in reports), max(b for _, b in reports))
    assert (found.input_tokens, found.output_tokens) == total if found else total == (0, 0)
