"""What the law tests share: where the published facts lie, and money computed by hand from published unit prices."""

from __future__ import annotations

import json
import os
import warnings
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from ai_budget_callbacks.usage import INPUT_BUCKETS, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NOW", "by_hand", "golden", "shared", "usage"]

NOW = datetime(2026, 11, 24, 13, tzinfo=UTC)  # a Tuesday; when the published prices were read
PICO = 10**12

_SHARED = Path(os.environ.get("AI_BUDGET_SHARED") or Path(__file__).parents[2].parent / "shared")


def shared(name: str) -> Path:
    """A file of the shared facts. Without it: fails in CI, elsewhere the whole module is skipped, loudly."""
    path = _SHARED / name
    if path.exists():
        return path
    message = f"{path} is missing, so no price was checked against it; point AI_BUDGET_SHARED at the shared facts"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    warnings.warn(message, stacklevel=2)
    pytest.skip(message, allow_module_level=True)


def golden(name: str) -> tuple[Any, dict[str, int], str, str, str]:
    """A golden's usage object, buckets, cost in USD, model and time."""
    cases = json.loads(shared("facts/pricing_goldens.json").read_text(encoding="utf-8"))
    found = next(case for case in cases if case["id"] == name)
    return found["raw_usage"], found["buckets"], found["expected_cost_usd"], found["model"], found["request_time_utc"]


def usage(**buckets: int) -> Usage:
    """A usage with these counts; zeros are left out."""
    return Usage(buckets=MappingProxyType({name: count for name, count in buckets.items() if count}))


def by_hand(
    buckets: Mapping[str, int], rates: Mapping[str, tuple[str, str] | str], *, above: int | None = None
) -> Fraction:
    """Pico-dollars from published prices, in fractions: no line of the product takes part.

    Args:
        buckets: Counts.
        rates: USD for a million tokens (a thousand searches) by bucket, as printed; a pair where the price
            changes for the whole request once its input passes `above`.
        above: That threshold.
    """
    long = above is not None and sum(buckets.get(name, 0) for name in INPUT_BUCKETS) > above
    total = Fraction(0)
    for name, count in buckets.items():
        printed = rates[name]
        usd = printed if isinstance(printed, str) else printed[long]
        total += count * Fraction(usd) * PICO / (1_000 if name == "web_search" else 1_000_000)
    return total
