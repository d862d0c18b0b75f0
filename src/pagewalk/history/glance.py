"""What can be told of a cgroup within milliseconds: the kernel's counters, and who is in it.

A kill may follow within 30 ms, so this is read before anything is looked at page by page.
"""

import re
import time
from contextlib import suppress
from typing import NamedTuple

from pagewalk.proc.cgroup_numbers import GroupNumbers, numbers_in
from pagewalk.proc.cgroups import GONE, processes_inside
from pagewalk.proc.files import decode_name, read_bytes

MOST = 1000  # processes that are read: each takes a twentieth of a millisecond
LISTED = 50  # processes that are kept, the largest
# task_mem and proc_task_name, fs/proc; a newline in the name is escaped
STATUS = re.compile(
    rb"Name:\t(.*)\n(?s:.*)\nRssAnon:\s*(\d{1,19}) kB\nRssFile:\s*(\d{1,19}) kB\n"
    rb"RssShmem:\s*(\d{1,19}) kB\n(?s:.*)\nVmSwap:\s*(\d{1,19}) kB\n"
)


class Member(NamedTuple):
    """A process of the group: its RSS by kind, and what it has in swap, in bytes.

    As its status tells, which lags behind by some pages a CPU.
    """

    pid: int
    name: str
    anon: int
    file: int
    shmem: int
    swap: int


class Glance(NamedTuple):
    """A cgroup at one moment; ``at_ns`` since 1970, ``took_ns`` how long it took to read.

    ``members`` are the largest processes, the largest first, of ``processes``.
    """

    at_ns: int
    took_ns: int
    numbers: GroupNumbers
    processes: int
    members: tuple[Member, ...]


def glance(group: int, version: int) -> Glance:
    """Read the numbers of the cgroup whose directory is ``group``, and its processes' status.

    Raises OSError if it was removed, and BadText.
    """
    at, began = time.time_ns(), time.monotonic_ns()
    numbers = numbers_in(group, version)
    pids = sorted(processes_inside(group) - {0})
    members = sorted(filter(None, map(read_member, pids[:MOST])), key=size, reverse=True)
    return Glance(at, time.monotonic_ns() - began, numbers, len(pids), tuple(members[:LISTED]))


def pids_inside(group: int) -> list[int]:
    """Return the processes of the cgroup whose directory is ``group``; none if it was removed."""
    try:
        return sorted(processes_inside(group) - {0})
    except OSError as error:
        if error.errno not in GONE:
            raise
        return []


def size(member: Member) -> int:
    """Return what a process has in RAM and in swap."""
    return member.anon + member.file + member.shmem + member.swap


def read_member(pid: int) -> Member | None:
    """Return what status tells of process ``pid``; None if it has ended, or has no memory."""
    with suppress(OSError):
        return parse_member(pid, read_bytes(f"/proc/{pid}/status"))
    return None


def parse_member(pid: int, status: bytes) -> Member | None:
    """Return what a status file tells of the process; None if it has no memory."""
    found = STATUS.match(status)
    if not found:
        return None
    return Member(pid, decode_name(found[1]), *(int(kib) << 10 for kib in found.groups()[1:]))


def hard_to_reclaim(numbers: GroupNumbers, version: int) -> int | None:
    """Return what of the charge is not page cache on the LRU lists of files, in bytes.

    That is reclaimed before anything is killed: a group may be at its limit for months because
    of it. It is all that is charged where there is no memory.stat; None for the root.
    """
    if numbers.current is None:
        return None
    prefix = "total_" if version == 1 else ""
    stat = numbers.stat or {}
    cache = sum(stat.get(f"{prefix}{name}_file", 0) for name in ("active", "inactive"))
    return max(0, numbers.current - cache)


def fullness(numbers: GroupNumbers, version: int) -> tuple[float, int] | None:
    """Return how full the group is of what is hard to reclaim, and its limit in bytes.

    That is of the limit that it is nearest to; of version 2 memory.high is one too. None without.
    """
    hard = hard_to_reclaim(numbers, version)
    if hard is None:
        return None
    limits = [(hard, numbers.limit), (hard, numbers.high)]
    if numbers.both is not None and numbers.current is not None:
        limits.append((hard + numbers.both - numbers.current, numbers.both_limit))
    return max(((used / limit, limit) for used, limit in limits if limit), default=None)
