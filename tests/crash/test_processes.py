"""Threads, tasks, processes, forks and signals on one ledger file, and every state a file can be found in.

Real files, real processes, real permissions: as root the tests of permissions become another user in a child.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from ai_budget_callbacks.cli import main
from ai_budget_callbacks.errors import LedgerError
from ai_budget_callbacks.ledger import NoRoom, Query, open_ledger
from tests.support.books import (
    CALLS,
    NOW,
    USD,
    Gate,
    audit,
    claim,
    everything,
    fork,
    in_child,
    posting,
    raw,
    state,
    wait,
    want,
)

LIMIT = 50
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spend.db"


@pytest.fixture
def ledger(path):
    opened = open_ledger(str(path))
    yield opened
    opened.close()


def fault(work):
    """The message of the LedgerError that `work` must raise."""
    with pytest.raises(LedgerError) as caught:
        work()
    return caught.value.message


def spend(ledger, call, cost=1):
    """One call from reserve to settle."""
    ledger.reserve(claim(call, want(USD, cost), want(CALLS, 1)))
    ledger.settle(posting(call, cost))


def try_to_get_in(ledger, name, tries):
    """How many of these calls a budget for 50 lets in."""
    admitted = 0
    for index in range(tries):
        try:
            ledger.reserve(claim(f"{name}-{index}", want(CALLS, 1, LIMIT)))
            admitted += 1
        except NoRoom:
            pass
    return admitted


# -- many at once


def test_eight_processes_open_a_new_file_at_once(tmp_path):
    for number in range(4):
        path = tmp_path / f"round-{number}.db"
        gate = Gate()

        def opener(name, path=path, gate=gate):
            gate.wait()
            ledger = open_ledger(str(path))
            spend(ledger, name)
            ledger.close()

        pids = [fork(opener, f"p{index}") for index in range(8)]
        gate.open()
        assert [wait(pid) for pid in pids] == [0] * 8, f"round {number}: a process could not open the new ledger"
        ledger = open_ledger(str(path))
        assert (state(ledger, USD), state(ledger, CALLS)) == ((8, 0), (8, 0)), f"round {number}: money was lost"
        assert ledger.verify() == audit(path) == []
        ledger.close()


def test_four_processes_admit_exactly_the_limit(path):
    open_ledger(str(path)).close()
    for _ in range(3):
        gate = Gate()
        reader, writer = os.pipe()

        def worker(name, gate=gate, writer=writer):
            ledger = open_ledger(str(path))
            gate.wait()
            os.write(writer, f"{try_to_get_in(ledger, name, 40)}\n".encode())

        pids = [fork(worker, f"p{index}") for index in range(4)]
        gate.open()
        assert [wait(pid) for pid in pids] == [0] * 4
        os.close(writer)
        with os.fdopen(reader) as answers:
            admitted = [int(line) for line in answers]
        assert sum(admitted) == LIMIT, f"{admitted} calls were admitted under a budget for {LIMIT}"
        ledger = open_ledger(str(path))
        assert state(ledger, CALLS) == (0, LIMIT)
        conn = raw(path)
        for (call,) in conn.execute("SELECT call_id FROM hold").fetchall():
            assert ledger.release(call)
        conn.close()
        assert state(ledger, CALLS) == (0, 0)
        ledger.close()


def test_processes_with_threads_admit_exactly_the_limit(path):
    open_ledger(str(path)).close()
    gate = Gate()
    admitted = path.with_suffix(".count")

    def worker(name):
        ledger = open_ledger(str(path))
        gate.wait()
        threads = []
        for index in range(4):
            threads.append(threading.Thread(target=one, args=(ledger, f"{name}-{index}")))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def one(ledger, name):
        count = try_to_get_in(ledger, name, 15)
        with open(admitted, "a") as out:
            out.write(f"{count}\n")

    pids = [fork(worker, f"p{index}") for index in range(3)]
    gate.open()
    assert [wait(pid) for pid in pids] == [0] * 3
    counts = [int(line) for line in admitted.read_text().split()]
    assert len(counts) == 12
    assert sum(counts) == LIMIT, f"{counts} calls were admitted under a budget for {LIMIT}"


async def test_tasks_admit_exactly_the_limit(ledger):
    async def task(number):
        admitted = 0
        for index in range(20):
            await asyncio.sleep(0)
            if number % 2:
                admitted += try_to_get_in(ledger, f"{number}-{index}", 1)
            else:
                admitted += await asyncio.to_thread(try_to_get_in, ledger, f"{number}-{index}", 1)
        return admitted

    admitted = await asyncio.gather(*map(task, range(8)))
    assert sum(admitted) == LIMIT, f"{admitted} calls were admitted under a budget for {LIMIT}"
    assert state(ledger, CALLS) == (0, LIMIT)


def run_threads(count, work):
    """Run `work(number)` in threads that start together; returns what went wrong in them."""
    start = threading.Barrier(count)
    wrong = []

    def run(number):
        start.wait()
        try:
            work(number)
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_the_first_use_of_a_ledger_from_fifty_threads(ledger):
    assert run_threads(50, lambda number: spend(ledger, f"t{number}")) == []
    assert (state(ledger, USD), state(ledger, CALLS)) == ((50, 0), (50, 0)), "money of a thread was lost"


def test_thirty_threads_each_open_the_same_new_file(path):
    def work(number):
        ledger = open_ledger(str(path))
        spend(ledger, f"t{number}")
        ledger.close()

    assert run_threads(30, work) == []
    assert audit(path) == []
    ledger = open_ledger(str(path))
    assert state(ledger, USD) == (30, 0), "money of a thread was lost"
    ledger.close()


# -- forks


def test_a_child_and_its_parent_both_write(path, ledger):
    spend(ledger, "before")
    ledger.reserve(claim("open", want(USD, 5)))
    assert wait(fork(spend, ledger, "child")) == 0
    spend(ledger, "parent")
    ledger.settle(posting("open", 5))
    assert [entry.call_id for entry in everything(ledger)] == ["before", "child", "parent", "open"]
    assert state(ledger, USD) == (8, 0)
    assert audit(path) == []


def test_the_first_use_after_a_fork_from_fifty_threads(path, ledger):
    spend(ledger, "before")
    assert in_child(lambda: run_threads(50, lambda number: spend(ledger, f"t{number}"))) == []
    assert state(ledger, USD) == (51, 0), "money of a thread was lost"
    assert audit(path) == []


def test_a_fork_while_another_thread_is_in_a_transaction(path, ledger):
    acknowledged, stop = [], threading.Event()

    def parent():
        number = 0
        while not stop.is_set():
            number += 1
            spend(ledger, f"parent-{number}")
            acknowledged.append(f"parent-{number}")

    def child(name):
        for index in range(5):
            spend(ledger, f"{name}-{index}")

    thread = threading.Thread(target=parent)
    thread.start()
    pids = []
    for index in range(15):
        time.sleep(0.003)
        pids.append(fork(child, f"child-{index}"))
    codes = [wait(pid) for pid in pids]
    stop.set()
    thread.join()
    assert codes == [0] * 15
    acknowledged += [f"child-{index}-{number}" for index in range(15) for number in range(5)]
    booked = [entry.call_id for entry in everything(ledger)]
    assert sorted(booked) == sorted(acknowledged), "settles that were acknowledged are not in the books"
    assert state(ledger, USD) == (len(acknowledged), 0)
    assert audit(path) == []


PROGRAM = """
import os, sys, time
from ai_budget_callbacks.ledger import open_ledger
from tests.support.books import CALLS, USD, claim, posting, want

def spend(call):
    ledger.reserve(claim(call, want(USD, 1), want(CALLS, 1)))
    ledger.settle(posting(call, 1))

path = sys.argv[1]
ledger = open_ledger(path)
"""


def program(code, path):
    """Run a program of its own, with the interpreter's own start and end."""
    text = PROGRAM + textwrap.dedent(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(ROOT)])}
    subprocess.run([sys.executable, "-c", text, str(path)], check=True, cwd=path.parent, env=env, timeout=30)


@pytest.mark.parametrize("end", ["ledger.close()", "sys.exit()"])
def test_a_child_outlives_the_parent_whose_ledger_it_inherited(path, end):
    """A daemon. The last opener that SQLite knows of deletes the WAL; the child must not be writing into it."""
    acks = path.with_suffix(".ack")
    code = f"""
        spend("parent")
        used, parent_is_done = os.pipe(), os.pipe()
        if not os.fork():
            os.close(parent_is_done[1])
            spend("child-1")
            os.write(used[1], b"x")
            os.read(parent_is_done[0], 1)
            spend("child-2")
            open(path.replace(".db", ".ack"), "w").write("child-2")
            os._exit(0)
        os.read(used[0], 1)
        {end}
        os.close(parent_is_done[1])
        os.wait()
        """
    program(code, path)
    deadline = time.monotonic() + 10
    while not acks.exists() or not acks.read_text():
        assert time.monotonic() < deadline, "the child never finished"
        time.sleep(0.01)
    ledger = open_ledger(str(path))
    booked = [entry.call_id for entry in everything(ledger)]
    assert booked == ["parent", "child-1", "child-2"], "a settle acknowledged in the child is not in the books"
    assert audit(path) == []
    ledger.close()


def test_a_forked_child_that_ends_like_any_program(path):
    """Through the interpreter's own shutdown, which destroys what the child inherited."""
    program(
        """
        spend("before")
        for number in range(5):
            pid = os.fork()
            if not pid:
                spend(f"child-{number}")
                sys.exit()
            spend(f"beside-{number}")
            assert os.waitpid(pid, 0)[1] == 0
            spend(f"after-{number}")
        """,
        path,
    )
    assert audit(path) == []
    ledger = open_ledger(str(path))
    assert len(everything(ledger)) == 16, "settles of a child or its parent are missing"
    assert state(ledger, USD) == (16, 0)
    ledger.close()


def test_forks_while_other_ledgers_come_and_go(path, ledger):
    """The hooks around a fork see the ledgers of the moment; none may be left locked or unlocked twice."""
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            for other in [open_ledger(":memory:") for _ in range(3)]:
                other.settle(posting("x", 1))
                other.close()

    def program():
        complaints = []
        sys.unraisablehook = lambda args: complaints.append(repr(args.exc_value))
        threads = [threading.Thread(target=churn) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(40):
            time.sleep(0.002)
            if wait(fork(lambda: None)) != 0:
                complaints.append("a child failed")
            spend(ledger, f"c{number}")
        stop.set()
        for thread in threads:
            thread.join(10)
        return complaints[:3]

    assert in_child(program) == []
    assert state(ledger, USD) == (40, 0)


def test_a_child_does_not_begin_a_new_book_where_the_file_was_deleted(path, ledger):
    spend(ledger, "before")

    def child():
        for name in (path, f"{path}-wal", f"{path}-shm"):
            Path(name).unlink(missing_ok=True)
        try:
            ledger.reserve(claim("a", want(USD, 1, 1)))
        except LedgerError as error:
            return error.message
        return "admitted against an empty book"

    assert in_child(child) == (
        f"The ledger {path} was deleted or replaced while it was open. Nothing was written to the old file. "
        "Restore it, or restart to begin a new one."
    )


def test_an_orphan_that_nobody_has_waited_for_is_dead(path, ledger):
    """A killed worker stays in the process table as a zombie until its parent looks; its money must not wait."""
    reader, writer = os.pipe()

    def worker():
        ledger.reserve(claim("orphan", want(USD, 7)))
        os.write(writer, b"x")
        time.sleep(60)

    pid = fork(worker)
    os.read(reader, 1)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    swept = ledger.sweep(NOW)
    wait(pid)
    assert [entry.call_id for entry in swept] == ["orphan"], "money of a killed worker stays held until it expires"


def test_the_holds_of_a_living_process_are_left_alone(path, ledger):
    reader, writer = os.pipe()
    done = Gate()

    def worker():
        ledger.reserve(claim("alive", want(USD, 7)))
        os.write(writer, b"x")
        done.wait()

    pid = fork(worker)
    os.read(reader, 1)
    assert ledger.sweep(NOW) == [], "a call in flight in another process was given up as lost"
    done.open()
    assert wait(pid) == 0
    assert [entry.call_id for entry in ledger.sweep(NOW)] == ["alive"]


# -- signals


def test_ctrl_c_while_waiting_for_a_locked_ledger_leaves_it_usable(path):
    open_ledger(str(path)).close()

    def holder(waiting):
        conn = raw(path)
        conn.execute("BEGIN IMMEDIATE")
        os.write(waiting, b"x")
        time.sleep(0.3)
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.3)
        conn.execute("COMMIT")

    def program():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ledger = open_ledger(str(path))
        reader, writer = os.pipe()
        pid = fork(holder, writer)
        os.read(reader, 1)
        interrupted = False
        try:
            spend(ledger, "first")
        except KeyboardInterrupt:
            interrupted = True
        wait(pid)
        try:
            spend(ledger, "second")
        except LedgerError as error:
            return [interrupted, error.message]
        conn = raw(path, timeout=0.2)
        conn.execute("BEGIN IMMEDIATE")  # nobody else may be locked out either
        return [interrupted, "usable"]

    assert in_child(program) == [True, "usable"]
    assert audit(path) == []


def test_ctrl_c_at_any_moment_leaves_the_books_exact(path):
    """80 interrupts at random moments of the loop; what was acknowledged is there and the ledger goes on."""
    open_ledger(str(path)).close()

    def storm(target):
        for _ in range(80):
            time.sleep(0.004)
            os.kill(target, signal.SIGINT)

    def program():
        ledger = open_ledger(str(path))
        acknowledged, interrupts, number, inside = [], 0, 0, False

        def interrupt(*_):
            nonlocal interrupts, inside
            if inside:  # only while the ledger works: the loop around it is the test's own
                interrupts, inside = interrupts + 1, False
                raise KeyboardInterrupt

        me = os.getpid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        pid = fork(storm, me)
        signal.signal(signal.SIGINT, interrupt)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            number += 1
            try:
                inside = True
                spend(ledger, f"c{number}")
                inside = False
                acknowledged.append(f"c{number}")
            except KeyboardInterrupt:
                continue
            except LedgerError as error:
                return [interrupts, error.message]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        booked = {entry.call_id for entry in everything(ledger)}
        others = run_threads(2, lambda index: spend(ledger, f"thread-{index}"))  # no lock was left behind
        return [interrupts, sorted(set(acknowledged) - booked) + others + ledger.verify()]

    interrupts, wrong = in_child(_shielded(program))
    assert interrupts > 20
    assert wrong == []
    assert audit(path) == []


def _shielded(program):
    """Interrupts that land outside the loop's own handler must not end the program."""

    def run():
        while True:
            try:
                return program()
            except KeyboardInterrupt:
                continue

    return run


# -- files in every state


def test_a_new_ledger_and_everything_beside_it_is_private(tmp_path):
    def work():
        os.umask(0)
        path = tmp_path / "deep" / "er" / "spend.db"
        ledger = open_ledger(str(path))
        spend(ledger, "a")
        return {name.name: oct(stat.S_IMODE(name.stat().st_mode)) for name in path.parent.iterdir()}

    assert in_child(work) == {
        name: "0o600" for name in ("spend.db", "spend.db-wal", "spend.db-shm", "spend.db.lock")
    }, "others on this machine can read what was spent"


def test_a_clean_close_leaves_one_file_with_everything_in_it(path):
    ledger = open_ledger(str(path))
    spend(ledger, "a")
    ledger.close()
    assert not Path(f"{path}-wal").exists()
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    assert audit(copy) == []
    again = open_ledger(f"sqlite:///{copy}")
    assert [entry.call_id for entry in everything(again)] == ["a"]
    again.close()


def test_a_directory_is_no_ledger(tmp_path):
    assert fault(lambda: open_ledger(str(tmp_path))) == (
        f"The ledger path {tmp_path} is a directory. Give a file, for example {tmp_path}/spend.db."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_parent_is_created(tmp_path):
    path = tmp_path / "a" / "b" / "spend.db"
    ledger = open_ledger(str(path))
    spend(ledger, "a")
    ledger.close()
    assert audit(path) == []


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "spend.db"
    message = fault(lambda: open_ledger(str(path)))
    assert message.startswith(f"The ledger {path} cannot be ")
    assert "Not a directory" in message
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def public_folder():
    """A folder another user can reach, with a ledger in it that spent something."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        ledger = open_ledger(str(folder / "spend.db"))
        spend(ledger, "a")
        ledger.close()
        yield folder


def as_another_user(folder, work):
    """Run `work` where permissions count: as the owner of the folder, who is not root."""

    def run():
        if os.geteuid() == 0:
            for name in (folder, *folder.iterdir()):
                os.chown(name, 65534, 65534)
            os.setgid(65534)
            os.setuid(65534)
        return work()

    return in_child(run)


def opened_with(path):
    try:
        open_ledger(str(path))
    except LedgerError as error:
        return error.message
    return "opened"


READ_ONLY = (
    "The ledger {} cannot be used: it, or its directory, is read-only for this user. WAL also needs a writable "
    "directory (SQLITE_READONLY: attempt to write a readonly database)."
)


def test_a_read_only_file(public_folder):
    path = public_folder / "spend.db"
    path.chmod(0o400)
    before = path.read_bytes()
    assert as_another_user(public_folder, lambda: opened_with(path)) == READ_ONLY.format(path)
    assert path.read_bytes() == before


def test_a_read_only_directory_with_a_ledger(public_folder):
    path = public_folder / "spend.db"
    Path(f"{path}.lock").unlink()
    public_folder.chmod(0o555)
    assert as_another_user(public_folder, lambda: opened_with(path)) == (
        f"The ledger {path} cannot be written: {path}.lock: Permission denied. Its directory must be writable "
        "by this user; `ai-budget report` and the others still read it."
    )


HOLDS_OPEN = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1])
print(*conn.execute("SELECT count(*) FROM entry").fetchone(), flush=True)
sys.stdin.read()
"""
READING = ("report", "runs", "budgets", "status", "verify", "show r1")


def told(path):
    """What every command that reads says of a ledger: exit code and output."""
    answers = {}
    for command in READING:
        result = CliRunner().invoke(main, [*command.split(), "--ledger", str(path)])
        answers[command] = [result.exit_code, re.sub("size_bytes.*", "", result.output)]
    return answers


@pytest.mark.parametrize("whose", ["the owner's", "somebody else's"])
@pytest.mark.parametrize("folder_mode", [0o555, 0o755], ids=oct)
@pytest.mark.parametrize("used", ["closed", "open", "a WAL left by a kill", "an empty WAL left by a reader"])
def test_a_ledger_that_cannot_be_written_is_read_all_the_same(public_folder, folder_mode, used, whose):
    """A subprocess without root's rights, by fork: this interpreter's own files are root's alone."""
    path = public_folder / "spend.db"
    writer = None
    if used != "closed":
        wait(fork(lambda: (spend(open_ledger(str(path)), "b"), os._exit(0))))
    if used == "open":
        writer = subprocess.Popen(
            [sys.executable, "-c", HOLDS_OPEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == "2\n"
    if used == "an empty WAL left by a reader":
        with contextlib.closing(sqlite3.connect(path)) as conn:
            conn.execute("SELECT * FROM entry").fetchall()
        open_ledger(str(path), read_only=True).entries(Query())
        assert Path(f"{path}-wal").stat().st_size == 0
    expected = told(path)  # as root, who may do everything; and all is imported now
    assert [code for code, _ in expected.values()] == [0] * (len(READING) - 1) + [1], expected
    assert expected["verify"][1].startswith(f"{path}: the books add up")
    Path(f"{path}.lock").unlink(missing_ok=True)
    for file in public_folder.iterdir():
        file.chmod(0o444)
    public_folder.chmod(folder_mode)
    before = {file.name: file.read_bytes() for file in public_folder.glob("*db")}

    def read():
        return told(path), sorted(file.name for file in public_folder.iterdir())

    names = sorted(file.name for file in public_folder.iterdir())
    if whose == "the owner's":
        found, left = as_another_user(public_folder, read)
    else:
        found, left = (
            in_child(lambda: (os.setgid(65534), os.setuid(65534), read())[-1]) if os.geteuid() == 0 else read()
        )
    assert found == expected
    assert {file.name: file.read_bytes() for file in public_folder.glob("*db")} == before
    if folder_mode == 0o555 or whose != "the owner's":
        assert left == names, "files were left beside a ledger of somebody else"
    if writer is not None:
        writer.communicate()


def test_a_ledger_another_user_may_not_read(public_folder):
    path = public_folder / "spend.db"
    told(path)
    path.chmod(0)
    found = as_another_user(public_folder, lambda: told(path))
    message = f"The ledger {path} cannot be read by this user. Read it as its owner.\n"
    assert found == dict.fromkeys(READING, [1, message])


def test_a_wal_that_cannot_be_read_is_not_left_out(public_folder):
    """Half of the books would be worse than none."""
    path = public_folder / "spend.db"
    wait(fork(lambda: (spend(open_ledger(str(path)), "b"), os._exit(0))))
    told(path)
    assert Path(f"{path}-wal").stat().st_size
    path.chmod(0o444)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").chmod(0)
    public_folder.chmod(0o555)
    found = as_another_user(public_folder, lambda: told(path))
    assert all(code == 1 and f"whose files {path}-wal and {path}-shm" in said for code, said in found.values()), found


def test_a_ledger_opened_to_be_read_is_not_written(path):
    spend(open_ledger(str(path)), "a")
    ledger = open_ledger(str(path), read_only=True)
    assert fault(lambda: spend(ledger, "b")) == f"The ledger {path} was opened to be read, not written."
    assert [entry.call_id for entry in ledger.entries(Query())] == ["a"]
    ledger.close()


def test_an_older_ledger_is_migrated_before_it_is_read(path):
    open_ledger(str(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("ALTER TABLE entry DROP COLUMN path")
        conn.execute("DELETE FROM _sqlite_migrations WHERE name = 'm003_path'")
        conn.commit()
    assert {code for code, _ in list(told(path).values())[:-1]} == {0}
    with contextlib.closing(sqlite3.connect(path)) as conn:
        assert conn.execute("SELECT count(path) FROM entry").fetchone() == (0,)


@pytest.mark.parametrize(("where", "level"), [("spend.db", "INFO"), ("a/b/spend.db", "WARNING")])
def test_a_new_ledger_is_said(tmp_path, caplog, where, level):
    caplog.set_level("INFO", logger="ai_budget_callbacks")
    path = tmp_path / where
    for _ in range(2):
        open_ledger(str(path)).close()
    (record,) = (record for record in caplog.records if record.name == "ai_budget_callbacks")
    assert record.levelname == level
    assert record.message.startswith(f"New ledger created at {path}")


def test_a_read_only_directory_without_a_ledger(public_folder):
    path = public_folder / "new.db"
    public_folder.chmod(0o555)
    assert as_another_user(public_folder, lambda: opened_with(path)) == (
        f"The ledger {path} cannot be created: Permission denied. Its directory is made where it is "
        "missing; this user must be allowed to write there."
    )


def test_a_file_that_is_no_database_is_left_as_it_is(path):
    content = b"Dear diary, today I spent " * 500
    path.write_bytes(content)
    assert fault(lambda: open_ledger(str(path))) == (
        f"The ledger {path} cannot be used: it is not a SQLite database. It was left as it is; give another path or "
        "restore a backup (SQLITE_NOTADB: file is not a database)."
    )
    assert path.read_bytes() == content
    assert not Path(f"{path}-wal").exists()


def test_a_database_of_another_program_is_left_as_it_is(path):
    conn = raw(path)
    conn.execute("CREATE TABLE customers(name TEXT)")
    conn.close()
    content = path.read_bytes()
    assert str(path) in fault(lambda: open_ledger(str(path)))
    assert path.read_bytes() == content, "our tables were put into somebody else's database"


def test_an_empty_file_is_a_new_ledger(path):
    path.touch(mode=0o600)
    ledger = open_ledger(str(path))
    spend(ledger, "a")
    ledger.close()
    assert audit(path) == []


DAMAGED = (
    "The ledger {} cannot be used: it is damaged. Stop writing, restore a backup or run sqlite3 .recover; "
    "`ai-budget verify` names what is wrong (SQLITE_CORRUPT: database disk image is malformed)."
)


def used_ledger(path, calls=200):
    ledger = open_ledger(str(path))
    for index in range(calls):
        spend(ledger, f"c{index}")
    ledger.close()


def test_a_damaged_page(path):
    used_ledger(path)
    conn = raw(path)
    (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entry'").fetchone()
    (size,) = conn.execute("PRAGMA page_size").fetchone()
    conn.close()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    damaged = path.read_bytes()
    ledger = open_ledger(str(path))
    balances = [(balance.spent, balance.held) for balance in ledger.balances()]
    assert fault(lambda: ledger.settle(posting("after", 1), keys=[USD])) == DAMAGED.format(path)
    assert fault(lambda: everything(ledger)) == DAMAGED.format(path)
    assert [(balance.spent, balance.held) for balance in ledger.balances()] == balances, "a failed settle moved money"
    ledger.close()
    assert path.read_bytes()[size:] == damaged[size:], "a damaged file was written to"


def test_a_truncated_file(path):
    used_ledger(path)
    os.truncate(path, path.stat().st_size // 2)
    assert fault(lambda: everything(open_ledger(str(path)))) == DAMAGED.format(path)


def test_a_ledger_of_newer_code(path):
    used_ledger(path, 1)
    conn = raw(path)
    conn.execute("INSERT INTO _sqlite_migrations(migration_set, name, applied_at) VALUES(?, ?, ?)",
                 ("ai_budget_callbacks", "m999_future", "2099-01-01"))  # fmt: skip
    conn.close()
    assert fault(lambda: open_ledger(str(path))) == (
        f"The ledger {path} was written by a newer ai-budget-callbacks (it has m999_future). "
        "Upgrade the package, or give another path; nothing was changed."
    )


GONE = (
    "The ledger {} was deleted or replaced while it was open. Nothing was written to the old file. "
    "Restore it, or restart to begin a new one."
)


def test_a_file_deleted_while_open(path, ledger):
    spend(ledger, "before")
    path.unlink()
    for use in (
        lambda: ledger.reserve(claim("a", want(USD, 1, 100))),
        lambda: ledger.settle(posting("a", 1), keys=[USD]),
        lambda: ledger.release("a"),
        lambda: ledger.sweep(NOW),
        lambda: everything(ledger),
        ledger.verify,
    ):
        assert fault(use) == GONE.format(path)
    assert not path.exists(), "an empty book took the place of the deleted one"


def test_a_file_replaced_while_open(path, ledger):
    spend(ledger, "before")
    other = path.with_name("other.db")
    open_ledger(str(other)).close()
    content = other.read_bytes()
    os.replace(other, path)
    assert fault(lambda: spend(ledger, "a")) == GONE.format(path)
    assert path.read_bytes() == content, "money was booked in a file that was put in the ledger's place"


def test_a_file_put_back_is_used_again(path, ledger):
    spend(ledger, "before")
    path.rename(path.with_name("aside.db"))
    fault(lambda: spend(ledger, "a"))
    path.with_name("aside.db").rename(path)
    spend(ledger, "b")
    assert [entry.call_id for entry in everything(ledger)] == ["before", "b"]


def test_a_locked_ledger_is_waited_for(path, ledger):
    reader, writer = os.pipe()

    def holder():
        conn = raw(path)
        conn.execute("BEGIN IMMEDIATE")
        os.write(writer, b"x")
        time.sleep(1)
        conn.execute("COMMIT")

    pid = fork(holder)
    os.read(reader, 1)
    started = time.monotonic()
    spend(ledger, "a")
    waited = time.monotonic() - started
    assert wait(pid) == 0
    assert 0.8 < waited < 5, f"a ledger locked for 1 s was waited for {waited:.2f} s"
    assert state(ledger, USD) == (1, 0)


def test_reads_do_not_wait_for_a_writer(path, ledger):
    spend(ledger, "a")
    conn = raw(path)
    conn.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert len(everything(ledger)) == 1
    assert time.monotonic() - started < 1
    conn.execute("ROLLBACK")
    conn.close()


def test_two_ledgers_of_one_process_on_one_file(path, ledger):
    other = open_ledger(str(path))
    for index in range(20):
        spend(ledger if index % 2 else other, f"c{index}")
    other.close()
    spend(ledger, "after the other closed")
    assert state(ledger, USD) == (21, 0)
    ledger.close()
    assert audit(path) == []


def test_the_clock_set_back_gives_up_no_call(path, ledger):
    ahead = datetime.now(UTC) + timedelta(hours=1)
    ledger.reserve(claim("a", want(USD, 7), expires=ahead))
    assert ledger.sweep(ahead - timedelta(days=400)) == []
    assert state(ledger, USD) == (0, 7)


def test_an_owner_is_written_in_words_a_person_can_read(path, ledger):
    ledger.reserve(claim("a", want(USD, 7)))
    conn = raw(path)
    ((owner, amounts),) = conn.execute("SELECT owner, amounts FROM open_holds").fetchall()
    conn.close()
    assert owner.split("|")[2] == str(os.getpid())
    assert json.loads(amounts) == {"1": 7}
