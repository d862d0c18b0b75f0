"""Which processes share an address space, as kcmp(2) says."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest

from pagewalk.proc.kcmp import by_memory, share_memory, shared_outside
from tests.targets import start


def test_a_thread_shares_the_memory_of_its_process_and_a_child_does_not() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    child = subprocess.Popen(["sleep", "1000"])
    try:
        assert thread.native_id is not None
        assert share_memory(os.getpid(), thread.native_id)
        assert not share_memory(os.getpid(), child.pid)
    finally:
        done.set()
        child.kill()
        child.wait()


@pytest.mark.live
def test_processes_with_one_address_space_are_one() -> None:
    with start("shared_mm") as running, start("fork_cow") as other:
        found = by_memory([*running.pids, *other.pids])
    assert sorted(running.pids) in found
    assert sorted(found) == sorted([sorted(running.pids), *([pid] for pid in other.pids)])


@pytest.mark.live
def test_whose_address_space_others_have_too_is_found() -> None:
    with start("shared_mm") as running, start("fork_cow") as other:
        one, two = sorted(running.pids)
        rest = [[pid] for pid in other.pids]
        assert shared_outside([[one], *rest]) == {one}
        assert shared_outside([[one, two], *rest]) == set()


def test_processes_that_may_not_be_compared_are_apart() -> None:
    # Of the last two there is nothing to compare.
    gone = [(1 << 31) - 1, (1 << 31) - 2]
    assert by_memory([os.getpid(), *gone]) == [[os.getpid()], *([pid] for pid in sorted(gone))]
