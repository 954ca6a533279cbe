"""Cancelled calls: LangChain fires no event for a cancelled `ainvoke`, so the task it ran in is watched.

Best effort, and early: it fires when the *task* ends, which for `asyncio.timeout` inside a long-lived task is late. The
end of the root run or `track()` block, owner death and `ttl_s` stand behind it (facts/langchain.md 3.5, 9).
"""

from __future__ import annotations

import asyncio
import inspect
import os
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TaskWatch"]


class TaskWatch:
    """Calls that are open in asyncio tasks; one callback a task, however many calls it makes.

    Args:
        lost: Told the ids of calls that were open when their task ended.
    """

    def __init__(self, lost: Callable[[list[str]], None]) -> None:
        self._lost = lost
        self._open: weakref.WeakKeyDictionary[asyncio.Task[Any], set[str]] = weakref.WeakKeyDictionary()

    def opened(self, call_id: str) -> asyncio.Task[Any] | None:
        """A call starts in the current task, if there is one."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no running loop in this thread
            return None
        if task is None:
            return None
        calls = self._open.get(task)
        if calls is None:
            calls = self._open[task] = set()
            task.add_done_callback(self._done)
        calls.add(call_id)
        return task

    def ended(self, task: asyncio.Task[Any] | None, call_id: str) -> None:
        """A call got its end event."""
        if task is not None:
            self._open.get(task, set()).discard(call_id)

    def _done(self, task: asyncio.Task[Any]) -> None:
        left = self._open.pop(task, None)
        if left and (task.cancelled() or _is_the_callers(task)):
            self._lost(list(left))


def _is_the_callers(task: asyncio.Task[Any]) -> bool:
    """Whether a task is one in which calls end, and not a helper of the framework in which only the start hook ran.

    LangChain runs some start hooks in short tasks of their own (`gather` in `AsyncCallbackManager.on_llm_start`, the
    steps of a fallback's stream; langchain-core 1.8.3): their normal end says nothing about the call.
    """
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return False
    path = coroutine.cr_code.co_filename
    return not any(f"{os.sep}{package}{os.sep}" in path for package in ("langchain_core", "langgraph", "asyncio"))
