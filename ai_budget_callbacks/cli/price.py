"""`ai-budget price`: a provider's response body, priced."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ai_budget_callbacks.cli.output import EXIT_UNPRICED, EXIT_WRONG, fail, moment, render, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["price"]


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
    from ai_budget_callbacks.usage.wire import read_body

    book = PriceBook()
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
        usage = usage.with_units(extra)
        cost = book.price(usage, provider=provider, model=name, requested=name, at=request_time)
    if cost.usd is None:
        fail(f"{name} of {provider} cannot be priced: {cost.reason}.", EXIT_UNPRICED)
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
        | ({} if line.model is None else {"model": line.model})
        for line in cost.lines
    ]
    if not as_json:
        render(lines, None)
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


def _json(file: Any) -> Any:
    try:
        return json.loads(file.read())
    except ValueError as error:
        fail(f"This is not JSON: {error}.", EXIT_WRONG)


def _counts(units: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in units:
        name, _, number = item.partition("=")
        if not name or not number.isdecimal():
            fail(f"--units takes BUCKET=N, for example web_search=2, not {item!r}.", EXIT_WRONG)
        counts[name] = int(number)
    return counts
