"""Our own few corrections to the catalogue: dated rows of data with their sources, applied to a rate card."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from datetime import UTC
from decimal import Decimal
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.pricing.card import Rate, RateCard, Source, Unpriced
from ai_budget_callbacks.usage import INPUT_BUCKETS, OUTPUT_BUCKETS, Terms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

__all__ = ["Correction", "added", "apply", "load", "regions"]

_TOKENS = frozenset((*INPUT_BUCKETS, *OUTPUT_BUCKETS))
# What the API reports when no regional rule applies (recorded responses of 2026).
_NO_GEO = frozenset({None, "", "global", "not_available"})
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One row of corrections.toml; its fields are explained at the top of that file."""

    name: str
    provider: str
    models: tuple[str, ...]
    checked: str
    adds: bool
    fills: bool
    needs: str | None
    rates: Mapping[str, Rate]
    inference_geo: str | None
    search_context: str | None
    days: tuple[str, ...]
    since: date | None
    factor: Decimal | None

    def covers(self, provider: str, model: str) -> bool:
        """Whether this row speaks of that catalogue model."""
        return provider == self.provider and (self.models == ("*",) or model in self.models)

    def holds(self, terms: Terms, at: datetime) -> bool:
        """Whether the conditions of the row are met by a call."""
        if self.inference_geo is not None and self.inference_geo != terms.inference_geo:
            return False
        if self.search_context is not None and self.search_context != terms.search_context:
            return False
        day = at.astimezone(UTC).date()
        if self.since is not None and day < self.since:
            return False
        return not self.days or _DAYS[day.weekday()] in self.days


@cache
def load() -> tuple[Correction, ...]:
    """Read the rows that ship with the package."""
    text = files(__package__).joinpath("data/corrections.toml").read_text(encoding="utf-8")
    return tuple(_row(row) for row in tomllib.loads(text)["correction"])


def _row(row: dict[str, Any]) -> Correction:
    when = row.get("when", {})
    return Correction(
        name=row["name"],
        provider=row["provider"],
        models=tuple(row["models"]),
        checked=row["checked"],
        adds=row.get("adds", False),
        fills=row.get("fills", False),
        needs=row.get("needs"),
        rates={bucket: Rate(Decimal(rate["usd"]), rate["per"]) for bucket, rate in row.get("rates", {}).items()},
        inference_geo=when.get("inference_geo"),
        search_context=when.get("search_context"),
        days=tuple(when.get("days", ())),
        since=when.get("since"),
        factor=Decimal(row["factor"]) if "factor" in row else None,
    )


def regions(source: Source) -> tuple[str, ...]:
    """Regions that have a price of their own for a catalogue model."""
    rows = (row for row in load() if row.covers(source.provider, source.model))
    return tuple(row.inference_geo for row in rows if row.inference_geo is not None)


def added(provider: str, model: str, terms: Terms) -> RateCard | None:
    """The card of a model that the catalogue does not have or takes for another, or None.

    Args:
        provider: Catalogue provider id.
        model: The plain name.
        terms: Conditions of sale: an added model has its standard price alone.
    """
    row = next((row for row in load() if row.adds and row.covers(provider, model)), None)
    if row is None or terms != Terms(service_tier=terms.service_tier) or terms.service_tier not in _STANDARD:
        return None
    source = Source(
        kind="catalogue",
        name=f"ai-budget-callbacks corrections of {row.checked}",
        provider=provider,
        model=model,
        rule="exact",
        corrections=(row.name,),
    )
    inherits = {"output_reasoning": "output_text", "input_tool": "input_uncached"}
    return RateCard(rates=MappingProxyType(dict(row.rates)), source=source, inherits=MappingProxyType(inherits))


_STANDARD = frozenset({None, "default", "standard", "auto", "on_demand"})


def apply(card: RateCard, terms: Terms, at: datetime) -> RateCard | Unpriced:
    """The card with every matching correction, or `Unpriced` where the terms have no known price.

    Args:
        card: The catalogue's card.
        terms: Conditions of sale.
        at: Request time, UTC.
    """
    provider, model = card.source.provider, card.source.model
    rates = dict(card.rates)
    names: dict[str, tuple[str, ...]] = {}
    geo_known = terms.inference_geo in _NO_GEO
    for row in load():
        if row.adds or not row.covers(provider, model) or not row.holds(terms, at):
            continue
        if row.needs is not None and row.needs not in rates:
            continue
        for bucket, rate in row.rates.items():
            if not (row.fills and bucket in rates):
                rates[bucket] = rate
                names[bucket] = (*names.get(bucket, ()), row.name)
        if row.factor is not None:
            rates = {b: rate.scaled(row.factor) if b in _TOKENS else rate for b, rate in rates.items()}
            names.update({bucket: (*names.get(bucket, ()), row.name) for bucket in rates if bucket in _TOKENS})
        geo_known = geo_known or row.inference_geo is not None
    if not geo_known:
        return Unpriced(reason=f"no price known for inference_geo={terms.inference_geo!r} of {model}")
    if not names:
        return card
    return replace(card, rates=MappingProxyType(rates), corrected=MappingProxyType(names))
