"""Which LlamaIndex integrations can play a recorded call, how each is made for its address, and how it sends.

On sync paths the handler stands in the model's own manager, on async ones a `track()` block with its meter is around the
call: both ways in, and both must book the same.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

from ai_budget_callbacks import track
from tests.recordings.exchange import ASK, Client, Exchange, Framework, functions, request_body

__all__ = ["LLAMA_INDEX"]

# API -> why none of our clients asks for it
UNPLAYED = {
    "embedContent": "llama-index-embeddings-google-genai is not among the tested integrations",
    "embed": "llama-index-embeddings-cohere is not among the tested integrations",
    "rerank": "LlamaIndex fires no LLM or embedding event for a reranker: there is nothing to capture",
    "anthropic.complete": "llama-index-llms-anthropic asks /v1/messages; nothing there speaks the old /v1/complete",
    "interactions": "no LlamaIndex integration here speaks Gemini's /interactions",
    "invoke_model": "llama-index-llms-bedrock 0.6.0 wants llama-index-llms-anthropic<0.9, and 0.12.3 is tested",
    "generate": "llama-index-llms-cohere speaks chat; nothing there posts to /v1/generate",
    "cohere.chat": "recorded at /v2/chat, and llama-index-llms-cohere asks /v1/chat: tests/providers/test_integrations.py",
    "ollama.generate": "llama-index-llms-ollama asks /api/chat, for texts too",
    "watsonx.generation": "llama-index-llms-ibm is not among the tested integrations",
    "complete": "llama-index-llms-alephalpha is not among the tested integrations",
}
_ENDINGS = {
    "chat.completions": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "messages": "/v1/messages",
}
_BY_API = {
    "ollama.chat": "llama_index.Ollama",
}
_OWN = {"deepseek": "llama_index.DeepSeek", "groq": "llama_index.Groq", "mistral": "llama_index.MistralAI"}
_GOOGLE = "generativelanguage.googleapis.com"


def _openai(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.openai import OpenAI

    base = exchange.base("/chat/completions")
    return OpenAI(model=exchange.model, api_base=base, api_key="x", max_retries=0, **_choices(exchange), **more)


def _choices(exchange: Exchange) -> dict[str, Any]:
    n = request_body(exchange).get("n")
    return {"additional_kwargs": {"n": n}} if isinstance(n, int) and n > 1 else {}


def _openai_like(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    chat = exchange.call["api"] == "chat.completions"
    return OpenAILike(
        model=exchange.model,
        api_base=exchange.base(_ENDINGS[exchange.call["api"]]),
        api_key="x",
        max_retries=0,
        is_chat_model=chat,
        is_function_calling_model=chat,
        **_choices(exchange),
        **more,
    )


def _responses(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.openai import OpenAIResponses

    return OpenAIResponses(
        model=exchange.model,
        api_base=exchange.base("/responses"),
        api_key="x",
        max_retries=0,
        context_window=128_000,  # else a model it does not know raises before it is sent
        **more,
    )


def _anthropic(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.anthropic import Anthropic

    base = exchange.base(_ENDINGS["messages"])
    return Anthropic(model=exchange.model, base_url=base, api_key="x", max_retries=0, max_tokens=1000, **more)


def _gemini(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.google_genai import GoogleGenAI

    # without both sizes it asks for the model's first
    sizes = {"max_tokens": 1000, "context_window": 100_000}
    return GoogleGenAI(model=exchange.model, api_key="x", max_retries=0, **sizes, **more)


def _vertex(exchange: Exchange, **more: Any) -> Any:
    from google.oauth2.credentials import Credentials
    from llama_index.llms.google_genai import GoogleGenAI

    version, _, project, _, location = exchange.url.path.strip("/").split("/")[:5]
    return GoogleGenAI(
        model=exchange.model,
        vertexai_config={"credentials": Credentials(token="x"), "project": project, "location": location},
        http_options={"base_url": exchange.root, "api_version": version},
        max_retries=0,
        max_tokens=1000,
        context_window=100_000,
        **more,
    )


def _embedding(exchange: Exchange, **more: Any) -> Any:
    from llama_index.embeddings.openai import OpenAIEmbedding

    base = exchange.base("/embeddings")
    return OpenAIEmbedding(model_name=exchange.model, api_base=base, api_key="x", max_retries=0, **more)


def _converse(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.bedrock_converse import BedrockConverse

    return BedrockConverse(
        model=unquote(exchange.url.path.split("/")[2]),
        region_name=exchange.url.hostname.split(".")[1],
        aws_access_key_id="x",
        aws_secret_access_key="x",
        max_retries=1,
        **more,
    )


def _deepseek(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.deepseek import DeepSeek

    base, window = exchange.base("/chat/completions"), 100_000
    return DeepSeek(
        model=exchange.model,
        api_base=base,
        api_key="x",
        max_retries=0,
        context_window=window,
        is_function_calling_model=True,
        **more,
    )


def _groq(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.groq import Groq

    return Groq(model=exchange.model, api_key="x", max_retries=0, **more)


def _mistral(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.mistralai import MistralAI

    return MistralAI(model=exchange.model, api_key="x", max_retries=1, **more)


def _calls_functions(exchange: Exchange) -> bool:
    from llama_index.llms.mistralai.utils import is_mistralai_function_calling_model

    return is_mistralai_function_calling_model(exchange.model)


def _ollama(exchange: Exchange, **more: Any) -> Any:
    from llama_index.llms.ollama import Ollama

    return Ollama(model=exchange.model, base_url=exchange.root, context_window=100_000, **more)


CLIENTS: dict[str, Client] = {
    "llama_index.OpenAI": Client("llama_index.llms.openai", _openai),
    "llama_index.OpenAILike": Client("llama_index.llms.openai_like", _openai_like),
    "llama_index.OpenAIResponses": Client("llama_index.llms.openai", _responses),
    "llama_index.Anthropic": Client("llama_index.llms.anthropic", _anthropic),
    "llama_index.GoogleGenAI": Client("llama_index.llms.google_genai", _gemini),
    "llama_index.GoogleGenAI (Vertex)": Client("llama_index.llms.google_genai", _vertex),
    "llama_index.BedrockConverse": Client("llama_index.llms.bedrock_converse", _converse),
    "llama_index.DeepSeek": Client("llama_index.llms.deepseek", _deepseek),
    "llama_index.Groq": Client("llama_index.llms.groq", _groq),
    "llama_index.MistralAI": Client("llama_index.llms.mistralai", _mistral, agents=_calls_functions),
    "llama_index.Ollama": Client("llama_index.llms.ollama", _ollama),
    "llama_index.OpenAIEmbedding": Client("llama_index.embeddings.openai", _embedding),
}


def _candidates(exchange: Exchange) -> tuple[list[str], str]:
    """Clients that speak the recorded API, and why there is none."""
    call, path = exchange.call, exchange.url.path
    api = call["api"]
    if api in UNPLAYED:
        return [], UNPLAYED[api]
    if "json_array_stream" in call["features"]:
        return [], "recorded without alt=sse: a JSON array, and google-genai reads server-sent events"
    if api == "generateContent":
        own = exchange.url.netloc == _GOOGLE
        if not own and "/projects/" not in path:
            return [], "recorded with a key and no project, which llama-index-llms-google-genai does not ask Vertex for"
        return ["llama_index.GoogleGenAI" if own else "llama_index.GoogleGenAI (Vertex)"], ""
    if api == "converse":
        return _known_on_bedrock(unquote(path.split("/")[2]))
    if api in _BY_API:
        return [_BY_API[api]], ""
    if not path.endswith(_ENDINGS[api]):
        return [], f"recorded at {path}; the client asks …{_ENDINGS[api]}"
    if api == "messages":
        return _known_claude(exchange.model)
    if api == "chat.completions":
        own = _OWN.get(call["provider"])
        return [_chat(exchange), *([own] if own else [])], ""
    names = {"completions": "OpenAILike", "responses": "OpenAIResponses", "embeddings": "OpenAIEmbedding"}
    return [f"llama_index.{names[api]}"], ""


def _known_on_bedrock(model: str) -> tuple[list[str], str]:
    from llama_index.llms.bedrock_converse.utils import bedrock_modelname_to_context_size

    try:
        bedrock_modelname_to_context_size(model)
    except ValueError:
        return [], "llama-index-llms-bedrock-converse does not know the model and raises before it sends"
    return ["llama_index.BedrockConverse"], ""


def _known_claude(model: str) -> tuple[list[str], str]:
    from llama_index.llms.anthropic.utils import anthropic_modelname_to_contextsize

    try:
        anthropic_modelname_to_contextsize(model)
    except ValueError:
        return [], "llama-index-llms-anthropic does not know the model and raises before it sends"
    return ["llama_index.Anthropic"], ""


def _chat(exchange: Exchange) -> str:
    """OpenAI's own class for its own address and a model it knows; else it raises before it sends."""
    from llama_index.llms.openai.utils import ALL_AVAILABLE_MODELS, CHAT_MODELS

    model = exchange.model
    own = exchange.url.netloc == "api.openai.com" and model in ALL_AVAILABLE_MODELS and model in CHAT_MODELS
    return "llama_index.OpenAI" if own else "llama_index.OpenAILike"


def _handler(*budgets: Any, **options: Any) -> Any:
    from ai_budget_callbacks.llama_index import BudgetCallbackHandler

    return BudgetCallbackHandler(*budgets, **options)


def _under(handler: Any) -> dict[str, Any]:
    from llama_index.core.callbacks import CallbackManager

    return {"callback_manager": CallbackManager([handler])}


def _messages(exchange: Exchange) -> list[Any]:
    """A question; it asks for caching where the recorded one did, since only then a price can hang on it."""
    from llama_index.core.llms import ChatMessage

    cached = {"cache_control": {"type": "ephemeral"}} if "cache_control" in str(exchange.request.get("body")) else {}
    return [ChatMessage(content=ASK, additional_kwargs=cached)]


def _texts(exchange: Exchange) -> list[str]:
    found = request_body(exchange).get("input") or ASK
    return list(map(str, found)) if isinstance(found, list) else [str(found)]


def _send(client: Client, exchange: Exchange, handler: Any, number: int) -> None:  # noqa: ARG001 - as LangChain's
    model = client.make(exchange, **_under(handler))
    api, streaming = exchange.call["api"], exchange.call["streaming"]
    if api == "embeddings":
        model.get_text_embedding_batch(_texts(exchange))
    elif api == "completions":
        list(model.stream_complete(ASK)) if streaming else model.complete(ASK)
    else:
        list(model.stream_chat(_messages(exchange))) if streaming else model.chat(_messages(exchange))


async def _asend(client: Client, exchange: Exchange, handler: Any, number: int) -> None:
    with track(meter=handler.meter, metadata={"recorded": str(number)}):
        model = client.make(exchange)
        api, streaming = exchange.call["api"], exchange.call["streaming"]
        if api == "embeddings":
            await model.aget_text_embedding_batch(_texts(exchange))
        elif not streaming:
            await (model.acomplete(ASK) if api == "completions" else model.achat(_messages(exchange)))
        else:
            text = api == "completions"
            stream = await (model.astream_complete(ASK) if text else model.astream_chat(_messages(exchange)))
            async for _ in stream:
                pass


def _run(client: Client, exchanges: list[Exchange], handler: Any) -> None:
    asyncio.run(_agent(client, exchanges, **_under(handler)))


async def _arun(client: Client, exchanges: list[Exchange], handler: Any) -> None:
    with track(meter=handler.meter):
        await _agent(client, exchanges)


async def _agent(client: Client, exchanges: list[Exchange], **more: Any) -> None:
    """An agent with the recorded tools; the recorded answers drive it to its end."""
    from llama_index.core.agent.workflow import FunctionAgent

    await FunctionAgent(
        llm=client.make(exchanges[0], **more),
        tools=list(map(_tool, functions(exchanges))),
        streaming=exchanges[0].call["streaming"],
    ).run(user_msg=ASK)


def _tool(name: str) -> Any:
    from llama_index.core.tools import FunctionTool

    return FunctionTool.from_defaults(fn=lambda **_: "done", name=name, description=name)


LLAMA_INDEX = Framework(
    name="llama_index",
    clients=CLIENTS,
    candidates=_candidates,
    handler=_handler,
    send=_send,
    asend=_asend,
    agent=_run,
    aagent=_arun,
)
