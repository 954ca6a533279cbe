"""What a call asks of its budgets: the estimate under the meter's reservation mode, and the wants made from it.

Pure decisions before the ledger is asked. Which budgets apply, what price is expected, what is refused because
nobody can say what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from ai_budget_callbacks import messages
from ai_budget_callbacks.budget import window_end
from ai_budget_callbacks.errors import BudgetExceeded, ConfigError, PriceUnknown
from ai_budget_callbacks.ledger import Want
from ai_budget_callbacks.money import pico_from_usd
from ai_budget_callbacks.pricing import PriceBook, RateCard, Unpriced
from ai_budget_callbacks.pricing.estimate import Estimate, Learned, expected, worst_case
from ai_budget_callbacks.usage import Call, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ai_budget_callbacks.budget import Attached
    from ai_budget_callbacks.ledger import NoRoom

__all__ = ["Admission", "Policy", "admit", "exceeded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a meter reserves.

    Attributes:
        reserve: `"expected"`, `"worst_case"`, `"none"`, or pico-dollars to hold for each call.
        on_unpriced: `"refuse"`, or pico-dollars to hold and book for each unpriced call.
    """

    reserve: str | int
    on_unpriced: str | int

    @classmethod
    def read(cls, reserve: str | Decimal, on_unpriced: str | Decimal) -> Policy:
        """A policy from the arguments of a meter.

        Raises:
            ConfigError: They are neither a known word nor a positive USD amount.
        """
        return cls(
            reserve=_mode(reserve, ("expected", "worst_case", "none"), "reserve"),
            on_unpriced=_mode(on_unpriced, ("refuse",), "on_unpriced"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What to ask the ledger for.

    Attributes:
        attached: Budgets the call touches, in the order of `wants`.
        wants: One for each of them.
        estimate: Sizes and price of the call.
        card: The card that is expected to apply, or None without a price; it may lack a rate that the call needs.
        held_pico: What is held on each USD balance.
        unpriced: Why there is no (whole) price, or None.
        whole_output: Output tokens held because nothing but the model's own maximum bounds them, else None.
    """

    attached: tuple[Attached, ...]
    wants: tuple[Want, ...]
    estimate: Estimate
    card: RateCard | None
    held_pico: int | None
    unpriced: str | None
    whole_output: int | None = None


def _mode(value: str | Decimal, words: tuple[str, ...], what: str) -> str | int:
    if value in words:
        return str(value)
    if isinstance(value, (str, Decimal, int)) and not isinstance(value, bool):
        try:
            pico = pico_from_usd(value, what=what)
        except ConfigError:
            pico = -1
        if pico > 0:
            return pico
    raise ConfigError(
        f"{what} must be {', '.join(map(repr, words))} or a positive USD amount such as '0.05', not {value!r}."
    )


def admit(
    call: Call,
    budgets: Sequence[Attached],
    book: PriceBook,
    policy: Policy,
    learned: Callable[[Call], Learned],
    *,
    sent: bool = False,
) -> Admission:
    """Decide what a call asks of its budgets.

    Args:
        call: The call.
        budgets: Budgets that may apply.
        book: Prices.
        policy: The meter's choices.
        learned: What earlier calls taught.
        sent: It was made already: nothing is refused.

    Raises:
        PriceUnknown: A USD budget that stops applies and the call has no price (or no bound, in `worst_case`), or a
            budget matches on model and the model cannot be resolved.
    """
    if call.kind == "charge":
        return _admit_charge(call, budgets, book, policy)
    at = call.started_at
    resolved = book.resolved(call.provider, call.model, at)
    if sent:
        policy = replace(policy, reserve="none")
    elif resolved is None:
        _refuse_unmatchable(call, budgets)
    attached = [item for item in budgets if item.applies(call, resolved)]
    asked = Terms(service_tier=call.request.service_tier, speed=call.request.speed)
    found = book.card(call.provider, call.model, asked, at)
    if isinstance(found, Unpriced) and asked != Terms():
        found = book.card(call.provider, call.model, Terms(), at)  # a tier may be refused by the provider itself
    card = found if isinstance(found, RateCard) else None
    unpriced = found.reason if isinstance(found, Unpriced) else None
    lacks = card.lacks(output=call.request.output) if card is not None else ()
    if lacks:
        unpriced = messages.not_whole(call, lacks)
    if card is not None and card.free:
        attached = [item for item in attached if item.budget.unit != "usd"]
    usd_stops = next((item.budget for item in attached if item.budget.unit == "usd" and item.budget.stops), None)
    if unpriced is not None and usd_stops is not None and policy.on_unpriced == "refuse" and not sent:
        raise PriceUnknown(messages.price_unknown(call, unpriced, lacks), budget=usd_stops)
    estimate = _estimate(call, attached, card, book, policy, learned)
    if lacks:
        estimate = replace(estimate, floor_pico=None)  # input alone is not the least that a call is worth
    held_pico = _held_pico(estimate, policy, priced=unpriced is None)
    wants = tuple(_want(item, call, resolved, estimate, held_pico, policy) for item in attached)
    return Admission(
        attached=tuple(attached),
        wants=wants,
        estimate=estimate,
        card=card,
        held_pico=held_pico,
        unpriced=unpriced,
        whole_output=_whole_output(call, estimate, policy),
    )


def _admit_charge(call: Call, budgets: Sequence[Attached], book: PriceBook, policy: Policy) -> Admission:
    """A tool's or retriever's fee: known exactly, held on USD budgets only, all of it or the charge is refused.

    A charge the caller states (`meter.charge`) has no card and asks for nothing: it was spent already.
    """
    attached = tuple(item for item in budgets if item.budget.unit == "usd" and item.applies(call, None))
    card = book.fee(call.provider, call.model)
    estimate = expected(call, [card] if card is not None else [], Learned())
    held_pico = 0 if policy.reserve == "none" else estimate.usd_pico or 0
    wants = tuple(
        Want(
            key=item.balance(call, None),
            amount=held_pico,
            limit=item.budget.limit if item.budget.stops else None,
        )
        for item in attached
    )
    return Admission(attached=attached, wants=wants, estimate=estimate, card=card, held_pico=held_pico, unpriced=None)


def exceeded(call: Call, admission: Admission, refusal: NoRoom) -> BudgetExceeded:
    """The refusal of a call that does not fit, with the numbers."""
    want = refusal.want
    item = next(a for a, w in zip(admission.attached, admission.wants, strict=True) if w is want)
    budget = item.budget
    resets_at = window_end(budget, call.started_at)
    text = messages.no_room(
        budget,
        spent=refusal.spent,
        held=refusal.held,
        needed=want.amount,
        resets_at=resets_at,
        scope=want.key.scope,
        whole_output=admission.whole_output,
    )
    error = BudgetExceeded(
        text,
        budget=budget,
        limit=budget.amount(budget.limit),
        spent=budget.amount(refusal.spent),
        held=budget.amount(refusal.held),
        needed=budget.amount(want.amount),
        resets_at=resets_at,
    )
    error.closes = item.owner if item.block else None
    return error


def _whole_output(call: Call, estimate: Estimate, policy: Policy) -> int | None:
    bounded = policy.reserve != "worst_case" or call.request.max_output_tokens is not None
    return None if bounded else estimate.output_tokens or None


def _refuse_unmatchable(call: Call, budgets: Sequence[Attached]) -> None:
    for item in budgets:
        if item.budget.stops and "model" in (item.budget.match or {}):
            raise PriceUnknown(messages.unresolved(call, item.budget), budget=item.budget)


def _estimate(
    call: Call,
    attached: Sequence[Attached],
    card: RateCard | None,
    book: PriceBook,
    policy: Policy,
    learned: Callable[[Call], Learned],
) -> Estimate:
    names = book.behind(call.provider, call.model)  # whose limits and tokenizer hold
    known = call if names == (call.provider, call.model) else replace(call, provider=names[0], model=names[1])
    usual = expected(known, [card] if card is not None else [], learned(call))
    if policy.reserve != "worst_case":
        return usual
    stopping = next((i.budget for i in attached if i.budget.stops and i.budget.unit in {"usd", "tokens"}), None)
    request = call.request
    cards = book.cards_for_bound(call.provider, call.model, request.service_tier, call.started_at, speed=request.speed)
    bound = worst_case(known, [] if isinstance(cards, Unpriced) else cards)
    if isinstance(bound, Estimate):
        return bound
    if stopping is not None:
        raise PriceUnknown(messages.unbounded(call, bound.reason), budget=stopping)
    return usual


def _held_pico(estimate: Estimate, policy: Policy, *, priced: bool) -> int | None:
    reserved = policy.reserve if isinstance(policy.reserve, int) else 0
    if not priced and isinstance(policy.on_unpriced, int):
        return max(reserved, policy.on_unpriced, estimate.usd_pico or 0)
    if policy.reserve == "none" or reserved:
        return reserved
    return estimate.usd_pico if priced else None


def _want(
    item: Attached, call: Call, resolved: str | None, estimate: Estimate, held_pico: int | None, policy: Policy
) -> Want:
    budget = item.budget
    partial = policy.reserve == "expected"
    floor: int | None
    if budget.unit == "usd":
        amount, floor = held_pico or 0, estimate.floor_pico
    elif budget.unit == "tokens":
        amount, floor = (0 if policy.reserve == "none" else estimate.tokens), estimate.floor_tokens
    else:
        amount, floor = 1, None
    return Want(
        key=item.balance(call, resolved),
        amount=amount,
        floor=floor if partial else None,
        limit=budget.limit if budget.stops else None,
    )
