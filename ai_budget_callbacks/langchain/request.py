"""A start event as a `Call`: which provider and model, how large, and whose. Reads content, keeps none of it."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ai_budget_callbacks.usage import Call, Request, Who

if TYPE_CHECKING:
    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.langchain.tree import Node

__all__ = ["base_url", "build_call", "client_url", "is_loopback", "text_bytes", "who_of"]

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
_OPAQUE_TYPES = frozenset(
    {"image", "image_url", "input_image", "audio", "input_audio", "file", "input_file", "document", "video", "media"}
)
# tools that the provider runs and bills; Anthropic's bash, editor, computer and memory tools run at the client
_HOSTED = (
    "web_search",
    "web_fetch",
    "code_interpreter",
    "code_execution",
    "file_search",
    "image_generation",
    "mcp",
    "advisor",
)
_HOSTED_PARAMS = ("mcp_servers", "web_search_options")
# the provider adds text of unknown length to the request
_UNBOUNDED = ("previous_response_id", "conversation")
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_REASONING_KEYS = ("reasoning", "reasoning_effort", "thinking", "thinking_budget")


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
    """
    metadata: Mapping[str, Any] = kwargs.get("metadata") or {}
    params: Mapping[str, Any] = kwargs.get("invocation_params") or {}
    model = metadata.get("ls_model_name") or params.get("model") or params.get("model_name") or params.get("model_id")
    return Call(
        id=str(run_id),
        framework="langchain",
        provider=provider,
        model=str(model or serialized.get("name") or "unknown"),
        started_at=datetime.now(UTC),
        who=who_of(run_id, parent_run_id, node, metadata, kwargs.get("name"), runs),
        request=_request(messages, params, metadata),
    )


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


def _request(messages: Sequence[Any], params: Mapping[str, Any], metadata: Mapping[str, Any]) -> Request:
    size = parts = 0
    cached = "cache_control" in params
    for message in messages:
        one_size, one_parts, one_cached = _message(message)
        size, parts, cached = size + one_size, parts + one_parts, cached or one_cached
    params = {**params, **(params.get("extra_body") or {})}  # what is sent, whichever way it was given
    tools = params.get("tools") or params.get("functions") or ()
    schemas = [*tools, *(params[key] for key in ("response_format", "text") if params.get(key) is not None)]
    parts += sum(1 for key in _UNBOUNDED if params.get(key)) + isinstance(params.get("prompt"), Mapping)
    limits = [params[key] for key in _OUTPUT_LIMITS if type(params.get(key)) is int] or [metadata.get("ls_max_tokens")]
    limit = max(filter(None, limits), default=None)
    return Request(
        text_bytes=size,
        messages=len(messages),
        tool_bytes=sum(len(_json(_schema(schema))) for schema in schemas),
        tools=len(tools),
        max_output_tokens=limit if type(limit) is int and limit > 0 else None,
        choices=max(_positive(params.get("n")), _positive(params.get("best_of"))),
        cache_control=cached or any("cache_control" in tool for tool in tools if isinstance(tool, Mapping)),
        service_tier=_text(params.get("service_tier")),
        speed=_text(params.get("speed") or (params.get("model_kwargs") or {}).get("speed")),
        other_parts=parts,
        hosted_tools=(
            *(str(t["type"]) for t in tools if isinstance(t, Mapping) and _hosted(t)),
            *(key for key in _HOSTED_PARAMS if params.get(key)),
        ),
    )


def _schema(value: Any) -> Any:
    """A schema as it is sent: a pydantic class becomes its JSON schema."""
    made = getattr(value, "model_json_schema", None)
    return made() if isinstance(value, type) and made is not None else value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _positive(value: Any) -> int:
    return value if type(value) is int and value > 0 else 1


def _hosted(tool: Mapping[str, Any]) -> bool:
    return str(tool.get("type", "")).startswith(_HOSTED)


def _message(message: Any) -> tuple[int, int, bool]:
    """Bytes of text, parts that bytes do not bound, and whether it asks for cache writes."""
    if isinstance(message, str):
        return text_bytes(message), 0, False
    size = parts = 0
    cached = False
    content = getattr(message, "content", "")
    for block in [content] if isinstance(content, str) else content or ():
        if isinstance(block, str):
            size += text_bytes(block)
            continue
        kind = block.get("type")
        cached = cached or "cache_control" in block
        if kind in _OPAQUE_TYPES:
            parts += 1
        elif kind in _TEXT_TYPES and isinstance(block.get("text"), str):
            size += text_bytes(block["text"])
        else:
            size += len(_json(block))
    for name in ("tool_calls", "invalid_tool_calls"):
        size += sum(len(_json(call)) for call in getattr(message, name, None) or ())
    for key in ("name", "tool_call_id"):
        size += len(str(getattr(message, key, None) or ""))
    return size, parts, cached


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")


def text_bytes(text: str) -> int:
    """UTF-8 bytes of a text, or of its NFKC form where that is longer (some tokenizers normalise first)."""
    if text.isascii():
        return len(text)
    plain = len(text.encode("utf-8", "surrogatepass"))
    return max(plain, len(unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass")))


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


def is_loopback(url: str) -> bool:
    """Whether an address is this machine."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def asks_reasoning(params: Mapping[str, Any]) -> bool:
    """Whether a request turns reasoning on."""
    return any(params.get(key) for key in _REASONING_KEYS)
