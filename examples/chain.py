"""A callback on a chain: what it costs, and a limit in dollars. Needs OPENAI_API_KEY."""

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from ai_budget_callbacks import Budget, BudgetExceeded
from ai_budget_callbacks.langchain import BudgetCallbackHandler

budget = BudgetCallbackHandler(Budget(usd="0.01", warn_at=("0.5", "0.8")))
chain = ChatPromptTemplate.from_messages([("human", "A haiku about {topic}.")]) | ChatOpenAI(
    model="gpt-4o-mini", max_completion_tokens=60
)

try:
    for topic in ("ledgers", "limits", "rain"):
        print(chain.invoke({"topic": topic}, config={"callbacks": [budget]}).text)
except BudgetExceeded as stop:
    print(f"Stopped: {stop}")

print(budget.summary())
