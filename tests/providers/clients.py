"""LangChain's clients of other providers at an address of one's own: one try, a short timeout."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["MAKERS", "TIMEOUT_S"]

TIMEOUT_S = 0.5


def _openai_shaped(package: str, name: str, **settings: Any) -> Any:
    made = getattr(importlib.import_module(package), name)
    return made(**({"api_key": "x", "timeout": TIMEOUT_S} | settings))


def gemini(url: str, model: str = "gemini-2.5-flash", **more: Any) -> Any:
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(model=model, api_key="x", base_url=url, max_retries=1, timeout=TIMEOUT_S, **more)


def _aws(url: str, model: str) -> dict[str, Any]:
    from botocore.config import Config

    return {
        "model": model,
        "region_name": "us-east-1",
        "aws_access_key_id": "x",
        "aws_secret_access_key": "x",
        "endpoint_url": url,
        "config": Config(retries={"max_attempts": 0}, read_timeout=TIMEOUT_S),
    }


def converse(url: str, model: str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0") -> Any:
    from langchain_aws import ChatBedrockConverse

    return ChatBedrockConverse(**_aws(url, model))


def bedrock(url: str, model: str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0") -> Any:
    from langchain_aws import ChatBedrock

    return ChatBedrock(**_aws(url, model))


def mistral(url: str, model: str = "mistral-small-latest") -> Any:
    return _openai_shaped("langchain_mistralai", "ChatMistralAI", base_url=url, model=model, max_retries=1, timeout=1)


def cohere(url: str, model: str = "command-r-08-2024") -> Any:
    from langchain_cohere import ChatCohere

    return ChatCohere(model=model, cohere_api_key="x", base_url=url, timeout_seconds=TIMEOUT_S)


def deepseek(url: str, model: str = "deepseek-flash") -> Any:
    return _openai_shaped(
        "langchain_deepseek", "ChatDeepSeek", base_url=url, model=model, max_retries=0, stream_usage=True
    )


def xai(url: str, model: str = "grok-4.3") -> Any:
    return _openai_shaped("langchain_xai", "ChatXAI", base_url=url, model=model, max_retries=0)


def groq(url: str, model: str = "openai/gpt-oss-120b") -> Any:
    return _openai_shaped("langchain_groq", "ChatGroq", base_url=url, model=model, max_retries=0)


def openrouter(url: str, model: str = "openai/gpt-4o") -> Any:
    from langchain_openrouter import ChatOpenRouter

    timeout_ms = int(TIMEOUT_S * 1000)
    return ChatOpenRouter(model=model, api_key="x", base_url=url, max_retries=0, timeout=timeout_ms)


def perplexity(url: str, model: str = "sonar") -> Any:
    from langchain_perplexity import ChatPerplexity
    from perplexity import AsyncPerplexity, Perplexity

    settings = {"api_key": "x", "base_url": url, "max_retries": 0, "timeout": TIMEOUT_S}
    clients = {"client": Perplexity(**settings), "async_client": AsyncPerplexity(**settings)}
    return ChatPerplexity(model=model, api_key="x", **clients)


def ollama(url: str, model: str = "llama3.1") -> Any:
    from langchain_ollama import ChatOllama

    return ChatOllama(model=model, base_url=url, client_kwargs={"timeout": TIMEOUT_S})


MAKERS = {
    make.__name__: make
    for make in (
        gemini,
        converse,
        bedrock,
        mistral,
        cohere,
        deepseek,
        xai,
        groq,
        openrouter,
        perplexity,
        ollama,
    )
}
