"""The past under other models: the same tokens at another model's price. Reads entries, writes nothing.

A model that is asked the same would take other tokens (another tokenizer, a longer or shorter answer), so this says
what the price list changes and no more. A call that cannot be compared (nobody knows what it cost, or the other model
has no price for a bucket of it) is in no sum: it is counted apart, with the reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.columns import column_value
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.standing import Standing, standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.pricing import PriceBook

__all__ = ["SUMS", "Compared", "Swap", "compare", "comparison_row", "read_swap", "read_swaps", "why_none"]


SUMS = ("as", "calls", "was_usd", "would_be_usd", "difference_usd", "left_out", "left_out_usd", "why_left_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One model in the place of another.

    Attributes:
        provider, model: Whose place; the provider None where any is meant.
        other_provider, other_model: What is priced instead; the provider None where it stays the same.
    """

    provider: str | None
    model: str
    other_provider: str | None
    other_model: str

    def takes(self, call: Standing) -> bool:
        """Whether a call is one of the model's."""
        return (self.provider is None or call.entry.provider == self.provider) and call.is_of(self.model)


@dataclass(slots=True, kw_only=True)
class Compared:
    """Sums of the calls of one model (in one group).

    Attributes:
        calls: Compared calls.
        was_pico, would_be_pico: What they cost, and would have.
        left: Reasons why calls were left out, with how often.
        left_pico: What is known of the cost of those.
    """

    calls: int = 0
    was_pico: int = 0
    would_be_pico: int = 0
    left: Counter[str] = field(default_factory=Counter)
    left_pico: int = 0


def read_swap(text: str, book: PriceBook, at: datetime) -> Swap:
    """`MODEL=OTHER`, each with or without its provider: `gpt-5=gpt-5-mini`, `openai/gpt-5=anthropic/claude-haiku-4-5`.

    Args:
        text: What was asked.
        book: Knows which name is a provider's.
        at: Aware datetime.

    Raises:
        ConfigError: It is no such pair.
    """
    model, equals, other = (part.strip() for part in text.partition("="))
    if not equals or not model or not other:
        raise ConfigError(f"--model takes MODEL=OTHER, for example gpt-5=gpt-5-mini, not {text!r}.")
    provider, name = _split(model, book, at)
    other_provider, other_name = _split(other, book, at)
    return Swap(provider=provider, model=name, other_provider=other_provider, other_model=other_name)


def read_swaps(texts: Sequence[str], book: PriceBook, at: datetime) -> list[Swap]:
    """Several of them, each of another model; arguments as of `read_swap`.

    Raises:
        ConfigError: One is no such pair, or two are of one model.
    """
    swaps: list[Swap] = []
    for text in texts:
        swap = read_swap(text, book, at)
        if any((swap.provider, swap.model.lower()) == (other.provider, other.model.lower()) for other in swaps):
            raise ConfigError(
                f"--model {_name(swap.provider, swap.model)}=… is given twice. Its calls are compared with one other "
                "model at a time: ask for each alternative in a run of its own."
            )
        swaps.append(swap)
    return swaps


def why_none(entries: Iterable[Entry], swap: Swap, swaps: Sequence[Swap]) -> str | None:
    """Why a swap has calls and yet none that is compared, as a sentence; None where it has no calls at all."""
    taken = [call for call in standing(entries) if call.entry.kind == "call" and swap.takes(call)]
    name = _name(swap.provider, swap.model)
    for other in swaps[: swaps.index(swap)]:
        if any(other.takes(call) for call in taken):
            return (
                f"The calls of {name!r} are those of --model {_name(other.provider, other.model)}=…, given before it."
            )
    return f"All {len(taken)} calls of {name!r} are free; there is nothing to compare." if taken else None


def _split(text: str, book: PriceBook, at: datetime) -> tuple[str | None, str]:
    """The provider a name begins with; a slash may also be part of a model's own name (OpenRouter, Together)."""
    word, slash, model = text.partition("/")
    if not slash:
        return None, text
    provider, _ = book.provider(None, word)
    return (provider, model) if provider == word or book.knows(provider, model, at) else (None, text)


def compare(
    entries: Iterable[Entry], swaps: Sequence[Swap], book: PriceBook, by: Sequence[str] = ()
) -> dict[tuple[Swap, tuple[str, ...]], Compared]:
    """Price calls under other models.

    Args:
        entries: In order of booking.
        swaps: What to put in whose place; of two that take one call the first counts.
        book: The prices, at the time of each call.
        by: Columns to group by, as `check_columns` gives them.
    """
    found: dict[tuple[Swap, tuple[str, ...]], Compared] = {}
    for call in standing(entries):
        swap = next((item for item in swaps if item.takes(call)), None)
        if swap is not None and call.entry.kind == "call" and call.status != "free":
            group = tuple(column_value(call.entry, name, call.last) for name in by)
            _add(found.setdefault((swap, group), Compared()), call, swap, book)
    return found


def _add(sums: Compared, call: Standing, swap: Swap, book: PriceBook) -> None:
    other, reason = _price(call, swap, book)
    if call.cost_pico is None:
        reason = "its outcome was never seen" if call.usage is None else "it had no price"
    if reason is not None or other is None or call.cost_pico is None:
        sums.left[reason or "no price"] += 1
        sums.left_pico += call.cost_pico or 0
        return
    sums.calls += 1
    sums.was_pico += call.cost_pico
    sums.would_be_pico += other


def _price(call: Standing, swap: Swap, book: PriceBook) -> tuple[int | None, str | None]:
    """What a call would have cost, or why nobody can say."""
    if call.usage is None:
        return None, "its usage is not known"
    # without the raw usage, in which the provider may state what the call did cost
    cost = book.price(
        replace(call.usage, raw=None),
        provider=swap.other_provider or call.entry.provider,
        model=swap.other_model,
        requested=None,
        at=call.entry.started_at,
    )
    return cost.pico, None if cost.pico is not None else cost.reason


def comparison_row(swap: Swap, by: dict[str, str], sums: Compared) -> dict[str, Any]:
    """A comparison as people and scripts read it; amounts are text."""
    return {
        "model": _name(swap.provider, swap.model),
        "as": _name(swap.other_provider, swap.other_model),
        **by,
        "calls": sums.calls,
        "was_usd": usd_text(sums.was_pico),
        "would_be_usd": usd_text(sums.would_be_pico),
        "difference_usd": usd_text(sums.would_be_pico - sums.was_pico),
        "left_out": sums.left.total(),
        "left_out_usd": usd_text(sums.left_pico),
        "why_left_out": "; ".join(f"{count}: {reason}" for reason, count in sorted(sums.left.items())),
    }


def _name(provider: str | None, model: str) -> str:
    return model if provider is None else f"{provider}/{model}"
