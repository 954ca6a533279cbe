"""How large something is, in bytes: what estimates are made from. Reads content, keeps none of it."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Measure", "json_bytes", "json_size", "shown_size", "text_bytes"]


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


class Measure:
    """Adds up the sizes of a prompt; keeps no content.

    Args:
        count: What counts a text's tokens as the model does, or None. Providers render JSON in ways of their own,
            so of it each byte is taken for a token.

    Attributes:
        bytes: UTF-8 bytes of all text.
        tokens: Its tokens, or None where a text was not counted.
        images, parts: Image parts, and others that bytes do not bound.
        cached: Whether something asks for cache writes.
    """

    def __init__(self, count: Callable[[str], int | None] | None = None) -> None:
        self._count = count
        self.bytes = 0
        self.tokens: int | None = None if count is None else 0
        self.images = self.parts = 0
        self.cached = False

    def text(self, text: str) -> None:
        """Add a text."""
        size = text_bytes(text)
        self.bytes += size
        counted = None if self._count is None else self._count(text)
        self.tokens = None if counted is None or self.tokens is None else self.tokens + counted

    def json(self, value: Any) -> None:
        """Add a value that goes over the wire as JSON."""
        self.opaque(json_size(value))

    def opaque(self, size: int) -> None:
        """Add bytes that are no text to be counted."""
        self.bytes += size
        if self.tokens is not None:
            self.tokens += size


def shown_size(value: Any) -> int:
    """UTF-8 bytes of visible output: text as it is, of a block its text, other things as JSON."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Sequence):
        return sum(map(shown_size, value))
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return shown_size(value["text"])
    return json_size(value)
