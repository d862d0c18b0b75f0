"""Who keeps a file: processes started here that have it open, mapped, both, or neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.structs.direct_map import find_direct_map
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.open_files import Holder, holders_of
from pagewalk.kernel.structs.tasks import read_tasks
from tests.kernel_says import PAGE
from tests.live.bracket import look_again, working_sources
from tests.live.test_inodes import mapping_of, mounted, overlaid, written

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

# Opens or maps a file in one of several ways, says so, and waits for its end.
KEEPER = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None)
how, path = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
if "map" in how:
    # Python's own mmap would keep a descriptor
    libc.mmap.restype = ctypes.c_void_p
    kept = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0))
    assert kept not in (None, ctypes.c_void_p(-1).value)
if "open" not in how:
    os.close(fd)
if "late" in how:
    for other in range(3, 1000):
        os.dup2(fd, other)
    for other in range(3, 999):
        os.close(other)
if "own" in how:  # a thread with a table of descriptors of its own
    ready, end = threading.Event(), threading.Event()
    def apart():
        assert libc.unshare(0x400) == 0
        ready.set()
        end.wait()
    thread = threading.Thread(target=apart, daemon=True)
    thread.start()
    ready.wait()
    os.close(fd)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with closing(open_bpf()) as opened:
        yield opened


@contextmanager
def keeper(how: str, path: Path) -> Iterator[int]:
    """Run a process that keeps ``path``; yield its pid."""
    words = [sys.executable, "-I", "-S", "-c", KEEPER, how, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


HOW = {  # opened, mapped
    "open": (True, False), "map": (False, True), "open map": (True, True),
    "open late": (True, False), "open own": (True, False),
}


@pytest.mark.vmshort
def test_each_process_that_has_it_open_or_mapped_is_found(kernel: Kernel, tmp_path: Path) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(mounted(tmp_path / "tmpfs", "-t", "tmpfs", "pagewalk"))
        mappings, expected = [], []
        for how, (opened, mapped) in HOW.items():
            with ExitStack() as mine:
                mappings.append(mapping_of(kernel, written(folder / how, mine)))
            pid = stack.enter_context(keeper(how, folder / how))
            os.unlink(folder / how)
            comm = Path(f"/proc/{pid}/comm").read_text().strip()
            expected.append((Holder(pid, comm, opened, mapped),))
        # the same process may keep several files, and several processes one
        fd = written(folder / "ours", stack)
        mappings.append(mapping_of(kernel, fd))
        pids = [os.getpid(), stack.enter_context(keeper("map", folder / "ours"))]
        own = Path("/proc/self/comm").read_text().strip()
        expected.append(tuple(sorted(
            [Holder(pids[0], own, True, False), Holder(pids[1], comm, False, True)]
        )))
        unused = stack.enter_context(ExitStack())
        mappings.append(mapping_of(kernel, written(folder / "left", unused)))
        unused.close()
        expected.append(())

        def check() -> None:  # a process that starts or ends changes the table of all of them
            found = holders_of(kernel, find_direct_map(kernel), np.array(mappings, np.uint64))
            assert found.of == tuple(expected)
            assert found.complete

        look_again(check)


def test_a_file_on_an_overlay_counts_for_the_one_below(kernel: Kernel, tmp_path: Path) -> None:
    with ExitStack() as stack:
        base, merged = stack.enter_context(overlaid(tmp_path))
        (merged / "new").write_bytes(b"x" * PAGE)
        mappings = []
        for name in ("upper/new", "lower/old"):
            with open(base / name, "rb") as file:
                mappings.append(mapping_of(kernel, file.fileno()))
        new = stack.enter_context(keeper("open", merged / "new"))
        fd = os.open(merged / "old", os.O_RDONLY)
        stack.callback(os.close, fd)

        def check() -> None:
            found = holders_of(kernel, find_direct_map(kernel), np.array(mappings, np.uint64))
            assert [[holder.pid for holder in each] for each in found.of] == [[new], [os.getpid()]]

        look_again(check)


def test_no_files_and_files_that_are_gone(kernel: Kernel) -> None:
    direct_map = find_direct_map(kernel)
    assert holders_of(kernel, direct_map, np.zeros(0, np.uint64)).of == ()
    assert holders_of(kernel, direct_map, np.array([0, 1 << 47], np.uint64)).of == ((), ())


def listed() -> dict[int, str]:
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                found[int(thread)] = Path(f"/proc/{pid}/task/{thread}/comm").read_text()[:-1]
    return found


def test_every_thread_of_proc_is_a_row(kernel: Kernel) -> None:
    def check() -> None:
        before = listed()
        tasks = read_tasks(kernel)
        after = listed()
        found = dict(zip(tasks.pid.tolist(), tasks.comm, strict=True))
        assert before.keys() & after.keys() <= found.keys() <= before.keys() | after.keys()
        # ps shows kernel threads by a longer name; a thread may change its own at any time
        users = {int(pid) for pid in tasks.pid[tasks.mm != 0]}
        still = {pid for pid in users & before.keys() if before[pid] == after.get(pid)}
        assert {pid: found[pid] for pid in still} == {pid: before[pid] for pid in still}

    look_again(check)


def test_another_pid_namespace_shows_some_by_numbers_of_its_own(kernel: Kernel) -> None:
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c",
             INSIDE]

    def check() -> None:
        # Only it and what it started is shown there; all else has the numbers of the host.
        before = listed()
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        own, shown, others = json.loads(done.stdout)
        assert set(shown) == set(own)
        assert before.keys() & listed().keys() <= set(others)

    look_again(check)


INSIDE = """
import json, os, sys
from contextlib import closing
from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.structs.tasks import read_tasks
with closing(open_bpf()) as kernel:
    tasks = read_tasks(kernel)
own = [int(thread) for thread in os.listdir("/proc/self/task")]
print(json.dumps([own, tasks.pid[tasks.shown].tolist(), tasks.pid[~tasks.shown].tolist()]))
"""
