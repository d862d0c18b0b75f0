"""What share says of a family that stands still, against pagemap and kpagecount, frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests import kernel_says
from tests.kernel_says import KPF_ANON, KPF_HUGE, KPF_ZERO, PAGE
from tests.live.bracket import living_thread, look_again
from tests.live.command import Ran, pagewalk_here
from tests.live.programs import Family
from tests.targets import stop

PSS_SHIFT = 12  # fs/proc/task_mmu.c
LOOKS = 20


class Frames(NamedTuple):
    """What some processes map, by pagemap and kpagecount alone.

    ``pids``; ``pfn`` of each frame, once; ``times`` i64[pids, frames] how often each maps it;
    ``mapcount`` by all processes of the machine.
    """

    pids: tuple[int, ...]
    pfn: Any
    times: Any
    mapcount: Any


class Look(NamedTuple):
    """What share said of a set that stood still, and the frames that it mapped, as in Frames.

    ``least`` and ``most`` are the frames' mapcounts by two readings: others map libraries
    meanwhile. ``anon`` tells which are anonymous memory.
    """

    found: dict[str, Any]
    pids: tuple[int, ...]
    pfn: Any
    times: Any
    least: Any
    most: Any
    anon: Any

    def anonymous(self, *pids: int) -> set[int]:
        """Return the frames of anonymous memory of some of the processes."""
        rows = [self.pids.index(pid) for pid in pids]
        return set(self.pfn[self.anon & (self.times[rows] > 0).any(axis=0)].tolist())


def frames_of(pid: int) -> Any:
    """Return the frame of each page that a process maps."""
    said, parts = living_thread(pid), [np.zeros(0, np.uint64)]
    for vma in kernel_says.read_smaps(said):
        if vma.start < 1 << 63 and vma.fields.get("Rss"):
            entry = kernel_says.read_pagemap(said, vma.start, vma.end)
            parts.append(entry[entry & kernel_says.PRESENT != 0] & kernel_says.PFN)
    return np.concatenate(parts)


def mapped(pids: Sequence[int]) -> Frames:
    """Return what processes map; they stand still."""
    each = [np.unique(frames_of(pid), return_counts=True) for pid in pids]
    pfn = np.unique(np.concatenate([frames for frames, _ in each]))
    times = np.zeros((len(pids), len(pfn)), np.int64)
    for row, (frames, count) in enumerate(each):
        times[row, np.searchsorted(pfn, frames)] = count
    mapcount = kernel_says.read_counts(pfn).astype(np.int64)
    # Of RAM that the kernel initialises late it says 0; that of a process is mapped once.
    mapcount[(mapcount == 0) & (times.sum(axis=0) == 1)] = 1
    return Frames(tuple(pids), pfn, times, mapcount)


def look_at(family: Family) -> Look:
    """Stop a family, and look at its cgroup until share's sums are right; see look."""
    pids = family.pids
    stop(*pids)

    def ask() -> Ran:
        # Inside this process, so that no other program starts and maps libc.
        return pagewalk_here("share", "--cgroup", family.group.name, "--format", "json")

    def at() -> Look:
        found = look(pids, ask)
        check_members(found)
        return found

    return look_again(at, LOOKS)


def look(pids: Sequence[int], ask: Callable[[], Ran], started: int = 0) -> Look:
    """Look at stopped processes, which ``ask`` asks share about; fails if anything moved meanwhile.

    The sums of all are right then. ``started`` is how many processes ``ask`` starts: they map what
    every process does, the vdso.
    """
    before = mapped(pids)
    ran = ask()
    after = mapped(pids)
    assert ran.code == 0, ran.err
    assert np.array_equal(before.pfn, after.pfn) and np.array_equal(before.times, after.times)
    flags = kernel_says.read_folio_flags(before.pfn)
    assert not (flags & KPF_HUGE).any()
    kept = flags & KPF_ZERO == 0  # the zero page is in no RSS
    least, most = (pick(before.mapcount, after.mapcount) for pick in (np.minimum, np.maximum))
    most[np.isin(before.pfn, frames_of(os.getpid()))] += started
    found = Look(ran.json, before.pids, before.pfn[kept], before.times[:, kept], least[kept],
                 most[kept], flags[kept] & KPF_ANON != 0)
    check_sums(found)
    return found


def check_members(look: Look) -> None:
    """Check the sums of each member: PSS and USS are what both readings of the mapcounts allow."""
    rows = {row["pid"]: row for row in look.found["members"]}
    assert sorted(rows) == sorted(look.pids)
    smallest, largest = ((PAGE << PSS_SHIFT) // count for count in (look.most, look.least))
    for pid, times in zip(look.pids, look.times, strict=True):
        row = rows[pid]
        assert row["rss"] == times.sum() * PAGE
        assert (times * smallest).sum() >> PSS_SHIFT <= row["pss"]
        assert row["pss"] <= (times * largest).sum() >> PSS_SHIFT
        assert ((times > 0) & (look.most == 1)).sum() * PAGE <= row["uss"]
        assert row["uss"] <= ((times > 0) & (look.least == 1)).sum() * PAGE


def check_sums(look: Look) -> None:
    """Check that each frame is held once, and that PSS is that less the part of others."""
    assert look.found["held"] == len(look.pfn) * PAGE
    times = look.times.sum(axis=0)
    assert (times <= look.least).all()
    assert look.found["rss_sum"] == times.sum() * PAGE
    least, most = (((count - times) * PAGE / count).sum() for count in (look.least, look.most))
    # Each share is rounded down to 2**-12 bytes, each member's PSS to a byte.
    rounded = times.sum() / (1 << PSS_SHIFT) + len(look.pids)
    outside = look.found["elsewhere"]["bytes"]
    assert (look.least > times).sum() * PAGE <= outside <= (look.most > times).sum() * PAGE
    others = look.found["held"] - look.found["pss_sum"]
    assert least - 1e-3 <= others <= most + rounded


def check_matrix(look: Look) -> None:
    """Check that the matrix is symmetric, and has the frames that each pair maps."""
    rows = [look.pids.index(pid) for pid in look.found["pids"]]
    has = (look.times[rows] > 0).astype(np.int64)
    both = has @ has.T * PAGE
    np.fill_diagonal(both, 0)
    shared = np.array(look.found["shared"])
    assert len(shared) == len(look.pids)
    assert (shared == shared.T).all() and (shared == both).all()
