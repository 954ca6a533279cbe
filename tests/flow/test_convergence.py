"""The expected hold learns: it starts above any answer of its kind and comes down to what such calls cost.

`python -m tests.flow.convergence_table` prints calls made against hold ÷ actual.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.flow.convergence_table import MARKS, calls_made, mean_ratio


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    return calls_made(MARKS[-1] + 16, tmp_path_factory.mktemp("convergence") / "spend.db")


def test_before_anything_is_known_the_hold_covers_the_answer(calls):
    for made in range(8):
        assert calls[made].ratio > 2, f"after {made} calls the hold is {calls[made].ratio:.2f} of the cost: a guess"


def test_after_64_calls_the_hold_is_what_such_calls_cost(calls):
    late = calls[MARKS[-1] :]
    assert 1 <= mean_ratio(late) <= 2, f"holds after 64 calls are {mean_ratio(late):.2f} of the costs"
    for call in late:
        # an answer in the longest tenth may cost a little more than its hold; none is far from it
        assert Decimal("0.9") <= call.ratio <= 2, f"one hold is {call.ratio:.2f} of its cost"


def test_it_never_gets_worse_by_learning(calls):
    early, middle, late = (mean_ratio(calls[a:b]) for a, b in ((0, 8), (8, 32), (32, 80)))
    assert early > middle >= late - Decimal("0.1"), f"hold over actual: {early:.2f}, then {middle:.2f}, then {late:.2f}"


def test_a_bound_on_the_output_is_used_from_the_first_call(tmp_path):
    first = calls_made(1, tmp_path / "spend.db", max_tokens=300)[0]
    assert 1 <= first.ratio <= 4, f"with max_tokens=300 the first hold is {first.ratio:.2f} of the cost"
