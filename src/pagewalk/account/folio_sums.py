"""The running sums of large folios by how they are mapped. No I/O but what a frame reader does.

What is not a whole folio may go on in the next batch of a walk: it is kept to the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import I64, U64, Bool, State, alike, join, take
from pagewalk.model.facts import Facts
from pagewalk.proc.frames import LARGEST_ORDER, FrameReader
from pagewalk.walking.folios import Pieces, find_folios

COUNTED = 1 << 20  # pages whose mapcounts are read together
SWAP_CACHE = kpf("swapcache")
# The ways in which a folio may be mapped; the last is hugetlb's own.
WAYS = ("pmd", "contiguous", "unaligned", "partly", "hugetlb")
PMD, CONTIGUOUS, UNALIGNED, PARTLY, HUGETLB = range(len(WAYS))
_NO_WORDS, _NO_ROWS = np.zeros(0, np.uint64), np.zeros(0, np.int64)
_NO_PIECES = Pieces(_NO_ROWS, _NO_WORDS, _NO_WORDS, _NO_WORDS, _NO_ROWS.astype(np.uint8),
                    _NO_ROWS.astype(bool), _NO_WORDS)


class Parts(NamedTuple):
    """Pieces of folios, and of each its folio's first frame, ``head`` u64, and ``order`` i64."""

    pieces: Pieces
    head: U64
    order: I64


NONE = Parts(_NO_PIECES, _NO_WORDS, _NO_ROWS)


@dataclass(eq=False)
class FolioSums:
    """What has been added up so far.

    Bytes i64 ``by_vma`` [way, VMA] and ``by_order`` [order, way]; ``folios`` i64 how many there are
    of each order; ``changed`` i64 bytes by VMA of folios that were split or joined meanwhile.
    ``parts`` are mapped in part, as far as is known; ``whole`` u64 are the first frames of folios
    that are mapped whole, and may be in part elsewhere.
    """

    by_vma: I64
    by_order: I64
    folios: I64
    changed: I64
    parts: list[Parts] = field(default_factory=list)
    whole: list[U64] = field(default_factory=list)


def no_folios(vmas: int) -> FolioSums:
    """Return the sums of so many VMAs before the first folio."""
    orders, ways = LARGEST_ORDER + 1, len(WAYS)
    return FolioSums(
        np.zeros((ways, vmas), np.int64), np.zeros((orders, ways), np.int64),
        np.zeros(orders, np.int64), np.zeros(vmas, np.int64),
    )


def add_pieces(sums: FolioSums, waiting: list[Pieces], reader: FrameReader, facts: Facts) -> None:
    """Add the pieces to ``sums``; those that are not whole folios may go on, and are kept."""
    if not sum(map(len, waiting)):
        return
    found = join(waiting)
    head, order = find_folios(reader, found.pfn, found.kflags)
    end = found.pfn + found.size // np.uint64(facts.page_size)
    inside = (order > 0) & (end <= head + (np.uint64(1) << order.astype(np.uint64)))
    torn = ~inside & ~found.huge & (found.state != State.HUGETLB.value)
    np.add.at(sums.changed, found.vma[torn], found.size[torn].astype(np.int64))
    whole = count_whole(sums, Parts(found, head, order), inside, facts)
    part = np.flatnonzero(inside & ~whole)
    sums.parts.append(Parts(take(found, part), head[part], order[part]))


def count_whole(sums: FolioSums, parts: Parts, rows: Bool, facts: Facts) -> Bool:
    # Adds those of `rows` that need no look at their neighbours; returns a mask of them.
    found, head, order = parts
    folio = np.uint64(facts.page_size) << order.astype(np.uint64)
    hugetlb = found.state == State.HUGETLB.value
    whole: Bool = rows & (found.huge | hugetlb | ((found.pfn == head) & (found.size == folio)))
    way = np.where(found.addr % folio == 0, CONTIGUOUS, UNALIGNED)
    way[found.huge], way[hugetlb] = PMD, HUGETLB
    at = np.flatnonzero(whole)
    count(sums, found.vma[at], order[at], way[at], found.size[at])
    first = at[(found.pfn == head)[at]]  # pages of 1 GiB may come in pieces
    sums.folios += np.bincount(order[first], minlength=len(sums.folios))
    # An anonymous page has one address in each process: what is whole here is mapped nowhere else.
    sums.whole.append(head[whole & (found.state != State.ANON.value)])
    return whole


def count(sums: FolioSums, vma: I64, order: I64, way: I64, size: U64) -> None:
    np.add.at(sums.by_vma, (way, vma), size.astype(np.int64))
    np.add.at(sums.by_order, (order, way), size.astype(np.int64))


def finish(sums: FolioSums, facts: Facts) -> Parts:
    """Add what is mapped in part, each folio once for each VMA; return it by ascending frame."""
    if not sums.parts:
        return NONE
    found = join([part.pieces for part in sums.parts])
    head, order = (np.concatenate([part[n] for part in sums.parts]) for n in (1, 2))
    place = np.argsort(found.addr, kind="stable")
    found, head, order = take(found, place), head[place], order[place]
    # A batch of the walk may end within a folio.
    pages = found.size // np.uint64(facts.page_size)
    new = np.ones(len(found), bool)
    new[1:] = (found.addr[1:] != found.addr[:-1] + found.size[:-1]) | (head[1:] != head[:-1])
    new[1:] |= (found.vma[1:] != found.vma[:-1]) | (found.pfn[1:] != found.pfn[:-1] + pages[:-1])
    first = np.flatnonzero(new)
    size = np.add.reduceat(found.size, first) if len(first) else found.size
    found, head, order = take(found, first), head[first], order[first]
    found.size[:] = size
    parts = Parts(found, head, order)
    left = np.flatnonzero(~count_whole(sums, parts, np.ones(len(found), bool), facts))
    left = left[np.argsort(found.pfn[left], kind="stable")]
    parts = Parts(take(found, left), head[left], order[left])
    way = np.full(len(left), PARTLY)
    count(sums, parts.pieces.vma, parts.order, way, parts.pieces.size)
    return parts


def held_back(
    sums: FolioSums, parts: Parts, reader: FrameReader, facts: Facts
) -> tuple[int, I64, I64]:
    """Return what is not mapped of the folios that are mapped in part: bytes.

    What no VMA maps in all; by VMA (i64) what that one does not map; and, by the first VMA (i64)
    that maps some of an anonymous folio, what no process maps. ``parts`` are those of ``finish``.
    """
    found, head, order = parts
    missing, stranded = np.zeros((2, sums.by_vma.shape[1]), np.int64)
    if len(head) == 0:
        return 0, missing, stranded
    first = alike(head)
    page = np.uint64(facts.page_size)
    folio = (page << order.astype(np.uint64)).astype(np.int64)
    sums.folios += np.bincount(order[first], minlength=len(sums.folios))
    # Of the folios that a VMA maps in part, once each, what it maps.
    place = np.lexsort((head, found.vma))
    rows = alike(found.vma[place], head[place])
    mapped = np.add.reduceat(found.size[place].astype(np.int64), rows)
    np.add.at(missing, found.vma[place][rows], np.maximum(folio[place][rows] - mapped, 0))
    rest = folio[first] - np.add.reduceat(fresh(found, page), first)
    rest[np.isin(head[first], np.concatenate([*sums.whole, head[:0]]))] = 0
    anon = (found.state[first] == State.ANON.value) & (rest > 0)
    anon &= found.kflags[first] & SWAP_CACHE == 0
    if not facts.average_mapcounts:
        at = first[anon]
        np.add.at(stranded, found.vma[at], unmapped(reader, head[at], order[at]) * int(page))
    return int(rest.sum()), missing, stranded


def fresh(found: Pieces, page: np.uint64) -> I64:
    # What each piece, by ascending frame, maps that none before it does.
    end = found.pfn + found.size // page
    reach = np.append(np.uint64(0), np.maximum.accumulate(end)[:-1])
    pages: I64 = (end - np.minimum(np.maximum(found.pfn, reach), end)).astype(np.int64)
    return pages * int(page)


def unmapped(reader: FrameReader, head: U64, order: I64) -> I64:
    """Return how many pages (i64) of each folio nobody maps."""
    pages = np.int64(1) << order
    out = np.zeros(len(head), np.int64)
    edges = np.flatnonzero(np.diff(np.cumsum(pages) // COUNTED)) + 1
    for some in np.split(np.arange(len(head)), edges) if len(head) else ():
        times = pages[some]
        first = np.cumsum(times) - times
        step = (np.arange(times.sum()) - np.repeat(first, times)).astype(np.uint64)
        counts = reader.mapcounts(np.repeat(head[some], times) + step)
        out[some] = np.add.reduceat((counts == 0).astype(np.int64), first)
    return out
