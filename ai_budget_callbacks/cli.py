"""`ai-budget`: rows to stdout, notes to stderr. Renders; decides nothing."""

from __future__ import annotations

import csv
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ai_budget_callbacks.errors import AIBudgetError, LedgerError
from ai_budget_callbacks.settings import default_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ai_budget_callbacks.ledger import Ledger

__all__ = ["main"]

EXIT_WRONG = 1
EXIT_UNPRICED = 3

_AGE = re.compile(r"(\d+)([mhdw])\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

ledger_option = click.option(
    "--ledger",
    envvar="AI_BUDGET_LEDGER",
    default=None,
    help="Path or URL of the ledger. [default: user data directory]",
)


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The output flags of sqlite-utils."""
    for flag, text in (
        ("--table", "A table for people (the default)."),
        ("--csv", "CSV with a header."),
        ("--nl", "One JSON object a line."),
        ("--json", "A JSON list of rows."),
    ):
        function = click.option(flag, "output", flag_value=flag[2:], help=text)(function)
    return function


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ai-budget-callbacks")
def main() -> None:
    """See what LLM calls cost, and where the money went."""


@main.command()
@ledger_option
def path(ledger: str | None) -> None:
    """Print where the ledger is."""
    click.echo(ledger or default_ledger())


@main.command()
@ledger_option
@output_options
@click.option("--by", default="model", show_default=True, help="Columns to group by: step, agent, tool, model, user, "
              "provider, thread, run, status, day, framework, or a metadata key; several with commas.")  # fmt: skip
@click.option("--since", default=None, help="Only since a date (2026-11-01), a time, or an age (30m, 24h, 7d, 4w).")
@click.option("--run", default=None, help="Only one run.")
def report(ledger: str | None, output: str | None, by: str, since: str | None, run: str | None) -> None:
    """Where the money went."""
    from ai_budget_callbacks.ledger import Query
    from ai_budget_callbacks.report import grouped_rows

    book = _open(ledger)
    with _told():
        entries = book.entries(Query(run=run, since=None if since is None else _since(since)))
        rows = grouped_rows(entries, [name.strip() for name in by.split(",") if name.strip()])
    _render(rows, output)


@main.command()
@ledger_option
def verify(ledger: str | None) -> None:
    """Check the books against themselves."""
    book = _open(ledger)
    with _told():
        wrong = book.verify()
        holds = book.open_holds()
    for line in wrong:
        click.echo(line)
    if wrong:
        click.echo(f"{len(wrong)} things are wrong in {book.url}.", err=True)
        sys.exit(EXIT_WRONG)
    click.echo(f"{book.url}: the books add up; {holds} open holds.")


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option("--provider", required=True, help="openai, azure or anthropic.")
@click.option("--model", default=None, help="Model to price by; the body's own word where it has one.")
@click.option("--api", default=None, help="API it came from (chat.completions, responses, messages, batch/…).")
@click.option("--service-tier", default=None, help="Tier where the body does not say it (flex, priority).")
@click.option("--batch", is_flag=True, help="The call went through the batch API.")
@click.option("--region", default=None, help="Region where the body does not say it (Anthropic: us).")
@click.option("--units", multiple=True, metavar="BUCKET=N", help="Counts the usage lacks, for example web_search=2.")
@click.option("--at", default=None, help="Request time, ISO 8601. [default: now]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def price(  # the command line's own shape
    file: Any,
    provider: str,
    model: str | None,
    api: str | None,
    service_tier: str | None,
    batch: bool,  # noqa: FBT001 - a click flag
    region: str | None,
    units: Sequence[str],
    at: str | None,
    as_json: bool,  # noqa: FBT001 - a click flag
) -> None:
    """Price a provider's response body, or just its usage object (FILE, or - for stdin)."""
    from ai_budget_callbacks.pricing import PriceBook
    from ai_budget_callbacks.usage import Usage
    from ai_budget_callbacks.usage.wire import PROVIDERS, read_body

    if provider not in PROVIDERS:
        _fail(f"No reader for provider {provider!r}; there are {', '.join(PROVIDERS)}.", EXIT_UNPRICED)
    body = _json(file)
    batch = batch or bool(api and "batch" in api)
    found = read_body(provider, body, service_tier=service_tier, batch=batch, geo=region)
    extra = _counts(units)
    usage = found.usage or (Usage(buckets={}, reader="units") if extra else None)
    name = model or found.model
    if usage is None:
        _fail("This body reports no usage; an answer without usage cannot be priced.", EXIT_UNPRICED)
    if name is None:
        _fail("This body names no model; give --model.", EXIT_UNPRICED)
    moment = datetime.now(UTC) if at is None else _moment(at)
    with _told():
        usage = usage.with_units(extra)
        cost = PriceBook().price(usage, provider=provider, model=name, requested=name, at=moment)
    if cost.usd is None:
        _fail(f"{name} of {provider} cannot be priced: {cost.reason}.", EXIT_UNPRICED)
    _show_price(provider, name, usage, cost, as_json=as_json)


def _show_price(provider: str, model: str, usage: Any, cost: Any, *, as_json: bool) -> None:
    from ai_budget_callbacks.money import usd_text

    lines = [
        {
            "bucket": line.bucket,
            "count": line.count,
            "unit_price_usd": format(line.unit_price_usd, "f"),
            "per": line.per,
            "amount_usd": usd_text(line.amount_pico),
        }
        for line in cost.lines
    ]
    if not as_json:
        _render(lines, None)
        click.echo(f"${usd_text(cost.pico)}  {cost.status}  {model} ({cost.source.name}, {cost.source.terms})")
        return
    result = {
        "provider": provider,
        "model": model,
        "usage": dict(usage.buckets),
        "lines": lines,
        "cost_usd": usd_text(cost.pico),
        "status": cost.status,
        "source": cost.source.to_dict(),
    }
    click.echo(json.dumps(result))


@main.command()
@click.option("--ledger", default=None, help="Ledger file of the demo. [default: a new temporary file]")
@click.option(
    "--live", is_flag=True, help="Use the real API with OPENAI_API_KEY, capped at one cent by its own budget."
)
def demo(ledger: str | None, live: bool) -> None:  # noqa: FBT001 - a click flag
    """Watch a limit hold: no key and no network needed."""
    try:
        from ai_budget_callbacks.demo.run import run_demo
    except ImportError as error:
        _fail(
            f"The demo needs LangChain ({error.name} is missing): pip install 'ai-budget-callbacks[demo]'", EXIT_WRONG
        )
    with _told():
        sys.exit(run_demo(ledger=ledger, live=live))


# -- small parts


class _told:  # noqa: N801 - reads as a statement
    """Our errors as one line on stderr instead of a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AIBudgetError):
            _fail(error.message, EXIT_WRONG)


def _fail(text: str, code: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(code)


def _open(ledger: str | None) -> Ledger:
    from ai_budget_callbacks.ledger import open_ledger

    where = ledger or default_ledger()
    file = Path(where.removeprefix("sqlite:///"))
    if not file.exists():
        _fail(f"There is no ledger at {file} yet; it is made by the first call, or give --ledger.", EXIT_WRONG)
    try:
        return open_ledger(where)
    except LedgerError as error:
        _fail(error.message, EXIT_WRONG)


def _render(rows: Sequence[dict[str, Any]], output: str | None) -> None:
    if output == "json":
        click.echo(json.dumps(rows))
    elif output == "nl":
        for row in rows:
            click.echo(json.dumps(row))
    elif output == "csv":
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif rows:
        from tabulate import tabulate

        columns = list(rows[0])
        align = ["right" if isinstance(rows[0][name], int) or name.endswith("_usd") else "left" for name in columns]
        cells = [[str(row[name]) for name in columns] for row in rows]
        click.echo(tabulate(cells, headers=columns, colalign=align, disable_numparse=True))
    else:
        click.echo("No entries.", err=True)


def _json(file: Any) -> Any:
    try:
        return json.loads(file.read())
    except ValueError as error:
        _fail(f"This is not JSON: {error}.", EXIT_WRONG)


def _counts(units: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in units:
        name, _, number = item.partition("=")
        if not name or not number.isdecimal():
            _fail(f"--units takes BUCKET=N, for example web_search=2, not {item!r}.", EXIT_WRONG)
        counts[name] = int(number)
    return counts


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        _fail(f"{text!r} is no ISO 8601 time, such as 2026-11-24T13:00:00Z.", EXIT_WRONG)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _since(text: str) -> datetime:
    age = _AGE.match(text)
    if age is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
    return _moment(text)
