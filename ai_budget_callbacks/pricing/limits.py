"""What a model can do at most in one answer, where that is known: output, thoughts out of sight, an image's tokens.

Sources: model_limits.json says its own. An image at OpenAI (developers.openai.com, guide images-vision): scaled into
2,048 pixels, then its shorter side to 768, so at most 8 tiles of 512 beside a base; or at most 1,536 patches of 32
pixels times a model's factor. The page mixes the two (openai-python issue 2851), so only models it names are here.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

from ai_budget_callbacks.pricing.identity import plain_name

__all__ = ["image_tokens", "max_output_tokens", "reasons_out_of_sight", "searches_unasked", "thinks_beyond_limit"]

# OpenAI's search models, OpenRouter's suffix for its search, and Perplexity's models there: fees that no list has
_SEARCHES = re.compile(r"-search-(?:preview|api)\b|:online\Z|\Aperplexity/")
_TILES = 8
_PATCHES = 1_536
_TILED = {  # base and tile
    "gpt-4o": (85, 170),
    "gpt-4.1": (85, 170),
    "gpt-4o-mini": (2_833, 5_667),
    "o1": (75, 150),
    "o1-pro": (75, 150),
    "o3": (75, 150),
    "gpt-5": (70, 140),
    "gpt-5-chat-latest": (70, 140),
}
_PATCHED = {  # percent
    "gpt-4.1-mini": 162,
    "gpt-4.1-nano": 246,
    "o4-mini": 172,
    "gpt-5-mini": 162,
    "gpt-5-nano": 246,
}


@cache
def _limits() -> dict[str, dict[str, dict[str, int]]]:
    text = files(__package__).joinpath("data/model_limits.json").read_text(encoding="utf-8")
    return {name: table for name, table in json.loads(text).items() if isinstance(table, dict)}


def _limits_of(provider: str, model: str) -> dict[str, int]:
    table = _limits().get("openai" if provider == "azure" else provider, {})
    name = plain_name(provider, model).lower()
    name = name.removeprefix("ft:") if provider in {"openai", "azure"} else name  # tuning changes no limit
    return table.get(_known(table, name), {})


def _known(table: dict[str, dict[str, int]] | dict[str, tuple[int, int]] | dict[str, int], name: str) -> str:
    """The name as a table has it: without date parts at its end (gpt-4o-2024-08-06 → gpt-4o)."""
    while name not in table:
        name, dash, suffix = name.rpartition("-")
        if not dash or not suffix.isdigit():
            return ""
    return name


def max_output_tokens(provider: str, model: str) -> int | None:
    """The most output tokens one answer of a model can have (reasoning included), or None when not known."""
    return _limits_of(provider, model).get("max_output_tokens")


def reasons_out_of_sight(provider: str, model: str) -> bool:
    """Whether a model is known to think in tokens that are billed and not shown."""
    return bool(_limits_of(provider, model).get("reasons"))


def thinks_beyond_limit(provider: str, model: str) -> bool:
    """Whether a model may bill reasoning beyond `max_tokens`: not known to be bounded (facts/pricing.md 6)."""
    return (provider == "x-ai" and reasons_out_of_sight(provider, model)) or (
        provider == "perplexity" and "deep-research" in model
    )


def searches_unasked(model: str) -> bool:
    """Whether a model searches with no tool asked for, at a fee of its own."""
    return _SEARCHES.search(model) is not None


def image_tokens(provider: str, model: str) -> int | None:
    """The most input tokens one image can be, in its highest detail, or None when not known."""
    if provider not in {"openai", "azure"}:
        return None
    name = plain_name(provider, model).lower().removeprefix("ft:")
    if (tiled := _known(_TILED, name)) != "":
        base, tile = _TILED[tiled]
        return base + _TILES * tile
    if (patched := _known(_PATCHED, name)) != "":
        return -(-_PATCHES * _PATCHED[patched] // 100)
    return None
