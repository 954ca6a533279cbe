"""What each run cost: a LangGraph of two nodes, a summary and a tree per run, and the runs of the whole ledger.

Needs OPENAI_API_KEY.
"""

from typing import TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track
from ai_budget_callbacks.langchain import BudgetCallbackHandler

model = ChatOpenAI(model="gpt-4o-mini", max_completion_tokens=200)


class State(TypedDict):
    topic: str
    draft: str
    text: str


def write(state: State) -> dict[str, str]:
    return {"draft": model.invoke(f"Three sentences about {state['topic']}.").text}


def shorten(state: State) -> dict[str, str]:
    return {"text": model.invoke(f"Shorten to one sentence: {state['draft']}").text}


builder = StateGraph(State)
builder.add_node("write", write)
builder.add_node("shorten", shorten)
builder.add_edge(START, "write")
builder.add_edge("write", "shorten")
builder.add_edge("shorten", END)
graph = builder.compile(name="writer")

meter = Meter([Budget(usd="0.05", per="run")])

# 1. A block is one run. Nothing in config: the block counts what happens inside it.
for topic in ("ledgers", "limits"):
    with track(meter=meter, metadata={"topic": topic}) as run:
        graph.invoke({"topic": topic})
    print(topic, run.summary().cost_usd, "USD")
    print(run.tree())

# 2. The same with a handler: each invoke of the graph is one run, and `summary().by("run")` has one row for each.
handler = BudgetCallbackHandler(meter)
try:
    for topic in ("rain", "snow"):
        graph.invoke({"topic": topic}, config={"callbacks": [handler], "run_name": topic})
except BudgetExceeded as stop:
    print("Stopped:", stop)
for run_id, totals in handler.summary().by("run").items():
    print(run_id, totals.calls, "calls", totals.cost_usd, "USD")
print(handler.tree())

# 3. As Markdown, for a pull request or a chat.
print(handler.summary().to_markdown())
meter.close()
