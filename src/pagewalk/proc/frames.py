"""/proc/kpageflags and /proc/kpagecount: what the kernel says about a page frame.

Sources: Documentation/admin-guide/mm/pagemap.rst, fs/proc/page.c. Reading takes no process's
locks. Each word costs the kernel 60 to 90 ns, so frames are read in runs, and each only once.
"""

import errno
import os
import sys
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import numpy as np

from pagewalk.model.bits import MAYBE_KSM, kpf
from pagewalk.model.columns import U64, Bool
from pagewalk.proc.files import HIDDEN
from pagewalk.proc.kernel import release

HEAD = kpf("head")
TAIL = kpf("tail")
LARGE = HEAD | TAIL
NOPAGE = kpf("nopage")
NOPAGE_GONE = (6, 15)  # since then the word of a frame without RAM is 0
KSM = kpf("ksm")
LARGEST_ORDER = 18  # 1 GiB of 4 KiB pages: no folio is larger

# Reading this many unwanted frames between two wanted ones is cheaper than a second call.
GAP = 8

# Runs converted to Python integers at a time: those take more memory than the frames' words.
RUNS = 1 << 12


class FrameReader(Protocol):
    """A source of the flags and mapcounts of page frames."""

    @property
    def young(self) -> bool:
        """Return whether the flags include bits.YOUNG."""

    @property
    def ksm(self) -> bool:
        """Return whether the flags identify KSM pages."""

    def read(self, pfns: U64, once: Bool) -> tuple[U64, U64]:
        """Return (flags of the folio's head, mapcount), u64[n], of each frame in ``pfns`` u64[n].

        ``once`` bool[n] marks frames whose entry says "mapped exactly once"; for a small folio that
        is the mapcount, which saves a read.
        """

    def mapcounts(self, pfns: U64) -> U64:
        """Return the mapcount (u64[n]) of each frame in ``pfns``."""

    def marks(self, pfns: U64) -> U64:
        """Return HEAD, TAIL or 0 (u64[n]) for each frame in ``pfns``: its place in its folio."""


class Frames(NamedTuple):
    """The open frame database of /proc: descriptors of kpageflags and kpagecount.

    Without ``ksm`` the kernel's KSM bit means nothing (see open_frames): pages that have it and are
    mapped more than once get flags.MAYBE_KSM instead. With ``nopage`` the kernel marks frames that
    are not RAM, and we mark frames beyond the end of the file the same way.
    """

    flags: int
    counts: int
    young: bool = False
    ksm: bool = True
    nopage: bool = False

    def read(self, pfns: U64, once: Bool) -> tuple[U64, U64]:
        """Return (flags, mapcount); see FrameReader."""
        flags = folio_flags(self.flags, pfns)
        if self.nopage and not flags.min(initial=1):
            flags[pfns >= np.uint64(end_of(self.flags))] = NOPAGE
        mapcount = np.ones(len(pfns), np.uint64)
        ask = np.flatnonzero(~once | (flags & LARGE != 0))
        mapcount[ask] = read_kpage(self.counts, pfns[ask])
        if not self.ksm:
            flags[(flags & KSM != 0) & (mapcount > 1)] |= MAYBE_KSM
            flags &= ~KSM
        return flags, mapcount

    def mapcounts(self, pfns: U64) -> U64:
        """Return the mapcounts; see FrameReader."""
        return read_kpage(self.counts, pfns)

    def marks(self, pfns: U64) -> U64:
        """Return the marks of large folios; see FrameReader."""
        return read_kpage(self.flags, pfns) & LARGE

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.flags)
        os.close(self.counts)


def open_words(path: str) -> int:
    """Return a descriptor of a file with a word for each frame; raises OSError, also if empty."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not os.pread(fd, 8, 0):  # there is always a frame 0
            raise OSError(errno.ENODATA, HIDDEN, path)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_frames(root: str = "/proc", own: int | None = None) -> Frames:
    """Return the open frame database; raises OSError (the files are root's, mode 0400; ENODATA if
    something else, such as /dev/null, hides one).

    ``own`` is a frame of ours, written a moment ago, that cannot have been merged: ``ksm`` is off
    if the kernel says that it was. 6.12 sets the KSM bit on every anonymous page: PAGE_MAPPING_KSM,
    which stable_page_flags tests, is two bits, one of which is PAGE_MAPPING_ANON.
    """
    with ExitStack() as held:
        flags = open_words(f"{root}/kpageflags")
        held.callback(os.close, flags)
        count = open_words(f"{root}/kpagecount")
        held.callback(os.close, count)
        merged = own is not None and read_kpage(flags, np.array([own], np.uint64))[0] & KSM
        held.pop_all()
    return Frames(flags, count, ksm=not merged, nopage=release() < NOPAGE_GONE)


def read_kpage(fd: int, pfns: U64) -> U64:
    """Return the word (u64[n]) of each frame in ``pfns`` (u64[n], any order, repeats allowed).

    A frame beyond the end of the file (device memory) reads as 0, like one without RAM inside it.
    """
    if len(pfns) == 0:
        return np.zeros(0, np.uint64)
    first, last = runs(pfns)
    order = np.argsort(first)
    ascending = first[order]
    starts, stops = merge(ascending, last[order])
    base = np.zeros(len(starts) + 1, np.int64)
    np.cumsum((stops - starts).astype(np.int64), out=base[1:])
    words = np.zeros(int(base[-1]), np.uint64)
    raw = words.data.cast("B")
    for at in range(0, len(starts), RUNS):
        offsets = (starts[at : at + RUNS] * np.uint64(8)).tolist()
        edges = (base[at : at + RUNS + 1] * 8).tolist()
        for offset, low, high in zip(offsets, edges[:-1], edges[1:], strict=True):
            if os.preadv(fd, [raw[low:high]], offset) != high - low:
                read_slowly(fd, offset, raw[low:high])
    span = np.searchsorted(starts, ascending, side="right") - 1
    shift = np.empty(len(first), np.int64)
    shift[order] = base[span] - starts[span].astype(np.int64)
    row = np.repeat(shift, (last - first).astype(np.int64))
    row += pfns.view(np.int64)
    return words[row]


def owner_of(pfn: int) -> int | None:
    """Return the inode of the cgroup charged for a frame: 0 if none is, None if that is hidden.

    Of a removed group the kernel names the nearest one above that is not (page_cgroup_ino).
    """
    try:
        fd = os.open("/proc/kpagecgroup", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int.from_bytes(os.pread(fd, 8, 8 * pfn), sys.byteorder)
    except (OSError, OverflowError):  # beyond the end of RAM
        return None
    finally:
        os.close(fd)


def end_of(fd: int) -> int:
    """Return how many frames kpageflags has a word for: it ends where RAM ends, or later.

    The file has no size, so its end is found by bisection; every time, because it may grow.
    """
    low, high = 0, 1 << 52
    while low < high:
        middle = (low + high) // 2
        if os.pread(fd, 8, middle * 8):
            low = middle + 1
        else:
            high = middle
    return low


def runs(pfns: U64) -> tuple[U64, U64]:
    # Consecutive frames form a run. Returns (first, last + 1) of each run, in row order.
    first = np.ones(len(pfns), bool)
    first[1:] = pfns[1:] != pfns[:-1] + np.uint64(1)
    heads = np.flatnonzero(first)
    tails = np.append(heads[1:], len(pfns)) - 1
    return pfns[heads], pfns[tails] + np.uint64(1)


def merge(first: U64, last: U64) -> tuple[U64, U64]:
    # Joins runs sorted by start where they touch, overlap, or are less than GAP apart.
    reach = np.maximum.accumulate(last)
    new = np.ones(len(first), bool)
    new[1:] = first[1:] > reach[:-1] + np.uint64(GAP)
    heads = np.flatnonzero(new)
    return first[heads], reach[np.append(heads[1:], len(first)) - 1]


def read_slowly(fd: int, offset: int, out: memoryview) -> None:
    # Leaves the part of `out` beyond the end of the file as it is.
    done = 0
    while done < len(out) and (got := os.preadv(fd, [out[done:]], offset + done)):
        done += got


def folio_flags(fd: int, pfns: U64) -> U64:
    """Return the words of ``pfns`` in kpageflags, those of tail pages replaced by their head's.

    Up to 6.9 a tail's own word lacks referenced, dirty and swapbacked; the head's is right on every
    version. The TAIL bit is kept, so that tails can still be recognised.
    """
    words = read_kpage(fd, pfns)
    tails = np.flatnonzero(words & TAIL)
    if len(tails):
        heads = find_heads(fd, pfns[tails])
        known = heads != np.uint64(0)
        words[tails[known]] = heads[known] & ~HEAD | TAIL
    return words


def find_heads(fd: int, pfns: U64) -> U64:
    # A folio is aligned to its size, so a tail's head is the nearest aligned frame below it that
    # has the HEAD bit. 0 where there is none (the folio has been split meanwhile).
    found = np.zeros(len(pfns), np.uint64)
    open_rows = np.arange(len(pfns))
    for order in range(1, LARGEST_ORDER + 1):
        below = pfns[open_rows] >> np.uint64(order) << np.uint64(order)
        unique, back = np.unique(below, return_inverse=True)
        words = read_kpage(fd, unique)[back]
        hit: Bool = words & HEAD != 0
        found[open_rows[hit]] = words[hit]
        open_rows = open_rows[~hit]
        if len(open_rows) == 0:
            break
    return found
