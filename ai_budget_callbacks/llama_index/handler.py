"""The handler users attach: one meter, its own budgets, and what it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.attachment import AttachedHandler
from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.llama_index.capture import GateHandler
from ai_budget_callbacks.llama_index.request import who_of
from ai_budget_callbacks.llama_index.tracking import attach
from ai_budget_callbacks.llama_index.tree import span_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_budget_callbacks.budget import Budget
    from ai_budget_callbacks.meter import Meter
    from ai_budget_callbacks.usage import Who

__all__ = ["BudgetCallbackHandler"]


class BudgetCallbackHandler(AttachedHandler, GateHandler):
    """A LlamaIndex callback handler that counts, prices and stops.

    Give it in `Settings.callback_manager = CallbackManager([handler])`, or in a model's `callback_manager`; once
    attached at several places it counts each request once.

    Args:
        budgets: Budgets of this handler, and at most one `Meter` that brings its own budgets and its ledger.
        meter_options: As for `Meter` (`ledger=`, `prices=`, `reserve=`, …), when no meter is given.

    Raises:
        ConfigError: Arguments that make no sense.
        LedgerError: The ledger cannot be used.
    """

    _framework = "llama_index"
    _unseen = (
        "This handler has seen no LlamaIndex event, so it counts and limits nothing. Set Settings.callback_manager = "
        "CallbackManager([handler]) before models and indexes are made; an engine replaces the manager of a model that "
        "was given its own. track() and install() reach every model."
    )

    def __init__(self, *budgets: Budget | Meter, **meter_options: Any) -> None:
        super().__init__()
        attach()
        self.attach_to(budgets, meter_options)
        fees = [f"{kind}/{name}" for kind in ("tool", "retriever", "reranker") for name in self.meter.prices.fees(kind)]
        if fees:
            self.meter.say(
                "fees of LlamaIndex",
                f"Prices of {', '.join(fees)} do nothing under LlamaIndex, which fires no event for them: book what "
                "they cost with handler.charge().",
                every_s=float("inf"),
            )

    def who_here(self, user: str | None, metadata: Mapping[str, object] | None) -> Who:
        """Who something made here belongs to: the engine, agent or tool whose method runs."""
        return who_of(None, span_tree.current(), current_blocks(), user=user, metadata=metadata)

    def lose_open(self) -> None:
        """Book as unknown what is in flight."""
        self.lose_all("its handler was closed while it was open")
