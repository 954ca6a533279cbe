"""The project's own cassettes, played through the real clients: entries, usage and cost to the last digit.

Those that were recorded from the loopback provider say so (`python -m tests.live.loopback`); `make record` replaces
them with answers of the real providers.
"""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from tests.flow.kit import read_back
from tests.live.loopback import SCRIPTS
from tests.live.scenarios import WAYS, agrees, client
from tests.live.tapes import CASSETTES, is_loopback, play

TAPES = sorted(CASSETTES.glob("*.yaml"))
# gpt-4o-mini 0.15, 0.075 cached, 0.60; claude-haiku-4-5 1, 0.10 cached, 1.25 written, 5: USD per million, by hand
USD = {
    "openai-invoke": "0.00018",  # 600 x 0.15 + 400 x 0.075 + 100 x 0.60
    "openai-stream": "0.00018",
    "openai-agent": "0.00036",  # 1000 x 0.15 + 50 x 0.60, and the answer
    "anthropic-invoke": "0.00179",  # 1000 x 1 + 400 x 0.10 + 200 x 1.25 + 100 x 5
    "anthropic-stream": "0.00179",
}
HOSTS = {"api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"}
SECRETS = r"sk-|AIza|authorization|api[-_]key|cookie|organization|x-request-id|cf-ray"
IDS = r"(chatcmpl|resp|msg|req|toolu|call|org|proj)[-_][A-Za-z0-9_-]{12,}"


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
async def test_a_cassette_is_booked_to_the_last_digit(path, meter, ledger):
    provider, _, way = path.stem.partition("-")
    model = client(provider, "played")
    with play(path) as tape:
        run = await WAYS[way](model, meter())
        assert tape.all_played, f"{tape.play_count} of {len(tape)} recorded answers were asked for"
        agrees(provider, run, tape)
    books = read_back(ledger)
    assert not books.holds
    if is_loopback(path):
        assert books.booked_usd == Decimal(USD[path.stem])


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_a_cassette_says_where_it_is_from_and_whose_it_is_not(path):
    text = path.read_text(encoding="utf-8")
    hosts = set(re.findall(r"https?://([^/\s\"']+)", text))
    assert hosts <= ({"127.0.0.1"} if is_loopback(path) else HOSTS), f"addresses: {hosts}"
    for pattern in (SECRETS, IDS):
        found = re.search(pattern, text, re.IGNORECASE)
        assert not found, f"{path.name} holds {found[0]!r}"


def test_every_provider_and_way_of_the_loopback_is_there():
    assert set(SCRIPTS) <= {path.stem for path in TAPES}
