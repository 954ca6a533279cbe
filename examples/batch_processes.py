"""A batch job over four processes that share one budget: together they send what it has room for, and no call more.

The budget is durable (it has a `per` and a name), so it is one balance in the ledger file for every process that opens
it. Needs OPENAI_API_KEY.
"""

import logging
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

from langchain_openai import ChatOpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, Meter
from ai_budget_callbacks.langchain import BudgetCallbackHandler

JOB = f"job-{datetime.now(UTC):%Y%m%d-%H%M%S}"
PROCESSES, CALLS_EACH, ALLOWED = 4, 10, 25


def work(number: int, job: str) -> tuple[int, int]:
    """One process: its own meter on the shared ledger. Returns how many calls were sent and how many refused."""
    logging.getLogger("langchain_core.callbacks.manager").setLevel(logging.CRITICAL)  # it logs every refusal
    meter = Meter([Budget(calls=ALLOWED, per="total", name=job), Budget(usd="1", per="day", name="batch-day")])
    handler = BudgetCallbackHandler(meter)
    model = ChatOpenAI(model="gpt-4o-mini", max_completion_tokens=50)
    sent = refused = 0
    for item in range(CALLS_EACH):
        try:
            model.invoke(f"Classify record {number}-{item}.", config={"callbacks": [handler]})
            sent += 1
        except BudgetExceeded:
            refused += 1
    meter.close()
    return sent, refused


def main() -> None:
    """Run them all, then read the books of all of them."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        results = list(pool.map(work, range(PROCESSES), [JOB] * PROCESSES))
    for number, (sent, refused) in enumerate(results):
        print(f"process {number}: {sent} sent, {refused} refused")
    print(f"together: {sum(s for s, _ in results)} sent, {sum(r for _, r in results)} refused, {ALLOWED} allowed")

    meter = Meter([Budget(calls=ALLOWED, per="total", name=JOB)])
    (balance,) = meter.balances()
    print(f"{balance.budget}: {balance.spent} of {balance.limit} calls, {balance.held} held")
    meter.close()


if __name__ == "__main__":
    main()
