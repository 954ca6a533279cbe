"""The stores that the ledger contract runs against. A new store is one more class here and one more param."""

from __future__ import annotations

import pytest

from ai_budget_callbacks.ledger import open_ledger
from tests.support.books import raw

UNLOCK = ("DROP TRIGGER IF EXISTS entry_no_update", "DROP TRIGGER IF EXISTS entry_no_delete")


class FileStore:
    """One SQLite file, opened as often as asked."""

    shared = True  # a second `open()` sees the same books, also from another process

    def __init__(self, folder):
        self.url = str(folder / "spend.db")
        self.opened = []

    def open(self, **options):
        self.opened.append(open_ledger(self.url, **options))
        return self.opened[-1]

    def sql(self, *statements, unlock=False):
        """Run statements past the ledger; returns the rows of the last. `unlock` first takes the safeguards away."""
        conn = raw(self.url)
        try:
            return self._run(conn, statements, unlock=unlock)
        finally:
            conn.close()

    def close(self):
        for ledger in self.opened:
            ledger.close()

    @staticmethod
    def _run(conn, statements, *, unlock):
        rows = []
        if unlock:
            conn.execute("PRAGMA ignore_check_constraints=ON")
        for statement in (*(UNLOCK if unlock else ()), *statements):
            rows = conn.execute(statement).fetchall()
        conn.execute("PRAGMA ignore_check_constraints=OFF")
        return rows


class MemoryStore(FileStore):
    """One SQLite database in memory: its only connection is the ledger's own."""

    shared = False

    def __init__(self, folder):
        super().__init__(folder)
        self.url = ":memory:"

    def sql(self, *statements, unlock=False):
        return self._run(self.opened[-1]._connection._conn, statements, unlock=unlock)


@pytest.fixture(params=[FileStore, MemoryStore], ids=["sqlite-file", "sqlite-memory"])
def store(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ledger(store):
    return store.open()
