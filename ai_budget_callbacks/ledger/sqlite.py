"""The SQLite store. Each public method is one transaction; the SQL is in statements.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from ai_budget_callbacks.budget import BalanceKey, amount_text
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.ledger import Balance, Hold, NoRoom, Posting, Settled, adjusting, reading
from ai_budget_callbacks.ledger import owner as owners
from ai_budget_callbacks.ledger import statements as sql
from ai_budget_callbacks.ledger.connection import Connection
from ai_budget_callbacks.ledger.readonly import ReadOnly
from ai_budget_callbacks.ledger.rows import call_json, call_of, dumps, entry_fields, entry_of, iso
from ai_budget_callbacks.ledger.schema import inspect, is_current, migrate
from ai_budget_callbacks.ledger.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ai_budget_callbacks.budget import Attached
    from ai_budget_callbacks.ledger import Claim, Correction, Entry, KnownBudget, LedgerStatus, Query, Want

__all__ = ["SqliteLedger"]

_KNOWN_BALANCES = 10_000
_REUSED_IDS = 1_000_000


class SqliteLedger:
    """A ledger in one SQLite file (WAL), or in memory.

    Args:
        path: File path or `":memory:"`.
        durability: `"process"` or `"power"` (settles wait for the disk).
        read_only: Nothing is written or made, and every method that would is a `LedgerError`.
    """

    def __init__(self, path: str, *, durability: str = "process", read_only: bool = False) -> None:
        self._connection: Connection | ReadOnly = (
            ReadOnly(path, inspect=inspect, is_current=is_current)
            if read_only
            else Connection(path, inspect=inspect, prepare=migrate)
        )
        self._full = durability == "power"
        self._ids: dict[BalanceKey, int] = {}  # a balance's id never changes

    @property
    def url(self) -> str:
        """The file's path."""
        return self._connection.path

    # -- budgets

    def register(self, attached: Sequence[Attached]) -> list[str]:
        """See `Ledger.register`."""
        notes: list[str] = []
        now = iso(datetime.now(UTC))
        with self._connection.write() as conn:
            for item in attached:
                budget = item.budget
                row = conn.execute("SELECT identity, last_limit FROM budget WHERE key = ?", (item.key,)).fetchone()
                if row is None:
                    conn.execute(
                        "INSERT INTO budget(key, name, unit, identity, last_limit, created_at) "
                        "VALUES(?, ?, ?, ?, ?, ?)",
                        (item.key, budget.name, budget.unit, budget.identity, budget.limit, now),
                    )
                    continue
                if row[0] != budget.identity:
                    raise ConfigError(
                        f"The budget name {budget.name!r} is in use in {self.url} as {row[0]}, and this one is "
                        f"{budget.identity}. Unit, per, by, match and tz are a budget's identity: use another name."
                    )
                if row[1] != budget.limit:
                    conn.execute("UPDATE budget SET last_limit = ? WHERE key = ?", (budget.limit, item.key))
                    notes.append(
                        f"The limit of budget {budget.name!r} changed from {amount_text(budget.unit, row[1])} to "
                        f"{amount_text(budget.unit, budget.limit)}; what was spent stays spent."
                    )
        return notes

    # -- holds

    def reserve(self, claim: Claim) -> Hold:
        """See `Ledger.reserve`."""
        with self._connection.write() as conn:
            ids = self._find(conn, claim.wants)
            claim, row = _unused_id(conn, claim)
            hold = self._open(conn, claim, ids) if row is None else self._merge(conn, claim, ids, row)
        self._remember(hold.keys)
        return hold

    def _open(self, conn: Any, claim: Claim, ids: dict[int, Want]) -> Hold:
        amounts = self._take(conn, ids)
        conn.execute(
            sql.INSERT_HOLD,
            {
                "call_id": claim.call.key,
                "amounts": dumps(amounts),
                "scopes": dumps(claim.scopes),
                "call": call_json(claim.call),
                "estimate_pico": claim.estimate_pico,
                "estimate_tokens": claim.estimate_tokens,
                "owner": owners.me(),
                "opened_at": iso(claim.call.started_at),
                "expires_at": iso(claim.expires_at),
            },
        )
        return _hold(claim, ids, amounts, claim.scopes)

    def _merge(self, conn: Any, claim: Claim, ids: dict[int, Want], row: Any) -> Hold:
        held = {int(key): amount for key, amount in orjson.loads(row[0]).items()}
        scopes = tuple(dict.fromkeys((*orjson.loads(row[1]), *claim.scopes)))
        for balance, want in ids.items():
            if balance in held:
                _check_shared(conn, balance, want, held[balance])
        held |= self._take(conn, {balance: want for balance, want in ids.items() if balance not in held})
        conn.execute(
            sql.MERGE_HOLD,
            {
                "call_id": claim.call.key,
                "amounts": dumps(held),
                "scopes": dumps(scopes),
                "expires_at": iso(claim.expires_at),
                "estimate_pico": claim.estimate_pico,
                "estimate_tokens": claim.estimate_tokens,
            },
        )
        return _hold(claim, ids, held, scopes)

    def _take(self, conn: Any, ids: dict[int, Want]) -> dict[int, int]:
        """Hold every want, or raise and let the transaction roll back."""
        held: dict[int, int] = {}
        for balance, want in ids.items():
            row = {"id": balance, "amount": want.amount, "lim": want.limit, "floor": want.floor}
            if conn.execute(sql.RESERVE, row).rowcount == 1:
                held[balance] = want.amount
            elif want.floor is not None and conn.execute(sql.RESERVE_REST, row).rowcount == 1:
                held[balance] = conn.execute(sql.STATE, (balance,)).fetchone()[2]
            else:
                raise NoRoom(want, *conn.execute(sql.STATE, (balance,)).fetchone()[1:])
        return held

    def _find(self, conn: Any, wants: Sequence[Want]) -> dict[int, Want]:
        """Wants by balance id; of two that name one balance (a budget attached twice) the stricter holds."""
        ids: dict[int, Want] = {}
        for want in wants:
            balance = self._balance_id(conn, want.key)
            other = ids.get(balance)
            if other is None or other.limit is None or (want.limit is not None and want.limit < other.limit):
                ids[balance] = want
        return ids

    def _balance_id(self, conn: Any, key: BalanceKey) -> int:
        known = self._ids.get(key)
        if known is not None:
            return known
        where = (key.budget, key.window, key.scope)
        row = conn.execute(sql.FIND_BALANCE, where).fetchone()
        if row is None:
            conn.execute(sql.MAKE_BALANCE, (key.budget, key.unit, key.window, key.scope))
            row = conn.execute(sql.FIND_BALANCE, where).fetchone()
        return int(row[0])

    def _remember(self, keys: Mapping[int, BalanceKey]) -> None:
        """Keep ids of balances once they are committed: a transaction that rolls back takes new rows with it."""
        if len(self._ids) >= _KNOWN_BALANCES:
            self._ids.clear()
        self._ids.update({key: balance for balance, key in keys.items()})

    def release(self, key: str) -> bool:
        """See `Ledger.release`."""
        with self._connection.write() as conn:
            row = conn.execute(sql.CLOSE_HOLD, (key,)).fetchone()
            if row is None:
                return False
            _give_back(conn, row[0])
            return True

    def open_holds(self) -> int:
        """See `Ledger.open_holds`."""
        with self._connection.read() as conn:
            return int(conn.execute("SELECT count(*) FROM hold").fetchone()[0])

    # -- entries

    def settle(self, posting: Posting, *, keys: Sequence[BalanceKey] = (), scopes: Sequence[str] = ()) -> Settled:
        """See `Ledger.settle`."""
        with self._connection.write(full=self._full) as conn:
            return self._close(conn, posting, keys, scopes)

    def adjust(self, entry_id: int, correction: Correction) -> Settled:
        """See `Ledger.adjust`."""
        with self._connection.write(full=self._full) as conn:
            return adjusting.adjust(conn, entry_id, correction)

    def sweep(self, now: datetime) -> list[Entry]:
        """See `Ledger.sweep`."""
        written: list[Entry] = []
        dead: dict[str, bool] = {}
        with self._connection.write() as conn:
            for call_id, call, pico, tokens, owner, expires_at in conn.execute(
                sql.DEAD_HOLDS, (iso(now), owners.me())
            ).fetchall():
                expired = expires_at <= iso(now)
                if owner not in dead:
                    dead[owner] = owners.is_dead(owner)
                if not expired and not dead[owner]:
                    continue
                reason = "the hold expired" if expired else "the process that made the call died"
                lost = call_of(call_id, call)
                posting = Posting(
                    call=lost,
                    status="unknown",
                    reason=f"{reason}; the outcome was never seen",
                    ended_at=now,
                    booked_pico=pico,
                    booked_tokens=tokens,
                    booked_calls=1 if lost.kind == "call" else 0,
                    keep_hold=True,
                )
                settled = self._close(conn, posting)
                if settled.fresh:
                    written.append(settled.entry)
        return written

    def _close(
        self, conn: Any, posting: Posting, keys: Sequence[BalanceKey] = (), scopes_if_none: Sequence[str] = ()
    ) -> Settled:
        key = f"{posting.call.kind}:{posting.call.id}"
        row = conn.execute(sql.CLOSE_HOLD, (posting.call.key,)).fetchone()
        if conn.execute(sql.HAS_ENTRY, (key,)).fetchone() is not None:
            if row is not None:  # a second hold of a call that was already booked: give it back, book nothing
                _give_back(conn, row[0])
            return adjusting.late(conn, posting, conn.execute(sql.FIND_ENTRY, (key,)).fetchone()[0])
        found: dict[int, BalanceKey] = {}
        if row is None:
            found = {self._balance_id(conn, balance): balance for balance in keys}
            held = dict.fromkeys(found, 0)
            scopes = tuple(scopes_if_none)
        else:
            held = {int(balance): amount for balance, amount in orjson.loads(row[0]).items()}
            scopes = orjson.loads(row[1])
        moved: dict[int, tuple[int, int]] = {}
        usd: list[int] = []
        for balance, amount in held.items():
            unit, spent, _ = conn.execute(sql.STATE, (balance,)).fetchone()
            added = adjusting.booked(posting, unit, amount)
            conn.execute(sql.SETTLE, {"id": balance, "held": amount, "added": added})
            moved[balance] = (added, spent + added)
            if unit == "usd":
                usd.append(added)
        fields = entry_fields(
            posting, kind=posting.call.kind, booked_pico=adjusting.booked_pico(posting, usd), adjusts=None
        )
        entry = adjusting.insert(
            conn,
            fields,
            key=key,
            moved=moved,
            held=held,
            scopes=scopes,
            text_bytes=posting.call.request.text_bytes,
            content=posting.content,
        )
        return Settled(entry=entry, fresh=True, moved=MappingProxyType(moved), keys=MappingProxyType(found))

    # -- reading

    def balances(self, keys: Sequence[BalanceKey] | None = None) -> list[Balance]:
        """See `Ledger.balances`."""
        with self._connection.read() as conn:
            if keys is None:
                rows = conn.execute("SELECT budget, unit, window_key, scope, spent, held FROM balance ORDER BY id")
                return [Balance(key=BalanceKey(*row[:4]), spent=row[4], held=row[5]) for row in rows.fetchall()]
            found = []
            for key in keys:
                row = conn.execute(
                    "SELECT spent, held FROM balance WHERE budget = ? AND window_key = ? AND scope = ?",
                    (key.budget, key.window, key.scope),
                ).fetchone() or (0, 0)
                found.append(Balance(key=key, spent=row[0], held=row[1]))
            return found

    def entries(self, query: Query) -> Iterator[Entry]:
        """See `Ledger.entries`."""
        conditions = {
            "scope": "id IN (SELECT entry FROM entry_scope WHERE scope = :scope)",
            # a track() block inside another is a scope, not a run id
            "run": "(run_id = :run OR id IN (SELECT entry FROM entry_scope WHERE scope = :run))",
            "since": "at >= :since",
            "until": "at < :until",
        }
        values = {
            "scope": query.scope,
            "run": query.run,
            "since": None if query.since is None else iso(query.since),
            "until": None if query.until is None else iso(query.until),
        }
        where = " AND ".join(text for name, text in conditions.items() if values[name] is not None) or "true"
        tail = "" if query.last is None else f" ORDER BY id DESC LIMIT {int(query.last)}"
        statement = f"SELECT * FROM (SELECT * FROM entry WHERE {where}{tail}) ORDER BY id"
        with self._connection.read() as conn:
            cursor = conn.execute(statement, values)
            rows = adjusting.mappings(cursor)
        return map(entry_of, rows)

    def samples(self, provider: str, model: str, count: int) -> list[tuple[str | None, int, int, int]]:
        """See `Ledger.samples`."""
        with self._connection.read() as conn:
            rows: list[tuple[str | None, int, int, int]] = conn.execute(
                sql.SAMPLES, (provider, model, count)
            ).fetchall()
        return rows

    def latest_runs(self, count: int) -> list[str]:
        """See `Ledger.latest_runs`."""
        with self._connection.read() as conn:
            return reading.latest_runs(conn, count)

    def known_budgets(self) -> list[KnownBudget]:
        """See `Ledger.known_budgets`."""
        with self._connection.read() as conn:
            return reading.known_budgets(conn)

    def status(self) -> LedgerStatus:
        """See `Ledger.status`."""
        with self._connection.read() as conn:
            return reading.status(conn)

    def verify(self) -> list[str]:
        """See `Ledger.verify`."""
        with self._connection.read() as conn:
            return verify(conn)

    def close(self) -> None:
        """See `Ledger.close`."""
        self._connection.close()


def _hold(claim: Claim, ids: Mapping[int, Want], amounts: Mapping[int, int], scopes: tuple[str, ...]) -> Hold:
    keys = {balance: want.key for balance, want in ids.items()}
    return Hold(call=claim.call, amounts=MappingProxyType(dict(amounts)), keys=MappingProxyType(keys), scopes=scopes)


def _check_shared(conn: Any, balance: int, want: Want, own: int) -> None:
    """Another meter wants a balance this call holds already: nothing more is held, but its own limit is checked."""
    _, spent, held = conn.execute(sql.STATE, (balance,)).fetchone()
    if want.limit is not None and (spent + held > want.limit or spent + held - own >= want.limit):
        raise NoRoom(want, spent, held)


def _unused_id(conn: Any, claim: Claim) -> tuple[Claim, Any]:
    """The claim under an id that has no entry, and the hold that is open under it.

    A user may give one run id to several calls (`config={"run_id": …}`), in several processes; each is a response of
    its own. A second meter of this process that claims the same call finds the hold the first one opened.
    """
    call = claim.call
    for number in range(2, _REUSED_IDS):
        row = conn.execute(sql.OPEN_HOLD, (call.key,)).fetchone()
        if row is not None and row[2] == owners.me():
            break
        if row is None and conn.execute(sql.HAS_ENTRY, (f"{call.kind}:{call.id}",)).fetchone() is None:
            break
        call = replace(call, id=f"{claim.call.id}#{number}")
    return (claim if call is claim.call else replace(claim, call=call)), row


def _give_back(conn: Any, amounts: str) -> None:
    for balance, amount in orjson.loads(amounts).items():
        conn.execute(sql.RELEASE, {"id": int(balance), "held": amount})
