"""Fifty calls at once, or forty from four processes, against a budget for five: holds, not luck, decide how many are sent.

`python -m tests.flow.parallel_table` prints the numbers of every way.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from ai_budget_callbacks import Budget
from ai_budget_callbacks.demo.loopback import Reply
from tests.flow.kit import chat, read_back
from tests.flow.parallel_table import (
    FIVE_USD,
    INDEPENDENT,
    MODES,
    MODEST_FIVE_USD,
    ONE_RUN,
    QUESTION,
    STREAMS,
    UNIT_USD,
    Held,
    closed_streams,
    measure,
    model,
    modest,
    processes,
)


def _name(way):
    return way.__name__


def _books(got, ledger):
    """Every call that was sent is on the books, nothing is held, and no more than what was sent is booked."""
    books = read_back(ledger)
    assert not books.holds, f"{len(books.holds)} holds are left open after all calls ended"
    assert not [row for row in books.balances if row["held"]], "a balance still holds money with no call in flight"
    calls = books.column("status")
    assert len(calls) == got.sent, f"{got.sent} requests were sent, {len(calls)} are on the books: {calls}"
    return books


@pytest.mark.parametrize("way", INDEPENDENT, ids=_name)
async def test_a_budget_for_five_calls_sends_five(ledger, way):
    got = await measure(way, Budget(calls=5), ledger)
    assert got.sent == 5, f"{got.sent} calls were paid for on a budget for 5"
    assert got.refused == 45, f"{got.refused} of the other 45 callers were told"
    books = _books(got, ledger)
    assert books.booked_usd == got.billed_usd == 5 * UNIT_USD, f"booked ${books.booked_usd}, billed ${got.billed_usd}"
    assert books.spent("calls") == [5]


@pytest.mark.parametrize("way", ONE_RUN, ids=_name)
async def test_one_run_that_fans_out_sends_no_more_than_five(ledger, way):
    got = await measure(way, Budget(calls=5), ledger)
    assert got.sent <= 5, f"{got.sent} calls were paid for on a budget for 5"
    assert got.refused == 1, "the caller of the run must get the refusal"
    books = read_back(ledger)
    assert not books.holds, "holds are left open after the run"
    assert len(books.column("status")) >= got.sent, "a request that was sent is not on the books"
    assert books.booked_usd >= got.billed_usd, f"booked ${books.booked_usd} of ${got.billed_usd} billed"


@pytest.mark.parametrize("way", [*INDEPENDENT, *STREAMS], ids=_name)
async def test_worst_case_never_overspends(ledger, way):
    """The server bills every call at its bound: output = max_tokens, input = the byte bound."""
    got = await measure(way, Budget(usd=FIVE_USD), ledger, reserve="worst_case")
    assert set(got.held.held.values()) == {UNIT_USD}, f"a hold is no proven bound: {set(got.held.held.values())}"
    assert 1 <= got.sent <= 5, f"{got.sent} calls were sent on a budget for 5 worst cases"
    assert got.billed_usd <= FIVE_USD, f"${got.billed_usd} was billed against a limit of ${FIVE_USD}"
    books = _books(got, ledger)
    assert got.billed_usd <= books.booked_usd <= FIVE_USD, f"the books say ${books.booked_usd}, limit ${FIVE_USD}"


@pytest.mark.parametrize("way", ONE_RUN, ids=_name)
async def test_worst_case_never_overspends_in_one_run(ledger, way):
    got = await measure(way, Budget(usd=FIVE_USD), ledger, reserve="worst_case")
    assert got.billed_usd <= FIVE_USD, f"${got.billed_usd} was billed against a limit of ${FIVE_USD}"
    books = read_back(ledger)
    assert not books.holds, "holds are left open after the run"
    assert got.billed_usd <= books.booked_usd <= FIVE_USD, f"the books say ${books.booked_usd}, limit ${FIVE_USD}"


async def test_worst_case_knows_that_the_provider_may_answer_at_the_dearest_tier(ledger):
    """The request pins no tier and the server answers gpt-5 at priority: 549 x 2.50 + 100 x 20 = 3372.5 per million."""
    unit = Decimal("0.0033725")
    limit = 5 * unit

    async def way(far, config):
        found = await chat(far, model="gpt-5", max_tokens=100).abatch(
            [QUESTION] * 40, config=config, return_exceptions=True
        )
        return sum(isinstance(item, Exception) for item in found)

    reply = Reply(input_tokens=549, output_tokens=100, service_tier="priority")
    got = await measure(way, Budget(usd=limit), ledger, reply, reserve="worst_case")
    assert got.billed_usd <= limit, f"${got.billed_usd} was billed at the priority tier, the limit is ${limit}"
    assert got.sent == 5, f"{got.sent} calls were sent on a budget for 5 of the dearest tier"
    books = _books(got, ledger)
    assert books.booked_usd == got.billed_usd


@pytest.mark.parametrize("way", [*INDEPENDENT, *ONE_RUN], ids=_name)
async def test_expected_overspends_no_more_than_its_holds_were_too_small(ledger, way, capsys):
    got = await measure(way, Budget(usd=MODEST_FIVE_USD), ledger, modest, reserve="expected")
    books = read_back(ledger)
    assert not books.holds, "holds are left open after all calls ended"
    over = books.booked_usd - MODEST_FIVE_USD
    with capsys.disabled():
        print(f" [{way.__name__}: sent {got.sent}, billed ${got.billed_usd} of ${MODEST_FIVE_USD}]", end="")
    assert books.booked_usd >= got.billed_usd, f"booked ${books.booked_usd} of ${got.billed_usd} billed"
    assert over <= got.held.underestimated_usd, (
        f"${over} was spent past the limit; the holds were only ${got.held.underestimated_usd} too small"
    )


async def test_expected_learns_from_what_it_saw(ledger):
    """Answers of 1000 tokens where nothing bounds them: the first guess is larger, so nothing is overspent."""
    reply = Reply(input_tokens=15, output_tokens=1000, delay_s=0.02)
    limit = Decimal("0.01")  # 15 x 0.15 + 1000 x 0.60 = 602.25 per million: room for 16

    async def way(far, config):
        found = await chat(far).abatch([QUESTION] * 40, config=config, return_exceptions=True)
        return sum(isinstance(item, Exception) for item in found)

    got = await measure(way, Budget(usd=limit), ledger, reply)
    assert 1 <= got.sent <= 16
    assert got.billed_usd <= limit, f"${got.billed_usd} billed of ${limit}"
    assert _books(got, ledger).booked_usd == got.billed_usd


async def test_without_reservation_what_runs_in_parallel_is_sent(ledger):
    """`reserve="none"` says what it is: only settled money counts."""
    got = await measure(INDEPENDENT[2], Budget(usd=FIVE_USD), ledger, reserve="none")
    assert got.sent == 50
    assert _books(got, ledger).booked_usd == got.billed_usd == 50 * UNIT_USD


async def test_a_fixed_hold_admits_limit_over_hold(ledger):
    got = await measure(INDEPENDENT[2], Budget(usd="0.01"), ledger, reserve="0.002")
    assert got.sent == 5, f"$0.01 has room for five holds of $0.002, {got.sent} calls were sent"
    assert _books(got, ledger).booked_usd == got.billed_usd == 5 * UNIT_USD


async def test_fifty_closed_streams_on_a_budget_for_five_calls(ledger):
    got = await measure(closed_streams, Budget(calls=5), ledger)
    assert got.sent == 5, f"{got.sent} streams were paid for on a budget for 5"
    books = _books(got, ledger)
    assert books.statuses == ["estimated"] * 5, f"a cut stream is {books.statuses}"


async def test_two_handlers_on_one_file_share_no_attached_budget_but_all_durable_ones(ledger):
    """A durable budget is one balance for all handlers on the file: five in all, not five each."""
    budget = Budget(calls=5, per="total", name="all")

    async def way(far, config):
        from ai_budget_callbacks.langchain import BudgetCallbackHandler

        second = BudgetCallbackHandler(budget, ledger=ledger)
        client = model(far)
        found = client.batch([QUESTION] * 20, config=config, return_exceptions=True)
        found += client.batch([QUESTION] * 20, config={"callbacks": [second]}, return_exceptions=True)
        second.close()
        return sum(isinstance(item, Exception) for item in found)

    got = await measure(way, budget, ledger)
    assert got.sent == 5, f"{got.sent} calls were paid for on one durable budget for 5"
    assert got.refused == 35
    assert read_back(ledger).spent("calls") == [5]


# -- four processes, ten calls each, one durable budget


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_processes_share_one_durable_budget(ledger, mode):
    got = processes(mode.budget(durable=True), ledger, mode.reply, **mode.options)
    books = _books(got, ledger)
    assert set(books.statuses) == {"priced"}
    assert books.booked_usd == got.billed_usd == got.sent * mode.unit_usd
    assert got.sent + got.refused == 40, f"{got.sent} were sent and {got.refused} callers were told, of 40"
    assert books.spent(mode.unit) == [got.sent if mode.unit == "calls" else got.billed_usd]
    over = got.billed_usd - mode.limit_usd
    assert over <= got.held.underestimated_usd, (
        f"${over} overspent; the holds were ${got.held.underestimated_usd} short"
    )
    if mode.name in {"5 calls", "worst_case"}:
        assert got.sent == 5, f"{got.sent} calls were sent on a budget for 5"
    if mode.name == "an amount":
        assert 5 <= got.sent <= 7, f"{got.sent} calls were sent; five holds fit, and what they leave over admits two"
    if mode.name == "expected":
        assert 1 <= got.sent < 40


@pytest.mark.parametrize("way", INDEPENDENT, ids=_name)
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode.name in {"an amount", "half the cost"}], ids=lambda mode: mode.name)  # fmt: skip
async def test_a_fixed_hold_overspends_no_more_than_it_is_too_small(ledger, way, mode):
    got = await measure(way, mode.budget(), ledger, mode.reply, **mode.options)
    assert _books(got, ledger).booked_usd == got.billed_usd == got.sent * mode.unit_usd
    assert set(got.held.held.values()) == {mode.options["reserve"]}
    over = got.billed_usd - mode.limit_usd
    if mode.name == "an amount":
        assert over <= 0, f"${over} was overspent though every hold was larger than its call"
    # five holds at most are open at once, and each was short by what its call cost beyond it
    assert over <= 5 * max(mode.unit_usd - mode.options["reserve"], Decimal(0))


def test_the_hold_listener_counts_what_was_too_small():
    """The yardstick of the tests above: a call that cost 3 and held 2 was 1 too small; one under its hold is 0."""
    held = Held(held={"a": Decimal(2), "b": Decimal(9)}, cost={"a": Decimal(3), "b": Decimal(1)})
    assert held.underestimated_usd == 1
