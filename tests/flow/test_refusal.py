"""After the limit nothing is sent, whoever wraps the call, and the caller can always find out.

The cases stand in wrapper_table.py; `python -m tests.flow.wrapper_table` prints them with what happened.
"""

from __future__ import annotations

from decimal import Decimal

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from ai_budget_callbacks import Budget, BudgetExceeded, track
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.events import CallRefused
from tests.flow.kit import audit, chat, text_model
from tests.flow.wrapper_table import BUDGETS, CASES, QUESTION, budget_for, paid_calls, run_case, script
from tests.support.provider import FarEnd
from tests.support.versions import needs

# one server and one event loop for the table: building clients for 14 servers would cost more than the runs
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def far():
    with FarEnd(script) as server:
        yield server


def _check(case, kind, result, expected, far, ledger):
    paid = paid_calls(kind, case)
    assert result.sent == paid, f"{case.name}: {result.sent - paid} requests were paid for after the limit"
    assert result.outcome == expected, f"{case.name}: the caller of a stopped run saw: {result.outcome}"
    assert result.exceeded, f"{case.name}: the budget stopped the run and does not say so"
    # every answer costs $0.00027
    audit(far, ledger, requests=paid, entries=paid, usd=str(paid * Decimal("0.00027")))
    if result.error is not None:
        assert QUESTION not in str(result.error), "an exception's text must not carry a prompt"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", BUDGETS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_nothing_is_sent_after_the_limit(far, ledger, case, kind, is_async):
    needs(case.lacks)
    result = await run_case(case, kind, "handler", far, ledger, is_async=is_async)
    _check(case, kind, result, case.outcome, far, ledger)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_block_raises_even_where_a_wrapper_hid_the_refusal(far, ledger, case, is_async):
    needs(case.lacks)
    result = await run_case(case, "calls", "track", far, ledger, is_async=is_async)
    expected = "raised at the block's exit" if case.outcome == "returned" else "raised"
    _check(case, "calls", result, expected, far, ledger)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_table_is_not_empty_talk(far, ledger, handler, case):
    """With money left every case goes on past the point where the tests above stop it."""
    needs(case.lacks)
    budget = handler(Budget(calls=100))
    runnable = case.build(far)
    far.reset()
    await runnable.ainvoke(case.input, config={"callbacks": [budget]})
    sent = len(far.requests)
    assert sent > max(paid_calls(kind, case) for kind in BUDGETS), (
        f"{case.name} makes only {sent} calls: proves nothing"
    )
    audit(far, ledger, requests=sent, entries=sent, usd=str(sent * Decimal("0.00027")))


async def test_the_refusal_says_what_happened(far, ledger, handler):
    seen = []
    budget = handler(budget_for("usd", CASES[0]), listeners=[seen.append])
    far.reset()
    chat(far).invoke(QUESTION, config={"callbacks": [budget]})
    with pytest.raises(BudgetExceeded) as caught:
        chat(far).invoke(QUESTION, config={"callbacks": [budget]})
    error = caught.value
    assert str(error) == (
        "Budget '$0.00027' is used up: $0.00027 spent and $0 held by calls in flight, of $0.00027. "
        "Nothing was sent. Raise the limit, or end the run here."
    )
    assert (error.limit, error.spent, error.held) == (Decimal("0.00027"), Decimal("0.00027"), Decimal(0))
    assert error.response is None and error.entry is None, "nothing was sent, so there is no answer to carry"
    assert error.resets_at is None
    assert isinstance(error, RuntimeError)
    assert [event.reason for event in seen if isinstance(event, CallRefused)] == [str(error)]
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_a_call_that_does_not_fit_closes_its_run_and_no_other(far, ledger, handler):
    """The first run asks for too much and stays closed; another run on the same balance goes on with what fits."""
    far.reset()
    budget = handler(Budget(usd="0.001"), reserve="worst_case")
    small, large = chat(far, max_tokens=200), chat(far, max_tokens=16000)  # 16000 x 0.60 = $0.0096 does not fit

    def greedy(question):
        small.invoke(question)
        for model in (large, small):
            with pytest.raises(BudgetExceeded):
                model.invoke(question)
        return "stopped"

    assert RunnableLambda(greedy).invoke(QUESTION, config={"callbacks": [budget]}) == "stopped"
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
    small.invoke(QUESTION, config={"callbacks": [budget]})
    audit(far, ledger, requests=2, entries=2, usd="0.00054")
    assert budget.exceeded, "one of its calls was refused"


async def test_a_batch_gives_refusals_in_place_of_answers(far, ledger, handler):
    far.reset()
    budget = handler(Budget(calls=2))
    got = await chat(far).abatch([QUESTION] * 5, config={"callbacks": [budget]}, return_exceptions=True)
    refused = [item for item in got if isinstance(item, BudgetExceeded)]
    assert len(refused) == 3, f"two calls were allowed and five asked for: {got}"
    audit(far, ledger, requests=2, entries=2, usd="0.00054")


async def test_a_crossing_answer_is_delivered_and_the_next_call_refused(far, ledger, handler):
    far.reset()
    budget = handler(Budget(usd="0.0002"))
    answer = chat(far).invoke(QUESTION, config={"callbacks": [budget]})
    assert answer.text == "Four.", "at_limit='refuse' keeps what was paid for"
    with pytest.raises(BudgetExceeded):
        chat(far).invoke(QUESTION, config={"callbacks": [budget]})
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_a_token_budget_refuses_too(far, ledger, handler):
    far.reset()
    budget = handler(Budget(tokens=1200))  # one answer: 1000 + 200
    chat(far, max_tokens=200).invoke(QUESTION, config={"callbacks": [budget]})
    with pytest.raises(BudgetExceeded, match=r"1200 tokens spent"):
        chat(far, max_tokens=200).invoke(QUESTION, config={"callbacks": [budget]})
    books = audit(far, ledger, requests=1, entries=1, usd="0.00027")
    assert books.spent("tokens") == [1200]


async def test_with_two_budgets_the_tighter_one_refuses(ledger, handler):
    with FarEnd(Reply(input_tokens=1000, output_tokens=200)) as far:
        budget = handler(Budget(usd="5", name="wide"), Budget(calls=1, name="tight"))
        chat(far).invoke(QUESTION, config={"callbacks": [budget]})
        with pytest.raises(BudgetExceeded, match="'tight'"):
            chat(far).invoke(QUESTION, config={"callbacks": [budget]})
        audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_a_refusal_on_the_outer_budget_is_the_outer_blocks(far, ledger, meter):
    """An inner block without room of its own is not exceeded by the outer's limit; both refuse."""
    far.reset()
    counted = meter()
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=counted) as outer:
        with track(Budget(calls=5)) as inner:
            chat(far).invoke(QUESTION)
            with pytest.raises(BudgetExceeded):
                chat(far).invoke(QUESTION)
    assert outer.exceeded, "the outer block's own budget refused"
    assert not inner.exceeded, "the inner block had four calls left"
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


# -- one call of LangChain, several prompts: a refused prompt stops them all, so nothing may stay held or booked


def _generate(model, budget):
    return model.generate_prompt(_prompts(), callbacks=[budget])


async def _agenerate(model, budget):
    return await model.agenerate_prompt(_prompts(), callbacks=[budget])


def _in_a_chain(model, budget):
    run = RunnableLambda(lambda _: model.generate_prompt(_prompts(), callbacks=[budget]))
    return run.invoke("go", config={"callbacks": [budget]})


def _prompts():
    return [ChatPromptTemplate.from_messages([("human", QUESTION)]).invoke({}) for _ in range(3)]


@pytest.mark.parametrize("way", [_generate, _agenerate, _in_a_chain], ids=lambda way: way.__name__.strip("_"))
@pytest.mark.parametrize("make", [chat, text_model], ids=lambda make: make.__name__)
async def test_a_refused_prompt_leaves_nothing_of_the_others_on_the_books(ledger, handler, make, way):
    """LangChain announces all prompts, ours refuses the third, no request is made and no end event follows."""
    with FarEnd(Reply(input_tokens=1000, output_tokens=200)) as far:
        budget = handler(Budget(calls=2))
        with pytest.raises(BudgetExceeded):
            done = way(make(far), budget)
            await done
        audit(far, ledger, requests=0, entries=0, usd="0")
