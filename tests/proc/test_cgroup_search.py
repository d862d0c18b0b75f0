"""Which cgroup a word names, in directories that stand for groups."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from pagewalk.model.errors import BadTarget, SourceUnavailable
from pagewalk.proc.cgroup_search import (
    check_controller,
    check_enabled,
    check_whole,
    container_of,
    find_group,
)
from pagewalk.proc.cgroups import Hierarchy
from tests.proc.test_cgroups import plain

ID, TWIN, POD = "4f" * 32, "4f" * 16 + "00" * 16, "ab" * 32
MADE = (
    "system.slice/app.service/worker", "system.slice/db.service", "user.slice/db.service",
    f"system.slice/docker-{ID}.scope/init", f"kubepods/pod1/{TWIN}",
    f"machine.slice/libpod-{POD}.scope", f"machine.slice/libpod-conmon-{POD}.scope", "a\x1b[1m b",
)


WORKER = "/system.slice/app.service/worker"


@pytest.fixture
def hierarchy(tmp_path: Path) -> Hierarchy:
    for name in MADE:
        (tmp_path / name).mkdir(parents=True)
    return plain(tmp_path)


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("/", "/"), ("//", "/"),
        ("/system.slice/app.service", "/system.slice/app.service"),
        ("/system.slice/app.service/", "/system.slice/app.service"),
        ("//system.slice//app.service", "/system.slice/app.service"),
        ("/./system.slice/app.service/.", "/system.slice/app.service"),
        ("/user.slice/../system.slice/./app.service", "/system.slice/app.service"),
        ("/.", "/"), ("/system.slice/..", "/"),
        ("app.service", "/system.slice/app.service"), ("app.service//worker/.", WORKER),
        ("worker", "/system.slice/app.service/worker"),
        ("app.service/worker", "/system.slice/app.service/worker"),
        ("user.slice/db.service", "/user.slice/db.service"),
        ("a\x1b[1m b", "/a\x1b[1m b"),
        (ID, f"/system.slice/docker-{ID}.scope"),
        (f"docker-{ID}.scope", f"/system.slice/docker-{ID}.scope"),
        (ID[:33], f"/system.slice/docker-{ID}.scope"),
        (TWIN[:34], f"/kubepods/pod1/{TWIN}"),
        (POD[:12], f"/machine.slice/libpod-{POD}.scope"),
    ],
)
def test_a_word_names_one_group(hierarchy: Hierarchy, word: str, path: str) -> None:
    assert find_group(word, hierarchy) == path


def test_a_group_without_the_controller_says_who_is_charged(hierarchy: Hierarchy) -> None:
    second = hierarchy._replace(version=2)
    for path, controllers, kind in (
        ("system.slice", "cpu memory pids", "domain"),
        ("system.slice/app.service", "pids", "domain"),
        ("system.slice/app.service/worker", "", "threaded"),
    ):
        Path(hierarchy.mount, path, "cgroup.controllers").write_text(f"{controllers}\n")
        Path(hierarchy.mount, path, "cgroup.type").write_text(f"{kind}\n")
    check_controller("/", second)
    check_controller("/system.slice", second)
    check_controller("/system.slice/app.service", hierarchy._replace(version=1))
    with pytest.raises(BadTarget, match=r"to /system\.slice; explain that, or write \+mem"):
        check_controller("/system.slice/app.service", second)
    with pytest.raises(BadTarget, match=r"charged to /system\.slice; explain that$"):
        check_controller("/system.slice/app.service/worker", second)


def test_a_directory_below_the_mount_point_is_a_group(hierarchy: Hierarchy) -> None:
    assert find_group(hierarchy.mount, hierarchy) == "/"
    assert find_group(f"{hierarchy.mount}/user.slice/", hierarchy) == "/user.slice"
    below = hierarchy._replace(root="/docker/x")
    assert find_group(f"{hierarchy.mount}/user.slice", below) == "/docker/x/user.slice"
    assert find_group("/docker/x/user.slice", below) == "/docker/x/user.slice"


def test_a_path_never_leads_above_what_is_mounted(hierarchy: Hierarchy) -> None:
    (Path(hierarchy.mount).parent / "outside").mkdir()
    for word in ("/../outside", "/user.slice/../../outside"):
        with pytest.raises(SourceUnavailable, match="is not below /, which is mounted"):
            find_group(word, hierarchy)
    above = hierarchy._replace(root="/..")
    assert find_group("/.././user.slice//", above) == "/../user.slice"


@pytest.mark.parametrize(
    ("word", "count"), [("db.service", 2), (ID[:12], 2), (ID[:32], 2)]
)
def test_several_are_listed(hierarchy: Hierarchy, word: str, count: int) -> None:
    with pytest.raises(BadTarget, match=f"{count} cgroups are called '{word}'") as raised:
        find_group(word, hierarchy)
    paths = [path for _, path in raised.value.candidates]
    assert len(paths) == count and paths == sorted(paths)
    assert all(path in str(raised.value) for path in paths)
    inode, path = raised.value.candidates[0]
    assert Path(f"{hierarchy.mount}{path}").stat().st_ino == inode


def test_no_more_than_twenty_are_listed(tmp_path: Path) -> None:
    for at in range(25):
        (tmp_path / f"{at:02}/same").mkdir(parents=True)
    with pytest.raises(BadTarget) as raised:
        find_group("same", plain(tmp_path))
    assert len(raised.value.candidates) == 25
    assert str(raised.value).endswith("/19/same\n  ... and 5 more")


@pytest.mark.parametrize(
    "word", ["", "nothing", "service", "/nothing", "/app.service", ID[:11], "4g" * 6, "../x", ".",
             "x/.."]
)
def test_none_is_a_sentence(hierarchy: Hierarchy, word: str) -> None:
    with pytest.raises(BadTarget, match="no memory cgroup is called '") as raised:
        find_group(word, hierarchy)
    assert raised.value.candidates == ()


def test_the_program_that_watches_a_container_is_not_the_container() -> None:
    assert container_of(f"/a/libpod-{POD}.scope") == container_of(f"/a/{POD}") == POD
    assert container_of(f"/a/cri-containerd-{POD}.scope") == POD
    assert container_of(f"/a/libpod-conmon-{POD}.scope") == container_of(f"/{POD}/init") == ""


def test_a_path_that_is_cut_off_names_no_group() -> None:
    check_whole("/" + "x" * 4093, 1)
    for path in ("/" + "x" * 4094, "/" + "\udcff" * 4094, "/é" * 1365):
        with pytest.raises(BadTarget, match="more than 4095 bytes, which /proc/7/cgroup cuts off"):
            check_whole(path, 7)


@pytest.mark.parametrize(
    ("cmdline", "cgroups", "why"),
    [
        ("quiet cgroup_disable=memory", "memory\t0\t1\t0\n", "booted with cgroup_disable=memory"),
        ("quiet", "memory\t0\t1\t0\n", "the memory controller is disabled"),
        ("quiet", "cpu\t0\t1\t0\nmemory\t0\t9\t1\n", ""),
        ("quiet", "", ""),
    ],
)
def test_a_kernel_without_memory_cgroups_says_so(
    tmp_path: Path, cmdline: str, cgroups: str, why: str
) -> None:
    (tmp_path / "cmdline").write_text(cmdline)
    (tmp_path / "cgroups").write_text(cgroups)
    with pytest.raises(SourceUnavailable, match=why) if why else nullcontext():
        check_enabled(str(tmp_path))
