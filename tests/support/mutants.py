"""Recorded answers with one field, or several, of their usage changed: what a proxy, a new version or a bug may send."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KINDS", "NONSENSE", "counters", "mutated", "pruned", "reordered", "several", "whole_floats"]

# Where answers have their counters; anything else in a body is content and is cut away.
_HOLDERS = frozenset({"usage", "usageMetadata", "meta", "amazon-bedrock-invocationMetrics", "statistics"})
_BESIDE = frozenset(
    {
        *("model", "modelVersion", "model_id", "type", "event_type", "service_tier", "serviceTier", "action"),
        *("webSearchQueries", "container_id"),
        *("prompt_eval_count", "eval_count", "input_token_count", "generated_token_count"),
        *("num_tokens_prompt_total", "num_tokens_generated", "prompt_token_count", "generation_token_count"),
        *("inputTextTokenCount", "totalOutputTextTokenCount", "tokenCount"),
    }
)
_GONE = object()
_RENAMED = object()
NONSENSE: dict[str, Any] = {
    "negative": -5,
    "text": "12",
    "huge": 10**18,
    "part": 1.5,
    "not a number": float("nan"),
    "truth": True,
    "list": [3],
    "object": {"n": 3},
}
KINDS: dict[str, Any] = {"missing": _GONE, "null": None, "renamed": _RENAMED, "zero": 0, **NONSENSE}


def pruned(body: Any, *, inside: bool = False) -> Any:
    """What of an answer can say anything about its usage."""
    if isinstance(body, dict):
        kept = {}
        for key, value in body.items():
            if inside or key in _HOLDERS or key in _BESIDE:
                kept[key] = pruned(value, inside=inside or key in _HOLDERS)
            elif isinstance(value, (dict, list)) and (part := pruned(value)):
                kept[key] = part
        return kept
    if isinstance(body, list):
        parts = [pruned(item, inside=inside) for item in body]
        return parts if inside else [part for part in parts if part or isinstance(part, str)]
    return body


def counters(body: Any, *, inside: bool = False) -> Iterator[tuple[Any, str]]:
    """Every field of a usage that a mutation can change: its holder and its key."""
    if isinstance(body, list):
        for item in body:
            yield from counters(item, inside=inside)
    elif isinstance(body, dict):
        for key, value in body.items():
            held = inside or key in _HOLDERS
            if held or (key in _BESIDE and type(value) in {int, float}):
                yield body, key
            yield from counters(value, inside=held)


def mutated(body: Any) -> Iterator[tuple[str, str, Any]]:
    """One field changed at a time, in place: kind, key, and the body that is only good until the next step."""
    for holder, key in list(counters(body)):
        value = holder[key]
        for kind in KINDS:
            _change(holder, key, kind)
            yield kind, key, body
            holder.pop(f"{key}_v2", None)
            holder[key] = value


def several(body: Any, seed: str, times: int) -> Iterator[tuple[str, Any]]:
    """Two to five fields changed at once, the same ones each time."""
    chance = random.Random(seed)
    for _ in range(times):
        copied = copy.deepcopy(body)
        words = []
        for _ in range(chance.randint(2, 5)):
            places = list(counters(copied))
            if not places:
                break
            holder, key = chance.choice(places)
            kind = chance.choice(list(KINDS))
            _change(holder, key, kind)
            words.append(f"{key} {kind}")
        yield ", ".join(words), copied


def _change(holder: dict[str, Any], key: str, kind: str) -> None:
    change = KINDS[kind]
    if change is _GONE:
        del holder[key]
    elif change is _RENAMED:
        holder[f"{key}_v2"] = holder.pop(key)
    else:
        holder[key] = copy.copy(change)


def reordered(body: Any) -> Any:
    """The same objects with their keys in the opposite order; lists keep theirs."""
    if isinstance(body, dict):
        return {key: reordered(value) for key, value in reversed(body.items())}
    return [reordered(item) for item in body] if isinstance(body, list) else body


def whole_floats(body: Any) -> Any:
    """The same with whole floats for integers, as some servers write them."""
    if isinstance(body, dict):
        return {key: whole_floats(value) for key, value in body.items()}
    if isinstance(body, list):
        return [whole_floats(item) for item in body]
    return float(body) if type(body) is int else body
