"""Calls in flight: admitted by the meters that count them, and not ended yet.

A call may be counted by several meters (handlers, `track()` blocks, the installed one); here they are begun, ended,
withdrawn and abandoned together, and a refusal closes who got it.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ai_budget_callbacks.blocks import close_block
from ai_budget_callbacks.errors import AIBudgetError, BudgetExceeded, PriceUnknown, Refusal, UsageMissing
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.meter import Meter, OpenCall, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.budget import Attached
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.usage import Call

__all__ = [
    "Target",
    "abandon",
    "abandon_run",
    "begin",
    "block_targets",
    "call_id_for",
    "finish",
    "finish_all",
    "withdraw",
]

log = logging.getLogger("ai_budget_callbacks")
_state_lock = ForkSafeLock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One meter that counts a call, with the budgets and summaries it brings.

    Attributes:
        meter: The meter.
        extra: Budgets besides the meter's own.
        scopes: Ids of the handler or blocks.
    """

    meter: Meter
    extra: tuple[Attached, ...] = ()
    scopes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Live:
    """A call that was admitted by at least one meter of this process and has not ended."""

    run_id: str | None
    runs: tuple[Block, ...]
    mark: object = None
    told: Outcome | None = None  # by a report with the provider's usage, for those without it
    opened: list[tuple[Meter, OpenCall]] = field(default_factory=list)
    forget: list[Callable[[], object]] = field(default_factory=list)


_live: dict[str, _Live] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_live.clear)  # calls in flight at a fork are the parent's to end


def block_targets(blocks: Sequence[Block], default: Meter | None) -> list[Target]:
    """One target for each meter of these blocks and the installed one, with the budgets of all blocks that use it."""
    by_meter: dict[int, tuple[Meter, list[Block]]] = {}
    for block in blocks:
        by_meter.setdefault(id(block.meter), (block.meter, []))[1].append(block)
    if default is not None:
        by_meter.setdefault(id(default), (default, []))
    return [
        Target(
            meter=meter,
            extra=tuple(item for block in own for item in block.attached),
            scopes=tuple(block.id for block in own),
        )
        for meter, own in by_meter.values()
    ]


def call_id_for(run_id: str, mark: object) -> str:
    """The id of a call that a framework announces under a run id.

    Users may give one run id to several calls at once (`config={"run_id": …}`). What all handlers of one announcement
    are given, and no other call is, tells them apart.

    Args:
        run_id: As the framework says.
        mark: An object of this announcement (LangChain: the parameters all handlers of the event share).
    """
    with _state_lock:
        number, call_id = 1, run_id
        while (live := _live.get(call_id)) is not None and live.mark is not mark:
            number += 1
            call_id = f"{run_id}~{number}"
        _live.setdefault(call_id, _Live(None, (), mark))  # taken from now on, until it ends or is withdrawn
        return call_id


def begin(
    call: Call, target: Target, runs: tuple[Block, ...], *, mark: object, forget: Callable[[], object]
) -> OpenCall:
    """Admit a call at one meter, before it is sent.

    A refusal closes who got it: the block whose own budget refused, else the run. Whatever stops the announcement, the
    caller withdraws it.

    Args:
        call: The call.
        target: The meter, with the budgets and scopes it brings.
        runs: `track()` blocks around the call.
        mark: As for `call_id_for`.
        forget: Called when the announcement is withdrawn.

    Raises:
        BudgetExceeded, PriceUnknown, LedgerError, ConfigError: See `Meter.reserve`.
    """
    for run in runs:
        run.note_call()
    try:
        _refuse_exceeded(runs)
        opened = target.meter.reserve(call, extra=target.extra, scopes=target.scopes)
    except (BudgetExceeded, PriceUnknown) as refusal:
        _close(call, target.meter, runs, refusal)
        raise
    with _state_lock:
        live = _live.setdefault(call.id, _Live(None, (), mark))
        live.run_id, live.runs = call.who.run_id or live.run_id, runs or live.runs
        live.opened.append((target.meter, opened))
        live.forget.append(forget)
    return opened


def _refuse_exceeded(runs: tuple[Block, ...]) -> None:
    for run in runs:
        if run.refusal is not None:
            raise run.refusal.again()


def withdraw(mark: object) -> None:
    """Nothing of an announcement will be sent: give back what meters of this process held for it.

    Args:
        mark: As for `call_id_for`. Prompts of one `generate` share it: they are sent together or not at all.
    """
    with _state_lock:
        lives = [_live.pop(call_id) for call_id, live in list(_live.items()) if live.mark is mark]
    for live in lives:
        for forget in live.forget:
            forget()
        for meter, opened in live.opened:
            meter.release(opened, "the call was refused before it was sent")


def _close(call: Call, meter: Meter, runs: tuple[Block, ...], refusal: Refusal) -> None:
    if not close_block(runs, refusal) and call.who.run_id is not None and call.who.root_seen:
        meter.close_run(call.who.run_id, refusal)


def finish(opened: OpenCall, meter: Meter, outcome: Outcome | None, reason: str = "") -> Entry | None:
    """End a call at one meter: settle an outcome, or release with a reason when there is none.

    Of a request that several reports tell of (a wrapper around a model), the one that has the provider's usage counts.

    Raises:
        BudgetExceeded, UsageMissing: See `Meter.settle`; a crossing is noted on its block first.
    """
    with _state_lock:
        live = _live.get(opened.call.id)
        if live is not None:
            live.opened = [pair for pair in live.opened if pair[1] is not opened]
            if not live.opened:
                del _live[opened.call.id]
            if outcome is not None and outcome.usage is not None:
                live.told = live.told or outcome
            elif live.told is not None:
                outcome = live.told
    if outcome is None:
        meter.release(opened, reason)
        return None
    try:
        return meter.settle(opened, outcome)
    except (BudgetExceeded, UsageMissing) as error:
        if live is not None:
            if isinstance(error, BudgetExceeded):
                _close(opened.call, meter, live.runs, error)
            _end_at_others(opened.call.id, live, outcome)
        raise


def finish_all(
    opened: Iterable[tuple[Meter, OpenCall]], outcome: Outcome | None, reason: str = ""
) -> AIBudgetError | None:
    """End a call at every meter, as `finish` does at one.

    Returns:
        The first error that must be raised: the caller raises it, now that all meters have committed.
    """
    first: AIBudgetError | None = None
    for meter, item in opened:
        try:
            finish(item, meter, outcome, reason)
        except AIBudgetError as error:
            first = first or error
        except Exception:
            # ours, not the user's: what was paid for is theirs all the same, and the hold is swept as unknown
            log.exception("A call could not be booked; its hold stays and will be booked as unknown.")
    return first


def _end_at_others(call_id: str, live: _Live, outcome: Outcome) -> None:
    """What is raised at an end keeps the framework from telling the handlers after it, so their meters settle here."""
    with _state_lock:
        left, live.opened = live.opened, []
        _live.pop(call_id, None)
    for meter, opened in left:
        try:
            meter.settle(opened, outcome)
        except BudgetExceeded as crossing:
            _close(opened.call, meter, live.runs, crossing)
        except UsageMissing:
            continue  # one of them is raised already


def abandon_run(run_id: str, reason: str) -> list[BudgetExceeded]:
    """A run ended: book its calls that got no end event as unknown. A late end corrects them."""
    with _state_lock:
        ids = [call_id for call_id, live in _live.items() if live.run_id == run_id]
    return abandon(ids, reason)


def abandon(call_ids: Sequence[str], reason: str) -> list[BudgetExceeded]:
    """Calls that will get no end event: book them as unknown. A late end corrects them.

    Returns:
        Crossings of budgets with `at_limit="raise"`: nobody is there to raise them to, so they are noted.
    """
    with _state_lock:
        left = [(live, pair) for call_id in call_ids if (live := _live.pop(call_id, None)) for pair in live.opened]
    crossings = []
    for live, (meter, opened) in left:
        try:
            meter.settle(opened, Outcome(kind="unknown", reason=reason))
        except BudgetExceeded as crossing:
            _close(opened.call, meter, live.runs, crossing)
            crossings.append(crossing)
    return crossings
