"""What LangChain knows around code that fires no event: the config in its ContextVar, read by its public function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import ensure_config

from ai_budget_callbacks.langchain.request import who_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.langchain.nodes import NodeHandler
    from ai_budget_callbacks.usage import Who

__all__ = ["Around", "look_around"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """The chain, tool or graph node that runs here.

    Attributes:
        parent_run_id: Its run id, or None outside of any.
        metadata: Metadata that a model call made here would have.
        handlers: Callbacks that a model call made here would be told to.
    """

    parent_run_id: Any
    metadata: Mapping[str, Any]
    handlers: tuple[Any, ...]

    def who(
        self,
        handlers: Sequence[NodeHandler],
        runs: tuple[Block, ...],
        *,
        own_id: str | None = None,
        user: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Who:
        """Who something made here belongs to.

        Args:
            handlers: Whose trees may know this place.
            runs: `track()` blocks around it.
            own_id: Its id, where it is a run of its own outside of any; None where it then belongs to no run.
            user: Whose it is; None for what the metadata or the block says.
            metadata: More keys.
        """
        found = (handler.node(self.parent_run_id) for handler in handlers)
        node = next((node for node in found if node is not None), None)
        parent = self.parent_run_id if self.parent_run_id is not None or own_id is not None else "none"
        who = who_of(own_id, parent, node, self.metadata, None, runs)
        more = {str(key): str(value) for key, value in (metadata or {}).items()}
        return replace(who, user=user or who.user, metadata=MappingProxyType(dict(who.metadata) | more))


def look_around(given: Any = None) -> Around:
    """The place of the caller, as `langchain_core.runnables.ensure_config` tells it (public; 1.0 to 1.8).

    Args:
        given: Callbacks that the caller was handed itself, which say more than the context.
    """
    config = ensure_config()
    callbacks = config.get("callbacks") if given is None else given
    metadata: dict[str, Any] = dict(config.get("metadata") or {})
    if callbacks is None or isinstance(callbacks, list):
        return Around(parent_run_id=None, metadata=metadata, handlers=tuple(callbacks or ()))
    metadata = {**callbacks.metadata, **metadata}
    return Around(parent_run_id=callbacks.parent_run_id, metadata=metadata, handlers=tuple(callbacks.handlers))
