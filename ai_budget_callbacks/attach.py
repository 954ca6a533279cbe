"""The one edge from the core to the adapters: attach to frameworks that are imported now or later.

An adapter's attach function is called right after its framework's first import, and at once where that has
happened (wrapt's post-import hooks). Importing this package imports no framework.
"""

from __future__ import annotations

import functools
import importlib
import threading
from typing import Any

import wrapt

from ai_budget_callbacks.errors import ConfigError

__all__ = ["attach_frameworks"]

# framework's package → module whose attach() connects it to track() and install()
_ADAPTERS = {
    "langchain_core": "ai_budget_callbacks.langchain.tracking",
    "llama_index.core": "ai_budget_callbacks.llama_index.tracking",
}

_lock = threading.Lock()
_done = False


def attach_frameworks() -> None:
    """Connect `track()` and `install()` to every supported framework. Idempotent.

    Raises:
        ConfigError: One that is imported cannot be attached to; one imported later says so at its import.
    """
    global _done  # noqa: PLW0603 - once for the process
    with _lock:
        if _done:
            return
        _done = True
    for framework, adapter in _ADAPTERS.items():
        wrapt.register_post_import_hook(functools.partial(_attach, adapter), framework)


def _attach(adapter: str, framework: Any) -> None:
    try:
        importlib.import_module(adapter).attach()
    except Exception as error:
        raise ConfigError(
            f"track() and install() cannot be attached to {framework.__name__}, so its calls would not be counted: "
            f"{type(error).__name__}: {error}. Install a supported version (docs/limits.md), or do not import it "
            "in a process that uses them."
        ) from error
