"""The order in which a price is looked for: the user's word, the provider's word, the catalogue, else unpriced."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import corrections
from ai_budget_callbacks.pricing.card import Cost, Price, RateCard, Source, Unpriced, price_usage, with_others
from ai_budget_callbacks.pricing.catalogue import catalogue
from ai_budget_callbacks.pricing.identity import is_listed, needs_mapping, plain_name
from ai_budget_callbacks.pricing.reported import reported_cost
from ai_budget_callbacks.usage import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ai_budget_callbacks.usage import Usage

__all__ = ["FEES", "PriceBook"]

FEES = ("tool", "retriever", "reranker")  # `prices={"tool/NAME": …}` is what one use costs, and no model's price

_CACHE_LIMIT = 4096
_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2})\Z")


class PriceBook:
    """Finds rate cards and prices usages. Thread-safe; its cache is a plain dict of immutable cards.

    Args:
        prices: A price of one's own by model name, or by `"provider/model"`: a `Price`, or `"free"`. By `"tool/NAME"`,
            `"retriever/NAME"` or `"reranker/NAME"`: what one use costs, `Price(request="0.008")`.

    Raises:
        ConfigError: A value is neither.
    """

    def __init__(self, prices: Mapping[str, Price | str] | None = None) -> None:
        self._own: dict[str, RateCard] = {}
        self._fees: dict[tuple[str, str], RateCard] = {}
        self._own_of: dict[tuple[str, str], RateCard] = {}
        for name, value in (prices or {}).items():
            provider, slash, model = name.partition("/")
            if slash and provider in FEES:
                self._fees[provider, model] = _fee_card(name, model, value)
                continue
            self._own[name.lower()] = _own_card(name, name, value)
            if slash:  # "openai/my-model" may be a model's whole name, or a model of one provider
                self._own_of[provider.lower(), model.lower()] = _own_card(name, model, value)
        self._cards: dict[tuple[str, str, Terms, int], RateCard | Unpriced] = {}

    @property
    def catalogue_name(self) -> str:
        """Name and version of the catalogue behind the book."""
        return catalogue().name

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
        own = self.own(provider, model)
        if own is not None:
            return own
        key = (provider, model, terms, int(at.timestamp()) // 60)
        card = self._cards.get(key)
        if card is None:
            card = _listed(provider, model, terms, at)
            if len(self._cards) >= _CACHE_LIMIT:
                self._cards.clear()
            self._cards[key] = card
        return card

    def knows(self, provider: str, model: str, at: datetime) -> bool:
        """Whether there is a price for a model."""
        return isinstance(self.card(provider, model, Terms(), at), RateCard)

    def own(self, provider: str, model: str) -> RateCard | None:
        """The user's own card for a model, or None."""
        if not self._own:
            return None
        name = model.lower()
        undated = _DATE.sub("", name)  # a price for a model holds for its dated snapshots
        for candidate in (name, undated) if undated != name else (name,):
            card = self._own_of.get((provider.lower(), candidate)) or self._own.get(candidate)
            if card is not None:
                return card
        return None

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
        tiers = (None, pinned) if pinned else (None, *catalogue().service_tiers(provider, model))
        regions = (None, *corrections.regions(standard.source))
        possible = (
            Terms(service_tier=tier, speed=pace, inference_geo=region)
            for tier in dict.fromkeys(tiers)
            for pace in dict.fromkeys((None, speed))
            for region in regions
        )
        found = (self.card(provider, model, terms, at) for terms in possible)
        return [card for card in found if isinstance(card, RateCard)]

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
        own = self.fee(provider, model) or self.own(provider, model)
        if own is None and requested is not None:
            own = self.own(provider, requested)
        if own is None and (stated := reported_cost(provider, usage.raw, requested=requested)):
            return stated
        cost = self._cost(usage, own or self.card(provider, model, usage.terms, at))
        if not usage.others:
            return cost
        cards = [(other.model, self.card(provider, other.model, usage.terms, at)) for other in usage.others]
        parts = [
            (name, self._cost(replace(usage, buckets=other.buckets, others=(), flags=()), card))
            for other, (name, card) in zip(usage.others, cards, strict=True)
        ]
        return with_others(cost, parts)

    @staticmethod
    def _cost(usage: Usage, card: RateCard | Unpriced) -> Cost:
        if isinstance(card, Unpriced):
            return Cost(status="unpriced", pico=None, reason=card.reason)
        return price_usage(usage, card)


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
    if not is_listed(name):
        return Unpriced(reason=f"{catalogue().name} does not know {model!r} of provider {provider!r}")
    card = catalogue().card(provider, name, terms, at)
    return corrections.apply(card, terms, at) if isinstance(card, RateCard) and not card.free else card


def _fee_card(name: str, model: str, value: Price | str) -> RateCard:
    source = Source(kind="user", name=f"prices[{name!r}]", model=model, rule="declared")
    rates = value.rates() if isinstance(value, Price) else {}
    fee = rates.get("request_fee")
    if not model or fee is None or not fee.usd or len(rates) > 1:  # a rate that would never be billed is a mistake
        raise ConfigError(f'prices[{name!r}] must be what one use costs: Price(request="0.008"), not {value!r}.')
    return RateCard(rates=MappingProxyType({"request_fee": fee}), source=source)


def _own_card(name: str, model: str, value: Price | str) -> RateCard:
    source = Source(kind="user", name=f"prices[{name!r}]", model=model, rule="declared")
    if isinstance(value, Price):
        return RateCard(rates=MappingProxyType(value.rates()), source=source)
    if value == "free":
        return RateCard(rates=MappingProxyType({}), source=replace(source, terms="free"), free=True)
    raise ConfigError(f'prices[{name!r}] must be a Price(…) or "free", not {value!r}.')
