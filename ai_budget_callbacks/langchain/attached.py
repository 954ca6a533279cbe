"""Was the handler given to LangChain as an object? Its class counts nothing, and must say so."""

from __future__ import annotations

from typing import Any

from ai_budget_callbacks.errors import ConfigError

__all__ = ["ClassGiven", "InstanceOnly"]


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
