"""What a model object says of itself, and what its next request asks for.

By the names that integrations share (core 0.12 to 0.14; llms-openai 0.8, -anthropic 0.12, -google-genai 0.11).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import EventPayload

from ai_budget_callbacks.asked import model_in_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LIMITS", "client_url", "client_word", "is_openai", "model_name", "params_of", "said"]

LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")
"""Names under which a bound on output tokens is set."""

_GOOGLE = "llama_index.llms.google_genai"
_OPENAI = "llama_index.llms.openai.base"
_URL_FIELDS = ("api_base", "base_url", "azure_endpoint", "endpoint_url")
# what may be set on a model and goes into its requests
_FIELDS = ("service_tier", "reasoning_effort", "mcp_servers", "instructions")
_RENAMED = {"built_in_tools": "tools", "tools": "tools", "reasoning_options": "reasoning", "thinking_dict": "thinking"}
_TOOL_NAMES = ("tools", "functions")


def is_openai(instance: Any) -> bool:
    """Whether a model is llms-openai's, for chat and completions, or derives from it; its Responses does not."""
    return any(base.__module__ == _OPENAI for base in type(instance).__mro__)


@functools.lru_cache(maxsize=256)
def _names(kind: type) -> frozenset[str]:
    return frozenset(dir(kind))


def said(instance: Any, name: str) -> Any:
    """An attribute of a model, or None; looking for one that a pydantic model lacks takes it 3 µs each."""
    own = getattr(instance, "__dict__", None) or {}
    if name in own:
        return own[name]
    kind: Any = type(instance)
    return getattr(instance, name, None) if name in _names(kind) else None


def model_name(payload: Mapping[str, Any], instance: Any, given: Mapping[str, Any]) -> str:
    """The model that is asked for: of this call, else of the instance."""
    extra = said(instance, "additional_kwargs") or {}
    asked = [given.get("model"), extra.get("model")]
    bodies = [model_in_body(given), model_in_body(extra)]
    if is_openai(instance):  # what stands on the instance goes over what the call says
        asked.reverse()
        bodies.reverse()
    for value in (*bodies, *asked, said(instance, "engine"), said(instance, "model")):
        if isinstance(value, str) and value:
            return value
    described = payload.get(EventPayload.SERIALIZED) or {}
    for value in (described.get("model_name"), described.get("model"), said(instance, "model_name")):
        if isinstance(value, str) and value:
            return value
    known = getattr(said(instance, "metadata"), "model_name", None)
    return str(known or described.get("class_name") or type(instance).__name__)


def client_url(instance: Any) -> str | None:
    """The address a model talks to, where it says one."""
    values = (said(instance, name) for name in _URL_FIELDS)
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
    own = _own(instance)
    given = {**given, **_of_gemini(given.get("generation_config"))}
    limits = {name: own[name] for name in LIMITS if name in own}
    extra = said(instance, "additional_kwargs") or {}
    tools = [tool for source in (own, extra, given) for name in _TOOL_NAMES for tool in _plain(source.get(name))]
    # llms-openai 0.8.3: the instance's limit, then its additional_kwargs, go over the call's
    params = {**own, **given, **limits, **extra} if is_openai(instance) else {**own, **extra, **given}
    if tools:
        params["tools"] = tools
    return params


def _own(instance: Any) -> dict[str, Any]:
    """What was set on the model itself."""
    found: dict[str, Any] = {}
    for name in (*_FIELDS, *LIMITS):
        value = said(instance, name)
        if value is not None:
            found[name] = value
    for field, name in _RENAMED.items():
        value = said(instance, field)
        if value:
            found[name] = value
    if said(instance, "cache_idx") is not None:  # llms-anthropic marks messages itself
        found["cache_control"] = True
    if any(base.__module__.startswith(_GOOGLE) for base in type(instance).__mro__):
        found |= _of_gemini(getattr(instance, "_generation_config", None))
        found |= _of_gemini(
            {"tools": [said(instance, "built_in_tool")], "cached_content": said(instance, "cached_content")}
        )
    if said(instance, "track_previous_responses"):  # the server adds what was said before
        found["previous_response_id"] = True
    return found


def _of_gemini(config: Any) -> dict[str, Any]:
    """What Gemini's configuration asks for, by the names other providers have (google-genai 2.34)."""
    if hasattr(config, "model_dump"):
        config = config.model_dump(exclude_none=True)
    if not isinstance(config, dict):
        return {}
    tools = [tool for tool in config.get("tools") or () if tool]
    found = {
        "n": config.get("candidate_count"),
        "max_output_tokens": config.get("max_output_tokens"),
        "thinking": config.get("thinking_config"),
        "system": str(config["system_instruction"]) if config.get("system_instruction") else None,
        "previous_response_id": config.get("cached_content"),  # text of unknown length
        "tools": [
            {"type": "web_search"} if "google_search" in str(tool) else {"type": "code_execution"} for tool in tools
        ],
    }
    return {name: value for name, value in found.items() if value}


def _plain(tools: Any) -> Sequence[Any]:
    return tools if isinstance(tools, (list, tuple)) else ()
