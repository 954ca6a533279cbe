"""Every error this package raises, and nothing else.

    AIBudgetError
    ├── BudgetExceeded   (also RuntimeError)  a call was refused, or crossed its limit
    ├── PriceUnknown     (also RuntimeError)  a call was refused because nobody can say what it costs
    ├── UsageMissing     (also RuntimeError)  an answer came without usage and the meter was told to insist
    ├── LedgerError      (also RuntimeError)  the ledger cannot be read or written
    └── ConfigError      (also ValueError)    an argument or setting makes no sense

`RuntimeError` is a base because LangGraph's default retry policy does not retry it
(langgraph 1.2.24, `default_retry_on`). No message ever holds a prompt or a completion: frameworks
store `repr(exc)` in checkpoints and traces.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

__all__ = ["AIBudgetError", "BudgetExceeded", "ConfigError", "LedgerError", "PriceUnknown", "UsageMissing"]


def _rebuild(cls: type[AIBudgetError], message: str, state: dict[str, Any]) -> AIBudgetError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class AIBudgetError(Exception):
    """Base of every error of this package. Picklable, copyable, accepts attributes.

    Attributes:
        message: The whole text: what happened, the numbers, what to do next.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __copy__(self) -> Self:
        return _rebuild(type(self), self.message, self.__dict__)  # type: ignore[return-value]

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call cls(*args) and lose keyword-only state; an unpicklable response must
        # not break a process pool (facts: an exception that does not unpickle breaks the whole pool).
        state = dict(self.__dict__)
        for name, value in list(state.items()):
            try:
                pickle.dumps(value)
            except Exception:
                state[name] = None
        return (_rebuild, (type(self), self.message, state))


class Refusal(AIBudgetError, RuntimeError):
    """What both kinds of refusal carry. Never raised itself; catch `BudgetExceeded` or `PriceUnknown`.

    Attributes:
        budget: The `Budget` that refused or was crossed, or None.
        entry: The ledger `Entry` of the call that crossed, or None when nothing was sent.
        response: The framework's response object when the call was paid for and delivered here, else None.
            LangChain: the `LLMResult`.
        limit, spent, held, needed: Amounts in the budget's unit (USD as `Decimal`, tokens or calls as `int`).
        resets_at: When the window rolls over (aware datetime), or None when it never does.
    """

    def __init__(
        self,
        message: str = "",
        *,
        budget: Any = None,
        limit: Decimal | int | None = None,
        spent: Decimal | int | None = None,
        held: Decimal | int | None = None,
        needed: Decimal | int | None = None,
        resets_at: datetime | None = None,
        entry: Any = None,
        response: Any = None,
    ) -> None:
        super().__init__(message)
        self.budget = budget
        self.limit = limit
        self.spent = spent
        self.held = held
        self.needed = needed
        self.resets_at = resets_at
        self.entry = entry
        self.response = response
        self.closes: str | None = None  # id of the track() block whose own budget refused, if it was one

    def again(self) -> Self:
        """A fresh instance with the same facts, for refusing a later call of a closed run."""
        copy = type(self)(self.message)
        copy.__dict__.update(self.__dict__)
        copy.response = None
        copy.entry = None
        return copy


class BudgetExceeded(Refusal):
    """A call was refused because a budget has no room, or (`at_limit="raise"`) a call crossed its limit."""


class PriceUnknown(Refusal):
    """A call was refused before sending because its model has no known price and a USD budget applies."""


class UsageMissing(AIBudgetError, RuntimeError):
    """A provider's answer carried no usage and the meter was built with `on_missing_usage="raise"`.

    Attributes:
        entry: The entry that was booked (estimated) before this was raised.
        response: The framework's response object.
    """

    def __init__(self, message: str = "", *, entry: Any = None, response: Any = None) -> None:
        super().__init__(message)
        self.entry = entry
        self.response = response


class LedgerError(AIBudgetError, RuntimeError):
    """The ledger cannot be opened, read or written. The message names the file, the cause and the remedy."""


class ConfigError(AIBudgetError, ValueError):
    """An argument or a setting makes no sense. Raised at construction, before anything is sent."""
