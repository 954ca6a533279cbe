"""LlamaIndex: agents under a limit per run; the tool's own fee is booked too. Needs OPENAI_API_KEY."""

import asyncio

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.callbacks import CallbackManager
from llama_index.llms.openai import OpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, Meter
from ai_budget_callbacks.llama_index import BudgetCallbackHandler

meter = Meter([Budget(usd="0.02", per="run", name="one question")])
handler = BudgetCallbackHandler(meter)


def stock(item: str) -> str:
    """How many of an item are in stock."""
    handler.charge("0.001", name="stock lookup")  # it belongs to the run, agent and tool it is made in
    return f"{len(item)} {item}s"


async def main() -> None:
    """Two questions, each a run with a limit of its own."""
    llm = OpenAI(model="gpt-4o-mini", max_tokens=200, callback_manager=CallbackManager([handler]))
    agent = FunctionAgent(name="clerk", llm=llm, tools=[stock])
    for question in ("How many lamps are there?", "How many chairs are there?"):
        try:
            print(await agent.run(question))
        except BudgetExceeded as stop:
            print("Stopped:", stop)
    handler.raise_if_exceeded()  # an agent may swallow a refusal that a tool got
    print(handler.summary())
    print(handler.tree())


asyncio.run(main())
meter.close()
