"""What share says of a family that stands still, against pagemap and kpagecount, frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests import kernel_says
from tests.kernel_says import KPF_ANON, KPF_HUGE, KPF_ZERO, PAGE
from tests.live.bracket import living_thread, look_again
from tests.live.command import Ran, pagewalk_here
from tests.live.programs import Family
from tests.targets import stop

PSS_SHIFT = 12  # fs/proc/task_mmu.c
# Others map and unmap libraries all the time: their mapcounts are read that often before and after.
LOOKS, READINGS = 20, 5


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
    """Stop a family, and look at its cgroup until all that share says of it was right."""
    pids = family.pids
    stop(*pids)
    # Inside this process, so that no other program starts and maps libc.
    words = ("share", "--cgroup", family.group.name, "--format", "json")
    return look_until_right(pids, lambda: pagewalk_here(*words))


def look_until_right(
    pids: Sequence[int], ask: Callable[[], Ran], started: int = 0, *, renumbered: bool = False
) -> Look:
    """Look at stopped processes, which ``ask`` asks share about, until each number was right once.

    ``started`` is how many processes ``ask`` starts: they map what every process does, the vdso.
    Where they have other pids, ``renumbered``, only the sums of all are compared.
    """
    left: set[int | str] = {"pss", "elsewhere", *(() if renumbered else pids)}

    def look() -> Look:
        found = look_once(pids, ask, started)
        check_held(found)
        right = [name for name, agrees in shared_with_others(found, left) if agrees]
        left.difference_update(right)
        assert not left
        return found

    return look_again(look, LOOKS)


def look_once(pids: Sequence[int], ask: Callable[[], Ran], started: int) -> Look:
    before = mapped(pids)
    others = before.mapcount > before.times.sum(axis=0)
    counts = [before.mapcount, *readings(before, others)]
    ran = ask()
    counts += readings(before, others)
    after = mapped(pids)
    counts.append(after.mapcount)
    assert ran.code == 0, ran.err
    assert np.array_equal(before.pfn, after.pfn) and np.array_equal(before.times, after.times)
    flags = kernel_says.read_folio_flags(before.pfn)
    assert not (flags & KPF_HUGE).any()
    kept = flags & KPF_ZERO == 0  # the zero page is in no RSS
    least, most = np.min(counts, axis=0), np.max(counts, axis=0)
    most[np.isin(before.pfn, frames_of(os.getpid()))] += started
    return Look(ran.json, before.pids, before.pfn[kept], before.times[:, kept], least[kept],
                most[kept], flags[kept] & KPF_ANON != 0)


def readings(frames: Frames, others: Any) -> list[Any]:
    """Return the mapcounts of frames by some more readings of those that ``others`` map too."""
    found = []
    for _ in range(READINGS):
        found.append(frames.mapcount.copy())
        found[-1][others] = kernel_says.read_counts(frames.pfn[others])
    return found


def check_held(look: Look) -> None:
    """Check what no other process can change: each frame is held once."""
    assert look.found["held"] == len(look.pfn) * PAGE
    times = look.times.sum(axis=0)
    assert (times <= look.least).all()
    assert look.found["rss_sum"] == times.sum() * PAGE
    assert look.found["pss_sum"] == sum(row["pss"] for row in look.found["members"])


def shared_with_others(look: Look, names: Iterable[int | str]) -> Iterator[tuple[int | str, bool]]:
    """Yield for each of the sums that are left whether it is what the mapcounts allow."""
    rows = {row["pid"]: row for row in look.found["members"]}
    every, held = look.times.sum(axis=0), look.found["held"]
    for name in names:
        if name == "pss":
            # PSS is what is held less the part of others. Each share is rounded down to 2**-12
            # bytes, each member's PSS to a byte.
            least, most = (((count - every) * PAGE / count).sum()
                           for count in (look.least, look.most))
            rounded = every.sum() / (1 << PSS_SHIFT) + len(look.pids)
            yield name, least - 1e-3 <= held - look.found["pss_sum"] <= most + rounded
        elif name == "elsewhere":
            least, most = ((count > every).sum() * PAGE for count in (look.least, look.most))
            yield name, least <= look.found["elsewhere"]["bytes"] <= most
        else:
            assert isinstance(name, int)
            yield name, member_is_right(look, rows[name])


def member_is_right(look: Look, row: dict[str, Any]) -> bool:
    times = look.times[look.pids.index(row["pid"])]
    assert row["rss"] == times.sum() * PAGE
    smallest, largest = ((times * ((PAGE << PSS_SHIFT) // count)).sum() >> PSS_SHIFT
                         for count in (look.most, look.least))
    least, most = (((times > 0) & (count == 1)).sum() * PAGE for count in (look.most, look.least))
    return bool(smallest <= row["pss"] <= largest and least <= row["uss"] <= most)


def check_matrix(look: Look) -> None:
    """Check that the matrix is symmetric, and has the frames that each pair maps."""
    rows = [look.pids.index(pid) for pid in look.found["pids"]]
    has = (look.times[rows] > 0).astype(np.int64)
    both = has @ has.T * PAGE
    np.fill_diagonal(both, 0)
    shared = np.array(look.found["shared"])
    assert len(shared) == len(look.pids)
    assert (shared == shared.T).all() and (shared == both).all()
