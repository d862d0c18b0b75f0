"""Every field of smaps, made from the page tables: the columns of ``maps --all``. No I/O.

Dirty and referenced are bits of the page-table entry and of the folio together, so this needs a
source that reads page tables; from procfs these columns are withheld. The rules are those of
smaps_account and smaps_page_accumulate (fs/proc/task_mmu.c).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pagewalk.account.table import Column, Table, tabulate
from pagewalk.account.totals import PSS_SHIFT, add, add_where, no_totals
from pagewalk.model.bits import vmflag_codes
from pagewalk.model.columns import I64, U64, Backing, Bool, Pages, State, Withheld, perms_text
from pagewalk.model.facts import Facts
from pagewalk.model.rules import DIRTY, IN_PSS, LAZYFREE, REFERENCED
from pagewalk.model.states import holds, hwpoison, shared
from pagewalk.walking.sums import add_up
from pagewalk.walking.walk import Walk

if TYPE_CHECKING:
    from pagewalk.sources import Source

DETAILS = (
    Column("pss_dirty", "PSS DIRTY", "PSS of dirty pages"),
    Column("shared_clean", "SHRD CLEAN", "clean pages mapped more than once"),
    Column("shared_dirty", "SHRD DIRTY", "dirty pages mapped more than once"),
    Column("private_clean", "PRIV CLEAN", "clean pages that only this process maps"),
    Column("private_dirty", "PRIV DIRTY", "dirty pages that only this process maps"),
    Column("referenced", "REFERENCED", "pages accessed since the bits were last cleared"),
    Column("lazyfree", "LAZYFREE", "MADV_FREE pages, dropped instead of swapped out"),
    Column("swap_pss", "SWAP PSS", "each private swap entry divided by its number of users"),
)

# smaps' names of the columns that are not amounts.
OTHER_FIELDS = {
    "KernelPageSize": "kernel_page_size", "MMUPageSize": "mmu_page_size",
    "THPeligible": "thp_eligible", "ProtectionKey": "protection_key",
}

NEEDS_TABLES = Withheld(
    "pss_dirty, clean and dirty, referenced, lazyfree, vm_flags",
    "the dirty and accessed bits are in the page tables, which this source does not read;"
    " use --source ebpf",
)
NOT_COUNTED = Withheld(
    "swap_pss",
    "it requires walking every process that uses swap; --columns swap_pss and --all do that",
)
HIDDEN = Withheld(
    "swap_pss", "which slots of swap it uses is shown only with CAP_SYS_ADMIN; run as root",
    partial=True,
)
NEEDS_STRUCT_PAGE = Withheld(
    "referenced",
    "only struct page shows whether a page is young, and struct page is not read here",
)


@dataclass(frozen=True, eq=False)
class SwapUsers:
    """How many page-table entries of the whole machine use each swap slot.

    ``slot`` u64 ascending, type | offset << 5; ``users`` u64. ``missing`` says which processes
    could not be read, None when none was missing: then every count is exact, else the least.
    """

    slot: U64
    users: U64
    missing: str | None


NO_USERS = SwapUsers(np.zeros(0, np.uint64), np.zeros(0, np.uint64), None)

# Running sums, i64 by VMA, by the names in DETAILS: bytes, those of FIXED in 1/4096 bytes.
Details: TypeAlias = dict[str, I64]
FIXED = ("pss_dirty", "swap_pss")


def by_field(walk: Walk[Pages], swap_users: SwapUsers | Withheld = NOT_COUNTED) -> Table:
    """Consume ``walk`` and return its Table with DETAILS too; raises what iterating over it raises.

    ``swap_users`` says why swap_pss is withheld where nobody counted them.
    """
    sums, lost = ({row.name: np.zeros(len(walk.vmas), np.int64) for row in DETAILS} for _ in "12")
    so_far = no_totals(len(walk.vmas))
    swapped, hidden = False, False
    for pages in walk:
        add_rows(sums, pages, np.flatnonzero(IN_PSS[pages.state]), walk.facts)
        add_swap(sums["swap_pss"], pages, walk.facts.page_size, swap_users)
        if (pages.state == State.SWAPPED.value).any():
            swapped, hidden = True, hidden or pages.pfn is None or pages.kflags is None
        add_lost(lost, pages, walk)
        for part in add_up(pages, walk.facts.page_size):
            add(so_far, part, walk.facts)
    table = tabulate(walk, so_far)
    if not swapped:  # 0, whoever else uses swap
        swap_users = NO_USERS
    elif hidden and isinstance(swap_users, SwapUsers):
        swap_users = HIDDEN
    known = walk.tells.tables and table.totals["pss"] is not None
    told = dict.fromkeys(sums, known) | {
        "referenced": known and walk.tells.young,
        "swap_pss": isinstance(swap_users, SwapUsers) and swap_users.missing is None,
    }
    columns, totals = dict(table.columns), dict(table.totals)
    for name, counted in sums.items():
        amount = counted + lost[name] if walk.outcome.counts_hwpoison else counted
        shift = PSS_SHIFT if name in FIXED else 0
        columns[name] = amount >> shift if told[name] else None
        # added up first and cut then, as smaps_rollup does
        totals[name] = int(amount.sum()) >> shift if told[name] else None
    table.outcome.withheld.extend(limits(walk, swap_users))
    return replace(table, columns=columns, totals=totals)


def limits(walk: Walk[Pages], swap_users: SwapUsers | Withheld) -> list[Withheld]:
    """Return why columns of DETAILS are withheld from ``walk``."""
    out = []
    if not walk.tells.tables:
        out.append(NEEDS_TABLES)
    elif not walk.tells.young:
        out.append(NEEDS_STRUCT_PAGE)
    if isinstance(swap_users, Withheld):
        out.append(swap_users)
    elif swap_users.missing is not None:
        out.append(Withheld("swap_pss", swap_users.missing, partial=True))
    return out


def add_lost(lost: Details, pages: Pages, walk: Walk[Pages]) -> None:
    # The entries for pages lost to a memory error; where smaps counts them, as their page was.
    if (pages.state == State.POISONED.value).any():
        rows = np.flatnonzero(hwpoison(pages.flags))
        backing = walk.vmas.backing[pages.vma[rows]]
        add_rows(lost, pages, rows[backing != Backing.HUGETLB.value], walk.facts)


def add_rows(sums: Details, pages: Pages, rows: I64, facts: Facts) -> None:
    if len(rows) == 0 or pages.kflags is None or pages.mapcount is None:
        return
    kflags, flags, vma = pages.kflags[rows], pages.flags[rows], pages.vma[rows]
    size, mapcount = pages.size[rows], pages.mapcount[rows]
    dirty = holds(DIRTY, flags, kflags)
    many = shared(pages, entries=facts.entries_shared)[rows]
    share = np.uint64(facts.page_size << PSS_SHIFT) // np.maximum(mapcount, np.uint64(1))
    for name, amount, mask in (
        ("shared_clean", size, many & ~dirty),
        ("shared_dirty", size, many & dirty),
        ("private_clean", size, ~many & ~dirty),
        ("private_dirty", size, ~many & dirty),
        ("referenced", size, holds(REFERENCED, flags, kflags)),
        ("lazyfree", size, holds(LAZYFREE, flags, kflags)),
        ("pss_dirty", share * (size // np.uint64(facts.page_size)), dirty),
    ):
        add_masked(sums[name], vma, amount, mask)


def add_swap(
    swap_pss: I64, pages: Pages, page_size: int, swap_users: SwapUsers | Withheld
) -> None:
    rows = np.flatnonzero(pages.state == State.SWAPPED.value)
    if len(rows) == 0 or isinstance(swap_users, Withheld):
        return
    if pages.pfn is None or pages.kflags is None:
        return
    at = np.searchsorted(swap_users.slot, pages.pfn[rows])
    users = np.append(swap_users.users, np.uint64(1))[at]
    share = np.uint64(page_size << PSS_SHIFT) // np.maximum(users, np.uint64(1))
    add_masked(swap_pss, pages.vma[rows], share, np.ones(len(rows), bool))


def add_masked(column: I64, vma: I64, amount: U64, mask: Bool) -> None:
    first, last = int(vma[0]), int(vma[-1]) + 1
    add_where(column[first:last], mask, vma - first, amount.astype(np.float64))


def vmflags(table: Table, row: int) -> list[str] | None:
    """Return the VmFlags codes of a VMA in smaps' order, ``??`` for a bit it has no code for."""
    if table.vmas.flags is None:
        return None
    facts = table.walk.facts
    return list(codes_of(int(table.vmas.flags[row]), facts.architecture, facts.release))


def column(table: Table, name: str) -> list[Any] | None:
    """Return ``name`` of each VMA: an amount, an edge, rights, its name, VmFlags; None: withheld.

    Addresses are numbers, the others are text.
    """
    vmas = table.vmas
    if name in table.columns:
        values = table.columns[name]
        return None if values is None else values.tolist()
    if name == "vm_flags":
        return None if vmas.flags is None else [
            " ".join(vmflags(table, row) or ()) for row in range(len(vmas))]
    if name == "perms":
        return [perms_text(perms) for perms in vmas.perms.tolist()]
    return list(vmas.name) if name == "name" else getattr(vmas, name).tolist()


@cache  # thousands of VMAs share a few words
def codes_of(word: int, architecture: str, release: tuple[int, int]) -> tuple[str, ...]:
    # here: procfs, which tells no vm_flags, needs no format
    from pagewalk.pagetables.arch import ARCHES

    codes = vmflag_codes(release) | ARCHES[architecture].vm_flag_codes(release)
    found = (codes.get(bit, "??") for bit in range(64) if word >> bit & 1)
    return tuple(code for code in found if code)


def protection_key(table: Table, row: int) -> int | None:
    """Return the protection key of a VMA (vma_pkey).

    None if vm_flags is not known, or if the CPU has no keys: smaps then has no such line.
    """
    facts = table.walk.facts
    if table.vmas.flags is None or not facts.protection_keys:
        return None
    from pagewalk.pagetables.arch import ARCHES

    return ARCHES[facts.architecture].protection_key(int(table.vmas.flags[row]))


def with_particulars(table: Table, source: Source) -> Table:
    """Return ``table``, of a walk of ``source``, with the particulars of its VMAs."""
    from pagewalk.sources.particulars import read_particulars

    found, why = read_particulars(source, table.vmas)
    table.outcome.withheld.extend(why)
    return replace(table, particulars=found)


def others(table: Table, row: int) -> dict[str, int | None]:
    """Return the fields of a VMA that are not amounts, sizes in bytes.

    All of OTHER_FIELDS, or only the protection key if ``table`` has no particulars.
    """
    key, more = protection_key(table, row), table.particulars
    if more is None:
        return {"protection_key": key}
    size, eligible = more.of(row)
    return dict(zip(OTHER_FIELDS.values(), (size, size, eligible, key), strict=True))
