"""What a request asks for, from its parameters as they go over the wire: what an estimate needs besides its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.sizes import json_size
from ai_budget_callbacks.usage import Request

if TYPE_CHECKING:
    from ai_budget_callbacks.sizes import Measure

__all__ = ["asks_reasoning", "marks_cache", "model_in_body", "request_of"]

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
    "x_search",
    "collections_search",
    "google_search",
    "google_maps",
    "url_context",
)
# Gemini and Nova name a tool by its one key, in camel or in snake case; functions run at the client
_HOSTED_KEYS = frozenset(
    (
        "googlesearch",
        "googlesearchretrieval",
        "enterprisewebsearch",
        "googlemaps",
        "urlcontext",
        "codeexecution",
        "filesearch",
        "retrieval",
        "mcpservers",
        "exaaisearch",
        "parallelaisearch",
        "systemtool",
    )
)
_HOSTED_PARAMS = ("mcp_servers", "web_search_options", "search_parameters", "plugins")
# Anthropic's own tools for the client to run: a definition of up to 735 tokens and a system prompt of up to 499 that
# are not sent (platform.claude.com/docs, tool use, pricing)
_DEFINED = ("bash", "text_editor", "computer", "memory")
_DEFINITION = 1_300
# the provider adds text of unknown length to the request, or may ask another model (OpenRouter)
_UNBOUNDED = ("previous_response_id", "conversation", "cached_content", "models")
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxTokens")
_CONFIGS = ("generation_config", "inferenceConfig")
_CHOICES = ("n", "best_of", "candidate_count")
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
    more = {key: value for key, value in (params.get("model_kwargs") or {}).items() if value is not None}
    params = {**params, **more, **(params.get("extra_body") or {})}  # what is sent, whichever way it was given
    # where Gemini and Bedrock's Converse have them: they go over what is given beside them
    inner = [params[key] for key in _CONFIGS if isinstance(params.get(key), Mapping)]
    tools = params.get("tools") or params.get("functions") or ()
    schemas = [*tools, *(params[key] for key in ("response_format", "text") if params.get(key) is not None)]
    unbounded = sum(1 for key in _UNBOUNDED if params.get(key)) + isinstance(params.get("prompt"), Mapping)
    unbounded += "compact" in str(params.get("context_management"))  # the prompt is read, and billed, once more
    given = [holder[key] for holder in (params, *inner) for key in _OUTPUT_LIMITS if type(holder.get(key)) is int]
    limits = given or [max_output_tokens]
    limit = max(filter(None, limits), default=None)
    return Request(
        text_bytes=measure.bytes,
        text_tokens=measure.tokens,
        messages=messages,
        tool_bytes=sum(json_size(_schema(schema)) for schema in schemas) + sum(map(_defined, tools)),
        tools=len(tools),
        max_output_tokens=limit if type(limit) is int and limit > 0 else None,
        choices=max(_positive(holder.get(key)) for holder in (params, *inner) for key in _CHOICES),
        cache_control=measure.cached or any(map(marks_cache, (params, *tools))),
        service_tier=_text(params.get("service_tier")),
        speed=_text(params.get("speed")),
        images=measure.images,
        other_parts=measure.parts + unbounded,
        hosted_tools=(
            *(name for tool in tools if isinstance(tool, Mapping) for name in _hosted(tool)),
            *(key for key in _HOSTED_PARAMS if params.get(key)),
        ),
        background=bool(params.get("background")),
    )


def model_in_body(params: Mapping[str, Any]) -> str | None:
    """The model that `extra_body` names: it goes over what the client says (openai 2, anthropic 0.x)."""
    body = params.get("extra_body")
    return _text(body.get("model")) if isinstance(body, Mapping) else None


def marks_cache(part: Any) -> bool:
    """Whether a block of content or a tool asks for a cache write: Anthropic's mark, or Bedrock's block."""
    return isinstance(part, Mapping) and any(key in part for key in ("cache_control", "cachePoint"))


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


def _hosted(tool: Mapping[str, Any]) -> list[str]:
    """The provider's own tools that an item of a request's tools offers, by type."""
    kind = str(tool.get("type", ""))
    if kind:
        return [kind] if kind.startswith(_HOSTED) else []
    return [key for key, value in tool.items() if value is not None and _plain_key(key) in _HOSTED_KEYS]


def _defined(tool: Any) -> int:
    """Tokens of a tool's definition that the provider adds."""
    named = isinstance(tool, Mapping) and str(tool.get("type", "")).startswith(_DEFINED)
    return _DEFINITION if named else 0


def _plain_key(key: Any) -> str:
    return str(key).replace("_", "").lower()
