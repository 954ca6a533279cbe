"""The command line: stable output that scripts depend on, exit codes, and every golden through `ai-budget price`."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ai_budget_callbacks import Budget
from ai_budget_callbacks.cli import main
from ai_budget_callbacks.demo.loopback import LoopbackProvider, Reply
from ai_budget_callbacks.langchain import BudgetCallbackHandler
from tests.support.goldens import shared

ROOT = Path(__file__).parents[2]
GOLDENS = [
    golden
    for golden in json.loads(shared("facts/pricing_goldens.json").read_text())
    if golden["provider"] in {"openai", "anthropic", "azure"}
]


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
    result = run(*args, stdin=json.dumps(raw))
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["cost_usd"] == golden["expected_cost_usd"], f"{golden['id']} is priced wrong"
    assert printed["usage"] == golden["buckets"]
    assert {line["bucket"]: line["count"] for line in printed["lines"]} == golden["buckets"], "a bucket has no line"
    assert printed["status"] == "priced"
    assert not re.search(r"\d[eE][-+]\d", result.stdout), "an amount is printed with an exponent"


def test_no_golden_is_left_out():
    assert len(GOLDENS) == 27


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
        (("--provider", "acme"), "{}", "No reader for provider 'acme'"),
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
