"""`ai-budget price`: a provider's response body, priced."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ai_budget_callbacks.cli.output import EXIT_UNPRICED, EXIT_WRONG, fail, moment, render, told
from ai_budget_callbacks.cli.prices import own_prices, prices_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from ai_budget_callbacks.pricing import Cost, PriceBook, Source
    from ai_budget_callbacks.usage import Usage

__all__ = ["price"]

_LONGEST = 18  # digits of a count


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--provider", required=True, help="Who answered: openai, azure, anthropic, google, aws, xai, openrouter …"
)
@click.option("--model", default=None, help="Model to price by; the body's own word where it has one.")
@click.option("--api", default=None, help="API it came from (chat.completions, responses, messages, batch/…).")
@click.option("--service-tier", default=None, help="Tier where the body does not say it (flex, priority).")
@click.option("--batch", is_flag=True, help="The call went through the batch API.")
@click.option("--region", default=None, help="Region where the body does not say it (Anthropic: us).")
@click.option("--units", multiple=True, metavar="BUCKET=N", help="Counts the usage lacks, for example web_search=2.")
@click.option("--at", default=None, help="Request time, ISO 8601. [default: now]")
@prices_option
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
    prices: str | None,
    as_json: bool,  # noqa: FBT001 - a click flag
) -> None:
    """Price a provider's response body, or just its usage object (FILE, or - for stdin)."""
    from ai_budget_callbacks.usage import Usage
    from ai_budget_callbacks.usage.wire import read_body

    book = own_prices(prices)
    provider, _ = book.provider(None, provider)
    body = _json(file)
    batch = batch or bool(api and "batch" in api)
    found = read_body(body, service_tier=service_tier, batch=batch, geo=region, model=model)
    extra = _counts(units)
    usage = found.usage or (Usage(buckets={}, reader="units") if extra else None)
    name = model or found.model
    if usage is None:
        fail("This body reports no usage; an answer without usage cannot be priced.", EXIT_UNPRICED)
    if name is None:
        fail("This body names no model; give --model.", EXIT_UNPRICED)
    request_time = datetime.now(UTC) if at is None else moment(at)
    with told():
        usage = _with_units(usage, extra)
        cost = book.price(usage, provider=provider, model=name, requested=name, at=request_time)
    if cost.usd is None:
        fail(f"{name} of {provider} cannot be priced: {cost.reason}.", EXIT_UNPRICED)
    _show_price(provider, name, usage, cost, book, as_json=as_json)


def _show_price(provider: str, model: str, usage: Usage, cost: Cost, book: PriceBook, *, as_json: bool) -> None:
    from ai_budget_callbacks.money import usd_text, usd_with_sign

    lines = [line.to_dict() for line in cost.lines]
    pico, source = cost.pico or 0, cost.source
    as_of = book.prices_as_of if source is not None and source.kind == "catalogue" else None
    if not as_json:
        render(lines, None)
        click.echo(f"{usd_with_sign(pico)}  {cost.status}  {model} ({_from(source, as_of)})")
        if book.currency is not None:
            click.echo(f"{book.currency.text(pico)} {book.currency.code}  {book.currency.note}")
        return
    result = {
        "provider": provider,
        "model": model,
        "usage": dict(usage.buckets),
        "lines": lines,
        "cost_usd": usd_text(pico),
        "status": cost.status,
        "source": None if source is None else source.to_dict(),
    } | ({} if as_of is None else {"prices_as_of": as_of.isoformat()})
    click.echo(json.dumps(result))


def _from(source: Source | None, as_of: date | None) -> str:
    if source is None:
        return "no price list"
    day = "" if as_of is None or as_of.isoformat() in source.name else f" of {as_of.isoformat()}"
    return ", ".join((f"{source.name}{day}", source.terms, *source.factors))


def _json(file: Any) -> Any:
    try:
        return json.loads(file.read())
    except ValueError as error:
        fail(f"This is not JSON: {error}.", EXIT_WRONG)
    except RecursionError:
        fail("This JSON is nested too deeply to be the answer of a provider. Give the body as it came.", EXIT_WRONG)


def _with_units(usage: Usage, extra: Mapping[str, int]) -> Usage:
    from ai_budget_callbacks.usage import BUCKETS

    unknown = sorted(extra.keys() - set(BUCKETS))
    if unknown:
        fail(f"--units: there is no bucket {', '.join(unknown)}; there are {', '.join(sorted(BUCKETS))}.", EXIT_WRONG)
    return usage.with_units(extra)


def _counts(units: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in units:
        name, _, number = item.partition("=")
        if not name or not (number.isascii() and number.isdecimal()) or len(number) > _LONGEST:
            fail(f"--units takes BUCKET=N, for example web_search=2, not {item!r}.", EXIT_WRONG)
        if name in counts:
            fail(f"--units {name}=… is given twice; give it once, with the whole count.", EXIT_WRONG)
        counts[name] = int(number)
    return counts
