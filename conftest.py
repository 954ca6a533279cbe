"""Every Python block in README.md and docs/ is run, against the loopback provider and a ledger of its own."""

from __future__ import annotations

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


@pytest.fixture
def documented_world(tmp_path, monkeypatch):
    """What a reader has: a provider behind OPENAI_API_BASE, a key, and an own ledger."""
    from ai_budget_callbacks.demo.loopback import LoopbackProvider, Reply

    with LoopbackProvider(Reply(text="A fact.", input_tokens=400, output_tokens=60)) as provider:
        monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "no-key-needed")
        monkeypatch.setenv("AI_BUDGET_LEDGER", str(tmp_path / "docs.db"))
        monkeypatch.chdir(tmp_path)
        yield provider


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"], fixtures=["documented_world"]
).pytest()
