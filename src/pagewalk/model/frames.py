"""Frames as columns: what each frame of RAM is used for, who is charged for it, what it belongs to.

Frames that follow one another and are alike are one row: a run. All of RAM is a stream of such
batches, each frame in exactly one run.
"""

from enum import IntEnum

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import I32, I64, U8, U64, Bool, Rows

# The bits of /proc/kpageflags that are kept: how a frame could be reclaimed. Others would cut runs.
FLAGS = kpf(
    "dirty", "lru", "active", "writeback", "anon", "swapcache", "swapbacked", "unevictable",
    "hwpoison", "ksm", "reserved", "mlocked",
)  # fmt: skip

# Facts about a frame beside its flags (Frames.facts, u8).
MAPPED_WHOLE = 1  # its folio is mapped as a whole somewhere (by a PMD, or hugetlb)
FOLIO_MAPPED = 2  # some page of its folio is mapped
REFERENCED = 4  # something holds a reference (told for hugetlb pages: the others are idle)
ORDER_SHIFT = 3  # above them: the folio's order


class Kind(IntEnum):
    """What a frame is used for; every frame of System RAM is exactly one.

    ``UNKNOWN`` is a frame whose struct page could not be read.
    """

    RESERVED = 0
    DEFERRED = 1
    BUDDY = 2
    CPU_LIST = 3
    ANON = 4
    KSM = 5
    FILE = 6
    SHMEM = 7
    SWAP_CACHE = 8
    HUGETLB = 9
    SLAB = 10
    LARGE_KMALLOC = 11
    PAGE_TABLE = 12
    ZSMALLOC = 13
    OFFLINE = 14
    GUARD = 15
    UNACCEPTED = 16
    BLOCK_TAIL = 17
    KERNEL = 18
    UNKNOWN = 19

    @property
    def label(self) -> str:
        """Return the word the views print."""
        return self.name.lower()


class Backing(IntEnum):
    """Whether dirty pages of a file are ever written, which tells whether the kernel counts them.

    ``WRITTEN``: they are; ``KEPT``: they stay in RAM, uncounted; ``UNTOLD``: that cannot be read.
    """

    WRITTEN = 0
    KEPT = 1
    UNTOLD = 2


class Frames(Rows):
    """Runs of frames that are alike, by ascending frame.

    ``pfn`` i64 the first frame, ``pages`` i64 how many; ``kind`` u8 (Kind); ``flags`` u64 those of
    the folio's head as in /proc/kpageflags, as far as they are in FLAGS; ``facts`` u8
    (MAPPED_WHOLE, ..., and from ORDER_SHIFT on the order of its folio); ``mapcount`` i32 of each
    page. ``owner`` u64 is who is charged: the word memcg_data of struct page, or from
    /proc/kpagecgroup the inode of a cgroup. ``object`` u64 is the address of the address_space or
    the kmem_cache that it belongs to, else 0; ``counts`` u64 the word ``counters`` of a slab.
    A column is None where the reader does not tell it.
    """

    pfn: I64
    pages: I64
    kind: U8
    flags: U64
    facts: U8 | None
    mapcount: I32
    owner: U64 | None
    object: U64 | None
    counts: U64 | None

    def of(self, *kinds: Kind) -> Bool:
        """Return a mask of the runs of ``kinds``."""
        wanted = np.zeros(1 << 8, bool)
        wanted[[kind.value for kind in kinds]] = True
        mask: Bool = wanted[self.kind]
        return mask
