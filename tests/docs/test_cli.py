"""The command line: stable output that scripts depend on, exit codes, and every golden through `ai-budget price`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from decimal import Decimal
from pathlib import Path

import pytest
import time_machine
from click.testing import CliRunner

from ai_budget_callbacks import Budget, Meter, Price
from ai_budget_callbacks.cli import main
from ai_budget_callbacks.demo.loopback import LoopbackProvider, Reply
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.support.goldens import shared

ROOT = Path(__file__).parents[2]
GOLDENS = json.loads(shared("facts/pricing_goldens.json").read_text())


def run(*args, stdin=None):
    return CliRunner().invoke(main, list(args), input=stdin)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden["id"])
def test_price_equals_the_golden_to_the_last_digit(golden):
    raw = golden["raw_usage"]
    context = golden.get("price_context", {})
    args = [
        "price",
        "-",
        "--provider",
        golden["provider"],
        "--model",
        golden["model"],
        "--api",
        golden["api"],
        "--json",
    ]
    args += ["--at", golden["request_time_utc"]]
    if "service_tier" in context:
        args += ["--service-tier", context["service_tier"]]
    if isinstance(raw, dict):
        for item, count in raw.get("_output_items", {}).items():
            args += ["--units", f"{item.removesuffix('_call')}={count}"]
        if "_groundingMetadata" in raw:
            args += ["--units", "grounded_request=1"]
        if "_ttl_seconds" in raw:
            args += ["--units", "cache_storage_token_hours=50000"]  # 100,000 tokens for half an hour
    result = run(*args, stdin=json.dumps(raw))
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["cost_usd"] == golden["expected_cost_usd"], f"{golden['id']} is priced wrong"
    assert printed["usage"] == golden["buckets"]
    if "provider_reported_cost" in golden:
        assert (printed["status"], printed["lines"]) == ("reported", [])
    else:
        assert printed["status"] == "priced"
        assert {line["bucket"]: line["count"] for line in printed["lines"]} == golden["buckets"], "a bucket has no line"
    assert not re.search(r"\d[eE][-+]\d", result.stdout), "an amount is printed with an exponent"


def test_no_golden_is_left_out():
    assert len(GOLDENS) == 53


def test_price_reads_a_whole_body_and_takes_its_model_and_tier():
    body = {
        "id": "chatcmpl-1",
        "model": "gpt-5-2025-08-07",
        "service_tier": "priority",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 200}},
    }
    result = run("price", "-", "--provider", "openai", "--at", "2026-11-24T13:00:00Z", "--json", stdin=json.dumps(body))
    # 800 x 2.50 + 200 x 0.25 + 100 x 20 = 4050 per million
    assert json.loads(result.stdout)["cost_usd"] == "0.00405"


def test_price_of_units_alone():
    args = ("price", "-", "--provider", "openai", "--model", "gpt-4o", "--units", "web_search=2", "--json")
    assert json.loads(run(*args, stdin="{}").stdout)["cost_usd"] == "0.02"


@pytest.mark.parametrize(
    ("args", "body", "said"),
    [
        (
            ("--provider", "acme", "--model", "gpt-4o"),
            '{"prompt_tokens": 1}',
            "does not know 'gpt-4o' of provider 'acme'",
        ),
        (("--provider", "openai", "--model", "gpt-4o"), "{}", "reports no usage"),
        (("--provider", "openai"), '{"prompt_tokens": 1}', "names no model"),
        (("--provider", "openai", "--model", "my-own"), '{"prompt_tokens": 1}', "cannot be priced"),
        (
            ("--provider", "openai", "--model", "gpt-4o", "--service-tier", "scale"),
            '{"prompt_tokens": 1}',
            "cannot be priced",
        ),
        (
            ("--provider", "anthropic", "--model", "claude-opus-4-5", "--region", "us"),
            '{"input_tokens": 1}',
            "inference_geo",
        ),
    ],
    ids=["provider", "no usage", "no model", "unknown model", "unknown tier", "unknown region"],
)
def test_price_exits_3_where_it_cannot_price(args, body, said):
    result = run("price", "-", *args, stdin=body)
    assert result.exit_code == 3
    assert said in result.stderr
    assert result.stdout == "", "an amount was printed for what has no price"


@pytest.mark.parametrize(
    ("args", "body", "said"),
    [
        (("--units", "foo=1"), "{}", "--units: there is no bucket foo; there are audio_seconds, "),
        (("--units", "web_search=1", "--units", "web_search=2"), "{}", "--units web_search=… is given twice"),
        (("--units", f"web_search={'9' * 5000}"), "{}", "--units takes BUCKET=N"),
        ((), "[" * 200_000, "nested too deeply"),
        (("--at", "0001-01-01T00:00:00+05:00"), '{"prompt_tokens": 1}', "is before the first or after the last day"),
    ],
)
def test_nonsense_given_to_price_is_one_line(args, body, said):
    result = run("price", "-", "--provider", "openai", "--model", "gpt-4o", *args, stdin=body)
    assert (result.exit_code, result.stdout, said in result.stderr) == (1, "", True), result.output
    assert result.stderr.count("\n") == 1


@pytest.fixture
def ledger(tmp_path):
    """A ledger with 3 calls of alice and 1 of bob: 1000 x 0.15 + 100 x 0.60 = 210 per million each."""
    from langchain_openai import ChatOpenAI

    path = str(tmp_path / "spend.db")
    with LoopbackProvider(Reply(text="hi", input_tokens=1000, output_tokens=100)) as provider:
        handler = BudgetCallbackHandler(Budget(usd="1"), ledger=path)
        model = ChatOpenAI(model="gpt-4o-mini", base_url=provider.base_url, api_key="x")
        for user in ("alice", "alice", "alice", "bob"):
            model.invoke("hi", config={"callbacks": [handler], "metadata": {"user_id": user}})
        handler.close()
    return path


def test_report_rows_are_stable(ledger):
    rows = json.loads(run("report", "--ledger", ledger, "--by", "user,model", "--json").stdout)
    assert [(row["user"], row["model"], row["calls"], row["cost_usd"]) for row in rows] == [
        ("alice", "gpt-4o-mini", 3, "0.00063"),
        ("bob", "gpt-4o-mini", 1, "0.00021"),
    ]
    lines = run("report", "--ledger", ledger, "--by", "user,model", "--nl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(run("report", "--ledger", ledger, "--by", "user", "--csv").stdout)))
    assert [row["cost_usd"] for row in table] == ["0.00063", "0.00021"]
    text = run("report", "--ledger", ledger, "--by", "user").stdout
    assert "alice" in text and "0.00063" in text


def test_report_since(ledger):
    assert json.loads(run("report", "--ledger", ledger, "--since", "1h", "--json").stdout)[0]["calls"] == 4
    assert json.loads(run("report", "--ledger", ledger, "--since", "2099-01-01", "--json").stdout) == []
    assert run("report", "--ledger", ledger, "--since", "yesterday").exit_code == 1


def test_verify_ok_and_wrong(ledger):
    import sqlite3

    assert run("verify", "--ledger", ledger).exit_code == 0
    conn = sqlite3.connect(ledger)
    conn.execute("UPDATE balance SET spent = spent - 1")
    conn.commit()
    conn.close()
    result = run("verify", "--ledger", ledger)
    assert result.exit_code == 1
    assert "spent is" in result.stdout


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_missing_ledger_is_an_error_and_is_not_created(tmp_path, command):
    path = tmp_path / "none.db"
    result = run(command, "--ledger", str(path))
    assert result.exit_code == 1
    assert str(path) in result.stderr
    assert list(tmp_path.iterdir()) == [], "a command that reads created a ledger"


def test_path(monkeypatch):
    assert run("path", "--ledger", "x.db").stdout == "x.db\n"
    monkeypatch.setenv("AI_BUDGET_LEDGER", "/tmp/env.db")
    assert run("path").stdout == "/tmp/env.db\n"


def test_help_of_every_command_and_the_reference_names_it():
    reference = (ROOT / "docs" / "reference.md").read_text()
    for name, command in main.commands.items():
        assert command.help, f"{name} has no help"
        assert f"`ai-budget {name}`" in reference, f"{name} is not in docs/reference.md"
        assert run(name, "--help").exit_code == 0


def test_the_demo_prints_what_the_readme_says(tmp_path):
    out = subprocess.run(
        [sys.executable, "-m", "ai_budget_callbacks", "demo", "--ledger", str(tmp_path / "demo.db")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    told = re.search(r"<!-- demo -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    assert out.stdout.partition("\nThe ledger is")[0].strip() == told.strip()
    assert out.stderr == ""


def test_help_opens_no_framework():
    heavy = ("langchain_core", "sqlite_utils", "genai_prices")
    code = f"""
import sys
from ai_budget_callbacks.cli import main
main(["--help"], standalone_mode=False)
print([m for m in {heavy!r} if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[]")


def test_the_views_are_readable_without_our_code(ledger):
    import sqlite3

    conn = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    conn.row_factory = sqlite3.Row
    rows = {name: [dict(row) for row in conn.execute(f"SELECT * FROM {name}")] for name in (
        "calls", "runs", "spend_by_day", "spend_by_model", "open_holds", "balances")}  # fmt: skip
    conn.close()
    assert [(row["user"], row["cost_usd"], row["booked_usd"]) for row in rows["calls"]] == [
        ("alice", "0.00021", "0.000210000000")] * 3 + [("bob", "0.00021", "0.000210000000")]  # fmt: skip
    assert [row["spent_usd"] for row in rows["runs"]] == ["0.000210000000"] * 4
    assert [(row["calls"], row["spent_usd"]) for row in rows["spend_by_day"]] == [(4, "0.000840000000")]
    assert [(row["model"], row["input_tokens"], row["spent_usd"]) for row in rows["spend_by_model"]] == [
        ("gpt-4o-mini", 4000, "0.000840000000")]  # fmt: skip
    assert rows["open_holds"] == []
    assert [(row["unit"], row["spent"], row["held"]) for row in rows["balances"]] == [
        ("usd", "0.000840000000", "0.000000000000")]  # fmt: skip


def test_sqlite_utils_reads_the_file_as_the_demo_says(ledger):
    out = subprocess.run(
        [sys.executable, "-m", "sqlite_utils", "rows", ledger, "calls", "--limit", "3"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert [row["cost_usd"] for row in json.loads(out.stdout)] == ["0.00021"] * 3


def test_the_live_demo_asks_for_a_key(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run("demo", "--live", "--ledger", str(tmp_path / "live.db"))
    assert result.exit_code == 1
    assert "OPENAI_API_KEY" in result.stdout
    assert list(tmp_path.glob("live.db")) == []


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        ([str(Path(sys.executable).with_name("ai-budget"))], str(Path(sys.executable).with_name("ai-budget"))),
        ([sys.executable, "-m", "ai_budget_callbacks"], f"{sys.executable} -m ai_budget_callbacks"),
    ],
    ids=["program", "module"],
)
def test_the_demo_says_how_to_look_further_as_it_was_started(tmp_path, start, shown):
    """The `ai-budget` of a virtual environment that is not active is not on the PATH."""
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} | {
        "PATH": "/usr/bin:/bin"
    }
    out = subprocess.run(
        [*start, "demo", "--ledger", str(tmp_path / "d.db")], capture_output=True, text=True, check=True, timeout=60, env=env,
    )  # fmt: skip
    lines = [line.strip() for line in out.stdout.splitlines()[-3:]]
    assert lines[1] == f"{shown} verify --ledger {tmp_path / 'd.db'}"
    for line in lines:
        subprocess.run(shlex.split(line), capture_output=True, check=True, timeout=60, env=env)


def test_without_its_extra_the_demo_says_what_to_install():
    code = """
import sys
sys.modules["langchain"] = None  # as on a machine without it
from ai_budget_callbacks.cli import main
main(["demo"])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert "pip install 'ai-budget-callbacks[demo]'" in out.stderr
    assert "Traceback" not in out.stderr


# -- runs, show, budgets, status, report: the whole output

RUN_1, RUN_2 = uuid.UUID(int=1), uuid.UUID(int=2)
NOW = "2026-03-02T13:00:00Z"


def told(*args):
    """What a command printed for people, at `NOW`; seconds as they would be if calls took no time."""
    with time_machine.travel(NOW, tick=False):
        result = run(*args)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return re.sub(r"(T12):\d\d:\d\d", r"\1:00:00", result.stdout)


def rows(*args):
    """The same as rows, which must be the same in every form."""
    as_json = json.loads(told(*args, "--json"))
    assert [json.loads(line) for line in told(*args, "--nl").splitlines()] == as_json
    as_csv = list(csv.DictReader(io.StringIO(told(*args, "--csv"))))
    assert as_csv == [{name: str(value) for name, value in row.items()} for row in as_json]
    assert told(*args, "--table") == told(*args), "a table is the default"
    return as_json


def table(text):
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.fixture
def two_days(tmp_path):
    """A chain of alice's with a search for $0.008 on 1 March, an hour of bob's GPU; one call of bob's on 2 March."""
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    path = str(tmp_path / "spend.db")
    budgets = [
        Budget(usd="1", per="day", name="day"),
        Budget(usd="5", per="month", by="user", name="user-month"),
        Budget(calls=100, per="total", name="calls"),
        Budget(tokens=9000, per="hour", name="hour", match={"model": "gpt-5*"}),
    ]
    with LoopbackProvider(Reply(text="hi", input_tokens=1000, output_tokens=100)) as provider:

        @tool
        def search(topic: str) -> str:
            """Search the web."""
            return "found"

        def use(run_id, user, runnable):
            handler = BudgetCallbackHandler(meter, Budget(usd="2"))
            runnable.invoke("hi", config={"callbacks": [handler], "run_id": run_id, "metadata": {"user_id": user}})

        def day(moment):
            return time_machine.travel(moment, tick=True)

        def open_meter():
            return Meter(budgets, ledger=path, prices={"tool/search": Price(request="0.008")})

        model = ChatOpenAI(model="gpt-4o-mini", base_url=provider.base_url, api_key="x")
        draft = RunnableLambda(lambda q: model.invoke(q).text).with_config(run_name="draft")
        look = RunnableLambda(lambda q: search.invoke({"topic": q})).with_config(run_name="look")
        with day("2026-03-01T12:00:00Z"):
            meter = open_meter()
            use(RUN_1, "alice", (draft | look | draft).with_config(run_name="answer"))
            meter.charge("0.25", name="gpu hour", user="bob", run="job-1")
            meter.close()
        with day("2026-03-02T12:00:00Z"):
            meter = open_meter()
            use(RUN_2, "bob", model)
            meter.close()
    return path


def test_runs(two_days):
    assert table(told("runs", "--ledger", two_days)) == table("""
run                                   started_at                 ended_at                   user    agent      calls    input_tokens    output_tokens    cost_usd    booked_usd    estimated_usd    unknown_usd    unpriced_calls    free_calls
------------------------------------  -------------------------  -------------------------  ------  -------  -------  --------------  ---------------  ----------  ------------  ---------------  -------------  ----------------  ------------
00000000-0000-0000-0000-000000000002  2026-03-02T12:00:00+00:00  2026-03-02T12:00:00+00:00  bob                    1            1000              100     0.00021       0.00021                0              0                 0             0
job-1                                 2026-03-01T12:00:00+00:00  2026-03-01T12:00:00+00:00  bob                    0               0                0        0.25          0.25                0              0                 0             0
00000000-0000-0000-0000-000000000001  2026-03-01T12:00:00+00:00  2026-03-01T12:00:00+00:00  alice                  2            2000              200     0.00842       0.00842                0              0                 0             0
""")
    found = rows("runs", "--ledger", two_days)
    assert [(row["run"], row["cost_usd"]) for row in found] == [
        (str(RUN_2), "0.00021"), ("job-1", "0.25"), (str(RUN_1), "0.00842")]  # fmt: skip
    assert [row["run"] for row in rows("runs", "--last", "1", "--ledger", two_days)] == [str(RUN_2)]
    assert run("runs", "--last", "0", "--ledger", two_days).exit_code == 2


def test_show(two_days):
    assert (
        told("show", str(RUN_1), "--ledger", two_days)
        == f"""\
{RUN_1}  2 calls  $0.00842
└─ answer  2 calls  $0.00842
   ├─ draft  1 call  $0.00021
   │  └─ gpt-4o-mini  1000 + 100 tokens  $0.00021
   ├─ look  0 calls  $0.008
   │  └─ search  0 calls  $0.008
   │     └─ charge: search  $0.008
   └─ draft  1 call  $0.00021
      └─ gpt-4o-mini  1000 + 100 tokens  $0.00021
"""
    )
    assert told("show", "job-1", "--ledger", two_days) == "job-1  0 calls  $0.25\n└─ charge: gpu hour  $0.25\n"
    found = rows("show", str(RUN_1), "--ledger", two_days)
    assert [(row["depth"], row["name"], row["kind"], row["cost_usd"], row["status"]) for row in found] == [
        (0, str(RUN_1), "node", "0.00842", ""),
        (1, "answer", "node", "0.00842", ""),
        (2, "draft", "node", "0.00021", ""),
        (3, "gpt-4o-mini", "call", "0.00021", "priced"),
        (2, "look", "node", "0.008", ""),
        (3, "search", "node", "0.008", ""),
        (4, "search", "charge", "0.008", "priced"),
        (2, "draft", "node", "0.00021", ""),
        (3, "gpt-4o-mini", "call", "0.00021", "priced"),
    ]


def test_an_unknown_run_is_an_error(two_days):
    for form in ((), ("--json",), ("--csv",)):
        result = run("show", "no-such-run", "--ledger", two_days, *form)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"There is no run 'no-such-run' in {two_days}; `ai-budget runs` lists the latest.\n"

    for args in (("--run", "no-such-run"), ("--run", "no-such-run", "--since", "7d", "--json")):
        result = run("report", "--ledger", two_days, *args)
        assert (result.exit_code, result.stdout) == (1, ""), "a report of nothing looks like a run that cost nothing"
        assert result.stderr == f"There is no run 'no-such-run' in {two_days}; `ai-budget runs` lists the latest.\n"


@pytest.mark.parametrize(
    ("by", "meant"), [("usr", "'user'"), ("user,modle", "'model'"), ("Step", "'step'"), ("nonsense", None)]
)
def test_a_report_by_what_is_no_column_is_an_error(two_days, by, meant):
    result = run("report", "--by", by, "--ledger", two_days)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{by.split(',')[-1]!r} is no column" in result.stderr
    assert ("Did you mean" in result.stderr) == (meant is not None)
    assert (meant or "") in result.stderr


def test_a_report_by_a_metadata_key_that_occurs(two_days):
    meter = Meter(ledger=two_days)
    meter.charge("1", name="x", metadata={"team": "red"})
    meter.close()
    assert [(row["team"], row["cost_usd"]) for row in json.loads(run("report", "--by", "team", "--json", "--ledger", two_days).stdout)] == [
        ("red", "1"), ("(none)", "0.25863")]  # fmt: skip
    assert "Did you mean 'team'" in run("report", "--by", "taem", "--ledger", two_days).stderr


def test_budgets(two_days):
    """Of the day what is spent today, of each user the month, of the hour nothing yet."""
    assert table(told("budgets", "--ledger", two_days)) == table("""
budget      unit    scope    window              limit    spent    held    remaining    resets_at
----------  ------  -------  ------------------  -------  -------  ------  -----------  -------------------------
calls       calls            total               100      3        0       97
day         usd              2026-03-02          1        0.00021  0       0.99979      2026-03-03T00:00:00+00:00
hour        tokens           2026-03-02T13+0000  9000     0        0       9000         2026-03-02T14:00:00+00:00
user-month  usd     alice    2026-03             5        0.00842  0       4.99158      2026-04-01T00:00:00+00:00
user-month  usd     bob      2026-03             5        0.25021  0       4.74979      2026-04-01T00:00:00+00:00
""")
    everything = rows("budgets", "--all", "--ledger", two_days)
    assert [(row["budget"], row["window"], row["scope"], row["spent"], row["resets_at"][:10]) for row in everything] == [
        ("$2", "attached", "", "0.00842", ""),
        ("$2", "attached", "", "0.00021", ""),
        ("calls", "total", "", "3", ""),
        ("day", "2026-03-01", "", "0.25842", ""),
        ("day", "2026-03-02", "", "0.00021", "2026-03-03"),
        ("hour", "2026-03-02T13+0000", "", "0", "2026-03-02"),
        ("user-month", "2026-03", "alice", "0.00842", "2026-04-01"),
        ("user-month", "2026-03", "bob", "0.25021", "2026-04-01"),
    ], "a window that is over does not reset any more"  # fmt: skip


def test_budgets_are_those_of_the_meters(two_days):
    """What the command says is what a meter that enforces them says."""
    listed = {(row["budget"], row["scope"]): row["spent"] for row in rows("budgets", "--ledger", two_days)}
    with time_machine.travel(NOW, tick=False):
        meter = Meter(Budget(usd="5", per="month", by="user", name="user-month"), ledger=two_days)
        views = meter.balances()
        meter.close()
    assert {(view.budget, *view.scope): str(view.spent) for view in views} == {
        key: spent for key, spent in listed.items() if key[0] == "user-month"
    }


def test_status(two_days):
    found = told("status", "--ledger", two_days)
    size = Path(two_days).stat().st_size
    (version,) = {row["version"] for row in rows("status", "--ledger", two_days)}
    (prices,) = {row["prices"] for row in rows("status", "--ledger", two_days)}
    (as_of,) = {row["prices_as_of"] for row in rows("status", "--ledger", two_days)}
    assert prices.startswith("genai-prices ")
    assert (
        found
        == f"""\
ledger        {Path(two_days).resolve()}
version       {version}
prices        {prices}
prices_as_of  {as_of}
size_bytes    {size}
entries       5
open_holds    0
first_at      2026-03-01T12:00:00+00:00
last_at       2026-03-02T12:00:00+00:00
priced        4
reported      1
estimated     0
free          0
unknown       0
unpriced      0
"""
    )
    assert rows("status", "--ledger", two_days)[0]["entries"] == 5


def test_report_by_user_and_model(two_days):
    args = ("report", "--by", "user,model", "--ledger", two_days)
    assert table(told(*args, "--since", "7d")) == table("""
user    model          calls    input_tokens    output_tokens    cost_usd    booked_usd    estimated_usd    unknown_usd    unpriced_calls    free_calls
------  -----------  -------  --------------  ---------------  ----------  ------------  ---------------  -------------  ----------------  ------------
bob     gpu hour           0               0                0        0.25          0.25                0              0                 0             0
alice   search             0               0                0       0.008         0.008                0              0                 0             0
alice   gpt-4o-mini        2            2000              200     0.00042       0.00042                0              0                 0             0
bob     gpt-4o-mini        1            1000              100     0.00021       0.00021                0              0                 0             0
""")
    found = rows(*args, "--since", "7d")
    assert [(row["user"], row["model"], row["calls"], row["cost_usd"]) for row in found] == [
        ("bob", "gpu hour", 0, "0.25"),
        ("alice", "search", 0, "0.008"),
        ("alice", "gpt-4o-mini", 2, "0.00042"),
        ("bob", "gpt-4o-mini", 1, "0.00021"),
    ]
    since = [(row["user"], row["calls"], row["cost_usd"]) for row in rows(*args, "--since", "2h")]
    assert since == [("bob", 1, "0.00021")], "an age is counted from now"
    assert [row["cost_usd"] for row in rows("report", "--run", "job-1", "--ledger", two_days)] == ["0.25"]


def test_runs_and_report_and_the_tree_agree(two_days):
    total = sum(Decimal(row["cost_usd"]) for row in rows("runs", "--ledger", two_days))
    assert total == sum(Decimal(row["cost_usd"]) for row in rows("report", "--ledger", two_days)) == Decimal("0.25863")
    for row in rows("runs", "--ledger", two_days):
        assert rows("show", row["run"], "--ledger", two_days)[0]["cost_usd"] == row["cost_usd"]


@pytest.fixture
def empty(tmp_path):
    path = str(tmp_path / "empty.db")
    Meter(ledger=path).close()
    return path


@pytest.mark.parametrize(
    ("command", "said"), [("runs", "No entries."), ("report", "No entries."), ("budgets", "No named budgets")]
)
def test_an_empty_ledger(empty, command, said):
    result = run(command, "--ledger", empty)
    assert (result.exit_code, result.stdout) == (0, ""), "what is no row is no output"
    assert result.stderr.startswith(said)
    assert json.loads(run(command, "--ledger", empty, "--json").stdout) == []
    assert run(command, "--ledger", empty, "--nl").stdout == ""
    assert run(command, "--ledger", empty, "--csv").stdout == ""


def test_the_status_of_an_empty_ledger(empty):
    (found,) = rows("status", "--ledger", empty)
    assert (found["entries"], found["open_holds"], found["first_at"], found["last_at"]) == (0, 0, "", "")
    assert run("verify", "--ledger", empty).exit_code == 0


def test_of_a_missing_ledger_it_is_said_how_it_is_made(tmp_path, monkeypatch):
    named = run("report", "--ledger", "nope.db").stderr
    assert named == (
        "There is no ledger at nope.db. Check --ledger and AI_BUDGET_LEDGER; the first handler or meter with this "
        "ledger= makes it.\n"
    )
    monkeypatch.delenv("AI_BUDGET_LEDGER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert run("report").stderr == (
        f"There is no ledger at {tmp_path}/ai-budget/spend.db yet; the first handler or meter makes it. Name another one "
        "with --ledger.\n"
    )


@pytest.mark.parametrize("command", ["runs", "show", "budgets", "status"])
def test_of_a_missing_ledger_nothing_is_read_and_nothing_made(tmp_path, command):
    path = tmp_path / "none.db"
    result = run(command, *(["x"] if command == "show" else []), "--ledger", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(path) in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_says_what_it_prints_and_names_its_options(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    for option in main.commands[command].params:
        for name in option.opts:
            assert name in result.stdout or name.upper() in result.stdout, f"{command} {name} is not in its help"
    if command in {"runs", "show", "budgets", "status", "report"}:
        assert all(form in result.stdout for form in ("--table", "--json", "--nl", "--csv", "--ledger"))


def test_open_holds_are_in_status_and_budgets(tmp_path):
    """While a tool runs: what it may cost is held, and the command line sees it."""
    from langchain_core.tools import tool

    path, seen = str(tmp_path / "spend.db"), []

    @tool
    def search(topic: str) -> str:
        """Search the web."""
        seen.append((run("status", "--ledger", path, "--json"), run("budgets", "--ledger", path, "--json")))
        return "found"

    meter = Meter(Budget(usd="1", per="total", name="all"), ledger=path, prices={"tool/search": Price(request="0.25")})
    search.invoke({"topic": "x"}, config={"callbacks": [BudgetCallbackHandler(meter)]})
    meter.close()
    ((status, budgets),) = seen
    assert json.loads(status.stdout)[0]["open_holds"] == 1
    (row,) = json.loads(budgets.stdout)
    assert (row["spent"], row["held"], row["remaining"]) == ("0", "0.25", "0.75")


# -- prices of one's own, another currency, fetched price data

OWN_PRICES = """
[prices]
"chat-eu" = { same_as = "azure/gpt-4o", factor = "1.1" }
[factors]
openai = "0.85"
[currency]
code = "EUR"
rate = "0.92"
date = 2026-11-20
"""


@pytest.fixture
def own_prices(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(OWN_PRICES)
    return str(path)


def test_price_by_a_file_of_ones_own(own_prices, monkeypatch):
    args = ("price", "-", "--provider", "azure", "--model", "chat-eu")
    body = '{"prompt_tokens": 1000000, "completion_tokens": 0}'
    assert run(*args, stdin=body).exit_code == 3
    shown = run(*args, "--prices", own_prices, stdin=body)
    day = json.loads(run(*args, "--prices", own_prices, "--json", stdin=body).stdout)["prices_as_of"]
    version = shown.stdout.partition("genai-prices ")[2].partition(" ")[0]
    assert shown.stdout.splitlines()[-2:] == [
        f"$2.75  priced  chat-eu (genai-prices {version} of {day}, standard, 1.1 by prices.toml['chat-eu'])",
        "2.53 EUR  1 USD = 0.92 EUR on 2026-11-20",
    ]
    monkeypatch.setenv("AI_BUDGET_PRICES", own_prices)
    found = json.loads(run(*args, "--json", stdin=body).stdout)
    assert (found["cost_usd"], found["lines"][0]["list_price_usd"]) == ("2.75", "2.5")
    assert "EUR" not in json.dumps(found), "what programs read is in USD"


def test_a_mistake_in_the_file_is_one_line_and_no_price(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text("[factors]\nopenai = 85")
    result = run("price", "-", "--provider", "openai", "--model", "gpt-4o", "--prices", str(path), stdin="{}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{path}: factors.openai: 85 must be a factor")


def test_report_shows_another_currency_beside_usd_to_people_alone(two_days, own_prices):
    plain = run("report", "--ledger", two_days, "--by", "day")
    shown = run("report", "--ledger", two_days, "--by", "day", "--prices", own_prices)
    assert "EUR" not in plain.output
    head, _, *lines = shown.stdout.splitlines()
    columns = head.split()
    at = columns.index("cost_usd")
    assert columns[at : at + 2] == ["cost_usd", "cost_eur"]
    for line in lines:
        usd, eur = line.split()[at : at + 2]
        exact = Decimal(usd) * Decimal("0.92")
        assert eur == (f"{exact:.2f}" if exact > Decimal("0.005") else "<0.01")
    assert shown.stderr == "1 USD = 0.92 EUR on 2026-11-20; budgets and the ledger are in USD.\n"
    for form in ("--json", "--csv", "--nl"):
        assert (
            run("report", "--ledger", two_days, form, "--prices", own_prices).output
            == run("report", "--ledger", two_days, form).output
        )


def test_status_says_which_prices_hold_and_of_when(two_days, own_prices):
    (found,) = rows("status", "--ledger", two_days, "--prices", own_prices)
    assert (found["own_prices"], found["currency"]) == ("prices.toml", "1 USD = 0.92 EUR on 2026-11-20")
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", found["prices_as_of"])


def test_update_prices_fetches_checks_and_keeps(tmp_path, monkeypatch):
    from ai_budget_callbacks.pricing.catalogue import catalogue
    from tests.support.price_data import published, sending

    kept = tmp_path / "prices.json"
    monkeypatch.setenv("AI_BUDGET_PRICE_DATA", str(kept))
    catalogue.cache_clear()
    try:
        with sending(b"[]") as url:
            refused = run("update-prices", "--url", url)
        assert (refused.exit_code, refused.stdout, kept.exists()) == (1, "", False)
        assert "The prices are the same as before." in refused.stderr
        with time_machine.travel("2026-11-24T12:00:00Z", tick=False), sending(published()) as url:
            done = run("update-prices", "--url", url)
        assert done.exit_code == 0
        assert re.fullmatch(rf"\d+ models of \d+ providers, as of 2026-11-24, in {re.escape(str(kept))}\n", done.stdout)
        args = ("price", "-", "--provider", "openai", "--model", "gpt-4o")
        shown = run(*args, stdin='{"prompt_tokens": 1000}').stdout.splitlines()[-1]
        assert re.fullmatch(r"\$0\.0025  priced  gpt-4o \(genai-prices \S+ \+ data of 2026-11-24, standard\)", shown)
    finally:
        catalogue.cache_clear()
