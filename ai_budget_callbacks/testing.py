"""A pytest fixture that proves the limits of your own application: `pytest_plugins = ["ai_budget_callbacks.testing"]`.

Real clients, real HTTP to a provider on 127.0.0.1 that keeps its own bill, a real ledger in memory. Nothing is
patched: the clients are pointed at the provider by their own environment variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ai_budget_callbacks import scope
from ai_budget_callbacks.demo.loopback import LoopbackProvider, RecordedRequest, Reply, ToolCall
from ai_budget_callbacks.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from ai_budget_callbacks.budget import Budget

__all__ = ["BudgetProof", "RecordedRequest", "Reply", "ToolCall", "ai_budget"]


class BudgetProof:
    """What a test of limits needs.

    Attributes:
        provider: The loopback provider (OpenAI chat completions and embeddings).
        meter: A meter on a ledger in memory, installed for the process while the test runs: calls that no handler of
            the application counts are counted here.
    """

    def __init__(self, provider: LoopbackProvider, meter: Meter) -> None:
        self.provider = provider
        self.meter = meter
        self._meters = [meter]

    def replies(self, reply: Reply | Callable[[RecordedRequest], Reply] | Sequence[Reply]) -> None:
        """Script the provider: one reply for all requests, a function of the request, or replies in order."""
        self.provider.script(reply)

    def prices(self, prices: Mapping[str, Mapping[str, str]]) -> None:
        """What the provider bills for models it does not know, or bills otherwise.

        Args:
            prices: USD per million tokens by model: `{"my-model": {"input": "0.4", "cached": "0.1", "output": "2"}}`.
                The bill is the second opinion: take the numbers from the provider's page. A model without a price
                is answered with an error 500.
        """
        self.provider.price(prices)

    def meter_with(self, *budgets: Budget, **options: Any) -> Meter:
        """A meter with budgets on a new ledger in memory, closed after the test; options as for `Meter`."""
        self._meters.append(Meter(budgets, **({"ledger": ":memory:"} | options)))
        return self._meters[-1]

    def close(self) -> None:
        """Close the meters that were made here."""
        for meter in self._meters:
            meter.close()

    @property
    def requests(self) -> list[RecordedRequest]:
        """Requests that reached the provider."""
        return self.provider.requests

    @property
    def billed_usd(self) -> Decimal:
        """The provider's own bill in USD, exact."""
        return self.provider.billed_usd

    def assert_books_match(self, meter: Meter | None = None) -> None:
        """The ledger says what the provider billed, to the last digit, and nothing is left open.

        Args:
            meter: The meter that counts; None for the installed one.

        Raises:
            AssertionError: It does not.
        """
        counting = meter or self.meter
        booked, billed = counting.summary().cost_usd, self.billed_usd
        assert booked == billed, f"the ledger says ${booked}, the provider billed ${billed}" + _guessed(counting)
        wrong = counting.ledger.verify()
        assert not wrong, "\n".join(wrong)
        assert not counting.ledger.open_holds(), "calls are still open"


def _guessed(meter: Meter) -> str:
    """Which entries no usage was reported for, and what to do about it."""
    found = [entry for entry in meter.entries(scope=meter.id) if entry.status in {"estimated", "unknown"}]
    lines = [
        f"entry {entry.id}: {entry.model}, {entry.status} ({entry.reason}), ${entry.booked_usd} booked"
        for entry in found
    ]
    if any(entry.usage is not None and entry.usage.reader == "counted" for entry in found):
        lines.append("An OpenAI stream reports its usage when the model has stream_usage=True.")
    return "".join(f"\n{line}" for line in lines)


@pytest.fixture
def ai_budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[BudgetProof]:
    """The loopback provider, and an installed meter on a ledger in memory.

    While the test runs, OpenAI clients that are made without a `base_url` talk to the provider, the default ledger is
    in memory, and `install()` is undone afterwards.
    """
    before = scope.installed()
    with LoopbackProvider() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        # langchain-openai reads this one first, and a proxy would take the requests elsewhere
        monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
        monkeypatch.delenv("OPENAI_PROXY", raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        monkeypatch.setenv("AI_BUDGET_LEDGER", ":memory:")
        proof = BudgetProof(provider, Meter(ledger=":memory:"))
        scope.install(proof.meter)
        try:
            yield proof
        finally:
            scope.reinstall(before)
            proof.close()
