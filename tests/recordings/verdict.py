"""What the ledger says of a play beside what the index says was billed, and the list of exceptions."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.flow.kit import Books, read_back
from tests.recordings.exchange import Framework
from tests.recordings.player import Play, Result, key
from tests.support.books import audit
from tests.support.corpus import billed, folded

__all__ = ["EXCEPTIONS", "Exceptions", "Verdict", "complaints", "judge", "unsettled"]

# flags that say the framework dropped something the price may hang on; an entry has exactly those that are listed
LOST = {
    "lifetimes_unseen",
    "searches_counted",
    "compaction_unseen",
    "caches_unseen",
    "billed_units_unseen",
    "cost_unseen",
    "modalities_unseen",
}
_NOT_SEEN = {"estimated", "unknown", "unpriced"}


@dataclass(frozen=True)
class Verdict:
    """One call of a play.

    Attributes:
        name: (client, call) as in the list.
        differs: None when the ledger agrees with the index; else the status, or the buckets, that it shows.
        says: Why it differs, in words.
        status: Of the entry.
        lost: Flags on the entry that say what the framework lost.
        raised: An exception reached the caller though the provider answered 200.
    """

    name: tuple[str, str]
    differs: str | dict[str, int] | None
    says: str
    status: str
    lost: frozenset[str]
    raised: str | None


class Exceptions:
    """exceptions.toml by (client, call)."""

    def __init__(self, path: Path) -> None:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        self.differs: dict[tuple[str, str], Any] = {}
        self.reasons: dict[tuple[str, str], str] = {}
        self.lost: dict[tuple[str, str], frozenset[str]] = {}
        self.raises: dict[tuple[str, str], str] = {}
        self.status: dict[tuple[str, str], str] = {}
        for group in found["differs"]:
            for call, value in group["calls"].items():
                name = (group["client"], call)
                assert name not in self.differs, f"{name} is listed twice"
                assert group["reason"].strip(), f"{name} has no reason"
                self.differs[name] = value
                self.reasons[name] = group["reason"]
                self._more(name, group)
        for group in found["lost"]:
            for call in group["calls"]:
                self.reasons.setdefault((group["client"], call), group["reason"])
                self._more((group["client"], call), group)

    def _more(self, name: tuple[str, str], group: dict[str, Any]) -> None:
        self.lost[name] = self.lost.get(name, frozenset()) | frozenset(group.get("flags", ())) & LOST
        if "raises" in group:
            self.raises[name] = group["raises"]
        if "status" in group:
            self.status[name] = group["status"]

    def names(self, framework: Framework) -> set[tuple[str, str]]:
        """What is listed for one framework's clients."""
        return {name for name in self.reasons if name[0] in framework.clients}


EXCEPTIONS = Exceptions(Path(__file__).with_name("exceptions.toml"))


def unsettled(play: Play, result: Result, path: Path) -> list[str]:
    """What must hold of every play, exceptions or not."""
    books = read_back(path)
    answered = [e.call for e, client in zip(play.exchanges, play.clients, strict=True) if client]
    wrong = audit(path)
    if result.sent != len(answered):
        wrong.append(f"{result.sent} requests were sent, {len(answered)} are recorded")
    if books.holds:
        wrong.append(f"{len(books.holds)} holds are still open")
    expected = sum(call["status"] < 400 for call in answered)
    if len(books.entries) != expected:
        wrong.append(f"{expected} answers left {len(books.entries)} entries: {books.statuses}")
    for row in books.entries:
        if row["status"] in {"priced", "reported"} and not row["cost_pico"]:
            wrong.append(f"a {row['status']} entry of {row['model']} costs nothing")
        if row["status"] == "free" and not all(call.get("reported_cost") == 0 for call in answered):
            wrong.append(f"a paid answer of {row['model']} is free: {row['reason']}")
    return wrong


def complaints(play: Play, result: Result, path: Path) -> list[str]:
    """What is wrong after a play, the listed exceptions set aside; one that does not hold any more is wrong too."""
    wrong = unsettled(play, result, path)
    for verdict in judge(play, result, path):
        listed = EXCEPTIONS.differs.get(verdict.name)
        if listed is not None and verdict.differs is None:
            wrong.append(f"{verdict.name} agrees now; drop it from exceptions.toml: {EXCEPTIONS.reasons[verdict.name]}")
        elif verdict.differs not in (listed if isinstance(listed, list) else [listed]):
            wrong.append(f"{verdict.name}: {verdict.says}; listed: {listed}")
        if verdict.status != EXCEPTIONS.status.get(verdict.name, verdict.status):
            wrong.append(f"{verdict.name}: part of its bill is missing, and it is booked as {verdict.status}")
        lost = EXCEPTIONS.lost.get(verdict.name, frozenset())
        # an agent's own question has no attachments, whatever the recorded one had
        if not (verdict.lost == lost or (play.way == "agent" and verdict.lost == lost - {"modalities_unseen"})):
            wrong.append(f"{verdict.name}: the entry says {sorted(verdict.lost)} was lost; listed: {sorted(lost)}")
        if verdict.raised != EXCEPTIONS.raises.get(verdict.name) and play.way == "single":
            wrong.append(f"{verdict.name}: raised {verdict.raised} after a paid answer")
    return wrong


def judge(play: Play, result: Result, path: Path) -> list[Verdict]:
    """One verdict for each call that was answered."""
    pairs = zip(play.exchanges, play.clients, strict=True)
    numbered = [(number, exchange.call, client) for number, (exchange, client) in enumerate(pairs) if client]
    answered = [item for item in numbered if item[1]["status"] < 400 and "ambiguous" not in item[1]["features"]]
    rows = _rows(play, read_back(path), [number for number, call, _ in numbered if call["status"] < 400])
    return [
        _verdict((client, key(play.file, number)), call, rows[number], result.raised.get(number))
        for number, call, client in answered
        if number in rows  # `unsettled` tells of entries that are missing
    ]


def _rows(play: Play, books: Books, numbers: list[int]) -> dict[int, dict[str, Any]]:
    """Entries by call: single calls carry their number where the framework has a place for it; others stand in order."""
    marked = [(row["metadata"] or {}).get("recorded", "") for row in books.entries]
    if play.way == "agent" or not all(marked):
        return dict(zip(numbers, books.entries, strict=False))
    return {int(number): row for number, row in zip(marked, books.entries, strict=True)}


def _verdict(name: tuple[str, str], call: dict[str, Any], row: dict[str, Any], raised: str | None) -> Verdict:
    flags = frozenset(row["flags"] or ())
    counted = row["reader"] in {None, "counted"} or "partly_counted" in flags
    usage = row["usage"] or {}
    found = folded({name: count for name, count in usage.items() if type(count) is int}, call["provider"])
    expected = call["expected_usage"] and billed(call)
    if expected is not None:  # what an advisor consumed stands under its model
        found |= {name: folded(count, "") for name, count in usage.items() if isinstance(count, dict)}
        expected |= _advised(call) if "other_model" not in flags else {}
    differs: str | dict[str, int] | None = None
    says = ""
    if expected is None:
        if not counted or row["status"] not in _NOT_SEEN:
            differs, says = found, f"no usage was reported, and {found} is booked as {row['status']}"
    elif counted:
        differs, says = row["status"], f"billed {expected}; {row['status']}, counted by us: {found}, {row['reason']}"
    elif found != expected:
        differs, says = found, f"billed {expected}, booked {found}"
    elif (stated := _stated(call, row, flags)) is not None:
        differs, says = row["status"], stated
    if raised and differs is None:
        differs, says = row["status"], f"raised {raised}"
    return Verdict(name, differs, says, row["status"], flags & LOST, raised)


def _advised(call: dict[str, Any]) -> dict[str, Any]:
    return {
        extra["model"]: {name: count for name, count in extra["usage"].items() if count and name != "total"}
        for extra in call.get("extra_usage") or ()
        if extra["kind"] == "advisor_message"
    }


def _stated(call: dict[str, Any], row: dict[str, Any], flags: frozenset[str]) -> str | None:
    """A cost that the provider stated and the entry does not have, though the framework kept it."""
    cost = call.get("reported_cost")
    if not cost or "cost_unseen" in flags:
        return None
    booked = Decimal(row["cost_usd"] or 0)
    if row["status"] == "reported" and 0 <= booked - Decimal(repr(cost)) < Decimal("1e-12"):
        return None
    return f"the provider states ${cost}; {row['status']}, ${booked}"
