"""Exact money: integer pico-dollars (1e-12 USD) inside, plain decimal text outside.

Nothing here touches a float except to read a user's own literal through its `repr`, and nothing here
looks at the caller's decimal context (a context with `prec=6` rounds other libraries' costs; facts/pricing.md 1.2).
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from ai_budget_callbacks.errors import ConfigError

__all__ = ["INT64_MAX", "PICO", "pico_from_usd", "usd_decimal", "usd_text", "usd_with_sign"]

PICO = 10**12
INT64_MAX = 2**63 - 1
_MAX_EXPONENT = 40  # far outside int64; keeps exact integers small whatever a server or a file says


def exact_decimal(value: object, *, what: str) -> Decimal:
    """Read `value` as an exact, finite decimal.

    Args:
        value: `Decimal`, `int`, decimal string, or a float literal (read through its `repr`, so 0.5 is 0.5).
        what: Name used in the error message.

    Raises:
        ConfigError: Not a number, NaN, infinite, or a bool.
    """
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, float, str)):
        raise ConfigError(f"{what} must be a decimal string, Decimal or int, not {type(value).__name__}.")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise ConfigError(f"{what} must be a decimal number such as '0.50', not {value!r}.") from None
    if not number.is_finite():
        raise ConfigError(f"{what} must be a finite amount, not {value!r}.")
    if number and abs(number.adjusted()) > _MAX_EXPONENT:
        raise ConfigError(f"{what} is out of range: {value!r}.")
    return number


def pico_from_usd(value: object, *, what: str) -> int:
    """`value` in USD as whole pico-dollars.

    Raises:
        ConfigError: Not a finite number, finer than 1e-12 USD, or beyond about 9.2 million USD (int64).
    """
    number = exact_decimal(value, what=what)
    top, bottom = number.as_integer_ratio()
    whole, rest = divmod(top * PICO, bottom)
    if rest:
        raise ConfigError(f"{what} is finer than 1e-12 USD: {value!r}.")
    if abs(whole) > INT64_MAX:
        raise ConfigError(f"{what} is beyond what one balance can hold (9223372.036854775807 USD): {value!r}.")
    return whole


def usd_text(pico: int) -> str:
    """Pico-dollars as plain decimal USD text without an exponent: `160000` → `'0.00000016'`, `0` → `'0'`."""
    sign = "-" if pico < 0 else ""
    whole, part = divmod(abs(pico), PICO)
    if not part:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{part:012d}".rstrip("0")


def usd_with_sign(pico: int) -> str:
    """Pico-dollars as `usd_text`, for people: `$0.0035`, `-$0.0035`."""
    return f"-${usd_text(-pico)}" if pico < 0 else f"${usd_text(pico)}"


def usd_decimal(pico: int) -> Decimal:
    """Pico-dollars as an exact `Decimal` in USD, whatever the caller's decimal context."""
    return Decimal(usd_text(pico))
