"""Rate cards and the one multiplication: count x unit price, in integers of pico-dollars.

A card prices a bucket only by that bucket's own rate or by an explicit `inherits` rule. A bucket with neither
makes the whole answer unpriced: billing it at its parent's rate, or at 0, is how other libraries go wrong
(facts/pricing.md 1.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ai_budget_callbacks.money import PICO, usd_decimal, usd_text
from ai_budget_callbacks.usage import INPUT_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ai_budget_callbacks.usage import Usage

__all__ = ["Cost", "Line", "Rate", "RateCard", "Source", "Tier", "Unpriced", "price_usage", "with_others"]

_INPUT = frozenset(INPUT_BUCKETS)


@dataclass(frozen=True, slots=True)
class Tier:
    """A dearer (or cheaper) unit price for the whole request once its input passes a threshold.

    Attributes:
        above: Input tokens of the request; the tier applies when the total is strictly greater.
        usd: USD for `per` units of the rate it belongs to.
    """

    above: int
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Rate:
    """What one bucket costs.

    Attributes:
        usd: USD for `per` units.
        per: Number of units the price is stated for (1,000,000 tokens, 1,000 searches).
        tiers: Thresholds, lowest first.
    """

    usd: Decimal
    per: int
    tiers: tuple[Tier, ...] = ()
    # (above, usd, pico numerator, pico denominator), dearest threshold first: computed once, used per call
    _steps: tuple[tuple[int, Decimal, int, int], ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        """Turn decimals into integer ratios once, so that no call does decimal arithmetic."""
        steps = [(tier.above, tier.usd, *_pico_ratio(tier.usd, self.per)) for tier in reversed(self.tiers)]
        object.__setattr__(self, "_steps", (*steps, (-1, self.usd, *_pico_ratio(self.usd, self.per))))

    def step(self, input_tokens: int) -> tuple[int, Decimal, int, int]:
        """The step that applies to a request with this many input tokens."""
        for step in self._steps:
            if input_tokens > step[0]:
                return step
        return self._steps[-1]

    def scaled(self, factor: Decimal) -> Rate:
        """The same rate times an exact factor (regional uplift)."""
        return Rate(
            _times(self.usd, factor),
            self.per,
            tuple(Tier(t.above, _times(t.usd, factor)) for t in self.tiers),
        )

    def all_steps(self) -> tuple[tuple[int, Decimal, int, int], ...]:
        """Every step: (applies above this many input tokens, USD, pico numerator, pico denominator)."""
        return self._steps


def _times(a: Decimal, b: Decimal) -> Decimal:
    (an, ad), (bn, bd) = a.as_integer_ratio(), b.as_integer_ratio()
    # both are finite decimals, so the product is one too: scale the integer product by a power of ten
    digits = 0
    numerator, denominator = an * bn, ad * bd
    while (numerator * 10**digits) % denominator:
        digits += 1
    return Decimal(f"{numerator * 10**digits // denominator}E-{digits}")  # text: no decimal context rounds it


def _pico_ratio(usd: Decimal, per: int) -> tuple[int, int]:
    numerator, denominator = usd.as_integer_ratio()
    top, bottom = numerator * PICO, denominator * per
    if top % bottom == 0:
        return top // bottom, 1
    return top, bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a price came from; kept on every entry so that it can be re-priced and audited.

    Attributes:
        kind: `"user"`, `"catalogue"`, `"reported"`.
        name: Catalogue name and version, or where the user stated the price.
        provider: Catalogue provider whose list was used.
        model: Catalogue id of the matched model.
        rule: How the name matched: `"exact"`, `"dated"`, `"pattern"`, `"prefix"`, `"declared"`.
        terms: Variant that applied, for example `"service_tier=flex"`, or `"standard"`.
        corrections: Names of our corrections that applied.
        declared: Where the user said which model it is, for a deployment or an alias.
        factors: The user's factors that applied, each with where it stands; all but fees by the use is times these.
    """

    kind: str
    name: str
    provider: str = ""
    model: str = ""
    rule: str = ""
    terms: str = "standard"
    corrections: tuple[str, ...] = ()
    declared: str = ""
    factors: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form; what most calls lack stands there only where it is."""
        own: dict[str, object] = {"declared": self.declared, "factors": list(self.factors)}
        return {
            "kind": self.kind,
            "name": self.name,
            "provider": self.provider,
            "model": self.model,
            "rule": self.rule,
            "terms": self.terms,
            "corrections": list(self.corrections),
        } | {name: value for name, value in own.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """All unit prices of one model under one set of terms at one time.

    Attributes:
        rates: Rate by bucket.
        source: Provenance.
        inherits: Explicit rules: a bucket without a rate of its own is billed as this other bucket.
        free: The user declared the model free, or its seller lists it so; every cost is 0 with that reason.
        corrected: Names of the corrections behind a bucket's rate, by bucket.
        listed: List prices by bucket, where the user's factors make `rates` of them.
    """

    rates: Mapping[str, Rate]
    source: Source
    inherits: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    free: bool = False
    corrected: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    listed: Mapping[str, Rate] | None = None
    _steps: dict[tuple[str, ...], tuple[tuple[int, int, int], ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def source_for(self, buckets: Iterable[str]) -> Source:
        """Provenance of a cost with these buckets: the corrections that touched one of them are named."""
        if not self.corrected:
            return self.source
        names = dict.fromkeys(name for bucket in buckets for name in self.corrected.get(bucket, ()))
        return replace(self.source, corrections=(*self.source.corrections, *names)) if names else self.source

    def dearest(self, buckets: tuple[str, ...], count: int, input_tokens: int) -> int:
        """The most that `count` units can cost in any of these buckets, in pico-dollars rounded up.

        Args:
            buckets: Buckets the units may fall into; those without a rate are left out.
            count: Tokens or units.
            input_tokens: The most input the request can have: every tier up to it can apply.
        """
        steps = self._steps.get(buckets)
        if steps is None:
            rates = [rate for rate in map(self.rate, buckets) if rate is not None]
            steps = tuple((above, top, bottom) for rate in rates for above, _, top, bottom in rate.all_steps())
            self._steps[buckets] = steps  # a cache of what never changes
        most = 0
        for above, top, bottom in steps:
            if input_tokens > above:
                most = max(most, count * top if bottom == 1 else -(-count * top // bottom))
        return most

    def rate(self, bucket: str) -> Rate | None:
        """The rate a bucket is billed at, or None when nobody says."""
        found = self.rates.get(bucket)
        if found is None and (parent := self.inherits.get(bucket)) is not None:
            return self.rates.get(parent)
        return found

    def list_price(self, bucket: str, input_tokens: int) -> Decimal | None:
        """What the list says for `per` units, where a factor of the user's changed it; else None."""
        if self.listed is None:
            return None
        listed = self.listed.get(bucket) or self.listed[self.inherits[bucket]]
        rate, usd = self.rate(bucket), listed.step(input_tokens)[1]
        return None if rate is None or rate.step(input_tokens)[1] == usd else usd

    def lacks(self, *, output: bool) -> tuple[str, ...]:
        """What every call of a model has and this card does not price: `"input"`, `"output"`; nothing if free.

        Args:
            output: Whether the call can have output.
        """
        if self.free:
            return ()
        needed = {"input": "input_uncached"} | ({"output": "output_text"} if output else {})
        return tuple(name for name, bucket in needed.items() if self.rate(bucket) is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """No price: a state of its own, never 0.

    Attributes:
        reason: What is missing, in words a user can act on.
    """

    reason: str


class Line(NamedTuple):
    """One bucket's part of a cost; a named tuple, which is made in a third of a frozen dataclass's time.

    Attributes:
        bucket: Bucket name.
        count: Tokens or units.
        unit_price_usd: USD for `per` units.
        per: Units the price is stated for.
        amount_pico: Amount in pico-dollars (1e-12 USD), rounded up where the price is no whole number of them.
        model: The model, where it is not the one that answered (an advisor inside the answer).
        list_price_usd: USD for `per` units before the user's factors, where they changed it.
    """

    bucket: str
    count: int  # type: ignore[assignment]  # the field hides the tuple's method, which nobody asks of a line
    unit_price_usd: Decimal
    per: int
    amount_pico: int
    model: str | None = None
    list_price_usd: Decimal | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form, with text for amounts; what most lines lack stands there only where it is."""
        found: dict[str, object] = {
            "bucket": self.bucket,
            "count": self.count,
            "unit_price_usd": format(self.unit_price_usd, "f"),
            "per": self.per,
            "amount_usd": usd_text(self.amount_pico),
        }
        if self.model is not None:
            found["model"] = self.model
        if self.list_price_usd is not None:
            found["list_price_usd"] = format(self.list_price_usd, "f")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a usage costs, with a status.

    Attributes:
        status: `"priced"`, `"reported"`, `"free"` or `"unpriced"`.
        pico: Pico-dollars, or None when unpriced.
        lines: One line for every non-zero bucket of a priced usage.
        source: Provenance, or None when unpriced.
        reason: Why it is free or unpriced.
        part_pico: Of an unpriced usage: what those of its buckets cost that have a rate.
    """

    status: str
    pico: int | None
    lines: tuple[Line, ...] = ()
    source: Source | None = None
    reason: str | None = None
    part_pico: int = 0

    @property
    def usd(self) -> Decimal | None:
        """USD, exact."""
        return None if self.pico is None else usd_decimal(self.pico)


_UNCOUNTED = {  # flags of a usage that does not hold all that is billed
    "other_model": "part of the usage belongs to another model without a price",
    "unknown_unit": "part of the usage is billed in a unit that is not known here",
}


def price_usage(usage: Usage, card: RateCard) -> Cost:
    """Multiply a usage by a card.

    Returns:
        `priced` when every non-zero bucket has a rate, `free` for a card declared free, else `unpriced` with
        the bucket that lacks a rate. A usage with no counts at all is `unpriced`: nothing is never free.
    """
    if card.free:
        reason = "declared free" if card.source.kind == "user" else f"{card.source.model} is listed as free"
        return Cost(status="free", pico=0, source=card.source, reason=reason)
    buckets = usage.buckets
    if not buckets:
        return Cost(status="unpriced", pico=None, reason="the usage has no counts")
    lacking = next((_UNCOUNTED[flag] for flag in usage.flags if flag in _UNCOUNTED), None) if usage.flags else None
    total_input = 0
    for name, count in buckets.items():
        if name in _INPUT:
            total_input += count
    lines = []
    pico = 0
    rates = card.rates
    for name, count in buckets.items():
        rate = rates.get(name) or card.rate(name)
        if rate is None:
            lacking = lacking or f"no price for {name} of {card.source.model or 'the model'}"
            continue
        _, usd, top, bottom = rate.step(total_input)
        amount = -(-count * top // bottom) if bottom != 1 else count * top
        listed = None if card.listed is None else card.list_price(name, total_input)
        lines.append(Line(name, count, usd, rate.per, amount, None, listed))
        pico += amount
    fee = card.rates.get("request_fee")
    if fee is not None and "request_fee" not in buckets:
        _, usd, top, bottom = fee.step(total_input)
        amount = -(-top // bottom)
        lines.append(Line("request_fee", 1, usd, fee.per, amount))
        pico += amount
    if lacking is not None:
        return Cost(status="unpriced", pico=None, reason=lacking, part_pico=pico)
    return Cost(status="priced", pico=pico, lines=tuple(lines), source=card.source_for(line.bucket for line in lines))


def with_others(cost: Cost, others: Sequence[tuple[str, Cost]]) -> Cost:
    """A cost and those of other models that were billed inside the same answer, as one.

    Returns:
        The sum, with the other models' names on their lines; unpriced as soon as one of them is.
    """
    lacking = next((each.reason for each in (cost, *(part for _, part in others)) if each.pico is None), None)
    known = [each.part_pico if each.pico is None else each.pico for each in (cost, *(part for _, part in others))]
    if lacking is not None:
        return Cost(status="unpriced", pico=None, reason=lacking, part_pico=sum(known))
    lines = (*cost.lines, *(line._replace(model=name) for name, part in others for line in part.lines))
    free = all(each.status == "free" for each in (cost, *(part for _, part in others)))
    return replace(
        cost, status="free" if free else "priced", pico=sum(known), lines=lines, reason=cost.reason if free else None
    )
