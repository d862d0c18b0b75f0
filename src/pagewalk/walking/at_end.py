"""What only the end of a walk can tell: shmem swap, mlock, whether the process held still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np

from pagewalk.model.bits import VM_LOCKED
from pagewalk.model.columns import Backing, Bool, VMAs, Withheld
from pagewalk.model.errors import PagewalkError, ProcessGone
from pagewalk.model.rules import IN_RSS
from pagewalk.model.states import hwpoison
from pagewalk.sources import Live
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.rows import Asked, leaf_pages

LOOKS = 3  # at a VMA that moves
HOLDS_THE_LOCK = (
    "reading it would hold the lock of a running process of this size for longer than the budget;"
    " use --freeze, or raise --budget"
)
CHANGED, FORKED = "the process changed during the walk", "the process forked during the walk"
HWPOISON = "rss, pss, uss and locked"

# A failed read after the walk costs what it would have told, not the walk.
# LookupError: this kernel's BTF lacks a member.
REFUSALS = (PagewalkError, OSError, LookupError)

Status: TypeAlias = Callable[[], dict[str, int]]


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
    status = cache(live.status)  # read once, where it is first needed
    with withholding(outcome, "swap of shmem"):
        outcome.shmem_swap = live.shmem_swap(vmas)
    with withholding(outcome, "locked"):
        outcome.locked = find_locked(live, vmas, outcome, status)
    with withholding(outcome, HWPOISON):
        outcome.counts_hwpoison = ask_hwpoison(live, vmas, outcome, status)
    with withholding(outcome, "unmapped and freed"):
        note_objects(live, vmas, outcome)
    with withholding(outcome, "VmSwap and VmRSS"):
        outcome.vm_swap, outcome.vm_rss = status().get("VmSwap"), status().get("VmRSS")
    # Last of all: if the process still has its memory now, it had it while the others were read.
    with withholding(outcome, "whether the process changed during the walk"):
        check_still(live, vmas, outcome)
    outcome.done = True


def find_locked(live: Live, vmas: VMAs, outcome: Outcome, status: Status) -> Bool | None:
    # Without vm_flags only smaps tells which VMAs are locked, and it holds the lock for a whole
    # VMA. Every real VMA has some flag set: 0 means that its flags could not be read.
    flags = vmas.flags
    if flags is not None and (flags != 0)[vmas.backing != Backing.HIDDEN.value].all():
        locked: Bool = flags & np.uint64(VM_LOCKED) != 0
        return locked
    if status().get("VmLck") == 0:
        return np.zeros(len(vmas), bool)
    said = live.smaps(status().get("VmRSS", 0))
    if said is None:
        why = "only smaps shows which VMAs are locked, and " + HOLDS_THE_LOCK
        outcome.withheld.append(Withheld("locked", why))
        return None
    return np.isin(vmas.start, said.start[said.flagged("lo")])


def ask_hwpoison(live: Live, vmas: VMAs, outcome: Outcome, status: Status) -> bool | None:
    # Whether this kernel's smaps counts the entry for a page lost to a memory error
    # (smaps_pte_entry). No version tells: it does since 6.9, and in the stable kernels and
    # distributions that took the change. The smallest VMA that has one does, if it holds still.
    if not outcome.hwpoison:
        return None
    row = min(outcome.hwpoison, key=lambda row: int(vmas.end[row] - vmas.start[row]))
    but = f"the VMA that has them changed in each of {LOOKS} attempts; use --freeze"
    for _ in range(LOOKS):
        # No page appears without a fault. If there was no fault, and the same pages are there
        # afterwards, they were there while smaps was read.
        faults, before = live.target.faults(), look_into(live, vmas, row)
        said = live.smaps(status().get("VmRSS", 0))
        if said is None:
            but = HOLDS_THE_LOCK
            break
        if look_into(live, vmas, row) != before or live.target.faults() != faults:
            continue
        at = np.flatnonzero((said.start == vmas.start[row]) & (said.end == vmas.end[row]))
        if len(at) and before.hwpoison:
            excess = int(said.columns["Rss"][at[0]]) - before.rss
            if excess in (0, before.hwpoison):
                return excess > 0
    why = "only smaps shows whether this kernel counts pages lost to a memory error, and "
    outcome.withheld.append(Withheld(HWPOISON, why + but, partial=True))
    return None


class Look(NamedTuple):
    """What a VMA holds: bytes in RSS, bytes of hwpoison entries, and hashes of all its pages."""

    rss: int
    hwpoison: int
    hashes: list[int]


def look_into(live: Live, vmas: VMAs, row: int) -> Look:
    rss = lost = 0
    hashes = [0, 0, 0]
    for pages in leaf_pages(Asked(live.space, vmas, vmas.ranges[row : row + 1])):
        rss += int(pages.size[IN_RSS[pages.state]].sum())
        lost += int(pages.size[hwpoison(pages.flags)].sum())
        for at, column in enumerate((pages.addr, pages.state, pages.pfn)):
            hashes[at] = hash((hashes[at], None if column is None else column.tobytes()))
    return Look(rss, lost, hashes)


def note_objects(live: Live, vmas: VMAs, outcome: Outcome) -> None:
    # Memory that the process holds through a file, mapped or not.
    outcome.objects, missing = live.objects(vmas)
    outcome.all_objects = not missing
    outcome.withheld.extend(missing)
    unsure = [each.name for each, ends in outcome.objects if ends is None and each.resident]
    if unsure:
        why = (f"only the kernel's reference counts show who else holds {unsure[0]}, and this"
               " source does not read them; use --source ebpf")
        outcome.withheld.append(Withheld("freed", why))


def check_still(live: Live, vmas: VMAs, outcome: Outcome) -> None:
    # The address space must still be there, and be mapped as it was: a walk of one that went away
    # meanwhile looks complete otherwise. Raises ProcessGone.
    gone = live.changed(vmas)
    if gone:
        outcome.withheld.append(
            Withheld(
                CHANGED,
                f"{gone} mapping{'s' * (gone != 1)}; totals mix two moments; use --freeze to stop"
                " the process meanwhile",
                partial=True,
            )
        )
    if live.forked(vmas):
        outcome.withheld.append(
            Withheld(
                FORKED,
                "its pages are now shared with the child, so mapcounts mix two moments; use"
                " --freeze to stop the process meanwhile",
                partial=True,
            )
        )
