"""`ai-budget reprice`: the books under today's readers and prices."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ai_budget_callbacks.cli.output import (
    EXIT_WRONG,
    check_run,
    fail,
    ledger_option,
    open_book,
    output_options,
    render,
    since_moment,
    told,
)
from ai_budget_callbacks.cli.prices import own_prices, prices_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_budget_callbacks.ledger import Ledger, Settled
    from ai_budget_callbacks.reprice import Finding

__all__ = ["reprice"]


@click.command()
@ledger_option
@output_options
@click.option("--since", default=None, help="Only calls booked since a date, a time, or an age (30m, 24h, 7d, 4w).")
@click.option("--run", default=None, help="Only one run.")
@click.option("--model", default=None, help="Only one model, as it was priced or requested.")
@prices_option
@click.option("--apply", "write", is_flag=True, help="Post the differences as adjustments. [default: only show them]")
def reprice(
    ledger: str | None,
    output: str | None,
    since: str | None,
    run: str | None,
    model: str | None,
    prices: str | None,
    write: bool,  # noqa: FBT001 - a click flag
) -> None:
    """Read and price past calls again: what is booked, and what today's readers and prices make of it.

    A dry run; --apply posts one signed adjustment for each call that differs. No entry is changed, and a second run
    finds nothing.
    """
    from ai_budget_callbacks.ledger import Query
    from ai_budget_callbacks.reprice import apply, difference_row
    from ai_budget_callbacks.reprice import reprice as look
    from ai_budget_callbacks.standing import standing

    mine = own_prices(prices)
    book = open_book(ledger, write=write)
    with told():
        check_run(book, run)
        entries = list(book.entries(Query(run=run, since=None if since is None else since_moment(since))))
        if model is not None and not any(call.entry.kind == "call" and call.is_of(model) for call in standing(entries)):
            fail(f"No calls of {model!r} {_where(since, run)}; `ai-budget report` lists the models.", EXIT_WRONG)
        found = [item for item in look(entries, mine) if model is None or item.call.is_of(model)]
        differences = [item for item in found if not item.left]
        done = apply(book, differences, datetime.now(UTC)) if write else None
    render([difference_row(item) for item in differences], output, none="Nothing would be booked otherwise today.")
    _say(found, differences, done, book)


def _where(since: str | None, run: str | None) -> str:
    """Which entries were looked at, in words."""
    parts = [f"since {since}" if since is not None else "", f"in run {run!r}" if run is not None else ""]
    return " ".join(part for part in parts if part) or "on the books"


def _say(
    found: Sequence[Finding], differences: Sequence[Finding], done: Sequence[Settled] | None, book: Ledger
) -> None:
    """Notes for people: the sum, and what was left as it is. `done`: what the ledger made of each, if it was asked."""
    from ai_budget_callbacks.money import usd_with_sign

    left = Counter((item.call.entry.model, item.why) for item in found if item.left)
    for (model, why), count in sorted(left.items()):
        click.echo(f"{count} of {model} left as booked: {why}.", err=True)
    if not differences:
        return
    if done is None:
        total = usd_with_sign(sum((item.cost.pico or 0) - (item.call.cost_pico or 0) for item in differences))
        click.echo(
            f"{len(differences)} calls differ, by {total} in all. Nothing was written; --apply posts it.", err=True
        )
        return
    # what was found may have been posted by another one meanwhile
    posted = [settled.entry.cost_pico or 0 for settled in done if settled.fresh]
    others = len(done) - len(posted)
    beside = f" {others} had been posted by somebody else by then." if others else ""
    click.echo(
        f"{len(posted)} adjustments posted in {book.url}, {usd_with_sign(sum(posted))} in all.{beside}", err=True
    )
