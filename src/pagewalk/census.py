"""Count who uses each swap slot, over every process of the machine: what SwapPss divides by.

The kernel keeps the count (swap_map) to itself, so every process with swap entries is walked, each
address space once.
"""

from __future__ import annotations

import ctypes

import numpy as np

from pagewalk.errors import NoAddressSpace, PagewalkError, ProcessGone
from pagewalk.pages import U64, Flag
from pagewalk.proc.counters import read_status
from pagewalk.proc.kernel import architecture
from pagewalk.proc.processes import read_processes
from pagewalk.smaps import SwapUsers
from pagewalk.sources import Source
from pagewalk.walking import close, open_process

NR_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}
KCMP_VM = 1


def count_swap_users(source: str) -> SwapUsers:
    """Return the users of every swap slot, walking all processes by ``source``.

    Processes that cannot be read are named in ``missing``: the counts are then lower bounds.
    """
    slots: list[U64] = []
    walked: list[int] = []
    refused: dict[int, Exception] = {}
    for process in read_processes():
        try:
            found = swap_slots(process.pid, source)
        except (ProcessGone, NoAddressSpace):
            continue
        except (PagewalkError, OSError) as err:  # whatever it is, it is that process's affair
            refused[process.pid] = err
            continue
        if found is None or any(same_memory(process.pid, other) for other in walked):
            continue
        walked.append(process.pid)
        slots.append(found)
    users = np.unique(np.concatenate([np.zeros(0, np.uint64), *slots]), return_counts=True)
    missing = None
    if refused:
        missing = (
            f"the swap entries of process {', '.join(map(str, sorted(refused)))} cannot be read,"
            " so a slot may have more users than were found, and swap_pss be less than"
            f" it would seem: {refused[min(refused)]}"
        )
    return SwapUsers(users[0], users[1].astype(np.uint64), missing)


def swap_slots(pid: int, source: str) -> U64 | None:
    """Return the slots (u64, type | offset << 5) a process has entries for, None without any.

    Raises ProcessGone, NoAddressSpace, NotPermitted.
    """
    opened = open_process(pid, source)
    try:
        if read_status(opened.target).get("VmSwap", 0) == 0:
            return None
        return read_slots(opened)
    finally:
        close(opened)


def read_slots(source: Source) -> U64:
    vmas = source.vmas()
    parts = [np.zeros(0, np.uint64)]
    for batch in source.leaves(vmas, vmas.ranges):
        leaves = batch.leaves
        if leaves.pfn is not None:
            parts.append(leaves.pfn[leaves.flags & np.uint32(Flag.SWAP) != 0])
    return np.concatenate(parts)


def same_memory(first: int, second: int) -> bool:
    """Return whether two processes share one address space (vfork, CLONE_VM), by kcmp(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = NR_KCMP.get(architecture())
    return number is not None and libc.syscall(number, first, second, KCMP_VM, 0, 0) == 0
