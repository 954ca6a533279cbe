"""A TOML file of prices of one's own: the same words as in code, read exactly. Where outside data enters.

Its tables: `[prices]`, a name each as in `prices={…}`; `[factors]`, a provider each; `[currency]` with `code`, `rate`
and `date` (docs/how-to/own-models.md).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from datetime import date  # noqa: TC003 - pydantic reads it
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing.book import PriceBook
from ai_budget_callbacks.pricing.catalogue import catalogue
from ai_budget_callbacks.pricing.currency import Currency
from ai_budget_callbacks.pricing.own import Price, SameAs, exact_factor
from ai_budget_callbacks.settings import Settings

__all__ = ["Factors", "Prices", "price_book"]

Prices = Mapping[str, Price | SameAs | str] | str | os.PathLike[str]
Factors = Mapping[str, str | Decimal | int | float]

_PARTS = [item.name for item in fields(Price)]
_LONG = ("above", "at_least")


def price_book(prices: Prices | None = None, factors: Factors | None = None) -> PriceBook:
    """The price book of a meter or a command.

    Args:
        prices: Prices of one's own, or the path of a TOML file with them; None for the file that `AI_BUDGET_PRICES`
            names, if it names one.
        factors: Factors by provider, over those of the file.

    Raises:
        ConfigError: Something in it makes no sense; a file is named with the key and what to write.
    """
    if isinstance(prices, Mapping):
        return PriceBook(prices, factors=factors)
    if prices is not None and not isinstance(prices, (str, os.PathLike)):
        raise ConfigError(f"prices must be {{name: Price(…)}} or the path of a TOML file, not {prices!r}.")
    named = prices if prices is not None else Settings().prices
    if not named:
        return PriceBook(factors=factors)
    path = Path(named)
    read = _read(path, by_environment=prices is None)
    try:
        return PriceBook(read.prices, factors=_over(read.factors, factors or {}), currency=read.shown, where=path.name)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from None


def _over(ours: Factors, argument: Factors) -> Factors:
    """The file's factors but for the providers that the argument has one for, in whatever word."""
    id_of = catalogue().provider_for_name
    given = {id_of(name) for name in argument}
    return {**{name: value for name, value in ours.items() if id_of(name) not in given}, **argument}


def _price(table: Any) -> Price | SameAs | str:
    """What stands in the file for one name, as in code."""
    if table == "free":
        return "free"
    if not isinstance(table, dict):
        raise ConfigError('write { input = "0.15", output = "0.60" }, { same_as = "provider/model" } or "free"')
    if "same_as" in table:
        _only(table, ["same_as", "factor"])
        return SameAs(table["same_as"], **{name: table[name] for name in table if name == "factor"})
    return _whole_price(table)


def _whole_price(table: dict[str, Any]) -> Price:
    _only(table, _PARTS)
    long = {word: _thresholds(word, table[word]) for word in _LONG if word in table}
    return Price(**{**table, **long})


def _thresholds(word: str, table: Any) -> dict[int, Price]:
    if not isinstance(table, dict) or not all(key.isdecimal() and isinstance(table[key], dict) for key in table):
        raise ConfigError(f'write {word} = {{ 200000 = {{ input = "6", output = "22.50" }} }}')
    return {int(key): _whole_price(value) for key, value in table.items()}


def _only(table: dict[str, Any], known: list[str]) -> None:
    strange = [name for name in table if name not in known]
    if strange:
        raise ConfigError(f"{', '.join(strange)} is no part of a price; there are {', '.join(known)}")


def _factor(value: Any) -> Decimal:
    return exact_factor(value, what=f"{value!r}")


def _amount(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ConfigError(f'write an amount such as "0.92", not {value!r}')
    return value


class _Currency(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str
    rate: Annotated[Any, AfterValidator(_amount)]
    date: date


def _currency(found: _Currency) -> Currency:
    return Currency(code=found.code, rate=found.rate, date=found.date)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    prices: dict[str, Annotated[Any, AfterValidator(_price)]] = {}
    factors: dict[str, Annotated[Any, AfterValidator(_factor)]] = {}
    currency: Annotated[_Currency, AfterValidator(_currency)] | None = None

    @property
    def shown(self) -> Currency | None:
        """The currency, as the validator made it."""
        return self.currency if isinstance(self.currency, Currency) else None


def _read(path: Path, *, by_environment: bool) -> _File:
    whose = " (AI_BUDGET_PRICES)" if by_environment else ""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"The prices in {path}{whose} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigError(f"{path}{whose} is no TOML file: {error}.") from None
    try:
        return _File.model_validate(found)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}{whose}: {_fault(item)}" for item in error.errors())) from None


def _fault(item: Any) -> str:
    where = ".".join(part if part.replace("_", "").isalnum() else f'"{part}"' for part in map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        known = "code, rate, date" if item["loc"][0] == "currency" else "prices, factors, currency"
        return f"{where} is not known; there are {known}."
    inner = item.get("ctx", {}).get("error")
    text = inner.message if isinstance(inner, ConfigError) else item["msg"]
    return f"{where}: {text.rstrip('.')}."
