"""Which processes share an address space: kcmp(2), which tells without reading their memory."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sequence
from functools import cmp_to_key

from pagewalk.proc.kernel import architecture
from pagewalk.proc.namespace import own_numbers

NR_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}
KCMP_VM = 1


def share_memory(first: int, second: int) -> bool:
    """Return whether two processes, by their pids in our namespace, share an address space.

    False if kcmp(2) cannot say.
    """
    return bool(same_memory(first, second))


def same_memory(first: int, second: int) -> bool | None:
    """Return what share_memory does, but None if kcmp(2) cannot say."""
    said = compare_memory(first, second)
    return None if said is None else said == 0


def compare_memory(first: int, second: int) -> int | None:
    """Return -1, 0 or 1 as the address space of ``first`` is ordered before, is, or is after.

    The kernel's order is without meaning, and lasts until it is booted again. None if kcmp(2)
    cannot say.
    """
    number = kcmp_number()
    said = -1 if number is None else system_call()(number, first, second, KCMP_VM, 0, 0)
    return {0: 0, 1: -1, 2: 1}.get(said)


@functools.cache
def kcmp_number() -> int | None:
    return NR_KCMP.get(architecture())


@functools.cache
def system_call() -> Callable[..., int]:
    import ctypes  # only used here, by the census of swap slots and by heap

    found: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    return found


def by_memory(pids: Collection[int]) -> list[list[int]]:
    """Return ``pids`` in lists of those that share an address space, by the first of each.

    A process that kcmp(2) may not compare is in a list of its own, as all are where /proc shows
    another PID namespace than ours.
    """
    own = own_numbers()
    comparable = [pid for pid in sorted(pids)
                  if len(own) == 1 and compare_memory(own[0], pid) is not None]
    ordered = sorted(comparable, key=cmp_to_key(order))
    groups = [[pid] for pid in {*pids} - {*comparable}]
    last: list[int] = []
    for pid in ordered:
        if last and compare_memory(last[0], pid) == 0:
            last.append(pid)
        else:
            groups.append(last := [pid])
    return sorted(sorted(group) for group in groups)


def shared_outside(groups: Collection[list[int]]) -> set[int]:
    """Return the first pids of those of ``groups`` whose address space others have too.

    ``groups`` are by_memory's; the others are processes in none of them. One that kcmp(2) may not
    compare is not seen.
    """
    if len(own_numbers()) > 1:
        return set()
    members = {pid for group in groups for pid in group}
    firsts = sorted((group[0] for group in groups), key=cmp_to_key(order))
    others = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()} - members
    return {one for pid in others if (one := same_in(firsts, pid)) is not None}


def same_in(ordered: Sequence[int], pid: int) -> int | None:
    # Which of `ordered` (see order) has the address space of `pid`.
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        said = compare_memory(ordered[middle], pid)
        if not said:
            return None if said is None else ordered[middle]
        low, high = (middle + 1, high) if said < 0 else (low, middle)
    return None


def order(first: int, second: int) -> int:
    return compare_memory(first, second) or 0
