"""`track()` and `install()` under LangChain: one process-wide handler that asks the core who counts a call.

Registered once through `register_configure_hook` (public, langchain_core.tracers.context); hooks cannot be
unregistered, so it is registered at the first `track()` and does nothing outside one. As the default of its
ContextVar it also reaches plain threads and calls with `callbacks=[]` (measured, facts/langchain.md 4).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from langchain_core.tracers.context import register_configure_hook

from ai_budget_callbacks.blocks import current_blocks, note_outside_call
from ai_budget_callbacks.inflight import block_targets
from ai_budget_callbacks.langchain.capture import CaptureHandler
from ai_budget_callbacks.scope import installed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.inflight import Target

__all__ = ["TrackingHandler", "attach", "tracking_handler"]


class TrackingHandler(CaptureHandler):
    """Counts calls for the `track()` blocks around them and for the installed meter."""

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:
        """One target for each meter, with the budgets of all blocks that use it."""
        return block_targets(runs, installed())

    def saw(self, *, call: bool) -> None:
        """Something happened here: blocks that end without a call can say what they missed."""
        blocks = current_blocks()
        for block in blocks:
            block.note_event()
        if call and not blocks and installed() is None:
            note_outside_call()

    def forget_root(self, root: str) -> None:
        """A root run ended."""
        default = installed()
        if default is not None:
            default.forget_run(root)


tracking_handler = TrackingHandler()
_handler: ContextVar[TrackingHandler | None] = ContextVar("ai_budget_tracking", default=tracking_handler)
_attached = False


def attach() -> None:
    """Register the handler with LangChain, once."""
    global _attached  # noqa: PLW0603 - hooks cannot be unregistered
    if not _attached:
        _attached = True
        register_configure_hook(_handler, inheritable=True)
