"""What earlier answers taught: read once from a real ledger, then from the answers of this process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ai_budget_callbacks.learned import Samples
from ai_budget_callbacks.pricing.estimate import Learned
from ai_budget_callbacks.usage import Call, Request
from tests.support.books import call, posting
from tests.support.goldens import usage


def made(call_id="a", *, model="m", provider="p", node=None, **request) -> Call:
    return replace(call(call_id, model=model, provider=provider, node=node), request=Request(**request))


def book(ledger, *outputs, node=None, model="m", provider="p", start=0):
    """Answers of this many output tokens, in order."""
    for number, output in enumerate(outputs, start):
        asked = call(f"{provider}-{model}-{node}-{number}", model=model, provider=provider, node=node)
        ledger.settle(posting(asked, 5, usage=usage(input_uncached=1, output_text=output)))


def outputs(samples, **fields):
    return samples.learned(made(**fields)).outputs


def teach(samples, *counts, node=None, model="m", provider="p"):
    for count in counts:
        samples.learn(made(node=node, model=model, provider=provider), usage(output_text=count))


# -- how long answers get


def test_nothing_is_known_of_a_model_without_answers(ledger):
    assert Samples(ledger).learned(made()) == Learned(text_bytes=0, text_tokens=0, outputs=())


def test_the_latest_64_answers_of_the_ledger_are_known_oldest_first(ledger):
    book(ledger, *range(1, 71))
    book(ledger, 999, model="other")
    book(ledger, 998, provider="elsewhere")
    assert outputs(Samples(ledger)) == tuple(range(7, 71))


def test_what_is_learned_now_comes_after_and_the_oldest_goes(ledger):
    book(ledger, *range(1, 65))
    samples = Samples(ledger)
    assert outputs(samples) == tuple(range(1, 65))
    teach(samples, 100, 200)
    assert outputs(samples) == (*range(3, 65), 100, 200)


def test_of_a_node_too_only_the_latest_64_are_known(ledger):
    samples = Samples(ledger)
    outputs(samples)
    teach(samples, *range(1, 71), node="draft")
    assert outputs(samples, node="draft") == tuple(range(7, 71))


def test_a_ledger_is_asked_once_for_each_model(ledger):
    samples = Samples(ledger)
    assert outputs(samples) == ()
    book(ledger, 5)
    assert outputs(samples) == (), "every call asked the ledger"
    assert outputs(samples, model="n") == ()
    book(ledger, 6, model="o")
    assert outputs(samples, model="o") == (6,)


def test_a_node_with_eight_answers_speaks_for_itself(ledger):
    book(ledger, *range(1, 8), node="draft")
    book(ledger, 50, 60)
    samples = Samples(ledger)
    everything = (*range(1, 8), 50, 60)
    assert outputs(samples, node="draft") == everything, "seven answers were enough"
    teach(samples, 8, node="draft")
    assert outputs(samples, node="draft") == tuple(range(1, 9))
    assert outputs(samples) == outputs(samples, node="review") == (*everything, 8)


def test_nodes_of_other_models_and_providers_are_others(ledger):
    samples = Samples(ledger)
    for provider, model in (("p", "m"), ("q", "m"), ("p", "n")):
        outputs(samples, provider=provider, model=model)
    teach(samples, *range(1, 9), node="draft")
    teach(samples, *range(10, 18), node="draft", provider="q")
    teach(samples, *range(20, 28), node="draft", model="n")
    assert outputs(samples, node="draft") == tuple(range(1, 9))
    assert outputs(samples, node="draft", provider="q") == tuple(range(10, 18))
    assert outputs(samples, node="draft", model="n") == tuple(range(20, 28))


def test_what_was_learned_before_the_first_look_is_not_counted_twice(ledger):
    samples = Samples(ledger)
    book(ledger, 5)
    teach(samples, 5)  # the answer that is on the ledger already
    teach(samples, 7, model="n")
    assert outputs(samples) == (5,)
    assert outputs(samples, model="n") == ()


def test_a_charge_teaches_nothing(ledger):
    samples = Samples(ledger)
    outputs(samples)
    samples.learn(replace(made(text_bytes=500), kind="charge"), usage(output_text=5, input_uncached=9))
    assert samples.learned(made()) == Learned()


def test_the_number_of_models_is_bounded(ledger):
    samples = Samples(ledger)
    for number in range(1_000):
        outputs(samples, model=f"m{number}")
        samples.learn(made(model=f"m{number}", text_bytes=300), usage(input_uncached=116, output_text=number + 1))
    assert outputs(samples, model="m0") == (1,)
    assert samples.learned(made(model="m999")) == Learned(text_bytes=300, text_tokens=100, outputs=(1_000,))
    assert outputs(samples, model="one more") == ()
    assert samples.learned(made(model="m999")) == Learned(), "what was forgotten is loaded again"


# -- how many bytes make a token


@pytest.mark.parametrize(
    ("request_", "tokens", "ratio"),
    [
        ({"text_bytes": 1_000, "messages": 1}, 216, (1_000, 200)),  # 16 are framing
        ({"text_bytes": 1_000, "messages": 3}, 248, (1_000, 200)),
        ({"text_bytes": 1_000, "messages": 1, "tool_bytes": 302}, 316, (1_000, 200)),  # 100 are the tools
        ({"text_bytes": 1_000, "messages": 1, "tool_bytes": 302}, 416, (1_000, 300)),
        ({"text_bytes": 1_000, "messages": 1}, 17, (1_000, 200)),  # no text has more than 5 bytes a token
        ({"text_bytes": 1_004, "messages": 1}, 17, (1_004, 200)),
        ({"text_bytes": 1_000, "messages": 1}, 5_000, (1_000, 1_000)),  # nor less than 1
        ({"text_bytes": 1_000, "messages": 1}, 16, (0, 0)),
        ({"text_bytes": 1_000, "messages": 1}, 3, (0, 0)),
        ({"text_bytes": 256, "messages": 1}, 116, (256, 100)),
        ({"text_bytes": 255, "messages": 1}, 116, (0, 0)),
        ({"text_bytes": 1_000, "messages": 1, "other_parts": 1}, 216, (0, 0)),
    ],
)
def test_the_ratio_of_one_answer(ledger, request_, tokens, ratio):
    samples = Samples(ledger)
    outputs(samples)
    samples.learn(made(**request_), usage(input_uncached=tokens, output_text=1))
    found = samples.learned(made())
    assert (found.text_bytes, found.text_tokens) == ratio
    assert found.outputs == (1,)


def test_ratios_add_up_by_model_and_the_latest_weigh_most(ledger):
    samples = Samples(ledger)
    big = made(text_bytes=600_000, messages=0)
    samples.learn(big, usage(input_uncached=200_000))
    samples.learn(made(text_bytes=400_000, messages=0), usage(input_uncached=100_000))
    samples.learn(made(model="n", text_bytes=300, messages=0), usage(input_uncached=100))

    def ratio(model="m", provider="p"):
        found = samples.learned(made(model=model, provider=provider))
        return found.text_bytes, found.text_tokens

    assert ratio() == (1_000_000, 300_000)
    assert ratio("n") == (300, 100)
    assert ratio(provider="q") == (0, 0)
    samples.learn(made(text_bytes=300, messages=0), usage(input_uncached=101))
    assert ratio() == (1_000_300, 300_101), "a million bytes were halved"
    samples.learn(made(text_bytes=300, messages=0), usage(input_uncached=100))
    assert ratio() == (500_450, 150_150)


def test_past_a_million_bytes_both_are_halved_to_whole_numbers(ledger):
    samples = Samples(ledger)
    samples.learn(made(text_bytes=1_000_001, messages=0), usage(input_uncached=300_001))
    samples.learn(made(text_bytes=300, messages=0), usage(input_uncached=100))
    found = samples.learned(made())
    assert (found.text_bytes, found.text_tokens) == (500_300, 150_100)


def test_a_ratio_of_one_token_keeps_it(ledger):
    samples = Samples(ledger)
    samples.learn(made(text_bytes=256, messages=0), usage(input_uncached=1))
    assert samples.learned(made()).text_tokens == 51  # a fifth of the bytes
