"""LlamaIndex: a budget for each user and day, a block for each request. Needs OPENAI_API_KEY.

A web app does the same in its endpoints: one meter for the process, `with track(meter=meter, user=…)` around what
answers the request, `run.wrap` around a stream that is read after the endpoint returned (fastapi_app.py has both).
"""

from collections.abc import Iterator

from llama_index.core import Document, SummaryIndex
from llama_index.llms.openai import OpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track

# Made once: opening the ledger and loading prices must not happen in a request.
meter = Meter(
    [
        Budget(usd="0.0002", per="day", by="user", name="user-day"),
        Budget(usd="100", per="month", name="everybody"),
    ]
)
index = SummaryIndex.from_documents([Document(text="A budget says what may be spent.")])
llm = OpenAI(model="gpt-4o-mini", max_tokens=100)


def answer(question: str, user: str) -> str:
    """A request, answered at once."""
    with track(meter=meter, user=user):
        return str(index.as_query_engine(llm=llm).query(question))


def stream(question: str, user: str) -> Iterator[str]:
    """A request, answered in pieces that are read after the block; the model is asked at the first."""
    with track(meter=meter, user=user) as run:
        return run.wrap(index.as_query_engine(llm=llm, streaming=True).query(question).response_gen)


for user in ("alice", "alice", "alice", "alice", "bob"):
    try:
        print(user, "got", answer("What is a budget?", user))
    except BudgetExceeded as stop:
        print(user, "was refused until", stop.resets_at)

print("bob got", "".join(stream("What is a budget?", "bob")))

for user in ("alice", "bob"):
    (today,) = (balance for balance in meter.balances(user=user) if balance.budget == "user-day")
    print(user, "has spent", today.spent, "of", today.limit, "USD")
meter.close()
