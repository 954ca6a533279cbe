"""What LlamaIndex lacks, each with its reason and versions. Nothing else in this folder reaches past its public names.

1. No event tells which instance a callback event comes from, and none tells that a stream was dropped unread: both
   are read from spans, whose handlers get the instance and the result (llama-index-core 0.12 to 0.14).
2. Engines replace the callback manager of a model they are given (run-llama/llama_index issue 16311): the gates are
   remembered before that (`before_replaced`), and put back when the model's next method
   starts (`put_first`).
3. Provider-native `structured_predict` sends without any event, and a span handler cannot raise (`Dispatcher` swallows
   every exception): the prompt it is about to format refuses instead (`refuse_prompt`).
4. `dispatcher.span` gives a span's id to its handlers and keeps the current one in a ContextVar; that ContextVar has
   no other reader than this name, which has been at this place since core 0.11.
5. Before core 0.14.22 the sync function of a `FunctionTool` runs in a thread without its caller's context, so that no
   `track()` reaches the models in it: it is run there as core does it since (`carry_context`).
6. Sync methods that run async ones (`asyncio_run`, and `run_async_tasks` with a progress bar) take every RuntimeError
   for a loop that cannot be had, run the spent coroutine again, and raise a bare "Detected nested async" (core 0.12 to
   0.14.25). A refusal is a RuntimeError: the one that left the coroutine is raised instead (`let_errors_through`).
"""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING, Any

import wrapt
from llama_index.core import async_utils
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.tools import function_tool

from ai_budget_callbacks.errors import AIBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from llama_index.core.callbacks.base_handler import BaseCallbackHandler

__all__ = [
    "active_span_id",
    "before_replaced",
    "carry_context",
    "let_errors_through",
    "put_first",
    "refuse_prompt",
    "take_back",
]


def put_first(instance: Any, gates: Sequence[BaseCallbackHandler], *, everywhere: BaseCallbackHandler) -> None:
    """Have these handlers told first by the manager of a model.

    They stand first so that tracers do not see refused calls, and so that one that raises at an end does not hide the
    end. Handlers are put in, never taken out: another thread may be going through the same list, and one that is
    there twice takes no notice of being told twice. Managers and their lists are shared with the settings, so a
    handler that belongs to this model gets it a manager of its own.

    Args:
        instance: The model.
        gates: The handlers, in their order.
        everywhere: The one that may stand in any manager.
    """
    manager = getattr(instance, "callback_manager", None)
    if not isinstance(manager, CallbackManager) or _lacks(manager, gates, everywhere):
        manager = _with_handlers(getattr(manager, "handlers", ()))
        instance.callback_manager = manager
    handlers = manager.handlers
    for gate in reversed(gates):
        if not any(item is gate for item in handlers[: len(gates)]):
            handlers.insert(0, gate)


def _lacks(manager: CallbackManager, gates: Sequence[Any], everywhere: Any) -> bool:
    return any(gate is not everywhere and not any(item is gate for item in manager.handlers) for gate in gates)


def _with_handlers(handlers: Iterable[BaseCallbackHandler]) -> CallbackManager:
    """A manager with a list of its own: an empty one given to the constructor is replaced by the settings'."""
    manager = CallbackManager([])
    manager.set_handlers(list(handlers))
    return manager


def before_replaced(kind: Any, known: Callable[[Any], object]) -> None:
    """Have a model looked at before its callback manager is replaced. Once for the process and each kind.

    Engines, indexes and response synthesizers assign another manager to the models they are given, before any method
    of the model ran (`resolve_llm`, `resolve_embed_model`, `BaseSynthesizer.__init__`; core 0.12 to 0.14).

    Args:
        kind: The base class of the models.
        known: Remembers the gates of a model.
    """
    original = kind.__setattr__

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if name == "callback_manager":
            known(self)
        original(self, name, value)

    kind.__setattr__ = set_attribute


def refuse_prompt(prompt: Any, refuses: Callable[[], None]) -> None:
    """Have a prompt's `format_messages` call this first; `structured_predict` formats its prompt before it sends.

    Measured with llms-anthropic 0.12.3, llms-google-genai 0.11.3 and llms-openai 0.8.3: all their native paths do.

    Args:
        prompt: A prompt template.
        refuses: Raises where it is called for a refused call, and not for another one with the same prompt.
    """
    original = prompt.format_messages

    def format_messages(*args: Any, **kwargs: Any) -> Any:
        refuses()
        return original(*args, **kwargs)

    prompt.__dict__["format_messages"] = format_messages


def take_back(prompt: Any) -> None:
    """Leave a prompt as it was."""
    prompt.__dict__.pop("format_messages", None)


def carry_context() -> None:
    """Have sync tools run in a thread with their caller's context, where core does not. Once for the process."""
    if not hasattr(function_tool, "contextvars"):
        wrapt.wrap_function_wrapper(function_tool, "FunctionTool.acall", _in_context)


def _in_context(acall: Any, tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A tool is called: where core made an async function of its sync one, that one takes the context along."""
    if getattr(tool.async_fn, "__qualname__", "").startswith("sync_to_async."):
        tool._async_fn = functools.partial(asyncio.to_thread, tool.fn)  # noqa: SLF001 - nothing public sets it
    return acall(*args, **kwargs)


def let_errors_through() -> None:
    """Have sync methods that run async ones raise our errors as they are. Once for the process."""
    for name in ("asyncio_run", "run_async_tasks"):
        original = getattr(async_utils, name, None)
        if original is None:
            continue
        wrapper = wrapt.FunctionWrapper(original, _errors_through)
        for known, module in list(sys.modules.items()):  # most have it by name
            if known.startswith("llama_index.") and getattr(module, "__dict__", {}).get(name) is original:
                setattr(module, name, wrapper)


def _errors_through(run: Any, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Coroutines are run: raises the error of ours that left one, where core made another one of it."""
    left: list[AIBudgetError] = []

    def watch(item: Any) -> Any:
        if isinstance(item, list):
            return [watch(one) for one in item]
        return _watched(item, left) if asyncio.iscoroutine(item) else item

    try:
        return run(*map(watch, args), **{name: watch(value) for name, value in kwargs.items()})
    except RuntimeError:
        if not left:
            raise
    raise left[0]  # not while the other is handled, which would only mislead


async def _watched(coroutine: Coroutine[Any, Any, Any], left: list[AIBudgetError]) -> Any:
    try:
        return await coroutine
    except AIBudgetError as error:
        left.append(error)
        raise
