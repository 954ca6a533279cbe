"""Every example runs, against the loopback provider, says what it promises, and leaves books that equal its bill."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from ai_budget_callbacks.demo.loopback import LoopbackProvider, Reply
from tests.flow.kit import read_back

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
SENT = {"chain": 3, "agent": 2, "per_run_summary": 8, "fastapi_app": 14, "batch_processes": 25,
        "llama_query": 7, "llama_agent": 2, "llama_users": 5}  # fmt: skip
SAID = {
    "chain": ["An answer.", "3 calls, 900 + 60 tokens, $0.000171"],
    "agent": ["alice An answer.", "user-day: 0.000057 of 1", "by user"],
    "per_run_summary": ["└─ writer  2 calls  $0.000114", "shorten  1 call  $0.000057", "**$0.000228** in 4 calls"],
    "fastapi_app": ["alice /ask 429", "bob /ask/stream 429", "'spent_usd': '0.000399'"],
    "llama_query": ["An answer.", "by step", "synthesize", "text-embedding-3-small"],
    "llama_agent": ["An answer.", "by agent", "FunctionAgent.run"],
    "llama_users": ["alice was refused until", "bob got An answer.", "alice has spent 0.000171 of 0.0002 USD"],
    "batch_processes": ["together: 25 sent, 15 refused, 25 allowed", "25 of 25 calls, 0 held"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_books_equal_the_bill(path, tmp_path):
    ledger = tmp_path / "spend.db"
    with LoopbackProvider(Reply(text="An answer.", input_tokens=300, output_tokens=20)) as provider:
        env = os.environ | {
            "OPENAI_API_BASE": provider.base_url, "OPENAI_API_KEY": "x", "AI_BUDGET_LEDGER": str(ledger),
        }  # fmt: skip
        out = subprocess.run(
            [sys.executable, str(path)], env=env, capture_output=True, text=True, timeout=100, check=False
        )
        assert out.returncode == 0, out.stderr
        books = read_back(ledger)
        assert len(provider.requests) == SENT[path.stem], f"{len(provider.requests)} requests reached the provider"
        known = sum(Decimal(row["cost_usd"]) for row in books.entries if row["status"] != "estimated")
        billed = sum(
            item.usd for item in provider.bill if "embedding" not in item.model
        )  # LlamaIndex drops their usage
        assert known == billed, f"booked {known}, billed {billed}"
        assert not books.holds, "calls are still open after the example ended"
        for said in SAID[path.stem]:
            assert said in out.stdout, f"the example does not print {said!r}:\n{out.stdout}"


@pytest.fixture
def web_app(monkeypatch):
    """The FastAPI example imported into this process, in front of a provider that streams slowly."""
    reply = Reply(
        text="one two three four five six seven eight", input_tokens=300, output_tokens=20, chunk_delay_s=0.05
    )
    with LoopbackProvider(reply) as provider:
        monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        monkeypatch.setenv("AI_BUDGET_LEDGER", ":memory:")
        spec = importlib.util.spec_from_file_location("documented_web_app", FOLDER / "fastapi_app.py")
        monkeypatch.setitem(sys.modules, "documented_web_app", module := importlib.util.module_from_spec(spec))
        spec.loader.exec_module(module)
        module.provider = provider
        yield module
        module.meter.close()


async def _ask_and_leave(app, after):
    """A streaming request whose client goes away after some messages (or never), as ASGI 2.3 servers tell it."""
    gone, got, asked = asyncio.Event(), [], False

    async def receive():
        nonlocal asked
        if asked:
            await gone.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        got.append(message)
        if len(got) == after:
            gone.set()

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "path": "/ask/stream", "raw_path": b"/ask/stream", "root_path": "", "scheme": "http",
        "query_string": b"question=hi", "headers": [(b"x-user", b"alice")], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }  # fmt: skip
    await app(scope, receive, send)
    return got


async def test_a_web_client_that_leaves_a_stream_is_booked_at_once(web_app):
    await _ask_and_leave(web_app.app, after=4)
    (entry,) = web_app.meter.entries()
    assert (entry.status, entry.user) == ("estimated", "alice")
    assert entry.booked_usd >= web_app.provider.billed_usd == Decimal("0.000057")
    assert not web_app.meter.ledger.open_holds(), "the client is gone and its call is still open"


async def test_a_web_client_that_stays_pays_what_the_provider_bills(web_app):
    got = await _ask_and_leave(web_app.app, after=None)
    assert b"".join(message.get("body", b"") for message in got) == b"one two three four five six seven eight"
    (entry,) = web_app.meter.entries()
    assert (entry.status, entry.cost_usd) == ("priced", web_app.provider.billed_usd)
