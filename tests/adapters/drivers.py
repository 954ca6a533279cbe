"""One driver for each adapter: the same few things done through the framework's own client."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

__all__ = ["ADAPTERS", "LangChain", "LlamaIndex", "taken"]

QUESTION = "What is two plus two?"


class LangChain:
    """langchain-openai under a callback handler."""

    name = "langchain"

    def __init__(self, far: Any, *handlers: Any, **options: Any) -> None:
        from langchain_openai import ChatOpenAI

        settings = {"model": "gpt-4o-mini", "max_retries": 0, "stream_usage": True, "timeout": 20} | options
        self._model = ChatOpenAI(base_url=far.base_url, api_key="sk-loopback", **settings)
        self._config = {"callbacks": list(handlers)} if handlers else {}

    @staticmethod
    def handler(*budgets: Any, **options: Any) -> Any:
        from ai_budget_callbacks.langchain import BudgetCallbackHandler

        return BudgetCallbackHandler(*budgets, **options)

    @staticmethod
    def text_of(answer: Any) -> str:
        return str(answer.content)

    @staticmethod
    def text_on(response: Any) -> str:
        """Of what an exception carries."""
        return str(response.generations[0][0].text)

    def call(self, question: str = QUESTION) -> Any:
        return self._model.invoke(question, config=self._config)

    async def acall(self, question: str = QUESTION) -> Any:
        return await self._model.ainvoke(question, config=self._config)

    def stream(self, question: str = QUESTION) -> Any:
        return self._model.stream(question, config=self._config)

    def astream(self, question: str = QUESTION) -> Any:
        return self._model.astream(question, config=self._config)


class LlamaIndex:
    """llms-openai under a callback handler in its manager."""

    name = "llama_index"

    def __init__(self, far: Any, *handlers: Any, **options: Any) -> None:
        from tests.llama.kit import chat, like, no_handlers

        manager = no_handlers()
        manager.set_handlers(list(handlers))
        # llms-openai refuses names it does not know (0.8.3)
        make = like if options.get("model") == "my-own" else chat
        self._model = make(far, callback_manager=manager, **options)

    @staticmethod
    def handler(*budgets: Any, **options: Any) -> Any:
        from ai_budget_callbacks.llama_index import BudgetCallbackHandler

        return BudgetCallbackHandler(*budgets, **options)

    @staticmethod
    def text_of(answer: Any) -> str:
        return str(answer.message.content)

    @staticmethod
    def text_on(response: Any) -> str:
        return str(response.message.content)

    @staticmethod
    def _ask(question: str) -> Any:
        from llama_index.core.llms import ChatMessage

        return [ChatMessage(role="user", content=question)]

    def call(self, question: str = QUESTION) -> Any:
        return self._model.chat(self._ask(question))

    async def acall(self, question: str = QUESTION) -> Any:
        return await self._model.achat(self._ask(question))

    def stream(self, question: str = QUESTION) -> Any:
        return self._model.stream_chat(self._ask(question))

    async def astream(self, question: str = QUESTION) -> Any:
        async for chunk in await self._model.astream_chat(self._ask(question)):
            yield chunk


# `make compat` has one framework at a time
ADAPTERS = [
    kind for package, kind in (("langchain_core", LangChain), ("llama_index", LlamaIndex)) if find_spec(package)
]


async def taken(stream: Any, count: int) -> None:
    """Take a few chunks and close."""
    for _ in range(count):
        await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0)
