"""What only the end of a walk can tell: whether the process held still, shmem swap, mlock."""

from __future__ import annotations

from functools import partial

import numpy as np

from pagewalk.outcome import Outcome
from pagewalk.pages import U64, Backing, VMAs, Withheld
from pagewalk.proc import counters, smaps, swap
from pagewalk.sources import Source

# smaps holds the lock for a whole VMA, at about 19 ms a GiB: below this much RSS its VmFlags may
# be read from a running process without leaving the budget.
SMALL_RSS = 128 << 20

VM_LOCKED = 0x2000  # include/linux/mm.h


def look_back(source: Source, vmas: VMAs, outcome: Outcome) -> None:
    """Complete ``outcome`` of a walk over ``vmas``; raises ProcessGone when the memory is gone."""
    check_still(source, vmas, outcome)
    status = counters.read_status(source.target)
    outcome.vm_swap, outcome.vm_rss = status.get("VmSwap"), status.get("VmRSS")
    read_shmem_swap(source, vmas, outcome)
    read_locked(source, vmas, outcome)
    outcome.done = True


def check_still(source: Source, vmas: VMAs, outcome: Outcome) -> None:
    # The address space must still be there, and be mapped as it was: a walk of one that went away
    # meanwhile looks complete otherwise. Raises ProcessGone.
    gone = source.changed(vmas)
    if not gone:
        return
    outcome.withheld.append(
        Withheld(
            "a consistent moment",
            f"{gone} VMAs changed while the process was walked; --freeze stops it for the walk",
            partial=True,
        )
    )


def read_shmem_swap(source: Source, vmas: VMAs, outcome: Outcome) -> None:
    # Swapped shmem pages leave no trace in the page tables; only the object knows.
    shmem = np.flatnonzero(vmas.backing == Backing.SHMEM.value)
    if len(shmem) == 0 or not swap.swap_in_use():
        outcome.shmem_swap = np.zeros(len(vmas), np.int64)
        return
    found = np.zeros(len(vmas), np.int64)
    try:
        for row, swapped in zip(shmem.tolist(), source.shmem_swapped(vmas, shmem), strict=True):
            found[row] = swap.shmem_swap(vmas, row, swapped, partial(populated, source, vmas))
        outcome.shmem_swap = found
    except OSError as err:
        outcome.withheld.append(
            Withheld(
                "swap of shmem",
                f"/proc/PID/map_files and cachestat(2) cannot be used ({err.strerror});"
                " needs CAP_SYS_ADMIN and Linux 6.5, or --source ebpf",
                partial=True,
            )
        )


def populated(source: Source, vmas: VMAs, row: int) -> U64:
    only = np.array([[vmas.start[row], vmas.end[row]]], np.uint64)
    parts = [
        np.stack([batch.leaves.addr, batch.leaves.addr + batch.leaves.size], axis=1)
        for batch in source.leaves(vmas, only)
    ]
    return np.concatenate([np.zeros((0, 2), np.uint64), *parts])


def read_locked(source: Source, vmas: VMAs, outcome: Outcome) -> None:
    # Without vm_flags only smaps tells which VMAs are locked, and it holds the lock for a whole
    # VMA.
    if vmas.flags is not None:
        outcome.locked = vmas.flags & np.uint64(VM_LOCKED) != 0
        return
    target = source.target
    status = counters.read_status(target)
    if status.get("VmLck") == 0:
        outcome.locked = np.zeros(len(vmas), bool)
        return
    if status.get("VmRSS", 0) > SMALL_RSS and target.state() not in "Tt":
        outcome.withheld.append(
            Withheld(
                "locked",
                "only smaps tells which VMAs are locked, and reading it would hold the lock of a"
                " running process this large beyond the budget; --freeze makes it harmless",
                partial=False,
            )
        )
        return
    said = smaps.read_smaps(target, source.stall)
    locked = dict(zip(said.start.tolist(), said.flagged("lo").tolist(), strict=True))
    outcome.locked = np.array([locked.get(start, False) for start in vmas.start.tolist()], bool)
