"""Memory cgroups of this kernel: real groups, the processes in them, and what they are charged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.model.errors import BadTarget, GroupGone
from pagewalk.proc.cgroup_numbers import FILES, UNLIMITED, read_numbers
from pagewalk.proc.cgroup_search import find_group
from pagewalk.proc.cgroups import (
    Hierarchy,
    find_hierarchy,
    group_of,
    list_groups,
    not_charged,
    open_group,
    processes_of,
)
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.machine import IN_GUEST, fewer, memory_cgroup

pytestmark = pytest.mark.live

MIB = 1 << 20
FIRST = Path("/sys/fs/cgroup/memory").is_dir()
# Enters the group of argv[1], takes argv[2] bytes, says so, and waits.
MEMBER = """
import mmap, os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
memory = mmap.mmap(-1, int(sys.argv[2]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096):
    memory[at] = 1
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return find_hierarchy()


@contextmanager
def member(group: Path, size: int = 4096) -> Iterator[subprocess.Popen[str]]:
    """Run a process in ``group`` that has written ``size`` bytes of memory, or was killed at it."""
    with subprocess.Popen(
        [sys.executable, "-c", MEMBER, str(group), str(size)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def path_of(group: Path, hierarchy: Hierarchy) -> str:
    return f"{hierarchy.root.rstrip('/')}/{group.relative_to(hierarchy.mount)}"


@contextmanager
def made(paths: list[str], top: Path) -> Iterator[None]:
    """Make groups below ``top``, parents first, and remove them."""
    with memory_in(top):
        try:
            for path in paths:
                (top / path).mkdir()
            yield
        finally:
            for path in reversed(paths):
                if (top / path).is_dir():
                    (top / path).rmdir()


@contextmanager
def memory_in(group: Path) -> Iterator[None]:
    """Give the groups below ``group`` the memory controller too."""
    if not FIRST:
        (group / "cgroup.subtree_control").write_text("+memory")
    yield


@pytest.mark.vmshort
def test_the_hierarchy_is_where_the_memory_controller_is(hierarchy: Hierarchy) -> None:
    assert hierarchy.version == (1 if FIRST else 2)
    assert hierarchy.mount == ("/sys/fs/cgroup/memory" if FIRST else "/sys/fs/cgroup")
    dev = os.stat(hierarchy.mount).st_dev
    assert hierarchy.dev == os.major(dev) << 32 | os.minor(dev)
    assert not_charged(hierarchy.version) == ()  # no kernel that the tests boot has that off


@pytest.mark.vmshort
def test_a_process_is_in_its_group_and_its_group_has_it(hierarchy: Hierarchy) -> None:
    with memory_cgroup("member") as group, member(group) as process:
        path = path_of(group, hierarchy)
        assert group_of(process.pid, hierarchy) == path
        assert processes_of(hierarchy, path) == [process.pid]
        assert path in list_groups(hierarchy).path
        assert find_group(group.name, hierarchy) == find_group(str(group), hierarchy) == path


def words(file: Path) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[1]) for line in file.read_text().splitlines()}


@pytest.mark.vmshort
def test_the_numbers_are_those_of_the_files(hierarchy: Hierarchy) -> None:
    with memory_cgroup("numbers") as group, member(group, 8 * MIB):
        path = path_of(group, hierarchy)

        def look() -> None:
            before = words(group / "memory.stat")
            numbers = read_numbers(hierarchy, path)
            assert numbers.stat == before == words(group / "memory.stat")
            current = int((group / FILES[hierarchy.version]["current"]).read_text())
            assert numbers.current == current

        look_again(look)
        numbers = read_numbers(hierarchy, path)
        assert numbers.stat and numbers.current and numbers.peak
        # What the process wrote, and its own program's memory beside it.
        assert numbers.stat["rss" if FIRST else "anon"] >= 8 * MIB
        assert numbers.peak >= numbers.current >= 8 * MIB
        # Every number is there whose file is.
        for name, file in FILES[hierarchy.version].items():
            unlimited = "limit" in name or name == "high"
            assert (getattr(numbers, name) is not None) == (
                (group / file).exists() and not unlimited
            )


def test_a_limit_is_bytes_and_none_is_none(hierarchy: Hierarchy) -> None:
    with memory_cgroup("limits") as group:
        path = path_of(group, hierarchy)
        (group / FILES[hierarchy.version]["limit"]).write_text(str(64 * MIB))
        assert read_numbers(hierarchy, path).limit == 64 * MIB
        (group / FILES[hierarchy.version]["limit"]).write_text("-1" if FIRST else "max")
        assert read_numbers(hierarchy, path).limit is None
        if not FIRST:
            for name, said in (("high", str(32 * MIB)), ("low", str(4 * MIB)), ("min", "max")):
                (group / f"memory.{name}").write_text(said)
            numbers = read_numbers(hierarchy, path)
            assert (numbers.high, numbers.low, numbers.min) == (32 * MIB, 4 * MIB, UNLIMITED)


def test_a_kill_at_the_limit_is_an_event(hierarchy: Hierarchy) -> None:
    with memory_cgroup("killed") as group:
        (group / FILES[hierarchy.version]["limit"]).write_text(str(32 * MIB))
        with member(group, 64 * MIB) as process:
            assert process.wait() == -9
        path = path_of(group, hierarchy)
        events = read_numbers(hierarchy, path).events
        assert events and events["oom_kill"] == 1
        found = pagewalk("explain", path, "--format", "json").json
        assert found["events"]["oom_kill"] == 1
        # It was refused a page at the limit, where a CPU no longer charges as many as 64 at once.
        assert found["peak"] >= 32 * MIB - 64 * 4096
        text = " ".join(pagewalk("explain", path).out.split())
        assert re.search(r"was reached \d+ times?; 1 process killed for lack of memory", text)


def test_the_root_has_no_limit(hierarchy: Hierarchy) -> None:
    numbers = read_numbers(hierarchy, hierarchy.root)
    assert numbers.limit is None and numbers.stat
    assert numbers.current is None  # only groups below have a number of their own


# ---- what vanishes, and odd names


def test_a_removed_group_is_gone(hierarchy: Hierarchy) -> None:
    with memory_cgroup("gone") as group:
        path = path_of(group, hierarchy)
    for ask in (read_numbers, processes_of):
        with pytest.raises(GroupGone, match=path):
            ask(hierarchy, path)
    with pytest.raises(BadTarget, match="no memory cgroup is called"):
        find_group(path, hierarchy)


def test_a_group_made_again_is_not_taken_for_the_same(hierarchy: Hierarchy) -> None:
    with memory_cgroup("again") as top, made(["same"], top):
        path = f"{path_of(top, hierarchy)}/same"
        with pytest.raises(GroupGone), open_group(hierarchy, path) as group:
            opened = os.open("memory.stat", os.O_RDONLY, dir_fd=group)
            (top / "same").rmdir()
            (top / "same").mkdir()
            try:
                with pytest.raises(OSError):  # what read_numbers takes for gone
                    os.read(opened, 100)
            finally:
                os.close(opened)
            os.stat("cgroup.procs", dir_fd=group)


# Makes and removes groups in argv[1] until it is killed.
CHURN = """
import os, sys
os.chdir(sys.argv[1])
print(flush=True)
while True:
    for at in range(5):
        os.mkdir(str(at))
    for at in range(5):
        os.rmdir(str(at))
"""


def test_groups_that_vanish_while_they_are_read(hierarchy: Hierarchy) -> None:
    gone = read = 0
    with memory_cgroup("churn") as top, memory_in(top):
        path = path_of(top, hierarchy)
        with subprocess.Popen(
            [sys.executable, "-c", CHURN, str(top)], stdout=subprocess.PIPE
        ) as process:
            try:
                assert process.stdout and process.stdout.readline()
                end = time.monotonic() + 120
                while not (gone > 20 and read > 20) and time.monotonic() < end:
                    for below in (p for p in list_groups(hierarchy).path if p.startswith(path)):
                        try:
                            numbers = read_numbers(hierarchy, below)
                        except GroupGone:
                            gone += 1
                            continue
                        # Whatever was read whole has all that any group has.
                        assert None not in (numbers.current, numbers.stat, numbers.events)
                        read += below != path
            finally:
                process.kill()
                process.wait()
                for at in range(5):
                    if (top / str(at)).is_dir():
                        (top / str(at)).rmdir()
    assert gone > 20 and read > 20


ODD = [b"a b", b"\x1b[31mred", b"\xff\xfe", b"back\\slash", b"tab\tx", b"cr\rx", "ü".encode()]


@pytest.mark.parametrize("name", ODD, ids=bytes.hex)
def test_a_name_keeps_every_byte(hierarchy: Hierarchy, name: bytes) -> None:
    with memory_cgroup("odd") as top, made([os.fsdecode(name)], top):
        path = f"{path_of(top, hierarchy)}/{os.fsdecode(name)}"
        assert path in list_groups(hierarchy).path
        assert find_group(os.fsdecode(name), hierarchy) == path
        assert read_numbers(hierarchy, path).stat is not None
        with member(top / os.fsdecode(name)) as process:
            assert group_of(process.pid, hierarchy) == path


@pytest.mark.parametrize("name", ["x" * 100, "\N{TIBETAN SYLLABLE OM}" * 33])
def test_groups_nest_deeper_than_a_path_may_be_long(hierarchy: Hierarchy, name: str) -> None:
    with memory_cgroup("deep") as top:
        depth = 60  # 6 000 bytes; PATH_MAX is 4 096
        fds = [os.open(top, os.O_RDONLY)]
        try:
            for _ in range(depth):
                os.mkdir(name, dir_fd=fds[-1])
                fds.append(os.open(name, os.O_RDONLY, dir_fd=fds[-1]))
            groups = list_groups(hierarchy)
            deepest = path_of(top, hierarchy) + f"/{name}" * depth
            row = groups.path.index(deepest)
            assert int(groups.inode[row]) == os.fstat(fds[-1]).st_ino
            assert processes_of(hierarchy, deepest) == []
        finally:
            for fd in reversed(fds[:-1]):
                os.close(fds.pop())
                if fds:
                    os.rmdir(name, dir_fd=fd)
            os.close(fds.pop())


def test_ten_thousand_groups(hierarchy: Hierarchy) -> None:
    wide, each = 100, fewer(100)
    names = [name for at in range(wide) for name in (
        f"{at}", *(f"{at}/{below}" for below in range(each - 1))
    )]  # fmt: skip
    with memory_cgroup("many") as top, made(names, top):
        started = time.process_time()
        groups = list_groups(hierarchy)
        took = time.process_time() - started
        ours = path_of(top, hierarchy)
        rows = {path: row for row, path in enumerate(groups.path)}
        assert {f"{ours}/{name}" for name in names} <= rows.keys()
        for name in names:
            row = rows[f"{ours}/{name}"]
            assert int(groups.inode[row]) == os.stat(top / name).st_ino
            assert groups.path[groups.parent[row]] == os.path.dirname(f"{ours}/{name}")
        # a quarter of a second here; a guest is ten times slower
        assert took < 1 or IN_GUEST


@pytest.mark.skipif(not FIRST, reason="only version 1 has a hierarchy for each controller")
def test_a_group_of_another_hierarchy_is_told_apart(hierarchy: Hierarchy) -> None:
    others = [f"/sys/fs/cgroup/{name}" for name in ("pids", "freezer", "unified")]
    others = [other for other in others if Path(other).is_dir()]
    assert others
    for other in others:
        with pytest.raises(BadTarget, match=f"is a group of the hierarchy mounted at {other}"):
            find_group(other, hierarchy)


# ---- threaded groups, and cgroup namespaces


@pytest.mark.skipif(FIRST, reason="only version 2 has threaded groups")
def test_a_threaded_group_has_the_processes_of_its_threads(hierarchy: Hierarchy) -> None:
    with memory_cgroup("threads") as top, member(top) as process:
        below = top / "below"
        below.mkdir()
        try:
            (below / "cgroup.type").write_text("threaded")
            (below / "cgroup.threads").write_text(str(process.pid))
            path = f"{path_of(top, hierarchy)}/below"
            assert processes_of(hierarchy, path) == [process.pid]
            assert read_numbers(hierarchy, path).current is None  # memory is not for threads
        finally:
            process.kill()
            process.wait()
            below.rmdir()


IN_NAMESPACE = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
script = '''
import os, subprocess, sys, tempfile
from pagewalk.model.errors import SourceUnavailable
from pagewalk.proc.cgroups import find_hierarchy, group_of, list_groups
before = find_hierarchy()
ours = group_of(os.getpid(), before)
print(before.root, ours)
point = tempfile.mkdtemp()
kind = ["cgroup", "-o", "memory"] if before.version == 1 else ["cgroup2"]
subprocess.run(["mount", "-t", *kind, "none", point], check=True)
after = find_hierarchy()
print(after.mount == point, after.root, *list_groups(after).path)
subprocess.run(["umount", point], check=True)
os.rmdir(point)
'''
os.execvp("unshare", ["unshare", "--cgroup", "--mount", sys.executable, "-c", script])
"""


def test_in_a_cgroup_namespace_paths_are_its_own(hierarchy: Hierarchy) -> None:
    with memory_cgroup("namespace") as top, made(["inner", "inner/most"], top):
        ran = subprocess.run(
            [sys.executable, "-c", IN_NAMESPACE, str(top / "inner")],
            capture_output=True, text=True, check=True,
        )
    first, second = ran.stdout.splitlines()
    assert first == "/../.. /"
    assert second == "True / / /most"
