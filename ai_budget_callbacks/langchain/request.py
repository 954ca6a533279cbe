"""A start event as a `Call`: which provider and model, how large, and whose. Reads content, keeps none of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.asked import marks_cache, model_in_body, request_of
from ai_budget_callbacks.sizes import Measure
from ai_budget_callbacks.usage import Call, Request, Who

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.langchain.tree import Node
    from ai_budget_callbacks.meter import Meter

__all__ = ["CLOUDS", "base_url", "build_call", "client_url", "has_sound", "who_of"]

CLOUDS = {"anthropic-bedrock": "aws", "anthropic-mantle": "aws"}
"""Clients that carry Anthropic's own address and ask another seller (langchain-aws 1.9)."""

# where integrations keep their address in `serialized["kwargs"]` (langchain-openai 1.7, -anthropic 1.7)
_URL_KEYS = ("openai_api_base", "azure_endpoint", "anthropic_api_url", "base_url", "endpoint_url")
# what the clients themselves read when no address was given
_URL_VARIABLES = {
    "openai": ("OPENAI_API_BASE", "OPENAI_BASE_URL"),
    "anthropic": ("ANTHROPIC_API_URL", "ANTHROPIC_BASE_URL"),
}
_NOT_USERS = ("ls_", "lc_", "langgraph_", "checkpoint_", "__")  # the frameworks' own keys, by how they begin
_FIELDS = frozenset({"user_id", "thread_id", "revision_id"})
_TEXT_TYPES = frozenset({"text", "input_text", "output_text", "refusal"})
_IMAGE_TYPES = frozenset({"image", "image_url", "input_image"})
_OPAQUE_TYPES = frozenset(
    {"image", "image_url", "input_image", "audio", "input_audio", "file", "input_file", "document", "video", "media"}
)
# what the provider adds to the prompt: its size is nowhere in the request
_REFERENCES = frozenset({"item_reference", "container_upload"})
# set on a client and sent, and not among its parameters (langchain-google-genai 4.4, -anthropic 1.7, -openrouter 0.2)
_BESIDE = ("cached_content", "context_management", "search_parameters", "plugins")
_SOUND_TYPES = frozenset({"audio", "input_audio", "video"})


def build_call(
    *,
    run_id: Any,
    node: Node | None,
    parent_run_id: Any,
    provider: str,
    serialized: Mapping[str, Any],
    messages: Sequence[Any],
    kwargs: Mapping[str, Any],
    runs: tuple[Block, ...],
    meters: Sequence[Meter] = (),
) -> Call:
    """The call a start event announces.

    Args:
        run_id: As LangChain says.
        parent_run_id: As LangChain says.
        node: The parent's node, when it was seen.
        provider: Catalogue provider id.
        serialized: The model object's constructor, as LangChain serialises it.
        messages: Messages of one prompt, or its text in a list for a text model.
        kwargs: The event's keyword arguments (`invocation_params`, `metadata`, `name`, …).
        runs: `track()` blocks around the start.
        meters: Who counts it: one that holds worst cases has its text counted by the model's tokenizer.
    """
    metadata: Mapping[str, Any] = kwargs.get("metadata") or {}
    built = serialized.get("kwargs") or {}
    params: Mapping[str, Any] = {
        **{key: built[key] for key in _BESIDE if built.get(key)},
        **(kwargs.get("invocation_params") or {}),
    }
    name = _model(params, metadata) or str(serialized.get("name") or "unknown")
    count = next((found for meter in meters if (found := meter.token_counter(provider, name))), None)
    return Call(
        id=str(run_id),
        framework="langchain",
        provider=provider,
        model=name,
        started_at=datetime.now(UTC),
        who=who_of(run_id, parent_run_id, node, metadata, kwargs.get("name"), runs),
        request=_request(messages, params, metadata, count),
    )


def _model(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    """The model that is asked for; `modelId` is what a Converse call is given over its client's own."""
    named = (params.get(key) for key in ("model", "model_name", "model_id"))
    found = (model_in_body(params), params.get("modelId"), metadata.get("ls_model_name"), *named)
    return next((str(name) for name in found if name), None)


def who_of(
    run_id: Any,
    parent_run_id: Any,
    node: Node | None,
    metadata: Mapping[str, Any],
    name: str | None,
    runs: tuple[Block, ...],
) -> Who:
    """Who a call belongs to.

    Args:
        run_id: As LangChain says.
        parent_run_id: As LangChain says.
        node: The node the call is made in, when it was seen.
        metadata: The event's metadata: the user's own, and the frameworks'.
        name: The call's own name.
        runs: `track()` blocks around the start.
    """
    root = str(run_id) if parent_run_id is None else (node.root if node else None)
    own = {
        key: str(value)
        for key, value in metadata.items()
        if not key.startswith(_NOT_USERS) and key not in _FIELDS and isinstance(value, (str, int, float, bool))
    }
    around = runs[-1] if runs else None
    user = metadata.get("user_id")
    if user is None and around is not None:
        user = around.user
    thread = metadata.get("thread_id")
    return Who(
        run_id=runs[0].id if runs else root,
        root_seen=bool(runs) or root is not None,
        user=None if user is None else str(user),
        thread=None if thread is None else str(thread),
        agent=metadata.get("lc_agent_name"),
        node=metadata.get("langgraph_node") or name or (node.step if node else None),
        tool=node.tool if node else None,
        tool_call_id=node.tool_call_id if node else None,
        metadata=MappingProxyType((around.metadata if around else {}) | own),
        path=node.path if node else (),
    )


def _request(
    messages: Sequence[Any],
    params: Mapping[str, Any],
    metadata: Mapping[str, Any],
    count: Callable[[str], int | None] | None,
) -> Request:
    measure = Measure(count)
    for message in messages:
        _measure(message, measure)
    limit = metadata.get("ls_max_tokens")
    if any(isinstance(message, str) for message in messages) and type(limit) is int:
        # a text model's parameters are those of its constructor, and what the call says stands here alone (core 1.8)
        said = (params.get(key) for key in ("max_tokens", "max_completion_tokens"))
        params = {**params, "max_tokens": max(limit, *(value for value in said if type(value) is int), 0)}
    return request_of(params, measure, messages=len(messages), max_output_tokens=limit)


def _measure(message: Any, measure: Measure) -> None:
    if isinstance(message, str):
        measure.text(message)
        return
    content = getattr(message, "content", "")
    for block in [content] if isinstance(content, str) else content or ():
        if isinstance(block, str):
            measure.text(block)
            continue
        kind = block.get("type")
        measure.cached = measure.cached or marks_cache(block)
        if kind in _IMAGE_TYPES or (kind in _OPAQUE_TYPES and str(block.get("mime_type")).startswith("image/")):
            measure.images += 1
        elif kind in _OPAQUE_TYPES or kind in _REFERENCES:
            measure.parts += 1
        elif kind in _TEXT_TYPES and isinstance(block.get("text"), str):
            measure.text(block["text"])
        else:
            measure.json(block)
    for name in ("tool_calls", "invalid_tool_calls"):
        for call in getattr(message, name, None) or ():
            measure.json(call)
    extra = getattr(message, "additional_kwargs", None) or {}
    if "function_call" in extra:  # ChatOpenAI sends it
        measure.json(extra["function_call"])
    measure.parts += "audio" in extra  # an earlier answer's sound, by its id
    for key in ("name", "tool_call_id"):
        measure.opaque(len(str(getattr(message, key, None) or "")))


def has_sound(messages: Sequence[Any]) -> bool:
    """Whether messages have audio, or video, which may have some."""
    contents = (getattr(message, "content", None) for message in messages)
    blocks = (block for content in contents if isinstance(content, list) for block in content)
    return any(_sounds(block) for block in blocks if isinstance(block, dict))


def _sounds(block: Mapping[str, Any]) -> bool:
    kind, mime = str(block.get("type")), str(block.get("mime_type") or "")
    return kind in _SOUND_TYPES or (kind in _OPAQUE_TYPES and mime.startswith(("audio/", "video/")))


def base_url(serialized: Mapping[str, Any]) -> str | None:
    """The address a client talks to, where its serialised constructor shows one; None for its default."""
    kwargs = serialized.get("kwargs") or {}
    for key in _URL_KEYS:
        value = kwargs.get(key)
        if isinstance(value, str) and value:
            return value
    names = [
        name for family, names in _URL_VARIABLES.items() if family in (serialized.get("id") or ()) for name in names
    ]
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def client_url(client: Any) -> str | None:
    """The same, of the client object itself."""
    package = type(client).__module__.partition(".")[0].removeprefix("langchain_")
    return base_url({"kwargs": {key: getattr(client, key, None) for key in _URL_KEYS}, "id": [package]})
