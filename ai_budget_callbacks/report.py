"""Entries → Summary → rows. No printing, no ledger access: it is given entries and returns text or data."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.budget import BalanceKey, field_key, window_end, window_key
from ai_budget_callbacks.columns import DIMENSIONS, NONE, check_columns, column_value
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.ledger import Balance
from ai_budget_callbacks.money import usd_decimal, usd_text, usd_with_sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from decimal import Decimal

    from ai_budget_callbacks.budget import Attached, Budget
    from ai_budget_callbacks.ledger import Entry

__all__ = [
    "DIMENSIONS",
    "BalanceView",
    "Summary",
    "Totals",
    "balance_row",
    "balance_view",
    "balance_views",
    "grouped_rows",
    "last_words_of",
    "run_row",
    "scope_values",
    "summarise",
    "totals_of",
]

_SHOWN = ("step", "agent", "tool", "model", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceView:
    """A balance as people read it. Amounts: USD as `Decimal`, tokens and calls as int.

    Attributes:
        budget: The budget's name or description.
        unit: `"usd"`, `"tokens"` or `"calls"`.
        scope: Values of its `by` fields.
        limit, spent, held, remaining: Amounts; `remaining` is never negative.
        resets_at: When the window rolls over, or None.
        window: The window's key: `"2026-11-24"`, a run id, `"total"`, …
    """

    budget: str
    unit: str
    scope: tuple[str, ...]
    limit: Decimal | int
    spent: Decimal | int
    held: Decimal | int
    remaining: Decimal | int
    resets_at: datetime | None
    window: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over some entries.

    Attributes:
        calls: Provider responses, cache hits included.
        input_tokens, output_tokens: Tokens where usage is known or estimated.
        cost_pico: Known cost in pico-dollars (estimated ones included, unknown and unpriced ones not).
        booked_pico: What USD balances count, in pico-dollars.
        estimated_pico, unknown_pico: Parts of `booked_pico` that rest on estimated and on never-seen usage.
        unpriced_calls: Calls whose usage has no price.
        free_calls: Cache hits and declared-free calls.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: int = 0
    booked_pico: int = 0
    estimated_pico: int = 0
    unknown_pico: int = 0
    unpriced_calls: int = 0
    free_calls: int = 0

    @property
    def cost_usd(self) -> Decimal:
        """Known cost in USD, exact."""
        return usd_decimal(self.cost_pico)

    @property
    def caveats(self) -> str:
        """What the cost does not say: a text in parentheses, or nothing."""
        return _caveats(self)

    @property
    def booked_usd(self) -> Decimal:
        """What USD balances count, exact."""
        return usd_decimal(self.booked_pico)

    @property
    def estimated_usd(self) -> Decimal:
        """Booked USD that rests on estimated usage."""
        return usd_decimal(self.estimated_pico)

    @property
    def unknown_usd(self) -> Decimal:
        """Booked USD of calls whose outcome was never seen."""
        return usd_decimal(self.unknown_pico)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; amounts as plain decimal text."""
        return {
            "calls": self.calls,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": usd_text(self.cost_pico),
            "booked_usd": usd_text(self.booked_pico),
            "estimated_usd": usd_text(self.estimated_pico),
            "unknown_usd": usd_text(self.unknown_pico),
            "unpriced_calls": self.unpriced_calls,
            "free_calls": self.free_calls,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What some entries cost, in total and by step, agent, tool, model and user. Print it, or read its parts.

    Attributes:
        totals: Sums over everything.
    """

    totals: Totals
    _groups: Mapping[str, Mapping[str, Totals]] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def cost_usd(self) -> Decimal:
        """Known cost in USD, exact."""
        return self.totals.cost_usd

    @property
    def booked_usd(self) -> Decimal:
        """What USD balances count, exact."""
        return self.totals.booked_usd

    @property
    def calls(self) -> int:
        """Provider responses and cache hits."""
        return self.totals.calls

    @property
    def input_tokens(self) -> int:
        """Input tokens, cached ones included."""
        return self.totals.input_tokens

    @property
    def output_tokens(self) -> int:
        """Output tokens, reasoning included."""
        return self.totals.output_tokens

    @property
    def estimated_usd(self) -> Decimal:
        """Booked USD that rests on estimated usage."""
        return self.totals.estimated_usd

    @property
    def unknown_usd(self) -> Decimal:
        """Booked USD of calls whose outcome was never seen."""
        return self.totals.unknown_usd

    @property
    def unpriced_calls(self) -> int:
        """Calls whose usage has no price: their cost is in no total."""
        return self.totals.unpriced_calls

    def by(self, dimension: str) -> Mapping[str, Totals]:
        """Totals by one dimension, the dearest first.

        Raises:
            ConfigError: Unknown dimension.
        """
        name = "step" if dimension == "node" else dimension
        if name not in self._groups:
            raise ConfigError(f"No such grouping {dimension!r}; use {', '.join(DIMENSIONS)}.")
        return self._groups[name]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; amounts as plain decimal text."""
        groups = {name: {key: t.to_dict() for key, t in self._groups[name].items()} for name in _SHOWN}
        return self.totals.to_dict() | {"by": groups}

    def to_markdown(self) -> str:
        """Markdown tables: the total, then each grouping that says something."""
        total = self.totals
        lines = [f"**{usd_with_sign(total.cost_pico)}** in {total.calls} calls, {_tokens(total)}{_caveats(total)}"]
        for name in self._told():
            lines += ["", f"| {name} | calls | input tokens | output tokens | USD |", "|---|--:|--:|--:|--:|"]
            lines += [
                f"| {key} | {t.calls} | {t.input_tokens} | {t.output_tokens} | {usd_text(t.cost_pico)} |"
                for key, t in self._groups[name].items()
            ]
        return "\n".join(lines)

    def __str__(self) -> str:
        total = self.totals
        lines = [f"{total.calls} calls, {_tokens(total)}, {usd_with_sign(total.cost_pico)}{_caveats(total)}"]
        for name in self._told():
            rows = [
                (key, str(t.calls), _tokens(t), f"{usd_with_sign(t.cost_pico)}")
                for key, t in self._groups[name].items()
            ]
            widths = [max(len(row[column]) for row in rows) for column in range(4)]
            lines.append(f"  by {name}")
            lines += [
                f"    {key:<{widths[0]}}  {calls:>{widths[1]}} calls  {tokens:>{widths[2]}}  {usd:>{widths[3]}}"
                for key, calls, tokens, usd in rows
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        total = self.totals
        cost = f"<b>{usd_with_sign(total.cost_pico)}</b>"
        head = f"<p>{cost} in {total.calls} calls, {_tokens(total)}{escape(_caveats(total))}</p>"
        tables = []
        for name in self._told():
            rows = "".join(
                f"<tr><td>{escape(key)}</td><td>{t.calls}</td><td>{t.input_tokens}</td><td>{t.output_tokens}</td>"
                f"<td>{usd_text(t.cost_pico)}</td></tr>"
                for key, t in self._groups[name].items()
            )
            tables.append(
                f"<table><tr><th>{name}</th><th>calls</th><th>input</th><th>output</th><th>USD</th></tr>{rows}</table>"
            )
        return head + "".join(tables)

    def _told(self) -> list[str]:
        """Groupings worth showing: the model always, others when anything in them has a name."""
        return [
            name for name in _SHOWN if self._groups.get(name) and (name == "model" or set(self._groups[name]) != {NONE})
        ]


def _tokens(total: Totals) -> str:
    return f"{total.input_tokens} + {total.output_tokens} tokens"


def _caveats(total: Totals) -> str:
    parts = []
    if total.estimated_pico:
        parts.append(f"{usd_with_sign(total.estimated_pico)} estimated")
    if total.unknown_pico:
        parts.append(f"{usd_with_sign(total.unknown_pico)} booked for calls whose outcome is unknown")
    if total.unpriced_calls:
        parts.append(f"{total.unpriced_calls} unpriced calls in no total")
    if total.free_calls:
        parts.append(f"{total.free_calls} free")
    if total.booked_pico != total.cost_pico:
        parts.append(f"{usd_with_sign(total.booked_pico)} booked on budgets")
    return f" ({'; '.join(parts)})" if parts else ""


def last_words_of(entries: Iterable[Entry]) -> dict[int, Entry]:
    """By the id of an entry: itself, or the last adjustment of it, which says what it is by now."""
    return {entry.id if entry.adjusts is None else entry.adjusts: entry for entry in entries}


def _last(entry: Entry, last_words: Mapping[int, Entry]) -> Entry:
    return last_words[entry.id if entry.adjusts is None else entry.adjusts]


def _totals(entries: Sequence[Entry], last_words: Mapping[int, Entry]) -> Totals:
    """Sum entries. What was booked for a call, adjustments included, counts under the status it has by now."""
    sums: dict[str, int] = defaultdict(int)
    for entry in entries:
        booked = entry.booked_pico or 0
        last = _last(entry, last_words)
        sums["calls"] += entry.kind == "call"
        sums["cost_pico"] += entry.cost_pico or 0
        sums["booked_pico"] += booked
        sums["input_tokens"] += entry.input_tokens
        sums["output_tokens"] += entry.output_tokens
        if last.status == "estimated":
            sums["estimated_pico"] += booked
        elif last.status == "unknown":
            sums["unknown_pico"] += booked
        elif last is entry and entry.status == "unpriced":
            sums["unpriced_calls"] += 1
        elif last is entry and entry.status == "free":
            sums["free_calls"] += 1
    return Totals(**sums)


def totals_of(entries: Sequence[Entry], last_words: Mapping[int, Entry] | None = None) -> Totals:
    """Sums over some entries.

    Args:
        entries: What to sum.
        last_words: `last_words_of` all entries these are some of, so that parts add up to the whole.
    """
    return _totals(entries, last_words_of(entries) if last_words is None else last_words)


def summarise(entries: Iterable[Entry]) -> Summary:
    """Group and sum entries."""
    items = list(entries)
    last_words = last_words_of(items)
    groups: dict[str, Mapping[str, Totals]] = {}
    for dimension in DIMENSIONS:
        members: dict[str, list[Entry]] = defaultdict(list)
        for entry in items:
            members[column_value(entry, dimension, _last(entry, last_words))].append(entry)
        totals = {key: _totals(group, last_words) for key, group in members.items()}
        groups[dimension] = MappingProxyType(dict(sorted(totals.items(), key=lambda kv: (-kv[1].cost_pico, kv[0]))))
    return Summary(totals=_totals(items, last_words), _groups=MappingProxyType(groups))


def grouped_rows(entries: Iterable[Entry], dimensions: Sequence[str]) -> list[dict[str, Any]]:
    """Rows for `ai-budget report`: one for each combination of the dimensions' values, dearest first.

    Args:
        entries: What to sum.
        dimensions: Names from `DIMENSIONS` (or `node`), or metadata keys.

    Raises:
        ConfigError: A name is neither a column nor a metadata key of any of the entries, or one of the sums.
    """
    items = list(entries)
    columns = check_columns(dimensions, items, Totals().to_dict())
    last_words = last_words_of(items)
    members: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in items:
        last = _last(entry, last_words)
        members[tuple(column_value(entry, name, last) for name in columns)].append(entry)
    rows = [(_totals(group, last_words), key) for key, group in members.items()]
    rows.sort(key=lambda row: (-row[0].cost_pico, row[1]))
    return [dict(zip(dimensions, key, strict=True)) | totals.to_dict() for totals, key in rows]


def run_row(run: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """One row of `ai-budget runs`. A run ends with its last call or charge: it may be corrected long after."""
    booked = [entry for entry in entries if entry.adjusts is None] or entries
    return {
        "run": run,
        "started_at": min(entry.started_at for entry in entries).isoformat(timespec="seconds"),
        "ended_at": max(entry.at for entry in booked).isoformat(timespec="seconds"),
        "user": _names(entry.user for entry in entries),
        "agent": _names(entry.agent for entry in entries),
    } | totals_of(entries).to_dict()


def _names(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value}))


def balance_row(view: BalanceView) -> dict[str, Any]:
    """One row of `ai-budget budgets`. Amounts are text: USD as plain decimals, tokens and calls as integers."""
    return {
        "budget": view.budget,
        "unit": view.unit,
        "scope": ", ".join(view.scope),
        "window": view.window,
        "limit": _amount(view.limit),
        "spent": _amount(view.spent),
        "held": _amount(view.held),
        "remaining": _amount(view.remaining),
        "resets_at": "" if view.resets_at is None else view.resets_at.isoformat(timespec="seconds"),
    }


def _amount(value: Decimal | int) -> str:
    return str(value) if isinstance(value, int) else format(value.normalize() if value else value, "f")


def scope_values(scope: str) -> tuple[str, ...]:
    """The `by` values of a balance key's scope."""
    return tuple(json.loads(scope))


def balance_views(
    attached: Sequence[Attached],
    rows: Sequence[Balance],
    fields: Mapping[str, str],
    now: datetime,
    runs: AbstractSet[str],
    *,
    named: str | None = None,
) -> list[BalanceView]:
    """Balances of some budgets in their current window, as people read them.

    Args:
        attached: The budgets.
        rows: All balances of the ledger.
        fields: Wanted values of `by` fields; a field that is not given matches every value.
        now: Aware datetime.
        runs: Ids of the runs to look at, where a budget is per run.
        named: The run that was asked for, if one was.

    Raises:
        ConfigError: None of the budgets is `by` such a field.
    """
    values = _wanted(attached, fields)
    views: list[BalanceView] = []
    for item in attached:
        budget = item.budget
        keys = [field_key(name) for name in budget.by]
        if budget.per == "run" and values and named is None and not values.keys() & set(keys):
            continue  # a balance of somebody's run, and nobody knows whose
        windows = runs if budget.per == "run" else {window_key(budget, now, "")}
        wanted = [values.get(key) for key in keys]
        found = [
            balance_view(budget, row, now)
            for row in rows
            if row.key.budget == item.key and row.key.window in windows and _fits(row.key.scope, wanted)
        ]
        if not found and None not in wanted and (budget.per != "run" or named is not None):
            key = BalanceKey(item.key, budget.unit, next(iter(windows)), json.dumps(list(map(str, wanted))))
            found = [balance_view(budget, Balance(key=key, spent=0, held=0), now)]
        views += found
    return views


def _wanted(attached: Sequence[Attached], fields: Mapping[str, str]) -> dict[str, str]:
    """The fields as budgets know them; one that none of them knows would not narrow anything down."""
    known = sorted({field_key(name) for item in attached for name in item.budget.by})
    for name in fields:
        if field_key(name) not in known:
            near = [f"metadata.{name}"] if f"metadata.{name}" in known else difflib.get_close_matches(name, known, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            those = f"they are by {', '.join(known)}" if known else "none has a `by`"
            raise ConfigError(f"balances({name}=…): no budget of this meter is by {name!r}; {those}.{meant}")
    return {field_key(name): value for name, value in fields.items()}


def balance_view(budget: Budget, row: Balance, now: datetime) -> BalanceView:
    """One balance as people read it.

    Args:
        budget: Its budget, with the limit to show.
        row: The balance.
        now: Aware datetime.
    """
    return BalanceView(
        budget=budget.label,
        unit=budget.unit,
        scope=scope_values(row.key.scope),
        limit=budget.amount(budget.limit),
        spent=budget.amount(row.spent),
        held=budget.amount(row.held),
        remaining=budget.amount(max(budget.limit - row.spent - row.held, 0)),
        resets_at=window_end(budget, now) if row.key.window == window_key(budget, now, "") else None,
        window=row.key.window,
    )


def _fits(scope: str, wanted: Sequence[str | None]) -> bool:
    values = scope_values(scope)
    return all(want is None or want == value for want, value in zip(wanted, values, strict=True))
