"""One of everything a ledger does, as steps, and what the books say after each: for kills and for faults."""

from __future__ import annotations

from ai_budget_callbacks.budget import Attached, Budget
from ai_budget_callbacks.ledger import NoRoom, open_ledger
from tests.support.books import CALLS, HOUR, NOW, TOKENS, USD, claim, correction, key, posting, raw, read_books, want

LIMIT = 1_000
OUTER = key("outer")


def steps(ledger):
    """One of everything, each step one acknowledgement: (name, what to do). A step done twice is done once."""
    wants = (want(USD, 700, LIMIT), want(TOKENS, 30, 400), want(CALLS, 1, 20))
    month = Attached.make(Budget(usd="5", per="month", name="team"), "meter", 0)
    yield "register", lambda: ledger.register([month])
    yield "reserve a", lambda: ledger.reserve(claim("a", *wants, scopes=("inner",)))
    yield "merge a", lambda: ledger.reserve(claim("a", want(OUTER, 250, LIMIT), scopes=("outer",)))
    yield "settle a", lambda: ledger.settle(posting("a", 510, 33))
    yield "settle a again", lambda: ledger.settle(posting("a", 510, 33))
    yield "refuse b", lambda: _refused(ledger, claim("b", want(OUTER, 1, LIMIT), want(USD, 491, LIMIT)))
    yield "reserve b", lambda: ledger.reserve(claim("b", want(USD, 490, LIMIT), want(CALLS, 1, 20)))
    yield "release b", lambda: ledger.release("b")
    yield "reserve c", lambda: ledger.reserve(claim("c", want(USD, 80, LIMIT), want(CALLS, 1, 20), expires=NOW))
    yield "reserve d", lambda: ledger.reserve(claim("d", want(USD, 90, LIMIT), pico=95, tokens=4, expires=NOW))
    yield "sweep c, d", lambda: ledger.sweep(NOW + HOUR)
    yield "late settle c", lambda: ledger.settle(posting("c", 66, 5))
    yield "late settle c again", lambda: ledger.settle(posting("c", 66, 5))
    yield "correct a", lambda: ledger.adjust(1, correction(500))
    yield "correct a again", lambda: ledger.adjust(1, correction(500))
    yield "correct c", lambda: ledger.adjust(2, correction(70))
    yield (
        "charge",
        lambda: ledger.settle(posting("fee", 7, kind="charge", calls=0), keys=[USD, key("new")], scopes=["inner"]),
    )
    yield "reserve e", lambda: ledger.reserve(claim("e", want(OUTER, 9_999, LIMIT, floor=1)))
    yield "settle e", lambda: ledger.settle(posting("e", 3, status="estimated", keep=True))
    yield "reserve f", lambda: ledger.reserve(claim("f", want(USD, 100, LIMIT), want(CALLS, 1, 20), pico=120))
    yield "merge f", lambda: ledger.reserve(claim("f", want(TOKENS, 8, 400), tokens=9))


def _refused(ledger, record):
    try:
        ledger.reserve(record)
    except NoRoom:
        return
    raise AssertionError("a call without room was admitted")


def snapshots(path):
    """What the books say before the first step and after each, when nothing fails: the only states there may be."""
    ledger = open_ledger(str(path))
    reader = raw(path)
    found = [read_books(reader)]
    for _, step in steps(ledger):
        step()
        found.append(read_books(reader))
    reader.close()
    ledger.close()
    return found
