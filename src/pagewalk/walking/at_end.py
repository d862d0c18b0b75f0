"""What only the end of a walk can tell: whether the process held still, shmem swap, mlock."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np

from pagewalk.model.bits import VM_LOCKED
from pagewalk.model.columns import I64, U64, Backing, Bool, VMAs, Withheld
from pagewalk.model.errors import PagewalkError, ProcessGone
from pagewalk.model.rules import IN_RSS
from pagewalk.model.states import hwpoison
from pagewalk.proc import counters, objects, smaps, swap
from pagewalk.proc.stall import BUDGET_NS
from pagewalk.sources import Live
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.rows import join_frames

# smaps holds the lock for a whole VMA, at about 19 ms a GiB: with up to this much RSS, reading that
# of a running process stays within BUDGET_NS.
SMALL_RSS = 128 << 20

LOOKS = 3  # at a VMA that moves


HOLDS_THE_LOCK = (
    "reading it would hold the lock of a running process of this size for longer than the budget;"
    " use --freeze, or raise --budget"
)
HWPOISON = "rss, pss, uss and locked"

# A failed read after the walk costs what it would have told, not the walk.
# LookupError: this kernel's BTF lacks a member.
REFUSALS = (PagewalkError, OSError, LookupError)


@contextmanager
def withholding(outcome: Outcome, what: str) -> Iterator[None]:
    """Record ``what`` as withheld, with the reason, if the block fails; let ProcessGone through."""
    try:
        yield
    except ProcessGone:
        raise
    except REFUSALS as err:
        outcome.withheld.append(Withheld(what, reason(err), partial=True))


def reason(err: Exception) -> str:
    if isinstance(err, OSError):
        return err.strerror or str(err)
    if isinstance(err, PagewalkError):
        return str(err)
    return f"this kernel's BTF has no {err.args[0]}"


def look_back(live: Live, vmas: VMAs, outcome: Outcome) -> None:
    """Complete ``outcome`` of a walk over ``vmas``; raises ProcessGone when the memory is gone."""
    with withholding(outcome, "whether the process changed during the walk"):
        check_still(live, vmas, outcome)
    with withholding(outcome, "swap of shmem"):
        outcome.shmem_swap = read_shmem_swap(live, vmas)
    with withholding(outcome, "locked"):
        outcome.locked = read_locked(live, vmas, outcome)
    with withholding(outcome, HWPOISON):
        outcome.counts_hwpoison = ask_hwpoison(live, vmas, outcome)
    with withholding(outcome, "unmapped and freed"):
        read_held(live, vmas, outcome)
    # Last of all: if the process still has its memory now, it had it while the others were read.
    with withholding(outcome, "VmSwap and VmRSS"):
        status = counters.read_status(live.target)
        outcome.vm_swap, outcome.vm_rss = status.get("VmSwap"), status.get("VmRSS")
    outcome.done = True


def check_still(live: Live, vmas: VMAs, outcome: Outcome) -> None:
    # The address space must still be there, and be mapped as it was: a walk of one that went away
    # meanwhile looks complete otherwise. Raises ProcessGone.
    gone = live.changed(vmas)
    if gone:
        outcome.withheld.append(
            Withheld(
                "the process changed during the walk",
                f"{gone} mapping{'s' * (gone != 1)}; totals mix two moments; use --freeze to stop"
                " the process meanwhile",
                partial=True,
            )
        )
    if live.forked(vmas):
        outcome.withheld.append(
            Withheld(
                "the process forked during the walk",
                "its pages are now shared with the child, so mapcounts mix two moments; use"
                " --freeze to stop the process meanwhile",
                partial=True,
            )
        )


def read_shmem_swap(live: Live, vmas: VMAs) -> I64:
    # Swapped shmem pages leave no trace in the page tables; only the object knows.
    found = np.zeros(len(vmas), np.int64)
    shmem = np.flatnonzero(vmas.backing == Backing.SHMEM.value)
    if len(shmem) == 0 or not swap.swap_in_use():
        return found
    for row, swapped in zip(shmem.tolist(), live.shmem_swapped(vmas, shmem), strict=True):
        found[row] = swap.shmem_swap(vmas, row, swapped, partial(populated, live, vmas))
    return found


def populated(live: Live, vmas: VMAs, row: int) -> U64:
    only = np.array([[vmas.start[row], vmas.end[row]]], np.uint64)
    parts = [
        np.stack([batch.leaves.addr, batch.leaves.addr + batch.leaves.size], axis=1)
        for batch in live.space.entries(vmas, only)
    ]
    return np.concatenate([np.zeros((0, 2), np.uint64), *parts])


def read_locked(live: Live, vmas: VMAs, outcome: Outcome) -> Bool | None:
    # Without vm_flags only smaps tells which VMAs are locked, and it holds the lock for a whole
    # VMA. Every real VMA has some flag set: 0 means that its flags could not be read.
    flags = vmas.flags
    if flags is not None and (flags != 0)[vmas.backing != Backing.HIDDEN.value].all():
        locked: Bool = flags & np.uint64(VM_LOCKED) != 0
        return locked
    target = live.target
    status = counters.read_status(target)
    if status.get("VmLck") == 0:
        return np.zeros(len(vmas), bool)
    if not may_read_smaps(live, status.get("VmRSS", 0)):
        why = "only smaps shows which VMAs are locked, and " + HOLDS_THE_LOCK
        outcome.withheld.append(Withheld("locked", why, partial=False))
        return None
    said = smaps.read_smaps(target, live.stall)
    known = dict(zip(said.start.tolist(), said.flagged("lo").tolist(), strict=True))
    return np.array([known.get(start, False) for start in vmas.start.tolist()], bool)


def may_read_smaps(live: Live, rss: int) -> bool:
    """Return whether reading smaps of a process with ``rss`` bytes stays within the budget.

    Of a stopped process it may be read whatever its size: it waits for nothing meanwhile.
    """
    largest = SMALL_RSS * live.stall.budget_ns // BUDGET_NS
    return rss <= largest or live.target.state() in "Tt"


def ask_hwpoison(live: Live, vmas: VMAs, outcome: Outcome) -> bool | None:
    # Whether this kernel's smaps counts the entry for a page lost to a memory error
    # (smaps_pte_entry). No version tells: it does since 6.9, and in the stable kernels and
    # distributions that took the change. The smallest VMA that has one does, if it holds still.
    if not outcome.hwpoison:
        return None
    why = "only smaps shows whether this kernel counts pages lost to a memory error, and "
    if not may_read_smaps(live, counters.read_status(live.target).get("VmRSS", 0)):
        outcome.withheld.append(Withheld(HWPOISON, why + HOLDS_THE_LOCK, partial=True))
        return None
    row = min(outcome.hwpoison, key=lambda row: int(vmas.end[row] - vmas.start[row]))
    for _ in range(LOOKS):
        told = counts_hwpoison(live, vmas, row)
        if told is not None:
            return told
    why += f"the VMA that has them changed in each of {LOOKS} attempts; use --freeze"
    outcome.withheld.append(Withheld(HWPOISON, why, partial=True))
    return None


def counts_hwpoison(live: Live, vmas: VMAs, row: int) -> bool | None:
    # No page appears without a fault. If there was no fault, and the same pages are there
    # afterwards, they were there while smaps was read.
    faults = live.target.faults()
    before = look_into(live, vmas, row)
    said = smaps.read_smaps(live.target, live.stall)
    if look_into(live, vmas, row) != before or live.target.faults() != faults:
        return None
    at = np.flatnonzero((said.start == vmas.start[row]) & (said.end == vmas.end[row]))
    if len(at) != 1 or "Rss" not in said.columns or not before.hwpoison:
        return None
    excess = int(said.columns["Rss"][at[0]]) - before.rss
    return {0: False, before.hwpoison: True}.get(excess)


class Look(NamedTuple):
    """What a VMA holds: bytes in RSS, bytes of hwpoison entries, and checksums of all its pages."""

    rss: int
    hwpoison: int
    checksums: list[int]


def look_into(live: Live, vmas: VMAs, row: int) -> Look:
    rss = lost = 0
    sums = [0, 0, 0]
    only = np.array([[vmas.start[row], vmas.end[row]]], np.uint64)
    space = live.space
    for batch in space.entries(vmas, only):
        if not len(batch.leaves):
            continue
        pages = join_frames(vmas, batch.leaves, space.frames, space.facts.page_size)
        rss += int(pages.size[IN_RSS[pages.state]].sum())
        lost += int(pages.size[hwpoison(pages.flags)].sum())
        for at, column in enumerate((pages.addr, pages.state, pages.pfn)):
            sums[at] = zlib.crc32(b"" if column is None else column.tobytes(), sums[at])
    return Look(rss, lost, sums)


def read_held(live: Live, vmas: VMAs, outcome: Outcome) -> None:
    # Memory that the process holds through a file, mapped or not.
    found, missing = objects.read_objects(live.target, vmas)
    end = objects.ends(live.target, vmas, found, live.ended_by)
    outcome.objects = list(zip(found, end, strict=True))
    outcome.all_objects = not missing
    outcome.withheld.extend(missing)
    unsure = [each.name for each, answer in outcome.objects if answer is None and each.resident]
    if unsure:
        outcome.withheld.append(
            Withheld(
                "freed",
                f"only the kernel's reference counts show who else holds {unsure[0]}, and this"
                " source does not read them; use --source ebpf",
                partial=False,
            )
        )
