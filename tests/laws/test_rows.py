"""An entry's row column by column, written by hand; and back. What a sweep keeps of a call it never saw."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType

import pytest

from ai_budget_callbacks.ledger import Entry, Posting
from ai_budget_callbacks.ledger.rows import call_json, call_of, dumps, entry_fields, entry_of, iso, moment, row_of
from ai_budget_callbacks.ledger.statements import INSERT_ENTRY
from ai_budget_callbacks.pricing import Cost, Line, Source
from ai_budget_callbacks.usage import Call, Other, Request, Terms, Usage, Who

TOKYO = timezone(timedelta(hours=9))
STARTED = datetime(2026, 3, 1, 21, 0, 0, 5, tzinfo=TOKYO)  # noon in UTC
ENDED = datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC)
WHO = Who(
    run_id="run-1",
    root_seen=True,
    user="alice",
    thread="thread-1",
    agent="writer",
    node="draft",
    tool="search",
    tool_call_id="tool-1",
    metadata=MappingProxyType({"tenant": "acme"}),
    path=(("run-1", "graph"), ("step-2", "draft")),
)
CALL = Call(
    id="call-1",
    framework="langchain",
    provider="openai",
    model="gpt-x",
    started_at=STARTED,
    who=WHO,
    request=Request(text_bytes=99, messages=3),
)
SOURCE = Source(kind="user", name="prices['gpt-x']", provider="p", model="gpt-x-priced", rule="declared")
# 5 x 2 + 7 x 10 USD a million
LINES = (
    Line("input_uncached", 5, Decimal(2), 1_000_000, 10_000_000),
    Line("output_text", 7, Decimal("1E+1"), 1_000_000, 70_000_000),
)
FULL = Posting(
    call=CALL,
    status="priced",
    reason="why",
    ended_at=ENDED,
    usage=Usage(
        buckets=MappingProxyType({"input_uncached": 5, "output_text": 7}),
        reader="openai.chat",
        raw={"prompt_tokens": 5},
        flags=("inconsistent",),
        terms=Terms(service_tier="flex", batch=True),
    ),
    cost=Cost(status="priced", pico=80_000_000, lines=LINES, source=SOURCE),
    booked_pico=80_000_000,
    booked_tokens=12,
    response_id="resp-1",
    response_model="gpt-x-2026",
    content='{"in": "hi"}',
)
BARE = Posting(
    call=Call(id="call-2", framework="direct", provider="any", model="m", started_at=ENDED),
    status="unknown",
    ended_at=ENDED,
)

FULL_ROW = {
    "key": "call:call-1",
    "kind": "call",
    "status": "priced",
    "reason": "why",
    "at": "2026-03-01T12:00:07.000000+00:00",
    "started_at": "2026-03-01T12:00:00.000005+00:00",
    "call_id": "call-1",
    "framework": "langchain",
    "provider": "openai",
    "model": "gpt-x-priced",
    "requested_model": "gpt-x",
    "response_model": "gpt-x-2026",
    "response_id": "resp-1",
    "run_id": "run-1",
    "user": "alice",
    "thread": "thread-1",
    "agent": "writer",
    "node": "draft",
    "tool": "search",
    "tool_call_id": "tool-1",
    "cost_pico": 80_000_000,
    "booked_pico": 80_000_001,
    "booked_tokens": 12,
    "adjusts": 4,
    "metadata": '{"tenant":"acme"}',
    "usage": '{"input_uncached":5,"output_text":7}',
    "raw_usage": '{"prompt_tokens":5}',
    "input_tokens": 5,
    "output_tokens": 7,
    "text_bytes": 99,
    "cost_usd": "0.00008",
    "amounts": '{"1":80000000,"2":12}',
    "held": '{"1":90000000}',
    "reader": "openai.chat",
    "flags": '["inconsistent"]',
    "lines": '[{"bucket":"input_uncached","count":5,"unit_price_usd":"2","per":1000000,"amount_usd":"0.00001"},'
    '{"bucket":"output_text","count":7,"unit_price_usd":"10","per":1000000,"amount_usd":"0.00007"}]',
    "source": '{"kind":"user","name":"prices[\'gpt-x\']","provider":"p","model":"gpt-x-priced","rule":"declared",'
    '"terms":"standard","corrections":[]}',
    "content": '{"in": "hi"}',
    "path": '[["run-1","graph"],["step-2","draft"]]',
    "terms": '{"service_tier":"flex","batch":true}',
}
BARE_ROW = {
    **dict.fromkeys(FULL_ROW),
    "key": "k",
    "kind": "call",
    "status": "unknown",
    "at": "2026-03-01T12:00:07.000000+00:00",
    "started_at": "2026-03-01T12:00:07.000000+00:00",
    "call_id": "call-2",
    "framework": "direct",
    "provider": "any",
    "model": "m",
    "requested_model": "m",
    "booked_tokens": 0,
    "text_bytes": 0,
    "amounts": "{}",
    "held": "{}",
}


def full_fields(**change):
    return entry_fields(FULL, kind="call", booked_pico=80_000_001, adjusts=4) | change


def written(entry, **more):
    """The row by column, as the statement names them."""
    names = INSERT_ENTRY.partition("(")[2].partition(")")[0].split(", ")
    return dict(zip(names, row_of(entry, **more), strict=True))


def test_every_column_of_a_full_entry_by_hand():
    row = written(
        full_fields(),
        key="call:call-1",
        amounts={1: 80_000_000, 2: 12},
        held={1: 90_000_000},
        text_bytes=99,
        content='{"in": "hi"}',
    )
    assert row == FULL_ROW


def test_every_column_of_a_bare_entry_by_hand():
    bare = entry_fields(BARE, kind="call", booked_pico=None, adjusts=None)
    assert written(bare, key="k", amounts={}, held={}, text_bytes=0, content=None) == BARE_ROW


def test_a_row_reads_back_as_the_entry_it_was():
    entry = entry_of({"id": 8, **FULL_ROW})
    assert {item.name: getattr(entry, item.name) for item in fields(Entry)} == {
        "id": 8,
        "kind": "call",
        "status": "priced",
        "reason": "why",
        "at": ENDED,
        "started_at": datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC),
        "call_id": "call-1",
        "framework": "langchain",
        "provider": "openai",
        "model": "gpt-x-priced",
        "requested_model": "gpt-x",
        "response_model": "gpt-x-2026",
        "response_id": "resp-1",
        "run_id": "run-1",
        "user": "alice",
        "thread": "thread-1",
        "agent": "writer",
        "node": "draft",
        "tool": "search",
        "tool_call_id": "tool-1",
        "metadata": {"tenant": "acme"},
        "usage": Usage(
            buckets={"input_uncached": 5, "output_text": 7},
            reader="openai.chat",
            raw={"prompt_tokens": 5},
            flags=("inconsistent",),
            terms=Terms(service_tier="flex", batch=True),
        ),
        "cost_pico": 80_000_000,
        "booked_pico": 80_000_001,
        "booked_tokens": 12,
        "adjusts": 4,
        "flags": ("inconsistent",),
        "lines": (
            {"bucket": "input_uncached", "count": 5, "unit_price_usd": "2", "per": 1_000_000, "amount_usd": "0.00001"},
            {"bucket": "output_text", "count": 7, "unit_price_usd": "10", "per": 1_000_000, "amount_usd": "0.00007"},
        ),
        "source": {
            "kind": "user",
            "name": "prices['gpt-x']",
            "provider": "p",
            "model": "gpt-x-priced",
            "rule": "declared",
            "terms": "standard",
            "corrections": [],
        },
        "path": (("run-1", "graph"), ("step-2", "draft")),
        "terms": Terms(service_tier="flex", batch=True),
        "added_tokens": None,
    }


def test_what_an_entry_does_not_have_reads_back_as_nothing():
    entry = entry_of({"id": 9, **BARE_ROW})
    assert (entry.usage, entry.source, entry.cost_pico, entry.booked_pico, entry.adjusts) == (None,) * 5
    assert (entry.flags, entry.lines, entry.path, dict(entry.metadata)) == ((), (), (), {})
    assert (entry.terms, entry.added_tokens, entry.input_tokens, entry.output_tokens) == (None, None, 0, 0)
    counted = entry_of({"id": 9, **BARE_ROW, "usage": '{"output_text":7}'}).usage
    assert (dict(counted.buckets), counted.reader, counted.raw, counted.flags) == (
        {"output_text": 7},
        "counted",
        None,
        (),
    )


def test_another_models_usage_stands_under_its_name_and_comes_back():
    advice = Other(model="claude-advisor", buckets={"input_uncached": 3, "output_text": 2})
    usage = replace(FULL.usage, others=(advice,))
    row = written(full_fields(usage=usage), key="k", amounts={}, held={}, text_bytes=0, content=None)
    assert row["usage"] == '{"input_uncached":5,"output_text":7,"claude-advisor":{"input_uncached":3,"output_text":2}}'
    assert (row["input_tokens"], row["output_tokens"]) == (8, 9)
    back = entry_of({"id": 8, **row}).usage
    assert (back.others, dict(back.buckets), back.total_tokens) == (
        (advice,),
        {"input_uncached": 5, "output_text": 7},
        17,
    )


def test_the_entry_handed_out_is_the_one_that_is_read_back():
    assert entry_of({"id": 8, **FULL_ROW}) == Entry(
        id=8,
        **full_fields(
            at=ENDED,
            started_at=STARTED,
            usage=replace(FULL.usage, raw={"prompt_tokens": 5}),
        ),
    )


@pytest.mark.parametrize(
    ("source_model", "response_model", "priced"),
    [("priced", "said", "priced"), ("", "said", "said"), (None, "said", "said"), (None, None, "gpt-x")],
)
def test_an_entry_names_the_model_that_was_priced_then_the_one_that_answered(source_model, response_model, priced):
    source = None if source_model is None else Source(kind="user", name="n", model=source_model)
    cost = Cost(status="priced", pico=1, source=source)
    posting = Posting(call=CALL, status="priced", ended_at=ENDED, cost=cost, response_model=response_model)
    found = entry_fields(posting, kind="call", booked_pico=1, adjusts=None)
    assert (found["model"], found["requested_model"], found["response_model"]) == (priced, "gpt-x", response_model)
    assert (found["source"] is None) == (source is None)


# -- what a sweep keeps

KEPT = (
    '{"kind":"call","framework":"langchain","provider":"openai","model":"gpt-x",'
    '"started_at":"2026-03-01T12:00:00.000005+00:00","text_bytes":99,'
    '"who":["run-1","alice","thread-1","writer","draft","search","tool-1"],"root_seen":true,'
    '"metadata":{"tenant":"acme"},"path":[["run-1","graph"],["step-2","draft"]]}'
)


def test_a_call_is_kept_as_it_was_but_for_the_sizes_of_its_request():
    assert call_json(CALL) == KEPT
    found = call_of("call-1", KEPT)
    assert (found.id, found.kind, found.key) == ("call-1", "call", "call-1")
    assert (found.framework, found.provider, found.model) == ("langchain", "openai", "gpt-x")
    assert (found.started_at, found.who, found.request) == (STARTED, WHO, Request(text_bytes=99))


def test_a_charge_is_kept_as_a_charge_and_its_id_without_the_kind():
    found = call_of("charge:use-1", KEPT.replace('"kind":"call"', '"kind":"charge"'))
    assert (found.id, found.kind, found.key) == ("use-1", "charge", "charge:use-1")


def test_a_call_kept_before_there_were_kinds_and_paths_is_a_call_without_a_path():
    kept = {name: value for name, value in json.loads(KEPT).items() if name not in {"kind", "path"}}
    found = call_of("call:odd", json.dumps(kept))
    assert (found.id, found.kind, found.who.path) == ("call:odd", "call", ())


# -- text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1, "b": [True, None]}, '{"a":1,"b":[true,null]}'),
        ({1: 2}, '{"1":2}'),
        ({"a": Decimal("0.10")}, '{"a":"0.10"}'),
        ("ü", '"ü"'),
        ({"a": 2**80}, '{"a": 1208925819614629174706176}'),  # past 64 bits
        ({"a": 2**80, "b": Decimal("0.10")}, '{"a": 1208925819614629174706176, "b": "0.10"}'),
        ("\ud800", '"\\ud800"'),  # half a character
    ],
    ids=repr,
)
def test_json_of_whatever_a_provider_sends(value, text):
    assert dumps(value) == text


def test_times_are_text_in_utc_that_sorts_and_comes_back():
    assert iso(STARTED) == "2026-03-01T12:00:00.000005+00:00"
    assert iso(ENDED) == "2026-03-01T12:00:07.000000+00:00"
    assert moment("2026-03-01T12:00:00.000005+00:00") == STARTED
