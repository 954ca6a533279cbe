"""Sync methods that run async ones: core tries again on every RuntimeError, and so hides ours (workarounds.py 6).

The ways in are in entry_table.py; here is what must stay as it was, and what no way in reaches.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from llama_index.core import SummaryIndex, async_utils
from llama_index.core.llms.mock import MockLLM
from llama_index.core.response_synthesizers import accumulate
from llama_index.core.schema import TextNode

from ai_budget_callbacks import Budget, BudgetExceeded, UsageMissing, track
from ai_budget_callbacks.demo.loopback import Reply
from tests.llama.kit import QUESTION, chat, script
from tests.support import llama_versions
from tests.support.audit import audit

NODES = [TextNode(text="a"), TextNode(text="b")]


def accumulating(llm):
    return SummaryIndex(NODES).as_query_engine(llm=llm, response_mode="accumulate", use_async=True)


def test_the_refusal_comes_without_what_core_made_of_it(serve, meter, ledger):
    far = serve(script)
    with pytest.raises(BudgetExceeded) as caught, track(Budget(tokens=1), meter=meter()) as run:
        accumulating(chat(far)).query(QUESTION)
    assert caught.value is run.refusal
    error = caught.value
    while error is not None:
        assert "nested async" not in str(error)
        error = error.__cause__ or error.__context__
    audit(far, ledger, requests=0, entries=0, usd="0")


async def test_a_refusal_arrives_inside_a_running_loop_too(serve, handler, ledger):
    llama_versions.needs(llama_versions.LACKS_LOOP_IN_THREAD)
    far = serve(script)
    with pytest.raises(BudgetExceeded):
        accumulating(chat(far, handler(Budget(tokens=1, name="none")))).query(QUESTION)
    audit(far, ledger, requests=0, entries=0, usd="0")


def test_a_missing_usage_arrives_too(serve, meter):
    far = serve(lambda _: Reply(text="Four.", usage=None))
    with pytest.raises(UsageMissing), track(meter=meter(on_missing_usage="raise")):
        accumulating(chat(far)).query(QUESTION)


def test_runtime_errors_of_others_are_what_core_makes_of_them(meter):
    async def fails():
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="Detected nested async") as caught, track(meter=meter()):
        async_utils.asyncio_run(fails())
    assert type(caught.value) is RuntimeError
    with pytest.raises(RuntimeError, match="Detected nested async"), track(meter=meter()):
        accumulate.run_async_tasks([fails()])


def test_a_user_s_own_error_after_a_refusal_is_not_made_a_refusal(serve, meter):
    async def asks_and_fails():
        try:
            await model.acomplete(QUESTION)
        except BudgetExceeded as refusal:
            raise RuntimeError("mine") from refusal

    model = chat(serve(script))
    with pytest.raises(RuntimeError, match="Detected nested async") as caught, track(Budget(tokens=1), meter=meter()):
        async_utils.asyncio_run(asks_and_fails())
    assert type(caught.value) is RuntimeError


def test_what_works_gives_what_it_gave(meter):
    async def answer(number):
        return number

    with track(meter=meter()):
        assert async_utils.asyncio_run(coro=answer(4)) == 4
        assert async_utils.run_async_tasks([answer(1), answer(2)], show_progress=False) == [1, 2]
        assert str(accumulating(MockLLM()).query(QUESTION))


def test_a_progress_bar_does_not_hide_a_refusal():
    # it lets nest_asyncio patch all of asyncio, hence a process of its own
    code = """
        import tempfile
        from llama_index.core import TreeIndex
        from llama_index.core.schema import TextNode
        from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track
        from tests.llama import kit
        from tests.support.provider import FarEnd

        nodes = [TextNode(text=str(number)) for number in range(4)]
        with FarEnd(kit.script) as far, tempfile.TemporaryDirectory() as folder:
            meter = Meter(ledger=f"{folder}/spend.db")
            try:
                with track(Budget(tokens=1), meter=meter):
                    TreeIndex(nodes, llm=kit.chat(far), num_children=2, use_async=True, show_progress=True)
            except BudgetExceeded:
                print("refused after", len(far.requests))
            meter.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "refused after 0" in done.stdout, done.stderr
