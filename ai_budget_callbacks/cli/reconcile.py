"""`ai-budget reconcile`: a provider's export beside the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import click

from ai_budget_callbacks.cli.output import (
    EXIT_WRONG,
    fail,
    ledger_option,
    open_book,
    output_options,
    render,
    since_moment,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from ai_budget_callbacks.exports import Export
    from ai_budget_callbacks.ledger import Entry
    from ai_budget_callbacks.reconcile import Matched

__all__ = ["reconcile"]


@click.command()
@click.argument("file", type=click.File("rb"))
@ledger_option
@output_options
@click.option("--format", "form", default=None, help="openai-costs, openai-usage, anthropic-cost-report, "
              "anthropic-usage-report, openrouter-activity or csv. [default: seen from the content]")  # fmt: skip
@click.option("--provider", default=None, help="Whose calls to compare. [default: those of the format; of csv all]")
@click.option("--since", default=None, help="Only from a UTC day on (2026-11-01, or an age: 7d).")
@click.option("--until", default=None, help="Only before a UTC day.")
@click.option("--tolerance", default="0", show_default=True, help="USD up to which two amounts are equal.")
@click.option("--all", "everything", is_flag=True, help="Rows that are equal, too.")
def reconcile(
    file: Any,
    ledger: str | None,
    output: str | None,
    form: str | None,
    provider: str | None,
    since: str | None,
    until: str | None,
    tolerance: str,
    everything: bool,  # noqa: FBT001 - a click flag
) -> None:
    """Compare a provider's cost or usage export with the ledger, by UTC day and model (FILE, or - for stdin)."""
    from ai_budget_callbacks.exports import read_export
    from ai_budget_callbacks.ledger import Query
    from ai_budget_callbacks.money import pico_from_usd
    from ai_budget_callbacks.reconcile import matched_row
    from ai_budget_callbacks.reconcile import reconcile as compare

    with told():
        export = read_export(_text(file), form)
        days = _days(export, since, until)
        allowed = pico_from_usd(tolerance, what="--tolerance")
    if allowed < 0:
        fail(f"--tolerance is an amount from 0 on, not {tolerance}.", EXIT_WRONG)
    book = open_book(ledger)
    with told():
        entries = list(book.entries(Query(since=datetime.combine(days[0], time(), UTC))))
        whose = export.provider if provider is None else _provider(provider, entries, days)
        found = compare(entries, export, days=days, provider=whose, tolerance_pico=allowed)
    shown = [item for item in found if everything or item.verdict != "equal"]
    render([matched_row(item) for item in shown], output, none="No differences.")
    _say(found, export, days)


def _text(file: Any) -> str:
    try:
        return str(file.read().decode("utf-8"))
    except UnicodeDecodeError:
        fail("The export is no UTF-8 text. Save the answer of the API, or the CSV, as UTF-8.", EXIT_WRONG)


def _provider(word: str, entries: Sequence[Entry], days: tuple[date, date]) -> str:
    """Whose calls are meant, in the catalogue's word; a slip would make every row "only theirs"."""
    from ai_budget_callbacks.pricing import PriceBook

    called = (entry for entry in entries if entry.kind == "call" and days[0] <= entry.started_at.date() <= days[1])
    known = sorted({entry.provider for entry in called})
    provider = word if word in known else PriceBook().provider(None, word)[0]
    if provider not in known:
        there = f"those of these days are of {', '.join(known)}" if known else "these days have no calls at all"
        fail(f"No calls of provider {word!r} from {days[0]} to {days[1]}; {there}.", EXIT_WRONG)
    return provider


def _days(export: Export, since: str | None, until: str | None) -> tuple[date, date]:
    first, last = export.days
    if since is not None:
        first = max(first, since_moment(since).date())
    end = None if until is None else since_moment(until).date()
    if end is not None and first < end <= last:
        last = end - timedelta(days=1)
    if first > last or (end is not None and end <= first):
        fail(f"The export has {export.days[0]} to {export.days[1]}; no day of it is left to compare.", EXIT_WRONG)
    return first, last


def _say(found: Sequence[Matched], export: Export, days: tuple[date, date]) -> None:
    from ai_budget_callbacks.money import usd_with_sign

    theirs = sum(item.theirs.pico or 0 for item in found if item.theirs is not None)
    ours = sum(item.ours.pico or 0 for item in found if item.ours is not None)
    equal = sum(item.verdict == "equal" for item in found)
    stated = any(item.theirs is not None and item.theirs.pico is not None for item in found)
    sums = f"theirs {usd_with_sign(theirs)}, ours {usd_with_sign(ours)}, difference {usd_with_sign(theirs - ours)}"
    if not stated:
        sums = f"the export states tokens and no amounts; ours {usd_with_sign(ours)}"
    click.echo(f"{export.format}, {days[0]} to {days[1]} (UTC): {equal} of {len(found)} equal; {sums}.", err=True)
    if export.more:
        click.echo("The export is one page of several (has_more): fetch the next pages, too.", err=True)
