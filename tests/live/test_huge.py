"""`maps --huge` equals smaps where smaps has a field, and an oracle that looks at every page."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import pagewalk
from pagewalk.account.huge import Huge, look_at_huge
from tests.kernel_says import PAGE, read_smaps
from tests.live import folios
from tests.live.bracket import look_again, working_sources
from tests.live.command import pagewalk as command
from tests.live.command import pagewalk_here
from tests.live.test_scan import can_scan
from tests.machine import MM, alone, prepared, setting
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

SOURCES = working_sources()
PMD = 512 * PAGE
THP = MM / "transparent_hugepage"
TELLS_HUGE = [name for name in SOURCES if name != "procfs" or can_scan()]
# The smaps field of each of our columns that has one.
FIELDS = {"rss": "Rss", "anon_huge": "AnonHugePages", "shmem_huge": "ShmemPmdMapped",
          "file_huge": "FilePmdMapped", "private_hugetlb": "Private_Hugetlb",
          "shared_hugetlb": "Shared_Hugetlb"}
KINDS = ("plain", "fork_cow", "file_private", "memfd", "tmpfs", "thp", "thp_part", "thp_fork",
         "thp_split", "thp_holes", "thp_moved", "thp_half", "huge_zero", "shmem_thp", "file_thp",
         "hugetlb_private", "hugetlb_fork", "swap_thp", "swap_huge", "io_uring", "python")


def looked(pid: int, source: str = "auto") -> Huge:
    opened = pagewalk.open_process(pid, source)
    try:
        return look_at_huge(opened)
    finally:
        pagewalk.close(opened)


def check_same(pid: int, source: str) -> None:
    """Compare everything that is told of a stopped process, with tolerance 0."""
    before = read_smaps(pid)
    told, found, after = folios.look(pid, before), looked(pid, source), read_smaps(pid)
    assert before == after
    own = found.columns
    assert found.table.vmas.start.tolist() == [vma.start for vma in before]
    for row, vma in enumerate(before):
        for name, field in FIELDS.items():
            column = own[name]
            if column is not None:
                assert column[row] == vma.fields[field] << 10, (name, vma)
        here = told.vmas[vma.start]
        for name in ("unaligned", "partly", "missing"):
            column = own[name]
            assert column is not None
            assert column[row] == getattr(here, name), (name, vma)
        pmd, contiguous, small = own["pmd"], own["contiguous"], own["small"]
        if pmd is not None and contiguous is not None:
            assert pmd[row] + contiguous[row] == here.aligned, vma
            assert small is not None
            assert small[row] == (vma.fields["Rss"] << 10) - (
                here.aligned + here.unaligned + here.partly)
    assert (found.totals["missing"], found.totals["stranded"]) == (told.missing, told.stranded)
    if found.sizes is not None:
        assert {row.size for row in found.sizes if row.hugetlb == 0} == told.sizes


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", KINDS)
def test_every_mapping_is_as_the_kernel_says(
    name: str, source: str, prepare: Callable[..., None]
) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        for pid in running.pids:
            look_again(lambda pid=pid: check_same(pid, source))  # type: ignore[misc]


@pytest.mark.parametrize("source", TELLS_HUGE)
@pytest.mark.parametrize(("name", "region", "expected"), [
    ("thp", "thp", {"pmd": 512}),
    ("thp_part", "child", {"partly": 256, "missing": 256}),
    ("thp_part", "parent", {"pmd": 512}),
    ("thp_split", "read_only", {"partly": 100, "missing": 412}),
    ("thp_split", "writable", {"partly": 412, "missing": 100}),
    ("thp_holes", "holes", {"partly": 412, "missing": 100, "stranded": 100}),
    ("thp_moved", "moved", {"unaligned": 512}),
    ("shmem_thp", "whole", {"pmd": 512}),
    ("shmem_thp", "half", {"partly": 256, "missing": 256}),
    ("file_thp", "file", {"pmd": 512}),
    ("huge_zero", "zeroes", {"huge_zero": 512}),
    ("hugetlb_private", "private", {"hugetlb": 1024}),
])
def test_what_the_program_made_is_what_is_shown(
    name: str, region: str, expected: dict[str, int], source: str, prepare: Callable[..., None]
) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        fact = running.facts[region]
        found = looked(fact["pid"], source)
        row = found.table.vmas.start.tolist().index(fact["start"])
        told = {key: int(column[row]) // PAGE for key in
                ("pmd", "contiguous", "unaligned", "partly", "missing", "stranded", "huge_zero",
                 "hugetlb") if (column := found.columns[key]) is not None}
        assert {key: pages for key, pages in told.items() if pages} == expected
        if name == "thp_split":  # what one VMA does not map of the folio the other does
            assert (found.totals["missing"], found.totals["stranded"]) == (0, 0)


# ---- folios of other sizes

# Writes all of one folio of each size, and half of another one's pages; then waits.
SIZED = """
import ctypes, mmap, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
size, at = int(sys.argv[1]), 0x300000000000
for start in (at, at + (1 << 30)):
    got = libc.mmap(start, 4 * size, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000, -1, 0)
    assert got == start, ctypes.get_errno()
    assert libc.madvise(start, 4 * size, mmap.MADV_HUGEPAGE) == 0
    ctypes.memset(start, 1, 4 * size)
half = at + (1 << 30)
for n in range(4):
    assert libc.madvise(half + n * size, size // 2, mmap.MADV_DONTNEED) == 0
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture(params=[16, 64, 512])
def sized(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    folder = THP / f"hugepages-{request.param}kB"
    if not folder.exists():
        pytest.skip("this kernel has huge pages of one size only")
    words = [sys.executable, "-c", SIZED, str(request.param << 10)]
    with (alone(), setting(THP / "enabled", "never"), setting(folder / "enabled", "madvise"),
          subprocess.Popen(words, stdout=subprocess.PIPE) as process):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid, request.param << 10
        finally:
            process.kill()


@pytest.mark.parametrize("source", SOURCES)
def test_folios_of_every_size_are_seen(sized: tuple[int, int], source: str) -> None:
    pid, size = sized
    look_again(lambda: check_same(pid, source))
    found = looked(pid, source)
    starts = found.table.vmas.start.tolist()
    whole, half = (starts.index(0x3000_0000_0000 + at) for at in (0, 1 << 30))
    contiguous, partly, stranded = (found.columns[n] for n in ("contiguous", "partly", "stranded"))
    assert partly is not None and stranded is not None
    assert (partly[half], stranded[half]) == (2 * size, 2 * size)
    if contiguous is not None:
        assert contiguous[whole] == 4 * size
    if found.sizes is not None:
        (row,) = [row for row in found.sizes if row.size == size]
        assert row.contiguous >= 4 * size and row.partly >= 2 * size and row.folios >= 8


# ---- zeros


@pytest.mark.parametrize("source", TELLS_HUGE)
def test_pages_that_were_never_written_are_counted(source: str) -> None:
    with prepared("thp"), start("thp_half", 3, stopped=True) as running:
        ran = command("maps", running.pid, "--huge", "--zeros", "--source", source, "--format",
                      "json")
        assert ran.code == 0, ran.err
        (vma,) = [vma for vma in ran.json["vmas"]
                  if int(vma["start"], 16) == running.facts["half"]["start"]]
        assert vma["zeros"] == ran.json["totals"]["zeros"] == 3 * 256 * PAGE
        zeros = ran.json["zeros"]
        assert (zeros["looked"], zeros["moved"]) == (3 * PMD, 0)
        assert zeros["bytes"] == 3 * 256 * PAGE


@pytest.mark.parametrize(("most", "shrink", "above", "underused"), [
    (511, 1, 512, 0), (255, 1, 255, 256 * PAGE), (256, 1, 256, 0), (0, 0, 512, 0),
])
def test_what_the_kernel_splits_by_itself_depends_on_its_settings(
    most: int, shrink: int, above: int, underused: int
) -> None:
    if not (THP / "shrink_underused").exists():
        pytest.skip("this kernel splits none by itself (since 6.12)")
    with (prepared("thp"), start("thp_half", stopped=True) as running,
          setting(THP / "khugepaged/max_ptes_none", most),
          setting(THP / "shrink_underused", shrink)):
        zeros = command("maps", running.pid, "--huge", "--zeros", "-f", "json").json["zeros"]
    assert (zeros["splits_above"], zeros["underused"]) == (above, underused)


def test_reading_zeros_faults_nothing_in() -> None:
    with prepared("zram", "thp"), start("swap_thp", stopped=True) as running:
        before = [vma.fields for vma in read_smaps(running.pid)]
        ran = command("maps", running.pid, "--huge", "--zeros", "--format", "json")
        after = [vma.fields for vma in read_smaps(running.pid)]
        assert ran.code == 0, ran.err
        for name in ("Rss", "Swap", "AnonHugePages"):
            assert [fields[name] for fields in after] == [fields[name] for fields in before]


def test_a_page_that_is_split_while_it_is_read_is_not_counted() -> None:
    from pagewalk.account.zeros import with_zeros
    from pagewalk.heap.locate import memory_file
    from pagewalk.heap.memory import live

    with prepared("thp"):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        with mmap.mmap(-1, 4 * PMD, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            first = ctypes.c_char.from_buffer(memory)
            start_ = -(-ctypes.addressof(first) // PMD) * PMD
            assert libc.madvise(start_, 2 * PMD, mmap.MADV_HUGEPAGE) == 0
            for at in (start_, start_ + PMD):
                ctypes.memset(at, 1, PAGE)
            source = pagewalk.open_process(os.getpid(), TELLS_HUGE[0])
            try:
                found = look_at_huge(source)
                with memory_file(source) as fd:
                    read = live(fd)

                    def split(part: memoryview, at: int) -> int:
                        got = read(part, at)
                        if start_ + PMD <= at < start_ + 2 * PMD:
                            assert libc.madvise(start_ + PMD, PAGE, mmap.MADV_DONTNEED) == 0
                        return got

                    zeros = with_zeros(found, source, split)
            finally:
                pagewalk.close(source)
            del first
    row = int((zeros.table.vmas.start <= start_).sum()) - 1
    assert zeros.zeros is not None
    assert zeros.zeros.moved == PMD
    assert zeros.zeros.by_vma[row] == 511 * PAGE
    assert any(row.what == f"zeros of {PMD} bytes" for row in zeros.table.outcome.withheld)


@pytest.mark.parametrize("source", SOURCES)
def test_a_process_that_changes_meanwhile_gets_an_answer(source: str) -> None:
    with prepared("thp"), start("churn") as running:
        for _ in range(3):
            ran = command("maps", running.pid, "--huge", "--zeros", "--source", source, "-f",
                          "json")
            assert ran.code in (0, 3), ran.err
            totals = ran.json["totals"]
            parts = [totals[name] for name in ("contiguous", "unaligned", "partly", "small")]
            if totals["pmd"] is not None and totals["rss"] is not None and ran.code == 0:
                assert sum([totals["pmd"], *parts]) == totals["rss"]


# ---- several processes


@pytest.mark.parametrize("source", TELLS_HUGE)
def test_each_process_of_a_set_is_told_as_it_is_alone(source: str) -> None:
    with prepared("thp"), start("thp_part", stopped=True) as running:

        def look() -> None:
            ran = command("top", *running.pids, "--huge", "--source", source, "--format", "json")
            assert ran.code == 0, ran.err
            rows = {row["pid"]: row for row in ran.json["processes"]}
            assert set(rows) == set(running.pids)
            for pid, row in rows.items():
                alone = looked(pid, source).totals
                assert {name: row[name] for name in row if name in alone} == {
                    name: alone[name] for name in alone if name in row}

        look_again(look)
        by_pmd = command("top", *running.pids, "--huge", "-f", "csv", "--columns", "pmd,name")
    assert by_pmd.out == (f"pid,pmd,name\n{running.pids[0]},{PMD},zoo\n"
                          f"{running.pids[1]},0,zoo\n")


def test_the_huge_pages_of_a_set_are_read_if_that_is_asked_for() -> None:
    with prepared("thp"), start("thp_half", stopped=True) as running:
        with_zeros, without = (command("top", running.pid, "--huge", *more, "-f", "json")
                               for more in (["--zeros"], []))
        screen = command("top", running.pid, "--huge", "--zeros", "--kib")
    assert with_zeros.json["processes"][0]["zeros"] == 256 * PAGE
    assert without.json["processes"][0]["zeros"] is None
    assert "1 process: RSS adds up to" in screen.out and " 1024  zoo" in screen.out


@pytest.mark.parametrize("args", [("--zeros",), ("--huge", "--by", "user")])
def test_a_set_has_no_huge_pages_by_anything_else(args: tuple[str, ...]) -> None:
    ran = pagewalk_here("top", os.getpid(), *args)
    assert ran.code == 2 and ran.out == ""
    assert (len(ran.err.splitlines()) == 1 and "leave out" in ran.err) or "add --huge" in ran.err


# ---- rights, and what cannot be asked together


DROPPED = ("setpriv", "--reuid=65534", "--clear-groups")


def test_an_ordinary_user_is_told_what_is_known_and_what_is_missing() -> None:
    words = [*DROPPED, sys.executable, "-c", SIZED, str(PMD)]
    with prepared("thp"), subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            ran, screen = (command("maps", process.pid, "--huge", "--zeros", *format_,
                                   before=DROPPED) for format_ in (["--format", "json"], []))
            smaps = read_smaps(process.pid)
        finally:
            process.kill()
    totals = ran.json["totals"]
    assert (ran.code, screen.code) == (3, 3), ran.err
    assert [totals[name] for name in ("partly", "missing", "stranded", "small")] == [None] * 4
    assert ran.json["sizes"] is None
    assert any("large folios" in text for text in ran.json["partial"])
    assert "n/a" in screen.out and "large folios" in " ".join(screen.out.split())
    if can_scan():
        assert totals["rss"] == sum(vma.fields["Rss"] for vma in smaps) << 10
        assert totals["pmd"] == sum(vma.fields["AnonHugePages"] for vma in smaps) << 10 == 4 * PMD
        if ran.json["zeros"] is None:  # Yama lets nobody read the memory of others
            assert any(text.startswith("zeros: ") for text in ran.json["partial"])
        else:
            assert (ran.json["zeros"]["looked"], totals["zeros"]) == (4 * PMD, 0)


@pytest.mark.parametrize("args", [("--zeros",), ("--huge", "--all"), ("--huge", "--counts"),
                                  ("--huge", "--by", "kind"), ("--huge", "--format", "log")])
def test_what_does_not_go_together_is_one_sentence(args: tuple[str, ...]) -> None:
    ran = pagewalk_here("maps", os.getpid(), *args)
    assert ran.code == 2 and ran.out == ""
    assert (len(ran.err.splitlines()) == 1 and "leave out" in ran.err) or "add --huge" in ran.err


def test_the_screen_begins_with_the_answer() -> None:
    with prepared("thp"), start("thp_holes", stopped=True) as running:
        ran = command("maps", running.pid, "--huge", "--kib")
    assert ran.code == 0, ran.err
    text = " ".join(ran.out.split())
    assert "1648 KiB in large folios that a mapping has only in part" in text
    assert "400 KiB by nobody: in RAM until the kernel splits them" in text




def test_the_options_of_a_table_work() -> None:
    with prepared("thp"), start("thp_split", stopped=True) as running:
        ran = command("maps", running.pid, "--huge", "--sort", "partly", "--limit", 1, "--columns",
                      "partly,fits,eligible", "--format", "csv")
        assert ran.code == 0, ran.err
        head, *rows = ran.out.splitlines()
        assert head == "start,perms,name,partly,fits,eligible"
        assert len(rows) == 1 and int(rows[0].split(",")[3]) == 412 * PAGE
