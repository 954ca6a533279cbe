"""Ways money once slipped through, found by an adversarial review: each is a flow that lost an entry or a limit."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import uuid
from decimal import Decimal

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel

from ai_budget_callbacks import (
    Budget,
    BudgetExceeded,
    ConfigError,
    Meter,
    Price,
    PriceUnknown,
    UsageMissing,
    install,
    scope,
    track,
)
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from ai_budget_callbacks.langchain.request import build_call
from tests.flow.kit import audit, chat, claude, read_back, responses, text_model
from tests.support.provider import Reply
from tests.support.versions import LACKS_CLAUDE_SPEED, needs

USAGE = {"text": "Four.", "input_tokens": 1000, "output_tokens": 100}  # 1000 x 0.15 + 100 x 0.60 = 210 per million


def config(*handlers, **more):
    return {"callbacks": list(handlers), **more}


# -- an unrelated error in the exception's context


def _dead_sink():
    with contextlib.suppress(ZeroDivisionError):
        httpx.post("http://127.0.0.1:9/sink", timeout=1)


def test_a_consumers_own_connect_error_does_not_release_a_sent_stream(serve, handler, ledger):
    far = serve([Reply(text="y " * 50, input_tokens=10, output_tokens=50)] * 20)
    budget = handler(Budget(usd="0.001"))
    refused = 0
    for _ in range(10):
        with contextlib.suppress(httpx.ConnectError):
            try:
                with contextlib.closing(chat(far).stream("hi", config=config(budget))) as stream:
                    for _chunk in stream:
                        _dead_sink()
            except BudgetExceeded:
                refused += 1
    books = read_back(ledger)
    assert len(books.entries) == len(far.requests), "a stream was sent, billed and left no entry"
    assert books.booked_usd >= far.billed_usd, "what was cut was booked below the bill"
    assert refused, "a limit of a tenth of a cent never stopped anything"


def test_a_call_that_times_out_while_another_error_is_handled_is_unknown_not_released(serve, handler, ledger):
    far = serve(Reply(delay_s=1.0, **USAGE))
    budget = handler(Budget(usd="1"))
    try:
        raise httpx.ConnectError("something else")
    except httpx.ConnectError:
        with pytest.raises(Exception, match=r"(?i)time"):
            chat(far, timeout=0.2).invoke("hi", config=config(budget))
    books = read_back(ledger)
    assert books.statuses == ["unknown"], f"a sent call is {books.statuses or 'not on the books'}"
    assert books.booked_usd >= far.billed_usd


# -- two meters on one balance


@pytest.mark.parametrize("first", ["wide", "warns"])
def test_a_stricter_limit_on_a_shared_balance_holds(serve, handler, ledger, first):
    far = serve(Reply(**USAGE))
    day = {"per": "day", "name": "day"}
    wide = Budget(usd="100", **day) if first == "wide" else Budget(usd="0.001", at_limit="warn", **day)
    outer, strict = handler(wide), handler(Budget(usd="0.001", **day))
    sent = 0
    with pytest.raises(BudgetExceeded):
        for _ in range(20):
            chat(far, max_completion_tokens=100).invoke("hi", config=config(outer, strict))
            sent += 1
    assert sent == len(far.requests) < 20
    assert strict.exceeded
    audit(far, ledger, requests=sent, entries=sent)


def test_install_beside_a_handler_keeps_its_own_limit(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(usd="100", per="day", name="day"))
    meter = Meter([Budget(usd="0.001", per="day", name="day")], ledger=ledger)
    before = scope.installed()
    install(meter)
    try:
        with pytest.raises(BudgetExceeded):
            for _ in range(20):
                chat(far, max_completion_tokens=100).invoke("hi", config=config(budget))
    finally:
        scope._installed = before
        meter.close()
    assert len(far.requests) < 10, "the installed meter's limit was ignored"


# -- LLM cache


def test_a_paid_answer_is_not_free_because_its_twin_hit_the_cache(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(usd="1"))
    set_llm_cache(InMemoryCache())
    try:
        message = [HumanMessage("the same")]
        chat(far).generate([message, message], callbacks=[budget])
    finally:
        set_llm_cache(None)
    books = read_back(ledger)
    assert books.booked_usd == far.billed_usd, f"billed ${far.billed_usd}, booked ${books.booked_usd}: {books.statuses}"
    assert sorted(books.statuses) == sorted(["priced"] * len(far.requests) + ["free"] * (2 - len(far.requests)))


# -- one run id for several calls at once


def test_calls_at_once_under_one_run_id_are_calls_of_their_own(serve, meter, ledger):
    far = serve(Reply(delay_s=0.15, **USAGE))
    shared, run_id = meter([Budget(usd="1")]), uuid.uuid4()
    handlers = [BudgetCallbackHandler(shared) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda h=h: chat(far).invoke("hi", config=config(h, run_id=run_id))) for h in handlers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audit(far, ledger, requests=4, entries=4, usd="0.00084")


def test_two_handlers_of_one_call_with_a_run_id_still_share_its_entry(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    handlers = [handler(Budget(usd="1")), handler(Budget(usd="2"))]
    chat(far).invoke("hi", config=config(*handlers, run_id=uuid.uuid4()))
    audit(far, ledger, requests=1, entries=1, usd="0.00021")


def test_processes_that_use_one_run_id_are_calls_of_their_own(serve, ledger):
    far = serve(Reply(delay_s=0.3, **USAGE))
    run_id = uuid.uuid4()

    def work():
        chat(far).invoke("hi", config=config(BudgetCallbackHandler(Budget(usd="1"), ledger=ledger), run_id=run_id))

    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    audit(far, ledger, requests=2, entries=2, usd="0.00042")


# -- what the worst case must count


class Wide(BaseModel):
    """A schema that is not small."""

    field_with_a_long_name_one: str
    field_with_a_long_name_two: list[str]
    field_with_a_long_name_three: dict[str, int]


def _request(messages=(), **params):
    kwargs = {"invocation_params": params, "metadata": {"ls_model_name": "gpt-4o-mini"}}
    call = build_call(
        run_id="a", node=None, parent_run_id=None, provider="openai", serialized={}, messages=messages, kwargs=kwargs,
        runs=(),
    )  # fmt: skip
    return call.request


def test_schemas_count_whichever_way_they_are_given():
    as_dict = _request(response_format=Wide.model_json_schema()).tool_bytes
    assert as_dict > 300
    assert _request(response_format=Wide).tool_bytes == as_dict, (
        "a pydantic class is sent as its schema, and was not counted"
    )
    assert _request(text={"format": Wide.model_json_schema()}).tool_bytes >= as_dict


def test_what_extra_body_asks_for_counts():
    assert _request(max_completion_tokens=10, extra_body={"max_tokens": 1000}).max_output_tokens == 1000


def test_invalid_tool_calls_are_sent_too():
    message = AIMessage("", invalid_tool_calls=[{"name": "f", "args": "x" * 5000, "id": "1", "error": None}])
    assert _request([message]).text_bytes > 5000


@pytest.mark.parametrize(
    "params",
    [
        {"mcp_servers": [{"url": "x"}]}, {"web_search_options": {"a": 1}}, {"conversation": "c"}, {"prompt": {"id": "p"}},
        {"cached_content": "c"}, {"search_parameters": {"mode": "on"}}, {"plugins": [{"id": "web"}]},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        {"model_kwargs": {"models": ["openai/o1-pro"]}}, {"extra_body": {"models": ["openai/o1-pro"]}},
        {"tools": [{"google_search": {}}]}, {"tools": [{"codeExecution": {}}]}, {"tools": [{"type": "x_search"}]},
        {"tools": [{"systemTool": {"name": "nova_grounding"}}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_bound_is_refused_by_the_worst_case(serve, handler, params):
    request = _request(**params)
    assert request.hosted_tools or request.other_parts, f"{params} would be admitted as if it were bounded"


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage([{"type": "item_reference", "id": "msg_1"}]),
        HumanMessage([{"type": "container_upload", "file_id": "file_1"}]),
        AIMessage("", additional_kwargs={"audio": {"id": "audio_1"}}),
    ],
    ids=["item", "upload", "sound"],
)
def test_what_a_message_names_and_does_not_hold_has_no_bound(message):
    assert _request([message]).other_parts == 1


def test_a_tool_of_ones_own_is_no_hosted_one():
    own = [
        {"function_declarations": [{"name": "google_search"}], "google_search": None},
        {"type": "function", "function": {"name": "retrieval"}},
        {"name": "web_search", "input_schema": {}},
        {"toolSpec": {"name": "a"}},
        {"cachePoint": {"type": "default"}},
    ]
    request = _request(tools=own)
    assert (request.hosted_tools, request.tools, request.cache_control) == ((), 5, True)


def test_a_tool_that_anthropic_defines_is_held_with_its_definition():
    tool = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}
    # 71 bytes of JSON, and 1,300
    assert _request(tools=[tool]).tool_bytes == 1_371


def test_a_function_call_of_the_old_kind_is_sent_too():
    message = AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "x" * 5000}})
    assert _request([message]).text_bytes > 5000


def test_geminis_candidates_and_its_configuration_count():
    assert _request(n=1, candidate_count=4).choices == 4
    request = _request(max_output_tokens=10, n=1, generation_config={"max_output_tokens": 900, "candidate_count": 3})
    assert (request.max_output_tokens, request.choices) == (900, 3)


@pytest.mark.parametrize("params", [{"maxTokens": 5_000}, {"inferenceConfig": {"maxTokens": 5_000}}], ids=str)
def test_converses_limit_is_found_whichever_way_it_is_given(params):
    assert _request(max_tokens=100, **params).max_output_tokens == 5_000


def test_a_cache_point_asks_for_a_cache_write():
    blocks = [{"type": "text", "text": "hi"}, {"cachePoint": {"type": "default"}}]
    assert _request([HumanMessage(blocks)]).cache_control
    assert _request(model_kwargs={"cache_control": {"type": "ephemeral"}}).cache_control
    assert not _request([HumanMessage(blocks[:1])]).cache_control


def test_an_unbounded_call_is_refused_before_sending(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(usd="1"), reserve="worst_case")
    with pytest.raises(PriceUnknown, match="web_search_options"):
        chat(far, max_completion_tokens=50).invoke("hi", config=config(budget), web_search_options={"a": 1})
    audit(far, ledger, requests=0, entries=0)


# -- collectors, forks, siblings


def test_a_stream_collected_inside_our_own_transaction_spares_it(serve, handler, ledger):
    far = serve([Reply(text="a b c d e f g", input_tokens=10, output_tokens=7)] * 60)
    budget = handler(Budget(usd="1"), reserve="none")
    before = gc.get_threshold()
    gc.set_threshold(40, 2, 2)
    try:
        for _ in range(30):
            cycle = [chat(far).stream("hi", config=config(budget))]
            next(cycle[0])
            cycle.append(cycle)  # only the collector frees it, whenever it likes
            del cycle
            chat(far).invoke("hi", config=config(budget))
    finally:
        gc.set_threshold(*before)
    gc.collect()
    budget.meter.replay()
    books = read_back(ledger)
    assert len(books.entries) == len(far.requests) == 60, "a collected stream or the call around it left no entry"
    assert books.holds == []
    assert budget.meter.ledger.verify() == []


def test_a_stream_that_settles_inside_a_transaction_waits_for_its_end(serve, handler, ledger):
    """What a collector does, at the worst moment: the same lock, the same thread, a transaction under way."""
    far = serve(Reply(text="a b c d", input_tokens=10, output_tokens=7))
    budget = handler(Budget(usd="1"))
    stream = chat(far).stream("hi", config=config(budget))
    for _ in range(3):  # the first chunk has no text
        next(stream)
    with budget.meter.ledger._connection.write() as conn:
        conn.execute("UPDATE balance SET spent = spent + 5")
        stream.close()
        conn.execute("UPDATE balance SET spent = spent - 5")
    budget.meter.replay()
    books = read_back(ledger)
    assert books.statuses == ["estimated"], "the stream's settle is lost"
    assert books.holds == []
    assert budget.meter.ledger.verify() == [], "a settle inside our own transaction rolled half of it back"


def test_a_forked_child_does_not_end_its_parents_calls(serve, handler, ledger):
    far = serve(Reply(text="a b c d", input_tokens=1000, output_tokens=100))
    stream = chat(far).stream("hi", config=config(handler(Budget(usd="1"))))
    next(stream)
    pid = os.fork()
    if pid == 0:
        try:
            stream.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    for _ in stream:
        pass
    audit(far, ledger, requests=1, entries=1, usd="0.00021")


def test_prompts_of_a_generate_are_not_lost_when_a_later_one_fails(serve, handler, ledger):
    far = serve([Reply(**USAGE), Reply(status=500)])
    budget = handler(Budget(usd="1"))
    with pytest.raises(Exception, match="500"):
        chat(far).generate([[HumanMessage("a")], [HumanMessage("b")]], callbacks=[budget])
    books = read_back(ledger)
    assert books.holds == [], "the paid prompt's hold stays until it expires"
    assert books.statuses == ["unknown"], "a paid prompt left no entry"
    assert books.booked_usd >= far.billed_usd


# -- damaged or missing usage


def test_a_usage_that_json_cannot_hold_is_booked_and_the_answer_delivered(serve, handler, ledger):
    far = serve(
        Reply(usage={"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "odd": 2**70}, **USAGE)
    )
    answer = chat(far).invoke("hi", config=config(handler(Budget(usd="1"))))
    assert answer.content == "Four."
    audit(far, ledger, requests=1, entries=1, usd="0.00021")


def test_no_usage_and_nothing_visible_keeps_the_hold(serve, handler, ledger):
    far = serve(Reply(text="", input_tokens=5, output_tokens=500, usage="omit"))
    chat(far).invoke("hi", config=config(handler(Budget(usd="1"))))
    books = read_back(ledger)
    assert books.statuses == ["estimated"]
    assert books.booked_usd >= far.billed_usd, f"billed ${far.billed_usd}, booked ${books.booked_usd}"


def test_unknown_calls_of_an_unpriced_model_book_what_was_allowed(serve, handler, ledger):
    far = serve(Reply(delay_s=1.0, **USAGE), prices={"my-own": {"input": "100", "output": "100"}})
    budget = handler(Budget(usd="0.10"), reserve="none", on_unpriced="0.05")
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)time"):
            chat(far, model="my-own", timeout=0.2).invoke("hi", config=config(budget))
    with pytest.raises(BudgetExceeded):
        chat(far, model="my-own", timeout=0.2).invoke("hi", config=config(budget))
    books = read_back(ledger)
    assert books.statuses == ["unknown", "unknown"]
    assert books.booked_usd == Decimal("0.10"), "an unpriced call that was never seen must book the allowed amount"


# -- names


@pytest.mark.parametrize(
    "match", [{"model": "gpt-4o-mini-2024-07-18"}, {"model": "GPT-4o*"}, {"user_id": "alice"}], ids=str
)
def test_a_budget_matches_what_its_author_wrote(serve, handler, match):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(calls=1, match=match))
    model = chat(far, model="gpt-4o-mini-2024-07-18")
    options = config(budget, metadata={"user_id": "alice"})
    model.invoke("hi", config=options)
    with pytest.raises(BudgetExceeded):
        model.invoke("hi", config=options)


def test_metadata_that_begins_like_a_user_is_its_own_key(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(calls=1, by="user_id_hash"))
    for user in ("a1", "b2"):
        chat(far).invoke("hi", config=config(budget, metadata={"user_id_hash": user}))
    assert sorted(row["scope"] for row in read_back(ledger).balances) == ['["a1"]', '["b2"]']


def test_a_null_user_leaves_the_blocks_user(serve, ledger):
    far = serve(Reply(**USAGE))
    meter = Meter(ledger=ledger)
    with track(meter=meter, user="alice"):
        chat(far).invoke("hi", config={"metadata": {"user_id": None}})
    meter.close()
    assert read_back(ledger).column("user") == ["alice"]


def test_a_price_for_a_model_holds_for_its_dated_snapshot(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(usd="1"), prices={"gpt-4o-mini": Price(input="100", output="100")})
    chat(far, model="gpt-4o-mini-2024-07-18").invoke("hi", config=config(budget))
    assert read_back(ledger).cost_usd == Decimal("0.11")  # 1100 x 100 per million


def test_reasoning_outside_completion_tokens_is_billed_in_a_stream_too(serve, handler, ledger):
    usage = {
        "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1400,
        "completion_tokens_details": {"reasoning_tokens": 300},
    }  # fmt: skip
    far = serve([Reply(text="a b", usage=usage)] * 2)
    budget = handler(Budget(usd="1"))
    chat(far).invoke("hi", config=config(budget))
    for _ in chat(far).stream("hi", config=config(budget)):
        pass
    # 1000 x 0.15 + 400 x 0.60 = 390 per million, both ways
    assert read_back(ledger).column("cost_usd") == ["0.00039", "0.00039"]


def test_a_fast_claude_stream_is_not_priced_as_a_slow_one(serve, handler, ledger):
    needs(LACKS_CLAUDE_SPEED)
    far = serve([Reply(**USAGE)] * 2)
    budget = handler(Budget(usd="10"))
    model = claude(far, model_kwargs={"speed": "fast"})
    for _ in model.stream("hi", config=config(budget)):
        pass
    assert read_back(ledger).one()["status"] == "unpriced", "Sonnet has no fast price: it must not get the standard one"


def test_a_responses_answer_is_counted(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    responses(far).invoke("hi", config=config(handler(Budget(usd="1"))))
    audit(far, ledger, requests=1, entries=1, usd="0.00021")


def test_a_refused_prompt_takes_back_what_another_handler_held_for_its_siblings(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    wide, narrow = handler(Budget(usd="5")), handler(Budget(calls=2))
    prompts = [[HumanMessage(str(n))] for n in range(3)]
    with pytest.raises(BudgetExceeded):
        chat(far).generate(prompts, callbacks=[wide, narrow])
    audit(far, ledger, requests=0, entries=0)


def test_one_run_id_twice_at_once_in_one_handler_is_refused_and_leaves_nothing(serve, handler, ledger):
    far = serve(Reply(delay_s=1, **USAGE))
    said, refused = [], threading.Event()
    # between the claim of a run id and its admission: open until all others were refused, however slow the machine is
    slow = [lambda _: refused.wait(5)]
    first, shared = (handler(Budget(usd="1"), listeners=slow) for _ in range(2))
    run_id = uuid.uuid4()
    together, model = threading.Barrier(8), chat(far)

    def ask():
        together.wait()
        try:
            model.invoke("hi", config=config(first, shared, run_id=run_id))
        except ConfigError as error:
            said.append(error.message)
            if len(said) == 7:
                refused.set()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 7
    assert all("Give each its own" in message for message in said)
    audit(far, ledger, requests=1, entries=1, usd="0.00021")


def test_a_text_batch_that_fails_costs_nothing_for_any_prompt(serve, handler, ledger):
    far = serve(Reply(status=500))
    with pytest.raises(Exception, match="500"):
        text_model(far).generate(["a", "b", "c"], callbacks=[handler(Budget(usd="1"))])
    audit(far, ledger, requests=1, entries=0)


def _answered(status):
    request = httpx.Request("POST", "http://hooks.example/tokens")
    return httpx.HTTPStatusError("down", request=request, response=httpx.Response(status, request=request))


def test_a_failure_our_reader_cannot_judge_is_unknown_and_the_error_stays_the_callers(serve, handler, ledger):
    """An exception whose own attributes raise: ours would replace it, and the hold would stay open."""

    class Hostile(Exception):
        @property
        def response(self):
            raise RuntimeError("no attribute for you")

    far = serve(Reply(text="a b c d", input_tokens=10, output_tokens=7))
    budget = handler(Budget(usd="1"))
    stream = chat(far).stream("hi", config=config(budget))
    for _ in range(3):
        next(stream)
    run_id = next(iter(budget._ongoing))
    budget.on_llm_error(Hostile("odd"), run_id=uuid.UUID(run_id), response=None)
    books = read_back(ledger)
    assert books.statuses == ["unknown"], "a sent call whose failure could not be judged left no entry"
    assert books.holds == []
    assert books.booked_usd >= far.billed_usd
    stream.close()


@pytest.mark.parametrize("error", [_answered(500), httpx.ConnectError("down")], ids=["HTTP 500", "refused connection"])
def test_a_status_after_chunks_is_no_answer_of_the_provider(serve, handler, ledger, error):
    """A consumer throws its own failure into the stream it reads: chunks had come, so it was sent and is billed."""
    far = serve(Reply(text="a b c d e f g h", input_tokens=1000, output_tokens=100))
    budget = handler(Budget(usd="1"))
    stream = chat(far).stream("hi", config=config(budget))
    for _ in range(3):
        next(stream)
    with pytest.raises(type(error)):
        stream.throw(error)
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.statuses == ["estimated"]
    assert books.booked_usd >= far.billed_usd


# -- what is raised at the end keeps LangChain from telling the next handler of it


@pytest.mark.parametrize("why", ["crossing", "usage"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_raise_at_the_end_leaves_no_hold_open_on_another_ledger(
    serve, handler, ledger, tmp_path, is_async, why
):
    far = serve(Reply(**USAGE) if why == "crossing" else Reply(usage="omit", **USAGE))
    options = {"reserve": "none"} if why == "crossing" else {"on_missing_usage": "raise"}
    raising = handler(Budget(usd="0.0001" if why == "crossing" else "1", at_limit="raise"), **options)
    other = handler(Budget(usd="1"), ledger=tmp_path / "other.db")
    model = chat(far)
    with pytest.raises(BudgetExceeded if why == "crossing" else UsageMissing):
        await model.ainvoke("hi", config(raising, other)) if is_async else model.invoke("hi", config(raising, other))
    for path in (ledger, tmp_path / "other.db"):
        books = audit(far, path, requests=1, entries=1, exact=why == "crossing")
        assert books.statuses == ["priced" if why == "crossing" else "estimated"], "the other ledger lost the answer"
