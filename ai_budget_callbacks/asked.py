"""What a request asks for, from its parameters as they go over the wire: what an estimate needs besides its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.sizes import json_size
from ai_budget_callbacks.usage import Request

if TYPE_CHECKING:
    from ai_budget_callbacks.sizes import Measure

__all__ = ["asks_reasoning", "request_of"]

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


def request_of(
    params: Mapping[str, Any], measure: Measure, *, messages: int, max_output_tokens: int | None = None
) -> Request:
    """The sizes of a request.

    Args:
        params: Parameters of the request besides its messages, named as on the wire.
        measure: The sizes of its messages.
        messages: Number of messages.
        max_output_tokens: The client's bound on output tokens, where the parameters have none.
    """
    params = {**params, **(params.get("extra_body") or {})}  # what is sent, whichever way it was given
    tools = params.get("tools") or params.get("functions") or ()
    schemas = [*tools, *(params[key] for key in ("response_format", "text") if params.get(key) is not None)]
    unbounded = sum(1 for key in _UNBOUNDED if params.get(key)) + isinstance(params.get("prompt"), Mapping)
    limits = [params[key] for key in _OUTPUT_LIMITS if type(params.get(key)) is int] or [max_output_tokens]
    limit = max(filter(None, limits), default=None)
    return Request(
        text_bytes=measure.bytes,
        text_tokens=measure.tokens,
        messages=messages,
        tool_bytes=sum(json_size(_schema(schema)) for schema in schemas),
        tools=len(tools),
        max_output_tokens=limit if type(limit) is int and limit > 0 else None,
        choices=max(_positive(params.get("n")), _positive(params.get("best_of"))),
        cache_control=measure.cached or any("cache_control" in tool for tool in tools if isinstance(tool, Mapping)),
        service_tier=_text(params.get("service_tier")),
        speed=_text(params.get("speed") or (params.get("model_kwargs") or {}).get("speed")),
        images=measure.images,
        other_parts=measure.parts + unbounded,
        hosted_tools=(
            *(str(tool["type"]) for tool in tools if isinstance(tool, Mapping) and _hosted(tool)),
            *(key for key in _HOSTED_PARAMS if params.get(key)),
        ),
    )


def asks_reasoning(params: Mapping[str, Any]) -> bool:
    """Whether a request turns reasoning on."""
    return any(params.get(key) for key in _REASONING_KEYS)


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
