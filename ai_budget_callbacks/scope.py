"""Who a call belongs to: `track()` blocks, the process-wide meter, and what a refusal closes.

Blocks live in one ContextVar as a tuple, outermost first. Frameworks are attached through the one lazy import
of `attach` (the import contract names it).
"""

from __future__ import annotations

import functools
import inspect
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ai_budget_callbacks.errors import BudgetExceeded, ConfigError, PriceUnknown, Refusal
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.meter import Meter, OpenCall, Outcome
from ai_budget_callbacks.report import summarise

if TYPE_CHECKING:
    from types import TracebackType

    from ai_budget_callbacks.budget import Attached, Budget
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.report import Summary
    from ai_budget_callbacks.usage import Call

__all__ = [
    "Run",
    "Target",
    "abandon",
    "abandon_run",
    "begin",
    "call_id_for",
    "current_runs",
    "default_meter",
    "finish",
    "install",
    "installed",
    "track",
    "withdraw",
]

F = TypeVar("F", bound=Callable[..., Any])

_runs: ContextVar[tuple[Run, ...]] = ContextVar("ai_budget_runs", default=())
_state_lock = ForkSafeLock()
_installed: Meter | None = None
_default: Meter | None = None


def current_runs() -> tuple[Run, ...]:
    """`track()` blocks around the caller, outermost first."""
    return _runs.get()


class Run:
    """One `track()` block while it is open, and its results afterwards.

    Attributes:
        id: Takes part in `meter.entries(run=…)`.
        meter: The meter that counts it.
        user, metadata: Who its calls belong to.
    """

    def __init__(self, budgets: Sequence[Budget], meter: Meter, user: str | None, metadata: Mapping[str, str]) -> None:
        self.id = f"run-{uuid.uuid4().hex}"
        self.meter = meter
        self.user = user
        self.metadata = dict(metadata)
        self.attached = meter.attach(budgets, self.id, block=True)
        meter.register(self.attached)
        self._refusal: Refusal | None = None

    @property
    def exceeded(self) -> bool:
        """Whether one of its calls was refused, or crossed a limit with `at_limit="raise"`."""
        return self._refusal is not None

    def raise_if_exceeded(self) -> None:
        """Raise the refusal, if there was one.

        Raises:
            BudgetExceeded: A call of this block was refused or crossed.
            PriceUnknown: A call of this block was refused because it has no price.
        """
        if self._refusal is not None:
            raise self._refusal

    def summary(self) -> Summary:
        """What this block cost so far, by step, agent, tool, model and user."""
        return summarise(self.meter.entries(scope=self.id))

    def entries(self) -> Iterator[Entry]:
        """This block's ledger entries."""
        return self.meter.entries(scope=self.id)

    def close_with(self, refusal: Refusal) -> None:
        """Refuse later starts in this block; its exit raises if nothing else does."""
        if self._refusal is None:
            self._refusal = refusal


class track:  # noqa: N801 - reads as a statement: `with track(…)`, `@track(…)`
    """A block whose LLM calls count together, under budgets of its own. Sync, async, and as a decorator.

    Works for frameworks imported before, inside or after it. As a decorator each call of the function is its own
    block. The block raises at its exit only after a refusal (or a crossing with `at_limit="raise"`) that something
    inside swallowed; an exception of its own is kept.

    Args:
        budgets: Limits for this block only.
        meter: The meter to count with; None for the enclosing block's, the installed, or the default one.
        user: Who the calls belong to.
        metadata: More keys for `by` and reports.

    Raises:
        ConfigError: Wrong arguments, or a generator function as the decorated one.
        BudgetExceeded, PriceUnknown: At exit, as above.
    """

    def __init__(
        self,
        *budgets: Budget,
        meter: Meter | None = None,
        user: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        from ai_budget_callbacks.budget import Budget as BudgetType

        for item in budgets:
            if not isinstance(item, BudgetType):
                raise ConfigError(f"track() takes budgets, then keywords; {item!r} is no Budget.")
        self._budgets = budgets
        self._meter = meter
        self._user = user
        self._metadata = {str(key): str(value) for key, value in (metadata or {}).items()}
        self._run: Run | None = None
        self._token: Any = None

    def __enter__(self) -> Run:
        if self._run is not None:
            raise ConfigError("This track() block is open already; make another one.")
        _attach_frameworks()
        outer = _runs.get()
        meter = self._meter or (outer[-1].meter if outer else None) or _installed or default_meter()
        metadata = (outer[-1].metadata if outer else {}) | self._metadata
        user = self._user if self._user is not None else (outer[-1].user if outer else None)
        run = Run(self._budgets, meter, user, metadata)
        self._token = _runs.set((*outer, run))
        self._run = run
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run, self._run = self._run, None
        assert run is not None
        try:
            _runs.reset(self._token)
        except ValueError:  # left in another context than it was entered in (an async fixture, a generator)
            _runs.set(tuple(item for item in _runs.get() if item is not run))
        abandon_run(run.id, "its track() block ended while it was open")
        run.meter.forget_run(run.id)
        if error is None:
            run.raise_if_exceeded()

    async def __aenter__(self) -> Run:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Decorate a function: each call is its own block."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError("track() cannot decorate a generator function; open the block where it is consumed.")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def tracked_async(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return tracked_async  # type: ignore[return-value]

        @functools.wraps(function)
        def tracked(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return tracked  # type: ignore[return-value]

    def _again(self) -> Self:
        return type(self)(*self._budgets, meter=self._meter, user=self._user, metadata=self._metadata)


def install(meter: Meter) -> None:
    """Count every LLM call of this process with a meter, wherever it is made. A second call replaces the first."""
    global _installed  # noqa: PLW0603 - a process-wide default is what this is
    if not isinstance(meter, Meter):
        raise ConfigError(f"install() takes a Meter, not {meter!r}.")
    _attach_frameworks()
    _installed = meter


def installed() -> Meter | None:
    """The meter given to `install()`."""
    return _installed


def default_meter() -> Meter:
    """A meter without budgets on the default ledger, made at first use."""
    global _default  # noqa: PLW0603 - one for the process
    with _state_lock:
        if _default is None or _default.closed:
            _default = Meter()
        return _default


def _attach_frameworks() -> None:
    from ai_budget_callbacks.attach import attach_frameworks

    attach_frameworks()


# -- the life of a call across all meters that count it


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
    runs: tuple[Run, ...]
    mark: object = None
    opened: list[tuple[Meter, OpenCall]] = field(default_factory=list)
    forget: list[Callable[[], object]] = field(default_factory=list)


_live: dict[str, _Live] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_live.clear)  # calls in flight at a fork are the parent's to end


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


def begin(call: Call, target: Target, runs: tuple[Run, ...], *, mark: object, forget: Callable[[], object]) -> OpenCall:
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
    try:
        _refuse_exceeded(runs)
        opened = target.meter.reserve(call, extra=target.extra, scopes=target.scopes)
    except (BudgetExceeded, PriceUnknown) as refusal:
        _close(call, target.meter, runs, refusal)
        raise
    with _state_lock:
        live = _live.setdefault(call.id, _Live(None, (), mark))
        live.run_id, live.runs = call.who.run_id, runs
        live.opened.append((target.meter, opened))
        live.forget.append(forget)
    return opened


def _refuse_exceeded(runs: tuple[Run, ...]) -> None:
    for run in runs:
        if run._refusal is not None:  # noqa: SLF001 - same module
            raise run._refusal.again()  # noqa: SLF001


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


def _close(call: Call, meter: Meter, runs: tuple[Run, ...], refusal: Refusal) -> None:
    block = next((run for run in runs if run.id == refusal.closes), None)
    if block is not None:
        block.close_with(refusal)
    elif runs:
        runs[0].close_with(refusal)
    elif call.who.run_id is not None and call.who.root_seen:
        meter.close_run(call.who.run_id, refusal)


def finish(opened: OpenCall, meter: Meter, outcome: Outcome | None, reason: str = "") -> Entry | None:
    """End a call at one meter: settle an outcome, or release with a reason when there is none.

    Raises:
        BudgetExceeded, UsageMissing: See `Meter.settle`; a crossing is noted on its block first.
    """
    with _state_lock:
        live = _live.get(opened.call.id)
        if live is not None:
            live.opened = [pair for pair in live.opened if pair[1] is not opened]
            if not live.opened:
                del _live[opened.call.id]
    if outcome is None:
        meter.release(opened, reason)
        return None
    try:
        return meter.settle(opened, outcome)
    except BudgetExceeded as crossing:
        if live is not None:
            _close(opened.call, meter, live.runs, crossing)
        raise


def abandon_run(run_id: str, reason: str) -> None:
    """A run ended: book its calls that got no end event as unknown. A late end corrects them."""
    with _state_lock:
        ids = [call_id for call_id, live in _live.items() if live.run_id == run_id]
    abandon(ids, reason)


def abandon(call_ids: Sequence[str], reason: str) -> None:
    """Calls that will get no end event: book them as unknown. A late end corrects them."""
    with _state_lock:
        left = [pair for call_id in call_ids if call_id in _live for pair in _live.pop(call_id).opened]
    for meter, opened in left:
        try:
            meter.settle(opened, Outcome(kind="unknown", reason=reason))
        except BudgetExceeded:
            continue  # it crossed; the run is over, and the ledger has it
