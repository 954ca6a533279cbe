"""Another currency beside USD, for people to read: at display only, with the rate and its date. Pure.

The ledger, budgets and every amount a program reads stay in USD (facts/pricing.md 7: rates move, invoices do not).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import PICO, exact_decimal

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal

__all__ = ["Currency"]

_CODE = re.compile(r"[A-Z]{3}\Z")


@dataclass(frozen=True, kw_only=True)
class Currency:
    """What amounts are shown in besides USD.

    Attributes:
        code: ISO 4217, such as `"EUR"`.
        rate: Units of it for 1 USD.
        date: The day the rate is of.

    Raises:
        ConfigError: No such code, or no positive rate.
    """

    code: str
    rate: str | Decimal | int | float
    date: date

    def __post_init__(self) -> None:
        """Refuse what would show nonsense."""
        if not isinstance(self.code, str) or not _CODE.match(self.code):
            raise ConfigError(f'code must be three capital letters such as "EUR", not {self.code!r}.')
        if exact_decimal(self.rate, what="rate") <= 0:
            raise ConfigError(f"rate must be units of {self.code} for 1 USD, more than 0, not {self.rate!r}.")

    def text(self, pico: int) -> str:
        """Pico-dollars in this currency, to hundredths, half to even; an amount that would vanish is `"<0.01"`."""
        top, bottom = exact_decimal(self.rate, what="rate").as_integer_ratio()
        bottom *= PICO
        cents, rest = divmod(abs(pico) * top * 100, bottom)
        cents += 2 * rest > bottom or (2 * rest == bottom and cents % 2)
        sign = "-" if pico < 0 else ""
        return f"{sign}{cents // 100}.{cents % 100:02d}" if cents or not pico else f"{sign}<0.01"

    @property
    def note(self) -> str:
        """At which rate, and of when."""
        rate = format(exact_decimal(self.rate, what="rate"), "f")
        return f"1 USD = {rate} {self.code} on {self.date.isoformat()}"
