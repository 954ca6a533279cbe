"""What the ledger's proof is made of: short records, a reader of the books that shares no code with the ledger,
and children that are really forked and really killed.
"""  # noqa: D205

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from ai_budget_callbacks.budget import BalanceKey
from ai_budget_callbacks.ledger import Claim, Correction, Posting, Query, Want
from ai_budget_callbacks.pricing import Cost, Line
from ai_budget_callbacks.usage import Call, Request, Usage, Who

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG = NOW + timedelta(days=36500)
INT64_MAX = 2**63 - 1


def key(budget="team", unit="usd", window="total", scope="[]"):
    return BalanceKey(budget, unit, window, scope)


USD, TOKENS, CALLS = key("team"), key("words", "tokens"), key("count", "calls")


def call(call_id="call-1", *, at=NOW, model="gpt-4o-mini", provider="openai", text_bytes=0, **who):
    return Call(
        id=call_id,
        framework="direct",
        provider=provider,
        model=model,
        started_at=at,
        who=Who(**who),
        request=Request(text_bytes=text_bytes),
    )


def want(key, amount, limit=None, floor=None):
    return Want(key=key, amount=amount, floor=floor, limit=limit)


def claim(call_id, *wants, scopes=("handler-1",), pico=None, tokens=0, expires=LONG, **fields):
    return Claim(
        call=call_id if isinstance(call_id, Call) else call(call_id, **fields),
        wants=wants,
        scopes=scopes,
        estimate_pico=pico,
        estimate_tokens=tokens,
        expires_at=expires,
    )


def posting(
    call_id, pico=None, tokens=0, *, status="priced", calls=1, at=NOW, keep=False, who=None, kind="call", **fields
):
    """An outcome that cost `pico`; the cost has one line, so that the arithmetic can be checked."""
    cost = fields.pop("cost", None)
    if cost is None and pico is not None and status in {"priced", "reported", "estimated", "free"}:
        line = Line("output_text", 1, Decimal(pico).scaleb(-12), 1, pico)
        cost = Cost(status="free" if status == "free" else "priced", pico=pico, lines=(line,))
    return Posting(
        call=replace(call_id if isinstance(call_id, Call) else call(call_id, **(who or {})), kind=kind),
        status=status,
        ended_at=at,
        cost=cost,
        booked_pico=pico,
        booked_tokens=tokens,
        booked_calls=calls,
        keep_hold=keep,
        **fields,
    )


def correction(pico, *, status="priced", at=NOW + HOUR, reason="repriced", **fields):
    """An entry should have cost `pico`."""
    line = Line("output_text", 1, Decimal(pico or 0).scaleb(-12), 1, pico or 0)
    cost = Cost(status="free" if status == "free" else "priced", pico=pico, lines=(line,))
    return Correction(status=status, cost=cost, at=at, reason=reason, **fields)


def usage(**buckets):
    return Usage(buckets=buckets)


def state(ledger, balance_key):
    """(spent, held) of one balance."""
    (found,) = ledger.balances([balance_key])
    return found.spent, found.held


def everything(ledger, **query):
    return list(ledger.entries(Query(**query)))


# -- the books, read without the ledger


def raw(path, timeout=10.0):
    """A plain connection that commits each statement."""
    return sqlite3.connect(str(path), timeout=timeout, isolation_level=None, check_same_thread=False)


def read_books(conn):
    """Everything that is money: balances by key, open holds and entries, as plain Python."""
    columns = "budget, unit, window_key, scope"
    keys = {row[0]: BalanceKey(*row[1:]) for row in conn.execute(f"SELECT id, {columns} FROM balance")}
    part = lambda text: {keys[int(k)]: amount for k, amount in json.loads(text).items()}  # noqa: E731
    return {
        "balances": {
            keys[i]: (spent, held) for i, spent, held in conn.execute("SELECT id, spent, held FROM balance").fetchall()
        },
        "holds": {c: part(amounts) for c, amounts in conn.execute("SELECT call_id, amounts FROM hold").fetchall()},
        "entries": [
            {"id": i, "key": k, "kind": kind, "status": s, "call": c, "amounts": part(amounts), "adjusts": adjusts}
            for i, k, kind, s, c, amounts, adjusts in conn.execute(
                "SELECT id, key, kind, status, call_id, amounts, adjusts FROM entry ORDER BY id"
            ).fetchall()
        ],
    }


def wrong_in(books):
    """I1, I2, I4, I5 of facts/ledger.md 3.4, added up here and not in SQL. Empty when the books are right."""
    wrong = []
    for balance, (spent, held) in books["balances"].items():
        booked = sum(entry["amounts"].get(balance, 0) for entry in books["entries"])
        open_holds = sum(amounts.get(balance, 0) for amounts in books["holds"].values())
        if spent != booked:
            wrong.append(f"{balance.budget}: spent says {spent}, the entries add up to {booked}")
        if held != open_holds:
            wrong.append(f"{balance.budget}: held says {held}, the open holds add up to {open_holds}")
    keys = [entry["key"] for entry in books["entries"]]
    wrong += [f"{k} was booked {keys.count(k)} times" for k in set(keys) if keys.count(k) > 1]
    wrong += [f"{c} is booked and still holds money" for c in books["holds"] if f"call:{c}" in keys]
    return wrong


def audit(path):
    """What is wrong with a file, by a fresh connection: damage of the file itself, then the books."""
    conn = raw(path)
    try:
        damage = [row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
        return damage + wrong_in(read_books(conn))
    finally:
        conn.close()


# -- children


def fork(work, *args):
    """Run `work(*args)` in a forked child; it exits 0, or 70 with its traceback on stderr. Returns the pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # no child outlives its test
        work(*args)
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def wait(pid):
    """Exit code of a child; a negative signal number when it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(work, *args):
    """Run `work(*args)` in a forked child and return what it returned (as JSON)."""
    reader, writer = os.pipe()

    def run():
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            json.dump(work(*args), out)

    pid = fork(run)
    os.close(writer)
    with os.fdopen(reader) as answers:
        text = answers.read()
    code = wait(pid)
    assert code == 0, f"the child process ended with {code}"
    return json.loads(text)


class Gate:
    """A start signal for several processes or threads: they wait until it is opened."""

    def __init__(self):
        self._reader, self._writer = os.pipe()

    def wait(self):
        """In a child: block until the gate opens (every copy of the writing end is closed)."""
        os.close(self._writer)
        os.read(self._reader, 1)

    def open(self):
        os.close(self._writer)
        os.close(self._reader)
