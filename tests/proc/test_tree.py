"""Which processes descend from this one, and what each holds, compared with the kernel's text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.stall import Stall
from pagewalk.proc.tree import (
    added,
    adopting_orphans,
    children,
    descendants,
    of_status,
    own_children,
    read_holds,
    was_forked,
)
from tests.history.watching import kernel_says

ROLLUP = (b"1000-2000 ---p 00000000 00:00 0    [rollup]\nRss: 12 kB\nPss: 9 kB\nPss_Dirty: 8 kB\n"
          b"Pss_Anon: 7 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 4 kB\nAnonymous: 8 kB\n"
          b"Shared_Hugetlb: 2048 kB\nPrivate_Hugetlb: 4096 kB\nSwap: 30 kB\nSwapPss: 10 kB\n")


@contextmanager
def family(levels: int) -> Iterator[list[int]]:
    """Yield the pids of a process, its child, its grandchild, ... which do nothing."""
    code = ("import os, sys\nfor _ in range(int(sys.argv[1])):\n"
            "    print(os.getpid(), flush=True)\n    if os.fork(): os.wait(); os._exit(0)\n"
            "print(os.getpid(), flush=True)\nsys.stdin.readline()")
    with subprocess.Popen([sys.executable, "-c", code, str(levels)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield [int(process.stdout.readline()) for _ in range(levels + 1)]
        process.communicate("\n")


def test_all_that_descends_is_found() -> None:
    with family(3) as pids:
        assert set(pids) <= set(descendants())
        assert pids[0] in own_children() and pids[1] not in own_children()
        assert not set(pids) & set(descendants({pids[0]}))
        assert children(f"/proc/{pids[2]}/task") == [pids[3]]
    assert not set(pids) & set(descendants())


def test_without_lists_of_children_the_parents_are_read(tmp_path: Path) -> None:
    for pid, parent in ((5, 1), (6, 5), (7, 6), (8, 1), (9, 5)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(
            f"{pid} (a) b) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 4096 3 0\n")
    (tmp_path / "self").symlink_to("5")
    assert sorted(descendants(root=str(tmp_path))) == [6, 7, 9]
    assert sorted(descendants({6}, root=str(tmp_path))) == [9]
    assert sorted(own_children(str(tmp_path))) == [6, 9]


def test_orphans_are_adopted_in_the_block_only() -> None:
    def parent_of_orphan() -> int:
        code = "import os\nif os.fork(): os._exit(0)\nos.read(0, 1); print(os.getppid())"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        process.wait()  # its child is an orphan now
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        with process.stdout:
            return int(process.stdout.read())

    with adopting_orphans():
        assert parent_of_orphan() == os.getpid()
        os.wait()
    assert parent_of_orphan() != os.getpid()


def test_what_a_process_holds_is_what_the_kernel_says() -> None:
    with family(0) as (pid,):
        before = kernel_says(pid)
        found = read_holds(pid, Stall())
        after = kernel_says(pid)
        status = Path(f"/proc/{pid}/status").read_text()
    assert found is not None and found.parent == os.getpid() and not found.refused
    assert found.rss == before["rss"] == after["rss"]
    assert min(before["uss"], after["uss"]) <= (found.uss or 0) <= max(before["uss"], after["uss"])
    for name, amount in (("VmHWM", found.peak), ("VmSize", found.size), ("VmSwap", found.swap)):
        assert f"{name}:\t{amount >> 10:8} kB\n" in status
    assert f"Threads:\t{found.threads}\n" in status


def test_the_fields_of_smaps_rollup() -> None:
    told = of_status(os.getpid(), "")
    assert told is not None
    found = added(told._replace(swap=20 << 10), ROLLUP)
    assert found is not None
    assert [found.rss, found.pss, found.pss_anon, found.uss, found.anon, found.swap_pss,
            found.swap_most, found.hugetlb] == [kib << 10 for kib in (12, 9, 7, 5, 8, 10, 30, 6144)]
    assert found.ksm is None  # before Linux 6.7
    again = added(told, ROLLUP + b"KSM: 8 kB\n")
    assert again is not None and again.ksm == 8 << 10
    assert added(told, b"") is None
    with pytest.raises(BadText):
        added(told, ROLLUP.replace(b"Pss_Anon", b"Pss_Other"))


def test_what_has_ended_holds_nothing() -> None:
    process = subprocess.Popen(["true"])
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
        pass
    assert read_holds(process.pid, Stall()) is None  # a zombie
    process.wait()
    assert read_holds(process.pid, Stall()) is None


def test_a_name_cannot_forge_a_line() -> None:
    code = "open('/proc/self/comm', 'w').write('a\\nVmRSS: 9 kB'); import os; os.read(0, 1)"
    with subprocess.Popen([sys.executable, "-c", f"print(flush=True); {code}"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        while b"VmRSS" not in Path(f"/proc/{process.pid}/comm").read_bytes():
            pass
        found = of_status(process.pid, "")
        process.stdin.close()
    assert found is not None and found.name == "a\\nVmRSS: 9 kB" and found.rss > 1 << 20


def test_whether_a_process_was_only_forked() -> None:
    assert was_forked() is False or os.environ.get("PYTEST_XDIST_WORKER")
    code = ("import os; from pagewalk.proc.tree import was_forked\n"
            "assert not was_forked()\npid = os.fork()\n"
            "if pid: os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
            "os._exit(not was_forked())")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
