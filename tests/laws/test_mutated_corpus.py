"""Every recorded usage with one field, or several, damaged: never an exception, never a silent zero.

One field at a time in twelve ways, and for each answer twenty times two to five of them (fixed seeds).
"""

from __future__ import annotations

import copy
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage import BUCKETS, Usage
from ai_budget_callbacks.usage.wire import read_body
from tests.support.corpus import cassette, index, wire_json
from tests.support.mutants import KINDS, NONSENSE, counters, mutated, pruned, reordered, several, whole_floats

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOK = PriceBook()
AT = datetime.fromisoformat("2026-11-24T13:00:00+00:00")
TIMES = 20  # random damages of each answer
CASES = 58_000  # 2026-11-25; a corpus or a mutator that shrinks must not pass

# Words that decide what a count is, and are none: another word is another reading, of as many tokens.
WORDS = {"modality", "ttl", "type", "model", "model_id", "modelVersion", "event_type", "action"}
# A whole report that is damaged is an event that reports nothing: in a stream another one holds.
REPORTS = {"usage", "usageMetadata", "meta", "amazon-bedrock-invocationMetrics"}
PROVIDERS = {"azure-openai": "azure", "bedrock": "aws", "google-gemini": "google", "google-vertex": "google"}


class Answer(NamedTuple):
    """One recorded answer with usage, without its content."""

    key: str
    body: Any
    whole: Any
    headers: dict[str, Any]
    asked: str
    provider: str

    def read(self, body: Any) -> Usage | None:
        return read_body(body, headers=self.headers, model=self.asked).usage


@cache
def answers() -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for recording in index():
        for call in recording["calls"]:
            if call["expected_usage"] is None:
                continue
            response = cassette(recording["file"])[call["index"]]["response"]
            whole = wire_json(response["body"]["string"])
            key = f"{recording['file'].removeprefix('recordings/')}#{call['index']}"
            answer = Answer(
                key, pruned(whole), whole, response["headers"], call["request_model"], recording["provider"]
            )
            if not answer.read(answer.body).nothing:
                found.setdefault(recording["provider"], []).append(answer)
    return found


each_provider = pytest.mark.parametrize("provider", sorted({recording["provider"] for recording in index()}))


def said(found: Usage) -> tuple[Any, ...]:
    return dict(found.buckets), found.flags, found.others, found.terms


def changes(answer: Answer) -> Iterator[tuple[str, str, Any]]:
    body = copy.deepcopy(answer.body)
    yield from mutated(body)
    for words, damaged in several(body, answer.key, TIMES):
        yield "several", words, damaged


def counts(body: Any) -> Iterator[int]:
    """Positive counts that stand somewhere in what is left of a usage."""
    for holder, key in counters(body):
        if type(holder[key]) is int and 0 < holder[key] < 10**9 and not key.endswith("_v2"):
            yield holder[key]


def fault(answer: Answer, base: Usage, kind: str, key: str, body: Any) -> str | None:
    """What is wrong with the reading of a damaged answer, or None."""
    found = answer.read(body)
    if found is None:
        return None  # absent: counted by us and said so, never free
    for usage in (found.buckets, *(other.buckets for other in found.others)):
        if not all(bucket in BUCKETS and type(count) is int and count > 0 for bucket, count in usage.items()):
            return f"unsound {usage}"
    if found.nothing and not found.flags and any(counts(body)):
        return "counts that are there were read as nothing"
    changed = (found.buckets, found.others) != (base.buckets, base.others)
    quiet = set(found.flags) <= set(base.flags)
    if kind in NONSENSE and changed and quiet and key not in {*WORDS, *REPORTS}:
        if kind == "object" and (found.total_tokens == base.total_tokens or "inconsistent" in base.flags):
            return None  # details that say nothing we know are no details
        if kind != "list" or found.total_tokens != base.total_tokens:
            return f"nonsense changed {dict(base.buckets)} into {dict(found.buckets)} and no flag says so"
    provider = PROVIDERS.get(answer.provider, answer.provider)
    cost = BOOK.price(found, provider=provider, model=answer.asked, requested=answer.asked, at=AT)
    if cost.status in {"priced", "reported"} and not cost.pico:
        return f"priced at 0: {dict(found.buckets)}"
    return None


@each_provider
def test_no_damage_raises_or_becomes_a_silent_zero(provider):
    for answer in answers().get(provider, ()):
        base = answer.read(answer.body)
        for kind, key, body in changes(answer):
            wrong = fault(answer, base, kind, key, body)
            assert wrong is None, f"{answer.key}: {key} ({kind}): {wrong}"


@each_provider
def test_the_order_of_keys_and_the_type_of_whole_numbers_change_nothing(provider):
    for answer in answers().get(provider, ()):
        base = said(answer.read(answer.body))
        assert said(answer.read(answer.whole)) == base, f"{answer.key}: content was read as usage, or usage cut away"
        assert said(answer.read(reordered(answer.whole))) == base, f"{answer.key}: the order of keys"
        assert said(answer.read(whole_floats(answer.body))) == base, f"{answer.key}: whole floats"


@each_provider
def test_a_field_that_is_said_twice_is_counted_once(provider):
    """Under the name of another version of the same client, as servers that serve both write it."""
    for answer in answers().get(provider, ()):
        body = copy.deepcopy(answer.body)
        for holder, key in list(counters(body)):
            for twin in TWINS.get(key, ()):
                holder.setdefault(twin, holder[key])
        base, found = answer.read(answer.body), answer.read(body)
        assert dict(found.buckets) == dict(base.buckets), answer.key


TWINS = {
    "prompt_tokens": ("input_tokens",),
    "completion_tokens": ("output_tokens",),
    "prompt_tokens_details": ("input_tokens_details",),
    "completion_tokens_details": ("output_tokens_details",),
    "promptTokenCount": ("prompt_token_count",),
    "candidatesTokenCount": ("candidates_token_count",),
    "thoughtsTokenCount": ("thoughts_token_count",),
    "cachedContentTokenCount": ("cached_content_token_count",),
    "toolUsePromptTokenCount": ("tool_use_prompt_token_count",),
    "totalTokenCount": ("total_token_count",),
    "cacheReadInputTokens": ("cacheReadInputTokenCount",),
    "cacheWriteInputTokens": ("cacheWriteInputTokenCount",),
}


def test_the_mutations_are_as_many_as_they_were():
    found = answers()
    assert len(found) == 22
    fields = sum(1 for group in found.values() for answer in group for _ in counters(answer.body))
    assert fields * len(KINDS) + TIMES * sum(map(len, found.values())) > CASES
