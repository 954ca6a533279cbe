"""Price data that was fetched: checked before it replaces anything, read for us alone, named in every entry; its age."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

import pytest
from genai_prices.data import providers

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.pricing import RateCard, snapshot
from ai_budget_callbacks.pricing.catalogue import Catalogue, catalogue
from ai_budget_callbacks.usage import Terms
from tests.support.goldens import NOW
from tests.support.price_data import published, sending

ROOT = Path(__file__).parents[2]
DAY = date(2026, 11, 24)
WHOLE = published()


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where fetched data is kept, in this test."""
    path = tmp_path / "made" / "prices.json"
    monkeypatch.setenv("AI_BUDGET_PRICE_DATA", str(path))
    return path


@pytest.fixture
def fresh():
    """Forget the catalogue of this process before and after."""
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()


def changed(old: str, new: str) -> bytes:
    text = WHOLE.decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def test_what_was_fetched_has_the_same_cards_to_the_last_digit(kept):
    with sending(WHOLE) as url:
        snapshot.fetch(url, DAY)
    found = snapshot.load()
    assert found is not None
    read, own = Catalogue(found.providers, name="x", as_of=found.as_of), Catalogue(name="x")
    terms = (Terms(), Terms(batch=True), Terms(service_tier="flex"))
    models = [(provider.id, model.id) for provider in providers for model in provider.models]
    assert len(models) == found.models
    for provider, model in models:
        for each in terms:
            for at in (NOW, datetime(2025, 3, 1, 20, tzinfo=UTC)):
                assert read.card(provider, model, each, at) == own.card(provider, model, each, at), (provider, model)


def test_a_new_price_holds_and_is_named_and_nobody_else_sees_it(kept, fresh):
    from genai_prices import Usage, calc_price

    gpt = WHOLE.decode().index('"id": "gpt-4o"')
    rest = WHOLE.decode()[gpt:].replace('"input_mtok": 2.5', '"input_mtok": 2.400000000000000001', 1)
    with sending((WHOLE.decode()[:gpt] + rest).encode()) as url:
        snapshot.fetch(url, DAY)
    found = catalogue().card("openai", "gpt-4o", Terms(), NOW)
    assert isinstance(found, RateCard)
    assert found.rates["input_uncached"].usd == Decimal("2.400000000000000001"), "no float stands in between"
    assert found.source.name == f"genai-prices {version('genai-prices')} + data of 2026-11-24"
    assert catalogue().as_of == DAY
    assert calc_price(Usage(input_tokens=1_000_000), "gpt-4o", provider_id="openai").total_price == Decimal("2.5")


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"<html>", 200, "is not used: Expecting value"),
        (b"{}", 200, "is not used: it is no list of providers"),
        (b"[]", 200, "it has 0 models, and without anthropic, aws, azure, google, openai"),
        (b'[{"id": 1}]', 200, "is not used: "),
        (changed('"input_mtok": ', '"input_mtok": -'), 200, "no price is below 0"),
        (changed('"input_mtok": ', '"input_mtok": "free", "x": '), 200, "is no price"),
        (changed('"input_mtok": ', '"input_mtok": NaN, "x": '), 200, "is no price"),
        (changed('"id": "openai"', '"id": "nobody"'), 200, "without openai"),
        (WHOLE[:-1000], 200, "is not used: "),
        (WHOLE, 404, "cannot be fetched: Not Found"),
    ],
    ids=["html", "object", "empty", "shape", "negative", "text", "nan", "provider", "cut", "404"],
)
def test_what_is_no_whole_price_list_replaces_nothing(kept, sent, status, said):
    with sending(WHOLE) as url:
        snapshot.fetch(url, DAY)
    before = kept.read_bytes()
    with sending(sent, status) as url, pytest.raises(ConfigError, match=said) as caught:
        snapshot.fetch(url, date(2026, 11, 25))
    assert "The prices are the same as before." in caught.value.message
    assert kept.read_bytes() == before
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_without_network_it_says_so_and_makes_nothing(kept):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/data.json"
        with pytest.raises(ConfigError, match="cannot be fetched: .*refused"):
            snapshot.fetch(url, DAY)
    with pytest.raises(ConfigError, match="no http or https address"):
        snapshot.fetch("file:///etc/passwd", DAY)
    assert not kept.parent.exists()


def test_the_address_is_the_one_the_library_gives():
    assert re.match(r"https://raw\.githubusercontent\.com/pydantic/genai-prices/.*\.json\Z", snapshot.update_url())


def test_data_of_another_version_of_the_library_is_not_used_and_said(kept, caplog):
    with sending(WHOLE) as url:
        snapshot.fetch(url, DAY)
    kept.write_bytes(kept.read_bytes().replace(version("genai-prices").encode(), b"0.0.1", 1))
    assert snapshot.load() is None
    assert "fetched with genai-prices 0.0.1, and another version is installed" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"genai_prices": 1', b"\xff"], ids=repr)
def test_a_damaged_file_is_named_and_the_librarys_own_prices_hold(kept, fresh, caplog, damage):
    kept.parent.mkdir()
    kept.write_bytes(damage)
    assert catalogue().name == f"genai-prices {version('genai-prices')}"
    assert str(kept) in caplog.text
    assert "ai-budget update-prices" in caplog.text


def test_the_file_keeps_what_came_and_says_from_where_and_when(kept):
    with sending(WHOLE) as url:
        snapshot.fetch(url, DAY)
    found = json.loads(kept.read_bytes())
    assert (found["genai_prices"], found["fetched"], found["url"]) == (version("genai-prices"), "2026-11-24", url)
    assert WHOLE in kept.read_bytes()


def test_the_day_of_the_installed_data_is_known():
    """A new release of genai-prices wants its day in pricing/data/catalogue_dates.toml."""
    assert snapshot.bundled_as_of() == Catalogue().as_of
    assert snapshot.bundled_as_of() is not None
    assert version("genai-prices") != "0.2.3" or snapshot.bundled_as_of() == date(2026, 11, 10)


AGED = """
import logging, sys
from datetime import date
logging.basicConfig(format="%(message)s")
from ai_budget_callbacks.pricing.snapshot import warn_if_old
for today in sys.argv[1:]:
    warn_if_old(date(2026, 11, 10), date.fromisoformat(today))
warn_if_old(None, date(2030, 1, 1))
"""


@pytest.mark.parametrize(
    ("days", "times"), [(["2027-01-09"], 0), (["2027-01-10"], 1), (["2027-01-09", "2027-01-10", "2027-03-01"], 1)]
)
def test_old_prices_are_said_once_in_a_process(days, times):
    command = [sys.executable, "-c", AGED, *days]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stderr
    assert out.count("The price list is of 2026-11-10, 61 days ago") == times
    assert len(out.splitlines()) == times


def test_a_meter_says_it(tmp_path):
    code = (
        "import time_machine\n"
        "with time_machine.travel('2027-06-01', tick=False):\n"
        "    from ai_budget_callbacks import Meter\n"
        "    Meter(ledger=':memory:'); Meter(ledger=':memory:')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stderr
    assert out.count("days ago. Prices may have changed") == 1


def test_nothing_of_it_is_imported_or_asked_before_it_is_wanted(caplog):
    with caplog.at_level(logging.DEBUG):
        assert snapshot.load() is None, "tests have no fetched prices"
    assert not caplog.messages
