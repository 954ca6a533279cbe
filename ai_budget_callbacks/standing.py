"""Entries → what the books say of each call by now: its entry and the adjustments of it, added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.usage import Usage

__all__ = ["Standing", "standing"]

_OURS = frozenset({"partly_counted", "seen_in_part"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A call or charge as the books have it.

    Attributes:
        entry: As it was booked first; whose it is and when it was made stands there.
        last: The last adjustment, or the entry: its status is the one that holds.
        usage: As it was read last, or None when never seen.
        cost_pico, booked_pico: In pico-dollars, or None when nobody can say.
        input_tokens, output_tokens: Tokens.
    """

    entry: Entry
    last: Entry
    usage: Usage | None
    cost_pico: int | None
    booked_pico: int | None
    input_tokens: int
    output_tokens: int

    @property
    def status(self) -> str:
        """The status by now."""
        return self.last.status

    @property
    def counted_by_us(self) -> bool:
        """Whether its usage, or part of it, is our count and not the provider's: what it costs is an estimate."""
        usage = self.usage
        return usage is not None and (usage.reader == "counted" or not _OURS.isdisjoint(usage.flags))


def standing(entries: Iterable[Entry]) -> list[Standing]:
    """One record for each entry that is no adjustment, in order of booking.

    Args:
        entries: In order of booking. Adjustments of entries that are not among them are left out.
    """
    histories: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.adjusts is None:
            histories[entry.id] = [entry]
        elif entry.adjusts in histories:
            histories[entry.adjusts].append(entry)
    return [_add_up(history) for history in histories.values()]


def _add_up(history: list[Entry]) -> Standing:
    usages = [entry.usage for entry in history if entry.usage is not None]
    return Standing(
        entry=history[0],
        last=history[-1],
        usage=usages[-1] if usages else None,
        cost_pico=_sum([entry.cost_pico for entry in history]),
        booked_pico=_sum([entry.booked_pico for entry in history]),
        input_tokens=sum(entry.input_tokens for entry in history),
        output_tokens=sum(entry.output_tokens for entry in history),
    )


def _sum(amounts: list[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
