"""The order in which a price is looked for: the user's word, the provider's word, the catalogue, else unpriced."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import corrections
from ai_budget_callbacks.pricing.card import Cost, RateCard, Unpriced, price_usage, with_others
from ai_budget_callbacks.pricing.catalogue import catalogue
from ai_budget_callbacks.pricing.identity import is_listed, needs_mapping, plain_name
from ai_budget_callbacks.pricing.own import FEES, Price, SameAs, exact_factor, fee_card, own_card, times
from ai_budget_callbacks.pricing.reported import REPORTING, reported_cost
from ai_budget_callbacks.usage import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from decimal import Decimal

    from ai_budget_callbacks.pricing.currency import Currency
    from ai_budget_callbacks.usage import Other, Usage

__all__ = ["PriceBook"]

log = logging.getLogger("ai_budget_callbacks")

_CACHE_LIMIT = 4096
_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2})\Z")


@dataclass(frozen=True, slots=True)
class _Alias:
    """A `SameAs` with its provider in the catalogue's words."""

    where: str
    provider: str
    model: str
    factor: Decimal


class PriceBook:
    """Finds rate cards and prices usages. Thread-safe; its cache is a plain dict of immutable cards.

    Args:
        prices: A price of one's own by model name, or by `"provider/model"`: a `Price`, a `SameAs`, or `"free"`. By
            `"tool/NAME"`, `"retriever/NAME"` or `"reranker/NAME"`: what one use costs, `Price(request="0.008")`.
        factors: A factor on the catalogue's prices by provider: `{"openai": "0.85"}`.
        currency: What amounts are shown in besides USD.
        where: What error messages and provenance call `prices`: the name of the file they are from.

    Raises:
        ConfigError: A value is none of these, or names a model or a provider that the catalogue does not know.
    """

    def __init__(
        self,
        prices: Mapping[str, Price | SameAs | str] | None = None,
        *,
        factors: Mapping[str, str | Decimal | int | float] | None = None,
        currency: Currency | None = None,
        where: str = "prices",
    ) -> None:
        self.where = where
        self.currency = currency
        self._own: dict[str, RateCard | _Alias] = {}
        self._own_of: dict[tuple[str, str], RateCard | _Alias] = {}
        self._fees: dict[tuple[str, str], RateCard] = {}
        self._factors: dict[str, tuple[Decimal, str]] = {}
        for name, factor in (factors or {}).items():
            self._multiply(name, factor)
        self._cards: dict[tuple[str, str, Terms, int], RateCard | Unpriced] = {}
        self._doubted: set[tuple[str, str]] = set()
        self._deployments: dict[tuple[str, str], bool] = {}
        for name, value in (prices or {}).items():
            self._declare(name, value)
        for alias in self._own.values():
            if isinstance(alias, _Alias):
                self._check(alias)

    def _multiply(self, name: str, value: object) -> None:
        known, factor = _factor(name, value)
        if known in self._factors:
            raise ConfigError(f"{factor[1]} and {self._factors[known][1]} are one provider's: give it one factor.")
        self._factors[known] = factor

    def _declare(self, name: str, value: Price | SameAs | str) -> None:
        where = f"{self.where}[{name!r}]"
        provider, slash, model = name.partition("/")
        if slash and provider in FEES:
            self._fees[provider, model] = fee_card(where, model, value)
            return
        _put(self._own, name.lower(), where, name, value)
        if slash:  # may be a model's whole name, or a model of one provider, in the catalogue's word or a client's
            known = catalogue().provider_for_name(provider) or provider
            _put(self._own_of, (known.lower(), model.lower()), where, model, value)

    def _check(self, alias: _Alias) -> None:
        """A misspelt model is an error now, not an unpriced call later."""
        found = self._aliased(alias, Terms(), datetime.now(UTC))
        if isinstance(found, Unpriced):
            raise ConfigError(
                f"{found.reason}. Name a model as `ai-budget price --model` knows it, or give a Price(…)."
            )

    @property
    def catalogue_name(self) -> str:
        """Name and version of the catalogue behind the book."""
        return catalogue().name

    @property
    def prices_as_of(self) -> date | None:
        """The day the catalogue's data is from, or None where nobody says."""
        return catalogue().as_of

    def provider(self, url: str | None, word: str | None) -> tuple[str, bool]:
        """The catalogue provider a client talks to.

        Args:
            url: The client's base URL, or None for its default.
            word: What the client calls its provider.

        Returns:
            The provider id and whether it is certain. Uncertain: an address no catalogue provider owns, so the
            client's own word was taken.
        """
        own_word = (word and catalogue().provider_for_name(word)) or word or "unknown"
        if url is None:
            return own_word, True
        at_url = catalogue().provider_for_url(url)
        return (at_url, True) if at_url is not None else (own_word, False)

    def card(self, provider: str, model: str, terms: Terms, at: datetime) -> RateCard | Unpriced:
        """The rate card for a model under some terms at a time, or `Unpriced` with the reason."""
        own = self._declared(provider, model)
        if isinstance(own, RateCard):
            return own
        key = (provider, model, terms, int(at.timestamp()) // 60)
        card = self._cards.get(key)
        if card is None:
            card = self._aliased(own, terms, at) if own is not None else self._listed(provider, model, terms, at)
            if len(self._cards) >= _CACHE_LIMIT:
                self._cards.clear()
            self._cards[key] = card
        return card

    def knows(self, provider: str, model: str, at: datetime) -> bool:
        """Whether there is a price for a model."""
        return isinstance(self.card(provider, model, Terms(), at), RateCard)

    def own(self, provider: str, model: str) -> RateCard | None:
        """The user's own card for a model, or None."""
        own = self._declared(provider, model)
        return own if isinstance(own, RateCard) else None

    def behind(self, provider: str, model: str) -> tuple[str, str]:
        """The provider and model that a deployment was said to be; for any other model, itself."""
        own = self._declared(provider, model)
        return (own.provider, own.model) if isinstance(own, _Alias) else (provider, model)

    def _declared(self, provider: str, model: str) -> RateCard | _Alias | None:
        if not self._own:
            return None
        name = model.lower()
        undated = _DATE.sub("", name)  # a price for a model holds for its dated snapshots
        for candidate in (name, undated) if undated != name else (name,):
            found = self._own_of.get((provider.lower(), candidate)) or self._own.get(candidate)
            if found is not None:
                return found
        return None

    def _aliased(self, alias: _Alias, terms: Terms, at: datetime) -> RateCard | Unpriced:
        """The card of the model that a deployment was said to be."""
        own = self.own(alias.provider, alias.model)
        card = own or self._listed(alias.provider, alias.model, terms, at, said=True)
        if isinstance(card, Unpriced):
            return Unpriced(reason=f"{alias.where} is said to be a model without a price: {card.reason}")
        if alias.factor != 1:
            card = times(card, alias.factor, alias.where)
        rule = card.source.rule if own is not None else "declared"
        return replace(card, source=replace(card.source, declared=alias.where, rule=rule))

    def _listed(
        self, provider: str, model: str, terms: Terms, at: datetime, *, said: bool = False
    ) -> RateCard | Unpriced:
        """The catalogue's card under the user's factor for that provider; `said`: the user named the model."""
        card = _listed(provider, model, terms, at)
        if isinstance(card, Unpriced):
            return card
        if card.source.rule == "prefix":
            self._doubt(provider, model, card, at, said=said)
        factor = self._factors.get(card.source.provider)
        return card if factor is None else times(card, *factor)

    def _doubt(self, provider: str, model: str, card: RateCard, at: datetime, *, said: bool) -> None:
        """Say once that a rule which catches other models too gave a model its price."""
        if (provider, model) in self._doubted:
            return
        self._doubted.add((provider, model))
        known = card.source.model
        itself = catalogue().card(provider, known, Terms(), at)
        named = isinstance(itself, RateCard) and itself.source.rule == "exact" and itself.source.model == known
        if said and not named:
            return  # there is no better name for it
        log.warning(
            "%r of %s is priced as %r, by a rule of %s that catches other models too. Say what it is: "
            'prices={"%s": SameAs("%s/%s")} if that is right, else its Price(…).',
            model, provider, known, card.source.name, model, provider, known if named else model,
        )  # fmt: skip

    def fee(self, kind: str, name: str) -> RateCard | None:
        """The user's price for one use of a tool, retriever or reranker, or None where it has none."""
        return self._fees.get((kind, name))

    def fees(self, kind: str) -> list[str]:
        """Names of the tools, retrievers or rerankers that have a price for one use."""
        return [name for of, name in self._fees if of == kind]

    def resolved(self, provider: str, model: str, at: datetime) -> str | None:
        """The name a model is known by: the catalogue's id, or the user's own key; None when unknown."""
        card = self.card(provider, model, Terms(), at)
        if isinstance(card, Unpriced):
            return None
        return card.source.model

    def cards_for_bound(
        self, provider: str, model: str, service_tier: str | None, at: datetime, *, speed: str | None = None
    ) -> list[RateCard] | Unpriced:
        """Every card that may apply to a request: the tier it pins, else all tiers the provider may choose.

        Args:
            provider: Catalogue provider id.
            model: Requested model.
            service_tier: The tier the request pins, or None.
            at: Request time.
            speed: The speed the request asks for, or None.

        Returns:
            The cards, or `Unpriced` when the model, the pinned tier or the speed has no price.
        """
        standard = self.card(provider, model, Terms(), at)
        if isinstance(standard, Unpriced):
            return standard
        if standard.source.kind == "user":
            return [standard]
        pinned = service_tier if service_tier and service_tier != "auto" else None
        asked = self.card(provider, model, Terms(service_tier=pinned, speed=speed), at)
        if isinstance(asked, Unpriced):
            return asked
        # what the provider may serve instead: another tier where none is pinned, the usual tier and speed in any case,
        # and a region, which may be a setting of the workspace that no request shows
        tiers = (None, pinned) if pinned else (None, *catalogue().service_tiers(*self.behind(provider, model)))
        regions = (None, *corrections.regions(standard.source))
        possible = (
            Terms(service_tier=tier, speed=pace, inference_geo=region)
            for tier in dict.fromkeys(tiers)
            for pace in dict.fromkeys((None, speed))
            for region in regions
        )
        found = (self.card(provider, model, terms, at) for terms in possible)
        cards = [card for card in found if isinstance(card, RateCard)]
        if provider in REPORTING:  # what it states is booked as it is: a discount of the user's bounds nothing
            cards += [replace(card, rates=card.listed) for card in cards if card.listed is not None]
        return cards

    def price(self, usage: Usage, *, provider: str, model: str, requested: str | None, at: datetime) -> Cost:
        """Price a usage.

        Args:
            usage: What was consumed, with the terms the response reported.
            provider: Catalogue provider id.
            model: The model that answered (the response's own word), or the requested one where it says none.
            requested: The model that was asked for; a user's own price may be declared under it.
            at: Request time.

        Returns:
            A `Cost` with a status; never 0 unless declared free.
        """
        name, own = model, self.fee(provider, model) or self._declared(provider, model)
        if requested is not None and (own is None or (requested != model and self._is_deployment(provider, requested))):
            # a deployment is billed as it was held, whatever name is in the answer
            name, own = requested, self._declared(provider, requested)
        if own is None and (stated := reported_cost(provider, usage.raw, requested=requested)):
            return stated
        if isinstance(own, RateCard):
            card: RateCard | Unpriced = own
        else:
            card = self.card(provider, model if own is None else name, usage.terms, at)
        cost = self._cost(usage, card)
        if not usage.others:
            return cost
        cards = [(other, self._card_inside(other, provider, own, usage.terms, at)) for other in usage.others]
        parts = [
            (other.model, self._cost(replace(usage, buckets=other.buckets, others=(), flags=()), card))
            for other, card in cards
        ]
        return with_others(cost, parts)

    def _is_deployment(self, provider: str, requested: str) -> bool:
        """Whether a name with a price of one's own is no model's: answers name the model behind it."""
        own = self._declared(provider, requested)
        if own is None or isinstance(own, _Alias):
            return own is not None
        key = (provider, requested)
        if key not in self._deployments:
            found = _listed(provider, requested, Terms(), datetime.now(UTC))
            self._deployments[key] = isinstance(found, Unpriced)
        return self._deployments[key]

    def _card_inside(
        self, other: Other, provider: str, own: RateCard | _Alias | None, terms: Terms, at: datetime
    ) -> RateCard | Unpriced:
        """The card of a model that was used inside the answer of another one: of the same seller, on the same terms."""
        if not isinstance(own, _Alias):
            return self.card(provider, other.model, terms, at)
        card = self.card(own.provider, other.model, terms, at)
        return card if isinstance(card, Unpriced) or own.factor == 1 else times(card, own.factor, own.where)

    @staticmethod
    def _cost(usage: Usage, card: RateCard | Unpriced) -> Cost:
        if isinstance(card, Unpriced):
            return Cost(status="unpriced", pico=None, reason=card.reason)
        return price_usage(usage, card)


def _put(own: dict[Any, RateCard | _Alias], key: Any, where: str, model: str, value: Price | SameAs | str) -> None:
    if key in own:
        raise ConfigError(f"{where}: that name has a price already, in other letters or another word for its provider.")
    own[key] = _alias(where, value) if isinstance(value, SameAs) else own_card(where, model, value)


def _alias(where: str, same: SameAs) -> _Alias:
    provider, model = same.names
    known = catalogue().provider_for_name(provider)
    if known is None:
        raise ConfigError(f"{where}: the catalogue has no provider {provider!r}; SameAs names one of its models.")
    return _Alias(where, known, model, exact_factor(same.factor, what=where))


def _factor(provider: str, value: object) -> tuple[str, tuple[Decimal, str]]:
    where = f"factors[{provider!r}]"
    known = catalogue().provider_for_name(provider)
    if known is None:
        raise ConfigError(f"{where}: the catalogue has no provider of that name, so there is no price to multiply.")
    return known, (exact_factor(value, what=where), where)


def _listed(provider: str, model: str, terms: Terms, at: datetime) -> RateCard | Unpriced:
    """What the catalogue and our corrections to it say of a model."""
    if needs_mapping(provider, model):
        return Unpriced(
            reason=f"{model!r} is a resource of your own and does not say which model answers; declare a price for it"
        )
    name = plain_name(provider, model)
    added = corrections.added(provider, name, terms)
    if added is not None:
        return added
    if not is_listed(provider, name):
        return Unpriced(reason=f"{catalogue().name} does not know {model!r} of provider {provider!r}")
    card = catalogue().card(provider, name, terms, at)
    return corrections.apply(card, terms, at) if isinstance(card, RateCard) and not card.free else card
