"""The same of LlamaIndex: a worst case counts text by the model's tokenizer, and an image at the most it can be."""

from __future__ import annotations

from decimal import Decimal

import pytest
from llama_index.core.llms import ChatMessage

from ai_budget_callbacks import Budget
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.events import CallReserved
from ai_budget_callbacks.pricing.tokenizer import token_counter
from tests.llama.kit import chat
from tests.support.llama_versions import LACKS_BLOCKS, needs

TEXT = "two plus two is four. " * 50  # 1,100 bytes and 301 tokens of o200k_base


@pytest.mark.skipif(token_counter("openai", "gpt-4o") is None, reason="no tokenizer file on this disk")
@pytest.mark.parametrize(
    ("images", "usd"),
    # (301 + 16 + 512) x 0.15 + 10 x 0.60 a million, and 48,169 x 0.15 for the image
    [(0, "0.00013035"), (1, "0.0073557")],
)
def test_a_prompt_is_held_at_its_tokens_and_its_images(serve, handler, images, usd):
    needs(LACKS_BLOCKS)
    from llama_index.core.llms import ImageBlock, TextBlock

    far, events = serve(Reply(text="hi", input_tokens=20, output_tokens=5)), []
    budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
    blocks = [TextBlock(text=TEXT), *(ImageBlock(url="https://example.com/cat.png") for _ in range(images))]
    model = chat(far, budget, max_tokens=10, additional_kwargs={"service_tier": "default"})
    model.chat([ChatMessage(role="user", blocks=blocks)])
    assert [event.held_usd for event in events if isinstance(event, CallReserved)] == [Decimal(usd)]


def test_a_model_in_the_bodys_extras_is_the_one_that_is_held(serve, handler):
    """It goes over what the client says: gpt-4o, 17 times as dear as gpt-4o-mini."""
    far = serve(Reply(text="hi", input_tokens=20, output_tokens=5))

    def held(**settings):
        events = []
        budget = handler(Budget(usd="5"), reserve="worst_case", listeners=[events.append])
        given = settings.pop("given", {})
        chat(far, budget, max_tokens=10, **settings).chat([ChatMessage(role="user", content=TEXT)], **given)
        (amount,) = [event.held_usd for event in events if isinstance(event, CallReserved)]
        return amount, far.requests[-1].body["model"]

    dear = held(model="gpt-4o")
    extra = {"extra_body": {"model": "gpt-4o"}}
    assert held(additional_kwargs=extra) == held(given=extra) == dear
    assert dear[0] > 10 * held()[0]
