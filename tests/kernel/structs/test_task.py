"""Tasks and mm read from kernel structs, against /proc."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import find_task
from pagewalk.model.errors import ProcessGone
from tests.targets import start

pytestmark = pytest.mark.live


def test_tasks_are_those_of_proc(kernel: Kernel) -> None:
    own = find_task(kernel, os.getpid())
    assert own.address == kernel.current
    assert own.comm == Path("/proc/self/comm").read_text()[:-1]
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    # stat prints start_boottime in clock ticks, rounded down (nsec_to_clock_t).
    assert own.start_ns // (10**9 // os.sysconf("SC_CLK_TCK")) == ticks
    assert not own.exiting


def test_a_kernel_thread_has_no_mm(kernel: Kernel) -> None:
    kthreadd = find_task(kernel, 2)
    assert kthreadd.comm == "kthreadd"
    assert kthreadd.mm is None


def test_a_thread_is_found_by_its_own_id(kernel: Kernel) -> None:
    done, ids = threading.Event(), []

    def wait() -> None:
        ids.append(threading.get_native_id())
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    while not ids:
        pass
    found, own = find_task(kernel, ids[0]), find_task(kernel, os.getpid())
    done.set()
    thread.join()
    assert found.pid == ids[0] != own.pid
    assert found.address != own.address
    assert found.mm == own.mm


def test_the_threads_of_a_dead_leader_lead_to_the_mm(kernel: Kernel) -> None:
    with start("leader_dead", stopped=True) as running:
        leader = find_task(kernel, running.pid)
        assert leader.exiting
        assert leader.mm is None
        threads = [int(tid) for tid in os.listdir(f"/proc/{running.pid}/task")]
        alive = [task for task in (find_task(kernel, tid) for tid in threads) if task.mm]
        assert len(alive) == 2
        assert len({task.mm for task in alive}) == 1


def test_a_zombie_has_no_mm(kernel: Kernel) -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        zombie = find_task(kernel, child.pid)
        assert zombie.exiting
        assert zombie.mm is None
        child.wait()
        with pytest.raises(ProcessGone):
            find_task(kernel, child.pid)


@pytest.mark.parametrize("pid", [0, -1, 4194304, 1 << 40])
def test_no_such_pid(kernel: Kernel, pid: int) -> None:
    # 4194304 is PID_MAX_LIMIT: no id is that high.
    with pytest.raises(ProcessGone, match="does not exist"):
        find_task(kernel, pid)
