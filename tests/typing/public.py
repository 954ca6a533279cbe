"""What type checkers must accept of the public API. Checked by mypy, never run."""

from __future__ import annotations

from decimal import Decimal

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, Price, SameAs, track
from ai_budget_callbacks.langchain import BudgetCallbackHandler

meter = Meter([Budget(usd="0.50", per="run")], ledger=":memory:", prices={"m": Price(input="0.15", output="0.60")})
mixed = Meter(
    ledger=":memory:", prices={"m": SameAs("azure/gpt-4o", factor="1.1"), "n": "free"}, factors={"openai": 0.85}
)
from_file = Meter(ledger=":memory:", prices="prices.toml")
handler = BudgetCallbackHandler(meter)
own = BudgetCallbackHandler(Budget(tokens=1000), ledger=":memory:", reserve="worst_case")
cost: Decimal = handler.summary().cost_usd


@track(Budget(usd="2.00"), user="alice")
def job(name: str) -> int:
    return len(name)


@track(Budget(calls=3))
async def later(name: str) -> int:
    return len(name)


length: int = job("x")

try:
    with track(Budget(usd="2.00"), metadata={"job": "nightly"}) as run:
        total: Decimal = run.summary().cost_usd
except BudgetExceeded as stop:
    spent: Decimal | int | None = stop.spent
