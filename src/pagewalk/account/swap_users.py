"""Count who uses each swap slot, over every process of the machine: what SwapPss divides by.

The kernel keeps the count (swap_map) to itself, so every process with swap entries is walked, each
address space once.
"""

from __future__ import annotations

import numpy as np

from pagewalk.account.smaps import SwapUsers
from pagewalk.model.columns import U64, Flag
from pagewalk.model.errors import NoAddressSpace, PagewalkError, ProcessGone
from pagewalk.proc.kcmp import share_memory
from pagewalk.proc.namespace import own_numbers
from pagewalk.proc.processes import read_processes
from pagewalk.proc.stall import HEAR
from pagewalk.sources import close, open_listed

NAMED = 5  # processes that could not be read


def count_swap_users(source: str) -> SwapUsers:
    """Return the users of every swap slot, walking all processes by ``source``.

    Processes that cannot be read are named in ``missing``: the counts are then lower bounds.
    """
    slots: list[U64] = []
    walked: list[tuple[int, int]] = []
    refused: dict[int, Exception] = {}
    comparable = len(own_numbers()) == 1  # kcmp(2) takes the pids of our own PID namespace
    hear = HEAR.get()
    for process in read_processes():
        if hear:
            hear(f"counting the users of swap: {process.pid}", 0, None)
        try:
            found = swap_slots(process.pid, source)
        except (ProcessGone, NoAddressSpace):
            continue
        # whatever went wrong, it must not end a command about another process
        except (PagewalkError, OSError, LookupError) as err:
            refused[process.pid] = err
            continue
        if found is None:
            continue
        entries, mm = found
        this = process.pid, mm
        if any(same_memory(this, other, by_pid=comparable) for other in walked):
            continue
        walked.append(this)
        slots.append(entries)
    users = np.unique(np.concatenate([np.zeros(0, np.uint64), *slots]), return_counts=True)
    missing = why_missing(refused)
    if missing is None and not comparable and any(not mm for _, mm in walked):
        missing = (
            "this /proc belongs to another PID namespace, so processes that share an address space"
            " cannot be recognised and a slot may have fewer users than were counted; use"
            " --source ebpf"
        )
    return SwapUsers(users[0], users[1].astype(np.uint64), missing)


def why_missing(refused: dict[int, Exception]) -> str | None:
    if not refused:
        return None
    pids = sorted(refused)
    more = f" and {len(pids) - NAMED} more" if len(pids) > NAMED else ""
    return (
        f"cannot read the swap entries of process {', '.join(map(str, pids[:NAMED]))}{more},"
        " so a slot may have more users than were counted and swap_pss may be too large:"
        f" {refused[min(refused)]}"
    )


def swap_slots(pid: int, source: str) -> tuple[U64, int] | None:
    """Return (slots, mm) of the process that /proc lists as ``pid``, None if it has no swap.

    ``slots`` are those it has entries for (u64, type | offset << 5), ``mm`` is the kernel address
    of its mm_struct, 0 where the source does not tell. Raises ProcessGone, NoAddressSpace,
    NotPermitted.
    """
    opened = open_listed(pid, source)
    try:
        assert opened.live is not None
        if opened.live.status().get("VmSwap", 0) == 0:
            return None
        vmas = opened.vmas()
        parts = [np.zeros(0, np.uint64)]
        for batch in opened.space.entries(vmas, vmas.ranges):
            leaves = batch.leaves
            if leaves.pfn is not None:
                parts.append(leaves.pfn[leaves.flags & np.uint32(Flag.SWAP) != 0])
        return np.concatenate(parts), 0 if opened.page_tables is None else opened.page_tables.mm
    finally:
        close(opened)


def same_memory(first: tuple[int, int], second: tuple[int, int], *, by_pid: bool) -> bool:
    """Return whether two processes, each (pid, mm or 0), share one address space (vfork, CLONE_VM).

    Without ``by_pid`` the pids are those of another namespace, and their mm is compared.
    """
    if by_pid:
        return share_memory(first[0], second[0])
    return first[1] == second[1] != 0
