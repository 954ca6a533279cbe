"""An agent under a limit per run, and one for each user per day. Needs OPENAI_API_KEY."""

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, Meter
from ai_budget_callbacks.langchain import BudgetCallbackHandler

meter = Meter(
    [
        Budget(usd="0.02", per="run", name="one question"),
        Budget(usd="1", per="day", by="user", name="user-day"),
    ]
)
handler = BudgetCallbackHandler(meter)


@tool
def stock(item: str) -> str:
    """How many of an item are in stock."""
    return f"{len(item)} {item}s"


agent = create_agent(ChatOpenAI(model="gpt-4o-mini", max_completion_tokens=200), [stock], name="clerk")

for user, question in (("alice", "How many lamps are there?"), ("bob", "How many chairs are there?")):
    try:
        answer = agent.invoke(
            {"messages": [{"role": "user", "content": question}]},
            config={"callbacks": [handler], "metadata": {"user_id": user}},
        )
        print(user, answer["messages"][-1].text)
    except BudgetExceeded as stop:
        print(user, "was stopped:", stop)
    for balance in meter.balances(user=user):
        print(f"  {balance.budget}: {balance.spent} of {balance.limit}")

print(handler.summary())
