"""Every trap of facts/langchain.md 7 and every incomplete call of 3.5 ends on the books, with nothing left held.

The cases stand in trap_table.py; `python -m tests.flow.trap_table` prints them with what happened.
"""

from __future__ import annotations

import pytest

from tests.flow.trap_table import CASES, run_case
from tests.support.versions import needs

# one event loop for the table; each case is a task of its own in it
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.trap}: {case.name}")
async def test_a_trap_ends_on_the_books(tmp_path, case):
    needs(case.lacks)
    got = await run_case(case, tmp_path / "spend.db")
    assert got.requests == case.requests, f"{got.requests} requests were sent, {case.requests} were expected"
    assert got.billed == case.usd, f"the server billed ${got.billed}, by hand it is ${case.usd}"
    assert got.statuses == case.statuses, f"{got.requests} requests left {got.statuses} on the books"
    assert got.holds == 0, "money is still held though nothing is in flight"
    if case.exact:
        assert got.booked == got.billed, f"the books say ${got.booked}, the provider billed ${got.billed}"
    else:
        assert got.booked >= got.billed, f"${got.billed} was billed, only ${got.booked} is on the books"
    assert got.saw == case.saw, f"the caller saw: {got.saw}"


def test_every_trap_has_a_case():
    assert {str(number) for number in range(1, 16)} <= {case.trap for case in CASES}
    names = [(case.trap, case.name) for case in CASES]
    assert len(names) == len(set(names)), "two cases have one name"
