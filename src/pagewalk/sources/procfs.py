"""The procfs source: maps, pagemap with PAGEMAP_SCAN, and the frame database.

It works on every kernel and needs no privilege for one's own process. It cannot tell an empty
slot from a missing page table, and shows nothing of a PFN map.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pagewalk import soft
from pagewalk.errors import PagewalkError, ProcessGone
from pagewalk.facts import Facts
from pagewalk.pages import (
    I64,
    U32,
    U64,
    Backing,
    Bool,
    Counts,
    Flag,
    Leaves,
    State,
    VMAs,
    Withheld,
)
from pagewalk.proc import pagemap
from pagewalk.proc.counters import read_status
from pagewalk.proc.frames import Frames, open_frames, read_frames
from pagewalk.proc.kernel import read_facts
from pagewalk.proc.maps import LastMaps, internal_filesystems, parse_mountinfo
from pagewalk.proc.refusals import reading, why_missing
from pagewalk.proc.rights import has_capability, in_initial_user_namespace
from pagewalk.proc.stall import Slice, Stall, read_slices
from pagewalk.proc.swap import Evicted, ask_cachestat
from pagewalk.proc.target import Target
from pagewalk.ranges import (
    differing,
    holder,
    inside,
    intersect,
    join_free,
    join_near,
    reaching,
)
from pagewalk.scan import NO_DOUBTS, NO_HOLES, Entries
from pagewalk.soft import SwapTypes
from pagewalk.states import classify, has

PAGE = pagemap.PAGE
PAGE_SHIFT = PAGE.bit_length() - 1
BATCH = 1 << 17  # words read before a batch is yielded: 1 MiB, so that columns stay in the cache
WORDS = PAGE // 8
HUGE_SIZE = pagemap.HUGE_SIZE
TABLE_NS = 2500  # what a scan may take for a page table with nothing in it (1700 seen, uncached)

# What cannot be told apart without a look at the frame.
KINDS = (State.ANON, State.FILE, State.SHMEM)

NO_TABLES = Withheld(
    "not_mapped",
    "/proc/PID/pagemap does not distinguish an empty slot from a missing page table, so"
    " not_present counts both; ebpf and kcore do (see pagewalk doctor for what they need)",
    partial=False,
)
NO_SCAN = Withheld(
    "anon_huge, shmem_huge, file_huge",
    "this kernel has no PAGEMAP_SCAN (since 6.7), the only interface that shows huge mappings",
    partial=False,
)
NO_ZERO = Withheld(
    "rss, anon and zero",
    "without PAGEMAP_SCAN (since 6.7) only its frame identifies the zero page, and frames are"
    " hidden; they are shown if VmRSS proves that there is none",
    partial=True,
)
NO_KSM = Withheld(
    "ksm",
    "/proc/kpageflags marks every anonymous page as KSM on this kernel (a bug, seen on 6.12);"
    " use --source ebpf",
    partial=False,
)
NO_KPAGE = Withheld(
    "pss, uss, mapcount and the split by kind",
    "/proc/kpageflags and /proc/kpagecount are readable by root only; run as root, or with"
    " CAP_DAC_READ_SEARCH",
    partial=True,
)


def no_kpage() -> Withheld:
    # No rights would open a file that does not exist.
    why = "; ".join(why_missing("/proc/kpageflags", "CONFIG_PROC_PAGE_MONITOR"))
    return NO_KPAGE._replace(why=why)


def open(target: Target, budget_ns: int) -> ProcfsSource:
    """Return the procfs source of ``target``, with every file it will need already open."""
    held: list[int] = []
    try:
        for name in ("maps", "pagemap"):
            held.append(target.open(name))
        mounts = target.read("mountinfo")
        own = np.ones(PAGE // 8, np.uint64)
        own_pfn = find_pfn(own)
        frames, hidden = None, None if own_pfn else pfns_hidden()
        try:
            if own_pfn:
                frames = open_frames().proved(own_pfn)
        except FileNotFoundError:
            hidden = no_kpage()
        except OSError:
            hidden = NO_KPAGE
    except BaseException:
        for fd in held:
            os.close(fd)
        raise
    return ProcfsSource(
        target=target,
        facts=read_facts(),
        stall=Stall(budget_ns),
        frames=frames,
        huge=pagemap.can_scan(held[1]),
        maps_fd=held[0],
        pagemap_fd=held[1],
        filesystems={**parse_mountinfo(mounts), **internal_filesystems()},
        hidden=hidden,
    )


def find_pfn(own: U64) -> int:
    """Return the PFN of memory of ours, 0 where PFNs read as 0 for whoever opens a pagemap now.

    The kernel decides at open (pagemap_open). A capability mask would not tell: it may count in a
    lesser user namespace only.
    """
    word = np.zeros(1, np.uint64)
    with builtins.open("/proc/self/pagemap", "rb", buffering=0) as mine:
        os.preadv(mine.fileno(), [word.data.cast("B")], own.ctypes.data // PAGE * 8)
    return int(word[0] & pagemap.PFN_BITS)


def pfns_hidden() -> Withheld:
    """Return why PFNs read as 0."""
    if os.geteuid() != 0:
        why = "page frames are shown only with CAP_SYS_ADMIN; run as root"
    elif not in_initial_user_namespace():
        why = (
            "page frames are hidden: you are root in a user namespace, and CAP_SYS_ADMIN counts"
            " only in the initial one; run on the host"
        )
    elif not has_capability("CAP_SYS_ADMIN"):
        why = (
            "page frames are hidden: you are root without CAP_SYS_ADMIN (a default container);"
            " add it (docker run --cap-add SYS_ADMIN), or run on the host"
        )
    else:
        why = "page frames are hidden by this kernel despite CAP_SYS_ADMIN"
    return Withheld("pfn, phys, mapcount, pss, uss, distinct, freed, ksm", why, partial=True)


@dataclass(eq=False)
class ProcfsSource:
    """A process read through /proc; see sources.Source."""

    target: Target
    facts: Facts
    stall: Stall
    frames: Frames | None
    huge: bool
    maps_fd: int
    pagemap_fd: int
    filesystems: dict[int, str]
    hidden: Withheld | None
    name: str = "procfs"
    tables: bool = False
    notes: tuple[Withheld, ...] = ()
    last: LastMaps = field(default_factory=LastMaps)
    told: int | None = None

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        """Return what procfs cannot tell of this process."""
        blind = not self.huge and self.frames is None
        rows = (
            NO_TABLES,
            *self.notes,
            None if self.huge else NO_SCAN,
            NO_ZERO if blind else None,
            None if self.frames is None or self.frames.ksm else NO_KSM,
            self.hidden,
        )
        return tuple(row for row in rows if row is not None)

    def vmas(self) -> VMAs:
        """Return a fresh reading of maps; an empty file means that the memory is gone."""
        with reading(self.target.pid, "maps", self.target.dirfd):
            text = read_slices(self.maps_fd, self.stall, "maps")
        if not text:
            raise ProcessGone(self.target.pid, "ended or exec'ed another program")
        return self.last.parse(text, self.filesystems)

    def changed(self, vmas: VMAs) -> int:
        """Return how many of ``vmas`` have changed since."""
        return differing(vmas.ranges, self.vmas().ranges)

    def forked(self, vmas: VMAs) -> bool:
        """Return False: /proc shows only children that still exist, and most do not last."""
        del vmas
        return False

    def leaves(self, vmas: VMAs, ranges: U64) -> Iterator[Entries]:
        """Yield the populated leaves in ``ranges``, about BATCH words at a time."""
        shown, _, _ = intersect(visible(vmas), ranges)
        found = self.regions(vmas, shown) if self.huge else self.everything(shown)
        for regions in gather(found):
            leaves = self.read_leaves(regions)
            if self.frames is None and self.huge:
                self.mark_maybe_zero(vmas, leaves)
            elif self.frames is None:
                mark_unscanned_zero(vmas, leaves)
            yield Entries(leaves, NO_HOLES, NO_DOUBTS)

    def regions(self, vmas: VMAs, shown: U64) -> Iterator[U64]:
        # Populated regions (start, end, categories) of the VMAs. Near VMAs are scanned together:
        # what lies between was not asked for.
        for found in gather(self.scan(vmas, shown)):
            asked = shown[reaching(shown, int(found[0, 0]), int(found[-1, 1]))]
            pieces, _, row = intersect(asked, found[:, :2])
            if len(pieces):
                yield np.column_stack([pieces, found[row, 2]])

    def scan(self, vmas: VMAs, shown: U64) -> Iterator[U64]:
        asked = pagemap.PRESENT | pagemap.SWAPPED | pagemap.PFNZERO | pagemap.HUGE
        widest = self.widest_window()
        window = Slice(min(1 << 28, widest), 1 << 21, widest)
        # The kernel passes over what belongs to no VMA at once.
        for start, end in join_free(shown, vmas.start, pagemap.GAP, window.size):
            yield from pagemap.scan(
                self.pagemap_fd, start, end, asked, self.target.pid, self.stall, window
            )

    def widest_window(self) -> int:
        # A call is bounded in the pages and regions it finds, so what can take long is page tables
        # with nothing in them: no more of those in a window than fit the budget. With few tables
        # in all, of whatever kind, there is little to meet, and 4 TiB may be asked at once.
        tables = self.stall.budget_ns // TABLE_NS
        try:
            found = read_status(self.target).get("VmPTE")
        except PagewalkError:
            found = None
        if found is not None and found < tables // 10 * PAGE:
            return 1 << 42
        return max(tables, 1) * HUGE_SIZE

    def everything(self, shown: U64) -> Iterator[U64]:
        # Without PAGEMAP_SCAN every page of every VMA has to be asked for, in batches.
        step = BATCH * PAGE
        for start, end in join_near(shown[:, 0], shown[:, 1], 0):
            for low in range(start, end, step):
                yield np.array([[low, min(low + step, end), 0]], np.uint64)

    def read_leaves(self, regions: U64) -> Leaves:
        # The words of all pages of the regions; those between two near regions are read along,
        # and dropped again where they are empty.
        spans = join_near(regions[:, 0], regions[:, 1], pagemap.GAP)
        total = sum(end - start for start, end in spans) // PAGE
        words = np.empty(total, np.uint64)
        addr = np.empty(total, np.uint64)
        chunk = Slice(1 << 13, 1 << 9, BATCH)
        at = 0
        for start, end in spans:
            to = at + (end - start) // PAGE
            pagemap.read_words(
                self.pagemap_fd, start, words[at:to], self.target.pid, self.stall, chunk
            )
            addr[at:to] = np.arange(start, end, PAGE, dtype=np.uint64)
            at = to
        flags = pagemap.decode(words)
        populated = flags & np.uint32(Flag.PRESENT | Flag.SOFT) != 0
        if total * PAGE != int((regions[:, 1] - regions[:, 0]).sum()):
            populated &= inside(addr, regions[:, :2])
        if not populated.all():
            words, addr, flags = words[populated], addr[populated], flags[populated]
        mark(flags, addr, regions, pagemap.PFNZERO, Flag.ZERO)
        mark(flags, addr, regions, pagemap.HUGE, Flag.HUGE)
        pfn = words & pagemap.PFN_BITS
        if not self.huge and self.frames is not None:
            mark_zero(flags, pfn, self.frames)
        # where frames are hidden, type and offset read as 0, and the kind stays unknown
        rows = np.flatnonzero((flags & np.uint32(Flag.SOFT) != 0) & (pfn != 0))
        if len(rows):
            decode_soft(self.facts.swap_types, flags, pfn, rows)
        return merge_huge(addr, words, flags, pfn, hidden=self.hidden is not None)

    def sums(self, vmas: VMAs, ranges: U64) -> Iterator[Entries]:
        """Yield what ``leaves`` does: every word has to be read."""
        return self.leaves(vmas, ranges)

    def counts(self, vmas: VMAs, ranges: U64) -> Iterator[Counts]:
        """Yield bytes of ``ranges`` by VMA and state from PAGEMAP_SCAN.

        Words are read only for swap and for what may be the huge zero page.
        """
        shown, _, _ = intersect(visible(vmas), ranges)
        if not self.huge:
            for batch in self.leaves(vmas, shown):
                yield count_leaves(vmas, batch.leaves)
            return
        for regions in gather(self.regions(vmas, shown)):
            unsure = regions[:, 2] & np.uint64(pagemap.SWAPPED) != 0
            unsure |= self.maybe_zero(vmas, regions)
            if unsure.any():
                leaves = self.read_leaves(regions[unsure])
                self.mark_maybe_zero(vmas, leaves)
                yield count_leaves(vmas, leaves)
            yield count_regions(vmas, regions[~unsure])

    def maybe_zero(self, vmas: VMAs, regions: U64) -> Bool:
        # Which regions may contain the huge zero page although the scan does not say so: up to 6.14
        # it knows the small one only.
        kind = np.uint64(pagemap.PRESENT | pagemap.HUGE)
        asked = kind | np.uint64(pagemap.PFNZERO)
        anon = vmas.backing == Backing.ANON.value
        first = np.searchsorted(vmas.end[anon], regions[:, 0], side="right")
        last = np.searchsorted(vmas.start[anon], regions[:, 1], side="left")
        out: Bool = (regions[:, 2] & asked == kind) & (first < last)
        if out.any() and self.huge_zero_told_by() == pagemap.PFNZERO:
            out[:] = False
        return out

    def huge_zero_told_by(self) -> int:
        # Found out only when something depends on it.
        if self.told is None:
            self.told = pagemap.tells_huge_zero()
        return self.told

    def mark_maybe_zero(self, vmas: VMAs, leaves: Leaves) -> None:
        # A huge leaf of anonymous memory that is mapped once is not a zero page, and one with bit
        # 61 must be one (classify). For the others the frame tells, if it can be read; else they
        # are anonymous on a kernel that always sets one of the bits of a huge zero page.
        asked = np.uint32(Flag.PRESENT | Flag.HUGE | Flag.FILE | Flag.EXCLUSIVE | Flag.ZERO)
        rows = np.flatnonzero(leaves.flags & asked == np.uint32(Flag.PRESENT | Flag.HUGE))
        if len(rows) == 0:
            return
        anon = vmas.backing[holder(leaves.addr[rows], vmas.ranges)] == Backing.ANON.value
        rows = rows[anon]
        if len(rows) == 0:
            return
        if self.frames is not None and leaves.pfn is not None:
            zero = has(read_frames(self.frames.flags, leaves.pfn[rows]), "zero_page")
            leaves.flags[rows[zero]] |= np.uint32(Flag.ZERO)
        elif not self.huge_zero_told_by():
            leaves.flags[rows] |= np.uint32(Flag.MAYBE_ZERO)

    def shmem_swapped(self, vmas: VMAs, rows: I64) -> Iterator[Evicted]:
        """Yield what cachestat(2) tells of each object; raises OSError before 6.5."""
        return ask_cachestat(self.target, vmas, rows)

    def ended_by(self, keys: list[tuple[int, int]]) -> list[bool | None]:
        """Return None for each: /proc does not show files held by a message on a socket."""
        return [None] * len(keys)

    def page_tables(self) -> int | None:
        """Return None: procfs shows no table."""
        return None

    def close(self) -> None:
        """Give every descriptor back."""
        for fd in (self.maps_fd, self.pagemap_fd):
            os.close(fd)
        if self.frames is not None:
            self.frames.close()


def visible(vmas: VMAs) -> U64:
    """Return the ranges (u64[k, 2]) of the VMAs that pagemap may show something of."""
    shown = ~vmas.gate
    return np.stack([vmas.start[shown], vmas.end[shown]], axis=1)


def gather(found: Iterator[U64]) -> Iterator[U64]:
    # Regions in batches of about BATCH pages, so that neither one huge region nor many tiny ones
    # make a batch of unbounded size.
    waiting: list[U64] = []
    pages = 0
    for regions in found:
        waiting.append(regions)
        pages += int((regions[:, 1] - regions[:, 0]).sum()) // PAGE + 512 * len(regions)
        if pages >= BATCH:
            yield np.concatenate(waiting)
            waiting, pages = [], 0
    if waiting:
        yield np.concatenate(waiting)


def mark(flags: U32, addr: U64, regions: U64, category: int, flag: Flag) -> None:
    # Sets `flag` on the rows inside the regions of `category`.
    hit = regions[regions[:, 2] & np.uint64(category) != 0]
    if len(hit) == 0:
        return
    flags[inside(addr, hit)] |= np.uint32(flag)


def mark_unscanned_zero(vmas: VMAs, leaves: Leaves) -> None:
    # Without a scan the huge zero page looks like 512 entries with bit 61 (since 6.1.192), which
    # nothing else has where there is no file.
    asked = np.uint32(Flag.PRESENT | Flag.FILE)
    rows = np.flatnonzero(leaves.flags & asked == asked)
    vma = holder(leaves.addr[rows], vmas.ranges)
    zero = (vmas.backing[vma] == Backing.ANON.value) & (vmas.inode[vma] == 0)
    leaves.flags[rows[zero]] |= np.uint32(Flag.ZERO)


def mark_zero(flags: U32, pfn: U64, frames: Frames) -> None:
    # Without PAGEMAP_SCAN only the frame tells a zero page; its mapcount is never 1.
    rows = np.flatnonzero(flags & np.uint32(Flag.PRESENT | Flag.EXCLUSIVE) == Flag.PRESENT.value)
    known, which = np.unique(pfn[rows], return_inverse=True)
    zero = has(read_frames(frames.flags, known), "zero_page")
    flags[rows[zero[which]]] |= np.uint32(Flag.ZERO)


def decode_soft(types: SwapTypes, flags: U32, pfn: U64, rows: I64) -> None:
    # What the software entries in `rows` are. `pfn` becomes the frame of those that name one, and
    # stays type and offset of the others.
    found, frame = soft.decode(types, *soft.unpack(pfn[rows]))
    flags[rows] |= found
    framed = soft.names_frame(found)
    pfn[rows[framed]] = frame[framed]


def merge_huge(addr: U64, words: U64, flags: U32, pfn: U64, *, hidden: bool) -> Leaves:
    # The 512 words of a huge leaf become one row; a leaf that is cut by the range asked for, or
    # that was split while it was read, stays in base pages. A 1 GiB leaf is 512 rows of 2 MiB.
    shift = np.full(len(addr), PAGE_SHIFT, np.uint8)
    huge = flags & np.uint32(Flag.HUGE) != 0
    heads = np.flatnonzero(huge & (addr & np.uint64(HUGE_SIZE - 1) == 0))
    heads = heads[heads + WORDS <= len(addr)]
    if len(heads):
        last = heads + (WORDS - 1)
        step = np.uint64(0 if hidden else WORDS - 1)
        whole = addr[last] == addr[heads] + np.uint64(HUGE_SIZE - PAGE)
        heads = heads[whole & (words[last] == words[heads] + step)]
        shift[heads] = HUGE_SIZE.bit_length() - 1
        edge = np.zeros(len(addr) + 1, np.int64)
        edge[heads + 1] += 1
        edge[heads + WORDS] -= 1
        rows = np.cumsum(edge[:-1]) == 0
        addr, words, flags = addr[rows], words[rows], flags[rows]
        shift, pfn = shift[rows], pfn[rows]
    return Leaves(addr, shift, words, flags, None if hidden else pfn)


def count_leaves(vmas: VMAs, leaves: Leaves) -> Counts:
    # Bytes by VMA and state, without a look at the frames.
    row = holder(leaves.addr, vmas.ranges)
    state = classify(leaves.flags, vmas.backing[row], None)
    state[np.isin(state, KINDS)] = State.PRESENT
    return Counts(row, state, leaves.flags, leaves.size)


def count_regions(vmas: VMAs, regions: U64) -> Counts:
    # The kernel joins neighbouring pages across the edge of two VMAs: cut them there again.
    pieces, row, region = intersect(vmas.ranges, regions[:, :2])
    categories = regions[region, 2]
    backing = vmas.backing[row]
    state = np.full(len(row), State.PRESENT.value, np.uint8)
    state[backing == Backing.HUGETLB.value] = State.HUGETLB
    state[categories & np.uint64(pagemap.PFNZERO) != 0] = State.ZERO
    huge = categories & np.uint64(pagemap.HUGE) != 0
    flags = np.where(huge, np.uint32(Flag.HUGE | Flag.PRESENT), np.uint32(Flag.PRESENT))
    return Counts(row, state, flags, pieces[:, 1] - pieces[:, 0])
