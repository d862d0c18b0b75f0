"""Other processes that run in a process's memory: after vfork(2), or clone(2) with CLONE_VM."""

import contextlib
import os
from collections.abc import Collection
from typing import NamedTuple

from pagewalk.proc.files import read_bytes
from pagewalk.proc.kcmp import same_memory
from pagewalk.proc.namespace import own_numbers
from pagewalk.proc.target import Target


class Sharer(NamedTuple):
    """Another process, and whether it is ``certain`` that it has the same memory."""

    pid: int
    certain: bool


def numbers_in_proc() -> set[int]:
    """Return the numbers of all processes that /proc shows."""
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}


def sharers(target: Target, but: Collection[int] = ()) -> list[Sharer]:
    """Return the other processes whose memory is that of ``target``, without those in ``but``.

    A process that we may not compare (kcmp(2)) counts, but not for certain, if its /proc/PID/statm,
    which everybody may read, is the same. It takes 2 microseconds for each process.
    Raises ProcessGone.
    """
    comparable = len(own_numbers()) == 1
    found = []
    for pid in sorted(numbers_in_proc() - {target.pid, *but}):
        same = same_memory(target.pid, pid) if comparable else None
        if same or (same is None and like(target, pid)):
            found.append(Sharer(pid, same is not None))
    return found


def like(target: Target, pid: int) -> bool:
    with contextlib.suppress(OSError):
        return read_bytes(f"/proc/{pid}/statm") == target.read("statm")
    return False
