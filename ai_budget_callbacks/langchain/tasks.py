"""Calls that get no end event: a cancelled `ainvoke`, a v3 stream that is dropped, another handler that raises.

Two signs, both early and best effort. The task a call ran in ends: late for `asyncio.timeout` in a long-lived task. The
call's run id is collected: LangChain makes one object and keeps it in the frames of the call from start to end, so when
it is gone nobody can end the call (langchain-core 1.8.3); a tracer, or a user who gave the id, may keep it. The end of
the root run or `track()` block, owner death and `ttl_s` stand behind both (facts/langchain.md 3.5, 9).
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TaskWatch"]


class TaskWatch:
    """Open calls, by the asyncio task they started in and by their run id.

    Args:
        lost: Told the ids of calls that can get no end event any more.
    """

    def __init__(self, lost: Callable[[list[str]], None]) -> None:
        self._lost = lost
        self._open: weakref.WeakKeyDictionary[asyncio.Task[Any], set[str]] = weakref.WeakKeyDictionary()
        self._run_ids: dict[str, weakref.ref[UUID]] = {}

    def opened(self, run_id: UUID | str) -> weakref.ref[asyncio.Task[Any]] | None:
        """A call starts, in the current task if there is one.

        Args:
            run_id: The very object LangChain gave; as text it is not watched.

        Returns:
            What `ended` takes. Weak: a finished task keeps its coroutine, which may be one step of the call's own
            stream, and a stream that is kept is never closed by the collector (langchain-core 1.8.3, fallbacks).
        """
        call_id = str(run_id)
        if isinstance(run_id, UUID):
            self._run_ids[call_id] = weakref.ref(run_id, lambda _: self._collected(call_id))
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
        return weakref.ref(task)

    def ended(self, started_in: weakref.ref[asyncio.Task[Any]] | None, call_id: str) -> None:
        """A call got its end event."""
        self._run_ids.pop(call_id, None)
        task = started_in() if started_in is not None else None
        if task is not None:
            self._open.get(task, set()).discard(call_id)

    def _collected(self, call_id: str) -> None:
        if self._run_ids.pop(call_id, None) is not None and not sys.is_finalizing():
            self._lost([call_id])

    def _done(self, task: asyncio.Task[Any]) -> None:
        left = self._open.pop(task, None)
        if left and (task.cancelled() or _failed(task) or not _is_a_step(task)):
            self._lost(list(left))


def _failed(task: asyncio.Task[Any]) -> bool:
    """Whether a task ended with an exception; `task.exception()` would silence asyncio's own word about a lost one."""
    return getattr(task, "_exception", None) is not None


def _is_a_step(task: asyncio.Task[Any]) -> bool:
    """Whether a task is a helper in which a call only started or took one step, and that may end before the call does.

    The steps of a stream are tasks (`py_anext` in a chain, `asyncio.wait_for(anext(…))`), and so are start events that
    LangChain gathers (langchain-core 1.8.3): their normal end says nothing about the call. A chain's, node's or tool's
    own task holds its calls from start to end.
    """
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return True
    code = coroutine.cr_code
    return code.co_filename.startswith(_FRAMEWORKS) and any(part in code.co_name for part in _STEPS)


def _folders() -> tuple[str, ...]:
    """Where the frameworks' own code is: a user's may be in a folder of the same name."""
    found = [importlib.util.find_spec(name) for name in ("asyncio", "langchain_core", "langgraph")]
    return tuple(f"{place}{os.sep}" for spec in found if spec for place in spec.submodule_search_locations or ())


_FRAMEWORKS = _folders()
_STEPS = ("next", "wrap_awaitable", "wait_for", "handle_event", "on_llm_start", "on_chat_model_start")
