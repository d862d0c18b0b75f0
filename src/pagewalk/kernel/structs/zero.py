"""The frames that stand for all-zero memory: the shared zero page and the huge zero page.

The zero page never moves after boot. The huge zero page is allocated when a process first maps it,
freed when none does, and allocated again elsewhere. A process that may not have huge pages (perhaps
ours: prctl(PR_SET_THP_DISABLE), or a size set to "never") cannot map it. So we remember nothing
about it: each frame that may be the huge zero page is checked every time.
"""

import mmap
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_pages
from pagewalk.kernel.structs.direct_map import DirectMap, own_frame
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.bits import kpf
from pagewalk.model.columns import U64, Bool
from pagewalk.proc.frames import read_kpage

_ZERO_PAGE = kpf("zero_page")
_PAGES = PAGE // 8  # base pages of a PMD entry: as many as a table has entries


class ZeroFrames(NamedTuple):
    """The zero frames of this kernel; ``small`` is the PFN of the zero page.

    ``kpageflags`` is the descriptor of /proc/kpageflags, or None if we may not read it.
    """

    kernel: Kernel
    direct_map: DirectMap
    small: int
    kpageflags: int | None

    def are_huge(self, heads: U64) -> Bool:
        """Return which of ``heads`` are the first frame of the huge zero page.

        ``heads`` (u64[n]) are the first frames of large folios that have no owner and no mapcount
        although page tables point to them. kpageflags identifies it (stable_page_flags,
        fs/proc/page.c); if we may not read that, it is the one whose bytes are all zero.
        """
        if self.kpageflags is not None:
            known: Bool = read_kpage(self.kpageflags, heads) & _ZERO_PAGE != 0
            return known
        return np.array([self._is_empty(head) for head in heads.tolist()], bool)

    def _is_empty(self, head: int) -> bool:
        frames = np.arange(head, head + _PAGES, dtype=np.uint64)
        addresses = self.direct_map.addresses(frames * np.uint64(PAGE))
        words, errno = read_pages(self.kernel.memory, addresses)
        return not errno.any() and not words.any()


def find_zero_frames(kernel: Kernel, direct_map: DirectMap, kpageflags: int | None) -> ZeroFrames:
    """Find the zero page by reading memory of ours that was never written."""
    area = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if area[0]:  # reading it makes the kernel map it
        raise AssertionError("fresh anonymous memory is zero")
    return ZeroFrames(kernel, direct_map, own_frame(kernel, direct_map, area), kpageflags)
