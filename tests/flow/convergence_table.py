"""The expected hold against what calls cost, as answers teach it: calls made, and hold ÷ actual of the next one.

`python -m tests.flow.convergence_table` prints it; test_convergence.py asserts it. Every number is computed: prompts of
English, German and code, four bytes a token as most models have it, and answers of 120 ± 30 tokens.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks import Budget
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.flow.kit import chat
from tests.flow.parallel_table import Held
from tests.support.provider import FarEnd

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKS = (0, 1, 2, 4, 8, 16, 32, 64)
TEXTS = (
    "The harbour master keeps a ledger of every ship that enters, what it carries and what it owes. ",
    "Über den Fluss führt seit vielen Jahren nur eine schmale Brücke, die im Frühling oft gesperrt wird. ",
    "def total(rows):\n    return sum(row['price'] * row['count'] for row in rows if row['paid'])\n",
    "Summarise the following minutes in three sentences, and name everyone who was given a task: ",
)


def prompt(number: int) -> str:
    """The n-th prompt: 4 to 29 sentences of one of the texts."""
    return TEXTS[number % len(TEXTS)] * (4 + number * 7 % 26)


def output_tokens(number: int) -> int:
    """Output of the n-th answer: 90 to 150, without a pattern a percentile could follow."""
    return 90 + number * 37 % 61


def answer(request: Any) -> Reply:
    text = request.body["messages"][-1]["content"]
    number = request.number - 1
    return Reply(text="Done.", input_tokens=8 + len(text.encode()) // 4, output_tokens=output_tokens(number))


@dataclass(frozen=True)
class Call:
    """What one call held and cost."""

    hold: Decimal
    actual: Decimal

    @property
    def ratio(self) -> Decimal:
        return self.hold / self.actual


def calls_made(count: int, path: Path, **model_options: Any) -> list[Call]:
    """So many calls one after another, each with what was held for it and what it cost."""
    held = Held()
    with FarEnd(answer) as far:
        handler = BudgetCallbackHandler(Budget(usd="5"), ledger=path, listeners=[held])
        model = chat(far, **model_options)
        for number in range(count):
            model.invoke(prompt(number), config={"callbacks": [handler]})
        handler.close()
    return [Call(held.held[call_id], held.cost[call_id]) for call_id in held.cost]


def mean_ratio(calls: Sequence[Call]) -> Decimal:
    """All holds together over all costs together."""
    return sum((call.hold for call in calls), Decimal(0)) / sum((call.actual for call in calls), Decimal(0))


def _print_table() -> None:
    print(
        f"{'calls made':>10}  {'next hold $':>12} {'next actual $':>13} {'hold/actual':>11}   {'with max_tokens=300':>19}"
    )
    with tempfile.TemporaryDirectory() as folder:
        free = calls_made(MARKS[-1] + 16, Path(folder) / "free.db")
        bounded = calls_made(MARKS[-1] + 16, Path(folder) / "bounded.db", max_tokens=300)
    for mark in MARKS:
        call = free[mark]
        print(f"{mark:>10}  {call.hold:>12.8f} {call.actual:>13.8f} {call.ratio:>11.2f}   {bounded[mark].ratio:>19.2f}")
    late, late_bounded = mean_ratio(free[MARKS[-1] :]), mean_ratio(bounded[MARKS[-1] :])
    print(f"{'65 to 80':>10}  {'':>12} {'':>13} {late:>11.2f}   {late_bounded:>19.2f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    _print_table()
