"""Leaves joined with VMAs and frames, and holes filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st

from pagewalk.model.bits import KPF
from pagewalk.model.columns import (
    READ,
    U64,
    Backing,
    Bool,
    Flag,
    Holes,
    Leaves,
    Pages,
    State,
    VMAs,
    take,
)
from pagewalk.pagetables.decode import NO_ENTRIES, Entries
from pagewalk.proc.frames import LARGE
from pagewalk.walking.rows import Asked, fill, hole_rows, join_batches
from tests import by_hand
from tests.by_hand import BIG, HEAP, PAGE, PROGRAM, THP, VMAS
from tests.properties import always

ANON, HUGE = np.uint64(1 << KPF["anon"]), np.uint64(1 << KPF["huge"])


class FrameList:
    """Given frames: (flags, mapcount) by PFN."""

    young, ksm = False, True

    def __init__(self, flags: dict[int, int], mapcount: dict[int, int]) -> None:
        self.flags, self.mapcount = flags, mapcount

    def read(self, pfns: U64, once: Bool) -> tuple[U64, U64]:
        """Return (flags, mapcount) of each frame."""
        flags = np.array([self.flags.get(n, 0) for n in pfns.tolist()], np.uint64)
        return flags, self.mapcounts(pfns)

    def mapcounts(self, pfns: U64) -> U64:
        """Return the mapcount of each frame, 1 by default."""
        return np.array([self.mapcount.get(n, 1) for n in pfns.tolist()], np.uint64)

    def marks(self, pfns: U64) -> U64:
        """Return the marks of large folios."""
        return self.read(pfns, pfns != 0)[0] & LARGE


def asked(frames: FrameList | None = None, of: VMAs = VMAS, wanted: U64 | None = None,
          entries: Callable[[VMAs, U64], Iterator[Entries]] | None = None) -> Asked:
    """Return what asks for ``wanted`` of ``of``, all by default, in a space with ``frames``.

    ``entries`` are what is there if it is looked at again.
    """
    space = SimpleNamespace(frames=frames, facts=by_hand.FACTS, entries=entries)
    return Asked(space, of, of.ranges if wanted is None else wanted)  # type: ignore[arg-type]


def leaves(*rows: tuple[int, int, Flag, int]) -> Leaves:
    """Return Leaves of (address, shift, flags, PFN)."""
    addr, shift, flags, pfn = zip(*rows, strict=True)
    return Leaves(
        np.array(addr, np.uint64), np.array(shift, np.uint8), np.zeros(len(rows), np.uint64),
        np.array(flags, np.uint32), np.array(pfn, np.uint64),
    )


PRESENT, SWAP = Flag.PRESENT, Flag.SOFT | Flag.SWAP
THREE = leaves(
    (PROGRAM, 12, PRESENT | Flag.FILE, 7), (HEAP, 12, PRESENT, 8), (HEAP + PAGE, 12, SWAP, 33)
)


def test_a_leaf_is_joined_with_its_vma_frame_and_state() -> None:
    frames = FrameList({7: 1 << KPF["lru"], 8: int(ANON)}, {7: 3})
    (pages,) = join_batches(asked(frames), [THREE])
    assert pages.vma.tolist() == [0, 1, 1]
    assert pages.state.tolist() == [State.FILE, State.ANON, State.SWAPPED]
    assert pages.size.tolist() == [PAGE] * 3
    assert pages.mapcount is not None and pages.mapcount.tolist() == [3, 1, 0]


def test_without_frames_there_are_no_flags_and_no_mapcounts() -> None:
    (pages,) = join_batches(asked(), [THREE])
    assert pages.kflags is None and pages.mapcount is None
    assert pages.state.tolist() == [State.FILE, State.ANON, State.SWAPPED]


def test_where_no_frames_are_asked_for_the_kinds_of_memory_are_not_told_apart() -> None:
    (pages,) = join_batches(asked()._replace(frames=False), [THREE])
    assert pages.state.tolist() == [State.PRESENT, State.PRESENT, State.SWAPPED]


MAPPED = PRESENT | Flag.NORMAL
# The kernel moved a page from frame 8 to frame 9.
MOVED = FrameList({9: int(ANON)}, {8: 0, 9: 1})


def moving(frames: FrameList, *then: Leaves) -> tuple[Asked, list[U64]]:
    """Return what asks for pages, of which there is ``then`` each time that they are looked at.

    And the ranges that are looked at again.
    """
    left, ranges = [*then], list[U64]()

    def entries(vmas: VMAs, wanted: U64) -> Iterator[Entries]:
        ranges.append(wanted)
        yield replace(NO_ENTRIES, leaves=left.pop(0)) if left else NO_ENTRIES

    return asked(frames, entries=entries), ranges


def test_a_page_that_was_moved_before_its_frame_was_read_is_looked_at_again() -> None:
    first, again = moving(MOVED, leaves((HEAP, 12, MAPPED, 9)))
    other = leaves((HEAP, 12, MAPPED, 8), (HEAP + PAGE, 12, MAPPED, 9))
    (pages,) = join_batches(first, [other])
    assert pages.pfn is not None and pages.pfn.tolist() == [9, 9]
    assert pages.mapcount is not None and pages.mapcount.tolist() == [1, 1]
    assert pages.state.tolist() == [State.ANON, State.ANON]
    assert [ranges.tolist() for ranges in again] == [[[HEAP, HEAP + PAGE]]]


def test_a_page_that_is_on_its_way_by_then_is_migrating() -> None:
    first, _ = moving(MOVED, leaves((HEAP, 12, Flag.SOFT | Flag.MIGRATION, 9)))
    (pages,) = join_batches(first, [leaves((HEAP, 12, MAPPED, 8))])
    assert pages.state.tolist() == [State.MIGRATING]


@pytest.mark.parametrize("reused", [0, 1 << KPF["lru"], 1 << KPF["lru"] | 1 << KPF["head"]])
def test_a_page_that_is_gone_by_then_stays_what_it_was(reused: int) -> None:
    """Its frame may be a page of a file by now, and is no device in any case."""
    first, again = moving(FrameList({8: reused}, {8: 0}))
    (pages,) = join_batches(first, [leaves((HEAP, 12, MAPPED, 8))])
    assert pages.state.tolist() == [State.ANON] and len(again) == 1
    assert pages.pfn is not None and pages.pfn.tolist() == [8]


def test_how_often_a_page_is_looked_at_again_has_an_end() -> None:
    frames = FrameList({}, dict.fromkeys(range(100), 0))
    then = [leaves((HEAP, 12, MAPPED, pfn)) for pfn in range(9, 99)]
    first, again = moving(frames, *then)
    (pages,) = join_batches(first, [leaves((HEAP, 12, MAPPED, 8))])
    assert pages.state.tolist() == [State.ANON] and 1 < len(again) < 10


def thp(frames: FrameList) -> Pages:
    of = leaves((HEAP, 12, PRESENT, 8), (BIG, 21, PRESENT | Flag.HUGE, 0x400))
    (pages,) = join_batches(asked(frames), [of])
    return pages


def test_a_uniformly_mapped_huge_leaf_is_one_row() -> None:
    frames = FrameList({0x400: int(ANON)}, {0x400 + n: 2 for n in range(512)})
    pages = thp(frames)
    assert pages.size.tolist() == [PAGE, THP]
    assert pages.mapcount is not None and pages.mapcount.tolist() == [1, 2]


def test_a_huge_leaf_that_another_process_unmapped_in_part_is_a_row_for_each_page() -> None:
    # A forked child unmapped its first half.
    pages = thp(FrameList({0x400: int(ANON)}, {0x400 + n: 2 for n in range(256, 512)}))
    assert pages.addr.tolist() == [HEAP, *range(BIG, BIG + THP, PAGE)]
    assert pages.pfn is not None and pages.pfn.tolist() == [8, *range(0x400, 0x600)]
    assert pages.mapcount is not None and pages.mapcount.tolist() == [1, *[1] * 256, *[2] * 256]
    assert set(pages.size.tolist()) == {PAGE}
    assert set(pages.state[1:].tolist()) == {State.ANON}


def test_a_hugetlb_page_has_one_mapcount() -> None:
    pages = thp(FrameList({0x400: int(HUGE)}, {0x400: 1, 0x401: 5}))
    assert pages.size.tolist() == [PAGE, THP]


def test_a_hole_is_empty_if_there_is_a_page_table_and_not_mapped_if_not() -> None:
    addr = np.array([PROGRAM, HEAP, BIG], np.uint64)
    holes = Holes(addr, np.full(3, PAGE, np.uint64), np.array([1, 2, 0], np.uint8))
    rows = hole_rows(VMAS, holes)
    assert rows.state.tolist() == [State.EMPTY, State.NOT_MAPPED, State.ABSENT]
    assert rows.vma.tolist() == [0, 1, 3]


# ---- fill: VMAs of pages 10-19 and 20-29 (touching), and 40-49


def numbered(*spans: tuple[int, int]) -> U64:
    return np.array(spans, np.uint64).reshape(-1, 2) * np.uint64(PAGE)


AREAS: VMAs = by_hand.vmas([(n * PAGE, 10, READ, 0, Backing.ANON, "") for n in (10, 20, 40)])
IN_VMAS = {*range(10, 30), *range(40, 50)}


@always(st.sets(st.sampled_from(sorted(IN_VMAS))), st.sets(st.integers(8, 52)))
def test_fill_covers_each_requested_page_once(there: set[int], chosen: set[int]) -> None:
    there &= chosen
    rows = [(n * PAGE, PAGE, State.ANON, PRESENT, n, (), 1) for n in sorted(there)]
    pages = by_hand.pages(rows or [(0, 0, State.ANON, PRESENT, 0, (), 1)], AREAS)
    if not rows:
        pages = take(pages, slice(0, 0))
    wanted = numbered(*((n, n + 1) for n in sorted(chosen & IN_VMAS)))
    filled = fill(asked(of=AREAS, wanted=wanted), pages, 0, 1 << 64)
    covered = [n for addr, size in zip(filled.addr.tolist(), filled.size.tolist(), strict=True)
               for n in range(addr // PAGE, (addr + size) // PAGE)]
    assert covered == sorted(chosen & IN_VMAS)
    present = filled.addr[filled.state == State.ANON] // np.uint64(PAGE)
    assert present.tolist() == sorted(there)


def test_no_filled_row_crosses_a_vma_boundary() -> None:
    rows = [(12 * PAGE, PAGE, State.ANON, PRESENT, 1, (), 1)]
    filled = fill(asked(of=AREAS), by_hand.pages(rows, AREAS), 0, 1 << 64)
    spans = zip(filled.addr.tolist(), filled.size.tolist(), filled.vma.tolist(), strict=True)
    assert [(addr // PAGE, size // PAGE, vma) for addr, size, vma in spans] == [
        (10, 2, 0), (12, 1, 0), (13, 7, 0), (20, 10, 1), (40, 10, 2),
    ]
