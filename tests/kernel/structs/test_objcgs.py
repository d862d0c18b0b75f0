"""What obj_cgroups have left and CPUs have in stock, of groups that charge in a known way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.memcgs import all_groups
from pagewalk.kernel.structs.objcgs import Objcgs, all_objcgs, read_stocks
from pagewalk.model.columns import take
from tests.charges import inside, member, row_of
from tests.kernel_says import PAGE
from tests.live.bracket import look_again
from tests.machine import memory_cgroup

pytestmark = [pytest.mark.live, pytest.mark.vmshort]

REMOVED = 12
NOTHING = np.zeros(0, np.uint64)


@contextmanager
def files(name: str) -> Iterator[Path]:
    """Make a directory on a tmpfs, and delete it with what is in it."""
    directory = Path(f"/dev/shm/pagewalk-{os.getpid()}-{name}")
    directory.mkdir()
    try:
        yield directory
    finally:
        delete(directory)
        directory.rmdir()


def delete(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


def of_group(kernel: Kernel, direct_map: DirectMap, group: Path, known: np.ndarray) -> Objcgs:
    """Return the obj_cgroups that charge a group."""
    groups = all_groups(kernel)
    found, whole = all_objcgs(kernel, direct_map, groups, known, listed=True)
    assert whole
    return take(found, found.group == row_of(groups, group))


def test_a_removed_group_leaves_its_obj_cgroup_while_an_object_lives(
    kernel: Kernel, direct_map: DirectMap
) -> None:
    def check(many: int) -> None:
        found = of_group(kernel, direct_map, outer, NOTHING)
        assert len(found) == many
        # each has a page less two objects or so: an inode and a name
        assert (found.left[found.left > 0] < PAGE).all()
        assert (found.left > PAGE // 2).sum() >= many - 2
        again = of_group(kernel, direct_map, outer, found.objcg[::3])
        assert sorted(again.objcg.tolist()) == sorted(found.objcg.tolist())

    def gone() -> None:
        # A CPU's stock keeps the one that it is of (drain_obj_stock).
        found = of_group(kernel, direct_map, outer, NOTHING)
        assert len(found) <= 1 + (os.cpu_count() or 1) + len(others)

    with files("objcgs") as directory, memory_cgroup("objcgs") as outer:
        for number in range(REMOVED):
            with inside(outer) as inner, member(inner, str(directory / str(number)), 0):
                pass
            assert not inner.exists()
        look_again(lambda: check(REMOVED + 1))  # and its own
        # Whoever looks up a name first is charged for its inode, which stays in memory: one of a
        # file of Python's or in /proc. The group that has most left holds nothing but our file.
        left = of_group(kernel, direct_map, outer, NOTHING).left
        others = left[(left > 0) & (left < left.max())]
        delete(directory)
        look_again(gone)


def test_what_is_in_stock_is_of_groups_that_charge(kernel: Kernel, direct_map: DirectMap) -> None:
    def look() -> None:
        groups = all_groups(kernel)
        found = read_stocks(kernel, direct_map, groups, NOTHING)
        assert found.listed and found.objects is not None and found.pages is not None
        assert (found.pages % PAGE == 0).all()
        assert (found.pages <= np.maximum(groups.usage, 0)).all()
        # The root has none before a group below it was removed.
        assert (found.objcgs[~groups.dying & (groups.parent >= 0)] >= 1).all()

    look_again(look)


def test_those_that_are_known_are_not_all(kernel: Kernel, direct_map: DirectMap) -> None:
    groups = all_groups(kernel)
    every, _ = all_objcgs(kernel, direct_map, groups, NOTHING, listed=True)
    none, _ = all_objcgs(kernel, direct_map, groups, NOTHING, listed=False)
    assert len(none) == 0
    # What is no obj_cgroup any more, and never was one, is left out.
    wrong = np.concatenate((every.objcg + np.uint64(8), groups.memcg, every.objcg[:1]))
    found = set(all_objcgs(kernel, direct_map, groups, wrong, listed=True)[0].objcg.tolist())
    assert int(every.objcg[0]) in found
    assert not found & set(wrong[:-1].tolist())


def test_a_list_that_is_too_long_to_follow_makes_nothing_exact(
    kernel: Kernel, direct_map: DirectMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagewalk.kernel.structs.objcgs._ROUNDS", 1)
    found = read_stocks(kernel, direct_map, all_groups(kernel), NOTHING)
    assert not found.listed
