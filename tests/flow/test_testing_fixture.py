"""The fixture that users prove their own limits with: green where a limit holds, red where it does not, and no trace."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, Price, install, scope, track
from ai_budget_callbacks.demo.loopback import LoopbackProvider
from ai_budget_callbacks.demo.wire import PRICES
from ai_budget_callbacks.langchain import BudgetCallbackHandler, MeteredEmbeddings
from ai_budget_callbacks.testing import Reply, ToolCall, ai_budget

__all__ = ["ai_budget"]

ROOT = Path(__file__).parents[2]

APPLICATION = '''
"""Somebody's application: it asks until the answer is long enough, which it never is."""

from langchain_openai import ChatOpenAI

from ai_budget_callbacks import Budget, BudgetExceeded
from ai_budget_callbacks.langchain import BudgetCallbackHandler


def ask(times, callbacks):
    model = ChatOpenAI(model="gpt-4o-mini", max_retries=0)
    for _ in range(times):
        model.invoke("Tell me all.", config={"callbacks": callbacks})


def limited(times):
    """At most two calls; says how many budgets stopped it."""
    try:
        ask(times, [BudgetCallbackHandler(Budget(calls=2))])
    except BudgetExceeded:
        return True
    return False


def forgotten(times):
    """The handler is made, and given to nobody."""
    BudgetCallbackHandler(Budget(calls=2))
    ask(times, [])
'''

TESTS = """
import os
from decimal import Decimal

import pytest

from ai_budget_callbacks import Budget, BudgetExceeded, scope
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from ai_budget_callbacks.testing import Reply
from application import ask, forgotten, limited

pytest_plugins = ["ai_budget_callbacks.testing"]


def test_1_the_limit_holds(ai_budget):
    ai_budget.replies(Reply(text="Some.", input_tokens=1000, output_tokens=200))
    assert limited(10)
    assert len(ai_budget.requests) == 2
    assert ai_budget.billed_usd == Decimal("0.00054")
    ai_budget.assert_books_match()


def test_2_the_limit_was_forgotten(ai_budget):
    forgotten(5)
    assert len(ai_budget.requests) <= 2, "the limit does not hold"


def test_3_nothing_is_left():
    assert scope.installed() is None
    assert "OPENAI_BASE_URL" not in os.environ and "OPENAI_API_BASE" not in os.environ
    assert os.environ.get("AI_BUDGET_LEDGER") == os.environ["LEDGER_BEFORE"]


def test_4_each_test_has_books_of_its_own(ai_budget):
    assert (ai_budget.requests, ai_budget.meter.summary().calls) == ([], 0)
    ask(1, [])
    ai_budget.assert_books_match()


def test_5_a_meter_that_counts_less_does_not_match(ai_budget):
    meter = ai_budget.meter_with(Budget(usd="1"))
    ask(1, [BudgetCallbackHandler(meter)])
    ask(1, [])
    ai_budget.assert_books_match()
    ai_budget.assert_books_match(meter)


def test_6_an_answer_without_usage_does_not_match(ai_budget):
    ai_budget.replies(Reply(usage="omit", text="Some.", input_tokens=9999))
    ask(1, [])
    ai_budget.assert_books_match()


def test_7_a_meter_with_budgets(ai_budget):
    ai_budget.replies(Reply(text="Some.", input_tokens=1000, output_tokens=200))
    meter = ai_budget.meter_with(Budget(usd="0.0003"), reserve="none")
    with pytest.raises(BudgetExceeded):
        ask(5, [BudgetCallbackHandler(meter)])
    ai_budget.assert_books_match(meter)
    ai_budget.assert_books_match()
"""


def test_a_users_own_tests_pass_and_fail_as_they_should(tmp_path):
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "test_limits.py").write_text(TESTS)
    mine = str(tmp_path / "mine.db")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTEST_"))}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "AI_BUDGET_LEDGER": mine, "LEDGER_BEFORE": mine}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # only what the user asked for, which is also quicker
    out = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "test_limits.py"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    found = dict(re.findall(r"test_(\d)_\w+ (PASSED|FAILED|ERROR)", out.stdout))
    assert found == {
        "1": "PASSED", "2": "FAILED", "3": "PASSED", "4": "PASSED", "5": "FAILED", "6": "FAILED", "7": "PASSED",
    }, out.stdout[-3000:] + out.stderr[-1000:]  # fmt: skip
    assert "the limit does not hold" in out.stdout
    assert re.search(r"the ledger says \$[\d.]+, the provider billed \$[\d.]+", out.stdout), "it must say what is wrong"
    assert not Path(mine).exists(), "a test with the fixture wrote into the user's ledger"


# -- in detail


def _ask(times=1, *callbacks, **options):
    model = ChatOpenAI(model="gpt-4o-mini", max_retries=0, **options)
    return [model.invoke("hi", config={"callbacks": list(callbacks)}) for _ in range(times)]


@pytest.fixture
def elsewhere(monkeypatch):
    """A machine whose environment sends OpenAI's clients to other places."""
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/v1")  # nothing listens there


def test_no_variable_of_the_users_machine_takes_the_requests_elsewhere(elsewhere, ai_budget):
    _ask()
    assert len(ai_budget.requests) == 1
    ai_budget.assert_books_match()


@pytest.fixture
def mine():
    """A meter that the application had installed before."""
    before, meter = scope.installed(), Meter(ledger=":memory:")
    install(meter)
    yield meter
    assert scope.installed() is meter, "what was installed before is not any more"
    scope.reinstall(before)
    meter.close()


def test_what_was_installed_before_is_put_back(mine, ai_budget):
    assert scope.installed() is ai_budget.meter is not mine
    _ask()
    assert (ai_budget.meter.summary().calls, mine.summary().calls) == (1, 0)


def test_blocks_and_handlers_of_the_application_count_beside_it(ai_budget):
    ai_budget.replies([Reply(text="Some.", input_tokens=1000, output_tokens=200)] * 3)
    budget = BudgetCallbackHandler(Budget(calls=5))
    with pytest.raises(BudgetExceeded), track(Budget(calls=3)) as run:
        _ask(5, budget)
    assert (run.summary().calls, budget.summary().calls, len(ai_budget.requests)) == (3, 3, 3)
    assert ai_budget.billed_usd == Decimal("0.00081")
    ai_budget.assert_books_match()
    ai_budget.assert_books_match(budget.meter)
    budget.close()


async def test_async_and_tools(ai_budget):
    ai_budget.replies(lambda request: Reply(tool_calls=(ToolCall("search", {"topic": "x"}),), input_tokens=10))
    model = ChatOpenAI(model="gpt-4o-mini", max_retries=0)
    answers = await asyncio.gather(*(model.ainvoke("hi") for _ in range(3)))
    assert [answer.tool_calls[0]["name"] for answer in answers] == ["search"] * 3
    ai_budget.assert_books_match()


def test_a_stream_without_usage_is_named_and_so_is_what_to_set(ai_budget):
    ai_budget.replies(Reply(text="Some.", input_tokens=9999))
    list(ChatOpenAI(model="gpt-4o-mini").stream("hi"))
    with pytest.raises(AssertionError) as failed:
        ai_budget.assert_books_match()
    assert "entry 1: gpt-4o-mini, estimated (the provider reported no usage), $" in str(failed.value)
    assert "stream_usage=True" in str(failed.value)


def test_a_difference_that_is_no_estimate_says_nothing_of_streams(ai_budget):
    _ask()
    ai_budget.meter.charge("0.5", name="search")
    with pytest.raises(AssertionError) as failed:
        ai_budget.assert_books_match()
    assert "stream_usage" not in str(failed.value)


def test_a_model_the_provider_does_not_know_is_given_a_price(ai_budget):
    model = ChatOpenAI(model="o4-mini", max_retries=0)
    with pytest.raises(Exception, match="no price for model 'o4-mini'"):
        model.invoke("hi")
    ai_budget.prices({"o4-mini": {"input": "1.10", "cached": "0.275", "output": "4.40"}})
    ai_budget.replies(Reply(text="Some.", input_tokens=1000, cached_tokens=100, output_tokens=10))
    model.invoke("hi")
    assert ai_budget.billed_usd == Decimal("0.0010615")  # 900 x 1.10 + 100 x 0.275 + 10 x 4.40 per million
    ai_budget.assert_books_match()


@pytest.mark.parametrize("name", [name for name, price in PRICES.items() if "output" in price])
def test_the_providers_own_prices_are_those_of_the_catalogue(ai_budget, name):
    ai_budget.replies(Reply(text="Some.", input_tokens=1003, cached_tokens=107, output_tokens=11))
    ChatOpenAI(model=name, max_retries=0).invoke("hi")
    ai_budget.assert_books_match()


@pytest.mark.parametrize("name", [name for name, price in PRICES.items() if "output" not in price])
def test_embeddings(ai_budget, name):
    budget = BudgetCallbackHandler(Budget(usd="0.0001"))
    plain = OpenAIEmbeddings(model=name, check_embedding_ctx_length=False, max_retries=0, dimensions=3)
    embeddings = MeteredEmbeddings(plain, budget)
    ai_budget.replies(Reply(input_tokens=400))
    first, second = embeddings.embed_documents(["bees", "wax and honey"])
    assert (len(first), first != second) == (3, True)
    assert first == embeddings.embed_query("bees")
    assert ai_budget.billed_usd == 800 * Decimal(PRICES[name]["input"]) / 10**6
    ai_budget.assert_books_match()
    ai_budget.assert_books_match(budget.meter)
    with pytest.raises(BudgetExceeded):
        for _ in range(30):
            embeddings.embed_query("x" * 1000)
    budget.close()


def test_a_call_that_is_still_open_is_no_match(ai_budget):
    stream = ChatOpenAI(model="gpt-4o-mini", stream_usage=True).stream("hi")
    next(stream)
    with pytest.raises(AssertionError):
        ai_budget.assert_books_match()
    list(stream)
    ai_budget.assert_books_match()


def test_the_meters_it_makes_are_closed_after_the_test(ai_budget):
    made = ai_budget.meter_with(Budget(usd="0.01"))
    assert not made.closed
    _made.append(made)


_made = []


def test_and_were(ai_budget):
    assert [meter.closed for meter in _made] == [True] * len(_made)


def test_charges_are_on_the_ledger_and_not_on_the_providers_bill(ai_budget):
    """So they are no match: a fee is checked by its own number."""
    meter = ai_budget.meter_with(Budget(usd="0.01"), prices={"tool/search": Price(request="0.008")})
    meter.charge("0.008", name="search")
    with pytest.raises(AssertionError, match=r"the ledger says \$0.008, the provider billed \$0"):
        ai_budget.assert_books_match(meter)


def test_no_port_has_two_providers_in_one_process():
    """A client that is kept for a `base_url` (langchain-openai does) would ask the second over the first's connections."""

    def address(_):
        with LoopbackProvider() as far:
            return far.base_url

    with ThreadPoolExecutor(16) as pool:
        addresses = list(pool.map(address, range(800)))  # the system alone gives some 18 of these a port again
    assert len(set(addresses)) == 800
