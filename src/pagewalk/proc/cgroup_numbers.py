"""What the kernel counts for one memory cgroup, of either version, as one record."""

import errno
import mmap
import os
import re
from sys import intern
from typing import NamedTuple

from pagewalk.model.errors import BadText
from pagewalk.proc.cgroups import Hierarchy, open_group
from pagewalk.proc.files import decode_name, number, read_bytes, rows

# "anon 12288" (memory.stat, memory.events, memory.oom_control)
LINE = re.compile(rb"(?m)^([^ \n]+) (\d{1,20})\n")
# "some avg10=0.00 avg60=0.00 avg300=0.00 total=5012" (psi_show, kernel/sched/psi.c)
STALLED = re.compile(rb"(?m)^(some|full) [^\n]* total=(\d{1,20})\n")
# What version 1 prints for no limit, and a limit can be at most (PAGE_COUNTER_MAX,
# include/linux/page_counter.h).
UNLIMITED = ((1 << 63) - 1) // mmap.PAGESIZE * mmap.PAGESIZE

# The file of each number, by version.
FILES = {
    1: {
        "current": "memory.usage_in_bytes",
        "peak": "memory.max_usage_in_bytes",
        "limit": "memory.limit_in_bytes",
        "both": "memory.memsw.usage_in_bytes",
        "both_limit": "memory.memsw.limit_in_bytes",
        "kmem": "memory.kmem.usage_in_bytes",
        "tcp": "memory.kmem.tcp.usage_in_bytes",
    },
    2: {
        "current": "memory.current",
        "peak": "memory.peak",
        "limit": "memory.max",
        "high": "memory.high",
        "low": "memory.low",
        "min": "memory.min",
        "swap_current": "memory.swap.current",
        "swap_limit": "memory.swap.max",
    },
}
# There is no limit where these say so.
LIMITS = ("limit", "high", "swap_limit", "both_limit")
# Files that a kernel does not have, or does not read for this group: PSI that is off, the root.
MISSING = (errno.ENOENT, errno.EOPNOTSUPP)


class GroupNumbers(NamedTuple):
    """The kernel's numbers for a cgroup and all below it, in bytes; None where it has none.

    A limit (``limit``, ``high``, ``swap_limit``, ``both_limit``) is None too where none is set;
    ``low`` and ``min`` without a bound are UNLIMITED. ``current`` is what is charged, None for the
    root; ``peak`` the most that was. Version 1 only: ``both`` is memory and swap together, ``kmem``
    the part of ``current`` that is the kernel's, ``tcp`` its sockets' buffers, not part of
    ``current``. Version 2 only: ``high``, ``low``, ``min``, ``swap_current`` and
    ``swap_limit`` (what is in swap in version 1 is ``total_swap`` of ``stat``).

    ``stat`` is memory.stat: bytes, and events as counts; in version 1 of the group itself, and with
    ``total_`` in front of all below it too. ``events`` are counts since the group was made, of
    memory.events; in version 1 memory.oom_control, where ``under_oom`` and ``oom_kill_disable`` are
    0 or 1, and ``failcnt``. ``pressure`` is for how many microseconds ``some`` or all (``full``) of
    its threads waited for memory.
    """

    current: int | None = None
    peak: int | None = None
    limit: int | None = None
    high: int | None = None
    low: int | None = None
    min: int | None = None
    swap_current: int | None = None
    swap_limit: int | None = None
    both: int | None = None
    both_limit: int | None = None
    kmem: int | None = None
    tcp: int | None = None
    stat: dict[str, int] | None = None
    events: dict[str, int] | None = None
    pressure: dict[str, int] | None = None


def read_numbers(hierarchy: Hierarchy, path: str) -> GroupNumbers:
    """Return the kernel's numbers for group ``path``, one file after the other.

    All are of the same group, through one descriptor. Raises GroupGone, NotPermitted,
    SourceUnavailable, BadText.
    """
    with open_group(hierarchy, path) as group:
        return numbers_in(group, hierarchy.version)


def numbers_in(group: int, version: int) -> GroupNumbers:
    """Return the kernel's numbers for the group whose directory is ``group``, as read_numbers does.

    Raises OSError, one of cgroups.GONE if it was removed, and BadText.
    """
    amounts = {
        name: parse_amount(text, file, none=name in LIMITS)
        for name, file in FILES[version].items()
        if (text := read(group, file)) is not None
    }
    stat, pressure = read(group, "memory.stat"), read(group, "memory.pressure")
    events = read_events(group, version)
    if version == 1 and is_root(group):
        amounts |= {"current": None, "both": None, "peak": None}
    check_alive(group)
    return GroupNumbers(
        **amounts,
        stat=None if stat is None else parse_counts(stat, "memory.stat"),
        events=events,
        pressure=None if pressure is None else parse_pressure(pressure),
    )


def check_alive(group: int) -> None:
    # A group loses one file after the other when it is removed, so a file that was missing may have
    # been there: that is over once we had cgroup_mutex (cgroup_destroy_locked, proc_cgroup_show).
    read_bytes("/proc/self/cgroup")
    os.stat("cgroup.procs", dir_fd=group)


def is_root(group: int) -> bool:
    """Return whether the directory is that of the root of a hierarchy of version 1.

    For it the kernel shows the page cache and the mapped anonymous memory of the whole machine in
    place of what is charged (mem_cgroup_usage, mm/memcontrol-v1.c). Only it has a release_agent.
    """
    try:
        os.stat("release_agent", dir_fd=group)
    except OSError:
        return False
    return True


def read(group: int, file: str) -> bytes | None:
    # None where the kernel has no such file, or not for this group.
    try:
        return read_bytes(file, group)
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise


def read_events(group: int, version: int) -> dict[str, int] | None:
    if version == 2:
        text = read(group, "memory.events")
        return None if text is None else parse_counts(text, "memory.events")
    control, failed = read(group, "memory.oom_control"), read(group, "memory.failcnt")
    if control is None or failed is None:
        return None
    return parse_counts(control + b"failcnt " + failed, "memory.oom_control")


def parse_amount(text: bytes, file: str, *, none: bool) -> int | None:
    """Return the number in a file of one line, None for no limit if ``none``; raises BadText.

    "max" is otherwise UNLIMITED.
    """
    try:
        value = UNLIMITED if text == b"max\n" else number(text.removesuffix(b"\n"))
    except ValueError:
        raise BadText(file, 1, text) from None
    return None if none and value >= UNLIMITED else value


def parse_counts(text: bytes, file: str) -> dict[str, int]:
    """Return the lines of ``file``, a name and a number each; raises BadText."""
    # Of thousands of groups, each has the same names: they are kept once.
    return {intern(decode_name(name)): int(value) for name, value in rows(LINE, text, file)}


def parse_pressure(text: bytes) -> dict[str, int]:
    """Return the totals in a memory.pressure file, in microseconds; raises BadText."""
    return {decode_name(who): int(us) for who, us in rows(STALLED, text, "memory.pressure")}
