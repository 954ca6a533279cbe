"""Where outside data enters: environment variables to settings.

`AI_BUDGET_LEDGER` names the ledger; without it, it is a file in the user data directory. `AI_BUDGET_PRICES` names a
file of prices of one's own; `AI_BUDGET_PRICE_DATA` the price list that `ai-budget update-prices` keeps. There is no
setting that turns tracking off (DESIGN 3.8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Settings", "default_ledger", "price_data"]


class Settings(BaseSettings):
    """Settings from the environment.

    Attributes:
        ledger: Path or URL of the ledger (`AI_BUDGET_LEDGER`).
        prices: Path of a TOML file with prices of one's own (`AI_BUDGET_PRICES`).
        price_data: Path of the price list that `ai-budget update-prices` keeps (`AI_BUDGET_PRICE_DATA`).
    """

    model_config = SettingsConfigDict(env_prefix="AI_BUDGET_", extra="ignore")

    ledger: str | None = Field(default=None, description="Path or URL of the ledger.")
    prices: str | None = Field(default=None, description="Path of a TOML file with prices of one's own.")
    price_data: str | None = Field(default=None, description="Path of the price list that update-prices keeps.")


def default_ledger() -> str:
    """The ledger used where none is given."""
    return Settings().ledger or str(user_data_dir() / "spend.db")


def price_data() -> Path:
    """The file of the price list that `ai-budget update-prices` keeps."""
    from pathlib import Path

    named = Settings().price_data
    return Path(named) if named else user_data_dir() / "prices.json"


def user_data_dir() -> Path:
    """The directory for this user's data, by the conventions of the platform."""
    from platformdirs import user_data_path

    return user_data_path("ai-budget")
