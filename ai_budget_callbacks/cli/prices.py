"""What commands say of prices: the user's own file of them, another currency, the list's age; and `update-prices`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ai_budget_callbacks.cli.output import told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_budget_callbacks.pricing import PriceBook

__all__ = ["in_currency", "note_currency", "own_prices", "price_facts", "prices_option", "update_prices"]

prices_option = click.option(
    "--prices",
    default=None,
    help="TOML file of your own prices. [default: AI_BUDGET_PRICES]",
)


def own_prices(path: str | None) -> PriceBook:
    """The price book of a command, with the file of the option or of the environment."""
    from ai_budget_callbacks.pricing.file import price_book

    with told():
        return price_book(path)


def price_facts(book: PriceBook) -> dict[str, str]:
    """What `status` says of prices."""
    as_of = book.prices_as_of
    facts = {
        "prices": book.catalogue_name,
        "prices_as_of": "unknown" if as_of is None else as_of.isoformat(),
    }
    if book.where != "prices":
        facts["own_prices"] = book.where
    if book.currency is not None:
        facts["currency"] = book.currency.note
    return facts


def in_currency(rows: Sequence[Mapping[str, Any]], book: PriceBook) -> list[dict[str, Any]]:
    """Rows for people with the cost in another currency beside that in USD, where one is set."""
    from ai_budget_callbacks.money import pico_from_usd

    currency = book.currency
    if currency is None:
        return [dict(row) for row in rows]
    name = f"cost_{currency.code.lower()}"
    found = []
    for row in rows:
        shown: dict[str, Any] = {}
        for column, value in row.items():
            shown[column] = value
            if column == "cost_usd":
                shown[name] = currency.text(pico_from_usd(value, what=column)) if value else ""
        found.append(shown)
    return found


def note_currency(book: PriceBook) -> None:
    """At which rate, on stderr."""
    if book.currency is not None:
        click.echo(f"{book.currency.note}; budgets and the ledger are in USD.", err=True)


@click.command("update-prices")
@click.option("--url", default=None, help="Where to fetch from. [default: the address genai-prices itself gives]")
def update_prices(url: str | None) -> None:
    """Fetch the newest price list and use it from the next start on.

    It is checked before it replaces anything, and kept in the user data directory, or where AI_BUDGET_PRICE_DATA says.
    """
    from ai_budget_callbacks.pricing import snapshot
    from ai_budget_callbacks.settings import price_data

    with told():
        found = snapshot.fetch(url or snapshot.update_url(), datetime.now(UTC).date())
    click.echo(f"{found.models} models of {len(found.providers)} providers, as of {found.as_of}, in {price_data()}")
