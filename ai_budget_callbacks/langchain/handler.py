"""The handler users attach: one meter, its own budgets, and what it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.attachment import AttachedHandler
from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.langchain.around import look_around
from ai_budget_callbacks.langchain.attached import InstanceOnly
from ai_budget_callbacks.langchain.capture import CaptureHandler
from ai_budget_callbacks.langchain.errors import adapted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_budget_callbacks.budget import Budget
    from ai_budget_callbacks.errors import AIBudgetError, Refusal
    from ai_budget_callbacks.meter import Meter
    from ai_budget_callbacks.usage import Who

__all__ = ["BudgetCallbackHandler"]


class BudgetCallbackHandler(AttachedHandler, InstanceOnly, CaptureHandler):
    """A LangChain callback that counts, prices and stops.

    Give it in `config={"callbacks": [handler]}`, in a model's constructor, or both; once attached at several places
    it counts each call once.

    Args:
        budgets: Budgets of this handler, and at most one `Meter` that brings its own budgets and its ledger.
        meter_options: As for `Meter` (`ledger=`, `prices=`, `reserve=`, …), when no meter is given.

    Raises:
        ConfigError: Arguments that make no sense.
        LedgerError: The ledger cannot be used.
    """

    _framework = "langchain"
    _unseen = (
        "This handler has seen no LangChain event, so it counts and limits nothing. Give it in "
        'config={"callbacks": [handler]} of the outermost call, or in the model\'s constructor.'
    )

    def __init__(self, *budgets: Budget | Meter, **meter_options: Any) -> None:
        super().__init__()
        self.attach_to(budgets, meter_options)

    def forget_root(self, root: str) -> None:
        """A root run ended; a refusal that closed it closes nothing more."""
        self.meter.forget_run(root)

    def adapted(self, error: Refusal) -> AIBudgetError:
        """The same error in the class LangChain's wrappers do not retry."""
        return adapted(error)

    def who_here(self, user: str | None, metadata: Mapping[str, object] | None) -> Who:
        """Who something made here belongs to: the chain, tool or node that LangChain's context names."""
        return look_around().who([self], current_blocks(), user=user, metadata=metadata or {})

    def lose_open(self) -> None:
        """Book as unknown what is in flight."""
        self.lost([*self._ongoing, *self._fees])
