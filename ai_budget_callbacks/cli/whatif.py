"""`ai-budget what-if`: the past at the prices of other models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ai_budget_callbacks.cli.output import (
    EXIT_UNPRICED,
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

    from ai_budget_callbacks.ledger import Entry, Ledger
    from ai_budget_callbacks.what_if import Swap

__all__ = ["what_if"]

_TOLD = (
    "The same tokens at other prices; another model counts and answers otherwise, so its bill would differ. "
    "Nothing was written."
)


@click.command("what-if")
@ledger_option
@output_options
@click.option("--model", "models", multiple=True, required=True, metavar="MODEL=OTHER",
              help="Price a model's calls as another's, each with or without PROVIDER/; may be repeated.")  # fmt: skip
@click.option("--since", default=None, help="Only since a date (2026-11-01), a time, or an age (30m, 24h, 7d, 4w).")
@click.option("--run", default=None, help="Only one run.")
@click.option("--by", default="", help="Columns to group by besides, as in `report`; several with commas.")
@prices_option
def what_if(
    ledger: str | None,
    output: str | None,
    models: Sequence[str],
    since: str | None,
    run: str | None,
    by: str,
    prices: str | None,
) -> None:
    """What past calls would have cost as another model's.

    Calls that cannot be compared, for example with tokens the other model has no price for, are counted apart.
    """
    from ai_budget_callbacks.columns import check_columns
    from ai_budget_callbacks.ledger import Query
    from ai_budget_callbacks.what_if import SUMS, compare, comparison_row, read_swaps

    mine, now = own_prices(prices), datetime.now(UTC)
    columns = [name.strip() for name in by.split(",") if name.strip()]
    book = open_book(ledger)
    with told():
        swaps = read_swaps(models, mine, now)
        check_run(book, run)
        entries = list(book.entries(Query(run=run, since=None if since is None else since_moment(since))))
        found = compare(entries, swaps, mine, check_columns(columns, entries, SUMS))
    _say_none([swap for swap in swaps if swap not in {key[0] for key in found}], swaps, entries, book)
    rows = [
        comparison_row(swap, dict(zip(columns, group, strict=True)), sums)
        for (swap, group), sums in sorted(found.items(), key=lambda item: (swaps.index(item[0][0]), item[0][1]))
    ]
    render(rows, output, none="Nothing to compare.")
    click.echo(_TOLD, err=True)
    if not any(row["calls"] for row in rows):
        fail("None of these calls could be priced so.", EXIT_UNPRICED)


def _say_none(without: Sequence[Swap], swaps: Sequence[Swap], entries: Sequence[Entry], book: Ledger) -> None:
    """Why models have no row. One that nobody called is an error: it is a slip, and looks like no cost."""
    from ai_budget_callbacks.what_if import why_none

    for swap in without:
        why = why_none(entries, swap, swaps)
        if why is None:
            fail(f"No calls of {swap.model!r} in {book.url}; `ai-budget report` lists the models.", EXIT_WRONG)
        click.echo(why, err=True)
