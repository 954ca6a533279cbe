"""Which LangChain clients can play a recorded call, how each is made for the address it was recorded at, and how it sends.

A maker takes `streaming=True`, which makes a model's `invoke` stream, as agents need. Never False: then `.stream()`
invokes (langchain-core 1.8.3).
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import StructuredTool

from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.recordings.exchange import ASK, Client, Exchange, Framework, functions, request_body

__all__ = ["LANGCHAIN"]

SOUND = re.compile(r"""mime_?type['"]: ?['"](audio|video)/|youtu""", re.IGNORECASE)
DEPLOYMENTS = "/openai/deployments/"
NO_EVENTS = "LangChain fires no callbacks for it: there is nothing to capture"
# API -> why none of our clients asks for it
UNPLAYED = {
    "embeddings": NO_EVENTS,
    "embedContent": NO_EVENTS,
    "embed": NO_EVENTS,
    "rerank": NO_EVENTS,
    "anthropic.complete": "langchain-anthropic asks /v1/messages; nothing there speaks the old /v1/complete",
    "interactions": "no LangChain client speaks Gemini's /interactions",
    "generate": "langchain-cohere speaks v2; nothing there posts to /v1/generate",
    "watsonx.generation": "langchain-ibm is not among the tested clients",
    "complete": "langchain-community's AlephAlpha is not among the tested clients",
}


def _choices(exchange: Exchange) -> dict[str, Any]:
    n = request_body(exchange).get("n")
    return {"n": n} if isinstance(n, int) and n > 1 else {}


def _chat_openai(exchange: Exchange, **more: Any) -> Any:
    from langchain_openai import ChatOpenAI

    responses = exchange.call["api"] == "responses"
    return ChatOpenAI(
        model=exchange.model,
        base_url=exchange.base("/responses" if responses else "/chat/completions"),
        api_key="x",
        max_retries=0,
        stream_usage=True,  # docs/limits.md: an address of one's own turns it off
        use_responses_api=responses,
        **_choices(exchange),
        **more,
    )


def _deployment(exchange: Exchange) -> dict[str, Any]:
    before, _, after = exchange.url.path.partition(DEPLOYMENTS)
    name = after.partition("/")[0]
    plain = {"azure_endpoint": exchange.root, "azure_deployment": name}
    return {
        # `azure_endpoint` loses the second slash that two of them were recorded with
        **({"base_url": exchange.root + before + DEPLOYMENTS + name} if before else plain),
        "api_version": exchange.query["api-version"],
        "api_key": "x",
        "max_retries": 0,
    }


def _azure_chat(exchange: Exchange, **more: Any) -> Any:
    from langchain_openai import AzureChatOpenAI

    return AzureChatOpenAI(**_deployment(exchange), stream_usage=True, **_choices(exchange), **more)


def _azure_text(exchange: Exchange, **more: Any) -> Any:
    from langchain_openai import AzureOpenAI

    return AzureOpenAI(**_deployment(exchange), **more)


def _openai_text(exchange: Exchange, **more: Any) -> Any:
    from langchain_openai import OpenAI

    base = exchange.base("/completions")
    return OpenAI(model=exchange.model, base_url=base, api_key="x", max_retries=0, **more)


def _anthropic(exchange: Exchange, **more: Any) -> Any:
    from langchain_anthropic import ChatAnthropic

    beta = {"betas": ["x"]} if exchange.query.get("beta") == "true" else {}
    return ChatAnthropic(model=exchange.model, api_key="x", max_retries=0, max_tokens=1000, **beta, **more)


def _groq(exchange: Exchange, **more: Any) -> Any:
    from langchain_groq import ChatGroq

    return ChatGroq(model=exchange.model, api_key="x", max_retries=0, **more)


def _mistral(exchange: Exchange, **more: Any) -> Any:
    from langchain_mistralai import ChatMistralAI

    return ChatMistralAI(model=exchange.model, api_key="x", max_retries=1, **more)


def _cohere(exchange: Exchange, **more: Any) -> Any:
    from langchain_cohere import ChatCohere

    return ChatCohere(model=exchange.model, cohere_api_key="x", **more)


def _ollama_chat(exchange: Exchange, **more: Any) -> Any:
    from langchain_ollama import ChatOllama

    return ChatOllama(model=exchange.model, base_url=exchange.root)


def _ollama_text(exchange: Exchange, **more: Any) -> Any:
    from langchain_ollama import OllamaLLM

    return OllamaLLM(model=exchange.model, base_url=exchange.root)


def _gemini(exchange: Exchange, **more: Any) -> Any:
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(model=exchange.model, api_key="x", max_retries=1, **more)


def _vertex(exchange: Exchange, **more: Any) -> Any:
    from google.oauth2.credentials import Credentials
    from langchain_google_genai import ChatGoogleGenerativeAI

    parts = exchange.url.path.strip("/").split("/")
    own = {"project": parts[2], "location": parts[4], "credentials": Credentials(token="x")}
    return ChatGoogleGenerativeAI(
        model=exchange.model,
        vertexai=True,
        **(own if "projects" in parts else {"api_key": "x"}),
        base_url=exchange.root,
        api_version=parts[0],
        max_retries=1,
        **more,
    )


def _aws(exchange: Exchange) -> dict[str, Any]:
    from botocore.config import Config

    return {
        "model": unquote(exchange.url.path.split("/")[2]),
        "region_name": exchange.url.hostname.split(".")[1],
        "aws_access_key_id": "x",
        "aws_secret_access_key": "x",
        "config": Config(retries={"max_attempts": 1}),
    }


def _converse(exchange: Exchange, **more: Any) -> Any:
    from langchain_aws import ChatBedrockConverse

    # without a base model it asks another API what an ARN is
    profile = {"base_model_id": "anthropic.claude-3-haiku-20240307-v1:0"} if "arn:" in exchange.model else {}
    return ChatBedrockConverse(**_aws(exchange), **({"provider": "anthropic"} | profile if profile else {}))


def _bedrock(exchange: Exchange, **more: Any) -> Any:
    from langchain_aws import ChatBedrock

    return ChatBedrock(**_aws(exchange), **more)


def _bedrock_text(exchange: Exchange, **more: Any) -> Any:
    from langchain_aws import BedrockLLM

    return BedrockLLM(**_aws(exchange), **more)


def _bedrock_claude(exchange: Exchange, **more: Any) -> Any:
    from langchain_aws import ChatAnthropicBedrock

    named = _aws(exchange)
    keys = ("model", "region_name", "aws_access_key_id", "aws_secret_access_key")
    return ChatAnthropicBedrock(**{key: named[key] for key in keys}, max_retries=0, max_tokens=1000, **more)


def _deepseek(exchange: Exchange, **more: Any) -> Any:
    from langchain_deepseek import ChatDeepSeek

    base = exchange.base("/chat/completions")
    return ChatDeepSeek(model=exchange.model, base_url=base, api_key="x", max_retries=0, stream_usage=True, **more)


def _openrouter(exchange: Exchange, **more: Any) -> Any:
    from langchain_openrouter import ChatOpenRouter

    return ChatOpenRouter(model=exchange.model, api_key="x", max_retries=0, **more)


CLIENTS: dict[str, Client] = {
    "ChatOpenAI": Client("langchain_openai", _chat_openai),
    "AzureChatOpenAI": Client("langchain_openai", _azure_chat),
    "OpenAI": Client("langchain_openai", _openai_text),
    "AzureOpenAI": Client("langchain_openai", _azure_text),
    "ChatAnthropic": Client("langchain_anthropic", _anthropic),
    "ChatGroq": Client("langchain_groq", _groq),
    "ChatMistralAI": Client("langchain_mistralai", _mistral),
    "ChatCohere": Client("langchain_cohere", _cohere),
    "ChatOllama": Client("langchain_ollama", _ollama_chat),
    "OllamaLLM": Client("langchain_ollama", _ollama_text),
    "ChatGoogleGenerativeAI": Client("langchain_google_genai", _gemini),
    "ChatGoogleGenerativeAI (Vertex)": Client("langchain_google_genai", _vertex),
    "ChatBedrockConverse": Client("langchain_aws", _converse),
    "ChatBedrock": Client("langchain_aws", _bedrock),
    "BedrockLLM": Client("langchain_aws", _bedrock_text, sync_only=True),
    "ChatAnthropicBedrock": Client("langchain_aws", _bedrock_claude),
    "ChatDeepSeek": Client("langchain_deepseek", _deepseek),
    "ChatOpenRouter": Client("langchain_openrouter", _openrouter),
}
_BY_API = {
    "messages": "ChatAnthropic",
    "cohere.chat": "ChatCohere",
    "ollama.chat": "ChatOllama",
    "ollama.generate": "OllamaLLM",
    "converse": "ChatBedrockConverse",
}
_OWN = {
    "groq": "ChatGroq",
    "mistral": "ChatMistralAI",
    "deepseek": "ChatDeepSeek",
    "openrouter": "ChatOpenRouter",
}
_ENDINGS = {"chat.completions": "/chat/completions", "completions": "/completions", "responses": "/responses"}


def _candidates(exchange: Exchange) -> tuple[list[str], str]:
    """Clients that speak the recorded API, and why there is none."""
    call, path = exchange.call, exchange.url.path
    api = call["api"]
    if api in UNPLAYED:
        return [], UNPLAYED[api]
    if "json_array_stream" in call["features"]:
        return [], "recorded without alt=sse: a JSON array, and langchain-google-genai reads server-sent events"
    if api == "generateContent":
        own = exchange.url.netloc == "generativelanguage.googleapis.com"
        return ["ChatGoogleGenerativeAI" if own else "ChatGoogleGenerativeAI (Vertex)"], ""
    if api == "invoke_model":
        return _of_bedrock(exchange)
    if api in _BY_API:
        return [_BY_API[api]], ""
    if not path.endswith(_ENDINGS[api]):
        return [], f"recorded at {path}; the client asks …{_ENDINGS[api]}"
    azure = "Azure" if DEPLOYMENTS in path else ""
    first = azure + ("OpenAI" if api == "completions" else "ChatOpenAI")
    own = _OWN.get(call["provider"])
    return [first, own] if own and api == "chat.completions" else [first], ""


def _of_bedrock(exchange: Exchange) -> tuple[list[str], str]:
    """Who speaks a model's own shape at /invoke."""
    call, path = exchange.call, unquote(exchange.url.path)
    if {"embeddings", "no_usage"} & set(call["features"]):
        return [], NO_EVENTS
    if "arn:aws:sagemaker" in path:
        return [], "recorded at an imported model's endpoint: langchain-aws wants to be told whose shape it speaks"
    if "anthropic_version" in request_body(exchange):
        return ["ChatBedrock", "ChatAnthropicBedrock"], ""
    chats = any(family in path for family in ("meta.", "mistral.", "amazon.titan"))
    return ["ChatBedrock", "BedrockLLM"] if chats else ["BedrockLLM"], ""


def _question(client: Client, exchange: Exchange) -> Any:
    """A question; it has sound where the recorded one did, since only then a price can hang on it."""
    sounds = client.package == "langchain_google_genai" and SOUND.search(str(exchange.request.get("body")))
    part = {"type": "media", "mime_type": "audio/mpeg", "file_uri": "https://example.com/a.mp3"}
    return [HumanMessage([{"type": "text", "text": ASK}, part])] if sounds else ASK


def _send(client: Client, exchange: Exchange, handler: Any, number: int) -> None:
    model = client.make(exchange)
    if exchange.call["streaming"]:
        for _ in model.stream(_question(client, exchange), _config(handler, number)):
            pass
    else:
        model.invoke(_question(client, exchange), _config(handler, number))


async def _asend(client: Client, exchange: Exchange, handler: Any, number: int) -> None:
    model = client.make(exchange)
    if exchange.call["streaming"]:
        async for _ in model.astream(_question(client, exchange), _config(handler, number)):
            pass
    else:
        await model.ainvoke(_question(client, exchange), _config(handler, number))


def _config(handler: Any, number: Any) -> dict[str, Any]:
    return {"callbacks": [handler], "metadata": {"recorded": str(number)}}


def _run(client: Client, exchanges: list[Exchange], handler: Any) -> None:
    _agent(client, exchanges).invoke({"messages": [("user", ASK)]}, _config(handler, "agent"))


async def _arun(client: Client, exchanges: list[Exchange], handler: Any) -> None:
    await _agent(client, exchanges).ainvoke({"messages": [("user", ASK)]}, _config(handler, "agent"))


def _agent(client: Client, exchanges: list[Exchange]) -> Any:
    """An agent with the recorded tools; the recorded answers drive it to its end."""
    more = {"streaming": True} if exchanges[0].call["streaming"] else {}
    model = client.make(exchanges[0], **more)
    return create_agent(model, [_tool(name, schema) for name, schema in functions(exchanges).items()])


def _tool(name: str, schema: dict[str, Any]) -> StructuredTool:
    lowered = _lowered(schema)
    return StructuredTool.from_function(
        func=lambda **_: "done", coroutine=_done, name=name, description=name, args_schema={"properties": {}} | lowered
    )


async def _done(**_: Any) -> str:
    return "done"


def _lowered(schema: Any) -> Any:
    """Gemini writes types in capitals."""
    if isinstance(schema, dict):
        return {
            name: value.lower() if name == "type" and isinstance(value, str) else _lowered(value)
            for name, value in schema.items()
        }
    return [_lowered(item) for item in schema] if isinstance(schema, list) else schema


LANGCHAIN = Framework(
    name="langchain",
    clients=CLIENTS,
    candidates=_candidates,
    handler=BudgetCallbackHandler,
    send=_send,
    asend=_asend,
    agent=_run,
    aagent=_arun,
)
