"""What the ledger could not take yet: kept in memory, loudly, and written by key at the next call or at exit."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_budget_callbacks.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Spool"]

log = logging.getLogger("ai_budget_callbacks")

_TRIES = 1_000
_spools: weakref.WeakSet[Spool] = weakref.WeakSet()


@dataclass(slots=True)
class _Unwritten:
    call_id: str
    write: Callable[[], object]
    tries: int = 0


class Spool:
    """Writes that failed, in order. Safe to share between threads."""

    def __init__(self) -> None:
        self._left: deque[_Unwritten] = deque()
        _spools.add(self)

    def add(self, call_id: str, write: Callable[[], object]) -> None:
        """Keep a write for later; it must do nothing when it has been done."""
        self._left.append(_Unwritten(call_id, write))

    def replay(self) -> None:
        """Write what could not be written before; by key, so that nothing is written twice."""
        for _ in range(len(self._left)):
            try:
                item = self._left.popleft()
            except IndexError:  # another thread took it
                return
            try:
                item.write()
            except LedgerError as error:
                item.tries += 1
                if item.tries < _TRIES:
                    self._left.append(item)
                else:
                    log.error(
                        "Call %s is given up; its hold will be booked as unknown: %s", item.call_id, error.message
                    )
            else:
                log.warning("What could not be written before is on the ledger now: call %s.", item.call_id)


@atexit.register
def _write_what_is_left() -> None:
    """One last try; what fails now is swept as unknown by the next process."""
    for spool in list(_spools):
        spool.replay()
