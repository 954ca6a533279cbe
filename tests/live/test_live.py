"""Our numbers beside what real providers report: usage to the token, cost by hand from the entry's unit prices."""

from __future__ import annotations

import pytest

from tests.live.conftest import ADDRESSES
from tests.live.scenarios import PROVIDERS, WAYS, agrees, client


@pytest.mark.vcr
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_books_say_what_the_provider_reports(key, live_meter, vcr, provider, way):
    run = await WAYS[way](client(provider, key, ADDRESSES.get(provider)), live_meter)
    if way == "refused":
        assert run.exceeded
        assert len(vcr.requests) == 1, f"{len(vcr.requests) - 1} requests were paid for after the limit"
    agrees(provider, run, vcr)
