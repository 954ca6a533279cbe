"""`ai-budget reprice`, `what-if` and `reconcile`: the whole output, on a ledger that the real meter wrote.

Published unit prices, USD a million tokens: gpt-4o-mini 0.15 input, 0.075 cached, 0.60 output; gpt-4o 2.50 and 10;
gpt-4.1-nano 0.10, 0.025 cached and 0.40; claude-opus-4-5 5, 0.50 read, 25; web search $10 a thousand.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

import pytest
import time_machine
from click.testing import CliRunner

from ai_budget_callbacks import Budget, Meter
from ai_budget_callbacks.cli import correct, main
from ai_budget_callbacks.ledger import Query, open_ledger
from ai_budget_callbacks.meter import Outcome
from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.reprice import apply, reprice
from ai_budget_callbacks.usage import Call, Request, Usage, Who, anthropic, openai
from tests.support.audit import read_back
from tests.support.books import audit

ROOT = Path(__file__).parents[2]
NOW = "2026-11-25T13:00:00Z"
RAW = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
CACHED = RAW | {"prompt_tokens_details": {"cached_tokens": 400}}
DATED = "gpt-4o-mini-2024-07-18"


@pytest.fixture
def path(tmp_path):
    """Two days: 23 November two calls of gpt-4o-mini and one of Claude; 24 November six of several kinds."""
    where = str(tmp_path / "spend.db")
    numbers = iter(range(99))

    def spend(day, usage, model, provider="openai", *, user="alice", kind="answer", answered=None):
        at = datetime(2026, 11, day, 12, tzinfo=UTC)
        with time_machine.travel(at, tick=False):
            call = Call(
                id=f"call-{next(numbers)}", framework="direct", provider=provider, model=model, started_at=at,
                who=Who(run_id=f"run-{day}", root_seen=True, user=user),
                request=Request(text_bytes=400, max_output_tokens=100),
            )  # fmt: skip
            meter.settle(meter.reserve(call), Outcome(kind=kind, usage=usage, response_model=answered))

    with time_machine.travel(datetime(2026, 11, 23, 12, tzinfo=UTC), tick=False):
        meter = Meter([Budget(usd="5", per="total", name="all")], ledger=where, on_unpriced="0.05")
    spend(23, openai.read(RAW), "gpt-4o-mini", answered=DATED)
    spend(23, openai.read(RAW), "gpt-4o-mini", user="bob", answered=DATED)
    claude = {"input_tokens": 10, "cache_creation_input_tokens": 1000, "output_tokens": 100}
    spend(23, anthropic.read(claude), "claude-opus-4-5", "anthropic", answered="claude-opus-4-5-20251101")
    stale = Usage(buckets={"input_uncached": 1000, "output_text": 100}, reader="openai/0", raw=CACHED)
    spend(24, stale, "gpt-4o-mini", answered=DATED)
    spend(24, openai.read(RAW).with_units({"web_search": 2}), "gpt-4o", answered="gpt-4o-2024-08-06")
    spend(24, None, "gpt-4o", kind="unknown")
    spend(24, openai.read(RAW), "brand-new")
    spend(24, openai.read(RAW), "gpt-4o-mini", user="bob", kind="cached")
    meter.close()
    return where


def run(*args, stdin=None, code=0):
    """(stdout, stderr) of a command, at `NOW`."""
    with time_machine.travel(NOW, tick=False):
        result = CliRunner().invoke(main, list(args), input=stdin)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def rows(*args, stdin=None):
    """The rows, which must be the same in every form."""
    as_json = json.loads(run(*args, "--json", stdin=stdin)[0])
    assert [json.loads(line) for line in run(*args, "--nl", stdin=stdin)[0].splitlines()] == as_json
    as_csv = list(csv.DictReader(io.StringIO(run(*args, "--csv", stdin=stdin)[0])))
    assert as_csv == [{name: str(value) for name, value in row.items()} for row in as_json]
    assert run(*args, "--table", stdin=stdin) == run(*args, stdin=stdin), "a table is the default"
    return as_json


def table(text):
    return [line.rstrip() for line in text.strip("\n").splitlines()]


# -- reprice


def test_reprice_is_a_dry_run(path):
    """600 x 0.15 + 400 x 0.075 + 100 x 0.60 = 0.00018, where a reader with a fault had booked 0.00021."""
    before = Path(path).read_bytes()
    out, notes = run("reprice", "--ledger", path)
    assert table(out) == table("""
  entry  model          was_usd    is_usd    difference_usd  status    why
-------  -----------  ---------  --------  ----------------  --------  ------
      4  gpt-4o-mini    0.00021   0.00018          -0.00003  priced    reader
""")
    assert table(notes) == [
        f"1 of brand-new left as booked: no price: genai-prices {version('genai-prices')} does not know 'brand-new' of provider 'openai'.",
        "1 calls differ, by -$0.00003 in all. Nothing was written; --apply posts it.",
    ]
    assert Path(path).read_bytes() == before
    assert [row["entry"] for row in rows("reprice", "--ledger", path)] == [4]


def test_reprice_applies_once(path):
    before = read_back(path)
    out, notes = run("reprice", "--apply", "--ledger", path, "--json")
    assert [row["difference_usd"] for row in json.loads(out)] == ["-0.00003"]
    assert notes.splitlines()[-1] == f"1 adjustments posted in {path}, -$0.00003 in all."
    after = read_back(path)
    assert after.entries[:-1] == before.entries, "an entry was changed"
    assert after.spent()[0] - before.spent()[0] == after.cost_usd - before.cost_usd == Decimal("-0.00003")
    again, notes = run("reprice", "--apply", "--ledger", path)
    assert (again, notes.splitlines()[0]) == ("", "Nothing would be booked otherwise today.")
    assert read_back(path) == after
    assert audit(path) == []
    assert run("verify", "--ledger", path)[0] == f"{path}: the books add up; 0 open holds.\n"
    report = json.loads(run("report", "--ledger", path, "--json")[0])
    assert [(row["calls"], row["cost_usd"]) for row in report if row["model"] == "gpt-4o-mini"] == [(4, "0.0006")]
    assert (
        "adjustment: gpt-4o-mini  0 + 0 tokens  -$0.00003 (repriced: reader)"
        in run("show", "run-24", "--ledger", path)[0]
    )


def test_reprice_looks_only_where_it_is_told(path):
    for args in (("--since", "2026-11-25"), ("--run", "run-23"), ("--model", "gpt-4o")):
        assert json.loads(run("reprice", "--ledger", path, *args, "--json")[0]) == []
    for args in (("--since", "2d"), ("--run", "run-24"), ("--model", DATED)):
        assert [row["entry"] for row in json.loads(run("reprice", "--ledger", path, *args, "--json")[0])] == [4]
    assert "There is no run 'nowhere'" in run("reprice", "--ledger", path, "--run", "nowhere", code=1)[1]
    missing = run("reprice", "--apply", "--ledger", f"{path}.none", code=1)
    assert (missing[0], Path(f"{path}.none").exists()) == ("", False)


def test_reprice_of_a_model_that_nobody_called_is_an_error(path):
    """It said that nothing would be booked otherwise, with exit code 0."""
    for args, where in (
        ((), "on the books"),
        (("--since", "2d"), "since 2d"),
        (("--run", "run-23"), "in run 'run-23'"),
    ):
        out, notes = run("reprice", "--model", "gpt-4o-mni", *args, "--ledger", path, code=1)
        assert (out, notes) == ("", f"No calls of 'gpt-4o-mni' {where}; `ai-budget report` lists the models.\n")
    found = json.loads(run("reprice", "--model", "GPT-4o-mini", "--ledger", path, "--json")[0])
    assert [row["entry"] for row in found] == [4]


def test_reprice_beside_another_one_says_what_it_posted_itself(path, capsys):
    """Both found the difference of 0.00003 before either posted it."""
    stores = [open_ledger(path), open_ledger(path)]
    both = [[item for item in reprice(list(store.entries(Query())), PriceBook()) if not item.left] for store in stores]
    for store, found in zip(stores, both, strict=True):
        correct._say(found, found, apply(store, found, datetime.now(UTC)), store)
        store.close()
    assert capsys.readouterr().err.splitlines() == [
        f"1 adjustments posted in {path}, -$0.00003 in all.",
        f"0 adjustments posted in {path}, $0 in all. 1 had been posted by somebody else by then.",
    ]


@pytest.mark.parametrize(
    ("output", "printed"),
    [((), b"unpriced \\u2192 priced"), (("--csv",), b"unpriced \\u2192 priced")],
    ids=["table", "csv"],
)
def test_a_terminal_without_the_sign_does_not_end_a_command_that_posted(path, tmp_path, output, printed):
    """The money was posted, and the command died of the arrow in "unpriced → priced"."""
    own = tmp_path / "prices.toml"
    own.write_text('[prices.brand-new]\ninput = "1"\noutput = "2"\n')
    command = [
        sys.executable,
        "-m",
        "ai_budget_callbacks",
        "reprice",
        "--apply",
        "--prices",
        str(own),
        "--ledger",
        path,
    ]
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    out = subprocess.run([*command, *output], capture_output=True, check=False, timeout=60, env=env, cwd=ROOT)
    assert (out.returncode, printed in out.stdout, b"Traceback" in out.stderr) == (0, True, False), out.stderr
    assert b"2 adjustments posted" in out.stderr
    # 1000 x 1 + 100 x 2 a million, of the call that had no price
    assert read_back(path).entries[-1]["cost_pico"] == 1_200_000_000
    for args in (("--help",), ("price", "--help"), ("report", "--by", "\u2192")):
        plain = subprocess.run(
            [*command[:3], *args], capture_output=True, check=False, timeout=60, cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "ascii:strict", "AI_BUDGET_LEDGER": path},
        )  # fmt: skip
        assert b"Traceback" not in plain.stderr, args
        assert plain.returncode == (1 if args[0] == "report" else 0)


@pytest.fixture
def corrected(path, tmp_path):
    """The two days with a price for the one call without: 1000 x 1 + 100 x 2 a million = 0.0012 on top of $0.05 held."""
    own = tmp_path / "own.toml"
    own.write_text('[prices.brand-new]\ninput = "1"\noutput = "2"\n')
    run("reprice", "--apply", "--prices", str(own), "--ledger", path)
    return path


def test_the_parts_of_a_corrected_run_add_up_to_it(corrected):
    """The entry without a price stayed one unpriced call beside a top of none."""
    top, *below = rows("show", "run-24", "--ledger", corrected)
    parts = [row for row in below if row["kind"] != "node"]
    assert len(parts) == 7, "five calls and two adjustments"
    for name in ("calls", "input_tokens", "output_tokens", "unpriced_calls", "free_calls"):
        assert sum(row[name] for row in parts) == top[name], name
    for name in ("cost_usd", "booked_usd", "estimated_usd", "unknown_usd"):
        assert sum(Decimal(row[name] or 0) for row in parts) == Decimal(top[name]), name
    # 0.00018 + 0.0235 + 0.0012
    assert (top["cost_usd"], top["unpriced_calls"], top["unknown_usd"]) == ("0.02488", 0, "0.00204")


def test_a_corrected_call_is_reported_under_the_status_it_has_by_now(corrected):
    """24 November: 0.00018, 0.0235 and 0.0012 priced, what had no price at first among them, and $0.00204 held."""
    found = rows("report", "--by", "status", "--since", "2026-11-24", "--ledger", corrected)
    assert [(row["status"], row["calls"], row["cost_usd"], row["booked_usd"], row["unpriced_calls"]) for row in found] == [
        ("priced", 3, "0.02488", "0.02488", 0), ("free", 1, "0", "0", 0), ("unknown", 1, "0", "0.00204", 0)]  # fmt: skip
    (status,) = rows("status", "--ledger", corrected)
    counted = {name: status[name] for name in ("entries", "priced", "unpriced", "unknown", "free", "estimated")}
    assert counted == {"entries": 8, "priced": 6, "unpriced": 0, "unknown": 1, "free": 1, "estimated": 0}
    (row,) = rows("what-if", "--model", "brand-new=gpt-4.1-nano", "--by", "status", "--ledger", corrected)
    # 1000 x 0.10 + 100 x 0.40 a million
    assert (row["status"], row["was_usd"], row["would_be_usd"]) == ("priced", "0.0012", "0.00014")


# -- what-if


def test_what_if(path):
    """3 x (1000 x 0.10 + 100 x 0.40) = 0.00042 instead of 3 x 0.00021."""
    before = Path(path).read_bytes()
    out, notes = run("what-if", "--model", "gpt-4o-mini=gpt-4.1-nano", "--ledger", path)
    assert table(out) == table("""
model        as              calls    was_usd    would_be_usd    difference_usd    left_out    left_out_usd  why_left_out
-----------  ------------  -------  ---------  --------------  ----------------  ----------  --------------  --------------
gpt-4o-mini  gpt-4.1-nano        3    0.00063         0.00042          -0.00021           0               0
""")
    assert notes == (
        "The same tokens at other prices; another model counts and answers otherwise, so its bill would differ. "
        "Nothing was written.\n"
    )
    assert Path(path).read_bytes() == before


def test_what_if_by_user_after_a_correction(path):
    run("reprice", "--apply", "--ledger", path)
    found = rows("what-if", "--model", f"openai/{DATED}=openai/gpt-4.1-nano", "--by", "user", "--ledger", path)
    # alice: 1000 + 100, and 600 + 400 cached + 100: 0.00014 + 0.00006 + 0.00001 + 0.00004
    assert [(row["user"], row["calls"], row["was_usd"], row["would_be_usd"]) for row in found] == [
        ("alice", 2, "0.00039", "0.00025"), ("bob", 1, "0.00021", "0.00014")]  # fmt: skip


def test_what_if_leaves_nothing_out_silently(path):
    """OpenAI has no price for a cache write of five minutes; of the lost call nobody knows what it took."""
    found = rows("what-if", "--model", "gpt-4o=gpt-4.1-nano", "--ledger", path)
    # 1000 x 0.10 + 100 x 0.40 a million and two searches at $10 a thousand
    assert [(row["calls"], row["was_usd"], row["would_be_usd"], row["left_out"], row["why_left_out"]) for row in found] == [
        (1, "0.0235", "0.02014", 1, "1: its outcome was never seen")]  # fmt: skip
    out, notes = run(
        "what-if", "--model", "anthropic/claude-opus-4-5=openai/gpt-4o", "--ledger", path, "--json", code=3
    )
    (row,) = json.loads(out)
    assert (row["calls"], row["would_be_usd"], row["left_out"], row["left_out_usd"]) == (0, "0", 1, "0.0088")
    assert row["why_left_out"] == "1: no price for cache_write_5m of gpt-4o"
    assert notes.splitlines()[-1] == "None of these calls could be priced so."


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("gpt-4o", "--model takes MODEL=OTHER"),
        ("=gpt-4o", "--model takes MODEL=OTHER"),
        ("gpt-4=gpt-4o", "No calls of 'gpt-4' in"),
        ("anthropic/gpt-4o=gpt-4o-mini", "No calls of 'gpt-4o' in"),
        ("gpt-4o=gpt-4.1-nano --model gpt-4o=gpt-4o-mini", "--model gpt-4o=… is given twice."),
        ("openai/GPT-4o=gpt-4.1-nano --model openai/gpt-4o=gpt-4o-mini", "--model openai/gpt-4o=… is given twice."),
        ("gpt-4o=gpt-4o-mini --run run-2", "There is no run 'run-2' in"),
    ],
)
def test_what_if_of_nothing_is_an_error(path, model, said):
    out, notes = run("what-if", "--model", *model.split(" "), "--ledger", path, code=1)
    assert (out, said in notes) == ("", True), notes


def test_what_if_of_calls_that_are_free_or_taken_says_so(tmp_path):
    path = str(tmp_path / "free.db")
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    with time_machine.travel(at, tick=False):
        meter = Meter(ledger=path)
        for name, model, kind in (("a", "gpt-4o", "cached"), ("b", "gpt-4o-mini", "answer")):
            call = Call(id=name, framework="direct", provider="openai", model=model, started_at=at)
            meter.settle(meter.reserve(call), Outcome(kind=kind, usage=openai.read(RAW)))
        meter.close()
    free = "All 1 calls of 'gpt-4o' are free; there is nothing to compare."
    out, notes = run("what-if", "--model", "gpt-4o=gpt-4o-mini", "--ledger", path, code=3)
    assert (out, notes.splitlines()[0], "No calls" in notes) == ("", free, False)
    pair = ("what-if", "--model", "gpt-4o=gpt-4o-mini", "--model", "gpt-4o-mini=gpt-4.1-nano", "--ledger", path)
    # 1000 x 0.10 + 100 x 0.40 a million
    assert [(row["model"], row["would_be_usd"]) for row in rows(*pair)] == [("gpt-4o-mini", "0.00014")]
    assert run(*pair)[1].splitlines()[0] == free
    twice = ("--model", "gpt-4o-mini=gpt-4.1-nano", "--model", "openai/gpt-4o-mini=gpt-4o", "--ledger", path)
    assert run("what-if", *twice)[1].splitlines()[0] == (
        "The calls of 'openai/gpt-4o-mini' are those of --model gpt-4o-mini=…, given before it."
    )


def test_what_if_by_what_is_no_column(path):
    out, notes = run("what-if", "--model", "gpt-4o=gpt-4o-mini", "--by", "usr", "--ledger", path, code=1)
    assert (out, "Did you mean 'user'" in notes) == ("", True)
    out, notes = run("what-if", "--model", "gpt-4o=gpt-4o-mini", "--by", "was_usd", "--ledger", path, code=1)
    assert (out, "'was_usd' is a sum, and nothing to group by" in notes) == ("", True)


# -- reconcile


def day(number):
    return int(datetime(2026, 11, number, tzinfo=UTC).timestamp())


def costs(**days):
    """OpenAI's costs by line item; amounts as text that must not pass through a float."""
    buckets = [
        '{"object": "bucket", "start_time": %d, "end_time": %d, "results": [%s]}'
        % (
            day(int(name[1:])),
            day(int(name[1:])) + 86400,
            ", ".join(
                '{"object": "organization.costs.result", "amount": {"value": %s, "currency": "usd"}, "line_item": %s, "project_id": null}'
                % (value, json.dumps(item))
                for item, value in items.items()
            ),
        )
        for name, items in days.items()
    ]
    return '{"object": "page", "data": [%s], "has_more": false, "next_page": null}' % ", ".join(buckets)


OPENAI_COSTS = costs(
    # 2 x 1000 x 0.15 and 2 x 100 x 0.60 a million
    d23={f"{DATED}, input": "0.000300000000000000", f"{DATED}, output": "0.00012"},
    d24={
        f"{DATED}, input": "0.00009", f"{DATED}, cached input": "3e-05", f"{DATED}, output": "0.00006",
        "gpt-4o-2024-08-06, input": "0.0025", "gpt-4o-2024-08-06, output": "0.0012", "web search tool calls": "0.02",
        "priority | gpt-5-2025-08-07, output, long context": "0.01",
    },
)  # fmt: skip


def test_reconcile_openai_costs(path, tmp_path):
    export = tmp_path / "costs.json"
    export.write_text(OPENAI_COSTS)
    out, notes = run("reconcile", str(export), "--ledger", path)
    assert table(out) == table("""
day         model        verdict        theirs_usd    ours_usd    difference_usd  their_calls      our_calls  input_tokens_difference    output_tokens_difference    why
----------  -----------  -----------  ------------  ----------  ----------------  -------------  -----------  -------------------------  --------------------------  -----------------------------------------------------------------------------------------------------------
2026-11-24  brand-new    only ours                                             0                           1                                                         not in the export; of ours 1 without a price ($0.05 booked)
2026-11-24  gpt-4o       differs            0.0037      0.0035            0.0002                           2                                                         $0.0002 in amounts, and no token counts to tell why; of ours 1 with an outcome nobody saw ($0.00204 booked)
2026-11-24  gpt-4o-mini  differs           0.00018     0.00021          -0.00003                           1                                                         -$0.00003 in amounts, and no token counts to tell why
2026-11-24  gpt-5        only theirs          0.01                          0.01                                                                                     not through us
""")
    assert notes == (
        "openai-costs, 2026-11-23 to 2026-11-24 (UTC): 2 of 6 equal; "
        "theirs $0.0343, ours $0.02413, difference $0.01017.\n"
    )
    run("reprice", "--apply", "--ledger", path)
    found = rows("reconcile", str(export), "--ledger", path, "--all")
    assert [(row["day"][-2:], row["model"], row["verdict"]) for row in found] == [
        ("23", "gpt-4o-mini", "equal"), ("24", "brand-new", "only ours"), ("24", "gpt-4o", "differs"),
        ("24", "gpt-4o-mini", "equal"), ("24", "gpt-5", "only theirs"), ("24", "web_search", "equal")]  # fmt: skip
    assert (
        run("reconcile", str(export), "--ledger", path, "--until", "2026-11-24")[1].splitlines()[0] == "No differences."
    )


def test_amounts_of_an_export_pass_through_no_float(path):
    """21 digits: a float has 16."""
    text = costs(d23={None: "123456789.123456789012"})
    (row,) = rows("reconcile", "-", "--ledger", path, stdin=text)
    assert row["theirs_usd"] == "123456789.123456789012"


def test_reconcile_openai_costs_without_models(path):
    """Whole days: 0.00042 is equal, 0.02371 known of ours on the next.

    Held for the lost call: its 400 bytes as 400 + 16 tokens, after an answer with more tokens than bytes, x 2.50, and
    100 x 10 a million; for the one without a price $0.05.
    """
    text = costs(d23={None: "0.00042"}, d24={None: "0.03"})
    found = rows("reconcile", "-", "--ledger", path, "--all", stdin=text)
    assert [(row["model"], row["verdict"], row["theirs_usd"], row["ours_usd"], row["our_calls"]) for row in found] == [
        ("(all models)", "equal", "0.00042", "0.00042", 2), ("(all models)", "differs", "0.03", "0.02371", 4)]  # fmt: skip
    assert found[1]["why"].endswith("1 with an outcome nobody saw; of ours 1 without a price ($0.05204 booked)")


def test_reconcile_openai_usage(path):
    """Tokens and requests alone; `input_tokens` includes cached ones."""
    result = {"object": "organization.usage.completions.result", "model": DATED, "batch": None, "project_id": None}
    data = [
        {"object": "bucket", "start_time": day(23), "end_time": day(24), "results": [
            result | {"input_tokens": 3000, "output_tokens": 300, "input_cached_tokens": 0, "num_model_requests": 3}]},
        {"object": "bucket", "start_time": day(24), "end_time": day(25), "results": [
            result | {"input_tokens": 1000, "output_tokens": 100, "input_cached_tokens": 400, "num_model_requests": 1}]},
    ]  # fmt: skip
    text = json.dumps({"object": "page", "data": data, "has_more": True, "next_page": "x"})
    found = rows("reconcile", "-", "--ledger", path, "--all", stdin=text)
    told = [
        (row["model"], row["verdict"], row["their_calls"], row["our_calls"], row["input_tokens_difference"], row["why"])
        for row in found
    ]
    assert told[0] == ("gpt-4o-mini", "differs", 3, 2, 1000, "1 calls not through us")
    assert ("gpt-4o-mini", "equal", 1, 1, 0, "") in told
    assert run("reconcile", "-", "--ledger", path, stdin=text)[1].endswith(
        "The export is one page of several (has_more): fetch the next pages, too.\n")  # fmt: skip


ANTHROPIC = {
    "data": [{
        "starting_at": "2026-11-23T00:00:00Z", "ending_at": "2026-11-24T00:00:00Z",
        "results": [
            # cents: 10 x 5 + 1000 x 6.25 + 100 x 25 a million = $0.0088
            {"amount": amount, "currency": "USD", "cost_type": "tokens", "model": "claude-opus-4-5-20251101",
             "description": "Claude Opus 4.5", "token_type": kind, "workspace_id": None}
            for kind, amount in (("uncached_input_tokens", "0.005"), ("cache_creation.ephemeral_5m_input_tokens", "0.625"), ("output_tokens", "0.25"))
        ] + [{"amount": "2", "currency": "USD", "cost_type": "web_search", "model": None, "description": "Web Search Usage"}],
    }],
    "has_more": False, "next_page": None,
}  # fmt: skip


def test_reconcile_anthropic_cost_report_in_cents(path):
    found = rows("reconcile", "-", "--ledger", path, "--all", stdin=json.dumps(ANTHROPIC))
    assert [(row["model"], row["verdict"], row["theirs_usd"], row["ours_usd"]) for row in found] == [
        ("claude-opus-4-5", "equal", "0.0088", "0.0088"), ("web_search", "only theirs", "0.02", "")]  # fmt: skip


def test_reconcile_bills_an_advisor_under_its_own_name(tmp_path):
    """10 x 5 + 100 x 25, and of the advisor 1000 x 1 + 100 x 5 a million; amounts in cents."""
    path = str(tmp_path / "advised.db")
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    advised = {"type": "advisor_message", "model": "claude-haiku-4-5", "input_tokens": 1000, "output_tokens": 100}
    with time_machine.travel(at, tick=False):
        meter = Meter(ledger=path)
        call = Call(id="a", framework="direct", provider="anthropic", model="claude-opus-4-5", started_at=at)
        raw = {"input_tokens": 10, "output_tokens": 100, "iterations": [advised]}
        meter.settle(meter.reserve(call), Outcome(kind="answer", usage=anthropic.read(raw)))
        meter.close()
    bucket = {"starting_at": "2026-11-23T00:00:00Z", "ending_at": "2026-11-24T00:00:00Z"}
    costs = [{"amount": "0.255", "model": "claude-opus-4-5"}, {"amount": "0.15", "model": "claude-haiku-4-5-20251001"}]
    counts = [
        {"model": "claude-opus-4-5", "uncached_input_tokens": 10, "output_tokens": 100},
        {"model": "claude-haiku-4-5-20251001", "uncached_input_tokens": 1000, "output_tokens": 100},
    ]
    for results in (costs, counts):
        text = json.dumps({"data": [bucket | {"results": results}]})
        assert rows("reconcile", "-", "--ledger", path, stdin=text) == []
        assert "2 of 2 equal" in run("reconcile", "-", "--ledger", path, stdin=text)[1]


def test_reconcile_calls_nothing_equal_beside_a_call_without_a_price(tmp_path):
    """1000 x 0.15 + 100 x 0.60 a million, and a call that was in part sound: what it cost is not known here."""
    path = str(tmp_path / "sound.db")
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    with time_machine.travel(at, tick=False):
        meter = Meter(ledger=path)
        for name, raw in (("a", RAW), ("b", RAW | {"prompt_tokens_details": {"audio_tokens": 10}})):
            call = Call(id=name, framework="direct", provider="openai", model="gpt-4o-mini", started_at=at)
            meter.settle(meter.reserve(call), Outcome(kind="answer", usage=openai.read(raw)))
        meter.close()
    text = "date,model,cost_usd\n2026-11-23,gpt-4o-mini,0.00021\n"
    (row,) = rows("reconcile", "-", "--ledger", path, stdin=text)
    assert (row["verdict"], row["ours_usd"], row["difference_usd"]) == ("differs", "0.00021", "0")
    assert row["why"].startswith("of ours 1 without a price")


def test_reconcile_anthropic_usage_report(path):
    counts = {"uncached_input_tokens": 10, "cache_read_input_tokens": 0, "output_tokens": 90,
              "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 1000}}  # fmt: skip
    text = json.dumps({"data": [{"starting_at": "2026-11-23T00:00:00Z", "ending_at": "2026-11-24T00:00:00Z",
                                 "results": [counts | {"model": "claude-opus-4-5-20251101"}]}], "has_more": False})  # fmt: skip
    (row,) = rows("reconcile", "-", "--ledger", path, stdin=text)
    assert (row["verdict"], row["input_tokens_difference"], row["output_tokens_difference"]) == ("differs", 0, -10)
    assert (row["theirs_usd"], row["difference_usd"]) == ("", ""), "an export without amounts says nothing of money"


CSV = f"""date,model,cost_usd,input_tokens,output_tokens,requests
2026-11-23,{DATED},0.00063,3000,300,3
2026-11-23,claude-opus-4-5,0.0089,1010,100,1

2026-11-24,gpt-4o-mini,0.00021,1000,100,1
"""


def test_reconcile_csv_tells_tokens_from_prices(path):
    found = rows("reconcile", "-", "--ledger", path, "--until", "2026-11-24", stdin=CSV)
    assert [(row["model"], row["difference_usd"], row["why"]) for row in found] == [
        ("claude-opus-4-5", "0.0001", "$0.0001 other prices for the same tokens"),
        ("gpt-4o-mini", "0.00021", "1 calls not through us; $0.00021 other tokens"),
    ]
    assert (
        run("reconcile", "-", "--ledger", path, "--until", "2026-11-24", "--tolerance", "0.00021", stdin=CSV)[0] == ""
    )


def test_reconcile_both_at_once(path):
    """500 more input tokens at our 0.15 are 0.000075; the rest of 0.0001 is price."""
    text = f"date,model,cost_usd,input_tokens,output_tokens\n2026-11-23,{DATED},0.00052,2500,200\n"
    (row,) = rows("reconcile", "-", "--ledger", path, "--provider", "openai", stdin=text)
    assert row["why"] == "$0.000075 other tokens; $0.000025 other prices"


def test_reconcile_takes_a_provider_by_any_of_its_names(path):
    """2 x 0.00021. By another letter everything was "only theirs"."""
    text = f"date,model,cost_usd\n2026-11-23,{DATED},0.00042\n"
    for name in ("openai", "OpenAI"):
        (row,) = rows("reconcile", "-", "--ledger", path, "--provider", name, "--all", stdin=text)
        assert (row["verdict"], row["ours_usd"]) == ("equal", "0.00042")


def test_reconcile_with_a_provider_of_no_call_is_an_error(path):
    text = "date,model,cost_usd\n2026-11-23,gpt-4o-mini,0.00042\n"
    out, notes = run("reconcile", "-", "--ledger", path, "--provider", "azure", stdin=text, code=1)
    assert (out, notes) == (
        "",
        "No calls of provider 'azure' from 2026-11-23 to 2026-11-23; those of these days are of anthropic, openai.\n",
    )
    out, notes = run(
        "reconcile", "-", "--ledger", path, "--provider", "anthropic", stdin=text.replace("23", "24"), code=1
    )
    assert (out, notes.endswith("those of these days are of openai.\n")) == ("", True)
    out, notes = run("reconcile", "-", "--ledger", path, "--provider", "openai", stdin=text.replace("23", "12"), code=1)
    assert (out, notes.endswith("these days have no calls at all.\n")) == ("", True)


@pytest.mark.parametrize(
    ("date", "found"),
    [
        ("2026-11-22T23:30:00-05:00", "2026-11-23"),
        ("2026-11-24 01:30:00+02:00", "2026-11-23"),
        ("2026-11-23T23:30:00.5Z", "2026-11-23"),
        ("2026-11-23 23:30:00 UTC", "2026-11-23"),
        ("2026-11-23T23:30", "2026-11-23"),
        (" 2026-11-23 ", "2026-11-23"),
    ],
)
def test_days_of_an_export_are_in_utc(path, date, found):
    """2 x 0.00021 on 23 November. The offset was cut off with the time."""
    for text in (
        f"date,model,cost_usd\n{date},{DATED},0.00042\n",
        json.dumps({"data": [{"date": date, "model": DATED, "usage": 0.00042}]}),
    ):
        (row,) = rows("reconcile", "-", "--ledger", path, "--provider", "openai", "--all", stdin=text)
        assert (row["day"], row["verdict"]) == (found, "equal")


def test_reconcile_openrouter(tmp_path):
    path = str(tmp_path / "router.db")
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    with time_machine.travel(at, tick=False):
        meter = Meter(ledger=path)
        call = Call(id="a", framework="direct", provider="openrouter", model="openai/gpt-4.1", started_at=at)
        raw = RAW | {"cost": "0.001", "is_byok": True, "cost_details": {"upstream_inference_cost": "0.012"}}
        meter.settle(
            meter.reserve(call),
            Outcome(kind="answer", usage=openai.read(raw), response_model="openai/gpt-4.1-2025-04-14"),
        )
        meter.close()
    item = {"date": "2026-11-24", "model": "openai/gpt-4.1", "model_permaslug": "openai/gpt-4.1-2025-04-14", "usage": 0.001,
            "byok_usage_inference": 0.012, "requests": 1, "prompt_tokens": 1000, "completion_tokens": 100, "reasoning_tokens": 0}  # fmt: skip
    (row,) = rows("reconcile", "-", "--ledger", path, "--all", stdin=json.dumps({"data": [item]}))
    assert (row["verdict"], row["theirs_usd"], row["ours_usd"], row["their_calls"]) == ("equal", "0.013", "0.013", 1)
    as_csv = "date,model,usage,byok_usage_inference,requests,prompt_tokens,completion_tokens\n2026-11-24 00:00:00,openai/gpt-4.1,0.001,,2,2000,200\n"
    (row,) = rows("reconcile", "-", "--ledger", path, stdin=as_csv)
    assert (row["verdict"], row["difference_usd"], row["their_calls"]) == ("differs", "-0.012", 2)


def test_reconcile_invents_no_price_where_costs_were_stated(tmp_path):
    """Three calls at $0.01 there, two here: all of the difference is the third, and was told as "other prices"."""
    path = str(tmp_path / "stated.db")
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    with time_machine.travel(at, tick=False):
        meter = Meter(ledger=path)
        for name in ("a", "b"):
            call = Call(id=name, framework="direct", provider="openrouter", model="openai/gpt-4.1", started_at=at)
            meter.settle(meter.reserve(call), Outcome(kind="answer", usage=openai.read(RAW | {"cost": "0.01"})))
        meter.close()
    head = "date,model,usage,requests,prompt_tokens,completion_tokens\n2026-11-24,openai/gpt-4.1,"
    (row,) = rows("reconcile", "-", "--ledger", path, stdin=f"{head}0.03,3,3000,300\n")
    assert (row["ours_usd"], row["difference_usd"], row["why"]) == (
        "0.02", "0.01", "1 calls not through us; $0.01 in amounts; 2 of ours without prices by token to tell why")  # fmt: skip
    (row,) = rows("reconcile", "-", "--ledger", path, stdin=f"{head}0.03,2,2000,200\n")
    assert row["why"] == "$0.01 other prices for the same tokens"


def test_reconcile_invents_no_price_for_tokens_that_had_none_here(tmp_path):
    """1000 x 0.02 a million of an embedding: what 50 output tokens there cost, nobody here knows."""
    path = str(tmp_path / "embedded.db")
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    with time_machine.travel(at, tick=False):
        meter = Meter(ledger=path)
        call = Call(id="a", framework="direct", provider="openai", model="text-embedding-3-small", started_at=at)
        meter.settle(meter.reserve(call), Outcome(kind="answer", usage=openai.read({"prompt_tokens": 1000})))
        meter.close()
    head = "date,model,cost_usd,input_tokens,output_tokens\n2026-11-24,text-embedding-3-small,"
    (row,) = rows("reconcile", "-", "--ledger", path, stdin=f"{head}0.0001,1000,50\n")
    assert (row["ours_usd"], row["why"]) == (
        "0.00002", "$0.00008 in amounts; ours has no price for such tokens to tell why")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"data": [', "The export is not JSON"),
        ('{"error": "no key"}', 'Page 1 of the export has no list "data"'),
        ('{"data": [{"what": 1}]}', "Name the one it is with --format"),
        ('{"data": [], "has_more": false}', 'The export has no rows ("data" is empty); ask the API for the days'),
        ("[]", 'The export has no rows ("data" is empty)'),
        ("[" * 200_000, "nested too deeply"),
        ('{"data": [{"start_time": 1, "results": 5}]}', "bucket 1 of data: results: Input should be a valid list"),
        ("", "The export is empty."),
        (" \n\n", "The export is empty."),
        ("\ndate,model,cost_usd\n", "names no column date, model, cost_usd; it has none."),
        ("date,model,cost_usd,cost_usd\n2026-11-23,a,1,2\n", "names cost_usd more than once; leave one of them out."),
        ('date,model,cost_usd\n2026-11-23,"a,1\n' + "x" * 140_000, "A quote may not be closed there"),
        (
            costs(d23={"x, input": '"much"'}),
            "bucket 1 of data, result 1: amount.value: Input should be a valid decimal",
        ),
        (costs(d23={"x, input": "1e999999"}), "bucket 1 of data, result 1: amount is out of range"),
        (costs(d23={"x, input": "NaN"}), "NaN is no number"),
        (costs(d23={"x, input": "1"}).replace('"usd"', '"eur"'), "its currency is 'eur'; only USD"),
        (costs(d23={"x, input": "1"}).replace(str(day(24)), str(day(30))), "it is longer than a day"),
        ("day,model,usd\n", "names no column date, cost_usd; it has day, model, usd"),
        ("date,model,cost_usd\n2026-11-23,a\n", "line 2: 2 cells under 3 columns"),
        ("date,model,cost_usd\n2026-11-23,a,1\n23.11.2026,a,1\n", "line 3: date: Input should be a valid date"),
        (
            "date,model,cost_usd\n2026-11-23T10:00:00 EST,a,1\n",
            "line 2: date: Input should be a valid date",
        ),
        ('{"data": [{"starting_at": "0001-01-01T00:00:00+05:00", "results": []}]}', "is before the first or after"),
        ("date,model,cost_usd\n2026-11-23,a,1\n2026-11-23,a,-\n", "line 3: cost_usd: Input should be a valid decimal"),
        ("date,model,cost_usd,requests\n2026-11-23,a,1,-2\n", "line 2: requests: Input should be greater than"),
        ("date,model,cost_usd\n", "The export has no rows"),
    ],
)
def test_a_malformed_export_names_the_row(path, text, said):
    out, notes = run("reconcile", "-", "--ledger", path, stdin=text, code=1)
    assert out == ""
    assert said in notes, notes
    assert "Traceback" not in notes


def test_an_export_in_another_coding_or_of_other_days(path):
    assert "no UTF-8" in run("reconcile", "-", "--ledger", path, stdin=b"\xff\xfe", code=1)[1]
    assert (
        "no day of it is left" in run("reconcile", "-", "--ledger", path, "--since", "2026-12-01", stdin=CSV, code=1)[1]
    )
    assert (
        "There is no format 'pdf'" in run("reconcile", "-", "--ledger", path, "--format", "pdf", stdin=CSV, code=1)[1]
    )
    assert (
        "This file is no JSON"
        in run("reconcile", "-", "--ledger", path, "--format", "openai-costs", stdin=CSV, code=1)[1]
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--tolerance", "-1"), "--tolerance is an amount from 0 on, not -1."),
        (("--since", "99999999999d"), "'99999999999d' is an age before the first day there is"),
        (("--since", "99999999999999999999w"), "is an age before the first day there is"),
        (("--since", "0001-01-01T00:00:00+05:00"), "is before the first or after the last day there is in UTC."),
        (("--until", "0001-01-01"), "no day of it is left to compare."),
        (("--until", "2026-11-23"), "no day of it is left to compare."),
    ],
)
def test_options_out_of_range_are_one_line(path, args, said):
    out, notes = run("reconcile", "-", "--ledger", path, *args, stdin=CSV, code=1)
    assert (out, said in notes, notes.count("\n")) == ("", True, 1), notes
    if args[0] == "--since":
        for command in (("report",), ("reprice",), ("what-if", "--model", "gpt-4o=gpt-4o-mini")):
            out, notes = run(*command, "--ledger", path, *args, code=1)
            assert (out, said in notes, notes.count("\n")) == ("", True, 1), notes


def test_an_export_may_have_the_last_day_there_is(path):
    text = "date,model,cost_usd\n9999-12-31,a,1\n"
    assert [row["verdict"] for row in rows("reconcile", "-", "--ledger", path, stdin=text)] == ["only theirs"]


@pytest.mark.parametrize("name", ["reprice", "what-if", "reconcile"])
def test_the_howto_names_every_option(name):
    text = (ROOT / "docs" / "reference.md").read_text() + (ROOT / "docs" / "how-to" / "corrections.md").read_text()
    for option in main.commands[name].params:
        for flag in option.opts:
            assert not flag.startswith("--") or f"{flag}" in text, f"{name} {flag} is in no document"
