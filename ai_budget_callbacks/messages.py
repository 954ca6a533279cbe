"""The words of a refusal: what happened, the numbers, when the window rolls over, what to do next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ai_budget_callbacks.budget import FIELDS, NONE, amount_text, field_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ai_budget_callbacks.budget import Budget
    from ai_budget_callbacks.usage import Call

__all__ = ["crossed", "no_room", "not_whole", "price_unknown", "recorded_unpriced", "unbounded", "unresolved", "warned"]


def no_room(
    budget: Budget,
    *,
    spent: int,
    held: int,
    needed: int,
    resets_at: datetime | None,
    scope: str,
    whole_output: int | None = None,
) -> str:
    """A call that does not fit.

    Args:
        budget: Its budget.
        spent: In the budget's integers.
        held: The same.
        needed: The same.
        resets_at: When the window rolls over.
        scope: Of the balance.
        whole_output: Output tokens that are held because nothing but the model's maximum bounds them.
    """
    unit = budget.unit
    used_up = spent + held >= budget.limit
    state = "is used up" if used_up else "has no room for this call"
    what = f"Budget {_name(budget, scope)} {state}"
    need = "" if used_up or unit == "calls" else f"; this call needs {amount_text(unit, needed)}"
    if need and whole_output is not None:
        need += (
            f" (worst case: the model's whole output maximum of {whole_output} tokens; set max_tokens or "
            "max_completion_tokens on the model)"
        )
    return (
        f"{what}: {amount_text(unit, spent)} spent and {amount_text(unit, held)} held by calls in flight, "
        f"of {amount_text(unit, budget.limit)}{need}. Nothing was sent. {_nobody(budget, scope)}{_next(resets_at)}"
    )


_GIVEN_BY = {
    "user": 'metadata["user_id"] in the config, or track(user=…)',
    "thread": 'configurable["thread_id"] in the config',
}


def _nobody(budget: Budget, scope: str) -> str:
    """What the call lacks, where the balance is that of calls which lack it."""
    for field, value in zip(map(field_key, budget.by), json.loads(scope), strict=True):
        if value != NONE or (field in FIELDS and field not in _GIVEN_BY):
            continue
        name = field.removeprefix("metadata.")
        how = _GIVEN_BY.get(field, f'metadata["{name}"] in the config, or track(metadata={{"{name}": …}})')
        return f"No {name} was given, and all such calls share this balance: give {how}. "
    return ""


def crossed(budget: Budget, *, spent: int, resets_at: datetime | None, scope: str, raises: bool) -> str:
    """A call that was answered and took the balance past its limit."""
    answer = "its answer is on this exception as .response" if raises else "its answer is delivered"
    return (
        f"Budget {_name(budget, scope)} was crossed by this call: {amount_text(budget.unit, spent)} spent of "
        f"{amount_text(budget.unit, budget.limit)}. The call is paid and booked; {answer}. {_next(resets_at)}"
    )


def warned(budget: Budget, *, fraction: str, spent: int, scope: str) -> str:
    """A balance that passed a warn level."""
    return (
        f"Budget {_name(budget, scope)} passed {fraction} of its limit: {amount_text(budget.unit, spent)} spent of "
        f"{amount_text(budget.unit, budget.limit)}."
    )


def _name(budget: Budget, scope: str) -> str:
    return f"{budget.label!r}{'' if scope == '[]' else f' for {scope}'}"


def _next(resets_at: datetime | None) -> str:
    when = "" if resets_at is None else f"The window rolls over at {resets_at.isoformat(timespec='seconds')}. "
    return f"{when}Raise the limit, or end the run here."


def not_whole(call: Call, lacks: Sequence[str]) -> str:
    """What is wrong with a price that a call cannot be priced by."""
    return f"the price of {call.model!r} has no {' and no '.join(lacks)}"


def price_unknown(call: Call, reason: str, lacks: Sequence[str] = ()) -> str:
    """A call whose price nobody knows, refused because a USD budget applies.

    Args:
        call: The call.
        reason: What is missing.
        lacks: `"input"` or `"output"`, where the rest of its price is known.
    """
    if lacks:
        given = ", ".join(f'{name}="…"' for name in lacks)
        return (
            f"No cost is known for a call of {call.model!r} of provider {call.provider!r} ({reason}), and a USD budget "
            f'applies. Nothing was sent. Give {given} in prices={{"{call.model}": Price(…)}} ("0" where it costs '
            f'nothing, or "free" for the whole model), or allow an amount for each such call: on_unpriced="0.05".'
        )
    return (
        f"No price is known for model {call.model!r} of provider {call.provider!r} ({reason}), "
        f"and a USD budget applies. Nothing was sent. Declare it where the budget is made:\n"
        f"{_declared(call)}\n"
        f'or allow an amount for each unpriced call: on_unpriced="0.05".'
    )


def recorded_unpriced(call: Call, not_whole: str | None) -> str:
    """A call without a (whole) price that nothing refuses."""
    if not_whole is not None:
        return f"{not_whole[0].upper()}{not_whole[1:]}; its calls of {call.provider!r} are recorded without a cost."
    return f"No price is known for {call.model!r} of {call.provider!r}; its calls are recorded without a cost."


def unresolved(call: Call, budget: Budget) -> str:
    """A deployment that cannot be matched to a model while a budget matches on model."""
    return (
        f"Budget {budget.label!r} matches on model, and {call.model!r} of provider {call.provider!r} is no known "
        f"model. Nothing was sent. Declare which it is with a price of its own:\n"
        f"{_declared(call)}"
    )


def _declared(call: Call) -> str:
    """The lines of which one fixes it."""
    return (
        f'    prices={{"{call.model}": Price(input="0.15", output="0.60", per=1_000_000)}}\n'
        f'    prices={{"{call.model}": SameAs("provider/model")}}  # a deployment or an alias\n'
        f'    prices={{"{call.model}": "free"}}'
    )


def unbounded(call: Call, reason: str) -> str:
    """A call without an upper bound under `reserve="worst_case"`."""
    return (
        f'reserve="worst_case" cannot bound this call of {call.model!r}: {reason}. Nothing was sent. '
        f'Set what is missing, or use reserve="expected".'
    )
