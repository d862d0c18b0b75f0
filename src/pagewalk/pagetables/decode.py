"""Decode page tables of one level: their entries in some ranges, and the tables they point to.

Pure; ``walk`` decides which tables are read, and when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import numpy as np

from pagewalk.model.columns import I64, U8, U32, U64, Bool, Flag, Holes, Leaves, Rows, join, take
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.pagetables.format import Arch, Level

ReadTables: TypeAlias = Callable[[U64], tuple[U64, Bool]]
# The physical address of a top table, or of several (u64): see Scope.
Root: TypeAlias = int | U64

RIGHTS = np.uint32(Flag.WRITE | Flag.USER | Flag.EXEC)


class Why(IntEnum):
    """Why an entry is in doubt (Doubts.why)."""

    TABLE = 0
    CYCLE = 1
    FRAME = 2
    RESERVED = 3

    @property
    def label(self) -> str:
        """Return the reason in words."""
        return {
            Why.TABLE: "the table it names is outside RAM or cannot be read",
            Why.CYCLE: "the table it names is one it was reached through",
            Why.FRAME: "its frame is beyond the end of memory",
            Why.RESERVED: "it has reserved bits set, or cannot be at this level",
        }[self]


class Doubts(Rows):
    """Ranges with an entry that no kernel writes, in address order: torn reads or broken tables.

    ``addr`` u64, ``size`` u64 bytes, cut to the walk's ranges; ``level`` u8 of the entry (one more
    than the top's for the root itself); ``entry`` u64 raw word (the root's address for the root);
    ``why`` u8 (Why).
    """

    addr: U64
    size: U64
    level: U8
    entry: U64
    why: U8


_NO_WORDS, _NO_BYTES = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
NO_LEAVES = Leaves(_NO_WORDS, _NO_BYTES, _NO_WORDS, np.zeros(0, np.uint32), _NO_WORDS)
NO_HOLES = Holes(_NO_WORDS, _NO_WORDS, _NO_BYTES)
NO_DOUBTS = Doubts(_NO_WORDS, _NO_WORDS, _NO_BYTES, _NO_WORDS, _NO_BYTES)


@dataclass(frozen=True, eq=False)
class Entries:
    """The result of a part of a walk; together the three cover the part's ranges exactly."""

    leaves: Leaves
    holes: Holes
    doubts: Doubts

    def __len__(self) -> int:
        return len(self.leaves) + len(self.holes) + len(self.doubts)


NO_ENTRIES = Entries(NO_LEAVES, NO_HOLES, NO_DOUBTS)


class Tables(Rows):
    """Tables of one level that are still to be read, in address order.

    ``phys`` and ``addr`` (the first byte each maps) u64[n] bytes; ``entry`` u64[n], the word that
    named it; ``rights`` u32[n], what the path to it allows; ``path`` u64[n, depth], the physical
    addresses of the tables above it.
    """

    phys: U64
    addr: U64
    entry: U64
    rights: U32
    path: U64


# Non-empty entries picked out of some tables: table is the row of its table.
class _Words(Rows):
    table: I64
    addr: U64
    entry: U64


class Scope(NamedTuple):
    """An address space, and the sorted ranges of it (``start``, ``end`` u64) to walk.

    Several are one in which each has ``arch.user_end`` addresses: those of the k-th of ``roots``
    (u64, physical addresses of top tables) begin at k times that. ``seen`` i64[6, roots], if given,
    is increased by how many tables were read, by level number.
    """

    arch: Arch
    roots: U64
    read_tables: ReadTables
    start: U64
    end: U64
    seen: I64 | None = None

    def note(self, depth: int, tables: Tables) -> None:
        """Count ``tables``, of the level at ``depth``, as read."""
        if self.seen is not None:
            number, owner = self.arch.levels[depth].number, tables.addr // np.uint64(
                self.arch.user_end)
            np.add.at(self.seen[number], owner.astype(np.intp), 1)


_Columns = TypeVar("_Columns", Leaves, Holes, Doubts)


def open_scope(arch: Arch, root: Root, read_tables: ReadTables, ranges: U64) -> Scope:
    """Return the Scope for ``ranges`` u64[k, 2]; raises BadRequest if they are invalid."""
    roots = np.atleast_1d(np.asarray(root, np.uint64))
    limit = len(roots) * arch.user_end
    cells = np.asarray(ranges, np.uint64).reshape(-1, 2)
    start, end = cells[:, 0].copy(), cells[:, 1].copy()
    if (start >= end).any() or (start[1:] < end[:-1]).any():
        raise BadRequest("cannot walk ranges that are empty, overlap or are out of order")
    if ((start | end) & np.uint64((1 << arch.page_shift) - 1)).any():
        raise BadRequest(f"cannot walk part of a page of {1 << arch.page_shift} bytes")
    if len(end) and int(end[-1]) > limit:
        raise BadRequest(f"cannot walk up to {int(end[-1]):#x}: user addresses end at {limit:#x}")
    return Scope(arch, roots, read_tables, start, end)


def root_table(scope: Scope) -> Tables:
    """Return the top table of each address space, or nothing if there are no ranges."""
    roots, count = scope.roots, len(scope.roots)
    begin = np.arange(count, dtype=np.uint64) * np.uint64(scope.arch.user_end)
    rights = np.full(count, RIGHTS, np.uint32)
    top = Tables(roots, begin, roots, rights, np.zeros((count, 0), np.uint64))
    return top if len(scope.start) else take(top, slice(0))


def in_order(parts: list[_Columns]) -> _Columns:
    """Return the rows of all ``parts`` (one or more), by ascending address."""
    filled = [part for part in parts if len(part)]
    if len(filled) < 2:
        return (filled or parts)[0]
    rows = join(filled)
    return take(rows, np.argsort(rows.addr, kind="stable"))


def merge(a: Entries, b: Entries) -> Entries:
    """Return the rows of both, by ascending address."""
    leaves, holes = in_order([a.leaves, b.leaves]), in_order([a.holes, b.holes])
    return Entries(leaves, holes, in_order([a.doubts, b.doubts]))


def split(rows: Entries, addr: int) -> tuple[Entries, Entries]:
    """Return the rows that begin below ``addr``, and the others."""
    leaves, later_leaves = _split(rows.leaves, addr)
    holes, later_holes = _split(rows.holes, addr)
    doubts, later_doubts = _split(rows.doubts, addr)
    return Entries(leaves, holes, doubts), Entries(later_leaves, later_holes, later_doubts)


def _split(columns: _Columns, addr: int) -> tuple[_Columns, _Columns]:
    at = int(np.searchsorted(columns.addr, np.uint64(addr)))
    return take(columns, slice(at)), take(columns, slice(at, None))


def scan(scope: Scope, depth: int, tables: Tables) -> tuple[Entries, Tables]:
    """Read tables of one level; return their entries, and the tables they point to.

    ``depth`` is the row of the level in ``scope.arch.levels``.
    """
    entries, ok = scope.read_tables(tables.phys)
    if ok.all():
        return _decode(scope, depth, tables, entries)
    rows, below = _decode(scope, depth, take(tables, ok), entries[ok])
    return _with_lost(scope, depth, rows, take(tables, ~ok)), below


# Adds a doubt for each of the tables, which could not be read.
def _with_lost(scope: Scope, depth: int, rows: Entries, tables: Tables) -> Entries:
    span, why = scope.arch.levels[depth].span, np.full(len(tables), Why.TABLE.value, np.uint8)
    lost = _doubts(scope, depth - 1, tables.addr, span, tables.entry, why)
    return replace(rows, doubts=in_order([rows.doubts, lost]))


def _decode(scope: Scope, depth: int, tables: Tables, entries: U64) -> tuple[Entries, Tables]:
    arch, level = scope.arch, scope.arch.levels[depth]
    entries = entries[:, : 1 << level.bits]
    none, inside = arch.none(entries, level), _inside(scope, tables, level)
    holes = _holes(scope, level, tables, none & inside)
    slot = np.flatnonzero(~none & inside)
    addr = _address(tables, level, slot)
    found = _Words(slot >> level.bits, addr, entries.reshape(-1)[slot])
    leaves, doubts, below = _named(scope, depth, tables, found)
    return Entries(leaves, holes, doubts), below


def sift(
    scope: Scope, depth: int, tables: Tables, entries: U64, ok: Bool, found: U64
) -> tuple[Entries, Tables]:
    """Return what ``scan`` does except holes, in a third of the time.

    ``entries`` u64[n, slots] and ``ok`` are what was read of ``tables``. Adds to ``found`` u64[k]
    the bytes of each range with entries.
    """
    if not ok.all():
        rows, below = sift(scope, depth, take(tables, ok), entries[ok], ok[ok], found)
        return _with_lost(scope, depth, rows, take(tables, ~ok)), below
    arch, level = scope.arch, scope.arch.levels[depth]
    entries = entries[:, : 1 << level.bits]
    slot = np.flatnonzero(~arch.none(entries, level))
    addr = _address(tables, level, slot)
    size = np.uint64(1 << level.shift)
    if depth == len(arch.levels) - 1:
        owner = np.searchsorted(scope.start, addr, side="right") - 1
        inside = np.flatnonzero((owner >= 0) & (addr < scope.end[owner]))
        np.add.at(found, owner[inside], size)
    else:
        row, owner, start, end = _cut(scope, addr, addr + size)
        np.add.at(found, owner, end - start)
        inside = row[np.diff(row, prepend=-1) != 0]
    if len(inside) < len(slot):
        slot, addr = slot[inside], addr[inside]
    some = _Words(slot >> level.bits, addr, entries.reshape(-1)[slot])
    leaves, doubts, below = _named(scope, depth, tables, some)
    return Entries(leaves, NO_HOLES, doubts), below


# What entries point to: leaves, doubts, and tables below.
def _named(
    scope: Scope, depth: int, tables: Tables, found: _Words
) -> tuple[Leaves, Doubts, Tables]:
    if depth == len(scope.arch.levels) - 1:
        return *_leaves(scope, depth, tables, found), take(tables, slice(0, 0))
    names_table = scope.arch.table(found.entry, scope.arch.levels[depth])
    if names_table.all():
        below, astray = _below(scope, depth, tables, found)
        return NO_LEAVES, astray, below
    below, astray = _below(scope, depth, tables, take(found, names_table))
    leaves, doubts = _leaves(scope, depth, tables, take(found, ~names_table))
    return leaves, in_order([doubts, astray]), below


# Which slots of the tables overlap a range, bool[n, slots]; a plain True if all slots do.
def _inside(scope: Scope, tables: Tables, level: Level) -> Bool:
    table, _, start, end = _cut(scope, tables.addr, tables.addr + np.uint64(level.span))
    if len(table) == len(tables) and (end - start == np.uint64(level.span)).all():
        return np.ones((1, 1), np.bool_)
    shift, last = np.uint64(level.shift), np.uint64((1 << level.shift) - 1)
    base = tables.addr[table]
    # +1 where a range begins and -1 after it ends: a running sum is above 0 inside one
    edges = np.zeros((len(tables), (1 << level.bits) + 1), np.int32)
    np.add.at(edges, (table, ((start - base) >> shift).astype(np.int64)), 1)
    np.add.at(edges, (table, ((end - base + last) >> shift).astype(np.int64)), -1)
    return np.cumsum(edges, axis=1)[:, :-1] > 0


# The intervals [start, end) cut by the walk's ranges: row of the interval, row of the range, start
# and end of each piece.
def _cut(scope: Scope, start: U64, end: U64) -> tuple[I64, I64, U64, U64]:
    first = np.searchsorted(scope.end, start, side="right")
    count = np.searchsorted(scope.start, end, side="left") - first
    row = np.repeat(np.arange(len(start)), count)
    which = np.arange(len(row)) - np.repeat(np.cumsum(count) - count - first, count)
    start, end = start[row], end[row]
    return row, which, np.maximum(start, scope.start[which]), np.minimum(end, scope.end[which])


def _holes(scope: Scope, level: Level, tables: Tables, none: Bool) -> Holes:
    if not none.any():
        return NO_HOLES
    flat = none.reshape(-1)
    begins, ends = flat.copy(), flat.copy()
    begins[1:] &= ~flat[:-1]
    ends[:-1] &= ~flat[1:]
    # a run does not continue from one table to the next unless their addresses are adjacent
    gap = np.flatnonzero(np.diff(tables.addr) != np.uint64(level.span)) + 1 << level.bits
    begins[gap] = flat[gap]
    ends[gap - 1] = flat[gap - 1]
    start = _address(tables, level, np.flatnonzero(begins))
    end = _address(tables, level, np.flatnonzero(ends)) + np.uint64(1 << level.shift)
    _, _, start, end = _cut(scope, start, end)
    return Holes(start, end - start, np.full(len(start), level.number, np.uint8))


# The first address that each slot maps; slots are numbered through all tables.
def _address(tables: Tables, level: Level, slot: I64) -> U64:
    inside = (slot & (1 << level.bits) - 1).view(np.uint64) << np.uint64(level.shift)
    addr: U64 = tables.addr[slot >> level.bits] + inside
    return addr


def _doubts(scope: Scope, depth: int, addr: U64, size: int, entry: U64, why: U8) -> Doubts:
    if not len(addr):
        return NO_DOUBTS
    row, _, start, end = _cut(scope, addr, addr + np.uint64(size))
    number = scope.arch.levels[max(depth, 0)].number + (depth < 0)
    level = np.full(len(row), number, np.uint8)
    return Doubts(start, end - start, level, entry[row], why[row])


def _below(scope: Scope, depth: int, tables: Tables, found: _Words) -> tuple[Tables, Doubts]:
    arch, level = scope.arch, scope.arch.levels[depth]
    phys = arch.address(found.entry)
    path = np.column_stack([tables.path, tables.phys])[found.table]
    rights = tables.rights[found.table] & arch.rights(found.entry, level)
    below = Tables(phys, found.addr, found.entry, rights, path)
    astray = phys >> np.uint64(arch.page_shift) > np.uint64(arch.last_ram_frame)
    bad = astray | (path == phys[:, None]).any(axis=1)
    if not bad.any():
        return below, NO_DOUBTS
    why = np.where(astray, Why.TABLE.value, Why.CYCLE.value).astype(np.uint8)
    wrong = take(found, bad)
    doubts = _doubts(scope, depth, wrong.addr, 1 << level.shift, wrong.entry, why[bad])
    return take(below, ~bad), doubts


def _leaves(scope: Scope, depth: int, tables: Tables, found: _Words) -> tuple[Leaves, Doubts]:
    if not len(found):
        return NO_LEAVES, NO_DOUBTS
    arch, level = scope.arch, scope.arch.levels[depth]
    flags, pfn = arch.decode(found.entry, level)
    # a table above may have taken rights away
    if (tables.rights != RIGHTS).any():
        flags &= tables.rights[found.table] | ~RIGHTS
    reserved = arch.reserved(found.entry, level)
    bad = reserved | _impossible(arch, flags, pfn)
    shift = np.full(len(found), level.shift, np.uint8)
    leaves = Leaves(found.addr, shift, found.entry, flags, pfn)
    wrong = np.flatnonzero(bad)
    why = np.where(reserved[wrong], Why.RESERVED.value, Why.FRAME.value).astype(np.uint8)
    doubts = _doubts(scope, depth, found.addr[wrong], 1 << level.shift, found.entry[wrong], why)
    if len(wrong):
        leaves = take(leaves, ~bad)
    return leaves if level.shift == arch.page_shift else _trim(scope, leaves), doubts


def _impossible(arch: Arch, flags: U32, pfn: U64) -> Bool:
    bad = pfn > np.uint64(arch.last_page_frame)
    if bad.any():
        # memory without struct pages is outside: PFN maps, and entries for a GPU's own memory
        elsewhere = (flags & np.uint32(Flag.SPECIAL | Flag.DEVICE)) != 0
        bad &= ~elsewhere | (pfn > np.uint64(arch.last_frame))
    return bad


# Huge leaves that extend beyond the ranges, cut into the largest aligned pieces inside them.
def _trim(scope: Scope, leaves: Leaves) -> Leaves:
    row, _, start, end = _cut(scope, leaves.addr, leaves.addr + leaves.size)
    whole = end - start == leaves.size[row]
    if whole.all():
        return take(leaves, row)
    # a leaf is cut only at the two ends of a range, so this loop is short
    cut = [
        _pieces(scope.arch, take(leaves, row[i : i + 1]), int(start[i]), int(end[i]))
        for i in np.flatnonzero(~whole)
    ]
    return in_order([take(leaves, row[whole]), *cut])


def _pieces(arch: Arch, leaf: Leaves, start: int, end: int) -> Leaves:
    shifts = []
    addr = start
    while addr < end:
        room = (end - addr).bit_length() - 1
        shifts.append(min(room, (addr & -addr).bit_length() - 1 if addr else room))
        addr += 1 << shifts[-1]
    shift = np.array(shifts, np.uint8)
    size = np.uint64(1) << shift.astype(np.uint64)
    first = np.uint64(start) + np.cumsum(size) - size
    pieces = take(leaf, np.zeros(len(shifts), np.int64))
    assert pieces.pfn is not None
    offset = (first - leaf.addr) >> np.uint64(arch.page_shift)
    framed = (pieces.flags & np.uint32(Flag.PRESENT) != 0) | (pieces.pfn != 0)
    pfn = np.where(framed, pieces.pfn + offset, pieces.pfn)
    return replace(pieces, addr=first, shift=shift, pfn=pfn)
