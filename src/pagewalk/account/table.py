"""A Table of bytes by VMA: what a walk adds up to. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pagewalk.account.holdings import Holding, held_columns, objects_held
from pagewalk.account.totals import PSS_SHIFT, Totals, add, no_totals
from pagewalk.model.columns import I64, SHARED, Backing, State, Sums, VMAs, Withheld
from pagewalk.model.errors import BadRequest
from pagewalk.model.rules import IN_RSS, IS_PRESENT, STANDINGS
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.walk import Walk, walk

if TYPE_CHECKING:
    from pagewalk.sources import Source
    from pagewalk.sources.particulars import Particulars

LEVEL_NAMES = {2: "pmd", 3: "pud", 4: "p4d", 5: "pgd"}
NO_PMD_SHARING = Withheld(
    "private_hugetlb, shared_hugetlb",
    "before 6.12 pagemap does not show whether a hugetlb page table is shared with another"
    " process; --source ebpf does",
)

NO_HUGE_ZERO = Withheld(
    "rss, zero and the split by kind",
    "page frames are hidden, and without them the huge zero page looks like an anonymous huge page"
    " shared with other processes; rss and zero are shown if VmRSS proves that there is none",
    partial=True,
)
NOT_IN_KPAGEFLAGS = (
    "/proc/kpageflags and kpagecount know nothing about these frames (device memory, or RAM that"
    " the kernel initialises late), so pss and uss count them as private; --source ebpf reads"
    " struct page instead"
)
FREED_MEANWHILE = (
    "these frames were no longer in use when their struct pages were read: the process has unmapped"
    " them meanwhile, and pss and uss count them as private; ask again"
)


class Column(NamedTuple):
    """One column of a table: its key everywhere, its heading on screen, and its meaning.

    ``words``: it holds text or addresses, which are read from the first on; amounts are not.
    """

    name: str
    title: str
    doc: str
    words: bool = False


COLUMNS = (
    Column("size", "SIZE", "length of the VMA"),
    Column("present", "PRESENT", "bytes mapped by a present page-table entry"),
    Column("rss", "RSS", "resident set size, counted as the kernel does: present minus zero,"
           " special and hugetlb pages, plus pages being migrated"),
    Column("not_present", "NOT PRES", "no page in RAM behind the address: never touched, dropped"
           " or swapped out (with procfs this includes not_mapped)"),
    Column("not_mapped", "NO TABLE", "no page table: the walk ended above PTE level"),
    Column("swap", "SWAP", "swapped out: private swap entries, and pages of shmem objects, counted"
           " as in smaps"),
    Column("pss", "PSS", "RSS with each page divided by its mapcount"),
    Column("uss", "USS", "pages of RSS that are mapped exactly once, so only by this process"),
    Column("distinct", "DISTINCT", "page frames that it maps (RSS and hugetlb), each counted once"),
    Column("freed", "FREED", "memory freed when it exits: anonymous pages that only it maps, and"
           " the shmem and hugetlb objects that go away with it"),
    Column("anon", "ANON", "present anonymous pages, including KSM pages"),
    Column("file", "FILE", "present pages of the page cache, and kernel pages such as the vdso"),
    Column("shmem", "SHMEM", "present pages of tmpfs, memfd, SysV and shared anonymous memory"),
    Column("zero", "ZERO", "the shared zero page or huge zero page: present, but not counted in"
           " RSS"),
    Column("huge_zero", "HUGE ZERO", "the huge zero page (part of zero)"),
    Column("special", "SPECIAL", "present, but without a normal struct page: not counted in RSS"),
    Column("hugetlb", "HUGETLB", "present hugetlb pages: not counted in RSS"),
    Column("device", "DEVICE", "present pages of device memory"),
    Column("untold", "UNCLASSIFIED", "present pages that neither /proc/kpageflags knows (device"
           " memory, or RAM initialised late) nor the entry marks as mapped once: counted as if"
           " mapped once"),
    Column("ksm", "KSM", "pages merged by KSM (part of anon)"),
    Column("locked", "LOCKED", "PSS of mlocked VMAs"),
    Column("anon_huge", "ANON HUGE", "anonymous memory mapped by PMD leaves"),
    Column("shmem_huge", "SHMEM HUGE", "shmem mapped by PMD leaves"),
    Column("file_huge", "FILE HUGE", "file pages mapped by PMD leaves"),
    Column("private_hugetlb", "HUGETLB PRIV", "hugetlb pages that only this process maps"),
    Column("shared_hugetlb", "HUGETLB SHRD", "hugetlb pages mapped more than once"),
    Column("hugetlb_pmd_shared", "HUGETLB PMD", "hugetlb pages in page tables shared with another"
           " process (part of shared_hugetlb)"),
    Column("swap_private", "SWAP PRIV", "swap entries in this process's own page tables"),
    Column("swap_shmem", "SWAP SHMEM", "swapped-out pages of the shmem objects it maps"),
    Column("not_mapped_pgd", "NO PGD", "not mapped: the PGD entry is empty (part of not_mapped)"),
    Column("not_mapped_p4d", "NO P4D", "not mapped: the P4D entry is empty"),
    Column("not_mapped_pud", "NO PUD", "not mapped: the PUD entry is empty"),
    Column("not_mapped_pmd", "NO PMD", "not mapped: the PMD entry is empty, there is no PTE table"),
    Column("empty", "EMPTY", "empty slots in existing page tables"),
    Column("migrating", "MIGRATING", "pages being migrated to another frame"),
    Column("poisoned", "POISONED", "lost to a memory error, or poisoned by userfaultfd"),
    Column("guard", "GUARD", "guard regions (MADV_GUARD_INSTALL)"),
    Column("marker", "MARKER", "userfaultfd markers"),
    Column("doubt", "DOUBT", "malformed page-table entries (part of not_present)"),
    Column("hidden", "HIDDEN", "in a VMA whose pages this source never shows (part of"
           " not_present)"),
)

# smaps' name of every column that is one of its fields, in its order.
SMAPS_FIELDS = {
    "Size": "size", "Rss": "rss", "Pss": "pss", "Pss_Dirty": "pss_dirty",
    "Shared_Clean": "shared_clean", "Shared_Dirty": "shared_dirty",
    "Private_Clean": "private_clean", "Private_Dirty": "private_dirty",
    "Referenced": "referenced", "Anonymous": "anon", "KSM": "ksm", "LazyFree": "lazyfree",
    "AnonHugePages": "anon_huge", "ShmemPmdMapped": "shmem_huge", "FilePmdMapped": "file_huge",
    "Shared_Hugetlb": "shared_hugetlb", "Private_Hugetlb": "private_hugetlb",
    "Swap": "swap", "SwapPss": "swap_pss", "Locked": "locked",
}

# The keys every output has, in the order of the JSON contract.
TOTALS = (
    "size", "present", "rss", "not_present", "not_mapped", "swap", "pss", "uss",
    "anon", "file", "shmem", "zero", "special", "hugetlb", "distinct", "freed",
)


@dataclass(frozen=True, eq=False)
class Table:
    """Bytes by VMA: ``columns`` i64 by COLUMNS name, or None where withheld; ``totals`` likewise.

    ``pss_fixed`` i64 is the unshifted PSS of each VMA in 1/4096 bytes, None with pss. A total is
    the sum over VMAs; that of pss is shifted after adding, as smaps_rollup does. ``from_kernel``
    names the totals that were not counted here but are the kernel's own (see rollup.py).
    ``particulars`` are the fields of smaps that are not amounts, None unless they were asked for.
    ``holdings`` are the objects of memory that the process holds, None where their pages cannot be
    told apart; ``unmapped`` is the bytes of them that it does not map, None where an object may be
    missing. The total of freed includes these if their object ends with the process; no VMA does.
    """

    walk: Walk[Any]
    columns: dict[str, I64 | None]
    totals: dict[str, int | None]
    pss_fixed: I64 | None
    from_kernel: tuple[str, ...] = ()
    particulars: Particulars | None = None
    holdings: list[Holding] | None = None
    unmapped: int | None = None

    @property
    def names(self) -> list[str]:
        """Return the names of its columns in the order of the JSON contract, TOTALS first."""
        return [*TOTALS, *(name for name in self.columns if name not in TOTALS)]

    @property
    def vmas(self) -> VMAs:
        """Return the VMAs the rows are of."""
        return self.walk.vmas

    @property
    def outcome(self) -> Outcome:
        """Return what the walk found out beside its pages: stall, and what was withheld."""
        return self.walk.outcome

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return its rows, VMAs and their amounts, as an Arrow stream; raises PackageMissing."""
        from pagewalk.model.arrow import stream

        batch = batch_of_vmas(self)
        return stream(batch.schema, [batch], requested_schema)


def batch_of_vmas(table: Table) -> Any:
    """Return the rows of ``table`` as a pyarrow RecordBatch: the columns of VMAs, and its own."""
    from pagewalk.model.arrow import arrow, batch, schema_of

    pa, vmas = arrow("an Arrow stream"), schema_of(VMAs)
    amounts = [pa.field(name, pa.int64()) for name in table.columns]
    schema = pa.schema([*(vmas.field(name) for name in VMAs.names if name != "flags"), *amounts])
    given = {name: getattr(table.vmas, name) for name in VMAs.names}
    return batch(schema, {**given, **table.columns}, len(table.vmas), VMAs.words)


def hides_pmd_sharing(walk: Walk[Any]) -> bool:
    """Return whether hugetlb pages may be in page tables that are shared without its being told.

    They are shared a whole PUD at a time (vma_shareable, mm/hugetlb.c).
    """
    if walk.tells.tables or walk.facts.pmd_sharing_told:
        return False
    vmas, pud = walk.vmas, np.uint64(walk.facts.pud_size)
    whole = (vmas.start + pud - np.uint64(1)) // pud < vmas.end // pud
    shared = (vmas.backing == Backing.HUGETLB.value) & (vmas.perms & SHARED != 0)
    return bool((shared & whole).any())


def table(target: int | Source, **options: Any) -> Table:
    """Walk process ``target`` and return its Table; options and errors are those of walk."""
    return by_vma(walk(target, Sums, **options))


def by_vma(walk: Walk[Sums]) -> Table:
    """Consume ``walk``, which was asked for Sums, and return its Table.

    Raises what iterating over it raises, BadRequest for a walk that was asked for Pages.
    """
    if walk.want is not Sums:
        raise BadRequest("a table takes a walk that was asked for sums: walk(pid, Sums)")
    so_far = no_totals(len(walk.vmas))
    for sums in walk:
        add(so_far, sums, walk.facts)
        del sums
    return tabulate(walk, so_far)


def tabulate(walk: Walk[Any], so_far: Totals) -> Table:
    """Return the Table of a consumed walk."""
    so_far.held.finish()
    size = walk.covered
    state = {s: so_far.state[:, s] for s in State}
    present: I64 = so_far.state[:, IS_PRESENT].sum(axis=1)
    not_mapped = state[State.NOT_MAPPED] if walk.tells.tables else None
    settled = settle_hwpoison(walk, so_far)
    rss = so_far.state[:, IN_RSS].sum(axis=1) + so_far.hwpoison
    # Where a zero page looks like any anonymous page, RSS is known only if there is none, which
    # VmRSS shows by being equal.
    maybe = int(so_far.maybe_zero.sum())
    certain = (walk.tells.zeros and not maybe) or int(rss.sum()) == walk.outcome.vm_rss
    columns: dict[str, I64 | None] = {
        "size": size,
        "present": present,
        "rss": rss if certain and settled else None,
        "not_present": size - present - (0 if not_mapped is None else not_mapped),
        "hidden": np.where(walk.vmas.hidden, size - present, 0),
        **{f"not_mapped_{name}": so_far.level[:, level] if walk.tells.tables else None
           for level, name in LEVEL_NAMES.items()},
        **swap_columns(walk, state),
        **state_columns(walk, so_far, certain),
        **frame_columns(walk, so_far),
        **held_columns(walk, so_far.held),
    }
    if not certain:
        columns["anon"] = None
    if maybe:
        walk.outcome.withheld.append(NO_HUGE_ZERO)
    if not settled:
        columns.update(dict.fromkeys(("pss", "uss", "locked")))
    if unknown := int(so_far.untold.sum()):
        what = f"who else maps {unknown} bytes"
        walk.outcome.withheld.append(Withheld(
            what, NOT_IN_KPAGEFLAGS if walk.source == "procfs" else FREED_MEANWHILE))
    totals = {name: None if c is None else int(c.sum()) for name, c in columns.items()}
    fixed = so_far.pss if walk.tells.frames and settled else None
    if fixed is not None:
        totals["pss"] = int(fixed.sum()) >> PSS_SHIFT
    ordered = {row.name: columns[row.name] for row in COLUMNS}
    mapped = state[State.SHMEM] + state[State.HUGETLB] + state[State.PRESENT]
    holdings, unmapped, more = objects_held(walk, so_far.held if walk.tells.frames else mapped)
    freed = totals["freed"]
    totals["freed"] = None if freed is None or more is None else freed + more
    return Table(walk, ordered, totals, fixed, holdings=holdings, unmapped=unmapped)


def settle_hwpoison(walk: Walk[Any], so_far: Totals) -> bool:
    # Adds the entries for pages lost to a memory error if smaps does (never in hugetlb memory,
    # which is in no RSS); returns whether that is known.
    ordinary = walk.vmas.backing != Backing.HUGETLB.value
    if not so_far.hwpoison[ordinary].any():
        so_far.hwpoison[:] = 0
        return True
    counts = walk.outcome.counts_hwpoison
    so_far.hwpoison *= ordinary & bool(counts)
    if counts:
        so_far.pss += so_far.hwpoison_pss * ordinary
        so_far.uss += so_far.hwpoison_uss * ordinary
    return counts is not None


def swap_columns(walk: Walk[Any], state: dict[State, I64]) -> dict[str, I64 | None]:
    # Where frames are hidden a swap entry cannot be told from another software entry; when their
    # sum is VmSwap to the byte, they are all swap.
    private: I64 | None = state[State.SWAPPED]
    soft = state[State.SOFT]
    if soft.any():
        private = state[State.SWAPPED] + soft
        if int(private.sum()) != walk.outcome.vm_swap:
            private = None
    shmem = walk.outcome.shmem_swap
    both = None if private is None or shmem is None else private + shmem
    return {"swap": both, "swap_private": private, "swap_shmem": shmem}


def state_columns(walk: Walk[Any], so_far: Totals, certain: bool) -> dict[str, I64 | None]:
    # A present page of withheld kind withholds the kinds it may be of.
    kinds = not so_far.state[:, State.PRESENT].any()
    told = {"always": True, "tables": walk.tells.tables, "zero": certain, "kind": kinds}
    columns: dict[str, I64 | None] = {}
    for s, row in STANDINGS.items():
        if row.told:
            columns[s.label] = so_far.state[:, s] if told[row.told] else None
        if row.told and row.huge:
            columns[row.huge] = so_far.huge[:, s] if walk.tells.huge and told[row.told] else None
    return columns


def frame_columns(walk: Walk[Any], so_far: Totals) -> dict[str, I64 | None]:
    pss = so_far.pss >> PSS_SHIFT
    locked = walk.outcome.locked
    hugetlb = so_far.state[:, State.HUGETLB]
    hidden = hides_pmd_sharing(walk)
    if hidden:
        walk.outcome.withheld.append(NO_PMD_SHARING)
    split = walk.tells.frames and not hidden
    return {
        "untold": so_far.untold if walk.tells.frames else None,
        "pss": pss if walk.tells.frames else None,
        "uss": so_far.uss if walk.tells.frames else None,
        "ksm": so_far.ksm if walk.tells.frames and walk.tells.ksm else None,
        "locked": np.where(locked, pss, 0) if walk.tells.frames and locked is not None else None,
        "private_hugetlb": so_far.private_hugetlb if split else None,
        "hugetlb_pmd_shared": so_far.pmd_shared if split else None,
        "shared_hugetlb": hugetlb - so_far.private_hugetlb if split else None,
    }
