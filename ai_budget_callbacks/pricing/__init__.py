"""From usage to an exact cost: rate cards, where they come from, and bounds before a call."""

from ai_budget_callbacks.pricing.book import PriceBook
from ai_budget_callbacks.pricing.card import Cost, Line, Rate, RateCard, Source, Tier, Unpriced
from ai_budget_callbacks.pricing.own import Price, SameAs

__all__ = ["Cost", "Line", "Price", "PriceBook", "Rate", "RateCard", "SameAs", "Source", "Tier", "Unpriced"]
