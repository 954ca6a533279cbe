"""What all commands share: options, how rows are printed, how faults are told, how times are read."""

from __future__ import annotations

import csv
import io
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
    from collections.abc import Callable, Sequence

    from ai_budget_callbacks.ledger import Ledger

__all__ = [
    "EXIT_UNPRICED",
    "EXIT_WRONG",
    "Commands",
    "check_run",
    "fail",
    "ledger_option",
    "moment",
    "open_book",
    "output_options",
    "render",
    "since_moment",
    "told",
]

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


class Commands(click.Group):
    """The commands, on streams that take any text: a terminal without a sign must not end what was begun."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As of every group; `args` and `kwargs` are click's."""
        for stream in (sys.stdout, sys.stderr):
            # a C locale's own handler writes the bytes of file names as they are
            if isinstance(stream, io.TextIOWrapper) and (stream.errors, stream.encoding.lower()) != _BYTES_KEPT:
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **kwargs)


_BYTES_KEPT = ("surrogateescape", "utf-8")


class told:  # noqa: N801 - reads as a statement
    """Our errors as one line on stderr instead of a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AIBudgetError):
            fail(error.message, EXIT_WRONG)


def fail(text: str, code: int) -> NoReturn:
    """Say why on stderr, and exit."""
    click.echo(text, err=True)
    sys.exit(code)


def open_book(ledger: str | None, *, write: bool = False) -> Ledger:
    """The ledger at a path or URL, or the default one; one that is not there is not made. Read only, unless `write`."""
    from ai_budget_callbacks.ledger import open_ledger

    where = ledger or default_ledger()
    file = Path(where.removeprefix("sqlite:///"))
    try:
        if not file.exists():
            fail(_missing(file, named=ledger is not None), EXIT_WRONG)
        return open_ledger(where, read_only=not write)
    except OSError as error:
        fail(f"The ledger {file} cannot be read: {error.strerror}.", EXIT_WRONG)
    except LedgerError as error:
        fail(error.message, EXIT_WRONG)


def check_run(book: Ledger, run: str | None) -> None:
    """Say so and exit where a run that was asked for is not there."""
    from ai_budget_callbacks.ledger import Query

    if run is not None and next(book.entries(Query(run=run, last=1)), None) is None:
        fail(f"There is no run {run!r} in {book.url}; `ai-budget runs` lists the latest.", EXIT_WRONG)


def _missing(file: Path, *, named: bool) -> str:
    if named:
        return (
            f"There is no ledger at {file}. Check --ledger and AI_BUDGET_LEDGER; the first handler or meter with this "
            "ledger= makes it."
        )
    return f"There is no ledger at {file} yet; the first handler or meter makes it. Name another one with --ledger."


def render(rows: Sequence[dict[str, Any]], output: str | None, *, none: str = "No entries.") -> None:
    """Print rows in the form that was asked for; to people, where there is none, that there is none."""
    if output == "json":
        click.echo(json.dumps(rows))
    elif output == "nl":
        for row in rows:
            click.echo(json.dumps(row))
    elif output == "csv":
        if rows:
            writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    elif rows:
        from tabulate import tabulate

        columns = list(rows[0])
        numbers = {name for name in columns if name.startswith("cost_") or name.endswith("_usd")}
        align = ["right" if isinstance(rows[0][name], int) or name in numbers else "left" for name in columns]
        cells = [[str(row[name]) for name in columns] for row in rows]
        click.echo(tabulate(cells, headers=columns, colalign=align, disable_numparse=True))
    else:
        click.echo(none, err=True)


def moment(text: str) -> datetime:
    """An ISO 8601 time; UTC where it says no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text!r} is no ISO 8601 time, such as 2026-11-24T13:00:00Z.", EXIT_WRONG)
    try:
        return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except OverflowError:
        fail(f"{text!r} is before the first or after the last day there is in UTC.", EXIT_WRONG)


def since_moment(text: str) -> datetime:
    """A time, or an age before now."""
    age = _AGE.match(text)
    if age is not None:
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        except OverflowError:
            fail(f"{text!r} is an age before the first day there is; give a shorter one, or leave it out.", EXIT_WRONG)
    return moment(text)
