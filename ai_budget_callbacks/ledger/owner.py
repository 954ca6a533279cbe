"""Who holds a hold: this process, named so that another process on this host can tell that it died."""

from __future__ import annotations

import os
import socket
from functools import lru_cache

import psutil

__all__ = ["is_dead", "me"]


@lru_cache(maxsize=4)
def _of(pid: int) -> str:
    started = int(psutil.Process(pid).create_time() * 1000)
    return f"{socket.gethostname()}|{int(psutil.boot_time())}|{pid}|{started}"


def me() -> str:
    """`host|boot time|pid|process start`, of the calling process (also after a fork)."""
    return _of(os.getpid())


def is_dead(owner: str) -> bool:
    """Whether an owner certainly no longer runs. A process of another host is never called dead: its holds expire."""
    host, boot, pid, started = owner.rsplit("|", 3)
    if host != socket.gethostname():
        return False
    if abs(int(boot) - int(psutil.boot_time())) > 2:  # noqa: PLR2004 - boot time is derived and may drift by a second
        return True
    try:
        process = psutil.Process(int(pid))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True  # dead; its parent has not looked yet
        return abs(int(process.create_time() * 1000) - int(started)) > 2_000  # noqa: PLR2004 - same
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
