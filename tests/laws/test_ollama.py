"""What the reader of Ollama's own API makes of an answer, of one without counts, and of damage."""

from __future__ import annotations

import pytest

from ai_budget_callbacks.usage import Usage
from ai_budget_callbacks.usage.flat import read


def test_both_counts_are_read_and_the_text_is_not_kept():
    counts = {"prompt_eval_count": 16, "eval_count": 51}
    buckets = {"input_uncached": 16, "output_text": 51}
    assert read(counts | {"model": "llama3", "response": "secret"}) == Usage(
        buckets=buckets, reader="ollama/1", raw=counts
    )


@pytest.mark.parametrize(
    ("raw", "buckets", "flags"),
    [
        ({"prompt_eval_count": 16}, {"input_uncached": 16}, ()),  # an embedding
        ({"prompt_eval_count": None, "eval_count": 51}, {"output_text": 51}, ()),  # a prompt that was cached
        ({"prompt_eval_count": "16", "eval_count": 51}, {"output_text": 51}, ("invalid_count",)),
    ],
)
def test_one_count_is_better_than_none(raw, buckets, flags):
    found = read(raw)
    assert (dict(found.buckets), found.flags, found.raw) == (buckets, flags, raw)


@pytest.mark.parametrize("raw", [None, {}, {"prompt_eval_count": None}, {"eval_count": 0}, {"eval_count": "7"}])
def test_without_a_count_usage_is_absent_not_zero(raw):
    assert read(raw) is None
