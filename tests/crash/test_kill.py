"""`kill -9` before every SQL statement, and again and again among writers: nothing acknowledged is lost, books exact.

The children are forked and killed by the real signal. A statement is counted by SQLite's own trace callback, which an
audit hook of Python puts on every connection the child opens, so the opening and its migrations are kill points too.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ai_budget_callbacks.ledger import open_ledger
from tests.support.books import (
    CALLS,
    HOUR,
    NOW,
    TOKENS,
    USD,
    audit,
    claim,
    everything,
    fork,
    posting,
    raw,
    read_books,
    wait,
    want,
    wrong_in,
)
from tests.support.steps import snapshots, steps


def kill_before(statement):
    """From now on, kill this process before the SQL statement with this number is run. Returns the counter."""
    seen = []

    def trace(text):
        if len(seen) == statement:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(text)

    def hook(event, args):
        if event == "sqlite3.connect/handle":  # not yet usable: the trace is set at the next call of any function

            def attach(*_):
                sys.setprofile(None)
                args[0].set_trace_callback(trace)

            sys.setprofile(attach)

    sys.addaudithook(hook)
    return seen


def script(path, acks, statement, durability):
    """The child: run the steps, acknowledge each; die before the given statement."""
    seen = kill_before(statement)
    ledger = open_ledger(str(path), durability=durability)
    os.write(acks, f"open {len(seen)}\n".encode())
    for name, step in steps(ledger):
        step()
        os.write(acks, f"{name}\n".encode())
    os.write(acks, f"all {len(seen)}\n".encode())


def run_until_killed(path, statement, durability):
    log = path.with_suffix(".acks")
    acks = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    code = wait(fork(script, path, acks, statement, durability))
    os.close(acks)
    return log.read_text().splitlines(), code


def check_after_kill(path, acknowledged, expected, where):
    """The books are those before or after the step that was killed, and what is still held goes to unknown."""
    done = max(0, len(acknowledged) - 1)
    if acknowledged:  # the file is complete: look at it before our own code does
        assert audit(path) == [], where
    after = open_ledger(str(path))
    reader = raw(path)
    books = read_books(reader)
    assert after.verify() == [], where
    assert books in expected[done : done + 2], f"{where}: the books are in no state between two steps"
    swept = after.sweep(NOW + 2 * HOUR)
    orphans = {(call, "unknown") for call in books["holds"]}
    assert {(entry.call_id, entry.status) for entry in swept} == orphans, where
    assert after.open_holds() == 0, f"{where}: money of a dead process stays held"
    assert after.sweep(NOW + 2 * HOUR) == [], where
    assert after.verify() == wrong_in(read_books(reader)) == [], where
    reader.close()
    after.close()


@pytest.fixture
def folder():
    """In memory where there is such a folder: a kill does not care for the disk, and hundreds of fsyncs take long."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("fresh", "durability"),
    [(True, "process"), (False, "process"), (False, "power")],
    ids=["new-file", "every-step", "every-step-power"],
)
def test_kill_before_every_statement(folder, durability, fresh):
    """On a new file the statements that open and migrate it; on an existing one those of every step."""
    expected = snapshots(folder / "expected.db")
    empty, path = folder / "empty.db", folder / "spend.db"
    open_ledger(str(empty)).close()

    def run(statement):
        for leftover in folder.glob("spend.*"):
            leftover.unlink()
        if not fresh:
            shutil.copyfile(empty, path)
        return run_until_killed(path, statement, durability)

    acknowledged, code = run(-1)
    assert code == 0
    assert len(acknowledged) == len(expected) + 1
    opened, total = (int(acknowledged[index].split()[1]) for index in (0, -1))
    points = range(opened) if fresh else range(opened, total)
    assert len(points) >= (40 if fresh else 100), "the trace no longer sees the statements, so nothing would be killed"
    for statement in points:
        acknowledged, code = run(statement)
        where = f"killed before statement {statement}, after {acknowledged[-1:]}"
        assert code == -signal.SIGKILL, where
        check_after_kill(path, acknowledged, expected, where)
    acknowledged, code = run(total)
    assert code == 0
    check_after_kill(path, acknowledged[:-1], expected, "not killed")
    print(f"{len(points)} kill points")


# -- killed again and again

WRITERS, KILLS = 4, 25


def writer(path, acks, name):
    """Reserve, settle, acknowledge, until killed."""
    ledger = open_ledger(str(path))
    ledger.sweep(NOW)
    number = 0
    while True:
        number += 1
        call, cost = f"{name}-{number}", 1 + number % 7
        ledger.reserve(claim(call, want(USD, 7), want(TOKENS, 3), want(CALLS, 1), scopes=(f"writer-{name}",)))
        if number % 5 == 0:
            ledger.release(call)
            continue
        ledger.settle(posting(call, cost, 2))
        os.write(acks, json.dumps([call, cost]).encode() + b"\n")


def test_no_acknowledged_settle_is_lost_when_writers_are_killed(tmp_path):
    path, log = tmp_path / "spend.db", tmp_path / "acks"
    open_ledger(str(path)).close()
    acks = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    chance = random.Random(25)
    born = 0
    running = []
    for _ in range(WRITERS):
        born += 1
        running.append(fork(writer, path, acks, f"w{born}"))
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.01, 0.06))
        victim = running.pop(chance.randrange(WRITERS))
        os.kill(victim, signal.SIGKILL)
        assert wait(victim) == -signal.SIGKILL, "a writer ended before it was killed"
        born += 1
        running.append(fork(writer, path, acks, f"w{born}"))
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL, "a writer ended before it was killed"
    os.close(acks)
    acknowledged = dict(json.loads(line) for line in log.read_text().splitlines())
    assert len(acknowledged) > 200, "the writers did next to nothing"

    assert audit(path) == []
    ledger = open_ledger(str(path))
    ledger.sweep(NOW)
    assert ledger.open_holds() == 0, "money of killed writers stays held"
    entries = everything(ledger)
    booked = {entry.call_id: entry.cost_pico for entry in entries if entry.status == "priced"}
    lost = {call: cost for call, cost in acknowledged.items() if booked.get(call) != cost}
    assert not lost, f"{len(lost)} acknowledged settles are not in the books: {lost}"
    unheard = len(booked) - len(acknowledged)
    assert 0 <= unheard <= KILLS + WRITERS, "more was booked than was ever settled"
    orphans = [entry for entry in entries if entry.status == "unknown"]
    assert len(orphans) <= KILLS + WRITERS
    assert len(entries) == len(booked) + len(orphans)
    spent = {balance.key: (balance.spent, balance.held) for balance in ledger.balances()}
    assert spent == {
        USD: (sum(booked.values()) + 7 * len(orphans), 0),
        TOKENS: (2 * len(booked) + 3 * len(orphans), 0),
        CALLS: (len(entries), 0),
    }
    assert ledger.verify() == audit(path) == []
    ledger.close()
