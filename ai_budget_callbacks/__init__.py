"""A spending limit that holds, for LangChain and LlamaIndex. Public names only; imports no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.budget import Budget
from ai_budget_callbacks.errors import (
    AIBudgetError,
    BudgetExceeded,
    ConfigError,
    LedgerError,
    PriceUnknown,
    UsageMissing,
)

if TYPE_CHECKING:
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.meter import Meter
    from ai_budget_callbacks.pricing import Price, SameAs
    from ai_budget_callbacks.report import Summary
    from ai_budget_callbacks.scope import Run, install, register_wrapper, track
    from ai_budget_callbacks.usage import Usage

__all__ = [
    "AIBudgetError",
    "Budget",
    "BudgetExceeded",
    "ConfigError",
    "Entry",
    "LedgerError",
    "Meter",
    "Price",
    "PriceUnknown",
    "Run",
    "SameAs",
    "Summary",
    "Usage",
    "UsageMissing",
    "install",
    "register_wrapper",
    "track",
]

_LAZY = {
    "Entry": "ledger",
    "Meter": "meter",
    "Price": "pricing",
    "Run": "scope",
    "SameAs": "pricing",
    "Summary": "report",
    "Usage": "usage",
    "install": "scope",
    "register_wrapper": "scope",
    "track": "scope",
}


def __getattr__(name: str) -> Any:
    """Load the heavier names at first use: importing this package stays under 50 ms."""
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    if name == "__version__":
        from importlib.metadata import version

        return version("ai-budget-callbacks")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
