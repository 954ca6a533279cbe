"""Clients of the other providers, at a server of their wire: what failed, and what they lose of a usage and keep elsewhere.

Wire bodies and costs are those of facts/pricing_goldens.json where it has one.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import time_machine

from ai_budget_callbacks import Budget, PriceUnknown
from tests.flow.kit import read_back
from tests.providers.clients import MAKERS, bedrock, deepseek, gemini, groq, mistral, openrouter, perplexity, xai
from tests.support.canned import SSE, Canned, Server, chat_body, chunk, events, streamed
from tests.support.goldens import golden

QUESTION = "What is two plus two?"
SENDS_AGAIN = {"cohere", "openrouter"}  # their own clients do so whatever is set (cohere 5.21, openrouter 0.10)


def ask(model, handler, way):
    config = {"callbacks": [handler]}
    if way == "stream":
        return list(model.stream(QUESTION, config))
    return asyncio.run(model.ainvoke(QUESTION, config)) if way == "ainvoke" else model.invoke(QUESTION, config)


def entry(ledger):
    books = read_back(ledger)
    assert not books.holds
    return books.one()


def booked(handler, ledger, make, answer, *, way="invoke", at=None, model=None):
    """The entry of one call."""
    budget = handler(Budget(calls=9))
    with Server(answer) as server, time_machine.travel(at or datetime.now(UTC), tick=True):
        ask(make(server.url, *([model] if model else [])), budget, way)
    assert len(server.paths) == 1
    return entry(ledger)


# -- failures


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_refused_request_gives_its_hold_back(handler, ledger, name, way):
    budget = handler(Budget(calls=9))
    answer = Canned(
        {"message": "no", "error": {"message": "no", "code": 400, "status": "INVALID_ARGUMENT"}}, status=400
    )
    with Server(answer) as server, pytest.raises(Exception):
        ask(MAKERS[name](server.url), budget, way)
    books = read_back(ledger)
    assert (len(server.paths), books.entries, books.holds) == (1, [], [])


@pytest.mark.parametrize("name", sorted(set(MAKERS) - SENDS_AGAIN))
def test_a_refused_connection_gives_its_hold_back(handler, ledger, name):
    budget = handler(Budget(calls=9))
    with Server(Canned({})) as server:
        model = MAKERS[name](server.url)
    with pytest.raises(Exception):
        ask(model, budget, "invoke")
    books = read_back(ledger)
    assert (server.paths, books.entries, books.holds) == ([], [], [])


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("name", sorted(set(MAKERS) - SENDS_AGAIN))
def test_an_answer_that_never_came_is_unknown(handler, ledger, name, way):
    budget = handler(Budget(calls=9))
    with Server(Canned({}, delay_s=2.5)) as server, pytest.raises(Exception):
        ask(MAKERS[name](server.url), budget, way)
    assert len(server.paths) == 1
    assert entry(ledger)["status"] == "unknown", "it may have been billed"


# -- xAI


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_xais_reasoning_is_outside_its_output(handler, ledger, way):
    usage, buckets, usd, model, at = golden("xai-chat-reasoning-separate")
    answer = streamed(usage, model) if way == "stream" else Canned(chat_body(usage, model))
    row = booked(handler, ledger, xai, answer, way=way, at=at, model=model)
    assert row["usage"] == buckets
    if way == "invoke":
        assert (row["status"], row["cost_usd"]) == ("reported", usd), "the ticks are what was charged"
    else:
        assert (row["status"], row["flags"]) == ("priced", ["cost_unseen"])


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_xais_reasoning_inside_its_output_is_not_counted_twice(handler, ledger, way):
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    answer = streamed(usage, "grok-4.3") if way == "stream" else Canned(chat_body(usage, "grok-4.3"))
    row = booked(handler, ledger, xai, answer, way=way)
    assert row["usage"] == {"input_uncached": 100, "output_text": 20, "output_reasoning": 30}


def test_the_long_context_of_xai_begins_at_its_boundary(handler, ledger):
    usage, buckets, usd, model, at = golden("xai-long-context-inclusive")
    row = booked(handler, ledger, xai, streamed(usage, model), way="stream", at=at, model=model)
    assert (row["usage"], row["cost_usd"]) == (buckets, usd)


# -- Perplexity


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_perplexitys_searches_citations_and_reasoning_are_billed(handler, ledger, way):
    usage, buckets, usd, model, at = golden("perplexity-deep-research")
    row = booked(handler, ledger, perplexity, Canned(chat_body(usage, model)), way=way, at=at, model=model)
    assert (row["usage"], row["status"], row["cost_usd"]) == (buckets, "priced", usd)


def test_perplexitys_request_has_a_fee(handler, ledger):
    usage, buckets, _, model, at = golden("perplexity-request-fee")
    row = booked(handler, ledger, perplexity, Canned(chat_body(usage, model)), at=at, model=model)
    assert row["usage"] == buckets
    assert row["raw_usage"]["search_context_size"] == "low", "the fee hangs on it"


def test_perplexitys_chunks_are_differences_of_cumulative_usage(handler, ledger):
    usage, buckets, usd, model, at = golden("perplexity-deep-research")
    first = {"prompt_tokens": 33, "completion_tokens": 10, "total_tokens": 43}
    chunks = [chunk(model, "Four", first), chunk(model, ".", first | {"completion_tokens": 90, "total_tokens": 123})]
    answer = Canned(events(*chunks, chunk(model, "", usage, "stop")), kind=SSE)
    row = booked(handler, ledger, perplexity, answer, way="stream", at=at, model=model)
    assert (row["usage"], row["cost_usd"]) == (buckets, usd)


# -- OpenRouter


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
def test_openrouters_stated_cost_is_kept_by_its_own_client(handler, ledger, way):
    usage, buckets, usd, model, _ = golden("openrouter-reported-cost")
    answer = streamed(usage, model) if way == "stream" else Canned(chat_body(usage, model))
    row = booked(handler, ledger, openrouter, answer, way=way, model=model)
    assert (row["usage"], row["status"], row["cost_usd"]) == (buckets, "reported", usd)


def test_a_key_of_ones_own_at_openrouter_pays_the_provider_too(handler, ledger):
    usage, _, _, model, _ = golden("openrouter-reported-cost")
    paid = {f"upstream_inference_{name}": 0.0002 for name in ("prompt_cost", "completions_cost")}
    paid["upstream_inference_cost"] = 0.0004
    usage = usage | {"cost": 0.00002, "is_byok": True, "cost_details": paid}
    row = booked(handler, ledger, openrouter, Canned(chat_body(usage, model)), model=model)
    assert (row["status"], row["cost_usd"]) == ("reported", "0.00042")


def test_an_answer_that_openrouters_client_cannot_read_is_priced_from_its_exception(handler, ledger):
    usage, buckets, usd, model, _ = golden("openrouter-reported-cost")
    body = chat_body(usage, model)
    del body["system_fingerprint"]
    budget = handler(Budget(calls=9))
    with Server(Canned(body)) as server, pytest.raises(Exception):
        ask(openrouter(server.url, model), budget, "invoke")
    row = entry(ledger)
    assert (row["usage"], row["status"], row["cost_usd"]) == (buckets, "reported", usd)


# -- Bedrock


@pytest.mark.parametrize("name", ["bedrock-converse-global", "bedrock-converse-eu-profile"])
def test_a_claude_asked_through_bedrock_is_priced_as_bedrock_sells_it(handler, ledger, monkeypatch, name):
    usage = {"input_tokens": 12, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 500}
    _, buckets, usd, model, at = golden(name)
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",  # without the region, which costs a tenth more
        "content": [{"type": "text", "text": "Four."}],
        "stop_reason": "end_turn",
        "usage": usage | {"output_tokens": 80},
    }

    def made(url, model):
        monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", url)
        from langchain_aws import ChatAnthropicBedrock

        keys = {"region_name": "eu-west-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
        return ChatAnthropicBedrock(model=model, max_retries=0, max_tokens=100, **keys)

    row = booked(handler, ledger, made, Canned(body), at=at, model=model)
    assert (row["provider"], row["usage"], row["cost_usd"]) == ("aws", buckets, usd)


def test_cached_tokens_in_the_headers_of_bedrock_are_no_output(handler, ledger):
    counts = {"input-token-count": "12", "output-token-count": "80"}
    counts |= {"cache-read-input-token-count": "1000", "cache-write-input-token-count": "500"}
    body = {"role": "assistant", "content": [{"type": "text", "text": "Four."}], "stop_reason": "end_turn"}
    answer = Canned(body, headers={f"x-amzn-bedrock-{name}": count for name, count in counts.items()})
    _, buckets, usd, model, at = golden("bedrock-converse-eu-profile")
    row = booked(handler, ledger, bedrock, answer, at=at, model=model)
    assert (row["usage"], row["cost_usd"]) == (buckets, usd)
    assert row["flags"] == ["lifetimes_unseen"]


@pytest.mark.parametrize("name", ["bedrock-converse-global", "bedrock-converse-eu-profile", "bedrock-converse-nova"])
def test_converse_has_its_cached_tokens_beside_its_input(handler, ledger, name):
    usage, buckets, usd, model, at = golden(name)
    message = {"role": "assistant", "content": [{"text": "Four."}]}
    answer = Canned({"output": {"message": message}, "usage": usage, "stopReason": "end_turn", "metrics": {}})
    row = booked(handler, ledger, MAKERS["converse"], answer, at=at, model=model)
    written = {"cache_write" if key == "cache_write_5m" else key: count for key, count in buckets.items()}
    assert (row["usage"], row["cost_usd"]) == (written, usd)


def test_a_model_that_a_call_of_converse_is_bound_to_is_the_one_that_is_priced(handler, ledger):
    """Sonnet 4.5 in a region costs 3.30 and 16.50: 1000 and 200 tokens are 0.0066; Claude 3 Haiku a twelfth."""
    message = {"role": "assistant", "content": [{"text": "Four."}]}
    usage = {"inputTokens": 1000, "outputTokens": 200, "totalTokens": 1200}
    answer = Canned({"output": {"message": message}, "usage": usage, "stopReason": "end_turn", "metrics": {}})

    def bound(url):
        cheap = MAKERS["converse"](url, model="anthropic.claude-3-haiku-20240307-v1:0")
        return cheap.bind(modelId="us.anthropic.claude-sonnet-4-5-20250929-v1:0")

    row = booked(handler, ledger, bound, answer)
    assert (row["requested_model"], row["cost_usd"]) == ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "0.0066")


def test_a_tier_of_converse_without_a_price_is_unpriced(handler, ledger):
    message = {"role": "assistant", "content": [{"text": "Four."}]}
    usage = {"inputTokens": 12, "outputTokens": 80, "totalTokens": 92}
    body = {"output": {"message": message}, "usage": usage, "stopReason": "end_turn", "metrics": {}}
    row = booked(handler, ledger, MAKERS["converse"], Canned(body | {"serviceTier": {"type": "priority"}}))
    assert row["status"] == "unpriced", "priority costs more than the standard price"


# -- Gemini


def spoken(usage, text="Four.", **candidate):
    content = {"role": "model", "parts": [{"text": text}]}
    found = {"content": content, "finishReason": "STOP", "index": 0} | candidate
    return {"candidates": [found], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash", "responseId": "r1"}


USAGE = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}


@pytest.mark.parametrize(
    ("part", "bucket"),
    [
        ({"type": "media", "mime_type": "audio/mpeg", "data": "AAAA"}, "input_audio"),
        ({"type": "media", "mime_type": "video/mp4", "data": "AAAA"}, "input_audio"),
        ({"type": "media", "mime_type": "image/png", "data": "AAAA"}, "input_uncached"),
    ],
)
def test_sound_that_nothing_counts_is_priced_as_sound(handler, ledger, part, bucket):
    budget = handler(Budget(calls=9))
    with Server(Canned(spoken(USAGE))) as server:
        gemini(server.url).invoke([("user", [{"type": "text", "text": "hi"}, part])], {"callbacks": [budget]})
    row = entry(ledger)
    assert row["usage"] == {bucket: 100, "output_text": 10}
    assert (row["flags"] == ["modalities_unseen"]) == (bucket == "input_audio")


def test_sound_without_a_price_of_its_own_is_input(handler, ledger):
    part = {"type": "media", "mime_type": "audio/mpeg", "data": "AAAA"}
    budget = handler(Budget(calls=9))
    with Server(Canned(spoken(USAGE) | {"modelVersion": "gemini-2.5-pro"})) as server:
        model = gemini(server.url, "gemini-2.5-pro")
        model.invoke([("user", [{"type": "text", "text": "hi"}, part])], {"callbacks": [budget]})
    assert (entry(ledger)["status"], entry(ledger)["usage"]["input_uncached"]) == ("priced", 100)


def test_an_image_costs_what_images_cost(handler, ledger):
    image = {"role": "model", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}
    body = spoken(USAGE, content=image) | {"modelVersion": "gemini-2.5-flash-image"}
    row = booked(handler, ledger, gemini, Canned(body), model="gemini-2.5-flash-image")
    assert row["usage"] == {"input_uncached": 100, "output_image": 10}
    assert row["flags"] == ["modalities_unseen"]


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_grounded_answers_searches_are_billed(handler, ledger, way):
    grounded = spoken(USAGE, groundingMetadata={"webSearchQueries": ["a", "b"]})
    answer = Canned(events(grounded, done=False), kind=SSE) if way == "stream" else Canned(grounded)
    row = booked(handler, ledger, gemini, answer, way=way)
    assert row["usage"] == {"input_uncached": 100, "output_text": 10, "grounded_request": 1}


@pytest.mark.parametrize(
    ("more", "given"),
    [
        ({}, {"tools": [{"google_search": {}}]}),
        ({}, {"cached_content": "cachedContents/1"}),
        ({"cached_content": "cachedContents/1"}, {}),
    ],
    ids=["search", "cached", "cached by its client"],
)
def test_what_gemini_adds_to_a_call_has_no_bound(handler, ledger, more, given):
    """A search is 0.035, a cached content any length; the hold was that of "hi" and ten tokens."""
    budget = handler(Budget(usd="1"), reserve="worst_case")
    with Server(Canned(spoken(USAGE))) as server, pytest.raises(PriceUnknown, match="bound"):
        gemini(server.url, max_output_tokens=10, **more).invoke("hi", {"callbacks": [budget]}, **given)
    assert (server.paths, read_back(ledger).entries) == ([], [])


def test_geminis_bound_tools_are_the_providers_own(handler, ledger):
    budget = handler(Budget(usd="1"), reserve="worst_case")
    with Server(Canned(spoken(USAGE))) as server, pytest.raises(PriceUnknown, match="google_search"):
        gemini(server.url, max_output_tokens=10).bind_tools([{"google_search": {}}]).invoke(
            "hi", {"callbacks": [budget]}
        )
    assert server.paths == []


def test_geminis_own_functions_are_bounded(handler, ledger):
    def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    budget = handler(Budget(usd="1"), reserve="worst_case")
    with Server(Canned(spoken(USAGE))) as server:
        gemini(server.url, max_output_tokens=10).bind_tools([double]).invoke("hi", {"callbacks": [budget]})
    assert entry(ledger)["status"] == "priced"


def test_a_cut_stream_of_differences_has_all_that_was_said(handler, ledger):
    budget = handler(Budget(calls=9))
    sizes = [USAGE, USAGE | {"candidatesTokenCount": 25, "totalTokenCount": 125}]
    said = events(
        *(
            spoken(usage) | {"candidates": [{"content": {"role": "model", "parts": [{"text": "a"}]}}]}
            for usage in sizes
        ),
        done=False,
    )
    with Server(Canned(said, kind=SSE, promised=1000)) as server, pytest.raises(Exception):
        ask(gemini(server.url), budget, "stream")
    row = entry(ledger)
    assert (row["status"], row["usage"]) == ("estimated", {"input_uncached": 100, "output_text": 25})


# -- the OpenAI-shaped ones


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
def test_deepseeks_cache_hits_are_read(handler, ledger, way):
    usage, buckets, usd, model, at = golden("deepseek-offpeak")
    answer = streamed(usage, model) if way == "stream" else Canned(chat_body(usage, model))
    row = booked(handler, ledger, deepseek, answer, way=way, at=at, model=model)
    assert row["usage"] == buckets


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_groqs_cached_tokens_are_read(handler, ledger, way):
    usage, buckets, usd, model, _ = golden("groq-cached")
    last = chunk(model, "", None, "stop", x_groq={"id": "r1", "usage": usage})
    answer = (
        Canned(events(chunk(model, "Four."), last), kind=SSE) if way == "stream" else Canned(chat_body(usage, model))
    )
    row = booked(handler, ledger, groq, answer, way=way, model=model)
    assert (row["usage"], row["cost_usd"]) == (buckets, usd)


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_mistrals_cached_tokens_are_lost_in_streams_only(handler, ledger, way):
    usage, buckets, _, model, at = golden("mistral-codestral-cached")
    answer = streamed(usage, model) if way == "stream" else Canned(chat_body(usage, model))
    row = booked(handler, ledger, mistral, answer, way=way, at=at, model=model)
    lost = {"input_uncached": 2000, "output_text": 100}  # docs/limits.md: priced as uncached, never less than billed
    assert row["usage"] == (lost if way == "stream" else buckets)
