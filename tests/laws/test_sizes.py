"""How large a prompt is: every text and every JSON value is in its bytes and, where a tokenizer counts, in its tokens."""

from __future__ import annotations

from ai_budget_callbacks.sizes import Measure


def two(text: str) -> int | None:
    """A tokenizer of two tokens a text, for which a long one is not worth counting."""
    return 2 if len(text) < 100 else None


def test_texts_are_added_up_in_bytes_and_in_tokens():
    measure = Measure(two)
    for text in ("héllo", "world"):
        measure.text(text)
    assert (measure.bytes, measure.tokens) == (11, 4)


def test_json_is_taken_for_a_token_a_byte():
    measure = Measure(two)
    measure.text("hello")
    measure.json({"a": 1})  # {"a": 1}
    measure.opaque(7)
    assert (measure.bytes, measure.tokens) == (5 + 8 + 7, 2 + 8 + 7)


def test_one_text_that_is_not_counted_leaves_bytes_alone_for_all():
    measure = Measure(two)
    measure.text("hello")
    measure.text("x" * 100)
    measure.text("world")
    measure.json([])
    assert (measure.bytes, measure.tokens) == (5 + 100 + 5 + 2, None)


def test_without_a_tokenizer_there_are_no_tokens():
    measure = Measure()
    measure.text("hello")
    assert (measure.bytes, measure.tokens, measure.images, measure.parts, measure.cached) == (5, None, 0, 0, False)
