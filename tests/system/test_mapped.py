"""What a group's processes map of its pages: each frame once, whoever maps it."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.columns import Pages, State
from pagewalk.model.frames import Kind
from pagewalk.system.mapped import NOBODYS, OTHERS, ChargedFrames, MappedPages
from tests import by_hand
from tests.system import large
from tests.system.by_hand import Run, frames

END = 100


def charged() -> ChargedFrames:
    # Frames 0-9 anonymous and 10-19 of a file are the group's (label 1), 20-29 of a file another's
    # (label 2), 30-39 of a file nobody's; 40-49 are the group's page tables. 50-79 are the kernel's
    # own pages: the group's, the other's, nobody's.
    found = ChargedFrames(END, np.array([False, True, False]))
    found(frames(Run(Kind.ANON, 10), Run(Kind.FILE, 10), Run(Kind.FILE, 10), Run(Kind.FILE, 10),
                 Run(Kind.PAGE_TABLE, 10), *(Run(Kind.KERNEL, 10) for _ in range(3))),
          np.array([1, 1, 2, 0, 1, 1, 2, 0]))
    return found


def pages(*runs: tuple[int, int, int], state: State = State.ANON) -> Pages:
    # Each (first frame, how many, row of its VMA).
    first, count, vma = (np.array(column) for column in zip(*runs, strict=True))
    zeros = np.zeros(len(runs), np.uint64)
    return Pages(
        addr=zeros, size=(count << 12).astype(np.uint64), vma=vma.astype(np.int64),
        state=np.full(len(runs), state.value, np.uint8), level=zeros.astype(np.uint8),
        flags=zeros.astype(np.uint32), entry=zeros, pfn=first.astype(np.uint64), kflags=None,
        mapcount=None,
    )


def mapped() -> MappedPages:
    return MappedPages(END, charged(), 12)


def test_pages_are_sorted_by_who_is_charged_and_by_kind() -> None:
    found = mapped()
    vmas = by_hand.table().vmas
    found.add((1,), "one", vmas, [pages((5, 1, 0), (12, 1, 1)), pages((25, 1, 1), (35, 1, 1))])
    assert found.by_kind == {"anon": 1, "file": 1, "shmem": 0, "kernel": 0}
    assert found.elsewhere == {vmas.name[1]: 1}
    assert found.uncharged == {vmas.name[1]: 1}
    [process] = found.processes
    assert (process.charged, process.others) == ({"anon": 1, "file": 1, "shmem": 0, "kernel": 0}, 1)


def test_each_frame_has_one_code() -> None:
    found = charged()
    assert found.codes(np.arange(END)).tolist() == [1] * 10 + [2] * 10 + [OTHERS] * 10 + [
        NOBODYS] * 10 + [0] * 10 + [4] * 10 + [OTHERS] * 10 + [0] * 30
    assert found.codes(np.array([-1, END, END + 5])).tolist() == [0, 0, 0]


def test_a_shared_page_counts_once_in_all_and_in_each() -> None:
    found = mapped()
    vmas = by_hand.table().vmas
    for pid in (1, 2):
        found.add((pid,), "twin", vmas, [pages((3, 1, 0), (3, 1, 0), (21, 1, 0))])
    assert found.by_kind["anon"] == 1
    assert sum(found.elsewhere.values()) == 1
    assert [process.charged["anon"] for process in found.processes] == [2, 2]


def test_a_huge_page_is_all_its_frames() -> None:
    found = mapped()
    found.add((1,), "huge", by_hand.table().vmas, [pages((8, 15, 0))])
    assert found.by_kind == {"anon": 2, "file": 10, "shmem": 0, "kernel": 0}
    assert sum(found.elsewhere.values()) == 3


def test_pages_of_the_kernel_are_mapped_as_well() -> None:
    found, vmas = mapped(), by_hand.table().vmas
    found.add((1,), "rings", vmas, [pages((41, 2, 0), (50, 3, 0), (61, 2, 1), (70, 5, 1))])
    assert found.by_kind == {"anon": 0, "file": 0, "shmem": 0, "kernel": 3}
    assert found.elsewhere == {vmas.name[1]: 2} and found.uncharged == {}
    assert found.processes[0].charged["kernel"] == 3


def test_what_is_not_in_ram_is_not_mapped() -> None:
    found = mapped()
    found.add((1,), "swapped", by_hand.table().vmas, [pages((5, 1, 0), state=State.SWAPPED)])
    assert not any(found.by_kind.values())


@pytest.mark.parametrize("fold", ["group", "ram", "explain"])
def test_256_gib_take_less_than_150_mb(fold: str) -> None:
    assert large.measured(fold)[0] < 150
