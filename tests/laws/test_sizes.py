"""How large a prompt is: every text and every JSON value is in its bytes and, where a tokenizer counts, in its tokens."""

from __future__ import annotations

from datetime import date

import pytest

from ai_budget_callbacks.sizes import Measure, json_size, shown_size, text_bytes


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


def test_without_a_tokenizer_json_brings_no_tokens_either():
    measure = Measure()
    measure.json({"a": 1})
    assert (measure.bytes, measure.tokens) == (8, None)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"a": "é"}, 11),  # {"a": "é"}: two bytes for one letter, and no \u00e9
        ("\ud800", 5),  # half a character, which some tools let through: three bytes and the quotes
        ({"at": date(2026, 11, 25)}, 20),  # what JSON lacks, as its text
    ],
    ids=["two bytes", "half a character", "a day"],
)
def test_json_has_the_size_that_goes_over_the_wire(value, size):
    assert json_size(value) == size


def test_a_text_is_as_long_as_its_longest_form():
    assert text_bytes("abc") == 3
    assert text_bytes("é") == 2
    assert text_bytes("\ufdfa") == 33, "a ligature of 3 bytes that a tokenizer may take apart"
    assert text_bytes("\ud800") == 3


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("héllo", 6),
        ("\ud800", 3),
        (["ab", {"type": "text", "text": "cde"}], 5),
        ([["a"], "b"], 2),
        ({"text": ["ab"]}, 16),  # no text of its own: {"text": ["ab"]}
        ({"n": 1}, 8),
        (7, 1),
        ([], 0),
    ],
    ids=["text", "half a character", "blocks", "lists", "no text", "json", "number", "nothing"],
)
def test_visible_output_is_text_as_it_is_and_the_rest_as_json(value, size):
    assert shown_size(value) == size
