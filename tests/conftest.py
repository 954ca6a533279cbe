"""What every test shares: the repository on the path, and a default ledger that is never the user's own."""

from __future__ import annotations

import sys
from pathlib import Path

import certifi
import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # plain `pytest` adds tests/ only; `tests.support` is imported by its full name
    sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def one_certificate(tmp_path_factory):
    """The first of certifi's certificates; provider clients load the whole bundle twice each, 60 ms a test."""
    end = "-----END CERTIFICATE-----\n"
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _own_environment(tmp_path, monkeypatch, one_certificate):
    """No test reaches the user's ledger or keys; the servers of tests speak plain HTTP on 127.0.0.1."""
    monkeypatch.setenv("AI_BUDGET_LEDGER", str(tmp_path / "default.db"))
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("SSL_CERT_FILE", str(one_certificate))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
