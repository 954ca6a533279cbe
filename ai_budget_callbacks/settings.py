"""Where outside data enters: environment variables to settings.

`AI_BUDGET_LEDGER` names the ledger; without it, it is a file in the user data directory. There is no setting
that turns tracking off (DESIGN 3.8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Settings", "default_ledger"]


class Settings(BaseSettings):
    """Settings from the environment.

    Attributes:
        ledger: Path or URL of the ledger (`AI_BUDGET_LEDGER`).
    """

    model_config = SettingsConfigDict(env_prefix="AI_BUDGET_", extra="ignore")

    ledger: str | None = Field(default=None, description="Path or URL of the ledger.")


def default_ledger() -> str:
    """The ledger used where none is given."""
    return Settings().ledger or str(user_data_dir() / "spend.db")


def user_data_dir() -> Path:
    """The directory for this user's data, by the conventions of the platform."""
    from platformdirs import user_data_path

    return user_data_path("ai-budget")
