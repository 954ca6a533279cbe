"""The 53 golden costs and every recorded answer, as what the libraries are asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_UP, Decimal
from typing import Any

from tests.laws.test_goldens import NOT_IN_USAGE
from tests.support.corpus import billed, cassette, index, wire_json
from tests.support.goldens import shared

__all__ = ["Case", "goldens", "recordings", "totals"]

_PROVIDERS = {
    "azure-openai": "azure",
    "bedrock": "aws",
    "google-gemini": "google",
    "google-vertex": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
}
_AT = datetime.fromisoformat("2026-11-24T13:00:00+00:00")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One answer.

    Attributes:
        names: What the model is called: in the answer, and as it was asked for.
        body: The whole body as sent, a list of events where it streams.
        counts: What is billed: all input, of it read from and written to caches, all output.
        buckets: What is billed, in our buckets; None for a recording (its index has coarser ones).
        usd: What it costs, or None where nobody but the price list says.
    """

    id: str
    provider: str
    names: tuple[str, ...]
    body: Any
    counts: dict[str, int]
    at: datetime = _AT
    headers: dict[str, Any] = field(default_factory=dict)
    buckets: dict[str, int] | None = None
    units: dict[str, int] = field(default_factory=dict)
    usd: Decimal | None = None
    service_tier: str | None = None
    batch: bool = False
    stated: bool = False

    @property
    def model(self) -> str:
        """Who answered."""
        return self.names[0]


def totals(buckets: dict[str, int]) -> dict[str, int]:
    """All input, of it cache reads and writes, all output: what every library has under some name."""

    def of(*starts: str) -> int:
        return sum(count for name, count in buckets.items() if name.startswith(starts) and "hours" not in name)

    return {
        "input": of("input_", "cache_"),
        "cache_read": of("cache_read"),
        "cache_write": of("cache_write"),
        "output": of("output_", "reasoning"),
    }


def goldens() -> list[Case]:
    found = []
    for case in json.loads(shared("facts/pricing_goldens.json").read_text(encoding="utf-8")):
        raw, context = case["raw_usage"], case.get("price_context", {})
        body: Any = raw
        if isinstance(raw, dict):
            holder = "usageMetadata" if "promptTokenCount" in raw else "usage"
            body = {"model": case["model"], holder: {k: v for k, v in raw.items() if not k.startswith("_")}}
        found.append(
            Case(
                id=case["id"],
                provider=_PROVIDERS.get(case["provider"], case["provider"]),
                names=(case["model"],),
                body=body,
                counts=totals(case["buckets"]),
                buckets=case["buckets"],
                units=NOT_IN_USAGE.get(case["id"], {}),
                usd=Decimal(case["expected_cost_usd"]),
                at=datetime.fromisoformat(case["request_time_utc"]),
                service_tier=context.get("service_tier"),
                batch=context.get("processing") == "batch",
                stated="provider_reported_cost" in case,
            )
        )
    return found


def recordings() -> list[Case]:
    """Every recorded answer that reports usage and is not ambiguous."""
    found = []
    for recording in index():
        for call in recording["calls"]:
            if call["expected_usage"] is None or "ambiguous" in call["features"]:
                continue
            response = cassette(recording["file"])[call["index"]]["response"]
            stated = call.get("reported_cost")
            found.append(
                Case(
                    id=f"{recording['file']}#{call['index']}",
                    provider=_PROVIDERS.get(recording["provider"], recording["provider"]),
                    names=tuple(dict.fromkeys(filter(None, (call.get("response_model"), call["request_model"])))),
                    body=wire_json(response["body"]["string"]),
                    headers=response["headers"],
                    counts=totals(billed(call)),
                    usd=Decimal(repr(stated)).quantize(Decimal("1E-12"), ROUND_UP) if stated else None,
                    stated=stated is not None,
                )
            )
    return found
