"""What every test shares: the repository on the path, and a default ledger that is never the user's own."""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from pathlib import Path

import certifi
import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # plain `pytest` adds tests/ only; `tests.support` is imported by its full name
    sys.path.insert(0, str(ROOT))

# Under mutation every law is run a thousand times over: few examples, the same ones each time, none shrunk.
MUTATION = os.environ.get("AI_BUDGET_MUTATION", "")  # the module that is changed
EXAMPLES = 30
if MUTATION:
    settings.register_profile(
        "mutation", derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), database=None
    )
    settings.load_profile("mutation")
    if "/pricing/" not in MUTATION:  # elsewhere the price data may be there before a mutant is
        from ai_budget_callbacks.pricing.catalogue import catalogue

        catalogue()


def pytest_collection_modifyitems(items):
    """Under mutation: `@settings` of a law goes over its profile, so examples are cut here; cheap tests come first."""
    if not MUTATION:
        return
    for item in items:
        place, name = item.function, "_hypothesis_internal_use_settings"
        if item.cls is not None and hasattr(item.cls, "settings"):
            place, name = item.cls, "settings"
        own = getattr(place, name, None)
        if own is not None and own.max_examples > EXAMPLES:
            setattr(place, name, settings(own, max_examples=EXAMPLES))
    stats = Path("mutmut-stats.json")
    took = json.loads(stats.read_text())["duration_by_test"] if stats.exists() else {}
    items.sort(key=lambda item: took.get(item.nodeid, 0))


@pytest.fixture(scope="session", autouse=True)
def _age_was_said():
    """A process says once that its prices are old; no test is the one to hear it because of the day it is run on."""
    from ai_budget_callbacks.pricing.snapshot import warn_if_old

    warn_if_old(date(2000, 1, 1), date(2001, 1, 1))


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
