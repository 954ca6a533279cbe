"""Entries → what the books say of each call by now: its entry and the adjustments of it, added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.usage import Usage

__all__ = ["Standing", "standing"]

_OURS = frozenset({"partly_counted", "hold_kept"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A call or charge as the books have it.

    Attributes:
        entry: As it was booked first; whose it is and when it was made stands there.
        last: The last adjustment, or the entry: its status is the one that holds.
        usage: As it was read last, or None when never seen.
        response_model: What the provider called the model, or None where no answer said it.
        cost_pico, booked_pico: In pico-dollars, or None when nobody can say.
        input_tokens, output_tokens: Tokens.
    """

    entry: Entry
    last: Entry
    usage: Usage | None
    response_model: str | None
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

    def is_of(self, model: str) -> bool:
        """Whether it is a call of a model, in any case: as it was requested, named in the answer, or priced."""
        priced = (self.last.source or {}).get("model")
        names = (self.entry.model, self.entry.requested_model, self.response_model, priced)
        return model.lower() in {name.lower() for name in names if isinstance(name, str)}

    @property
    def seen_whole(self) -> bool:
        """Whether what was seen bounds what is billed; else its hold stays booked, whatever the seen part costs."""
        if self.usage is not None and "hold_kept" in self.usage.flags:
            return False
        # before that flag was written: more was booked than what was seen costs
        entry = self.entry
        return entry.status != "estimated" or (entry.booked_pico or 0) <= (entry.cost_pico or 0)


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
        response_model=next((entry.response_model for entry in reversed(history) if entry.response_model), None),
        cost_pico=_sum([entry.cost_pico for entry in history]),
        booked_pico=_sum([entry.booked_pico for entry in history]),
        input_tokens=sum(entry.input_tokens for entry in history),
        output_tokens=sum(entry.output_tokens for entry in history),
    )


def _sum(amounts: list[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
