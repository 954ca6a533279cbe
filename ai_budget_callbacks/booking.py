"""From what came back to what is booked: usage, cost and status of one outcome. Pure; commits nothing.

The rules are DESIGN 3.1: zero is never a default. What was measured is priced; what was not is counted and says
so; what nobody saw is booked at the larger of hold and estimate; what has no price is NULL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.ledger import Posting
from ai_budget_callbacks.money import INT64_MAX
from ai_budget_callbacks.pricing.card import Cost, Source
from ai_budget_callbacks.pricing.estimate import Learned, expected_input, reasons_out_of_sight
from ai_budget_callbacks.usage import Usage, openai
from ai_budget_callbacks.usage._counts import mapping
from ai_budget_callbacks.usage.wire import read_usage

if TYPE_CHECKING:
    from ai_budget_callbacks.admission import Admission, Policy
    from ai_budget_callbacks.pricing import PriceBook
    from ai_budget_callbacks.usage import Call

__all__ = ["Outcome", "book_outcome", "outcome_of_body"]

_BYTES, _TOKENS = 5, 2  # 2.5 bytes a token: errs to more tokens on most text (facts/pricing.md 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended.

    Attributes:
        kind: `"answer"` (complete), `"cut"` (a stream that ended early: what was seen is in `output_bytes`),
            `"unknown"` (sent, outcome never seen), `"cached"` (served from the framework's cache, no request).
        usage: Usage the provider reported, or None when it reported none.
        response_model, response_id: As the response said.
        response: The framework's response object, for `BudgetExceeded.response`.
        output_bytes: UTF-8 bytes of output seen, for an estimate where usage is missing.
        hidden_reasoning: The model may have thought out of sight, so visible output bounds nothing.
        reason: Words for the entry.
        content: Prompt and completion, kept only when the meter stores content.
        stated_pico: Pico-dollars the caller says it cost, for a charge.
    """

    kind: str
    usage: Usage | None = None
    response_model: str | None = None
    response_id: str | None = None
    response: Any = None
    output_bytes: int = 0
    hidden_reasoning: bool = False
    reason: str | None = None
    content: Any = None
    stated_pico: int | None = None


def outcome_of_body(body: Any) -> Outcome | None:
    """A paid answer that its client failed to read: the provider's body, as it hangs on an exception or a result.

    Returns:
        The outcome, or None where the body reports no usage.
    """
    source = mapping(body)
    model, response_id, tier = (
        value if isinstance(value, str) else None for value in map(source.get, ("model", "id", "service_tier"))
    )
    usage = read_usage(source.get("usage"), service_tier=tier)
    if usage is None:
        return None
    items = source.get("output")
    units = openai.count_output_items(items) if isinstance(items, list) else {}
    reason = "the answer was paid for and then failed to parse"
    return Outcome(
        kind="answer",
        usage=usage.with_units({name: count for name, count in units.items() if name not in usage.buckets}),
        response_model=model,
        response_id=response_id,
        reason=reason,
    )


def book_outcome(
    call: Call, outcome: Outcome, admission: Admission, book: PriceBook, policy: Policy, *, store_content: bool
) -> Posting:
    """The posting for an outcome, ready to be committed."""
    draft = Posting(
        call=call,
        status="unknown",
        ended_at=datetime.now(UTC),
        reason=outcome.reason,
        response_id=outcome.response_id,
        response_model=outcome.response_model,
        content=json.dumps(outcome.content, default=str) if store_content and outcome.content is not None else None,
        booked_calls=1 if call.kind == "call" else 0,
    )
    if outcome.stated_pico is not None:
        cost = Cost(status="reported", pico=outcome.stated_pico, source=Source(kind="user", name="charge"))
        return replace(draft, status="reported", cost=cost, booked_pico=outcome.stated_pico)
    if outcome.kind == "cached":
        reason = outcome.reason or "framework cache"
        free = Cost(status="free", pico=0, reason=reason)
        return replace(draft, status="free", reason=reason, cost=free, booked_pico=0, booked_tokens=0, booked_calls=0)
    usage = outcome.usage
    if usage is not None and not usage.nothing:
        usage, counted = _complete(usage, outcome, call)
        posting = _measured(draft, usage, outcome, book, policy, counted=counted)
    elif outcome.kind == "unknown":
        return _unknown(draft, admission, policy)
    else:
        posting = _counted(draft, outcome, book, policy)
    return _bounded(posting, admission, policy) if outcome.kind == "cut" else posting


def _complete(usage: Usage, outcome: Outcome, call: Call) -> tuple[Usage, bool]:
    """The usage with what it must have and lacks, and whether anything had to be counted.

    No answer has output without input, and visible output is never 0 tokens: streams that lose one half (Anthropic
    through LangChain, facts/langchain.md 9) would otherwise be billed at the other half alone.
    """
    counts = {}
    if usage.output_tokens and not usage.input_tokens:
        counts["input_uncached"] = expected_input(call, Learned())
    if outcome.output_bytes and not usage.output_tokens:
        counts["output_text"] = _tokens(outcome.output_bytes)
    if not any(counts.values()):
        return usage, False
    return replace(usage.with_units(counts), flags=(*usage.flags, "partly_counted")), True


def _measured(
    draft: Posting, usage: Usage, outcome: Outcome, book: PriceBook, policy: Policy, *, counted: bool
) -> Posting:
    cost = _price(usage, draft.call, outcome, book)
    if cost.status in {"priced", "reported"} and not cost.pico:
        cost = Cost(status="unpriced", pico=None, reason="the price list puts this usage at exactly 0; declare it free")
    posting = replace(
        draft,
        status=cost.status,
        reason=cost.reason or outcome.reason,
        usage=usage,
        cost=cost,
        booked_pico=cost.pico,
        booked_tokens=usage.total_tokens,
    )
    part = counted or outcome.kind == "cut"  # usage seen before a cut is a lower bound
    if cost.status == "unpriced":
        posting = replace(posting, booked_pico=_allowed(policy, cost.part_pico), keep_hold=True)
        return _held(posting) if part else posting
    if cost.status != "free" and part:
        reason = posting.reason or "the provider reported part of the usage"
        return _held(replace(posting, status="estimated", reason=reason))
    return posting


def _held(posting: Posting) -> Posting:
    """What was seen bounds nothing, so the hold stays booked; the usage says so to whoever prices it later."""
    usage = posting.usage
    if usage is not None:
        usage = replace(usage, flags=(*usage.flags, "hold_kept"))
    return replace(posting, usage=usage, keep_hold=True)


def _unknown(draft: Posting, admission: Admission, policy: Policy) -> Posting:
    estimated = admission.estimate.usd_pico
    return replace(
        draft,
        reason=draft.reason or "the outcome was never seen",
        booked_pico=estimated if admission.unpriced is None else _allowed(policy, estimated),
        booked_tokens=admission.estimate.tokens,
        keep_hold=True,
    )


def _counted(draft: Posting, outcome: Outcome, book: PriceBook, policy: Policy) -> Posting:
    """No usage came: count what is visible, say so, and keep the hold where the visible part bounds nothing."""
    counts = {
        "input_uncached": expected_input(draft.call, Learned()),
        "output_text": _tokens(outcome.output_bytes),
    }
    usage = Usage(buckets=MappingProxyType({name: count for name, count in counts.items() if count}), reader="counted")
    # an adapter knows models by name; what is behind a deployment, the price book
    hidden = outcome.hidden_reasoning or reasons_out_of_sight(*book.behind(draft.call.provider, draft.call.model))
    unseen = hidden or not outcome.output_bytes
    keep = outcome.kind == "cut" or unseen or policy.reserve == "worst_case"
    reason = outcome.reason or "the provider reported no usage"
    posting = replace(draft, usage=usage, reason=reason, booked_tokens=usage.total_tokens)
    cost = _price(usage, draft.call, outcome, book)
    if cost.status == "free":
        return replace(posting, status="free", cost=cost, booked_pico=0)
    posting = _held(posting) if keep else posting
    if not cost.pico:
        return replace(posting, status="unpriced", booked_pico=_allowed(policy, cost.part_pico), keep_hold=True)
    return replace(posting, status="estimated", cost=cost, booked_pico=cost.pico)


def _price(usage: Usage, call: Call, outcome: Outcome, book: PriceBook) -> Cost:
    cost = book.price(
        usage,
        provider=call.provider,
        model=outcome.response_model or call.model,
        requested=call.model,
        at=call.started_at,
    )
    if max(cost.pico or 0, cost.part_pico) > INT64_MAX:
        return Cost(status="unpriced", pico=None, reason="the cost is beyond what a ledger can hold: damaged usage")
    return cost


def _allowed(policy: Policy, part: int | None = None) -> int | None:
    """What an unpriced call is booked at besides its hold: the amount allowed, or the part that has a price."""
    allowed = policy.on_unpriced if isinstance(policy.on_unpriced, int) else 0
    return max(allowed, part or 0) or None


def _bounded(posting: Posting, admission: Admission, policy: Policy) -> Posting:
    """A cut answer whose hold, if it has one, was not made from its estimate: what was seen of it bounds nothing."""
    if posting.status != "estimated" or policy.reserve in {"expected", "worst_case"}:
        return posting
    estimate = admission.estimate
    return replace(
        posting,
        booked_pico=max(posting.booked_pico or 0, estimate.usd_pico or 0),
        booked_tokens=max(posting.booked_tokens, estimate.tokens),
    )


def _tokens(text_bytes: int) -> int:
    return -(-text_bytes * _TOKENS // _BYTES)
