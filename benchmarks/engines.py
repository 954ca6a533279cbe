"""What a handler adds to a LlamaIndex call: a model that answers in process, so that nothing else is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback

from ai_budget_callbacks import Budget
from ai_budget_callbacks.llama_index import BudgetCallbackHandler
from ai_budget_callbacks.pricing import Price

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

CHUNKS = 100
WAYS = ("chat", "achat", "stream_chat", "astream_chat")
ASK = [ChatMessage(role="user", content="hi")]
_RAW = {
    "id": "c-1",
    "model": "instant",
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}


class DoNothing(BaseCallbackHandler):
    """A handler that is told of everything."""

    def __init__(self) -> None:
        super().__init__([], [])

    def on_event_start(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> str:
        return event_id

    def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> None:
        pass

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        pass


def _answer(text: str, raw: Any = None) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content=text), raw=raw, delta="word ")


class Instant(CustomLLM):
    """Answers at once, whole or in 100 chunks, with usage as OpenAI reports it."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="instant")

    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return _answer("ok", _RAW)

    @llm_chat_callback()
    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return _answer("ok", _RAW)

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return (_answer("word " * 3, _RAW if number == CHUNKS - 1 else None) for number in range(CHUNKS))

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        async def chunks() -> Any:
            for number in range(CHUNKS):
                yield _answer("word " * 3, _RAW if number == CHUNKS - 1 else None)

        return chunks()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    stream_complete = complete


def handlers(where: Path) -> dict[str, list[BaseCallbackHandler]]:
    """What is compared, by name."""
    prices = {"instant": Price(input="0.15", output="0.60")}
    return {
        "none": [],
        "do-nothing": [DoNothing()],
        "llama-index TokenCountingHandler": [TokenCountingHandler(tokenizer=str.split)],
        "ours": [BudgetCallbackHandler(Budget(usd="1000000"), ledger=str(where / "engines.db"), prices=prices)],
        "ours, in memory": [BudgetCallbackHandler(Budget(usd="1000000"), ledger=":memory:", prices=prices)],
    }


def runner(way: str, callbacks: list[BaseCallbackHandler], loop: asyncio.AbstractEventLoop) -> Callable[[], Any]:
    """One call in one of the four ways."""
    manager = CallbackManager([])
    manager.set_handlers(callbacks)
    model = Instant(callback_manager=manager)
    if way == "chat":
        return lambda: model.chat(ASK)
    if way == "stream_chat":
        return lambda: [None for _ in model.stream_chat(ASK)]

    async def streamed() -> None:
        async for _ in await model.astream_chat(ASK):
            pass

    if way == "astream_chat":
        return lambda: loop.run_until_complete(streamed())
    return lambda: loop.run_until_complete(model.achat(ASK))
