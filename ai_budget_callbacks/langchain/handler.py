"""The handler users attach: one meter, its own budgets, and what it saw."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.attachment import Sight, check_given
from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.budget import Budget
from ai_budget_callbacks.calltree import call_tree
from ai_budget_callbacks.charges import charge_call, spent
from ai_budget_callbacks.errors import BudgetExceeded, ConfigError, Refusal
from ai_budget_callbacks.inflight import Target
from ai_budget_callbacks.langchain.around import look_around
from ai_budget_callbacks.langchain.attached import InstanceOnly
from ai_budget_callbacks.langchain.capture import CaptureHandler
from ai_budget_callbacks.langchain.errors import adapted
from ai_budget_callbacks.meter import Meter
from ai_budget_callbacks.report import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.calltree import CallTree
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.report import Summary

__all__ = ["BudgetCallbackHandler"]


_UNSEEN = (
    "This handler has seen no LangChain event, so it counts and limits nothing. Give it in "
    'config={"callbacks": [handler]} of the outermost call, or in the model\'s constructor.'
)


class BudgetCallbackHandler(InstanceOnly, CaptureHandler):
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

    def __init__(self, *budgets: Budget | Meter, **meter_options: Any) -> None:
        super().__init__()
        meters = [item for item in budgets if isinstance(item, Meter)]
        limits = [item for item in budgets if isinstance(item, Budget)]
        check_given(budgets, meter_options)
        if meters and meter_options:
            raise ConfigError(f"A meter was given, so these options belong to it: {', '.join(meter_options)}.")
        self._owns_meter = not meters
        self.meter = meters[0] if meters else Meter(**meter_options)
        # a meter of one's own counts nothing else: one id for both saves every settle a row
        self.id = self.meter.id if self._owns_meter else f"handler-{uuid.uuid4().hex}"
        self._attached = self.meter.attach(limits, self.id)
        self.meter.register(self._attached)
        self._targets = (Target(meter=self.meter, extra=self._attached, scopes=(self.id,)),)
        self._refusal: Refusal | None = None
        self._closed = False
        self._sight = Sight(self, _UNSEEN)

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:  # noqa: ARG002 - as its base has it
        """This handler's own meter, whatever blocks are around."""
        if self._closed:
            raise ConfigError("This handler was closed; a call after close() would not be counted. Make a new one.")
        return self._targets

    def note(self, refusal: Refusal) -> None:
        """Remember the first refusal or crossing."""
        if self._refusal is None:
            self._refusal = refusal

    def forget_root(self, root: str) -> None:
        """A root run ended; a refusal that closed it closes nothing more."""
        self.meter.forget_run(root)

    @property
    def exceeded(self) -> bool:
        """Whether one of its calls was refused, or crossed a limit. Some wrappers hide that from the caller."""
        self._sight.say_if_none()
        return self._refusal is not None

    def raise_if_exceeded(self) -> None:
        """Raise the first refusal or crossing, if there was one.

        Raises:
            BudgetExceeded, PriceUnknown: As it was.
        """
        self._sight.say_if_none()
        if self._refusal is not None:
            raise adapted(self._refusal)

    def summary(self) -> Summary:
        """Everything this handler saw in this process, by step, agent, tool, model and user."""
        self._sight.say_if_none()
        return summarise(self.entries())

    def tree(self) -> CallTree:
        """The calls this handler saw as the tree of chains, agents and tools they were made in."""
        self._sight.say_if_none()
        return call_tree(self.entries())

    def charge(
        self, usd: str | Decimal, *, name: str, user: str | None = None, metadata: Mapping[str, object] | None = None
    ) -> Entry | None:
        """Book money spent beyond model calls under this handler's budgets: see `Meter.charge`.

        Inside a chain, tool or graph it belongs to the run, agent, node and tool it is made in.

        Args:
            usd: USD, as a decimal string or `Decimal`, more than 0.
            name: What it was for.
            user: Whose it is; None for the run's user.
            metadata: More keys for `by` and reports.

        Raises:
            ConfigError, BudgetExceeded: As `Meter.charge`.
        """
        self.saw(call=False)
        who = look_around().who([self], current_blocks(), user=user, metadata=metadata or {})
        call = charge_call("charge", name, who, framework="langchain")
        try:
            return self.meter.book_spent(call, spent(usd), extra=self._attached, scopes=(self.id,))
        except BudgetExceeded as crossing:
            self.note(crossing)
            raise adapted(crossing) from None

    def entries(self) -> Iterator[Entry]:
        """Ledger entries of the calls this handler saw."""
        return self.meter.entries(scope=self.id)

    def saw(self, *, call: bool) -> None:  # noqa: ARG002 - as its base has it
        """Something happened here."""
        self._sight.event = True

    def close(self) -> None:
        """Close the meter this handler made. Later starts raise `ConfigError`, so that none goes uncounted."""
        self._sight.say_if_none()
        self._closed = True
        self.lost([*self._ongoing, *self._fees])  # what is in flight is booked as unknown while the ledger is open
        if self._owns_meter:
            self.meter.close()
