"""Commands that read the ledger: where it is, what is in it, where the money went."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ai_budget_callbacks.cli.output import (
    EXIT_WRONG,
    check_run,
    ledger_option,
    open_book,
    output_options,
    render,
    since_moment,
    told,
)
from ai_budget_callbacks.cli.prices import in_currency, note_currency, own_prices, price_facts, prices_option
from ai_budget_callbacks.settings import default_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_budget_callbacks.budget import Budget
    from ai_budget_callbacks.ledger import Balance

__all__ = ["budgets", "path", "report", "runs", "show", "status", "verify"]


@click.command()
@ledger_option
def path(ledger: str | None) -> None:
    """Print where the ledger is."""
    click.echo(ledger or default_ledger())


@click.command()
@ledger_option
@prices_option
@output_options
def status(ledger: str | None, prices: str | None, output: str | None) -> None:
    """Where the ledger is, what is in it, and which prices are used."""
    from importlib.metadata import version

    book = open_book(ledger)
    with told():
        found = book.status()
    facts: dict[str, Any] = {
        "ledger": str(Path(book.url).resolve()),
        "version": version("ai-budget-callbacks"),
        **price_facts(own_prices(prices)),
        "size_bytes": found.size_bytes,
        "entries": sum(found.entries.values()),
        "open_holds": found.open_holds,
        "first_at": "" if found.first_at is None else found.first_at.isoformat(timespec="seconds"),
        "last_at": "" if found.last_at is None else found.last_at.isoformat(timespec="seconds"),
    } | {name: found.entries.get(name, 0) for name in _STATUSES}
    if output not in {None, "table"}:
        render([facts], output)
        return
    for name, value in facts.items():
        click.echo(f"{name:<12}  {value}")


_STATUSES = ("priced", "reported", "estimated", "free", "unknown", "unpriced")


@click.command()
@ledger_option
@output_options
@click.option("--by", default="model", show_default=True, help="Columns to group by: step, agent, tool, model, user, "
              "provider, thread, run, status, day, framework, or a metadata key; several with commas.")  # fmt: skip
@click.option("--since", default=None, help="Only since a date (2026-11-01), a time, or an age (30m, 24h, 7d, 4w).")
@click.option("--run", default=None, help="Only one run.")
@prices_option
def report(
    ledger: str | None, output: str | None, by: str, since: str | None, run: str | None, prices: str | None
) -> None:
    """Where the money went."""
    from ai_budget_callbacks.ledger import Query
    from ai_budget_callbacks.report import grouped_rows

    book = open_book(ledger)
    with told():
        check_run(book, run)
        entries = book.entries(Query(run=run, since=None if since is None else since_moment(since)))
        rows = grouped_rows(entries, [name.strip() for name in by.split(",") if name.strip()])
    if output not in {None, "table"}:
        render(rows, output)  # what programs read is in USD
        return
    mine = own_prices(prices)
    render(in_currency(rows, mine), output)
    note_currency(mine)


@click.command()
@ledger_option
@output_options
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), help="How many runs.")
def runs(ledger: str | None, output: str | None, last: int) -> None:
    """The latest runs and what each cost, the latest first."""
    from ai_budget_callbacks.ledger import Query
    from ai_budget_callbacks.report import run_row

    book = open_book(ledger)
    with told():
        rows = [run_row(run, list(book.entries(Query(run=run)))) for run in book.latest_runs(last)]
    render(rows, output)


@click.command()
@click.argument("run")
@ledger_option
@output_options
def show(run: str, ledger: str | None, output: str | None) -> None:
    """One run as a tree of chains, agents and tools, with the cost of each (RUN as `runs` prints it)."""
    from ai_budget_callbacks.calltree import call_tree
    from ai_budget_callbacks.ledger import Query

    book = open_book(ledger)
    with told():
        check_run(book, run)
        entries = list(book.entries(Query(run=run)))
    tree = call_tree(entries, run)
    if output in {None, "table"}:
        click.echo(str(tree))
    else:
        render(list(tree.rows()), output)


@click.command()
@ledger_option
@output_options
@click.option("--all", "everything", is_flag=True, help="Past windows too, and budgets that ended with their handler.")
def budgets(ledger: str | None, output: str | None, everything: bool) -> None:  # noqa: FBT001 - a click flag
    """What is spent, held and left of each named budget in its current window.

    The limit is the one given last by any process; each process enforces its own.
    """
    from ai_budget_callbacks.report import balance_row, balance_view

    book = open_book(ledger)
    now = datetime.now(UTC)
    with told():
        known = {item.key: item.budget for item in book.known_budgets()}
        used = [row for row in book.balances() if row.key.budget in known]
        current = [row for row in used if _is_current(known[row.key.budget], row.key.window, now)]
        shown = [*(used if everything else current), *_unused(known, current, now)]
        rows = [balance_row(balance_view(known[row.key.budget], row, now)) for row in shown]
    rows.sort(key=lambda row: (row["budget"], row["window"], row["scope"]))
    render(rows, output, none="No named budgets; --all shows those that ended with their handler.")


def _is_current(budget: Budget, window: str, now: datetime) -> bool:
    from ai_budget_callbacks.budget import window_key

    return budget.durable and window_key(budget, now, "") == window


def _unused(known: Mapping[str, Budget], current: Sequence[Balance], now: datetime) -> list[Balance]:
    """Named budgets that nothing was spent on in their current window: 0 of them is spent, and they are there."""
    from ai_budget_callbacks.budget import BalanceKey, window_key
    from ai_budget_callbacks.ledger import Balance

    used = {row.key.budget for row in current}
    keys = [
        BalanceKey(key, budget.unit, window_key(budget, now, ""), "[]")
        for key, budget in known.items()
        if budget.durable and not budget.by and key not in used
    ]
    return [Balance(key=key, spent=0, held=0) for key in keys]


@click.command()
@ledger_option
def verify(ledger: str | None) -> None:
    """Check the books against themselves."""
    book = open_book(ledger)
    with told():
        wrong = book.verify()
        holds = book.open_holds()
    for line in wrong:
        click.echo(line)
    if wrong:
        click.echo(f"{len(wrong)} things are wrong in {book.url}.", err=True)
        sys.exit(EXIT_WRONG)
    click.echo(f"{book.url}: the books add up; {holds} open holds.")
