"""Prices of one's own: what a model costs, that it costs what another one does, and factors on a list. Pure.

Facts: facts/pricing.md 7 (negotiated discounts and markups, deployments, own models).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from types import MappingProxyType

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import exact_decimal
from ai_budget_callbacks.pricing.card import Rate, RateCard, Source, Tier

__all__ = ["FEES", "Price", "SameAs", "exact_factor", "fee_card", "own_card", "times"]

Amount = str | Decimal | int | float

FEES = ("tool", "retriever", "reranker")  # `prices={"tool/NAME": …}` is what one use costs, and no model's price
# Fees by the use, not by the work of a model: providers grant and agree discounts on the latter.
_BY_USE = frozenset({"web_search", "file_search", "grounded_request", "code_execution", "request_fee"})
_MOST = 10


@dataclass(frozen=True, kw_only=True)
class Price:
    """A price of one's own, for `prices={"my-model": Price(input="0.15", output="0.60")}`.

    Amounts are USD for `per` tokens, as decimal strings or `Decimal`. Cached input and cache writes that are
    not given cost what plain input costs; reasoning costs what output costs. Audio is never derived: give
    `input_audio` / `output_audio` or a call with audio is unpriced.

    Attributes:
        input, output: USD for `per` input and output tokens. A chat model needs both; `output="0"` where it
            costs nothing. Embeddings need `input`, what costs the same each time (`request`) neither.
        cache_read, cache_write, cache_write_1h: The same for cached input; `cache_write` is also the 5-minute one.
        reasoning, input_image, output_image, input_audio, cache_read_audio, output_audio: The same for these buckets.
        web_search, file_search, grounded_request, code_execution, request: USD for one of each.
        image, document_page, rerank_search: USD for one image made, one page read, one search unit of a reranker.
        audio_hour: USD for an hour of audio that is billed by time.
        per: Tokens the token prices are stated for.
        above: Prices of a long request, by the input tokens it must have more of: `above={200_000: Price(…)}`. They
            hold for all its tokens, and name the same token prices as this one.
        at_least: The same where the threshold itself is dear already.

    Raises:
        ConfigError: Negative, not finite, all prices zero (say `"free"` instead), or a long request's price that leaves
            out one that is given here.
    """

    input: Amount | None = None
    output: Amount | None = None
    cache_read: Amount | None = None
    cache_write: Amount | None = None
    cache_write_1h: Amount | None = None
    reasoning: Amount | None = None
    input_image: Amount | None = None
    output_image: Amount | None = None
    input_audio: Amount | None = None
    cache_read_audio: Amount | None = None
    output_audio: Amount | None = None
    web_search: Amount | None = None
    file_search: Amount | None = None
    grounded_request: Amount | None = None
    code_execution: Amount | None = None
    request: Amount | None = None
    image: Amount | None = None
    document_page: Amount | None = None
    rerank_search: Amount | None = None
    audio_hour: Amount | None = None
    per: int = 1_000_000
    above: Mapping[int, Price] = field(default_factory=dict, hash=False)
    at_least: Mapping[int, Price] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse what would price calls at nothing without saying so."""
        if type(self.per) is not int or self.per <= 0:
            raise ConfigError(f"Price(per=…) must be a positive int, not {self.per!r}.")
        amounts = [rate.usd for rate in self.rates().values()]
        if any(amount < 0 for amount in amounts):
            raise ConfigError("Price(…) amounts must not be negative.")
        if not any(amounts):
            raise ConfigError('All amounts of this Price are 0. A model that costs nothing is declared "free".')

    def rates(self) -> dict[str, Rate]:
        """Rate by bucket, with what is derived made explicit."""
        steps = sorted(self._steps(), key=lambda step: step[0])
        rates = {
            bucket: Rate(usd, self.per, tuple(Tier(above, tokens[bucket]) for above, tokens in steps))
            for bucket, usd in self._tokens().items()
        }
        units = {bucket: (getattr(self, name), per) for name, (bucket, per) in _UNITS.items()}
        rates.update(
            (bucket, Rate(exact_decimal(value, what=f"Price({bucket})"), per))
            for bucket, (value, per) in units.items()
            if value is not None
        )
        return rates

    def _tokens(self) -> dict[str, Decimal]:
        cache_read = self.input if self.cache_read is None else self.cache_read
        cache_write = self.input if self.cache_write is None else self.cache_write
        image = self.input if self.input_image is None else self.input_image
        tokens = {
            "input_uncached": self.input,
            "input_tool": self.input,
            "input_image": image,
            "input_video": self.input,
            "cache_read": cache_read,
            "cache_read_image": cache_read if self.input_image is None or self.cache_read is not None else image,
            "cache_write": cache_write,
            "cache_write_5m": cache_write,
            "cache_write_1h": cache_write if self.cache_write_1h is None else self.cache_write_1h,
            "output_text": self.output,
            "output_image": self.output if self.output_image is None else self.output_image,
            "output_citation": self.output,
            "output_reasoning": self.output if self.reasoning is None else self.reasoning,
            "input_audio": self.input_audio,
            "cache_read_audio": self.cache_read_audio,
            "output_audio": self.output_audio,
        }
        found = tokens.items()
        return {name: exact_decimal(value, what=f"Price({name})") for name, value in found if value is not None}

    def _steps(self) -> list[tuple[int, dict[str, Decimal]]]:
        """(applies above this many input tokens, USD by token bucket) for each long request's price."""
        found = []
        for word, less, prices in (("above", 0, self.above), ("at_least", 1, self.at_least)):
            if not isinstance(prices, Mapping):
                raise ConfigError(f"Price({word}=…) is {{input tokens: Price(…)}}, not {prices!r}.")
            for tokens, price in prices.items():
                self._check_long(f"Price({word}={{{tokens!r}: …}})", tokens, price)
                found.append((tokens - less, price._tokens()))  # noqa: SLF001 - one of our own
        if len({above for above, _ in found}) < len(found):
            raise ConfigError("Price(above=…, at_least=…) name one threshold twice.")
        return found

    def _check_long(self, what: str, tokens: object, price: object) -> None:
        if type(tokens) is not int or tokens <= 0:
            raise ConfigError(f"{what}: the threshold is a positive number of input tokens.")
        if not isinstance(price, Price) or price.above or price.at_least or price.per != self.per:
            raise ConfigError(f"{what} must be one Price(…) for {self.per} tokens, without thresholds of its own.")
        if any(getattr(price, name) is not None for name in _UNITS):
            raise ConfigError(f"{what} must name token prices only; a fee does not depend on the length of a request.")
        ours, its = self._given(), price._given()  # noqa: SLF001 - one of our own
        if ours != its:  # what is left out would be derived, and a cached rate change without a word
            raise ConfigError(
                f"{what} must name the same token prices: {', '.join(sorted(ours ^ its))} is in one only."
            )

    def _given(self) -> set[str]:
        """The token prices that were written."""
        names = {item.name for item in fields(self)} - {"per", "above", "at_least", *_UNITS}
        return {name for name in names if getattr(self, name) is not None}


# what a Price calls it → its bucket, and how many units the price is for
_UNITS = {
    "web_search": ("web_search", 1),
    "file_search": ("file_search", 1),
    "grounded_request": ("grounded_request", 1),
    "code_execution": ("code_execution", 1),
    "request": ("request_fee", 1),
    "image": ("images", 1),
    "document_page": ("document_pages", 1),
    "rerank_search": ("rerank_search_unit", 1),
    "audio_hour": ("audio_seconds", 3_600),
}


@dataclass(frozen=True)
class SameAs:
    """A deployment, an AWS resource of one's own or a proxy's alias, priced as a model of the catalogue.

    As a call of that model is at the time of the request: with its tiers, terms and corrections, the price of your own
    or the factor of its provider where you gave one.

    Attributes:
        model: `"provider/model"`, for example `"azure/gpt-4o-2024-08-06"`.
        factor: Multiplies all but fees by the use (searches, code execution, requests), exactly: `"1.1"` for a tenth
            more.

    Raises:
        ConfigError: No provider or no model in it, or no such factor.
    """

    model: str
    factor: Amount = "1"

    def __post_init__(self) -> None:
        """Refuse what names no model."""
        if not isinstance(self.model, str) or not all(part.strip() for part in self.names):
            raise ConfigError(f'SameAs({self.model!r}) must be "provider/model", such as "azure/gpt-4o-2024-08-06".')
        exact_factor(self.factor, what=f"SameAs({self.model!r}, factor={self.factor!r})")

    @property
    def names(self) -> tuple[str, str]:
        """Provider, as it was written, and model."""
        provider, _, model = self.model.partition("/")
        return provider, model


def exact_factor(value: object, *, what: str) -> Decimal:
    """A factor on prices.

    Raises:
        ConfigError: No positive number, or so large that it is rather a percentage.
    """
    factor = exact_decimal(value, what=what)
    if not 0 < factor <= _MOST:
        raise ConfigError(f"{what} must be a factor above 0 and up to {_MOST}: 0.85 for 15 % off, 1.1 for 10 % more.")
    return factor


def times(card: RateCard, factor: Decimal, where: str) -> RateCard:
    """A card with all its rates but fees by the use times a factor; the list prices stay on it.

    Args:
        card: Any card; one that is free stays so.
        factor: From `exact_factor`.
        where: Where the factor stands, for the provenance.
    """
    if card.free:
        return card
    source = replace(card.source, factors=(*card.source.factors, f"{factor:f} by {where}"))
    if factor == 1:
        return replace(card, source=source)
    rates = {name: rate if name in _BY_USE else rate.scaled(factor) for name, rate in card.rates.items()}
    listed = card.rates if card.listed is None else card.listed
    return replace(card, rates=MappingProxyType(rates), source=source, listed=listed)


def fee_card(where: str, model: str, value: Price | SameAs | str) -> RateCard:
    """The card of one use of a tool, retriever or reranker.

    Raises:
        ConfigError: It is not what one use costs.
    """
    source = Source(kind="user", name=where, model=model, rule="declared")
    rates = value.rates() if isinstance(value, Price) else {}
    fee = rates.get("request_fee")
    if not model or fee is None or not fee.usd or len(rates) > 1:  # a rate that would never be billed is a mistake
        raise ConfigError(f'{where} must be what one use costs: Price(request="0.008"), not {value!r}.')
    return RateCard(rates=MappingProxyType({"request_fee": fee}), source=source)


def own_card(where: str, model: str, value: Price | str) -> RateCard:
    """The card of a price of one's own.

    Raises:
        ConfigError: It is no price.
    """
    source = Source(kind="user", name=where, model=model, rule="declared")
    if isinstance(value, Price):
        return RateCard(rates=MappingProxyType(value.rates()), source=source)
    if value == "free":
        return RateCard(rates=MappingProxyType({}), source=replace(source, terms="free"), free=True)
    raise ConfigError(f'{where} must be a Price(…), a SameAs("provider/model") or "free", not {value!r}.')
