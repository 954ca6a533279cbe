"""LlamaIndex's traps (facts/llamaindex.md 1.4, 2, 4, 7, 13): each ends on the books as it did at the server.

Every answer is 1,000 tokens in and 200 out of gpt-4o-mini: $0.00027.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from contextlib import suppress
from typing import Any

import pytest
from llama_index.core import PromptTemplate, Settings, get_response_synthesizer
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import LLM, ChatMessage, CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.llms.anthropic import Anthropic
from pydantic import PrivateAttr

from ai_budget_callbacks import Budget, BudgetExceeded, Price, PriceUnknown, track
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.llama_index.unmetered import forget_named
from tests.llama.kit import ASK, QUESTION, City, chat, claude, embedding, index_of, no_handlers, script
from tests.support import llama_versions
from tests.support.audit import audit, read_back

PAID = {"input_tokens": 1000, "output_tokens": 200}
ANSWER = Reply(text="The answer is four.", **PAID)
NODES = [NodeWithScore(node=TextNode(text="Two and two is four."), score=1.0)]


def managed(*handlers):
    manager = no_handlers()
    manager.set_handlers(list(handlers))
    return manager


class Tracer(BaseCallbackHandler):
    """Another handler in the same manager."""

    def __init__(self, start=None, end=None):
        super().__init__([], [])
        self.seen, self._start, self._end = [], start, end

    def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **kwargs):
        if event_type == CBEventType.LLM:
            self.seen.append("start")
            if self._start is not None:
                raise self._start
        return event_id

    def on_event_end(self, event_type, payload=None, event_id="", **kwargs):
        if event_type == CBEventType.LLM:
            self.seen.append("error" if (payload or {}).get(EventPayload.EXCEPTION) else "end")
            if self._end is not None:
                raise self._end

    def start_trace(self, trace_id=None):
        pass

    def end_trace(self, trace_id=None, trace_map=None):
        pass


# -- streams nobody reads


@pytest.mark.parametrize("make", [chat, claude], ids=["OpenAI sends when read", "Anthropic sends when made"])
def test_a_stream_that_is_dropped_unread_holds_nothing(serve, handler, ledger, make):
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    stream = make(far, gate).stream_chat(ASK)
    assert len(read_back(ledger).holds) == 1, "held when it is made: a lazy stream is not checked again when it sends"
    del stream
    gc.collect()
    sent = len(far.requests)
    assert sent == (0 if make is chat else 1)
    books = audit(far, ledger, requests=sent, entries=sent, exact=False)
    assert books.statuses == ["unknown"] * sent
    assert books.booked_usd >= far.billed_usd


@pytest.mark.parametrize("make", [chat, claude], ids=["OpenAI", "Anthropic"])
async def test_an_async_stream_that_is_dropped_unread_holds_nothing(serve, handler, ledger, make):
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    stream = await make(far, gate).astream_chat(ASK)
    del stream
    gc.collect()
    await asyncio.sleep(0.05)
    sent = len(far.requests)
    assert sent == (0 if make is chat else 1)
    books = audit(far, ledger, requests=sent, entries=sent, exact=False)
    assert books.statuses == ["unknown"] * sent


def test_unread_streams_do_not_starve_a_budget(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    model = chat(far, gate)
    for _ in range(3):
        model.stream_chat(ASK)
        gc.collect()
    model.chat(ASK)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_lazy_streams_cannot_pass_a_budget_together(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=2))
    model = chat(far, gate)
    streams = [model.stream_chat(ASK), model.stream_chat(ASK)]
    with pytest.raises(BudgetExceeded):
        model.stream_chat(ASK)
    for stream in streams:
        list(stream)
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


async def test_a_task_cancelled_in_the_middle_of_a_stream_is_booked(serve, handler, ledger):
    far = serve(Reply(text="one two three four five six", chunk_delay_s=0.2, **PAID))
    model = chat(far, handler(Budget(usd="0.50")))

    async def read():
        async for _ in await model.astream_chat(ASK):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.7)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd >= far.billed_usd


def test_what_the_server_says_of_a_stream_is_asked_for_where_openai_does_not_say(serve, handler, ledger):
    far = serve(ANSWER)
    list(chat(far, handler(Budget(usd="0.50"))).stream_chat(ASK))
    assert far.requests[0].body["stream_options"] == {"include_usage": True}
    assert audit(far, ledger, requests=1, entries=1, usd="0.00027").statuses == ["priced"]


def test_a_user_who_set_stream_options_keeps_them(serve, handler, ledger):
    far = serve(ANSWER)
    list(chat(far, handler(Budget(usd="0.50"))).stream_chat(ASK, stream_options={"include_usage": False}))
    assert far.requests[0].body["stream_options"] == {"include_usage": False}
    assert audit(far, ledger, requests=1, entries=1, exact=False).statuses == ["estimated"]


# -- embeddings


def test_embeddings_from_the_cache_are_free(serve, handler, ledger):
    llama_versions.needs(llama_versions.LACKS_EMBEDDINGS_CACHE)
    far, gate = serve(Reply(input_tokens=5)), handler(Budget(usd="0.50"))
    model = embedding(far, gate, embeddings_cache=SimpleKVStore())
    for _ in range(2):
        model.get_text_embedding("a text of forty bytes, ten of its words.")
    books = audit(far, ledger, requests=1, entries=2, exact=False)
    assert books.statuses == ["estimated", "free"]
    assert books.entries[1]["booked_pico"] == 0


def test_only_the_texts_that_are_not_cached_are_counted(serve, handler, ledger):
    llama_versions.needs(llama_versions.LACKS_EMBEDDINGS_CACHE)
    far, gate = serve(Reply(input_tokens=5)), handler(Budget(usd="0.50"))
    model = embedding(far, gate, embeddings_cache=SimpleKVStore())
    model.get_text_embedding("x" * 50)
    model.get_text_embedding_batch(["x" * 50, "y" * 100])
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    # 50 and 100 bytes at 2.5 bytes a token
    assert [row["usage"] for row in books.entries] == [{"input_uncached": 20}, {"input_uncached": 40}]


def test_embeddings_are_counted_from_the_texts_of_each_request(serve, handler, ledger):
    far, gate = serve(Reply(input_tokens=5)), handler(Budget(usd="0.50"))
    embedding(far, gate).get_text_embedding_batch(["a" * 10, "b" * 20, "c" * 30, "d" * 40, "e" * 50])
    books = audit(far, ledger, requests=3, entries=3, exact=False)
    assert [row["usage"]["input_uncached"] for row in books.entries] == [12, 28, 20]
    # 12 x 0.02 per million
    assert books.entries[0]["cost_usd"] == "0.00000024"
    assert books.statuses == ["estimated"] * 3


async def test_a_batch_that_is_refused_in_the_middle_sends_and_holds_nothing(serve, handler, ledger):
    far, gate = serve(Reply(input_tokens=5)), handler(Budget(calls=2))
    with pytest.raises(BudgetExceeded):
        await embedding(far, gate).aget_text_embedding_batch(["a"] * 8)
    audit(far, ledger, requests=0, entries=0, usd="0")


async def test_a_batch_of_which_one_request_fails_is_booked_as_unknown(serve, handler, ledger):
    llama_versions.needs(llama_versions.LACKS_EMBEDDING_RETRIES)
    far = serve([Reply(input_tokens=5), Reply(status=500, delay_s=0.3), Reply(input_tokens=5)])
    with pytest.raises(Exception, match="500"):
        await embedding(far, handler(Budget(usd="0.50"))).aget_text_embedding_batch(["a" * 40] * 6)
    books = audit(far, ledger, requests=3, entries=3, exact=False)
    assert books.statuses == ["unknown"] * 3
    assert books.booked_usd > 0


# -- other handlers beside the gate


def test_a_tracer_does_not_see_a_refused_call(serve, handler, ledger):
    far, gate, tracer = serve(ANSWER), handler(Budget(calls=1)), Tracer()
    model = chat(far, callback_manager=managed(tracer, gate))
    model.chat(ASK)
    with pytest.raises(BudgetExceeded):
        model.chat(ASK)
    assert tracer.seen == ["start", "end"]


def test_a_handler_that_raises_at_the_end_does_not_lose_the_entry(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    model = chat(far, callback_manager=managed(Tracer(end=RuntimeError("sink is down")), gate))
    with pytest.raises(RuntimeError, match="sink"):
        model.chat(ASK)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_a_handler_that_stops_a_call_leaves_no_hold(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    model = chat(far, callback_manager=managed(gate, Tracer(start=RuntimeError("not now"))))
    with pytest.raises(RuntimeError, match="not now"):
        model.chat(ASK)
    audit(far, ledger, requests=0, entries=0, usd="0")


class _Limiter:
    def acquire(self, num_tokens=0):
        raise RuntimeError("slow down")

    async def async_acquire(self, num_tokens=0):
        raise RuntimeError("slow down")


def test_a_rate_limiter_that_stops_a_call_leaves_no_hold(serve, handler, ledger):
    llama_versions.needs(llama_versions.LACKS_RATE_LIMITER)
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    model = chat(far, gate)
    model.rate_limiter = _Limiter()
    with pytest.raises(RuntimeError, match="slow down"):
        model.chat(ASK)
    audit(far, ledger, requests=0, entries=0, usd="0")


# -- managers that are replaced


def test_a_gate_is_put_back_where_an_engine_replaced_the_manager(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=2))
    model = chat(far, gate)
    model.complete(QUESTION)
    synthesizer = get_response_synthesizer(llm=model)
    assert gate not in model.callback_manager.handlers, "core replaces the manager"
    synthesizer.synthesize(QUESTION, NODES)
    with pytest.raises(BudgetExceeded):
        synthesizer.synthesize(QUESTION, NODES)
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_gate_is_put_back_even_where_the_model_had_no_call_before(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    synthesizer = get_response_synthesizer(llm=chat(far, gate))
    synthesizer.synthesize(QUESTION, NODES)
    with pytest.raises(BudgetExceeded):
        synthesizer.synthesize(QUESTION, NODES)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_an_index_over_models_with_a_handler_in_their_constructors_is_limited(serve, handler, ledger):
    far, gate = serve(script), handler(Budget(calls=2))
    engine = index_of(embedding(far, gate)).as_query_engine(llm=chat(far, gate))
    with pytest.raises(BudgetExceeded):
        engine.query(QUESTION)
    audit(far, ledger, requests=2, entries=2, exact=False)


def test_a_handler_that_is_attached_nowhere_says_so(serve, handler, caplog):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    chat(far).chat(ASK)
    with caplog.at_level(logging.WARNING, logger="ai_budget_callbacks"):
        assert gate.summary().calls == 0
    assert "has seen no LlamaIndex event" in caplog.text
    assert "track() and install() reach every model" in caplog.text


def test_a_handler_that_was_taken_out_stays_out(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    model = chat(far, gate)
    model.chat(ASK)
    model.callback_manager.remove_handler(gate)
    model.chat(ASK)
    audit(far, ledger, requests=2, entries=1, exact=False)


def test_a_handler_of_one_model_counts_no_other(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    chat(far, gate).chat(ASK)
    chat(far).chat(ASK)
    audit(far, ledger, requests=2, entries=1, exact=False)


def test_settings_set_after_a_model_was_made_reach_it_when_core_says_so(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    Settings.llm = chat(far)
    Settings.callback_manager = CallbackManager([gate])
    Settings.llm.chat(ASK)
    with pytest.raises(BudgetExceeded):
        Settings.llm.chat(ASK)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


# -- requests that no event reports


class Undecorated(LLM):
    """A model class whose methods lack core's decorators."""

    inner: Any = None

    @property
    def metadata(self):
        return LLMMetadata(model_name="gpt-4o-mini")

    def chat(self, messages, **kwargs):
        answer = self.inner.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": message.content} for message in messages]
        )
        return ChatResponse(message=ChatMessage(role="assistant", content=answer.choices[0].message.content))

    def complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError

    stream_chat = stream_complete = achat = acomplete = astream_chat = astream_complete = complete


class Decorated(Undecorated):
    """The same as it should be."""

    chat = llm_chat_callback()(lambda self, messages, **kwargs: Undecorated.chat(self, messages, **kwargs))


def _undecorated(far):
    import openai

    return Undecorated(inner=openai.OpenAI(base_url=far.base_url, api_key="sk-loopback", max_retries=0))


def test_a_model_without_decorators_is_counted_after_the_fact_and_named(serve, meter, ledger, caplog):
    far = serve(Reply(text="x" * 500, **PAID))
    forget_named()
    own = meter(prices={"gpt-4o-mini": Price(input="0.15", output="0.60")})
    with caplog.at_level(logging.WARNING, logger="ai_budget_callbacks"), track(Budget(usd="0.50"), meter=own):
        _undecorated(far).chat(ASK)
        _undecorated(far).chat(ASK)
    entry = audit(far, ledger, requests=2, entries=2, exact=False).entries[0]
    # 21 bytes at 2.5 a token and 16 of framing: 25 in; 500 bytes: 200 out
    assert (entry["status"], entry["usage"]) == ("estimated", {"input_uncached": 25, "output_text": 200})
    assert caplog.text.count("Undecorated.chat() is unmetered") == 1


def test_a_model_without_decorators_and_without_a_price_is_on_the_books_and_then_refused(serve, meter, ledger):
    far = serve(ANSWER)
    own = meter()
    with pytest.raises(PriceUnknown), track(Budget(usd="0.50"), meter=own):
        _undecorated(far).chat(ASK)  # it is sent; the block tells
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert (books.statuses, books.one()["booked_pico"]) == (["unpriced"], None)
    with pytest.raises(PriceUnknown), track(Budget(usd="0.50"), meter=own):
        Decorated(inner=_undecorated(far).inner).chat(ASK)
    assert len(far.requests) == 1


def test_nothing_is_said_of_models_nobody_counts(serve, handler, caplog):
    far = serve(ANSWER)
    forget_named()
    handler(Budget(usd="0.50"))  # attached nowhere
    with caplog.at_level(logging.WARNING, logger="ai_budget_callbacks"):
        chat(far).chat(ASK)
        _undecorated(far).chat(ASK)
    assert "unmetered" not in caplog.text


def test_calls_of_a_model_without_decorators_use_up_the_budget_of_the_others(serve, meter, ledger):
    far = serve(ANSWER)
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter()):
        _undecorated(far).chat(ASK)
        chat(far).chat(ASK)
    audit(far, ledger, requests=1, entries=1, exact=False)


class Slow(Anthropic):
    """Waits before it formats its prompt."""

    _reached: Any = PrivateAttr(default_factory=threading.Event)
    _go_on: Any = PrivateAttr(default_factory=threading.Event)

    @get_dispatcher(__name__).span
    def structured_predict(self, output_cls, prompt, llm_kwargs=None, **prompt_args):
        self._reached.set()
        assert self._go_on.wait(10)
        return super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)


def test_a_refused_structured_call_does_not_stop_another_one_with_the_same_prompt(serve, meter, ledger):
    llama_versions.needs(llama_versions.LACKS_NATIVE_CLAUDE)
    far = serve(Reply(text='{"name": "Bonn"}', **PAID))
    prompt, own, refused = PromptTemplate("Name a city: {topic}"), meter(), []
    slow = Slow(base_url=far.anthropic_url, api_key="sk-loopback", model="claude-sonnet-4-5", max_retries=0)

    def limited():
        with suppress(BudgetExceeded), track(Budget(calls=1), meter=own):
            claude(far).structured_predict(City, prompt, topic="a")
            try:
                slow.structured_predict(City, prompt, topic="a")
            except BudgetExceeded:
                refused.append(1)

    thread = threading.Thread(target=limited)
    thread.start()
    assert slow._reached.wait(10)
    assert "format_messages" in vars(prompt), "the refusal waits in the prompt"
    with track(Budget(calls=5), meter=own):
        assert claude(far).structured_predict(City, prompt, topic="a") == City(name="Bonn")
    slow._go_on.set()
    thread.join()
    assert refused == [1]
    audit(far, ledger, requests=2, entries=2, exact=False)
    assert "format_messages" not in vars(prompt), "the prompt is left as it was"


async def test_native_structured_calls_share_one_limit(serve, meter, ledger):
    llama_versions.needs(llama_versions.LACKS_NATIVE_CLAUDE)
    far = serve(Reply(text='{"name": "Bonn"}', delay_s=0.1, **PAID))
    with suppress(BudgetExceeded):
        async with track(Budget(calls=3), meter=meter()):
            prompt = PromptTemplate("Name a city: {topic}")
            made = [claude(far).astructured_predict(City, prompt, topic="a") for _ in range(12)]
            seen = await asyncio.gather(*made, return_exceptions=True)
    assert sum(isinstance(item, BudgetExceeded) for item in seen) == 9
    audit(far, ledger, requests=3, entries=3, exact=False)


def test_a_native_structured_call_that_fails_costs_nothing(serve, meter, ledger):
    llama_versions.needs(llama_versions.LACKS_NATIVE_CLAUDE)
    far = serve(Reply(status=500))
    with pytest.raises(Exception, match="500"), track(Budget(usd="0.50"), meter=meter()):
        claude(far).structured_predict(City, PromptTemplate("x"))
    audit(far, ledger, requests=1, entries=0, usd="0")


def test_the_worst_case_of_a_native_structured_call_is_not_the_limit_it_ignores(serve, meter, ledger):
    llama_versions.needs(llama_versions.LACKS_NATIVE_CLAUDE)
    far = serve(Reply(text='{"name": "Bonn"}', **PAID))
    # llms-anthropic sends max_tokens=8192 there whatever the model was given: 8,192 x 15 per million is $0.12288 at least
    with pytest.raises(BudgetExceeded), track(Budget(usd="0.12"), meter=meter(reserve="worst_case")):
        claude(far, max_tokens=10).structured_predict(City, PromptTemplate("x"))
    audit(far, ledger, requests=0, entries=0, usd="0")


# -- what it cannot do, it says


def test_prices_of_tools_are_said_to_do_nothing(handler, caplog):
    with caplog.at_level(logging.WARNING, logger="ai_budget_callbacks"):
        handler(Budget(usd="0.50"), prices={"tool/search": Price(request="0.008")})
    assert "Prices of tool/search do nothing under LlamaIndex" in caplog.text


# -- one model inside another


class AsksTwice(CustomLLM):
    """A LlamaIndex model that asks another one twice for one answer."""

    inner: Any = None

    @property
    def metadata(self):
        return LLMMetadata(model_name="gpt-4o-mini")

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        self.inner.complete(prompt)
        return CompletionResponse(text=self.inner.complete(prompt).text)

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def test_a_model_that_asks_another_one_twice_is_two_requests(serve, meter, ledger):
    far = serve(ANSWER)
    own = meter([Budget(calls=5)])
    with track(meter=own):
        AsksTwice(inner=chat(far)).complete(QUESTION)
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert books.spent("calls") == [2]


class AsksTogether(AsksTwice):
    """The same, both at once."""

    @llm_completion_callback()
    async def acomplete(self, prompt, formatted=False, **kwargs):
        answers = await asyncio.gather(self.inner.acomplete(prompt), self.inner.acomplete(prompt))
        return CompletionResponse(text=answers[0].text)


async def test_a_model_that_asks_another_one_two_at_once_is_two_requests(serve, meter, ledger):
    far = serve(Reply(text="The answer is four.", delay_s=0.2, **PAID))
    own = meter([Budget(calls=5)])
    with track(meter=own):
        await AsksTogether(inner=chat(far)).acomplete(QUESTION)
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert books.spent("calls") == [2]


class Router(AsksTwice):
    """A model of one's own around another one, once."""

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self.inner.complete(prompt).text)

    @property
    def metadata(self):
        return LLMMetadata(model_name="router")


def test_a_model_around_another_one_is_priced_as_that_one(serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(usd="0.50"), meter=meter(prices={"router": "free"})) as run:
        Router(inner=chat(far)).complete(QUESTION)
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert (books.one()["provider"], books.one()["model"], books.one()["status"]) == ("openai", "gpt-4o-mini", "priced")
    assert books.spent() == [run.summary().cost_usd]


def test_a_free_model_around_another_one_does_not_pass_its_limit(serve, meter, ledger):
    far = serve(ANSWER)
    with pytest.raises(BudgetExceeded), track(Budget(usd="0.00027"), meter=meter(prices={"router": "free"})):
        for _ in range(3):
            Router(inner=chat(far)).complete(QUESTION)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
