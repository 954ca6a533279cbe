"""Who a call belongs to: `track()` blocks, and the process-wide meter.

Frameworks are attached through the one lazy import of `attach` (the import contract names it).
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ai_budget_callbacks.blocks import current_blocks, enter, leave, outside_calls
from ai_budget_callbacks.calltree import CallTree, call_tree
from ai_budget_callbacks.carry import bound, wrapped
from ai_budget_callbacks.errors import ConfigError, Refusal
from ai_budget_callbacks.inflight import abandon_run
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.marks import note_wrapper
from ai_budget_callbacks.meter import Meter
from ai_budget_callbacks.report import summarise

if TYPE_CHECKING:
    from types import TracebackType

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.budget import Budget
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.report import Summary

__all__ = ["Run", "default_meter", "install", "installed", "register_wrapper", "reinstall", "track"]

F = TypeVar("F", bound=Callable[..., Any])

_state_lock = ForkSafeLock()
_installed: Meter | None = None
_default: Meter | None = None


class Run:
    """One `track()` block while it is open, and its results afterwards.

    Attributes:
        id: Takes part in `meter.entries(run=…)`.
        meter: The meter that counts it.
        user, metadata: Who its calls belong to.
        refusal: The first refusal of one of its calls (or crossing with `at_limit="raise"`), or None.
        ended: Whether the block was left.
    """

    def __init__(self, budgets: Sequence[Budget], meter: Meter, user: str | None, metadata: Mapping[str, str]) -> None:
        self.id = f"run-{uuid.uuid4().hex}"
        self.meter = meter
        self.user = user
        self.metadata = dict(metadata)
        self.attached = meter.attach(budgets, self.id, block=True)
        meter.register(self.attached)
        self.refusal: Refusal | None = None
        self._stack: tuple[Block, ...] = (*current_blocks(), self)
        self._calls = 0
        self._events = False
        self._outside_before = outside_calls()
        self._kept_open = 0
        self.ended = False

    @property
    def exceeded(self) -> bool:
        """Whether one of its calls was refused, or crossed a limit with `at_limit="raise"`."""
        return self.refusal is not None

    def raise_if_exceeded(self) -> None:
        """Raise the refusal, if there was one.

        Raises:
            BudgetExceeded: A call of this block was refused or crossed.
            PriceUnknown: A call of this block was refused because it has no price.
        """
        if self.refusal is not None:
            raise self.refusal

    def summary(self) -> Summary:
        """What this block cost so far, by step, agent, tool, model and user."""
        return summarise(self.entries())

    def tree(self) -> CallTree:
        """This block's calls as the tree of chains, agents and tools they were made in, with the cost of each."""
        return call_tree(self.entries())

    def entries(self) -> Iterator[Entry]:
        """This block's ledger entries."""
        return self.meter.entries(scope=self.id)

    def bind(self, function: F) -> F:
        """The same function, sync or async, that runs inside this block wherever it is called.

        For plain threads and executors, which do not carry the caller's context: `executor.submit(run.bind(work), x)`.
        """
        return bound(self._stack, function)

    def wrap(self, items: Any) -> Any:
        """The same iterator, sync or async, each step of which runs inside this block.

        For generators and streaming responses, which are consumed after the block was left. The block's calls stay
        open until the last wrapped iterator has ended; if a call of the iterator was refused after the block ended
        and something swallowed that, the end of the iterator raises it.

        Args:
            items: An iterator, generator, or their async kinds.

        Raises:
            ConfigError: It is none of these.
        """
        return wrapped(self._stack, items)

    # -- for the flow

    def close_with(self, refusal: Refusal) -> None:
        """Refuse later starts in this block; its exit raises if nothing else does."""
        if self.refusal is None:
            self.refusal = refusal

    def note_call(self) -> None:
        """A call of this block starts, or is refused."""
        self._calls += 1

    def note_event(self) -> None:
        """A framework runs in this block."""
        self._events = True

    def keep_open(self) -> None:
        """Something will go on making this block's calls after it ended."""
        with _state_lock:
            self._kept_open += 1

    def let_go(self) -> None:
        """That something ended."""
        with _state_lock:
            self._kept_open -= 1
            last = self.ended and not self._kept_open
        if last:
            self._close()

    def end(self) -> None:
        """The block was left; its exit tells what was refused by now."""
        with _state_lock:
            self.ended = True
            last = not self._kept_open
        if last:
            self._close()

    def _close(self) -> None:
        abandon_run(self.id, "its track() block ended while it was open")
        self.meter.forget_run(self.id)
        if not self._calls:
            self._say_what_was_missed()

    def _say_what_was_missed(self) -> None:
        """A block that counted nothing although models or a framework ran must not be mistaken for a working one."""
        outside = outside_calls() - self._outside_before
        if outside > 0:
            self.meter.say(
                "outside",
                f"A track() block ended without a call, and {outside} model calls started outside it meanwhile. Plain "
                "threads and executors do not carry a block: use run.bind(function), or install(meter).",
            )
        elif self._events:
            self.meter.say(
                "blind",
                "A track() block ended without a call although a framework ran inside it. Calls made through a "
                "provider's own SDK are not seen; embeddings and rerankers are counted by their Metered… wrappers.",
            )


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
            if inspect.isroutine(item):
                raise ConfigError(f"Write @track() above {item.__name__}, with parentheses; budgets go into them.")
            if not isinstance(item, BudgetType):
                raise ConfigError(f"track() takes budgets, then keywords; {item!r} is no Budget.")
        self._budgets = budgets
        self._meter = meter
        self._user = user
        self._metadata = {str(key): str(value) for key, value in (metadata or {}).items()}
        self._run: Run | None = None

    def __enter__(self) -> Run:
        if self._run is not None:
            raise ConfigError("This track() block is open already; make another one.")
        _attach_frameworks()
        outer = current_blocks()
        meter = self._meter or (outer[-1].meter if outer else None) or _installed or default_meter()
        metadata = (outer[-1].metadata if outer else {}) | self._metadata
        user = self._user if self._user is not None else (outer[-1].user if outer else None)
        run = Run(self._budgets, meter, user, metadata)
        enter(run)
        self._run = run
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run, self._run = self._run, None
        assert run is not None
        leave(run)
        run.end()
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


def reinstall(meter: Meter | None) -> None:
    """Put back what was installed before, or nothing; for test fixtures (`testing`), which must leave no trace."""
    global _installed, _default
    _installed, _default = meter, None


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


def register_wrapper(name: str | type) -> None:
    """Say that every call of a class is one call of the other framework, so that both reports are of one request.

    For a model class of LlamaIndex that calls a LangChain model, or the reverse. Without it each report is a call of
    its own: the request is booked twice, which errs on the safe side. A class whose model has no price of its own is
    held, priced and refused as what it wraps. `LangChainLLM` (llama-index-llms-langchain 0.9) is known.

    Args:
        name: The class, or its name.

    Raises:
        ConfigError: Neither a class nor a name.
    """
    note_wrapper(name)
    _attach_frameworks()


def _attach_frameworks() -> None:
    from ai_budget_callbacks.attach import attach_frameworks

    attach_frameworks()
