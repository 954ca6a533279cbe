"""A lock between processes on an open file, without waiting.

POSIX: the standard library's `fcntl.flock` (2 µs; portalocker's layers over it cost 18, on the path of every call).
Windows: portalocker. docs/decisions/0002.
"""

from __future__ import annotations

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["try_lock", "unlock"]


def try_lock(file: IO[Any]) -> bool:
    """Take the lock if it is free. False when another process (or another handle of this one) has it."""
    if fcntl is not None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    import portalocker

    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.exceptions.LockException:
        return False
    return True


def unlock(file: IO[Any]) -> None:
    """Give the lock back."""
    if fcntl is not None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
    else:
        import portalocker

        portalocker.unlock(file)
