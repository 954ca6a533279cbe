"""The book of record: balances, open holds and immutable entries, behind one small protocol.

A store makes four promises, proven by one contract suite that every store runs unchanged (tests/contract):
a reserve is admitted on all of its balances or on none; a hold ends exactly once; an entry is written once for
its key and never changes; an entry and the balances it moves are one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from ai_budget_callbacks.errors import ConfigError, LedgerError
from ai_budget_callbacks.money import usd_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from ai_budget_callbacks.budget import Attached, BalanceKey, Budget
    from ai_budget_callbacks.pricing import Cost
    from ai_budget_callbacks.usage import Call, Terms, Usage

__all__ = [
    "Balance",
    "Claim",
    "Correction",
    "Entry",
    "Hold",
    "KnownBudget",
    "Ledger",
    "LedgerStatus",
    "NoRoom",
    "Posting",
    "Query",
    "Settled",
    "Want",
    "open_ledger",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What a call asks of one balance.

    Attributes:
        key: Which balance.
        amount: Amount to hold, in the unit's integers.
        floor: If nothing is held there, the least that must fit; then what is free is held. None: all or nothing.
        limit: The limit this process enforces, or None when the budget only warns.
    """

    key: BalanceKey
    amount: int
    floor: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A reservation on all balances of a call at once.

    Attributes:
        call: The call; its id is the hold's key.
        wants: One for each balance.
        scopes: Ids of the handlers, `track()` blocks and meters whose summaries the call belongs to.
        estimate_pico: Expected cost in pico-dollars, booked if the outcome stays unknown; None without a price.
        estimate_tokens: The same in tokens.
        expires_at: When an owner that still lives is presumed to have lost the call (aware).
    """

    call: Call
    wants: tuple[Want, ...]
    scopes: tuple[str, ...]
    estimate_pico: int | None
    estimate_tokens: int
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An open reservation.

    Attributes:
        call: The call.
        amounts: Held amount by balance id.
        keys: Balance key by balance id, for the balances this claim asked for.
        scopes: As in the claim.
    """

    call: Call
    amounts: Mapping[int, int]
    keys: Mapping[int, BalanceKey]
    scopes: tuple[str, ...]


class NoRoom(Exception):
    """A reserve was refused and nothing was held.

    Attributes:
        want: The first want that did not fit.
        spent, held: That balance's state when it was refused.
    """

    def __init__(self, want: Want, spent: int, held: int) -> None:
        super().__init__(want, spent, held)
        self.want = want
        self.spent = spent
        self.held = held


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """An entry to be written.

    Attributes:
        call: The call or charge it books; its `kind` is the entry's.
        status: `"priced"`, `"reported"`, `"estimated"`, `"free"`, `"unknown"` or `"unpriced"`.
        reason: Why, where the status needs a reason.
        usage: What was consumed, or None when never seen.
        cost: What it costs, or None.
        booked_pico: What USD balances count, in pico-dollars; None when nobody can say.
        booked_tokens: What token balances count.
        booked_calls: What call balances count: 1 for one provider response, 0 for a cache hit.
        keep_hold: Book at least what was held on each balance.
        response_id, response_model: As the response said.
        ended_at: Aware datetime.
        content: Prompt and completion as JSON text, only when the user asked for it.
    """

    call: Call
    status: str
    ended_at: datetime
    reason: str | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    booked_pico: int | None = None
    booked_tokens: int = 0
    booked_calls: int = 1
    keep_hold: bool = False
    response_id: str | None = None
    response_model: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What an entry should have been booked as, known later: a price that was missing or wrong, a usage read better.

    Attributes:
        status: `"priced"`, `"reported"`, `"estimated"` or `"free"`.
        cost: What the call cost; its amount is never None.
        at: When it is corrected (aware).
        reason: Why, for the entry.
        usage: What was consumed, or None where that stands as it was.
        keep_hold: Of a call that was not seen whole: balances keep at least what was held for it, and what they were
            booked at beyond its cost.
    """

    status: str
    cost: Cost
    at: datetime
    reason: str | None = None
    usage: Usage | None = None
    keep_hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One immutable row of the ledger.

    Attributes:
        id: Row id; entries are ordered by it.
        kind: `"call"` (one provider response), `"charge"`, or `"adjustment"` (signed; `adjusts` names its entry).
        status, reason: See DESIGN 3.1: zero is never a default.
        at: When it was booked (aware, UTC).
        started_at: When the call was reserved (aware, UTC).
        call_id: The framework's id of the call.
        framework, provider, model: `model` is the one that was priced.
        requested_model, response_model, response_id: As requested and as the response said.
        run_id, user, thread, agent, node, tool, tool_call_id, metadata: Who it belongs to.
        usage: Counts in disjoint buckets, or None when never seen. Of an adjustment: as it is read now, whole.
        cost_usd: Exact cost in USD, or None when unknown or unpriced. Of an adjustment: what it adds, with its sign.
        booked_usd: What USD balances count, or None.
        booked_tokens: What token balances count.
        adjusts: Id of the entry an adjustment corrects.
        flags: What was odd.
        lines: Unit prices and amounts: `{"bucket", "count", "unit_price_usd", "per", "amount_usd"}`.
        source: Provenance of the price.
        path: (id, name) of each chain, agent, graph and tool around the call, from the root run down.
        terms: Conditions of sale of the usage, or None where there is none or an older version did not store them.
        added_tokens: Input and output tokens that an adjustment adds, with their sign; None where `usage` says it.
    """

    id: int
    kind: str
    status: str
    reason: str | None
    at: datetime
    started_at: datetime
    call_id: str
    framework: str
    provider: str
    model: str
    requested_model: str
    response_model: str | None
    response_id: str | None
    run_id: str | None
    user: str | None
    thread: str | None
    agent: str | None
    node: str | None
    tool: str | None
    tool_call_id: str | None
    metadata: Mapping[str, str]
    usage: Usage | None
    cost_pico: int | None
    booked_pico: int | None
    booked_tokens: int
    adjusts: int | None
    flags: tuple[str, ...]
    lines: tuple[Mapping[str, Any], ...]
    source: Mapping[str, Any] | None
    path: tuple[tuple[str, str], ...] = ()
    terms: Terms | None = None
    added_tokens: tuple[int, int] | None = None

    @property
    def input_tokens(self) -> int:
        """Input tokens that the entry adds to sums."""
        if self.added_tokens is not None:
            return self.added_tokens[0]
        return 0 if self.usage is None else self.usage.input_tokens

    @property
    def output_tokens(self) -> int:
        """Output tokens that the entry adds to sums."""
        if self.added_tokens is not None:
            return self.added_tokens[1]
        return 0 if self.usage is None else self.usage.output_tokens

    @property
    def cost_usd(self) -> Decimal | None:
        """Exact cost in USD, or None."""
        return None if self.cost_pico is None else usd_decimal(self.cost_pico)

    @property
    def booked_usd(self) -> Decimal | None:
        """What USD balances count, or None."""
        return None if self.booked_pico is None else usd_decimal(self.booked_pico)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a settle did.

    Attributes:
        entry: The entry of the call (for a late settle or a correction: its adjustment).
        fresh: False when the same settle had been written before and nothing changed.
        moved: For each balance id, what the entry added and what was spent once it was booked.
        keys: Balance key by balance id, for an entry without a hold (a hold has its own).
    """

    entry: Entry
    fresh: bool
    moved: Mapping[int, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    keys: Mapping[int, BalanceKey] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """One balance row as read back.

    Attributes:
        key: Identity.
        spent, held: In the unit's integers.
    """

    key: BalanceKey
    spent: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBudget:
    """A budget as the store knows it.

    Attributes:
        key: Its key.
        budget: The budget, with the limit it was last given.
    """

    key: str
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """How much a store holds.

    Attributes:
        entries: Number of calls and charges by the status they have by now; corrections of them are not counted.
        first_at, last_at: When the first and the last was booked (aware, UTC), or None.
        open_holds: Calls in flight, or lost and not swept yet.
        size_bytes: Of the file.
    """

    entries: Mapping[str, int]
    first_at: datetime | None
    last_at: datetime | None
    open_holds: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which entries to read. All given conditions hold together.

    Attributes:
        scope: Id of a handler, `track()` block or meter.
        run: Run id.
        since, until: Aware datetimes on the booking time, until exclusive.
        last: Only this many latest entries.
    """

    scope: str | None = None
    run: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None


class Ledger(Protocol):
    """A store. Every method is safe to call from any thread of the process that opened it, and after a fork.

    All methods raise `LedgerError` when the store cannot be read or written.
    """

    @property
    def url(self) -> str:
        """Where it is, for messages."""

    def register(self, attached: Sequence[Attached]) -> list[str]:
        """Make budgets known before use.

        Returns:
            One note for each limit that differs from the last one seen, to be logged once.

        Raises:
            ConfigError: A durable name is in use with another unit, window, scope, match or zone.
        """

    def reserve(self, claim: Claim) -> Hold:
        """Hold the claim's amounts on all balances, or on none.

        A second claim of an open call id adds the balances the hold lacks, under the same check. An id that has an
        entry already is one the caller used again: the hold's call has a new id, `id#2`, and settles under it.

        Raises:
            NoRoom: A balance that stops has no room; nothing changed.
        """

    def settle(self, posting: Posting, *, keys: Sequence[BalanceKey] = (), scopes: Sequence[str] = ()) -> Settled:
        """Write the entry, move the balances and close the hold in one transaction.

        The open hold of the posting's call says which balances and scopes it belongs to; `keys` and `scopes` are
        used only where there is none (money spent already, or a call admitted while the store was down). Settling twice
        changes nothing; settling a call that was swept as `unknown` posts one adjustment that makes the books as
        if it had settled in time.
        """

    def adjust(self, entry_id: int, correction: Correction) -> Settled:
        """Post one signed adjustment that makes the books as if an entry had been booked so from the start.

        Cost, tokens and every balance of the entry move by the difference to what the books say now: the entry and its
        earlier adjustments. Where there is none nothing is written, so that a correction that is made twice, or by two
        processes, is one. Call balances do not move.

        Raises:
            LedgerError: No such entry; or it is an adjustment, which is corrected through the entry it names.
        """

    def release(self, key: str) -> bool:
        """Give the hold of a call's `key` back. False when it was not open."""

    def sweep(self, now: datetime) -> list[Entry]:
        """Book every hold that expired or whose owner died as `unknown`, on every balance it holds."""

    def open_holds(self) -> int:
        """Number of open holds."""

    def balances(self, keys: Sequence[BalanceKey] | None = None) -> list[Balance]:
        """Balances for these keys (unused ones as zeros), or all."""

    def entries(self, query: Query) -> Iterator[Entry]:
        """Entries in order of booking."""

    def latest_runs(self, count: int) -> list[str]:
        """Ids of the runs that booked something last, the latest first."""

    def known_budgets(self) -> list[KnownBudget]:
        """Every budget the store has seen."""

    def status(self) -> LedgerStatus:
        """How much it holds, and since when."""

    def samples(self, provider: str, model: str, count: int) -> list[tuple[str | None, int, int, int]]:
        """Latest (node, text bytes, input tokens, output tokens) of a requested model, for estimates."""

    def verify(self) -> list[str]:
        """Check the books against themselves; one line for each thing that is wrong."""

    def close(self) -> None:
        """Release the store. Further calls raise `LedgerError`."""


def open_ledger(url: str, *, durability: str = "process", read_only: bool = False) -> Ledger:
    """Open the ledger at a path or URL; create or migrate it if needed.

    Args:
        url: A file path, `"sqlite:///path"`, or `":memory:"`.
        durability: `"process"`: survives `kill -9`. `"power"`: settles also survive a power cut, at one fsync each.
        read_only: Only to look at it: nothing is created, and a directory that cannot be written is no fault. A file of
            an older version is migrated first all the same.

    Raises:
        LedgerError: It cannot be opened, is no ledger, or was written by newer code.
        ConfigError: Unknown scheme or durability.
    """
    if durability not in {"process", "power"}:
        raise ConfigError(f'durability must be "process" or "power", not {durability!r}.')
    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else url
    if "://" in path:
        scheme = path.partition("://")[0]
        raise ConfigError(f"No ledger store for {scheme!r} URLs; use a file path or ':memory:'.")
    from ai_budget_callbacks.ledger.readonly import Outdated
    from ai_budget_callbacks.ledger.sqlite import SqliteLedger

    if read_only:
        try:
            return SqliteLedger(path, read_only=True)
        except Outdated as outdated:
            try:
                return SqliteLedger(path)
            except LedgerError:
                raise outdated from None
    return SqliteLedger(path, durability=durability)
