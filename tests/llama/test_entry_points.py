"""Every way in, under every installation: counted once with room, and nothing sent once a budget is used up."""

from __future__ import annotations

import pytest

from tests.llama.entry_table import INSTALLATIONS, WAYS, go
from tests.support import llama_versions

EVERYWHERE = [(way, installation) for installation in INSTALLATIONS for way in WAYS]


@pytest.mark.parametrize(("way", "installation"), EVERYWHERE, ids=lambda item: str(item))
def test_nothing_is_sent_once_a_budget_is_used_up(way, installation, tmp_path):
    llama_versions.needs(way.lacks)
    seen = go(way, installation, tmp_path / "spend.db", used_up=True)
    assert seen.sent == 0, f"{seen.sent} requests were sent on a used-up budget"
    assert seen.entries == 0
    assert seen.held == 0
    assert seen.sees == ("BudgetExceeded" if installation == "track()" else way.sees)
    if installation != "install()":  # nobody but the caller has a handler or block to ask
        assert seen.exceeded, "whoever asks afterwards must hear of the refusal"


@pytest.mark.parametrize("installation", ["track()", "Settings"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_request_is_one_entry(way, installation, tmp_path):
    llama_versions.needs(way.lacks)
    seen = go(way, installation, tmp_path / "spend.db", used_up=False)
    assert seen.sees == "returns", "the way itself must work"
    assert seen.sent == way.requests
    assert seen.entries == way.requests, f"{seen.sent} requests left {seen.entries} entries: {seen.statuses}"
    assert set(seen.statuses) == way.statuses
    assert seen.held == 0
    if way.statuses == {"priced"}:
        assert seen.booked == seen.billed, f"the books say ${seen.booked}, the provider billed ${seen.billed}"
    assert not seen.exceeded
