"""What providers say they billed: cost and usage exports as rows of day, model, amount and tokens.

Formats, and where they are described:
- OpenAI costs, `GET /v1/organization/costs` (OpenAPI document 2.3.0, `CostsResult`): USD by day; by model only with
  `group_by=line_item`, whose items are like "gpt-5-2025-08-07, cached input" or "web search tool calls".
- OpenAI usage, `GET /v1/organization/usage/completions` and `/embeddings` (same document): tokens and requests;
  `input_tokens` includes cached ones, audio stands apart.
- Anthropic cost report, `GET /v1/organizations/cost_report`: "amount" is a decimal string in cents, "123.45" is $1.23
  (platform.claude.com/docs/en/api/admin/cost_report); a model only with `group_by[]=description`.
- Anthropic usage report, `GET /v1/organizations/usage_report/messages`: tokens, without a number of requests.
- OpenRouter activity, `GET /api/v1/activity` (openrouter.ai/docs, `ActivityItem`), as JSON or as CSV with its fields:
  `usage` is USD of credits, `byok_usage_inference` USD of the user's own key.
- CSV with the columns date, model and cost_usd, and input_tokens, output_tokens and requests where they are known.

Money is read as decimal text and rounded once, to 1e-12 USD.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import PICO, exact_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FORMATS", "Billed", "Export", "read_export"]

_DAY_S = 86_400
# "priority | gpt-5.6-sol, cached input, long context", "gpt-image-1 text, input": tier, model, modality, direction
_LINE_ITEM = re.compile(
    r"(?:(?:\w+ \| )?)(?P<model>[^\s,]+)(?: (?:text|audio|image))?, (?:cached input|cache writes|input|output)\b.*"
)
_ZONE_UTC = re.compile(r" ?(?:UTC|z)\Z")
_TOOLS = {
    "web search": "web_search",
    "file search": "file_search",
    "code execution": "code_execution",
    "code interpreter": "code_execution",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """One row of an export.

    Attributes:
        day: UTC day.
        model: The model as named there, or None where the row names none.
        item: What the row is for where it names no model, or None: then it is for everything of that day.
        pico: Amount in pico-dollars, or None in an export of tokens.
        input_tokens, output_tokens, requests: Counts, or None where the export has none.
    """

    day: date
    model: str | None
    item: str | None = None
    pico: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    requests: int | None = None

    @property
    def tool(self) -> str | None:
        """The usage bucket of a hosted tool that the row bills, or None."""
        text = (self.item or "").lower().replace("_", " ")
        return next((bucket for words, bucket in _TOOLS.items() if words in text), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export.

    Attributes:
        format: One of `FORMATS`.
        provider: Catalogue provider whose calls it bills, or None where the file does not say.
        rows: Its rows.
        days: First and last UTC day it speaks of, days without a row included.
        tools_apart: Hosted tools have rows of their own, and are not in the amounts of models.
        more: It is a page of several, and the next ones are missing.
    """

    format: str
    provider: str | None
    rows: tuple[Billed, ...]
    days: tuple[date, date]
    tools_apart: bool = False
    more: bool = False


def _no_float(value: Any) -> Any:
    """A whole number may come as `5.0`; nothing else that is not whole is rounded."""
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value


_Count = Annotated[int, BeforeValidator(_no_float), Field(ge=0)]
_Money = Annotated[Decimal, Field(allow_inf_nan=False)]
_M = TypeVar("_M", bound=BaseModel)


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class _Amount(_Row):
    value: _Money
    currency: str = "usd"


class _OpenAICost(_Row):
    amount: _Amount
    line_item: str | None = None


class _OpenAIUsage(_Row):
    model: str | None = None
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    input_audio_tokens: _Count | None = None
    output_audio_tokens: _Count | None = None
    num_model_requests: _Count | None = None


class _AnthropicCost(_Row):
    amount: _Money
    currency: str = "USD"
    model: str | None = None
    description: str | None = None
    cost_type: str | None = None


class _CacheCreation(_Row):
    ephemeral_5m_input_tokens: _Count = 0
    ephemeral_1h_input_tokens: _Count = 0


class _AnthropicUsage(_Row):
    model: str | None = None
    uncached_input_tokens: _Count = 0
    cache_read_input_tokens: _Count = 0
    cache_creation: _CacheCreation = Field(default_factory=_CacheCreation)
    output_tokens: _Count = 0


class _OpenAIBucket(_Row):
    start_time: _Count
    end_time: _Count | None = None
    results: list[dict[str, Any]] = Field(validation_alias=AliasChoices("results", "result"))


class _AnthropicBucket(_Row):
    starting_at: datetime
    ending_at: datetime | None = None
    results: list[dict[str, Any]]


def _iso_day(value: Any) -> Any:
    """A day, or a time on it, UTC where it says no zone: "2026-11-24", "2026-11-24 00:00:00"."""
    text = value.strip() if isinstance(value, str) else ""
    if len(text) <= len("2026-11-24") or text[10] not in "Tt ":
        return text or value
    try:
        return _utc(datetime.fromisoformat(_ZONE_UTC.sub("Z", text))).date()
    except ValueError:
        return text  # pydantic says what is wrong with it


_Day = Annotated[date, BeforeValidator(_iso_day)]


def _empty(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


_MaybeCount = Annotated[_Count | None, BeforeValidator(_empty)]


class _Activity(_Row):
    date: _Day
    model: str
    usage: _Money
    byok_usage_inference: Annotated[_Money | None, BeforeValidator(_empty)] = None
    requests: _MaybeCount = None
    prompt_tokens: _MaybeCount = None
    completion_tokens: _MaybeCount = None


class _Line(_Row):
    date: _Day
    model: str
    cost_usd: _Money
    input_tokens: _MaybeCount = None
    output_tokens: _MaybeCount = None
    requests: _MaybeCount = None


def read_export(text: str, format: str | None = None) -> Export:  # noqa: A002 - the option's name
    """Read an export.

    Args:
        text: The file's text.
        format: One of `FORMATS`, or None to see it from the content.

    Raises:
        ConfigError: It is none, or a row makes no sense; the text says which one and what to do.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"There is no format {format!r}; there are {', '.join(FORMATS)}.")
    if text.lstrip("\ufeff \n\r\t")[:1] in {"{", "["}:
        return _read_json(_decoded(text.lstrip("\ufeff")), format)
    return _read_csv(text.lstrip("\ufeff"), format)


def _decoded(text: str) -> list[Mapping[str, Any]]:
    """The pages of a JSON export: one, or a list of them. Fractions become `Decimal`, never a float."""
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_no_number)
    except ValueError as error:
        raise ConfigError(f"The export is not JSON: {error}. Save the answer of the API as it came.") from None
    except RecursionError:
        raise ConfigError(
            "The export is JSON nested too deeply to be one. Save the answer of the API as it came."
        ) from None
    pages = found if isinstance(found, list) else [found]
    for number, page in enumerate(pages, 1):
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise ConfigError(f'Page {number} of the export has no list "data". Save the answer of the API as it came.')
    return pages


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _read_json(pages: list[Mapping[str, Any]], format: str | None) -> Export:  # noqa: A002
    data = [item for page in pages for item in page["data"]]
    if not data:
        raise ConfigError('The export has no rows ("data" is empty); ask the API for the days you want to compare.')
    name = format or _recognised(data)
    more = bool(pages) and bool(pages[-1].get("has_more"))
    if name == "openrouter-activity":
        rows = [_activity(_checked(_Activity, item, f"item {number} of data")) for number, item in enumerate(data, 1)]
        return Export(format=name, provider="openrouter", rows=tuple(rows), days=_days(rows), more=more)
    if name == "csv":
        raise ConfigError("This file is JSON, not CSV; leave --format out, or name the format it has.")
    provider = "openai" if name.startswith("openai") else "anthropic"
    rows, days = [], []
    for number, item in enumerate(data, 1):
        where = f"bucket {number} of data"
        day, results = _bucket(provider, item, where)
        days.append(day)
        rows += [_result(name, day, raw, f"{where}, result {place}") for place, raw in enumerate(results, 1)]
    apart = any(row.model is not None for row in rows) and name in {"openai-costs", "anthropic-cost-report"}
    return Export(
        format=name, provider=provider, rows=tuple(rows), days=(min(days), max(days)), tools_apart=apart, more=more
    )


def _recognised(data: list[Any]) -> str:
    """The format, from what stands in it."""
    lists = [item.get("results") or item.get("result") for item in data if isinstance(item, dict)]
    first = next((raw for found in lists if isinstance(found, list) for raw in found if isinstance(raw, dict)), {})
    at = next((item for item in data if isinstance(item, dict)), {})
    if "byok_usage_inference" in at or ("usage" in at and "date" in at):
        return "openrouter-activity"
    if "start_time" in at:
        return "openai-costs" if "amount" in first or not first else "openai-usage"
    if "starting_at" in at:
        return "anthropic-cost-report" if "amount" in first or not first else "anthropic-usage-report"
    raise ConfigError(f"This export is none of {', '.join(FORMATS)}. Name the one it is with --format.")


def _bucket(provider: str, raw: Any, where: str) -> tuple[date, list[dict[str, Any]]]:
    if provider == "openai":
        bucket = _checked(_OpenAIBucket, raw, where)
        start = datetime.fromtimestamp(min(bucket.start_time, 2**33), UTC)
        end = None if bucket.end_time is None else datetime.fromtimestamp(min(bucket.end_time, 2**33), UTC)
        results = bucket.results
    else:
        other = _checked(_AnthropicBucket, raw, where)
        start, end, results = _utc(other.starting_at), other.ending_at and _utc(other.ending_at), other.results
    if end is not None and end - start > timedelta(seconds=_DAY_S):
        raise ConfigError(f"The export, {where}: it is longer than a day. Ask the API for buckets of one day (1d).")
    return start.date(), results


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except OverflowError:
        raise ConfigError(f"{at.isoformat()} is before the first or after the last day there is in UTC.") from None


def _result(name: str, day: date, raw: Any, where: str) -> Billed:
    if name == "openai-costs":
        cost = _checked(_OpenAICost, raw, where)
        _only_usd(cost.amount.currency, where)
        found = _LINE_ITEM.fullmatch(cost.line_item or "")
        return Billed(
            day=day,
            model=found["model"] if found else None,
            item=None if found else cost.line_item,
            pico=_pico(cost.amount.value, where),
        )
    if name == "openai-usage":
        usage = _checked(_OpenAIUsage, raw, where)
        return Billed(
            day=day,
            model=usage.model,
            input_tokens=usage.input_tokens + (usage.input_audio_tokens or 0),
            output_tokens=usage.output_tokens + (usage.output_audio_tokens or 0),
            requests=usage.num_model_requests,
        )
    if name == "anthropic-cost-report":
        spent = _checked(_AnthropicCost, raw, where)
        _only_usd(spent.currency, where)
        item = None if spent.model else spent.description or (spent.cost_type if spent.cost_type != "tokens" else None)
        return Billed(day=day, model=spent.model, item=item, pico=_pico(spent.amount, where, cents=True))
    took = _checked(_AnthropicUsage, raw, where)
    written = took.cache_creation.ephemeral_5m_input_tokens + took.cache_creation.ephemeral_1h_input_tokens
    return Billed(
        day=day,
        model=took.model,
        input_tokens=took.uncached_input_tokens + took.cache_read_input_tokens + written,
        output_tokens=took.output_tokens,
    )


def _activity(row: _Activity) -> Billed:
    own_key = row.byok_usage_inference or Decimal(0)
    where = f"{row.date} of {row.model}"
    return Billed(
        day=row.date,
        model=row.model,
        pico=_pico(row.usage, where) + _pico(own_key, where),
        input_tokens=row.prompt_tokens,
        output_tokens=row.completion_tokens,
        requests=row.requests,
    )


def _read_csv(text: str, format: str | None) -> Export:  # noqa: A002
    if not text.strip():
        raise ConfigError(
            "The export is empty. Save the answer of the API as it came, or give a CSV with a first line."
        )
    lines = _lines(text)
    header = [name.strip().lower() for name in lines[0]]
    if format is None:
        format = "openrouter-activity" if "usage" in header and "cost_usd" not in header else "csv"  # noqa: A001
    if format not in {"csv", "openrouter-activity"}:
        raise ConfigError(f"This file is no JSON, as an export of the format {format} is.")
    needed = ("date", "model", "usage" if format == "openrouter-activity" else "cost_usd")
    missing = [name for name in needed if name not in header]
    if missing:
        has = ", ".join(name for name in header if name) or "none"
        raise ConfigError(f"The first line of the CSV names no column {', '.join(missing)}; it has {has}.")
    _check_once(header, _Line if format == "csv" else _Activity)
    rows = []
    for number, cells in _numbered(lines):
        if len(cells) != len(header):
            raise ConfigError(f"The export, line {number}: {len(cells)} cells under {len(header)} columns.")
        raw = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        if format == "csv":
            rows.append(_line(_checked(_Line, raw, f"line {number}"), f"line {number}"))
        else:
            rows.append(_activity(_checked(_Activity, raw, f"line {number}")))
    provider = "openrouter" if format == "openrouter-activity" else None
    return Export(format=format, provider=provider, rows=tuple(rows), days=_days(rows))


def _lines(text: str) -> list[list[str]]:
    reader = csv.reader(text.splitlines())
    try:
        return list(reader)
    except csv.Error as error:
        raise ConfigError(
            f"The export, up to line {reader.line_num}: {error}. A quote may not be closed there; export it again."
        ) from None


def _check_once(header: list[str], model: type[_Row]) -> None:
    """Of two columns of one name nobody can say which is meant."""
    twice = sorted(name for name in model.model_fields if header.count(name) > 1)
    if twice:
        raise ConfigError(f"The first line of the CSV names {', '.join(twice)} more than once; leave one of them out.")


def _numbered(lines: list[list[str]]) -> Iterator[tuple[int, list[str]]]:
    return ((number, cells) for number, cells in enumerate(lines[1:], 2) if any(cell.strip() for cell in cells))


def _line(row: _Line, where: str) -> Billed:
    return Billed(
        day=row.date,
        model=row.model,
        pico=_pico(row.cost_usd, where),
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        requests=row.requests,
    )


def _days(rows: list[Billed]) -> tuple[date, date]:
    if not rows:
        raise ConfigError("The export has no rows; nothing can be compared with it.")
    return min(row.day for row in rows), max(row.day for row in rows)


def _checked(model: type[_M], raw: Any, where: str) -> _M:
    """A row, or an error that says which one and which field."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "it"
        found = "" if first["type"] == "missing" else f" ({first['input']!r:.60})"
        raise ConfigError(
            f"The export, {where}: {field}: {first['msg']}{found}. Correct that row, or export it again."
        ) from None


def _only_usd(currency: str, where: str) -> None:
    if currency.lower() != "usd":
        raise ConfigError(f"The export, {where}: its currency is {currency!r}; only USD can be compared.")


def _pico(value: Decimal, where: str, *, cents: bool = False) -> int:
    """Whole pico-dollars, the half rounded up. Integers only, so no decimal context takes part."""
    try:
        top, bottom = exact_decimal(value, what="amount").as_integer_ratio()
    except ConfigError as error:
        raise ConfigError(f"The export, {where}: {error.message}") from None
    bottom *= 100 if cents else 1
    return (2 * top * PICO + bottom) // (2 * bottom)


FORMATS = (
    "openai-costs",
    "openai-usage",
    "anthropic-cost-report",
    "anthropic-usage-report",
    "openrouter-activity",
    "csv",
)
