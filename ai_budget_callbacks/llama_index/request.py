"""A start event as a `Call`: which provider and model, how large, and whose. Reads content, keeps none of it.

Facts: facts/llamaindex.md 1 and 5. The event has the messages and the call's own arguments; what was set on the model
is read from the instance whose span the event comes from, by the names its integrations share (core 0.12 to 0.14).
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import EventPayload

from ai_budget_callbacks.asked import request_of
from ai_budget_callbacks.sizes import json_size, text_bytes
from ai_budget_callbacks.usage import Call, Request, Who

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.llama_index.tree import Span

__all__ = [
    "LIMITS",
    "build_call",
    "client_url",
    "client_word",
    "embedding_texts",
    "model_name",
    "params_of",
    "sizes_of",
    "who_of",
]

_URL_FIELDS = ("api_base", "base_url", "azure_endpoint", "endpoint_url")
LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")
"""Names under which a bound on output tokens is set."""
# what may be set on a model and goes into its requests (llms-openai 0.8, -anthropic 0.12, -google-genai 0.11)
_FIELDS = ("service_tier", "reasoning_effort", "mcp_servers")
_RENAMED = {"built_in_tools": "tools", "tools": "tools", "reasoning_options": "reasoning", "thinking_dict": "thinking"}
_TOOL_NAMES = ("tools", "functions")


def build_call(
    *,
    event_id: str,
    span: Span | None,
    provider: str,
    model: str,
    request: Request,
    runs: tuple[Block, ...],
) -> Call:
    """The call a start event announces.

    Args:
        event_id: Its id; one for all reports of the request.
        span: Where it comes from.
        provider: Catalogue provider id.
        model: As asked for.
        request: Its sizes.
        runs: `track()` blocks around the start.
    """
    return Call(
        id=event_id,
        framework="llama_index",
        provider=provider,
        model=model,
        started_at=datetime.now(UTC),
        who=who_of(event_id, span, runs),
        request=request,
    )


def who_of(
    own_id: str | None,
    span: Span | None,
    runs: tuple[Block, ...],
    *,
    user: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Who:
    """Who something made here belongs to.

    Args:
        own_id: Its run id where there is no block and no span around; None where it then belongs to no run.
        span: The span it is made in, or comes from.
        runs: `track()` blocks around it.
        user: Whose it is; None for the block's user.
        metadata: More keys.
    """
    around = runs[-1] if runs else None
    run_id = runs[0].id if runs else (span.root if span else own_id)
    more = {str(key): str(value) for key, value in (metadata or {}).items()}
    return Who(
        run_id=run_id,
        root_seen=run_id is not None,
        user=user if user is not None or around is None else around.user,
        agent=span.agent if span else None,
        node=span.step if span else None,
        tool=span.tool if span else None,
        tool_call_id=span.tool_call_id if span else None,
        metadata=MappingProxyType((dict(around.metadata) if around else {}) | more),
        path=span.path[:-1] if span else (),
    )


def model_name(payload: Mapping[str, Any], instance: Any, given: Mapping[str, Any]) -> str:
    """The model that is asked for: of this call, else of the instance."""
    for value in (given.get("model"), _said(instance, "engine"), _said(instance, "model")):
        if isinstance(value, str) and value:
            return value
    described = payload.get(EventPayload.SERIALIZED) or {}
    for value in (described.get("model_name"), described.get("model"), _said(instance, "model_name")):
        if isinstance(value, str) and value:
            return value
    known = getattr(_said(instance, "metadata"), "model_name", None)
    return str(known or described.get("class_name") or type(instance).__name__)


def client_url(instance: Any) -> str | None:
    """The address a model talks to, where it says one."""
    values = (_said(instance, name) for name in _URL_FIELDS)
    return next((value for value in values if isinstance(value, str) and value), None)


def client_word(instance: Any, payload: Mapping[str, Any]) -> str:
    """What a model calls its provider: the integration its class, or its nearest base's, comes from."""
    for base in type(instance).__mro__:
        package = base.__module__.split(".")
        if package[:2] in (["llama_index", "llms"], ["llama_index", "embeddings"]) and len(package) > 2:  # noqa: PLR2004
            return package[2]
    described = payload.get(EventPayload.SERIALIZED) or {}
    return str(described.get("class_name") or type(instance).__name__)


def params_of(instance: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a request: what was set on the model, and what this call was given.

    Args:
        instance: The model.
        given: The call's keyword arguments.
    """
    params: dict[str, Any] = {}
    for name in (*_FIELDS, *LIMITS):
        value = _said(instance, name)
        if value is not None:
            params[name] = value
    for field, name in _RENAMED.items():
        value = _said(instance, field)
        if value:
            params[name] = value
    params |= _said(instance, "additional_kwargs") or {}
    tools = [tool for source in (params, given) for name in _TOOL_NAMES for tool in _plain(source.get(name))]
    params |= given
    if tools:
        params["tools"] = tools
    return params


@functools.lru_cache(maxsize=256)
def _names(kind: type) -> frozenset[str]:
    return frozenset(dir(kind))


def _said(instance: Any, name: str) -> Any:
    """An attribute of a model, or None; looking for one that a pydantic model lacks takes it 3 µs each."""
    own = getattr(instance, "__dict__", None) or {}
    if name in own:
        return own[name]
    return getattr(instance, name, None) if name in _names(type(instance)) else None  # type: ignore[arg-type]  # a type is hashable


def _plain(tools: Any) -> Sequence[Any]:
    return tools if isinstance(tools, (list, tuple)) else ()


def sizes_of(messages: Sequence[Any], params: Mapping[str, Any]) -> Request:
    """The sizes of a request.

    Args:
        messages: Chat messages, or a prompt's text alone.
        params: Its parameters: see `params_of`.
    """
    size = parts = 0
    cached = "cache_control" in params
    for message in messages:
        one_size, one_parts, one_cached = _message(message)
        size, parts, cached = size + one_size, parts + one_parts, cached or one_cached
    limits = [params[name] for name in LIMITS if type(params.get(name)) is int]
    return request_of(
        params,
        text_bytes=size,
        messages=len(messages),
        other_parts=parts,
        cache_control=cached,
        max_output_tokens=max(limits, default=None),
    )


def _message(message: Any) -> tuple[int, int, bool]:
    """Bytes of text, parts that bytes do not bound, and whether it asks for cache writes."""
    if isinstance(message, str):
        return text_bytes(message), 0, False
    extra = getattr(message, "additional_kwargs", None) or {}
    size = sum(json_size(value) for key, value in extra.items() if key not in {"cache_control", "usage"})
    parts, cached = 0, "cache_control" in extra
    blocks = getattr(message, "blocks", None)
    if blocks is None:  # a message of another kind: all that is seen is its text
        return size + text_bytes(str(getattr(message, "content", message) or "")), parts, cached
    for block in blocks:
        one_size, one_parts, one_cached = _block(block)
        size, parts, cached = size + one_size, parts + one_parts, cached or one_cached
    return size, parts, cached


def _block(block: Any) -> tuple[int, int, bool]:
    kind = getattr(block, "block_type", "")
    if kind == "text":
        return text_bytes(block.text or ""), 0, False
    if kind in {"image", "audio", "video", "document"}:
        return 0, 1, False
    if kind == "cache":
        return 0, 0, True
    if kind == "thinking":
        return text_bytes(block.content or "") + json_size(block.additional_information), 0, False
    dump = getattr(block, "model_dump", None)
    return json_size(dump() if dump is not None else block), 0, False


def embedding_texts(span: Span | None) -> tuple[str, ...] | None:
    """Texts of the embedding request that starts in a span, or None where the span does not say.

    The event has none (facts/llamaindex.md 5). A batch method makes one event for each `embed_batch_size` texts, in
    their order. Texts that the model's cache has are left out: they are not sent.
    """
    if span is None:
        return None
    for name in ("text", "query"):
        text = span.arguments.get(name)
        if isinstance(text, str):
            return _not_cached(span.instance, (text,))
    texts = span.arguments.get("texts")
    size = getattr(span.instance, "embed_batch_size", None)
    if not isinstance(texts, (list, tuple)) or type(size) is not int or size < 1:
        return None
    first, span.batches = span.batches * size, span.batches + 1
    return _not_cached(span.instance, tuple(map(str, texts[first : first + size])))


def _not_cached(instance: Any, texts: tuple[str, ...]) -> tuple[str, ...]:
    cache = _said(instance, "embeddings_cache")
    if cache is None:
        return texts
    return tuple(text for text in texts if not _has(cache, text))


def _has(cache: Any, text: str) -> bool:
    try:
        return cache.get(key=text, collection="embeddings") is not None
    except Exception:  # a store without a sync way: taken as a miss, which errs to counting
        return False
