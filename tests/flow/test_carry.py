"""A block where the caller's context does not go: plain threads, executors, and streams consumed after it was left."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from ai_budget_callbacks import Budget, BudgetExceeded, ConfigError, Price, install, track
from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.langchain import BudgetCallbackHandler, MeteredEmbeddings
from ai_budget_callbacks.scope import installed, reinstall
from tests.flow.kit import audit, chat, read_back

QUESTION = "What is two plus two?"
WORDS = "one two three four five six"
ANSWER = Reply(text=WORDS, input_tokens=1000, output_tokens=200)  # $0.00027 at gpt-4o-mini
UNIT = "0.00027"


def _swallowing(function):
    """What a worker does that must not die: says whether its call was refused."""

    def work(*args):
        try:
            function(*args)
        except BudgetExceeded:
            return True
        return False

    return work


def _said(caplog, words):
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


# -- bind: threads and executors


def test_a_bound_function_counts_in_a_thread_pool(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)
    with pytest.raises(BudgetExceeded), track(Budget(calls=2), meter=meter(), user="bob") as run:
        with ThreadPoolExecutor(5) as pool:
            refused = list(pool.map(run.bind(_swallowing(model.invoke)), [QUESTION] * 10))
        assert refused.count(True) == 8
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert books.spent("calls") == [2]
    assert {(row["user"], row["run_id"]) for row in books.entries} == {("bob", run.id)}
    assert run.summary().calls == 2


def test_a_bound_function_counts_in_plain_threads(serve, meter, ledger):
    far = serve(ANSWER)
    model, refused = chat(far), []
    with pytest.raises(BudgetExceeded), track(Budget(calls=2), meter=meter()) as run:
        work = run.bind(_swallowing(model.invoke))
        threads = [threading.Thread(target=lambda: refused.append(work(QUESTION))) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused.count(True) == 8
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


async def test_a_bound_function_counts_in_an_executor_of_the_loop(serve, meter, ledger):
    far = serve(ANSWER)
    model, loop = chat(far), asyncio.get_running_loop()
    with pytest.raises(BudgetExceeded):
        async with track(Budget(calls=2), meter=meter()) as run:
            work = run.bind(_swallowing(model.invoke))
            refused = await asyncio.gather(*(loop.run_in_executor(None, work, QUESTION) for _ in range(10)))
            assert refused.count(True) == 8
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


class _Asks:
    """An object that is called like an async function."""

    def __init__(self, model):
        self.model = model

    async def __call__(self, question):
        return await self.model.ainvoke(question)


MAKES = {
    "method": lambda model: model.ainvoke,
    "partial": lambda model: functools.partial(model.ainvoke, config={"tags": ["x"]}),
    "lambda": lambda model: lambda question: model.ainvoke(question),
    "object": _Asks,
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_a_bound_coroutine_function_counts_in_a_loop_of_another_thread(serve, meter, ledger, make):
    far = serve(ANSWER)
    model = chat(far)

    async def ten(work):
        found = await asyncio.gather(*(work(QUESTION) for _ in range(10)), return_exceptions=True)
        return sum(isinstance(item, BudgetExceeded) for item in found)

    with pytest.raises(BudgetExceeded), track(Budget(calls=2), meter=meter()) as run:
        work = run.bind(make(model))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: asyncio.run(ten(work))).result(30) == 8
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_bound_function_returns_and_raises_as_it_is(meter):
    with track(Budget(calls=2), meter=meter()) as run:

        @run.bind
        def half(number, *, by=2):
            """Half of it."""
            return number / by

        assert (half(6), half(6, by=3), half.__name__, half.__doc__) == (3, 2, "half", "Half of it.")
        with pytest.raises(ZeroDivisionError):
            half(1, by=0)


def _later(model):
    yield model.invoke(QUESTION)


async def _async_later(model):
    yield await model.ainvoke(QUESTION)


@pytest.mark.parametrize(
    "function", [_later, _async_later, functools.partial(_later, None)], ids=["sync", "async", "partial"]
)
def test_a_generator_function_cannot_be_bound(meter, function):
    with track(meter=meter()) as run, pytest.raises(ConfigError, match=r"use wrap\(generator\)"):
        run.bind(function)


@pytest.mark.parametrize("make", [_later, _async_later], ids=["sync", "async"])
def test_a_bound_function_that_returns_a_generator_is_no_way_round(serve, meter, ledger, make):
    far = serve(ANSWER)
    with track(meter=meter()) as run, pytest.raises(ConfigError, match=r"use wrap\(generator\)"):
        run.bind(lambda: make(chat(far)))()
    assert len(far.requests) == 0


def test_bound_in_nested_blocks_counts_in_both(serve, meter, ledger):
    far = serve(ANSWER)
    model, shared = chat(far), meter()
    with pytest.raises(BudgetExceeded), track(Budget(calls=3), meter=shared) as outer, ThreadPoolExecutor(1) as pool:
        with pytest.raises(BudgetExceeded), track(Budget(calls=2)) as inner:
            assert pool.submit(lambda: [inner.bind(_swallowing(model.invoke))(QUESTION) for _ in range(3)]).result(30) == [
                False, False, True]  # fmt: skip
        work = outer.bind(_swallowing(model.invoke))
        assert pool.submit(lambda: [work(QUESTION) for _ in range(2)]).result(30) == [False, True]
    books = audit(far, ledger, requests=3, entries=3, usd="0.00081")
    assert sorted(books.spent("calls")) == [2, 3]
    assert (outer.summary().calls, inner.summary().calls) == (3, 2)


def test_what_a_bound_function_finds_in_its_thread_is_put_back(meter):
    with track(meter=meter()) as run:
        work = run.bind(current_blocks)

        def thread():
            return current_blocks(), work(), current_blocks()

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(thread).result(20) == ((), (run,), ())


# -- wrap: streams consumed after the block


def _sync_stream(model):
    return model.stream(QUESTION)


def test_a_stream_consumed_after_its_block_is_counted_in_it(serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(calls=1), meter=meter(), user="bob") as run:
        chunks = run.wrap(chat(far).stream(QUESTION))
    assert len(far.requests) == 0, "LangChain sends at the first step"
    assert "".join(chunk.text for chunk in chunks) == WORDS
    books = audit(far, ledger, requests=1, entries=1, usd=UNIT)
    assert (books.statuses, books.one()["user"], books.one()["run_id"]) == (["priced"], "bob", run.id)
    assert run.summary().calls == 1


async def test_an_async_stream_consumed_after_its_block_is_counted_in_it(serve, meter, ledger):
    far = serve(ANSWER)
    async with track(Budget(calls=1), meter=meter()) as run:
        chunks = run.wrap(chat(far).astream(QUESTION))
    assert "".join([chunk.text async for chunk in chunks]) == WORDS
    audit(far, ledger, requests=1, entries=1, usd=UNIT)
    assert run.summary().calls == 1


def test_a_stream_begun_in_its_block_and_finished_after_it_is_priced(serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(calls=1), meter=meter()) as run:
        chunks = run.wrap(chat(far).stream(QUESTION))
        next(chunks)
    assert len(read_back(ledger).holds) == 1, "its block is kept open: nobody has given it up"
    list(chunks)
    assert audit(far, ledger, requests=1, entries=1, usd=UNIT).statuses == ["priced"]


@pytest.mark.parametrize("kept", ["inner", "outer"])
def test_nested_blocks_are_both_kept_open(serve, meter, ledger, kept):
    far = serve(ANSWER)
    with track(Budget(calls=5), meter=meter()) as outer, track(Budget(calls=5)) as inner:
        chunks = {"inner": inner, "outer": outer}[kept].wrap(chat(far).stream(QUESTION))
        next(chunks)
    list(chunks)
    books = audit(far, ledger, requests=1, entries=1, usd=UNIT)
    assert books.statuses == ["priced"], "a stream that goes on was given up by a block around it"
    assert (outer.summary().calls, inner.summary().calls) == (1, int(kept == "inner"))


def test_a_stream_dropped_half_read_is_booked(serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(calls=1), meter=meter()) as run:
        chunks = run.wrap(chat(far).stream(QUESTION))
    next(chunks), next(chunks)
    del chunks
    gc.collect()
    books = read_back(ledger)
    assert (books.statuses, books.holds) == (["estimated"], [])
    assert books.booked_usd > 0


def test_a_stream_closed_half_read_is_booked_at_once(serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(calls=1), meter=meter()) as run:
        chunks = run.wrap(chat(far).stream(QUESTION))
    next(chunks), next(chunks)
    chunks.close()
    assert (read_back(ledger).statuses, read_back(ledger).holds) == (["estimated"], [])
    assert list(chunks) == [], "a closed iterator is at its end"


@pytest.mark.parametrize("how", ["aclose", "drop"])
async def test_an_async_stream_left_half_read_is_booked(serve, meter, ledger, how):
    far = serve(ANSWER)
    async with track(Budget(usd="1"), meter=meter()) as run:
        chunks = run.wrap(chat(far).astream(QUESTION))
    await anext(chunks)
    if how == "aclose":
        await chunks.aclose()
    del chunks
    gc.collect()
    await _until(lambda: read_back(ledger).entries and not read_back(ledger).holds)
    await asyncio.sleep(0.05)  # the loop closes what was dropped; a late end then corrects what was given up
    books = read_back(ledger)
    assert books.booked_usd > 0
    assert books.spent() == [books.booked_usd]
    assert run.summary().calls == 1


async def _until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def test_an_unread_stream_costs_nothing(serve, meter, ledger, caplog):
    far = serve(ANSWER)
    with track(Budget(calls=1), meter=meter()) as run:
        chunks = run.wrap(chat(far).stream(QUESTION))
    del chunks
    audit(far, ledger, requests=0, entries=0, usd="0")
    assert run.summary().calls == 0


def test_a_generator_that_makes_calls_is_limited_after_its_block(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)

    def answers():
        for _ in range(10):
            yield model.invoke(QUESTION)

    with track(Budget(calls=2), meter=meter()) as run:
        wrapped = run.wrap(answers())
    with pytest.raises(BudgetExceeded):
        for _ in wrapped:
            pass
    assert run.exceeded
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_refusal_that_is_swallowed_after_the_block_is_raised_at_the_end(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)

    def answers():
        for _ in range(4):
            yield _swallowing(model.invoke)(QUESTION)

    with track(Budget(calls=2), meter=meter()) as run:
        wrapped = run.wrap(answers())
    seen = []
    with pytest.raises(BudgetExceeded):
        for refused in wrapped:
            seen.append(refused)
    assert seen == [False, False, True, True], "the consumer has all of it before it is told"
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


async def test_a_refusal_that_is_swallowed_in_an_async_generator_is_raised_at_the_end(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)

    async def answers():
        for _ in range(3):
            try:
                yield await model.ainvoke(QUESTION)
            except BudgetExceeded:
                yield None

    async with track(Budget(calls=2), meter=meter()) as run:
        wrapped = run.wrap(answers())
    with pytest.raises(BudgetExceeded):
        async for _ in wrapped:
            pass
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_refusal_that_the_block_told_is_not_told_again(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter()) as run:
        wrapped = run.wrap(iter([1, 2]))
        model.invoke(QUESTION)
        _swallowing(model.invoke)(QUESTION)
    assert list(wrapped) == [1, 2]


def test_several_wrapped_streams_share_their_blocks_budget(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)
    with track(Budget(calls=2), meter=meter()) as run:
        streams = [run.wrap(model.stream(QUESTION)) for _ in range(3)]
    first = [next(stream) for stream in streams[:2]]
    with pytest.raises(BudgetExceeded):
        next(streams[2])
    assert len(first) == 2
    for stream in streams[:2]:
        list(stream)
    assert audit(far, ledger, requests=2, entries=2, usd="0.00054").statuses == ["priced"] * 2


def test_wrapped_streams_read_in_threads(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)
    with track(Budget(calls=4), meter=meter()) as run:
        streams = [run.wrap(model.stream(QUESTION)) for _ in range(10)]

    def read(stream):
        return _swallowing(list)(stream)

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(read, streams)).count(True) == 6
    audit(far, ledger, requests=4, entries=4, usd="0.00108")
    assert run.summary().calls == 4


def test_each_step_in_another_thread_with_a_context_of_its_own(serve, meter, ledger):
    """As Starlette iterates a sync generator of a streaming response."""
    far = serve(ANSWER)
    model = chat(far)

    def body():
        yield "begin"
        for _ in range(3):
            yield from (chunk.text for chunk in model.stream(QUESTION))

    with track(Budget(calls=2), meter=meter(), user="bob") as run:
        response = run.wrap(body())
    parts = []
    with pytest.raises(BudgetExceeded), ThreadPoolExecutor(4) as pool:
        while True:
            context = contextvars.copy_context()
            part = pool.submit(context.run, next, response, None).result(30)
            if part is None:
                break
            parts.append(part)
    assert "".join(parts) == "begin" + WORDS * 2
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert set(books.column("user")) == {"bob"}


def test_a_block_opened_inside_a_wrapped_generator_lasts_over_its_steps(serve, meter, ledger):
    """Without the wrapper the consumer's context would have it too; with it, each step must find it again."""
    far = serve(ANSWER)
    model = chat(far)

    def answers():
        with track(Budget(calls=2), user="inner"):
            for _ in range(4):
                yield model.invoke(QUESTION)

    with track(Budget(calls=9), meter=meter(), user="outer") as run:
        wrapped = run.wrap(answers())
    with pytest.raises(BudgetExceeded):
        list(wrapped)
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert sorted(books.spent("calls")) == [2, 2], "the inner block lost its later calls"
    assert books.column("user") == ["inner", "inner"]
    assert not run.exceeded, "a refused inner block does not exceed the outer one"


async def test_a_block_opened_inside_a_wrapped_async_generator_lasts_over_its_steps(serve, meter, ledger):
    far = serve(ANSWER)
    model = chat(far)

    async def answers():
        async with track(Budget(calls=2)):
            for _ in range(4):
                yield await model.ainvoke(QUESTION)

    async with track(Budget(calls=9), meter=meter()) as run:
        wrapped = run.wrap(answers())
    with pytest.raises(BudgetExceeded):
        async for _ in wrapped:
            pass
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert sorted(books.spent("calls")) == [2, 2]


def test_the_consumers_own_context_is_untouched_between_steps(serve, meter, ledger, tmp_path):
    far = serve(ANSWER)
    model = chat(far)
    mine = meter(ledger=tmp_path / "mine.db")
    with track(Budget(calls=1), meter=meter()) as theirs:
        chunks = theirs.wrap(model.stream(QUESTION))
    with track(Budget(calls=5), meter=mine) as own:
        next(chunks)
        assert current_blocks() == (own,)
        model.invoke(QUESTION)
        list(chunks)
        assert current_blocks() == (own,)
    assert current_blocks() == ()
    assert (theirs.summary().calls, own.summary().calls) == (1, 1), "each call belongs to one of the two blocks"
    assert (len(read_back(ledger).entries), len(read_back(tmp_path / "mine.db").entries)) == (1, 1)


async def test_async_consumers_keep_their_own_context(serve, meter, ledger):
    far = serve(ANSWER)
    model, shared = chat(far), meter()

    async def one(user):
        async with track(Budget(calls=2), meter=shared, user=user) as run:
            chunks = run.wrap(model.astream(QUESTION))
        async for _ in chunks:
            assert current_blocks() == ()
            await asyncio.sleep(0)
        return run.summary().calls

    assert await asyncio.gather(*(one(f"user-{number}") for number in range(5))) == [1] * 5
    books = audit(far, ledger, requests=5, entries=5, usd="0.00135")
    assert sorted(books.column("user")) == [f"user-{number}" for number in range(5)]


def test_a_wrapped_iterator_that_fails_lets_its_block_go(serve, meter, ledger):
    far = serve([ANSWER])

    def answers():
        chat(far).invoke(QUESTION)
        yield 1
        raise KeyError("mine")

    with track(Budget(calls=9), meter=meter()) as run:
        wrapped = run.wrap(answers())
    with pytest.raises(KeyError, match="mine"):
        list(wrapped)
    assert run._kept_open == 0
    audit(far, ledger, requests=1, entries=1, usd=UNIT)


@pytest.mark.parametrize("thing", [[1], "text", None, 7, _later, range(3)], ids=lambda thing: type(thing).__name__)
def test_what_is_no_iterator_cannot_be_wrapped(meter, thing):
    with track(meter=meter()) as run, pytest.raises(ConfigError, match=r"wrap\(\) takes an iterator"):
        run.wrap(thing)


def test_a_tool_fee_in_a_wrapped_generator_is_refused_after_the_block(meter, ledger):
    from langchain_core.tools import tool

    uses = []

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        uses.append(topic)
        return "found"

    def work():
        for _ in range(3):
            yield search.invoke({"topic": "sums"})

    with track(Budget(usd="0.0165"), meter=meter(prices={"tool/search": Price(request="0.008")})) as run:
        wrapped = run.wrap(work())
    with pytest.raises(BudgetExceeded):
        list(wrapped)
    assert len(uses) == 2
    assert read_back(ledger).holds == []


# -- a block that saw nothing says so


OUTSIDE = "model calls started outside it"
BLIND = "although a framework ran inside it"


def test_calls_in_a_thread_that_is_not_bound_are_noticed(serve, meter, ledger, caplog):
    far = serve(ANSWER)
    with track(Budget(calls=1), meter=meter()):
        threads = [threading.Thread(target=chat(far).invoke, args=(QUESTION,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (said,) = _said(caplog, OUTSIDE)
    assert "2 model calls" in said and "run.bind" in said
    assert len(far.requests) == 2


def test_a_block_that_saw_its_calls_says_nothing(serve, meter, ledger, caplog):
    far = serve(ANSWER)
    model = chat(far)
    with track(meter=meter()) as run:
        thread = threading.Thread(target=run.bind(model.invoke), args=(QUESTION,))
        thread.start()
        thread.join()
        model.invoke(QUESTION)
        ChatPromptTemplate.from_messages([("human", "{q}")]).invoke({"q": QUESTION})
    assert not _said(caplog, OUTSIDE) and not _said(caplog, BLIND)


def test_a_framework_that_ran_without_a_call_is_noticed(meter, caplog):
    with track(meter=meter()):
        RunnableLambda(lambda text: text.upper()).invoke("a call of the provider's own SDK")
    assert len(_said(caplog, BLIND)) == 1


def test_an_empty_block_says_nothing(meter, caplog):
    with track(meter=meter()):
        pass
    assert not _said(caplog, OUTSIDE) and not _said(caplog, BLIND)


class _Lengths(Embeddings):
    model = "my-embed"

    def embed_documents(self, texts):
        return [[1.0] for _ in texts]

    def embed_query(self, text):
        return [1.0]


@pytest.mark.parametrize("what", ["charge", "embeddings", "refused", "nested"])
def test_what_a_block_counts_besides_answers_is_no_blindness(serve, meter, caplog, what):
    far = serve(ANSWER)
    shared = meter(prices={"my-embed": "free"})
    budget = Budget(usd="0.000001") if what == "refused" else Budget(calls=9)

    def work(_):
        if what == "charge":
            shared.charge("0.01", name="download")
        elif what == "embeddings":
            MeteredEmbeddings(_Lengths()).embed_query("fact")
        elif what == "refused":
            _swallowing(chat(far).invoke)(QUESTION)
        else:
            with track(Budget(calls=2)):
                chat(far).invoke(QUESTION)

    try:
        with track(budget, meter=shared):
            RunnableLambda(work).invoke(QUESTION)
    except BudgetExceeded:
        assert what == "refused"
    assert not _said(caplog, BLIND), "a block that counted something was called blind"


def test_under_install_calls_outside_the_block_are_no_loss(serve, meter, ledger, caplog):
    far, before = serve(ANSWER), installed()
    shared = meter()
    install(shared)
    try:
        with track(meter=shared):
            thread = threading.Thread(target=chat(far).invoke, args=(QUESTION,))
            thread.start()
            thread.join()
    finally:
        reinstall(before)
    assert not _said(caplog, OUTSIDE)
    audit(far, ledger, requests=1, entries=1, usd=UNIT)


def test_a_block_kept_open_is_judged_at_its_end(serve, meter, caplog):
    far = serve(ANSWER)
    with track(meter=meter()) as run:
        RunnableLambda(lambda text: text).invoke("x")
        chunks = run.wrap(chat(far).stream(QUESTION))
    assert not _said(caplog, BLIND), "its stream has not begun yet"
    list(chunks)
    assert not _said(caplog, BLIND)


# -- a handler that is attached nowhere says so


NOWHERE = "has seen no LangChain event"


@pytest.mark.parametrize("how", ["summary", "tree", "close"])
def test_a_handler_attached_nowhere_says_so(ledger, caplog, how):
    budget = BudgetCallbackHandler(Budget(usd="1"), ledger=ledger)
    with caplog.at_level(logging.WARNING):
        getattr(budget, how)()
        if how != "close":
            budget.summary()
            budget.close()
    assert len(_said(caplog, NOWHERE)) == 1, "once, and not more often"


@pytest.mark.parametrize("what", ["call", "chain", "charge"])
def test_a_handler_that_was_told_of_something_says_nothing(serve, handler, caplog, what):
    far = serve(ANSWER)
    budget = handler(Budget(usd="1"))
    config = {"callbacks": [budget]}
    if what == "call":
        chat(far).invoke(QUESTION, config=config)
    elif what == "chain":
        RunnableLambda(lambda text: text).invoke("x", config=config)
    else:
        budget.charge("0.01", name="download")
    budget.summary()
    budget.close()
    assert not _said(caplog, NOWHERE)
