"""Live tests: the real providers, with your own keys and one budget over all of it. `make live`; never in CI."""

from __future__ import annotations

import os
from pathlib import Path

import certifi
import pytest

from ai_budget_callbacks import Budget, Meter
from tests.live.tapes import CASSETTES, CONFIG

HERE = Path(__file__).parent
# read here: a fixture of the suite takes both out of the environment
KEYS = {name: os.environ.get(f"{name.upper()}_API_KEY") for name in ("openai", "anthropic", "google")}
ADDRESSES = {"openai": os.environ.get("OPENAI_BASE_URL"), "anthropic": os.environ.get("ANTHROPIC_BASE_URL")}
CAP_USD = "0.05"


def pytest_ignore_collect(collection_path, config):
    """They cost money, so they run only when this folder is named on the command line."""
    args = (
        Path(config.invocation_params.dir, arg.partition("::")[0]).resolve() for arg in config.invocation_params.args
    )
    named = any(path == HERE or HERE in path.parents for path in args)
    return None if named else True


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def live_meter(tmp_path_factory):
    """One ledger and one cap for the whole session: what may not fit is refused before it is sent."""
    path = tmp_path_factory.mktemp("live") / "spend.db"
    meter = Meter([Budget(usd=CAP_USD, per="total", name="live tests")], ledger=path, reserve="worst_case")
    yield meter
    print(f"\nlive tests, by our ledger: {meter.summary()}")
    meter.close()


@pytest.fixture
def key(provider):
    """The key of a provider, or no test."""
    if not KEYS[provider]:
        pytest.skip(
            f"set {provider.upper()}_API_KEY to run this against the real API (all together at most ${CAP_USD})"
        )
    return KEYS[provider]


@pytest.fixture(autouse=True)
def real_certificates(monkeypatch):
    """The suite trusts one certificate only, to be quick."""
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())


# -- pytest-recording: every answer is on a tape, which is kept by --record-mode=rewrite (`make record`) only


@pytest.fixture(scope="session")
def record_mode(request):
    return "rewrite" if request.config.getoption("--record-mode") == "rewrite" else "all"


@pytest.fixture(scope="module")
def vcr_cassette_dir(record_mode, tmp_path_factory):
    return str(CASSETTES if record_mode == "rewrite" else tmp_path_factory.mktemp("tapes"))


@pytest.fixture
def default_cassette_name(provider, way):
    return f"{provider}-{way}"


@pytest.fixture
def vcr_config():
    return CONFIG
