"""The demo's LlamaIndex half: a query engine and an agent that would never stop, in one block, on the same meter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, track

if TYPE_CHECKING:
    from ai_budget_callbacks import Meter
    from ai_budget_callbacks.demo.loopback import LoopbackProvider

__all__ = ["query_and_agent"]

LIMIT = "0.002"


def search(query: str) -> str:
    """Search the library; it always has more."""
    return f"10 of 48,213 papers about {query}. There is a next page."


def query_and_agent(meter: Meter, provider: LoopbackProvider, *, model: str) -> bool:
    """Run both and print what happens.

    Returns:
        Whether the limit held and nothing was sent after the refusal.
    """
    local: dict[str, Any] = {"api_base": provider.base_url, "api_key": "no-key-needed", "max_retries": 0}
    llm = OpenAI(model=model, max_tokens=200, **local)
    embeddings = OpenAIEmbedding(model="text-embedding-3-small", **local)
    before = len(provider.requests)
    run = None
    try:
        with track(Budget(usd=LIMIT), meter=meter) as run:
            index = VectorStoreIndex.from_documents([Document(text="Budgets are plans.")], embed_model=embeddings)
            answer = index.as_query_engine(llm=llm).query("What are budgets?")
            answered = len(provider.requests)
            print(f"   the query engine answers {str(answer)!r} after {answered - before} requests.")
            asyncio.run(_agent(llm))
    except BudgetExceeded as stop:
        print(f"   the agent: BudgetExceeded after {len(provider.requests) - answered} requests: {stop}")
        spent = run.summary().booked_usd if run is not None else None
        print(f"   spent ${spent:f} of ${LIMIT}; the request that did not fit was never sent.")
        return spent is not None and spent <= stop.limit  # type: ignore[operator]  # a USD budget's is a Decimal
    print("   THE LIMIT DID NOT HOLD: please report this.")
    return False


async def _agent(llm: OpenAI) -> None:
    await FunctionAgent(name="researcher", llm=llm, tools=[search]).run("Find every paper.", max_iterations=1000)
