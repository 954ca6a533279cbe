"""Budgets, windows and scopes: which balances does a call touch? Pure; knows no ledger and no framework.

A window is a function from time to a key, so nothing ever resets and no reset can be missed. A call belongs to
the window in which it was reserved.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import INT64_MAX, exact_decimal, pico_from_usd, usd_decimal, usd_with_sign

if TYPE_CHECKING:
    from ai_budget_callbacks.usage import Call

__all__ = [
    "FIELDS",
    "NONE",
    "UNITS",
    "Attached",
    "BalanceKey",
    "Budget",
    "amount_text",
    "call_field",
    "field_key",
    "window_end",
    "window_key",
]

FIELDS = ("user", "thread", "agent", "node", "tool", "model", "provider", "framework")
_ALIASES = {"user_id": "user", "thread_id": "thread"}  # as the frameworks' own metadata call them
# columns of reports and summaries that are no fields
_COLUMNS = {"step": "'node'", "run": 'per="run"', "day": 'per="day"'}
UNITS = ("usd", "tokens", "calls")
NONE = "(none)"

_DURABLE = ("hour", "day", "month", "total")
_WINDOWS = ("run", *_DURABLE)
_NAME = re.compile(r"[A-Za-z_][\w.\-]*\Z")
_METADATA = "metadata."


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit in one unit over a window, for a scope.

    Exactly one of `usd`, `tokens`, `calls` is given. Without `per` it lasts as long as what it is attached to: a
    handler, a `track()` block, or a meter. `"run"` gives every run its own. `"hour"`, `"day"`, `"month"` and
    `"total"` outlive the process, are shared by every process on the ledger, and need a `name`.

    Attributes:
        usd: Limit in USD: a decimal string, `Decimal`, int, or a float literal (read by its `repr`).
        tokens: Limit in tokens, input plus output, cached and reasoning included.
        calls: Limit in provider responses.
        per: None, `"run"`, `"hour"`, `"day"`, `"month"` or `"total"`.
        by: One balance for each value of these fields: user, thread, agent, node, tool, model, provider,
            framework, or a metadata key (write `metadata.KEY` where it looks like one of those).
        name: Identity in the ledger together with unit, `per`, `by`, `match` and `tz`; the limit is not part of it.
        match: Only calls whose fields match these patterns (`{"model": "gpt-5*"}`, shell wildcards).
        tz: IANA zone of hour, day and month windows.
        warn_at: Fractions of the limit at which one event each is sent, for example `("0.5", "0.8")`.
        at_limit: `"refuse"`, `"raise"` (also raise at the end of the call that crosses) or `"warn"`.

    Raises:
        ConfigError: At construction, with the reason.
    """

    usd: str | Decimal | int | float | None = None
    tokens: int | None = None
    calls: int | None = None
    per: Literal["run", "hour", "day", "month", "total"] | None = None
    by: str | tuple[str, ...] = ()
    name: str | None = None
    match: Mapping[str, str] | None = None
    tz: str = "UTC"
    warn_at: str | tuple[str | Decimal | float, ...] = ("0.8",)
    at_limit: Literal["refuse", "raise", "warn"] = "refuse"
    unit: str = field(init=False, default="")
    limit: int = field(init=False, default=0)  # in the unit's integers: pico-dollars, tokens, calls
    warn_marks: tuple[tuple[str, int], ...] = field(init=False, default=())
    identity: str = field(init=False, default="", repr=False)
    stops: bool = field(init=False, default=True, repr=False)

    def __post_init__(self) -> None:
        """Check everything now, so that no mistake is found in production by money running out."""
        unit, limit = _read_limit(self)
        if not isinstance(self.by, (str, tuple, list)):
            raise ConfigError(f"by must be a field or a tuple of fields, not {self.by!r}.")
        if self.match is not None and not isinstance(self.match, Mapping):
            raise ConfigError(f"match must be a mapping such as {{'model': 'gpt-5*'}}, not {self.match!r}.")
        by = (self.by,) if isinstance(self.by, str) else tuple(self.by)
        for name in by:
            _check_field(name, "by")
        match = dict(sorted((self.match or {}).items()))
        for name, pattern in match.items():
            _check_field(name, "match")
            if not isinstance(pattern, str) or not pattern:
                raise ConfigError(f"match={{{name!r}: …}} must be a pattern such as 'gpt-5*', not {pattern!r}.")
        if self.per is not None and self.per not in _WINDOWS:
            raise ConfigError(f"Unknown window per={self.per!r}; use None, {', '.join(map(repr, _WINDOWS))}.")
        if self.per in _DURABLE and not self.name:
            raise ConfigError(
                f'per="{self.per}" outlives the process, so the ledger needs a name for it: '
                f'Budget(…, name="my-{self.per}").'
            )
        if self.name is not None and (not isinstance(self.name, str) or not self.name.strip() or "@" in self.name):
            raise ConfigError(f"Budget name must be a non-empty text without '@', not {self.name!r}.")
        if self.at_limit not in ("refuse", "raise", "warn"):
            raise ConfigError(f'at_limit must be "refuse", "raise" or "warn", not {self.at_limit!r}.')
        _zone(self.tz)
        put = object.__setattr__
        put(self, "unit", unit)
        put(self, "limit", limit)
        put(self, "by", by)
        put(self, "match", MappingProxyType(match))
        put(self, "stops", self.at_limit != "warn")
        put(self, "warn_marks", _read_marks(self.warn_at, limit))
        identity = {"unit": unit, "per": self.per, "by": list(by), "match": match, "tz": self.tz}
        put(self, "identity", json.dumps(identity, sort_keys=True))

    def __reduce__(self) -> tuple[Any, ...]:
        """By its arguments: a read-only `match` does not pickle by itself."""
        given = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        return (_rebuild, (given | {"match": dict(self.match or {}) or None},))

    def __hash__(self) -> int:
        """By identity and limit; `match` is a mapping and would not hash."""
        return hash((self.name, self.identity, self.limit, self.at_limit))

    @property
    def durable(self) -> bool:
        """Whether it outlives the process."""
        return self.per in _DURABLE

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or f"{amount_text(self.unit, self.limit)}{f' per {self.per}' if self.per else ''}"

    @classmethod
    def known(cls, name: str | None, identity: str, limit: int) -> Budget:
        """A budget as a ledger knows it.

        Args:
            name: Its name.
            identity: Its `identity`.
            limit: In the unit's integers.
        """
        told: dict[str, Any] = json.loads(identity)
        unit = told.pop("unit")
        told["by"] = tuple(told["by"])
        told[unit] = usd_decimal(limit) if unit == "usd" else limit
        return cls(name=name, **told)

    def amount(self, value: int) -> Decimal | int:
        """An integer amount of this budget's unit as people read it: USD as `Decimal`, else the int."""
        return usd_decimal(value) if self.unit == "usd" else value


def _rebuild(given: dict[str, Any]) -> Budget:
    return Budget(**given)


def _read_limit(budget: Budget) -> tuple[str, int]:
    given = [(unit, getattr(budget, unit)) for unit in UNITS if getattr(budget, unit) is not None]
    if len(given) != 1:
        raise ConfigError(f"A Budget has exactly one of usd=, tokens=, calls=; {len(given)} were given.")
    unit, value = given[0]
    if unit == "usd":
        limit = pico_from_usd(value, what="Budget(usd=…)")
    elif type(value) is int:
        limit = value
    else:
        raise ConfigError(f"Budget({unit}=…) must be an int, not {value!r}.")
    if limit <= 0:
        raise ConfigError(f"Budget({unit}={value!r}) must be more than 0; to stop every call, remove the model.")
    if limit > INT64_MAX:
        raise ConfigError(f"Budget({unit}={value!r}) is beyond what one balance can hold.")
    return unit, limit


def _read_marks(warn_at: object, limit: int) -> tuple[tuple[str, int], ...]:
    values = (warn_at,) if isinstance(warn_at, (str, Decimal, float)) else warn_at
    if not isinstance(values, (tuple, list)):
        raise ConfigError(f"warn_at must be a tuple of fractions such as ('0.8',), not {warn_at!r}.")
    marks = []
    for value in values:
        fraction = exact_decimal(value, what="warn_at")
        if not 0 < fraction <= 1:
            raise ConfigError(f"warn_at fractions lie in (0, 1], not {value!r}.")
        top, bottom = fraction.as_integer_ratio()
        marks.append((str(fraction), -(-limit * top // bottom)))
    return tuple(sorted(marks, key=lambda mark: mark[1]))


def _check_field(name: object, where: str) -> None:
    if not isinstance(name, str) or not _NAME.match(name) or name == _METADATA:
        raise ConfigError(f"{where}={name!r} is no field; use {', '.join(FIELDS)}, or a metadata key.")
    if name in FIELDS or name in _ALIASES or name.startswith(_METADATA):
        return
    if name.lower() in _COLUMNS:
        raise ConfigError(
            f"{where}={name!r}: did you mean {_COLUMNS[name.lower()]}? For a metadata key of that name write "
            f"'{_METADATA}{name}'."
        )
    near = difflib.get_close_matches(name.lower(), FIELDS, n=1, cutoff=0.8)
    if near:
        raise ConfigError(
            f"{where}={name!r}: did you mean {near[0]!r}? For a metadata key of that name write '{_METADATA}{name}'."
        )


def field_key(name: str) -> str:
    """One spelling for each field: `user_id` is `user`, `metadata.team` is `team`, and `metadata.user` is itself."""
    name = _ALIASES.get(name, name)
    bare = name.removeprefix(_METADATA)
    return name if bare in FIELDS or bare in _ALIASES else bare


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)  # zoneinfo keeps its own cache
    except Exception as error:  # zoneinfo raises KeyError, ValueError, OSError or TypeError by kind of nonsense
        raise ConfigError(f"Unknown time zone tz={name!r}; use an IANA name such as 'Europe/Berlin'.") from error


def window_key(budget: Budget, at: datetime, run_key: str) -> str:
    """Key of the window a call reserved at this time belongs to.

    Args:
        budget: The budget.
        at: Aware datetime.
        run_key: Run id, or the attachment's own id where no root run was seen.
    """
    if budget.per is None or budget.per == "total":
        return budget.per or "attached"
    if budget.per == "run":
        return run_key
    local = at.astimezone(_zone(budget.tz))
    if budget.per == "month":
        return f"{local:%Y-%m}"
    if budget.per == "day":
        return f"{local:%Y-%m-%d}"
    return f"{local:%Y-%m-%dT%H%z}"  # the offset keeps the two passes of a repeated hour apart


def window_end(budget: Budget, at: datetime) -> datetime | None:
    """When the window of a call at this time rolls over (aware, in the budget's zone), or None when never."""
    if budget.per not in {"hour", "day", "month"}:
        return None
    zone = _zone(budget.tz)
    local = at.astimezone(zone)
    if budget.per == "hour":
        return _first_change(budget, at).astimezone(zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if budget.per == "day":
        return midnight + timedelta(days=1)  # wall-clock arithmetic: the next local midnight, 23 to 25 hours on
    return midnight.replace(day=1, month=local.month % 12 + 1, year=local.year + local.month // 12)


def _first_change(budget: Budget, at: datetime) -> datetime:
    """The first minute with another key: zone changes cut hours short, or repeat half of one (Lord Howe)."""
    key = window_key(budget, at, "")
    step = at.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    while window_key(budget, step, "") == key:
        step += timedelta(minutes=1)
    return step


def _matches(name: str, value: str, pattern: str) -> bool:
    if name in {"model", "provider", "framework"}:  # names of machines, which nobody means by their case
        value, pattern = value.lower(), pattern.lower()
    return fnmatchcase(value, pattern)


def call_field(call: Call, name: str, resolved_model: str | None) -> str | None:
    """The value of a scope field for a call, or None when the call lacks it."""
    name = _ALIASES.get(name, name)
    if name == "model":
        return resolved_model or call.model
    if name == "provider":
        return call.provider
    if name == "framework":
        return call.framework
    if name in FIELDS:
        value: str | None = getattr(call.who, name)
        return value
    return call.who.metadata.get(name.removeprefix(_METADATA))


@dataclass(frozen=True, slots=True)
class BalanceKey:
    """Identity of one balance row.

    Attributes:
        budget: Key of the budget in the ledger.
        unit: `"usd"`, `"tokens"` or `"calls"`.
        window: Window key.
        scope: JSON list of the `by` values, `"[]"` without `by`.
    """

    budget: str
    unit: str
    window: str
    scope: str


@dataclass(frozen=True, slots=True)
class Attached:
    """A budget together with what it is attached to.

    Attributes:
        budget: The budget.
        key: Its key in the ledger: its name when durable, else unique to the attachment.
        owner: Id of the handler, `track()` block or meter it is attached to.
        block: Whether the owner is a `track()` block, which a refusal closes.
    """

    budget: Budget
    key: str
    owner: str
    block: bool = False

    @classmethod
    def make(cls, budget: Budget, owner: str, index: int, *, block: bool = False) -> Attached:
        """Attach a budget to an owner."""
        key = str(budget.name) if budget.durable else f"{budget.name or f'budget-{index + 1}'}@{owner}"
        return cls(budget, key, owner, block)

    def applies(self, call: Call, resolved_model: str | None) -> bool:
        """Whether the call's fields match this budget's `match`."""
        for name, pattern in (self.budget.match or {}).items():
            values = (resolved_model, call.model) if name == "model" else (call_field(call, name, resolved_model),)
            if not any(value is not None and _matches(name, value, pattern) for value in values):
                return False
        return True

    def balance(self, call: Call, resolved_model: str | None) -> BalanceKey:
        """The one balance of this budget that a call touches."""
        run_key = call.who.run_id if call.who.run_id is not None and call.who.root_seen else self.owner
        by = self.budget.by
        scope = json.dumps([call_field(call, name, resolved_model) or NONE for name in by]) if by else "[]"
        return BalanceKey(self.key, self.budget.unit, window_key(self.budget, call.started_at, run_key), scope)


def amount_text(unit: str, value: int) -> str:
    """An integer amount with its unit, for messages: `$0.5`, `1200 tokens`, `5 calls`."""
    if unit == "usd":
        return usd_with_sign(value)
    return f"{value} {unit if value != 1 else unit.removesuffix('s')}"
