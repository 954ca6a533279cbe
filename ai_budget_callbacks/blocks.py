"""The `track()` blocks around the caller: one ContextVar, read where a call or a charge starts.

Holds no logic of its own: what a block is, `scope` knows.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ai_budget_callbacks.budget import Attached
    from ai_budget_callbacks.errors import Refusal
    from ai_budget_callbacks.meter import Meter

__all__ = ["Block", "close_block", "current_blocks", "enter", "entered", "leave", "note_outside_call", "outside_calls"]


class Block(Protocol):
    """What the flow needs to know of a block.

    Attributes:
        id: The block's scope in the ledger.
        meter: The meter that counts it.
        user, metadata: Who its calls belong to.
        attached: Its own budgets.
        refusal: What closed it, or None.
        ended: Whether it was left; its exit has told what was refused by then.
    """

    id: str
    meter: Meter
    user: str | None
    metadata: dict[str, str]
    attached: tuple[Attached, ...]
    refusal: Refusal | None
    ended: bool

    def close_with(self, refusal: Refusal) -> None:
        """Refuse later starts in this block."""

    def note_call(self) -> None:
        """A call of this block starts, or is refused."""

    def note_event(self) -> None:
        """A framework runs in this block."""

    def keep_open(self) -> None:
        """Something will go on making this block's calls after it ended."""

    def let_go(self) -> None:
        """That something ended."""


_blocks: ContextVar[tuple[Block, ...]] = ContextVar("ai_budget_blocks", default=())
_refusals: ContextVar[list[tuple[Block, Refusal]] | None] = ContextVar("ai_budget_refusals", default=None)
_outside = 0


def current_blocks() -> tuple[Block, ...]:
    """Blocks around the caller, outermost first."""
    return _blocks.get()


@contextmanager
def entered(blocks: tuple[Block, ...], refusals: list[tuple[Block, Refusal]] | None = None) -> Iterator[None]:
    """Be inside these blocks, and in no others.

    Args:
        blocks: The blocks, outermost first.
        refusals: Takes what is refused meanwhile, each with the block it closed.
    """
    before, told = _blocks.get(), _refusals.get()
    _blocks.set(blocks)
    _refusals.set(told if refusals is None else refusals)
    try:
        yield
    finally:
        _blocks.set(before)
        _refusals.set(told)


def enter(block: Block) -> None:
    """Be inside one block more."""
    _blocks.set((*_blocks.get(), block))


def leave(block: Block) -> None:
    """Be outside a block again, in whatever context its end is reached (an async fixture, a generator)."""
    _blocks.set(tuple(item for item in _blocks.get() if item is not block))


def close_block(blocks: tuple[Block, ...], refusal: Refusal) -> bool:
    """Close who got a refusal: the block whose own budget it was, else the outermost. False when there is none."""
    block = next((item for item in blocks if item.id == refusal.closes), blocks[0] if blocks else None)
    if block is None:
        return False
    block.close_with(refusal)
    told = _refusals.get()
    if told is not None:
        told.append((block, refusal))
    return True


def note_outside_call() -> None:
    """A model call starts that no block and no installed meter counts."""
    global _outside  # noqa: PLW0603 - a tally for one warning; a lost increment loses nothing else
    _outside += 1


def outside_calls() -> int:
    """How many such calls this process has seen."""
    return _outside
