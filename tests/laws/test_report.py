"""What people see: totals that say how much of them is estimated, unknown or unpriced, by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType

import pytest

from ai_budget_callbacks.calltree import call_tree
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.ledger import Entry
from ai_budget_callbacks.money import usd_with_sign
from ai_budget_callbacks.report import grouped_rows, summarise
from ai_budget_callbacks.usage import Usage

PICO = 10**12
BASE = Entry(
    id=1, kind="call", status="priced", reason=None, at=datetime(2026, 11, 24, 12, tzinfo=UTC),
    started_at=datetime(2026, 11, 24, 12, tzinfo=UTC), call_id="c", framework="langchain", provider="openai",
    model="gpt-4o-mini", requested_model="gpt-4o-mini", response_model=None, response_id=None, run_id="r", user="alice",
    thread=None, agent="clerk", node="model", tool=None, tool_call_id=None, metadata=MappingProxyType({"job": "nightly"}),
    usage=Usage(buckets=MappingProxyType({"input_uncached": 1000, "output_text": 100})), cost_pico=210_000_000,
    booked_pico=210_000_000, booked_tokens=1100, adjusts=None, flags=(), lines=(), source=None,
)  # fmt: skip
ENTRIES = [
    BASE,
    replace(BASE, id=2, user="bob", node="tools", tool="search", status="estimated", cost_pico=100_000_000,
            booked_pico=300_000_000),
    replace(BASE, id=3, status="unknown", usage=None, cost_pico=None, booked_pico=500_000_000),
    replace(BASE, id=4, status="unpriced", model="my-own", cost_pico=None, booked_pico=None),
    replace(BASE, id=5, status="free", reason="framework cache", usage=None, cost_pico=0, booked_pico=0),
]  # fmt: skip


def test_totals_say_what_they_rest_on():
    summary = summarise(ENTRIES)
    assert summary.calls == 5
    assert summary.cost_usd == Decimal("0.00031"), "known costs: 0.00021 + 0.0001"
    assert summary.booked_usd == Decimal("0.00101"), "0.00021 + 0.0003 + 0.0005"
    assert summary.estimated_usd == Decimal("0.0003")
    assert summary.unknown_usd == Decimal("0.0005")
    assert summary.unpriced_calls == 1
    assert (summary.input_tokens, summary.output_tokens) == (3000, 300)


def test_a_late_answer_takes_its_call_out_of_the_unknown():
    late = replace(BASE, id=6, kind="adjustment", adjusts=3, booked_pico=-290_000_000)  # 0.00021 instead of 0.0005
    summary = summarise([*ENTRIES, late])
    assert summary.calls == 5, "one response is one call, whenever its end was seen"
    assert summary.unknown_usd == 0
    assert summary.cost_usd == Decimal("0.00052")
    assert summary.booked_usd == Decimal("0.00072")


def test_groups_are_the_dearest_first_and_sum_to_the_total():
    summary = summarise(ENTRIES)
    assert {key: str(t.cost_usd) for key, t in summary.by("user").items()} == {"alice": "0.00021", "bob": "0.0001"}
    assert list(summary.by("user")) == ["alice", "bob"]
    assert summary.by("step")["tools"].calls == summary.by("node")["tools"].calls == 1
    assert summary.by("tool")["search"].cost_usd == Decimal("0.0001")
    for dimension in ("step", "agent", "tool", "model", "user", "provider", "thread", "run", "status", "day"):
        total = sum(t.cost_pico for t in summary.by(dimension).values())
        assert total == summary.totals.cost_pico, f"money is lost between the {dimension} groups"
    with pytest.raises(ConfigError, match="No such grouping 'colour'"):
        summary.by("colour")


def test_printed():
    assert str(summarise(ENTRIES)) == (
        "5 calls, 3000 + 300 tokens, $0.00031 ($0.0003 estimated; $0.0005 booked for calls whose outcome is unknown; "
        "1 unpriced calls in no total; 1 free; $0.00101 booked on budgets)\n"
        "  by step\n"
        "    model  4 calls  2000 + 200 tokens  $0.00021\n"
        "    tools  1 calls  1000 + 100 tokens   $0.0001\n"
        "  by agent\n"
        "    clerk  5 calls  3000 + 300 tokens  $0.00031\n"
        "  by tool\n"
        "    (none)  4 calls  2000 + 200 tokens  $0.00021\n"
        "    search  1 calls  1000 + 100 tokens   $0.0001\n"
        "  by model\n"
        "    gpt-4o-mini  4 calls  2000 + 200 tokens  $0.00031\n"
        "    my-own       1 calls  1000 + 100 tokens        $0\n"
        "  by user\n"
        "    alice  4 calls  2000 + 200 tokens  $0.00021\n"
        "    bob    1 calls  1000 + 100 tokens   $0.0001"
    )


def test_a_negative_sum_has_its_sign_before_the_dollar():
    """As of a report of the day a price was corrected: 0.00021 taken back. What programs read is a number."""
    back = replace(BASE, kind="adjustment", adjusts=9, cost_pico=-210_000_000, booked_pico=-110_000_000)
    summary = summarise([back])
    head = "0 calls, 1000 + 100 tokens, -$0.00021 (-$0.00011 booked on budgets)"
    assert str(summary).splitlines()[0] == head
    assert summary.to_markdown().startswith("**-$0.00021** in 0 calls")
    assert "<b>-$0.00021</b>" in summary._repr_html_()
    assert str(call_tree([back])).splitlines()[0] == "r  0 calls  -$0.00021 (-$0.00011 booked on budgets)"
    assert (summary.to_dict()["cost_usd"], grouped_rows([back], ["user"])[0]["cost_usd"]) == ("-0.00021", "-0.00021")
    assert [usd_with_sign(pico) for pico in (3_500_000_000, 0, -3_500_000_000)] == ["$0.0035", "$0", "-$0.0035"]


def test_markdown_dict_and_html_agree():
    summary = summarise(ENTRIES)
    assert summary.to_markdown().startswith("**$0.00031** in 5 calls, 3000 + 300 tokens")
    assert "| bob | 1 | 1000 | 100 | 0.0001 |" in summary.to_markdown()
    data = summary.to_dict()
    assert (data["cost_usd"], data["booked_usd"], data["by"]["user"]["alice"]["cost_usd"]) == (
        "0.00031",
        "0.00101",
        "0.00021",
    )
    assert "<td>bob</td><td>1</td>" in summary._repr_html_()
    hostile = summarise([replace(BASE, user="<script>")])
    assert "<script>" not in hostile._repr_html_()


def test_rows_by_several_columns_and_a_metadata_key():
    rows = grouped_rows(ENTRIES, ["user", "job"])
    assert [(r["user"], r["job"], r["calls"], r["cost_usd"]) for r in rows] == [
        ("alice", "nightly", 4, "0.00021"),
        ("bob", "nightly", 1, "0.0001"),
    ]


def test_a_metadata_key_goes_before_what_an_entry_has_under_its_name():
    """`source` of an entry is the provenance of its price, `kind` what it is, `tool` a column of reports."""
    named = replace(BASE, metadata=MappingProxyType({"source": "web", "kind": "chat", "tool": "mine", "cost_usd": "x"}),
                    source=MappingProxyType({"kind": "catalogue"}))  # fmt: skip
    items = [named, replace(BASE, id=2, source=MappingProxyType({"kind": "catalogue"}))]
    for name, values in {
        "source": ["(none)", "web"],
        "kind": ["(none)", "chat"],
        "tool": ["(none)"],
        "metadata.tool": ["(none)", "mine"],
        "metadata.cost_usd": ["(none)", "x"],
    }.items():
        rows = grouped_rows(items, [name])
        assert [row[name] for row in rows] == values
        assert sum(row["calls"] for row in rows) == 2


@pytest.mark.parametrize("name", ["calls", "input_tokens", "cost_usd", "booked_usd", "free_calls"])
def test_sums_are_nothing_to_group_by(name):
    for items in (ENTRIES, []):
        with pytest.raises(ConfigError, match=rf"'{name}' is a sum, and nothing to group by \(step, agent"):
            grouped_rows(items, ["user", name])
    with pytest.raises(ConfigError, match=rf"For the metadata key, write metadata\.{name}\.$"):
        grouped_rows([replace(BASE, metadata=MappingProxyType({name: "x"}))], [name])


def test_nothing_is_no_money():
    summary = summarise([])
    assert (summary.calls, summary.cost_usd, str(summary)) == (0, 0, "0 calls, 0 + 0 tokens, $0")
