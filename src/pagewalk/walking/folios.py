"""The large folios behind the pages of a walk: where each begins, and how large it is.

kpageflags marks the first page of a large folio as head and all others as tails, and a folio is
aligned to its size: the marks of a few pages tell both. Source: include/linux/page-flags.h.
"""

import numpy as np

from pagewalk.model.columns import I64, U8, U64, Bool, Flag, Pages, Rows, State, take
from pagewalk.model.facts import Facts
from pagewalk.model.ranges import distinct
from pagewalk.proc.frames import HEAD, LARGE, LARGEST_ORDER, TAIL, FrameReader

# Whose pages may be parts of a large folio that is mapped in part.
PAGED = np.isin(np.arange(len(State)), [State.ANON.value, State.FILE.value, State.SHMEM.value])
WANTED = PAGED.copy()
WANTED[State.HUGETLB] = True
HUGE = np.uint32(Flag.HUGE.value)


class Pieces(Rows):
    """Pages of one large folio, one after the other, at addresses that follow one another too.

    ``vma`` i64 row of the walk's VMAs; ``addr`` and ``size`` u64 bytes; ``pfn`` u64 the first
    frame; ``state`` u8 (State); ``huge`` bool: mapped by one entry of a PMD or PUD; ``kflags`` u64
    those of the first page.
    """

    vma: I64
    addr: U64
    size: U64
    pfn: U64
    state: U8
    huge: Bool
    kflags: U64


def pieces(pages: Pages, facts: Facts) -> Pieces:
    """Return the pieces of large folios in ``pages``, by ascending address; one for each PMD leaf.

    There are none where frames are withheld. A folio at the end of one batch may go on in the next.
    """
    assert pages.kflags is not None
    large = WANTED[pages.state] & (pages.kflags & LARGE != 0)
    rows = take(pages, np.flatnonzero(large))
    assert rows.pfn is not None and rows.kflags is not None
    addr, size, pfn = rows.addr, rows.size, rows.pfn
    huge = rows.flags & HUGE != 0
    # The base pages of a huge leaf may be rows of their own, which repeat the flags of its first.
    leaf = np.uint64(1 << facts.pmd_order)
    new = np.where(huge, pfn % leaf == 0, rows.kflags & HEAD != 0)
    new[:1] = True
    follows = addr[1:] == addr[:-1] + size[:-1]
    follows &= pfn[1:] == pfn[:-1] + size[:-1] // np.uint64(facts.page_size)
    follows &= (rows.vma[1:] == rows.vma[:-1]) & (huge[1:] == huge[:-1])
    new[1:] |= ~follows
    first = np.flatnonzero(new)
    total = np.add.reduceat(size, first) if len(first) else size
    return Pieces(rows.vma[first], addr[first], total, pfn[first], rows.state[first], huge[first],
                  rows.kflags[first])


def find_folios(reader: FrameReader, pfn: U64, kflags: U64) -> tuple[U64, I64]:
    """Return the first frame (u64) and the order (i64) of the large folio of each page ``pfn``.

    ``kflags`` u64 are the flags of the pages. The order is 0 where the folio has been split or
    freed since they were read.
    """
    heads, order = find_heads(reader, pfn, kflags), np.zeros(len(pfn), np.int64)
    known = np.flatnonzero(heads)
    unique = distinct(heads[known])
    order[known] = find_orders(reader, unique)[np.searchsorted(unique, heads[known])]
    return heads, order


def find_heads(reader: FrameReader, pfn: U64, kflags: U64) -> U64:
    # The nearest aligned frame below that is a head: those in between are tails. 0: none.
    heads = np.where(kflags & HEAD != 0, pfn, np.uint64(0))
    left = np.flatnonzero(heads == 0)
    for order in range(1, LARGEST_ORDER + 1):
        if len(left) == 0:
            break
        below = pfn[left] >> np.uint64(order) << np.uint64(order)
        unique = distinct(below)
        found = (reader.marks(unique) & HEAD != 0)[np.searchsorted(unique, below)]
        heads[left[found]] = below[found]
        left = left[~found]
    return heads


def find_orders(reader: FrameReader, heads: U64) -> I64:
    # The pages of a folio behind its head are tails, and the first one beyond it is none.
    order = np.zeros(len(heads), np.int64)
    left = np.flatnonzero(reader.marks(heads) & HEAD != 0)
    for n in range(LARGEST_ORDER + 1):
        tail = reader.marks(heads[left] + np.uint64(1 << n)) & TAIL != 0
        order[left[~tail]] = n
        left = left[tail]
        if len(left) == 0:
            break
    return order
