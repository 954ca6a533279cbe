"""What the LlamaIndex tests share: real integrations on the far end, and what is built with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from tests.support import llama_versions

if TYPE_CHECKING:  # not where core is too old for one that loads
    from llama_index.llms.anthropic import Anthropic
    from llama_index.llms.openai import OpenAIResponses

__all__ = [
    "ASK",
    "QUESTION",
    "City",
    "chat",
    "claude",
    "embedding",
    "index_of",
    "instruct",
    "like",
    "look_up",
    "no_handlers",
    "responses",
    "script",
]

QUESTION = "What is two plus two?"
ASK = [ChatMessage(role="user", content=QUESTION)]
JSON = json.dumps({"name": "Bonn"})


class City(BaseModel):
    """A city."""

    name: str


def _look_up(topic: str) -> str:
    """Look something up."""
    return f"All about {topic}."


look_up = FunctionTool.from_defaults(fn=_look_up, name="look_up")


def script(request: Any) -> Reply:
    """What a request gets: every answer is 1,000 in and 200 out, $0.00027 of gpt-4o-mini.

    Embeddings are 1,000 in, $0.00002. A tool call where a tool is offered and none was called yet, a city where one is asked for, else text.
    """
    body = request.body
    if request.path.endswith("/embeddings"):
        return Reply(input_tokens=1000)
    asked = body.get("messages") or body.get("input") or []
    tools = [(item.get("function") or item) for item in body.get("tools") or []]
    called = any(isinstance(item, dict) and _is_result(item) for item in asked) if isinstance(asked, list) else False
    calls: tuple[ToolCall, ...] = ()
    if tools and not called:
        arguments = {"name": "Bonn"} if tools[0]["name"] == "City" else {"topic": "sums"}
        calls = (ToolCall(tools[0]["name"], arguments),)
    return Reply(text="" if calls else JSON, tool_calls=calls, input_tokens=1000, output_tokens=200)


def _is_result(message: dict[str, Any]) -> bool:
    if message.get("role") == "tool" or message.get("type") == "function_call_output":
        return True
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "tool_result" for part in content
    )


def _managed(options: dict[str, Any], gates: Any) -> dict[str, Any]:
    return options if gates is None else {"callback_manager": CallbackManager(list(gates))} | options


def chat(far: Any, *gates: Any, **options: Any) -> OpenAI:
    """llms-openai on the far end: no client retries unless asked."""
    settings = {"model": "gpt-4o-mini", "max_retries": 0, "timeout": 20} | _managed(options, gates or None)
    return OpenAI(api_base=far.base_url, api_key="sk-loopback", **settings)


def responses(far: Any, *gates: Any, **options: Any) -> OpenAIResponses:
    """The Responses API."""
    from llama_index.llms.openai import OpenAIResponses

    settings = {"model": "gpt-4o-mini", "max_retries": 0, "timeout": 20} | _managed(options, gates or None)
    return OpenAIResponses(api_base=far.base_url, api_key="sk-loopback", **settings)


def instruct(far: Any, *gates: Any, **options: Any) -> OpenAI:
    """A text model: its requests go to /completions."""
    return chat(far, *gates, **({"model": "gpt-3.5-turbo-instruct", "max_tokens": 400} | options))


def like(far: Any, *gates: Any, **options: Any) -> OpenAILike:
    """An OpenAI-compatible server."""
    settings = {"model": "gpt-4o-mini", "max_retries": 0, "timeout": 20, "is_chat_model": True}
    return OpenAILike(api_base=far.base_url, api_key="sk-loopback", **(settings | _managed(options, gates or None)))


def claude(far: Any, *gates: Any, **options: Any) -> Anthropic:
    """llms-anthropic on the far end."""
    from llama_index.llms.anthropic import Anthropic

    settings = {"model": llama_versions.CLAUDE, "max_retries": 0, "max_tokens": 1000, "timeout": 20}
    return Anthropic(base_url=far.anthropic_url, api_key="sk-loopback", **(settings | _managed(options, gates or None)))


def embedding(far: Any, *gates: Any, **options: Any) -> OpenAIEmbedding:
    """embeddings-openai on the far end, two texts a request."""
    settings = {"model": "text-embedding-3-small", "max_retries": 0, "timeout": 20, "embed_batch_size": 2}
    return OpenAIEmbedding(
        api_base=far.base_url, api_key="sk-loopback", **(settings | _managed(options, gates or None))
    )


def no_handlers() -> CallbackManager:
    """An empty manager: `CallbackManager([])` alone takes over the handlers of the settings."""
    manager = CallbackManager([])
    manager.set_handlers([])
    return manager


def index_of(embed_model: Any = None, *texts: str) -> VectorStoreIndex:
    """An index in memory; without a model its embeddings are made here and cost nothing."""
    documents = [Document(text=text) for text in texts or ("Two and two is four.",)]
    return VectorStoreIndex.from_documents(documents, embed_model=embed_model or MockEmbedding(embed_dim=8))
