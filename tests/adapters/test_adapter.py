"""What every adapter must do, through its framework's real client over HTTP, read back by a second connection.

Every answer is 1,000 tokens in and 200 out of gpt-4o-mini: 1,000 x 0.15 + 200 x 0.60 per million = $0.00027.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal

import pytest

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
from ai_budget_callbacks import scope as scopes
from ai_budget_callbacks.demo.loopback import Reply
from tests.adapters.drivers import QUESTION, taken
from tests.support.audit import audit, read_back

PAID = {"input_tokens": 1000, "output_tokens": 200}
ANSWER = Reply(text="The answer is four.", **PAID)
COST = Decimal("0.00027")


@pytest.fixture(autouse=True)
def _nothing_installed():
    yield
    scopes.reinstall(None)


def chunks(stream):
    return list(stream)


async def all_of(stream):
    return [chunk async for chunk in stream]


# -- capture and price


@pytest.mark.parametrize("how", ["call", "acall", "stream", "astream"])
def test_an_answer_is_one_entry_at_its_price(adapter, serve, handler, ledger, how):
    far, budget = serve(ANSWER), handler(Budget(usd="0.50"))
    model = adapter(far, budget)
    if how == "call":
        assert adapter.text_of(model.call()) == "The answer is four."
    elif how == "acall":
        assert adapter.text_of(asyncio.run(model.acall())) == "The answer is four."
    elif how == "stream":
        assert chunks(model.stream())
    else:
        assert asyncio.run(all_of(model.astream()))
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    entry = books.one()
    assert (entry["status"], entry["cost_usd"], entry["framework"]) == ("priced", "0.00027", adapter.name)
    assert entry["usage"] == {"input_uncached": 1000, "output_text": 200}
    assert (entry["provider"], entry["model"]) == ("openai", "gpt-4o-mini")
    assert books.spent() == [COST]
    assert budget.summary().cost_usd == COST
    assert not budget.exceeded


def test_cached_and_reasoning_tokens_have_their_own_prices(adapter, serve, handler, ledger):
    far = serve(Reply(text="Four.", input_tokens=1000, cached_tokens=400, output_tokens=200, reasoning_tokens=50))
    adapter(far, handler(Budget(usd="0.50"))).call()
    # 600 x 0.15 + 400 x 0.075 + 200 x 0.60 per million
    books = audit(far, ledger, requests=1, entries=1, usd="0.00024")
    assert books.one()["usage"] == {
        "input_uncached": 600,
        "cache_read": 400,
        "output_text": 150,
        "output_reasoning": 50,
    }


def test_an_answer_without_usage_is_counted_and_says_so(adapter, serve, handler, ledger):
    far = serve(Reply(text="x" * 500, usage="omit", **PAID))
    adapter(far, handler(Budget(usd="0.50"))).call()
    entry = audit(far, ledger, requests=1, entries=1, exact=False).one()
    # 500 bytes of answer at 2.5 bytes a token are 200 tokens: 0.00012 of output
    assert entry["status"] == "estimated"
    assert entry["usage"]["output_text"] == 200
    assert Decimal(entry["cost_usd"]) > Decimal("0.00012")


def test_missing_usage_can_be_an_error_that_carries_the_answer(adapter, serve, handler, ledger):
    far = serve(Reply(text="Four.", usage="omit", **PAID))
    with pytest.raises(UsageMissing) as caught:
        adapter(far, handler(Budget(usd="0.50"), on_missing_usage="raise")).call()
    assert adapter.text_on(caught.value.response) == "Four."
    assert audit(far, ledger, requests=1, entries=1, exact=False).statuses == ["estimated"]


def test_an_unknown_model_is_refused_before_it_is_sent(adapter, serve, handler, ledger):
    far = serve(ANSWER, prices={"my-own": {"input": "1", "output": "1"}})
    with pytest.raises(PriceUnknown, match="my-own"):
        adapter(far, handler(Budget(usd="0.50")), model="my-own").call()
    audit(far, ledger, requests=0, entries=0, usd="0")


def test_a_chat_model_whose_price_has_no_output_is_refused_before_it_is_sent(adapter, serve, handler, ledger):
    far = serve(ANSWER, prices={"my-own": {"input": "1", "output": "1"}})
    budget = handler(Budget(usd="0.0006"), prices={"my-own": Price(input="1")})
    for _ in range(5):
        with pytest.raises(PriceUnknown, match="the price of 'my-own' has no output"):
            adapter(far, budget, model="my-own").call()
    audit(far, ledger, requests=0, entries=0, usd="0")


# -- a handler that is not attached, or wrongly made

UNSEEN = "so it counts and limits nothing"


@pytest.mark.parametrize("ask", ["exceeded", "raise_if_exceeded", "summary", "tree", "collected"])
def test_a_handler_that_is_attached_nowhere_says_so_once(adapter, serve, caplog, ask):
    far, budget = serve(ANSWER), adapter.handler(Budget(calls=1), ledger=":memory:")
    adapter(far).call()
    for _ in range(2):
        if ask != "collected" and callable(found := getattr(budget, ask)):
            found()
    found = None
    del budget
    gc.collect()
    assert sum(UNSEEN in record.message for record in caplog.records) == 1


def test_a_handler_that_saw_a_call_does_not_say_so(adapter, serve, caplog):
    budget = adapter.handler(Budget(calls=1), ledger=":memory:")
    adapter(serve(ANSWER), budget).call()
    assert not budget.exceeded
    budget.close()
    del budget
    gc.collect()
    assert not any(UNSEEN in record.message for record in caplog.records)


def test_wrong_arguments_say_what_is_right(adapter):
    with pytest.raises(ConfigError, match=r"BudgetCallbackHandler\(Budget\(usd='1'\)\)"):
        adapter.handler(usd="1")
    with pytest.raises(ConfigError, match="one by one"):
        adapter.handler([Budget(calls=1)])


# -- refuse


@pytest.mark.parametrize("how", ["call", "acall", "stream", "astream"])
@pytest.mark.parametrize("limit", [{"calls": 1}, {"usd": "0.00027"}, {"tokens": 1200}], ids=str)
def test_nothing_is_sent_once_a_budget_is_used_up(adapter, serve, handler, ledger, how, limit):
    far, budget = serve(ANSWER), handler(Budget(**limit))
    model = adapter(far, budget)
    model.call()
    with pytest.raises(BudgetExceeded) as caught:
        if how == "call":
            model.call()
        elif how == "acall":
            asyncio.run(model.acall())
        elif how == "stream":
            chunks(model.stream())
        else:
            asyncio.run(all_of(model.astream()))
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert caught.value.budget is not None
    assert caught.value.response is None, "nothing was paid for"
    assert budget.exceeded
    with pytest.raises(BudgetExceeded):
        budget.raise_if_exceeded()


def test_a_refusal_can_be_pickled_and_copied(adapter, serve, handler):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(calls=1)))
    model.call()
    with pytest.raises(BudgetExceeded) as caught:
        model.call()
    for twin in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert (twin.message, twin.limit, twin.spent) == (caught.value.message, 1, 1)
    caught.value.anything = True  # frameworks set attributes on what passes through them


def test_no_message_holds_the_prompt(adapter, serve, handler):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(calls=1)))
    model.call("a secret question")
    with pytest.raises(BudgetExceeded) as caught:
        model.call("a secret question")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(caught.value)


def test_a_broken_ledger_stops_calls_where_a_limit_is_set(adapter, serve, handler, ledger):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(usd="0.50")))
    model.call()
    ledger.unlink()
    with pytest.raises(LedgerError):
        model.call()
    assert len(far.requests) == 1


def test_a_closed_handler_refuses(adapter, serve, handler):
    far, budget = serve(ANSWER), handler(Budget(usd="0.50"))
    model = adapter(far, budget)
    model.call()
    budget.close()
    with pytest.raises(ConfigError, match="closed"):
        model.call()
    assert len(far.requests) == 1


# -- at_limit


def test_at_limit_raise_raises_after_the_commit_with_the_answer(adapter, serve, handler, ledger):
    far = serve(ANSWER)
    budget = handler(Budget(usd="0.0002", at_limit="raise"), reserve="none")
    with pytest.raises(BudgetExceeded) as caught:
        adapter(far, budget).call()
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert adapter.text_on(caught.value.response) == "The answer is four.", "what was paid for is on the exception"
    assert caught.value.entry.cost_usd == COST
    assert books.spent() == [COST]


def test_at_limit_refuse_delivers_the_answer_that_crosses(adapter, serve, handler, ledger, caplog):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(usd="0.0002"), reserve="none"))
    with caplog.at_level(logging.WARNING, logger="ai_budget_callbacks"):
        assert adapter.text_of(model.call()) == "The answer is four."
    assert "0.00027" in caplog.text
    with pytest.raises(BudgetExceeded):
        model.call()
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_at_limit_warn_goes_on_and_counts(adapter, serve, handler, ledger):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(usd="0.0002", at_limit="warn")))
    for _ in range(3):
        model.call()
    audit(far, ledger, requests=3, entries=3, usd="0.00081")


# -- parallel reservation


def test_threads_share_one_limit(adapter, serve, handler, ledger):
    far = serve(Reply(text="Four.", delay_s=0.05, **PAID))
    model = adapter(far, handler(Budget(calls=3)))
    with ThreadPoolExecutor(20) as pool:
        seen = [_outcome(future) for future in [pool.submit(model.call) for _ in range(20)]]
    assert sorted(seen) == ["BudgetExceeded"] * 17 + ["answer"] * 3
    audit(far, ledger, requests=3, entries=3, usd="0.00081")


async def test_tasks_share_one_limit(adapter, serve, handler, ledger):
    far = serve(Reply(text="Four.", delay_s=0.05, **PAID))
    model = adapter(far, handler(Budget(calls=3)))
    seen = await asyncio.gather(*(model.acall() for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(item, BudgetExceeded) for item in seen) == 17
    audit(far, ledger, requests=3, entries=3, usd="0.00081")


async def test_worst_case_holds_keep_the_bill_under_the_limit(adapter, serve, handler, ledger):
    # 21 bytes + 16 a message + 512 a request = 549 tokens in, 100 out at most: 549 x 0.15 + 100 x 0.60 = 142.35 a million
    far = serve(Reply(text="Four.", input_tokens=549, output_tokens=100, delay_s=0.05, service_tier=None))
    budget = handler(Budget(usd="0.00042705"), reserve="worst_case")
    model = adapter(far, budget, max_tokens=100, **_pinned(adapter))
    seen = await asyncio.gather(*(model.acall() for _ in range(20)), return_exceptions=True)
    assert len(QUESTION) == 21
    sent = sum(not isinstance(item, BaseException) for item in seen)
    assert all(isinstance(item, BudgetExceeded) for item in seen if isinstance(item, BaseException))
    assert sent == 3
    assert far.billed_usd <= Decimal("0.00042705"), f"billed ${far.billed_usd}"
    audit(far, ledger, requests=3, entries=3, usd="0.00042705")


def _pinned(adapter):
    """Without it the dearest tier is held for."""
    if adapter.name == "llama_index":
        return {"additional_kwargs": {"service_tier": "default"}}
    return {"service_tier": "default"}


def _outcome(future):
    error = future.exception()
    return "answer" if error is None else type(error).__name__.removeprefix("LangChain")


# -- streams and cancellation


def test_a_stream_that_is_closed_is_booked_at_what_was_seen_or_held(adapter, serve, handler, ledger):
    far = serve(Reply(text="one two three four five six", **PAID))
    stream = adapter(far, handler(Budget(usd="0.50"))).stream()
    for _ in range(4):
        next(stream)
    stream.close()
    del stream
    gc.collect()
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd >= far.billed_usd, "nobody knows what was billed: the hold stands"


async def test_an_async_stream_that_is_closed_is_too(adapter, serve, handler, ledger):
    far = serve(Reply(text="one two three four five six", **PAID))
    await taken(adapter(far, handler(Budget(usd="0.50"))).astream(), 4)
    await asyncio.sleep(0.05)
    gc.collect()
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd >= far.billed_usd


async def test_a_cancelled_call_is_unknown_and_holds_nothing(adapter, serve, handler, ledger):
    far = serve(Reply(text="Four.", delay_s=5, **PAID))
    task = asyncio.create_task(adapter(far, handler(Budget(usd="0.50"))).acall())
    while not far.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"]
    assert books.booked_usd > 0, "sent, and nobody saw the bill"


def test_a_stream_that_breaks_off_is_booked(adapter, serve, handler, ledger):
    far = serve(Reply(text="one two three four five six", cut_after_chunks=4, **PAID))
    with suppress(Exception):
        chunks(adapter(far, handler(Budget(usd="0.50"))).stream())
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd >= far.billed_usd


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_an_http_error_costs_nothing_and_gives_the_hold_back(adapter, serve, handler, ledger, status):
    far = serve(Reply(status=status))
    with pytest.raises(Exception, match=r".+") as caught:
        adapter(far, handler(Budget(usd="0.50"))).call()
    assert not isinstance(caught.value, BudgetExceeded)
    audit(far, ledger, requests=1, entries=0, usd="0")


def test_a_client_that_times_out_may_have_been_billed(adapter, serve, handler, ledger):
    far = serve(Reply(text="Four.", delay_s=2, **PAID))
    with pytest.raises(Exception, match=r".+"):
        adapter(far, handler(Budget(usd="0.50")), timeout=0.3).call()
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["unknown"]
    assert books.booked_usd > 0


def test_a_server_that_is_not_there_costs_nothing(adapter, serve, handler, ledger):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(usd="0.50")))
    far.stop()
    with pytest.raises(Exception, match=r".+"):
        model.call()
    audit(far, ledger, requests=0, entries=0, usd="0")


# -- one response, one entry


def test_two_handlers_and_a_block_are_one_entry_with_all_their_budgets(adapter, serve, handler, meter, ledger):
    far, own = serve(ANSWER), meter([Budget(usd="0.50", name="mine")])
    first, second = handler(Budget(usd="0.40", name="first")), handler(Budget(calls=5, name="second"))
    with track(Budget(usd="0.30", name="block"), meter=own):
        adapter(far, first, second).call()
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert books.spent() == [COST] * 3
    assert books.spent("calls") == [1]
    assert [item.summary().calls for item in (first, second)] == [1, 1]


def test_a_handler_that_is_given_twice_counts_once(adapter, serve, handler, ledger):
    far, budget = serve(ANSWER), handler(Budget(calls=2))
    adapter(far, budget, budget).call()
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_interleaved_streams_are_calls_of_their_own(adapter, serve, handler, ledger):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(calls=5)))
    streams = [model.stream() for _ in range(5)]
    left = list(streams)
    while left:
        left = [stream for stream in left if next(stream, None) is not None]
    audit(far, ledger, requests=5, entries=5, usd="0.00135")


def test_a_call_inside_a_stream_loop_is_a_call_of_its_own(adapter, serve, handler, ledger):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(calls=5)))
    stream = model.stream()
    next(stream)
    model.call()
    chunks(stream)
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


async def test_five_calls_one_after_another_are_five(adapter, serve, handler, ledger):
    far = serve(ANSWER)
    model = adapter(far, handler(Budget(calls=5)))
    for _ in range(5):
        await model.acall()
    audit(far, ledger, requests=5, entries=5, usd="0.00135")


# -- blocks


def test_a_block_reaches_a_model_without_a_handler(adapter, serve, meter, ledger):
    far = serve(ANSWER)
    with track(Budget(usd="0.50"), meter=meter(), user="alice", metadata={"job": "nightly"}) as run:
        adapter(far).call()
    entry = audit(far, ledger, requests=1, entries=1, usd="0.00027").one()
    assert (entry["user"], entry["metadata"], entry["run_id"]) == ("alice", {"job": "nightly"}, run.id)
    assert run.summary().cost_usd == COST


def test_an_installed_meter_reaches_every_model(adapter, serve, meter, ledger):
    far, own = serve(ANSWER), meter([Budget(calls=1)])
    scopes.install(own)
    adapter(far).call()
    with pytest.raises(BudgetExceeded):
        adapter(far).call()
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_a_block_tells_of_a_refusal_that_was_swallowed(adapter, serve, meter, ledger):
    far = serve(ANSWER)
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter()):
        model = adapter(far)
        for _ in range(4):
            with suppress(Exception):
                model.call()
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_an_inner_block_that_is_full_leaves_the_outer_one_open(adapter, serve, meter, ledger):
    far, own = serve(ANSWER), meter()
    model = adapter(far)
    with track(Budget(calls=3), meter=own):
        with pytest.raises(BudgetExceeded), track(Budget(calls=1)):
            model.call()
            model.call()
        model.call()
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


def test_a_plain_thread_is_reached_by_bind_and_a_stream_by_wrap(adapter, serve, meter, ledger):
    far = serve(ANSWER)
    model = adapter(far)
    with track(Budget(usd="0.50"), meter=meter(), user="bob") as run:
        worker = threading.Thread(target=run.bind(model.call))
        worker.start()
        worker.join()
        stream = run.wrap(model.stream())
    chunks(stream)
    books = audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert books.column("user") == ["bob", "bob"]
    assert books.column("run_id") == [run.id, run.id]


def test_a_stream_made_in_a_block_belongs_to_it_wherever_it_is_read(adapter, serve, meter, ledger):
    far = serve(ANSWER)
    model = adapter(far)
    with track(meter=meter(), user="carol") as run:
        stream = model.stream()
        next(stream)
    chunks(stream)
    books = read_back(ledger)
    assert len(far.requests) == 1
    assert {row["run_id"] for row in books.entries} == {run.id}, "who it belongs to is bound when it starts"
    assert books.booked_usd == COST, "a late end corrects what the end of the block took for lost"
    assert not books.holds


# -- content


def test_content_is_kept_only_when_asked(adapter, serve, handler, ledger, tmp_path):
    far = serve(ANSWER)
    adapter(far, handler(Budget(usd="1"))).call("a secret question")
    assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    adapter(far, handler(Budget(usd="1"), store_content=True)).call("a secret question")
    kept = [row["content"] for row in read_back(ledger).entries]
    assert kept[0] is None
    assert "a secret question" in kept[1]
    assert "The answer is four." in kept[1]
