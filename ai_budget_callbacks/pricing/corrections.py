"""Our own few corrections to the catalogue: dated rows of data with their sources, applied to a rate card."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.pricing.card import Rate, RateCard, Unpriced
from ai_budget_callbacks.usage import INPUT_BUCKETS, OUTPUT_BUCKETS

if TYPE_CHECKING:
    from ai_budget_callbacks.pricing.card import Source
    from ai_budget_callbacks.usage import Terms

__all__ = ["Correction", "apply", "load", "regions"]

_TOKENS = frozenset((*INPUT_BUCKETS, *OUTPUT_BUCKETS))
# What the API reports when no regional rule applies (recorded responses of 2026).
_NO_GEO = frozenset({None, "", "global", "not_available"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One row of corrections.toml; its fields are explained at the top of that file."""

    name: str
    provider: str
    models: tuple[str, ...]
    fills: bool
    needs: str | None
    rates: dict[str, Rate]
    inference_geo: str | None
    factor: Decimal | None

    def covers(self, provider: str, model: str) -> bool:
        """Whether this row speaks of that catalogue model."""
        return provider == self.provider and (self.models == ("*",) or model in self.models)


@cache
def load() -> tuple[Correction, ...]:
    """Read the rows that ship with the package."""
    text = files(__package__).joinpath("data/corrections.toml").read_text(encoding="utf-8")
    return tuple(_row(row) for row in tomllib.loads(text)["correction"])


def _row(row: dict[str, Any]) -> Correction:
    return Correction(
        name=row["name"],
        provider=row["provider"],
        models=tuple(row["models"]),
        fills=row.get("fills", False),
        needs=row.get("needs"),
        rates={bucket: Rate(Decimal(rate["usd"]), rate["per"]) for bucket, rate in row.get("rates", {}).items()},
        inference_geo=row.get("when", {}).get("inference_geo"),
        factor=Decimal(row["factor"]) if "factor" in row else None,
    )


def regions(source: Source) -> tuple[str, ...]:
    """Regions that have a price of their own for a catalogue model."""
    rows = (row for row in load() if row.covers(source.provider, source.model))
    return tuple(row.inference_geo for row in rows if row.inference_geo is not None)


def apply(card: RateCard, terms: Terms) -> RateCard | Unpriced:
    """The card with every matching correction, or `Unpriced` where the terms have no known price."""
    provider, model = card.source.provider, card.source.model
    rates = dict(card.rates)
    names: list[str] = []
    geo_known = terms.inference_geo in _NO_GEO
    for row in load():
        if not row.covers(provider, model) or (row.needs is not None and row.needs not in rates):
            continue
        for bucket, rate in row.rates.items():
            if not (row.fills and bucket in rates):
                rates[bucket] = rate
                names.append(row.name)
        if row.factor is not None and row.inference_geo == terms.inference_geo:
            rates = {b: rate.scaled(row.factor) if b in _TOKENS else rate for b, rate in rates.items()}
            names.append(row.name)
            geo_known = True
    if not geo_known:
        return Unpriced(reason=f"no price known for inference_geo={terms.inference_geo!r} of {model}")
    if not names:
        return card
    source = replace(card.source, corrections=tuple(dict.fromkeys(names)))
    return replace(card, rates=MappingProxyType(rates), source=source)
