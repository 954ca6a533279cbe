"""From usage to an exact cost: rate cards, where they come from, and bounds before a call."""

from ai_budget_callbacks.pricing.book import PriceBook
from ai_budget_callbacks.pricing.card import Cost, Line, Price, Rate, RateCard, Source, Tier, Unpriced

__all__ = ["Cost", "Line", "Price", "PriceBook", "Rate", "RateCard", "Source", "Tier", "Unpriced"]
