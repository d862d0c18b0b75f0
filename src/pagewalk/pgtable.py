"""The page-table walk: one loop for every architecture, level by level, memory by a callback.

A table is read whole, all tables of a level together, and decoded as columns. The walk goes depth
first over groups of tables, so that it yields in address order and holds one group a level,
however large the target. Nothing here does I/O or keeps state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeAlias, TypeVar

import numpy as np

from pagewalk.errors import BadRequest
from pagewalk.pages import I64, U8, U32, U64, Bool, Flag, Holes, Leaves, join, take
from pagewalk.paging import Arch, Level

ReadTables: TypeAlias = Callable[[U64], tuple[U64, Bool]]

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
            Why.FRAME: "its frame is beyond the end of RAM",
            Why.RESERVED: "it has reserved bits set, or cannot be at this level",
        }[self]


@dataclass(frozen=True, slots=True)
class Doubts:
    """Ranges whose entry no kernel writes, by ascending address: torn reads, or broken tables.

    ``addr`` u64, ``size`` u64 bytes, cut to the walk's ranges; ``level`` u8 of the entry (one more
    than the top's for the root itself); ``entry`` u64 raw word (the root's address for the root);
    ``why`` u8 (Why).
    """

    addr: U64
    size: U64
    level: U8
    entry: U64
    why: U8

    def __len__(self) -> int:
        return len(self.addr)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a part of a walk found; together the three tile the part's ranges exactly."""

    leaves: Leaves
    holes: Holes
    doubts: Doubts

    def __len__(self) -> int:
        return len(self.leaves) + len(self.holes) + len(self.doubts)


# Tables of one level that wait to be read. phys, addr (the first byte each maps), entry (the one
# that named it) u64[n]; rights u32[n], what the path allows; path u64[n, depth], the tables above.
@dataclass(frozen=True, slots=True)
class _Tables:
    phys: U64
    addr: U64
    entry: U64
    rights: U32
    path: U64

    def __len__(self) -> int:
        return len(self.phys)


# Non-empty entries picked out of some tables: table is the row of its table.
@dataclass(frozen=True, slots=True)
class _Entries:
    table: I64
    addr: U64
    entry: U64

    def __len__(self) -> int:
        return len(self.addr)


@dataclass(frozen=True, slots=True)
class _Walk:
    arch: Arch
    root: int
    read_tables: ReadTables
    start: U64
    end: U64
    group: int  # tables read at a time


_T = TypeVar("_T", Leaves, Holes, Doubts, _Tables, _Entries)


def walk_tables(
    arch: Arch,
    root: int,
    read_tables: ReadTables,
    ranges: U64,
    *,
    batch: int = 1 << 18,
    retries: int = 0,
) -> Iterator[Batch]:
    """Walk the tables under ``root`` and yield what maps ``ranges``, by ascending address.

    ``root``: physical address of the top table, bytes. ``read_tables(phys u64[n])`` returns
    (entries u64[n, slots], ok bool[n]); where not ok the entries are ignored. ``ranges``:
    u64[k, 2] half open, sorted, disjoint, page aligned, inside the user half; nothing outside is
    walked or reported. A batch has at most ``batch`` leaves. Holes of one level that touch are one
    row within a range and a batch. A huge leaf that a range cuts comes as aligned pieces. Entries
    in doubt are walked again ``retries`` times, because live tables change under the reader.

    Raises BadRequest for such ranges as cannot be.
    """
    start, end = _columns(arch, ranges)
    group = max(1, batch >> arch.levels[-1].bits)
    walk = _Walk(arch, root, read_tables, start, end, group)
    for _, part in _settle(walk, _from_root(walk, arch.user_end), retries):
        rest = part
        while len(rest.leaves) > batch:
            head, rest = _split(rest, int(rest.leaves.addr[batch]))
            yield head
        if len(rest):
            yield rest


def _columns(arch: Arch, ranges: U64) -> tuple[U64, U64]:
    cells = np.asarray(ranges, np.uint64).reshape(-1, 2)
    start, end = cells[:, 0].copy(), cells[:, 1].copy()
    if (start >= end).any() or (start[1:] < end[:-1]).any():
        raise BadRequest("cannot walk ranges that are empty, overlap or are out of order")
    if ((start | end) & np.uint64((1 << arch.page_shift) - 1)).any():
        raise BadRequest(f"cannot walk part of a page of {1 << arch.page_shift} bytes")
    if len(end) and int(end[-1]) > arch.user_end:
        raise BadRequest(
            f"cannot walk up to {int(end[-1]):#x}: user addresses end at {arch.user_end:#x}"
        )
    return start, end


# Yield (upto, rows): the rows are all there is below the address upto that was not yielded before.
_Parts: TypeAlias = Iterator[tuple[int, Batch]]


def _from_root(walk: _Walk, limit: int) -> _Parts:
    return _descend(walk, 0, _root(walk), limit) if len(walk.start) else iter(())


def _root(walk: _Walk) -> _Tables:
    root = np.array([walk.root], np.uint64)
    nothing = np.zeros(1, np.uint64)
    return _Tables(root, nothing, root, np.array([RIGHTS], np.uint32), np.zeros((1, 0), np.uint64))


def _descend(walk: _Walk, depth: int, tables: _Tables, limit: int) -> _Parts:
    for first in range(0, len(tables), walk.group):
        after = first + walk.group
        end = int(tables.addr[after]) if after < len(tables) else limit
        rows, below = _scan(walk, depth, _take(tables, slice(first, after)))
        if not len(below):
            yield end, rows
        else:
            yield from _weave(rows, _descend(walk, depth + 1, below, end))


# Rows of one level, dealt out over the parts of the walk below it.
def _weave(rows: Batch, parts: _Parts) -> _Parts:
    for upto, below in parts:
        here, rows = _split(rows, upto)
        yield upto, _merge(here, below)


def _settle(walk: _Walk, parts: _Parts, retries: int) -> _Parts:
    for upto, rows in parts:
        if not retries or not len(rows.doubts):
            yield upto, rows
            continue
        start, end = rows.doubts.addr, rows.doubts.addr + rows.doubts.size
        again = replace(walk, start=start, end=end)
        sure = replace(rows, doubts=_take(rows.doubts, slice(0, 0)))
        yield from _weave(sure, _settle(again, _from_root(again, upto), retries - 1))


def _take(columns: _T, rows: Bool | I64 | slice) -> _T:
    return take(columns, rows)  # type: ignore[type-var]


def _join(a: _T, b: _T) -> _T:
    if not len(a) or not len(b):
        return a if len(a) else b
    both = join([a, b])  # type: ignore[type-var]
    return _take(both, np.argsort(both.addr, kind="stable"))


def _merge(a: Batch, b: Batch) -> Batch:
    return Batch(_join(a.leaves, b.leaves), _join(a.holes, b.holes), _join(a.doubts, b.doubts))


def _split(rows: Batch, addr: int) -> tuple[Batch, Batch]:
    a, b, c = (
        int(np.searchsorted(columns.addr, np.uint64(addr)))
        for columns in (rows.leaves, rows.holes, rows.doubts)
    )
    leaves, holes, doubts = rows.leaves, rows.holes, rows.doubts
    return (
        Batch(_take(leaves, slice(a)), _take(holes, slice(b)), _take(doubts, slice(c))),
        Batch(
            _take(leaves, slice(a, None)),
            _take(holes, slice(b, None)),
            _take(doubts, slice(c, None)),
        ),
    )


# Read some tables of one level; return what they hold, and the tables they name.
def _scan(walk: _Walk, depth: int, tables: _Tables) -> tuple[Batch, _Tables]:
    entries, ok = walk.read_tables(tables.phys)
    if ok.all():
        return _decode(walk, depth, tables, entries)
    rows, below = _decode(walk, depth, _take(tables, ok), entries[ok])
    lost = _take(tables, ~ok)
    span = walk.arch.levels[depth].span
    why = np.full(len(lost), Why.TABLE, np.uint8)
    doubts = _doubts(walk, depth - 1, lost.addr, span, lost.entry, why)
    return replace(rows, doubts=_join(rows.doubts, doubts)), below


def _decode(walk: _Walk, depth: int, tables: _Tables, entries: U64) -> tuple[Batch, _Tables]:
    arch, level = walk.arch, walk.arch.levels[depth]
    entries = entries[:, : 1 << level.bits]
    none, inside = arch.none(arch, entries, level), _inside(walk, tables, level)
    holes = _holes(walk, level, tables, none & inside)
    slot = np.flatnonzero(~none & inside)
    addr = _address(tables, level, slot)
    found = _Entries(slot >> level.bits, addr, entries.reshape(-1)[slot])
    if depth == len(arch.levels) - 1:
        leaves, doubts = _leaves(walk, depth, tables, found)
        return Batch(leaves, holes, doubts), _take(tables, slice(0, 0))
    names_table = arch.table(arch, found.entry, level)
    below, astray = _below(walk, depth, tables, _take(found, names_table))
    leaves, doubts = _leaves(walk, depth, tables, _take(found, ~names_table))
    return Batch(leaves, holes, _join(doubts, astray)), below


# Which slots of the tables meet a range, bool[n, slots]; a plain True if all of all of them do.
def _inside(walk: _Walk, tables: _Tables, level: Level) -> Bool:
    table, start, end = _cut(walk, tables.addr, tables.addr + np.uint64(level.span))
    if len(table) == len(tables) and (end - start == np.uint64(level.span)).all():
        return np.ones((1, 1), np.bool_)
    shift, last = np.uint64(level.shift), np.uint64((1 << level.shift) - 1)
    base = tables.addr[table]
    # +1 where a range begins and -1 after it ends: a running sum is above 0 inside one
    edges = np.zeros((len(tables), (1 << level.bits) + 1), np.int32)
    np.add.at(edges, (table, ((start - base) >> shift).astype(np.int64)), 1)
    np.add.at(edges, (table, ((end - base + last) >> shift).astype(np.int64)), -1)
    inside: Bool = np.cumsum(edges, axis=1)[:, :-1] > 0
    return inside


# The walk's ranges cut the intervals [start, end) into (row of the interval, start, end) each.
def _cut(walk: _Walk, start: U64, end: U64) -> tuple[I64, U64, U64]:
    first = np.searchsorted(walk.end, start, side="right")
    count = np.searchsorted(walk.start, end, side="left") - first
    row = np.repeat(np.arange(len(start)), count)
    which = np.arange(len(row)) - np.repeat(np.cumsum(count) - count - first, count)
    return row, np.maximum(start[row], walk.start[which]), np.minimum(end[row], walk.end[which])


def _holes(walk: _Walk, level: Level, tables: _Tables, none: Bool) -> Holes:
    flat = none.reshape(-1)
    begins, ends = flat.copy(), flat.copy()
    begins[1:] &= ~flat[:-1]
    ends[:-1] &= ~flat[1:]
    # a run does not cross from one table to the next unless their addresses touch
    gap = np.flatnonzero(np.diff(tables.addr) != np.uint64(level.span)) + 1 << level.bits
    begins[gap] = flat[gap]
    ends[gap - 1] = flat[gap - 1]
    start = _address(tables, level, np.flatnonzero(begins))
    end = _address(tables, level, np.flatnonzero(ends)) + np.uint64(1 << level.shift)
    _, start, end = _cut(walk, start, end)
    return Holes(start, end - start, np.full(len(start), level.number, np.uint8))


# The address that each slot of the tables, counted through, maps first.
def _address(tables: _Tables, level: Level, slot: I64) -> U64:
    index = (slot & ((1 << level.bits) - 1)).astype(np.uint64)
    addr: U64 = tables.addr[slot >> level.bits] + (index << np.uint64(level.shift))
    return addr


def _doubts(walk: _Walk, depth: int, addr: U64, size: int, entry: U64, why: U8) -> Doubts:
    row, start, end = _cut(walk, addr, addr + np.uint64(size))
    number = walk.arch.levels[max(depth, 0)].number + (depth < 0)
    level = np.full(len(row), number, np.uint8)
    return Doubts(start, end - start, level, entry[row], why[row])


def _below(walk: _Walk, depth: int, tables: _Tables, found: _Entries) -> tuple[_Tables, Doubts]:
    arch, level = walk.arch, walk.arch.levels[depth]
    phys = arch.address(arch, found.entry)
    path = np.column_stack([tables.path, tables.phys])[found.table]
    rights = tables.rights[found.table] & arch.rights(arch, found.entry, level)
    below = _Tables(phys, found.addr, found.entry, rights, path)
    astray = phys >> np.uint64(arch.page_shift) > np.uint64(arch.last_ram_frame)
    bad = astray | (path == phys[:, None]).any(axis=1)
    why = np.where(astray, Why.TABLE, Why.CYCLE).astype(np.uint8)
    wrong = _take(found, bad)
    doubts = _doubts(walk, depth, wrong.addr, 1 << level.shift, wrong.entry, why[bad])
    return _take(below, ~bad), doubts


def _leaves(walk: _Walk, depth: int, tables: _Tables, found: _Entries) -> tuple[Leaves, Doubts]:
    arch, level = walk.arch, walk.arch.levels[depth]
    flags, pfn = arch.decode(arch, found.entry, level)
    # a table above may have taken rights away
    if (tables.rights != RIGHTS).any():
        flags &= tables.rights[found.table] | ~RIGHTS
    reserved = arch.reserved(arch, found.entry, level)
    bad = reserved | _impossible(arch, flags, pfn)
    shift = np.full(len(found), level.shift, np.uint8)
    leaves = Leaves(found.addr, shift, found.entry, flags, pfn)
    why = np.where(reserved, Why.RESERVED, Why.FRAME).astype(np.uint8)[bad]
    wrong = _take(found, bad)
    doubts = _doubts(walk, depth, wrong.addr, 1 << level.shift, wrong.entry, why)
    if len(wrong):
        leaves = _take(leaves, ~bad)
    return leaves if level.shift == arch.page_shift else _trim(walk, leaves), doubts


def _impossible(arch: Arch, flags: U32, pfn: U64) -> Bool:
    bad = pfn > np.uint64(arch.last_ram_frame)
    if bad.any():
        # device memory and PFN maps lie outside RAM
        elsewhere = (flags & np.uint32(Flag.SPECIAL | Flag.DEVICE)) != 0
        bad &= ~elsewhere | (pfn > np.uint64(arch.last_frame))
    return bad


# Huge leaves that reach out of the ranges, cut into the largest aligned pieces inside them.
def _trim(walk: _Walk, leaves: Leaves) -> Leaves:
    size = np.uint64(1) << leaves.shift.astype(np.uint64)
    row, start, end = _cut(walk, leaves.addr, leaves.addr + size)
    whole = end - start == size[row]
    if whole.all():
        return _take(leaves, row)
    parts = [_take(leaves, row[whole])]
    # a leaf is cut only at the two ends of a range, so this loop is short
    for i in np.flatnonzero(~whole):
        parts.append(_pieces(walk.arch, _take(leaves, row[i : i + 1]), int(start[i]), int(end[i])))
    cut = join(parts)
    return _take(cut, np.argsort(cut.addr, kind="stable"))


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
    pieces = _take(leaf, np.zeros(len(shifts), np.int64))
    assert pieces.pfn is not None
    offset = (first - leaf.addr) >> np.uint64(arch.page_shift)
    framed = (pieces.flags & np.uint32(Flag.PRESENT) != 0) | (pieces.pfn != 0)
    pfn = np.where(framed, pieces.pfn + offset, pieces.pfn)
    return replace(pieces, addr=first, shift=shift, pfn=pfn)
