"""What malloc holds, against malloc's own numbers and what malloc_trim(0) really gives back."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel_says import read_smaps
from tests.live.command import pagewalk
from tests.machine import prepared
from tests.targets import CannotProvoke
from tests.targets.glibcs import SUITES, allocating
from tests.targets.pythons import PYTHONS, interpreter

pytestmark = pytest.mark.live

PATTERNS = ("scattered", "freed", "comb", "wide_comb", "fastbins", "threads", "many_heaps", "ended",
            "mapped", "foreign_break", "blocked_break", "no_break", "nothing",
            "locked", "partly_locked", "containers")
# What of the heap's numbers has a name in mallinfo2(3).
SAME = ("obtained", "in_use", "free", "mmapped")


def anonymous(pid: int) -> int:
    """Return the process's anonymous bytes in RAM, as smaps says."""
    return sum(vma.fields["Anonymous"] for vma in read_smaps(pid)) << 10


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_is_what_malloc_says_and_what_trim_gives_back(suite: str, pattern: str) -> None:
    with allocating(suite, pattern) as program:
        said = program.ask("info")
        before = anonymous(program.pid)
        found = pagewalk("heap", program.pid, "--format", "json").json
        assert anonymous(program.pid) == before  # reading has faulted nothing in
        program.ask("trim")
        given_back = before - anonymous(program.pid)
    assert found["exact"] is True, found["why"]
    assert {name: found[name] for name in SAME} == {name: said[name] for name in SAME}
    assert found["trim"] == given_back
    assert (found["locked"] > 0) == (pattern in ("locked", "partly_locked"))


@pytest.mark.parametrize("suite", SUITES)
def test_a_busy_heap_is_exact_while_stopped(suite: str) -> None:
    with allocating(suite, "churn") as program:
        # On a busy machine half a second may be a tenth of that for us.
        ran = pagewalk("heap", program.pid, "--freeze", "--longest-stop", "10000",
                       "--format", "json")
        found = ran.json
        assert found["exact"] is True, found["why"]
        assert found["stopped_ns"] > 0
        assert ran.code == 0
        assert found["free"] + found["in_use"] == found["obtained"]
        # While it runs there are only estimates, and they say so.
        ran = pagewalk("heap", program.pid, "--format", "json")
        assert ran.json["exact"] is False and ran.json["why"] and ran.code == 3


# How many of the comb's chunks the thread's cache holds, up to 2.41 and in 2.43; a chunk of 700
# bytes has 720.
CHUNK = 720
TUNABLES = {
    "": (7, 16),
    "glibc.malloc.tcache_count=0": (0, 0),
    "glibc.malloc.tcache_count=100": (100, 100),
    "glibc.malloc.tcache_max=64": (0, 0),
    "glibc.malloc.mmap_threshold=600": (0, 0),
    "glibc.malloc.mmap_max=0": (7, 16),
    "glibc.malloc.arena_max=1": (7, 16),
    "glibc.malloc.trim_threshold=4096": (7, 16),
    "glibc.malloc.perturb=85": (7, 16),
    "glibc.malloc.hugetlb=1": (7, 16),
}


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("tunable", TUNABLES)
def test_tunables_and_what_threads_keep(suite: str, tunable: str) -> None:
    with allocating(suite, "comb", GLIBC_TUNABLES=tunable) as program:
        said = program.ask("info")
        before = anonymous(program.pid)
        found = pagewalk("heap", program.pid, "--format", "json").json
        program.ask("trim")
        given_back = before - anonymous(program.pid)
    assert found["exact"] is True, found["why"]
    assert {name: found[name] for name in SAME} == {name: said[name] for name in SAME}
    assert found["trim"] == given_back
    assert found["tcache"] == CHUNK * TUNABLES[tunable][suite == "forky"]


@pytest.mark.parametrize("suite", SUITES[1:])
@pytest.mark.parametrize("pattern", ["comb", "threads"])
def test_arenas_of_huge_pages_are_withheld(suite: str, pattern: str) -> None:
    with allocating(suite, pattern, GLIBC_TUNABLES="glibc.malloc.hugetlb=2") as program:
        ran = pagewalk("heap", program.pid, "--format", "json")
    assert ran.code == 3 and ran.json["allocator"] == "glibc"
    assert ran.json["trim"] is None and "hugetlb=2" in ran.json["why"]


@contextmanager
def python(program: str, errors: Path, which: str = sys.executable) -> Iterator[int]:
    """Run a Python program that says when it is ready; what it writes to stderr is in a file."""
    words, environment = interpreter(which)
    with open(errors, "wb") as file:
        process = subprocess.Popen(
            [*words, "-u", "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=environment,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n", errors.read_text()
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("which", PYTHONS)
def test_pools_in_use_are_those_that_the_interpreter_counts(tmp_path: Path, which: str) -> None:
    program = """if True:
        import sys
        pairs = [(i, str(i)) for i in range(200_000)]
        kept = pairs[::997]
        del pairs
        sys._debugmallocstats()
        print("ready")
        sys.stdin.read()
    """
    with python(program, tmp_path / "stats", which) as pid:
        found = pagewalk("heap", pid, "--format", "json").json
    assert found["python"]["why"] == ""
    pool = found["python"]["pool"]
    stats = (tmp_path / "stats").read_text()
    # class, size, pools, blocks in use, blocks available
    rows = re.findall(r"(?m)^ +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", stats)
    assert len(rows) > 10
    assert found["pools"]["used"] == sum(int(row[2]) for row in rows)
    # What it allocates between counting and reading are a few objects: it prints and waits.
    blocks = sum(int(row[1]) * int(row[3]) for row in rows)
    assert abs(found["pools"]["blocks"] - blocks) < pool
    # A pool is touched from its start on, as its blocks are handed out.
    assert 0 < found["pools"]["in_use"] <= found["pools"]["used"] * pool
    unused = re.search(r"(\d+) unused pools", stats)
    assert unused is not None
    # Pools that were never used have no header, and are not in RAM.
    assert 0 < found["pools"]["free"] <= int(unused[1]) * pool


def test_pages_of_files_that_it_has_written_to_are_those_of_smaps(tmp_path: Path) -> None:
    with python("print('ready'); input()", tmp_path / "errors") as pid:
        found = pagewalk("heap", pid, "--format", "json").json
        smaps = Path(f"/proc/{pid}/smaps").read_text()
    # perms, offset, device, inode: 0 without a file
    file = r"(?m)^\S+ ...p \S+ \S+ [1-9]\d* .*\n(?:\w+: .*\n)*?Anonymous: +(\d+)"
    files = re.findall(file, smaps)
    assert found["written"] == sum(map(int, files)) << 10 > 0


def test_stacks_of_threads_that_were_joined(tmp_path: Path) -> None:
    program = """if True:
        import ctypes, sys
        libc, threads = ctypes.CDLL(None), [ctypes.c_ulong() for _ in range(3)]
        for thread in threads:
            assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0
        for thread in threads:
            assert libc.pthread_cancel(thread) == libc.pthread_join(thread, None) == 0
        print("ready")
        sys.stdin.read()
    """
    with python(program, tmp_path / "errors") as pid:
        stacks = pagewalk("heap", pid, "--format", "json").json["stacks"]
    assert (stacks["live"], stacks["kept"]) == (0, 3)


def test_stacks_of_living_and_of_ended_threads(tmp_path: Path) -> None:
    program = """if True:
        import sys, threading
        done = threading.Event()
        waiting = [threading.Thread(target=done.wait, daemon=True) for _ in range(7)]
        ended = [threading.Thread(target=done.wait) for _ in range(4)]
        for thread in [*waiting, *ended]:
            thread.start()
        done.set()
        for thread in [*waiting, *ended]:
            thread.join()
        stay = threading.Event()
        for _ in range(3):
            threading.Thread(target=stay.wait, daemon=True).start()
        print("ready")
        sys.stdin.read()
    """
    with python(program, tmp_path / "errors") as pid:
        stacks = pagewalk("heap", pid, "--format", "json").json["stacks"]
    # Eleven stacks at once (fewer if one had ended before the last began), three taken again.
    assert stacks["live"] == 3
    assert 0 < stacks["kept"] <= 8
    assert stacks["size"] % 3 == 0 and 0 < stacks["touched"] < stacks["size"]
    assert stacks["kept_touched"] >= stacks["kept"] * 4096


def test_a_forked_child_frees_little_by_trimming(tmp_path: Path) -> None:
    program = """if True:
        import ctypes, os, sys
        malloc = ctypes.CDLL(None).malloc
        malloc.restype = ctypes.c_void_p
        blocks = [malloc(2000) for _ in range(20_000)]
        for block in blocks:
            ctypes.memset(block, 1, 2000)
        free = ctypes.CDLL(None).free
        for block in blocks[:-1]:
            free(ctypes.c_void_p(block))
        if os.fork():
            print("ready")
        sys.stdin.read()
    """
    with python(program, tmp_path / "errors") as pid:
        found = pagewalk("heap", pid, "--format", "json").json
    assert found["trim"] > 30_000_000
    assert found["trim_exclusive"] < found["trim"] / 10


def test_an_ordinary_user_is_refused_for_a_process_of_another(tmp_path: Path) -> None:
    with python("print('ready'); input()", tmp_path / "errors") as pid:
        ran = pagewalk("heap", pid, before=("setpriv", "--reuid=65534", "--clear-groups"))
    assert ran.code == 6 and "cannot read" in ran.err


def test_an_ordinary_user_sees_everything_but_parts_of_huge_pages(tmp_path: Path) -> None:
    program = """if True:
        import ctypes, os, sys
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
        os.setgid(65534), os.setuid(65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which setuid has taken away
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        blocks = [libc.malloc(2000) for _ in range(20_000)]
        for block in blocks:
            ctypes.memset(block, 1, 2000)
        for block in blocks[:-1]:
            libc.free(ctypes.c_void_p(block))
        if os.fork():
            block = libc.malloc(10_000_000 // 3)
            ctypes.memset(block, 1, 10_000_000 // 3)
            libc.free(ctypes.c_void_p(block))
            print("ready")
        sys.stdin.read()
    """
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with python(program, tmp_path / "errors") as pid:
        all_told = pagewalk("heap", pid, "--format", "json").json
        ran = pagewalk("heap", pid, "--format", "json", before=user)
        screen = pagewalk("heap", pid, before=user)
    told = ran.json
    assert told["exact"] is True and ran.code == 0, (told["why"], ran.err)
    for name in ("obtained", "in_use", "free", "trim", "trim_exclusive", "tcache", "explained"):
        assert told[name] == all_told[name], name
    assert 0 < told["trim_exclusive"] < told["trim"]
    assert told["withheld"] == [] and "n/a" not in screen.out


def test_who_else_maps_parts_of_huge_pages_is_withheld_from_an_ordinary_user(
    tmp_path: Path
) -> None:
    program = """if True:
        import ctypes, os, sys
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.mallopt(-3, 1 << 30), libc.mallopt(-1, 1 << 30)  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        os.setgid(65534), os.setuid(65534)
        libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which setuid has taken away
        size, huge = 16 << 20, 2 << 20
        block = libc.malloc(size)
        first = -(-block // huge) * huge
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size - huge), 14)  # MADV_HUGEPAGE
        ctypes.memset(block, 1, size)
        libc.free(ctypes.c_void_p(block))
        print("ready")
        sys.stdin.read()
    """
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with prepared("thp"), python(program, tmp_path / "errors") as pid:
        if not sum(vma.fields["AnonHugePages"] for vma in read_smaps(pid)):
            raise CannotProvoke("this machine has no huge page to give")
        ran = pagewalk("heap", pid, "--format", "json", before=user)
        screen = pagewalk("heap", pid, before=user).out
    assert ran.code == 3 and ran.json["exact"] is True
    assert ran.json["trim"] >= 14 << 20 and ran.json["trim_exclusive"] is None
    assert len(ran.json["withheld"]) == 1
    assert "partial: trim_exclusive" in screen and screen.count("n/a") == 0


def test_the_java_heap_is_what_jstat_says(tmp_path: Path) -> None:
    (tmp_path / "Wait.java").write_text("""class Wait { public static void main(String[] words)
        throws Exception { System.gc(); System.out.println("ready"); System.in.read(); } }""")
    process = subprocess.Popen(["java", "-Xmx64m", "-XX:+UseSerialGC", str(tmp_path / "Wait.java")],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        java = pagewalk("heap", process.pid, "--freeze", "--format", "json").json["java"]
        said = subprocess.run(["jstat", "-gc", str(process.pid)], check=True, capture_output=True,
                              text=True).stdout.splitlines()
    finally:
        process.kill()
        process.wait()
    table = dict(zip(said[0].split(), said[1].split(), strict=True))
    found = {space["name"]: space for space in java}
    # jstat shows KiB to a tenth.
    for name, capacity, used in (("eden", "EC", "EU"), ("old", "OC", "OU"),
                                 ("metaspace", "MC", "MU")):
        assert f"{found[name]['capacity'] / 1024:.1f}" == table[capacity]
        assert f"{found[name]['used'] / 1024:.1f}" == table[used]
