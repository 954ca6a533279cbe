"""How large something is, in bytes: what estimates are made from. Reads content, keeps none of it."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["json_bytes", "json_size", "shown_size", "text_bytes"]


def text_bytes(text: str) -> int:
    """UTF-8 bytes of a text, or of its NFKC form where that is longer (some tokenizers normalise first)."""
    if text.isascii():
        return len(text)
    plain = len(text.encode("utf-8", "surrogatepass"))
    return max(plain, len(unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass")))


def json_bytes(value: Any) -> bytes:
    """A value as JSON in UTF-8; what JSON lacks as its text."""
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")


def json_size(value: Any) -> int:
    """Bytes of a value as JSON."""
    return len(json_bytes(value))


def shown_size(value: Any) -> int:
    """UTF-8 bytes of visible output: text as it is, of a block its text, other things as JSON."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Sequence):
        return sum(map(shown_size, value))
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return shown_size(value["text"])
    return json_size(value)
