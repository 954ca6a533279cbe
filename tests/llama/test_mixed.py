"""Both frameworks under one limit: a request that both report is one entry, two requests are two.

Every answer is 1,000 tokens in and 200 out of gpt-4o-mini: $0.00027.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback

from ai_budget_callbacks import Budget, BudgetExceeded, ConfigError, register_wrapper, track
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.langchain import BudgetCallbackHandler as LangChainHandler
from ai_budget_callbacks.marks import WRAPPERS
from tests.llama.kit import ASK, QUESTION, chat, no_handlers
from tests.support.audit import audit

ANSWER = Reply(text="Four.", input_tokens=1000, output_tokens=200)


def _langchain(far, **options):
    settings = {"model": "gpt-4o-mini", "max_retries": 0, "stream_usage": True} | options
    return ChatOpenAI(base_url=far.base_url, api_key="sk-loopback", **settings)


class OverLangChain(CustomLLM):
    """A LlamaIndex model that asks a LangChain one, as users write it for current versions of both."""

    model: Any = None
    times: int = 1
    called: str = "gpt-4o-mini"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.called)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        for _ in range(self.times):
            answer = self.model.invoke(prompt)
        return CompletionResponse(text=str(answer.content))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def chunks() -> CompletionResponseGen:
            text = ""
            for chunk in self.model.stream(prompt):
                text += str(chunk.content)
                yield CompletionResponse(text=text, delta=str(chunk.content))

        return chunks()


class OverLlamaIndex(BaseChatModel):
    """The reverse."""

    inner: Any = None
    model_name: str = "gpt-4o-mini"

    @property
    def _llm_type(self) -> str:
        return "over-llama-index"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model_name}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        answer = self.inner.complete(str(messages[-1].content))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=answer.text))])


@pytest.fixture
def registered():
    before = set(WRAPPERS)
    register_wrapper(OverLangChain)
    register_wrapper("OverLlamaIndex")
    yield
    WRAPPERS.clear()
    WRAPPERS.update(before)


WAYS = {
    "complete": lambda model: model.complete(QUESTION),
    "chat": lambda model: model.chat(ASK),
    "acomplete": lambda model: asyncio.run(model.acomplete(QUESTION)),
    "achat": lambda model: asyncio.run(model.achat(ASK)),
    "stream_complete": lambda model: list(model.stream_complete(QUESTION)),
    "stream_chat": lambda model: list(model.stream_chat(ASK)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_registered_wrapper_and_what_it_wraps_are_one_request(serve, meter, ledger, registered, way):
    far = serve(ANSWER)
    model = OverLangChain(model=_langchain(far))
    with track(Budget(usd="0.50"), Budget(calls=5), meter=meter()):
        WAYS[way](model)
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert books.statuses == ["priced"], "the usage is that of the report that has it"
    assert books.spent("calls") == [1]


def test_a_wrapper_nobody_registered_is_booked_twice_and_never_too_little(serve, meter, ledger):
    far = serve(ANSWER)
    model = OverLangChain(model=_langchain(far))
    with track(Budget(calls=5), meter=meter()):
        model.complete(QUESTION)
    books = audit(far, ledger, requests=1, entries=2, exact=False)
    assert books.spent("calls") == [2]
    assert books.booked_usd >= far.billed_usd


def test_a_wrapper_that_asks_twice_is_two_requests(serve, meter, ledger, registered):
    far = serve(ANSWER)
    model = OverLangChain(model=_langchain(far), times=2)
    with track(Budget(calls=5), meter=meter()):
        model.complete(QUESTION)
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


class AsksTogether(OverLangChain):
    """Two questions at once."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=str(self.model.batch([prompt, prompt])[0].content))


def test_a_wrapper_that_asks_two_at_once_is_two_requests(serve, meter, ledger, registered):
    far = serve(Reply(text="Four.", input_tokens=1000, output_tokens=200, delay_s=0.2))
    with track(Budget(calls=5), meter=meter()):
        AsksTogether(model=_langchain(far)).complete(QUESTION)
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_wrapper_without_a_price_of_its_own_leaves_the_price_to_what_it_wraps(serve, meter, ledger, registered):
    far = serve(ANSWER)
    model = OverLangChain(model=_langchain(far), called="router")
    with track(Budget(usd="0.50"), meter=meter()):
        model.complete(QUESTION)
    assert audit(far, ledger, requests=1, entries=1, usd="0.00027").one()["model"] == "gpt-4o-mini"


def test_a_used_up_budget_stops_a_wrapper_before_it_is_sent(serve, meter, ledger, registered):
    far = serve(ANSWER)
    model = OverLangChain(model=_langchain(far))
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter()):
        model.complete(QUESTION)
        model.complete(QUESTION)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_handlers_of_both_frameworks_share_the_entry(serve, handler, ledger, registered):
    far = serve(ANSWER)
    outer, inner = handler(Budget(usd="0.50")), LangChainHandler(Budget(usd="0.40"), ledger=ledger)
    manager = no_handlers()
    manager.add_handler(outer)
    model = OverLangChain(model=_langchain(far, callbacks=[inner]), callback_manager=manager)
    model.complete(QUESTION)
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert [str(spent) for spent in books.spent()] == ["0.000270000000", "0.000270000000"]
    assert outer.summary().calls == inner.summary().calls == 1
    inner.close()


def test_a_refusal_by_the_inner_framework_holds_nothing_at_the_outer(serve, handler, ledger, registered):
    far = serve(ANSWER)
    outer, inner = handler(Budget(calls=5)), LangChainHandler(Budget(calls=1), ledger=ledger)
    manager = no_handlers()
    manager.add_handler(outer)
    model = OverLangChain(model=_langchain(far, callbacks=[inner]), callback_manager=manager)
    model.complete(QUESTION)
    with pytest.raises(BudgetExceeded):
        model.complete(QUESTION)
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert sorted(books.spent("calls")) == [1, 1]
    inner.close()


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_the_reverse_is_one_request_too(serve, meter, ledger, registered, how):
    far = serve(ANSWER)
    model = OverLlamaIndex(inner=chat(far))
    with track(Budget(calls=5), Budget(usd="0.50"), meter=meter()):
        if how == "invoke":
            model.invoke(QUESTION)
        else:
            asyncio.run(model.ainvoke(QUESTION))
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert books.spent("calls") == [1]


def test_calls_of_both_side_by_side_are_two(serve, meter, ledger, registered):
    far = serve(ANSWER)
    with track(Budget(usd="0.50"), meter=meter()):
        stream = OverLangChain(model=_langchain(far)).stream_complete(QUESTION)
        next(stream)
        chat(far).complete(QUESTION)
        _langchain(far).invoke(QUESTION)
        list(stream)
    audit(far, ledger, requests=3, entries=3, usd="0.00081")


async def test_interleaved_and_sequential_calls_of_both_are_as_many_as_their_requests(serve, meter, ledger, registered):
    far = serve(ANSWER)
    with track(Budget(calls=20), meter=meter()):
        await asyncio.gather(*(chat(far).acomplete(QUESTION) for _ in range(3)))
        for _ in range(5):
            await _langchain(far).ainvoke(QUESTION)
        streams = [await chat(far).astream_chat(ASK) for _ in range(2)]
        for stream in streams:
            async for _ in stream:
                pass
    audit(far, ledger, requests=10, entries=10, usd="0.0027")


@pytest.mark.parametrize("name", [3, "no name", ""])
def test_only_a_class_can_be_a_wrapper(name):
    with pytest.raises(ConfigError, match="register_wrapper"):
        register_wrapper(name)
