"""/proc/PID/pagemap: one word per page, and the PAGEMAP_SCAN ioctl that finds populated runs.

Sources: Documentation/admin-guide/mm/pagemap.rst, include/uapi/linux/fs.h.
"""

import errno
import fcntl
import mmap
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import U32, U64, Flag, alike
from pagewalk.model.errors import ProcessGone
from pagewalk.proc.stall import Slice, Stall

PAGE = mmap.PAGESIZE
WORD = 8
HUGE_SIZE = PAGE * (PAGE // WORD)  # what a PMD leaf maps, and a page table of words
PFN_BITS = np.uint64((1 << 55) - 1)
PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)

# Categories of a scanned region (PAGE_IS_* in include/uapi/linux/fs.h).
FILE, PRESENT, SWAPPED, PFNZERO, HUGE = 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
GUARD = 1 << 8  # since 6.15

REGIONS = 512  # the size of the kernel's bounce buffer: one pass under the lock per call
# Populated pages per scan: a call that finds this many in one region takes about a millisecond.
MOST_PAGES, LEAST_PAGES = 1 << 16, 1 << 12
POPULATED = PRESENT | SWAPPED

GONE = "ended or exec'ed another program while it was walked"  # see ProcessGone

# How far apart two populated pages may be and still be read by one call: a call costs about as much
# as reading a page table's worth of empty words.
GAP = HUGE_SIZE


def flags_by_high_bits() -> U32:
    # Bits 55-63 of a pagemap word have 512 possible values: decode them by table lookup.
    bits = {
        55: Flag.SOFT_DIRTY,
        56: Flag.EXCLUSIVE,
        57: Flag.UFFD_WP,
        58: Flag.GUARD,
        61: Flag.FILE,
        62: Flag.SOFT,
        63: Flag.PRESENT,
    }
    table = np.zeros(512, np.uint32)
    values = np.arange(512)
    for bit, flag in bits.items():
        table[(values >> (bit - 55)) & 1 == 1] |= np.uint32(flag)
    return table


FLAGS = flags_by_high_bits()


def flags_of(words: U64) -> U32:
    """Return the flags (u32, see columns.Flag) of pagemap ``words`` (u64)."""
    high = (words >> np.uint64(55)).astype(np.uint16)
    first = alike(high)
    return np.repeat(FLAGS[high[first]], np.diff(first, append=len(high)))


class Pagemap(NamedTuple):
    """/proc/PID/pagemap of process ``pid``, open as ``fd``; each read is timed by ``stall``."""

    fd: int
    pid: int
    stall: Stall

    def word(self, addr: int) -> int | None:
        """Return the word of the page at ``addr``, None beyond the end of the file."""
        with self.stall.timed("pagemap"):
            raw = os.pread(self.fd, WORD, addr // PAGE * WORD)
        return int.from_bytes(raw, sys.byteorder) if len(raw) == WORD else None

    def read(self, start: int, out: U64, chunk: Slice) -> None:
        """Fill ``out`` (u64[n]) with the words of the n pages from address ``start``, in slices.

        Raises ProcessGone when the address space is gone (the file then reads as empty).
        """
        raw = out.data.cast("B")
        done, base = 0, start // PAGE * WORD
        while done < len(raw):
            with self.stall.timed("pagemap"):
                got = os.preadv(self.fd, [raw[done : done + chunk.size * WORD]], base + done)
            if got == 0:
                raise ProcessGone(self.pid, GONE)
            chunk.adapt(self.stall)
            done += got

    def scan(
        self,
        start: int,
        end: int,
        returned: int,
        window: Slice,
        vec_len: int = REGIONS,
        max_pages: int = MOST_PAGES,
    ) -> Iterator[U64]:
        """Yield arrays u64[n, 3] of populated regions (start, end, categories) in [start, end).

        ``window`` limits the address range of a call in bytes, ``max_pages`` its populated pages
        (fewer where calls take long). ``returned`` are the categories asked for; neighbours that
        agree in them form one region. Raises ProcessGone when the address space is gone.
        """
        arg = np.zeros(12, np.uint64)
        vec = np.zeros((vec_len, 3), np.uint64)
        arg[0], arg[5], arg[6] = arg.nbytes, vec.ctypes.data, vec_len
        pages = Slice(max_pages, min(max_pages, LEAST_PAGES), max_pages, share=3)
        arg[10], arg[11] = POPULATED, returned
        while start < end:
            stop = min(start + window.size, end)
            arg[2], arg[3], arg[4], arg[7] = start, stop, 0, pages.size
            began = time.perf_counter_ns()
            found = self.scan_call(arg)
            self.stall.note(time.perf_counter_ns() - began, "pagemap scan")
            window.adapt(self.stall)
            pages.adapt(self.stall)
            if found:
                yield vec[:found].copy()
            start = resume(vec, found, int(arg[4]), stop, vec_len, int(arg[7]))

    def scan_call(self, arg: U64) -> int:
        # Python repeats an interrupted read, but not an interrupted ioctl.
        while True:
            try:
                return int(fcntl.ioctl(self.fd, PAGEMAP_SCAN, arg.data))
            except OSError as err:
                if err.errno == errno.ESRCH:
                    raise ProcessGone(self.pid, GONE) from err
                if err.errno != errno.EINTR:
                    raise


def can_scan(fd: int, categories: int = 0) -> bool:
    """Return whether this kernel has PAGEMAP_SCAN and knows ``categories``."""
    arg = np.zeros(12, np.uint64)
    arg[0], arg[11] = arg.nbytes, categories
    try:
        fcntl.ioctl(fd, PAGEMAP_SCAN, arg.data)
    except OSError as err:
        # ESRCH: the ioctl exists, the address space does not.
        return err.errno == errno.ESRCH
    return True


def tells_huge_zero() -> int:
    """Return the bit by which this kernel distinguishes the huge zero page from anonymous pages.

    That is PFNZERO of a scan (6.18), or FILE, bit 61 of the words (since 6.12), determined on
    memory of our own. 0 if neither is set, if we get no huge page, or if we lack the rights.
    """
    own = mmap.mmap(-1, 2 * HUGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = np.frombuffer(own, np.uint8).ctypes.data
    begin = -address % HUGE_SIZE
    try:
        own.madvise(mmap.MADV_HUGEPAGE, begin, HUGE_SIZE)
        if own[begin]:  # reading it makes the kernel map it
            raise AssertionError("fresh anonymous memory is zero")
        return distinguishing_bit(address + begin)
    except OSError:
        return 0


def distinguishing_bit(start: int) -> int:
    # The bit that says that our huge page is not anonymous.
    arg, vec, word = np.zeros(12, np.uint64), np.zeros(3, np.uint64), np.zeros(1, np.uint64)
    arg[0], arg[2], arg[3], arg[5], arg[6] = arg.nbytes, start, start + PAGE, vec.ctypes.data, 1
    arg[10], arg[11] = PRESENT, HUGE | PFNZERO
    with open("/proc/self/pagemap", "rb", buffering=0) as mine:
        found = fcntl.ioctl(mine.fileno(), PAGEMAP_SCAN, arg.data)
        os.preadv(mine.fileno(), [word.data.cast("B")], start // PAGE * WORD)
    categories = int(vec[2]) if found else 0
    if not categories & HUGE:
        return 0
    return categories & PFNZERO or (FILE if flags_of(word)[0] & np.uint32(Flag.FILE) else 0)


def resume(vec: U64, found: int, walk_end: int, stop: int, vec_len: int, max_pages: int) -> int:
    """Return where to continue the scan of [.., ``stop``) after a call that ``found`` regions.

    ``walk_end`` alone cannot be trusted: when the kernel's bounce buffer of 512 regions filled
    more than once and the last pass ended normally, it points at the start of that pass
    (pagemap_scan_walk, 6.8 to 6.19), and whole batches would be counted twice.
    """
    if found == 0:
        return stop
    pages = int((vec[:found, 1] - vec[:found, 0]).sum()) // PAGE
    if found < vec_len and pages < max_pages:
        return stop
    return min(max(walk_end, int(vec[found - 1, 1])), stop)


def find_pfn(own: U64) -> int:
    """Return the PFN of memory of ours, 0 if PFNs read as 0 in any pagemap that we open now.

    The kernel decides at open (pagemap_open). A capability mask would not show it: it may only be
    valid in a nested user namespace.
    """
    word = np.zeros(1, np.uint64)
    with open("/proc/self/pagemap", "rb", buffering=0) as mine:
        os.preadv(mine.fileno(), [word.data.cast("B")], own.ctypes.data // PAGE * 8)
    return int(word[0] & PFN_BITS)
