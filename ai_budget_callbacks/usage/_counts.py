"""Reading one number from provider JSON, where absent, null, zero and nonsense are four different things."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["Counts", "mapping"]

_MAX_TOKENS = 10**9  # no response is this large; a number above it is damage, not usage


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one (providers send null where details are absent)."""
    return value if isinstance(value, Mapping) else MappingProxyType({})


class Counts:
    """Reads counts, remembers what was odd, and never lets an oddity become a silent zero."""

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.buckets: dict[str, int] = {}

    def flag(self, name: str) -> None:
        """Remember an oddity once."""
        if name not in self.flags:
            self.flags.append(name)

    def read(self, source: Mapping[str, Any], *keys: str) -> int | None:
        """The first of `keys` that holds a count; None when every one is absent or null."""
        for key in keys:
            value = source.get(key)
            if value is None:
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if type(value) is int and 0 <= value <= _MAX_TOKENS:
                return value
            self.flag("invalid_count")
        return None

    def part(self, source: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
        """The first of `keys` that holds an object with anything in it, else an empty one; nonsense is flagged."""
        for key in keys:
            value = source.get(key)
            if isinstance(value, Mapping):
                if value:
                    return value
            elif value is not None:
                self.flag("invalid_count")
        return mapping(None)

    def listed(self, source: Mapping[str, Any], *keys: str) -> list[Any]:
        """The first of `keys` that holds a list, else an empty one; nonsense is flagged."""
        for key in keys:
            value = source.get(key)
            if isinstance(value, list):
                return value
            if value is not None:
                self.flag("invalid_count")
        return []

    def put(self, bucket: str, count: int | None) -> None:
        """Add `count` to a bucket; zero and None leave no trace."""
        if count:
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def rest(self, total: int, *parts: int) -> int:
        """`total` less its parts; parts that exceed their total are flagged, and nothing goes negative."""
        left = total - sum(parts)
        if left < 0:
            self.flag("inconsistent")
            return 0
        return left
