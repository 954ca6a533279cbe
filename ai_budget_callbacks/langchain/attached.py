"""Was the handler given to LangChain, and as an object? What is attached wrongly counts nothing, and must say so."""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any

from ai_budget_callbacks.errors import ConfigError

__all__ = ["ClassGiven", "InstanceOnly", "Sight"]

log = logging.getLogger("ai_budget_callbacks")

_UNSEEN = (
    "This handler has seen no LangChain event, so it counts and limits nothing. Give it in "
    'config={"callbacks": [handler]} of the outermost call, or in the model\'s constructor.'
)
_forks = 0  # a process that forked does not know what its children did with its handlers


class ClassGiven(ConfigError, AttributeError):
    """A handler's class was given where an instance belongs. An `AttributeError`, so that `hasattr` works."""


class OfInstance(property):
    """An attribute of instances that LangChain asks a handler for before every event.

    LangChain would find the property itself on a class, take it for true, and skip the handler: a limit that is
    silently none (langchain-core 1.8.3). Raised here, it comes before the request, because of `raise_error`.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The value; of the class an error."""
        if instance is None and owner is not None:
            name = owner.__name__
            raise ClassGiven(
                f"The class {name} was given as a callback, and would count and limit nothing: give an instance, "
                f"callbacks=[{name}(…)]. Nothing was sent."
            )
        return super().__get__(instance, owner)


class InstanceOnly:
    """What LangChain asks a handler for before every event, of instances only."""

    ignore_llm = OfInstance(lambda _: False)
    ignore_chat_model = OfInstance(lambda _: False)
    ignore_chain = OfInstance(lambda _: False)
    ignore_agent = OfInstance(lambda _: False)
    ignore_retriever = OfInstance(lambda _: False)


class Sight:
    """Whether a handler has seen an event; says once, at the latest at its end, that it has not.

    Args:
        handler: The handler.
    """

    def __init__(self, handler: object) -> None:
        self.event = False
        self._said = False
        self._made_in = (os.getpid(), _forks)
        weakref.finalize(handler, self._at_its_end)  # also at the process's exit

    def say_if_none(self) -> None:
        """Warn that nothing was seen; once."""
        if not self.event and not self._said:
            self._said = True
            log.warning("%s", _UNSEEN)

    def _at_its_end(self) -> None:
        if self._made_in == (os.getpid(), _forks):
            self.say_if_none()


def _note_fork() -> None:
    global _forks  # noqa: PLW0603 - one count for the process
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_note_fork)
