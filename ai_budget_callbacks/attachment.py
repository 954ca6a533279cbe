"""What a handler that users attach is, whatever its framework: one meter, its own budgets, and what it saw."""

from __future__ import annotations

import logging
import os
import uuid
import weakref
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.budget import Budget
from ai_budget_callbacks.calltree import call_tree
from ai_budget_callbacks.errors import ConfigError, Refusal
from ai_budget_callbacks.inflight import Target
from ai_budget_callbacks.meter import Meter
from ai_budget_callbacks.report import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ai_budget_callbacks.calltree import CallTree
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.report import Summary

__all__ = ["Attachment", "Sight", "check_given"]

log = logging.getLogger("ai_budget_callbacks")

_OF_BUDGETS = frozenset(item.name for item in fields(Budget) if item.init)
_forks = 0  # a process that forked does not know what its children did with its handlers


class Sight:
    """Whether a handler has seen an event; says once, at the latest at its end, that it has not.

    Args:
        handler: The handler, or what lives as long as it.
        unseen: What is said then.
    """

    def __init__(self, handler: object, unseen: str) -> None:
        self.event = False
        self._unseen = unseen
        self._said = False
        self._made_in = (os.getpid(), _forks)
        weakref.finalize(handler, self._at_its_end)  # also at the process's exit

    def say_if_none(self) -> None:
        """Warn that nothing was seen; once."""
        if not self.event and not self._said:
            self._said = True
            log.warning("%s", self._unseen)

    def _at_its_end(self) -> None:
        if self._made_in == (os.getpid(), _forks):
            self.say_if_none()


def _note_fork() -> None:
    global _forks  # noqa: PLW0603 - one count for the process
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_note_fork)


def check_given(given: Sequence[object], options: Mapping[str, Any]) -> None:
    """Refuse what a handler cannot be made of, with what to write instead.

    Args:
        given: Its positional arguments.
        options: Its keyword arguments.

    Raises:
        ConfigError: They are not budgets and at most one meter.
    """
    limits = [f"{name}={value!r}" for name, value in options.items() if name in _OF_BUDGETS]
    if limits:
        raise ConfigError(f"A limit is given as a budget: BudgetCallbackHandler(Budget({', '.join(limits)})).")
    for item in given:
        if isinstance(item, (list, tuple)):
            raise ConfigError(
                "BudgetCallbackHandler takes budgets one by one, BudgetCallbackHandler(Budget(…), Budget(…)), not in a "
                f"{type(item).__name__}: {item!r}."
            )
        if not isinstance(item, (Budget, Meter)):
            raise ConfigError(f"BudgetCallbackHandler takes budgets and at most one meter; {item!r} is neither.")
    meters = [item for item in given if isinstance(item, Meter)]
    if len(meters) > 1:
        raise ConfigError(f"BudgetCallbackHandler takes budgets and at most one meter; {len(meters)} were given.")


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
        check_given(items, options)
        if meters and options:
            raise ConfigError(f"A meter was given, so these options belong to it: {', '.join(options)}.")
        self._owns_meter = not meters
        self.meter = meters[0] if meters else Meter(**options)
        # a meter of one's own counts nothing else: one id for both saves every settle a row
        self.id = self.meter.id if self._owns_meter else f"handler-{uuid.uuid4().hex}"
        self.budgets = self.meter.attach(limits, self.id)
        self.meter.register(self.budgets)
        self._targets = (Target(meter=self.meter, extra=self.budgets, scopes=(self.id,)),)
        self.refusal: Refusal | None = None
        self.sight = Sight(self, where)
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
        self.sight.say_if_none()
        return summarise(self.entries())

    def tree(self) -> CallTree:
        """The calls it saw as the tree of what they were made in."""
        self.sight.say_if_none()
        return call_tree(self.entries())

    def shut(self) -> None:
        """Refuse later starts."""
        self.sight.say_if_none()
        self._closed = True

    def close_meter(self) -> None:
        """Close the meter, if it is its own."""
        if self._owns_meter:
            self.meter.close()
