"""What a call may cost, before it is sent. Pure functions from sizes and rate cards to a hold.

Two readings of one request: `expected` (what such calls usually take) and `worst_case` (what this one can take
at most). Facts behind the constants: facts/pricing.md 6. Byte-level BPE never yields more tokens than UTF-8
bytes, so bytes plus framing bound OpenAI's input; for Claude and Gemini the same bound is unproven
(docs/limits.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from ai_budget_callbacks.pricing.card import Unpriced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_budget_callbacks.pricing.card import RateCard
    from ai_budget_callbacks.usage import Call, Request

__all__ = [
    "Estimate",
    "Learned",
    "expected",
    "expected_input",
    "max_output_tokens",
    "reasons_out_of_sight",
    "worst_case",
]

FRAMING_PER_MESSAGE = 16
FRAMING_PER_TOOL = 16
FRAMING_PER_REQUEST = 512
TOOL_BYTES_PER_TOKEN = 3
FIRST_OUTPUT_GUESS = 2_048
OTHER_PART_GUESS = 1_500
ENOUGH_SAMPLES = 8
_FIRST_BYTES, _FIRST_TOKENS = 5, 2  # 2.5 bytes a token until this model's own ratio is known
_OUTPUTS = ("output_text", "output_reasoning", "output_audio")
_AUTOMATIC_CACHE = frozenset({"openai", "azure"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Sizes and price of a call that is about to be made.

    Attributes:
        usd_pico: Pico-dollars to hold, or None when no price is known.
        floor_pico: The least the call can be worth: its input and one output token.
        input_tokens, output_tokens: Tokens to hold.
    """

    usd_pico: int | None
    floor_pico: int | None
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens a token budget holds."""
        return self.input_tokens + self.output_tokens

    @property
    def floor_tokens(self) -> int:
        """Input plus one output token."""
        return self.input_tokens + min(1, self.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What earlier calls of a model taught.

    Attributes:
        text_bytes, text_tokens: Observed sums; their ratio is this model's bytes per token. 0 when unknown.
        outputs: Output tokens of up to 64 latest answers.
    """

    text_bytes: int = 0
    text_tokens: int = 0
    outputs: tuple[int, ...] = ()


def expected_input(request: Request, learned: Learned) -> int:
    """Input tokens a request is likely to have."""
    top, bottom = (learned.text_bytes, learned.text_tokens) if learned.text_tokens else (_FIRST_BYTES, _FIRST_TOKENS)
    return (
        -(-request.text_bytes * bottom // top)
        + FRAMING_PER_MESSAGE * request.messages
        + -(-request.tool_bytes // TOOL_BYTES_PER_TOKEN)
        + OTHER_PART_GUESS * request.other_parts
    )


def expected(call: Call, cards: Sequence[RateCard], learned: Learned) -> Estimate:
    """What such a call usually takes.

    Args:
        call: The call.
        cards: The card that is expected to apply, alone in a sequence.
        learned: Observations of this model (and node).
    """
    request = call.request
    input_tokens = expected_input(request, learned)
    output_tokens = _expected_output(call, learned) if request.output else 0
    return _estimate(call, cards, input_tokens, output_tokens, hosted=len(request.hosted_tools))


def _expected_output(call: Call, learned: Learned) -> int:
    limit = max_output_tokens(call.provider, call.model)
    guess = min(FIRST_OUTPUT_GUESS, limit or FIRST_OUTPUT_GUESS) * call.request.choices
    outputs = sorted(learned.outputs)
    if outputs:
        ninth_decile = outputs[-(-len(outputs) * 9 // 10) - 1]
        guess = ninth_decile if len(outputs) >= ENOUGH_SAMPLES else max(guess, ninth_decile)
    if call.request.max_output_tokens is not None:
        guess = min(guess, call.request.max_output_tokens * call.request.choices)
    return guess


def worst_case(call: Call, cards: Sequence[RateCard]) -> Estimate | Unpriced:
    """What a call can take at most, at the dearest card that may apply.

    Returns:
        The bound, or `Unpriced` naming what has no bound and what to set.
    """
    request = call.request
    if request.other_parts:
        return Unpriced(reason="images, audio and files have no proven token bound; reserve a USD amount instead")
    if request.hosted_tools:
        tools = ", ".join(request.hosted_tools)
        return Unpriced(reason=f"the number of hosted tool calls ({tools}) has no bound; reserve a USD amount instead")
    input_tokens = (
        request.text_bytes
        + request.tool_bytes
        + FRAMING_PER_MESSAGE * request.messages
        + FRAMING_PER_TOOL * request.tools
        + FRAMING_PER_REQUEST
    )
    if not request.output:
        return _estimate(call, cards, input_tokens, 0)
    per_choice = request.max_output_tokens or max_output_tokens(call.provider, call.model)
    if per_choice is None:
        return Unpriced(reason=f"the maximum output of {call.model} is not known; set max_tokens on the model")
    return _estimate(call, cards, input_tokens, per_choice * request.choices)


def _estimate(
    call: Call, cards: Sequence[RateCard], input_tokens: int, output_tokens: int, *, hosted: int = 0
) -> Estimate:
    if not cards:
        return Estimate(usd_pico=None, floor_pico=None, input_tokens=input_tokens, output_tokens=output_tokens)
    usd = floor = 0
    for card in cards:
        if card.free:
            continue
        fees = card.dearest(("request_fee",), 1, 0)
        if hosted:
            fees += hosted * card.dearest(("web_search",), 1, 0)
        base = fees + card.dearest(_input_buckets(call), input_tokens, input_tokens)
        usd = max(usd, base + card.dearest(_OUTPUTS, output_tokens, input_tokens))
        floor = max(floor, base + card.dearest(("output_text",), min(1, output_tokens), input_tokens))
    return Estimate(usd_pico=usd, floor_pico=floor, input_tokens=input_tokens, output_tokens=output_tokens)


def _input_buckets(call: Call) -> tuple[str, ...]:
    if call.request.cache_control:
        return ("input_uncached", "cache_write", "cache_write_5m", "cache_write_1h")
    if call.provider in _AUTOMATIC_CACHE:  # a price of one's own names no provider
        return ("input_uncached", "cache_write")
    return ("input_uncached",)


@cache
def _limits() -> dict[str, dict[str, dict[str, int]]]:
    text = files(__package__).joinpath("data/model_limits.json").read_text(encoding="utf-8")
    return {name: table for name, table in json.loads(text).items() if isinstance(table, dict)}


def _limits_of(provider: str, model: str) -> dict[str, int]:
    table = _limits().get("openai" if provider == "azure" else provider, {})
    name = model.lower()
    while name not in table:  # drop date parts from the end: gpt-4o-2024-08-06 → gpt-4o
        name, dash, suffix = name.rpartition("-")
        if not dash or not suffix.isdigit():
            return {}
    return table[name]


def max_output_tokens(provider: str, model: str) -> int | None:
    """The most output tokens one answer of a model can have (reasoning included), or None when not known."""
    return _limits_of(provider, model).get("max_output_tokens")


def reasons_out_of_sight(provider: str, model: str) -> bool:
    """Whether a model is known to think in tokens that are billed and not shown."""
    return bool(_limits_of(provider, model).get("reasons"))
