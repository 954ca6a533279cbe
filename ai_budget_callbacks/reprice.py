"""The past under today's readers and prices: what should have been booked, and one adjustment for each difference.

Corrected are calls whose usage is on the books. Left as they are, and named where a user may wonder:
- calls that were booked as free, charges, and calls whose outcome was never seen;
- what the provider stated itself, unless its statement is read otherwise today;
- what a price, a factor or a `SameAs` of the user's own priced, unless the book has one of the user's own for it;
- what has no price today: what was known stays known.

A call whose usage we counted is priced again by those counts, and stays `estimated`. Where a hold was kept because the
answer was not seen whole, balances keep at least that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.ledger import Correction
from ai_budget_callbacks.money import INT64_MAX, usd_text
from ai_budget_callbacks.standing import Standing, standing
from ai_budget_callbacks.usage import UNIT_BUCKETS, Terms, Usage
from ai_budget_callbacks.usage.wire import read_usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from ai_budget_callbacks.ledger import Entry, Ledger, Settled
    from ai_budget_callbacks.pricing import Cost, PriceBook, Source

__all__ = ["Finding", "apply", "difference_row", "read_again", "reprice"]

_COUNTED = frozenset({"partly_counted", "caches_unseen"})  # what we counted is in the buckets, not in the raw usage
_BESIDE = frozenset({"searches_counted", "hold_kept"})  # what was odd beside the object, whoever reads it
_LABELS = ("service_tier", "speed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A call that would be booked otherwise today, or one that is left although it may be.

    Attributes:
        call: The call as the books have it.
        usage: As it is read today.
        cost: What it costs today; without an amount where it has no price.
        status: What its status would be.
        why: What changed: `"reader"`, `"price"`, `"status"`, joined with `+`; for a call that is left, the reason.
        left: It is not corrected.
    """

    call: Standing
    usage: Usage
    cost: Cost
    status: str
    why: str
    left: bool = False


def reprice(entries: Iterable[Entry], book: PriceBook) -> list[Finding]:
    """Compare what the books say with what they would say today. Writes nothing.

    Args:
        entries: In order of booking.
        book: The prices to use, at the time of each call.
    """
    found = (_look(call, book) for call in standing(entries) if call.entry.kind == "call")
    return [finding for finding in found if finding is not None]


def apply(ledger: Ledger, findings: Iterable[Finding], at: datetime) -> list[Settled]:
    """Post an adjustment for each difference, each in a transaction of its own.

    What was posted before a crash is not posted again: the next run finds no difference there, and the ledger looks
    again before it writes.

    Args:
        ledger: The ledger the entries are from.
        findings: What `reprice` found.
        at: Aware datetime, for the adjustments.

    Raises:
        LedgerError: It cannot be written.
    """
    return [ledger.adjust(item.call.entry.id, _correction(item, at)) for item in findings if not item.left]


def difference_row(finding: Finding) -> dict[str, Any]:
    """A finding as people and scripts read it; amounts are text, empty where there was no price."""
    was, now = finding.call.cost_pico, finding.cost.pico
    return {
        "entry": finding.call.entry.id,
        "model": finding.call.entry.model,
        "was_usd": "" if was is None else usd_text(was),
        "is_usd": "" if now is None else usd_text(now),
        "difference_usd": "" if now is None else usd_text(now - (was or 0)),
        "status": finding.status,
        "why": finding.why,
    }


def _correction(finding: Finding, at: datetime) -> Correction:
    call = finding.call
    return Correction(
        status=finding.status,
        cost=finding.cost,
        at=at,
        reason=f"repriced: {finding.why}",
        usage=None if finding.usage == call.usage else finding.usage,
        keep_hold=finding.status == "estimated" and not call.seen_whole,
    )


def _look(call: Standing, book: PriceBook) -> Finding | None:
    stored = call.usage
    if stored is None or call.status == "unknown" or call.entry.status == "free":
        return None
    terms = _terms(call, stored)
    if terms is None:
        cost = _price(call, stored, book)
        return Finding(
            call=call, usage=stored, cost=cost, status=call.status, why="its terms were not stored", left=True
        )
    stored = replace(stored, terms=terms)
    usage = read_again(stored)
    cost = _price(call, usage, book)
    reason = _reason_to_leave(call, cost)
    if reason is not None:
        return Finding(call=call, usage=usage, cost=cost, status=call.status, why=reason, left=True)
    status = cost.status
    ours = call.status == "estimated" or (call.status in {"unpriced", "free"} and call.counted_by_us)
    if ours and status != "free":
        status = "estimated"
    why = _why(call, stored, usage, cost, status, book)
    if not why:
        return None
    return Finding(call=call, usage=usage, cost=cost, status=status, why=why)


def read_again(usage: Usage) -> Usage:
    """A stored usage read by today's reader, with the terms it has.

    A framework's own counts (readers with a dot in their name) are no provider's object and stand as they are. Units
    that no usage object shows (searches found in the content) are kept; so is what we counted ourselves.
    """
    if usage.raw is None or "." in usage.reader or not _COUNTED.isdisjoint(usage.flags):
        return usage
    found = read_usage(usage.raw, service_tier=usage.terms.service_tier)
    if found is None or found.nothing:
        return usage
    units = {name: count for name, count in usage.buckets.items() if name in UNIT_BUCKETS and name not in found.buckets}
    # what the object does not say was known from beside it
    told = {item.name: getattr(found.terms, item.name) for item in fields(Terms)}
    beside = {name: getattr(usage.terms, name) for name, value in told.items() if not value}
    terms = Terms(**(told | beside))
    lost = (flag for flag in usage.flags if flag.endswith("_unseen") or flag in _BESIDE)
    flags = tuple(dict.fromkeys((*found.flags, *lost)))
    return replace(found.with_units(units), terms=terms, flags=flags)


def _price(call: Standing, usage: Usage, book: PriceBook) -> Cost:
    entry = call.entry
    return book.price(
        usage,
        provider=entry.provider,
        model=call.response_model or entry.requested_model,
        requested=entry.requested_model,
        at=entry.started_at,
    )


def _terms(call: Standing, usage: Usage) -> Terms | None:
    """The terms a call was sold under; None where an older version kept no trace of them."""
    source = _source(call)
    known = call.entry.terms is not None or call.last.terms is not None
    if not known and (source is None or source.get("kind") != "catalogue"):
        # the user's own price and the provider's statement hang on no terms
        return None if source is None else usage.terms
    if usage.terms != Terms() or source is None:
        return usage.terms
    # what was counted by us has no terms of its own; those it was priced by stand in the label
    label = dict(part.split("=", 1) for part in str(source.get("terms", "")).split(",") if "=" in part)
    named = {name: label[name] for name in _LABELS if name in label}
    return Terms(**named, batch=label.get("processing") == "batch")


def _source(call: Standing) -> Any:
    return call.last.source or call.entry.source


def _reason_to_leave(call: Standing, cost: Cost) -> str | None:
    if call.status == "reported" and cost.status != "reported":
        return "the provider stated its cost"
    if not_given := _not_given(_source(call) or {}, cost.source):
        return not_given
    if cost.pico is None:
        return f"no price: {cost.reason}"
    if cost.status != "free" and not 0 < cost.pico <= INT64_MAX:
        return "no price: the list puts it at an impossible amount"
    return None


def _not_given(booked: Mapping[str, Any], source: Source | None) -> str | None:
    """What of the user's own a call was booked by and the book does not have, or a discount would be booked back."""
    if source is not None and source.kind == "user":
        return None
    declared, factors = ("", ()) if source is None else (source.declared, source.factors)
    if booked.get("kind") == "user" and not declared:
        return "a price of your own, which is not given here"
    if booked.get("declared") and not declared:
        return "a SameAs of your own, which is not given here"
    if _of_provider(booked.get("factors") or ()) and not _of_provider(factors):
        return "a factor of your own, which is not given here"
    return None


def _of_provider(factors: Iterable[str]) -> bool:
    return any(" by factors[" in text for text in factors)  # that of a SameAs goes with the SameAs


def _why(call: Standing, stored: Usage, usage: Usage, cost: Cost, status: str, book: PriceBook) -> str:
    read = (usage.buckets, usage.others, usage.terms) != (stored.buckets, stored.others, stored.terms)
    parts = []
    if status != call.status:
        parts.append(f"{call.status} → {status}")
    if read:
        parts.append("reader")
    if call.cost_pico is not None and (_price(call, stored, book) if read else cost).pico != call.cost_pico:
        parts.append("price")
    same = cost.pico == call.cost_pico and usage.input_tokens == call.input_tokens
    if same and status == call.status and usage.output_tokens == call.output_tokens:
        return ""
    return " + ".join(parts)
