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
from ai_budget_callbacks.charges import charge_call, spent
from ai_budget_callbacks.errors import BudgetExceeded, ConfigError, Refusal
from ai_budget_callbacks.inflight import Target
from ai_budget_callbacks.meter import Meter
from ai_budget_callbacks.report import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.calltree import CallTree
    from ai_budget_callbacks.errors import AIBudgetError
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.report import Summary
    from ai_budget_callbacks.usage import Who

__all__ = ["AttachedHandler", "Sight", "check_given"]

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


class AttachedHandler:
    """What users see of a handler, the same for every framework. What an event is, its adapter knows.

    Attributes:
        meter: Its meter.
        id: Its scope in the ledger.
    """

    _framework: str
    _unseen: str

    def attach_to(self, given: Sequence[Budget | Meter], options: dict[str, Any]) -> None:
        """Make the handler's meter and attach its budgets.

        Args:
            given: Budgets, and at most one `Meter` that brings its own budgets and its ledger.
            options: As for `Meter`, when no meter is given.

        Raises:
            ConfigError: Arguments that make no sense.
            LedgerError: The ledger cannot be used.
        """
        check_given(given, options)
        meters = [item for item in given if isinstance(item, Meter)]
        if meters and options:
            raise ConfigError(f"A meter was given, so these options belong to it: {', '.join(options)}.")
        self._owns_meter = not meters
        self.meter = meters[0] if meters else Meter(**options)
        # a meter of one's own counts nothing else: one id for both saves every settle a row
        self.id = self.meter.id if self._owns_meter else f"handler-{uuid.uuid4().hex}"
        self._attached = self.meter.attach([item for item in given if isinstance(item, Budget)], self.id)
        self.meter.register(self._attached)
        self._targets = (Target(meter=self.meter, extra=self._attached, scopes=(self.id,)),)
        self._refusal: Refusal | None = None
        self._closed = False
        self._sight = Sight(self, self._unseen)

    # -- for the adapter

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:  # noqa: ARG002 - a handler has one answer
        """This handler's own meter, whatever blocks are around.

        Raises:
            ConfigError: It was closed.
        """
        if self._closed:
            raise ConfigError("This handler was closed; a call after close() would not be counted. Make a new one.")
        return self._targets

    def note(self, refusal: Refusal) -> None:
        """Remember the first refusal or crossing."""
        if self._refusal is None:
            self._refusal = refusal

    def saw(self, *, call: bool) -> None:  # noqa: ARG002 - any event shows that it is attached
        """Something happened here."""
        self._sight.event = True

    def adapted(self, error: Refusal) -> AIBudgetError:
        """The error as this framework must see it."""
        return error

    def who_here(self, user: str | None, metadata: Mapping[str, object] | None) -> Who:
        """Who something made here belongs to."""
        raise NotImplementedError

    def lose_open(self) -> None:
        """Book as unknown what is in flight."""
        raise NotImplementedError

    # -- for users

    @property
    def exceeded(self) -> bool:
        """Whether one of its calls was refused, or crossed a limit. Some wrappers, agents and engines hide that."""
        self._sight.say_if_none()
        return self._refusal is not None

    def raise_if_exceeded(self) -> None:
        """Raise the first refusal or crossing, if there was one.

        Raises:
            BudgetExceeded, PriceUnknown: As it was.
        """
        self._sight.say_if_none()
        if self._refusal is not None:
            raise self.adapted(self._refusal)

    def summary(self) -> Summary:
        """Everything this handler saw in this process, by step, agent, tool, model and user."""
        self._sight.say_if_none()
        return summarise(self.entries())

    def tree(self) -> CallTree:
        """The calls this handler saw as the tree of chains, engines, agents and tools they were made in."""
        self._sight.say_if_none()
        return call_tree(self.entries())

    def entries(self) -> Iterator[Entry]:
        """Ledger entries of the calls this handler saw."""
        return self.meter.entries(scope=self.id)

    def charge(
        self, usd: str | Decimal, *, name: str, user: str | None = None, metadata: Mapping[str, object] | None = None
    ) -> Entry | None:
        """Book money spent beyond model calls under this handler's budgets: see `Meter.charge`.

        Inside a chain, engine, agent or tool it belongs to the run, agent, step and tool it is made in.

        Args:
            usd: USD, as a decimal string or `Decimal`, more than 0.
            name: What it was for.
            user: Whose it is; None for the run's user.
            metadata: More keys for `by` and reports.

        Raises:
            ConfigError, BudgetExceeded: As `Meter.charge`.
        """
        self.saw(call=False)
        call = charge_call("charge", name, self.who_here(user, metadata), framework=self._framework)
        try:
            return self.meter.book_spent(call, spent(usd), extra=self._attached, scopes=(self.id,))
        except BudgetExceeded as crossing:
            self.note(crossing)
            raise self.adapted(crossing) from None

    def close(self) -> None:
        """Close the meter this handler made. Later starts raise `ConfigError`, so that none goes uncounted."""
        self._sight.say_if_none()
        self._closed = True
        self.lose_open()  # while the ledger is open
        if self._owns_meter:
            self.meter.close()
