"""Carrying a block where the caller's context does not go: into plain threads, and into streams consumed later."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ai_budget_callbacks.blocks import current_blocks, entered
from ai_budget_callbacks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.errors import Refusal

__all__ = ["bound", "wrapped"]

F = TypeVar("F", bound=Callable[..., Any])

_NO_GENERATOR = "bind() takes a function that runs when it is called; for a generator use wrap(generator)."


def bound(blocks: tuple[Block, ...], function: F) -> F:
    """A function that runs inside these blocks wherever it is called; a coroutine it returns runs inside them too.

    Raises:
        ConfigError: It is a generator function, whose body runs when it is consumed: wrap what it returns.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(_NO_GENERATOR)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def inside_async(*args: Any, **kwargs: Any) -> Any:
            with entered(blocks):
                return await function(*args, **kwargs)

        return inside_async  # type: ignore[return-value]

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with entered(blocks):
            made = function(*args, **kwargs)
        if inspect.isgenerator(made) or inspect.isasyncgen(made):  # of a lambda or a partial
            raise ConfigError(_NO_GENERATOR)
        return _inside(blocks, made) if inspect.iscoroutine(made) else made

    return inside  # type: ignore[return-value]


async def _inside(blocks: tuple[Block, ...], coroutine: Coroutine[Any, Any, Any]) -> Any:
    with entered(blocks):
        return await coroutine


def wrapped(blocks: tuple[Block, ...], items: Any) -> Any:
    """An iterator, sync or async, each step of which runs inside these blocks.

    Raises:
        ConfigError: It is no iterator of either kind.
    """
    if isinstance(items, AsyncIterator):
        return _AsyncSteps(blocks, items)
    if isinstance(items, Iterator):
        return _Steps(blocks, items)
    raise ConfigError(f"wrap() takes an iterator or generator, sync or async, not {type(items).__name__}.")


class _Kept:
    """What both kinds share: the blocks are kept open until the iterator ends, however it ends."""

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self._kept = blocks
        self._around = blocks
        self._open = True
        self._refusals: list[tuple[Block, Refusal]] = []
        for block in blocks:
            block.keep_open()

    @contextmanager
    def _step(self) -> Iterator[None]:
        """One step: inside the blocks, and inside those that earlier steps opened and did not leave."""
        with entered(self._around, self._refusals):
            try:
                yield
            finally:
                self._around = current_blocks()
                # a block that is still open says itself what was refused; one opened in here has its own exit
                mine = [(block, refusal) for block, refusal in self._refusals if block.ended and block in self._kept]
                self._refusals[:] = mine

    def _let_go(self, *, says: bool = False) -> None:
        if not self._open:
            return
        self._open = False
        for block in self._kept:
            block.let_go()
        if says and self._refusals:
            raise self._refusals[0][1]


class _Steps(_Kept, Iterator[Any]):
    def __init__(self, blocks: tuple[Block, ...], items: Iterator[Any]) -> None:
        super().__init__(blocks)
        self._items = items

    def __next__(self) -> Any:
        try:
            with self._step():
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
            with self._step():
                getattr(self._items, "close", lambda: None)()
        finally:
            self._let_go()

    def __del__(self) -> None:
        with suppress(Exception):  # an iterator dropped unread has nobody to tell
            self.close()


class _AsyncSteps(_Kept, AsyncIterator[Any]):
    def __init__(self, blocks: tuple[Block, ...], items: AsyncIterator[Any]) -> None:
        super().__init__(blocks)
        self._items = items

    async def __anext__(self) -> Any:
        try:
            with self._step():
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
            with self._step():
                inner = getattr(self._items, "aclose", None)
                if inner is not None:
                    await inner()
        finally:
            self._let_go()

    def __del__(self) -> None:
        with suppress(Exception):  # closing awaits, which garbage collection cannot; the block is let go of
            self._let_go()
