"""A provider's export beside the ledger, by UTC day and model: where they differ, and what explains it.

A call stands on the day it was started. Models are compared under their undated names: an export names the snapshot
that answered, a ledger may have the alias that was asked for. Where an export names no model, whole days are compared.

Of a difference in money, the part that other token counts make is taken at the average price we booked for input and
for output; the rest is price. Both are exact sums of what was booked, and no prices are looked up.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.money import pico_from_usd, usd_text, usd_with_sign
from ai_budget_callbacks.standing import standing
from ai_budget_callbacks.usage import INPUT_BUCKETS, OUTPUT_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from ai_budget_callbacks.exports import Billed, Export
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.standing import Standing

__all__ = ["Matched", "Side", "matched_row", "reconcile", "undated"]

_DATE = re.compile(r"(?:[-@](?:\d{8}|\d{4}-\d{2}-\d{2})|-latest)\Z")
_TOOLS = ("web_search", "file_search", "code_execution")
ALL = "(all models)"


def undated(model: str) -> str:
    """A model's name without the date of a snapshot; of a fine-tuned one, that of what it was tuned from."""
    name = model.lower().removeprefix("models/")
    if name.startswith("ft:"):  # an invoice says "ft-gpt-4o-2024-08-06"
        name = f"ft-{name.split(':')[1]}"
    return _DATE.sub("", name)


@dataclass(slots=True)
class Side:
    """What one side has of a model on a day. Counts that a side does not state are None.

    Attributes:
        pico: Known cost.
        calls, input_tokens, output_tokens: Counts.
        input_pico, output_pico: Ours: parts of the cost that input and output tokens make.
        statuses: Ours: calls by status.
        booked_pico: Ours: what is booked for calls whose cost is not known.
        stated: Ours: calls whose cost has no lines, as where the provider stated it; nobody knows its price by token.
    """

    pico: int | None = None
    calls: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_pico: int = 0
    output_pico: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    booked_pico: int = 0
    stated: int = 0

    def add(self, name: str, amount: int | None) -> None:
        """Add to a sum; what is not stated adds nothing, and is not 0."""
        if amount is not None:
            setattr(self, name, (getattr(self, name) or 0) + amount)

    @property
    def uncertain(self) -> list[str]:
        """Ours: what may be billed otherwise than it is booked, in words."""
        said = {
            "estimated": "counted by us",
            "unknown": "with an outcome nobody saw",
            "unpriced": "without a price",
        }
        found = [f"{self.statuses[status]} {words}" for status, words in said.items() if self.statuses[status]]
        if self.booked_pico and found:
            found[-1] += f" ({usd_with_sign(self.booked_pico)} booked)"
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """One model (or hosted tool, or whole day) of one day.

    Attributes:
        day: UTC day.
        model: Undated name, the item of an invoice, or `"(all models)"`.
        theirs, ours: Either side, or None where it has nothing.
        verdict: `"equal"`, `"differs"`, `"only theirs"`, `"only ours"`.
    """

    day: date
    model: str
    theirs: Side | None
    ours: Side | None
    verdict: str


def reconcile(
    entries: Iterable[Entry], export: Export, *, days: tuple[date, date], provider: str | None, tolerance_pico: int = 0
) -> list[Matched]:
    """Compare an export with entries.

    Args:
        entries: In order of booking; those of other days and providers are left out.
        export: The export.
        days: First and last UTC day to compare.
        provider: Catalogue provider id whose calls are meant, or None for all.
        tolerance_pico: Up to this difference amounts are equal.
    """
    # an export without any model in it compares whole days, those without a row too
    whole_export = all(row.model is None for row in export.rows)
    whole_days = {row.day for row in export.rows if row.model is None and row.item is None}
    theirs: dict[tuple[date, str], Side] = defaultdict(Side)
    for row in export.rows:
        if days[0] <= row.day <= days[1]:
            _add_theirs(theirs[row.day, _their_name(row, whole=whole_export or row.day in whole_days)], row)
    ours: dict[tuple[date, str], Side] = defaultdict(Side)
    for call in standing(entries):
        day = call.entry.started_at.date()
        meant = call.entry.kind == "call" and call.status != "free" and days[0] <= day <= days[1]
        if meant and (provider is None or call.entry.provider == provider):
            whole = whole_export or day in whole_days
            _add_ours(ours, day, call, whole=whole, tools_apart=export.tools_apart and not whole)
    keys = sorted({*theirs, *ours})
    return [_match(key, theirs.get(key), ours.get(key), tolerance_pico) for key in keys]


def _their_name(row: Billed, *, whole: bool) -> str:
    if whole:
        return ALL
    if row.model is not None:
        return undated(row.model)
    return row.tool or row.item or ALL


def _add_theirs(side: Side, row: Billed) -> None:
    side.add("pico", row.pico)
    side.add("calls", row.requests)
    side.add("input_tokens", row.input_tokens)
    side.add("output_tokens", row.output_tokens)


def _add_ours(ours: dict[tuple[date, str], Side], day: date, call: Standing, *, whole: bool, tools_apart: bool) -> None:
    entry = call.entry
    side = ours[day, ALL if whole else undated(call.response_model or entry.model)]
    side.add("calls", 1)
    side.statuses[call.status] += 1
    usage = call.usage
    if usage is not None:
        _add_tokens(side, call.input_tokens, call.output_tokens)
        for other in () if whole else usage.others:  # an advisor is billed under its own name
            advised = replace(usage, buckets=other.buckets, others=())
            _add_tokens(ours[day, undated(other.model)], advised.input_tokens, advised.output_tokens)
            _add_tokens(side, -advised.input_tokens, -advised.output_tokens)
    if call.cost_pico is None:
        side.booked_pico += call.booked_pico or 0
        return
    rest = call.cost_pico
    parts = _parts(call)
    side.stated += bool(rest and not parts)
    for (model, bucket), amount in parts.items():
        part = side if model is None or whole else ours[day, undated(model)]
        if bucket in INPUT_BUCKETS:
            part.input_pico += amount
        elif bucket in OUTPUT_BUCKETS:
            part.output_pico += amount
        elif bucket in _TOOLS and tools_apart:
            part = ours[day, bucket]
        if part is not side:
            part.add("pico", amount)
            rest -= amount
    side.add("pico", rest)


def _add_tokens(side: Side, input_tokens: int, output_tokens: int) -> None:
    side.add("input_tokens", input_tokens)
    side.add("output_tokens", output_tokens)


def _parts(call: Standing) -> dict[tuple[str | None, str], int]:
    """The cost of a call by model (None: the one that answered) and bucket, as its last lines have it."""
    parts: Counter[tuple[str | None, str]] = Counter()
    for line in call.last.lines or call.entry.lines:
        parts[line.get("model"), line["bucket"]] += pico_from_usd(line["amount_usd"], what="amount")
    return dict(parts)


def _match(key: tuple[date, str], theirs: Side | None, ours: Side | None, tolerance_pico: int) -> Matched:
    if theirs is None or ours is None:
        verdict = "only ours" if theirs is None else "only theirs"
        return Matched(day=key[0], model=key[1], theirs=theirs, ours=ours, verdict=verdict)
    if theirs.pico is not None:
        # an amount that is not known here is a difference of nobody knows how much, whatever the others add up to
        unknown = ours.statuses["unpriced"] or (ours.pico is None and ours.uncertain)
        equal = abs(theirs.pico - (ours.pico or 0)) <= tolerance_pico and not unknown
    else:
        equal = all(
            mine is None or other is None or mine == other
            for mine, other in (
                (ours.calls, theirs.calls),
                (ours.input_tokens or 0, theirs.input_tokens),
                (ours.output_tokens or 0, theirs.output_tokens),
            )
        )
    return Matched(day=key[0], model=key[1], theirs=theirs, ours=ours, verdict="equal" if equal else "differs")


def matched_row(item: Matched) -> dict[str, Any]:
    """A comparison as people and scripts read it. Amounts are text; what a side does not state is empty."""
    theirs, ours = item.theirs or Side(), item.ours or Side()
    their_pico, our_pico = theirs.pico, ours.pico
    difference = "" if their_pico is None and item.theirs else usd_text((their_pico or 0) - (our_pico or 0))
    return {
        "day": item.day.isoformat(),
        "model": item.model,
        "verdict": item.verdict,
        "theirs_usd": "" if their_pico is None else usd_text(their_pico),
        "ours_usd": "" if our_pico is None else usd_text(our_pico),
        "difference_usd": difference,
        "their_calls": "" if theirs.calls is None else theirs.calls,
        "our_calls": "" if ours.calls is None else ours.calls,
        "input_tokens_difference": _tokens(theirs.input_tokens, ours.input_tokens),
        "output_tokens_difference": _tokens(theirs.output_tokens, ours.output_tokens),
        "why": _why(item),
    }


def _tokens(theirs: int | None, ours: int | None) -> int | str:
    return "" if theirs is None else theirs - (ours or 0)


def _why(item: Matched) -> str:
    """What explains a difference, in words; nothing where there is none."""
    theirs, ours = item.theirs, item.ours
    if item.verdict == "equal":
        return ""
    if ours is None or theirs is None:
        uncertain = [] if ours is None else ours.uncertain
        what = "not through us" if ours is None else "not in the export"
        return "; ".join([what, *(f"of ours {text}" for text in uncertain)])
    said = []
    if theirs.calls is not None and theirs.calls != ours.calls:
        missing = theirs.calls - (ours.calls or 0)
        said.append(f"{missing} calls not through us" if missing > 0 else f"{-missing} calls not in the export")
    said += _split(theirs, ours)
    said += [f"of ours {text}" for text in ours.uncertain]
    return "; ".join(said)


def _split(theirs: Side, ours: Side) -> list[str]:
    """The difference in money as a part of other tokens and a part of other prices, where both can be told."""
    if theirs.pico is None or ours.pico is None:
        return []
    difference = theirs.pico - ours.pico
    if not difference:
        return []
    if theirs.input_tokens is None or theirs.output_tokens is None:
        return [f"{usd_with_sign(difference)} in amounts, and no token counts to tell why"]
    more_in = theirs.input_tokens - (ours.input_tokens or 0)
    more_out = theirs.output_tokens - (ours.output_tokens or 0)
    if not more_in and not more_out:
        return [f"{usd_with_sign(difference)} other prices for the same tokens"]
    if ours.stated:
        return [f"{usd_with_sign(difference)} in amounts; {ours.stated} of ours without prices by token to tell why"]
    if (more_in and not ours.input_pico) or (more_out and not ours.output_pico):
        return [f"{usd_with_sign(difference)} in amounts; ours has no price for such tokens to tell why"]
    tokens = _at_average(more_in, ours.input_pico, ours.input_tokens)
    tokens += _at_average(more_out, ours.output_pico, ours.output_tokens)
    said = [f"{usd_with_sign(tokens)} other tokens"]
    return said if tokens == difference else [*said, f"{usd_with_sign(difference - tokens)} other prices"]


def _at_average(more: int, pico: int, tokens: int | None) -> int:
    """Tokens at the average price of those we have, rounded to whole pico-dollars."""
    return (2 * more * pico + tokens) // (2 * tokens) if tokens else 0
