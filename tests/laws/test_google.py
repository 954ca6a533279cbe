"""What the Gemini reader makes of published goldens, of odd usage objects by hand, and of damage."""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage import Terms
from ai_budget_callbacks.usage.google import count_grounding, read, shaped
from ai_budget_callbacks.usage.wire import read_body
from tests.laws.test_readers import COUNT, NONSENSE, ODD, assert_sound, objects
from tests.support.goldens import NOW, by_hand, shared

PICO = 10**12
# a cache's storage is in no answer: it is priced from --units
GOLDENS = [
    case
    for case in json.loads(shared("facts/pricing_goldens.json").read_text(encoding="utf-8"))
    if case["provider"] == "google" and case["api"] == "generateContent"
]


# -- goldens


def body_of(case: dict[str, Any]) -> dict[str, Any]:
    raw = case["raw_usage"]
    return {
        "usageMetadata": raw,
        "modelVersion": case["model"],
        "candidates": [{"groundingMetadata": raw.get("_groundingMetadata")}],
    }


def test_none_of_the_goldens_was_dropped():
    assert len(GOLDENS) == 6


@pytest.mark.parametrize("case", GOLDENS, ids=[case["id"] for case in GOLDENS])
def test_cost_of_a_golden_is_right_to_the_last_digit(case):
    found = read_body(body_of(case)).usage
    assert dict(found.buckets) == case["buckets"], case["note"]
    at = datetime.fromisoformat(case["request_time_utc"])
    cost = PriceBook().price(found, provider="google", model=case["model"], requested=case["model"], at=at)
    assert (cost.status, usd_text(cost.pico)) == ("priced", case["expected_cost_usd"])
    for line in cost.lines:
        published = case["unit_prices"][line.bucket]
        assert line.amount_pico == line.count * Fraction(published["usd"]) / published["per"] * PICO


def test_an_image_costs_what_images_cost():
    # gemini-2.5-flash-image, ai.google.dev/gemini-api/docs/pricing: 0.30 in, 2.50 out as text, 30 as image
    raw = {
        "promptTokenCount": 9,
        "candidatesTokenCount": 1300,
        "totalTokenCount": 1309,
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
    }
    model = "gemini-2.5-flash-image"
    cost = PriceBook().price(read(raw), provider="google", model=model, requested=model, at=NOW)
    rates = {"input_uncached": "0.30", "output_text": "2.50", "output_image": "30"}
    assert cost.pico == by_hand({"input_uncached": 9, "output_text": 10, "output_image": 1290}, rates)
    assert usd_text(cost.pico) == "0.0387277"


# -- by hand


def audio(count: Any, *, key: str = "promptTokensDetails", kind: str = "AUDIO") -> dict[str, Any]:
    return {key: [{"modality": "TEXT", "tokenCount": 1}, {"modality": kind, "tokenCount": count}]}


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        [],
        "usage",
        7,
        {"promptTokenCount": None},
        {"promptTokenCount": "12", "candidatesTokenCount": True},
        {"totalTokenCount": 100},
        {"cachedContentTokenCount": 5},
        {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}]},
    ],
    ids=repr,
)
def test_usage_without_a_count_is_absent_not_zero(raw):
    assert read(raw) is None


@pytest.mark.parametrize(
    ("raw", "buckets", "flags"),
    [
        pytest.param(
            {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}, {}, (), id="zeros are reported"
        ),
        pytest.param(
            {"promptTokenCount": 51, **audio(50, key="promptTokenDetails")},
            {"input_uncached": 1, "input_audio": 50},
            (),
            id="an embedding's name of the details",
        ),
        pytest.param(
            {"promptTokenCount": None, "candidatesTokenCount": 20, **audio(50)},
            {"input_uncached": 1, "input_audio": 50, "output_text": 20},
            ("inconsistent",),
            id="the details alone know of a prompt",
        ),
        pytest.param(
            {"promptTokenCount": 0, "candidatesTokenCount": 20, **audio(0)},
            {"input_uncached": 1, "output_text": 20},
            ("inconsistent",),
            id="of one token",
        ),
        pytest.param(
            {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 14},
            {"input_uncached": 10, "output_text": 4},
            (),
            id="plain",
        ),
        pytest.param(
            {"prompt_token_count": 10, "candidates_token_count": 4, "thoughts_token_count": 6, "total_token_count": 20},
            {"input_uncached": 10, "output_text": 4, "output_reasoning": 6},
            (),
            id="as the Python client writes it",
        ),
        pytest.param(
            {"thoughtsTokenCount": 6},
            {"output_reasoning": 6},
            (),
            id="thoughts alone: the input is counted by the meter",
        ),
        pytest.param(
            {"promptTokenCount": 10, "cachedContentTokenCount": 10}, {"cache_read": 10}, (), id="all of it was cached"
        ),
        pytest.param(
            {"promptTokenCount": 10, "cachedContentTokenCount": 12},
            {"cache_read": 12},
            ("inconsistent",),
            id="more cached than prompt",
        ),
        pytest.param(
            {"promptTokenCount": 10, **audio(4), **audio(3, key="cacheTokensDetails"), "cachedContentTokenCount": 5},
            {"input_uncached": 4, "input_audio": 1, "cache_read": 2, "cache_read_audio": 3},
            (),
            id="a part of the audio was cached",
        ),
        pytest.param(
            {"promptTokenCount": 10, **audio(12)},
            {"input_uncached": 1, "input_audio": 12},
            ("inconsistent",),
            id="more by modality than the prompt has",
        ),
        pytest.param(
            {"promptTokenCount": 10, **audio(4, kind="VIDEO")},
            {"input_uncached": 10},
            (),
            id="video costs as text does",
        ),
        pytest.param(
            {"promptTokenCount": 1, "candidatesTokenCount": 9, **audio(8, key="candidatesTokensDetails")},
            {"input_uncached": 1, "output_text": 1, "output_audio": 8},
            (),
            id="spoken",
        ),
        pytest.param(
            {"promptTokenCount": 1, "candidatesTokenCount": 9, **audio(8, key="candidatesTokensDetails", kind="VIDEO")},
            {"input_uncached": 1, "output_text": 1, "output_image": 8},
            (),
            id="a video never costs as text",
        ),
        pytest.param(
            {"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 4, "totalTokenCount": 19},
            {"input_uncached": 10, "input_tool": 5, "output_text": 4},
            (),
            id="a tool's prompt is on top",
        ),
        pytest.param(
            {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 20},
            {"input_uncached": 10, "output_text": 4, "output_reasoning": 6},
            ("inconsistent",),
            id="the total knows more",
        ),
        pytest.param(
            {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 12},
            {"input_uncached": 10, "output_text": 4},
            ("inconsistent",),
            id="the total knows less",
        ),
    ],
)
def test_shapes_by_hand(raw, buckets, flags):
    found = read(raw)
    assert (dict(found.buckets), found.flags, found.reader) == (buckets, flags, "google/1")
    assert found.raw is raw
    assert shaped(raw)


class Plain(Enum):
    """A word as a client may have it."""

    AUDIO = "AUDIO"
    TEXT = "TEXT"
    IMAGE = "IMAGE"
    FLEX = "ON_DEMAND_FLEX"
    DEFAULT = "ON_DEMAND"


class Texts(str, Enum):  # noqa: UP042 - google-genai's enums: texts whose str() is not their value
    AUDIO = "AUDIO"
    TEXT = "TEXT"
    IMAGE = "IMAGE"
    FLEX = "ON_DEMAND_FLEX"
    DEFAULT = "ON_DEMAND"


@pytest.mark.parametrize("words", [Plain, Texts])
def test_every_count_is_read_as_the_python_client_writes_it(words):
    raw = {
        "prompt_token_count": 100,
        "cached_content_token_count": 40,
        "tool_use_prompt_token_count": 5,
        "candidates_token_count": 30,
        "thoughts_token_count": 7,
        "total_token_count": 150,  # 8 more than the others add up to
        "prompt_tokens_details": [
            {"modality": words.TEXT, "token_count": 80},
            {"modality": words.AUDIO, "token_count": 20},
        ],
        "cache_tokens_details": [{"modality": words.AUDIO, "token_count": 12}],
        "candidates_tokens_details": [
            {"modality": words.AUDIO, "token_count": 6},
            {"modality": words.IMAGE, "token_count": 9},
            {"modality": words.IMAGE, "token_count": 1},
        ],
        "traffic_type": words.FLEX,
    }
    found = read(raw)
    assert dict(found.buckets) == {
        "input_uncached": 52,  # 100, less 40 that were cached and 8 of audio that were not
        "input_audio": 8,
        "cache_read": 28,
        "cache_read_audio": 12,
        "input_tool": 5,
        "output_text": 14,
        "output_audio": 6,
        "output_image": 10,
        "output_reasoning": 15,
    }
    assert found.flags == ("inconsistent",)
    assert found.terms == Terms(service_tier="flex")
    assert read(raw | {"traffic_type": words.DEFAULT}).terms == Terms()


@pytest.mark.parametrize(
    ("raw", "ours"),
    [
        ({"promptTokenCount": 1}, True),
        ({"candidatesTokenCount": 1}, True),
        ({"thoughtsTokenCount": 1}, True),
        ({"prompt_token_count": 1}, True),
        ({"candidates_token_count": 1}, True),
        ({"thoughts_token_count": 1}, True),
        ({"prompt_tokens": 1, "input_tokens": 1, "totalTokenCount": 1}, False),
        ({}, False),
    ],
    ids=repr,
)
def test_one_of_three_counts_makes_the_family(raw, ours):
    assert shaped(raw) is ours


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_a_nonsense_count_is_flagged_and_never_billed(nonsense):
    found = read({"promptTokenCount": 100, "candidatesTokenCount": nonsense})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100}, ("invalid_count",))
    found = read({"promptTokenCount": 100, "candidatesTokenCount": 7, **audio(nonsense)})
    assert (dict(found.buckets), found.flags) == ({"input_uncached": 100, "output_text": 7}, ("invalid_count",))


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ({}, None),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"trafficType": "TRAFFIC_TYPE_UNSPECIFIED"}, None),
        ({"trafficType": 1}, None),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"traffic_type": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, "provisioned_throughput"),
        ({"serviceTier": "standard"}, "standard"),
        ({"serviceTier": "priority", "trafficType": "ON_DEMAND"}, "priority"),
    ],
    ids=repr,
)
def test_the_tier_of_an_answer_is_read(said, tier):
    assert read({"promptTokenCount": 1, **said}).terms == Terms(service_tier=tier)


def test_a_tier_without_a_known_price_is_unpriced_and_standard_is_not():
    def price(**said):
        raw = {"promptTokenCount": 1_000, "candidatesTokenCount": 100, **said}
        model = "gemini-2.5-flash"
        return PriceBook().price(read(raw), provider="google", model=model, requested=model, at=NOW)

    assert usd_text(price().pico) == usd_text(price(serviceTier="standard").pico) == "0.00055"
    assert price(trafficType="ON_DEMAND_PRIORITY").status == "unpriced"


# -- searches


@pytest.mark.parametrize(
    ("metadata", "old", "new"),
    [
        (None, {}, {}),
        ({}, {}, {}),
        ({"webSearchQueries": []}, {}, {}),
        ({"webSearchQueries": [""]}, {}, {}),
        ({"webSearchQueries": "a"}, {}, {}),
        ({"webSearchQueries": ["a"]}, {"grounded_request": 1}, {"web_search": 1}),
        ({"webSearchQueries": ["a", "b", "a", "", " "]}, {"grounded_request": 1}, {"web_search": 2}),
        ({"web_search_queries": ["a", "b"]}, {"grounded_request": 1}, {"web_search": 2}),
        ({"groundingChunks": [{"web": {"uri": "x"}}] * 3}, {"grounded_request": 1}, {"web_search": 1}),
        ({"grounding_chunks": [{"maps": {"uri": "x"}}]}, {"grounded_request": 1}, {"web_search": 1}),
        ({"groundingChunks": [{"retrievedContext": {"uri": "x"}}, {"web": None}, None]}, {}, {}),
    ],
    ids=repr,
)
def test_old_models_bill_the_grounded_prompt_and_new_ones_each_query(metadata, old, new):
    for model in ("gemini-2.5-flash", "gemini-2.0-flash-001", "models/gemini-2.5-pro", "gemini-1.5-pro"):
        assert count_grounding(metadata, model) == old, model
    for model in ("gemini-3-flash-preview", "gemini-3.8-flash", "gemini-flash-latest", "gemini-4-argon", ""):
        assert count_grounding(metadata, model) == new, model


# -- damage

NAMES = "promptTokenCount candidatesTokenCount thoughtsTokenCount cachedContentTokenCount toolUsePromptTokenCount"
LISTS = "promptTokensDetails cacheTokensDetails candidatesTokensDetails"
DETAIL = objects("modality tokenCount", st.one_of(ODD, st.sampled_from(["AUDIO", "IMAGE", "TEXT", "VIDEO"])))


@settings(max_examples=250, deadline=None)
@given(
    st.one_of(
        ODD, objects(f"{NAMES} {LISTS} totalTokenCount trafficType", st.one_of(ODD, st.lists(DETAIL, max_size=3)))
    )
)
def test_the_reader_survives_damage_and_never_books_a_negative(raw):
    assert_sound(read(raw))


@settings(max_examples=150, deadline=None)
@given(st.one_of(ODD, objects("webSearchQueries groundingChunks", st.one_of(ODD, st.lists(ODD, max_size=3)))))
def test_counting_searches_survives_damage(metadata):
    assert all(count == 1 or count > 1 for count in count_grounding(metadata, "gemini-3").values())


@settings(max_examples=250, deadline=None)
@given(
    objects(f"{NAMES} totalTokenCount", COUNT),
    objects(LISTS, st.lists(st.fixed_dictionaries({"modality": st.just("AUDIO"), "tokenCount": COUNT}), max_size=2)),
)
def test_the_reader_never_loses_a_token_that_a_total_states(raw, details):
    found = read({**raw, **details})
    if found is None:
        return
    prompt = raw.get("promptTokenCount", 0) + raw.get("toolUsePromptTokenCount", 0)
    output = raw.get("candidatesTokenCount", 0) + raw.get("thoughtsTokenCount", 0)
    assert found.input_tokens >= prompt, "input tokens were dropped"
    assert found.output_tokens >= output, "output tokens were dropped"
    assert found.total_tokens >= raw.get("totalTokenCount", 0), "the larger reading is the one that cannot undercharge"
