"""Huge pages and other large folios as they are: how they are mapped, and what is broken up.

A large folio is mapped by one entry of a PMD, or by entries of its single pages: then it matters
whether all of them are there and where. No I/O but what the walk and its frame reader do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.account.folio_sums import (
    CONTIGUOUS,
    HUGETLB,
    WAYS,
    FolioSums,
    add_pieces,
    finish,
    held_back,
    no_folios,
)
from pagewalk.account.table import Column, Table, tabulate
from pagewalk.account.totals import add, no_totals
from pagewalk.kernel.thp_eligible import UNKNOWN
from pagewalk.model.columns import I64, U64, Backing, Pages, State, VMAs, Withheld
from pagewalk.model.facts import Facts
from pagewalk.model.ranges import distinct
from pagewalk.proc.frames import FrameReader
from pagewalk.sources import Source
from pagewalk.walking.folios import HUGE as HUGE_ENTRY
from pagewalk.walking.folios import Pieces, pieces
from pagewalk.walking.sums import add_up
from pagewalk.walking.walk import Walk, walk

TOGETHER = 1 << 16  # pieces whose folios are looked up together

COLUMNS = (
    Column("size", "SIZE", "length of the VMA"),
    Column("rss", "RSS", "resident set size"),
    Column("pmd", "PMD", "mapped by entries of a PMD or PUD, of 2 MiB or more each: the sum of"
           " anon_huge, shmem_huge and file_huge"),
    Column("contiguous", "CONTIGUOUS", "whole large folios by entries of single pages, in a row"
           " and at an address that is a multiple of their size"),
    Column("unaligned", "UNALIGNED", "whole large folios by entries of single pages in a row, at"
           " any other address: no larger entry can map them there"),
    Column("partly", "PARTLY", "pages of large folios of which this VMA does not map all in a row"),
    Column("small", "SMALL", "the rest of RSS: folios of one page"),
    Column("missing", "NOT HERE", "what the VMA does not map of the folios in partly; in the total,"
           " what no VMA of the process maps"),
    Column("stranded", "STRANDED", "what no process maps of the anonymous folios in partly: in RAM"
           " until the kernel splits them"),
    Column("anon_huge", "ANON HUGE", "anonymous memory in pmd: AnonHugePages of smaps"),
    Column("shmem_huge", "SHMEM HUGE", "shmem in pmd: ShmemPmdMapped"),
    Column("file_huge", "FILE HUGE", "files in pmd: FilePmdMapped"),
    Column("huge_zero", "HUGE ZERO", "the huge zero page, which is not in RSS"),
    Column("hugetlb", "HUGETLB", "hugetlb pages, which are not in RSS"),
    Column("private_hugetlb", "HUGETLB PRIV", "those that only this process maps"),
    Column("shared_hugetlb", "HUGETLB SHRD", "those that are mapped more than once"),
    Column("fits", "FITS", "how much of the VMA a PMD could map: aligned, in its file too"),
    Column("eligible", "THP", "THPeligible of smaps: 1 if it may get huge pages"),
    Column("zeros", "ZEROS", "pages of 4 KiB in anon_huge that contain only zeros (--zeros)"),
)
BY_TABLE = ("size", "rss", "anon_huge", "shmem_huge", "file_huge", "huge_zero", "hugetlb",
            "private_hugetlb", "shared_hugetlb")
BY_ENTRIES = WAYS[CONTIGUOUS:HUGETLB]
PMD_PARTS = ("anon_huge", "shmem_huge", "file_huge")

NO_FRAMES = Withheld(
    "contiguous, unaligned, partly, small, missing, stranded and the sizes of folios",
    "only page frames show large folios, and they are hidden here; run as root",
    partial=True,
)
NO_SCAN = Withheld(
    "pmd, contiguous",
    "this kernel has no PAGEMAP_SCAN (since 6.7), so a huge page that is mapped whole may be mapped"
    " either way; --source ebpf reads the entries",
)
NO_COUNTS = Withheld("stranded", "pages of large folios have no mapcount on this kernel")
CHANGED = "folios were split or joined while they were read; they are in none of the columns"


class Size(NamedTuple):
    """The folios of one size: ``folios`` of them, mapped wholly or in part; bytes by WAYS.

    ``size`` is that of each, bytes. A folio that is mapped in two ways or VMAs counts twice.
    """

    size: int
    folios: int
    pmd: int
    contiguous: int
    unaligned: int
    partly: int
    hugetlb: int


class Zeros(NamedTuple):
    """What of the anonymous huge pages contains only zeros; bytes.

    ``by_vma`` i64, in whole base pages; ``looked`` is how much was read, and ``moved`` what is not
    counted because it was no longer mapped, or mapped otherwise, when it had been read.
    ``underused`` is what of them is in huge pages with more than ``most`` zero pages, which the
    kernel splits by itself when memory runs short; None if that is not known (see read_underused).
    """

    by_vma: I64
    looked: int
    moved: int
    underused: int | None
    most: int | None


class Huge(NamedTuple):
    """How the large folios of a process are mapped: ``columns`` and ``totals`` by COLUMNS, bytes.

    A column that is None is withheld, and so is UNKNOWN in ``eligible``. A total is the sum over
    the VMAs, but that of missing is what none of them maps of any folio. ``sizes`` ascend, None
    where frames are withheld. ``anon`` u64 are the addresses of all anonymous huge pages.
    """

    table: Table
    columns: dict[str, I64 | None]
    totals: dict[str, int | None]
    sizes: tuple[Size, ...] | None
    anon: U64
    zeros: Zeros | None = None


def look_at_huge(source: Source) -> Huge:
    """Walk ``source`` and return how its large folios are mapped; raises what walk raises."""
    return with_eligible(by_folio(walk(source), source.space.frames), source)


def with_eligible(found: Huge, source: Source) -> Huge:
    """Return ``found``, of ``source``, with THPeligible of its VMAs."""
    from pagewalk.account.smaps import with_particulars

    table = with_particulars(found.table, source)
    assert table.particulars is not None
    eligible = table.particulars.thp_eligible
    known = None if (eligible == UNKNOWN).all() else eligible
    return found._replace(table=table, columns=found.columns | {"eligible": known})


def value(found: Huge, row: int, name: str) -> int | str | None:
    """Return column ``name`` of a VMA, None if it is withheld."""
    from pagewalk.account.smaps import column

    if name in found.columns:
        values = found.columns[name]
        told = None if values is None else int(values[row])
        return None if name == "eligible" and told == UNKNOWN else told
    words = column(found.table, name)
    return None if words is None else words[row]


def large(found: Huge) -> I64:
    """Return the bytes in large folios of each VMA (i64), as far as they are known."""
    known = [column for name in (*WAYS, "huge_zero")
             if (column := found.columns[name]) is not None]
    none = np.zeros(len(found.table.vmas), np.int64)
    total: I64 = np.sum([none, *known], axis=0)
    return total


def may_be_huge(found: Huge) -> I64:
    """Return the VMAs (rows) with large folios, and those with memory that huge pages fit in."""
    rss, room = found.columns["rss"], found.columns["fits"]
    assert room is not None
    used = room > 0 if rss is None else (room > 0) & (rss > 0)
    return np.flatnonzero(used | (large(found) > 0))


class Kept(NamedTuple):
    """What only a walk of the process itself tells of large folios; see Huge.

    ``columns`` are those that are not in a Table. ``why`` is what is withheld of them.
    """

    columns: dict[str, I64 | None]
    missing: int | None
    sizes: tuple[Size, ...] | None
    why: tuple[Withheld, ...]


class FolioLook:
    """A look at the large folios of ``walked``, which is told each of its batches in order.

    ``reader`` is that of the walk's frames.
    """

    def __init__(self, walked: Walk[Pages], reader: FrameReader | None) -> None:
        self.walked, self.reader = walked, reader
        self._sums = no_folios(len(walked.vmas))
        self._waiting: list[Pieces] = []

    def add(self, pages: Pages) -> None:
        """Look at the folios behind a batch."""
        if pages.kflags is None or self.reader is None:
            return
        some = pieces(pages, self.walked.facts)
        if len(some):
            self._waiting.append(some)
        if sum(map(len, self._waiting)) >= TOGETHER:
            add_pieces(self._sums, self._waiting, self.reader, self.walked.facts)
            self._waiting = []

    def finish(self, table: Table) -> Kept:
        """Return what was found, once the walk is consumed and ``table`` made of it."""
        walked, reader, sums, facts = self.walked, self.reader, self._sums, self.walked.facts
        columns: dict[str, I64 | None] = {"fits": fits(walked.vmas, facts)}
        columns["pmd"] = plus(*(table.columns[name] for name in PMD_PARTS))
        total, sizes = None, None
        if reader is not None and walked.tells.frames:
            add_pieces(sums, self._waiting, reader, facts)
            parts = finish(sums, facts)
            total, columns["missing"], columns["stranded"] = held_back(sums, parts, reader, facts)
            sizes = sizes_of(sums, facts)
            columns |= {name: sums.by_vma[WAYS.index(name)] for name in BY_ENTRIES}
            ways = BY_ENTRIES if not walked.tells.huge else WAYS[:HUGETLB]
            columns["small"] = less(table.columns["rss"], sums.changed,
                                    *(columns[name] for name in ways))
        why = note(walked, columns, int(sums.changed.sum()), told=sizes is not None)
        if not walked.tells.huge:
            columns["contiguous"] = sizes = None
        return Kept(columns, total, sizes, tuple(why))


def by_folio(walked: Walk[Pages], reader: FrameReader | None) -> Huge:
    """Consume ``walked`` and return how large folios are mapped; ``reader`` is its frames'."""
    facts = walked.facts
    so_far, look = no_totals(len(walked.vmas)), FolioLook(walked, reader)
    anon = [np.zeros(0, np.uint64)]
    for pages in walked:
        for part in add_up(pages, facts.page_size):
            add(so_far, part, facts)
        anon.append(huge_anon(pages, facts))
        look.add(pages)
    table = tabulate(walked, so_far)
    return completed(table, look.finish(table))._replace(anon=distinct(np.concatenate(anon)))


def completed(table: Table, kept: Kept) -> Huge:
    """Return ``kept`` beside the columns of ``table``, whose outcome says what is withheld."""
    table.outcome.withheld.extend(kept.why)
    columns = {name: table.columns[name] for name in BY_TABLE} | kept.columns
    named = {column.name: columns.get(column.name) for column in COLUMNS}
    totals = {name: None if c is None else int(c.sum()) for name, c in named.items()}
    totals |= {"eligible": None, "missing": kept.missing}
    return Huge(table, named, totals, kept.sizes, np.zeros(0, np.uint64))


def note(
    walked: Walk[Pages], columns: dict[str, I64 | None], changed: int, *, told: bool
) -> list[Withheld]:
    # What is withheld, and why.
    withheld = []
    if not told:
        withheld.append(NO_FRAMES)
    elif walked.facts.average_mapcounts:
        withheld.append(NO_COUNTS)
        columns["stranded"] = None
    if not walked.tells.huge:
        withheld.append(NO_SCAN)
    if changed:
        withheld.append(Withheld(f"{changed} bytes", CHANGED, partial=True))
    return withheld


def plus(*columns: I64 | None) -> I64 | None:
    """Return the sum of ``columns``, None if one of them is."""
    known = [column for column in columns if column is not None]
    return None if len(known) < len(columns) else np.sum(known, axis=0)


def less(whole: I64 | None, *parts: I64 | None) -> I64 | None:
    """Return ``whole`` without ``parts``, None if any is."""
    rest = plus(*parts)
    return None if whole is None or rest is None else whole - rest


def huge_anon(pages: Pages, facts: Facts) -> U64:
    """Return the addresses (u64) of the anonymous huge pages among ``pages``."""
    rows = (pages.state == State.ANON.value) & (pages.flags & HUGE_ENTRY != 0)
    return distinct(pages.addr[rows] & ~np.uint64(facts.huge_size - 1))


def fits(vmas: VMAs, facts: Facts) -> I64:
    """Return how many bytes of each VMA (i64) leaves of a PMD could map, where they are now.

    What is mapped has to be aligned in its file too (thp_vma_suitable_order).
    """
    size = np.uint64(facts.huge_size)
    first, last = -(-vmas.start.astype(np.int64) // int(size)), vmas.end // size
    room = np.maximum(last.astype(np.int64) - first, 0) * int(size)
    anon = vmas.backing == Backing.ANON.value
    paged = anon | np.isin(vmas.backing, [Backing.FILE.value, Backing.SHMEM.value])
    aligned = anon | ((vmas.start - vmas.offset) % size == 0)
    return np.where(paged & aligned & ~vmas.gate, room, 0)


def sizes_of(sums: FolioSums, facts: Facts) -> tuple[Size, ...]:
    """Return the sizes of the folios that are mapped, in ascending order."""
    return tuple(
        Size(facts.page_size << order, int(sums.folios[order]), *sums.by_order[order].tolist())
        for order in np.flatnonzero(sums.by_order.any(axis=1)).tolist()
    )
