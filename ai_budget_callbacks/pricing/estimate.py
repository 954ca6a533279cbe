"""What a call may cost, before it is sent. Pure functions from sizes and rate cards to a hold.

Two readings of one request: `expected` (what such calls usually take) and `worst_case` (what this one can take
at most). Facts behind the constants: facts/pricing.md 6. Byte-level BPE never yields more tokens than UTF-8
bytes, so bytes plus framing bound OpenAI's input; for Claude and Gemini the same bound is unproven
(docs/limits.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_budget_callbacks.pricing.card import Unpriced
from ai_budget_callbacks.pricing.limits import (
    image_tokens,
    max_output_tokens,
    reasons_out_of_sight,
    searches_unasked,
    thinks_beyond_limit,
)
from ai_budget_callbacks.usage import OUTPUT_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_budget_callbacks.pricing.card import RateCard
    from ai_budget_callbacks.usage import Call

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


def expected_input(call: Call, learned: Learned) -> int:
    """Input tokens a request is likely to have; an image counts as the most that its model is known to make of one."""
    request = call.request
    image = max(image_tokens(call.provider, call.model) or 0, OTHER_PART_GUESS) if request.images else 0
    top, bottom = (learned.text_bytes, learned.text_tokens) if learned.text_tokens else (_FIRST_BYTES, _FIRST_TOKENS)
    return (
        -(-request.text_bytes * bottom // top)
        + FRAMING_PER_MESSAGE * request.messages
        + -(-request.tool_bytes // TOOL_BYTES_PER_TOKEN)
        + OTHER_PART_GUESS * request.other_parts
        + image * request.images
    )


def expected(call: Call, cards: Sequence[RateCard], learned: Learned) -> Estimate:
    """What such a call usually takes.

    Args:
        call: The call.
        cards: The card that is expected to apply, alone in a sequence.
        learned: Observations of this model (and node).
    """
    request = call.request
    input_tokens = expected_input(call, learned)
    output_tokens = _expected_output(call, learned) if request.output else 0
    return _estimate(call, cards, input_tokens, output_tokens, hosted=len(request.hosted_tools))


def _expected_output(call: Call, learned: Learned) -> int:
    limit = max_output_tokens(call.provider, call.model)
    guess = min(FIRST_OUTPUT_GUESS, limit or FIRST_OUTPUT_GUESS) * call.request.choices
    if call.request.background and (most := call.request.max_output_tokens or limit) is not None:
        return most * call.request.choices  # nobody will see what it took, and others' sizes say nothing of it
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
    image = image_tokens(call.provider, call.model) or 0
    if request.other_parts or (request.images and not image):
        return Unpriced(reason="images, audio and files have no proven token bound; reserve a USD amount instead")
    if request.hosted_tools:
        tools = ", ".join(request.hosted_tools)
        return Unpriced(reason=f"the number of hosted tool calls ({tools}) has no bound; reserve a USD amount instead")
    if searches_unasked(call.model):
        return Unpriced(reason=f"the fee of the searches of {call.model} is not known; reserve a USD amount instead")
    text = request.text_bytes if request.text_tokens is None else min(request.text_tokens, request.text_bytes)
    input_tokens = (
        text
        + request.tool_bytes
        + image * request.images
        + FRAMING_PER_MESSAGE * request.messages
        + FRAMING_PER_TOOL * request.tools
        + FRAMING_PER_REQUEST
    )
    if not request.output:
        return _estimate(call, cards, input_tokens, 0)
    most = max_output_tokens(call.provider, call.model)
    per_choice = request.max_output_tokens or most
    if thinks_beyond_limit(call.provider, call.model):
        if most is None or call.provider == "perplexity":
            return Unpriced(
                reason=f"nothing is known to bound the reasoning of {call.model}; reserve a USD amount instead"
            )
        per_choice = (request.max_output_tokens or 0) + most  # visible output by max_tokens, thoughts by the model
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
        usd = max(usd, base + card.dearest(OUTPUT_BUCKETS, output_tokens, input_tokens))
        floor = max(floor, base + card.dearest(("output_text",), min(1, output_tokens), input_tokens))
    return Estimate(usd_pico=usd, floor_pico=floor, input_tokens=input_tokens, output_tokens=output_tokens)


def _input_buckets(call: Call) -> tuple[str, ...]:
    if call.request.cache_control:
        return ("input_uncached", "cache_write", "cache_write_5m", "cache_write_1h")
    # a price of one's own names no provider; other sellers of OpenAI's models bill its cache writes too
    if call.provider in _AUTOMATIC_CACHE or "openai" in call.model or "gpt-" in call.model:
        return ("input_uncached", "cache_write")
    return ("input_uncached",)
