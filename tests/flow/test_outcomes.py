"""How a call can end, and what each end costs: released, priced, estimated, unknown, unpriced or free.

Nothing that was never billed is booked; nothing that was billed is lost; what nobody saw is booked at its hold.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from decimal import Decimal
from importlib.metadata import version
from typing import TypedDict

import anthropic
import openai
import pytest
from langchain.agents import create_agent
from langchain.agents import middleware as offered
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from ai_budget_callbacks import (
    Budget,
    BudgetExceeded,
    ConfigError,
    LedgerError,
    Price,
    PriceUnknown,
    UsageMissing,
    track,
)
from ai_budget_callbacks.demo.loopback import ChatWire, Reply, sse
from ai_budget_callbacks.events import BudgetWarning, CallReleased, CallReserved, CallSettled, LimitCrossed
from tests.flow.kit import audit, chat, claude, read_back, responses, text_model
from tests.support.provider import ClaudeReply, FarEnd
from tests.support.versions import LACKS_SPARED_REFUSALS, LACKS_V3_EVENTS, lacks_middleware, needs

QUESTION = "What is two plus two?"
WORDS = "one two three four five six seven eight nine ten"
ANSWER = Reply(text="Four.", input_tokens=1000, output_tokens=200)  # $0.00027 at gpt-4o-mini
UNIT = Decimal("0.00027")


def _config(budget):
    return {"callbacks": [budget]}


def _name(value):
    return getattr(value, "__name__", str(value)).strip("_")


def _held(events):
    """What the only call held."""
    (held,) = [event.held_usd for event in events if isinstance(event, CallReserved)]
    return held


class Answer(BaseModel):
    """A number."""

    number: int


# -- nothing was billed: no entry, no hold


def _invoke(model, config):
    return model.invoke(QUESTION, config=config)


async def _ainvoke(model, config):
    return await model.ainvoke(QUESTION, config=config)


def _stream(model, config):
    return list(model.stream(QUESTION, config=config))


async def _astream(model, config):
    return [chunk async for chunk in model.astream(QUESTION, config=config)]


WAYS = (_invoke, _ainvoke, _stream, _astream)


async def _run(way, model, config):
    made = way(model, config)
    return await made if hasattr(made, "__await__") else made


@pytest.mark.parametrize(
    ("status", "way"),
    [(400, _invoke), (401, _ainvoke), (429, _stream), (500, _astream), (429, _ainvoke), (500, _invoke)],
    ids=_name,
)
@pytest.mark.parametrize("make", [chat, claude], ids=_name)
async def test_an_http_error_costs_nothing(serve, handler, ledger, make, status, way):
    far, events = serve(Reply(status=status)), []
    budget = handler(Budget(usd="1"), listeners=[events.append])
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)):
        await _run(way, make(far), _config(budget))
    audit(far, ledger, requests=1, entries=0, usd="0")
    assert [type(event) for event in events] == [CallReserved, CallReleased], "the hold must be given back, once"


@pytest.mark.parametrize("make", [responses, text_model], ids=_name)
async def test_an_http_error_of_the_other_endpoints_costs_nothing(serve, handler, ledger, make):
    far = serve(Reply(status=429))
    for way in (_invoke, _ainvoke, _stream):
        with pytest.raises(openai.RateLimitError):
            await _run(way, make(far), _config(handler(Budget(usd="1"))))
    audit(far, ledger, requests=3, entries=0, usd="0")


@pytest.mark.parametrize("way", [_invoke, _astream], ids=_name)
async def test_the_clients_own_retry_is_one_call(serve, handler, ledger, way):
    far = serve([Reply(status=500, headers={"retry-after-ms": "1"}), ANSWER])
    await _run(way, chat(far, max_retries=2), _config(handler(Budget(usd="1"))))
    audit(far, ledger, requests=2, entries=1, usd="0.00027")


@pytest.mark.parametrize(
    ("make", "way"),
    [(chat, _invoke), (chat, _ainvoke), (chat, _stream), (claude, _invoke), (claude, _astream)],
    ids=_name,
)
async def test_a_refused_connection_costs_nothing(serve, handler, ledger, make, way):
    far = serve(ANSWER)
    model = make(far)
    far.stop()
    with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError)):
        await _run(way, model, _config(handler(Budget(usd="1"))))
    audit(far, ledger, requests=0, entries=0, usd="0")


# -- sent, and no answer: unknown, booked at the hold


@pytest.mark.parametrize("reserve", ["expected", "worst_case", "none"])
@pytest.mark.parametrize(("make", "way"), [(chat, _invoke), (chat, _ainvoke), (claude, _invoke)], ids=_name)
async def test_a_read_timeout_is_booked_at_its_hold(serve, handler, ledger, make, way, reserve):
    reply = (ClaudeReply if make is claude else Reply)(input_tokens=20, output_tokens=100, delay_s=1.5)
    far, events = serve(reply), []
    budget = handler(Budget(usd="5"), reserve=reserve, listeners=[events.append])
    with pytest.raises((openai.APITimeoutError, anthropic.APITimeoutError)):
        await _run(way, make(far, timeout=0.25, max_tokens=100), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"], "a call that was sent and never answered may have been billed"
    assert books.one()["cost_pico"] is None, "nobody knows what it cost"
    assert books.booked_usd >= far.billed_usd > 0, f"${far.billed_usd} was billed, only ${books.booked_usd} booked"
    if reserve != "none":
        assert books.booked_usd == _held(events)
    assert "timed out" in books.one()["reason"].lower() or "timeout" in books.one()["reason"].lower()


# -- cut short: estimated, never less than billed where the hold is a worst case


@pytest.mark.parametrize("way", [_stream, _astream], ids=_name)
@pytest.mark.parametrize("make", [chat, responses, claude], ids=_name)
async def test_a_stream_that_breaks_is_booked_at_no_less_than_billed(serve, handler, ledger, make, way):
    reply = (ClaudeReply if make is claude else Reply)(
        text=WORDS, input_tokens=20, output_tokens=100, cut_after_chunks=7, chunk_delay_s=0.01
    )
    far, events = serve(reply), []
    budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
    with pytest.raises(Exception):  # noqa: PT011, B017 - each client has its own word for it
        await _run(way, make(far, max_tokens=100), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"], f"an answer that was cut is {books.statuses}"
    assert books.booked_usd >= far.billed_usd, f"${far.billed_usd} was billed, only ${books.booked_usd} booked"
    assert books.booked_usd == _held(events)


def _closed(model, config):
    stream = model.stream(QUESTION, config=config)
    next(stream), next(stream), next(stream)
    stream.close()


async def _aclosed(model, config):
    stream = model.astream(QUESTION, config=config)
    for _ in range(3):
        await anext(stream)
    await stream.aclose()


async def _broken_out(model, config):
    async for _ in model.astream(QUESTION, config=config):
        break
    (budget,) = config["callbacks"]
    await _until(lambda: not budget.meter.ledger.open_holds())  # the loop closes the generator it was left with


async def _until(done, seconds=2.0):
    """Wait for something that other tasks or threads do."""
    for _ in range(int(seconds * 100)):
        if done():
            return
        await asyncio.sleep(0.01)


async def _cancelled(model, config):
    started = asyncio.Event()

    async def consume():
        async for _ in model.astream(QUESTION, config=config):
            started.set()

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("way", [_closed, _aclosed, _broken_out, _cancelled], ids=_name)
@pytest.mark.parametrize("make", [chat, responses, claude], ids=_name)
async def test_a_stream_that_is_left_is_booked_at_no_less_than_billed(serve, handler, ledger, make, way):
    reply = (ClaudeReply if make is claude else Reply)(
        text=WORDS, input_tokens=20, output_tokens=100, chunk_delay_s=0.02
    )
    far, events = serve(reply), []
    budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
    await _run(way, make(far, max_tokens=100), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses[0] in {"estimated", "unknown"}, f"a stream that was left is {books.statuses}"
    assert books.booked_usd >= far.billed_usd, f"${far.billed_usd} was billed, only ${books.booked_usd} booked"
    assert books.booked_usd == _held(events)


async def test_a_left_stream_in_expected_mode_keeps_its_hold(serve, handler, ledger):
    far, events = serve(Reply(text=WORDS, input_tokens=20, output_tokens=100, chunk_delay_s=0.01)), []
    budget = handler(Budget(usd="5"), listeners=[events.append])
    _closed(chat(far, max_tokens=100), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd == _held(events) > 0, "three visible words do not bound what was generated"


@pytest.mark.parametrize("way", [_invoke, _ainvoke], ids=_name)
@pytest.mark.parametrize("make", [chat, claude], ids=_name)
async def test_a_connection_that_dies_before_the_body_may_have_been_billed(serve, handler, ledger, make, way):
    reply = (ClaudeReply if make is claude else Reply)(input_tokens=20, output_tokens=100, cut_after_chunks=0)
    far, events = serve(reply), []
    budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
    with pytest.raises(Exception):  # noqa: PT011, B017 - each client has its own word for it
        await _run(way, make(far, max_tokens=100), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"]
    assert books.booked_usd == _held(events) >= far.billed_usd > 0


class _BreaksOff(ChatWire):
    """An error object with a code of its own inside a 200 stream, as OpenRouter sends it."""

    def frames(self):
        error = {"message": "upstream gave up", "type": "server_error", "param": None, "code": 400}
        return [*super().frames()[:5], sse({"error": error}), b"data: [DONE]\n\n"]


@pytest.mark.parametrize("way", [_stream, _astream], ids=_name)
async def test_an_error_object_in_a_200_stream_is_no_http_error(handler, ledger, way):
    class BreaksOff(FarEnd):
        wires = {**FarEnd.wires, "/v1/chat/completions": _BreaksOff}

    with BreaksOff(Reply(text=WORDS, input_tokens=20, output_tokens=100)) as far:
        budget = handler(Budget(usd="5"), reserve="worst_case")
        with pytest.raises(openai.APIError):
            await _run(way, chat(far, max_tokens=100), _config(budget))
        books = audit(far, ledger, requests=1, entries=1, exact=False)
        assert books.statuses == ["estimated"], "tokens were generated before it, so it is billed"
        assert books.booked_usd >= far.billed_usd


async def test_a_cancelled_stream_that_crosses_stays_cancelled(serve, handler, ledger):
    """`at_limit="raise"` must not turn a CancelledError into another exception: timeouts and task groups rely on it."""
    far = serve(Reply(text=WORDS, input_tokens=1000, output_tokens=200, chunk_delay_s=0.02))
    budget = handler(Budget(usd="0.000001", at_limit="raise"), reserve="none")
    await _cancelled(chat(far), _config(budget))
    audit(far, ledger, requests=1, entries=1, exact=False)
    assert budget.exceeded, "the cut answer crossed the limit"


async def test_a_broken_stream_that_crosses_keeps_the_providers_error(serve, handler, ledger):
    far = serve(Reply(text=WORDS, input_tokens=1000, output_tokens=200, cut_after_chunks=7))
    budget = handler(Budget(usd="0.000001", at_limit="raise"), reserve="none")
    with pytest.raises(Exception) as caught:  # noqa: PT011
        _stream(chat(far), _config(budget))
    assert not isinstance(caught.value, BudgetExceeded) or caught.value.__context__ is not None, (
        "the connection error is gone: nobody can tell why there is no answer"
    )
    audit(far, ledger, requests=1, entries=1, exact=False)
    assert budget.exceeded


# -- cancelled: no event comes, so the end of the run closes it


async def test_a_cancelled_call_in_a_chain_is_closed_at_the_runs_end(serve, handler, ledger):
    far, events = serve(Reply(input_tokens=20, output_tokens=100, delay_s=0.5)), []
    budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
    model = chat(far, max_tokens=100)

    async def ask(question):
        return await model.ainvoke(question)

    task = asyncio.create_task(RunnableLambda(ask).ainvoke(QUESTION, config=_config(budget)))
    while not far.bill:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"], "a cancelled call gives no event; its run's end must close it"
    assert books.booked_usd == _held(events) >= far.billed_usd


async def test_a_cancelled_bare_call_is_closed_when_its_task_ends(serve, handler, ledger):
    far = serve(Reply(input_tokens=20, output_tokens=100, delay_s=0.5))
    budget = handler(Budget(usd="5"), reserve="worst_case")
    task = asyncio.create_task(chat(far, max_tokens=100).ainvoke(QUESTION, config=_config(budget)))
    while not far.bill:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: read_back(ledger).entries, seconds=0.5)
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"], "DESIGN 4: a done-callback on the current task closes it (best effort)"
    assert books.booked_usd >= far.billed_usd


async def test_a_cancelled_call_in_a_block_is_closed_at_the_blocks_end(serve, meter, ledger):
    far = serve(Reply(input_tokens=20, output_tokens=100, delay_s=0.5))
    async with track(Budget(usd="5"), meter=meter(reserve="worst_case")):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await chat(far, max_tokens=100).ainvoke(QUESTION)
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"]
    assert books.booked_usd >= far.billed_usd


async def test_a_call_nobody_ends_is_booked_when_its_time_is_up(serve, meter, handler, ledger):
    far = serve(Reply(input_tokens=20, output_tokens=100, delay_s=0.5))
    budget = handler(Budget(usd="5", per="total", name="all"), reserve="worst_case", ttl_s=0.2)

    async def lost():
        await chat(far, max_tokens=100).ainvoke(QUESTION, config=_config(budget))

    task = asyncio.create_task(lost())
    while not far.bill:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.25)
    meter()  # any meter that opens the file sweeps it
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"]
    assert books.spent() == [books.booked_usd], "the balance must count what may have been billed"
    assert books.booked_usd >= far.billed_usd


async def test_a_late_end_corrects_the_books(serve, handler, ledger):
    """A sync call in a thread goes on under a cancelled parent; its answer arrives after the run was closed."""
    far = serve(Reply(text="Four.", input_tokens=1000, output_tokens=200, delay_s=0.3))
    budget = handler(Budget(usd="5"))
    model = chat(far)
    chain = RunnableLambda(lambda question: model.invoke(question))
    task = asyncio.create_task(chain.ainvoke(QUESTION, config=_config(budget)))
    while not far.bill:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    books = read_back(ledger)
    assert books.statuses == ["unknown"], f"after the cancelled run: {books.statuses}"
    await _until(lambda: len(read_back(ledger).entries) == 2)
    books = audit(far, ledger, requests=1, entries=2, usd="0.00027")
    assert [row["kind"] for row in books.entries] == ["call", "adjustment"]
    assert books.entries[1]["adjusts"] == books.entries[0]["id"]
    assert books.spent() == [UNIT], "the balance must end at what was billed"
    summary = budget.summary()
    assert (summary.calls, summary.cost_usd) == (1, UNIT), f"one answer: {summary.to_dict()}"


# -- usage that is missing or says nothing: estimated, never 0


@pytest.mark.parametrize("way", [_stream, _astream], ids=_name)
async def test_a_stream_without_usage_is_estimated(serve, handler, ledger, way):
    far = serve(Reply(text=WORDS, input_tokens=15, output_tokens=12))
    await _run(way, chat(far, stream_usage=False), _config(handler(Budget(usd="1"))))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    entry = books.one()
    assert entry["status"] == "estimated"
    # 21 bytes / 2.5 = 9, + 16 = 25 input; 48 bytes / 2.5 = 20 output: 25 x 0.15 + 20 x 0.60 = 15.75 per million
    assert books.booked_usd == Decimal("0.00001575"), f"the estimate by hand is $0.00001575, booked ${books.booked_usd}"
    assert books.booked_usd >= far.billed_usd
    assert entry["reason"] == "the provider reported no usage"


async def test_a_stream_without_usage_under_worst_case_keeps_its_hold(serve, handler, ledger):
    far, events = serve(Reply(text=WORDS, input_tokens=15, output_tokens=100)), []
    budget = handler(Budget(usd="1"), reserve="worst_case", listeners=[events.append])
    _stream(chat(far, stream_usage=False, max_tokens=100), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd == _held(events) >= far.billed_usd


ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
NULLS = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}


@pytest.mark.parametrize("usage", [ZEROS, NULLS, None, "omit"], ids=["zeros", "nulls", "null", "omitted"])
@pytest.mark.parametrize("way", [_invoke, _stream], ids=_name)
async def test_an_answer_whose_usage_says_nothing_is_not_free(serve, handler, ledger, way, usage):
    far = serve(Reply(text=WORDS, input_tokens=15, output_tokens=12, usage=usage))
    await _run(way, chat(far), _config(handler(Budget(usd="1"))))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"], f"no usable usage came, and the entry says {books.statuses}"
    assert books.booked_usd == Decimal("0.00001575"), f"an answer with content was booked at ${books.booked_usd}"


def test_a_claude_stream_that_reports_output_only_is_not_billed_at_output_only(serve, handler, ledger):
    far = serve(ClaudeReply(text=WORDS, input_tokens=15, output_tokens=12, delta_output_only=True))
    _stream(claude(far), _config(handler(Budget(usd="1"))))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"], "the input count was lost on the way, so this is an estimate"
    assert books.booked_usd >= far.billed_usd, f"${far.billed_usd} was billed, only ${books.booked_usd} booked"


@pytest.mark.parametrize("way", [_stream, _astream], ids=_name)
async def test_insisting_on_usage_books_first_and_raises_then(serve, handler, ledger, way):
    far = serve(Reply(text=WORDS, input_tokens=15, output_tokens=12))
    budget = handler(Budget(usd="1"), on_missing_usage="raise")
    with pytest.raises(UsageMissing, match="stream_usage=True") as caught:
        await _run(way, chat(far, stream_usage=False), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert caught.value.entry.id == books.one()["id"], "the exception names the entry that was booked"
    assert caught.value.response is not None, "the answer was paid for and must not be lost"
    assert QUESTION not in str(caught.value) and WORDS not in str(caught.value)


async def test_insisting_on_usage_does_not_buy_the_answer_again(serve, handler, ledger):
    """Agent middleware retries what is no non-retryable `ModelError`; each retry is another paid answer."""
    needs(lacks_middleware("ModelRetryMiddleware"))
    needs(LACKS_SPARED_REFUSALS)
    far = serve(Reply(text=WORDS, input_tokens=15, output_tokens=12, usage="omit"))
    middleware = [offered.ModelRetryMiddleware(max_retries=3, initial_delay=0.0, jitter=False)]
    agent = create_agent(chat(far), [], middleware=middleware)
    with suppress(UsageMissing):
        agent.invoke(
            {"messages": [("human", QUESTION)]}, config=_config(handler(Budget(usd="1"), on_missing_usage="raise"))
        )
    audit(far, ledger, requests=1, entries=1, exact=False)


def test_an_agent_that_is_streamed_loses_usage_and_is_estimated(serve, handler, ledger):
    """`stream_mode="messages"` turns invokes into streams; with a base_url ChatOpenAI asks for no usage then."""
    far = serve(Reply(text=WORDS, input_tokens=15, output_tokens=12))
    agent = create_agent(chat(far, stream_usage=None), [])
    config = _config(handler(Budget(usd="1")))
    assert list(agent.stream({"messages": [("human", QUESTION)]}, stream_mode="messages", config=config))
    assert far.requests[0].body.get("stream") is True
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd >= far.billed_usd


# -- paid answers that arrive as errors


@pytest.mark.parametrize("way", [_invoke, _ainvoke], ids=_name)
@pytest.mark.parametrize(
    "reply",
    [
        Reply(text='{"numb', finish_reason="length", input_tokens=1000, output_tokens=200),
        Reply(text='{"number": 4', finish_reason="content_filter", input_tokens=1000, output_tokens=200),
        Reply(text='{"word": "four"}', input_tokens=1000, output_tokens=200),
    ],
    ids=["truncated", "filtered", "wrong shape"],
)
async def test_a_structured_answer_that_fails_to_parse_was_paid_for(serve, handler, ledger, reply, way):
    far = serve(reply)
    with pytest.raises(Exception):  # noqa: PT011, B017 - LengthFinishReasonError, ContentFilter…, ValidationError
        await _run(
            way, chat(far).with_structured_output(Answer, method="json_schema"), _config(handler(Budget(usd="1")))
        )
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert books.statuses == ["priced"], "the provider's body says what it cost"


async def test_a_failed_response_with_usage_is_on_the_books(serve, handler, ledger):
    """Responses API: status "failed" inside HTTP 200, with the usage of what was generated."""
    far = serve(Reply(text="Four.", input_tokens=1000, output_tokens=200, finish_reason="failed"))
    with pytest.raises(Exception):  # noqa: PT011, B017 - langchain-openai raises ValueError
        responses(far).invoke(QUESTION, config=_config(handler(Budget(usd="1"))))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.booked_usd >= far.billed_usd, f"${far.billed_usd} was billed, ${books.booked_usd} booked"


# -- free: the framework's cache, and what the user declares


@pytest.fixture
def llm_cache():
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


@pytest.mark.parametrize("way", [_invoke, _ainvoke], ids=_name)
async def test_a_cache_hit_is_free_and_on_the_books(serve, handler, ledger, llm_cache, way):
    far = serve(ANSWER)
    budget = handler(Budget(usd="1"), Budget(calls=5), Budget(tokens=100_000))
    model = chat(far)
    for _ in range(3):
        await _run(way, model, _config(budget))
    books = audit(far, ledger, requests=1, entries=3, usd="0.00027")
    assert books.statuses == ["priced", "free", "free"]
    assert books.entries[1]["reason"] == "framework cache"
    assert books.spent() == [UNIT], "a cache hit moved a USD balance"
    assert (books.spent("calls"), books.spent("tokens")) == ([1], [1200]), "a cache hit is no provider response"
    assert budget.summary().cost_usd == UNIT


async def test_a_cached_text_completion_has_no_entry(serve, handler, ledger, llm_cache):
    far = serve(Reply(text="Four.", input_tokens=1000, output_tokens=200))
    budget, model = handler(Budget(usd="1")), text_model(far)
    model.invoke(QUESTION, config=_config(budget))
    model.invoke(QUESTION, config=_config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.0019")  # 1000 x 1.50 + 200 x 2.00


def test_one_request_for_two_prompts_is_one_entry(serve, handler, ledger):
    far = serve(Reply(text="Four.", input_tokens=2000, output_tokens=400))
    budget = handler(Budget(usd="1"), Budget(calls=10))
    text_model(far).batch([QUESTION, QUESTION], config=_config(budget))
    # 2000 x 1.50 + 400 x 2.00 = 3800 per million
    books = audit(far, ledger, requests=1, entries=1, usd="0.0038")
    assert books.spent("calls") == [1], "one provider response counts once"


# -- no price


HOUSE = {"house-model": {"input": "0.15", "output": "0.60"}}


@pytest.mark.parametrize("way", [_invoke, _astream], ids=_name)
async def test_a_model_without_a_price_is_refused_before_sending(serve, handler, ledger, way):
    far = serve(ANSWER, prices=HOUSE)
    budget = handler(Budget(usd="1"))
    with pytest.raises(PriceUnknown) as caught:
        await _run(way, chat(far, model="house-model"), _config(budget))
    assert str(caught.value) == (
        f"No price is known for model 'house-model' of provider 'openai' (genai-prices {version('genai-prices')} does "
        "not know 'house-model' of provider 'openai'), and a USD budget applies. Nothing was sent. Declare it where the budget is made:\n"
        '    prices={"house-model": Price(input="0.15", output="0.60", per=1_000_000)}\n'
        '    prices={"house-model": SameAs("provider/model")}  # a deployment or an alias\n'
        '    prices={"house-model": "free"}\n'
        'or allow an amount for each unpriced call: on_unpriced="0.05".'
    )
    audit(far, ledger, requests=0, entries=0, usd="0")
    assert budget.exceeded, "a refusal for want of a price is a refusal"


def test_the_two_lines_of_the_refusal_work(serve, handler, ledger):
    far = serve(ANSWER, prices=HOUSE)
    prices = {"house-model": Price(input="0.15", output="0.60", per=1_000_000)}
    chat(far, model="house-model").invoke(QUESTION, config=_config(handler(Budget(usd="1"), prices=prices)))
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert books.one()["source"]["kind"] == "user", "the entry must say whose price it was"


def test_declared_free_is_free(serve, handler, ledger):
    far = serve(ANSWER, prices={"house-model": {"input": "0", "output": "0"}})
    budget = handler(Budget(usd="1"), Budget(calls=5), prices={"house-model": "free"})
    chat(far, model="house-model").invoke(QUESTION, config=_config(budget))
    books = audit(far, ledger, requests=1, entries=1, usd="0")
    assert books.statuses == ["free"]
    assert books.one()["reason"] == "declared free"
    assert books.spent("calls") == [1], "a free answer is still a call"


def test_an_amount_for_each_unpriced_call(serve, handler, ledger):
    far = serve(ANSWER, prices=HOUSE)
    budget = handler(Budget(usd="0.12"), on_unpriced="0.05")
    model = chat(far, model="house-model")
    model.invoke(QUESTION, config=_config(budget))
    model.invoke(QUESTION, config=_config(budget))
    with pytest.raises(BudgetExceeded):
        model.invoke(QUESTION, config=_config(budget))  # 0.10 spent, 0.02 left
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    assert books.statuses == ["unpriced", "unpriced"]
    assert [row["cost_pico"] for row in books.entries] == [None, None], "nobody knows the cost"
    assert books.spent() == [Decimal("0.10")], "each unpriced call must count $0.05"


def test_without_a_usd_budget_an_unpriced_call_is_recorded(serve, handler, ledger, caplog):
    far = serve(ANSWER, prices=HOUSE)
    budget, model = handler(Budget(calls=5)), chat(far, model="house-model")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            model.invoke(QUESTION, config=_config(budget))
    books = audit(far, ledger, requests=3, entries=3, exact=False)
    assert books.statuses == ["unpriced"] * 3
    assert [row["booked_pico"] for row in books.entries] == [None] * 3, "unknown is no number"
    said = [record for record in caplog.records if "No price is known" in record.getMessage()]
    assert len(said) == 1, f"one warning per model, not {len(said)}"
    assert budget.summary().unpriced_calls == 3


def test_an_answer_of_an_unknown_model_is_booked_at_its_hold(serve, handler, ledger):
    far, events = (
        serve(
            Reply(model="mystery-9000", input_tokens=20, output_tokens=10),
            prices={"mystery-9000": HOUSE["house-model"]},
        ),
        [],
    )
    budget = handler(Budget(usd="1"), listeners=[events.append])
    chat(far, max_tokens=100).invoke(QUESTION, config=_config(budget))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    entry = books.one()
    assert entry["status"] == "unpriced"
    assert entry["response_model"] == "mystery-9000"
    assert books.booked_usd == _held(events) > 0, "an answer nobody can price was booked at nothing"


# -- at the limit


@pytest.mark.parametrize("way", WAYS, ids=_name)
async def test_raise_at_the_limit_comes_after_the_commit_with_the_answer(serve, handler, ledger, way):
    far = serve(ANSWER)
    budget = handler(Budget(usd="0.0002", at_limit="raise"), reserve="none")
    with pytest.raises(BudgetExceeded) as caught:
        await _run(way, chat(far), _config(budget))
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    error, row = caught.value, books.one()
    assert error.response.generations[0][0].text == "Four.", "the answer was paid for and must not be lost"
    assert (error.entry.id, error.entry.cost_pico, error.entry.call_id) == (row["id"], row["cost_pico"], row["call_id"])
    assert (error.limit, error.spent) == (Decimal("0.0002"), UNIT)
    with pytest.raises(BudgetExceeded):
        await _run(way, chat(far), _config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_a_v3_event_stream_that_crosses_is_one_entry(serve, handler, ledger):
    """langchain-core swallows the raise there and fires an error event after the end event."""
    needs(LACKS_V3_EVENTS)
    far = serve(ANSWER)
    budget = handler(Budget(usd="0.0002", at_limit="raise"), reserve="none")
    try:
        stream = await chat(far).astream_events(QUESTION, version="v3", config=_config(budget))
        async for _ in stream:
            pass
    except BudgetExceeded:
        pass
    await _until(lambda: read_back(ledger).entries)  # its producer is a task of its own, and may end after us
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert budget.exceeded, "the framework may swallow the raise, the handler must still say so"
    with pytest.raises(BudgetExceeded):
        chat(far).invoke(QUESTION, config=_config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_warn_never_stops_and_speaks_once(serve, handler, ledger, caplog):
    far, events = serve(ANSWER), []
    budget = handler(Budget(usd="0.0006", at_limit="warn", warn_at=("0.5", "0.8")), listeners=[events.append])
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            chat(far).invoke(QUESTION, config=_config(budget))
    audit(far, ledger, requests=5, entries=5, usd="0.00135")
    assert not budget.exceeded, "a budget that only warns exceeds nothing"
    # spent: 0.00027, 0.00054 (past 0.5 and 0.8), 0.00081 (past the limit), …
    warned = [event.fraction for event in events if isinstance(event, BudgetWarning)]
    assert warned == ["0.5", "0.8"], f"one event for each fraction: {warned}"
    crossed = [event.spent for event in events if isinstance(event, LimitCrossed)]
    assert crossed == [Decimal("0.00081")], f"one call took the balance past its limit; told of {crossed}"


def test_a_warning_is_one_for_each_balance(serve, handler, ledger):
    far, events = serve(ANSWER), []
    budget = handler(Budget(calls=2, by="user"), listeners=[events.append])
    for user in ("alice", "alice", "bob", "bob"):
        chat(far).invoke(QUESTION, config={**_config(budget), "metadata": {"user_id": user}})
    audit(far, ledger, requests=4, entries=4, usd="0.00108")
    warned = [(event.scope, event.spent) for event in events if isinstance(event, BudgetWarning)]
    assert warned == [(("alice",), 2), (("bob",), 2)]


def test_a_failing_listener_changes_no_number(serve, handler, ledger, caplog):
    far = serve(ANSWER)

    def broken(_event):
        raise ZeroDivisionError("a listener's own fault")

    budget = handler(Budget(calls=1), listeners=[broken])
    assert chat(far).invoke(QUESTION, config=_config(budget)).text == "Four."
    with pytest.raises(BudgetExceeded):
        chat(far).invoke(QUESTION, config=_config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert any("listener failed" in record.getMessage() for record in caplog.records), "it must not fail in silence"


# -- content


SECRET, SPOKEN = "the-patients-name-is-Jane-Roe", "her-diagnosis-is-none-of-your-business"  # noqa: S105


def _bytes_of(ledger):
    return b"".join(path.read_bytes() for path in sorted(ledger.parent.glob(f"{ledger.name}*")))


@pytest.mark.parametrize("way", [_invoke, _stream], ids=_name)
async def test_no_content_is_stored(serve, handler, ledger, way):
    far = serve(Reply(text=SPOKEN, input_tokens=1000, output_tokens=200))
    budget = handler(Budget(calls=1))
    model = chat(far).bind(stop=[SECRET + "-stop"])
    model = RunnableLambda(lambda _: SECRET) | model
    await _run(way, model, _config(budget))
    with pytest.raises(BudgetExceeded) as caught:
        await _run(way, model, _config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
    stored = _bytes_of(ledger)
    assert SECRET.encode() not in stored, "a prompt is in the ledger file"
    assert SPOKEN.encode() not in stored, "a completion is in the ledger file"
    assert SECRET not in f"{caught.value} {caught.value!r}", "a prompt is in an exception's text"


@pytest.mark.parametrize("way", [_invoke, _stream], ids=_name)
async def test_content_is_stored_when_asked_for(serve, handler, ledger, way):
    far = serve(Reply(text=SPOKEN, input_tokens=1000, output_tokens=200))
    model = RunnableLambda(lambda _: SECRET) | chat(far)
    await _run(way, model, _config(handler(Budget(calls=1), store_content=True)))
    entry = audit(far, ledger, requests=1, entries=1, usd="0.00027").one()
    assert SECRET in entry["content"] and SPOKEN in entry["content"]


@pytest.mark.parametrize("kind", [Budget(usd="0.0002", at_limit="raise"), Budget(calls=1)], ids=["crossed", "refused"])
def test_an_exception_holds_no_content_and_survives_a_process_pool(serve, handler, ledger, kind):
    far = serve(Reply(text=SPOKEN, input_tokens=1000, output_tokens=200))
    budget = handler(kind)
    with pytest.raises(BudgetExceeded) as caught:
        for _ in range(2):
            chat(far).invoke(SECRET, config=_config(budget))
    error = caught.value
    assert SECRET not in f"{error} {error!r}" and SPOKEN not in f"{error} {error!r}"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.limit, copy.spent) == (type(error), str(error), error.limit, error.spent)
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(BudgetExceeded) as back:
            pool.submit(_raise, error).result()
        assert pool.submit(abs, -1).result() == 1, "the pool must survive the exception"
    assert str(back.value) == str(error)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def _raise(error):
    raise error


# -- our own faults


@pytest.mark.parametrize("way", [_invoke, _astream], ids=_name)
async def test_after_close_nothing_is_sent(serve, handler, ledger, way):
    far = serve(ANSWER)
    budget = handler(Budget(usd="1"))
    await _run(way, chat(far), _config(budget))
    budget.close()
    with pytest.raises(ConfigError, match="closed"):
        await _run(way, chat(far), _config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


@pytest.mark.parametrize("way", [_invoke, _astream], ids=_name)
async def test_with_the_ledger_deleted_nothing_is_sent(serve, handler, ledger, way):
    far = serve(ANSWER)
    budget = handler(Budget(usd="1"))
    await _run(way, chat(far), _config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
    ledger.unlink()
    with pytest.raises(LedgerError, match="deleted"):
        await _run(way, chat(far), _config(budget))
    assert len(far.requests) == 1, "a call was sent that nobody counts"
    assert not ledger.exists(), "a new, empty ledger would forget what was spent"


def test_with_the_ledger_deleted_a_budget_that_warns_lets_calls_go_on(serve, handler, ledger, caplog):
    far = serve(ANSWER)
    budget = handler(Budget(usd="1", at_limit="warn"))
    ledger.unlink()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert chat(far).invoke(QUESTION, config=_config(budget)).text == "Four."
    assert len(far.requests) == 3
    said = [record for record in caplog.records if "ledger is down" in record.getMessage()]
    assert len(said) == 1, f"one warning a minute, not {len(said)}"


def test_a_settle_that_cannot_be_written_is_kept_and_written_later(serve, handler, ledger, caplog):
    """The disk fills between reserve and settle: the answer is delivered, its cost is written at the next call."""
    far = serve(ANSWER)
    full = {"now": True}

    def fill(event):
        conn = budget.meter.ledger._connection._conn
        if isinstance(event, CallReserved) and full["now"]:
            conn.execute(f"PRAGMA max_page_count={conn.execute('PRAGMA page_count').fetchone()[0]}").fetchall()

    budget = handler(Budget(usd="1"), listeners=[fill], store_content=True)
    long_question = QUESTION * 5000  # stored content needs new pages
    assert chat(far).invoke(long_question, config=_config(budget)).text == "Four.", "a paid answer was lost"
    books = read_back(ledger)
    assert (len(far.requests), len(books.entries), len(books.holds)) == (1, 0, 1), "its hold must stay until then"
    assert any(record.levelno >= logging.ERROR for record in caplog.records), "a cost that is not written is loud"
    full["now"] = False
    budget.meter.ledger._connection._conn.execute("PRAGMA max_page_count=1073741823").fetchall()
    chat(far).invoke(QUESTION, config=_config(budget))
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_spooled_settle_is_written_at_close(serve, handler, ledger):
    far = serve(ANSWER)

    def fill(event):
        conn = budget.meter.ledger._connection._conn
        if isinstance(event, CallReserved):
            conn.execute(f"PRAGMA max_page_count={conn.execute('PRAGMA page_count').fetchone()[0]}").fetchall()

    budget = handler(Budget(usd="1"), listeners=[fill], store_content=True)
    chat(far).invoke(QUESTION * 5000, config=_config(budget))
    budget.meter.ledger._connection._conn.execute("PRAGMA max_page_count=1073741823").fetchall()
    budget.close()
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


# -- LangGraph with a checkpointer


class _State(TypedDict):
    said: str


def _three_nodes(far, saver):
    model = chat(far)

    def node(_: _State):
        return {"said": model.invoke(SECRET).text}

    graph = StateGraph(_State)
    for name in ("n1", "n2", "n3"):
        graph.add_node(name, node)
    graph.add_edge(START, "n1")
    graph.add_edge("n1", "n2")
    graph.add_edge("n2", "n3")
    graph.add_edge("n3", END)
    return graph.compile(checkpointer=saver)


def test_a_resume_after_a_refusal_buys_nothing_twice(serve, handler, ledger):
    far, saver = serve(ANSWER), InMemorySaver()
    graph = _three_nodes(far, saver)
    thread = {"configurable": {"thread_id": "t1"}}
    with pytest.raises(BudgetExceeded):
        graph.invoke({"said": ""}, config={**thread, **_config(handler(Budget(calls=2)))})
    audit(far, ledger, requests=2, entries=2, usd="0.00054")
    state = graph.get_state(thread)
    assert (state.values["said"], state.next) == ("Four.", ("n3",)), "what n1 and n2 bought must be in the checkpoint"
    assert graph.invoke(None, config={**thread, **_config(handler(Budget(calls=2)))}) == {"said": "Four."}
    audit(far, ledger, requests=3, entries=3, usd="0.00081")


def test_the_checkpoint_of_a_refused_node_holds_no_prompt(serve, handler, ledger):
    far, saver = serve(Reply(text="Four.", input_tokens=1000, output_tokens=200)), InMemorySaver()
    thread = {"configurable": {"thread_id": "t1"}}
    with pytest.raises(BudgetExceeded):
        _three_nodes(far, saver).invoke({"said": ""}, config={**thread, **_config(handler(Budget(calls=1)))})
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
    writes = [write for item in saver.list(thread) for write in item.pending_writes or ()]
    errors = [value for _, channel, value in writes if channel == "__error__"]
    assert errors, "the refusal must be in the checkpoint"
    assert "is used up" in repr(errors[0])
    assert SECRET not in repr(errors), "a prompt is in the checkpoint's error"


def test_what_settles_is_told_once(serve, handler, ledger):
    far, events = serve(ANSWER), []
    chat(far).invoke(QUESTION, config=_config(handler(Budget(usd="1"), listeners=[events.append])))
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert [type(event) for event in events] == [CallReserved, CallSettled]
    assert events[1].entry.cost_pico == books.one()["cost_pico"]
    assert QUESTION not in repr(events), "an event carries content"


# -- generate() of three prompts: a raise at the first end event


@pytest.mark.parametrize("is_async", [False, True], ids=["generate", "agenerate"])
async def test_what_a_generate_paid_for_is_on_the_books_though_the_first_end_raised(serve, handler, ledger, is_async):
    """Sync LangChain drops the other prompts' end events then; they were sent and paid for all the same."""
    far = serve(ANSWER)
    budget = handler(Budget(usd="0.0002", at_limit="raise"), reserve="none")
    prompts = [ChatPromptTemplate.from_messages([("human", QUESTION)]).invoke({}) for _ in range(3)]
    with pytest.raises(BudgetExceeded):
        if is_async:
            await chat(far).agenerate_prompt(prompts, callbacks=[budget])
        else:
            chat(far).generate_prompt(prompts, callbacks=[budget])
    books = read_back(ledger)
    assert len(far.requests) == 3
    assert len(books.column("status")) == 3, f"three answers were paid for, the books have {books.statuses}"
    assert not books.holds, "holds of paid answers are still open"
    assert books.booked_usd >= far.billed_usd, f"${far.billed_usd} was billed, ${books.booked_usd} booked"
    if is_async:
        assert books.booked_usd == far.billed_usd, "all three end events come there, so all three costs are known"
