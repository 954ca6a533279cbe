"""`python -m tests.recordings`: what was played by which client of which framework, and with what outcome."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path

from ai_budget_callbacks import Budget
from tests.recordings.exchange import Framework
from tests.recordings.langchain import LANGCHAIN
from tests.recordings.llama_index import LLAMA_INDEX
from tests.recordings.player import Play, play, plays, unplayable
from tests.recordings.verdict import EXCEPTIONS, Verdict, judge, unsettled

COLUMNS = ("client", "recordings", "agent loops", "calls", "agree", "exceptions", "losses said", "wrong")


def one(item: Play, folder: Path) -> tuple[list[Verdict], list[str]]:
    path = folder / "played.db"
    for old in folder.glob("played.db*"):
        old.unlink()
    handler = item.framework.handler(Budget(calls=1_000), Budget(tokens=10**9), ledger=path)
    try:
        result = play(item, handler)
    finally:
        handler.close()
    return judge(item, result, path), unsettled(item, result, path)


def main() -> int:
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    os.environ["LANGSMITH_TRACING"] = "false"
    with tempfile.TemporaryDirectory(prefix="recordings-") as folder:
        os.environ["AI_BUDGET_LEDGER"] = str(Path(folder) / "default.db")
        return sum(show(framework, Path(folder)) for framework in (LANGCHAIN, LLAMA_INDEX)) > 0


def show(framework: Framework, folder: Path) -> int:
    """Play everything of a framework, print its table, and say how much was wrong."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in plays(framework):
        verdicts, wrong = one(item, folder)
        for client in set(item.clients) - {None}:
            counts[client]["agent loops" if item.way == "agent" else "recordings"] += 1
        counts[item.client.partition("+")[0]]["wrong"] += len(wrong)
        for verdict in verdicts:
            row = counts[verdict.name[0]]
            listed = verdict.name in EXCEPTIONS.differs
            row["calls"] += 1
            row["agree"] += verdict.differs is None
            row["exceptions"] += verdict.differs is not None and listed
            row["losses said"] += bool(verdict.lost)
            row["wrong"] += (verdict.differs is not None) != listed
    total = sum(counts.values(), Counter())
    print(f"\n{framework.name}\n" + " | ".join(COLUMNS))
    for client, row in [*sorted(counts.items()), ("together", total)]:
        print(" | ".join([client, *(str(row[name]) for name in COLUMNS[1:])]))
    show_unplayable(framework)
    return total["wrong"]


def show_unplayable(framework: Framework) -> None:
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in unplayable(framework):
        reasons[reason].append(name)
    print(f"\nnot played: {sum(map(len, reasons.values()))} calls")
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        print(f"  {len(names)} calls: {reason}")
        for name in names:
            print(f"      {name}")


if __name__ == "__main__":
    sys.exit(main())
