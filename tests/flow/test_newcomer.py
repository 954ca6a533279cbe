"""What a new user gets wrong: each is a flow that sent, spent or said nothing where it should have spoken."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import subprocess
import sys
from decimal import Decimal

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from ai_budget_callbacks import Budget, BudgetExceeded, ConfigError, Price, PriceUnknown, track
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import audit, chat, read_back, text_model
from tests.support.provider import Reply

USAGE = {"text": "Four.", "input_tokens": 1000, "output_tokens": 100}
ZZ = {"zz": {"input": "1", "output": "2"}}


def config(*handlers, **more):
    return {"callbacks": list(handlers), **more}


# -- a price that is not whole


@pytest.mark.parametrize(
    ("price", "lacks"), [(Price(input="1"), "output"), (Price(output="1"), "input"), (Price(request="1"), "input")]
)
@pytest.mark.parametrize("reserve", ["expected", "worst_case", "none", "0.0001"])
def test_a_chat_model_whose_price_is_not_whole_is_refused(serve, handler, ledger, price, lacks, reserve):
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="0.0006"), prices={"zz": price}, reserve=reserve)
    for _ in range(30):
        with pytest.raises(PriceUnknown) as refused:
            chat(far, model="zz", max_completion_tokens=100).invoke("hi", config=config(budget))
    assert f"the price of 'zz' has no {lacks}" in str(refused.value), str(refused.value)
    assert f'{lacks}="…"' in str(refused.value), "it must say what to give"
    audit(far, ledger, requests=0, entries=0)


def test_an_output_that_costs_nothing_is_said_so(serve, handler, ledger):
    far = serve(Reply(**USAGE), prices={"zz": {"input": "1", "output": "0"}})
    budget = handler(Budget(usd="1"), prices={"zz": Price(input="1", output="0")})
    chat(far, model="zz").invoke("hi", config=config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.001")


def test_an_amount_is_held_and_booked_for_a_price_that_is_not_whole(serve, handler, ledger):
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="0.12"), prices={"zz": Price(input="1")}, on_unpriced="0.05")
    with pytest.raises(BudgetExceeded):
        for _ in range(30):
            chat(far, model="zz").invoke("hi", config=config(budget))
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    assert books.statuses == ["unpriced"] * 2
    assert books.spent() == [Decimal("0.10")]


def test_of_an_unpriced_answer_at_least_the_priced_part_is_booked(serve, handler, ledger):
    """1000 input tokens at $1 a token's thousandth: the part alone is $1, and the amount is 5 cents."""
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="3"), prices={"zz": Price(input="1000")}, on_unpriced="0.05")
    with pytest.raises(BudgetExceeded):
        for _ in range(30):
            chat(far, model="zz").invoke("hi", config=config(budget))
    books = audit(far, ledger, requests=3, entries=3, exact=False)
    assert set(books.statuses) == {"unpriced"}
    assert books.column("cost_pico") == [None] * 3, "a part is no cost"
    assert books.spent() == [Decimal(3)]


def test_a_warning_budget_lets_it_go_on_and_counts_the_part(serve, handler, ledger):
    far = serve(Reply(**USAGE), prices=ZZ)
    budget = handler(Budget(usd="0.0001", at_limit="warn"), prices={"zz": Price(input="1")})
    for _ in range(3):
        chat(far, model="zz").invoke("hi", config=config(budget))
    books = audit(far, ledger, requests=3, entries=3, exact=False)
    assert books.statuses == ["unpriced"] * 3
    assert books.spent() == [Decimal("0.003")]


def test_a_catalogue_model_that_has_no_output_price_is_refused_as_a_chat_model(serve, handler, ledger):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(usd="0.0006"))
    with pytest.raises(PriceUnknown, match="the price of 'text-embedding-3-small' has no output"):
        chat(far, model="text-embedding-3-small").invoke("hi", config=config(budget))
    assert read_back(ledger).entries == []
    assert far.requests == []


# -- the class instead of an instance


def _stream(model, settings):
    return list(model.stream("hi", config=settings))


async def _astream(model, settings):
    return [chunk async for chunk in model.astream("hi", config=settings)]


WAYS = {
    "invoke": lambda model, settings: model.invoke("hi", config=settings),
    "ainvoke": lambda model, settings: model.ainvoke("hi", config=settings),
    "stream": _stream,
    "astream": _astream,
    "batch": lambda model, settings: model.batch(["hi", "ho"], config=settings),
}


class Derived(BudgetCallbackHandler):
    """A user's own."""


@pytest.mark.parametrize("kind", [BudgetCallbackHandler, Derived])
@pytest.mark.parametrize("where", ["model", "text model", "chain"])
@pytest.mark.parametrize("way", WAYS)
async def test_the_class_instead_of_an_instance_is_refused(serve, way, where, kind):
    far = serve(Reply(**USAGE))
    model = text_model(far) if where == "text model" else chat(far)
    runnable = RunnableLambda(lambda text: text) | model if where == "chain" else model
    with pytest.raises(ConfigError, match=rf"callbacks=\[{kind.__name__}\(…\)\]"):
        found = WAYS[way](runnable, config(kind))
        if inspect.isawaitable(found):
            await found
    assert far.requests == [], "a call went out that nobody counts"


def test_the_class_is_refused_by_a_tool_too():
    @tool
    def search(topic: str) -> str:
        """Search the web."""
        raise AssertionError("the tool ran, and nobody counts it")

    with pytest.raises(ConfigError, match="give an instance"):
        search.invoke({"topic": "x"}, config=config(BudgetCallbackHandler))


def test_looking_at_the_class_is_no_error():
    assert dict(inspect.getmembers(BudgetCallbackHandler))["summary"]
    assert not hasattr(BudgetCallbackHandler, "ignore_llm")


# -- a handler that is attached nowhere

UNATTACHED = "has seen no LangChain event"


def _said(caplog):
    return [record.message for record in caplog.records if UNATTACHED in record.message]


@pytest.mark.parametrize(
    "ask", [lambda h: h.exceeded, lambda h: h.raise_if_exceeded(), lambda h: h.summary(), lambda h: h.tree()]
)
def test_a_handler_that_is_attached_nowhere_says_so_once(serve, handler, caplog, ask):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(calls=1))
    chat(far).invoke("hi")
    ask(budget)
    assert len(_said(caplog)) == 1
    ask(budget)
    budget.summary()
    assert len(_said(caplog)) == 1, "once is enough"


@pytest.mark.parametrize("attached", [False, True])
def test_a_handler_that_is_dropped_says_whether_it_was_of_use(serve, caplog, attached):
    far = serve(Reply(**USAGE))
    budget = BudgetCallbackHandler(Budget(calls=1), ledger=":memory:")
    chat(far).invoke("hi", config=config(budget) if attached else None)
    del budget
    gc.collect()
    assert len(_said(caplog)) == (0 if attached else 1)


SCRIPT = """
import os, sys
from langchain_core.language_models import FakeListChatModel
from ai_budget_callbacks import Budget, Meter
from ai_budget_callbacks.langchain import BudgetCallbackHandler

budget = BudgetCallbackHandler(Meter(Budget(calls=1), ledger=":memory:", prices={"FakeListChatModel": "free"}))
way = sys.argv[1]
if way == "used":
    FakeListChatModel(responses=["a"]).invoke("hi", config={"callbacks": [budget]})
if way in {"forked", "child"}:
    pid = os.fork()
    if pid == 0:
        if way == "forked":
            FakeListChatModel(responses=["a"]).invoke("hi", config={"callbacks": [budget]})
        sys.exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(("way", "times"), [("unused", 1), ("used", 0), ("forked", 0), ("child", 0)])
def test_at_exit_a_handler_that_was_attached_nowhere_says_so(way, times):
    """A process that forked workers does not know what they did, and a worker did not make the handler: silent."""
    out = subprocess.run([sys.executable, "-c", SCRIPT, way], capture_output=True, text=True, check=True, timeout=60)
    assert out.stderr.count(UNATTACHED) == times, out.stderr


# -- words of a refusal


@pytest.mark.parametrize("options", [{}, {"max_completion_tokens": 20_000}])
def test_the_worst_case_says_that_it_is_the_models_whole_maximum(serve, handler, options):
    far = serve(Reply(**USAGE))
    with pytest.raises(BudgetExceeded) as refused:
        chat(far, **options).invoke("hi", config=config(handler(Budget(usd="0.001"), reserve="worst_case")))
    assert ("the model's whole output maximum of 16384 tokens" in str(refused.value)) == (not options)
    assert ("set max_tokens or max_completion_tokens" in str(refused.value)) == (not options)
    assert far.requests == []


def test_a_used_up_budget_says_nothing_of_maximums(serve, handler):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(usd="0.00021"), Budget(calls=9), reserve="worst_case")
    chat(far, max_completion_tokens=50).invoke("hi", config=config(budget))
    with pytest.raises(BudgetExceeded, match="is used up") as refused:
        chat(far).invoke("hi", config=config(budget))
    assert "maximum" not in str(refused.value)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("user", 'No user was given, and all such calls share this balance: give metadata["user_id"]'),
        (("agent", "user_id"), "or track(user=…)"),
        ("thread", 'give configurable["thread_id"]'),
        ("team", 'give metadata["team"] in the config, or track(metadata={"team": …})'),
        ("agent", None),
    ],
)
def test_a_call_that_says_not_whose_it_is_is_told_how(serve, handler, by, said):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(calls=1, by=by))
    chat(far).invoke("hi", config=config(budget))
    with pytest.raises(BudgetExceeded, match=r"\(none\)") as refused:
        chat(far).invoke("hi", config=config(budget))
    assert ("was given" in str(refused.value)) == (said is not None)
    assert (said or "") in str(refused.value)


def test_a_call_that_says_whose_it_is_is_not(serve, handler):
    far = serve(Reply(**USAGE))
    budget = handler(Budget(calls=1, by="user"))
    for refused in (False, True):
        with pytest.raises(BudgetExceeded) if refused else contextlib.nullcontext() as stop:
            chat(far).invoke("hi", config=config(budget, metadata={"user_id": "alice"}))
    assert "was given" not in str(stop.value)


# -- arguments


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BudgetCallbackHandler(usd="1"), r"BudgetCallbackHandler\(Budget\(usd='1'\)\)"),
        (lambda: BudgetCallbackHandler(calls=3, per="run"), r"Budget\(calls=3, per='run'\)"),
        (lambda: BudgetCallbackHandler([Budget(calls=3)]), r"one by one.*not in a list: \[Budget\("),
        (lambda: BudgetCallbackHandler("0.50"), "'0.50' is neither"),
        (lambda: track(_somebodys), r"Write @track\(\) above _somebodys"),
        (lambda: track(asyncio.sleep), r"Write @track\(\) above sleep"),
    ],
)
def test_arguments_that_make_no_sense_say_what_would(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def _somebodys():
    """A function."""


@pytest.mark.parametrize("name", [None, "", "  ", 7])
def test_a_charge_says_what_it_was_for(handler, meter, ledger, name):
    for charging in (handler(Budget(usd="1")), meter()):
        with pytest.raises(ConfigError, match="must say what the money was for"):
            charging.charge("1", name=name)
    assert read_back(ledger).entries == []
