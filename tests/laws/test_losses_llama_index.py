"""What our reader makes of LlamaIndex answers by hand: usage in odd places, and what an integration dropped."""

from __future__ import annotations

import aiohttp
import pytest
from google.genai.errors import ClientError
from llama_index.core.llms import ChatMessage, ChatResponse
from openai.types.chat import ChatCompletionChunk

from ai_budget_callbacks.llama_index.extract import outcome_of
from ai_budget_callbacks.llama_index.failures import judge


def answer(raw, **beside):
    return ChatResponse(message=ChatMessage(content="four"), raw=raw, additional_kwargs=beside)


# -- an Anthropic stream, whose first event is dropped but for its plain input tokens


def delta(**usage):
    return answer({"type": "message_delta", "delta": {}, "usage": {"input_tokens": 11, "output_tokens": 100, **usage}})


NONE = {"cache_read_input_tokens": None, "cache_creation_input_tokens": None}
ZERO = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
SPLIT = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30}
PLAIN = {"input_uncached": 11, "output_text": 100}


@pytest.mark.parametrize(
    ("usage", "caching", "buckets", "flags"),
    [
        (NONE, True, {"output_text": 100}, ("caches_unseen",)),
        ({}, True, {"output_text": 100}, ("caches_unseen",)),
        (NONE, False, PLAIN, ()),  # who asks for no caching has none
        (ZERO, True, PLAIN, ()),
        ({"cache_read_input_tokens": 7}, True, PLAIN | {"cache_read": 7}, ()),
        (ZERO | {"cache_creation_input_tokens": 40}, True, PLAIN | {"cache_write_5m": 40}, ("lifetimes_unseen",)),
        (
            {"cache_creation_input_tokens": 40, "cache_creation": SPLIT},
            True,
            PLAIN | {"cache_write_5m": 10, "cache_write_1h": 30},
            (),
        ),
    ],
)
def test_what_an_anthropic_stream_lost_is_said_where_it_matters(usage, caching, buckets, flags):
    found = outcome_of(delta(**usage), asked_caching=caching).usage
    assert (dict(found.buckets), found.flags) == (buckets, flags)


def test_an_anthropic_answer_that_is_no_stream_has_lost_nothing():
    raw = {"type": "message", "usage": {"input_tokens": 11, "output_tokens": 100, "cache_creation_input_tokens": 40}}
    found = outcome_of(answer(raw), asked_caching=True).usage
    assert (dict(found.buckets), found.flags) == (PLAIN | {"cache_write_5m": 40}, ())
    found = outcome_of(answer({"type": "message", "usage": {"input_tokens": 11, "output_tokens": 100}})).usage
    assert (dict(found.buckets), found.flags) == (PLAIN, ())


# -- usage in odd places


def chunk(**more):
    return ChatCompletionChunk.model_validate(
        {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "llama3", "choices": [], **more}
    )


def test_groqs_own_usage_is_read_where_there_is_no_other():
    usage = {"prompt_tokens": 18, "completion_tokens": 73, "total_tokens": 91, "queue_time": 0.1}
    found = outcome_of(answer(chunk(x_groq={"id": "req", "usage": usage}))).usage
    assert dict(found.buckets) == {"input_uncached": 18, "output_text": 73}
    both = chunk(x_groq={"id": "req", "usage": usage}, usage=usage | {"prompt_tokens": 20, "total_tokens": 93})
    assert dict(outcome_of(answer(both)).usage.buckets) == {"input_uncached": 20, "output_text": 73}
    assert outcome_of(answer(chunk(x_groq={"id": "req"}))).usage is None


@pytest.mark.parametrize(
    ("asked", "units"),
    [("gemini-2.5-flash", {"grounded_request": 1}), ("gemini-3-flash-preview", {"web_search": 2})],
)
def test_searches_that_ground_a_gemini_answer_are_counted(asked, units):
    usage = {"prompt_token_count": 20, "candidates_token_count": 5, "thoughts_token_count": None}
    raw = {"usage_metadata": usage, "grounding_metadata": {"web_search_queries": ["a", "b"], "grounding_chunks": None}}
    found = outcome_of(answer(raw, prompt_tokens=20, completion_tokens=5, total_tokens=25), asked=asked).usage
    assert dict(found.buckets) == {"input_uncached": 20, "output_text": 5, **units}
    raw["grounding_metadata"] = None
    assert dict(outcome_of(answer(raw), asked=asked).usage.buckets) == {"input_uncached": 20, "output_text": 5}


def test_what_was_said_beside_an_answers_counts_is_not_kept():
    counts = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    details = {"prompt_tokens_details": {"cached_tokens": 8}}
    found = outcome_of(answer(None, **counts, **details, citations=["a secret"], thinking="a secret")).usage
    assert dict(found.buckets) == {"input_uncached": 12, "cache_read": 8, "output_text": 5}
    assert found.raw == counts | details


# -- google-genai's async client


class Response(aiohttp.ClientResponse):
    """One that nobody received: all that is read of it is its status."""

    _closed = True

    def __init__(self, status):
        self.status = status


def test_a_refusal_of_geminis_async_client_is_an_http_error_and_costs_nothing():
    error = ClientError(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, Response(429))
    assert judge(error).outcome is None
    # an error object inside a 200 stream may carry billed usage
    error = ClientError(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, Response(200))
    assert judge(error).outcome.kind == "unknown"
