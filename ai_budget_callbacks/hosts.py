"""Which provider a client talks to, by its address; an address nobody knows is named once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ai_budget_callbacks.pricing import PriceBook

__all__ = ["Hosts", "is_loopback"]

log = logging.getLogger("ai_budget_callbacks")


class Hosts:
    """Providers by address, for one handler."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def provider(self, prices: PriceBook, url: str | None, word: str) -> str:
        """The catalogue provider of an address, or the client's own word where nobody knows it.

        Args:
            prices: Who knows addresses.
            url: The client's address, or None for its default.
            word: What the client calls its provider.
        """
        provider, certain = prices.provider(url, word)
        if not certain and url is not None and not is_loopback(url) and url not in self._named:
            self._named.add(url)
            log.warning(
                "%s is no known provider's address; its calls are priced as %r, which is what the client says. "
                "Declare a price of your own if that is wrong.",
                url,
                provider,
            )
        return provider


def is_loopback(url: str) -> bool:
    """Whether an address is this machine."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
