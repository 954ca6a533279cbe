"""Laws over every card of every provider, and over every recorded answer and stream.

About details that an answer leaves out, exactly: where it states its totals, an answer without its details has the same
number of tokens, costs what all of it uncached and as text costs, never more than that, and never less than with the
details as long as no detail costs more than its parent (cache writes and audio do: what is not said cannot be billed).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.pricing import PriceBook, RateCard
from ai_budget_callbacks.pricing.card import price_usage
from ai_budget_callbacks.usage import INPUT_BUCKETS, OUTPUT_BUCKETS, Terms, Usage, bedrock, google, openai
from ai_budget_callbacks.usage.wire import read_body
from tests.laws.test_mutated_corpus import Answer, answers, each_provider, said
from tests.support.goldens import NOW, usage

PICO = 10**12
BOOK = PriceBook()
TERMS = (
    Terms(),
    Terms(batch=True),
    Terms(service_tier="flex"),
    Terms(service_tier="priority"),
    Terms(inference_geo="us"),
    Terms(search_context="low"),
)
TOKENS = (*INPUT_BUCKETS, *OUTPUT_BUCKETS)


@cache
def listed() -> dict[str, list[RateCard]]:
    """Every card that is not free, under every terms that have one, by provider."""
    from genai_prices.data import providers  # only for the names

    found: dict[str, list[RateCard]] = {}
    for provider in providers:
        for model in provider.models:
            for terms in TERMS:
                card = BOOK.card(provider.id, model.id, terms, NOW)
                if isinstance(card, RateCard) and not card.free:
                    found.setdefault(provider.id, []).append(card)
    return found


@st.composite
def cards(draw: st.DrawFn, *needs: str) -> RateCard:
    """A card of any provider (drawn first, so that OpenRouter's 763 are no more likely than Cohere's 9)."""
    able = {name: [card for card in group if all(map(card.rate, needs))] for name, group in listed().items()}
    return draw(st.sampled_from(draw(st.sampled_from([group for _, group in sorted(able.items()) if group]))))


def cost(card: RateCard, **buckets: int) -> int:
    found = price_usage(usage(**buckets), card)
    assert found.status == "priced", found.reason
    return found.pico


def thresholds(card: RateCard) -> list[int]:
    return sorted({tier.above for rate in card.rates.values() for tier in rate.tiers})


def test_there_are_cards_of_every_provider():
    assert len(listed()) >= 46
    assert {"aws", "google", "x-ai", "deepseek", "cohere", "mistral", "groq", "perplexity"} <= listed().keys()
    assert sum(map(len, listed().values())) > 2_400


# -- the multiplication


@settings(max_examples=500, deadline=None)
@given(cards(), st.data())
def test_cost_is_linear_in_every_bucket_inside_one_tier(card, data):
    bucket = data.draw(st.sampled_from(sorted({*card.rates, *card.inherits} - {"request_fee"})))
    rate = card.rate(bucket)
    if rate is None:
        return
    edges = [0, *thresholds(card), 10**7]
    low, high = data.draw(st.sampled_from(list(pairwise(edges))))
    base: dict[str, int] = {}
    room = 50_000
    if bucket in INPUT_BUCKETS:
        base, room = ({bucket: low + 1} if low else {}), high - low - 1
    more, most = (data.draw(st.integers(1, max(room // 2, 1))) for _ in range(2))
    amounts = [cost(card, **{**base, bucket: base.get(bucket, 0) + step}) for step in (more, more + most)]
    unit = (amounts[1] - amounts[0]) / Fraction(most)
    usd = rate.step(base.get(bucket, 0) + more if bucket in INPUT_BUCKETS else 0)[1]
    exact = Fraction(usd) * PICO / rate.per
    assert abs(unit - exact) < Fraction(1, most), f"{bucket} of {card.source.model} is not billed in proportion"
    if exact.denominator == 1:
        assert unit == exact


@settings(max_examples=500, deadline=None)
@given(cards("input_uncached", "output_text"), st.data())
def test_a_cost_is_the_sum_of_its_lines_and_each_bucket_alone_adds_what_it_costs(card, data):
    priced = sorted(bucket for bucket in {*card.rates, *card.inherits} if card.rate(bucket))
    buckets = {b: data.draw(st.integers(1, 300_000)) for b in data.draw(st.sets(st.sampled_from(priced), min_size=1))}
    found = price_usage(usage(**buckets), card)
    assert found.pico == sum(line.amount_pico for line in found.lines)
    total = sum(count for bucket, count in buckets.items() if bucket in INPUT_BUCKETS)
    fee = {"request_fee": 1} if "request_fee" in card.rates else {}
    assert {line.bucket: line.count for line in found.lines} == fee | buckets
    for line in found.lines:
        exact = line.count * Fraction(card.rate(line.bucket).step(total)[1]) * PICO / line.per
        assert 0 <= line.amount_pico - exact < 1


def tiered() -> list[RateCard]:
    return [card for group in listed().values() for card in group if thresholds(card)]


def test_a_threshold_is_strict_moves_the_whole_request_and_never_makes_it_cheaper():
    for card in tiered():
        name = f"{card.source.provider}/{card.source.model}"
        output = {"output_text": 1_000} if "output_text" in card.rates else {}
        for above in thresholds(card):
            for bucket in sorted(bucket for bucket in INPUT_BUCKETS if bucket in card.rates):
                at, over = ({bucket: count, **output} for count in (above, above + 1))
                assert cost(card, **over) > cost(card, **at), f"{name}: {bucket} is cheaper past {above}"
                for buckets in (at, over):
                    expected = sum(
                        count * Fraction(step_of(card.rate(each), buckets[bucket])) * PICO / card.rate(each).per
                        for each, count in buckets.items()
                    )
                    assert 0 <= cost(card, **buckets) - expected < 2, f"{name}: {buckets}"


def step_of(rate: Any, total: int) -> Any:
    """The price at a total, from the tiers as they are listed."""
    usd = rate.usd
    for tier in rate.tiers:
        if total > tier.above:
            usd = tier.usd
    return usd


def test_there_are_tiers_of_every_kind():
    assert len(tiered()) > 150
    assert {199_999, 200_000, 272_000} <= {above for card in tiered() for above in thresholds(card)}


@settings(max_examples=400, deadline=None)
@given(cards("input_uncached", "output_text"), st.data())
def test_more_of_anything_never_costs_less_not_even_across_a_tier(card, data):
    priced = sorted(bucket for bucket in {*card.rates, *card.inherits} if card.rate(bucket))
    edges = [above + more for above in thresholds(card) for more in (-1, 0, 1)]
    count = st.one_of(st.integers(1, 400_000), st.sampled_from(edges or [1]))
    buckets = {b: data.draw(count) for b in data.draw(st.sets(st.sampled_from(priced), min_size=1, max_size=4))}
    grown = dict(buckets)
    bucket = data.draw(st.sampled_from(priced))
    grown[bucket] = grown.get(bucket, 0) + data.draw(count)
    if bucket == "request_fee" and bucket not in buckets:
        grown[bucket] += 1  # one is in every request
    assert cost(card, **grown) > cost(card, **buckets)


# -- details that are not there


def unit(card: RateCard, bucket: str, total: int) -> Fraction:
    rate = card.rate(bucket)
    return Fraction(rate.step(total)[1]) / rate.per


def bare_and_detailed(family: str, given: int, made: int, cached: int, thought: int) -> tuple[Usage, Usage]:
    """One answer without its details and with them; its totals are stated in both."""
    if family == "openai":
        bare = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
        detailed = {
            **bare,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
        return openai.read(bare), openai.read(detailed)
    if family == "google":
        whole = {"promptTokenCount": given, "candidatesTokenCount": made - thought, "totalTokenCount": given + made}
        return google.read(whole), google.read(
            {**whole, "cachedContentTokenCount": cached, "thoughtsTokenCount": thought}
        )
    bare = {"inputTokens": given - cached, "outputTokens": made, "totalTokens": given + made}
    return bedrock.read(bare), bedrock.read({**bare, "cacheReadInputTokens": cached})


@settings(max_examples=600, deadline=None)
@given(
    cards("input_uncached", "output_text", "cache_read"),
    st.sampled_from(["openai", "google", "bedrock"]),
    st.integers(1, 300_000),
    st.integers(1, 20_000),
    st.integers(),
    st.integers(),
)
def test_an_answer_without_its_details_costs_what_all_uncached_and_text_costs(
    card, family, given, made, cached, thought
):
    bare, detailed = bare_and_detailed(family, given, made, cached % (given + 1), thought % (made + 1))
    assert bare.total_tokens == detailed.total_tokens == given + made, "tokens that the total states were lost"
    without, with_them = (price_usage(each, card).pico for each in (bare, detailed))
    plain = cost(card, input_uncached=given, output_text=made)
    total = bare.input_tokens
    if family != "bedrock":  # there the caches are on top: what the total says of them is billed as dearer output
        assert abs(without - plain) <= len(bare.buckets)
    dearer = max(unit(card, "cache_read", total) - unit(card, "input_uncached", total), 0) + max(
        unit(card, "output_reasoning", total) - unit(card, "output_text", total), 0
    )
    if not dearer and unit(card, "output_text", total) >= unit(card, "cache_read", total):
        if total == detailed.input_tokens:  # else the tokens moved out of the input, and maybe out of its tier
            assert with_them <= without + 3, "details that got lost made the call cheaper"


# -- every recorded answer


@each_provider
def test_reading_what_was_kept_again_is_the_same_usage(provider):
    for answer in answers().get(provider, ()):
        found = answer.read(answer.body)
        again = read_body(found.raw, headers=found.raw, model=answer.asked).usage
        tools = {"web_search", "grounded_request", "file_search", "code_execution"}  # of the answer, not of its usage
        kept = {name: count for name, count in found.buckets.items() if name not in tools or name in again.buckets}
        assert (dict(again.buckets), again.others) == (kept, found.others), answer.key
        assert read_body(again.raw, headers=again.raw).usage == again, answer.key


def halved(value: Any) -> Any:
    """An earlier, smaller report of the same counters."""
    if isinstance(value, dict):
        return {key: halved(item) for key, item in value.items()}
    return value // 2 if type(value) is int else value


def streams(provider: str) -> list[Answer]:
    return [answer for answer in answers().get(provider, ()) if isinstance(answer.body, list)]


@each_provider
def test_a_stream_cut_into_more_events_or_fewer_reads_the_same(provider):
    for answer in streams(provider):
        base = said(answer.read(answer.body))
        bearing = [event for event in answer.body if answer.read([event]) is not None]
        assert bearing, answer.key
        for name, stream in {
            "silent events between": [
                event for pair in ((e, {}, {"type": "ping"}) for e in answer.body) for event in pair
            ],
            "the last one repeated": [*answer.body, answer.body[-1]],
            "all of it repeated": [*answer.body, *answer.body],
            "smaller reports before": [*(halved(event) for event in answer.body), *answer.body],
        }.items():
            assert said(answer.read(stream)) == base, f"{answer.key}: {name}"
        if not any(event.get("type") == "message_start" for event in answer.body if isinstance(event, dict)):
            units = [event for event in answer.body if "candidates" in event and event not in bearing]
            alone = answer.read([*units, *(bearing if answer.provider == "watsonx" else bearing[-1:])])
            assert dict(alone.buckets) == base[0], f"{answer.key}: the last report alone"


def test_there_are_streams_of_most_providers():
    found = {provider for provider in answers() if streams(provider)}
    assert len(found) >= 14
