"""What is said once an entry is committed: warn levels passed, limits crossed. Decides nothing about money."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks import messages
from ai_budget_callbacks.budget import Attached, BalanceKey, Budget, window_end
from ai_budget_callbacks.errors import BudgetExceeded
from ai_budget_callbacks.events import BudgetWarning, LimitCrossed
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.report import scope_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from ai_budget_callbacks.admission import Admission
    from ai_budget_callbacks.events import Event
    from ai_budget_callbacks.ledger import Entry, Hold, Settled
    from ai_budget_callbacks.usage import Call

__all__ = ["Watch"]

log = logging.getLogger("ai_budget_callbacks")

_REMEMBER = 100_000


class Watch:
    """Follows the balances of one meter.

    Args:
        emit: Tells the listeners.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._lock = ForkSafeLock()
        self._warned: set[tuple[BalanceKey, str]] = set()

    def after(
        self, call: Call, admission: Admission, hold: Hold | None, settled: Settled, response: Any
    ) -> BudgetExceeded | None:
        """Look at the balances a settle moved.

        Returns:
            What must be raised: the crossing of the first budget with `at_limit="raise"` that this call crossed.
        """
        keys = settled.keys if hold is None else hold.keys
        items = {want.key: item for item, want in zip(admission.attached, admission.wants, strict=True)}
        must_raise: BudgetExceeded | None = None
        for balance, (added, spent) in settled.moved.items():
            key = keys.get(balance)
            if key is None:
                continue  # another meter's balance on the same hold: that meter watches it
            item = items[key]
            self._warn(item.budget, key, spent, call.started_at)
            if spent - added <= item.budget.limit < spent:
                crossing = self._crossed(item, key, spent, settled.entry, response, call.started_at)
                if item.budget.at_limit == "raise":
                    must_raise = must_raise or crossing
        return must_raise

    def _crossed(
        self, item: Attached, key: BalanceKey, spent: int, entry: Entry, response: Any, at: datetime
    ) -> BudgetExceeded:
        budget = item.budget
        resets_at = window_end(budget, at)
        raises = budget.at_limit == "raise"
        text = messages.crossed(budget, spent=spent, resets_at=resets_at, scope=key.scope, raises=raises)
        if not raises:
            log.warning("%s", text)
        limit, amount = budget.amount(budget.limit), budget.amount(spent)
        self._emit(LimitCrossed(budget=budget, entry=entry, spent=amount, limit=limit))
        error = BudgetExceeded(
            text, budget=budget, limit=limit, spent=amount, resets_at=resets_at, entry=entry, response=response
        )
        error.closes = item.owner if item.block else None
        return error

    def _warn(self, budget: Budget, key: BalanceKey, spent: int, at: datetime) -> None:
        for fraction, mark in budget.warn_marks:
            if spent < mark or not self._first(key, fraction):
                continue
            amount, limit = budget.amount(spent), budget.amount(budget.limit)
            log.warning("%s", messages.warned(budget, fraction=fraction, spent=spent, scope=key.scope))
            self._emit(
                BudgetWarning(
                    budget=budget,
                    scope=scope_values(key.scope),
                    fraction=fraction,
                    spent=amount,
                    limit=limit,
                    resets_at=window_end(budget, at),
                )
            )

    def _first(self, key: BalanceKey, fraction: str) -> bool:
        """Whether this balance passes this fraction for the first time in this process."""
        with self._lock:
            if (key, fraction) in self._warned:
                return False
            if len(self._warned) >= _REMEMBER:
                self._warned.clear()
            self._warned.add((key, fraction))
            return True
