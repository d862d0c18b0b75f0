"""Processes that run in the memory of another one, and what heap says of numbers read meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pagewalk.heap.heap import Heap
from pagewalk.heap.read import read_heap
from pagewalk.proc import sharers as module
from pagewalk.proc.sharers import Sharer, numbers_in_proc, sharers
from pagewalk.proc.target import open_target
from pagewalk.sources import close, open_listed
from tests.live.command import pagewalk
from tests.live.test_heap_hostile import compiled

pytestmark = pytest.mark.live

# A child by fork, and one by clone(CLONE_VM); both only wait.
TEXT = """
    #define _GNU_SOURCE
    #include <sched.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <unistd.h>
    static char stack[65536];
    static int wait_here(void *unused) { for (;;) pause(); }
    int main(void)
    {
        int forked, shared;
        free(malloc(100000));
        forked = fork();
        if (!forked)
            wait_here(NULL);
        shared = clone(wait_here, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
        printf("%d %d\\n", forked, shared);
        fflush(stdout);
        wait_here(NULL);
    }
"""
PATIENCE_S = 60


def start(program: Path) -> tuple[subprocess.Popen[bytes], int, int]:
    """Run the program; return it, and its children by fork and by clone."""
    process = subprocess.Popen([program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    forked, shared = map(int, process.stdout.readline().split())
    return process, forked, shared


def read_here(pid: int) -> Heap:
    """Return what heap reads of ``pid``, in this process."""
    source = open_listed(pid, "procfs", 5_000_000)
    try:
        return read_heap(source)
    finally:
        close(source)


@pytest.mark.parametrize("comparable", [True, False])
def test_one_that_has_the_same_memory_is_found_and_numbers_are_estimates(
    comparable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not comparable:  # as for an ordinary user, and a process of another
        monkeypatch.setattr(module, "same_memory", lambda *_: None)
    with compiled(TEXT, "-w") as program:
        process, forked, shared = start(program)
        target = open_target(process.pid)
        try:
            assert Sharer(shared, comparable) in sharers(target)
            assert not comparable or sharers(target) == [Sharer(shared, certain=True)]
            assert sharers(target, numbers_in_proc()) == []
            for options in ((), ("--freeze",)):
                ran = pagewalk("heap", process.pid, "--format", "json", *options)
                assert ran.code == 3 and ran.json["exact"] is False
                assert f"process {shared} has the same memory" in ran.json["why"]
                assert ran.json["stopped_ns"] == 0
            assert "--freeze" not in pagewalk("heap", process.pid).out
            # What only looks the same is not told as a fact.
            has = "has" if comparable else "may have"
            assert f"process {shared} {has} the same memory" in read_here(process.pid).why
            os.kill(shared, signal.SIGKILL)
            deadline = time.monotonic() + PATIENCE_S
            while sharers(target) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert pagewalk("heap", process.pid, "--format", "json").json["exact"] is True
        finally:
            target.close()
            for pid in (forked, shared, process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


# The child goes deep on the stack of its parent, which waits for it further up.
BORROWED = """
    #define _GNU_SOURCE
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    __attribute__((noinline)) static void deep(void)
    {
        volatile char frame[3 << 20];
        memset((void *)frame, 1, sizeof frame);
        write(1, "ready\\n", 6);
        pause();
        _exit(frame[5]);
    }
    int main(void)
    {
        free(malloc(10));
        if (!vfork())
            deep();
    }
"""


def test_the_stack_that_a_child_by_vfork_runs_on_is_not_idle() -> None:
    with compiled(BORROWED, "-w", "-O0") as program:
        process = subprocess.Popen([program], stdout=subprocess.PIPE, start_new_session=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            found = pagewalk("heap", process.pid, "--format", "json").json["returnable"]
            said = pagewalk("heap", process.pid).out
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert found["idle_stacks"] is None and found["waiting"] is None
    assert found["in_all"] < 3 << 20
    assert "In all at least" in said and "lie below" not in said
