"""The handler users attach: one meter, its own budgets, and what it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.attachment import Attachment
from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.charges import charge_call, spent
from ai_budget_callbacks.errors import BudgetExceeded, Refusal
from ai_budget_callbacks.llama_index.capture import GateHandler
from ai_budget_callbacks.llama_index.request import who_of
from ai_budget_callbacks.llama_index.tracking import attach
from ai_budget_callbacks.llama_index.tree import span_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.budget import Budget
    from ai_budget_callbacks.calltree import CallTree
    from ai_budget_callbacks.inflight import Target
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.meter import Meter
    from ai_budget_callbacks.report import Summary

__all__ = ["BudgetCallbackHandler"]

_UNATTACHED = (
    "This handler has seen no LlamaIndex event, so it counts and limits nothing. Set Settings.callback_manager = "
    "CallbackManager([handler]) before models and indexes are made; an engine replaces the manager of a model that "
    "was given its own. track() and install() reach every model."
)


class BudgetCallbackHandler(GateHandler):
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

    def __init__(self, *budgets: Budget | Meter, **meter_options: Any) -> None:
        super().__init__()
        attach()
        self._attachment = Attachment(budgets, meter_options, _UNATTACHED)
        self.meter, self.id = self._attachment.meter, self._attachment.id

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:  # noqa: ARG002 - as its base has it
        """This handler's own meter, whatever blocks are around."""
        return self._attachment.targets()

    def note(self, refusal: Refusal) -> None:
        """Remember the first refusal or crossing."""
        self._attachment.note(refusal)

    def saw(self, *, call: bool) -> None:  # noqa: ARG002 - as its base has it
        """Something happened here."""
        self._attachment.sight.event = True

    @property
    def exceeded(self) -> bool:
        """Whether one of its calls was refused, or crossed a limit. Some agents and engines hide that."""
        self._attachment.sight.say_if_none()
        return self._attachment.refusal is not None

    def raise_if_exceeded(self) -> None:
        """Raise the first refusal or crossing, if there was one.

        Raises:
            BudgetExceeded, PriceUnknown: As it was.
        """
        self._attachment.sight.say_if_none()
        if self._attachment.refusal is not None:
            raise self._attachment.refusal

    def summary(self) -> Summary:
        """Everything this handler saw in this process, by step, agent, tool, model and user."""
        return self._attachment.summary()

    def tree(self) -> CallTree:
        """The calls this handler saw as the tree of engines, agents and tools they were made in."""
        return self._attachment.tree()

    def entries(self) -> Iterator[Entry]:
        """Ledger entries of the calls this handler saw."""
        return self._attachment.entries()

    def charge(
        self, usd: str | Decimal, *, name: str, user: str | None = None, metadata: Mapping[str, object] | None = None
    ) -> Entry | None:
        """Book money spent beyond model calls under this handler's budgets: see `Meter.charge`.

        Inside an engine, agent or tool it belongs to the run, agent, step and tool it is made in.

        Args:
            usd: USD, as a decimal string or `Decimal`, more than 0.
            name: What it was for.
            user: Whose it is; None for the block's user.
            metadata: More keys for `by` and reports.

        Raises:
            ConfigError, BudgetExceeded: As `Meter.charge`.
        """
        self.saw(call=False)
        who = who_of(None, span_tree.current(), current_blocks(), user=user, metadata=metadata)
        call = charge_call("charge", name, who, framework="llama_index")
        try:
            return self.meter.book_spent(call, spent(usd), extra=self._attachment.budgets, scopes=(self.id,))
        except BudgetExceeded as crossing:
            self.note(crossing)
            raise

    def close(self) -> None:
        """Close the meter this handler made. Later starts raise `ConfigError`, so that none goes uncounted."""
        self._attachment.shut()
        self.lose_all("its handler was closed while it was open")
        self._attachment.close_meter()
