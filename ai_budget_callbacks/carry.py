"""Carrying a block where the caller's context does not go: into plain threads, and into streams consumed later."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ai_budget_callbacks.blocks import entered
from ai_budget_callbacks.errors import ConfigError

if TYPE_CHECKING:
    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.errors import Refusal

__all__ = ["bound", "wrapped"]

F = TypeVar("F", bound=Callable[..., Any])


class _Keeper(Protocol):
    """A block that can be kept open."""

    refusal: Refusal | None

    def keep_open(self) -> None: ...

    def let_go(self) -> bool: ...


def bound(blocks: tuple[Block, ...], function: F) -> F:
    """A function that runs inside these blocks wherever it is called.

    Raises:
        ConfigError: It is a generator function, whose body runs when it is consumed: wrap what it returns.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError("bind() takes a function that runs when it is called; for a generator use wrap(generator).")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def inside_async(*args: Any, **kwargs: Any) -> Any:
            with entered(blocks):
                return await function(*args, **kwargs)

        return inside_async  # type: ignore[return-value]

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with entered(blocks):
            return function(*args, **kwargs)

    return inside  # type: ignore[return-value]


def wrapped(keeper: _Keeper, blocks: tuple[Block, ...], items: Any) -> Any:
    """An iterator, sync or async, each step of which runs inside these blocks.

    Raises:
        ConfigError: It is no iterator of either kind.
    """
    if isinstance(items, AsyncIterator):
        return _AsyncSteps(keeper, blocks, items)
    if isinstance(items, Iterator):
        return _Steps(keeper, blocks, items)
    raise ConfigError(f"wrap() takes an iterator or generator, sync or async, not {type(items).__name__}.")


class _Kept:
    """What both kinds share: the block is kept open until the iterator ends, however it ends."""

    def __init__(self, keeper: _Keeper, blocks: tuple[Block, ...]) -> None:
        self._keeper = keeper
        self._blocks = blocks
        self._open = True
        keeper.keep_open()

    def _let_go(self, *, says: bool = False) -> None:
        if not self._open:
            return
        self._open = False
        if self._keeper.let_go() and says and self._keeper.refusal is not None:
            raise self._keeper.refusal


class _Steps(_Kept, Iterator[Any]):
    def __init__(self, keeper: _Keeper, blocks: tuple[Block, ...], items: Iterator[Any]) -> None:
        super().__init__(keeper, blocks)
        self._items = items

    def __next__(self) -> Any:
        try:
            with entered(self._blocks):
                return next(self._items)
        except StopIteration:
            self._let_go(says=True)
            raise
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Close the inner iterator, inside the block."""
        try:
            with entered(self._blocks):
                getattr(self._items, "close", lambda: None)()
        finally:
            self._let_go()

    def __del__(self) -> None:
        with suppress(Exception):  # an iterator dropped unread has nobody to tell
            self.close()


class _AsyncSteps(_Kept, AsyncIterator[Any]):
    def __init__(self, keeper: _Keeper, blocks: tuple[Block, ...], items: AsyncIterator[Any]) -> None:
        super().__init__(keeper, blocks)
        self._items = items

    async def __anext__(self) -> Any:
        try:
            with entered(self._blocks):
                return await anext(self._items)
        except StopAsyncIteration:
            self._let_go(says=True)
            raise
        except BaseException:
            self._let_go()
            raise

    async def aclose(self) -> None:
        """Close the inner iterator, inside the block."""
        try:
            with entered(self._blocks):
                inner = getattr(self._items, "aclose", None)
                if inner is not None:
                    await inner()
        finally:
            self._let_go()

    def __del__(self) -> None:
        with suppress(Exception):  # closing awaits, which garbage collection cannot; the block is let go of
            self._let_go()
