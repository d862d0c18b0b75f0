"""What each set of rights may see: withheld amounts are reported with the cause, never as zero."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

import pagewalk as library
from pagewalk.account.rollup import ask_rollup
from pagewalk.proc.kernel import release
from tests import kernel_says
from tests.live import dropped
from tests.live.bracket import look_again, working_sources
from tests.live.command import Ran, one_sentence, pagewalk, run
from tests.live.test_scan import can_scan
from tests.machine import prepared
from tests.targets import TARGETS, Running, start

pytestmark = pytest.mark.live

NOBODY, OTHER = 65534, 65533
# The capabilities that pagewalk can use and a container's root lacks by default.
CONTAINER = ("SYS_ADMIN", "BPF", "PERFMON", "CHECKPOINT_RESTORE", "SYS_RAWIO", "SYSLOG")
# What is unknown without frames (fs/proc/task_mmu.c hides them from all without CAP_SYS_ADMIN), and
# smaps_rollup has: KSM since 6.8.
FRAMES = ("pss", "uss", "ksm") if "KSM" in kernel_says.read_rollup(os.getpid()) else ("pss", "uss")
KNOWN = ("size", "present", "rss", "not_present", "anon", "file", "shmem", "zero", "hugetlb")
DROPPED = (sys.executable, "-m", "tests.live.dropped")


def as_user(uid: int, *args: object, before: tuple[str, ...] = ()) -> Ran:
    return run(*before, *DROPPED, "--user", uid, *args)


def without(capabilities: tuple[str, ...], *args: object) -> Ran:
    return run(*DROPPED, "--without", ",".join(capabilities), *args)


def check_withheld(ran: Ran, truth: dict[str, Any], says: str) -> None:
    """Check that amounts that need no frames are right, the rest null, and the cause named.

    Totals from smaps_rollup are the kernel's, and marked as such.
    """
    assert ran.code == 3
    document = ran.json
    totals = document["totals"]
    if not can_scan() and totals["zero"] is None:  # because VmRSS lags
        truth["zero"] = None
    assert {key: totals[key] for key in KNOWN} == {key: truth[key] for key in KNOWN}
    assert totals["rss"] > 0
    pid = document["process"]["pid"]
    for key in FRAMES:
        assert key in document["from_kernel"]
        assert all(vma[key] is None for vma in document["vmas"])
    # Only KSM does not move: other processes map the same libraries.
    if "ksm" in FRAMES:
        assert totals["ksm"] == kernel_says.read_rollup(pid)["KSM"] << 10
    assert 0 < totals["uss"] <= totals["pss"] <= totals["rss"]
    assert any(says in reason for reason in document["partial"])
    assert says in ran.err


def truth(pid: int) -> dict[str, Any]:
    """Return what root sees through the same files."""
    return pagewalk("show", pid, "--format", "json", "--source", "procfs").json["totals"]


# ---- an ordinary user


def test_a_user_sees_all_but_the_frames_of_their_own_process() -> None:
    with start("nobody", stopped=True) as running:
        ran = as_user(NOBODY, "show", running.pid, "--format", "json")
        check_withheld(ran, truth(running.pid), "shown only with CAP_SYS_ADMIN; run as root")
        screen = as_user(NOBODY, "show", running.pid)
        rollup = kernel_says.read_rollup(running.pid)  # not VmRSS: up to 6.17 that counter lags
    assert ran.json["totals"]["rss"] == rollup["Rss"] << 10
    assert screen.code == 3
    # The screen wraps lines.
    flat = " ".join(screen.out.split())
    assert "shown only with CAP_SYS_ADMIN; run as root" in flat
    assert re.search(r" pss [0-9 ]+\* ", flat)
    assert "* the kernel's own figure from smaps_rollup, not counted by pagewalk" in flat


def test_csv_leaves_out_the_kernels_amounts_as_it_cannot_mark_them() -> None:
    with start("nobody", stopped=True) as running:
        ran = as_user(NOBODY, "show", running.pid, "--format", "csv")
    assert "pss,\n" in ran.out


def test_the_kernels_figure_is_that_of_smaps_rollup() -> None:
    # Others map the same libraries, so take two readings that agree, with ours between them.
    with start("nobody", stopped=True) as running:
        source = library.open_process(running.pid, "procfs")
        try:
            table = library.table(source)
            hidden = replace(table, totals={**table.totals, **dict.fromkeys(FRAMES)})

            def look() -> None:
                before = kernel_says.read_rollup(running.pid)
                told = ask_rollup(hidden, source)
                assert before == kernel_says.read_rollup(running.pid)
                assert set(told.from_kernel) >= set(FRAMES)
                private = before["Private_Clean"] + before["Private_Dirty"]
                said = {"pss": before["Pss"], "uss": private, "ksm": before.get("KSM", 0)}
                assert [told.totals[name] for name in FRAMES] == [
                    said[name] << 10 for name in FRAMES
                ]

            look_again(look)
        finally:
            library.close(source)


# 160 MiB in one VMA: more than smaps_rollup can sum in the 5 ms allowed for a running process.
LARGE = """
import mmap, os, sys
sys.path[:0] = [os.getcwd()]
from tests.live.dropped import become
become(int(sys.argv[1]))
area = mmap.mmap(-1, 160 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_large_running_process_is_not_stalled_for_the_kernels_figure() -> None:
    words = [sys.executable, "-c", LARGE, str(NOBODY)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            asked = ("show", process.pid, "--format", "json")
            small, allowed, stopped = (
                as_user(NOBODY, *asked, *more) for more in ((), ("--budget", "50"), ("--freeze",))
            )
        finally:
            process.kill()
    assert small.json["totals"]["pss"] is None and small.json["from_kernel"] == []
    assert any("hold the lock of a running process" in row["why"] for row in small.json["withheld"])
    for ran in (allowed, stopped):
        assert ran.json["totals"]["pss"] > 160 << 20
        assert "pss" in ran.json["from_kernel"]


def test_a_user_gets_no_frame_of_any_page() -> None:
    with start("nobody", stopped=True) as running:
        ran = as_user(NOBODY, "pages", running.pid, "--format", "json")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    present = [row for row in rows if row["state"] in ("anon", "file", "present")]
    assert ran.code == 3
    assert present
    assert all(row["pfn"] is row["phys"] is row["mapcount"] is None for row in rows)


def test_a_user_may_explain_their_own_process() -> None:
    with start("nobody", stopped=True) as running:
        ran = as_user(NOBODY, "explain", running.pid, "--format", "json")
    assert ran.code == 3
    ledger = {line["against"]: line for line in ran.json["ledger"]}
    rss, pss = ledger["status VmRSS"], ledger["smaps Pss"]
    if can_scan() or rss["ours"] is not None:  # withheld where VmRSS lags
        assert rss["unexplained"] == 0 and rss["ours"] > 0
    assert pss["ours"] is pss["unexplained"] is None and pss["theirs"] > 0


needs_guards = pytest.mark.skipif(release() < (6, 13), reason="guard pages came with Linux 6.13")
# An ordinary user's memory on swap, with three guard pages next to it: both are software entries,
# whose kind is hidden with the frames. MADV_PAGEOUT is 21, MADV_GUARD_INSTALL 102.
SWAPPER = """
import ctypes, mmap, os, sys, time
sys.path[:0] = [os.getcwd()]
from tests.live.dropped import become
become(int(sys.argv[1]))
pages = 64
area = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(pages - 3):
    area[page * 4096] = 1
# Reclaim passes over a page that is busy at the moment.
for _ in range(1000):
    area.madvise(21)
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    if int(status["VmSwap"].split()[0]) >= (pages - 3) * 4:
        break
    time.sleep(0.001)
if sys.argv[2] == "guarded":
    area.madvise(102, (pages - 3) * 4096, 3 * 4096)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def swapper(kind: str) -> Iterator[int]:
    words = [sys.executable, "-c", SWAPPER, str(NOBODY), kind]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["plain", pytest.param("guarded", marks=needs_guards)])
def test_a_user_sees_the_exact_swap_of_their_own_process(kind: str) -> None:
    with prepared("zram"), swapper(kind) as pid:
        ran = as_user(NOBODY, "show", pid, "--format", "json")
        said = kernel_says.read_status_kib(pid)["VmSwap"] << 10
    assert said >= 61 * kernel_says.PAGE
    assert ran.code == 3
    assert ran.json["totals"]["swap"] == said


@pytest.mark.parametrize(
    "command", ["show", "maps", "pages", "explain"]
)
def test_a_user_is_refused_another_users_process(command: str) -> None:
    with start("nobody", OTHER) as running:
        ran = as_user(NOBODY, command, running.pid)
    assert ran.code == 6
    says = one_sentence(ran)
    assert says.startswith(f"cannot read /proc/{running.pid}/")
    assert f"it belongs to uid {OTHER}, you are uid {NOBODY}; run as root" in says


def test_a_user_is_refused_their_own_process_if_it_is_not_dumpable() -> None:
    with start("undumpable") as running:
        ran = as_user(NOBODY, "show", running.pid)
    assert ran.code == 6
    assert "yours but not dumpable" in one_sentence(ran)


def test_root_sees_a_process_that_is_not_dumpable() -> None:
    with start("undumpable", stopped=True) as running:
        ran = pagewalk("show", running.pid, "--format", "json")
        rollup = kernel_says.read_rollup(running.pid)  # not VmRSS: up to 6.17 that counter lags
    assert ran.code == 0
    assert ran.json["totals"]["rss"] == rollup["Rss"] << 10


def test_doctor_promises_a_user_no_pss() -> None:
    ran = as_user(NOBODY, "doctor", "--format", "json")
    assert ran.code == 0
    found = {check["name"]: check for check in ran.json["checks"]}["mapcount of each page"]
    assert not found["ok"]
    assert "no PSS or USS" in found["finding"]


# ---- hidepid

HIDEPID = ("unshare", "-m", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")


def test_hidepid_is_named_to_users_it_hides_processes_from() -> None:
    with start("nobody", OTHER) as running:
        ran = as_user(NOBODY, "show", running.pid, before=HIDEPID)
    assert ran.code == 6
    assert "/proc is mounted with hidepid, which hides other users' processes" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_hidepid_leaves_a_users_own_process_visible() -> None:
    with start("nobody", stopped=True) as running:
        ran = as_user(NOBODY, "show", running.pid, "--format", "json", before=HIDEPID)
        check_withheld(ran, truth(running.pid), "shown only with CAP_SYS_ADMIN")


def test_hidepid_hides_nothing_from_root() -> None:
    nobody = 1 << 30
    with start("nobody") as running:
        seen = pagewalk("show", running.pid, before=HIDEPID)
    gone = pagewalk("show", nobody, before=HIDEPID)
    assert seen.code == 0
    assert (gone.code, one_sentence(gone)) == (5, f"process {nobody} does not exist")


# ---- root without some capabilities


def test_root_without_cap_sys_admin_gets_the_reason_and_no_zeros() -> None:
    with start("zero_reads", stopped=True) as running:
        ran = without(CONTAINER, "show", running.pid, "--format", "json")
        check_withheld(ran, truth(running.pid), "root without CAP_SYS_ADMIN (a default container)")
        rows = without(CONTAINER, "pages", running.pid, "--format", "json")
    assert rows.code == 3
    assert all(json.loads(line)["pfn"] is None for line in rows.out.splitlines())


def test_root_without_cap_sys_admin_still_counts_swap() -> None:
    with prepared("zram"), start("swap_private", stopped=True) as running:
        ran = without(CONTAINER, "show", running.pid, "--format", "json")
        said = kernel_says.read_rollup(running.pid)["Swap"] << 10
        counter = kernel_says.read_status_kib(running.pid)["VmSwap"] << 10
    assert said > 0
    # Its entries are swap, and nothing else, if they add up to VmSwap; up to 6.17 that may lag.
    assert ran.json["totals"]["swap"] == (said if counter == said else None)


def test_root_without_map_files_withholds_the_swap_of_shmem() -> None:
    with prepared("zram"), start("swap_shmem", stopped=True) as running:
        ran = without(CONTAINER, "show", running.pid, "--format", "json")
    assert ran.code == 3
    assert ran.json["totals"]["swap"] is None
    assert any("swap of shmem" in reason for reason in ran.json["partial"])


def test_root_without_cap_sys_ptrace_is_refused() -> None:
    with start("plain") as running:
        ran = without((*CONTAINER, "SYS_PTRACE"), "show", running.pid)
    assert ran.code == 6
    assert "root without CAP_SYS_PTRACE (a default container)" in one_sentence(ran)


def test_root_of_a_user_namespace() -> None:
    inside = 'sleep 60 & "$@" $! --format json; code=$?; kill $!; exit $code'
    words = (sys.executable, "-m", "pagewalk", "show")
    ran = run("unshare", "--user", "--map-root-user", "sh", "-c", inside, "sh", *words)
    assert ran.code == 3
    totals = ran.json["totals"]
    assert totals["rss"] > 0
    assert set(FRAMES) <= set(ran.json["from_kernel"])
    assert "root in a user namespace" in ran.err


def test_root_of_a_user_namespace_is_refused_a_process_outside_it() -> None:
    with start("plain") as running:
        ran = pagewalk("show", running.pid, before=("unshare", "--user", "--map-root-user"))
    assert ran.code == 6
    assert "root in a user namespace and the process is outside it" in one_sentence(ran)


def test_pid_1_of_a_hardened_machine_refuses_even_root() -> None:
    try:
        with open("/proc/1/maps"):
            pytest.skip("process 1 of this machine refuses nobody")
    except PermissionError:
        # A source that reads kernel memory needs no permission of the process.
        ran = pagewalk("show", 1, "--source", "procfs")
    assert ran.code == 6
    assert "a security module (LSM) or kernel hardening" in one_sentence(ran)


def test_zero_pages_are_not_called_anonymous_where_that_is_unknown() -> None:
    # Before 6.7 a zero page looks like a shared anonymous page in pagemap.
    with start("zero_reads", stopped=True) as running:
        found = walk_in_child(running, "procfs", lose=CONTAINER, scan=False)
    region = running.facts["zeroes"]
    said = [found["totals"][key] for key in ("zero", "rss")]
    assert said[0] is None or said[0] >= region["zero"] * kernel_says.PAGE
    status = kernel_says.PAGE * region["zero"]
    assert said[1] is None or said[1] + status <= found["totals"]["present"]


# ---- open first, drop rights, then walk


def walk_in_child(
    running: Running, source: str, *, drop: bool = False, lose: tuple[str, ...] = (),
    scan: bool = True,
) -> dict[str, Any]:
    """Walk a process in a child and return what it found.

    Capabilities in ``lose`` are dropped before it is opened; with ``drop`` all rights are dropped
    after that. Without ``scan`` PAGEMAP_SCAN is not used, as on a kernel that lacks it.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            dropped.import_all()
            dropped.lose(*lose)
            opened = library.open_process(running.pid, source)
            if not scan:
                opened.space.huge = False  # type: ignore[attr-defined]
            if drop:
                dropped.become(NOBODY)
            table = library.table(opened)
            own = [not name or name == "[heap]" for name in table.vmas.name]
            said = {
                "totals": table.totals, "names": table.vmas.name, "partial": table.outcome.partial,
                # Of memory that the target shares only with its family.
                **{key: amounts(table, key, own) for key in ("pss", "uss")},
                "rights": kernel_says.read_status(os.getpid())["CapEff"],
            }
        except BaseException as err:  # the child must not continue as a second test run
            said = {"error": repr(err)}
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        found: dict[str, Any] = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert "error" not in found, found
    return found


def amounts(table: library.Table, key: str, rows: list[bool]) -> list[int] | None:
    column = table.columns[key]
    return None if column is None else column[rows].tolist()


@pytest.mark.parametrize("source", working_sources())
@pytest.mark.parametrize("name", ["plain", "locked", "fork_three", "swap_private", "hugetlb_fork"])
def test_opened_with_rights_and_walked_without(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        before = walk_in_child(running, source, drop=False)
        after = walk_in_child(running, source, drop=True)
    assert int(before["rights"], 16) != 0 and int(after["rights"], 16) == 0
    assert sum(before["pss"]) > 0
    for key in ("pss", "uss"):
        assert after[key] == before[key]
        # That of libc changes with every process that starts or ends.
        assert after["totals"].pop(key) is not None and before["totals"].pop(key) is not None
    # Open files are looked up at the end, and what they hold may be freed too.
    assert after["totals"].pop("freed") is None
    del before["totals"]["freed"]
    assert after["totals"] == before["totals"]
    assert after["names"] == before["names"]
    assert {why.partition(":")[0] for why in after["partial"]} == {"unmapped"}


@pytest.mark.parametrize("source", working_sources())
def test_amounts_that_need_rights_at_the_end_are_reported_as_missing(source: str) -> None:
    with prepared("zram"), start("swap_shmem", stopped=True) as running:
        before = walk_in_child(running, source, drop=False)
        after = walk_in_child(running, source, drop=True)
    if source == "procfs" and release() < (6, 5):  # no cachestat(2)
        assert before["totals"]["swap_shmem"] is after["totals"]["swap_shmem"] is None
        return
    assert before["totals"]["swap_shmem"] > 0 and before["partial"] == []
    # procfs follows map_files at the end, which takes a right; kernel memory may do without.
    missing = {reason.partition(":")[0] for reason in after["partial"]}
    for key in ("swap_shmem", "swap"):
        gone = "swap of shmem" in missing
        assert after["totals"][key] == (None if gone else before["totals"][key])
    # Open and mapped files are looked at with the remaining rights.
    assert missing == {"unmapped"} | ({"swap of shmem"} if source == "procfs" else set())
    assert after["totals"]["freed"] is None
    assert after["totals"]["rss"] == before["totals"]["rss"]
