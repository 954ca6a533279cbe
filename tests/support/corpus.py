"""What the corpus of recorded answers says is billed, and our buckets under its coarser names."""

from __future__ import annotations

import base64
import json
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.goldens import shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["billed", "cassette", "corpus", "folded", "index", "wire_json"]

_FOLDS = {
    "input_tool": "input_uncached",
    "input_image": "input_uncached",
    "input_video": "input_uncached",
    "cache_read_audio": "cache_read",
    "cache_read_image": "cache_read",
    "output_image": "output_text",
    "output_reasoning": "reasoning",
    "web_search": "web_search_requests",
    "grounded_request": "web_search_requests",
}
_WRITES_FOLDED = {"anthropic", "bedrock"}
_NOT_LISTED = {"file_search", "code_execution"}


def corpus():
    """The folder of the corpus; fails in CI without it, skips loudly elsewhere."""
    return shared("corpus/index.json").parent


def index() -> list[dict[str, Any]]:
    """One object a recording."""
    return json.loads((corpus() / "index.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=4)
def cassette(file: str) -> list[dict[str, Any]]:
    """The interactions of a recording."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((corpus() / file).read_text(encoding="utf-8"), Loader=loader)["interactions"]


def folded(buckets: Mapping[str, int], provider: str) -> dict[str, int]:
    """Our buckets under the corpus's coarser names (DESIGN 6); fees it does not list are left out."""
    names = _FOLDS | ({"cache_write_5m": "cache_write"} if provider in _WRITES_FOLDED else {})
    result: dict[str, int] = {}
    for bucket, count in buckets.items():
        if bucket not in _NOT_LISTED:
            name = names.get(bucket, bucket)
            result[name] = result.get(name, 0) + count
    return result


def billed(call: Mapping[str, Any]) -> dict[str, int]:
    """What the index says is billed on this model: the answer, and compactions on top of it."""
    parts = [call["expected_usage"]]
    parts += [extra["usage"] for extra in call.get("extra_usage") or () if extra["kind"] == "compaction"]
    result: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            if name == "total" or not count:
                continue
            fold = "cache_write" if call["provider"] in _WRITES_FOLDED and name == "cache_write_5m" else name
            result[fold] = result.get(fold, 0) + count
    if "search_units" in (call.get("of_which") or {}):
        result["rerank_search_unit"] = call["of_which"]["search_units"]
    return result


def wire_json(body: str | bytes) -> Any:
    """The JSON of a recorded body: one object, or the list of a stream's events, whatever the stream is made of."""
    if isinstance(body, bytes) and body[:1] not in {b"{", b"["}:
        return [_unwrapped(json.loads(payload)) for payload in _frames(body)]
    text = body.decode() if isinstance(body, bytes) else body
    try:
        return json.loads(text)
    except ValueError:
        lines = [line.strip() for line in text.splitlines()]
    sent = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return [json.loads(line) for line in sent or lines if line and line != "[DONE]"]


def _frames(body: bytes) -> Iterator[bytes]:
    """Payloads of an Amazon event stream: each frame says its length and that of its headers first."""
    at = 0
    while at < len(body):
        length, headers = struct.unpack(">II", body[at : at + 8])
        yield body[at + 12 + headers : at + length - 4]
        at += length


def _unwrapped(event: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(event["bytes"])) if "bytes" in event else event
