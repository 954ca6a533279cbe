"""LlamaIndex's integrations of the other providers, at a server of their wire: what failed, and where they keep usage.

Wire bodies and costs are those of facts/pricing_goldens.json where it has one.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
import time_machine
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage

from ai_budget_callbacks import Budget
from tests.support.audit import read_back
from tests.support.canned import SSE, Canned, Server, chat_body, chunk, events, streamed
from tests.support.goldens import golden

ASK = [ChatMessage("What is two plus two?")]
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def converse(url, model=CLAUDE, **more):
    from botocore.config import Config
    from llama_index.llms.bedrock_converse import BedrockConverse

    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    config = Config(retries={"max_attempts": 0}, read_timeout=1)
    return BedrockConverse(model=model, endpoint_url=url, botocore_config=config, max_retries=1, **keys, **more)


def cohere(url, model="command-r", **more):
    from llama_index.llms.cohere import Cohere

    return Cohere(model=model, api_key="x", base_url=url, max_retries=1, **more)


def mistral(url, model="codestral-latest", **more):
    from llama_index.llms.mistralai import MistralAI

    return MistralAI(model=model, api_key="x", endpoint=url, max_retries=1, timeout=1, **more)


def deepseek(url, model="deepseek-chat", **more):
    from llama_index.llms.deepseek import DeepSeek

    return DeepSeek(model=model, api_key="x", api_base=url, max_retries=0, timeout=1, context_window=9_000, **more)


def groq(url, model="openai/gpt-oss-120b", **more):
    from llama_index.llms.groq import Groq

    return Groq(model=model, api_key="x", api_base=url, max_retries=0, timeout=1, **more)


def ollama(url, model="llama3.1", **more):
    from llama_index.llms.ollama import Ollama

    return Ollama(model=model, base_url=url, request_timeout=1, context_window=9_000, **more)


MAKERS = {make.__name__: make for make in (converse, cohere, mistral, deepseek, groq, ollama)}
SLOW = sorted(set(MAKERS) - {"cohere"})  # its own client has no timeout that can be set


def ask(model, way):
    if way == "stream":
        return list(model.stream_chat(ASK))
    return asyncio.run(model.achat(ASK)) if way == "achat" else model.chat(ASK)


def booked(index_handler, ledger, make, answer, *, way="chat", at=None, **more):
    """The entry of one call."""
    manager = CallbackManager([index_handler(Budget(calls=9))])
    with Server(answer) as server, time_machine.travel(at or datetime.now(UTC), tick=True):
        ask(make(server.url, callback_manager=manager, **more), way)
    assert len(server.paths) == 1
    books = read_back(ledger)
    assert not books.holds
    return books.one()


# -- failures


@pytest.mark.parametrize("way", ["chat", "stream"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_refused_request_gives_its_hold_back(index_handler, ledger, name, way):
    manager = CallbackManager([index_handler(Budget(calls=9))])
    answer = Canned({"message": "no", "error": {"message": "no", "code": 400}}, status=400)
    with Server(answer) as server, pytest.raises(Exception):
        ask(MAKERS[name](server.url, callback_manager=manager), way)
    books = read_back(ledger)
    assert (len(server.paths), books.entries, books.holds) == (1, [], [])


@pytest.mark.parametrize("name", MAKERS)
def test_a_refused_connection_gives_its_hold_back(index_handler, ledger, name):
    manager = CallbackManager([index_handler(Budget(calls=9))])
    with Server(Canned({})) as server:
        model = MAKERS[name](server.url, callback_manager=manager)
    with pytest.raises(Exception):
        ask(model, "chat")
    books = read_back(ledger)
    assert (server.paths, books.entries, books.holds) == ([], [], [])


@pytest.mark.parametrize("name", SLOW)
def test_an_answer_that_never_came_is_unknown(index_handler, ledger, name):
    manager = CallbackManager([index_handler(Budget(calls=9))])
    with Server(Canned({}, delay_s=2.5)) as server, pytest.raises(Exception):
        ask(MAKERS[name](server.url, callback_manager=manager), "chat")
    assert len(server.paths) == 1
    assert read_back(ledger).one()["status"] == "unknown", "it may have been billed"


# -- usage


@pytest.mark.parametrize("name", ["bedrock-converse-global", "bedrock-converse-eu-profile", "bedrock-converse-nova"])
def test_converses_cached_tokens_are_no_output(index_handler, ledger, name):
    usage, buckets, usd, model, at = golden(name)
    message = {"role": "assistant", "content": [{"text": "Four."}]}
    answer = Canned({"output": {"message": message}, "usage": usage, "stopReason": "end_turn", "metrics": {}})
    row = booked(index_handler, ledger, converse, answer, at=at, model=model)
    assert (row["usage"], row["cost_usd"]) == (buckets, usd)


def test_converses_lifetimes_are_read(index_handler, ledger):
    details = [{"ttl": "1h", "inputTokens": 400}, {"ttl": "5m", "inputTokens": 100}]
    usage = {"inputTokens": 12, "outputTokens": 80, "totalTokens": 592, "cacheWriteInputTokens": 500}
    body = {"output": {"message": {"role": "assistant", "content": [{"text": "Four."}]}}, "stopReason": "end_turn"}
    row = booked(
        index_handler, ledger, converse, Canned(body | {"usage": usage | {"cacheDetails": details}, "metrics": {}})
    )
    assert row["usage"] == {"input_uncached": 12, "cache_write_5m": 100, "cache_write_1h": 400, "output_text": 80}


def test_a_tier_of_converse_without_a_price_is_unpriced(index_handler, ledger):
    message = {"role": "assistant", "content": [{"text": "Four."}]}
    usage = {"inputTokens": 12, "outputTokens": 80, "totalTokens": 92}
    body = {"output": {"message": message}, "usage": usage, "stopReason": "end_turn", "metrics": {}}
    row = booked(index_handler, ledger, converse, Canned(body | {"serviceTier": {"type": "priority"}}))
    assert row["status"] == "unpriced", "priority costs more than the standard price"


@pytest.mark.parametrize("way", ["chat", "achat", "stream"])
def test_what_cohere_bills_is_read(index_handler, ledger, way):
    usage, buckets, usd, _, at = golden("cohere-billed-units")
    answer = {"text": "Four.", "generation_id": "g1", "meta": usage, "chat_history": []}
    canned = Canned(answer)
    if way == "stream":
        end = {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE", "response": answer}
        said = {"event_type": "text-generation", "is_finished": False, "text": "Four."}
        canned = Canned("".join(f"{line}\n" for line in map(json.dumps, (said, end))), kind="application/stream+json")
    row = booked(index_handler, ledger, cohere, canned, way=way, at=at, model="command-r")
    assert (row["usage"], row["reader"]) == (buckets, "cohere.billed_units/1")


@pytest.mark.parametrize("way", ["chat", "achat", "stream"])
def test_mistrals_cached_tokens_are_read(index_handler, ledger, way):
    usage, buckets, usd, model, at = golden("mistral-codestral-cached")
    answer = streamed(usage, model) if way == "stream" else Canned(chat_body(usage, model))
    row = booked(index_handler, ledger, mistral, answer, way=way, at=at, model=model)
    assert row["usage"] == buckets


@pytest.mark.parametrize("way", ["chat", "stream"])
def test_deepseeks_cache_hits_are_read(index_handler, ledger, way):
    usage, buckets, usd, model, at = golden("deepseek-offpeak")
    answer = streamed(usage, model) if way == "stream" else Canned(chat_body(usage, model))
    row = booked(index_handler, ledger, deepseek, answer, way=way, at=at, model=model)
    assert row["usage"] == buckets


@pytest.mark.parametrize("way", ["chat", "stream"])
def test_groqs_cached_tokens_are_read(index_handler, ledger, way):
    usage, buckets, usd, model, _ = golden("groq-cached")
    last = chunk(model, "", None, "stop", x_groq={"id": "r1", "usage": usage})
    answer = (
        Canned(events(chunk(model, "Four."), last), kind=SSE) if way == "stream" else Canned(chat_body(usage, model))
    )
    row = booked(index_handler, ledger, groq, answer, way=way, model=model)
    assert (row["usage"], row["cost_usd"]) == (buckets, usd)


def test_a_cut_stream_of_repeated_blocks_is_counted_once(index_handler, ledger):
    manager = CallbackManager([index_handler(Budget(calls=9))])
    chunks = [chunk("codestral-latest", "word " * 10) for _ in range(20)]
    answer = Canned(events(*chunks, done=False), kind=SSE, promised=1000)
    with Server(answer) as server, pytest.raises(Exception):
        ask(mistral(server.url, callback_manager=manager), "stream")
    row = read_back(ledger).one()
    assert row["usage"]["output_text"] == 400, "a thousand bytes were said"


def test_an_answer_that_mistrals_client_cannot_read_is_priced_from_its_exception(index_handler, ledger):
    usage, buckets, _, model, _ = golden("mistral-codestral-cached")
    manager = CallbackManager([index_handler(Budget(calls=9))])
    body = chat_body(usage, model) | {"choices": "none"}
    with Server(Canned(body)) as server, pytest.raises(Exception):
        ask(mistral(server.url, model, callback_manager=manager), "chat")
    row = read_back(ledger).one()
    assert (row["usage"], row["reader"]) == (buckets, "openai/1")
