"""Who is called dead: a hold of a process that lives must stay, a hold of one that died must be found. Real processes."""

from __future__ import annotations

import os
import socket
import time

import psutil
import pytest

from ai_budget_callbacks.ledger.owner import is_dead, me
from tests.support.books import fork, in_child, wait

HOST, BOOT = socket.gethostname(), int(psutil.boot_time())


def owner(pid=None, *, host=HOST, boot=0, started=0):
    """A process of this host, by default this one, with a boot time (s) and a start (ms) that much off."""
    found = psutil.Process(pid)
    return f"{host}|{BOOT + boot}|{found.pid}|{int(found.create_time() * 1000) + started}"


def test_this_process_names_itself_and_lives():
    assert me() == owner(os.getpid())
    assert is_dead(me()) is False


def test_a_forked_child_is_another_owner():
    name, alive = in_child(lambda: (me(), not is_dead(me())))
    assert alive
    assert name != me()
    assert name.split("|")[:2] == me().split("|")[:2]
    assert is_dead(name) is True, "the child has ended"


@pytest.mark.parametrize("rest", ["1|1|1", f"{BOOT}|4194304|1", f"{BOOT + 99}|1|1"])
def test_a_process_of_another_host_is_never_called_dead(rest):
    assert is_dead(f"another-{HOST}|{rest}") is False
    assert is_dead(f"another|{HOST}|{rest}") is False, "a host may be called like that"


@pytest.mark.parametrize(("seconds", "dead"), [(0, False), (2, False), (-2, False), (3, True), (-3, True)])
def test_what_ran_before_the_host_was_started_again_is_dead(seconds, dead):
    assert is_dead(owner(boot=seconds)) is dead


@pytest.mark.parametrize(
    ("millis", "dead"), [(0, False), (2_000, False), (-2_000, False), (2_001, True), (-2_001, True)]
)
def test_a_number_that_another_process_has_by_now_is_dead(millis, dead):
    assert is_dead(owner(started=millis)) is dead


def test_another_process_that_lives_is_not_dead_and_is_once_it_ended():
    child = fork(time.sleep, 30)
    try:
        name = owner(child)
        assert is_dead(name) is False
        os.kill(child, 9)
        deadline = time.monotonic() + 10
        while psutil.Process(child).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_dead(name) is True, "dead, though its parent has not looked yet"
    finally:
        wait(child)
    assert is_dead(name) is True
