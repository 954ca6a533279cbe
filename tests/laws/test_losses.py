"""What our readers make of answers by hand: usage that LangChain keeps in odd places, and what it dropped on the way."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from ai_budget_callbacks.langchain.extract import outcome_of
from ai_budget_callbacks.langchain.failures import judge


def chat(*, total_in=100, total_out=10, inside=None, content="x", **metadata):
    usage = {"input_tokens": total_in, "output_tokens": total_out, "total_tokens": total_in + total_out}
    if inside:
        usage["input_token_details"] = inside
    message = AIMessage(content=content, usage_metadata=usage, response_metadata=metadata)
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def read(result, provider, **more):
    return outcome_of(result, choices=1, provider=provider, **more)


@pytest.mark.parametrize(
    ("provider", "inside", "flags"),
    [
        ("anthropic", {"cache_creation": 40}, ("lifetimes_unseen",)),
        ("anthropic", {"cache_creation": 0, "ephemeral_1h_input_tokens": 40}, ()),  # the split is there
        ("anthropic", {"cache_creation": 0, "cache_read": 40}, ()),  # nothing was written
        ("openai", {"cache_creation": 40}, ()),  # no lifetimes exist
        ("openrouter", None, ("cost_unseen",)),
        ("x-ai", None, ("cost_unseen",)),
        ("openai", None, ()),
        ("cohere", None, ("billed_units_unseen",)),
    ],
)
def test_what_was_lost_is_said_where_it_matters_and_only_there(provider, inside, flags):
    assert read(chat(inside=inside), provider).usage.flags == flags


@pytest.mark.parametrize(
    ("block", "kind", "flags"),
    [
        ({"type": "compaction", "content": "…"}, "cut", ("compaction_unseen",)),
        ({"type": "server_tool_use", "name": "advisor", "id": "1", "input": {}}, "answer", ("other_model",)),
        ({"type": "server_tool_use", "name": "web_search", "id": "1", "input": {}}, "answer", ("searches_counted",)),
        ({"type": "text", "text": "compaction"}, "answer", ()),
    ],
)
def test_an_anthropic_streams_content_shows_what_its_usage_lacks(block, kind, flags):
    outcome = read(chat(content=[block]), "anthropic")
    assert (outcome.kind, outcome.usage.flags) == (kind, flags)


def test_raw_usage_that_was_kept_has_lost_nothing():
    raw = {"input_tokens": 3, "output_tokens": 2, "cache_creation_input_tokens": 40}
    assert read(chat(inside={"cache_creation": 40}, usage=raw), "anthropic").usage.flags == ()
    raw = {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.001}
    assert read(chat(token_usage=raw), "openrouter").usage.flags == ()


def test_searches_count_beside_cumulative_chunks_too():
    search = {"type": "web_search_call", "action": {"type": "search"}}
    last = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    found = read(chat(content=[search]), "openai", last_chunk_usage=last).usage
    assert dict(found.buckets) == {"input_uncached": 9, "output_text": 4, "web_search": 1}


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_tiers_renamed_keys_are_read(tier):
    # langchain-openai 1.7.4: 2304 in, 256 read, 1024 written gives `flex` 2048, the writes counted inside it
    inside = {f"{tier}_cache_read": 256, f"{tier}_cache_creation": 1024, tier: 2048}
    result = chat(total_in=2304, total_out=30, inside=inside, service_tier=tier)
    result.generations[0][0].message.usage_metadata["output_token_details"] = {f"{tier}_reasoning": 20, tier: 10}
    found = read(result, "openai").usage
    expected = {"input_uncached": 1024, "cache_read": 256, "cache_write": 1024, "output_text": 10}
    assert dict(found.buckets) == expected | {"output_reasoning": 20}
    assert found.terms.service_tier == tier


def test_a_text_model_keeps_its_counts_with_the_generation():
    info = {"model": "llama3", "prompt_eval_count": 16, "eval_count": 51, "response": "secret"}
    outcome = read(LLMResult(generations=[[Generation(text="x", generation_info=info)]]), "ollama")
    assert dict(outcome.usage.buckets) == {"input_uncached": 16, "output_text": 51}
    assert outcome.response_model == "llama3"
    assert "secret" not in str(outcome.usage.raw), "raw usage never holds content"


class ClientError(Exception):
    """As botocore raises it: the response is a plain dict."""

    def __init__(self, status):
        super().__init__("refused")
        self.response = {"Error": {"Code": "ValidationException"}, "ResponseMetadata": {"HTTPStatusCode": status}}


def test_botocores_refusal_is_an_http_error_and_costs_nothing():
    assert judge(ClientError(400), None, choices=1, provider="aws").outcome is None
    assert judge(ClientError(200), None, choices=1, provider="aws").outcome is not None
