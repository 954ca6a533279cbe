"""What a handler that users attach is, whatever its framework: one meter, its own budgets, and what it saw."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.budget import Budget
from ai_budget_callbacks.calltree import call_tree
from ai_budget_callbacks.errors import ConfigError, Refusal
from ai_budget_callbacks.inflight import Target
from ai_budget_callbacks.meter import Meter
from ai_budget_callbacks.report import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ai_budget_callbacks.calltree import CallTree
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.report import Summary

__all__ = ["Attachment"]


class Attachment:
    """A meter with budgets of one handler.

    Args:
        items: Budgets, and at most one `Meter` that brings its own budgets and its ledger.
        options: As for `Meter`, when no meter is given.
        where: How it is attached, for the message of a handler that saw nothing.

    Raises:
        ConfigError: Arguments that make no sense.
        LedgerError: The ledger cannot be used.
    """

    def __init__(self, items: Sequence[Budget | Meter], options: dict[str, Any], where: str) -> None:
        meters = [item for item in items if isinstance(item, Meter)]
        limits = [item for item in items if isinstance(item, Budget)]
        if len(meters) > 1 or len(meters) + len(limits) != len(items):
            raise ConfigError("BudgetCallbackHandler takes budgets and at most one meter.")
        if meters and options:
            raise ConfigError(f"A meter was given, so these options belong to it: {', '.join(options)}.")
        self._where = where
        self._owns_meter = not meters
        self.meter = meters[0] if meters else Meter(**options)
        # a meter of one's own counts nothing else: one id for both saves every settle a row
        self.id = self.meter.id if self._owns_meter else f"handler-{uuid.uuid4().hex}"
        self.budgets = self.meter.attach(limits, self.id)
        self.meter.register(self.budgets)
        self._targets = (Target(meter=self.meter, extra=self.budgets, scopes=(self.id,)),)
        self.refusal: Refusal | None = None
        self.attached_somewhere = False
        self._closed = False

    def targets(self) -> Sequence[Target]:
        """Its own meter, whatever blocks are around.

        Raises:
            ConfigError: It was closed.
        """
        if self._closed:
            raise ConfigError("This handler was closed; a call after close() would not be counted. Make a new one.")
        return self._targets

    def note(self, refusal: Refusal) -> None:
        """Remember the first refusal or crossing."""
        if self.refusal is None:
            self.refusal = refusal

    def entries(self) -> Iterator[Entry]:
        """Ledger entries of the calls it saw."""
        return self.meter.entries(scope=self.id)

    def summary(self) -> Summary:
        """Everything it saw in this process."""
        self.say_if_unattached()
        return summarise(self.entries())

    def tree(self) -> CallTree:
        """The calls it saw as the tree of what they were made in."""
        self.say_if_unattached()
        return call_tree(self.entries())

    def say_if_unattached(self) -> None:
        """Warn, once, if it has seen nothing: then it limits nothing."""
        if not self.attached_somewhere:
            self.meter.say(f"unattached {self.id}", self._where, every_s=float("inf"))

    def shut(self) -> None:
        """Refuse later starts."""
        self.say_if_unattached()
        self._closed = True

    def close_meter(self) -> None:
        """Close the meter, if it is its own."""
        if self._owns_meter:
            self.meter.close()
