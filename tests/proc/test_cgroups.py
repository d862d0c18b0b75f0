"""Memory cgroups: where they are by hand-written mountinfo; plain directories as groups."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pagewalk.model.errors import BadText, GroupGone, ProcessGone, SourceUnavailable
from pagewalk.proc.cgroups import (
    PIECE,
    Hierarchy,
    device,
    find_hierarchy,
    group_of,
    list_groups,
    not_charged,
    open_group,
    parse_membership,
    parse_pids,
    pieces,
    processes_of,
)

V1 = "35 31 0:32 %s %s rw,relatime - cgroup cgroup rw,memory\n"
CPU = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "41 31 0:38 %s %s rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
ROWS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t%d\t60\t%d\n"


def proc(folder: Path, mounts: str, cmdline: str = "quiet\n", cgroups: str = ROWS % (4, 1)) -> str:
    """Write what find_hierarchy reads of /proc into ``folder``."""
    (folder / "self").mkdir(exist_ok=True)
    (folder / "self/mountinfo").write_text(mounts)
    (folder / "cmdline").write_text(cmdline)
    (folder / "cgroups").write_text(cgroups)
    return str(folder)


def second(folder: Path, controllers: str) -> str:
    """Make a directory that tells which controllers it has; return its path."""
    point = folder / "unified"
    point.mkdir(exist_ok=True)
    (point / "cgroup.controllers").write_text(f"{controllers}\n")
    return str(point)


def plain(folder: Path, version: int = 2, root: str = "/") -> Hierarchy:
    """Return a hierarchy whose groups are the directories in ``folder``."""
    dev = folder.stat().st_dev
    return Hierarchy(version, str(folder), root, os.major(dev) << 32 | os.minor(dev))


def test_version_1_is_found_by_its_controller(tmp_path: Path) -> None:
    mounts = CPU + V1 % ("/", "/sys/fs/cgroup/memory") + V2 % ("/", second(tmp_path, "hugetlb"))
    found = find_hierarchy(proc(tmp_path, mounts))
    assert found == Hierarchy(1, "/sys/fs/cgroup/memory", "/", 32)


def test_version_2_is_found_by_what_its_root_was_given(tmp_path: Path) -> None:
    point = second(tmp_path, "cpu io memory pids")
    assert find_hierarchy(proc(tmp_path, CPU + V2 % ("/", point))) == Hierarchy(2, point, "/", 38)


def test_nothing_is_read_of_other_mounts(tmp_path: Path) -> None:
    # Opening a FIFO without a writer waits for ever, as a server that is gone would.
    (tmp_path / "network").mkdir()
    os.mkfifo(tmp_path / "network/cgroup.controllers")
    network = f"50 31 0:50 / {tmp_path}/network rw - nfs4 server:/ rw\n"
    found = find_hierarchy(proc(tmp_path, network + V1 % ("/", "/memory")))
    assert found.mount == "/memory"


def test_a_container_sees_a_part_of_the_tree(tmp_path: Path) -> None:
    mounts = V1 % ("/docker/a\\040b", "/sys/fs/cgroup/memory")
    assert find_hierarchy(proc(tmp_path, mounts)).root == "/docker/a b"


def test_of_several_mounts_the_one_that_shows_most_is_taken(tmp_path: Path) -> None:
    parts = [V1 % ("/..", "/outside"), V1 % ("/a", "/part"), V1 % ("/", "/old"), V1 % ("/", "/new")]
    assert find_hierarchy(proc(tmp_path, "".join(parts))).mount == "/new"
    assert find_hierarchy(proc(tmp_path, "".join(parts[:3]))).mount == "/old"
    assert find_hierarchy(proc(tmp_path, "".join(parts[:2]))).mount == "/part"
    assert find_hierarchy(proc(tmp_path, parts[0])).mount == "/outside"


def test_of_mounts_at_one_point_the_last_is_seen(tmp_path: Path) -> None:
    whole, part = (V1 % (root, "/sys/fs/cgroup/memory") for root in ("/", "/web"))
    assert find_hierarchy(proc(tmp_path, whole + part)).root == "/web"
    assert find_hierarchy(proc(tmp_path, part + whole)).root == "/"


@pytest.mark.parametrize(
    ("cmdline", "one", "two"),
    [
        ("quiet\n", "", ""), ("quiet cgroup.memory=nokmem\n", "kernel", "kernel"),
        ("cgroup.memory=nosocket quiet\n", "", "sockets"),
        ('cgroup.memory="nokmem,nosocket"\n', "kernel", "kernel sockets"),
        ("cgroup.memory=nokmem cgroup.memory=nosocket", "kernel", "kernel sockets"),
    ],
)
def test_what_is_charged_to_no_group_is_told_with_the_option(
    tmp_path: Path, cmdline: str, one: str, two: str
) -> None:
    for version, expected in ((1, one), (2, two)):
        rows = not_charged(version, proc(tmp_path, V1 % ("/", "/m"), cmdline))
        named = " ".join(word for row in rows for word in ("kernel", "sockets") if word in row.what)
        assert named == expected
        words = ["nokmem"] * ("kernel" in expected) + ["nosocket"] * ("sockets" in expected)
        assert [f"cgroup.memory={word}" in row.why for row, word in zip(rows, words, strict=True)
                ] == [True] * len(words)
        assert not any(row.partial for row in rows)  # the kernel never tells it


@pytest.mark.parametrize(
    ("mounts", "cmdline", "cgroups", "why"),
    [
        (CPU, "cgroup_disable=pids,memory\n", ROWS % (0, 0), "booted with cgroup_disable=memory"),
        (CPU, "quiet\n", "cpu\t1\t1\t1\n", "no memory controller: /proc/cgroups does not list it"),
        (CPU, "quiet\n", ROWS % (0, 0), "disabled; boot with cgroup_enable=memory"),
        (CPU, "quiet\n", ROWS % (4, 1), "version 1 that is not mounted here"),
        (V2 % ("/x", "/no/such"), "quiet\n", ROWS % (0, 1), "at /no/such was not given the memory"),
        (CPU, "quiet\n", ROWS % (0, 1), "no cgroups are mounted here; mount -t cgroup2"),
    ],
)
def test_without_a_memory_controller_a_sentence_says_why(
    tmp_path: Path, mounts: str, cmdline: str, cgroups: str, why: str
) -> None:
    with pytest.raises(SourceUnavailable) as raised:
        find_hierarchy(proc(tmp_path, mounts, cmdline, cgroups))
    assert why in str(raised.value)


def test_a_kernel_may_have_it_in_version_2_only(tmp_path: Path) -> None:
    # Then /proc/cgroups does not list it; without CONFIG_MEMCG there is no kpagecgroup.
    (tmp_path / "kpagecgroup").write_bytes(b"")
    for mounts, why in ((V2 % ("/x", "/no/such"), "was not given the memory"), (CPU, "no cgroups")):
        with pytest.raises(SourceUnavailable, match=why):
            find_hierarchy(proc(tmp_path, mounts, cgroups="cpu\t0\t1\t1\n"))


def test_without_proc_a_sentence_says_so() -> None:
    with pytest.raises(SourceUnavailable, match="mountinfo: No such file or directory; mount"):
        find_hierarchy("/no/such")


# ---- groups


def test_every_group_is_listed_after_its_parent(tmp_path: Path) -> None:
    for name in ("a/b", "a/c", "d", "e\x1b[31m"):
        (tmp_path / name).mkdir(parents=True)
    os.mkdir(os.fsencode(tmp_path) + b"/not\xffutf8")
    (tmp_path / "a/memory.stat").write_text("anon 0\n")
    groups = list_groups(plain(tmp_path))
    made = {b"/", b"/a", b"/a/b", b"/a/c", b"/d", b"/e\x1b[31m", b"/not\xffutf8"}
    assert {os.fsencode(path) for path in groups.path} == made
    assert groups.path[0] == "/" and groups.parent[0] == -1
    assert (groups.parent < np.arange(len(groups))).all()
    for row, path in enumerate(groups.path):
        assert int(groups.inode[row]) == os.stat(f"{tmp_path}/{path}").st_ino
        assert row == 0 or groups.path[groups.parent[row]] == os.path.dirname(path)


def test_in_a_container_paths_are_below_its_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    groups = list_groups(plain(tmp_path, root="/docker/x"))
    assert groups.path == ("/docker/x", "/docker/x/a")


def test_a_path_is_looked_up_below_what_is_mounted_only(tmp_path: Path) -> None:
    (tmp_path / "mount/a").mkdir(parents=True)
    (tmp_path / "mount/link").symlink_to("..")
    hierarchy = plain(tmp_path / "mount", root="/docker/x")
    for path, name in (("/docker/x", "mount"), ("/docker/x/a", "mount/a")):
        with open_group(hierarchy, path) as group:
            assert os.fstat(group).st_ino == (tmp_path / name).stat().st_ino
    for path in ("/", "/docker", "/docker/xa", "/docker/x/../y", "/docker/x/.."):
        with pytest.raises(SourceUnavailable, match="is not below /docker/x"), \
                open_group(hierarchy, path):
            pass
    for path in ("/docker/x/b", "/docker/x/link", f"/docker/x/{'b' * 300}"):
        with pytest.raises(GroupGone, match=path), open_group(hierarchy, path):
            pass


def test_another_file_system_in_its_place_is_no_hierarchy(tmp_path: Path) -> None:
    other = plain(tmp_path)._replace(dev=plain(tmp_path).dev + 1)
    with pytest.raises(SourceUnavailable, match="another mount hides"):
        list_groups(other)


def test_a_path_longer_than_the_kernel_takes_is_looked_up_in_pieces() -> None:
    names = ["x" * 200] * 100 + ["y"]
    found = pieces("/".join(names))
    assert "/".join(found) == "/".join(names)
    assert all(len(piece) < PIECE for piece in found)
    assert PIECE * 4 < 4096  # PATH_MAX, were all of four bytes
    assert pieces("") == [] and pieces("a/b") == ["a/b"]


def test_a_device_is_numbered_as_in_mountinfo() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        dev = os.stat("/proc").st_dev
        assert device(fd) == os.major(dev) << 32 | os.minor(dev)
    finally:
        os.close(fd)


# ---- who is in them


CGROUP = b"9:name=systemd:/\n4:memory:/a:b/c\n2:cpu,cpuacct:/d\n0::/e\n"


def test_the_line_of_the_memory_controller_counts() -> None:
    assert parse_membership(CGROUP, 1) == "/a:b/c"
    assert parse_membership(CGROUP, 2) == "/e"
    assert parse_membership(b"3:cpuset,memory:/f\n", 1) == "/f"
    assert parse_membership(b"2:cpu:/d\n", 1) is None
    assert parse_membership(b"2:cpu:/d\n", 2) is None


def test_a_removed_group_keeps_its_name() -> None:
    assert parse_membership(b"0::/a b (deleted)\n", 2) == "/a b"
    assert parse_membership(b"4:memory:/a (deleted)\n", 1) == "/a (deleted)"  # its very name


@pytest.mark.parametrize("line", [b"\n", b"memory:/a\n", b"4:memory:\n", b"4:memory:/a"])
def test_an_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 1 of cgroup:"):
        parse_membership(line, 1)


def test_a_pid_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("70\n0\n12\n70\n0\n")  # as other namespaces' are
    assert processes_of(plain(tmp_path), "/") == [0, 12, 70]
    with pytest.raises(BadText, match=r"line 1 of cgroup\.procs"):
        parse_pids(b"-1\n")


def test_a_process_that_ended_is_gone() -> None:
    with pytest.raises(ProcessGone):
        group_of(2**22 + 1, Hierarchy(1, "/sys/fs/cgroup/memory", "/", 0))
