"""The processes that descend from this one, and what each holds, as the kernel adds it up.

Cheap enough to be asked many times a second: no page is looked at, and numpy is not needed.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pagewalk.model.errors import BadText, NotPermitted, PagewalkError, ProcessGone
from pagewalk.proc.files import decode_name, read_bytes, words
from pagewalk.proc.kernel import read_facts
from pagewalk.proc.refusals import reading
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import parse_stat

PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37  # include/uapi/linux/prctl.h
PF_FORKNOEXEC = 0x00000040  # include/linux/sched.h
COUNTERS = 3  # that RSS is the sum of
STATUS = re.compile(rb"(?m)^(Name|PPid|Threads|VmSize|VmHWM|VmRSS|VmSwap):\t(.*)$")
SIZES = (b"VmSize", b"VmHWM", b"VmRSS", b"VmSwap")
ROLLUP = re.compile(rb"(?m)^(Rss|Pss|Pss_Anon|Private_Clean|Private_Dirty|Anonymous|Swap|SwapPss"
                    rb"|Private_Hugetlb|Shared_Hugetlb|KSM): +(\d{1,20}) kB$")


class Holds(NamedTuple):
    """What one process holds, in bytes: smaps_rollup, and of status ``peak`` (VmHWM) and ``swap``.

    ``anon`` of ``rss`` is anonymous, ``pss_anon`` of ``pss``; ``swap_pss`` divides a slot of swap
    among those that share it, ``swap_most`` has what is swapped of shared memory too. ``ksm`` are
    merged pages, None before Linux 6.7. Where
    smaps_rollup may not be read, ``refused`` says why: ``rss`` and ``swap`` are then status', and
    what only it tells is None. ``size`` is VmSize; ``forked`` whether it runs the program that it
    was forked from.
    """

    pid: int
    parent: int
    name: str
    threads: int
    size: int
    peak: int
    rss: int
    swap: int
    uss: int | None = None
    pss: int | None = None
    anon: int | None = None
    pss_anon: int | None = None
    swap_pss: int | None = None
    swap_most: int | None = None
    hugetlb: int | None = None
    ksm: int | None = None
    refused: str = ""


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be the parent of descendants whose own parent ends, until the block ends: prctl(2).

    Processes that are started in the block do not inherit that. Raises PagewalkError.
    """
    before = ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(before))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, before.value)


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise PagewalkError("cannot become the parent of orphans (PR_SET_CHILD_SUBREAPER):"
                            f" {os.strerror(ctypes.get_errno())}")


def descendants(without: Collection[int] = (), root: str = "/proc") -> list[int]:
    """Return the numbers in /proc of the processes that descend from this one.

    ``without`` are children of ours that do not count, nor what descends from them. A process that
    is created or loses its parent meanwhile may be missing.
    """
    below = by_parent(root)
    found, waiting = list[int](), own_children(root)
    while waiting:
        one = waiting.pop()
        if one not in without:
            found.append(one)
            waiting += children(f"{root}/{one}/task") if below is None else below.get(one, [])
    return found


def own_children(root: str = "/proc") -> list[int]:
    """Return the numbers in /proc of the children of this process."""
    below = by_parent(root)
    if below is None:
        return children(f"{root}/self/task")
    return below.get(int(os.readlink(f"{root}/self")), [])


def children(tasks: str) -> list[int]:
    # Each thread has children of its own.
    found = list[int]()
    with suppress(OSError):
        for thread in os.listdir(tasks):
            with suppress(OSError):
                found += map(int, words(read_bytes(f"{tasks}/{thread}/children")))
    return found


def by_parent(root: str) -> dict[int, list[int]] | None:
    """Return the children of every process; None where the kernel lists them of each process."""
    if os.path.exists(f"{root}/thread-self/children"):  # CONFIG_PROC_CHILDREN
        return None
    below: dict[int, list[int]] = {}
    for entry in os.listdir(root):
        if entry.isdigit():
            with suppress(OSError, BadText):
                parent = parse_stat(read_bytes(f"{root}/{entry}/stat")).parent
                below.setdefault(parent, []).append(int(entry))
    return below


def was_forked(root: str = "/proc") -> bool:
    """Return whether this process has run no other program since it was forked.

    Then it may share anonymous memory with its parent.
    """
    return bool(parse_stat(read_bytes(f"{root}/self/stat")).flags & PF_FORKNOEXEC)


def merges_pages() -> bool:
    """Return whether the kernel has merged equal pages of any processes (KSM)."""
    try:
        return read_bytes("/sys/kernel/mm/ksm/pages_shared") != b"0\n"
    except OSError:
        return False


def peak_lag(threads: int) -> int:
    """Return by how much VmHWM of a process with ``threads`` may be too large, in bytes.

    update_hiwater_rss() (include/linux/mm.h) compares approximate counters.
    """
    return COUNTERS * read_facts().counter_lag(threads)


def read_holds(pid: int, stall: Stall) -> Holds | None:
    """Return what the process that /proc lists as ``pid`` holds; None if it has ended.

    Reading smaps_rollup takes the process's lock for reading; the kernel lets go of it at the next
    VMA when somebody waits for it (since 5.15). ``stall`` times it. Raises BadText.
    """
    folder = f"/proc/{pid}"
    with suppress(ProcessGone):
        try:
            with reading(pid, "smaps_rollup"), stall.timed("smaps_rollup"):
                rollup = read_bytes(f"{folder}/smaps_rollup")
        except NotPermitted as error:
            return of_status(pid, f"{error.says}; {error.remedy}")
        told = of_status(pid, "")
        return told and added(told, rollup)
    return None


def read_mappings(pid: int, stall: Stall) -> bytes:
    """Return smaps of the process that /proc lists as ``pid``, nothing if it may not be read.

    It is not parsed: that is for when it is needed. The lock is taken as by read_holds.
    """
    with suppress(ProcessGone, NotPermitted), reading(pid, "smaps"), stall.timed("smaps"):
        return read_bytes(f"/proc/{pid}/smaps")
    return b""


def of_status(pid: int, refused: str) -> Holds | None:
    with reading(pid, "status"):
        text = read_bytes(f"/proc/{pid}/status")
    said = dict(reversed(STATUS.findall(text)))  # the first of a name counts
    if b"VmRSS" not in said:  # it has ended, or is a kernel thread
        return None
    try:
        amount = {name: int(said[name].removesuffix(b" kB")) for name in said if name != b"Name"}
        size, peak, rss, swap = (amount[name] << 10 for name in SIZES)
        return Holds(pid, amount[b"PPid"], decode_name(said[b"Name"]), amount[b"Threads"], size,
                     peak, rss, swap, refused=refused)
    except (KeyError, ValueError):
        raise BadText("status", 1, text) from None


def added(told: Holds, rollup: bytes) -> Holds | None:
    """Return ``told`` with what the text of smaps_rollup says; None if that is empty."""
    if not rollup:  # it ended; see refusals
        return None
    said = {decode_name(name): int(number) << 10 for name, number in ROLLUP.findall(rollup)}
    try:
        return told._replace(
            rss=said["Rss"], uss=said["Private_Clean"] + said["Private_Dirty"], pss=said["Pss"],
            anon=said["Anonymous"], pss_anon=said["Pss_Anon"], swap_pss=said["SwapPss"],
            swap_most=max(said["Swap"], told.swap),
            hugetlb=said["Private_Hugetlb"] + said["Shared_Hugetlb"], ksm=said.get("KSM"))
    except KeyError:
        raise BadText("smaps_rollup", 1, rollup) from None
