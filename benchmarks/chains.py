"""What a handler adds to a chain: a prompt and a model that answers in process, so that nothing else is measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate

from ai_budget_callbacks import Budget
from ai_budget_callbacks.langchain import BudgetCallbackHandler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

CHUNKS = 100
WAYS = ("invoke", "ainvoke", "stream", "astream")
_USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
_SAID = {"model_name": "gpt-4o-mini"}
# handlers of other packages, by module and class; used where they happen to be installed (facts/peers.md)
_PEERS = {
    "langchain-community get_openai_callback": ("langchain_community.callbacks.openai_info", "OpenAICallbackHandler"),
    "token-copilot": ("token_copilot", "TokenCopilotCallbackHandler"),
}


def _chunks() -> Iterator[ChatGenerationChunk]:
    for _ in range(CHUNKS - 1):
        yield ChatGenerationChunk(message=AIMessageChunk("word "))
    yield ChatGenerationChunk(message=AIMessageChunk("word ", usage_metadata=_USAGE, response_metadata=_SAID))


class Instant(BaseChatModel):
    """Answers at once, whole or in 100 chunks, with usage as OpenAI reports it."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = AIMessage("ok", usage_metadata=_USAGE, response_metadata=_SAID)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages)

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks():
            if run_manager:
                run_manager.on_llm_new_token("word ", chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks():
            if run_manager:
                await run_manager.on_llm_new_token("word ", chunk=chunk)
            yield chunk


def handlers(where: Path) -> dict[str, list[BaseCallbackHandler]]:
    """What is compared, by name."""
    found: dict[str, list[BaseCallbackHandler]] = {
        "none": [],
        "do-nothing": [BaseCallbackHandler()],
        "langchain-core UsageMetadata": [UsageMetadataCallbackHandler()],
        "ours": [BudgetCallbackHandler(Budget(usd="1000000"), ledger=str(where / "chains.db"))],
        "ours, in memory": [BudgetCallbackHandler(Budget(usd="1000000"), ledger=":memory:")],
    }
    for name, (module, attribute) in _PEERS.items():
        try:
            found[name] = [getattr(importlib.import_module(module), attribute)()]
        except Exception:  # not installed, or not for this LangChain
            continue
    return found


def runner(way: str, callbacks: list[BaseCallbackHandler], loop: asyncio.AbstractEventLoop) -> Callable[[], Any]:
    """One call of a chain in one of the four ways."""
    made = ChatPromptTemplate.from_messages([("human", "{question}")]) | Instant(
        metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"}
    )
    config, asked = {"callbacks": callbacks}, {"question": "hi"}
    if way == "invoke":
        return lambda: made.invoke(asked, config=config)
    if way == "stream":
        return lambda: [None for _ in made.stream(asked, config=config)]

    async def streamed() -> None:
        async for _ in made.astream(asked, config=config):
            pass

    if way == "astream":
        return lambda: loop.run_until_complete(streamed())
    return lambda: loop.run_until_complete(made.ainvoke(asked, config=config))
