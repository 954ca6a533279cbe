"""A ledger file opened to be read: by the command line, by users who may not write it, on a disk that is full.

Nothing is created, migrated or locked. SQLite reads a WAL file of a read-only directory where its -wal and -shm are
there and readable; where nobody has it open they are not there, and then, and only then, it is read as a file that does
not change (measured with SQLite 3.40.1).
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ai_budget_callbacks.errors import LedgerError
from ai_budget_callbacks.ledger.connection import BUSY_TIMEOUT_S, explain, sqlite3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Outdated", "ReadOnly"]


class Outdated(LedgerError):
    """The file was made by older code and must be migrated before it can be read."""


class ReadOnly:
    """A connection that only reads; what a ledger needs of `Connection`.

    Args:
        path: File path.
        inspect: Raises when the file is not ours.
        is_current: Whether the file has every migration.

    Raises:
        Outdated: It has not.
        LedgerError: It cannot be read.
    """

    def __init__(self, path: str, *, inspect: Callable[[Any, str], None], is_current: Callable[[Any], bool]) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._conn: Any = None
        if not os.access(path, os.R_OK):
            raise LedgerError(f"The ledger {path} cannot be read by this user. Read it as its owner.")
        try:
            self._conn = self._open()
            inspect(self._conn, path)
            if not is_current(self._conn):
                raise Outdated(
                    f"The ledger {path} was made by an older ai-budget-callbacks and must be brought up to date before "
                    "it is read. Run the command once as a user who can write the file and its directory."
                )
        except sqlite3.Error as error:
            self.close()
            raise LedgerError(explain(error, path)) from error
        except LedgerError:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Any]:
        """The connection, for statements that do not write."""
        with self._lock:
            try:
                yield self._conn
            except sqlite3.Error as error:
                raise LedgerError(explain(error, self.path)) from error

    def write(self, *, full: bool = False) -> NoReturn:  # noqa: ARG002 - as `Connection` has it
        """Refused.

        Raises:
            LedgerError: Always.
        """
        raise LedgerError(f"The ledger {self.path} was opened to be read, not written.")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._conn is not None:
                self._conn.close()
                self._conn = None

    def _open(self) -> Any:
        uri = f"{Path(self.path).absolute().as_uri()}?mode=ro"
        if self._unused() and self._would_leave_files():
            return self._connect(f"{uri}&immutable=1")
        try:
            return self._connect(uri)
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                raise
            if not self._unused():
                raise LedgerError(
                    f"The ledger {self.path} is open in another program, whose files {self.path}-wal and "
                    f"{self.path}-shm this user cannot read. Read it as its owner, or give read access to them."
                ) from error
        return self._connect(f"{uri}&immutable=1")

    def _connect(self, uri: str) -> Any:
        conn = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            conn.execute("PRAGMA temp_store=MEMORY").fetchall()
            conn.execute("SELECT count(*) FROM sqlite_master").fetchall()  # the file is opened by its first read
        except BaseException:
            conn.close()
            raise
        return conn

    def _unused(self) -> bool:
        """Whether everything is in the file itself: no program has it open, and none left a WAL behind."""
        try:
            return Path(f"{self.path}-wal").stat().st_size == 0
        except FileNotFoundError:
            return True

    def _would_leave_files(self) -> bool:
        """Whether SQLite would leave a -shm of ours beside a file of somebody else, who could then not write.

        Root's are given to the owner by SQLite itself.
        """
        if not hasattr(os, "geteuid") or os.geteuid() == 0:
            return False
        return Path(self.path).stat().st_uid != os.geteuid()
