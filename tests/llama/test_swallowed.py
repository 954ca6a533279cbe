"""Where LlamaIndex eats a refusal (facts/llamaindex.md 3.1): nothing more is sent, and the block raises at its exit.

The budget has one call; the first is made, the next is refused and swallowed.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager

import pytest
from llama_index.core import get_response_synthesizer
from llama_index.core.query_engine import SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llama_index.core.tools.calling import call_tool

from ai_budget_callbacks import Budget, BudgetExceeded, track
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from tests.llama.entry_table import sub_questions
from tests.llama.kit import QUESTION, City, chat, index_of, script
from tests.llama.own_workflows import Retried
from tests.support import llama_versions
from tests.support.audit import audit
from tests.support.llama_versions import LACKS_AGENTS, agents

PAID = {"input_tokens": 1000, "output_tokens": 200}


@contextmanager
def refused_in_workflow():
    """What runs a workflow sees of a refusal that ended it."""
    with pytest.raises(Exception, match=r".+") as caught:
        yield
    assert type(caught.value).__name__ == llama_versions.REFUSED_IN_WORKFLOW
    assert isinstance(caught.value, BudgetExceeded) or isinstance(caught.value.__cause__, BudgetExceeded)


def asking_tool(model):
    async def ask(topic: str) -> str:
        """Ask a model."""
        return str(await model.acomplete(topic))

    return FunctionTool.from_defaults(async_fn=ask, name="ask")


def always_a_tool(request):
    offered = request.body.get("tools")
    calls = (ToolCall("ask", {"topic": "sums"}),) if offered else ()
    return Reply(text="" if calls else "Four.", tool_calls=calls, **PAID)


async def test_a_tool_whose_model_is_refused_ends_the_agent(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far = serve(always_a_tool)
    agent = agents.FunctionAgent(llm=chat(far), tools=[asking_tool(chat(far))])
    with refused_in_workflow():
        async with track(Budget(calls=1), meter=meter()):
            await agent.run(QUESTION)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_the_same_in_an_agent_workflow(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far = serve(always_a_tool)
    helper = agents.FunctionAgent(name="helper", description="d", llm=chat(far), tools=[asking_tool(chat(far))])
    with refused_in_workflow():
        async with track(Budget(calls=1), meter=meter()):
            await agents.AgentWorkflow(agents=[helper], root_agent="helper").run(QUESTION)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_the_structured_end_of_an_agent_is_refused_and_told(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far = serve(script)
    agent = agents.FunctionAgent(llm=chat(far), tools=[], output_cls=City)
    with pytest.raises(BudgetExceeded):
        async with track(Budget(calls=1), meter=meter()) as run:
            answer = await agent.run(QUESTION)
            assert answer.structured_response is None, "core swallows it with a warning"
    assert run.exceeded
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_sub_questions_that_were_refused_return_and_the_block_raises(serve, meter, ledger):
    far = serve(sub_questions)
    model = chat(far)
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=[
            QueryEngineTool.from_defaults(index_of().as_query_engine(llm=model), name="facts", description="d")
        ],
        llm=model,
        question_gen=LLMQuestionGenerator.from_defaults(llm=model),
        response_synthesizer=get_response_synthesizer(llm=model, use_async=True),
        use_async=True,
    )
    with pytest.raises(BudgetExceeded):
        async with track(Budget(calls=1), meter=meter()) as run:
            logging.disable(logging.CRITICAL)
            try:
                answer = await engine.aquery(QUESTION)
            finally:
                logging.disable(logging.NOTSET)
            assert str(answer) == "Empty Response", "core drops each sub-question and returns"
    assert run.exceeded
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_a_tool_that_core_calls_twice_is_refused_twice(serve, meter, ledger):
    far = serve(Reply(text="Four.", **PAID))
    tool = QueryEngineTool.from_defaults(index_of().as_query_engine(llm=chat(far)), name="facts", description="d")
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter()):
        assert not call_tool(tool, {"input": QUESTION}).is_error
        assert call_tool(tool, {"input": QUESTION}).is_error
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_a_step_that_is_retried_sends_nothing_more(serve, meter, ledger):
    far = serve(Reply(text="Four.", **PAID))
    workflow = Retried()
    workflow.llm = chat(far)
    with refused_in_workflow():
        async with track(Budget(calls=1), meter=meter()):
            await workflow.run(question=QUESTION)
            await workflow.run(question=QUESTION)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_a_handler_tells_what_an_agent_swallowed(serve, handler, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far, gate = serve(script), handler(Budget(calls=1))
    await agents.FunctionAgent(llm=chat(far, gate), tools=[], output_cls=City).run(QUESTION)
    assert gate.exceeded
    with pytest.raises(BudgetExceeded):
        gate.raise_if_exceeded()
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


async def test_a_run_that_was_refused_is_closed_though_others_have_room(serve, handler, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far = serve(always_a_tool)
    # $0.00027 a call, held whole: two fit, the third does not, and a smaller one afterwards is refused with its run
    gate = handler(Budget(usd="0.0006"), reserve="0.00027")
    agent = agents.FunctionAgent(llm=chat(far, gate), tools=[asking_tool(chat(far, gate))])
    with refused_in_workflow():
        await agent.run(QUESTION)
    audit(far, ledger, requests=2, entries=2, usd="0.00054")
