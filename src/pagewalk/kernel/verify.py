"""Check the frame database read from struct page against /proc/kpage* on a sample of frames."""

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.frames import read_struct_pages
from pagewalk.kernel.structs.struct_page import EXPORTED, FrameMap
from pagewalk.model.bits import kpf
from pagewalk.model.columns import U64
from pagewalk.proc.frames import Frames, folio_flags, read_kpage

# A page that is freed and reused all the time can differ in three consecutive looks: that happened
# in 1 of 12 runs of a test.
_LOOKS = 20


class Agreement(NamedTuple):
    """The outcome of a comparison: the number of frames ``compared``, and the PFNs (u64) that
    differ in ``flags`` (those in EXPORTED) and in ``mapcount``."""

    compared: int
    flags: U64
    mapcount: U64

    @property
    def holds(self) -> bool:
        """Return whether any frames were compared, and none differs."""
        return self.compared > 0 and not len(self.flags) and not len(self.mapcount)


def compare(frames: FrameMap, kpage: Frames, pfns: U64) -> Agreement:
    """Read ``pfns`` (u64[n], ascending) from struct page and from /proc/kpage*, and compare.

    Frames change all the time, so where the two differ the kernel's files are read again, and only
    frames on which both readings agree count. Frames that /proc/kpageflags does not know (0, or
    nopage) do not count: offline memory, device memory, or memory that is not initialised yet. A
    page that was freed, used and freed again in between looks the same before and after, so a
    difference counts only when many consecutive looks show it. On kernels up to 6.9 a tail's flags
    are compared with its head's, as everywhere in pagewalk.
    """
    found = _look(frames, kpage, pfns)
    for _ in range(_LOOKS - 1):
        if not len(found.flags) and not len(found.mapcount):
            break
        again = np.union1d(found.flags, found.mapcount)
        seen = _look(frames, kpage, again)
        found = Agreement(
            found.compared,
            np.intersect1d(found.flags, seen.flags),
            np.intersect1d(found.mapcount, seen.mapcount),
        )
    return found


def _look(frames: FrameMap, kpage: Frames, pfns: U64) -> Agreement:
    words, counts = _kpage(kpage, pfns)
    rows = read_struct_pages(frames, pfns)
    known = (words & ~kpf("nopage") != 0) & (rows.errno == 0)
    # The kernel calls every 64th tail of an optimised hugetlb folio a head, because of the struct
    # page that they share (seen on 6.18); we know better.
    huge = words & kpf("huge") != 0
    exported = EXPORTED if kpage.ksm else EXPORTED & ~kpf("ksm")
    compared = np.where(huge, exported & ~(kpf("head") | kpf("tail")), exported)
    if not frames.layout.records_mapped:
        # Up to 6.1 it takes a look at every page of a large folio to know if one is mapped
        # (page_mapped, mm/util.c): kpageflags looks, and we tell of each page only its own count.
        large = words & (kpf("head") | kpf("tail")) != 0
        compared = np.where(large, compared & ~kpf("mmap"), compared)
    flags = known & ((rows.flags ^ words) & compared != 0)
    mapcount = known & (rows.mapcount != counts.view(np.int64))
    differ = np.flatnonzero(flags | mapcount)
    again = _kpage(kpage, pfns[differ])
    changed = differ[(again[0] != words[differ]) | (again[1] != counts[differ])]
    flags[changed] = mapcount[changed] = known[changed] = False
    return Agreement(int(np.count_nonzero(known)), pfns[flags], pfns[mapcount])


def _kpage(kpage: Frames, pfns: U64) -> tuple[U64, U64]:
    return folio_flags(kpage.flags, pfns), read_kpage(kpage.counts, pfns)
