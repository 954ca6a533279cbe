"""What the flow tests share: real provider clients on the far end, and the books read by a second connection."""

from __future__ import annotations

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAI

from tests.support.audit import PICO, Books, audit, read_back

__all__ = ["PICO", "Books", "audit", "chat", "claude", "read_back", "responses", "text_model"]


def chat(far: Any, **options: Any) -> ChatOpenAI:
    """ChatOpenAI on the far end: no client retries unless asked, streams report usage as OpenAI's own API does."""
    settings = {"model": "gpt-4o-mini", "max_retries": 0, "stream_usage": True, "timeout": 20} | options
    return ChatOpenAI(base_url=far.base_url, api_key="sk-loopback", **settings)


def responses(far: Any, **options: Any) -> ChatOpenAI:
    """ChatOpenAI over the Responses API."""
    return chat(far, use_responses_api=True, **options)


def claude(far: Any, **options: Any) -> ChatAnthropic:
    """ChatAnthropic on the far end."""
    settings = {"model": "claude-sonnet-4-5", "max_retries": 0, "max_tokens": 1000, "timeout": 20} | options
    return ChatAnthropic(base_url=far.anthropic_url, api_key="sk-loopback", **settings)


def text_model(far: Any, **options: Any) -> OpenAI:
    """The text-completion LLM class (not a chat model)."""
    settings = {"model": "gpt-3.5-turbo-instruct", "max_retries": 0, "timeout": 20} | options
    return OpenAI(base_url=far.base_url, api_key="sk-loopback", **settings)
