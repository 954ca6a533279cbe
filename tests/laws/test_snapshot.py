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
from tests.support.price_data import breaking_off, published, sending

ROOT = Path(__file__).parents[2]
DAY = date(2026, 11, 24)
WHOLE = published()


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where fetched data is kept, in this test."""
    path = tmp_path / "made" / "deep" / "prices.json"
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


def sized(models: int) -> bytes:
    """A list with all providers that a whole one needs, and so many models."""
    found = []
    for provider in sorted(json.loads(WHOLE), key=lambda provider: provider["id"] not in snapshot._NEEDED):
        kept = provider["models"][: models - sum(len(each["models"]) for each in found)]
        found.append({**provider, "models": kept})
    return json.dumps(found).encode()


def test_what_was_fetched_has_the_same_cards_to_the_last_digit(kept):
    with sending(WHOLE) as url:
        fetched = snapshot.fetch(url, DAY)
    found = snapshot.load()
    assert found == fetched
    assert found is not None
    assert found.as_of == DAY
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
        (
            b"[]",
            200,
            "it has 0 models, and without anthropic, aws, azure, google, openai: a whole list has at least 1000",
        ),
        (sized(999), 200, "it has 999 models: a whole list has at least 1000"),
        (
            b'[{"id": 1}]',
            200,
            r"is not used: 3 validation errors for list\[Provider\] 0.id Input should [^\]]*\]\. The",
        ),
        (changed('"input_mtok": ', '"input_mtok": -'), 200, "input_mtok is -[0-9.]+, and no price is below 0"),
        (changed('"base": ', '"base": -'), 200, "_mtok is -[0-9.]+, and no price is below 0"),
        (changed('"price": ', '"price": -'), 200, "_mtok is -[0-9.]+, and no price is below 0"),
        (changed('"input_mtok": ', '"input_mtok": "free", "x": '), 200, "input_mtok is 'free', which is no price"),
        (changed('"input_mtok": ', '"input_mtok": NaN, "x": '), 200, "input_mtok is nan, which is no price"),
        (changed('"id": "openai"', '"id": "nobody"'), 200, "without openai"),
        (WHOLE[:-1000], 200, "is not used: "),
        (WHOLE, 404, "cannot be fetched: Not Found"),
    ],
    ids=[
        *("html", "object", "empty", "small", "shape", "negative", "negative base", "negative tier", "text", "nan"),
        *("provider", "cut", "404"),
    ],
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


@pytest.mark.parametrize(
    "sent", [sized(1_000), re.sub(rb'"input_mtok": [0-9.]+', b'"input_mtok": 0', WHOLE, count=1)], ids=["size", "zero"]
)
def test_the_smallest_list_and_a_price_of_nothing_are_taken_each_over_what_was_kept(kept, sent):
    for raw in (WHOLE, sent):
        with sending(raw) as url:
            snapshot.fetch(url, DAY)
        assert raw in kept.read_bytes()
        assert snapshot.load() is not None


def test_what_the_library_may_know_of_usage_is_not_ours_to_read(kept):
    """Its extractors change with its versions; prices do not depend on them."""
    with sending(changed('"models": [', '"extractors": [{"words": "of a later version"}], "models": [')) as url:
        assert snapshot.fetch(url, DAY).models == sum(len(provider.models) for provider in providers)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "without response"),
        (b"nonsense\r\n\r\n", "nonsense"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n[", "IncompleteRead"),
    ],
    ids=["nothing", "no http", "cut"],
)
def test_a_connection_that_breaks_off_is_told_as_one(kept, sent, said):
    with breaking_off(sent) as url, pytest.raises(ConfigError, match=f"cannot be fetched: .*{said}.*same as before"):
        snapshot.fetch(url, DAY)
    assert not kept.parent.exists()


def test_a_file_that_cannot_be_kept_is_named_and_leaves_nothing_behind(kept, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")  # a rename out of another file system would fail
    said = f"{re.escape(str(kept))} cannot be written: .*The prices are the same as before\\."
    with sending(WHOLE) as url:
        kept.parent.parent.write_text("a file where a folder is wanted")
        with pytest.raises(ConfigError, match=said):
            snapshot.fetch(url, DAY)
        kept.parent.parent.unlink()
        kept.mkdir(parents=True)
        with pytest.raises(ConfigError, match=said):
            snapshot.fetch(url, DAY)
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]
        kept.rmdir()
        snapshot.fetch(url, DAY)
    assert kept.is_file()


def test_without_network_it_says_so_and_makes_nothing(kept):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for scheme in ("http", "https"):
            url = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}/data.json"
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
    why = "it was fetched with genai-prices 0.0.1, and another version is installed"
    assert caplog.messages == [not_used(kept, why)]


def not_used(path: Path, why: str) -> str:
    return (
        f"The price data in {path} is not used: {why}. The prices of the installed library hold. "
        "Run `ai-budget update-prices`, or delete the file."
    )


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"{}", "it lacks 'genai_prices'"),
        (b'{"genai_prices": 1', "Expecting ',' delimiter: line 1 column 19 (char 18)"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
    ids=["empty", "object", "cut", "no text"],
)
def test_a_damaged_file_is_named_and_the_librarys_own_prices_hold(kept, fresh, caplog, damage, why):
    kept.parent.mkdir(parents=True)
    kept.write_bytes(damage)
    assert catalogue().name == f"genai-prices {version('genai-prices')}"
    assert caplog.messages == [not_used(kept, why)]


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
    said = (
        "The price list is of 2026-11-10, 61 days ago. Prices may have changed since: upgrade genai-prices, or run "
        "`ai-budget update-prices`.\n"
    )
    assert out == said * times


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
