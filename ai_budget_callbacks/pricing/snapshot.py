"""Price data newer than the installed library's: fetched when the user says so, checked, and kept in a file of ours.

No thread, and no network but in `fetch`. The library's own updater replaces the prices of the whole process, so it is
not used: the file is read into a list that belongs to us alone. It holds for the version of the library it was fetched
with, whose format it has and whose data it is newer than.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.settings import price_data

__all__ = ["OLD_DAYS", "PriceData", "bundled_as_of", "fetch", "load", "update_url", "warn_if_old"]

log = logging.getLogger("ai_budget_callbacks")

OLD_DAYS = 60
_MIN_MODELS = 1_000
_NEEDED = frozenset({"anthropic", "aws", "azure", "google", "openai"})
_TIMEOUT_S = 30
_MAX_BYTES = 100_000_000
_said: set[str] = set()


@dataclass(frozen=True, slots=True)
class PriceData:
    """Price data that was fetched.

    Attributes:
        providers: As the library's own list.
        as_of: The day it was fetched.
    """

    providers: list[Any]
    as_of: date

    @property
    def models(self) -> int:
        """How many models it has."""
        return sum(len(provider.models) for provider in self.providers)


@cache
def bundled_as_of() -> date | None:
    """The day the installed library's own data is from, or None where we do not know its release."""
    text = files(__package__).joinpath("data/catalogue_dates.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text).get(version("genai-prices"))
    return found if isinstance(found, date) else None


def update_url() -> str:
    """Where the library itself says that its newest data is."""
    from genai_prices.update_prices import DEFAULT_UPDATE_URL

    return DEFAULT_UPDATE_URL


def load() -> PriceData | None:
    """The fetched data, or None where there is none for this version of the library; a damaged file is named."""
    path = price_data()
    try:
        kept = _json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _not_used(path, str(error))
        return None
    try:
        made_for, day = kept["genai_prices"], date.fromisoformat(kept["fetched"])
        if made_for != version("genai-prices"):
            _not_used(path, f"it was fetched with genai-prices {made_for}, and another version is installed")
            return None
        return PriceData(_checked(kept["data"]), day)
    except (KeyError, TypeError, ValueError) as error:
        _not_used(path, _why(error))
        return None


def _not_used(path: Path, why: str) -> None:
    log.warning(
        "The price data in %s is not used: %s. The prices of the installed library hold. Run `ai-budget "
        "update-prices`, or delete the file.",
        path,
        why,
    )


def fetch(url: str, today: date) -> PriceData:
    """Fetch the newest data and keep it for this user, if it is a whole price list.

    Args:
        url: Where it is.
        today: The day it is from.

    Raises:
        ConfigError: It cannot be fetched, is no price list, or cannot be kept. Nothing has changed then.
    """
    raw = _download(url)
    try:
        found = PriceData(_checked(_json(raw)), today)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"What {url} sends is not used: {_why(error)}. The prices are the same as before.") from None
    head = json.dumps({"genai_prices": version("genai-prices"), "fetched": today.isoformat(), "url": url})
    _replace(price_data(), head[:-1].encode() + b', "data": ' + raw + b"}")  # as it came: digits stay what they are
    return found


def _download(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import urlopen

    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"{url!r} is no http or https address. The prices are the same as before.")
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the scheme is checked above
            raw: bytes = answer.read(_MAX_BYTES)
            return raw
    except (URLError, OSError, ValueError, HTTPException) as error:
        why = " ".join(str(getattr(error, "reason", None) or error).split())
        raise ConfigError(f"{url} cannot be fetched: {why}. The prices are the same as before.") from None


def _replace(path: Path, content: bytes) -> None:
    """All of a file or none of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. The prices are the same as before.") from None
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}. The prices are the same as before.") from None


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return " ".join(line.strip() for line in str(error).splitlines()[:3])  # pydantic's go on for pages


def _json(raw: bytes) -> Any:
    return json.loads(raw, parse_float=Decimal)


def _checked(raw: Any) -> list[Any]:
    """The library's records of a price list in its JSON format.

    Raises:
        ValueError: It is none, or one that cannot be whole.
    """
    from genai_prices.types import Provider
    from pydantic import ConfigDict, TypeAdapter

    if not isinstance(raw, list):
        raise ValueError("it is no list of providers")  # noqa: TRY004 - one kind of error for all that is wrong with it
    adapter = TypeAdapter(list[Provider], config=ConfigDict(arbitrary_types_allowed=True))
    providers = adapter.validate_python(_with_prices(raw))
    missing = _NEEDED - {provider.id for provider in providers}
    models = sum(len(provider.models) for provider in providers)
    if missing or models < _MIN_MODELS:
        lacks = f", and without {', '.join(sorted(missing))}" if missing else ""
        raise ValueError(f"it has {models} models{lacks}: a whole list has at least {_MIN_MODELS}")
    return providers


def _with_prices(value: Any) -> Any:
    """The same JSON with `ModelPrice` records, which pydantic cannot make, and without the library's extractors."""
    if isinstance(value, list):
        return [_with_prices(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: item for name, item in value.items() if name != "extractors"}
    return {
        name: _model_price(item) if name == "prices" and isinstance(item, dict) else _with_prices(item)
        for name, item in kept.items()
    }


def _model_price(prices: dict[str, Any]) -> Any:
    from genai_prices.types import ModelPrice, Tier, TieredPrices

    found: dict[str, Any] = {}
    for name, value in prices.items():
        if isinstance(value, dict):
            tiers = [Tier(start=tier["start"], price=_amount(name, tier["price"])) for tier in value["tiers"]]
            found[name] = TieredPrices(base=_amount(name, value["base"]), tiers=tiers)
        elif value is not None:
            found[name] = _amount(name, value)
    return ModelPrice(**found)


def _amount(name: str, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ValueError(f"{name} is {value!r}, which is no price")  # noqa: TRY004 - as above
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{name} is {value}, and no price is below 0")
    return amount


def warn_if_old(as_of: date | None, today: date) -> None:
    """Say once in a process that the prices are old; of data without a day nothing is known."""
    if as_of is None or (today - as_of).days <= OLD_DAYS or "old" in _said:
        return
    _said.add("old")
    log.warning(
        "The price list is of %s, %d days ago. Prices may have changed since: upgrade genai-prices, or run `ai-budget "
        "update-prices`.",
        as_of.isoformat(),
        (today - as_of).days,
    )
