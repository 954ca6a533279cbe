"""A full or failing disk at every write, sync and truncate: an exception, and books that are right after reopening.

The ledger runs its own code and its own SQL; only the SQLite beneath it is another one (apsw), on a file layer that
fails on demand. The last tests need no such layer: SQLite's own page limit, and the kernel's limit on file sizes.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

import apsw
import apsw.ext
import pytest
from sqlite_utils.utils import sqlite3

from ai_budget_callbacks.errors import LedgerError
from ai_budget_callbacks.ledger import open_ledger
from ai_budget_callbacks.ledger.verify import verify
from tests.support.books import (
    TOKENS,
    USD,
    audit,
    claim,
    everything,
    in_child,
    posting,
    raw,
    read_books,
    state,
    want,
    wrong_in,
)
from tests.support.steps import snapshots, steps

WAL = ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=20")
DELETE = ("PRAGMA journal_mode=DELETE",)


class Plan:
    """Which operation on the files fails, and how."""

    def __init__(self):
        self.count, self.at, self.error, self.once = 0, -1, None, True

    def arm(self, at, error, *, once):
        self.count, self.at, self.error, self.once = 0, at, error, once

    def operation(self):
        number, self.count = self.count, self.count + 1
        if self.error is not None and (number == self.at or (number > self.at >= 0 and not self.once)):
            raise self.error


class FaultyFile(apsw.VFSFile):
    def xWrite(self, data, offset):
        PLAN.operation()
        super().xWrite(data, offset)

    def xSync(self, flags):
        PLAN.operation()
        super().xSync(flags)

    def xTruncate(self, size):
        PLAN.operation()
        super().xTruncate(size)


class FaultyFiles(apsw.VFS):
    def __init__(self):
        super().__init__("faulty", "", maxpathname=0)

    def xOpen(self, name, flags):
        return FaultyFile("", name, flags)


PLAN = Plan()
FILES = FaultyFiles()
NAMES = {
    apsw.FullError: "SQLITE_FULL",
    apsw.IOError: "SQLITE_IOERR",
    apsw.CorruptError: "SQLITE_CORRUPT",
    apsw.CantOpenError: "SQLITE_CANTOPEN",
}


class Cursor:
    """What the ledger uses of a sqlite3 cursor."""

    def __init__(self, conn, statement, values):
        self._conn, self._statement = conn, statement
        self._rows = list(conn.execute(statement, values))
        self.rowcount, self.lastrowid = conn.changes(), conn.last_insert_rowid()

    @property
    def description(self):
        return [(name,) for name, _ in apsw.ext.query_info(self._conn, self._statement).description]

    def fetchone(self):
        return self._rows.pop(0) if self._rows else None

    def fetchall(self):
        rows, self._rows = self._rows, []
        return rows

    def __iter__(self):
        return iter(self.fetchall())


class Driver:
    """What the ledger uses of a sqlite3 connection, on apsw and the faulty files."""

    def __init__(self, path, pragmas):
        self._conn = apsw.Connection(str(path), vfs="faulty")
        for pragma in (*pragmas, "PRAGMA synchronous=FULL", "PRAGMA temp_store=MEMORY"):
            list(self._conn.execute(pragma))

    @property
    def in_transaction(self):
        return self._conn.in_transaction

    def execute(self, statement, values=()):
        try:
            return Cursor(self._conn, statement, values)
        except apsw.Error as fault:
            error = sqlite3.OperationalError(str(fault))
            error.sqlite_errorname = NAMES.get(type(fault), type(fault).__name__)
            raise error from fault

    def close(self):
        self._conn.close()


@pytest.fixture
def folder():
    """In memory where there is such a folder: thousands of fsyncs would test only this disk's patience."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def ledger_on_faulty_files(path, pragmas):
    ledger = open_ledger(str(path))
    ledger._connection._conn.close()
    ledger._connection._conn = Driver(path, pragmas)
    return ledger


def run(path, pragmas, at, error, *, once):
    """The steps, with a fault. Returns how many were done when it struck, its exception, and the ledger."""
    ledger = ledger_on_faulty_files(path, pragmas)
    PLAN.arm(at, error, once=once)
    done = 0
    for _, step in steps(ledger):
        try:
            step()
        except LedgerError as fault:
            return done, fault, ledger
        done += 1
    return done, None, ledger


def abandon(ledger):
    """Close as far as the fault lets us, as a dying process would; then the files work again."""
    try:
        ledger._connection._conn.close()
    except apsw.Error:
        pass
    PLAN.arm(-1, None, once=True)


def check(path, expected, where):
    """What a fresh connection on working files finds."""
    conn = raw(path)
    books = read_books(conn)
    assert wrong_in(books) == verify(conn) == [], where  # the latter runs integrity_check too
    conn.close()
    assert books in expected, f"{where}: the books are in no state between two steps"
    return books


FAULTS = {"full": (apsw.FullError("database or disk is full"), "its disk is full"),
          "ioerr": (apsw.IOError("disk I/O error"), "failed at the operating system")}  # fmt: skip


@pytest.mark.parametrize(
    ("pragmas", "fault", "once"),
    [
        pytest.param(WAL, "full", True, id="wal-full-once"),
        pytest.param(WAL, "full", False, id="wal-full-from-then-on"),
        pytest.param(WAL, "ioerr", True, id="wal-ioerr-once"),
        pytest.param(WAL, "ioerr", False, id="wal-ioerr-from-then-on"),
        pytest.param(DELETE, "full", True, id="delete-full-once"),
        pytest.param(DELETE, "ioerr", False, id="delete-ioerr-from-then-on"),
    ],
)
def test_a_fault_at_every_operation(folder, pragmas, fault, once):
    expected = snapshots(folder / "expected.db")
    empty, path = folder / "empty.db", folder / "spend.db"
    open_ledger(str(empty)).close()
    error, words = FAULTS[fault]

    def fresh():
        for leftover in folder.glob("spend.db*"):
            leftover.unlink()
        shutil.copyfile(empty, path)

    fresh()
    done, raised, ledger = run(path, pragmas, -1, None, once=True)
    assert (done, raised) == (len(expected) - 1, None)
    points = PLAN.count
    assert points > 80, "the faulty files see no operations, so nothing would fail"
    abandon(ledger)
    check(path, expected[-1:], "no fault")
    for at in range(points):
        fresh()
        done, raised, ledger = run(path, pragmas, at, error, once=once)
        where = f"{fault} at operation {at}, after {done} steps"
        assert raised is not None, f"{where}: a fault went unnoticed"
        assert words in raised.message, where
        assert str(path) in raised.message, where
        if not once:
            abandon(ledger)
            check(path, expected[done : done + 2], where)
            continue
        for _, step in list(steps(ledger))[done:]:  # the disk works again: the same ledger goes on by itself
            step()
        abandon(ledger)
        check(path, expected[-1:], where)
    print(f"{points} fault points")


# -- faults without a layer of ours

FULL = (
    "The ledger {} cannot be used: its disk is full. Free some space; nothing of this transaction was written "
    "(SQLITE_FULL: database or disk is full)."
)


def fill(ledger, names, size):
    """Settle until it fails; returns the message and which were acknowledged."""
    acknowledged = []
    for name in names:
        try:
            ledger.settle(posting(name, 5, 1, content="x" * size), keys=[USD, TOKENS])
        except LedgerError as error:
            return error.message, acknowledged
        acknowledged.append(name)
    return None, acknowledged


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_full_disk(tmp_path, durability):
    path = tmp_path / "spend.db"
    ledger = open_ledger(str(path), durability=durability)
    ledger.reserve(claim("open", want(USD, 70, 1_000)))
    conn = ledger._connection._conn
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    conn.execute(f"PRAGMA max_page_count={pages + 6}").fetchall()
    message, acknowledged = fill(ledger, [f"c{index}" for index in range(50)], 3_000)
    assert message == FULL.format(path)
    assert acknowledged, "the disk was full before anything was written"
    assert [entry.call_id for entry in everything(ledger)] == acknowledged
    assert state(ledger, USD) == (5 * len(acknowledged), 70), "a settle that failed moved money"
    assert state(ledger, TOKENS) == (len(acknowledged), 0)
    big = "x" * 100_000
    with pytest.raises(LedgerError) as caught:
        ledger.reserve(claim("b", want(USD, 1, 1_000), scopes=(big,)))
    assert caught.value.message == FULL.format(path)
    assert (ledger.open_holds(), state(ledger, USD)[1]) == (1, 70), "a reserve that failed holds money"
    with pytest.raises(LedgerError):
        ledger.settle(posting("open", 60, content=big))
    assert (ledger.open_holds(), state(ledger, USD)[1]) == (1, 70), "a settle that failed closed the hold"
    assert ledger.verify() == audit(path) == []
    conn.execute("PRAGMA max_page_count=1073741823").fetchall()
    assert ledger.settle(posting("open", 60, content=big)).fresh, "the ledger does not go on when there is room again"
    assert fill(ledger, [f"c{index}" for index in range(50)], 3_000)[0] is None
    assert state(ledger, USD) == (310, 0)
    ledger.close()
    assert audit(path) == []


def test_a_write_that_the_kernel_refuses(tmp_path):
    """A file size limit: the writes of the WAL really fail, whatever SQLite thinks of pages."""
    path = tmp_path / "spend.db"

    def work():
        ledger = open_ledger(str(path))
        ledger.reserve(claim("open", want(USD, 70, 1_000)))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = os.stat(f"{path}-wal").st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 60_000, hard))
        message, acknowledged = fill(ledger, [f"c{index}" for index in range(50)], 3_000)
        during = [state(ledger, USD), len(everything(ledger)), ledger.open_holds(), ledger.verify()]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        ledger.settle(posting("open", 60))
        again, _ = fill(ledger, [f"c{index}" for index in range(50)], 3_000)
        after = [state(ledger, USD), len(everything(ledger)), ledger.open_holds(), ledger.verify()]
        ledger.close()
        return message, len(acknowledged), during, again, after

    message, acknowledged, during, again, after = in_child(work)
    assert message is not None
    assert str(path) in message
    assert 0 < acknowledged < 50
    assert during == [[5 * acknowledged, 70], acknowledged, 1, []], "a settle that failed moved money"
    assert again is None, "the ledger does not go on when it may write again"
    assert after == [[310, 0], 51, 0, []]
    assert audit(path) == []
