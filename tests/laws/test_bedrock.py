"""What the Bedrock reader makes of Converse's usage, of response headers, and of damage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage import Terms
from ai_budget_callbacks.usage.bedrock import from_headers, read, shaped
from ai_budget_callbacks.usage.wire import read_body, read_usage
from tests.laws.test_readers import COUNT, NONSENSE, ODD, assert_sound, objects
from tests.support.goldens import NOW

SONNET = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-pro-v1:0"
IN, OUT = "x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count"


def lifetimes(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"ttl": ttl, "inputTokens": count} for ttl, count in pairs]


# -- Converse


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        [],
        "usage",
        7,
        {"inputTokens": None},
        {"inputTokens": None, "outputTokens": None, "totalTokens": None},
        {"inputTokens": "12", "outputTokens": True},
        {"cacheReadInputTokens": 0, "totalTokens": 0},
        {"cacheDetails": lifetimes(("5m", 5))},
    ],
    ids=repr,
)
def test_usage_without_a_count_is_absent_not_zero(raw):
    assert read(raw) is None


def test_zeros_are_reported_and_nothing():
    found = read({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0})
    assert (found.nothing, found.flags) == (True, ())
    cost = PriceBook().price(found, provider="aws", model=NOVA, requested=NOVA, at=NOW)
    assert (cost.status, cost.pico) == ("unpriced", None)


@pytest.mark.parametrize(
    ("raw", "buckets", "flags"),
    [
        pytest.param(
            {"inputTokens": 12, "outputTokens": 80, "totalTokens": 92}, {"input_uncached": 12, "output_text": 80}, ()
        ),
        pytest.param({"inputTokens": 12, "outputTokens": 80}, {"input_uncached": 12, "output_text": 80}, (), id="bare"),
        pytest.param({"inputTokens": 12, "outputTokens": 0}, {"input_uncached": 12}, (), id="no output"),
        pytest.param(
            {
                "inputTokens": 12,
                "outputTokens": 80,
                "totalTokens": 1592,
                "cacheReadInputTokens": 1000,
                "cacheWriteInputTokens": 500,
            },
            {"input_uncached": 12, "cache_read": 1000, "cache_write_5m": 500, "output_text": 80},
            (),
            id="caches are on top of the input; writes live 5 minutes",
        ),
        pytest.param(
            {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokenCount": 3, "cacheWriteInputTokenCount": 4},
            {"input_uncached": 1, "cache_read": 3, "cache_write_5m": 4, "output_text": 2},
            (),
            id="Nova's names",
        ),
        pytest.param(
            {
                "inputTokens": 1,
                "outputTokens": 2,
                "cacheReadInputTokens": None,
                "cacheReadInputTokenCount": 3,
            },
            {"input_uncached": 1, "cache_read": 3, "output_text": 2},
            (),
            id="a null name does not hide the other",
        ),
        pytest.param(
            {"inputTokens": 0, "outputTokens": 2, "cacheReadInputTokens": 900, "totalTokens": 902},
            {"cache_read": 900, "output_text": 2},
            (),
            id="all of it was cached",
        ),
        pytest.param(
            {
                "inputTokens": 1,
                "outputTokens": 2,
                "cacheWriteInputTokens": 300,
                "cacheDetails": lifetimes(("5m", 100), ("1h", 200)),
            },
            {"input_uncached": 1, "cache_write_5m": 100, "cache_write_1h": 200, "output_text": 2},
            (),
            id="split by lifetime",
        ),
        pytest.param(
            {
                "inputTokens": 1,
                "outputTokens": 2,
                "cacheWriteInputTokens": 300,
                "cacheDetails": lifetimes(("1h", 200), ("1h", 50)),
            },
            {"input_uncached": 1, "cache_write_1h": 250, "cache_write": 50, "output_text": 2},
            (),
            id="more written than the split says",
        ),
        pytest.param(
            {"inputTokens": 1, "outputTokens": 2, "cacheDetails": lifetimes(("1h", 200))},
            {"input_uncached": 1, "cache_write_1h": 200, "output_text": 2},
            ("inconsistent",),
            id="a split of more than was written",
        ),
        pytest.param(
            {
                "inputTokens": 1,
                "outputTokens": 2,
                "cacheWriteInputTokens": 9,
                "cacheDetails": [*lifetimes(("2d", 4), (None, 5)), None, "x"],
            },
            {"input_uncached": 1, "cache_write": 9, "output_text": 2},
            (),
            id="lifetimes nobody knows",
        ),
        pytest.param(
            {"inputTokens": 10, "outputTokens": 20, "totalTokens": 35},
            {"input_uncached": 10, "output_text": 25},
            ("inconsistent",),
            id="the total knows more",
        ),
        pytest.param(
            {"inputTokens": 10, "outputTokens": 20, "totalTokens": 25},
            {"input_uncached": 10, "output_text": 20},
            ("inconsistent",),
            id="the total knows less",
        ),
        pytest.param(
            {"inputTokens": 10, "totalTokens": 25},
            {"input_uncached": 10, "output_text": 15},
            ("inconsistent",),
            id="the output is what the total says beyond the input",
        ),
        pytest.param(
            {"inputTokens": None, "outputTokens": 100, "cacheReadInputTokens": 40, "totalTokens": 1100},
            {"input_uncached": 960, "cache_read": 40, "output_text": 100},
            ("inconsistent",),
            id="the input is what the total says beyond the output and the caches",
        ),
        pytest.param({"outputTokens": 9}, {"output_text": 9}, ("input_absent",), id="no input"),
        pytest.param(
            {"inputTokens": None, "outputTokens": None, "totalTokens": 25},
            {"output_text": 25},
            ("input_absent", "inconsistent"),
            id="a total alone: the dearer reading",
        ),
        pytest.param(
            {"cacheReadInputTokens": 25}, {"cache_read": 25}, (), id="a cache alone is of this family and is kept"
        ),
    ],
)
def test_converse_by_hand(raw, buckets, flags):
    found = read(raw)
    assert (dict(found.buckets), found.flags, found.reader) == (buckets, flags, "bedrock/1")
    assert found.raw is raw
    assert shaped(raw)
    assert read_usage(raw) == found


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_is_flagged_and_never_billed(nonsense):
    found = read({"inputTokens": 100, "outputTokens": nonsense})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100}, ("invalid_count",))
    found = read({"inputTokens": 100, "outputTokens": 7, "cacheReadInputTokens": nonsense})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100, "output_text": 7}, ("invalid_count",))
    found = read({"inputTokens": 1, "cacheWriteInputTokens": 9, "cacheDetails": lifetimes(("1h", nonsense))})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 1, "cache_write_5m": 9}, ("invalid_count",))


def body(**more: Any) -> dict[str, Any]:
    return {"usage": {"inputTokens": 1_000, "outputTokens": 100, "totalTokens": 1_100}, **more}


@pytest.mark.parametrize(
    ("said", "terms"),
    [
        ({}, Terms()),
        ({"serviceTier": {"type": "default"}}, Terms(service_tier="default")),
        ({"serviceTier": {"type": "priority"}}, Terms(service_tier="priority")),
        ({"serviceTier": "priority"}, Terms()),
        ({"serviceTier": {"type": 7}}, Terms()),
        ({"performanceConfig": {"latency": "standard"}}, Terms()),
        ({"performanceConfig": {"latency": 1}}, Terms()),
        ({"performanceConfig": {"latency": "optimized"}}, Terms(speed="optimized")),
    ],
    ids=repr,
)
def test_terms_that_stand_beside_the_usage_are_read(said, terms):
    assert read_body(body(**said)).usage.terms == terms
    stream = [{"messageStart": {"role": "assistant"}}, {"metadata": body(**said)}]
    if "serviceTier" not in said:
        assert read_body(stream).usage.terms == terms
    assert read({"inputTokens": 1, "serviceTier": {"type": "flex"}}).terms == Terms(service_tier="flex")
    assert read({"inputTokens": 1, "serviceTier": {"type": 7}}).terms == Terms()


def test_an_answer_served_at_optimized_latency_is_not_priced_at_the_usual_rate():
    # Nova Pro is 0.80 and 3.20; optimized it is dearer, and the catalogue does not say how much
    def price(**said: Any):
        found = read_body(body(**said)).usage
        return PriceBook().price(found, provider="aws", model=NOVA, requested=NOVA, at=NOW)

    assert price().pico == 1_120_000_000
    dearer = price(performanceConfig={"latency": "optimized"})
    assert (dearer.status, dearer.pico) == ("unpriced", None)


# -- headers


@pytest.mark.parametrize(
    ("headers", "buckets", "flags"),
    [
        ({IN: "26", OUT: "42"}, {"input_uncached": 26, "output_text": 42}, ()),
        ({IN.title(): ["26"], OUT.upper(): ("42",)}, {"input_uncached": 26, "output_text": 42}, ()),
        ({IN: 26}, {"input_uncached": 26}, ()),
        ({IN: "26", OUT: "0"}, {"input_uncached": 26}, ()),
        ({IN: "26", OUT: None, "content-type": "application/json"}, {"input_uncached": 26}, ()),
        ({IN: "26", OUT: []}, {"input_uncached": 26}, ()),
        ({IN: "26", OUT: "many"}, {"input_uncached": 26}, ("invalid_count",)),
        ({IN: "-3", OUT: "42"}, {"output_text": 42}, ("invalid_count",)),
        ({IN: "٣", OUT: "42"}, {"output_text": 42}, ("invalid_count",)),  # noqa: RUF001
        ({IN: "9" * 5000, OUT: "42"}, {"output_text": 42}, ("invalid_count",)),
        ({IN: "26".zfill(18)}, {"input_uncached": 26}, ()),
        ({IN: "9" * 15, OUT: "42"}, {"output_text": 42}, ("invalid_count",)),
    ],
)
def test_headers_by_hand(headers, buckets, flags):
    found = from_headers(headers)
    assert (dict(found.buckets), found.flags, found.reader) == (buckets, flags, "bedrock-headers/1")
    again = from_headers(found.raw)
    assert (again.buckets, again.flags) == (found.buckets, found.flags)
    assert read_body({"embedding": [0.1]}, headers=headers).usage.buckets == buckets


@pytest.mark.parametrize(
    "headers", [{}, {IN: "0", OUT: "0"}, {IN: None}, {IN: "x"}, {"x-request-id": "26"}, {1: 2}], ids=repr
)
def test_headers_without_a_count_are_absent(headers):
    assert from_headers(headers) is None
    assert read_body({}, headers=headers).usage is None


def test_headers_give_the_half_that_a_body_lacks_and_change_none_that_it_has():
    headers = {IN: "10", OUT: "80"}
    guarded = read_body({"usage": {"inputTokens": 12}}, headers=headers).usage
    assert dict(guarded.buckets) == {"input_uncached": 12, "output_text": 80}
    whole = {"usage": {"input_tokens": 4, "cache_read_input_tokens": 9, "output_tokens": 50}}
    assert dict(read_body(whole, headers=headers).usage.buckets) == {
        "input_uncached": 4,
        "cache_read": 9,
        "output_text": 50,
    }
    zeros = read_body({"usage": {"inputTokens": 0, "outputTokens": 0}}, headers=headers).usage
    assert dict(zeros.buckets) == {"input_uncached": 10, "output_text": 80}


def test_the_metrics_that_bedrock_adds_hold_where_the_body_of_a_model_says_nothing():
    metrics = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 10, "outputTokenCount": 20}}
    both = {"input_uncached": 10, "output_text": 20}
    stream = [{"type": "message_start", "message": {"model": "claude"}}, {"type": "message_stop", **metrics}]
    assert dict(read_body(stream).usage.buckets) == both
    titan = [{"outputText": "a", "inputTextTokenCount": None, "totalOutputTextTokenCount": None, **metrics}]
    assert dict(read_body(titan).usage.buckets) == both
    assert dict(read_body([{"outputText": "a"}, metrics]).usage.buckets) == both


# -- damage

NAMES = "inputTokens outputTokens cacheReadInputTokens cacheWriteInputTokens cacheWriteInputTokenCount"
DETAIL = objects("ttl inputTokens", st.one_of(ODD, st.sampled_from(["5m", "1h"])))


@settings(max_examples=250, deadline=None)
@given(
    st.one_of(
        ODD,
        objects(
            f"{NAMES} totalTokens cacheDetails serviceTier",
            st.one_of(ODD, st.lists(st.one_of(ODD, DETAIL), max_size=3)),
        ),
    )
)
def test_the_reader_survives_damage_and_never_books_a_negative(raw):
    assert_sound(read(raw))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([IN, OUT, IN.upper(), "x"]), st.one_of(ODD, st.text(max_size=25))))
def test_headers_survive_damage(headers):
    assert_sound(from_headers(headers))


@settings(max_examples=250, deadline=None)
@given(
    objects("inputTokens outputTokens cacheReadInputTokens cacheWriteInputTokens totalTokens", COUNT),
    st.lists(st.fixed_dictionaries({"ttl": st.sampled_from(["5m", "1h", "9d"]), "inputTokens": COUNT}), max_size=2),
)
def test_the_reader_never_loses_a_token_that_a_total_states(raw, split):
    found = read({**raw, "cacheDetails": split})
    if found is None:
        return
    written = max(raw.get("cacheWriteInputTokens", 0), sum(item["inputTokens"] for item in split))
    assert found.input_tokens >= raw.get("inputTokens", 0) + raw.get("cacheReadInputTokens", 0) + written
    assert found.output_tokens >= raw.get("outputTokens", 0), "output tokens were dropped"
    assert found.total_tokens >= raw.get("totalTokens", 0), "the larger reading is the one that cannot undercharge"
    if "cacheReadInputTokens" in raw or "cacheWriteInputTokens" in raw:
        assert found.buckets.get("cache_read", 0) == raw.get("cacheReadInputTokens", 0), "cache tokens became input"
