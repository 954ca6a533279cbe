"""What listeners are told: one frozen record for each thing that happened. No event carries content.

A listener is any callable that takes one event. A listener that fails is logged and changes no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from ai_budget_callbacks.budget import Budget
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.usage import Call

__all__ = [
    "BudgetWarning",
    "CallRefused",
    "CallReleased",
    "CallReserved",
    "CallSettled",
    "Event",
    "LimitCrossed",
    "Listener",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReserved:
    """A call was admitted and its holds are on the ledger.

    Attributes:
        call: The call.
        held_usd: USD held on each USD balance, or None when its price is unknown.
    """

    call: Call
    held_usd: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefused:
    """A call was refused; nothing was sent.

    Attributes:
        call: The call.
        budget: The budget without room, or None when the price was unknown or the run was closed before.
        reason: The message of the exception.
    """

    call: Call
    budget: Budget | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettled:
    """A call was booked.

    Attributes:
        entry: The ledger entry.
    """

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReleased:
    """A call's holds were given back; it cost nothing.

    Attributes:
        call: The call.
        reason: Why.
    """

    call: Call
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarning:
    """A balance passed one of its `warn_at` fractions. Sent once for each balance, fraction and process.

    Attributes:
        budget: The budget.
        scope: Values of its `by` fields.
        fraction: The fraction passed, as text.
        spent, limit: In the budget's unit.
        resets_at: When the window rolls over, or None.
    """

    budget: Budget
    scope: tuple[str, ...]
    fraction: str
    spent: Decimal | int
    limit: Decimal | int
    resets_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCrossed:
    """A call took a balance past its limit: its hold was too small, or it had none.

    Attributes:
        budget: The budget.
        entry: The entry of the call.
        spent, limit: In the budget's unit.
    """

    budget: Budget
    entry: Entry
    spent: Decimal | int
    limit: Decimal | int


Event = CallReserved | CallRefused | CallSettled | CallReleased | BudgetWarning | LimitCrossed


class Listener(Protocol):
    """What `Meter(listeners=[…])` takes."""

    def __call__(self, event: Event, /) -> object:
        """Handle one event. The return value is ignored; an exception is logged."""
