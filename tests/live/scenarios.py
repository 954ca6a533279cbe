"""What every provider is asked, from the real API and from cassettes; and our books beside what it reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from pydantic import BaseModel

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track

__all__ = ["PROVIDERS", "WAYS", "agrees", "client"]

QUESTION = "Reply with the single word four."
OUTPUT = 200


# -- clients: the cheapest model of each


def _openai(key: str, base_url: str | None) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model="gpt-4o-mini", api_key=key, base_url=base_url, max_retries=0, max_completion_tokens=OUTPUT,
        service_tier="default", stream_usage=True,
    )  # fmt: skip


def _anthropic(key: str, base_url: str | None) -> Any:
    from langchain_anthropic import ChatAnthropic

    more = {} if base_url is None else {"base_url": base_url}
    return ChatAnthropic(model="claude-haiku-4-5", api_key=key, max_retries=0, max_tokens=OUTPUT, **more)


def _google(key: str, base_url: str | None) -> Any:
    google = pytest.importorskip("langchain_google_genai", reason="pip install 'langchain-google-genai>=4' for Google")
    more = {} if base_url is None else {"base_url": base_url}
    return google.ChatGoogleGenerativeAI(
        model="gemini-2.5-flash-lite", api_key=key, max_retries=1, max_tokens=OUTPUT, **more
    )


PROVIDERS = {"openai": _openai, "anthropic": _anthropic, "google": _google}


def client(provider: str, key: str, base_url: str | None = None) -> Any:
    """The chat model of a provider."""
    return PROVIDERS[provider](key, base_url)


# -- what is asked; each returns the block it ran in


async def _invoke(model: Any, meter: Meter) -> Any:
    with track(meter=meter) as run:
        model.invoke(QUESTION)
    return run


async def _ainvoke(model: Any, meter: Meter) -> Any:
    async with track(meter=meter) as run:
        await model.ainvoke(QUESTION)
    return run


async def _stream(model: Any, meter: Meter) -> Any:
    with track(meter=meter) as run:
        assert list(model.stream(QUESTION))
    return run


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def _agent(model: Any, meter: Meter) -> Any:
    with track(meter=meter) as run:
        ask = "Add 2 and 2 with the tool, then reply with the sum."
        assert create_agent(model, [add]).invoke({"messages": [("human", ask)]})["messages"][-1].text
    return run


class Sum(BaseModel):
    """An answer."""

    value: int


async def _structured(model: Any, meter: Meter) -> Any:
    with track(meter=meter) as run:
        assert model.with_structured_output(Sum).invoke("Two plus two.").value == 4
    return run


async def _refused(model: Any, meter: Meter) -> Any:
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter) as run:
        for _ in range(3):
            model.invoke(QUESTION)
    return run


WAYS = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "stream": _stream,
    "agent": _agent,
    "structured": _structured,
    "refused": _refused,
}


# -- what the provider says it was; none of our readers takes part


def _objects(body: bytes | str) -> Iterator[Any]:
    """The JSON of a body, or of each event of a stream; vcrpy turns the bodies of a tape it has saved into text."""
    text = body if isinstance(body, str) else body.decode()
    if text.lstrip().startswith(("{", "[")):
        yield json.loads(text)
        return
    for line in text.splitlines():
        if line.startswith("data:") and line[5:].strip() != "[DONE]":
            yield json.loads(line[5:])


def _openai_counts(told: dict[str, Any]) -> dict[str, int]:
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (told.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_uncached": told["prompt_tokens"] - cached,
        "cache_read": cached,
        "output_text": told["completion_tokens"] - thought,
        "output_reasoning": thought,
    }


def _anthropic_counts(told: dict[str, Any]) -> dict[str, int]:
    written = told.get("cache_creation_input_tokens") or 0
    for_an_hour = (told.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    return {
        "input_uncached": told["input_tokens"],
        "cache_read": told.get("cache_read_input_tokens") or 0,
        "cache_write_5m": written - for_an_hour,
        "cache_write_1h": for_an_hour,
        "output_text": told["output_tokens"],
    }


def _google_counts(told: dict[str, Any]) -> dict[str, int]:
    cached = told.get("cachedContentTokenCount") or 0
    return {
        "input_uncached": told["promptTokenCount"] + (told.get("toolUsePromptTokenCount") or 0) - cached,
        "cache_read": cached,
        "output_text": told.get("candidatesTokenCount") or 0,
        "output_reasoning": told.get("thoughtsTokenCount") or 0,
    }


def reported(provider: str, body: bytes | str) -> dict[str, int]:
    """What one answer's body says was used; in a stream the later numbers replace the earlier ones."""
    told: dict[str, Any] = {}
    for item in _objects(body):
        inner = item.get("message") if isinstance(item.get("message"), dict) else {}
        told |= item.get("usage") or item.get("usageMetadata") or inner.get("usage") or {}
    counts = {"openai": _openai_counts, "anthropic": _anthropic_counts, "google": _google_counts}[provider](told)
    return {name: count for name, count in counts.items() if count}


def agrees(provider: str, run: Any, tape: Any) -> None:
    """Every answer on the tape is one entry with the usage its body reports, priced by hand from the unit prices."""
    entries, bodies = list(run.entries()), [response["body"]["string"] for response in tape.responses]
    assert len(entries) == len(bodies), f"{len(bodies)} requests were sent, {len(entries)} are on the books"
    for entry, body in zip(entries, bodies, strict=True):
        told = reported(provider, body)
        assert {name: count for name, count in entry.usage.buckets.items() if count} == told
        unit = {line["bucket"]: Decimal(line["unit_price_usd"]) / line["per"] for line in entry.lines}
        by_hand = sum((count * unit[bucket] for bucket, count in told.items()), Decimal(0))
        assert entry.status == "priced", f"{entry.model}: {entry.status}"
        assert entry.cost_usd == by_hand > 0, f"the books say ${entry.cost_usd}, by hand it is ${by_hand}"
