"""Worst-case holds through the real clients of both frameworks: counted by the model's own tokenizer, images included."""

from __future__ import annotations

from decimal import Decimal

import pytest
from langchain_core.messages import HumanMessage

from ai_budget_callbacks import Budget, PriceUnknown
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.events import CallReserved
from ai_budget_callbacks.pricing.tokenizer import token_counter
from tests.flow.kit import audit, chat, claude
from tests.support.provider import ClaudeReply

needs_tokenizer = pytest.mark.skipif(token_counter("openai", "gpt-4o") is None, reason="no tokenizer file on this disk")
TEXT = "two plus two is four. " * 50  # 1,100 bytes and 301 tokens of o200k_base
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
REPLY = Reply(text="hi", input_tokens=20, output_tokens=5)


def held(handler, far, content, *, reserve="worst_case", **options):
    """USD held for one call of gpt-4o-mini with at most 10 output tokens."""
    events = []
    budget = handler(Budget(usd="5"), reserve=reserve, listeners=[events.append])
    settings = {"max_tokens": 10, "service_tier": "default"} | options
    chat(far, **settings).invoke([HumanMessage(content)], config={"callbacks": [budget]})
    (amount,) = [event.held_usd for event in events if isinstance(event, CallReserved)]
    return amount


@needs_tokenizer
def test_a_prompt_is_held_at_its_tokens_where_its_tokenizer_is_on_this_disk(serve, handler, ledger):
    far = serve(REPLY)
    # (301 + 16 + 512) x 0.15 + 10 x 0.60 a million; by its bytes it would be (1,100 + 528) x 0.15 + 6
    assert held(handler, far, TEXT) == Decimal("0.00013035")
    assert held(handler, far, [{"type": "text", "text": TEXT}]) == Decimal("0.00013035")
    audit(far, ledger, requests=2, entries=2, usd="0.000012")


def test_a_model_without_a_public_tokenizer_is_held_at_its_bytes(serve, handler):
    events = []
    budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
    claude(serve(ClaudeReply(text="hi")), max_tokens=10).invoke(TEXT, config={"callbacks": [budget]})
    # (1,100 + 16 + 512) x 3 + 10 x 15 a million
    assert [event.held_usd for event in events if isinstance(event, CallReserved)] == [Decimal("0.005034")]


@needs_tokenizer
def test_an_image_is_held_at_the_most_it_can_be_and_sound_is_refused(serve, handler, ledger):
    far = serve(REPLY)
    # two images of 2,833 + 8 x 5,667 = 48,169 tokens
    content = [{"type": "text", "text": TEXT}, PIXEL, PIXEL]
    assert held(handler, far, content) == Decimal("0.00013035") + 2 * Decimal("0.00722535")
    with pytest.raises(PriceUnknown, match="no proven token bound"):
        held(handler, far, [{"type": "text", "text": "hi"}, SOUND])
    audit(far, ledger, requests=1, entries=1)


def test_an_expected_hold_of_a_small_model_has_room_for_an_image(serve, handler):
    far = serve(REPLY)
    # bytes / 2.5, 16 and the image: (440 + 16 + 48,169) x 0.15 + 10 x 0.60 a million
    content = [{"type": "text", "text": TEXT}, PIXEL]
    assert held(handler, far, content, reserve="expected") == Decimal("0.00729975")
