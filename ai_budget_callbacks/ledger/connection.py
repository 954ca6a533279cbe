"""One SQLite connection per process: its lock, its transactions, forks, and faults turned into words.

Facts behind it (facts/ledger.md, measured): a shared connection without a lock loses acknowledged rows; only
`BEGIN IMMEDIATE` waits for a writer; a child that uses an inherited connection loses rows silently; a deleted
file keeps accepting writes. BEGIN, COMMIT and ROLLBACK stand here and nowhere else.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # the same module sqlite-utils uses, which may be pysqlite3

from ai_budget_callbacks.errors import LedgerError
from ai_budget_callbacks.ledger import filelock
from ai_budget_callbacks.locks import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Connection", "explain", "sqlite3"]

log = logging.getLogger("ai_budget_callbacks")

MIN_SQLITE = (3, 38, 0)  # json_each on by default, UPDATE … FROM, RETURNING, STRICT
BUSY_TIMEOUT_S = 30.0
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA temp_store=MEMORY",  # RETURNING and json_each build ephemeral tables: 2.4x slower without it
    "PRAGMA cache_size=-16384",  # 16 MiB: the inner pages of a large ledger stay in memory
    "PRAGMA journal_size_limit=67108864",
)

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_connections_lock = ForkSafeLock()


class Connection:
    """The process's connection to one ledger file.

    Args:
        path: File path or `":memory:"`.
        inspect: Run on a fresh connection before anything is written; raises when the file is not ours.
        prepare: Run once under the file lock on a fresh connection (migrations).
    """

    def __init__(self, path: str, *, inspect: Callable[[Any, str], None], prepare: Callable[[Any], None]) -> None:
        if sqlite3.sqlite_version_info < MIN_SQLITE:
            raise LedgerError(f"SQLite {sqlite3.sqlite_version} is too old; the ledger needs 3.38 or newer.")
        self.path = path
        self.memory = path == ":memory:"
        self.lock = threading.RLock()
        self._inspect = inspect
        self._prepare = prepare
        self._conn: Any = None
        self._lock_file: Any = None
        self._identity: tuple[int, int] | None = None
        self._pid = os.getpid()
        self._closed = False
        self._writing = False
        with self.lock:
            self._open()
        with _connections_lock:
            _connections.add(self)

    @contextmanager
    def write(self, *, full: bool = False) -> Iterator[Any]:
        """One immediate transaction: committed when the block ends, rolled back when it raises.

        Args:
            full: Wait for the disk at commit (`synchronous=FULL`).
        """
        with self.lock:
            if self._writing:
                # a stream that is collected inside our own transaction settles here: it must not touch that one
                raise LedgerError(f"The ledger {self.path} was re-entered inside one of its own transactions.")
            self._writing = True
            try:
                conn = self._current()
                self._lock_out_others()
                try:
                    if full:
                        conn.execute("PRAGMA synchronous=FULL")
                    try:
                        # inside, because Ctrl-C while it waits for a lock arrives after it took it
                        conn.execute("BEGIN IMMEDIATE")
                        yield conn
                        conn.execute("COMMIT")
                    except BaseException:
                        if conn.in_transaction:
                            conn.execute("ROLLBACK")
                        raise
                finally:
                    if full:
                        conn.execute("PRAGMA synchronous=NORMAL")
                    self._let_in_others()
            except (sqlite3.Error, OverflowError) as error:
                raise LedgerError(explain(error, self.path)) from error
            finally:
                self._writing = False

    @contextmanager
    def read(self) -> Iterator[Any]:
        """The connection, for statements that do not write."""
        with self.lock, self._errors():
            yield self._current()

    def close(self) -> None:
        """Close the file. Under the file lock, because the last close checkpoints."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            if self._conn is not None and self._pid == os.getpid():
                with suppress(LedgerError), self._file_lock():
                    self._conn.close()
            if self._lock_file is not None:
                self._lock_file.close()
            self._conn = self._lock_file = None

    # -- opening

    def _open(self) -> None:
        with self._errors():
            if not self.memory:
                self._make_file()
            # autocommit (isolation_level=None): nothing but write() opens a transaction
            conn = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._pid = os.getpid()
            try:
                with self._file_lock():
                    self._inspect(conn, self.path)
                    for pragma in _PRAGMAS:
                        conn.execute(pragma).fetchall()
                    self._prepare(conn)
            except BaseException:
                conn.close()
                raise
            self._conn = conn
            self._identity = self._stat()

    def _make_file(self) -> None:
        path = Path(self.path)
        if path.is_dir():
            raise LedgerError(
                f"The ledger path {self.path} is a directory. Give a file, for example {path / 'spend.db'}."
            )
        try:
            anew = not path.parent.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            # Only ever create: opening and closing an existing file would drop the POSIX locks of any other
            # connection this process has on it (sqlite.org/howtocorrupt 2.2).
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            # a directory that was not there may be a misspelt one, whose balances all begin at 0
            log.log(
                logging.WARNING if anew else logging.INFO,
                "New ledger created at %s%s.",
                path.absolute(),
                ", and its directory with it" if anew else "",
            )
        except FileExistsError:
            pass
        except OSError as error:
            raise LedgerError(
                f"The ledger {self.path} cannot be created: {error.strerror}. "
                "Its directory is made where it is missing; this user must be allowed to write there."
            ) from error
        try:
            self._lock_file = open(f"{self.path}.lock", "a", encoding="utf-8", opener=_private)  # noqa: SIM115 - lives as long as the connection
        except OSError as error:
            raise LedgerError(
                f"The ledger {self.path} cannot be written: {self.path}.lock: {error.strerror}. "
                "Its directory must be writable by this user; `ai-budget report` and the others still read it."
            ) from error

    # -- use

    def _current(self) -> Any:
        if self._closed:
            raise LedgerError(f"The ledger {self.path} was closed; make a new Meter or handler.")
        gone = self._identity is not None and self._stat() != self._identity
        if not gone and (self._conn is None or self._pid != os.getpid()):
            self._open()
        if gone:
            raise LedgerError(
                f"The ledger {self.path} was deleted or replaced while it was open. Nothing was written to the old "
                "file. Restore it, or restart to begin a new one."
            )
        return self._conn

    def _stat(self) -> tuple[int, int] | None:
        if self.memory:
            return None
        try:
            found = os.stat(self.path)  # noqa: PTH116 - 3 µs less than Path.stat, on the hot path
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _lock_out_others(self) -> None:
        """Take the lock between processes that stands in front of every write.

        It is fairer than SQLite's own sleeping, and it keeps a checkpoint and a commit apart (SQLite's WAL-reset bug
        before 3.51.3, facts/ledger.md 1.4).
        """
        if self._lock_file is None:
            return
        deadline = None
        while not filelock.try_lock(self._lock_file):
            deadline = deadline or time.monotonic() + BUSY_TIMEOUT_S
            if time.monotonic() > deadline:
                raise LedgerError(f"The ledger {self.path} was locked by another process for {BUSY_TIMEOUT_S:.0f} s.")
            time.sleep(random.uniform(0.0002, 0.003))  # noqa: S311 - jitter

    def _let_in_others(self) -> None:
        if self._lock_file is not None:
            filelock.unlock(self._lock_file)

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        self._lock_out_others()
        try:
            yield
        finally:
            self._let_in_others()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            raise LedgerError(explain(error, self.path)) from error

    # -- forks

    def park(self) -> None:
        """Before a fork, under the lock: close the file, so that the child inherits nothing of SQLite.

        A child that opens beside an inherited connection gets none of the kernel's locks (SQLite counts them by
        process), so the parent's last close deletes the WAL the child writes to. Both reopen when needed.
        """
        if self.memory or self._closed or self._conn is None:
            return
        with suppress(LedgerError), self._file_lock():
            self._conn.close()
        self._lock_file.close()
        self._conn = self._lock_file = None

    def start_over(self) -> None:
        """In a forked child: another lock than the one the parent's threads know."""
        self.lock = threading.RLock()
        self._writing = False
        self._pid = os.getpid()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


_frozen: list[Connection] = []  # connections locked for the fork that is under way


def _before_fork() -> None:
    with _connections_lock:
        _frozen[:] = sorted(_connections, key=id)
    for connection in _frozen:
        connection.lock.acquire()  # no fork inside anybody's transaction
        connection.park()


def _after_fork_in_parent() -> None:
    for connection in _frozen:
        connection.lock.release()
    _frozen.clear()


def _after_fork_in_child() -> None:
    for connection in _frozen:
        connection.start_over()
    _frozen.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def explain(error: BaseException, path: str) -> str:
    """A SQLite fault as what happened and what to do (names measured in facts/ledger.md 4)."""
    if isinstance(error, OverflowError):
        return f"An amount is beyond what the ledger {path} can hold (int64; about 9.2 million USD on one balance)."
    name = getattr(error, "sqlite_errorname", "") or ""
    text = str(error)
    hints = {
        "SQLITE_FULL": "its disk is full. Free some space; nothing of this transaction was written",
        "SQLITE_READONLY": "it, or its directory, is read-only for this user. WAL also needs a writable directory",
        "SQLITE_CANTOPEN": "it cannot be opened. It and its directory must be accessible to this user, and for a "
        "writer be writable",
        "SQLITE_NOTADB": "it is not a SQLite database. It was left as it is; give another path or restore a backup",
        "SQLITE_CORRUPT": "it is damaged. Stop writing, restore a backup or run sqlite3 .recover; "
        "`ai-budget verify` names what is wrong",
        "SQLITE_BUSY": f"it was locked by another program for {BUSY_TIMEOUT_S:.0f} s",
        "SQLITE_LOCKED": "it was locked by another statement",
        "SQLITE_IOERR": "reading or writing it failed at the operating system",
    }
    for prefix, hint in hints.items():
        if name.startswith(prefix):
            return f"The ledger {path} cannot be used: {hint} ({name}: {text})."
    if "integer overflow" in text or "cannot store REAL value" in text:
        return f"An amount is beyond what the ledger {path} can hold (int64; about 9.2 million USD on one balance)."
    return f"The ledger {path} cannot be used: {text} ({name or type(error).__name__})."
